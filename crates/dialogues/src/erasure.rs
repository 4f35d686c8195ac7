//! A customer is erased: the key first, and with it everything that it encrypts, in every copy; then
//! the rows, and the logs of the databases.
//!
//! What the keys database says is the law. Whatever was not finished when a process died, and
//! whatever a restored backup brings back, is deleted by [`Dialogues::replay_erasures`], which a
//! start runs by itself. The key that a row was stored with decides, and not a clock.

use std::collections::HashSet;

use auspex_kernel::audit::Actor;
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::{Subject, Timestamp};

use crate::Dialogues;
use crate::audit::{Action, Event};
use crate::core::Core;
use crate::error::DialoguesError;
use crate::ids::CustomerRef;
use crate::pending::Pending as _;
use crate::store;
use crate::store::keys::{Counts, Erasure};
use crate::store::messages::Of;
use crate::types::{Reason, Receipt, Status, Withdrawal};
use crate::withdrawal::DELETED_AT_ONCE;

/// Erasures looked at in one statement.
const REPLAYED_AT_ONCE: u64 = 500;
/// Before everything.
const BEGINNING: (Timestamp, [u8; 16]) = (Timestamp(i64::MIN), [0; 16]);

/// What replaying came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Erasures and withdrawals that were carried out now.
    pub erasures: u64,
    /// Texts that were deleted.
    pub texts: u64,
    /// Keys that had come back and were deleted.
    pub keys: u64,
}

impl Dialogues {
    /// Erases a customer. From the first step on nothing of theirs is readable; when this returns
    /// the rows are gone too, and what waits for a decision.
    ///
    /// # Errors
    /// [`DialoguesError::Database`], [`DialoguesError::Away`]: the erasure may have begun, and then it is carried on in the
    /// background, or by who asks again.
    pub async fn erase(
        &self,
        actor: &Actor,
        customer: CustomerRef,
    ) -> Result<Receipt, DialoguesError> {
        let core = &*self.core;
        let event = Event::new(Action::CustomerErase, format!("customer:{customer}"));
        core.record(actor, event).await?;
        let mut erasure = Erasure {
            id: core.random.bytes()?,
            customer,
            dialogue: None,
            key_id: None,
            erased_at: core.now(),
            completed_at: None,
        };
        let noted = core.keys.db.write(async |transaction| {
            store::lock(transaction, customer).await?;
            let key_id = store::keys::delete(transaction, customer).await?;
            erasure.key_id = key_id.map(|id| id.to_vec());
            let new = std::slice::from_ref(&erasure);
            store::keys::insert_erasures(transaction, new).await?;
            Ok::<_, auspex_kernel::db::DbError>(erasure)
        });
        let erasure = noted.await?;
        // An earlier one that was cut off has the key that rows were stored with.
        let cut_off = core.incomplete(Some(customer), erasure.erased_at).await?;
        for earlier in cut_off.iter().filter(|earlier| earlier.id != erasure.id) {
            self.carry_on(earlier, actor).await?;
        }
        let (counts, log_truncated) = self.carry_on(&erasure, actor).await?;
        core.counts.erased.inc();
        let receipt = self.receipt(&erasure.id).await?;
        Ok(receipt.unwrap_or(Receipt {
            id: erasure.id,
            customer,
            erased_at: erasure.erased_at,
            completed_at: Some(core.now()),
            messages: counts.messages,
            dialogues: counts.dialogues,
            pending_texts: counts.pending_texts,
            log_truncated,
        }))
    }

