//! Puts the parts together: the only place that knows them all.

use std::sync::Arc;

use auspex_identity::Identity;
use auspex_inference::Inference;
use auspex_kernel::body::Budget;
use auspex_kernel::db::Db;
use auspex_kernel::error::Envelope;
use auspex_kernel::quota::SlidingWindow;
use auspex_kernel::{Clock, CursorKey};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::config::{Config, RateLimit};
use crate::edge::{Cors, Edge, Limits, Observers, RouteTable};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::reports::Reports;
use crate::system;
use crate::traces::Traces;

/// The frame of the document; the parts fill it.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Auspex",
        description = "Trained models behind a production API.\n\nSend an API key as `X-API-Key` or as \
            `Authorization: Bearer`. Every error has the same shape and names the request in \
            `request_id`; answers to limited requests say in `X-RateLimit-*` what is left.",
    ),
    components(schemas(Envelope)),
    modifiers(&Security),
    tags(
        (name = "predictions", description = "Ask a model"),
        (name = "models", description = "What is loaded"),
        (name = "authentication", description = "From a name and a password to tokens"),
        (name = "users", description = "Who there is, and who one is oneself"),
        (name = "api-keys", description = "Credentials of programs"),
        (name = "audit", description = "Who did what"),
        (name = "system", description = "How the server is"),
    )
)]
struct Frame;

struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let key = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("X-API-Key")));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("api_key", key);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// Everything that answers requests.
pub(crate) struct App {
    pub(crate) edge: Edge,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The parts an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) db: Db,
    pub(crate) identity: Arc<Identity>,
    pub(crate) inference: Arc<Inference>,
    pub(crate) cursors: CursorKey,
    pub(crate) clock: Clock,
}

impl App {
    /// # Errors
    /// A message for the operator.
    pub(crate) fn new(config: &Config, parts: Parts) -> Result<Self, String> {
        let Parts {
            db,
            identity,
            inference,
            cursors,
            clock,
        } = parts;
        let mut metrics = Metrics::new();
        inference.register_metrics(metrics.registry());
        let metrics = Arc::new(metrics);
        let health = Arc::new(Health::new(db, inference.clone(), clock.clone()));
        let mut document = operations(config, &inference);
        // The typed operation of one model is an instance of the general one, not a route of its own.
        let ruled = to_value(&document)?;
        inference.add_model_operations(&mut document);
        let public = config.server.metrics.public;
        let router = axum::Router::from(inference.router(cursors.clone()))
            .merge(identity.clone().router(cursors))
            .merge(axum::Router::from(
                system::health_routes().with_state(health.clone()),
            ))
            .merge(axum::Router::from(
                system::metrics_routes(public).with_state(metrics.clone()),
            ));

        let pages: &[&str] = if config.server.docs {
            &system::PAGES
        } else {
            &[]
        };
        let routes = RouteTable::new(&ruled, pages, |path, method| {
            metrics.route(path, method.as_str())
        })
        .map_err(|error| format!("routes: {error}"))?;
        let document = system::Document::new(to_value(&document)?.to_string());
        let handlers = if config.server.docs {
            router.merge(system::docs(document))
        } else {
            router
        };

        let telemetry = &config.telemetry;
        let traces = match telemetry.otlp_endpoint.as_str() {
            "" => None,
            endpoint => Some(Traces::new(endpoint, telemetry.otlp_sample_ratio)?),
        };
        let reports = match telemetry.sentry_dsn.as_str() {
            "" => None,
            dsn => Some(Reports::new(dsn, &telemetry.sentry_environment)?),
        };
        let window =
            |limit: &RateLimit| SlidingWindow::new(limit.max, limit.window_s, limit.callers_max);
        let edge = Edge {
            routes,
            handlers,
            identity,
            callers: window(&config.server.rate_limit),
            addresses: window(&config.server.address_limit),
            clock,
            observers: Observers {
                access_log: telemetry.access_log,
                unmatched: metrics.route("(none)", "(any)"),
                traces,
                reports,
            },
            headers: crate::edge::FixedHeaders::new(config.public_url().starts_with("https://")),
            cors: Cors::new(&config.server.cors),
            limits: Limits::new(config),
            bodies: Arc::new(Budget::new(config.server.bodies_bytes_max)),
        };
        Ok(Self {
            edge,
            health,
            metrics,
        })
    }
}

