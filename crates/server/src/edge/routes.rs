//! The table of all routes: who may use each of them, how the edge treats it, what answers it.
//!
//! Routes come from sources: the operations of each service's OpenAPI document, its pages, and routes
//! that are in no document, such as those of settings. An operation that is not in the document does not
//! exist, and one that does not say who may call it stops the program at start. The table never changes;
//! another one takes its place.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::body::{Bounded, Share};
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Access, Policy, RenderError};
use auspex_kernel::quota::{RateLimit, SlidingWindow};
use auspex_kernel::service::{Handle, Routes, UndocumentedRoute};
use auspex_kernel::{ApiError, Scope, ScopeSet};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;
use tower_service::Service as _;

use crate::metrics::RouteMetrics;

/// The longest body from strangers: forms and credentials are short, and bodies that are on their way take
/// memory from others.
const PUBLIC_BODY_BYTES_MAX: usize = 64 << 10;

/// The method of a route that takes any, where it is shown.
const ANY: &str = "(any)";
/// What `Allow` lists for it.
const USUAL_METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

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
        let (bytes_max, timeout) = match (policy.streams_body, access) {
            (true, _) => (usize::MAX, Duration::MAX),
            (false, Access::Public) => (
                self.body_bytes_max.min(PUBLIC_BODY_BYTES_MAX),
                self.body_timeout,
            ),
            (false, Access::Scopes(_)) => (self.body_bytes_max, self.body_timeout),
        };
        Self {
            body_bytes_max: policy.body_bytes_max.unwrap_or(bytes_max),
            body_timeout: policy.body_timeout.unwrap_or(timeout),
            request_timeout: policy.request_timeout.unwrap_or(self.request_timeout),
        }
    }

    /// The body within its bounds.
    pub(super) fn bound(&self, body: Body, share: Option<Arc<Share>>) -> Body {
        if self.body_bytes_max == usize::MAX && self.body_timeout == Duration::MAX {
            return body;
        }
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
    /// None: any.
    methods: Vec<Method>,
    access: Access,
    policy: Policy,
    handler: Handler,
    is_documented: bool,
}

/// What answers the requests of a route.
#[derive(Clone)]
pub(crate) enum Handler {
    /// Of the operations of a service; it matches the path once more.
    Router(axum::Router),
    One(Arc<dyn Handle>),
}

impl Handler {
    pub(super) async fn call(self, request: Request<Body>) -> Response {
        match self {
            // An axum router is always ready.
            Handler::Router(mut router) => match router.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Handler::One(handler) => handler.handle(request).await,
        }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// A route in the table.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) template: String,
    /// `None`: any that no other route of the path takes.
    pub(crate) method: Option<Method>,
    pub(crate) access: Access,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    /// Counts of its own, where its policy has them.
    pub(crate) callers: Option<Arc<SlidingWindow>>,
    pub(crate) addresses: Option<Arc<SlidingWindow>>,
    pub(crate) handler: Handler,
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
    BadLimit { id: String, problem: ConfigError },
    #[error("{method} {path} has no limits, and only a public route may be without")]
    Unlimited { method: String, path: String },
    #[error("{method} {path} is declared twice")]
    Twice { method: String, path: String },
    #[error("the path {path} belongs to the server's own {own}; choose another")]
    Taken { path: String, own: String },
    #[error("the path {path} cannot be served: {problem}")]
    Clash {
        path: String,
        problem: matchit::InsertError,
    },
}

impl RouteError {
    /// The path that it is about, if it is one.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::NoAccess { path, .. }
            | Self::BadAccess { path, .. }
            | Self::Unlimited { path, .. }
            | Self::Twice { path, .. }
            | Self::Taken { path, .. }
            | Self::Clash { path, .. } => Some(path),
            Self::NoOperation(_) | Self::TwoPolicies(_) | Self::BadLimit { .. } => None,
        }
    }
}

/// All routes by path and method.
#[derive(Debug)]
pub(crate) struct RouteTable {
    paths: matchit::Router<Methods>,
    windows: Windows,
}

/// The routes of a path.
#[derive(Debug)]
struct Methods {
    routes: Vec<Arc<Route>>,
    allow: HeaderValue,
}

/// The routes of a service: its operations, its pages, and those that no document shows.
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
            found.push(Declared {
                template: path.clone(),
                access,
                methods: vec![method],
                policy: policies.remove(id).unwrap_or_default(),
                handler: Handler::Router(routes.router.clone()),
                is_documented: true,
            });
        }
    }
    if let Some(id) = policies.into_keys().min() {
        return Err(RouteError::NoOperation(id));
    }
    found.extend(routes.pages.iter().map(|page| Declared {
        template: (*page).to_owned(),
        methods: vec![Method::GET],
        access: Access::Public,
        policy: Policy::default(),
        handler: Handler::Router(routes.router.clone()),
        is_documented: true,
    }));
    for route in &routes.undocumented {
        check_limits(&route.path, &route.policy)?;
        found.push(undocumented(route));
    }
    match found.iter().find(|route| route.lacks_limits()) {
        Some(route) => Err(RouteError::Unlimited {
            method: names(&route.methods),
            path: route.template.clone(),
        }),
        None => Ok(found),
    }
}

fn undocumented(route: &UndocumentedRoute) -> Declared {
    Declared {
        template: route.path.clone(),
        methods: route.methods.clone(),
        access: route.access,
        policy: route.policy,
        handler: Handler::One(route.handler.clone()),
        is_documented: false,
    }
}

impl Declared {
    fn lacks_limits(&self) -> bool {
        !self.policy.is_limited && self.access != Access::Public
    }
}

