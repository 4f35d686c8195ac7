//! Notices what other processes did to the keys.
//!
//! A notice of another replica begins a round at once; without it, or without Redis, the next one comes soon.
//! A round is cheap where nothing happened: SQLite tells from memory whether anybody wrote at all,
//! and then one counter tells whether it was a key. Whatever fails, the last snapshot stays in
//! force.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use auspex_kernel::clock::StepsBack;
use auspex_kernel::db::{DbError, LOAD_TIMEOUT, Watch};
use tokio::time::MissedTickBehavior;

use crate::core::Core;
use crate::error::IdentityError;
use crate::maintenance::Maintenance;

const ROUND: Duration = Duration::from_millis(250);
/// A query on a dead connection may never end by itself; a load of very many keys needs its time, and
/// may have to wait for another one.
const ROUND_MAX: Duration = LOAD_TIMEOUT.saturating_mul(3);
/// Every five minutes everything is loaded without asking: rows changed by hand, or a backup
/// restored into the open database, need not move the counter. A backup put in the place of a
/// SQLite file is another matter: that file is lost to this process, and every round says so.
const ROUNDS_PER_LOAD: u32 = 1_200;

/// What is known of the database between rounds.
struct Follower {
    watch: Option<Watch>,
    rounds: u32,
    steps: StepsBack,
    /// Everything must be loaded, and was not yet.
    owes_load: bool,
}

/// Follows the database until `stop` is ready, and runs `maintenance` meanwhile. Database errors are
/// logged once, when they begin, and once when they end; so is a SQLite file replaced or removed.
pub(crate) async fn watch(core: &Core, maintenance: &Maintenance, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    let mut follower = Follower {
        watch: None,
        rounds: 0,
        steps: StepsBack::of(&core.clock),
        owes_load: false,
    };
    // Beside the rounds, which are not to wait for it.
    let mut upkeep = pin!(maintenance.run());
    let mut health = Health::Followed;
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut notices = core.notices();
    loop {
        let round = async {
            // What a notice may have missed, the next round finds: it reads all lines since the last one.
            tokio::select! {
                _ = rounds.tick() => {}
                _ = notices.next() => {}
            }
            let round = follower.catch_up(core);
            let ended = tokio::time::timeout(ROUND_MAX, round).await;
            ended.unwrap_or(Err(DbError::Interrupted.into()))
        };
        let outcome = tokio::select! {
            biased;
            () = &mut stop => break,
            outcome = round => outcome,
            never = &mut upkeep => match never {},
        };
        if outcome.is_err() {
            // A new one begins by saying that something changed, so that this is tried again.
            follower.watch = None;
        }
        let now = Health::of(&outcome);
        if health != now {
            log(&outcome, now);
        }
        health = now;
    }
    if let Err(error) = core.audit.add_counts(true).await {
        tracing::warn!(%error, "refusals that were counted are not in the audit record");
    }
    if let Some(watch) = follower.watch {
        watch.close().await;
    }
}

/// How a round ended; a change is logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Followed,
    Failing,
    /// Only a restart helps.
    Replaced,
}

impl Health {
    fn of(outcome: &Result<(), IdentityError>) -> Self {
        match outcome {
            Ok(()) => Self::Followed,
            Err(IdentityError::Database(DbError::Replaced { .. })) => Self::Replaced,
            Err(_) => Self::Failing,
        }
    }
}

fn log(outcome: &Result<(), IdentityError>, health: Health) {
    match outcome {
        Ok(()) => tracing::info!("changes of users and keys are followed again"),
        Err(error) if health == Health::Replaced => {
            tracing::error!(%error, "changes of users and keys cannot be followed; those known stay in force");
        }
        Err(error) => {
            tracing::warn!(%error, "changes of users and keys cannot be followed; those known stay in force");
        }
    }
}

impl Follower {
    async fn catch_up(&mut self, core: &Core) -> Result<(), IdentityError> {
        let watch = match &mut self.watch {
            Some(watch) => watch,
            none => none.insert(core.db.watch().await?),
        };
        let changed = watch.changed().await?;
        self.rounds += 1;
        // What had ended by the time before, and was forgotten, may be in force again.
        self.owes_load |= self.steps.happened(&core.clock);
        self.owes_load |= self.rounds.is_multiple_of(ROUNDS_PER_LOAD);
        if self.owes_load {
            core.following.reload().await?;
            self.owes_load = false;
        } else if changed {
            core.following.catch_up().await?;
        }
        Ok(())
    }
}
