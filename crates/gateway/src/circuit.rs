//! The circuit breaker of one endpoint: after too many failures it is asked nothing for a while, then one
//! request tries whether it is back.
//!
//! Failures in a row or their share within a window open the circuit. A window is counted exactly: an average
//! weighted by time would hide short bursts. A probe is a request like any other, so that whoever chooses endpoints
//! asks one gate (`gate.rs`) alone. Where connections failed, whether the endpoint takes one is looked at without a
//! request (`check.rs`): that costs nobody any waiting, and a server that was started anew is back at once.
//!
//! While the circuit is closed, requests touch atomics and wait for nobody. The lock is for what happens
//! rarely: opening, probing, closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;
use parking_lot::Mutex;

use crate::journal::{Change, Journal, What};
use crate::window::Window;

/// How many times the waiting doubles at most.
const DOUBLINGS_MAX: u32 = 4;
/// From one look at an endpoint whose connections failed to the next.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// When a circuit opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Law {
    /// Failures in a row.
    pub(crate) failure_threshold: u32,
    /// Or this share of the requests of the window, in percent,
    pub(crate) failure_percent: u32,
    pub(crate) window: Duration,
    /// if there were at least so many.
    pub(crate) requests_min: u32,
    /// Before the first probe; it doubles with each probe that fails.
    pub(crate) recovery_timeout: Duration,
}

/// How a request ended, as far as the endpoint is to be judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// A failure: there was no connection, or it broke.
    Unreachable,
    /// It says nothing of the endpoint: the client left, or gave less time than the service has.
    Neutral,
}

impl Outcome {
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Outcome::Failure | Outcome::Unreachable)
    }
}

/// What a circuit says of the next request.
#[derive(Debug)]
pub(crate) enum Verdict {
    Pass(Permit),
    /// And how long it will stay so, at most.
    Refuse(Duration),
}

/// Where a circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Closed,
    Open {
        until: Steady,
    },
    /// One request is trying; if nothing has come of it until then, another one does too.
    HalfOpen {
        until: Steady,
    },
}

/// The circuit of one endpoint.
#[derive(Debug)]
pub(crate) struct Circuit {
    law: Law,
    /// Changes with the state: even while it is closed. What was admitted before a change counts for
    /// nothing after it.
    era: AtomicU32,
    failures_in_row: AtomicU32,
    /// When the next probe may go, in microseconds; `i64::MAX` while it is closed.
    probe_at: AtomicI64,
    requests: Window,
    failures: Window,
    rest: Mutex<Rest>,
    journal: Arc<Journal>,
}

#[derive(Debug)]
struct Rest {
    state: State,
    /// Probes that failed since it was closed, and one for the opening.
    trips: u32,
    /// When it is to be looked whether connections are taken, if they are why it is open.
    look_at: Option<Steady>,
    /// Until when it would be open if a look had not let the next request try.
    looked_until: Option<Steady>,
}

/// A request that was let through. Dropped without a word it is [`Outcome::Neutral`].
#[derive(Debug)]
pub(crate) struct Permit {
    circuit: Arc<Circuit>,
    era: u32,
    admitted: Steady,
    is_told: bool,
}

impl Rest {
    fn probe_at(&self) -> i64 {
        match self.state {
            State::Open { until } | State::HalfOpen { until } => until.0,
            State::Closed => i64::MAX,
        }
    }
}

