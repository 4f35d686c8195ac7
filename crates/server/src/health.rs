//! Whether the parts work: each check has a timeout and a short memory, so that asking often costs
//! nothing and a hanging part is unhealthy and not a hang.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_inference::Inference;
use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Timestamp};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
const MEMORY_US: i64 = 1_000_000;

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
    services: BTreeMap<&'static str, Status>,
}

/// Knows the parts and asks them.
pub(crate) struct Health {
    db: Db,
    inference: Arc<Inference>,
    clock: Clock,
    stopping: AtomicBool,
    last: Mutex<Option<(Timestamp, Report)>>,
}

impl Health {
    pub(crate) fn new(db: Db, inference: Arc<Inference>, clock: Clock) -> Self {
        let stopping = AtomicBool::new(false);
        Self {
            db,
            inference,
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
        // One asks, the others wait for what it learns: bounded by its timeout.
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        if let Some((at, report)) = &*last
            && now.0 - at.0 < MEMORY_US
        {
            return report.clone();
        }
        let database = tokio::time::timeout(CHECK_TIMEOUT, self.db.ping()).await;
        let database = matches!(database, Ok(Ok(())));
        let models = !self.inference.models().is_empty();
        let report = summarise([("database", database), ("models", models)]);
        *last = Some((now, report.clone()));
        report
    }
}

fn summarise(checks: impl IntoIterator<Item = (&'static str, bool)>) -> Report {
    let status = |ok: bool| {
        if ok {
            Status::Healthy
        } else {
            Status::Unhealthy
        }
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
        let text = |checks| serde_json::to_string(&summarise(checks)).expect("serialisable");
        assert_eq!(
            text([("database", true), ("redis", false)]),
            r#"{"status":"unhealthy","services":{"database":"healthy","redis":"unhealthy"}}"#
        );
        assert!(text([("database", true), ("redis", true)]).starts_with(r#"{"status":"healthy""#));
    }
}
