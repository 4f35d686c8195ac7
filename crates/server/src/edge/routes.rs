//! The table of all routes: who may use each of them, how the edge treats it, what answers it.
//!
//! Routes come from sources: the operations of each service's OpenAPI document, and its pages. An
//! operation that is not in the document does not exist, and one that does not say who may call it
//! stops the program at start. The table never changes; another one takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::body::{Bounded, Share};
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Policy, RenderError};
use auspex_kernel::quota::{RateLimit, SlidingWindow};
use auspex_kernel::service::Routes;
use auspex_kernel::{ApiError, Scope, ScopeSet};
use axum::body::Body;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use crate::metrics::RouteMetrics;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Everybody who is logged in.
    Caller,
    /// Callers that have the scope.
    Scope(Scope),
}

impl Access {
    /// Whether a caller with these scopes may call.
    pub(super) fn allows(self, scopes: ScopeSet) -> bool {
        match self {
            Access::Public | Access::Caller => true,
            Access::Scope(scope) => scopes.contains(scope),
        }
    }
}

/// The longest body from strangers: forms and credentials are short, and bodies that are on their way take
/// memory from others.
const PUBLIC_BODY_BYTES_MAX: usize = 64 << 10;

/// Bounds of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) body_bytes_max: usize,
    pub(crate) body_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

impl Limits {
    /// These limits, except where the policy sets its own.
    fn with(self, policy: &Policy, access: Access) -> Self {
        let usual = match access {
            Access::Public => self.body_bytes_max.min(PUBLIC_BODY_BYTES_MAX),
            Access::Caller | Access::Scope(_) => self.body_bytes_max,
        };
        Self {
            body_bytes_max: policy.body_bytes_max.unwrap_or(usual),
            body_timeout: policy.body_timeout.unwrap_or(self.body_timeout),
            request_timeout: policy.request_timeout.unwrap_or(self.request_timeout),
        }
    }

    /// The body within its bounds.
    pub(super) fn bound(&self, body: Body, share: Option<Arc<Share>>) -> Body {
        Body::new(Bounded::new(
            body,
            self.body_bytes_max,
            self.body_timeout,
            share,
        ))
    }
}

/// A route as its source declares it.
#[derive(Debug)]
pub(crate) struct Declared {
    template: String,
    method: Method,
    access: Access,
    policy: Policy,
    handlers: axum::Router,
}

/// A route in the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: String,
    pub(crate) method: Method,
    pub(crate) access: Access,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    /// Counts of its own, where its policy has them.
    pub(crate) callers: Option<Arc<SlidingWindow>>,
    pub(crate) addresses: Option<Arc<SlidingWindow>>,
    pub(crate) handlers: axum::Router,
    pub(crate) metrics: RouteMetrics,
}

