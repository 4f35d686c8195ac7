//! What goes on beside requests: instances that are not heard of leave, and those that other processes heard of come.

use std::time::Duration;

use auspex_kernel::db::{Db, DbError, Watch};
use auspex_kernel::service::StopSignal;
use tokio::time::MissedTickBehavior;

use crate::registry::Registry;

const ROUND: Duration = Duration::from_millis(250);
/// PostgreSQL does not tell whether anything has changed.
const POSTGRES_ROUND: Duration = Duration::from_secs(1);
/// A query on a dead connection may never end by itself.
const ROUND_MAX: Duration = Duration::from_mins(1);

/// Runs until a stop is requested. An error is logged when it begins and when it ends.
pub(crate) async fn watch(registry: &Registry, db: &Db, mut stop: StopSignal) {
    let mut rounds = tokio::time::interval(match db.is_sqlite() {
        true => ROUND,
        false => POSTGRES_ROUND,
    });
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut notices = registry.notices();
    let (mut watch, mut is_failing) = (None, false);
    loop {
        let round = async {
            // What a notice may have missed, the next round finds: it reads all instances.
            tokio::select! {
                _ = rounds.tick() => {}
                _ = notices.next() => {}
            }
            let round = tokio::time::timeout(ROUND_MAX, round(registry, db, &mut watch));
            round.await.unwrap_or(Err(DbError::Interrupted))
        };
        let outcome = tokio::select! {
            biased;
            () = stop.stop_requested() => break,
            outcome = round => outcome,
        };
        match &outcome {
            Ok(()) if is_failing => tracing::info!("instances of services are followed again"),
            Err(error) if !is_failing => {
                tracing::warn!(%error, "instances of services cannot be followed; those known stay until they are not heard of");
            }
            _ => {}
        }
        is_failing = outcome.is_err();
        if is_failing {
            watch = None;
        }
    }
    if let Some(watch) = watch {
        watch.close().await;
    }
}

async fn round(registry: &Registry, db: &Db, watch: &mut Option<Watch>) -> Result<(), DbError> {
    registry.expire().await?;
    let watch = match watch {
        Some(watch) => watch,
        none => none.insert(db.watch().await?),
    };
    match watch.changed().await? {
        true => registry.catch_up().await,
        false => Ok(()),
    }
}
