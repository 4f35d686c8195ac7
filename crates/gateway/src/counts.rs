//! What is counted of a service. Its numbers go on when its settings change, and end with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use auspex_kernel::durations::Durations;
use http::StatusCode;

use crate::error::Failure;
use crate::exchange::Answer;
use crate::retry::Budget;

/// How requests end, for labels: by the class of their answer, or by why there is none.
const OUTCOMES: [&str; 18] = [
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "refused",
    "tls",
    "reset",
    "cut_off",
    "invalid",
    "too_large",
    "timeout",
    "circuit_open",
    "unhealthy",
    "overloaded",
    "identity_token",
    "no_endpoint",
    "body",
    LEFT,
];
/// Its client did not wait for the answer.
const LEFT: &str = "left";

/// What became of a request whose answer may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FromCache {
    /// It was answered by what is kept.
    Hit,
    /// It was answered by what another had fetched meanwhile.
    Collapsed,
    /// The service was asked, and said that nothing had changed.
    Revalidated,
    /// The service failed, and what is kept stood in for it.
    Stale,
    /// The service was asked.
    Miss,
    /// The service was asked, for only it can answer such a request.
    Bypass,
}

/// Their labels.
const FROM_CACHE: [&str; 6] = ["hit", "collapsed", "revalidated", "stale", "miss", "bypass"];

/// Of one service.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) budget: Budget,
    /// Until the head of the answer, retries and waits included.
    pub(crate) durations: Durations,
    ended: [AtomicU64; OUTCOMES.len()],
    cached: [AtomicU64; FROM_CACHE.len()],
}

/// A request that has begun. Dropped without a word its client has left.
pub(crate) struct Begun<'c> {
    counts: &'c Counts,
    at: Instant,
    outcome: &'static str,
}

impl Counts {
    pub(crate) fn begin(&self, at: Instant) -> Begun<'_> {
        Begun {
            counts: self,
            at,
            outcome: LEFT,
        }
    }

    pub(crate) fn add_cached(&self, result: FromCache) {
        self.cached[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Requests of routes that keep answers, by what became of them.
    pub(crate) fn cached(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.cached.iter().map(|one| one.load(Ordering::Relaxed));
        FROM_CACHE.into_iter().zip(counts)
    }

    /// Requests by how they ended.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.ended.iter().map(|one| one.load(Ordering::Relaxed));
        OUTCOMES.into_iter().zip(counts)
    }

    /// Requests that have ended.
    pub(crate) fn requests(&self) -> u64 {
        self.outcomes().map(|(_, count)| count).sum()
    }

    /// Those that failed by the service: it said so, or said nothing.
    pub(crate) fn errors(&self) -> u64 {
        let is_error = |outcome| !["2xx", "3xx", "4xx", "body", LEFT].contains(&outcome);
        let errors = self.outcomes().filter(|(outcome, _)| is_error(outcome));
        errors.map(|(_, count)| count).sum()
    }
}

impl Begun<'_> {
    pub(crate) fn end(self, end: &Result<Answer, Failure>) {
        match end {
            Ok(answer) => self.answered(answer.response.status()),
            Err(failure) => self.failed(*failure),
        }
    }

    pub(crate) fn answered(mut self, status: StatusCode) {
        self.outcome = match status.as_u16() / 100 {
            ..=2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.counts.durations.observe(self.took());
    }

    pub(crate) fn failed(mut self, failure: Failure) {
        self.outcome = failure.reason();
        self.counts.durations.observe(self.took());
    }

    fn took(&self) -> Duration {
        self.at.elapsed()
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let place = OUTCOMES.iter().position(|one| *one == self.outcome);
        let place = place.expect("every reason is an outcome");
        self.counts.ended[place].fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use auspex_kernel::clock::monotonic;

    use super::*;

    #[test]
    fn every_end_is_counted_as_what_it_is() {
        let (counts, now) = (Counts::default(), monotonic());
        for status in [200, 204, 304, 404, 500, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            counts.begin(now).answered(status);
        }
        for failure in [
            Failure::Refused,
            Failure::ConnectTimeout,
            Failure::Tls,
            Failure::Unprocessed,
            Failure::Reset,
            Failure::CutOff,
            Failure::Invalid,
            Failure::TooLarge,
            Failure::Timeout,
            Failure::Deadline,
            Failure::Body,
            Failure::CircuitOpen(Duration::ZERO),
            Failure::Unhealthy(Duration::ZERO),
            Failure::Overloaded,
            Failure::Untold,
            Failure::NoEndpoint,
        ] {
            counts.begin(now).failed(failure);
        }
        drop(counts.begin(now));
        let expected = [2, 1, 1, 2, 2, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 1, 1];
        assert_eq!(
            counts.outcomes().map(|(_, n)| n).collect::<Vec<_>>(),
            expected
        );
        assert_eq!((counts.requests(), counts.errors()), (23, 17));
    }
}
