//! The settings as the gateway works with them: services with their endpoints, and routes that lead to
//! services there are. Whoever has a plan has checked settings.

mod aggregate;
mod cache;
mod conditions;
mod health;
mod retry;
mod tls;
mod transcode;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::config::ConfigError;
use auspex_kernel::policy::Access;
use auspex_kernel::quota::RateLimit;
use auspex_kernel::service::Conditions;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};

use crate::balance::{KeySource, Policy};
use crate::circuit::Law;
use crate::config::{
    Config, ProtocolConfig, RemoteRole, RemoteRoute, RouteConfig, RouteLimit, ServiceConfig,
};
use crate::health::HealthLaw;
use crate::path;
use crate::retry::RetryLaw;
use crate::source::{Source, is_reserved};
use crate::transcode::Api;
use crate::upstream::{Limits, Protocol, Tls};

pub(crate) use aggregate::AggregatePlan;

/// Callers that a route with a limit of its own tells apart.
const CALLERS_MAX: usize = 10_000;
/// Longer waits are for jobs. It also keeps sums of times from overflowing.
const TIMEOUT_MS_MAX: u64 = 600_000;
/// Of windows and recoveries of circuits.
const SECONDS_MAX: u32 = 3600;
/// Of requests and failures that circuits count.
const COUNT_MAX: u32 = 1_000_000;

const AUDIENCE_BYTES_MAX: usize = 256;

/// All services and routes.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) services: BTreeMap<String, ServicePlan>,
    pub(crate) routes: Vec<PlannedRoute>,
    /// Servers of names; none: those of the system.
    pub(crate) dns_servers: Vec<SocketAddr>,
    /// Of what is kept of answers.
    pub(crate) cache: crate::cache::Limits,
}

/// One service. Two that are equal are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePlan {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) protocol: Protocol,
    /// Its servers are called by TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) law: Law,
    pub(crate) retry: RetryLaw,
    pub(crate) balance: Policy,
    /// Of each endpoint.
    pub(crate) requests_max: u32,
    pub(crate) health: Option<HealthLaw>,
    /// Whom the tokens are for that tell it who calls; `None`: it gets none.
    pub(crate) audience: Option<Arc<str>>,
}

impl ServicePlan {
    /// Of the URLs of its servers.
    pub(crate) fn scheme(&self) -> &'static str {
        match self.tls {
            Some(_) => "https",
            None => "http",
        }
    }
}

/// One route. Two that are equal are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedRoute {
    /// Where its path is written.
    pub(crate) key: String,
    pub(crate) path: String,
    pub(crate) methods: Vec<Method>,
    pub(crate) conditions: Conditions,
    pub(crate) access: Access,
    pub(crate) limit: Option<RateLimit>,
    pub(crate) leads_to: LeadsTo,
    pub(crate) strip_prefix: String,
    pub(crate) forward_credentials: bool,
    pub(crate) preserve_host: bool,
    pub(crate) websocket: bool,
    /// Answers are kept; for so long those that do not say how long.
    pub(crate) cache_ttl: Option<Duration>,
    /// It leads to a role that another process serves.
    pub(crate) remote_role: Option<RoleAccess>,
}

/// What is special about a route to such a role, which does everything else itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoleAccess {
    /// What it is shown.
    pub(crate) secret: HeaderValue,
    pub(crate) route: RemoteRoute,
}

/// What answers a route. Names are those of services of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LeadsTo {
    Service(String),
    Aggregate(AggregatePlan),
    /// To the calls of a service.
    Calls(String, Arc<Api>),
}

impl Plan {
    /// Checks everything that can be known without asking anybody.
    ///
    /// # Errors
    /// [`ConfigError::wrong`] with the whole key.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let limits = limits(config)?;
        let mut services = BTreeMap::new();
        for (name, service) in &config.services {
            let at = Key(format!("gateway.services.{name}"));
            check_name(&at, name)?;
            services.insert(
                name.clone(),
                plan_service(&at, name, service, config, limits)?,
            );
        }
        let routes = config.routes.iter().enumerate().map(|(index, route)| {
            let at = Key(format!("gateway.routes[{index}]"));
            plan_route(&at, route, &services, config)
        });
        let mut routes: Vec<PlannedRoute> = routes.collect::<Result<_, _>>()?;
        for role in &config.remote_roles {
            let at = Key(format!("cluster.services.{}", role.name));
            let service = plan_service(&at, role.name, &role.service, config, limits)?;
            let service = ServicePlan {
                // It gets the credentials.
                audience: None,
                ..service
            };
            services.insert(role.name.to_owned(), service);
            routes.extend(routes_of(&at, role));
        }
        services
            .values()
            .try_for_each(|one| check_key(one, &routes))?;
        let servers = config.dns_servers.iter().enumerate().map(|(index, text)| {
            let reason = "must be an address and a port, such as \"10.0.0.2:53\"";
            let key = format!("gateway.dns_servers[{index}]");
            text.parse().map_err(|_| ConfigError::wrong(&key, reason))
        });
        Ok(Self {
            services,
            routes,
            dns_servers: servers.collect::<Result<_, _>>()?,
            cache: cache::limits(config.cache)?,
        })
    }
}

