//! The circuit breaker of one endpoint: after too many failures it is asked nothing for a while, then one
//! request tries whether it is back.
//!
//! Failures in a row or their share within a window open the circuit. A window is ten buckets, counted
//! exactly: an average weighted by time would hide short bursts. A circuit is the only thing that takes
//! an endpoint out of use, and a probe is a request like any other, so that whoever chooses endpoints asks
//! here alone.
//!
//! While the circuit is closed, requests touch atomics and wait for nobody. The lock is for what happens
//! rarely: opening, probing, closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;
use parking_lot::Mutex;

const BUCKETS: usize = 10;
/// How many times the waiting doubles at most.
const DOUBLINGS_MAX: u32 = 4;

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
    /// It says nothing of the endpoint: the client left, or gave less time than the service has.
    Neutral,
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
    /// One request is trying.
    HalfOpen,
}

/// The circuit of one endpoint.
#[derive(Debug)]
pub(crate) struct Circuit {
    law: Law,
    /// Changes with the state: even while it is closed. What was admitted before a change counts for
    /// nothing after it.
    era: AtomicU32,
    failures_in_row: AtomicU32,
    /// When the next probe may go, in microseconds; `i64::MAX` while none is wanted.
    probe_at: AtomicI64,
    requests: [AtomicU64; BUCKETS],
    failures: [AtomicU64; BUCKETS],
    rest: Mutex<Rest>,
}

#[derive(Debug)]
struct Rest {
    state: State,
    /// Probes that failed since it was closed, and one for the opening.
    trips: u32,
}

/// A request that was let through. Dropped without a word it is [`Outcome::Neutral`].
#[derive(Debug)]
pub(crate) struct Permit {
    circuit: Arc<Circuit>,
    era: u32,
    is_told: bool,
}

impl Rest {
    fn probe_at(&self) -> i64 {
        match self.state {
            State::Open { until } => until.0,
            State::Closed | State::HalfOpen => i64::MAX,
        }
    }
}

impl Circuit {
    pub(crate) fn new(law: Law) -> Arc<Self> {
        Arc::new(Self {
            law,
            era: AtomicU32::new(0),
            failures_in_row: AtomicU32::new(0),
            probe_at: AtomicI64::new(i64::MAX),
            requests: Default::default(),
            failures: Default::default(),
            rest: Mutex::new(Rest {
                state: State::Closed,
                trips: 0,
            }),
        })
    }

    pub(crate) fn law(&self) -> Law {
        self.law
    }

