//! Whether an endpoint answers its health checks. It takes some in a row to change what is believed, so that one
//! lost answer takes no endpoint out of use, and one lucky one brings none back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;
use http::uri::PathAndQuery;
use parking_lot::Mutex;

use crate::journal::{Change, Journal, What};

/// The first check of an endpoint comes within this time, so that a start finds out soon.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How endpoints are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HealthLaw {
    /// What is asked for; an answer of 2xx is a good one.
    pub(crate) path: PathAndQuery,
    pub(crate) interval: Duration,
    /// No longer than the interval.
    pub(crate) timeout: Duration,
    /// Checks in a row that fail.
    pub(crate) unhealthy_after: u32,
    /// Checks in a row that succeed.
    pub(crate) healthy_after: u32,
}

/// What the checks of one endpoint say. It is healthy until they say otherwise.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) law: HealthLaw,
    is_down: AtomicBool,
    is_running: AtomicBool,
    rest: Mutex<Rest>,
    journal: Arc<Journal>,
}

#[derive(Debug, Default)]
struct Rest {
    /// When the next check is.
    due: Option<Steady>,
    /// Checks in a row against what is believed.
    against: u32,
    last: Option<Checked>,
}

/// A check that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) at: Steady,
    /// Why it failed.
    pub(crate) failure: Option<String>,
}

/// A check that runs. Dropped without a word it says nothing of the endpoint.
pub(crate) struct Running<'h>(&'h Health);

impl Health {
    pub(crate) fn new(law: HealthLaw, journal: Arc<Journal>) -> Self {
        Self {
            law,
            is_down: AtomicBool::new(false),
            is_running: AtomicBool::new(false),
            rest: Mutex::default(),
            journal,
        }
    }

    /// Whether the endpoint is to be left alone.
    pub(crate) fn is_down(&self) -> bool {
        self.is_down.load(Ordering::Acquire)
    }

    /// How long it stays so at least, if all goes well from now on.
    pub(crate) fn recovery(&self) -> Duration {
        self.law.interval.saturating_mul(self.law.healthy_after)
    }

    pub(crate) fn last(&self) -> Option<Checked> {
        self.rest.lock().last.clone()
    }

    /// Since when a check is due, if one is and none runs. `chance` from [0, 1) spreads the first ones.
    pub(crate) fn due_since(&self, now: Steady, chance: f64) -> Option<Steady> {
        if self.is_running.load(Ordering::Relaxed) {
            return None;
        }
        let first = FIRST_WITHIN.min(self.law.interval).mul_f64(chance);
        let due = *self.rest.lock().due.get_or_insert(now + first);
        (due <= now).then_some(due)
    }

    /// A check begins. The next one is due after the interval, and up to a tenth more by `chance`.
    pub(crate) fn begin(&self, now: Steady, chance: f64) -> Running<'_> {
        self.is_running.store(true, Ordering::Relaxed);
        let pause = self.law.interval.mul_f64(1.0 + chance / 10.0);
        self.rest.lock().due = Some(now + pause);
        Running(self)
    }
}

impl Running<'_> {
    /// How the check ended, by what if it failed.
    pub(crate) fn tell(self, failure: Option<&str>, now: Steady) {
        let Self(health) = &self;
        let mut rest = health.rest.lock();
        let (at, was_down) = (now, health.is_down());
        rest.last = Some(Checked {
            at,
            failure: failure.map(str::to_owned),
        });
        if failure.is_some() == was_down {
            rest.against = 0;
            return;
        }
        rest.against += 1;
        let (needed, verb) = match was_down {
            true => (health.law.healthy_after, "succeeded"),
            false => (health.law.unhealthy_after, "failed"),
        };
        if rest.against < needed {
            return;
        }
        rest.against = 0;
        let mut cause = format!("{needed} checks in a row {verb}");
        if let Some(failure) = failure {
            cause += &format!(", the last: {failure}");
        }
        health.is_down.store(!was_down, Ordering::Release);
        let what = What::Health {
            is_healthy: was_down,
        };
        health.journal.record(Change { at, what, cause });
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Turns, Watchers};

    fn health(turns: &Turns) -> Health {
        let law = HealthLaw {
            path: PathAndQuery::from_static("/health"),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 2,
        };
        let journal = Journal::new("orders", "a:1", Watchers::new(), turns.clone());
        Health::new(law, Arc::new(journal))
    }

    fn at(seconds: i64) -> Steady {
        Steady(seconds * 1_000_000)
    }

    #[test]
    fn it_takes_some_checks_in_a_row_to_change_what_is_believed() {
        let turns = Turns::default();
        let health = health(&turns);
        let mut second = 0;
        let mut check = |failure: Option<&str>| {
            second += 5;
            health.begin(at(second), 0.0).tell(failure, at(second));
            health.is_down()
        };
        assert_eq!([Some("500"); 2].map(&mut check), [false; 2]);
        assert!(!check(None), "that begins anew");
        assert_eq!([Some("500"); 3].map(&mut check), [false, false, true]);
        assert_eq!(turns.count(), 1);
        assert_eq!([None, Some("timeout"), None].map(&mut check), [true; 3]);
        assert!(!check(None));
        let changes = health.journal.changes();
        let causes: Vec<&str> = changes.iter().map(|change| &*change.cause).collect();
        let expected = [
            "3 checks in a row failed, the last: 500",
            "2 checks in a row succeeded",
        ];
        assert_eq!(causes, expected);
        assert_eq!(turns.count(), 2);
        assert!(health.last().is_some_and(|last| last.failure.is_none()));
    }

    #[test]
    fn checks_come_in_their_time_and_one_at_a_time() {
        let health = health(&Turns::default());
        assert_eq!(health.due_since(at(0), 0.9), None, "the first is spread");
        assert!(health.due_since(at(1), 0.9).is_some());
        let running = health.begin(at(1), 0.5);
        assert_eq!(health.due_since(at(60), 0.5), None, "it runs");
        drop(running);
        assert!(!health.is_down() && health.last().is_none());
        assert_eq!(health.due_since(at(6), 0.5), None, "a little later");
        assert!(health.due_since(at(7), 0.5).is_some());
    }
}
