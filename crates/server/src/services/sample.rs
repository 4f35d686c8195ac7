//! A service that only tests have, added as "Add a service" in CONTRIBUTING.md says: this module, one
//! line in the list, one field in the settings. It shows that the root needs nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use auspex_kernel::ApiError;
use auspex_kernel::audit::{self, Action as _, Event};
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::DbError;
use auspex_kernel::http::Requester;
use auspex_kernel::service::{
    Boxed, Context, Documented, HealthCheck, Migrations, OpenError, Routes, Running, Service,
    StopSignal,
};
use axum::Extension;
use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sea_orm_migration::prelude::*;
use serde::Deserialize;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// `[sample]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    greeting: String,
}

auspex_kernel::audit_actions! {
    /// What is recorded.
    enum Action {
        SampleExtend = "sample.extend";
    }
}

pub(crate) struct SampleService {
    config: Config,
    context: Context,
    greetings: Counter,
    /// Routes that were added.
    added: AtomicUsize,
}

impl Service for SampleService {
    const NAME: &'static str = "sample";
    const ACTIONS: &'static [&'static str] = Action::TEXTS;
    const DEFAULTS: &'static str = "[sample]\ngreeting = \"hello\" # what it says\n";
    type Config = Config;

    fn check(config: &Config) -> Result<(), ConfigError> {
        match config.greeting.is_empty() {
            true => Err(ConfigError::wrong("sample.greeting", "must not be empty")),
            false => Ok(()),
        }
    }

    fn migrations() -> Option<Migrations> {
        Some(Migrations::of::<Migrator>())
    }

    fn operations() -> OpenApi {
        routes(0).into_openapi()
    }

    fn document(_: &Config) -> Result<Documented, OpenError> {
        Ok(Documented::new(routes(0).into_openapi()))
    }

    async fn open(config: Config, context: Context) -> Result<Arc<Self>, OpenError> {
        Ok(Arc::new(Self {
            config,
            context,
            greetings: Counter::default(),
            added: AtomicUsize::new(0),
        }))
    }
}

impl Running for SampleService {
    fn routes_change(&self) -> bool {
        true
    }

    fn routes(self: Arc<Self>) -> Routes {
        let router = routes(self.added.load(Ordering::Relaxed)).layer(Extension(self));
        let (router, operations) = router.split_for_parts();
        Routes::new(router, Documented::new(operations))
    }

    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        let has_table = async {
            let count = "SELECT COUNT(*) FROM sample_greetings";
            let counted = self.context.db.read(async |connection| {
                connection.execute_unprepared(count).await?;
                Ok::<_, DbError>(())
            });
            counted.await.is_ok()
        };
        vec![HealthCheck::new("sample", has_table)]
    }

    fn register_metrics(&self, registry: &mut Registry) {
        registry.register("sample_greetings", "Said", self.greetings.clone());
    }

    fn background(self: Arc<Self>, mut stop: StopSignal) -> Boxed<'static, ()> {
        Box::pin(async move { stop.stop_requested().await })
    }
}

fn routes(added: usize) -> OpenApiRouter {
    let router = OpenApiRouter::new().routes(routes!(get_sample, extend_sample));
    match added {
        0 => router,
        1 => router.routes(routes!(get_sample_more)),
        _ => router
            .routes(routes!(get_sample_more))
            .routes(routes!(get_sample_unruled)),
    }
}

/// Greet
#[utoipa::path(
    get, path = "/v1/sample",
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"])),
    responses((status = 200, description = "The greeting")),
)]
async fn get_sample(Extension(service): Extension<Arc<SampleService>>) -> String {
    service.greetings.inc();
    service.config.greeting.clone()
}

/// Add a route
#[utoipa::path(
    post, path = "/v1/sample",
    security(("api_key" = ["models:write"]), ("bearer" = ["models:write"])),
    responses((status = 204, description = "It is there")),
)]
async fn extend_sample(
    Extension(service): Extension<Arc<SampleService>>,
    requester: Requester,
) -> Result<StatusCode, ApiError> {
    service.added.fetch_add(1, Ordering::Relaxed);
    let Context {
        db, clock, random, ..
    } = &service.context;
    let event = Event::new(Action::SampleExtend, "sample");
    let recording = db.write(async |transaction| {
        audit::record(transaction, &requester.actor(), event, clock, random).await
    });
    recording.await?;
    service.context.publisher.publish().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The first route that is added
#[utoipa::path(
    get, path = "/v1/sample/more", security(()),
    responses((status = 204, description = "It is there")),
)]
async fn get_sample_more() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// The second one, which does not say who may call it
#[utoipa::path(
    get, path = "/v1/sample/unruled",
    responses((status = 204, description = "Never answered")),
)]
async fn get_sample_unruled() -> StatusCode {
    StatusCode::NO_CONTENT
}

struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Greetings)]
    }

    fn migration_table_name() -> DynIden {
        "sample_migrations".into_iden()
    }
}

