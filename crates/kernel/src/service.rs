//! The seam between a service and the composition root.
//!
//! A service implements two traits: [`Service`] says what it is before anything runs (its name, the
//! defaults of its settings, its tables, its part of the OpenAPI document), [`Running`] what it
//! offers once it is open (routes, health checks, metrics, background work). The root keeps one list
//! of services and loops over it; it knows nothing else about them. A service gets everything it may
//! use from [`Context`] and never reaches for the root.

use std::borrow::Cow;
use std::future::{self, Future};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, Request};
use prometheus_client::registry::Registry;
use sea_orm_migration::MigratorTrait;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::openapi::{OpenApi, Tag};

use crate::caller::{Authenticate, Vouch};
use crate::clock::Clock;
use crate::config::{ConfigError, Reloads};
use crate::control::Control;
use crate::db::{Connection, Db, DbError, KnownMigrations};
use crate::error::ApiError;
use crate::page::CursorKey;
use crate::policy::{Access, Policy};
use crate::predict::Predict;
use crate::random::Random;
use crate::redis::Redis;

/// How long [`Publisher::publish`] waits for the root.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests to publish that may wait at once; one rebuild answers all of them.
const PUBLISH_QUEUE_MAX: usize = 64;

/// A boxed future, for the methods of [`Running`].
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a service cannot be opened or described: a message for the operator, which says what to do.
pub type OpenError = Box<dyn std::error::Error + Send + Sync>;

/// What a service is, before anything runs.
pub trait Service: Running + Sized {
    /// Its section in the settings, and its name in logs and in `GET /v1/server`.
    const NAME: &'static str;

    /// Its settings with their defaults and comments: a TOML text with every key there is, all of
    /// them under `[NAME]`. It becomes a part of the reference of all settings.
    const DEFAULTS: &'static str;

    /// The texts of what it records; see [`audit_actions!`](crate::audit_actions). The filter of
    /// `GET /v1/audit` knows those of every service.
    const ACTIONS: &'static [&'static str] = &[];

    /// The same settings, typed. The root deserializes them from all layers.
    type Config: Clone + Send + Sync + 'static;

    /// Checks what types alone cannot say.
    ///
    /// # Errors
    /// [`ConfigError::wrong`], with the full key such as `inference.instances_max`.
    fn check(config: &Self::Config) -> Result<(), ConfigError> {
        let _ = config;
        Ok(())
    }

    /// Checks what its settings name on this machine, such as folders that must be readable, before
    /// it is opened. It changes nothing and asks nobody: `auspex config check` does it too.
    ///
    /// # Errors
    /// [`ConfigError::wrong`].
    fn check_surroundings(config: &Self::Config) -> Result<(), ConfigError> {
        let _ = config;
        Ok(())
    }

    /// Every operation that it has, whatever its settings.
    fn operations() -> OpenApi;

    /// What is special about some of them, by operation id, as far as it matters to a process that passes them on to
    /// another one: pages of OAuth clients, host names, the form of errors.
    fn policies() -> Vec<(&'static str, Policy)> {
        Vec::new()
    }

    /// The routes that its settings declare, for the root to see whether they leave the paths of others alone. Nothing is
    /// opened for it.
    ///
    /// # Errors
    /// As of [`Service::check`].
    fn undocumented(config: &Self::Config) -> Result<Vec<UndocumentedRoute>, ConfigError> {
        let _ = config;
        Ok(Vec::new())
    }

    /// Whether [`Service::reconfigure`] takes its section while it runs. Otherwise a change waits for a
    /// restart.
    const IS_RECONFIGURABLE: bool = false;

    /// Takes other settings while it runs, whole or not at all. They are checked, and routes
    /// that they declare leave others alone.
    ///
    /// # Errors
    /// [`OpenError`]: the settings from before are in force.
    fn reconfigure(
        self: Arc<Self>,
        config: Self::Config,
    ) -> impl Future<Output = Result<(), OpenError>> + Send {
        drop(config);
        future::ready(Err("a changed section needs a restart".into()))
    }

    /// The migrations of its tables: `auspex migrate` and each start run them, and `auspex doctor`
    /// knows by them whether a database is of a newer version.
    fn migrations() -> Option<Migrations> {
        None
    }

    /// Whether tables of its migrations hold what would be missed if it began with empty ones elsewhere.
    fn is_in_use(connection: &Connection) -> Boxed<'_, Result<bool, DbError>> {
        let _ = connection;
        Box::pin(future::ready(Ok(false)))
    }

    /// The databases that it has for itself by these settings, beside the one of its other tables, whose URL is
    /// `tables_url`. What [`Service::migrations`] is for
    /// that one, is done for each of them too.
    fn own_databases(config: &Self::Config, data_dir: &Path, tables_url: &str) -> Vec<OwnDatabase> {
        let _ = (config, data_dir, tables_url);
        Vec::new()
    }

    /// Its part of the OpenAPI document, for `auspex openapi`, which opens no database.
    ///
    /// # Errors
    /// [`OpenError`].
    fn document(config: &Self::Config) -> Result<Documented, OpenError>;

    /// Opens it. Its tables are up to date and no request is served yet. Runs on the control
    /// runtime.
    ///
    /// # Errors
    /// [`OpenError`]: the program does not start.
    fn open(
        config: Self::Config,
        context: Context,
    ) -> impl Future<Output = Result<Arc<Self>, OpenError>> + Send;
}