/// What the parts and the loaded models document of themselves.
pub(crate) fn document(config: &Config, inference: &Arc<Inference>) -> Document {
    let mut document = operations(config, inference);
    inference.add_model_operations(&mut document);
    document
}

/// The operations of all parts, whatever models are loaded.
fn operations(config: &Config, inference: &Arc<Inference>) -> Document {
    let mut document = Frame::openapi();
    for part in [
        // The document does not depend on the key.
        inference.clone().router(CursorKey([0; 32])).into_openapi(),
        auspex_identity::document(),
        system::health_routes().into_openapi(),
        system::metrics_routes(config.server.metrics.public).into_openapi(),
    ] {
        document.merge(part);
    }
    document.info.version = env!("CARGO_PKG_VERSION").into();
    // Without a public URL the document holds for whatever address it was fetched from.
    let server = match config.server.public_url.as_str() {
        "" => "/".to_owned(),
        _ => config.public_url(),
    };
    document.servers = Some(vec![utoipa::openapi::Server::new(server)]);
    document.info.license = None;
    document
}

fn to_value(document: &Document) -> Result<serde_json::Value, String> {
    serde_json::to_value(document).map_err(|error| format!("OpenAPI document: {error}"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use axum::body::Body;
    use axum::routing::get;

    use super::*;
    use crate::config::{self, Overrides};
    use crate::edge::tests::receive_report;

    /// No handler of the program fails by itself, so one that does is put in its place.
    #[tokio::test]
    async fn the_settings_alone_send_internal_errors_to_sentry() {
        let sentry = TcpListener::bind("127.0.0.1:0").expect("binds");
        let dsn = format!("http://public@{}/7", sentry.local_addr().expect("bound"));
        let received = receive_report(sentry);
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
        let variables = [
            ("AUSPEX__TELEMETRY__SENTRY_DSN", dsn.as_str()),
            ("AUSPEX__TELEMETRY__SENTRY_ENVIRONMENT", "rehearsal"),
            ("MODEL_PATH", models),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let loaded = config::load(&Overrides::default(), || variables.to_vec());
        let config = loaded.expect("valid settings").config;

        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("auspex.db").display());
        let (db, clock) = (Db::open(&url).await.expect("opens"), Clock::system());
        Identity::migrate(&db).await.expect("migrates");
        auspex_kernel::migrate(&db).await.expect("migrates");
        let settings = config.identity.clone();
        let identity = Identity::open(db.clone(), clock.clone(), settings, "http://x")
            .await
            .expect("opens");
        let inference =
            Inference::load(&config.inference.models, &config.inference).expect("loads");
        let parts = Parts {
            db,
            identity,
            inference,
            cursors: CursorKey([0; 32]),
            clock,
        };
        let mut edge = App::new(&config, parts).expect("fits together").edge;
        edge.handlers = axum::Router::new().route(
            "/health",
            get(async || -> &'static str { panic!("broken") }),
        );

        let request = http::Request::get("/health").header("host", "x");
        let request = request.body(Body::empty()).expect("valid");
        let answer = edge.handle(request, Ipv4Addr::LOCALHOST.into()).await;
        assert_eq!(answer.status(), 500);
        let flushed = tokio::task::spawn_blocking(move || edge.observers.flush());
        flushed.await.expect("flushed");
        let text = received.join().expect("received");
        for part in [
            "/api/7/envelope/",
            "rehearsal",
            "panic: broken",
            "GET /health",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
