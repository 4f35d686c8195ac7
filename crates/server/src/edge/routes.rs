//! The table of all routes: who may use each of them, how the edge treats it, what answers it.
//!
//! Routes come from sources: the operations of each service's OpenAPI document, its pages, and routes
//! that are in no document, such as those of settings. An operation that is not in the document does not
//! exist, and one that does not say who may call it stops the program at start. The table never changes;
//! another one takes its place.

mod paths;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::body::{Bounded, Share};
use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::{Access, Policy, RenderError};
use auspex_kernel::quota::{Quota, Quotas, RateLimit};
use auspex_kernel::service::{Conditions, Handle, Routes, UndocumentedRoute};
use auspex_kernel::{ApiError, Scope, ScopeSet};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;
use tower_service::Service as _;

use crate::metrics::RouteMetrics;
use paths::{ForHost, Hosts, Methods};

pub(crate) use paths::Target;

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
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// The setting that declares it.
    key: Option<String>,
    template: String,
    conditions: Conditions,
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
    /// The setting that declares it.
    key: Option<String>,
    pub(crate) template: String,
    /// `None`: any that no other route of the path takes.
    pub(crate) method: Option<Method>,
    pub(crate) access: Access,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    /// Counts of its own, where its policy has them.
    pub(crate) callers: Option<Arc<Quota>>,
    pub(crate) addresses: Option<Arc<Quota>>,
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
    #[error("there is a policy or a handler for {0}, but no operation of that id")]
    NoOperation(&'static str),
    #[error("{0} has two policies; put what they say into one")]
    TwoPolicies(&'static str),
    #[error("{id}: {problem}")]
    BadLimit { id: String, problem: ConfigError },
    #[error("{method} {path} has no limits, and only a public route may be without")]
    Unlimited {
        key: Option<String>,
        method: String,
        path: String,
    },
    #[error("{method} {path} is declared twice, by {other} too{}", alike(*.has_conditions))]
    Twice {
        key: Option<String>,
        method: String,
        path: String,
        other: String,
        has_conditions: bool,
    },
    #[error("the path {path} belongs to the server's own {own}; choose another")]
    Taken {
        key: Option<String>,
        path: String,
        own: String,
    },
    #[error("the path {path} cannot be served: {problem}")]
    Clash {
        key: Option<String>,
        path: String,
        problem: matchit::InsertError,
    },
}

fn alike(has_conditions: bool) -> &'static str {
    match has_conditions {
        true => ", for the same host and headers",
        false => "",
    }
}

impl RouteError {
    /// The setting that is wrong, if it is one.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Unlimited { key, .. }
            | Self::Twice { key, .. }
            | Self::Taken { key, .. }
            | Self::Clash { key, .. } => key.as_deref(),
            Self::NoAccess { .. }
            | Self::BadAccess { .. }
            | Self::NoOperation(_)
            | Self::TwoPolicies(_)
            | Self::BadLimit { .. } => None,
        }
    }
}

/// What routes have in common.
#[derive(Clone, Copy)]
pub(crate) struct Usual<'t> {
    /// Where a policy says nothing.
    pub(crate) limits: Limits,
    /// Where requests are counted.
    pub(crate) quotas: &'t Quotas,
}

/// All routes by path, host, headers and method.
#[derive(Debug)]
pub(crate) struct RouteTable {
    hosts: Hosts,
    windows: Windows,
}

/// The routes of a service: its operations, its pages, and those that no document shows.
///
/// # Errors
/// [`RouteError`] for an operation without a rule, and for a policy without an operation, beside
/// another one, or with a limit that lets nothing through.
pub(crate) fn declared(routes: &Routes, operations: &Value) -> Result<Vec<Declared>, RouteError> {
    let mut policies = policies(routes)?;
    let mut handlers: HashMap<_, _> = routes.handlers.iter().cloned().collect();
    let mut found = Vec::new();
    for (path, item) in operations["paths"].as_object().into_iter().flatten() {
        for (name, operation) in item.as_object().into_iter().flatten() {
            let Some(method) = method_of(name) else {
                continue;
            };
            let id = operation["operationId"].as_str().unwrap_or_default();
            let access = access_of(path, &method, operation)?;
            found.push(Declared {
                key: None,
                template: path.clone(),
                conditions: Conditions::default(),
                access,
                methods: vec![method],
                policy: policies.remove(id).unwrap_or_default(),
                handler: match handlers.remove(id) {
                    Some(handler) => Handler::One(handler),
                    None => Handler::Router(routes.router.clone()),
                },
                is_documented: true,
            });
        }
    }
    if let Some(id) = policies.into_keys().chain(handlers.into_keys()).min() {
        return Err(RouteError::NoOperation(id));
    }
    found.extend(routes.pages.iter().map(|page| Declared {
        key: None,
        template: (*page).to_owned(),
        conditions: Conditions::default(),
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
            key: route.key.clone(),
            method: names(&route.methods),
            path: route.template.clone(),
        }),
        None => Ok(found),
    }
}

