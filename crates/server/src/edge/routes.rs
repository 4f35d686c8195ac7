//! Which routes there are and who may use them, read from the OpenAPI document.
//!
//! The document is the one list: an operation that is not in it does not exist, and one that does not
//! say who may call it stops the program at start.

use auspex_kernel::{ApiError, Scope};
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use crate::metrics::RouteMetrics;

/// Cheap, and asked by who decides over life and death.
const PROBES: [&str; 2] = ["/health/live", "/health/ready"];

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Whoever is logged in.
    Caller,
    /// Whoever has the scope.
    Scope(Scope),
}

/// One operation.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: String,
    pub(crate) method: Method,
    pub(crate) access: Access,
    /// Asked by an orchestrator, which would restart the program over a refusal: never limited.
    pub(crate) is_probe: bool,
    pub(crate) metrics: RouteMetrics,
}

impl Route {
    /// Whether its handler answers from memory, on the thread that met the request.
    pub(crate) fn predicts(&self) -> bool {
        self.access == Access::Scope(Scope::Predict)
    }
}

/// The document does not say what it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("{method} {path} does not declare who may call it")]
    NoAccess { method: String, path: String },
    #[error("{method} {path} declares \"{requirement}\", which is no access rule")]
    BadAccess {
        method: String,
        path: String,
        requirement: String,
    },
    #[error("two routes clash: {0}")]
    Clash(#[from] matchit::InsertError),
}

/// All operations by path and method, and the handlers behind them. It never changes: a table that
/// is different takes its place.
#[derive(Debug)]
pub(crate) struct RouteTable {
    paths: matchit::Router<Methods>,
    pub(crate) handlers: axum::Router,
}

#[derive(Debug)]
struct Methods {
    routes: Vec<Route>,
    allow: HeaderValue,
}

impl RouteTable {
    /// Reads the operations of an OpenAPI document; `pages` are public GET templates beside it.
    pub(crate) fn new(
        document: &Value,
        pages: &[&str],
        handlers: axum::Router,
        metrics: impl Fn(&str, &Method) -> RouteMetrics,
    ) -> Result<Self, RouteError> {
        let mut paths = matchit::Router::new();
        let documented = document["paths"].as_object().into_iter().flatten();
        for (path, item) in documented {
            let operations = item.as_object().into_iter().flatten();
            let routes = operations
                .filter_map(|(name, operation)| Some((method_of(name)?, operation)))
                .map(|(method, operation)| {
                    let access = access_of(path, &method, operation)?;
                    let metrics = metrics(path, &method);
                    Ok(Route {
                        template: path.clone(),
                        is_probe: PROBES.contains(&path.as_str()),
                        method,
                        access,
                        metrics,
                    })
                })
                .collect::<Result<Vec<_>, RouteError>>()?;
            paths.insert(path, Methods::new(routes))?;
        }
        for page in pages {
            let route = Route {
                template: (*page).to_owned(),
                is_probe: false,
                method: Method::GET,
                access: Access::Public,
                metrics: metrics(page, &Method::GET),
            };
            paths.insert(*page, Methods::new(vec![route]))?;
        }
        Ok(Self { paths, handlers })
    }

    /// The methods that a path takes, as `Allow` lists them.
    pub(crate) fn methods(&self, path: &str) -> Option<&HeaderValue> {
        let found = self.paths.at(path).ok()?;
        Some(&found.value.allow)
    }

    /// The operation for a request.
    ///
    /// # Errors
    /// 404, or 405 with `Allow`; the same for everybody.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<&Route, ApiError> {
        let Ok(found) = self.paths.at(path) else {
            return Err(ApiError::not_found(
                "there is nothing at this path; see /openapi.json",
            ));
        };
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let methods = found.value;
        methods
            .routes
            .iter()
            .find(|route| route.method == wanted)
            .ok_or_else(|| {
                ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "METHOD_NOT_ALLOWED",
                    "this path does not take that method; see the Allow header",
                )
                .with_header(header::ALLOW, methods.allow.clone())
            })
    }
}

