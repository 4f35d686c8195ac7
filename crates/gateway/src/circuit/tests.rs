use proptest::prelude::*;

use super::*;
use crate::journal::{CHANGES_MAX, Turns, Watchers};

const SECOND: i64 = 1_000_000;

const LAW: Law = Law {
    failure_threshold: 3,
    failure_percent: 50,
    window: Duration::from_secs(10),
    requests_min: 20,
    recovery_timeout: Duration::from_secs(30),
};

fn closed_circuit() -> Arc<Circuit> {
    Circuit::new(LAW, journal(Watchers::new()))
}

fn journal(watchers: Watchers) -> Arc<Journal> {
    Arc::new(Journal::new("orders", "a:1", watchers, Turns::default()))
}

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
        pass(circuit, now).tell(*outcome, "x", now, 0.5);
    }
}

use Outcome::{Failure, Neutral, Success, Unreachable};

#[test]
fn three_failures_open_it_and_then_it_refuses_at_once() {
    let circuit = closed_circuit();
    ends(&circuit, at(1), &[Failure, Failure, Failure]);
    assert_eq!(refused(&circuit, at(1)), Duration::from_secs(30));
    assert_eq!(refused(&circuit, at(30)), Duration::from_secs(1));
    let probe = pass(&circuit, at(31));
    for _ in 0..100 {
        refused(&circuit, at(31));
    }
    probe.tell(Success, "x", at(31), 0.5);
    ends(&circuit, at(32), &[Failure, Failure]);
    assert_eq!(
        circuit.state(),
        State::Closed,
        "it counts from the beginning"
    );
}

#[test]
fn what_succeeds_between_breaks_the_row_and_what_says_nothing_does_not() {
    let circuit = closed_circuit();
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
    let circuit = closed_circuit();
    (0..9).for_each(|second| ends(&circuit, at(second), &[Success, Failure]));
    assert_eq!(circuit.state(), State::Closed, "too few to tell");
    ends(&circuit, at(9), &[Success, Failure]);
    assert_ne!(circuit.state(), State::Closed);
    let circuit = closed_circuit();
    (0..100).for_each(|second| ends(&circuit, at(second * 2), &[Success, Failure]));
    assert_eq!(circuit.state(), State::Closed, "never 20 within 10 s");
}

#[test]
fn each_probe_that_fails_doubles_the_wait() {
    let circuit = closed_circuit();
    ends(&circuit, at(0), &[Failure, Failure, Failure]);
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..7 {
        let wait = refused(&circuit, now);
        waits.push(wait.as_millis());
        now = now + wait;
        pass(&circuit, now).tell(Failure, "x", now, 0.5);
    }
    let longer = [60_000, 120_000, 240_000, 480_000, 480_000, 480_000].map(|ms| ms * 9 / 8);
    assert_eq!(waits, [&[30_000][..], &longer].concat());
}

