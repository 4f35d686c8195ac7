//! How a circuit came to be where it is: its last changes, in the log, for those who look and for those who
//! watch.

use std::collections::VecDeque;
use std::sync::Arc;

use auspex_kernel::clock::Steady;
use tokio::sync::broadcast;

use crate::circuit::State;

/// Changes that are kept of each circuit.
pub(crate) const CHANGES_MAX: usize = 20;
/// Changes of all circuits that somebody who watches may be behind.
const BEHIND_MAX: usize = 256;

/// A circuit has gone from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Steady,
    pub(crate) from: State,
    pub(crate) to: State,
    /// For people.
    pub(crate) cause: String,
}

/// A change, and whose it is.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) service: Arc<str>,
    pub(crate) endpoint: Arc<str>,
    pub(crate) change: Change,
}

/// Whoever watches the circuits of all services. Clones are one.
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

/// The last changes of one circuit.
#[derive(Debug)]
pub(crate) struct Journal {
    service: Arc<str>,
    endpoint: Arc<str>,
    changes: VecDeque<Change>,
    watchers: Watchers,
}

impl Journal {
    pub(crate) fn new(service: &str, endpoint: &str, watchers: Watchers) -> Self {
        Self {
            service: service.into(),
            endpoint: endpoint.into(),
            changes: VecDeque::new(),
            watchers,
        }
    }

    /// The newest last.
    pub(crate) fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    pub(crate) fn record(&mut self, change: Change) {
        let (service, endpoint, cause) = (&*self.service, &*self.endpoint, &*change.cause);
        match change.to {
            State::Open { until } if change.from == State::Closed => {
                let seconds = until.since(change.at).as_secs_f64();
                tracing::warn!(service, endpoint, cause, seconds, "circuit opened");
            }
            State::Open { until } => {
                let seconds = until.since(change.at).as_secs_f64();
                tracing::warn!(service, endpoint, cause, seconds, "circuit stays open");
            }
            State::Closed => tracing::info!(service, endpoint, "circuit closed"),
            State::HalfOpen => tracing::debug!(service, endpoint, "circuit lets a probe through"),
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(change.clone());
        // Mostly nobody watches.
        let _ = self.watchers.0.send(Arc::new(Event {
            service: self.service.clone(),
            endpoint: self.endpoint.clone(),
            change,
        }));
    }
}