impl Circuit {
    pub(crate) fn new(law: Law, journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self {
            law,
            era: AtomicU32::new(0),
            failures_in_row: AtomicU32::new(0),
            probe_at: AtomicI64::new(i64::MAX),
            requests: Window::new(law.window),
            failures: Window::new(law.window),
            rest: Mutex::new(Rest {
                state: State::Closed,
                trips: 0,
                look_at: None,
                looked_until: None,
            }),
            journal,
        })
    }

    /// The one way from one state to another.
    fn enter(&self, rest: &mut Rest, to: State, at: Steady, cause: String) {
        let from = std::mem::replace(&mut rest.state, to);
        let what = What::Circuit { from, to };
        self.journal.record(Change { at, what, cause });
    }

    pub(crate) fn law(&self) -> Law {
        self.law
    }

    /// Whether the next request that is admitted is a probe.
    pub(crate) fn wants_probe(&self, now: Steady) -> bool {
        now.0 >= self.probe_at.load(Ordering::Relaxed)
    }

    /// Where it is.
    pub(crate) fn state(&self) -> State {
        self.rest.lock().state
    }

    /// Requests and failures within the window.
    pub(crate) fn counts(&self, now: Steady) -> (u64, u64) {
        (self.requests.sum(now), self.failures.sum(now))
    }

    /// Whether a request may pass. An answer of yes is one request, which must be told of.
    pub(crate) fn admit(self: &Arc<Self>, now: Steady) -> Verdict {
        let era = self.era.load(Ordering::Acquire);
        if era.is_multiple_of(2) {
            return Verdict::Pass(self.permit(era, now));
        }
        let mut rest = self.rest.lock();
        match rest.state {
            State::Closed => Verdict::Pass(self.permit(self.era.load(Ordering::Acquire), now)),
            State::Open { until } | State::HalfOpen { until } if now < until => {
                Verdict::Refuse(until.since(now))
            }
            from => {
                let until = now + self.law.recovery_timeout;
                let cause = "a request tries it".to_owned();
                self.enter(&mut rest, State::HalfOpen { until }, now, cause);
                self.probe_at.store(until.0, Ordering::Relaxed);
                // A probe that takes long still says how the endpoint is.
                let by = if matches!(from, State::Open { .. }) {
                    2
                } else {
                    0
                };
                let era = self.era.fetch_add(by, Ordering::AcqRel) + by;
                Verdict::Pass(self.permit(era, now))
            }
        }
    }

    fn permit(self: &Arc<Self>, era: u32, admitted: Steady) -> Permit {
        Permit {
            circuit: self.clone(),
            era,
            admitted,
            is_told: false,
        }
    }

    /// `cause` says of a failure what it was. `chance` is drawn from [0, 1): it spreads the probes of many
    /// circuits that opened at once.
    fn tell(
        &self,
        era: u32,
        outcome: Outcome,
        cause: &str,
        now: Steady,
        chance: f64,
    ) -> Option<State> {
        if self.era.load(Ordering::Acquire) != era {
            return None;
        }
        if era.is_multiple_of(2) {
            self.count(outcome, now);
            if !outcome.is_failure() {
                return None;
            }
            let too_much = self.too_much(now)?;
            return self.end_of(era, |rest| {
                rest.trips = 1;
                rest.look_at = look_after(outcome, now);
                let cause = format!("{too_much}, the last: {cause}");
                self.enter(rest, self.open(1, now, chance), now, cause);
                1
            });
        }
        self.end_of(era, |rest| match outcome {
            Outcome::Success => {
                rest.trips = 0;
                rest.looked_until = None;
                self.enter(rest, State::Closed, now, "that succeeded".to_owned());
                self.forget();
                1
            }
            Outcome::Failure | Outcome::Unreachable => {
                let early = rest.looked_until.take().filter(|until| now < *until);
                let open = match early {
                    // It takes connections and is not back: as if nobody had looked.
                    Some(until) => State::Open { until },
                    None => {
                        rest.trips = rest.trips.saturating_add(1);
                        rest.look_at = look_after(outcome, now);
                        self.open(rest.trips, now, chance)
                    }
                };
                self.enter(rest, open, now, format!("that failed: {cause}"));
                2
            }
            // The next request is the probe.
            Outcome::Neutral => {
                let cause = "that said nothing of it; the next one tries".to_owned();
                self.enter(rest, State::Open { until: now }, now, cause);
                2
            }
        })
    }

    /// Leaves the state of an era for another, unless somebody else has. The change says by how much the era goes on.
    fn end_of(&self, era: u32, change: impl FnOnce(&mut Rest) -> u32) -> Option<State> {
        let mut rest = self.rest.lock();
        if self.era.load(Ordering::Acquire) != era {
            return None;
        }
        let by = change(&mut rest);
        self.probe_at.store(rest.probe_at(), Ordering::Relaxed);
        self.era.fetch_add(by, Ordering::AcqRel);
        Some(rest.state)
    }

    /// Since when somebody is to look whether the endpoint takes connections.
    pub(crate) fn look_due_since(&self, now: Steady) -> Option<Steady> {
        if self.era.load(Ordering::Acquire).is_multiple_of(2) {
            return None;
        }
        let rest = self.rest.lock();
        let due = rest.look_at.filter(|at| *at <= now);
        due.filter(|_| matches!(rest.state, State::Open { until } if now < until))
    }

    /// Somebody looks. The next look comes a little later.
    pub(crate) fn begin_look(&self, now: Steady) {
        if let Some(at) = &mut self.rest.lock().look_at {
            *at = now + LOOK_PAUSE;
        }
    }

    /// The endpoint takes connections again: the next request may try it.
    pub(crate) fn takes_connections(&self, now: Steady) {
        let era = self.era.load(Ordering::Acquire);
        self.end_of(era, |rest| {
            let State::Open { until } = rest.state else {
                return 0;
            };
            if rest.look_at.take().is_none() || until <= now {
                return 0;
            }
            rest.looked_until = Some(until);
            let cause = "it takes connections; the next request tries it".to_owned();
            self.enter(rest, State::Open { until: now }, now, cause);
            2
        });
    }

    fn open(&self, trips: u32, now: Steady, chance: f64) -> State {
        let doubled = 1_u32 << (trips - 1).min(DOUBLINGS_MAX);
        let wait = self.law.recovery_timeout.saturating_mul(doubled);
        // A first wait is as long as the settings say; later ones are up to a quarter longer.
        let longer = if trips == 1 { 0.0 } else { chance / 4.0 };
        State::Open {
            until: now + wait.mul_f64(1.0 + longer),
        }
    }

    fn count(&self, outcome: Outcome, now: Steady) {
        if outcome == Outcome::Neutral {
            return;
        }
        self.requests.add(now);
        if outcome.is_failure() {
            self.failures.add(now);
            self.failures_in_row.fetch_add(1, Ordering::Relaxed);
        } else if self.failures_in_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_row.store(0, Ordering::Relaxed);
        }
    }

    /// Which of its limits is reached.
    fn too_much(&self, now: Steady) -> Option<String> {
        let in_row = self.failures_in_row.load(Ordering::Relaxed);
        if in_row >= self.law.failure_threshold {
            return Some(format!("{in_row} failures in a row"));
        }
        let (requests, failures) = self.counts(now);
        let is_enough = requests >= u64::from(self.law.requests_min);
        let is_too_much = failures * 100 >= requests * u64::from(self.law.failure_percent);
        let seconds = self.law.window.as_secs();
        (is_enough && is_too_much)
            .then(|| format!("{failures} of {requests} requests within {seconds} s failed"))
    }

    fn forget(&self) {
        self.failures_in_row.store(0, Ordering::Relaxed);
        self.requests.clear();
        self.failures.clear();
    }
}

/// When to look at an endpoint that failed so.
fn look_after(outcome: Outcome, now: Steady) -> Option<Steady> {
    (outcome == Outcome::Unreachable).then(|| now + LOOK_PAUSE)
}

impl Permit {
    /// How the request ended, by what if it failed, and where that brought the circuit, if it did.
    pub(crate) fn tell(
        mut self,
        outcome: Outcome,
        cause: &str,
        now: Steady,
        chance: f64,
    ) -> Option<State> {
        self.is_told = true;
        self.circuit.tell(self.era, outcome, cause, now, chance)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_told && !self.era.is_multiple_of(2) {
            // The next one may try at once, whenever that is.
            let (era, at) = (self.era, self.admitted);
            let _ = self.circuit.tell(era, Outcome::Neutral, "", at, 0.0);
        }
    }
}

#[cfg(test)]
mod tests;