/// A source does not declare what it must.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("{method} {path} does not declare who may call it")]
    NoAccess { method: String, path: String },
    #[error("{method} {path} declares \"{requirement}\", which is not an access rule")]
    BadAccess {
        method: String,
        path: String,
        requirement: String,
    },
    #[error("there is a policy for {0}, but no operation of that id")]
    NoOperation(&'static str),
    #[error("{0} has two policies; put what they say into one")]
    TwoPolicies(&'static str),
    #[error("{id}: {problem}")]
    BadLimit {
        id: &'static str,
        problem: ConfigError,
    },
    #[error("{method} {path} has no limits, and only a public route may be without")]
    Unlimited { method: String, path: String },
    #[error("{method} {path} is declared twice")]
    Twice { method: String, path: String },
    #[error("two routes clash: {0}")]
    Clash(#[from] matchit::InsertError),
}

/// All routes by path and method.
#[derive(Debug)]
pub(crate) struct RouteTable {
    paths: matchit::Router<Methods>,
    windows: Windows,
}

#[derive(Debug)]
struct Methods {
    routes: Vec<Arc<Route>>,
    allow: HeaderValue,
}

/// The routes of a service: its operations and its pages.
///
/// # Errors
/// [`RouteError`] for an operation without a rule, and for a policy without an operation, beside
/// another one, or with a limit that lets nothing through.
pub(crate) fn declared(routes: &Routes, operations: &Value) -> Result<Vec<Declared>, RouteError> {
    let mut policies = policies(routes)?;
    let mut found = Vec::new();
    for (path, item) in operations["paths"].as_object().into_iter().flatten() {
        for (name, operation) in item.as_object().into_iter().flatten() {
            let Some(method) = method_of(name) else {
                continue;
            };
            let id = operation["operationId"].as_str().unwrap_or_default();
            let access = access_of(path, &method, operation)?;
            let policy = policies.remove(id).unwrap_or_default();
            if !policy.is_limited && access != Access::Public {
                return Err(RouteError::Unlimited {
                    method: method.to_string(),
                    path: path.clone(),
                });
            }
            found.push(Declared {
                template: path.clone(),
                access,
                method,
                policy,
                handlers: routes.router.clone(),
            });
        }
    }
    if let Some(id) = policies.into_keys().min() {
        return Err(RouteError::NoOperation(id));
    }
    found.extend(routes.pages.iter().map(|page| Declared {
        template: (*page).to_owned(),
        method: Method::GET,
        access: Access::Public,
        policy: Policy::default(),
        handlers: routes.router.clone(),
    }));
    Ok(found)
}

/// The policies of a service by operation.
fn policies(routes: &Routes) -> Result<HashMap<&'static str, Policy>, RouteError> {
    let mut policies = HashMap::new();
    for (id, policy) in &routes.policies {
        let limits = [
            ("caller_limit", policy.caller_limit),
            ("address_limit", policy.address_limit),
        ];
        for (name, limit) in limits {
            let checked = limit.map_or(Ok(()), |limit| limit.check(name));
            checked.map_err(|problem| RouteError::BadLimit { id, problem })?;
        }
        if policies.insert(*id, *policy).is_some() {
            return Err(RouteError::TwoPolicies(id));
        }
    }
    Ok(policies)
}

impl RouteTable {
    /// A table of what the sources declare. `limits` apply where a policy says nothing; `previous`
    /// is the table that this one replaces; its counts go on.
    ///
    /// # Errors
    /// [`RouteError::Twice`], [`RouteError::Clash`].
    pub(crate) fn new(
        declared: Vec<Declared>,
        limits: Limits,
        previous: Option<&RouteTable>,
        metrics: impl Fn(&str, &Method) -> RouteMetrics,
    ) -> Result<Self, RouteError> {
        let mut windows = Windows::default();
        let mut by_path: Vec<(String, Vec<Arc<Route>>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for declared in declared {
            let place = *places.entry(declared.template.clone()).or_insert_with(|| {
                by_path.push((declared.template.clone(), Vec::new()));
                by_path.len() - 1
            });
            let routes = &mut by_path[place].1;
            if routes.iter().any(|route| route.method == declared.method) {
                return Err(RouteError::Twice {
                    method: declared.method.to_string(),
                    path: declared.template,
                });
            }
            let (policy, old) = (declared.policy, previous.map(|table| &table.windows));
            let mut window = |counts, limit: Option<RateLimit>| {
                let key = (declared.template.clone(), declared.method.clone(), counts);
                limit.map(|limit| windows.get(key, limit, old))
            };
            routes.push(Arc::new(Route {
                callers: window(Counts::Callers, policy.caller_limit),
                addresses: window(Counts::Addresses, policy.address_limit),
                limits: limits.with(&policy, declared.access),
                metrics: metrics(&declared.template, &declared.method),
                template: declared.template,
                method: declared.method,
                access: declared.access,
                policy,
                handlers: declared.handlers,
            }));
        }
        let mut paths = matchit::Router::new();
        for (path, routes) in by_path {
            paths.insert(path, Methods::new(routes))?;
        }
        Ok(Self { paths, windows })
    }

    /// The methods that a path takes, as `Allow` lists them.
    pub(crate) fn methods(&self, path: &str) -> Option<&HeaderValue> {
        let found = self.paths.at(path).ok()?;
        Some(&found.value.allow)
    }

    /// Whether a path has routes that OAuth clients in a browser may call.
    pub(super) fn is_for_clients(&self, path: &str) -> bool {
        self.at(path).any(|route| route.policy.is_for_clients)
    }

    /// The form of errors at a path, where the method fits no route.
    pub(super) fn render_error(&self, path: &str) -> RenderError {
        let first = self.at(path).next();
        first.map_or(ApiError::render, |route| route.policy.render_error)
    }

    fn at(&self, path: &str) -> impl Iterator<Item = &Arc<Route>> {
        let found = self.paths.at(path).ok();
        found.into_iter().flat_map(|found| &found.value.routes)
    }

    /// The route of a request.
    ///
    /// # Errors
    /// 404, or 405 with `Allow`; the same for everybody.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<&Arc<Route>, ApiError> {
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
    fn new(routes: Vec<Arc<Route>>) -> Self {
        let mut names: Vec<&str> = routes.iter().map(|route| route.method.as_str()).collect();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        let allow = HeaderValue::from_str(&names.join(", ")).expect("method names are ASCII");
        Self { routes, allow }
    }
}

/// What a window of a route counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counts {
    Callers,
    Addresses,
}

type WindowKey = (String, Method, Counts);

/// The counts of routes that have limits of their own.
#[derive(Debug, Default)]
struct Windows(HashMap<WindowKey, (RateLimit, Arc<SlidingWindow>)>);

impl Windows {
    /// The window of the previous table if its limit is the same, so that replacing the table resets
    /// no count.
    fn get(
        &mut self,
        key: WindowKey,
        limit: RateLimit,
        previous: Option<&Windows>,
    ) -> Arc<SlidingWindow> {
        let kept = previous
            .and_then(|previous| previous.0.get(&key))
            .filter(|(old, _)| *old == limit)
            .map(|(_, window)| window.clone());
        let window = kept.unwrap_or_else(|| Arc::new(limit.window()));
        self.0.insert(key, (limit, window.clone()));
        window
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
    use auspex_kernel::service::Documented;
    use serde_json::json;

    use super::*;

    const LIMITS: Limits = Limits {
        body_bytes_max: 100,
        body_timeout: Duration::from_secs(30),
        request_timeout: Duration::from_secs(60),
    };

    fn routes() -> Routes {
        let documented = Documented::new(utoipa::openapi::OpenApi::default());
        Routes::new(axum::Router::new(), documented).with_pages(&["/docs/{*rest}"])
    }

    fn table(
        routes: &Routes,
        document: &Value,
        previous: Option<&RouteTable>,
    ) -> Result<RouteTable, RouteError> {
        let metrics = |_: &str, _: &Method| RouteMetrics::default();
        RouteTable::new(declared(routes, document)?, LIMITS, previous, metrics)
    }

    #[test]
    fn routes_come_from_the_document() {
        let document = json!({"paths": {
            "/health": {"get": {"security": [{}]}},
            "/v1/me": {"get": {"security": [{"api_key": []}, {"bearer": []}]}},
            "/v1/models/{model}": {
                "get": {"security": [{"api_key": ["models:read"]}, {"bearer": ["models:read"]}]},
                "delete": {"security": [{"api_key": ["models:write"]}]}},
        }});
        let table = table(&routes(), &document, None).expect("valid");
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
            let document = json!({"paths": {"/x": {"get": operation}}});
            assert!(table(&routes(), &document, None).is_err());
        }
    }

    #[test]
    fn a_policy_overrides_limits_and_must_name_an_operation() {
        let document = json!({"paths": {"/x": {
            "get": {"operationId": "get_x", "security": []},
            "post": {"operationId": "post_x", "security": []},
        }}});
        let short = Policy {
            body_bytes_max: Some(7),
            ..Policy::default()
        };
        let table_with = |id| table(&routes().with_policy(&[id], short), &document, None);
        let table = table_with("post_x").expect("valid");
        let max = |method| table.find(&method, "/x").map(|r| r.limits.body_bytes_max);
        assert_eq!(max(Method::POST).expect("found"), 7);
        assert_eq!(max(Method::GET).expect("found"), 100);
        let error = table_with("put_x").expect_err("no such operation");
        assert!(error.to_string().contains("put_x"), "{error}");
    }

    #[test]
    fn strangers_may_send_less() {
        let document = json!({"paths": {"/x": {
            "get": {"operationId": "get_x", "security": []},
            "post": {"operationId": "post_x", "security": [{"bearer": []}]},
        }}});
        let limits = |bytes| {
            let limits = Limits {
                body_bytes_max: bytes,
                ..LIMITS
            };
            let declared = declared(&routes(), &document).expect("rules");
            let metrics = |_: &str, _: &Method| RouteMetrics::default();
            let table = RouteTable::new(declared, limits, None, metrics).expect("valid");
            [Method::GET, Method::POST].map(|method| {
                let route = table.find(&method, "/x").expect("found");
                route.limits.body_bytes_max
            })
        };
        assert_eq!(limits(1 << 20), [PUBLIC_BODY_BYTES_MAX, 1 << 20]);
        assert_eq!(limits(100), [100, 100]);
    }

    #[test]
    fn two_policies_for_an_operation_and_a_limit_of_nothing_are_errors() {
        let document = json!({"paths": {"/x": {"get": {"operationId": "x", "security": []}}}});
        let twice = routes().with_policy(&["x", "x"], Policy::default());
        let error = table(&twice, &document, None).expect_err("two");
        assert!(matches!(error, RouteError::TwoPolicies("x")), "{error}");
        let nothing = Some(RateLimit {
            max: 0,
            window_s: 60,
            callers_max: 10,
        });
        let of_callers = Policy {
            caller_limit: nothing,
            ..Policy::default()
        };
        let of_addresses = Policy {
            address_limit: nothing,
            ..Policy::default()
        };
        for policy in [of_callers, of_addresses] {
            let routes = routes().with_policy(&["x"], policy);
            let error = table(&routes, &document, None).expect_err("nothing");
            assert!(error.to_string().contains("at least 1"), "{error}");
        }
    }

    #[test]
    fn counts_of_a_route_go_on_in_the_next_table_while_its_limit_is_the_same() {
        let document = json!({"paths": {"/x": {"get": {"operationId": "x", "security": []}}}});
        let next = |max, previous: Option<&RouteTable>| {
            let address_limit = Some(RateLimit {
                max,
                window_s: 60,
                callers_max: 10,
            });
            let policy = Policy {
                address_limit,
                ..Policy::default()
            };
            let routes = routes().with_policy(&["x"], policy);
            table(&routes, &document, previous).expect("valid")
        };
        let window = |table: &RouteTable| {
            let route = table.find(&Method::GET, "/x").expect("found");
            route.addresses.clone().expect("its own")
        };
        let (first, other) = (next(1, None), next(2, None));
        assert!(Arc::ptr_eq(
            &window(&first),
            &window(&next(1, Some(&first)))
        ));
        assert!(!Arc::ptr_eq(
            &window(&first),
            &window(&next(1, Some(&other)))
        ));
    }

    #[test]
    fn a_route_that_is_declared_twice_is_an_error() {
        let document = json!({"paths": {"/docs/{*rest}": {"get": {"security": []}}}});
        assert!(table(&routes(), &document, None).is_err());
    }
}
