//! Storing what was consented to.
//!
//! The key of a customer is in another database than the texts, and nothing spans both. So a yes
//! first has a key, and then stores what it encrypts unless that key was erased meanwhile; an
//! erasure deletes the key before it deletes what was stored with it. Whichever comes first, no
//! text stays that an erasure should have found.
//!
//! SQLite has one writer. Those who wait for it are stored together: a few statements for all of them
//! cost little more than the same statements for one.

use std::collections::HashSet;
use std::sync::Arc;

use auspex_kernel::Timestamp;
use auspex_kernel::db::{DbError, Transaction};

use crate::core::Core;
use crate::error::DialoguesError;
use crate::ids::{CustomerRef, DialogueRef};
use crate::keys::CustomerKey;
use crate::language::Language;
use crate::pending::Dialogue;
use crate::store;
use crate::store::statistics::Added;
use crate::together::{self, Queue, Together};
use crate::types::{DecidedDialogue, Decision, RealIds, RowId, Statement, Status};

/// What a dialogue costs beside its texts, in texts.
const DIALOGUE_WEIGHT: usize = 10;

/// How storing ended.
#[derive(Clone)]
pub(crate) enum Stored {
    Now,
    Before(DecidedDialogue),
    /// The customer was erased since the dialogue began.
    CustomerErased,
    /// The key in memory was erased.
    KeyErased,
}

/// A dialogue to be stored, and what its customer agreed to.
pub(crate) struct Yes {
    dialogue: Dialogue,
    statement: Statement,
}

/// Those that wait to be stored together.
pub(crate) type Yeses = Queue<Yes, Result<Stored, DialoguesError>>;

/// A yes on its way into the tables.
struct Sealing<'y> {
    yes: &'y Yes,
    key: Arc<CustomerKey>,
    row: store::dialogues::Row,
    ids: (RowId, Vec<u8>),
}

impl Core {
    /// Stores a dialogue. It is durable when this returns [`Stored::Now`].
    pub(crate) async fn store(
        self: &Arc<Self>,
        dialogue: &Dialogue,
        statement: &Statement,
    ) -> Result<Stored, DialoguesError> {
        let yes = || Yes {
            dialogue: dialogue.clone(),
            statement: statement.clone(),
        };
        // PostgreSQL has many writers, and one that waits for a lock must not keep others waiting.
        if self.db.is_sqlite()
            && let Some(stored) = together::ask(self, yes()).await
        {
            return stored;
        }
        let mut stored = self.store_all(&[yes()]).await?;
        Ok(stored.remove(0))
    }

