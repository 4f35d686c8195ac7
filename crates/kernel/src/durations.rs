//! Durations, counted in buckets by atomics: a histogram for Prometheus that can also be read in the process, there
//! in much finer steps.
//!
//! Between a microsecond and 100 s each power of ten has 90 buckets of equal width (as in OpenHistogram), so that a
//! bucket is at most a tenth as wide as what it counts. The bounds that Prometheus gets are among theirs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// What Prometheus gets, in nanoseconds: from a cached answer to a request that hits its deadline.
const SHOWN: [u64; 13] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
];
/// The upper bound of the first bucket, in nanoseconds.
const FIRST: u64 = 1_000;
const DECADES: usize = 8;
const STEPS: usize = 90;
/// The first bucket, those of the decades, and one for what is longer.
const BUCKETS: usize = DECADES * STEPS + 2;

/// Counts durations in buckets. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Durations(Arc<Counting>);

#[derive(Debug)]
struct Counting {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// What was counted until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationCounts(Box<[u64; BUCKETS]>);

impl Default for Counting {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            nanos: AtomicU64::new(0),
        }
    }
}

impl Default for DurationCounts {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

/// The bucket of a duration in nanoseconds.
fn bucket_of(nanos: u64) -> usize {
    // A bucket has its upper bound and not its lower one.
    let Some(decade) = (nanos.saturating_sub(1) / FIRST).checked_ilog10() else {
        return 0;
    };
    let decade = decade as usize;
    if decade >= DECADES {
        return BUCKETS - 1;
    }
    1 + decade * STEPS + ((nanos - 1) / width_of(decade)) as usize - 10
}

/// Of the buckets of a power of ten, in nanoseconds.
fn width_of(decade: usize) -> u64 {
    FIRST / 10 * 10_u64.pow(decade as u32)
}

/// The upper bound of a bucket in nanoseconds; `None`: it has none.
fn bound_of(bucket: usize) -> Option<u64> {
    let Some(beyond_first) = bucket.checked_sub(1) else {
        return Some(FIRST);
    };
    let (decade, step) = (beyond_first / STEPS, beyond_first % STEPS);
    (decade < DECADES).then(|| width_of(decade) * (11 + step as u64))
}

impl Durations {
    /// One more.
    pub fn observe(&self, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0.buckets[bucket_of(nanos)].fetch_add(1, Ordering::Relaxed);
        self.0.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn counts(&self) -> DurationCounts {
        let mut counts = DurationCounts::default();
        for (count, bucket) in counts.0.iter_mut().zip(&self.0.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        counts
    }
}

impl DurationCounts {
    /// Seconds within which this share of them ended; `None` if there were none, or where it took longer
    /// than 100 s.
    pub fn within_s(&self, share: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        let found = self.0.iter().position(|count| {
            passed += count;
            passed >= wanted
        });
        found.and_then(bound_of).map(in_seconds)
    }

    /// Both together.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.0.iter_mut().zip(other.0.iter()) {
            *count += more;
        }
        self
    }

    /// How many there are up to each of the bounds that are shown, and above.
    fn shown(&self) -> Vec<(f64, u64)> {
        let mut first = 0;
        let mut shown = Vec::with_capacity(SHOWN.len() + 1);
        for bound in SHOWN {
            let end = bucket_of(bound) + 1;
            shown.push((in_seconds(bound), self.0[first..end].iter().sum()));
            first = end;
        }
        shown.push((f64::INFINITY, self.0[first..].iter().sum()));
        shown
    }
}

fn in_seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let buckets = self.counts().shown();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_whose_bounds_hold_it() {
        let mut below = 0;
        for bucket in 0..BUCKETS - 1 {
            let bound = bound_of(bucket).expect("only the last has none");
            assert_eq!([below + 1, bound].map(bucket_of), [bucket; 2]);
            assert!(bucket == 0 || (bound - below) * 10 <= below, "{bound}");
            below = bound;
        }
        assert_eq!(below, 100_000_000_000);
        assert_eq!([below + 1, u64::MAX].map(bucket_of), [BUCKETS - 1; 2]);
        assert_eq!((bucket_of(0), bound_of(BUCKETS - 1)), (0, None));
    }

    #[test]
    fn what_prometheus_gets_ends_at_bounds_of_buckets() {
        for bound in SHOWN {
            assert_eq!(bound_of(bucket_of(bound)), Some(bound));
        }
        let durations = Durations::default();
        for micros in [50, 51, 90_000_000] {
            durations.observe(Duration::from_micros(micros));
        }
        let shown = durations.counts().shown();
        let counted: Vec<_> = shown.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [&(5e-5, 1), &(1e-4, 1), &(f64::INFINITY, 1)]);
        assert_eq!(durations.counts().within_s(1.0), Some(90.0));
    }
}
