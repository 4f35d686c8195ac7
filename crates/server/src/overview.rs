//! `GET /v1/server`: what an operator wants to know of a running server at a glance.

use std::net::IpAddr;
use std::sync::Arc;

use auspex_kernel::config::Reloads;
use auspex_kernel::error::Envelope;
use auspex_kernel::id::new_id;
use auspex_kernel::quota::RateLimit;
use auspex_kernel::service::{OpenError, Warning};
use auspex_kernel::{Clock, Random, Timestamp};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::Config;
use crate::health::{Health, Status};
use crate::metrics::Metrics;
use crate::services::Services;
use crate::tls::Tls;

/// Knows this start of the program.
pub(crate) struct Overview {
    id: String,
    started_at: Timestamp,
    config: Config,
    services: Services,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    seen: Seen,
}

/// What watches files, and knows what is wrong with them.
pub(crate) struct Seen {
    pub(crate) reloads: Reloads,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// A running server.
#[derive(Serialize, ToSchema)]
#[schema(as = Server)]
struct ServerView {
    /// Of the program
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Names this start of the server; another one after a restart
    #[schema(example = "06BQ3M5K8V2T9XWD")]
    instance_id: String,
    #[schema(format = DateTime, example = "2026-01-25T10:00:00Z")]
    started_at: String,
    state: State,
    limits: LimitsView,
    /// Each service with whether its checks pass
    services: Vec<ServiceView>,
    /// Since the start
    traffic: TrafficView,
    /// What an operator should look at; empty when there is nothing
    warnings: Vec<WarningView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServerState)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Takes requests
    Serving,
    /// Finishes those in flight
    Stopping,
}

/// The limits in force; routes may have others of their own.
#[derive(Serialize, ToSchema)]
#[schema(as = ServerLimits)]
struct LimitsView {
    /// Per caller
    rate_limit: RateLimitView,
    /// Per address, for anonymous and refused requests
    address_limit: RateLimitView,
    connections_max: usize,
    body_bytes_max: usize,
    body_timeout_ms: u64,
    request_timeout_ms: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServerRateLimit)]
struct RateLimitView {
    /// Requests in any interval of `window_s` seconds
    max: u32,
    window_s: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServerService)]
struct ServiceView {
    #[schema(example = "inference")]
    name: &'static str,
    status: Status,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServerTraffic)]
struct TrafficView {
    /// Open at this moment
    connections: i64,
    /// Answered
    requests: u64,
    /// Of these with a status of 400 to 499
    client_errors: u64,
    /// Of these with a status of 500 and above
    server_errors: u64,
    /// Half of the requests took at most this long, as far as the buckets of the metric tell; null
    /// without requests, and above 10 seconds
    latency_p50_ms: Option<f64>,
    /// The same of 99 in 100
    latency_p99_ms: Option<f64>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServerWarning)]
struct WarningView {
    /// For programs
    #[schema(example = "ADMIN_KEY_FILE")]
    code: &'static str,
    /// What is wrong and what to do
    message: String,
}

impl Overview {
    /// # Errors
    /// The operating system gave no random bytes.
    pub(crate) fn new(
        config: Config,
        services: Services,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        seen: Seen,
        clock: &Clock,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            id: new_id(clock, &Random::system())?,
            started_at: clock.now(),
            config,
            services,
            health,
            metrics,
            seen,
        })
    }

    async fn view(&self) -> ServerView {
        let server = &self.config.server;
        let rate_limit = |limit: &RateLimit| RateLimitView {
            max: limit.max,
            window_s: limit.window_s,
        };
        let traffic = self.metrics.traffic();
        let latency_ms = |share| traffic.within_s(share).map(|seconds| seconds * 1e3);
        let services = self.health.of_services().await;
        let warnings = self.own_warnings().into_iter();
        let warnings = warnings.chain(self.services.iter().flat_map(|s| s.warnings()));
        ServerView {
            version: env!("CARGO_PKG_VERSION"),
            instance_id: self.id.clone(),
            started_at: self.started_at.to_rfc3339(),
            state: match self.health.stopping() {
                true => State::Stopping,
                false => State::Serving,
            },
            limits: LimitsView {
                rate_limit: rate_limit(&server.rate_limit),
                address_limit: rate_limit(&server.address_limit),
                connections_max: server.connections_max,
                body_bytes_max: server.body_bytes_max,
                body_timeout_ms: server.body_timeout_ms,
                request_timeout_ms: server.request_timeout_ms,
            },
            services: services
                .into_iter()
                .map(|(name, status)| ServiceView { name, status })
                .collect(),
            traffic: TrafficView {
                connections: self.metrics.connections().count(),
                requests: traffic.requests(),
                client_errors: traffic.of_class(4),
                server_errors: traffic.of_class(5),
                latency_p50_ms: latency_ms(0.5),
                latency_p99_ms: latency_ms(0.99),
            },
            warnings: warnings
                .map(|Warning { code, message }| WarningView { code, message })
                .collect(),
        }
    }

    /// What the server itself sees.
    fn own_warnings(&self) -> Vec<Warning> {
        let wanted = self.config.descriptors_wanted();
        let mut warnings = setting_warnings(&self.config);
        warnings.extend(descriptor_warning(wanted));
        warnings.extend(reload_warnings(&self.seen.reloads));
        warnings.extend(self.seen.tls.iter().flat_map(|tls| tls.warnings()));
        warnings
    }
}