    /// Whether the next request that is admitted is a probe.
    pub(crate) fn wants_probe(&self, now: Steady) -> bool {
        now.0 >= self.probe_at.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> State {
        self.rest.lock().state
    }

    /// Requests and failures within the window.
    pub(crate) fn counts(&self, now: Steady) -> (u64, u64) {
        let slot = self.slot(now);
        (sum(&self.requests, slot), sum(&self.failures, slot))
    }

    /// Whether a request may pass. An answer of yes is one request, which must be told of.
    pub(crate) fn admit(self: &Arc<Self>, now: Steady) -> Verdict {
        let era = self.era.load(Ordering::Acquire);
        if era.is_multiple_of(2) {
            return Verdict::Pass(self.permit(era));
        }
        let mut rest = self.rest.lock();
        match rest.state {
            State::Closed => Verdict::Pass(self.permit(self.era.load(Ordering::Acquire))),
            State::Open { until } if now >= until => {
                rest.state = State::HalfOpen;
                self.probe_at.store(i64::MAX, Ordering::Relaxed);
                let era = self.era.fetch_add(2, Ordering::AcqRel) + 2;
                Verdict::Pass(self.permit(era))
            }
            State::Open { until } => Verdict::Refuse(until.since(now)),
            State::HalfOpen => Verdict::Refuse(self.law.recovery_timeout),
        }
    }

    fn permit(self: &Arc<Self>, era: u32) -> Permit {
        Permit {
            circuit: self.clone(),
            era,
            is_told: false,
        }
    }

    /// `chance` is drawn from [0, 1): it spreads the probes of many circuits that opened at once.
    fn tell(&self, era: u32, outcome: Outcome, now: Steady, chance: f64) -> Option<State> {
        if self.era.load(Ordering::Acquire) != era {
            return None;
        }
        if era.is_multiple_of(2) {
            self.count(outcome, now);
            if outcome != Outcome::Failure || !self.is_too_much(now) {
                return None;
            }
            return self.end_of(era, State::Closed, |rest| {
                rest.trips = 1;
                rest.state = self.open(rest.trips, now, chance);
                1
            });
        }
        self.end_of(era, State::HalfOpen, |rest| match outcome {
            Outcome::Success => {
                *rest = Rest {
                    state: State::Closed,
                    trips: 0,
                };
                self.forget();
                1
            }
            Outcome::Failure => {
                rest.trips = rest.trips.saturating_add(1);
                rest.state = self.open(rest.trips, now, chance);
                2
            }
            // The next request is the probe.
            Outcome::Neutral => {
                rest.state = State::Open { until: now };
                2
            }
        })
    }

    /// Leaves a state for another, unless somebody else has. The change says by how much the era goes on.
    fn end_of(
        &self,
        era: u32,
        state: State,
        change: impl FnOnce(&mut Rest) -> u32,
    ) -> Option<State> {
        let mut rest = self.rest.lock();
        if rest.state != state || self.era.load(Ordering::Acquire) != era {
            return None;
        }
        let by = change(&mut rest);
        self.probe_at.store(rest.probe_at(), Ordering::Relaxed);
        self.era.fetch_add(by, Ordering::AcqRel);
        Some(rest.state)
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
        let slot = self.slot(now);
        add(&self.requests, slot);
        if outcome == Outcome::Failure {
            add(&self.failures, slot);
            self.failures_in_row.fetch_add(1, Ordering::Relaxed);
        } else if self.failures_in_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_row.store(0, Ordering::Relaxed);
        }
    }

    fn is_too_much(&self, now: Steady) -> bool {
        if self.failures_in_row.load(Ordering::Relaxed) >= self.law.failure_threshold {
            return true;
        }
        let (requests, failures) = self.counts(now);
        requests >= u64::from(self.law.requests_min)
            && failures * 100 >= requests * u64::from(self.law.failure_percent)
    }

