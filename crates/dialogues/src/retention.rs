//! Nothing is kept longer than the settings say: texts by their age, and the records of decisions
//! whose texts are not held any more.
//!
//! The clock of a text is its receipt, that of a record the decision.

use std::collections::BTreeSet;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::audit::Actor;
use auspex_kernel::db::DbError;

use crate::Dialogues;
use crate::audit::{Action, Event};
use crate::config::RetentionRule;
use crate::core::Core;
use crate::error::DialoguesError;
use crate::store;
use crate::store::messages::Old;
use crate::store::sealed::Compacted;
use crate::types::{Reason, Withdrawal};
use crate::withdrawal::DELETED_AT_ONCE;

/// Runs of erased rows that one transaction looks at.
const RUNS_AT_ONCE: usize = 50;
/// Such transactions at once, so that nothing else waits long for them.
const COMPACTIONS_MAX: usize = 500;
const DAY: Duration = Duration::from_hours(24);

/// What a rule of retention deleted, or would delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The rule; `None` for records of decisions.
    pub rule: Option<RetentionRule>,
    /// What is older goes.
    pub before: Timestamp,
    /// Texts, or dialogues whose records go.
    pub count: u64,
}

impl Dialogues {
    /// What retention would delete now. Records of decisions are not counted: which of them go depends
    /// on the texts that go before them.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn expired(&self) -> Result<Vec<Expired>, DialoguesError> {
        let mut expired = Vec::new();
        for rule in &self.core.config.retention {
            let old = self.core.old(rule);
            let count = self
                .core
                .db
                .load(async |connection| old.count(connection).await);
            expired.push(Expired {
                rule: Some(rule.clone()),
                before: old.before,
                count: count.await?,
            });
        }
        Ok(expired)
    }

    /// Deletes what has been kept for as long as it may be.
    ///
    /// # Errors
    /// [`DialoguesError::Database`]; what was deleted until then is gone.
    pub async fn apply_retention(&self, actor: &Actor) -> Result<Vec<Expired>, DialoguesError> {
        let core = &*self.core;
        let mut expired = Vec::new();
        for rule in &core.config.retention {
            let old = core.old(rule);
            let mut count = 0;
            loop {
                let deleted = core.delete_old(&old, actor).await?;
                count += deleted;
                if deleted < DELETED_AT_ONCE {
                    break;
                }
            }
            expired.push(Expired {
                rule: Some(rule.clone()),
                before: old.before,
                count,
            });
        }
        let texts: u64 = expired.iter().map(|expired| expired.count).sum();
        if core.config.decisions_days > 0 {
            let before = core.now() - DAY * core.config.decisions_days;
            let count = core.delete_decisions(before).await?;
            expired.push(Expired {
                rule: None,
                before,
                count,
            });
        }
        if texts > 0 {
            core.truncate_logs().await;
        }
        Ok(expired)
    }
}

impl Dialogues {
    /// Gives back the space of erased rows, as far as none that is not erased has to move; how many
    /// rows went.
    ///
    /// # Errors
    /// [`DialoguesError::Database`]; what went until then is gone.
    pub async fn compact(&self) -> Result<u64, DialoguesError> {
        let (mut after, mut rows) = (Some(i64::MIN), 0);
        for _ in 0..COMPACTIONS_MAX {
            let Some(place) = after else { break };
            let write = self.core.db.write(async |transaction| {
                let (mut place, mut rows) = (place, 0);
                for _ in 0..RUNS_AT_ONCE {
                    match store::sealed::compact(transaction, place).await? {
                        Compacted::All => return Ok((None, rows)),
                        Compacted::Until(last, count) => {
                            place = last;
                            rows += count;
                        }
                    }
                    if rows >= DELETED_AT_ONCE {
                        break;
                    }
                }
                Ok::<_, DbError>((Some(place), rows))
            });
            let (place, count) = write.await?;
            after = place;
            rows += count;
        }
        Ok(rows)
    }
}

impl Core {
    fn old<'r>(&self, rule: &'r RetentionRule) -> Old<'r> {
        Old {
            language: rule.language.as_deref(),
            purpose: rule.purpose.as_deref(),
            before: self.now() - DAY * rule.days,
        }
    }

    /// Some texts; how many.
    async fn delete_old(&self, old: &Old<'_>, actor: &Actor) -> Result<u64, DialoguesError> {
        let now = self.now();
        let write = self
            .db
            .write(async |transaction| -> Result<_, DialoguesError> {
                let some = old.some(transaction, DELETED_AT_ONCE).await?;
                if some.is_empty() {
                    return Ok(0);
                }
                let dialogues: BTreeSet<_> = some.iter().map(|row| (row.1, row.2)).collect();
                let withdrawals = dialogues.iter().map(|(dialogue, customer)| {
                    Ok(Withdrawal {
                        id: self.new_id()?,
                        dialogue: *dialogue,
                        customer: *customer,
                        reason: Reason::Expired,
                        at: now,
                    })
                });
                let withdrawals = withdrawals.collect::<Result<_, getrandom::Error>>()?;
                store::withdrawals::insert(transaction, withdrawals).await?;
                let ids = some.into_iter().map(|(id, ..)| id).collect();
                let count = store::messages::delete(transaction, ids).await?;
                let mut without_texts = Vec::new();
                for (dialogue, _) in dialogues {
                    if !store::messages::has_any(transaction, dialogue).await? {
                        without_texts.push(dialogue);
                    }
                }
                store::dialogues::forget_ids(transaction, &without_texts).await?;
                let event = Event::new(Action::RetentionDelete, "messages");
                let event = event.with(format!("{count} texts"));
                self.record_in(transaction, actor, event).await?;
                Ok(count)
            });
        write.await
    }

    /// The records of dialogues that were decided before a time and whose texts are not held; of how
    /// many.
    async fn delete_decisions(&self, before: Timestamp) -> Result<u64, DialoguesError> {
        let (mut after, mut count) = (None, 0);
        loop {
            let write = self
                .db
                .write(async |transaction| -> Result<_, DialoguesError> {
                    let some = store::dialogues::decided_before(transaction, before, after, 200);
                    let some = some.await?;
                    let mut without_texts = Vec::new();
                    for row in &some {
                        let dialogue = row.decided.dialogue;
                        if !store::messages::has_any(transaction, dialogue).await? {
                            without_texts.push(dialogue);
                        }
                    }
                    store::consents::delete(transaction, without_texts.iter().copied()).await?;
                    store::dialogues::delete(transaction, without_texts.iter().copied()).await?;
                    let last = some.last().map(|row| &row.decided);
                    let place = last.map(|last| (last.decided_at, last.dialogue));
                    Ok((without_texts.len() as u64, place))
                });
            let (deleted, place) = write.await?;
            count += deleted;
            if place.is_none() {
                break;
            }
            after = place;
        }
        loop {
            let write = self.db.write(async |transaction| {
                store::withdrawals::delete_before(transaction, before, DELETED_AT_ONCE).await
            });
            if write.await? < DELETED_AT_ONCE {
                return Ok(count);
            }
        }
    }
}
