//! Whether the database and the services work. Each check has a timeout and its result is kept for a
//! second, so that asking often costs nothing and a check that hangs counts as unhealthy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::clock::{Clock, Steady};
use auspex_kernel::db::Db;
use auspex_kernel::service::HealthCheck;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::services::Services;

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_KEPT: Duration = Duration::from_secs(1);

/// The state of one part, or of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Works.
    Healthy,
    /// Does not work, or did not answer in time.
    Unhealthy,
}

/// The whole and its parts.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Report {
    /// Unhealthy as soon as one part is.
    pub(crate) status: Status,
    /// Each part by name.
    #[schema(example = json!({"database": "healthy", "models": "healthy"}))]
    services: BTreeMap<String, Status>,
    /// Services of which a check failed.
    #[serde(skip)]
    failed: Vec<&'static str>,
}

/// A check that was run.
struct Checked {
    /// The service it belongs to; the check of the database is the server's own.
    service: Option<&'static str>,
    name: String,
    works: bool,
}

/// Asks the database and the services.
pub(crate) struct Health {
    db: Db,
    services: Services,
    clock: Clock,
    stopping: AtomicBool,
    last: Mutex<Option<(Steady, Report)>>,
}

impl Health {
    pub(crate) fn new(db: Db, services: Services, clock: Clock) -> Self {
        let stopping = AtomicBool::new(false);
        Self {
            db,
            services,
            clock,
            stopping,
            last: Mutex::new(None),
        }
    }

    /// From now on the server is not ready: a balancer should send its requests elsewhere.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A report that is at most a second old.
    pub(crate) async fn report(&self) -> Report {
        // One request asks, the others wait for its result: bounded by its timeout.
        let mut last = self.last.lock().await;
        let now = self.clock.steady();
        if let Some((at, report)) = &*last
            && now.since(*at) < REPORT_KEPT
        {
            return report.clone();
        }
        let database = HealthCheck::new("database", async { self.db.ping().await.is_ok() });
        let others = self.services.named().flat_map(|(service, running)| {
            let checks = running.health_checks().into_iter();
            checks.map(move |check| run(Some(service), check))
        });
        let checks = std::iter::once(run(None, database)).chain(others);
        let report = summarise(join_all(checks).await);
        *last = Some((now, report.clone()));
        report
    }

    /// Each service with whether its checks pass; those without checks are healthy.
    pub(crate) async fn of_services(&self) -> Vec<(&'static str, Status)> {
        let report = self.report().await;
        let status = |name| Status::of(!report.failed.contains(&name));
        let names = self.services.named().map(|(name, _)| name);
        names.map(|name| (name, status(name))).collect()
    }
}

impl Status {
    fn of(works: bool) -> Self {
        match works {
            true => Status::Healthy,
            false => Status::Unhealthy,
        }
    }
}

async fn run(service: Option<&'static str>, check: HealthCheck<'_>) -> Checked {
    let in_time = tokio::time::timeout(CHECK_TIMEOUT, check.is_healthy).await;
    Checked {
        service,
        name: check.name.into_owned(),
        works: in_time.unwrap_or(false),
    }
}

fn summarise(checks: Vec<Checked>) -> Report {
    let failed = checks.iter().filter(|check| !check.works);
    Report {
        status: Status::of(checks.iter().all(|check| check.works)),
        failed: failed.filter_map(|check| check.service).collect(),
        services: checks
            .into_iter()
            .map(|check| (check.name, Status::of(check.works)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unhealthy_part_makes_the_whole_unhealthy() {
        let check = |service, name: &str, works| Checked {
            service,
            name: name.to_owned(),
            works,
        };
        let text = |redis| {
            let checks = vec![
                check(None, "database", true),
                check(Some("x"), "redis", redis),
            ];
            serde_json::to_string(&summarise(checks)).expect("serialisable")
        };
        assert_eq!(
            text(false),
            r#"{"status":"unhealthy","services":{"database":"healthy","redis":"unhealthy"}}"#
        );
        assert!(text(true).starts_with(r#"{"status":"healthy""#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_unhealthy() {
        let hanging = HealthCheck::new("redis", std::future::pending());
        let checked = run(Some("x"), hanging).await;
        assert!(!checked.works);
        assert_eq!(summarise(vec![checked]).failed, ["x"]);
    }
}
