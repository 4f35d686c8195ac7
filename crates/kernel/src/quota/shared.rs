//! Counting over all replicas, in Redis.
//!
//! **The law**: in no interval of the window's length do all replicas together let more than `max`
//! requests of a caller pass, as long as Redis keeps its counts; and none is refused more than 2 % of the window
//! early (of windows below 64 times `redis.timeout_ms`: that timeout and 2 %).
//!
//! A round trip for each request would cost more than a prediction. So a replica takes permits in
//! advance: as many as the caller used lately, fewer the nearer the limit, and gives back what is not
//! used within a 256th of the window. A permit counts in Redis from the moment it is granted; Redis
//! counts for a window and that 256th, so that it does not matter when it was used in between. The
//! clock of the counts is that of Redis, so those of replicas need not agree.
//!
//! A caller who asks has one task, which asks for permits and gives them back, and ends soon after
//! the caller does.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::sync::Notify;

use super::lease::{Answer, Ask, Asked, Lease, Next, Permits, Turn};
use super::{QuotaKey, RateLimit, Spread};
use crate::clock::Clock;
use crate::redis::{Away, Redis, Script};

const SLOTS: i64 = 128;
/// Of the window, for which permits may be kept.
const LEASES: i64 = 256;
const SHARDS: usize = 64;

/// The counts of one limit in Redis, and the permits that are held of them.
pub(super) struct Shared {
    redis: Redis,
    script: Script,
    /// Makes names of callers, and has been told by what those of this limit differ from others.
    names: Hmac<Sha256>,
    limit: u32,
    slot_us: i64,
    /// How many slots before the present one count.
    slots: i64,
    /// How long a permit may be kept.
    lease: Duration,
    clock: Clock,
    callers_per_shard_max: usize,
    shards: Box<[Mutex<Callers>]>,
}

/// The permits of a caller, and what wakes the task that asks for them.
type Callers = HashMap<u64, (Lease, Arc<Notify>), BuildHasherDefault<Spread>>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// `name` says what is limited, on every replica alike.
    pub(super) fn new(
        limit: &RateLimit,
        name: &str,
        redis: Redis,
        key: &QuotaKey,
        clock: Clock,
    ) -> Self {
        // Another limit of the same name counts apart.
        let names = format!("{name} {} {}\0", limit.max, limit.window_s);
        let keyed = Hmac::new_from_slice(&key.0).expect("any length is a key");
        let window_us = i64::from(limit.window_s) * 1_000_000;
        let shortest = i64::try_from(redis.timeout().as_micros()).unwrap_or(i64::MAX);
        let lease_us = (window_us / LEASES).max(shortest);
        let slot_us = window_us / SLOTS;
        Self {
            redis,
            script: Script::new(include_str!("count.lua")),
            names: keyed.chain_update(names),
            limit: limit.max,
            slot_us,
            slots: (window_us + lease_us + slot_us - 1) / slot_us,
            lease: Duration::from_micros(lease_us.unsigned_abs()),
            clock,
            callers_per_shard_max: limit.callers_max.div_ceil(SHARDS).max(1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Asks for one permit of a caller.
    pub(super) async fn turn(self: &Arc<Self>, caller: u64) -> Turn {
        match self.ask_for(caller) {
            Asked::Now(turn) => turn,
            Asked::Soon(answer) => answer.await.unwrap_or(Turn::Local),
        }
    }

    fn ask_for(self: &Arc<Self>, caller: u64) -> Asked {
        if !self.redis.is_up() {
            return Asked::Now(Turn::Local);
        }
        // When the request came is no matter: a permit is used now, or not any more.
        let now = self.clock.steady();
        let mut callers = self.shard(caller).lock();
        if let Some((lease, wake)) = callers.get_mut(&caller) {
            let (asked, wakes) = lease.ask(now);
            if wakes {
                wake.notify_one();
            }
            return asked;
        }
        if callers.len() >= self.callers_per_shard_max {
            return Asked::Now(Turn::Local);
        }
        let (mut lease, wake) = (Lease::new(self.limit), Arc::new(Notify::new()));
        let (asked, _) = lease.ask(now);
        callers.insert(caller, (lease, wake.clone()));
        self.redis
            .control()
            .spawn(self.clone().provide(caller, wake));
        asked
    }

    fn shard(&self, caller: u64) -> &Mutex<Callers> {
        let mut spread = Spread::default();
        spread.write_u64(caller);
        &self.shards[(spread.finish() >> 16) as usize % SHARDS]
    }

    /// Asks for permits of a caller as long as there are any to ask for or to give back.
    async fn provide(self: Arc<Self>, caller: u64, wake: Arc<Notify>) {
        let key = self.key(caller);
        while let Some(next) = self.next(caller) {
            match next {
                Next::End => return,
                Next::Rest(until) => {
                    let pause = until.since(self.clock.steady());
                    // Whether it was woken or time has passed, the lease knows what is to be done.
                    let _ = tokio::time::timeout(pause, wake.notified()).await;
                }
                Next::Ask(ask) => {
                    let until = self.clock.steady() + self.lease;
                    let answer = self.call(&key, &ask).await;
                    let mut callers = self.shard(caller).lock();
                    let Some((lease, _)) = callers.get_mut(&caller) else {
                        return;
                    };
                    match answer {
                        Ok(answer) => lease.answered(&ask, answer, self.clock.steady(), until),
                        Err(Away(_)) => {
                            lease.failed();
                            callers.remove(&caller);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// What is to be done for a caller, who is forgotten where that is nothing.
    fn next(&self, caller: u64) -> Option<Next> {
        let mut callers = self.shard(caller).lock();
        let next = callers.get_mut(&caller)?.0.next(self.clock.steady());
        if next == Next::End {
            callers.remove(&caller);
        }
        Some(next)
    }

    async fn call(&self, key: &str, ask: &Ask) -> Result<Answer, Away> {
        let mut script = self.script.key(key);
        script
            .arg(self.limit)
            .arg(self.slot_us)
            .arg(self.slots)
            .arg(ask.needed)
            .arg(ask.wanted);
        for Permits { begun, slot, count } in &ask.back {
            script.arg(*begun).arg(*slot).arg(*count);
        }
        let (count, begun, slot, left, frees_us): (u32, i64, i64, u32, i64) =
            self.redis.run(&script).await?;
        Ok(Answer {
            granted: Permits { begun, slot, count },
            left,
            frees_in: Duration::from_micros(frees_us.max(0).unsigned_abs()),
        })
    }

    /// The key of a caller. Without the secret nobody finds who it is by trying all addresses.
    fn key(&self, caller: u64) -> String {
        let named = self.names.clone().chain_update(caller.to_be_bytes());
        let digest = named.finalize().into_bytes();
        let hex: String = digest[..16]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.redis.key(&format!("quota:{hex}"))
    }
}
