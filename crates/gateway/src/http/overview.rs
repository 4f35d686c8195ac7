//! How the services are, at a glance and as it changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::Steady;
use auspex_kernel::http::error_responses;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Desk, TAG};
use crate::balance::Service;
use crate::circuit::State as CircuitState;
use crate::journal::{Change, Event};
use crate::upstream::Endpoint;

/// A stream without news says so.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What stands behind the gateway, as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = Gateway)]
struct GatewayView {
    configuration: ConfigurationView,
    /// By name
    services: Vec<ServiceView>,
}

/// The settings, which are read again when their file changes.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayConfiguration)]
struct ConfigurationView {
    /// Since when those that are in force are
    #[schema(format = DateTime)]
    taken_at: String,
    /// The last ones that were wrong; null if there were none since the start
    refused: Option<RefusedView>,
}

/// Settings that were not taken; those from before stayed in force.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayConfigurationRefused)]
struct RefusedView {
    /// When they were read
    #[schema(format = DateTime)]
    at: String,
    /// What is wrong and where
    reason: String,
    /// Whether no others were taken since
    is_current: bool,
}

/// A service behind the gateway.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayService)]
struct ServiceView {
    #[schema(example = "orders")]
    name: String,
    status: ServiceStatus,
    /// Requests since the start
    requests: u64,
    /// Of these without an answer, or with one of 5xx
    errors: u64,
    /// Sent once more
    retries: u64,
    /// Not sent once more because the budget was spent
    retries_refused: u64,
    /// Half of the answers began within this time, as far as the buckets of the metric tell; null without requests,
    /// and above 10 seconds
    latency_p50_ms: Option<f64>,
    /// The same of 99 in 100
    latency_p99_ms: Option<f64>,
    endpoints: Vec<EndpointView>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = GatewayServiceStatus)]
#[serde(rename_all = "lowercase")]
enum ServiceStatus {
    /// Every endpoint is asked
    Healthy,
    /// Some are left alone
    Degraded,
    /// All are left alone, or there is none
    Unavailable,
}

/// A server that does what the service does.
#[derive(Serialize, ToSchema)]
#[schema(as = GatewayEndpoint)]
struct EndpointView {
    #[schema(example = "http://127.0.0.1:9001")]
    url: String,
    circuit: CircuitStateView,
    /// When one request is let through to try it; null unless the circuit is open
    #[schema(format = DateTime)]
    open_until: Option<String>,
    /// Requests that it has not answered, or whose answers are being read
    in_hand: u32,
    /// How long an answer is believed to take: what was slow lately counts most, and a failure as 5 seconds
    expected_latency_ms: f64,
    /// The last changes of its circuit, newest first, 20 at most
    changes: Vec<ChangeView>,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = CircuitState)]
#[serde(rename_all = "snake_case")]
enum CircuitStateView {
    /// It is asked
    Closed,
    /// It is left alone
    Open,
    /// One request tries it
    HalfOpen,
}

/// A circuit has gone from one state to another.
#[derive(Serialize, ToSchema)]
#[schema(as = CircuitChange)]
struct ChangeView {
    #[schema(format = DateTime)]
    at: String,
    from: CircuitStateView,
    to: CircuitStateView,
    /// Until when it is open; null otherwise
    #[schema(format = DateTime)]
    open_until: Option<String>,
    /// For people
    #[schema(example = "5 failures in a row, the last: timeout")]
    cause: String,
}

/// The `data` of an event `circuit`.
#[derive(Serialize, ToSchema)]
#[schema(as = CircuitEvent)]
struct EventView {
    service: String,
    #[schema(example = "http://127.0.0.1:9001")]
    endpoint: String,
    #[serde(flatten)]
    change: ChangeView,
}

impl From<CircuitState> for CircuitStateView {
    fn from(state: CircuitState) -> Self {
        match state {
            CircuitState::Closed => Self::Closed,
            CircuitState::Open { .. } => Self::Open,
            CircuitState::HalfOpen => Self::HalfOpen,
        }
    }
}

fn url(service: Option<&Service>, authority: &str) -> String {
    let scheme = service.map_or("http", |service| service.plan.scheme());
    format!("{scheme}://{authority}")
}

/// One moment on the two clocks, to tell the date of others.
#[derive(Clone, Copy)]
struct Dates {
    now: auspex_kernel::Timestamp,
    steady: Steady,
}

impl Dates {
    fn of(self, moment: Steady) -> String {
        let date = self.now - self.steady.since(moment) + moment.since(self.steady);
        date.to_rfc3339()
    }

    fn open_until(self, state: CircuitState) -> Option<String> {
        match state {
            CircuitState::Open { until } => Some(self.of(until)),
            CircuitState::Closed | CircuitState::HalfOpen => None,
        }
    }

    fn change(self, change: Change) -> ChangeView {
        ChangeView {
            at: self.of(change.at),
            from: change.from.into(),
            to: change.to.into(),
            open_until: self.open_until(change.to),
            cause: change.cause,
        }
    }
}

impl Desk {
    fn dates(&self) -> Dates {
        Dates {
            now: self.clock.now(),
            steady: self.clock.steady(),
        }
    }

