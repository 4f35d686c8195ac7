//! Texts of customers, kept only with their consent: pending until the customer decides, encrypted
//! and readable after a yes, gone after a no, a withdrawal or an erasure.
//!
//! No text, customer id or dialogue id ever reaches a log, a metric, an error or the audit record.
//! Those name customers and dialogues by their pseudonyms.

mod audit;
mod config;
mod consent;
mod core;
mod erasure;
mod error;
mod export;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod granting;
mod http;
mod ids;
mod intake;
mod keys;
mod language;
mod migration;
mod pending;
mod reading;
mod register;
mod retention;
mod service;
mod statistics;
mod store;
mod together;
mod types;
mod watch;
mod withdrawal;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::redis::Redis;
use auspex_kernel::{Clock, Random, Timestamp, secrets};

pub use audit::Action;
pub use config::{
    Config, ConsentConfig, Hidden, LABEL_BYTES_MAX, PendingConfig, RetentionRule, StatisticsConfig,
    is_label,
};
pub use consent::Decided;
pub use erasure::Replayed;
pub use error::DialoguesError;
pub use export::{Export, ExportCounts};
pub use ids::{CustomerId, CustomerRef, DialogId, DialogueRef, ID_BYTES_MAX, NotAnId, Pseudonyms};
pub use intake::{Holdings, IntakeError, Standing};
pub use keys::{KeysError, MasterKeyState, look_at_master_key, master_key_file};
pub use language::{Language, NoLanguage};
pub use pending::{
    Away, Before, Buffer, Dialogue, Dropped, Held, Limits, Look, Mark, Marks, Memory, NewText,
    Outcome, Pending, PushError, Pushed, Shared, Size, State, Taken, Text,
};
pub use reading::{HeldCounts, MessageStream};
pub use register::{HOLDINGS, Holding};
pub use retention::Expired;
pub use service::DialoguesService;
pub use statistics::DayCounts;
pub use types::{
    Consent, DecidedDialogue, Decision, Message, MessageFilter, RealIds, Reason, Receipt, RowId,
    Statement, Status, Withdrawal,
};
pub use withdrawal::Withdrawn;

use crate::consent::Asked;
use crate::core::{Core, Counts, Logs};
use crate::granting::Yeses;

/// The keys database, in the data folder.
const KEYS_FILE: &str = "keys.db";

/// Dialogues that were decided: the handle for all that can be done with them. Cheap to clone; used
/// on the control runtime.
#[derive(Clone)]
pub struct Dialogues {
    core: Arc<Core>,
    pending: Buffer,
}

impl fmt::Debug for Dialogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogues").finish_non_exhaustive()
    }
}

impl Dialogues {
    /// Opens what the main database, whose tables are up to date, and the keys database hold.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn open(
        db: Db,
        config: Config,
        data_dir: &Path,
        clock: Clock,
        random: Random,
    ) -> Result<Self, KeysError> {
        let keys_db = match keys_url(&config, db.is_sqlite(), data_dir) {
            Some(url) => Db::open_with(&url, db.limits()).await?,
            None => db.clone(),
        };
        keys_db.migrate::<migration::KeysMigrator>().await?;
        keys::belong_together(&db, &keys_db, (&clock, &random)).await?;
        let opened = keys::open(keys_db, &config, data_dir, clock.clone(), random.clone());
        let (keys, pseudonyms) = opened.await?;
        let pending = Memory::new(limits(&config), clock.clone());
        let core = Core {
            db,
            keys,
            pseudonyms,
            clock,
            random,
            config,
            logs: Logs::new(),
            counts: Counts::default(),
            yeses: Yeses::default(),
            asked: Asked::default(),
        };
        Ok(Self {
            core: Arc::new(core),
            pending: Buffer::Memory(pending),
        })
    }

    /// With texts that wait in Redis, where replicas on the same main database find them too, and the
    /// marks that all of them make alike.
    ///
    /// # Errors
    /// [`DbError`]: the secret under which they are encrypted is in the main database.
    pub async fn sharing(self, redis: Redis) -> Result<(Self, Marks), DbError> {
        let Core {
            db,
            clock,
            random,
            config,
            ..
        } = &*self.core;
        let secret = secrets::load_or_create(db, clock, random, "dialogues.pending").await?;
        let (limits, clock) = (limits(config), clock.clone());
        let shared = Shared::new(redis, &secret, limits, clock, random.clone());
        let pending = Buffer::Shared(shared);
        Ok((Self { pending, ..self }, Shared::marks(&secret)))
    }

    /// The time by its clock.
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }

    /// Makes pseudonyms of ids.
    pub fn pseudonyms(&self) -> &Pseudonyms {
        &self.core.pseudonyms
    }

    /// Whether the keys database answers and its keys can be used.
    pub async fn keys_are_well(&self) -> bool {
        self.core.keys.is_well().await
    }

    /// Whether Redis, which holds the texts that wait, may drop them to make room. None are taken then.
    pub(crate) fn waiting_may_be_dropped(&self) -> bool {
        match &self.pending {
            Buffer::Shared(shared) => shared.may_be_dropped(),
            Buffer::Memory(_) => false,
        }
    }

    /// Whether the keys of the customers are in the database of their texts.
    pub fn keys_are_with_texts(&self) -> bool {
        keys_url(&self.core.config, self.core.db.is_sqlite(), Path::new("")).is_none()
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        texts_max: config.pending.texts_max,
        bytes_max: config.pending.bytes_max,
        expiry: config.pending.expires_after(),
    }
}

/// The URL of the keys database by these settings; `None` where the keys are in the main one.
pub fn keys_url(config: &Config, main_is_sqlite: bool, data_dir: &Path) -> Option<String> {
    match config.keys_url.as_str() {
        "" if main_is_sqlite => Some(format!("sqlite:{}", data_dir.join(KEYS_FILE).display())),
        "" => None,
        url => Some(url.to_owned()),
    }
}

/// Brings the tables of the main database up to date. Safe to run from several processes at once.
///
/// # Errors
/// [`DbError`].
pub async fn migrate(db: &Db) -> Result<(), DbError> {
    db.migrate::<migration::Migrator>().await
}