/// What is to be said of settings that were changed meanwhile.
fn reload_warnings(reloads: &Reloads) -> impl Iterator<Item = Warning> + use<> {
    let refused = reloads.refused().filter(|refused| refused.is_current);
    let refused = refused.map(|refused| Warning {
        code: "CONFIG_REFUSED",
        message: format!(
            "the configuration was changed and is wrong, so that from before is in force: {}",
            refused.reason
        ),
    });
    let sections = reloads.needs_restart();
    let restart = (!sections.is_empty()).then(|| Warning {
        code: "RESTART_NEEDED",
        message: format!(
            "the configuration was changed; restart the server for these sections: {}",
            sections.join(", ")
        ),
    });
    refused.into_iter().chain(restart)
}

/// What is to be said of settings that are allowed.
pub(crate) fn setting_warnings(config: &Config) -> Vec<Warning> {
    let warnings = [url_warning(config), proxies_warning(config)];
    warnings.into_iter().flatten().collect()
}

/// Whoever may be anybody's proxy may choose their address.
fn proxies_warning(config: &Config) -> Option<Warning> {
    let all = |range: &&String| range.ends_with("/0");
    let range = config.server.trusted_proxies.iter().find(all)?;
    Some(Warning {
        code: "TRUSTED_PROXIES_ALL",
        message: format!(
            "server.trusted_proxies has {range}, so every client may choose the address that limits and \
             the audit record see; name the proxies alone"
        ),
    })
}

/// What is to be said of the public URL, if anything.
fn url_warning(config: &Config) -> Option<Warning> {
    let url = config.public_url();
    if config.server.public_url.is_empty() && !config.server.listen.ip().is_loopback() {
        return Some(Warning {
            code: "PUBLIC_URL_UNSET",
            message: format!(
                "server.public_url is not set, so links and tokens name {url}, and pages are shown \
                 under addresses alone; set it to the URL that clients use: public_url = \"https://models.example.org\" below [server] in \
                 auspex.toml, or the variable AUSPEX__SERVER__PUBLIC_URL"
            ),
        });
    }
    let is_open = url.starts_with("http://") && !is_loopback(&config.public_authority());
    is_open.then(|| Warning {
        code: "PUBLIC_URL_WITHOUT_TLS",
        message: "server.public_url begins with http://, so credentials cross the network \
                  unencrypted; put TLS in front and set an https:// URL, or set server.tls"
            .into(),
    })
}

fn descriptor_warning(wanted: u64) -> Option<Warning> {
    let (limit, _) = rlimit::Resource::NOFILE.get().ok()?;
    (limit < wanted).then(|| Warning {
        code: "DESCRIPTOR_LIMIT",
        message: format!(
            "the limit of open files is {limit}, and server.connections_max needs {wanted}; raise \
             it with ulimit -n"
        ),
    })
}

/// Whether `host[:port]` is this machine.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

pub(crate) fn operations() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(get_server))
}

/// The server and what an operator should look at
///
/// Asks for `metrics:read`: it is what a monitoring system has, and this tells the same kind of
/// things as `/metrics`, for people and dashboards.
#[utoipa::path(
    get, path = "/v1/server", tag = "system",
    security(("api_key" = ["metrics:read"]), ("bearer" = ["metrics:read"])),
    responses(
        (status = 200, description = "The server as it is now", body = ServerView),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "The scope metrics:read is missing", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_server(Extension(overview): Extension<Arc<Overview>>) -> Json<ServerView> {
    Json(overview.view().await)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Overrides};

    #[test]
    fn a_public_url_that_misleads_or_exposes_is_warned_of() {
        let code = |listen: &str, url: &str| {
            let variables = [
                ("AUSPEX__SERVER__LISTEN", listen),
                ("AUSPEX__SERVER__PUBLIC_URL", url),
            ];
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let loaded = settings::load(&Overrides::default(), || variables.to_vec());
            url_warning(&loaded.expect("valid").config).map(|warning| warning.code)
        };
        assert_eq!(code("127.0.0.1:80", ""), None);
        assert_eq!(code("0.0.0.0:80", ""), Some("PUBLIC_URL_UNSET"));
        assert_eq!(code("0.0.0.0:80", "http://localhost:80"), None);
        assert_eq!(code("0.0.0.0:80", "https://x.example.org"), None);
        let open = Some("PUBLIC_URL_WITHOUT_TLS");
        assert_eq!(code("127.0.0.1:80", "http://x.example.org"), open);
    }

    #[test]
    fn proxies_that_anybody_may_be_are_warned_of() {
        for (proxies, is_warned) in [("10.0.0.0/8", false), ("10.0.0.1, ::/0", true)] {
            let variables = || {
                let name = "AUSPEX__SERVER__TRUSTED_PROXIES".to_owned();
                vec![(name, proxies.to_owned())]
            };
            let loaded = settings::load(&Overrides::default(), variables).expect("valid");
            let codes = setting_warnings(&loaded.config)
                .into_iter()
                .map(|one| one.code);
            assert_eq!(
                codes.into_iter().any(|code| code == "TRUSTED_PROXIES_ALL"),
                is_warned
            );
        }
    }

    #[test]
    fn a_low_limit_of_open_files_is_warned_of() {
        assert_eq!(descriptor_warning(1), None);
        assert!(descriptor_warning(u64::MAX).is_some());
    }

    #[test]
    fn this_machine_is_recognised_by_name_and_address() {
        for authority in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback(authority), "{authority}");
        }
        for authority in ["models.example.org", "10.0.0.1:80", "localhost.example.org"] {
            assert!(!is_loopback(authority), "{authority}");
        }
    }
}
