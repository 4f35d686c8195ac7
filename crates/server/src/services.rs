//! The one list of services, and what the root does with each of them.

#[cfg(test)]
pub(crate) mod sample;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use auspex_dialogues::DialoguesService;
use auspex_gateway::GatewayService;
use auspex_identity::IdentityService;
use auspex_inference::InferenceService;
use auspex_jobs::JobsService;
use auspex_kernel::Authenticate;
use auspex_kernel::apart::Apart;
use auspex_kernel::config::ConfigError;
use auspex_kernel::db::{Db, DbError, KnownMigrations, has_run};
use auspex_kernel::policy::Policy;
use auspex_kernel::service::{
    Boxed, Context, Documented, Migrations, OpenError, OwnDatabase, PublishQueue, Release, Running,
    Service, StopSignal, UndocumentedRoute,
};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use utoipa::openapi::OpenApi;

use crate::config::Config;
use crate::roles;

/// Before background work that panicked begins again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Every service with its field in the settings, in the order in which they are opened and
/// documented.
pub(crate) const ALL: &[&dyn Listed] = &[
    &Entry::<InferenceService>(|config| &config.inference),
    &Entry::<IdentityService>(|config| &config.identity),
    &Entry::<DialoguesService>(|config| &config.dialogues),
    &Entry::<GatewayService>(|config| &config.gateway),
    &Entry::<JobsService>(|config| &config.jobs),
    #[cfg(test)]
    &Entry::<sample::SampleService>(|config| &config.sample),
];

/// A service and where its settings are.
struct Entry<S: Service>(fn(&Config) -> &S::Config);

/// [`Service`] for a list of services of different types.
pub(crate) trait Listed: Sync {
    fn name(&self) -> &'static str;
    fn defaults(&self) -> &'static str;
    fn actions(&self) -> &'static [&'static str];
    fn policies(&self) -> Vec<(&'static str, Policy)>;
    fn check(&self, config: &Config) -> Result<(), ConfigError>;
    fn check_surroundings(&self, config: &Config) -> Result<(), ConfigError>;
    fn migrations(&self) -> Option<Migrations>;
    fn operations(&self) -> OpenApi;
    fn undocumented(&self, config: &Config) -> Result<Vec<UndocumentedRoute>, ConfigError>;
    fn databases_apart(&self, config: &Config) -> Vec<DatabaseApart>;
    fn document(&self, config: &Config) -> Result<Documented, OpenError>;
    fn open(&self, config: &Config, context: Context) -> Boxed<'static, Result<Opened, OpenError>>;
}

/// A service that is open.
#[derive(Clone)]
pub(crate) struct Opened {
    name: &'static str,
    /// Whether this process has its routes, or only needs it for those of others.
    is_served: bool,
    running: Arc<dyn Running>,
    /// What hands it other settings, if it takes them while it runs.
    reconfigure: Option<Arc<Reconfigure>>,
}

type Reconfigure = dyn Fn(&Config) -> Boxed<'static, Result<(), OpenError>> + Send + Sync;

impl<S: Service> Listed for Entry<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn defaults(&self) -> &'static str {
        S::DEFAULTS
    }

    fn actions(&self) -> &'static [&'static str] {
        S::ACTIONS
    }

    fn policies(&self) -> Vec<(&'static str, Policy)> {
        S::policies()
    }

    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        S::check((self.0)(config))
    }

    fn check_surroundings(&self, config: &Config) -> Result<(), ConfigError> {
        S::check_surroundings((self.0)(config))
    }

    fn migrations(&self) -> Option<Migrations> {
        S::migrations()
    }

    fn operations(&self) -> OpenApi {
        S::operations()
    }

    fn undocumented(&self, config: &Config) -> Result<Vec<UndocumentedRoute>, ConfigError> {
        S::undocumented((self.0)(config))
    }

    fn databases_apart(&self, config: &Config) -> Vec<DatabaseApart> {
        let of_tables = config.storage_url_of(S::NAME);
        let (data_dir, main_url) = (&config.server.data_dir, config.storage_url());
        let tables_url = of_tables.unwrap_or(&main_url);
        let mut others = S::own_databases((self.0)(config), data_dir, tables_url);
        let mut apart = Vec::new();
        if let Some(url) = of_tables {
            let mut migrations = vec![
                auspex_kernel::migrations(),
                auspex_kernel::migrations_apart(),
            ];
            migrations.extend(S::migrations());
            let mut release: Release = |_, _| Box::pin(async { Ok(()) });
            for other in others.extract_if(.., |other| other.url.is_none()) {
                migrations.extend(other.migrations);
                release = other.release;
            }
            apart.push(DatabaseApart {
                setting: format!("storage.services.{}", S::NAME),
                tables_of: Some(S::NAME),
                beside: None,
                database: OwnDatabase {
                    holds: S::NAME,
                    url: Some(url.to_owned()),
                    migrations,
                    is_missed: S::is_in_use,
                    release,
                },
            });
        }
        apart.extend(others.into_iter().map(|database| DatabaseApart {
            // The one database of a service that is not for all its tables.
            setting: "dialogues.keys_url".to_owned(),
            tables_of: None,
            beside: of_tables.map(str::to_owned),
            database,
        }));
        apart
    }

    fn document(&self, config: &Config) -> Result<Documented, OpenError> {
        S::document((self.0)(config))
    }

    fn open(&self, config: &Config, context: Context) -> Boxed<'static, Result<Opened, OpenError>> {
        let (name, section) = (self.name(), self.0);
        let is_served = roles::are_served(config, name);
        let config = section(config).clone();
        Box::pin(async move {
            let running = S::open(config, context).await?;
            let service = running.clone();
            let reconfigure = move |config: &Config| -> Boxed<'static, _> {
                Box::pin(service.clone().reconfigure(section(config).clone()))
            };
            Ok(Opened {
                name,
                is_served,
                running,
                reconfigure: S::IS_RECONFIGURABLE.then(|| Arc::new(reconfigure) as _),
            })
        })
    }
}

