//! How many requests a caller gets: a sliding window with bounded memory.
//!
//! **The law**: in no interval of the window's length does a caller get more than `max`. The window
//! is cut into 64 slots and the oldest, half-left slot counts whole, so that a request may be refused
//! at most 1/64 of the window early and never allowed early. A step of the wall clock changes nothing.
//!
//! [`SlidingWindow`] counts in this process. A [`Quota`] counts over all replicas where there is a
//! Redis, and like that where there is none or while it is away.

mod lease;
mod shared;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use crate::clock::{Clock, Steady};
use crate::config::ConfigError;
use crate::redis::Redis;
use lease::Turn;
use shared::Shared;

/// Parts of the window. An interval of the window's length touches one slot more than this.
const SLOTS: i64 = 64;
const COUNTED: usize = SLOTS as usize + 1;
const SHARDS: usize = 64;

/// How many requests are let through, as settings say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests per window.
    pub max: u32,
    /// Its length in seconds.
    pub window_s: u32,
    /// Callers that are told apart.
    pub callers_max: usize,
}

impl RateLimit {
    /// What types alone cannot say; `section` is where these settings are.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self, section: &str) -> Result<(), ConfigError> {
        for (key, value) in [("max", self.max), ("window_s", self.window_s)] {
            if value == 0 {
                let key = format!("{section}.{key}");
                return Err(ConfigError::wrong(&key, "must be at least 1"));
            }
        }
        Ok(())
    }

    /// A window that counts by it.
    pub fn window(&self) -> SlidingWindow {
        SlidingWindow::new(self.max, self.window_s, self.callers_max)
    }
}

/// Hides callers in the names of their counts; all replicas have the same.
#[derive(Clone)]
pub struct QuotaKey(pub [u8; 32]);

impl fmt::Debug for QuotaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QuotaKey(…)")
    }
}

/// Makes the quotas of a server, all of which count in the same place.
#[derive(Clone, Debug)]
pub struct Quotas {
    redis: Option<(Redis, QuotaKey)>,
    clock: Clock,
    alone: Counter,
}

impl Quotas {
    /// Those that count over all replicas where there is a Redis.
    pub fn new(redis: Option<(Redis, QuotaKey)>, clock: Clock) -> Self {
        Self {
            redis,
            clock,
            alone: Counter::default(),
        }
    }

    /// A quota. `name` says what is limited, alike on every replica and in every version.
    pub fn quota(&self, limit: &RateLimit, name: &str) -> Quota {
        let shared = self.redis.as_ref().map(|(redis, key)| {
            let shared = Shared::new(limit, name, redis.clone(), key, self.clock.clone());
            Arc::new(shared)
        });
        Quota {
            here: limit.window(),
            shared,
            alone: self.alone.clone(),
        }
    }

    /// For `/metrics`.
    pub fn register_metrics(&self, registry: &mut Registry) {
        if self.redis.is_some() {
            let help = "Requests counted by this replica alone, for Redis was away";
            registry.register("rate_limit_alone", help, self.alone.clone());
        }
    }
}

/// Counts requests per caller: over all replicas, or in this process.
#[derive(Debug)]
pub struct Quota {
    here: SlidingWindow,
    shared: Option<Arc<Shared>>,
    alone: Counter,
}

impl Quota {
    /// Counts the request if it may pass.
    pub async fn take(&self, caller: u64, now: Steady) -> Decision {
        let Some(shared) = &self.shared else {
            return self.here.take(caller, now);
        };
        // What passed here counts here too: it holds when Redis goes away, or comes back empty.
        let here = self.here.look(caller, now);
        if !here.allowed {
            return here;
        }
        match shared.turn(caller).await {
            Turn::Shared(decision) => {
                if decision.allowed {
                    self.here.count(caller, now);
                }
                decision
            }
            Turn::Local => {
                self.alone.inc();
                self.here.take(caller, now)
            }
        }
    }
}

/// Counts requests per caller, in memory.
#[derive(Debug)]
pub struct SlidingWindow {
    shards: Box<[Mutex<Shard>]>,
    max: u32,
    slot_us: i64,
    callers_per_shard_max: usize,
}

