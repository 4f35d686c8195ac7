//! Decisions: a yes stores all texts of a dialogue or none, a no leaves a record without texts.
//!
//! The key of the customer is in another database than the texts, and nothing spans both. So a yes
//! first has a key, and then stores what it encrypts unless that key was erased meanwhile; an
//! erasure deletes the key before it deletes what was stored with it. Whichever comes first, no
//! text stays that an erasure should have found.

use auspex_kernel::db::Transaction;

use crate::Dialogues;
use crate::core::Core;
use crate::error::DialoguesError;
use crate::ids::{CustomerRef, DialogueRef};
use crate::keys::CustomerKey;
use crate::language::Language;
use crate::pending::{Dialogue, Text};
use crate::store;
use crate::store::statistics::Added;
use crate::types::{Consent, DecidedDialogue, Decision, RealIds, RowId, Statement, Status};

/// The language of what is not known, by ISO 639.
pub(crate) const UNDETERMINED: &str = "und";

/// What a decision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Whether the texts are kept now.
    pub consent: bool,
    /// How many are kept, or were dropped or deleted.
    pub texts: u64,
    /// Whether this was the answer before as well.
    pub is_repeated: bool,
}

/// What is to be done about an answer, by what was answered before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Store,
    Nothing,
    Withdraw,
    Refuse,
}

/// The rules, in one place. `before` is how the dialogue was decided, if it was.
fn decide(before: Option<Status>, consent: bool) -> Result<Step, DialoguesError> {
    match (before, consent) {
        (None, true) => Ok(Step::Store),
        (None, false) => Ok(Step::Refuse),
        (Some(Status::Consented), true) | (Some(Status::Refused | Status::Withdrawn), false) => {
            Ok(Step::Nothing)
        }
        (Some(Status::Consented), false) => Ok(Step::Withdraw),
        (Some(Status::Refused | Status::Withdrawn), true) => Err(DialoguesError::NoWayBack),
    }
}

/// How storing ended.
enum Stored {
    Now,
    Before(DecidedDialogue),
    /// The key was erased.
    KeyErased,
}

impl Dialogues {
    /// What is recorded where a request does not say.
    pub fn usual_statement(&self) -> Statement {
        let usual = &self.core.config.consent;
        Statement {
            channel: usual.channel.clone(),
            policy_version: usual.policy_version.clone(),
            purpose: usual.purpose.clone(),
        }
    }