fn undocumented(route: &UndocumentedRoute) -> Declared {
    Declared {
        key: Some(route.key.clone()),
        template: route.path.clone(),
        conditions: route.conditions.clone(),
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
    /// A table of what the sources declare. `usual` applies where a policy says nothing; `previous`
    /// is the table that this one replaces; its counts go on.
    ///
    /// # Errors
    /// [`RouteError::Twice`], [`RouteError::Taken`], [`RouteError::Clash`].
    pub(crate) fn new(
        declared: Vec<Declared>,
        usual: Usual<'_>,
        previous: Option<&RouteTable>,
        metrics: impl Fn(&str, &str) -> RouteMetrics,
    ) -> Result<Self, RouteError> {
        let mut table = Self {
            hosts: Hosts::default(),
            windows: Windows::default(),
        };
        let (own, others): (Vec<_>, Vec<_>) = declared.into_iter().partition(|d| d.is_documented);
        table.insert(own, usual, previous, &metrics)?;
        for other in &others {
            // A template is itself a path, one that the own routes must leave to it.
            if let Some(own) = table.at(&other.template).next() {
                return Err(RouteError::Taken {
                    key: other.key.clone(),
                    path: other.template.clone(),
                    own: own.template.clone(),
                });
            }
        }
        table.insert(others, usual, previous, &metrics)?;
        Ok(table)
    }

    fn insert(
        &mut self,
        declared: Vec<Declared>,
        usual: Usual<'_>,
        previous: Option<&RouteTable>,
        metrics: &impl Fn(&str, &str) -> RouteMetrics,
    ) -> Result<(), RouteError> {
        let mut by_path: Vec<(ForHost, String, Option<String>, Methods)> = Vec::new();
        let mut places: HashMap<(ForHost, String), usize> = HashMap::new();
        for (order, declared) in declared.into_iter().enumerate() {
            let old = previous.map(|table| &table.windows);
            let routes = self.routes_of(&declared, usual, old, metrics);
            for host in ForHost::of(&declared.conditions) {
                let (path, key) = (declared.template.clone(), declared.key.clone());
                let place = *places
                    .entry((host.clone(), path.clone()))
                    .or_insert_with(|| {
                        by_path.push((host, path, key, Methods::new(declared.is_documented)));
                        by_path.len() - 1
                    });
                let methods = &mut by_path[place].3;
                for route in &routes {
                    let inserted = methods.insert(route, &declared.conditions, order);
                    inserted.map_err(|other| RouteError::Twice {
                        key: declared.key.clone(),
                        method: route.method_name().to_owned(),
                        path: declared.template.clone(),
                        other: other.key.clone().unwrap_or_else(|| "the server".to_owned()),
                        has_conditions: declared.conditions != Conditions::default(),
                    })?;
                }
            }
        }
        for (host, path, key, methods) in by_path {
            let inserted = self.hosts.paths(host).insert(path.clone(), methods);
            inserted.map_err(|problem| RouteError::Clash { key, path, problem })?;
        }
        Ok(())
    }

    /// What is declared, as one route for each method.
    fn routes_of(
        &mut self,
        declared: &Declared,
        Usual { limits, quotas }: Usual<'_>,
        old: Option<&Windows>,
        metrics: &impl Fn(&str, &str) -> RouteMetrics,
    ) -> Vec<Arc<Route>> {
        let policy = declared.policy;
        let mut window = |counts, limit: Option<RateLimit>| {
            let mut name = declared.template.clone();
            if declared.conditions != Conditions::default() {
                name += &format!(" {:?}", declared.conditions);
            }
            let key = (name, names(&declared.methods), counts);
            limit.map(|limit| self.windows.get(key, limit, old, quotas))
        };
        let callers = window(Counts::Callers, policy.caller_limit);
        let addresses = window(Counts::Addresses, policy.address_limit);
        let methods: Vec<Option<&Method>> = match declared.methods.is_empty() {
            true => vec![None],
            false => declared.methods.iter().map(Some).collect(),
        };
        let route = |method: Option<&Method>| {
            Arc::new(Route {
                key: declared.key.clone(),
                callers: callers.clone(),
                addresses: addresses.clone(),
                limits: limits.with(&policy, declared.access),
                metrics: metrics(&declared.template, method.map_or(ANY, Method::as_str)),
                template: declared.template.clone(),
                method: method.cloned(),
                access: declared.access,
                policy,
                handler: declared.handler.clone(),
            })
        };
        methods.into_iter().map(route).collect()
    }

    /// The methods that a path takes under a host, as `Allow` lists them.
    pub(crate) fn methods(&self, path: &str, host: Option<&str>) -> Option<HeaderValue> {
        let candidates = self.hosts.candidates(path, host);
        allow(candidates.flat_map(|methods| methods.routes(None)))
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

    /// The routes of a path that hold for every host.
    fn at(&self, path: &str) -> impl Iterator<Item = &Arc<Route>> {
        let found = self.hosts.at(path).into_iter();
        found.flat_map(|methods| methods.routes(None))
    }

    /// The route of a request: of those that it fits the one that names its host most exactly, then the one that
    /// names most headers, then the first.
    ///
    /// # Errors
    /// 404, or 405 with `Allow`; the same for everybody.
    pub(crate) fn find(&self, target: Target<'_>) -> Result<&Arc<Route>, ApiError> {
        let wanted = match *target.method {
            Method::HEAD => &Method::GET,
            _ => target.method,
        };
        let candidates = || self.hosts.candidates(target.path, target.host);
        let found = candidates().find_map(|methods| methods.find(wanted, target.headers));
        found.ok_or_else(|| {
            let others = candidates().flat_map(|methods| methods.routes(Some(target.headers)));
            match allow(others) {
                Some(allow) => ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "METHOD_NOT_ALLOWED",
                    "this path does not take that method; see the Allow header",
                )
                .with_header(header::ALLOW, allow),
                None => ApiError::not_found("there is nothing at this path; see /openapi.json"),
            }
        })
    }
}

impl Route {
    fn method_name(&self) -> &str {
        self.method.as_ref().map_or(ANY, Method::as_str)
    }
}

/// The methods of routes, as `Allow` lists them; `None` if there are no routes.
fn allow<'t>(routes: impl Iterator<Item = &'t Arc<Route>>) -> Option<HeaderValue> {
    let mut names: Vec<&str> = Vec::new();
    for route in routes {
        match &route.method {
            Some(method) => names.push(method.as_str()),
            None => names.extend(USUAL_METHODS),
        }
    }
    if names.is_empty() {
        return None;
    }
    names.sort_by_key(|name| USUAL_METHODS.iter().position(|usual| usual == name));
    names.dedup();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    Some(HeaderValue::from_str(&names.join(", ")).expect("method names are ASCII"))
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
struct Windows(HashMap<WindowKey, (RateLimit, Arc<Quota>)>);

impl Windows {
    /// The window of the previous table if its limit is the same, so that replacing the table resets
    /// no count.
    fn get(
        &mut self,
        key: WindowKey,
        limit: RateLimit,
        previous: Option<&Windows>,
        quotas: &Quotas,
    ) -> Arc<Quota> {
        let kept = previous
            .and_then(|previous| previous.0.get(&key))
            .filter(|(old, _)| *old == limit)
            .map(|(_, quota)| quota.clone());
        let quota = kept.unwrap_or_else(|| {
            let (path, methods, counts) = &key;
            let name = format!("{counts:?} of {methods} {path}");
            Arc::new(quotas.quota(&limit, &name))
        });
        self.0.insert(key, (limit, quota.clone()));
        quota
    }
}

fn method_of(name: &str) -> Option<Method> {
    ["get", "put", "post", "delete", "patch"]
        .contains(&name)
        .then(|| name.to_uppercase().parse().ok())?
}

/// `security: []` or `[{}]` is public, `[{"bearer": []}]` any caller, `[{"bearer": ["s", "t"]}]` both scopes.
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
        [all] => {
            let read = |scope: &Value| scope.as_str()?.parse::<Scope>().ok();
            let needed = all
                .as_array()
                .and_then(|all| all.iter().map(read).collect::<Option<ScopeSet>>());
            needed.map(Access::Scopes).ok_or_else(|| bad(all))
        }
        _ => Err(bad(&operation["security"])),
    }
}

#[cfg(test)]
mod tests;