/// What the limiter says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may pass.
    pub allowed: bool,
    /// Requests per window.
    pub limit: u32,
    /// Requests left at this moment.
    pub remaining: u32,
    /// How long until the oldest counted slot frees; nothing where none is counted.
    pub reset_in: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    rings: HashMap<u64, Ring, BuildHasherDefault<Spread>>,
    /// Shared by all newcomers while the shard is full of active callers.
    overflow: Ring,
    swept_slot: i64,
}

#[derive(Debug, Clone)]
struct Ring {
    newest: i64,
    /// The first slot with a count; without any it says nothing.
    oldest: i64,
    total: u32,
    counts: [u32; COUNTED],
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            newest: i64::MIN,
            oldest: i64::MIN,
            total: 0,
            counts: [0; COUNTED],
        }
    }
}

impl Ring {
    fn cell(slot: i64) -> usize {
        usize::try_from(slot.rem_euclid(COUNTED as i64)).unwrap_or_default()
    }

    /// Forgets the slots that no window ending in `slot` touches. Returns the slot to count in: time
    /// read before another thread's may arrive after it, and then counts as that thread's.
    fn turn(&mut self, slot: i64) -> i64 {
        if slot <= self.newest {
            return self.newest;
        }
        if self.total == 0 || slot - self.newest >= COUNTED as i64 {
            self.counts = [0; COUNTED];
            self.total = 0;
        } else {
            for passed in self.newest + 1..=slot {
                self.total -= std::mem::take(&mut self.counts[Self::cell(passed)]);
            }
        }
        self.newest = slot;
        if self.total > 0 && self.oldest < slot - SLOTS {
            let mut left = slot - SLOTS..=slot;
            let oldest = left.find(|slot| self.counts[Self::cell(*slot)] > 0);
            self.oldest = oldest.unwrap_or(slot);
        }
        slot
    }

    fn count(&mut self, slot: i64) {
        if self.total == 0 {
            self.oldest = slot;
        }
        self.counts[Self::cell(slot)] += 1;
        self.total += 1;
    }

    fn oldest_used(&self) -> Option<i64> {
        (self.total > 0).then_some(self.oldest)
    }
}

/// A hasher of numbers that nobody outside chooses, such as hashes and counters; one multiplication spreads the
/// latter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}