    /// How a dialogue was decided; `None` where it was not.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn decided(
        &self,
        dialogue: DialogueRef,
    ) -> Result<Option<DecidedDialogue>, DialoguesError> {
        let found = self
            .core
            .db
            .read(async |connection| store::dialogues::find(connection, dialogue).await)
            .await?;
        Ok(found.map(|row| row.decided))
    }

    /// Stores all texts of a dialogue: its customer said yes. When this returns `Ok` they are
    /// durable. If it was decided before, the answer is that of [`Self::answer_again`].
    ///
    /// # Errors
    /// [`DialoguesError::Unknown`] if the customer was erased since the dialogue began;
    /// [`DialoguesError::NoWayBack`], [`DialoguesError::OtherCustomer`]; an
    /// [unsure](DialoguesError::is_unsure) one, after which the texts may be stored.
    pub async fn grant(
        &self,
        undecided: &Dialogue,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        let core = &*self.core;
        let customer = undecided.customer_ref;
        // The second time the key comes from the database, where an erased one is not.
        for _ in 0..2 {
            let key = core
                .keys
                .get_or_create(customer, undecided.began_at)
                .await?;
            let key = key.ok_or(DialoguesError::Unknown)?;
            match core.store(undecided, customer, &key, statement).await? {
                Stored::Now => {
                    let texts = undecided.texts.len() as u64;
                    core.counts.granted.inc();
                    core.counts.texts_stored.inc_by(texts);
                    return Ok(Decided {
                        consent: true,
                        texts,
                        is_repeated: false,
                    });
                }
                Stored::Before(before) if before.customer != customer => {
                    return Err(DialoguesError::OtherCustomer);
                }
                Stored::Before(before) => {
                    decide(Some(before.status), true)?;
                    return Ok(Decided {
                        consent: true,
                        texts: before.texts,
                        is_repeated: true,
                    });
                }
                Stored::KeyErased => core.keys.forget(customer),
            }
        }
        Err(DialoguesError::Unknown)
    }

    /// Records that the customer said no. The texts are to be dropped before. A dialogue whose texts
    /// are stored is withdrawn.
    ///
    /// # Errors
    /// [`DialoguesError::OtherCustomer`], [`DialoguesError::Database`].
    pub async fn refuse(
        &self,
        refused: &Dialogue,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        let core = &*self.core;
        let customer = refused.customer_ref;
        let dialogue = core.pseudonyms.dialogue(&refused.id);
        let texts = refused.count as u64;
        let new = DecidedDialogue {
            dialogue,
            customer,
            status: Status::Refused,
            texts,
            began_at: refused.began_at,
            decided_at: core.now(),
        };
        let before = core
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                store::lock(transaction, customer).await?;
                store::lock_dialogue(transaction, dialogue).await?;
                let row = store::dialogues::Row {
                    decided: new.clone(),
                    key_id: None,
                    ids_id: None,
                };
                if !store::dialogues::insert_if_absent(transaction, &row).await? {
                    let before = store::dialogues::find(transaction, dialogue).await?;
                    return Ok(before.map(|before| before.decided));
                }
                let added = Added {
                    refused: 1,
                    ..Added::default()
                };
                core.add_decision(transaction, &new, Decision::Refused, statement)
                    .await?;
                let language = refused.language.primary();
                core.add_counts(transaction, &[(language, added)]).await?;
                Ok(None)
            });
        match before.await? {
            None => {
                core.counts.refused.inc();
                Ok(Decided {
                    consent: false,
                    texts,
                    is_repeated: false,
                })
            }
            Some(before) if before.customer != customer => Err(DialoguesError::OtherCustomer),
            Some(_) => self.answer_again(dialogue, false, statement).await,
        }
    }

    /// Answers for a dialogue that is decided: the same again changes nothing, a no after a yes
    /// withdraws, a yes after a no is refused.
    ///
    /// # Errors
    /// [`DialoguesError::Unknown`] where nothing is known of it, [`DialoguesError::NoWayBack`],
    /// [`DialoguesError::Database`].
    pub async fn answer_again(
        &self,
        dialogue: DialogueRef,
        consent: bool,
        statement: &Statement,
    ) -> Result<Decided, DialoguesError> {
        let before = self.decided(dialogue).await?;
        let before = before.ok_or(DialoguesError::Unknown)?;
        match decide(Some(before.status), consent)? {
            Step::Withdraw => {
                let withdrawn = self.withdraw(&before, statement).await?;
                Ok(Decided {
                    consent,
                    texts: withdrawn.texts,
                    is_repeated: false,
                })
            }
            Step::Nothing | Step::Store | Step::Refuse => Ok(Decided {
                consent,
                texts: before.texts,
                is_repeated: true,
            }),
        }
    }
}

