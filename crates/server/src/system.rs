//! The server's own routes: health, metrics, the OpenAPI document and its page.

use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::http::add_error_schemas;
use auspex_kernel::policy::{Policy, Runs};
use auspex_kernel::service::{Documented, Routes};
use auspex_kernel::{ApiError, etag};
use axum::Extension;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::audit;
use crate::front::{self, Front};
use crate::health::{Health, Report};
use crate::metrics::Metrics;
use crate::overview::{self, Overview};

/// The documentation page needs its own scripts and styles and nothing from other sites.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

const DOCS_PAGES: [&str; 4] = ["/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];

const TAGS: [(&str, &str); 2] = [("audit", "Who did what"), ("system", "How the server is")];

/// The finished document, with its tag.
#[derive(Clone)]
pub(crate) struct Document {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Document {
    pub(crate) fn new(text: String) -> Self {
        Self {
            tag: etag::of(text.as_bytes()),
            bytes: text.into(),
        }
    }
}

/// What the handlers need.
pub(crate) struct Parts {
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) overview: Arc<Overview>,
    pub(crate) front: Arc<Front>,
    pub(crate) record: audit::Record,
}

/// The server's own routes, without the documentation.
pub(crate) fn routes(parts: &Parts, public_metrics: bool) -> Routes {
    let (router, operations) = operations(public_metrics)
        .layer(Extension(parts.health.clone()))
        .layer(Extension(parts.metrics.clone()))
        .layer(Extension(parts.overview.clone()))
        .layer(Extension(parts.front.clone()))
        .layer(Extension(parts.record.clone()))
        .split_for_parts();
    let front = Policy {
        needs_own_host: true,
        ..Policy::default()
    };
    let ready = Policy {
        is_limited: false,
        ..Policy::default()
    };
    // It must answer even while everything else is busy.
    let live = Policy {
        runs: Runs::Inline,
        ..ready
    };
    Routes::new(router, Documented::new(operations).with_tags(&TAGS))
        .with_policy(&["get_health_live"], live)
        .with_policy(&["get_health_ready"], ready)
        .with_policy(&["get_index"], front)
}

/// Their part of the document. Metrics are public or not, as the settings say.
pub(crate) fn document(public_metrics: bool) -> Documented {
    Documented::new(operations(public_metrics).into_openapi()).with_tags(&TAGS)
}

fn operations(public_metrics: bool) -> OpenApiRouter {
    let router = OpenApiRouter::new()
        .routes(routes!(get_health))
        .routes(routes!(get_health_live))
        .routes(routes!(get_health_ready))
        .merge(overview::operations())
        .merge(front::operations())
        .merge(audit::operations());
    let mut router = if public_metrics {
        router.routes(routes!(get_metrics_public))
    } else {
        router.routes(routes!(get_metrics))
    };
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The document and Swagger UI, from inside the binary.
pub(crate) fn docs(document: Document) -> Routes {
    let ui: axum::Router = SwaggerUi::new("/docs")
        .config(Config::from("/openapi.json").validator_url("none"))
        .into();
    let ui = ui.layer(axum::middleware::map_response(
        async |mut response: Response| {
            let status = response.status();
            if status == StatusCode::NOT_FOUND {
                return ApiError::not_found("the documentation has no such page").into_response();
            }
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(DOCS_POLICY),
            );
            if status == StatusCode::OK {
                headers.insert(
                    header::CACHE_CONTROL,
                    HeaderValue::from_static("public, max-age=3600"),
                );
            }
            response
        },
    ));
    let router = axum::Router::new()
        .route("/openapi.json", axum::routing::get(get_openapi))
        .layer(Extension(document))
        .merge(ui);
    let undocumented = Documented::new(utoipa::openapi::OpenApi::default());
    Routes::new(router, undocumented).with_pages(&DOCS_PAGES)
}

async fn get_openapi(Extension(document): Extension<Document>, headers: HeaderMap) -> Response {
    let fixed = HeaderValue::from_static;
    let kind = [(header::CONTENT_TYPE, fixed("application/json"))];
    let full = (kind, document.bytes);
    etag::answer(&headers, document.tag, fixed("no-cache"), full)
}

/// How the server and its parts are
#[utoipa::path(
    get, path = "/health", tag = "system", security(()),
    responses(
        (status = 200, description = "Every part works; with the status degraded one of them not in all it should", body = Report),
        (status = 503, description = "At least one part does not work; the status says whether requests are answered without it", body = Report),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_health(Extension(health): Extension<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status = match report.all_work() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, axum::Json(report)).into_response()
}

/// A status in one word.
#[derive(Serialize, ToSchema)]
struct Sign {
    status: &'static str,
}

/// Whether the process answers at all
#[utoipa::path(
    get, path = "/health/live", tag = "system", security(()),
    responses(
        (status = 200, description = "It lives", body = Sign, example = json!({"status": "alive"})),
    )
)]
async fn get_health_live() -> axum::Json<Sign> {
    axum::Json(Sign { status: "alive" })
}