/// What the services record, all of it.
pub(crate) fn actions() -> &'static [&'static str] {
    static ACTIONS: LazyLock<Vec<&str>> = LazyLock::new(|| {
        let actions = ALL.iter().flat_map(|service| service.actions());
        actions.copied().collect()
    });
    &ACTIONS
}

/// A database that a service has for itself, as the settings of the server and of the service name it.
pub(crate) struct DatabaseApart {
    /// What names it.
    pub(crate) setting: String,
    /// The service, where it holds all of its tables.
    pub(crate) tables_of: Option<&'static str>,
    /// The URL of the database with the service's tables, where this one holds others and that is not the one of all.
    pub(crate) beside: Option<String>,
    pub(crate) database: OwnDatabase,
}

/// A database that is open, with the tables of these services.
#[derive(Clone)]
pub(crate) struct OfServices {
    pub(crate) services: Vec<&'static str>,
    pub(crate) db: Db,
}

/// The migrations of the services whose tables are in the database of all.
fn migrations(config: &Config) -> impl Iterator<Item = Migrations> {
    let in_main = ALL
        .iter()
        .filter(|service| config.storage_url_of(service.name()).is_none());
    in_main.filter_map(|service| service.migrations())
}

/// The services of this process that could have a database of their own and have none.
pub(crate) fn in_main(config: &Config) -> impl Iterator<Item = &'static str> {
    let names = config.may_be_apart().into_iter();
    names.filter(|name| roles::are_needed(config, name) && config.storage_url_of(name).is_none())
}

/// Whether this is the database of all services: it has the tables of the one that knows callers.
pub(crate) async fn is_main(db: &Db) -> Result<bool, DbError> {
    match IdentityService::migrations() {
        Some(migrations) => has_run(db, &migrations.known).await,
        None => Ok(false),
    }
}

/// Brings the tables of the kernel and of the services in the database of all up to date.
pub(crate) async fn migrate(config: &Config, db: &Db) -> Result<(), DbError> {
    auspex_kernel::migrate(db).await?;
    for migrations in migrations(config) {
        migrations.run(db).await?;
    }
    Ok(())
}

/// The databases that services have for themselves.
pub(crate) fn databases_apart(config: &Config) -> Vec<DatabaseApart> {
    let needed = ALL
        .iter()
        .filter(|service| roles::are_needed(config, service.name()));
    let apart = needed.map(|service| service.databases_apart(config));
    apart.flatten().collect()
}

/// The migrations of the kernel and of the services in the database of all.
pub(crate) fn known_migrations(config: &Config) -> Vec<KnownMigrations> {
    let of_services = migrations(config).map(|migrations| migrations.known);
    std::iter::once(auspex_kernel::known_migrations())
        .chain(of_services)
        .collect()
}

/// Every service that this process serves or needs, open, in the order of [`ALL`].
#[derive(Clone)]
pub(crate) struct Services(Vec<Opened>);