impl Core {
    async fn store(
        &self,
        undecided: &Dialogue,
        customer: CustomerRef,
        key: &CustomerKey,
        statement: &Statement,
    ) -> Result<Stored, DialoguesError> {
        let dialogue = self.pseudonyms.dialogue(&undecided.id);
        let now = self.now();
        let ids = RealIds {
            customer: undecided.customer.clone(),
            dialogue: undecided.id.clone(),
        };
        let mut row = store::dialogues::Row {
            decided: DecidedDialogue {
                dialogue,
                customer,
                status: Status::Consented,
                texts: undecided.texts.len() as u64,
                began_at: undecided.began_at,
                decided_at: now,
            },
            key_id: Some(key.id.to_vec()),
            ids_id: None,
        };
        let sealed_ids = self.seal_ids(key, dialogue, &ids)?;
        let write = self
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                store::lock(transaction, customer).await?;
                store::lock_dialogue(transaction, dialogue).await?;
                let before = async || -> Result<_, DialoguesError> {
                    let before = store::dialogues::find(transaction, dialogue).await?;
                    Ok(before.map_or(Stored::KeyErased, |row| Stored::Before(row.decided)))
                };
                let newest = store::sealed::newest_unless_erased(transaction, &key.id);
                let Some(newest) = newest.await? else {
                    return before().await;
                };
                // Ids are made here, where those that are made later are stored later.
                self.ids_after(newest)?;
                let ids_id = self.new_id()?;
                row.ids_id = Some(ids_id.0);
                if !store::dialogues::insert_if_absent(transaction, &row).await? {
                    return before().await;
                }
                let mut rows = self.seal(undecided, customer, dialogue, key, statement)?;
                let texts = rows.iter_mut();
                let texts = texts.map(|row| (row.id, std::mem::take(&mut row.sealed)));
                let sealed = std::iter::once((ids_id, sealed_ids)).chain(texts);
                store::sealed::insert(transaction, sealed.collect()).await?;
                store::messages::insert(transaction, &rows).await?;
                self.add_decision(transaction, &row.decided, Decision::Granted, statement)
                    .await?;
                self.add_counts(transaction, &counts(undecided)).await?;
                Ok(Stored::Now)
            });
        write.await
    }

    fn seal(
        &self,
        undecided: &Dialogue,
        customer: CustomerRef,
        dialogue: DialogueRef,
        key: &CustomerKey,
        statement: &Statement,
    ) -> Result<Vec<store::messages::Row>, getrandom::Error> {
        let seal = |received: &Text| {
            let id = self.new_id()?;
            Ok(store::messages::Row {
                id,
                dialogue,
                customer,
                key_id: key.id.to_vec(),
                language: received.language().to_string(),
                purpose: statement.purpose.clone(),
                received_at: received.received_at(),
                sealed: key.seal_text(&self.random, id, dialogue, received.said())?,
            })
        };
        undecided.texts.iter().map(seal).collect()
    }

    /// Adds a line to the record of decisions.
    pub(crate) async fn add_decision(
        &self,
        transaction: &Transaction,
        decided: &DecidedDialogue,
        decision: Decision,
        statement: &Statement,
    ) -> Result<RowId, DialoguesError> {
        let id = self.new_id()?;
        let consent = Consent {
            id,
            dialogue: decided.dialogue,
            customer: decided.customer,
            decision,
            decided_at: decided.decided_at,
            statement: statement.clone(),
        };
        store::consents::insert(transaction, consent).await?;
        Ok(id)
    }

    pub(crate) async fn add_counts(
        &self,
        transaction: &Transaction,
        added: &[(Language, Added)],
    ) -> Result<(), DialoguesError> {
        let [chance] = self.random.bytes()?;
        let now = self.now();
        Ok(store::statistics::add(transaction, now, added, chance).await?)
    }
}

/// What a stored dialogue adds to the counts of each language: it counts itself in that of its first
/// text.
fn counts(undecided: &Dialogue) -> Vec<(Language, Added)> {
    let mut counts: Vec<(Language, Added)> = Vec::new();
    for text in &*undecided.texts {
        let language = text.language().primary();
        match counts.iter_mut().find(|(known, _)| *known == language) {
            Some((_, added)) => added.texts += 1,
            None => {
                let added = Added {
                    granted: i64::from(counts.is_empty()),
                    texts: 1,
                    ..Added::default()
                };
                counts.push((language, added));
            }
        }
    }
    // The order in which rows are locked is the same in all transactions.
    counts.sort_unstable_by_key(|(language, _)| *language);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_after_every_other_is_decided() {
        use Status::{Consented, Refused, Withdrawn};
        let step = |before, consent| decide(before, consent).ok();
        assert_eq!(step(None, true), Some(Step::Store));
        assert_eq!(step(None, false), Some(Step::Refuse));
        assert_eq!(step(Some(Consented), true), Some(Step::Nothing));
        assert_eq!(step(Some(Consented), false), Some(Step::Withdraw));
        for gone in [Refused, Withdrawn] {
            assert_eq!(step(Some(gone), false), Some(Step::Nothing));
            assert_eq!(step(Some(gone), true), None);
        }
    }
}
