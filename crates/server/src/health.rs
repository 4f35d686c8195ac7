//! Whether the database and the services work. Each check has a timeout and its result is kept for a
//! second, so that asking often costs nothing and a check that hangs counts as unhealthy.
//!
//! The server is ready as long as all works that something cannot be answered without. Predictions
//! need no database: while it is away a report says so, and balancers go on sending requests.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::db::{Db, DbError, Fault};
use auspex_kernel::redis::{Redis, State};
use auspex_kernel::service::{Condition, HealthCheck};
use futures_util::future::{join_all, join3};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::services::{OfServices, Services};

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_KEPT: Duration = Duration::from_secs(1);
/// However often anybody asks, not more than one write in this time goes to the disk.
const WRITE_KEPT: Duration = Duration::from_secs(5);
/// Why a check failed, where nothing more is known.
const NO_REASON: &str = "does not work";

/// The state of one part, or of the whole, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Works.
    Healthy,
    /// Works but for a part, and requests that do not need that are answered.
    Degraded,
    /// Does not work, or did not answer in time.
    Unhealthy,
}

/// The whole and its parts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Report {
    pub(crate) status: Status,
    /// Each part by name.
    #[schema(example = json!({"database": "healthy", "models": "healthy"}))]
    services: BTreeMap<String, Status>,
    /// Why parts do not work; absent if all do.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"database": "disk full"}), required = false)]
    reasons: BTreeMap<String, Cow<'static, str>>,
    /// Services of which a check found something wrong, and the worst of that.
    #[serde(skip)]
    wrong: BTreeMap<&'static str, Status>,
}

impl Report {
    /// Whether every part works, be it not in all it should.
    pub(crate) fn all_work(&self) -> bool {
        self.services
            .values()
            .all(|status| *status != Status::Unhealthy)
    }
}

/// A check that was run.
struct Checked {
    /// The service it belongs to; the check of the database is the server's own.
    service: Option<&'static str>,
    name: String,
    /// Whether the server is not ready without it.
    needed: bool,
    status: Status,
    /// Why it is not healthy.
    reason: Option<Cow<'static, str>>,
}

/// The databases of a server.
pub(crate) struct Databases {
    /// That of all services.
    pub(crate) main: Db,
    /// Those of single services.
    pub(crate) of_services: Vec<OfServices>,
}

/// Why a check failed.
type Outcome = Result<(), &'static str>;

/// Asks the database and the services.
pub(crate) struct Health {
    services: Services,
    redis: Option<Redis>,
    leaving: Arc<AtomicBool>,
    /// Each database, by the name of its check.
    writes: Vec<(String, Mutex<Writes>)>,
    /// Each database that may have a standby, by the name of its check.
    standbys: Vec<(String, Db)>,
    report: Mutex<Option<(Instant, Report)>>,
    ready: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    pub(crate) fn new(
        databases: Databases,
        redis: Option<Redis>,
        services: Services,
        clock: Clock,
    ) -> Self {
        let Databases { main, of_services } = databases;
        let of_services = of_services
            .into_iter()
            .map(|own| (format!("{}_database", own.services.join("_")), own.db));
        let databases = std::iter::once(("database".to_owned(), main)).chain(of_services);
        let databases: Vec<_> = databases.collect();
        let standbys = databases
            .iter()
            .map(|(name, db)| (name.replace("database", "standby"), db.clone()))
            .collect();
        let writes = databases
            .into_iter()
            .map(|(name, db)| (name, Mutex::new(Writes::new(db, clock.clone()))));
        Self {
            services,
            redis,
            leaving: Arc::default(),
            writes: writes.collect(),
            standbys,
            report: Mutex::default(),
            ready: Mutex::default(),
        }
    }

