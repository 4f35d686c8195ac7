//! A consent is taken back: the texts go, in the files too, and readers are told to delete their
//! copies.
//!
//! It is written to the keys database first, like an erasure: so it is carried out after a crash, and
//! again where a backup of the texts is restored.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::audit::Actor;
use auspex_kernel::page::{Found, Slice};

use crate::Dialogues;
use crate::audit::{Action, Event};
use crate::consent::UNDETERMINED;
use crate::core::Core;
use crate::error::DialoguesError;
use crate::ids::{CustomerRef, DialogueRef};
use crate::language::Language;
use crate::pending::{Dropped, Pending as _, State};
use crate::store;
use crate::store::keys::{Counts, Erasure};
use crate::store::messages::Of;
use crate::store::statistics::Added;
use crate::types::{DecidedDialogue, Decision, Reason, Statement, Status, Withdrawal};

/// Rows that one transaction deletes: few enough that others do not wait long for it.
pub(crate) const DELETED_AT_ONCE: u64 = 1_000;
/// Dialogues that are withdrawn together.
const DIALOGUES_AT_ONCE: u64 = 200;

/// How long a withdrawal waits for decisions that are being recorded.
const DECIDING_MAX: Duration = Duration::from_secs(10);
const DECIDING_PAUSE: Duration = Duration::from_millis(10);

/// What a withdrawal came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Dialogues that were consented.
    pub dialogues: u64,
    /// Their texts.
    pub texts: u64,
    /// Texts that waited for a decision and were dropped.
    pub pending_texts: u64,
    /// Whether the logs of the databases were emptied before this was told.
    pub log_truncated: bool,
}

impl Dialogues {
    /// Withdraws the consent to one dialogue.
    pub(crate) async fn withdraw(
        &self,
        before: &DecidedDialogue,
        statement: &Statement,
    ) -> Result<Withdrawn, DialoguesError> {
        let core = &*self.core;
        let texts = core
            .withdraw_some(before.customer, &[before.dialogue], statement)
            .await?;
        Ok(Withdrawn {
            dialogues: 1,
            texts,
            pending_texts: 0,
            log_truncated: core.truncate_logs().await,
        })
    }

    /// Withdraws the consent to all dialogues of a customer, and forgets those that wait for a
    /// decision.
    ///
    /// # Errors
    /// [`DialoguesError::Database`], [`DialoguesError::Away`], [`DialoguesError::Busy`]; what was withdrawn until then stays so.
    pub async fn withdraw_all(
        &self,
        actor: &Actor,
        customer: CustomerRef,
        statement: &Statement,
    ) -> Result<Withdrawn, DialoguesError> {
        let core = &*self.core;
        let event = Event::new(Action::CustomerWithdraw, format!("customer:{customer}"));
        core.record(actor, event).await?;
        let dropped = self.drop_undecided(customer).await;
        let mut withdrawn = Withdrawn {
            log_truncated: true,
            ..Withdrawn::default()
        };
        let mut after = None;
        loop {
            let some = core.db.read(async |connection| {
                let consented = Some(Status::Consented);
                let count = DIALOGUES_AT_ONCE;
                store::dialogues::of_customer(connection, customer, consented, after, count).await
            });
            let some = some.await?;
            let Some(last) = some.last() else { break };
            after = Some(last.decided.dialogue);
            let dialogues: Vec<_> = some.iter().map(|row| row.decided.dialogue).collect();
            withdrawn.dialogues += dialogues.len() as u64;
            withdrawn.texts += core.withdraw_some(customer, &dialogues, statement).await?;
        }
        if withdrawn.dialogues > 0 {
            withdrawn.log_truncated = core.truncate_logs().await;
        }
        // What is stored is withdrawn even where what waits cannot be reached.
        withdrawn.pending_texts = dropped?.texts as u64;
        Ok(withdrawn)
    }

    /// Forgets what waits for a decision of a customer, and waits until those are recorded that are under way: what they store
    /// is to be found by who withdraws it.
    async fn drop_undecided(&self, customer: CustomerRef) -> Result<Dropped, DialoguesError> {
        let dropped = self
            .pending
            .drop_customer(customer, self.core.now())
            .await?;
        let rest = self.pending.of_customer(customer).await?;
        let deciding = async {
            for dialogue in &rest {
                while let Some(look) = self.pending.look(&dialogue.id).await?
                    && look.state == State::Deciding
                {
                    tokio::time::sleep(DECIDING_PAUSE).await;
                }
            }
            Ok(dropped)
        };
        let decided = tokio::time::timeout(DECIDING_MAX, deciding).await;
        decided.unwrap_or(Err(DialoguesError::Busy))
    }

