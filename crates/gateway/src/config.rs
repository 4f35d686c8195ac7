//! Settings of the gateway: the `[gateway]` section. `plan.rs` says what of them is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use auspex_kernel::policy::Policy;
use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

/// Every setting with its default and its meaning.
pub(crate) const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[gateway]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What requests are passed on to, by name.
    pub services: BTreeMap<String, ServiceConfig>,
    /// Which requests are.
    pub routes: Vec<RouteConfig>,
    /// Servers of names, as `ADDRESS:PORT`; none: those of the system.
    pub dns_servers: Vec<String>,
    /// Until an answer begins.
    pub timeout_ms: u64,
    /// Until a connection is accepted.
    pub connect_timeout_ms: u64,
    /// How long a connection is kept for the next request.
    pub idle_timeout_ms: u64,
    /// Connections kept so, for each endpoint and thread.
    pub idle_connections_max: usize,
    /// Of what one part of a composed answer may be long.
    pub part_bytes_max: usize,
    /// `[gateway.cache]`.
    pub cache: CacheConfig,
    /// `[gateway.circuit_breaker]`.
    pub circuit_breaker: CircuitBreakerConfig,
    /// `[gateway.retry]`.
    pub retry: RetryConfig,
    /// Roles that other processes serve: no setting of this section, the root puts them in.
    #[serde(skip)]
    pub remote_roles: Vec<RemoteRole>,
}

/// Where the secret stands by which processes of one server know each other.
pub const X_AUSPEX_CLUSTER: HeaderName = HeaderName::from_static("x-auspex-cluster");

/// A role that other processes of this server serve. Its requests are passed on as they are, credentials included, and
/// everything is decided there: who may call, limits, answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRole {
    /// Its name, which no other service has.
    pub name: &'static str,
    /// Where its processes are, and how they are treated.
    pub service: ServiceConfig,
    /// What they answer.
    pub routes: Vec<RemoteRoute>,
    /// Shows them that the address of the client is true.
    pub secret: HeaderValue,
}

/// A route of a [`RemoteRole`].
#[derive(Clone, Debug)]
pub struct RemoteRoute {
    /// Such as `/v1/models/{model}`.
    pub path: String,
    /// Which are passed on.
    pub methods: Vec<Method>,
    /// How it is treated where it is served.
    pub policy: Policy,
}

/// What it is like is decided by its path and methods.
impl PartialEq for RemoteRoute {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.methods == other.methods
    }
}

impl Eq for RemoteRoute {}

/// `[gateway.cache]`: what may be kept of answers of routes with `cache`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// All together.
    pub bytes_max: u64,
    /// The body of one.
    pub entry_bytes_max: usize,
}

/// `[gateway.circuit_breaker]`: when an endpoint is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitBreakerConfig {
    /// After so many failures in a row.
    pub failure_threshold: u32,
    /// Or when this share of the requests failed.
    pub failure_percent: u32,
    /// Within this time.
    pub window_s: u32,
    /// Of at least so many.
    pub requests_min: u32,
    /// How long it is left alone at first.
    pub recovery_timeout_s: u32,
}

/// `circuit_breaker` of a service: what differs from `[gateway.circuit_breaker]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceBreakerConfig {
    /// After so many failures in a row.
    pub failure_threshold: Option<u32>,
    /// Or when this share of the requests failed.
    pub failure_percent: Option<u32>,
    /// Within this time.
    pub window_s: Option<u32>,
    /// Of at least so many.
    pub requests_min: Option<u32>,
    /// How long it is left alone at first.
    pub recovery_timeout_s: Option<u32>,
}

/// `[gateway.retry]`: when a request is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// How often, beside the first time.
    pub retries_max: u32,
    /// How long it waits at most before the first retry; twice as long before each next one.
    pub base_delay_ms: u32,
    /// Retries for so many in a hundred requests, and 10 a second.
    pub budget_percent: u32,
    /// Whether each wait is drawn from what is below its length.
    pub jitter: bool,
}

/// `retry` of a service: what differs from `[gateway.retry]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRetryConfig {
    /// How often, beside the first time.
    pub retries_max: Option<u32>,
    /// How long it waits at most before the first retry; twice as long before each next one.
    pub base_delay_ms: Option<u32>,
    /// Retries for so many in a hundred requests, and 10 a second.
    pub budget_percent: Option<u32>,
    /// Whether each wait is drawn from what is below its length.
    pub jitter: Option<bool>,
}

/// `health` of a service: how its endpoints are checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// What is asked for; an answer of 2xx is a good one.
    pub path: String,
    /// From one check to the next.
    #[serde(default = "HealthConfig::interval_ms")]
    pub interval_ms: u64,
    /// Until there is an answer; 1,000, or the interval if that is shorter.
    pub timeout_ms: Option<u64>,
    /// After so many checks in a row that fail an endpoint is left alone.
    #[serde(default = "HealthConfig::unhealthy_after")]
    pub unhealthy_after: u32,
    /// And after so many that succeed it is asked again.
    #[serde(default = "HealthConfig::healthy_after")]
    pub healthy_after: u32,
}