/// A place in the settings, to say what is wrong there.
pub(crate) struct Key(pub(crate) String);

impl Key {
    pub(crate) fn wrong(&self, name: &str, reason: impl Into<String>) -> ConfigError {
        ConfigError::wrong(&format!("{}.{name}", self.0), reason)
    }
}

fn limits(config: &Config) -> Result<Limits, ConfigError> {
    let at = Key("gateway".to_owned());
    Ok(Limits {
        connect_timeout: timeout(&at, "connect_timeout_ms", config.connect_timeout_ms)?,
        idle_timeout: timeout(&at, "idle_timeout_ms", config.idle_timeout_ms)?,
        idle_connections_max: config.idle_connections_max,
    })
}

fn timeout(at: &Key, name: &str, ms: u64) -> Result<Duration, ConfigError> {
    match (1..=TIMEOUT_MS_MAX).contains(&ms) {
        true => Ok(Duration::from_millis(ms)),
        false => Err(at.wrong(name, "must be between 1 and 600,000")),
    }
}

/// The routes to a role that another process serves.
fn routes_of(at: &Key, role: &RemoteRole) -> impl Iterator<Item = PlannedRoute> {
    role.routes.iter().map(|route| PlannedRoute {
        key: at.0.clone(),
        path: route.path.clone(),
        methods: route.methods.clone(),
        conditions: Conditions::default(),
        access: Access::Public,
        limit: None,
        leads_to: LeadsTo::Service(role.name.to_owned()),
        strip_prefix: String::new(),
        forward_credentials: true,
        preserve_host: true,
        websocket: false,
        cache_ttl: None,
        remote_role: Some(RoleAccess {
            secret: role.secret.clone(),
            route: route.clone(),
        }),
    })
}

fn check_name(at: &Key, name: &str) -> Result<(), ConfigError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=64).contains(&name.len()) || !name.bytes().all(is_plain) {
        let reason = "is no name: use 1 to 64 letters, digits, - and _";
        return Err(ConfigError::wrong(&at.0, reason));
    }
    if is_reserved(name) {
        let reason = "is the name of a part of Auspex; choose another";
        return Err(ConfigError::wrong(&at.0, reason));
    }
    Ok(())
}

fn plan_service(
    at: &Key,
    name: &str,
    service: &ServiceConfig,
    config: &Config,
    limits: Limits,
) -> Result<ServicePlan, ConfigError> {
    let ms = match service.timeout_ms {
        Some(ms) => timeout(at, "timeout_ms", ms)?,
        None => timeout(&Key("gateway".to_owned()), "timeout_ms", config.timeout_ms)?,
    };
    let protocol = match service.protocol {
        ProtocolConfig::Http1 => Protocol::Http1,
        ProtocolConfig::Http2 => Protocol::Http2,
    };
    let (source, is_secured) = Source::of(at, service)?;
    Ok(ServicePlan {
        name: name.to_owned(),
        source,
        timeout: ms,
        limits,
        protocol,
        tls: is_secured
            .then(|| tls::plan(at, service, protocol))
            .transpose()?,
        law: law(at, service, config)?,
        retry: retry::law(at, &service.retry, &config.retry)?,
        balance: match &service.balance {
            None => Policy::P2c,
            Some(text) => text
                .parse()
                .map_err(|form: &str| at.wrong("balance", form))?,
        },
        requests_max: match service.requests_max {
            None => u32::MAX,
            Some(max @ 1..=COUNT_MAX) => max,
            Some(_) => {
                let reason = format!("must be between 1 and {COUNT_MAX}");
                return Err(at.wrong("requests_max", reason));
            }
        },
        health: match &service.health {
            None => None,
            Some(health) => Some(health::law(at, health)?),
        },
        audience: audience(at, name, service)?,
    })
}