/// The migrations of a service.
pub struct Migrations {
    run: for<'a> fn(&'a Db) -> Boxed<'a, Result<(), DbError>>,
    /// Which there are.
    pub known: KnownMigrations,
}

impl Migrations {
    /// Those of a migrator.
    pub fn of<M: MigratorTrait + 'static>() -> Self {
        Self {
            run: |db| Box::pin(db.migrate::<M>()),
            known: KnownMigrations::of::<M>(),
        }
    }

    /// Brings the tables up to date. Several processes may run this at once.
    ///
    /// # Errors
    /// As of [`Db::migrate`].
    pub async fn run(&self, db: &Db) -> Result<(), DbError> {
        (self.run)(db).await
    }
}

/// A database that a service has for itself.
pub struct OwnDatabase {
    /// What it holds, in a few words.
    pub holds: &'static str,
    /// Where it is; `None` if its tables are beside the service's others.
    pub url: Option<String>,
    /// The migrations of its tables.
    pub migrations: Vec<Migrations>,
    /// Whether the database beside it holds what is of no use without it, so that it must not be begun anew in
    /// silence.
    pub is_missed: for<'a> fn(&'a Connection) -> Boxed<'a, Result<bool, DbError>>,
    /// Makes the database beside it, which comes first, and this one forget that they belong to others, where whoever
    /// runs the server says that they go together from now on.
    pub release: Release,
}

/// See [`OwnDatabase::release`].
pub type Release = for<'a> fn(&'a Db, &'a Db) -> Boxed<'a, Result<(), DbError>>;

/// A service that is open.
pub trait Running: Send + Sync + 'static {
    /// Its routes as they are now. Called at start, and again after every [`Publisher::publish`] if
    /// [they may change](Self::routes_change).
    fn routes(self: Arc<Self>) -> Routes;

    /// Whether its routes may change while it runs.
    fn routes_change(&self) -> bool {
        false
    }

    /// What has to work for the service to be healthy. Called for each report, so that the list may
    /// change over time. The root runs the checks side by side, each under a timeout.
    fn health_checks(&self) -> Vec<HealthCheck<'_>> {
        Vec::new()
    }

    /// Registers its metrics, once, at start. They get the prefix `auspex_`.
    fn register_metrics(&self, registry: &mut Registry) {
        let _ = registry;
    }

    /// Work that goes on beside requests, on the control runtime. It begins when the service is open
    /// and goes on until `stop` is requested, which happens after the last request was answered. It
    /// then closes what the service has opened and ends within seconds; the database closes after
    /// it.
    fn background(self: Arc<Self>, stop: StopSignal) -> Boxed<'static, ()> {
        drop(stop);
        Box::pin(future::ready(()))
    }

    /// Makes sure that what others changed while this process stood still is in force. For a process that runs only
    /// while there are requests, so that its background work comes too late.
    fn catch_up(self: Arc<Self>) -> Boxed<'static, ()> {
        Box::pin(future::ready(()))
    }

    /// What an operator should look at, for `GET /v1/server`. Answered from memory, or nearly so.
    fn warnings(&self) -> Vec<Warning> {
        Vec::new()
    }

    /// Where a visitor of the front page may want to go.
    fn links(&self) -> Vec<Link> {
        Vec::new()
    }

    /// Adds to what `auspex serve` prints when it is ready.
    fn greet(&self, greeting: &mut Greeting) {
        let _ = greeting;
    }

    /// The seam of the service that knows callers. The root needs exactly one of them.
    fn authenticator(self: Arc<Self>) -> Option<Arc<dyn Authenticate>> {
        None
    }

    /// What tells other servers who calls, for services that are opened after this one.
    fn voucher(self: Arc<Self>) -> Option<Arc<dyn Vouch>> {
        None
    }

    /// What predicts for services that are opened after this one.
    fn predictor(self: Arc<Self>) -> Option<Arc<dyn Predict>> {
        None
    }
}

