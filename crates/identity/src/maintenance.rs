//! What is done now and then, so that nothing grows without bound: ended rows are removed, uses of
//! keys are stored, refusals that were counted are recorded, the next signing key is made in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use tokio::time::Instant;

use crate::config::Retention;
use crate::core::Core;
use crate::error::IdentityError;
use crate::signing::SigningKeys;
use crate::store;

const ROUND: Duration = Duration::from_secs(30);
/// A query on a dead connection may never end by itself.
const ROUND_MAX: Duration = Duration::from_mins(5);

/// Other processes read changes every quarter of a second; one that missed an hour loads everything.
const CHANGES_KEPT: Duration = Duration::from_hours(1);
/// Anybody can add devices, so that those that have ended are not kept as long as other rows. Until
/// then they are told that they have.
const DEVICES_KEPT: Duration = Duration::from_hours(1);
/// Such transactions in one round, or with many logins a second the tables would grow all the same.
const REMOVALS_MAX: usize = 50;
/// Uses of keys stored in one transaction.
const USES_MAX: usize = 1_000;

/// Does what is to be done now and then.
pub struct Maintenance {
    core: Arc<Core>,
    signing_keys: SigningKeys,
    retention: Retention,
}

impl Maintenance {
    pub(crate) fn new(core: Arc<Core>, signing_keys: SigningKeys, retention: Retention) -> Self {
        Self {
            core,
            signing_keys,
            retention,
        }
    }

    /// Rounds of it for ever. An error is logged when it begins and when it ends.
    pub(crate) async fn run(&self) -> Infallible {
        let (mut uses_since, mut is_failing) = (Timestamp(0), false);
        let mut rounds = tokio::time::interval_at(Instant::now() + ROUND, ROUND);
        loop {
            rounds.tick().await;
            let round = tokio::time::timeout(ROUND_MAX, self.tend(uses_since)).await;
            match round.unwrap_or(Err(DbError::Interrupted.into())) {
                Ok(until) => {
                    uses_since = until;
                    if is_failing {
                        tracing::info!("upkeep of users and keys goes on");
                    }
                    is_failing = false;
                }
                Err(error) => {
                    if !is_failing {
                        tracing::warn!(%error, "upkeep of users and keys fails; it is tried again");
                    }
                    is_failing = true;
                }
            }
        }
    }

    /// One round. `uses_since` is when the last one stored uses of keys; the time until which this
    /// one did.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub async fn tend(&self, uses_since: Timestamp) -> Result<Timestamp, IdentityError> {
        self.signing_keys.tend().await?;
        self.core.audit.add_counts(false).await?;
        let now = self.core.now();
        self.core.following.forget_ended(now).await;
        let used = self.core.directory.keys_used_since(uses_since);
        for some in used.chunks(USES_MAX) {
            let some = some.to_vec();
            let stored = self
                .core
                .db
                .write(async |transaction| -> Result<_, IdentityError> {
                    for (id, at) in &some {
                        store::keys::set_last_used_at(transaction, id, *at).await?;
                    }
                    Ok(())
                });
            stored.await?;
        }
        let days = |count: u32| now - Duration::from_hours(24) * count;
        let ended = store::ended::Ended {
            now,
            changes_before: now - CHANGES_KEPT,
            devices_before: now - DEVICES_KEPT,
            ended_before: days(self.retention.ended_days),
            logins_before: days(self.retention.logins_days),
            audit_before: days(self.retention.audit_days),
        };
        for _ in 0..REMOVALS_MAX {
            let removed = self
                .core
                .db
                .write(async |transaction| store::ended::remove(transaction, ended).await);
            if !removed.await? {
                break;
            }
        }
        Ok(now)
    }
}