impl HealthConfig {
    fn interval_ms() -> u64 {
        5_000
    }

    fn unhealthy_after() -> u32 {
        3
    }

    fn healthy_after() -> u32 {
        2
    }
}

/// `[gateway.services.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// URLs of servers that do the same; none: those that register.
    pub endpoints: Option<Vec<String>>,
    /// In place of endpoints: `HOST:PORT`, of which DNS has the addresses.
    pub dns: Option<String>,
    /// In place of endpoints: the name of an SRV record.
    pub srv: Option<String>,
    /// Where servers that register may be, in place of loopback and private ranges.
    pub addresses_allowed: Option<Vec<String>>,
    /// How its servers are spoken to.
    #[serde(default)]
    pub protocol: ProtocolConfig,
    /// How TLS to its servers differs from the usual; where they do not begin with `https://`, that there is
    /// TLS.
    pub tls: Option<TlsConfig>,
    /// In place of `gateway.timeout_ms`.
    pub timeout_ms: Option<u64>,
    /// How endpoints are chosen: `p2c`, `round-robin`, `least-requests` or `hash(…)`.
    pub balance: Option<String>,
    /// Requests that an endpoint has at once; none: any number.
    pub requests_max: Option<u32>,
    /// How endpoints are checked; none: not at all.
    pub health: Option<HealthConfig>,
    /// Whether it is told who calls, by a signed token; none: it is.
    pub identity_token: Option<bool>,
    /// Whom these tokens are for; none: the name of the service.
    pub audience: Option<String>,
    /// What differs from `[gateway.circuit_breaker]`.
    #[serde(default)]
    pub circuit_breaker: ServiceBreakerConfig,
    /// What differs from `[gateway.retry]`.
    #[serde(default)]
    pub retry: ServiceRetryConfig,
}

/// `tls` of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates that are believed, in place of those of the system.
    pub ca_file: Option<PathBuf>,
    /// What is shown to its servers.
    pub client_cert_file: Option<PathBuf>,
    /// The key of that.
    pub client_key_file: Option<PathBuf>,
    /// What certificates must name, in place of the host.
    pub server_name: Option<String>,
}

/// `protocol` of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProtocolConfig {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 from the first byte on, without asking.
    Http2,
}

/// `[[gateway.routes]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Such as `/orders/{id}` or `/orders/{*rest}`.
    pub path: String,
    /// Which are passed on; none: all but CONNECT and TRACE.
    #[serde(default)]
    pub methods: Option<Vec<String>>,
    /// Of which hosts, such as `api.example.org` or `*.example.org`; none: of any.
    pub hosts: Option<Vec<String>>,
    /// With which headers, all of them; none: with any.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The name of a service.
    pub service: Option<String>,
    /// In place of a service: parts that the answer is made of.
    pub aggregate: Option<Vec<PartConfig>>,
    /// What a caller needs, all of it; empty: to be logged in.
    pub scopes: Option<Vec<String>>,
    /// Whether everybody may call, instead.
    #[serde(default)]
    pub public: bool,
    /// What is taken off the path before the service sees it.
    #[serde(default)]
    pub strip_prefix: String,
    /// A count of its own in place of the server's.
    pub rate_limit: Option<RouteLimit>,
    /// Whether answers are kept for the next who ask.
    pub cache: Option<RouteCache>,
    /// Whether the service speaks gRPC, and clients JSON.
    pub transcode: Option<RouteTranscode>,
    /// Whether the service gets the credentials that were meant for this server.
    #[serde(default)]
    pub forward_credentials: bool,
    /// Whether the service gets the client's `Host` in place of its own.
    #[serde(default)]
    pub preserve_host: bool,
    /// Whether requests for WebSocket are passed on as such.
    #[serde(default = "yes")]
    pub websocket: bool,
}

fn yes() -> bool {
    true
}

/// A part of `aggregate`: a field of the answer, and who knows it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    /// The field.
    pub name: String,
    /// The name of a service.
    pub service: String,
    /// What is asked of it, such as `/orders?user={id}`.
    pub path: String,
    /// Whether there is an answer without it.
    #[serde(default)]
    pub optional: bool,
}

/// `transcode` of a route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTranscode {
    /// The file with the descriptors of its services, as protoc writes it.
    pub descriptor: PathBuf,
}

/// `rate_limit` of a route: of each caller, or of each address on a public one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteLimit {
    /// Requests per window.
    pub max: u32,
    /// Its length in seconds.
    pub window_s: u32,
}

/// `cache` of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteCache {
    /// How long an answer is fresh whose service does not say it.
    pub ttl_s: u64,
}