impl Methods {
    fn new(routes: Vec<Route>) -> Self {
        let mut names: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        let allow = HeaderValue::from_str(&names.join(", ")).expect("method names are ASCII");
        Self { routes, allow }
    }
}

fn method_of(name: &str) -> Option<Method> {
    ["get", "put", "post", "delete", "patch"]
        .contains(&name)
        .then(|| name.to_uppercase().parse().ok())?
}

/// `security: []` or `[{}]` is public, `[{"bearer": []}]` any caller, `[{"bearer": ["s"]}]` scope s.
fn access_of(path: &str, method: &Method, operation: &Value) -> Result<Access, RouteError> {
    let missing = || RouteError::NoAccess {
        method: method.to_string(),
        path: path.to_owned(),
    };
    let requirements = operation["security"].as_array().ok_or_else(missing)?;
    let mut scopes: Vec<&Value> = requirements
        .iter()
        .flat_map(|requirement| requirement.as_object().into_iter().flat_map(|r| r.values()))
        .collect();
    scopes.dedup();
    let bad = |requirement: &Value| RouteError::BadAccess {
        method: method.to_string(),
        path: path.to_owned(),
        requirement: requirement.to_string(),
    };
    match scopes.as_slice() {
        [] => Ok(Access::Public),
        [one] => match one.as_array().map(Vec::as_slice) {
            Some([]) => Ok(Access::Caller),
            Some([Value::String(scope)]) => scope.parse().map(Access::Scope).map_err(|_| bad(one)),
            _ => Err(bad(one)),
        },
        _ => Err(bad(&operation["security"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn table(document: &Value) -> Result<RouteTable, RouteError> {
        let metrics = |_: &str, _: &Method| RouteMetrics::default();
        RouteTable::new(document, &["/docs/{*rest}"], axum::Router::new(), metrics)
    }

    #[test]
    fn routes_come_from_the_document() {
        let table = table(&json!({"paths": {
            "/health": {"get": {"security": [{}]}},
            "/v1/me": {"get": {"security": [{"api_key": []}, {"bearer": []}]}},
            "/v1/models/{model}": {
                "get": {"security": [{"api_key": ["models:read"]}, {"bearer": ["models:read"]}]},
                "delete": {"security": [{"api_key": ["models:write"]}]}},
        }}))
        .expect("valid");
        let access = |method: Method, path| table.find(&method, path).map(|r| r.access).ok();
        assert_eq!(access(Method::GET, "/health"), Some(Access::Public));
        assert_eq!(access(Method::HEAD, "/health"), Some(Access::Public));
        assert_eq!(access(Method::GET, "/v1/me"), Some(Access::Caller));
        let scope = Some(Access::Scope(Scope::ModelsWrite));
        assert_eq!(access(Method::DELETE, "/v1/models/x"), scope);
        assert_eq!(
            access(Method::GET, "/docs/index.html"),
            Some(Access::Public)
        );
        let refused = |method: Method, path| table.find(&method, path).map(|_| ()).expect_err("no");
        assert_eq!(refused(Method::GET, "/nowhere").status(), 404);
        assert_eq!(refused(Method::POST, "/v1/models/x").status(), 405);
        assert_eq!(refused(Method::OPTIONS, "/v1/models/x").status(), 405);
    }

    #[test]
    fn an_operation_without_an_access_rule_is_an_error() {
        for operation in [
            json!({}),
            json!({"security": [{"bearer": ["nonsense"]}]}),
            json!({"security": [{"bearer": ["predict", "models:read"]}]}),
            json!({"security": [{"bearer": ["predict"]}, {"api_key": ["models:read"]}]}),
        ] {
            assert!(table(&json!({"paths": {"/x": {"get": operation}}})).is_err());
        }
    }
}