    /// Dialogues whose texts were withdrawn, erased or have expired since a time, the oldest first.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn withdrawals(
        &self,
        since: Option<Timestamp>,
        slice: Slice,
    ) -> Result<Found<Withdrawal>, DialoguesError> {
        let read = self
            .core
            .db
            .read(async |connection| store::withdrawals::page(connection, since, slice).await);
        Ok(read.await?)
    }
}

impl Core {
    /// Writes down that these dialogues are withdrawn, and then deletes their texts; how many.
    async fn withdraw_some(
        &self,
        customer: CustomerRef,
        dialogues: &[DialogueRef],
        statement: &Statement,
    ) -> Result<u64, DialoguesError> {
        let erased_at = self.now();
        let new = dialogues.iter().map(|dialogue| {
            Ok(Erasure {
                id: self.random.bytes()?,
                customer,
                dialogue: Some(*dialogue),
                key_id: None,
                erased_at,
                completed_at: None,
            })
        });
        let erasures: Vec<Erasure> = new.collect::<Result<_, getrandom::Error>>()?;
        let noted = self
            .keys
            .db
            .write(async |transaction| store::keys::insert_erasures(transaction, &erasures).await);
        noted.await?;
        let mut texts = 0;
        for (erasure, dialogue) in erasures.iter().zip(dialogues) {
            let count = self
                .carry_out_withdrawal(erasure, *dialogue, statement)
                .await?;
            texts += count;
            let counts = Counts {
                messages: count,
                dialogues: 1,
                pending_texts: 0,
            };
            self.complete(erasure, counts, false).await?;
        }
        Ok(texts)
    }

    /// Deletes the texts of a withdrawn dialogue; how many there were.
    pub(crate) async fn carry_out_withdrawal(
        &self,
        erasure: &Erasure,
        dialogue: DialogueRef,
        statement: &Statement,
    ) -> Result<u64, DialoguesError> {
        let customer = erasure.customer;
        let now = self.now();
        let mut texts = 0;
        loop {
            let write = self
                .db
                .write(async |transaction| -> Result<_, DialoguesError> {
                    store::lock(transaction, customer).await?;
                    store::lock_dialogue(transaction, dialogue).await?;
                    if store::erased::has(transaction, &erasure.id).await? {
                        return Ok((0, true));
                    }
                    let of = Of::Dialogue(dialogue);
                    let language = store::messages::language_of(transaction, dialogue).await?;
                    let count =
                        store::messages::delete_some(transaction, of, DELETED_AT_ONCE).await?;
                    if count == DELETED_AT_ONCE {
                        return Ok((count, false));
                    }
                    let row = store::dialogues::find(transaction, dialogue).await?;
                    let consented = row.filter(|row| row.decided.status == Status::Consented);
                    if let Some(mut row) = consented {
                        row.decided.decided_at = now;
                        store::dialogues::set_withdrawn(transaction, dialogue, now).await?;
                        let id = self
                            .add_decision(transaction, &row.decided, Decision::Withdrawn, statement)
                            .await?;
                        let withdrawal = Withdrawal {
                            id,
                            dialogue,
                            customer,
                            reason: Reason::Withdrawn,
                            at: now,
                        };
                        store::withdrawals::insert(transaction, vec![withdrawal]).await?;
                        let added = Added {
                            withdrawn: 1,
                            ..Added::default()
                        };
                        let language = language.as_deref().unwrap_or(UNDETERMINED);
                        let language = Language::canonical(language);
                        self.add_counts(transaction, &[(language, added)]).await?;
                    }
                    store::erased::insert(transaction, &erasure.id, None).await?;
                    Ok((count, true))
                });
            let (count, is_done) = write.await?;
            texts += count;
            if is_done {
                self.counts.withdrawn.inc();
                return Ok(texts);
            }
        }
    }

    /// Notes in the keys database that an erasure or a withdrawal is carried out.
    pub(crate) async fn complete(
        &self,
        erasure: &Erasure,
        counts: Counts,
        log_truncated: bool,
    ) -> Result<(), DialoguesError> {
        let now = self.now();
        let write = self.keys.db.write(async |transaction| {
            store::keys::complete(transaction, &erasure.id, counts, now, log_truncated).await
        });
        Ok(write.await?)
    }
}