    fn forget(&self) {
        self.failures_in_row.store(0, Ordering::Relaxed);
        for bucket in self.requests.iter().chain(&self.failures) {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// The bucket of a moment, counted from the begin of the process.
    fn slot(&self, now: Steady) -> u32 {
        let length = self.law.window.as_micros() as i64 / BUCKETS as i64;
        // From 1 on, so that an empty bucket belongs to no moment.
        u32::try_from(now.0 / length.max(1) + 1).unwrap_or(u32::MAX)
    }
}

/// A bucket is the number of its slot and a count, in one word.
fn add(buckets: &[AtomicU64; BUCKETS], slot: u32) {
    let bucket = &buckets[slot as usize % BUCKETS];
    let more = |word: u64| {
        Some(match (word >> 32).cmp(&u64::from(slot)) {
            std::cmp::Ordering::Equal => word + 1,
            std::cmp::Ordering::Less => u64::from(slot) << 32 | 1,
            // A thread that was late: its window is over.
            std::cmp::Ordering::Greater => word,
        })
    };
    let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
}

fn sum(buckets: &[AtomicU64; BUCKETS], slot: u32) -> u64 {
    let counts = buckets.iter().map(|bucket| {
        let word = bucket.load(Ordering::Relaxed);
        let age = u64::from(slot).saturating_sub(word >> 32);
        if age < BUCKETS as u64 {
            word & 0xffff_ffff
        } else {
            0
        }
    });
    counts.sum()
}

impl Permit {
    /// How the request ended, and where that brought the circuit, if it did.
    pub(crate) fn tell(mut self, outcome: Outcome, now: Steady, chance: f64) -> Option<State> {
        self.is_told = true;
        self.circuit.tell(self.era, outcome, now, chance)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.is_told && !self.era.is_multiple_of(2) {
            // The next one may try at once, whenever that is.
            let _ = self
                .circuit
                .tell(self.era, Outcome::Neutral, Steady(0), 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    const LAW: Law = Law {
        failure_threshold: 3,
        failure_percent: 50,
        window: Duration::from_secs(10),
        requests_min: 20,
        recovery_timeout: Duration::from_secs(30),
    };

    fn at(seconds: i64) -> Steady {
        Steady(seconds * SECOND)
    }

    fn pass(circuit: &Arc<Circuit>, now: Steady) -> Permit {
        match circuit.admit(now) {
            Verdict::Pass(permit) => permit,
            Verdict::Refuse(wait) => panic!("refused for {wait:?}"),
        }
    }

    fn refused(circuit: &Arc<Circuit>, now: Steady) -> Duration {
        match circuit.admit(now) {
            Verdict::Refuse(wait) => wait,
            Verdict::Pass(_) => panic!("let through"),
        }
    }

    fn ends(circuit: &Arc<Circuit>, now: Steady, outcomes: &[Outcome]) {
        for outcome in outcomes {
            pass(circuit, now).tell(*outcome, now, 0.5);
        }
    }

    use Outcome::{Failure, Neutral, Success};

    #[test]
    fn three_failures_open_it_and_then_it_refuses_at_once() {
        let circuit = Circuit::new(LAW);
        ends(&circuit, at(1), &[Failure, Failure, Failure]);
        assert_eq!(refused(&circuit, at(1)), Duration::from_secs(30));
        assert_eq!(refused(&circuit, at(30)), Duration::from_secs(1));
        let probe = pass(&circuit, at(31));
        for _ in 0..100 {
            refused(&circuit, at(31));
        }
        probe.tell(Success, at(31), 0.5);
        ends(&circuit, at(32), &[Failure, Failure]);
        assert_eq!(
            circuit.state(),
            State::Closed,
            "it counts from the beginning"
        );
    }

    #[test]
    fn what_succeeds_between_breaks_the_row_and_what_says_nothing_does_not() {
        let circuit = Circuit::new(LAW);
        ends(
            &circuit,
            at(1),
            &[Failure, Failure, Success, Failure, Failure],
        );
        assert_eq!(circuit.state(), State::Closed);
        ends(&circuit, at(1), &[Neutral, Neutral, Failure]);
        assert_ne!(circuit.state(), State::Closed);
    }

    #[test]
    fn half_of_them_within_the_window_open_it() {
        let circuit = Circuit::new(LAW);
        (0..9).for_each(|second| ends(&circuit, at(second), &[Success, Failure]));
        assert_eq!(circuit.state(), State::Closed, "too few to tell");
        ends(&circuit, at(9), &[Success, Failure]);
        assert_ne!(circuit.state(), State::Closed);
        let circuit = Circuit::new(LAW);
        (0..100).for_each(|second| ends(&circuit, at(second * 2), &[Success, Failure]));
        assert_eq!(circuit.state(), State::Closed, "never 20 within 10 s");
    }

    #[test]
    fn each_probe_that_fails_doubles_the_wait() {
        let circuit = Circuit::new(LAW);
        ends(&circuit, at(0), &[Failure, Failure, Failure]);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let wait = refused(&circuit, now);
            waits.push(wait.as_millis());
            now = now + wait;
            pass(&circuit, now).tell(Failure, now, 0.5);
        }
        let longer = [60_000, 120_000, 240_000, 480_000, 480_000, 480_000].map(|ms| ms * 9 / 8);
        assert_eq!(waits, [&[30_000][..], &longer].concat());
    }

    #[test]
    fn a_probe_that_is_dropped_or_says_nothing_frees_its_place() {
        let circuit = Circuit::new(LAW);
        ends(&circuit, at(0), &[Failure, Failure, Failure]);
        drop(pass(&circuit, at(30)));
        pass(&circuit, at(30)).tell(Neutral, at(30), 0.5);
        pass(&circuit, at(30)).tell(Success, at(31), 0.5);
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn what_was_admitted_before_a_change_changes_nothing() {
        let circuit = Circuit::new(LAW);
        let (early, late) = (pass(&circuit, at(0)), pass(&circuit, at(0)));
        ends(&circuit, at(0), &[Failure, Failure, Failure]);
        early.tell(Success, at(1), 0.5);
        assert_ne!(circuit.state(), State::Closed);
        pass(&circuit, at(30)).tell(Success, at(30), 0.5);
        ends(&circuit, at(31), &[Failure, Failure]);
        late.tell(Failure, at(31), 0.5);
        assert_eq!(circuit.state(), State::Closed);
    }

    #[test]
    fn of_many_threads_exactly_one_probes() {
        let circuit = Circuit::new(LAW);
        ends(&circuit, at(0), &[Failure, Failure, Failure]);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let kept: Vec<Permit> = (0..100)
                            .filter_map(|_| match circuit.admit(at(30)) {
                                Verdict::Pass(permit) => Some(permit),
                                Verdict::Refuse(_) => None,
                            })
                            .collect();
                        let count = kept.len();
                        kept.into_iter().for_each(std::mem::forget);
                        count
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|one| one.join().expect("no panic"))
                .sum()
        });
        assert_eq!(admitted, 1);
    }

    /// The law, written down once more without regard for memory or threads.
    #[derive(Default)]
    struct Model {
        ended: Vec<(i64, Outcome)>,
        in_row: u32,
        open_until: Option<i64>,
        is_probing: bool,
        trips: u32,
    }

    impl Model {
        fn admits(&self, now: i64) -> bool {
            match self.open_until {
                None => true,
                Some(until) => now >= until && !self.is_probing,
            }
        }

        fn end(&mut self, now: i64, outcome: Outcome) {
            if self.open_until.is_some() {
                self.is_probing = false;
                match outcome {
                    Success => *self = Self::default(),
                    Failure => self.trip(now),
                    Neutral => self.open_until = Some(now),
                }
                return;
            }
            if outcome == Neutral {
                return;
            }
            self.ended.push((now / SECOND, outcome));
            self.in_row = if outcome == Failure {
                self.in_row + 1
            } else {
                0
            };
            let oldest = now / SECOND - 9;
            let within = || self.ended.iter().filter(|(second, _)| *second >= oldest);
            let all = within().count();
            let failed = within().filter(|(_, outcome)| *outcome == Failure).count();
            if outcome == Failure && (self.in_row >= 3 || (all >= 20 && failed * 2 >= all)) {
                self.trip(now);
            }
        }

        fn trip(&mut self, now: i64) {
            self.trips += 1;
            let wait = 30 * SECOND * (1 << (self.trips - 1).min(4));
            let longer = if self.trips == 1 { 0 } else { wait / 8 };
            self.open_until = Some(now + wait + longer);
        }
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![5 => Just(Success), 4 => Just(Failure), 1 => Just(Neutral)]
    }

    proptest! {
        #[test]
        fn it_keeps_the_law(
            steps in proptest::collection::vec((0i64..900_000, outcome(), 0u8..40), 1..600),
        ) {
            let (circuit, mut model) = (Circuit::new(LAW), Model::default());
            let mut now = 0;
            for (gap, outcome, leap) in steps {
                // Now and then long enough for a probe.
                now += if leap == 0 { gap * 60 } else { gap };
                let admits = model.admits(now);
                match circuit.admit(Steady(now)) {
                    Verdict::Pass(permit) => {
                        prop_assert!(admits, "at {now}");
                        model.is_probing = model.open_until.is_some();
                        permit.tell(outcome, Steady(now), 0.5);
                        model.end(now, outcome);
                    }
                    Verdict::Refuse(_) => prop_assert!(!admits, "at {now}"),
                }
            }
        }
    }
}