    fn gateway(&self) -> GatewayView {
        let (dates, gateway) = (self.dates(), self.live.now());
        let services = gateway.services.values();
        let refused = self.reloads.refused().map(|refused| RefusedView {
            at: refused.at.to_rfc3339(),
            reason: refused.reason,
            is_current: refused.is_current,
        });
        GatewayView {
            configuration: ConfigurationView {
                taken_at: self.reloads.taken_at().to_rfc3339(),
                refused,
            },
            services: services.map(|one| service_view(one, dates)).collect(),
        }
    }

    fn event(&self, event: &Event) -> EventView {
        let gateway = self.live.now();
        let service = gateway.services.get(&*event.service).map(|one| &**one);
        EventView {
            service: event.service.to_string(),
            endpoint: url(service, &event.endpoint),
            change: self.dates().change(event.change.clone()),
        }
    }
}

fn service_view(service: &Service, dates: Dates) -> ServiceView {
    let (counts, endpoints) = (&service.counts, service.endpoints());
    let latencies = counts.durations.counts();
    let latency_ms = |share| latencies.within_s(share).map(|seconds| seconds * 1e3);
    let view = |one: &Arc<Endpoint>| endpoint_view(service, one, dates);
    let endpoints = endpoints.iter().map(view);
    let endpoints: Vec<EndpointView> = endpoints.collect();
    let is_open = |one: &&EndpointView| matches!(one.circuit, CircuitStateView::Open);
    let open = endpoints.iter().filter(is_open).count();
    ServiceView {
        name: service.plan.name.clone(),
        status: match open {
            _ if open == endpoints.len() => ServiceStatus::Unavailable,
            0 => ServiceStatus::Healthy,
            _ => ServiceStatus::Degraded,
        },
        requests: counts.requests(),
        errors: counts.errors(),
        retries: counts.budget.made(),
        retries_refused: counts.budget.refused(),
        latency_p50_ms: latency_ms(0.5),
        latency_p99_ms: latency_ms(0.99),
        endpoints,
    }
}

fn endpoint_view(service: &Service, endpoint: &Endpoint, dates: Dates) -> EndpointView {
    let state = endpoint.circuit.state();
    let changes = endpoint.circuit.changes().into_iter().rev();
    EndpointView {
        url: url(Some(service), &endpoint.place().to_string()),
        circuit: state.into(),
        open_until: dates.open_until(state),
        in_hand: endpoint.load.in_hand(),
        expected_latency_ms: endpoint.load.latency(dates.steady).as_secs_f64() * 1e3,
        changes: changes.map(|change| dates.change(change)).collect(),
    }
}

struct GatewayErrors;

impl utoipa::IntoResponses for GatewayErrors {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        error_responses(&[401, 403, 429, 500])
    }
}

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(get_gateway))
        .routes(routes!(watch_gateway))
}

/// The services behind the gateway
///
/// Each with its endpoints, the state of their circuits and how those came there; and what became of the last
/// changes of the settings.
#[utoipa::path(
    get, path = "/v1/gateway", tag = TAG,
    responses(
        (status = 200, description = "As it is now", body = GatewayView),
        GatewayErrors,
    ),
    security(("api_key" = ["gateway:read"]), ("bearer" = ["gateway:read"]))
)]
async fn get_gateway(State(desk): State<Desk>) -> Json<GatewayView> {
    Json(desk.gateway())
}

/// Watch the circuits
///
/// Server-sent events: first `gateway`, whose data is what `GET /v1/gateway` answers, then `circuit` for each change
/// of a circuit. Whoever reads too slowly gets `gateway` again in place of what they missed. A comment comes at least
/// every 15 seconds. It ends with the credential, and when the server stops.
#[utoipa::path(
    get, path = "/v1/gateway/events", tag = TAG,
    responses(
        (status = 200, description = "Events as they happen", body = EventView, content_type = "text/event-stream"),
        GatewayErrors,
    ),
    security(("api_key" = ["gateway:read"]), ("bearer" = ["gateway:read"]))
)]
async fn watch_gateway(State(desk): State<Desk>) -> Response {
    let events = desk.live.watchers.watch();
    let first = event("gateway", &desk.gateway());
    let begin = (Some(first), events, desk);
    let stream = unfold(begin, async |(first, mut events, desk)| {
        let next = match first {
            Some(first) => first,
            None => next(&mut events, &desk).await?,
        };
        Some((Ok::<_, Infallible>(next), (None, events, desk)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The next piece of the stream.
async fn next(events: &mut Receiver<Arc<Event>>, desk: &Desk) -> Option<Bytes> {
    match tokio::time::timeout(SILENCE_MAX, events.recv()).await {
        Ok(Ok(change)) => Some(event("circuit", &desk.event(&change))),
        Ok(Err(RecvError::Lagged(_))) => Some(event("gateway", &desk.gateway())),
        Ok(Err(RecvError::Closed)) => None,
        Err(_) => Some(Bytes::from_static(b": nothing new\n\n")),
    }
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    // Views are text and numbers, and JSON has no line ends.
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n").into()
}
