//! Puts the server and its services together.

use std::sync::Arc;

use arc_swap::ArcSwap;
use auspex_kernel::body::Budget;
use auspex_kernel::db::Db;
use auspex_kernel::error::Envelope;
use auspex_kernel::service::{Documented, OpenError, Routes};
use auspex_kernel::{Clock, Control};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Tag};
use utoipa::{Modify, OpenApi};

use crate::config::{self, Config};
use crate::edge::{Cors, Edge, Limits, Observers, RouteTable};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::services::{self, Services};
use crate::system;

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
    pub(crate) edge: Arc<Edge>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    config: Config,
    services: Services,
}

/// The parts an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) services: Services,
    pub(crate) db: Db,
    pub(crate) clock: Clock,
}

impl App {
    /// # Errors
    /// A message for the operator.
    pub(crate) fn new(parts: Parts) -> Result<Self, OpenError> {
        let Parts {
            config,
            services,
            db,
            clock,
        } = parts;
        let mut metrics = Metrics::new();
        for service in services.iter() {
            service.register_metrics(metrics.registry());
        }
        let metrics = Arc::new(metrics);
        let health = Arc::new(Health::new(db, services.clone(), clock.clone()));
        let table = build_routes(&config, &services, &health, &metrics)?;
        let edge = Edge {
            routes: ArcSwap::from_pointee(table),
            identity: services.authenticator()?,
            callers: config.server.rate_limit.window(),
            addresses: config.server.address_limit.window(),
            clock,
            control: Control::current(),
            observers: Observers {
                access_log: config.telemetry.access_log,
                unmatched: metrics.route("(none)", "(any)"),
                traces: config.telemetry.traces()?,
                reports: config.telemetry.reports()?,
            },
            headers: crate::edge::FixedHeaders::new(config.public_url().starts_with("https://")),
            cors: Cors::new(&config.server.cors),
            limits: Limits {
                body_bytes_max: config.server.body_bytes_max,
                body_timeout: config::ms(config.server.body_timeout_ms),
                request_timeout: config::ms(config.server.request_timeout_ms),
                public_authority: config.public_authority(),
            },
            bodies: Arc::new(Budget::new(config.server.bodies_bytes_max)),
        };
        Ok(Self {
            edge: Arc::new(edge),
            health,
            metrics,
            config,
            services,
        })
    }

    /// Asks every service for its routes again and serves them. If that fails, those from before
    /// stay and the reason is logged.
    pub(crate) fn rebuild_routes(&self) -> bool {
        match build_routes(&self.config, &self.services, &self.health, &self.metrics) {
            Ok(table) => {
                self.edge.routes.store(Arc::new(table));
                true
            }
            Err(error) => {
                tracing::error!(%error, "changed routes cannot be served; those from before are");
                false
            }
        }
    }
}

/// The table of all routes as the services have them now, with the document that shows them.
fn build_routes(
    config: &Config,
    services: &Services,
    health: &Arc<Health>,
    metrics: &Arc<Metrics>,
) -> Result<RouteTable, String> {
    let routes: Vec<Routes> = services.iter().map(|s| s.clone().routes()).collect();
    let documents = |part: fn(&Documented) -> &Document| {
        let parts = routes.iter().map(|routes| part(&routes.documented).clone());
        to_value(&merge(config, parts.collect()))
    };
    let operations = documents(|documented| &documented.operations)?;
    let shown = documents(|documented| &documented.shown)?;
    let mut handlers = axum::Router::from(system::health_routes().with_state(health.clone()));
    let public = config.server.metrics.public;
    handlers = handlers.merge(axum::Router::from(
        system::metrics_routes(public).with_state(metrics.clone()),
    ));
    for routes in routes {
        handlers = handlers.merge(routes.router);
    }
    let mut pages: &[&str] = &[];
    if config.server.docs {
        pages = &system::PAGES;
        handlers = handlers.merge(system::docs(system::Document::new(shown.to_string())));
    }
    RouteTable::new(&operations, pages, handlers, |path, method| {
        metrics.route(path, method.as_str())
    })
    .map_err(|error| format!("routes: {error}"))
}

/// What `/openapi.json` would show, without opening anything.
pub(crate) fn document(config: &Config) -> Result<Document, OpenError> {
    let parts: Result<Vec<_>, _> = services::ALL
        .iter()
        .map(|service| Ok::<_, OpenError>(service.document(config)?.shown))
        .collect();
    Ok(merge(config, parts?))
}

/// The parts of the services in the frame of the whole.
fn merge(config: &Config, parts: Vec<Document>) -> Document {
    let mut document = Frame::openapi();
    let own = [
        system::health_routes().into_openapi(),
        system::metrics_routes(config.server.metrics.public).into_openapi(),
    ];
    for part in parts.into_iter().chain(own) {
        document.merge(part);
    }
    let mut own = Tag::new("system");
    own.description = Some("How the server is".into());
    document.tags.get_or_insert_default().push(own);
    document.info.version = env!("CARGO_PKG_VERSION").into();
    // Without a public URL the document holds for any address it is fetched from.
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

    use auspex_kernel::CursorKey;
    use auspex_kernel::service::{Context, Publisher};
    use axum::body::Body;
    use axum::routing::get;

    use super::*;
    use crate::config::Overrides;
    use crate::edge::tests::receive_report;
    use crate::metrics::RouteMetrics;

    /// The whole program behind its sockets, with its files in `folder`.
    async fn open(config: Config, folder: &std::path::Path) -> App {
        let url = format!("sqlite:{}", folder.join("auspex.db").display());
        let db = Db::open(&url).await.expect("opens");
        services::migrate(&db).await.expect("migrates");
        let context = Context {
            db: db.clone(),
            clock: Clock::system(),
            cursors: CursorKey([0; 32]),
            public_url: "http://x".into(),
            data_dir: folder.into(),
            control: tokio::runtime::Handle::current(),
            publisher: Publisher::new().0,
        };
        let services = Services::open(&config, &context).await.expect("opens");
        let clock = context.clock;
        App::new(Parts {
            config,
            services,
            db,
            clock,
        })
        .expect("fits together")
    }

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
        let edge = open(config, folder.path()).await.edge;
        let broken = axum::Router::new().route(
            "/health",
            get(async || -> &'static str { panic!("broken") }),
        );
        let document = serde_json::json!({"paths": {"/health": {"get": {"security": []}}}});
        let metrics = |_: &str, _: &http::Method| RouteMetrics::default();
        let table = RouteTable::new(&document, &[], broken, metrics).expect("valid");
        edge.routes.store(Arc::new(table));

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
