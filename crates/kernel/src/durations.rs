//! Durations, counted in buckets by atomics: a histogram for Prometheus that can also be read in the process.

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Seconds: from a cached answer to a request that hits its deadline.
const BUCKETS: [f64; 13] = [
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.5, 1.0, 10.0,
];

/// Counts durations in buckets. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Durations(Arc<Counting>);

#[derive(Debug, Default)]
struct Counting {
    /// The last one is for what is longer than all of [`BUCKETS`].
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

/// What was counted until a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DurationCounts([u64; BUCKETS.len() + 1]);

impl Durations {
    /// One more.
    pub fn observe(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = BUCKETS.iter().take_while(|bound| seconds > **bound).count();
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn counts(&self) -> DurationCounts {
        let count = |bucket: usize| self.0.buckets[bucket].load(Ordering::Relaxed);
        DurationCounts(array::from_fn(count))
    }
}

impl DurationCounts {
    /// Seconds within which this share of them ended; `None` if there were none, or where it took longer
    /// than the last bucket.
    pub fn within_s(&self, share: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        let wanted = ((total as f64 * share).ceil() as u64).max(1);
        let mut passed = 0;
        let mut buckets = self.0.iter().zip(BUCKETS);
        let found = buckets.find(|(count, _)| {
            passed += **count;
            passed >= wanted
        });
        found.map(|(_, bound)| bound)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(array::from_fn(|bucket| self.0[bucket] + other.0[bucket]))
    }
}

impl TypedMetric for Durations {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BUCKETS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.counts().0).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