fn audience(
    at: &Key,
    name: &str,
    service: &ServiceConfig,
) -> Result<Option<Arc<str>>, ConfigError> {
    let audience = service.audience.as_deref().unwrap_or(name);
    let is_plain = audience.bytes().all(|byte| byte.is_ascii_graphic());
    if !(1..=AUDIENCE_BYTES_MAX).contains(&audience.len()) || !is_plain {
        let reason = "must be a name or URL of 1 to 256 characters of ASCII, without blanks";
        return Err(at.wrong("audience", reason));
    }
    let is_told = service.identity_token.unwrap_or(true);
    if !is_told && service.audience.is_some() {
        let reason = "is for tokens, which identity_token = false switches off; leave one out";
        return Err(at.wrong("audience", reason));
    }
    Ok(is_told.then(|| audience.into()))
}

/// Whether at least one of the routes to a service has the parameter that decides where requests go.
fn check_key(service: &ServicePlan, routes: &[PlannedRoute]) -> Result<(), ConfigError> {
    let is_own = |route: &&PlannedRoute| match &route.leads_to {
        LeadsTo::Service(name) => *name == service.name,
        LeadsTo::Aggregate(_) | LeadsTo::Calls(..) => false,
    };
    let mut own = routes.iter().filter(is_own).peekable();
    let by_key = matches!(service.balance, Policy::Hash(_)) && own.peek().is_some();
    let has_key = |route: &PlannedRoute| KeySource::of(&service.balance, &route.path).is_some();
    if by_key && !own.any(has_key) {
        let at = Key(format!("gateway.services.{}", service.name));
        let reason = "names a parameter that the path of no route to this service has";
        return Err(at.wrong("balance", reason));
    }
    Ok(())
}

/// When the circuits of a service open: what the service says, and else what holds for all.
fn law(at: &Key, service: &ServiceConfig, config: &Config) -> Result<Law, ConfigError> {
    let (own, usual) = (&service.circuit_breaker, &config.circuit_breaker);
    let pick = |name: &str, own: Option<u32>, usual: u32, max: u32| {
        let value = own.unwrap_or(usual);
        if (1..=max).contains(&value) {
            return Ok(value);
        }
        let section = if own.is_some() {
            at.0.as_str()
        } else {
            "gateway"
        };
        let key = format!("{section}.circuit_breaker.{name}");
        Err(ConfigError::wrong(
            &key,
            format!("must be between 1 and {max}"),
        ))
    };
    let seconds = |name: &str, own, usual| {
        let seconds = pick(name, own, usual, SECONDS_MAX)?;
        Ok::<_, ConfigError>(Duration::from_secs(seconds.into()))
    };
    Ok(Law {
        failure_threshold: pick(
            "failure_threshold",
            own.failure_threshold,
            usual.failure_threshold,
            COUNT_MAX,
        )?,
        failure_percent: pick(
            "failure_percent",
            own.failure_percent,
            usual.failure_percent,
            100,
        )?,
        window: seconds("window_s", own.window_s, usual.window_s)?,
        requests_min: pick(
            "requests_min",
            own.requests_min,
            usual.requests_min,
            COUNT_MAX,
        )?,
        recovery_timeout: seconds(
            "recovery_timeout_s",
            own.recovery_timeout_s,
            usual.recovery_timeout_s,
        )?,
    })
}

fn plan_route(
    at: &Key,
    route: &RouteConfig,
    services: &BTreeMap<String, ServicePlan>,
    config: &Config,
) -> Result<PlannedRoute, ConfigError> {
    check_path(at, &route.path)?;
    let leads_to = leads_to(at, route, services, config)?;
    let names = route.methods.as_deref().unwrap_or_default();
    if route.methods.is_some() && names.is_empty() {
        let reason = "names none; leave it out for all methods";
        return Err(at.wrong("methods", reason));
    }
    let methods = names.iter().enumerate().map(|(index, name)| {
        let method = Method::from_bytes(name.as_bytes()).ok();
        let method = method.filter(|method| {
            *name == name.to_ascii_uppercase() && ![Method::CONNECT, Method::TRACE].contains(method)
        });
        let reason = "must be a method in capitals, and not CONNECT or TRACE";
        method.ok_or_else(|| at.wrong(&format!("methods[{index}]"), reason))
    });
    if !path::is_prefix(&route.strip_prefix, &route.path) {
        let reason = "must be the begin of path, up to a / and without parameters";
        return Err(at.wrong("strip_prefix", reason));
    }
    Ok(PlannedRoute {
        key: format!("{}.path", at.0),
        path: route.path.clone(),
        methods: match &leads_to {
            LeadsTo::Service(_) | LeadsTo::Calls(..) => methods.collect::<Result<_, _>>()?,
            LeadsTo::Aggregate(_) => vec![Method::GET],
        },
        conditions: conditions::conditions(at, route)?,
        access: access(at, route)?,
        limit: route
            .rate_limit
            .map(|limit| window(at, limit))
            .transpose()?,
        leads_to,
        strip_prefix: route.strip_prefix.clone(),
        forward_credentials: route.forward_credentials,
        preserve_host: route.preserve_host,
        websocket: route.websocket,
        cache_ttl: cache::ttl(at, route)?,
        remote_role: None,
    })
}