/// Methods as they are shown.
fn names(methods: &[Method]) -> String {
    match methods {
        [] => ANY.to_owned(),
        _ => methods
            .iter()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// The policies of a service by operation.
fn policies(routes: &Routes) -> Result<HashMap<&'static str, Policy>, RouteError> {
    let mut policies = HashMap::new();
    for (id, policy) in &routes.policies {
        check_limits(id, policy)?;
        if policies.insert(*id, *policy).is_some() {
            return Err(RouteError::TwoPolicies(id));
        }
    }
    Ok(policies)
}

/// `id` names the route.
fn check_limits(id: &str, policy: &Policy) -> Result<(), RouteError> {
    let limits = [
        ("caller_limit", policy.caller_limit),
        ("address_limit", policy.address_limit),
    ];
    for (name, limit) in limits {
        let checked = limit.map_or(Ok(()), |limit| limit.check(name));
        checked.map_err(|problem| RouteError::BadLimit {
            id: id.to_owned(),
            problem,
        })?;
    }
    Ok(())
}

impl RouteTable {
    /// A table of what the sources declare. `limits` apply where a policy says nothing; `previous`
    /// is the table that this one replaces; its counts go on.
    ///
    /// # Errors
    /// [`RouteError::Twice`], [`RouteError::Taken`], [`RouteError::Clash`].
    pub(crate) fn new(
        declared: Vec<Declared>,
        limits: Limits,
        previous: Option<&RouteTable>,
        metrics: impl Fn(&str, &str) -> RouteMetrics,
    ) -> Result<Self, RouteError> {
        let mut table = Self {
            paths: matchit::Router::new(),
            windows: Windows::default(),
        };
        let (own, others): (Vec<_>, Vec<_>) = declared.into_iter().partition(|d| d.is_documented);
        table.insert(own, limits, previous, &metrics)?;
        for other in &others {
            // A template is itself a path, one that the own routes must leave to it.
            if let Some(own) = table.at(&other.template).next() {
                return Err(RouteError::Taken {
                    path: other.template.clone(),
                    own: own.template.clone(),
                });
            }
        }
        table.insert(others, limits, previous, &metrics)?;
        Ok(table)
    }

    fn insert(
        &mut self,
        declared: Vec<Declared>,
        limits: Limits,
        previous: Option<&RouteTable>,
        metrics: &impl Fn(&str, &str) -> RouteMetrics,
    ) -> Result<(), RouteError> {
        let mut by_path: Vec<(String, Vec<Arc<Route>>)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for declared in declared {
            let place = *places.entry(declared.template.clone()).or_insert_with(|| {
                by_path.push((declared.template.clone(), Vec::new()));
                by_path.len() - 1
            });
            let (policy, old) = (declared.policy, previous.map(|table| &table.windows));
            let mut window = |counts, limit: Option<RateLimit>| {
                let key = (declared.template.clone(), names(&declared.methods), counts);
                limit.map(|limit| self.windows.get(key, limit, old))
            };
            let callers = window(Counts::Callers, policy.caller_limit);
            let addresses = window(Counts::Addresses, policy.address_limit);
            let methods: Vec<Option<Method>> = match declared.methods.is_empty() {
                true => vec![None],
                false => declared.methods.into_iter().map(Some).collect(),
            };
            for method in methods {
                let name = method.as_ref().map_or(ANY, Method::as_str);
                if by_path[place].1.iter().any(|route| route.method == method) {
                    return Err(RouteError::Twice {
                        method: name.to_owned(),
                        path: declared.template,
                    });
                }
                by_path[place].1.push(Arc::new(Route {
                    callers: callers.clone(),
                    addresses: addresses.clone(),
                    limits: limits.with(&policy, declared.access),
                    metrics: metrics(&declared.template, name),
                    template: declared.template.clone(),
                    method,
                    access: declared.access,
                    policy,
                    handler: declared.handler.clone(),
                }));
            }
        }
        for (path, routes) in by_path {
            let inserted = self.paths.insert(path.clone(), Methods::new(routes));
            inserted.map_err(|problem| RouteError::Clash { path, problem })?;
        }
        Ok(())
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
        methods.find(wanted).ok_or_else(|| {
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
        let mut names: Vec<&str> = Vec::new();
        for route in &routes {
            match &route.method {
                Some(method) => names.push(method.as_str()),
                None => names.extend(USUAL_METHODS),
            }
        }
        names.sort_by_key(|name| USUAL_METHODS.iter().position(|usual| usual == name));
        names.dedup();
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        let allow = HeaderValue::from_str(&names.join(", ")).expect("method names are ASCII");
        Self { routes, allow }
    }

    fn find(&self, wanted: &Method) -> Option<&Arc<Route>> {
        let takes_it = |route: &&Arc<Route>| route.method.as_ref() == Some(wanted);
        let takes_any = |route: &&Arc<Route>| {
            route.method.is_none() && ![Method::CONNECT, Method::TRACE].contains(wanted)
        };
        let routes = self.routes.iter();
        routes
            .clone()
            .find(takes_it)
            .or_else(|| routes.clone().find(takes_any))
    }
}

/// What a window of a route counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counts {
    Callers,
    Addresses,
}

type WindowKey = (String, String, Counts);

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
            Some([]) => Ok(Access::Scopes(ScopeSet::default())),
            Some([Value::String(scope)]) => {
                let scope: Scope = scope.parse().map_err(|_| bad(one))?;
                Ok(Access::Scopes(ScopeSet::from_iter([scope])))
            }
            _ => Err(bad(one)),
        },
        _ => Err(bad(&operation["security"])),
    }
}

#[cfg(test)]
mod tests;