    /// From now on the server is not ready: a balancer should send its requests elsewhere.
    pub(crate) fn stop(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether it is so, for whoever asks on every request.
    pub(crate) fn leaving(&self) -> Arc<AtomicBool> {
        self.leaving.clone()
    }

    pub(crate) fn stopping(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// A report that is at most a second old.
    pub(crate) async fn report(&self) -> Report {
        kept(&self.report, async {
            let running = self.of_running(false);
            let (databases, standbys, mut checks) =
                join3(self.of_databases(), self.of_standbys(), running).await;
            checks.extend(databases.into_iter().chain(standbys));
            checks.extend(self.redis.as_ref().map(of_redis));
            summarise(checks)
        })
        .await
    }

    /// Whether all works that the server is nothing without, as of the last second. The database is
    /// not asked.
    pub(crate) async fn ready(&self) -> bool {
        kept(&self.ready, async {
            let checks = self.of_running(true).await;
            checks.iter().all(|check| check.status != Status::Unhealthy)
        })
        .await
    }

    /// Each service with whether its checks pass; those without checks are healthy.
    pub(crate) async fn of_services(&self) -> Vec<(&'static str, Status)> {
        let report = self.report().await;
        let wrong = |name| report.wrong.get(name).copied();
        let status = |name| wrong(name).unwrap_or(Status::Healthy);
        let names = self.services.named().map(|(name, _)| name);
        names.map(|name| (name, status(name))).collect()
    }

    async fn of_databases(&self) -> Vec<Checked> {
        let checks = self.writes.iter().map(async |(name, writes)| {
            let written = in_time(async { writes.lock().await.outcome().await });
            let outcome = written.await.and_then(|outcome| outcome);
            Checked {
                service: None,
                name: name.clone(),
                needed: false,
                status: Status::of(outcome),
                reason: outcome.err().map(Cow::from),
            }
        });
        join_all(checks).await
    }

    /// While a standby is away the primary answers what it would.
    async fn of_standbys(&self) -> Vec<Checked> {
        let checks = self.standbys.iter().map(async |(name, db)| {
            let (status, reason) = match in_time(db.standby_answers()).await {
                Ok(None) => return None,
                Ok(Some(true)) => (Status::Healthy, None),
                Ok(Some(false)) | Err(_) => (Status::Degraded, Some(Fault::Unreachable.reason())),
            };
            Some(Checked {
                service: None,
                name: name.clone(),
                needed: false,
                status,
                reason: reason.map(Cow::from),
            })
        });
        join_all(checks).await.into_iter().flatten().collect()
    }

    /// Runs the checks of the services, or those that are needed.
    async fn of_running(&self, only_needed: bool) -> Vec<Checked> {
        let checks = self.services.named().flat_map(|(service, running)| {
            let checks = running.health_checks().into_iter();
            let wanted = checks.filter(move |check| check.needed || !only_needed);
            wanted.map(move |check| run(service, check))
        });
        join_all(checks).await
    }
}

/// Without Redis everything is answered, but limits are counted by each replica alone, and what replicas
/// would share is not.
fn of_redis(redis: &Redis) -> Checked {
    let (status, reason) = match redis.state() {
        State::Up => (Status::Healthy, None),
        State::Down(reason) => (Status::Degraded, Some(reason.text().into())),
    };
    Checked {
        service: None,
        name: "redis".into(),
        needed: false,
        status,
        reason,
    }
}

/// Proves by writing that a database takes changes.
struct Writes {
    db: Db,
    clock: Clock,
    last: Option<(Instant, Outcome)>,
    /// A write that took longer than somebody waited. It goes on, so that those who share its
    /// commit do not lose it.
    running: Option<(Instant, JoinHandle<Result<(), DbError>>)>,
}

impl Writes {
    fn new(db: Db, clock: Clock) -> Self {
        Self {
            db,
            clock,
            last: None,
            running: None,
        }
    }

    async fn outcome(&mut self) -> Outcome {
        loop {
            if self.running.is_none()
                && let Some((at, outcome)) = self.last
                && at.elapsed() < WRITE_KEPT
            {
                return outcome;
            }
            let (_, running) = self.running.get_or_insert_with(|| {
                let (db, now) = (self.db.clone(), self.clock.now());
                let writing = tokio::spawn(async move { db.prove_writes(now).await });
                (Instant::now(), writing)
            });
            let written = running.await;
            let begun = self.running.take().map_or_else(Instant::now, |(at, _)| at);
            let outcome = match written {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(self.failed(&error)),
                Err(_) => Err(NO_REASON),
            };
            if outcome.is_ok() && self.last.is_some_and(|(_, last)| last.is_err()) {
                tracing::info!(
                    database = self.db.name(),
                    "the database takes changes again"
                );
            }
            // Of one that somebody gave up waiting for, who knows how long ago, nothing is told.
            self.last = Some((begun, outcome));
        }
    }

    /// Logs an error that was not there at the last write.
    fn failed(&self, error: &DbError) -> &'static str {
        let reason = match error {
            DbError::Abandoned => Fault::Slow.reason(),
            _ => error.fault().map_or(NO_REASON, Fault::reason),
        };
        if self.last.is_none_or(|(_, last)| last != Err(reason)) {
            let database = self.db.name();
            tracing::warn!(%error, reason, database, "the database takes no changes");
        }
        reason
    }
}

impl Status {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Status::Healthy,
            Err(_) => Status::Unhealthy,
        }
    }
}

/// The last answer if it is young enough, otherwise a new one. One request asks, the others wait for
/// its result: bounded by its timeout.
async fn kept<T: Clone>(last: &Mutex<Option<(Instant, T)>>, ask: impl Future<Output = T>) -> T {
    let mut last = last.lock().await;
    if let Some((at, answer)) = &*last
        && at.elapsed() < REPORT_KEPT
    {
        return answer.clone();
    }
    let answer = ask.await;
    *last = Some((Instant::now(), answer.clone()));
    answer
}

