//! How busy an endpoint is: a moving peak of its latency times the requests that it has in hand.
//!
//! The peak follows a slow answer at once and forgets it within seconds (peak EWMA, as in Finagle and
//! linkerd). A failure counts as a slow answer, however fast it came, or an endpoint that fails fast would
//! look like the best one: several times as slow as its answers are, so that one failure is forgotten within
//! seconds and many keep requests away.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;

/// After this time without slow answers a third of the peak is left.
const DECAY: Duration = Duration::from_secs(10);
/// What was told so long ago says nothing of how the endpoint is now: one that was slow would be left alone for minutes.
const FORGOTTEN: Duration = Duration::from_secs(20);
/// A failure counts as so many times its latency,
const PENALTY_FACTOR: f64 = 4.0;
/// and at most as this, as it does where no latency is known.
const PENALTY_MAX: Duration = Duration::from_secs(5);

/// Of one endpoint. Threads that count at once may overwrite each other's latency, which is an estimate.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_hand: AtomicU32,
    /// Microseconds, as the bits of a float.
    peak_us: AtomicU64,
    told_at: AtomicI64,
}

/// A request that an endpoint has in hand.
#[derive(Debug)]
pub(crate) struct InHand(Arc<Load>);

impl Load {
    /// One more request, until it is dropped; `None`: it has `max` already.
    pub(crate) fn begin(self: &Arc<Self>, max: u32) -> Option<InHand> {
        if max == u32::MAX {
            self.in_hand.fetch_add(1, Ordering::Relaxed);
            return Some(InHand(self.clone()));
        }
        let one_more = |count: u32| (count < max).then_some(count + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let begun = self.in_hand.fetch_update(set, fetch, one_more);
        begun.is_ok().then(|| InHand(self.clone()))
    }

    /// Requests that it has at this moment.
    pub(crate) fn in_hand(&self) -> u32 {
        self.in_hand.load(Ordering::Relaxed)
    }

    /// The more, the worse. `weight` says how much it can do, as a part of what is usual. Of one that nothing is known of
    /// the first answer is waited for, or a slow one would be sent many requests before it is found out.
    pub(crate) fn score(&self, weight: f64, now: Steady) -> f64 {
        let peak = match self.peak_us(now) {
            peak if is_unknown(peak) && self.in_hand() > 0 => PENALTY_MAX.as_micros() as f64,
            known => known,
        };
        (peak + 1.0) * self.crowd(weight)
    }

    /// Requests in hand for its weight, from 1 on.
    pub(crate) fn crowd(&self, weight: f64) -> f64 {
        f64::from(self.in_hand()) / weight + 1.0
    }

    /// An answer, or a failure, after so long.
    pub(crate) fn tell(&self, took: Duration, is_failure: bool, now: Steady) {
        let peak = self.peak_us(now);
        let penalty = match is_failure {
            true if is_unknown(peak) => PENALTY_MAX.as_micros() as f64,
            true => (peak * PENALTY_FACTOR).min(PENALTY_MAX.as_micros() as f64),
            false => 0.0,
        };
        let took = penalty.max(took.as_micros() as f64);
        let share = self.share_left(now);
        // Decayed already: what is new makes up for the part that was forgotten.
        let next = if took > peak {
            took
        } else {
            peak + took * (1.0 - share)
        };
        self.peak_us.store(next.to_bits(), Ordering::Relaxed);
        self.told_at.store(now.0, Ordering::Relaxed);
    }

    /// It is as if nothing had ever been asked.
    pub(crate) fn forget(&self) {
        self.peak_us.store(0, Ordering::Relaxed);
    }

    /// The moving peak.
    pub(crate) fn latency(&self, now: Steady) -> Duration {
        Duration::from_micros(self.peak_us(now) as u64)
    }

    fn peak_us(&self, now: Steady) -> f64 {
        f64::from_bits(self.peak_us.load(Ordering::Relaxed)) * self.share_left(now)
    }

    fn share_left(&self, now: Steady) -> f64 {
        let since = now.since(Steady(self.told_at.load(Ordering::Relaxed)));
        match since < FORGOTTEN {
            true => (-since.as_secs_f64() / DECAY.as_secs_f64()).exp(),
            false => 0.0,
        }
    }
}

/// Nothing was told, or that is long ago.
fn is_unknown(peak_us: f64) -> bool {
    peak_us < 1.0
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.in_hand.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: i64) -> Steady {
        Steady(seconds * 1_000_000)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten() {
        let (slow, quick) = (Load::default(), Load::default());
        slow.tell(MS, false, at(0));
        quick.tell(MS, false, at(0));
        slow.tell(100 * MS, false, at(0));
        assert!(slow.score(1.0, at(0)) > 50.0 * quick.score(1.0, at(0)));
        let later = at(60);
        slow.tell(MS, false, later);
        quick.tell(MS, false, later);
        assert!(slow.score(1.0, later) < 2.0 * quick.score(1.0, later));
    }

    #[test]
    fn requests_in_hand_count() {
        let load = Arc::new(Load::default());
        load.tell(MS, false, at(0));
        let idle = load.score(1.0, at(0));
        let held = [(); 2].map(|()| load.begin(2).expect("room"));
        assert!(load.begin(2).is_none() && load.in_hand() == 2, "it is full");
        assert!((load.score(1.0, at(0)) / idle - 3.0).abs() < 1e-9);
        drop(held);
        assert!((load.score(1.0, at(0)) / idle - 1.0).abs() < 1e-9);
    }

    #[test]
    fn failing_fast_is_no_advantage() {
        let (failing, good) = (Load::default(), Load::default());
        failing.tell(MS / 10, true, at(0));
        good.tell(50 * MS, false, at(0));
        assert!(failing.score(1.0, at(0)) > good.score(1.0, at(0)));
        assert!(
            failing.score(1.0, at(19)) > good.score(1.0, at(19)),
            "for a while"
        );
    }

    #[test]
    fn one_failure_is_forgotten_within_seconds_and_many_are_not() {
        let after = |failures: u32| {
            let [load, good] = [(); 2].map(|()| Load::default());
            for one in [&load, &good] {
                one.tell(MS, false, at(0));
            }
            (0..failures).for_each(|_| load.tell(MS / 10, true, at(0)));
            move |seconds| load.score(1.0, at(seconds)) / good.score(1.0, at(seconds))
        };
        let (one, many) = (after(1), after(10));
        assert!(one(0) > 2.0, "{}", one(0));
        assert!(one(0) < 5.0, "no more than if it were busy: {}", one(0));
        assert!(many(0) > 1_000.0 && many(19) > 100.0, "{}", many(19));
        let load = Load::default();
        load.tell(MS, false, at(0));
        load.tell(MS, true, at(0));
        assert!(load.latency(at(15)) < MS, "{:?}", load.latency(at(15)));
    }

    #[test]
    fn one_that_was_slow_is_tried_again_soon() {
        let (slow, quick) = (Load::default(), Load::default());
        slow.tell(3_000 * MS, false, at(0));
        quick.tell(MS, false, at(0));
        quick.tell(MS, false, at(20));
        assert!(slow.score(1.0, at(19)) > quick.score(1.0, at(19)));
        assert!(slow.score(1.0, at(20)) < quick.score(1.0, at(20)));
    }

    #[test]
    fn steady_answers_keep_their_latency() {
        let load = Load::default();
        for tenth in 0..600 {
            load.tell(20 * MS, false, Steady(tenth * 100_000));
        }
        let score = load.score(1.0, at(60));
        assert!((15_000.0..=20_100.0).contains(&score), "{score}");
    }

    #[test]
    fn of_one_that_nothing_is_known_of_the_first_answer_is_waited_for() {
        let (new, known) = (Arc::new(Load::default()), Load::default());
        known.tell(100 * MS, false, at(0));
        assert!(
            new.score(1.0, at(0)) < known.score(1.0, at(0)),
            "it is tried"
        );
        let first = new.begin(9);
        assert!(new.score(1.0, at(0)) > known.score(1.0, at(0)));
        new.tell(MS, false, at(0));
        assert!(new.score(1.0, at(0)) < known.score(1.0, at(0)));
        drop(first);
    }
}