/// What a service may use. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The database of the service's tables: its own, or that of all services.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// Chance, for ids and secrets.
    pub random: Random,
    /// Signs the cursors of lists.
    pub cursors: CursorKey,
    /// The absolute URL under which clients reach the server, without a slash at the end.
    pub public_url: String,
    /// The folder for files of the program. It exists and only its owner may enter it.
    pub data_dir: PathBuf,
    /// The runtime of everything that is not a prediction: database, probes, timers.
    pub control: Control,
    /// Tells the root that routes have changed.
    pub publisher: Publisher,
    /// What became of changed settings.
    pub reloads: Reloads,
    /// What replicas share, where there is a Redis.
    pub redis: Option<Redis>,
    /// What tells other servers who calls; the root puts it in when it has opened the service that does.
    pub voucher: Option<Arc<dyn Vouch>>,
    /// What predicts for other services; the root puts it in when it has opened the service that does.
    pub predictor: Option<Arc<dyn Predict>>,
}

/// Handlers with what they document.
pub struct Routes {
    /// The handlers.
    pub router: axum::Router,
    /// The operations they answer. What is listed neither here nor in `pages` or `undocumented`
    /// cannot be reached.
    pub documented: Documented,
    /// Policies of operations for which the usual one does not fit, by operation id.
    pub policies: Vec<(&'static str, Policy)>,
    /// What answers operations in place of `router`, by operation id.
    pub handlers: Vec<(&'static str, Arc<dyn Handle>)>,
    /// Paths of public pages and files, which are no part of the API.
    pub pages: Vec<&'static str>,
    /// Routes that come from elsewhere than from the document, such as settings.
    pub undocumented: Vec<UndocumentedRoute>,
}

/// A route that no document shows, with all that an operation declares. It must not take a path of an
/// operation or page.
#[derive(Clone)]
pub struct UndocumentedRoute {
    /// The setting that declares its path.
    pub key: String,
    /// Such as `/orders/{id}` or `/orders/{*rest}`.
    pub path: String,
    /// Which it takes; none: all but CONNECT and TRACE. GET stands for HEAD too.
    pub methods: Vec<Method>,
    /// What else of a request it wants.
    pub conditions: Conditions,
    /// Who may call it.
    pub access: Access,
    /// How the edge treats it.
    pub policy: Policy,
    /// What answers it.
    pub handler: Arc<dyn Handle>,
}

/// What a route wants of a request beside path and method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// One of these host names, in lower case; `*.example.org` stands for all names below that. None: any.
    pub hosts: Vec<String>,
    /// All of these headers, each said once, with these values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Answers the requests of a route. An [`ApiError`] is answered as its
/// [`IntoResponse`](axum::response::IntoResponse).
pub trait Handle: Send + Sync {
    /// Answers one request, where the policy of its route says.
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response>;
}

impl Routes {
    /// Handlers and their operations, all with the usual policy.
    pub fn new(router: axum::Router, documented: Documented) -> Self {
        Self {
            router,
            documented,
            policies: Vec::new(),
            handlers: Vec::new(),
            pages: Vec::new(),
            undocumented: Vec::new(),
        }
    }

    /// Sets the policy of some operations.
    #[must_use]
    pub fn with_policy(mut self, operation_ids: &[&'static str], policy: Policy) -> Self {
        let policies = operation_ids.iter().map(|id| (*id, policy));
        self.policies.extend(policies);
        self
    }

    /// Answers some operations without the router, which matches their path once more. For what is asked very often.
    #[must_use]
    pub fn with_handler(
        mut self,
        operation_ids: &[&'static str],
        handler: &Arc<dyn Handle>,
    ) -> Self {
        let handlers = operation_ids.iter().map(|id| (*id, handler.clone()));
        self.handlers.extend(handlers);
        self
    }

    /// Adds routes that no document shows.
    #[must_use]
    pub fn with_undocumented(mut self, routes: Vec<UndocumentedRoute>) -> Self {
        self.undocumented.extend(routes);
        self
    }

    /// Adds public pages, which are read by GET.
    #[must_use]
    pub fn with_pages(mut self, paths: &[&'static str]) -> Self {
        self.pages.extend(paths);
        self
    }
}

/// A service's part of the OpenAPI document.
#[derive(Clone)]
pub struct Documented {
    /// Every operation there is. Each declares by `security` who may call it.
    pub operations: OpenApi,
    /// What `/openapi.json` shows: the same, and perhaps instances of these operations, such as one
    /// for each loaded model with its own types.
    pub shown: OpenApi,
}

impl Documented {
    /// Operations that are shown as they are.
    pub fn new(operations: OpenApi) -> Self {
        let shown = operations.clone();
        Self { operations, shown }
    }

    /// Says what the tags of its operations stand for.
    #[must_use]
    pub fn with_tags(mut self, tags: &[(&str, &str)]) -> Self {
        let tag = |(name, description): &(&str, &str)| {
            let mut tag = Tag::new(*name);
            tag.description = Some((*description).to_owned());
            tag
        };
        let tags: Vec<Tag> = tags.iter().map(tag).collect();
        self.operations.tags = Some(tags.clone());
        self.shown.tags = Some(tags);
        self
    }
}

/// One thing that has to work.
pub struct HealthCheck<'a> {
    /// Its name in `GET /health`.
    pub name: Cow<'static, str>,
    /// How it is. Not answering in time counts as not working.
    pub condition: Boxed<'a, Condition>,
    /// Whether the server is not ready without it. One that is not needed makes a report say
    /// `degraded`: some requests are answered all the same.
    pub needed: bool,
}

/// How a part of a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It works.
    Works,
    /// It works but for a part, and why. The reason is public.
    Impaired(Cow<'static, str>),
    /// It does not work.
    Fails,
}

impl<'a> HealthCheck<'a> {
    /// A check with its name, without which the server is not ready.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        is_healthy: impl Future<Output = bool> + Send + 'a,
    ) -> Self {
        Self::with(name, async {
            match is_healthy.await {
                true => Condition::Works,
                false => Condition::Fails,
            }
        })
    }

    /// [`HealthCheck::new`] for what may work in part.
    pub fn with(
        name: impl Into<Cow<'static, str>>,
        condition: impl Future<Output = Condition> + Send + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            condition: Box::pin(condition),
            needed: true,
        }
    }
}

/// Something an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// For programs, such as `ADMIN_KEY_FILE`.
    pub code: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

/// A link of the front page, in plain text: nothing in it is escaped.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its name in the JSON form.
    pub name: &'static str,
    /// Where it leads.
    pub path: &'static str,
    /// Its text.
    pub title: &'static str,
    /// What is there.
    pub text: &'static str,
}

/// What `auspex serve` prints when it is ready.
#[derive(Debug, Default)]
pub struct Greeting {
    /// What is served, such as the names of models; part of the first line.
    pub serves: Vec<String>,
    /// Further lines: a label of up to five letters and a text.
    pub lines: Vec<(&'static str, String)>,
    /// Whether a person reads it. Secrets are shown only then.
    pub is_terminal: bool,
}

/// Given once, when work has to end.
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// A signal and the sender that gives it. Dropping the sender gives it too.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Ends when a stop is requested, at once if that was before.
    pub async fn stop_requested(&mut self) {
        // An error means that the sender is gone.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// Asks the root to read [`Running::routes`] again, of every service whose routes may change, and to serve what they say now:
/// for models that come and go, and for routes from configuration that is reloaded.
#[derive(Clone, Debug)]
pub struct Publisher(mpsc::Sender<oneshot::Sender<bool>>);

/// The new routes are not served; those from before still are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the changed routes could not be put in place; those from before are served, and the log says why"
)]
pub struct NotPublished;

impl From<NotPublished> for ApiError {
    fn from(error: NotPublished) -> Self {
        ApiError::internal(error)
    }
}

impl Publisher {
    /// A publisher and the queue that the root answers.
    pub fn new() -> (Self, PublishQueue) {
        let (sender, receiver) = mpsc::channel(PUBLISH_QUEUE_MAX);
        (Self(sender), PublishQueue(receiver))
    }