/// Whether a balancer should send requests here
#[utoipa::path(
    get, path = "/health/ready", tag = "system", security(()),
    responses(
        (status = 200, description = "It takes requests", body = Sign, example = json!({"status": "ready"})),
        (status = 503, description = "It is stopping, or a part does not work that nothing is answered without", body = Sign),
    )
)]
async fn get_health_ready(Extension(health): Extension<Arc<Health>>) -> Response {
    let (status, word) = if health.stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if !health.ready().await {
        (StatusCode::SERVICE_UNAVAILABLE, "unhealthy")
    } else {
        (StatusCode::OK, "ready")
    };
    (status, axum::Json(Sign { status: word })).into_response()
}

/// Counters for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "system",
    security(("api_key" = ["metrics:read"]), ("bearer" = ["metrics:read"])),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "The scope metrics:read is missing", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_metrics(Extension(metrics): Extension<Arc<Metrics>>) -> Response {
    render(&metrics)
}

/// Counters for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "system", security(()),
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn get_metrics_public(Extension(metrics): Extension<Arc<Metrics>>) -> Response {
    render(&metrics)
}

fn render(metrics: &Metrics) -> Response {
    let format =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, format)], metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower_service::Service as _;

    use super::*;

    async fn get(path: &str, known: Option<&HeaderValue>) -> Response {
        let mut request = Request::get(path).body(Body::empty()).expect("a request");
        if let Some(tag) = known {
            request
                .headers_mut()
                .insert(header::IF_NONE_MATCH, tag.clone());
        }
        let mut router = docs(Document::new("{}".into())).router;
        router.call(request).await.expect("no transport to fail")
    }

    #[tokio::test]
    async fn only_documentation_that_is_there_may_be_kept() {
        let page = get("/docs/", None).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert_eq!(
            page.headers()[header::CACHE_CONTROL],
            "public, max-age=3600"
        );
        let moved = get("/docs", None).await;
        assert!(moved.status().is_redirection());
        assert!(!moved.headers().contains_key(header::CACHE_CONTROL));
        let missing = get("/docs/nothing.js", None).await;
        assert_eq!(missing.status(), StatusCode::NOT_FOUND);
        assert!(!missing.headers().contains_key(header::CACHE_CONTROL));
        assert!(missing.extensions().get::<ApiError>().is_some());
    }

    #[tokio::test]
    async fn the_document_is_revalidated_by_weak_tags_too() {
        let tag = get("/openapi.json", None).await.headers()[header::ETAG].clone();
        let weak = format!("\"a\", W/{}", tag.to_str().expect("ASCII"));
        let weak = HeaderValue::try_from(weak).expect("a value");
        let answer = get("/openapi.json", Some(&weak)).await;
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    }
}