    /// The receipt of an erasure.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn receipt(&self, id: &[u8; 16]) -> Result<Option<Receipt>, DialoguesError> {
        let read = self
            .core
            .keys
            .db
            .read(async |connection| store::keys::find_receipt(connection, id).await);
        Ok(read.await?)
    }

    /// Receipts of erasures, newest first.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn receipts(
        &self,
        customer: Option<CustomerRef>,
        slice: Slice,
    ) -> Result<Found<Receipt>, DialoguesError> {
        let read = self
            .core
            .keys
            .db
            .read(async |connection| store::keys::receipts(connection, customer, slice).await);
        Ok(read.await?)
    }

    /// Carries out every erasure and withdrawal that the main database does not know: those that
    /// were cut off, and after a backup of it was restored those since. Keys that a restored backup
    /// of the keys brought back go as well.
    ///
    /// # Errors
    /// [`DialoguesError::Database`]; to run it again goes on where this one ended.
    pub async fn replay_erasures(&self) -> Result<Replayed, DialoguesError> {
        let core = &*self.core;
        let mut replayed = Replayed {
            keys: core.delete_erased_keys().await?,
            ..Replayed::default()
        };
        let mut after = BEGINNING;
        loop {
            let some = core.keys.db.read(async |connection| {
                store::keys::erasures_after(connection, after, REPLAYED_AT_ONCE).await
            });
            let some = some.await?;
            let Some(last) = some.last() else { break };
            after = (last.erased_at, last.id);
            let known = core.db.read(async |connection| {
                store::erased::among(connection, some.iter().map(|erasure| erasure.id)).await
            });
            let known: HashSet<_> = known.await?.into_iter().collect();
            for erasure in &some {
                let is_known = known.contains(&erasure.id);
                if is_known && erasure.completed_at.is_some() {
                    continue;
                }
                match self.carry_on(erasure, &system()).await {
                    Ok((counts, _)) => {
                        replayed.erasures += 1;
                        replayed.texts += counts.messages;
                    }
                    // The rest is done in the background as soon as it can be.
                    Err(DialoguesError::Away(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(replayed)
    }

    /// Carries on erasures and withdrawals that were cut off before `before`.
    ///
    /// # Errors
    /// [`DialoguesError::Database`], [`DialoguesError::Away`]; to call it again goes on where this one ended.
    pub(crate) async fn carry_on_cut_off(&self, before: Timestamp) -> Result<(), DialoguesError> {
        for erasure in self.core.incomplete(None, before).await? {
            self.carry_on(&erasure, &system()).await?;
        }
        Ok(())
    }

    /// Does what is left of an erasure or a withdrawal: the rows, what waits for a decision, and the note that it is done. The
    /// rows go first: they can even where what waits cannot be reached. What it came to, and whether the logs were emptied.
    async fn carry_on(
        &self,
        erasure: &Erasure,
        actor: &Actor,
    ) -> Result<(Counts, bool), DialoguesError> {
        let core = &*self.core;
        let (customer, until) = (erasure.customer, erasure.erased_at);
        core.keys.forget(customer);
        let counts = match erasure.dialogue {
            None => {
                let counts = core.carry_out(erasure, actor).await?;
                let dropped = self.pending.drop_customer(customer, until).await?;
                Counts {
                    pending_texts: dropped.texts as u64,
                    ..counts
                }
            }
            Some(dialogue) => {
                let statement = self.usual_statement();
                let messages = core.carry_out_withdrawal(erasure, dialogue, &statement);
                Counts {
                    messages: messages.await?,
                    dialogues: 1,
                    pending_texts: 0,
                }
            }
        };
        let log_truncated = core.truncate_logs().await;
        core.complete(erasure, counts, log_truncated).await?;
        Ok((counts, log_truncated))
    }

    /// Erasures of customers since a place, for the buffers of this process; the place to go on
    /// from. Those that were noted a little before it are told again, since clocks of
    /// processes differ.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub(crate) async fn erased_since(
        &self,
        since: Timestamp,
    ) -> Result<Vec<Erasure>, DialoguesError> {
        let mut found = Vec::new();
        let mut after = (since, [0; 16]);
        loop {
            let read = self.core.keys.db.read(async |connection| {
                store::keys::erasures_after(connection, after, REPLAYED_AT_ONCE).await
            });
            let some = read.await?;
            let Some(last) = some.last() else {
                return Ok(found);
            };
            after = (last.erased_at, last.id);
            found.extend(
                some.into_iter()
                    .filter(|erasure| erasure.dialogue.is_none()),
            );
        }
    }
}

/// Who carries on what somebody began.
fn system() -> Actor {
    Actor {
        subject: Subject::Operator,
        ..Actor::operator()
    }
}

impl Core {
    /// Erasures and withdrawals, of one customer or of all, that were noted until `before` and are not known to be carried out.
    async fn incomplete(
        &self,
        customer: Option<CustomerRef>,
        before: Timestamp,
    ) -> Result<Vec<Erasure>, DialoguesError> {
        let read = self.keys.db.read(async |connection| {
            store::keys::incomplete(connection, customer, before, REPLAYED_AT_ONCE).await
        });
        Ok(read.await?)
    }

    /// Deletes from the main database what an erasure found there.
    async fn carry_out(&self, erasure: &Erasure, actor: &Actor) -> Result<Counts, DialoguesError> {
        let mut counts = Counts::default();
        loop {
            let (some, is_done) = self.carry_out_some(erasure, actor).await?;
            counts.messages += some.messages;
            counts.dialogues += some.dialogues;
            if is_done {
                return Ok(counts);
            }
        }
    }

    /// One transaction of it, and whether it was the last one. That one notes that the erasure is
    /// carried out: from then on nothing more is stored with its key.
    async fn carry_out_some(
        &self,
        erasure: &Erasure,
        actor: &Actor,
    ) -> Result<(Counts, bool), DialoguesError> {
        let (customer, now) = (erasure.customer, self.now());
        let key_id = erasure.key_id.as_deref();
        let write = self
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                store::lock(transaction, customer).await?;
                let mut counts = Counts::default();
                if store::erased::has(transaction, &erasure.id).await? {
                    return Ok((counts, true));
                }
                if let Some(key_id) = key_id {
                    let of = Of::Key(customer, key_id);
                    counts.messages =
                        store::messages::delete_some(transaction, of, DELETED_AT_ONCE).await?;
                    if counts.messages == DELETED_AT_ONCE {
                        return Ok((counts, false));
                    }
                }
                let dialogues = store::dialogues::to_erase(
                    transaction,
                    customer,
                    key_id,
                    erasure.erased_at,
                    DELETED_AT_ONCE / 4,
                );
                let dialogues = dialogues.await?;
                let mut withdrawals = Vec::new();
                for row in &dialogues {
                    if row.decided.status == Status::Consented {
                        withdrawals.push(Withdrawal {
                            id: self.new_id()?,
                            dialogue: row.decided.dialogue,
                            customer,
                            reason: Reason::Erased,
                            at: now,
                        });
                    }
                }
                store::withdrawals::insert(transaction, withdrawals).await?;
                let ids = dialogues.iter().map(|row| row.decided.dialogue);
                counts.dialogues = store::dialogues::delete(transaction, ids).await?;
                if counts.dialogues == DELETED_AT_ONCE / 4 {
                    return Ok((counts, false));
                }
                store::erased::insert(transaction, &erasure.id, key_id).await?;
                let event = Event::new(Action::ErasureComplete, format!("customer:{customer}"));
                self.record_in(transaction, actor, event).await?;
                Ok((counts, true))
            });
        write.await
    }

    /// Deletes keys that were erased by what the main database says; how many there were.
    async fn delete_erased_keys(&self) -> Result<u64, DialoguesError> {
        let (mut after, mut deleted) = (None, 0);
        loop {
            let some = self.db.read(async |connection| {
                store::erased::keys_after(connection, after, REPLAYED_AT_ONCE).await
            });
            let some = some.await?;
            let Some((last, _)) = some.last() else {
                return Ok(deleted);
            };
            after = Some(*last);
            let ids: Vec<_> = some.into_iter().filter_map(|(_, key)| key).collect();
            if ids.is_empty() {
                continue;
            }
            let write = self
                .keys
                .db
                .write(async |transaction| store::keys::delete_by_ids(transaction, ids).await);
            deleted += write.await?;
        }
    }
}
