//! Puts the server and its services together.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use auspex_kernel::body::Budget;
use auspex_kernel::config::{ConfigError, Reloads};
use auspex_kernel::db::Db;
use auspex_kernel::error::Envelope;
use auspex_kernel::quota::{QuotaKey, Quotas};
use auspex_kernel::redis::Redis;
use auspex_kernel::service::{Documented, OpenError, Routes, StopSignal};
use auspex_kernel::{Clock, CursorKey};
use parking_lot::Mutex;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::audit;
use crate::config::{self, Config};
use crate::edge::{
    self, Cors, Declared, Edge, Hosts, Limits, Observers, RouteError, RouteTable, Usual,
};
use crate::front::Front;
use crate::health::{self, Health};
use crate::metrics::{Metrics, RouteName};
use crate::overview::{self, Overview};
use crate::roles;
use crate::services::{self, OfServices, Services};
use crate::system;
use crate::tls::Tls;

/// The frame of the document; server and services fill it.
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
    sources: Sources,
}

/// The parts an [`App`] is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) services: Services,
    pub(crate) db: Db,
    /// The databases of single services.
    pub(crate) of_services: Vec<OfServices>,
    pub(crate) clock: Clock,
    /// Signs the pages of the audit record.
    pub(crate) cursors: CursorKey,
    /// Requested when the server stops.
    pub(crate) stop: StopSignal,
    /// What became of changed settings.
    pub(crate) reloads: Reloads,
    /// The server's TLS, if it speaks it.
    pub(crate) tls: Option<Arc<Tls>>,
    /// What replicas share, if they share anything, and what hides callers there.
    pub(crate) redis: Option<(Redis, QuotaKey)>,
}

impl App {
    /// # Errors
    /// A message for the operator.
    pub(crate) fn new(parts: Parts) -> Result<Self, OpenError> {
        let Parts {
            config,
            services,
            db,
            of_services,
            clock,
            cursors,
            stop,
            reloads,
            tls,
            redis,
        } = parts;
        let mut metrics = Metrics::new();
        if let Some((redis, _)) = &redis {
            redis.register_metrics(metrics.registry());
        }
        let quotas = Quotas::new(redis.clone(), clock.clone());
        quotas.register_metrics(metrics.registry());
        if let Some(tls) = &tls {
            tls.register(metrics.registry());
        }
        for service in services.iter() {
            service.register_metrics(metrics.registry());
        }
        let metrics = Arc::new(metrics);
        let control = db.control().clone();
        let databases = health::Databases {
            main: db.clone(),
            of_services,
        };
        let health = Arc::new(Health::new(
            databases,
            redis.map(|(redis, _)| redis),
            services.clone(),
            clock.clone(),
        ));
        let identity = services.authenticator()?;
        let links = services.iter().flat_map(|service| service.links());
        let system = system::Parts {
            health: health.clone(),
            metrics: metrics.clone(),
            overview: Arc::new(Overview::new(
                config.clone(),
                services.clone(),
                health.clone(),
                metrics.clone(),
                overview::Seen { reloads, tls },
                &clock,
            )?),
            front: Arc::new(Front::new(config.server.docs, links)),
            record: audit::Record { db, cursors },
        };
        let sources = Sources::new(config, services, system, quotas)?;
        let (config, quotas) = (&sources.config, &sources.quotas);
        let edge = Edge {
            routes: ArcSwap::from_pointee(sources.table(None)?.0),
            identity,
            callers: quotas.quota(&config.server.rate_limit, "callers"),
            addresses: quotas.quota(&config.server.address_limit, "addresses"),
            clock,
            control,
            observers: Arc::new(Observers {
                access_log: config.telemetry.access_log,
                unmatched: metrics.unmatched(),
                traces: config.telemetry.traces(&config.server.instance)?,
                reports: config.telemetry.reports()?,
            }),
            headers: edge::FixedHeaders::new(
                config.hsts_max_age_s(),
                config.server.instance_header(),
            ),
            cors: Cors::new(&config.server.cors),
            limits: limits(config),
            public_authority: config.public_authority(),
            hosts: Hosts::new(&config.public_authority(), &config.server.hosts),
            proxies: config.server.proxies()?.of_cluster(&config.cluster.secret),
            leaving: health.leaving(),
            stop,
            bodies: Arc::new(Budget::new(config.server.bodies_bytes_max)),
        };
        Ok(Self {
            edge: Arc::new(edge),
            health,
            metrics,
            sources,
        })
    }

    /// Asks every service whose routes may change for them again and serves them. If that fails, those from before
    /// stay and the reason is logged.
    pub(crate) fn rebuild_routes(&self) -> bool {
        let routes = &self.edge.routes;
        match self.sources.table(Some(&routes.load())) {
            Ok((table, served)) => {
                routes.store(Arc::new(table));
                self.metrics.retain(&served);
                true
            }
            Err(error) => {
                tracing::error!(%error, "changed routes cannot be served; those from before are");
                false
            }
        }
    }
}