/// A path that no request can have would never be found.
fn check_path(at: &Key, path: &str) -> Result<(), ConfigError> {
    let wrong = |reason: &str| Err(at.wrong("path", reason));
    if !path.starts_with('/') {
        return wrong("must begin with /");
    }
    let (mut plain, mut names) = (String::new(), BTreeSet::new());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        // What is wrong with a parameter itself, the table of routes says.
        let (name, behind) = after.split_once('}').unwrap_or((after, ""));
        if !names.insert(name.trim_start_matches('*')) {
            return wrong("has two parameters of one name");
        }
        plain.extend([before, "x"]);
        rest = behind;
    }
    plain.push_str(rest);
    let target = PathAndQuery::try_from(plain.as_str());
    if !target.is_ok_and(|target| target.as_str() == plain && target.query().is_none()) {
        return wrong("must be as it stands in a request, without ?, # and blanks");
    }
    if path::leads_elsewhere(&plain) {
        return wrong("must not have the segments . and .., however they are written");
    }
    Ok(())
}

fn leads_to(
    at: &Key,
    route: &RouteConfig,
    services: &BTreeMap<String, ServicePlan>,
    config: &Config,
) -> Result<LeadsTo, ConfigError> {
    match (&route.service, &route.aggregate) {
        (Some(name), None) => {
            check_service(at, name, services)?;
            Ok(match transcode::api(at, route, &services[name])? {
                None => LeadsTo::Service(name.clone()),
                Some(api) => LeadsTo::Calls(name.clone(), api),
            })
        }
        (None, Some(_)) => {
            let plan = AggregatePlan::new(at, route, services, config.part_bytes_max)?;
            Ok(LeadsTo::Aggregate(plan))
        }
        (None, None) => {
            let reason = "is missing: name a service, or by aggregate the parts of an answer";
            Err(at.wrong("service", reason))
        }
        (Some(_), Some(_)) => {
            let reason = "does not go together with service; leave one out";
            Err(at.wrong("aggregate", reason))
        }
    }
}

fn check_service(
    at: &Key,
    name: &str,
    services: &BTreeMap<String, ServicePlan>,
) -> Result<(), ConfigError> {
    if services.contains_key(name) {
        return Ok(());
    }
    let known: Vec<&str> = services.keys().map(String::as_str).collect();
    let known = match known.is_empty() {
        true => "there are none".to_owned(),
        false => format!("there are {}", known.join(", ")),
    };
    let reason = format!("names no service; add [gateway.services.NAME]: {known}");
    Err(at.wrong("service", reason))
}

fn access(at: &Key, route: &RouteConfig) -> Result<Access, ConfigError> {
    match (&route.scopes, route.public) {
        (None, true) => Ok(Access::Public),
        (Some(names), false) => {
            let scopes = names.iter().enumerate().map(|(index, name)| {
                let scope: Result<_, auspex_kernel::caller::UnknownScope> = name.parse();
                scope.map_err(|error| {
                    at.wrong(&format!("scopes[{index}]"), format!("is wrong: {error}"))
                })
            });
            Ok(Access::Scopes(scopes.collect::<Result<_, _>>()?))
        }
        (None, false) => Err(at.wrong(
            "scopes",
            "is missing: name what a caller needs, such as [\"predict\"], write [] for everybody \
             who is logged in, or public = true for everybody",
        )),
        (Some(_), true) => {
            Err(at.wrong("public", "does not go together with scopes; leave one out"))
        }
    }
}

fn window(at: &Key, limit: RouteLimit) -> Result<RateLimit, ConfigError> {
    let limit = RateLimit {
        max: limit.max,
        window_s: limit.window_s,
        callers_max: CALLERS_MAX,
    };
    limit.check(&format!("{}.rate_limit", at.0)).map(|()| limit)
}

#[cfg(test)]
impl Plan {
    /// Of settings over the defaults.
    pub(crate) fn of(settings: &str) -> Result<Self, ConfigError> {
        #[derive(serde::Deserialize)]
        struct Settings {
            gateway: Config,
        }
        let mut merged: toml::Table = crate::config::DEFAULTS.parse().expect("valid");
        let given: toml::Table = settings.parse().expect("valid TOML");
        let given = given["gateway"].as_table().expect("a table").clone();
        merged["gateway"]
            .as_table_mut()
            .expect("a table")
            .extend(given);
        let settings: Settings = merged.try_into().expect("the right types");
        Self::new(&settings.gateway)
    }
}

#[cfg(test)]
mod tests;
