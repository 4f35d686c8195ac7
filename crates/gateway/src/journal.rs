//! How an endpoint came to be where it is: the last changes of its circuit and its health, in the log, for
//! those who look and for those who watch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use auspex_kernel::clock::Steady;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::circuit::State;

/// Changes that are kept of each endpoint.
pub(crate) const CHANGES_MAX: usize = 20;
/// Changes of all endpoints that somebody who watches may be behind.
const BEHIND_MAX: usize = 256;

/// Something about an endpoint has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Steady,
    pub(crate) what: What,
    /// For people.
    pub(crate) cause: String,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Its circuit has gone from one state to another.
    Circuit { from: State, to: State },
    /// Its health checks say the opposite of before.
    Health { is_healthy: bool },
}

/// A change, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) service: Arc<str>,
    pub(crate) endpoint: Arc<str>,
    pub(crate) change: Change,
}

/// How often anything about the endpoints of a service has changed. Clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<AtomicU64>);

impl Turns {
    /// Whoever reads a number sees the changes that it counts.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Whoever watches the endpoints of all services. Clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Watchers(broadcast::Sender<Arc<Event>>);

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BEHIND_MAX))
    }

    /// What happens from now on. Whoever reads too slowly is told that they have missed something.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.subscribe()
    }
}

/// The last changes of one endpoint.
#[derive(Debug)]
pub(crate) struct Journal {
    service: Arc<str>,
    endpoint: Arc<str>,
    changes: Mutex<VecDeque<Change>>,
    watchers: Watchers,
    turns: Turns,
}

impl Journal {
    pub(crate) fn new(service: &str, endpoint: &str, watchers: Watchers, turns: Turns) -> Self {
        Self {
            service: service.into(),
            endpoint: endpoint.into(),
            changes: Mutex::default(),
            watchers,
            turns,
        }
    }

    /// The newest last.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.changes.lock().iter().cloned().collect()
    }

    /// To be called once the change can be seen.
    pub(crate) fn record(&self, change: Change) {
        self.turns.0.fetch_add(1, Ordering::Release);
        self.log(&change);
        let mut changes = self.changes.lock();
        if changes.len() == CHANGES_MAX {
            changes.pop_front();
        }
        changes.push_back(change.clone());
        drop(changes);
        // Mostly nobody watches.
        let _ = self.watchers.0.send(Arc::new(Event {
            service: self.service.clone(),
            endpoint: self.endpoint.clone(),
            change,
        }));
    }

    fn log(&self, change: &Change) {
        let (service, endpoint, cause) = (&*self.service, &*self.endpoint, &*change.cause);
        match change.what {
            What::Circuit { from, to } => match to {
                State::Open { until } if until <= change.at => {
                    tracing::debug!(service, endpoint, cause, "circuit waits for a request");
                }
                State::Open { until } => {
                    let seconds = until.since(change.at).as_secs_f64();
                    if from == State::Closed {
                        tracing::warn!(service, endpoint, cause, seconds, "circuit opened");
                    } else {
                        tracing::warn!(service, endpoint, cause, seconds, "circuit stays open");
                    }
                }
                State::Closed => tracing::info!(service, endpoint, "circuit closed"),
                State::HalfOpen { .. } => {
                    tracing::debug!(service, endpoint, "circuit lets a probe through");
                }
            },
            What::Health { is_healthy: false } => {
                tracing::warn!(service, endpoint, cause, "endpoint is unhealthy");
            }
            What::Health { is_healthy: true } => {
                tracing::info!(service, endpoint, cause, "endpoint is healthy again");
            }
        }
    }
}