/// What the table of routes is made of.
struct Sources {
    config: Config,
    services: Services,
    /// Of each of them; none where they may change.
    lasting: Vec<Option<Source>>,
    own: Source,
    /// The documents of what others serve.
    remote: Vec<Arc<Document>>,
    metrics: Arc<Metrics>,
    quotas: Quotas,
    /// The last one, and what it was made of.
    document: Mutex<Option<(Vec<Arc<Document>>, system::Document)>>,
}

/// The routes that one source has, and its part of the document.
struct Source {
    declared: Vec<Declared>,
    shown: Arc<Document>,
}

impl Source {
    fn new(routes: Routes) -> Result<Self, RouteError> {
        let operations = serde_json::to_value(&routes.documented.operations);
        let operations = operations.expect("a document is JSON");
        Ok(Self {
            declared: edge::declared(&routes, &operations)?,
            shown: Arc::new(routes.documented.shown),
        })
    }
}

impl Sources {
    fn new(
        config: Config,
        services: Services,
        system: system::Parts,
        quotas: Quotas,
    ) -> Result<Self, RouteError> {
        let lasting = services.served().map(|service| {
            let lasts = !service.routes_change();
            lasts
                .then(|| Source::new(service.clone().routes()))
                .transpose()
        });
        let lasting = lasting.collect::<Result<_, _>>()?;
        let remote = roles::documents(&config).into_iter().map(Arc::new);
        Ok(Self {
            lasting,
            own: Source::new(system::routes(&system, config.server.metrics.public))?,
            remote: remote.collect(),
            config,
            services,
            metrics: system.metrics,
            quotas,
            document: Mutex::default(),
        })
    }

    /// All routes as the services have them now, with the document that shows them, and their names.
    fn table(
        &self,
        previous: Option<&RouteTable>,
    ) -> Result<(RouteTable, BTreeSet<RouteName>), OpenError> {
        let (mut declared, mut shown) = (Vec::new(), self.remote.clone());
        let mut add = |source: &Source| {
            declared.extend_from_slice(&source.declared);
            shown.push(source.shown.clone());
        };
        for (service, lasting) in self.services.served().zip(&self.lasting) {
            match lasting {
                Some(source) => add(source),
                None => add(&Source::new(service.clone().routes())?),
            }
        }
        add(&self.own);
        if self.config.server.docs {
            let document = self.document_of(shown)?;
            declared.extend(Source::new(system::docs(document))?.declared);
        }
        let usual = Usual {
            limits: limits(&self.config),
            quotas: &self.quotas,
        };
        Ok(table_of(declared, usual, previous, &self.metrics)?)
    }

    /// The document of these parts. Where routes of settings alone have changed it is the one from before.
    fn document_of(&self, shown: Vec<Arc<Document>>) -> Result<system::Document, OpenError> {
        let mut last = self.document.lock();
        let is_same = |(a, b): (&Arc<Document>, &Arc<Document>)| Arc::ptr_eq(a, b) || a == b;
        if let Some((parts, document)) = &*last
            && parts.len() == shown.len()
            && parts.iter().zip(&shown).all(is_same)
        {
            return Ok(document.clone());
        }
        let parts = shown.iter().map(|part| Document::clone(part));
        let document = serde_json::to_string(&merge(&self.config, parts))?;
        let document = system::Document::new(document);
        *last = Some((shown, document.clone()));
        Ok(document)
    }
}

/// The table of these routes, and their names.
fn table_of(
    declared: Vec<Declared>,
    usual: Usual<'_>,
    previous: Option<&RouteTable>,
    metrics: &Metrics,
) -> Result<(RouteTable, BTreeSet<RouteName>), RouteError> {
    let served = RefCell::new(BTreeSet::new());
    let handles = |path: &str, method: &str| {
        let name = (path.to_owned(), method.to_owned());
        served.borrow_mut().insert(name);
        metrics.route(path, method)
    };
    let table = RouteTable::new(declared, usual, previous, handles)?;
    Ok((table, served.into_inner()))
}

/// What holds where a route's policy says nothing.
fn limits(config: &Config) -> Limits {
    let server = &config.server;
    Limits {
        body_bytes_max: server.body_bytes_max,
        body_timeout: config::ms(server.body_timeout_ms),
        request_timeout: config::ms(server.request_timeout_ms),
    }
}