struct Greetings;

impl MigrationName for Greetings {
    fn name(&self) -> &str {
        "m0001_greetings"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Greetings {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let greetings = Table::create()
            .table("sample_greetings")
            .col(ColumnDef::new("id").text().not_null().primary_key())
            .to_owned();
        manager.create_table(greetings).await
    }
}

mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use auspex_kernel::db::{Db, Inspection};
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::app::tests::{Opened, open};
    use crate::services;
    use crate::settings::{self, Overrides};

    type Setting = (&'static str, &'static str);

    const MODELS: Setting = (
        "MODEL_PATH",
        concat!(env!("CARGO_MANIFEST_DIR"), "/../../models"),
    );

    fn load(setting: Setting) -> Result<crate::config::Config, ConfigError> {
        let variables = [MODELS, setting].map(|(name, value)| (name.to_owned(), value.to_owned()));
        settings::load(&Overrides::default(), || variables.to_vec()).map(|loaded| loaded.config)
    }

    async fn ask(opened: &Opened, method: &str, path: &str) -> (u16, String) {
        let key = std::fs::read_to_string(opened.data_dir.join("admin.key")).expect("a key");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x")
            .header("x-api-key", key.trim());
        let request = request.body(Body::empty()).expect("valid");
        let edge = &opened.app.edge;
        let answer = edge.handle(request, Ipv4Addr::LOCALHOST.into()).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body");
        let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        (status, text)
    }

    #[tokio::test]
    async fn a_service_added_by_the_list_is_configured_served_and_stopped() {
        let wrong = load(("AUSPEX__SAMPLE__GREETING", "")).expect_err("empty");
        assert!(wrong.to_string().contains("sample.greeting"), "{wrong}");
        let config = load(("AUSPEX__SAMPLE__GREETING", "good day")).expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        let opened = open(config, folder.path()).await;

        let got = ask(&opened, "GET", "/v1/sample").await;
        assert_eq!(got, (200, "good day".into()));
        let (_, health) = ask(&opened, "GET", "/health").await;
        assert!(health.contains(r#""sample":"healthy""#), "{health}");
        let (_, metrics) = ask(&opened, "GET", "/metrics").await;
        assert!(
            metrics.contains("auspex_sample_greetings_total 1\n"),
            "{metrics}"
        );
        let (_, server) = ask(&opened, "GET", "/v1/server").await;
        assert!(server.contains(r#""name":"sample""#), "{server}");

        let more = "/v1/sample/more";
        assert_eq!(ask(&opened, "GET", more).await.0, 404);
        assert!(!ask(&opened, "GET", "/openapi.json").await.1.contains(more));
        assert_eq!(ask(&opened, "POST", "/v1/sample").await.0, 204);
        assert_eq!(ask(&opened, "GET", more).await.0, 204);
        assert!(ask(&opened, "GET", "/openapi.json").await.1.contains(more));

        let (_, recorded) = ask(&opened, "GET", "/v1/audit?action=sample.extend").await;
        let lines = recorded.matches(r#""action":"sample.extend""#).count();
        assert_eq!(lines, 1, "{recorded}");
        let (_, others) = ask(&opened, "GET", "/v1/audit?action=models.reload").await;
        assert!(others.contains(r#""data":[]"#), "{others}");
        let (status, known) = ask(&opened, "GET", "/v1/audit?action=sample").await;
        assert!(status == 422 && known.contains("sample.extend"), "{known}");

        // Routes that cannot be served change nothing.
        assert_eq!(ask(&opened, "POST", "/v1/sample").await.0, 500);
        assert_eq!(ask(&opened, "GET", "/v1/sample/unruled").await.0, 404);
        assert_eq!(ask(&opened, "GET", more).await.0, 204);

        let stopped = opened.background.stop(Duration::from_secs(5)).await;
        assert_eq!(stopped, [] as [&str; 0], "all ended in time");
    }

    #[tokio::test]
    async fn a_database_with_newer_tables_of_an_added_service_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("auspex.db");
        let db = Db::open(&format!("sqlite:{}", file.display()))
            .await
            .expect("opens");
        let config = load(("AUSPEX__SAMPLE__GREETING", "good day")).expect("valid");
        services::migrate(&config, &db).await.expect("migrates");
        let unknown = async || {
            let inspection = Inspection::open(&file).await.expect("opens");
            let known = services::known_migrations(&config);
            let unknown = inspection.unknown_migrations(&known).await.expect("reads");
            inspection.close().await;
            unknown
        };
        assert_eq!(unknown().await, [] as [&str; 0]);

        let newer = "INSERT INTO sample_migrations VALUES ('m0002_newer', 0)";
        let stored = db.write(async |transaction| -> Result<_, DbError> {
            Ok(transaction.execute_unprepared(newer).await?)
        });
        stored.await.expect("stored");
        assert_eq!(unknown().await, ["sample_migrations.m0002_newer"]);
    }
}
