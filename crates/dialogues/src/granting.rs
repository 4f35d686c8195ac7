//! Storing what was consented to.
//!
//! The key of a customer is in another database than the texts, and nothing spans both. So a yes
//! first has a key, and then stores what it encrypts unless that key was erased meanwhile; an
//! erasure deletes the key before it deletes what was stored with it. Whichever comes first, no
//! text stays that an erasure should have found.
//!
//! SQLite has one writer. Those who wait for it are stored together: a few statements for all of them
//! cost little more than the same statements for one.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use auspex_kernel::Timestamp;
use auspex_kernel::db::{DbError, Transaction};

use crate::core::Core;
use crate::error::{DialoguesError, is_silent};
use crate::ids::{CustomerRef, DialogueRef};
use crate::keys::CustomerKey;
use crate::language::Language;
use crate::pending::{Dialogue, Text};
use crate::store;
use crate::store::Inserts;
use crate::store::statistics::Added;
use crate::together::{self, Queue, Together};
use crate::types::{Consent, DecidedDialogue, Decision, RealIds, RowId, Statement, Status};

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

/// A dialogue on its way into the tables. Its ids are in the order in which they were made.
struct Sealed {
    key_id: [u8; 16],
    row: store::dialogues::Row,
    ids: (RowId, Vec<u8>),
    /// With the place of each in the dialogue.
    texts: Vec<(i64, store::messages::Row)>,
    consent: Consent,
    counts: BTreeMap<Language, Added>,
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
        // Others may write meanwhile.
        let sealed = self.seal_all(yeses, &keys)?;
        let inserts = self.inserts(&sealed);
        let write = self
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                self.lock_all(transaction, yeses).await?;
                let used = keys.iter().flatten().map(|key| key.id);
                let erased = store::erased::keys_among(transaction, used).await?;
                let newest = store::sealed::newest(transaction).await?;
                let (mut all, mut is_as_expected) = (sealed, true);
                if all.iter().any(|one| one.ids.0 <= newest) {
                    self.ids_after(newest)?;
                    all = self.seal_all(yeses, &keys)?;
                    is_as_expected = false;
                }
                let expected = all.len();
                all.retain(|one| !erased.contains(&one.key_id));
                let rows = all.iter().map(|one| one.row.clone()).collect();
                let mut added = store::dialogues::insert_absent(transaction, rows).await?;
                all.retain(|one| added.contains(&one.row.decided.dialogue));
                let inserts = match is_as_expected && all.len() == expected {
                    true => inserts,
                    false => self.inserts(&all),
                };
                inserts.run(transaction).await?;
                self.count(transaction, &all).await?;
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

    /// Encrypts dialogues whose customer has a key. If two say yes to one dialogue, the first counts.
    fn seal_all(
        &self,
        yeses: &[Yes],
        keys: &[Option<Arc<CustomerKey>>],
    ) -> Result<Vec<Sealed>, DialoguesError> {
        let (mut all, mut seen, now) = (Vec::new(), HashSet::new(), self.now());
        for (yes, key) in yeses.iter().zip(keys) {
            if let Some(key) = key
                && seen.insert(&yes.dialogue.id)
            {
                all.push(self.seal(yes, key, now)?);
            }
        }
        Ok(all)
    }

    fn seal(&self, yes: &Yes, key: &CustomerKey, now: Timestamp) -> Result<Sealed, DialoguesError> {
        let undecided = &yes.dialogue;
        let dialogue = self.pseudonyms.dialogue(&undecided.id);
        let ids = RealIds {
            customer: undecided.customer.clone(),
            dialogue: undecided.id.clone(),
        };
        let ids = (self.new_id()?, self.seal_ids(key, dialogue, &ids)?);
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
        let text = |(ordinal, text): (i64, &Text)| -> Result<_, DialoguesError> {
            let id = self.new_id()?;
            let row = store::messages::Row {
                id,
                dialogue,
                customer: undecided.customer_ref,
                key_id: key.id.to_vec(),
                language: text.language().to_string(),
                purpose: yes.statement.purpose.clone(),
                received_at: text.received_at(),
                sealed: key.seal_text(&self.random, id, dialogue, text.said())?,
            };
            Ok((ordinal, row))
        };
        let texts = (0..).zip(&*undecided.texts).map(text);
        Ok(Sealed {
            key_id: key.id,
            texts: texts.collect::<Result<_, _>>()?,
            consent: self.consent(&row.decided, Decision::Granted, &yes.statement)?,
            counts: counts(undecided),
            row,
            ids,
        })
    }

    /// What adds all that belongs to dialogues whose rows are there.
    fn inserts(&self, all: &[Sealed]) -> Inserts {
        let mut inserts = Inserts::into(&self.db);
        let sealed = all.iter().flat_map(|one| {
            let texts = one.texts.iter().map(|(_, row)| (row.id, &row.sealed));
            std::iter::once((one.ids.0, &one.ids.1)).chain(texts)
        });
        store::sealed::insert(&mut inserts, sealed);
        let texts = all.iter().flat_map(|one| &one.texts);
        store::messages::insert(&mut inserts, texts);
        store::consents::insert(&mut inserts, all.iter().map(|one| &one.consent));
        inserts
    }

    async fn count(&self, transaction: &Transaction, all: &[Sealed]) -> Result<(), DialoguesError> {
        let mut counts: BTreeMap<Language, Added> = BTreeMap::new();
        for (language, added) in all.iter().flat_map(|one| &one.counts) {
            counts.entry(*language).or_default().add(*added);
        }
        if counts.is_empty() {
            return Ok(());
        }
        // The order in which rows are locked is the same in all transactions.
        let counts: Vec<_> = counts.into_iter().collect();
        self.add_counts(transaction, &counts).await
    }
}

/// What a dialogue adds to the counts of each language: it counts itself in that of its first text.
fn counts(dialogue: &Dialogue) -> BTreeMap<Language, Added> {
    let mut counts: BTreeMap<Language, Added> = BTreeMap::new();
    for (place, text) in dialogue.texts.iter().enumerate() {
        let added = counts.entry(text.language().primary()).or_default();
        added.texts += 1;
        added.granted += i64::from(place == 0);
    }
    counts
}

impl Together<Yes> for Core {
    type Answer = Result<Stored, DialoguesError>;
    const WEIGHT_MAX: usize = 2_000;
    /// One is encrypted while the other is written.
    const GROUPS_MAX: usize = 2;

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
            Err(DialoguesError::Database(error)) if is_silent(&error) => {
                let why = error.shared();
                Some(yeses.iter().map(|_| Err(why().into())).collect())
            }
            Err(_) => None,
        }
    }
}