    /// Returns when the routes and the document of every service, as they are now or later, are
    /// served. Of several requests at once one rebuild answers all. Not to be awaited in
    /// [`Service::open`], for the root reads the routes after that anyway.
    ///
    /// # Errors
    /// [`NotPublished`]: the root logged the reason and serves the routes from before. So it is when
    /// the server is stopping.
    pub async fn publish(&self) -> Result<(), NotPublished> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.0.send(answer).await.map_err(|_| NotPublished)?;
            answered.await.map_err(|_| NotPublished)
        };
        match tokio::time::timeout(PUBLISH_TIMEOUT, asked).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(NotPublished),
        }
    }
}

/// The root's end of [`Publisher`].
#[derive(Debug)]
pub struct PublishQueue(mpsc::Receiver<oneshot::Sender<bool>>);

impl PublishQueue {
    /// Waits for requests, rebuilds once for all that wait, and tells them whether it worked. A
    /// panic counts as no. Ends when no publisher is left.
    pub async fn answer_all(mut self, mut rebuild: impl FnMut() -> bool) {
        let mut waiting = Vec::new();
        while self.0.recv_many(&mut waiting, PUBLISH_QUEUE_MAX).await > 0 {
            let rebuilt = catch_unwind(AssertUnwindSafe(&mut rebuild));
            let is_published = rebuilt.unwrap_or_else(|_| {
                tracing::error!("rebuilding the routes panicked; those from before are served");
                false
            });
            for answer in waiting.drain(..) {
                // A requester that has gone needs no answer.
                let _ = answer.send(is_published);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_that_wait_are_answered_by_one_rebuild() {
        let (publisher, queue) = Publisher::new();
        let (one, two) = (publisher.clone(), publisher);
        let mut rebuilds = 0;
        let asked = async { tokio::join!(one.publish(), two.publish()) };
        let (answers, ()) = tokio::join!(asked, async {
            // Both are in the queue before the root looks.
            tokio::task::yield_now().await;
            let answering = queue.answer_all(|| {
                rebuilds += 1;
                true
            });
            let _ = tokio::time::timeout(Duration::from_millis(50), answering).await;
        });
        assert_eq!(answers, (Ok(()), Ok(())));
        assert_eq!(rebuilds, 1);
    }

    #[tokio::test]
    async fn a_rebuild_that_panics_does_not_keep_the_next_one_from_working() {
        let (publisher, queue) = Publisher::new();
        let mut is_first = true;
        let serving = tokio::spawn(queue.answer_all(move || {
            assert!(!std::mem::take(&mut is_first), "two routes clash");
            true
        }));
        assert_eq!(publisher.publish().await, Err(NotPublished));
        assert_eq!(publisher.publish().await, Ok(()));
        serving.abort();
    }

    #[tokio::test]
    async fn a_failed_rebuild_and_a_root_that_has_gone_are_errors() {
        let (publisher, queue) = Publisher::new();
        let serving = tokio::spawn(queue.answer_all(|| false));
        assert_eq!(publisher.publish().await, Err(NotPublished));
        serving.abort();
        let _ = serving.await;
        assert_eq!(publisher.publish().await, Err(NotPublished));
    }

    #[tokio::test]
    async fn a_stop_is_seen_by_those_who_ask_later_and_when_its_sender_is_gone() {
        let (stop, signal) = StopSignal::new();
        stop.send_replace(true);
        signal.clone().stop_requested().await;
        drop(stop);
        let (stop, mut signal) = StopSignal::new();
        drop(stop);
        signal.stop_requested().await;
    }
}
