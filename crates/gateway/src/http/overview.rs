//! How the services are, at a glance and as it changes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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

use super::endpoint::{ChangeView, Dates, EndpointView, url};
use super::{Desk, TAG};
use crate::balance::Service;
use crate::journal::Event;

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

/// The `data` of an event `circuit` or `health`.
#[derive(Serialize, ToSchema)]
#[schema(as = EndpointEvent)]
struct EventView {
    service: String,
    #[schema(example = "http://127.0.0.1:9001")]
    endpoint: String,
    #[serde(flatten)]
    change: ChangeView,
}

impl Desk {
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
            change: ChangeView::new(event.change.clone(), self.dates()),
        }
    }
}

fn service_view(service: &Service, dates: Dates) -> ServiceView {
    let (counts, endpoints) = (&service.counts, service.endpoints());
    let latencies = counts.durations.counts();
    let latency_ms = |share| latencies.within_s(share).map(|seconds| seconds * 1e3);
    let endpoints = endpoints
        .iter()
        .map(|one| EndpointView::new(service, one, dates));
    let (asked, all) = service.asked();
    ServiceView {
        name: service.plan.name.clone(),
        status: match asked {
            0 => ServiceStatus::Unavailable,
            _ if asked == all => ServiceStatus::Healthy,
            _ => ServiceStatus::Degraded,
        },
        requests: counts.requests(),
        errors: counts.errors(),
        retries: counts.budget.made(),
        retries_refused: counts.budget.refused(),
        latency_p50_ms: latency_ms(0.5),
        latency_p99_ms: latency_ms(0.99),
        endpoints: endpoints.collect(),
    }
}

struct GatewayErrors;

impl utoipa::IntoResponses for GatewayErrors {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        error_responses(&[401, 403, 429, 500, 503])
    }
}

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(get_gateway))
        .routes(routes!(watch_gateway))
}

/// The services behind the gateway
///
/// Each with its endpoints, the state of their circuits and checks and how those came there; and what became of the
/// last changes of the settings.
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

/// Watch the circuits and health checks
///
/// Server-sent events: first `gateway`, whose data is what `GET /v1/gateway` answers, then `circuit` for each change
/// of a circuit, and `health` where checks say the opposite of before. Whoever reads too slowly gets `gateway` again in place of what they missed. A comment comes at least
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
    let events = desk.live.watchers().watch();
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
        Ok(Ok(change)) => {
            let view = desk.event(&change);
            Some(event(view.change.event(), &view))
        }
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
