//! What every operation works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::config::Config;
use crate::consent::Asked;
use crate::granting::Yeses;
use crate::ids::{CustomerId, DialogId, DialogueRef, Pseudonyms};
use crate::keys::{CustomerKey, CustomerKeys};
use crate::types::{RealIds, RowId};

/// The beginning of row ids: 2025-01-01.
const EPOCH_US: i64 = 1_735_689_600_000_000;
/// So many processes may make an id in one microsecond before two are likely to be equal.
const CHANCE_BITS: u32 = 12;

pub(crate) struct Core {
    pub(crate) db: Db,
    pub(crate) keys: CustomerKeys,
    pub(crate) pseudonyms: Pseudonyms,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) config: Config,
    pub(crate) logs: Logs,
    pub(crate) counts: Counts,
    pub(crate) yeses: Yeses,
    pub(crate) asked: Asked,
}

impl crate::Dialogues {
    /// Registers what is counted.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        let counts = &self.core.counts;
        for (name, about, counter) in [
            (
                "texts_stored",
                "Texts that were stored after a consent",
                &counts.texts_stored,
            ),
            (
                "dialogues_granted",
                "Dialogues that were consented to",
                &counts.granted,
            ),
            (
                "dialogues_refused",
                "Dialogues that were refused",
                &counts.refused,
            ),
            (
                "dialogues_withdrawn",
                "Dialogues whose consent was withdrawn",
                &counts.withdrawn,
            ),
            (
                "customers_erased",
                "Customers that were erased",
                &counts.erased,
            ),
            (
                "texts_without_key",
                "Texts that were left out because their key is gone",
                &counts.unreadable,
            ),
        ] {
            registry.register(name, about, counter.clone());
        }
        for (name, about, gauge) in [
            (
                "pending_bytes",
                "Memory of the texts that wait for a decision",
                &counts.pending_bytes,
            ),
            (
                "pending_dialogues",
                "Dialogues that wait for a decision, or were decided within the last minute",
                &counts.pending_dialogues,
            ),
        ] {
            registry.register(name, about, gauge.clone());
        }
    }
}

/// What is counted for the metrics.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) texts_stored: Counter,
    pub(crate) granted: Counter,
    pub(crate) refused: Counter,
    pub(crate) withdrawn: Counter,
    pub(crate) erased: Counter,
    pub(crate) unreadable: Counter,
    pub(crate) pending_bytes: Gauge,
    pub(crate) pending_dialogues: Gauge,
}

impl Core {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new id, greater than all that this process has made.
    pub(crate) fn new_id(&self) -> Result<RowId, getrandom::Error> {
        let time = self.clock.for_id().micros().saturating_sub(EPOCH_US).max(0);
        let chance = u16::from_ne_bytes(self.random.bytes()?);
        Ok(RowId(
            time << CHANCE_BITS | i64::from(chance) & ((1 << CHANCE_BITS) - 1),
        ))
    }

    /// Makes later ids come after this one, which another process may have made by another clock.
    pub(crate) fn ids_after(&self, last: RowId) -> Result<(), getrandom::Error> {
        while self.new_id()? <= last {
            let time = (last.0 >> CHANCE_BITS) + EPOCH_US;
            self.clock.follow_micros(time);
        }
        Ok(())
    }

    /// Encrypts the ids as the chatbot sent them.
    pub(crate) fn seal_ids(
        &self,
        key: &CustomerKey,
        dialogue: DialogueRef,
        ids: &RealIds,
    ) -> Result<Vec<u8>, getrandom::Error> {
        // Neither has a control character.
        let text = format!("{}\n{}", ids.customer.expose(), ids.dialogue.expose());
        let text = zeroize::Zeroizing::new(text);
        key.seal_ids(&self.random, dialogue, text.as_bytes())
    }

    pub(crate) fn open_ids(
        &self,
        key: &CustomerKey,
        dialogue: DialogueRef,
        sealed: Vec<u8>,
    ) -> Option<RealIds> {
        let opened = key.open_ids(dialogue, sealed)?;
        let (customer, dialogue) = std::str::from_utf8(&opened).ok()?.split_once('\n')?;
        Some(RealIds {
            customer: CustomerId::parse(customer).ok()?,
            dialogue: DialogId::parse(dialogue).ok()?,
        })
    }

    /// Notes rows whose key is gone: the key was erased and they were not yet, or a backup brought
    /// them back.
    pub(crate) fn note_unreadable(&self, rows: usize) {
        if rows > 0 {
            self.counts.unreadable.inc_by(rows as u64);
            tracing::warn!(
                rows,
                "texts without a key were left out; where none was erased, the keys database is older than they are: restore one \
                 that has their keys"
            );
        }
    }
}

/// Empties the logs of both databases after something was deleted. Those that want it at once share
/// one run.
pub(crate) struct Logs {
    asked: AtomicU64,
    /// The last request that was answered.
    done: Mutex<(u64, bool)>,
    /// Whether a run failed that nobody has made good yet.
    owed: AtomicBool,
}

impl Logs {
    pub(crate) fn new() -> Self {
        Self {
            asked: AtomicU64::new(0),
            done: Mutex::new((0, true)),
            owed: AtomicBool::new(false),
        }
    }

    /// Whether there is a run to be made good.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed)
    }

    /// Empties them of what was deleted before this call; whether that came about. If not, it is
    /// tried again in the background.
    pub(crate) async fn truncate(&self, db: &Db, keys: &Db) -> bool {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.done.lock().await;
        let (until, is_empty) = *done;
        if until >= mine {
            return is_empty;
        }
        let until = self.asked.load(Ordering::SeqCst);
        let mut is_empty = true;
        for db in [db, keys] {
            match db.truncate_log().await {
                Ok(true) => {}
                Ok(false) => {
                    is_empty = false;
                    tracing::warn!(database = %db.name(), "a reader keeps the log from being emptied; it is tried again");
                }
                Err(error) => {
                    is_empty = false;
                    tracing::warn!(%error, database = %db.name(), "the log was not emptied; it is tried again");
                }
            }
        }
        self.owed.store(!is_empty, Ordering::Relaxed);
        *done = (until, is_empty);
        is_empty
    }
}

impl Core {
    pub(crate) async fn truncate_logs(&self) -> bool {
        self.logs.truncate(&self.db, &self.keys.db).await
    }
}

/// Shared by all operations.
pub(crate) type Shared = Arc<Core>;