impl SlidingWindow {
    /// `max` requests in any `window_s` seconds; at most `callers_max` callers are told apart, of
    /// 300 bytes each, and those beyond share one count per shard.
    pub fn new(max: u32, window_s: u32, callers_max: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            max,
            slot_us: i64::from(window_s.max(1)) * 1_000_000 / SLOTS,
            callers_per_shard_max: callers_max.div_ceil(SHARDS).max(1),
        }
    }

    /// Counts the request if it may pass.
    pub fn take(&self, caller: u64, now: Steady) -> Decision {
        self.with_ring(caller, now, |ring, slot| {
            let allowed = ring.total < self.max;
            if allowed {
                ring.count(slot);
            }
            allowed
        })
    }

    /// Whether a request may pass, without counting it.
    fn look(&self, caller: u64, now: Steady) -> Decision {
        self.with_ring(caller, now, |ring, _| ring.total < self.max)
    }

    /// Counts a request that has passed.
    fn count(&self, caller: u64, now: Steady) {
        self.with_ring(caller, now, |ring, slot| {
            ring.count(slot);
            true
        });
    }

    fn shard(&self, caller: u64) -> &Mutex<Shard> {
        let mut spread = Spread::default();
        spread.write_u64(caller);
        &self.shards[(spread.finish() >> 16) as usize % SHARDS]
    }

    fn with_ring(
        &self,
        caller: u64,
        now: Steady,
        decide: impl FnOnce(&mut Ring, i64) -> bool,
    ) -> Decision {
        let slot = now.0.div_euclid(self.slot_us);
        let mut shard = self.shard(caller).lock();
        let shard = &mut *shard;
        let full = shard.rings.len() >= self.callers_per_shard_max;
        let ring = if full && !shard.rings.contains_key(&caller) {
            if shard.swept_slot < slot {
                shard.swept_slot = slot;
                shard
                    .rings
                    .retain(|_, ring| slot - ring.newest < COUNTED as i64);
            }
            if shard.rings.len() >= self.callers_per_shard_max {
                &mut shard.overflow
            } else {
                shard.rings.entry(caller).or_default()
            }
        } else {
            shard.rings.entry(caller).or_default()
        };
        let slot = ring.turn(slot);
        let allowed = decide(ring, slot);
        self.decision(ring, allowed, now)
    }

    fn decision(&self, ring: &Ring, allowed: bool, now: Steady) -> Decision {
        Decision {
            allowed,
            limit: self.max,
            remaining: self.max.saturating_sub(ring.total),
            reset_in: ring.oldest_used().map_or(Duration::ZERO, |slot| {
                Steady((slot + COUNTED as i64) * self.slot_us).since(now)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn three_in_ten_seconds_for_each_client() {
        let limiter = SlidingWindow::new(3, 10, 1000);
        let at = |s: f64| Steady((s * 1e6) as i64);
        let answers: Vec<bool> = [1, 1, 1, 1, 2]
            .map(|client| limiter.take(client, at(0.0)).allowed)
            .to_vec();
        assert_eq!(answers, [true, true, true, false, true]);
        assert!(!limiter.take(1, at(9.99)).allowed);
        assert!(limiter.take(1, at(10.2)).allowed);
    }

    #[test]
    fn reset_is_when_a_slot_frees() {
        let limiter = SlidingWindow::new(1, 64, 10);
        let first = limiter.take(7, Steady(100 * SECOND + 500_000));
        let reset_in = Duration::from_millis(64_500);
        assert_eq!((first.remaining, first.reset_in), (0, reset_in));
        assert!(!limiter.take(7, Steady(165 * SECOND - 1)).allowed);
        assert!(limiter.take(7, Steady(165 * SECOND)).allowed);
    }

    #[test]
    fn memory_is_bounded_and_strangers_share_what_is_over() {
        let limiter = SlidingWindow::new(2, 60, 64);
        let now = Steady(SECOND);
        let allowed = (0..100_000)
            .filter(|caller| limiter.take(*caller, now).allowed)
            .count();
        let kept: usize = limiter
            .shards
            .iter()
            .map(|shard| shard.lock().rings.len())
            .sum();
        assert!(kept <= 64);
        assert!(allowed <= 64 + 2 * SHARDS, "{allowed}");
        assert!(
            limiter.take(500_000, Steady(200 * SECOND)).allowed,
            "old callers make room"
        );
    }

    #[test]
    fn threads_together_get_no_more_than_the_limit() {
        let limiter = SlidingWindow::new(1000, 60, 10);
        let allowed: usize = std::thread::scope(|scope| {
            let worker = || {
                (0..5_000)
                    .filter(|i| limiter.take(1, Steady(SECOND + i)).allowed)
                    .count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .map(|w| w.join().expect("no panic"))
                .sum()
        });
        assert_eq!(allowed, 1000);
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_max_and_none_is_refused_more_than_a_slot_early(
            max in 1u32..20,
            window_s in 1u32..5,
            gaps_us in proptest::collection::vec(0i64..400_000, 1..400),
        ) {
            let limiter = SlidingWindow::new(max, window_s, 10);
            let window_us = i64::from(window_s) * SECOND;
            let mut now = 0;
            let mut allowed: Vec<i64> = Vec::new();
            for gap in gaps_us {
                now += gap;
                let decision = limiter.take(9, Steady(now));
                let within = |length: i64| allowed.iter().filter(|t| now - **t < length).count();
                if decision.allowed {
                    prop_assert!(within(window_us) < max as usize);
                    allowed.push(now);
                    let slot_us = window_us / SLOTS;
                    let slots = allowed.iter().map(|at| at.div_euclid(slot_us));
                    let oldest = slots.filter(|slot| now.div_euclid(slot_us) - slot <= SLOTS).min();
                    let frees = (oldest.expect("this one") + COUNTED as i64) * slot_us;
                    prop_assert_eq!(decision.reset_in, Steady(frees).since(Steady(now)));
                } else {
                    prop_assert!(within(window_us + window_us / SLOTS) >= max as usize);
                    prop_assert!(decision.reset_in > Duration::ZERO);
                }
            }
        }
    }
}
