//! How often something happened within the last while, in ten buckets, each counted exactly.
//!
//! Nobody waits to count, and what is counted twice at once counts twice.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;

const BUCKETS: usize = 10;

/// Counts that are forgotten after a while.
#[derive(Debug)]
pub(crate) struct Window {
    /// Microseconds.
    bucket_length: i64,
    /// The number of a moment in the upper half of a word, and what was counted then in the lower one.
    buckets: [AtomicU64; BUCKETS],
}

impl Window {
    pub(crate) fn new(length: Duration) -> Self {
        Self {
            bucket_length: (length.as_micros() as i64 / BUCKETS as i64).max(1),
            buckets: Default::default(),
        }
    }

    /// One more.
    pub(crate) fn add(&self, now: Steady) {
        let slot = self.slot(now);
        let bucket = &self.buckets[slot as usize % BUCKETS];
        let more = |word: u64| {
            Some(match (word >> 32).cmp(&u64::from(slot)) {
                Equal => word + 1,
                Less => u64::from(slot) << 32 | 1,
                // A thread that was late: its window is over.
                Greater => word,
            })
        };
        let _ = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// How many there were in this bucket and the nine before it.
    pub(crate) fn sum(&self, now: Steady) -> u64 {
        let slot = u64::from(self.slot(now));
        let words = self.buckets.iter().map(|one| one.load(Ordering::Relaxed));
        let recent = words.filter(|word| slot.saturating_sub(word >> 32) < BUCKETS as u64);
        recent.map(|word| word & 0xffff_ffff).sum()
    }

    /// As if nothing had happened.
    pub(crate) fn clear(&self) {
        let buckets = self.buckets.iter();
        buckets.for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }

    /// The bucket of a moment, counted from the begin of the process.
    fn slot(&self, now: Steady) -> u32 {
        // From 1 on, so that an empty bucket belongs to no moment.
        u32::try_from(now.0 / self.bucket_length + 1).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let window = Window::new(Duration::from_secs(10));
        let at = |second: i64| Steady(second * 1_000_000);
        for second in 0..30 {
            window.add(at(second));
            window.add(at(second));
            let expected = 2 * (second + 1).min(10) as u64;
            assert_eq!(window.sum(at(second)), expected, "after {second} s");
        }
        assert_eq!(window.sum(at(33)), 12);
        assert_eq!(window.sum(at(100)), 0);
        window.add(at(100));
        window.clear();
        assert_eq!(window.sum(at(100)), 0);
    }
}
