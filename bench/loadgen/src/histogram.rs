//! Latencies in microseconds, kept in bounded memory however long a run is.
//!
//! Log-linear like HdrHistogram: every microsecond up to 16 ms has its own counter, above that
//! each doubling is split into 8,192 counters, so a quantile is never off by more than 1/8,192.

/// Values below `2^EXACT_BITS` µs are counted one by one.
const EXACT_BITS: u32 = 14;
/// Values from `2^VALUE_BITS` µs (18 minutes) on are counted as the largest one below.
const VALUE_BITS: u32 = 30;
const EXACT: u64 = 1 << EXACT_BITS;
const HALF: u64 = EXACT / 2;
const BUCKETS: usize = (EXACT + HALF * (VALUE_BITS - EXACT_BITS) as u64) as usize;

pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum_us: u128,
    max_us: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            sum_us: 0,
            max_us: 0,
        }
    }

    pub(crate) fn record(&mut self, value_us: u64) {
        self.counts[bucket_of(value_us)] += 1;
        self.total += 1;
        self.sum_us += u128::from(value_us);
        self.max_us = self.max_us.max(value_us);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn max_us(&self) -> u64 {
        self.max_us
    }

    pub(crate) fn mean_us(&self) -> f64 {
        if self.total == 0 {
            0.0
        } else {
            self.sum_us as f64 / self.total as f64
        }
    }

    /// The smallest recorded value that at least `quantile` (0 to 1) of all values do not exceed,
    /// rounded up within its bucket; 0 when nothing was recorded.
    pub(crate) fn quantile_us(&self, quantile: f64) -> u64 {
        let rank = ((quantile * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_in(bucket).min(self.max_us);
            }
        }
        self.max_us
    }
}

fn bucket_of(value_us: u64) -> usize {
    let value = value_us.min((1 << VALUE_BITS) - 1);
    if value < EXACT {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2() - (EXACT_BITS - 1));
    (HALF * doublings + (value >> doublings)) as usize
}

/// The largest value counted in `bucket`.
fn highest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let doublings = bucket / HALF - 1;
    let mantissa = bucket - HALF * doublings;
    ((mantissa + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_histogram_answers_zero() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile_us(0.5), 0);
        assert_eq!(histogram.max_us(), 0);
        assert_eq!(histogram.mean_us(), 0.0);
    }

    #[test]
    fn quantiles_of_small_values_are_exact() {
        let mut histogram = Histogram::new();
        (1..=1000).for_each(|value| histogram.record(value));
        assert_eq!(histogram.total(), 1000);
        assert_eq!(histogram.quantile_us(0.5), 500);
        assert_eq!(histogram.quantile_us(0.99), 990);
        assert_eq!(histogram.quantile_us(0.999), 999);
        assert_eq!(histogram.quantile_us(1.0), 1000);
        assert_eq!(histogram.quantile_us(0.0), 1);
        assert_eq!(histogram.mean_us(), 500.5);
    }

    #[test]
    fn large_values_stay_within_the_promised_error() {
        let mut value = 1;
        while value < 1 << VALUE_BITS {
            for near in [value - 1, value, value + 1, value + value / 3] {
                let highest = highest_in(bucket_of(near));
                let near = near.min((1 << VALUE_BITS) - 1);
                assert!(
                    highest >= near,
                    "{near} is above its bucket's end {highest}"
                );
                assert!(
                    highest - near <= near / HALF,
                    "{near} is far from {highest}"
                );
            }
            value *= 2;
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 1..BUCKETS {
            let first = highest_in(bucket - 1) + 1;
            assert_eq!(bucket_of(first), bucket);
            assert_eq!(bucket_of(highest_in(bucket)), bucket);
        }
    }

    #[test]
    fn values_beyond_the_range_are_kept_in_the_last_bucket() {
        let mut histogram = Histogram::new();
        histogram.record(u64::MAX);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(histogram.max_us(), u64::MAX);
        assert_eq!(histogram.quantile_us(0.5), (1 << VALUE_BITS) - 1);
    }
}
