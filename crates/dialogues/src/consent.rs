//! Decisions: a yes stores all texts of a dialogue or none, as `granting.rs` does; a no leaves a record
//! without texts.

use std::collections::HashMap;

use auspex_kernel::db::Transaction;

use crate::Dialogues;
use crate::core::Core;
use crate::error::{DialoguesError, is_silent};
use crate::granting::Stored;
use crate::ids::DialogueRef;
use crate::language::Language;
use crate::pending::Dialogue;
use crate::store;
use crate::store::Inserts;
use crate::store::statistics::Added;
use crate::together::{self, Queue, Together};
use crate::types::{Consent, DecidedDialogue, Decision, RowId, Statement, Status};

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
        if let Some(found) = together::ask(&self.core, dialogue).await {
            return found;
        }
        let alone = self.core.decided(&[dialogue]).await?;
        Ok(alone.into_iter().next().flatten())
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
        let core = &self.core;
        let customer = undecided.customer_ref;
        // The second time the key comes from the database, where an erased one is not.
        for _ in 0..2 {
            match core.store(undecided, statement).await? {
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
                Stored::CustomerErased => break,
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
                let added = store::dialogues::insert_absent(transaction, vec![row]).await?;
                if added.is_empty() {
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

/// Those who wait to hear how a dialogue was decided.
pub(crate) type Asked = Queue<DialogueRef, Result<Option<DecidedDialogue>, DialoguesError>>;

impl Together<DialogueRef> for Core {
    type Answer = Result<Option<DecidedDialogue>, DialoguesError>;
    const WEIGHT_MAX: usize = 256;
    const GROUPS_MAX: usize = 1;

    fn queue(&self) -> &Asked {
        &self.asked
    }

    fn weight(_: &DialogueRef) -> usize {
        1
    }

    async fn answer(&self, dialogues: Vec<DialogueRef>) -> Option<Vec<Self::Answer>> {
        match self.decided(&dialogues).await {
            Ok(found) => Some(found.into_iter().map(Ok).collect()),
            Err(DialoguesError::Database(error)) if is_silent(&error) => {
                let why = error.shared();
                Some(dialogues.iter().map(|_| Err(why().into())).collect())
            }
            Err(_) => None,
        }
    }
}

impl Core {
    /// How dialogues were decided, in their order.
    async fn decided(
        &self,
        dialogues: &[DialogueRef],
    ) -> Result<Vec<Option<DecidedDialogue>>, DialoguesError> {
        let found = self
            .db
            .read(async |connection| store::dialogues::find_all(connection, dialogues).await);
        let found = found.await?.into_iter();
        let found: HashMap<_, _> = found
            .map(|row| (row.decided.dialogue, row.decided))
            .collect();
        let decided = dialogues
            .iter()
            .map(|dialogue| found.get(dialogue).cloned());
        Ok(decided.collect())
    }

    /// Adds a line to the record of decisions.
    pub(crate) async fn add_decision(
        &self,
        transaction: &Transaction,
        decided: &DecidedDialogue,
        decision: Decision,
        statement: &Statement,
    ) -> Result<RowId, DialoguesError> {
        let consent = self.consent(decided, decision, statement)?;
        let id = consent.id;
        let mut inserts = Inserts::into(&self.db);
        store::consents::insert(&mut inserts, std::iter::once(&consent));
        inserts.run(transaction).await?;
        Ok(id)
    }

    /// A line of the record of decisions.
    pub(crate) fn consent(
        &self,
        decided: &DecidedDialogue,
        decision: Decision,
        statement: &Statement,
    ) -> Result<Consent, getrandom::Error> {
        Ok(Consent {
            id: self.new_id()?,
            dialogue: decided.dialogue,
            customer: decided.customer,
            decision,
            decided_at: decided.decided_at,
            statement: statement.clone(),
        })
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