/// Whether the routes that settings declare leave each other and the paths of operations and pages alone.
///
/// # Errors
/// [`ConfigError::wrong`] with the key of the path.
pub(crate) fn check_paths(config: &Config) -> Result<(), ConfigError> {
    let (mut sources, mut is_any) = (Vec::new(), false);
    let served = services::ALL
        .iter()
        .filter(|service| roles::are_served(config, service.name()));
    for service in served {
        let added = service.undocumented(config)?;
        is_any |= !added.is_empty();
        let operations = Documented::new(service.operations());
        sources.push(Routes::new(axum::Router::new(), operations).with_undocumented(added));
    }
    if !is_any {
        return Ok(());
    }
    let own = system::document(config.server.metrics.public);
    sources.push(Routes::new(axum::Router::new(), own));
    if config.server.docs {
        sources.push(system::docs(system::Document::new(String::new())));
    }
    let usual = Usual {
        limits: limits(config),
        quotas: &Quotas::new(None, Clock::system()),
    };
    let declared = sources
        .into_iter()
        .map(Source::new)
        .collect::<Result<Vec<_>, _>>();
    let table = declared.and_then(|sources| {
        let declared = sources.into_iter().flat_map(|source| source.declared);
        table_of(declared.collect(), usual, None, &Metrics::new())
    });
    table.map(drop).map_err(|error| {
        // Of two that clash the last one is named.
        let key = error.key().unwrap_or("(routes)");
        ConfigError::wrong(key, format!("is wrong: {error}"))
    })
}

/// What `/openapi.json` would show, without opening anything.
pub(crate) fn document(config: &Config) -> Result<Document, OpenError> {
    let mut parts = Vec::new();
    for service in services::ALL {
        parts.push(service.document(config)?.shown);
    }
    parts.push(system::document(config.server.metrics.public).shown);
    Ok(merge(config, parts))
}

/// The parts in the frame of the whole.
fn merge(config: &Config, parts: impl IntoIterator<Item = Document>) -> Document {
    let mut document = Frame::openapi();
    for part in parts {
        document.merge(part);
    }
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, TcpListener};
    use std::path::{Path, PathBuf};

    use auspex_kernel::Random;
    use auspex_kernel::service::{Context, Publisher};
    use axum::body::Body;
    use axum::routing::get;
    use tokio::sync::watch;

    use super::*;
    use crate::edge::tests::{public_table, receive_report};
    use crate::services::Background;
    use crate::settings::{self, Overrides};

    /// The whole program behind its sockets, with its files in `data_dir`.
    pub(crate) struct Opened {
        pub(crate) app: Arc<App>,
        pub(crate) background: Background,
        pub(crate) data_dir: PathBuf,
        /// Keeps the signal from being given.
        _stop: watch::Sender<bool>,
    }

    pub(crate) async fn open(config: Config, data_dir: &Path) -> Opened {
        let url = format!("sqlite:{}", data_dir.join("auspex.db").display());
        let db = Db::open(&url).await.expect("opens");
        services::migrate(&config, &db).await.expect("migrates");
        let (publisher, queue) = Publisher::new();
        let context = Context {
            db: db.clone(),
            clock: Clock::system(),
            random: Random::system(),
            cursors: CursorKey([0; 32]),
            public_url: "http://x".into(),
            data_dir: data_dir.into(),
            control: db.control().clone(),
            publisher,
            reloads: Reloads::new(Clock::system().now()),
            voucher: None,
            redis: None,
            predictor: None,
        };
        let services = Services::open(&config, &context, &[]).await.expect("opens");
        let (stop, stopped) = StopSignal::new();
        let parts = Parts {
            config,
            services: services.clone(),
            db,
            of_services: Vec::new(),
            clock: context.clock,
            cursors: context.cursors,
            stop: stopped,
            reloads: context.reloads,
            tls: None,
            redis: None,
        };
        let app = Arc::new(App::new(parts).expect("fits together"));
        let rebuilt = app.clone();
        Opened {
            app,
            background: services.start(queue, move || rebuilt.rebuild_routes(), []),
            data_dir: data_dir.into(),
            _stop: stop,
        }
    }

    /// In the merged document the first one would silently stand for both.
    #[test]
    fn no_two_services_give_one_name_to_different_schemas() {
        let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models");
        let variables = [("MODEL_PATH".to_owned(), models.to_owned())];
        let loaded = settings::load(&Overrides::default(), || variables.to_vec());
        let config = loaded.expect("valid settings").config;
        let mut known: HashMap<String, (&str, String)> = HashMap::new();
        for service in services::ALL {
            let document = service.document(&config).expect("a document").shown;
            for (name, schema) in document.components.unwrap_or_default().schemas {
                let schema = serde_json::to_string(&schema).expect("JSON");
                let first = known
                    .entry(name.clone())
                    .or_insert_with(|| (service.name(), schema.clone()));
                let (owner, other) = (first.0, service.name());
                assert_eq!(first.1, schema, "{name} of {owner} and of {other}");
            }
        }
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
        let loaded = settings::load(&Overrides::default(), || variables.to_vec());
        let config = loaded.expect("valid settings").config;

        let folder = tempfile::tempdir().expect("a folder");
        let opened = open(config, folder.path()).await;
        let edge = opened.app.edge.clone();
        let handlers = axum::Router::new().route(
            "/health",
            get(async || -> &'static str { panic!("broken") }),
        );
        edge.routes
            .store(Arc::new(public_table(handlers, "/health")));

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