    /// Stores dialogues in one transaction; how it ended for each.
    async fn store_all(&self, yeses: &[Yes]) -> Result<Vec<Stored>, DialoguesError> {
        let of_customers: Vec<_> = yeses
            .iter()
            .map(|yes| (yes.dialogue.customer_ref, yes.dialogue.began_at))
            .collect();
        let keys = self.keys.get_or_create(&of_customers).await?;
        let write = self
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                self.lock_all(transaction, yeses).await?;
                let used = keys.iter().flatten().map(|key| key.id);
                let erased = store::erased::keys_among(transaction, used).await?;
                // Ids are made here, where those that are made later are stored later.
                self.ids_after(store::sealed::newest(transaction).await?)?;
                let now = self.now();
                let mut all: Vec<Sealing<'_>> = Vec::new();
                for (yes, key) in yeses.iter().zip(&keys) {
                    if let Some(key) = key.as_ref().filter(|key| !erased.contains(&key.id)) {
                        all.push(self.begin_sealing(yes, Arc::clone(key), now)?);
                    }
                }
                // If two say yes to one dialogue, the first counts.
                let mut seen = HashSet::new();
                all.retain(|one| seen.insert(one.row.decided.dialogue));
                let rows = all.iter().map(|one| one.row.clone()).collect();
                let mut added = store::dialogues::insert_absent(transaction, rows).await?;
                all.retain(|one| added.contains(&one.row.decided.dialogue));
                self.insert_all(transaction, all).await?;
                let mut stored = Vec::with_capacity(yeses.len());
                for (yes, key) in yeses.iter().zip(&keys) {
                    let dialogue = self.pseudonyms.dialogue(&yes.dialogue.id);
                    stored.push(match key {
                        None => Stored::CustomerErased,
                        Some(_) if added.remove(&dialogue) => Stored::Now,
                        Some(_) => {
                            let before = store::dialogues::find(transaction, dialogue).await?;
                            before.map_or(Stored::KeyErased, |row| Stored::Before(row.decided))
                        }
                    });
                }
                Ok(stored)
            });
        write.await
    }

    /// In the order in which everybody takes them.
    async fn lock_all(&self, transaction: &Transaction, yeses: &[Yes]) -> Result<(), DbError> {
        let mut customers: Vec<CustomerRef> =
            yeses.iter().map(|yes| yes.dialogue.customer_ref).collect();
        let dialogue = |yes: &Yes| self.pseudonyms.dialogue(&yes.dialogue.id);
        let mut dialogues: Vec<DialogueRef> = yeses.iter().map(dialogue).collect();
        customers.sort_unstable();
        dialogues.sort_unstable();
        for customer in customers {
            store::lock(transaction, customer).await?;
        }
        for dialogue in dialogues {
            store::lock_dialogue(transaction, dialogue).await?;
        }
        Ok(())
    }

    fn begin_sealing<'y>(
        &self,
        yes: &'y Yes,
        key: Arc<CustomerKey>,
        now: Timestamp,
    ) -> Result<Sealing<'y>, DialoguesError> {
        let undecided = &yes.dialogue;
        let dialogue = self.pseudonyms.dialogue(&undecided.id);
        let ids = RealIds {
            customer: undecided.customer.clone(),
            dialogue: undecided.id.clone(),
        };
        let ids = (self.new_id()?, self.seal_ids(&key, dialogue, &ids)?);
        let row = store::dialogues::Row {
            decided: DecidedDialogue {
                dialogue,
                customer: undecided.customer_ref,
                status: Status::Consented,
                texts: undecided.texts.len() as u64,
                began_at: undecided.began_at,
                decided_at: now,
            },
            key_id: Some(key.id.to_vec()),
            ids_id: Some(ids.0.0),
        };
        Ok(Sealing { yes, key, row, ids })
    }

    /// Adds all that belongs to dialogues whose rows are there.
    async fn insert_all(
        &self,
        transaction: &Transaction,
        all: Vec<Sealing<'_>>,
    ) -> Result<(), DialoguesError> {
        let (mut ids, mut texts, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut consents, mut counts) = (Vec::new(), Vec::new());
        for one in all {
            let Sealing { yes, key, row, .. } = &one;
            for (ordinal, text) in (0..).zip(&*yes.dialogue.texts) {
                let (id, dialogue) = (self.new_id()?, row.decided.dialogue);
                texts.push((id, key.seal_text(&self.random, id, dialogue, text.said())?));
                let row = store::messages::Row {
                    id,
                    dialogue,
                    customer: row.decided.customer,
                    key_id: key.id.to_vec(),
                    language: text.language().to_string(),
                    purpose: yes.statement.purpose.clone(),
                    received_at: text.received_at(),
                    sealed: Vec::new(),
                };
                rows.push((ordinal, row));
            }
            consents.push(self.consent(&row.decided, Decision::Granted, &yes.statement)?);
            count(&yes.dialogue, &mut counts);
            ids.push(one.ids);
        }
        if ids.is_empty() {
            return Ok(());
        }
        // Those of the ids were made before those of the texts.
        ids.append(&mut texts);
        store::sealed::insert(transaction, ids).await?;
        store::messages::insert(transaction, rows).await?;
        store::consents::insert(transaction, consents).await?;
        // The order in which rows are locked is the same in all transactions.
        counts.sort_unstable_by_key(|(language, _)| *language);
        self.add_counts(transaction, &counts).await
    }
}

/// Adds a dialogue to the counts of each language: it counts itself in that of its first text.
fn count(dialogue: &Dialogue, counts: &mut Vec<(Language, Added)>) {
    for (place, text) in dialogue.texts.iter().enumerate() {
        let language = text.language().primary();
        let known = counts.iter().position(|(known, _)| *known == language);
        let at = known.unwrap_or(counts.len());
        if known.is_none() {
            counts.push((language, Added::default()));
        }
        let added = &mut counts[at].1;
        added.texts += 1;
        added.granted += i64::from(place == 0);
    }
}

impl Together<Yes> for Core {
    type Answer = Result<Stored, DialoguesError>;
    const WEIGHT_MAX: usize = 2_000;

    fn queue(&self) -> &Yeses {
        &self.yeses
    }

    fn weight(yes: &Yes) -> usize {
        DIALOGUE_WEIGHT + yes.dialogue.texts.len()
    }

    /// Where several fail, one of them may be why: each is tried alone.
    async fn answer(&self, yeses: Vec<Yes>) -> Option<Vec<Self::Answer>> {
        // When it returns, their texts are the buffer's alone again.
        match self.store_all(&yeses).await {
            Ok(stored) => Some(stored.into_iter().map(Ok).collect()),
            Err(error) if error.is_unsure() => {
                let unsure = yeses.iter().map(|_| Err(DbError::Abandoned.into()));
                Some(unsure.collect())
            }
            Err(error) if yeses.len() == 1 => Some(vec![Err(error)]),
            Err(_) => None,
        }
    }
}