impl Services {
    /// Opens them.
    ///
    /// # Errors
    /// That of the first one that cannot be opened.
    pub(crate) async fn open(
        config: &Config,
        context: &Context,
        databases: &[OfServices],
    ) -> Result<Self, OpenError> {
        let (mut open, mut context) = (Vec::new(), context.clone());
        for service in ALL {
            if !roles::are_needed(config, service.name()) {
                continue;
            }
            let mut given = context.clone();
            let own = databases
                .iter()
                .find(|database| database.services.contains(&service.name()));
            if let Some(own) = own {
                given.db = own.db.clone();
            }
            let opened = service.open(config, given).await?;
            let voucher = opened.running.clone().voucher();
            context.voucher = voucher.or(context.voucher);
            let predictor = opened.running.clone().predictor();
            context.predictor = predictor.or(context.predictor);
            open.push(opened);
        }
        Ok(Self(open))
    }

    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, &Arc<dyn Running>)> {
        self.0
            .iter()
            .map(|service| (service.name, &service.running))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Running>> {
        self.0.iter().map(|service| &service.running)
    }

    /// Those whose routes this process has.
    pub(crate) fn served(&self) -> impl Iterator<Item = &Arc<dyn Running>> {
        let served = self.0.iter().filter(|service| service.is_served);
        served.map(|service| &service.running)
    }

    pub(crate) fn served_names(&self) -> impl Iterator<Item = &'static str> {
        let served = self.0.iter().filter(|service| service.is_served);
        served.map(|service| service.name)
    }

    /// What hands a service other settings while it runs.
    pub(crate) fn reconfigure(&self, section: &str) -> Option<&Reconfigure> {
        let service = self.0.iter().find(|service| service.name == section);
        service?.reconfigure.as_deref()
    }

    /// The seam of the service that knows callers.
    pub(crate) fn authenticator(&self) -> Result<Arc<dyn Authenticate>, OpenError> {
        let mut known = self.iter().filter_map(|s| s.clone().authenticator());
        match (known.next(), known.next()) {
            (Some(one), None) => Ok(one),
            _ => Err("exactly one service must authenticate callers".into()),
        }
    }

    /// Starts their background work and what goes on between databases, and answers requests to publish by `rebuild`. Call
    /// it on the control runtime.
    pub(crate) fn start(
        &self,
        queue: PublishQueue,
        rebuild: impl FnMut() -> bool + Send + 'static,
        apart: impl IntoIterator<Item = Apart>,
    ) -> Background {
        let (stop, mut signal) = StopSignal::new();
        let spawn = |service: &Opened| {
            let (running, stop) = (service.running.clone(), signal.clone());
            let work = move || running.clone().background(stop.clone());
            let work = keep_running(service.name, work, signal.clone());
            (service.name, tokio::spawn(work))
        };
        let mut tasks: Vec<_> = self.0.iter().map(spawn).collect();
        let carried = apart.into_iter().map(|apart| {
            let stop = signal.clone();
            let work =
                move || -> Boxed<'static, ()> { Box::pin(apart.clone().carry(stop.clone())) };
            let work = keep_running("databases", work, signal.clone());
            ("databases", tokio::spawn(work))
        });
        tasks.extend(carried);
        let publishing = async move {
            tokio::select! {
                () = queue.answer_all(rebuild) => {}
                () = signal.stop_requested() => {}
            }
        };
        tasks.push(("routes", tokio::spawn(publishing)));
        Background { stop, tasks }
    }
}

/// Runs the background work of a service to its end, and begins it again after a panic: without it
/// the service would go on with what it knew, and nobody would notice.
async fn keep_running(
    service: &'static str,
    begin: impl Fn() -> Boxed<'static, ()>,
    mut stop: StopSignal,
) {
    loop {
        let work = AssertUnwindSafe(begin());
        if work.catch_unwind().await.is_ok() {
            return;
        }
        tracing::error!(service, "background work panicked and is started again");
        tokio::select! {
            () = tokio::time::sleep(RESTART_PAUSE) => {}
            () = stop.stop_requested() => return,
        }
    }
}

/// The running background work of all services.
pub(crate) struct Background {
    stop: watch::Sender<bool>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Background {
    /// Asks all of it to stop and gives it `limit` to do so. Returns whose work did not end well.
    pub(crate) async fn stop(self, limit: Duration) -> Vec<&'static str> {
        self.stop.send_replace(true);
        let deadline = Instant::now() + limit;
        let mut failed = Vec::new();
        for (service, task) in self.tasks {
            match tokio::time::timeout_at(deadline, task).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => tracing::error!(service, %error, "background work failed"),
                Err(_) => tracing::warn!(service, "background work did not end in time"),
            }
            failed.push(service);
        }
        failed
    }
}
