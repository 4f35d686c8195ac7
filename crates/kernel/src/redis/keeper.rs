//! Looks whether Redis serves: by a write, since a replica answers everything else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;

use super::info::Memory;
use super::{Failure, Inner, Reason, Redis};

/// From one look to the next. What serves again is used within two of them.
const PAUSE: Duration = Duration::from_millis(500);
/// How many looks must find that nothing more was evicted before counts are believed again.
const CALM_LOOKS: u32 = 2;

/// What is known from one look to the next.
pub(super) struct Keeper {
    redis: Weak<Inner>,
    evicted: Option<u64>,
    /// Looks since keys were dropped.
    calm: u32,
}

impl Keeper {
    /// Looks once, and then again and again until nobody has a handle any more.
    pub(super) async fn start(redis: &Redis) {
        let mut keeper = Self {
            redis: Arc::downgrade(&redis.0),
            evicted: None,
            calm: CALM_LOOKS,
        };
        let outcome = keeper.look(redis).await;
        redis.set(outcome, true);
        tokio::spawn(keeper.keep());
    }

    async fn keep(mut self) {
        loop {
            // Held only while it looks, so that the last handle ends this.
            let Some(redis) = self.redis.upgrade().map(Redis) else {
                return;
            };
            let is_asked = redis.0.look.notified();
            let _ = tokio::time::timeout(PAUSE, is_asked).await;
            let outcome = self.look(&redis).await;
            redis.set(outcome, false);
        }
    }

    async fn look(&mut self, redis: &Redis) -> Result<(), Failure> {
        let known = redis.0.connection.lock().clone();
        let looking = async {
            let mut connection = match known {
                Some(connection) => connection,
                None => redis.connect().await?,
            };
            let probe = redis.key("probe");
            let mut write = redis::cmd("SET");
            write.arg(probe).arg(1).arg("PX").arg(60_000);
            write.exec_async(&mut connection).await?;
            let memory = memory(&mut connection).await;
            Ok((connection, memory))
        };
        // Three answers, each with a timeout of its own.
        let (connection, memory) = match tokio::time::timeout(redis.timeout() * 3, looking).await {
            Ok(looked) => looked.map_err(|error| Failure::of(&error))?,
            Err(_) => return Err(Failure::slow()),
        };
        let might = redis.0.may_evict.swap(memory.may_evict, Ordering::Relaxed);
        if memory.may_evict && !might {
            tracing::warn!(
                "Redis may drop keys to make room, so that no texts of dialogues are taken; set its maxmemory-policy to noeviction"
            );
        }
        let known = self.evicted.replace(memory.evicted);
        self.calm = match known {
            Some(known) if memory.evicted > known => 0,
            _ => self.calm.saturating_add(1),
        };
        if self.calm < CALM_LOOKS {
            return Err(Failure {
                reason: Reason::Evicting,
                text: format!("{} keys until now", memory.evicted),
            });
        }
        *redis.0.connection.lock() = Some(connection);
        Ok(())
    }
}

/// What `INFO` tells; nothing where it is not allowed.
async fn memory(connection: &mut MultiplexedConnection) -> Memory {
    let mut text = String::new();
    for section in ["memory", "stats"] {
        let said: Result<String, _> = redis::cmd("INFO")
            .arg(section)
            .query_async(connection)
            .await;
        text.push_str(&said.unwrap_or_default());
    }
    Memory::of(&text)
}