async fn run(service: &'static str, check: HealthCheck<'_>) -> Checked {
    let (status, reason) = match in_time(check.condition).await {
        Ok(Condition::Works) => (Status::Healthy, None),
        Ok(Condition::Impaired(reason)) => (Status::Degraded, Some(reason)),
        Ok(Condition::Fails) => (Status::Unhealthy, Some(NO_REASON.into())),
        Err(late) => (Status::Unhealthy, Some(late.into())),
    };
    Checked {
        service: Some(service),
        name: check.name.into_owned(),
        needed: check.needed,
        status,
        reason,
    }
}

async fn in_time<T>(check: impl Future<Output = T>) -> Result<T, &'static str> {
    let in_time = tokio::time::timeout(CHECK_TIMEOUT, check).await;
    in_time.map_err(|_| Fault::Slow.reason())
}

fn summarise(checks: Vec<Checked>) -> Report {
    let of_whole = |check: &Checked| match check.status {
        Status::Unhealthy if !check.needed => Status::Degraded,
        status => status,
    };
    let mut wrong = BTreeMap::new();
    for check in checks
        .iter()
        .filter(|check| check.status != Status::Healthy)
    {
        if let Some(service) = check.service {
            let worst = wrong.entry(service).or_insert(check.status);
            *worst = check.status.max(*worst);
        }
    }
    let reasons = checks
        .iter()
        .filter_map(|check| Some((check.name.clone(), check.reason.clone()?)));
    Report {
        status: checks.iter().map(of_whole).max().unwrap_or(Status::Healthy),
        reasons: reasons.collect(),
        wrong,
        services: checks
            .into_iter()
            .map(|check| (check.name, check.status))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_makes_the_whole_unhealthy_if_it_is_needed() {
        let text = |needed, outcome: Outcome| {
            let check = |name: &str, needed, outcome: Outcome| Checked {
                service: None,
                name: name.to_owned(),
                needed,
                status: Status::of(outcome),
                reason: outcome.err().map(Cow::from),
            };
            let checks = vec![
                check("models", true, Ok(())),
                check("redis", needed, outcome),
            ];
            serde_json::to_string(&summarise(checks)).expect("serialisable")
        };
        let failed =
            r#""services":{"models":"healthy","redis":"unhealthy"},"reasons":{"redis":"x"}}"#;
        assert_eq!(
            text(true, Err("x")),
            format!(r#"{{"status":"unhealthy",{failed}"#)
        );
        assert_eq!(
            text(false, Err("x")),
            format!(r#"{{"status":"degraded",{failed}"#)
        );
        assert_eq!(
            text(true, Ok(())),
            r#"{"status":"healthy","services":{"models":"healthy","redis":"healthy"}}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_unhealthy() {
        let hanging = HealthCheck::new("redis", std::future::pending());
        let checked = run("x", hanging).await;
        assert_eq!(checked.reason.as_deref(), Some("no answer in time"));
        let wrong = summarise(vec![checked]).wrong;
        assert_eq!(wrong, [("x", Status::Unhealthy)].into());
    }

    #[tokio::test]
    async fn what_works_but_for_a_part_degrades_the_whole_and_is_ready() {
        let condition = std::future::ready(Condition::Impaired("a part is away".into()));
        let checked = run("x", HealthCheck::with("models", condition)).await;
        assert!(checked.needed && checked.status != Status::Unhealthy);
        let report = summarise(vec![checked]);
        assert!(report.all_work());
        assert_eq!(report.wrong, [("x", Status::Degraded)].into());
        assert_eq!(
            serde_json::to_string(&report).expect("serialisable"),
            r#"{"status":"degraded","services":{"models":"degraded"},"reasons":{"models":"a part is away"}}"#
        );
    }

    #[tokio::test]
    async fn however_often_it_is_asked_one_write_goes_to_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("x.db").display());
        let db = Db::open(&url).await.expect("opens");
        auspex_kernel::migrate(&db).await.expect("migrates");
        let mut watch = db.watch().await.expect("watched");
        watch.changed().await.expect("answers");
        let mut writes = Writes::new(db, Clock::system());
        assert_eq!(writes.outcome().await, Ok(()));
        assert!(watch.changed().await.expect("answers"), "it was a write");
        for _ in 0..100 {
            assert_eq!(writes.outcome().await, Ok(()));
        }
        assert!(!watch.changed().await.expect("answers"), "others shared it");
    }

    #[tokio::test]
    async fn what_a_write_found_that_nobody_waited_for_is_not_told_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("x.db").display());
        let db = Db::open(&url).await.expect("opens");
        auspex_kernel::migrate(&db).await.expect("migrates");
        let mut writes = Writes::new(db, Clock::system());
        let long_ago = Instant::now() - 2 * WRITE_KEPT;
        writes.running = Some((long_ago, tokio::spawn(async { Err(DbError::Interrupted) })));
        assert_eq!(writes.outcome().await, Ok(()), "it was asked again");
    }
}
