//! Whether the database and the services work. Each check has a timeout and its result is kept for a
//! second, so that asking often costs nothing and a check that hangs counts as unhealthy.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::db::Db;
use auspex_kernel::service::HealthCheck;
use auspex_kernel::{Clock, Timestamp};
use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::services::Services;

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const REPORT_KEPT_US: i64 = 1_000_000;

/// The state of one part, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Works.
    Healthy,
    /// Does not, or did not say so in time.
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
}

/// Asks the database and the services.
pub(crate) struct Health {
    db: Db,
    services: Services,
    clock: Clock,
    stopping: AtomicBool,
    last: Mutex<Option<(Timestamp, Report)>>,
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

    /// At most a second old.
    pub(crate) async fn report(&self) -> Report {
        // One request asks, the others wait for its result: bounded by its timeout.
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        if let Some((at, report)) = &*last
            && now.0 - at.0 < REPORT_KEPT_US
        {
            return report.clone();
        }
        let database = HealthCheck::new("database", async { self.db.ping().await.is_ok() });
        let others = self.services.iter().flat_map(|s| s.health_checks());
        let report = summarise(join_all(std::iter::once(database).chain(others).map(run)).await);
        *last = Some((now, report.clone()));
        report
    }
}

async fn run(check: HealthCheck<'_>) -> (String, bool) {
    let in_time = tokio::time::timeout(CHECK_TIMEOUT, check.is_healthy).await;
    (check.name.into_owned(), in_time.unwrap_or(false))
}

fn summarise(checks: impl IntoIterator<Item = (String, bool)>) -> Report {
    let status = |ok: bool| match ok {
        true => Status::Healthy,
        false => Status::Unhealthy,
    };
    let services: BTreeMap<_, _> = checks
        .into_iter()
        .map(|(name, ok)| (name, status(ok)))
        .collect();
    let all = services.values().all(|status| *status == Status::Healthy);
    Report {
        status: status(all),
        services,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unhealthy_part_makes_the_whole_unhealthy() {
        let text = |redis| {
            let checks = [("database".to_owned(), true), ("redis".to_owned(), redis)];
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
        assert_eq!(run(hanging).await, ("redis".to_owned(), false));
    }
}