#[test]
fn a_probe_that_is_dropped_or_says_nothing_frees_its_place() {
    let circuit = closed_circuit();
    ends(&circuit, at(0), &[Failure, Failure, Failure]);
    drop(pass(&circuit, at(30)));
    pass(&circuit, at(30)).tell(Neutral, "x", at(30), 0.5);
    pass(&circuit, at(30)).tell(Success, "x", at(31), 0.5);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn a_probe_that_takes_long_keeps_nobody_away_and_still_counts() {
    let circuit = closed_circuit();
    ends(&circuit, at(0), &[Failure, Failure, Failure]);
    let long = pass(&circuit, at(30));
    assert_eq!(refused(&circuit, at(59)), Duration::from_secs(1));
    let other = pass(&circuit, at(60));
    assert_eq!(refused(&circuit, at(60)), Duration::from_secs(30));
    long.tell(Success, "", at(61), 0.5);
    assert_eq!(circuit.state(), State::Closed);
    other.tell(Failure, "x", at(62), 0.5);
    ends(&circuit, at(62), &[Failure, Failure]);
    assert_eq!(circuit.state(), State::Closed, "it was before");
}

#[test]
fn one_that_took_no_connection_is_looked_at_and_tried_once_it_does() {
    let circuit = closed_circuit();
    ends(&circuit, at(0), &[Failure, Failure, Unreachable]);
    assert_eq!(circuit.look_due_since(at(0)), None);
    assert_eq!(circuit.look_due_since(at(5)), Some(at(1)));
    circuit.begin_look(at(5));
    assert_eq!(circuit.look_due_since(at(5)), None);
    refused(&circuit, at(5));
    circuit.takes_connections(at(6));
    assert!(circuit.wants_probe(at(6)));
    let probe = pass(&circuit, at(6));
    refused(&circuit, at(6));
    probe.tell(Success, "", at(6), 0.0);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn a_look_that_was_wrong_lengthens_nothing() {
    let circuit = closed_circuit();
    ends(&circuit, at(0), &[Failure, Failure, Unreachable]);
    circuit.takes_connections(at(6));
    drop(pass(&circuit, at(6)));
    pass(&circuit, at(7)).tell(Failure, "503", at(7), 0.0);
    assert_eq!(refused(&circuit, at(7)), Duration::from_secs(23));
    assert_eq!(circuit.look_due_since(at(20)), None, "one is enough");
    circuit.takes_connections(at(20));
    refused(&circuit, at(20));
    pass(&circuit, at(30)).tell(Unreachable, "refused", at(30), 0.0);
    assert_eq!(refused(&circuit, at(30)), Duration::from_secs(60));
    assert_eq!(circuit.look_due_since(at(31)), Some(at(31)));
}

#[test]
fn what_was_admitted_before_a_change_changes_nothing() {
    let circuit = closed_circuit();
    let (early, late) = (pass(&circuit, at(0)), pass(&circuit, at(0)));
    ends(&circuit, at(0), &[Failure, Failure, Failure]);
    early.tell(Success, "x", at(1), 0.5);
    assert_ne!(circuit.state(), State::Closed);
    pass(&circuit, at(30)).tell(Success, "x", at(30), 0.5);
    ends(&circuit, at(31), &[Failure, Failure]);
    late.tell(Failure, "x", at(31), 0.5);
    assert_eq!(circuit.state(), State::Closed);
}

#[test]
fn its_last_changes_are_known_with_their_causes() {
    let watchers = Watchers::new();
    let mut watching = watchers.watch();
    let journal = journal(watchers);
    let circuit = Circuit::new(LAW, journal.clone());
    ends(&circuit, at(1), &[Failure, Failure, Failure]);
    drop(pass(&circuit, at(31)));
    pass(&circuit, at(32)).tell(Failure, "timeout", at(33), 0.0);
    pass(&circuit, at(93)).tell(Success, "", at(94), 0.0);
    let closed = State::Closed;
    let open = |second| State::Open { until: at(second) };
    let half = |second| State::HalfOpen { until: at(second) };
    let expected = [
        (1, closed, open(31), "3 failures in a row, the last: x"),
        (31, open(31), half(61), "a request tries it"),
        (
            31,
            half(61),
            open(31),
            "that said nothing of it; the next one tries",
        ),
        (32, open(31), half(62), "a request tries it"),
        (33, half(62), open(93), "that failed: timeout"),
        (93, open(93), half(123), "a request tries it"),
        (94, half(123), closed, "that succeeded"),
    ];
    let expected = expected.map(|(second, from, to, cause)| Change {
        at: at(second),
        what: What::Circuit { from, to },
        cause: cause.to_owned(),
    });
    assert_eq!(journal.changes(), expected);
    for change in expected {
        let event = watching.try_recv().expect("one for each");
        assert_eq!((&*event.service, &*event.endpoint), ("orders", "a:1"));
        assert_eq!(event.change, change);
    }
    (0..10).for_each(|second| ends(&circuit, at(100 + second), &[Success, Failure]));
    let last = journal.changes().pop().expect("one");
    assert_eq!(
        last.cause,
        "10 of 20 requests within 10 s failed, the last: x"
    );
    for round in 0..30 {
        drop(pass(&circuit, at(1_000 + round)));
    }
    assert_eq!(journal.changes().len(), CHANGES_MAX);
    assert_eq!(journal.changes()[19].at, at(1_029));
}

#[test]
fn of_many_threads_exactly_one_probes() {
    let circuit = closed_circuit();
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
                Failure | Unreachable => self.trip(now),
                Neutral => self.open_until = Some(now),
            }
            return;
        }
        if outcome == Neutral {
            return;
        }
        self.ended.push((now / SECOND, outcome));
        self.in_row = if outcome.is_failure() {
            self.in_row + 1
        } else {
            0
        };
        let oldest = now / SECOND - 9;
        let within = || self.ended.iter().filter(|(second, _)| *second >= oldest);
        let all = within().count();
        let failed = within().filter(|(_, outcome)| outcome.is_failure()).count();
        if outcome.is_failure() && (self.in_row >= 3 || (all >= 20 && failed * 2 >= all)) {
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
    prop_oneof![5 => Just(Success), 3 => Just(Failure), 1 => Just(Unreachable), 1 => Just(Neutral)]
}

proptest! {
    #[test]
    fn it_keeps_the_law(
        steps in proptest::collection::vec((0i64..900_000, outcome(), 0u8..40), 1..600),
    ) {
        let (circuit, mut model) = (closed_circuit(), Model::default());
        let mut now = 0;
        for (gap, outcome, leap) in steps {
            // Now and then long enough for a probe.
            now += if leap == 0 { gap * 60 } else { gap };
            let admits = model.admits(now);
            match circuit.admit(Steady(now)) {
                Verdict::Pass(permit) => {
                    prop_assert!(admits, "at {now}");
                    model.is_probing = model.open_until.is_some();
                    permit.tell(outcome, "x", Steady(now), 0.5);
                    model.end(now, outcome);
                }
                Verdict::Refuse(_) => prop_assert!(!admits, "at {now}"),
            }
        }
    }
}
