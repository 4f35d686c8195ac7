//! What goes on beside requests: erasures of other processes are followed, logs that could not be
//! emptied are emptied, what was kept long enough is deleted.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::audit::Actor;
use auspex_kernel::clock::Steady;
use auspex_kernel::db::{DbError, Watch};
use tokio::time::MissedTickBehavior;

use crate::Dialogues;
use crate::error::DialoguesError;
use crate::pending::Pending as _;

const ROUND: Duration = Duration::from_millis(250);
/// PostgreSQL does not tell whether anything has changed.
const POSTGRES_ROUND: Duration = Duration::from_secs(1);
/// A query on a dead connection may never end by itself.
const ROUND_MAX: Duration = Duration::from_mins(5);
/// Processes note erasures by their own clocks, and a transaction may take its time.
const TOLD_AGAIN: Duration = Duration::from_mins(2);
/// Whoever asked for an erasure carries it out; after this time they have most likely given up.
const CUT_OFF_AFTER: Duration = Duration::from_secs(30);
/// The record of erasures is kept for ever, and all of it is looked through.
const CARRY_ON_PAUSE: Duration = Duration::from_mins(1);
const RETENTION_PAUSE: Duration = Duration::from_hours(1);

struct Follower<'d> {
    dialogues: &'d Dialogues,
    watch: Option<Watch>,
    since: Timestamp,
    /// Those since then that were dealt with.
    seen: HashSet<[u8; 16]>,
    carried_on_at: Option<Steady>,
    retention_at: Option<Steady>,
}

impl Dialogues {
    /// Runs until `stop` is ready. An error is logged when it begins and when it ends.
    pub async fn watch(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let pause = match self.core.keys.db.is_sqlite() {
            true => ROUND,
            false => POSTGRES_ROUND,
        };
        let mut follower = Follower {
            dialogues: self,
            watch: None,
            since: self.core.now(),
            seen: HashSet::new(),
            carried_on_at: None,
            retention_at: None,
        };
        let mut rounds = tokio::time::interval(pause);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            let round = async {
                rounds.tick().await;
                let round = tokio::time::timeout(ROUND_MAX, follower.round());
                round.await.unwrap_or(Err(DbError::Interrupted.into()))
            };
            let outcome = tokio::select! {
                biased;
                () = &mut stop => break,
                outcome = round => outcome,
            };
            match &outcome {
                Ok(()) if is_failing => tracing::info!("the upkeep of dialogues goes on"),
                Err(error) if !is_failing => {
                    tracing::warn!(%error, "erasures cannot be followed, nor texts deleted by age; it is tried again");
                }
                _ => {}
            }
            is_failing = outcome.is_err();
            if is_failing {
                follower.watch = None;
            }
        }
        if let Some(watch) = follower.watch {
            watch.close().await;
        }
        self.close().await;
    }

    /// Closes the keys database where it is one of its own.
    pub async fn close(&self) {
        if !self.keys_are_with_texts() {
            self.core.keys.db.close().await;
        }
    }
}

impl Follower<'_> {
    async fn round(&mut self) -> Result<(), DialoguesError> {
        let core = &*self.dialogues.core;
        // While the buffer is away nothing of it is due here, and what is due later goes later.
        let _ = self.dialogues.pending.expire().await;
        let size = self.dialogues.pending.size().await;
        core.counts.pending_bytes.set(size.bytes as i64);
        core.counts.pending_dialogues.set(size.dialogues as i64);
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(core.keys.db.watch().await?),
        };
        if watch.changed().await? {
            self.follow().await?;
        }
        if core.logs.is_owed() {
            core.truncate_logs().await;
        }
        if self.is_due(self.retention_at, RETENTION_PAUSE) {
            let expired = self.dialogues.apply_retention(&Actor::operator()).await?;
            self.dialogues.compact().await?;
            self.retention_at = Some(core.clock.steady());
            let count: u64 = expired.iter().map(|expired| expired.count).sum();
            if count > 0 {
                tracing::info!(
                    count,
                    "texts and records that were kept long enough are deleted"
                );
            }
        }
        if self.is_due(self.carried_on_at, CARRY_ON_PAUSE) {
            let cut_off = core.now() - CUT_OFF_AFTER;
            self.dialogues.carry_on_cut_off(cut_off).await?;
            self.carried_on_at = Some(core.clock.steady());
        }
        Ok(())
    }

    fn is_due(&self, last: Option<Steady>, pause: Duration) -> bool {
        let now = self.dialogues.core.clock.steady();
        last.is_none_or(|last| now.since(last) >= pause)
    }

    async fn follow(&mut self) -> Result<(), DialoguesError> {
        let core = &*self.dialogues.core;
        let now = core.now();
        let since = self.since - TOLD_AGAIN;
        let told = self.dialogues.erased_since(since).await?;
        for erasure in &told {
            if !self.seen.contains(&erasure.id) {
                core.keys.forget(erasure.customer);
                let pending = &self.dialogues.pending;
                let until = erasure.erased_at;
                pending.drop_customer(erasure.customer, until).await?;
            }
        }
        self.seen = told.into_iter().map(|erasure| erasure.id).collect();
        self.since = now;
        Ok(())
    }
}
