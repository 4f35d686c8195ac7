//! What every operation works with: the database, time and chance, who is in force, and the one way
//! to change something.

mod change;
mod following;

use std::sync::{Arc, OnceLock};

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::redis::{Notices, Redis};
use auspex_kernel::{Clock, Random, Timestamp};

use crate::audit::{Actor, AuditRecord};
use crate::directory::Directory;
use crate::error::IdentityError;
use crate::store;
use change::renewed;
pub(crate) use change::{Change, Needs, Refusal};
pub(crate) use following::Following;

/// Where replicas are told that somebody has changed something.
const CHANNEL: &str = "identity";

/// The ground that operations share.
pub(crate) struct Core {
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) directory: Arc<Directory>,
    pub(crate) following: Following,
    pub(crate) audit: AuditRecord,
    /// What tells other replicas of changes, if there are any.
    redis: OnceLock<Redis>,
}

impl Core {
    /// Loads who is in force.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn open(db: Db, clock: Clock, random: Random) -> Result<Self, IdentityError> {
        let directory = Arc::new(Directory::default());
        let following = Following::new(db.clone(), clock.clone(), Arc::clone(&directory));
        following.reload().await?;
        let audit = AuditRecord::new(db.clone(), clock.clone(), random.clone());
        audit.follow_ids().await?;
        Ok(Self {
            audit,
            redis: OnceLock::new(),
            db,
            clock,
            random,
            directory,
            following,
        })
    }

    /// From now on other replicas are told of changes. They would find them by themselves a little later.
    pub(crate) fn share(&self, redis: Redis) {
        let _ = self.redis.set(redis);
    }

    /// Hears what other replicas change.
    pub(crate) fn notices(&self) -> Notices {
        let redis = self.redis.get();
        redis.map_or_else(Notices::none, |redis| redis.listen(CHANNEL))
    }

    /// The time here.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a change that is in force here when this returns, or, if the database fails just after
    /// the commit, as soon as it answers again.
    ///
    /// # Errors
    /// What `decide` says; [`IdentityError::CredentialEnded`], [`IdentityError::Database`].
    pub(crate) async fn change<T>(
        &self,
        actor: &Actor,
        needs: Needs,
        decide: impl AsyncFnOnce(&Change<'_>) -> Result<T, Refusal>,
    ) -> Result<T, IdentityError> {
        let done = self.store_change(actor, needs, decide).await?;
        self.put_in_force().await;
        Ok(done)
    }

    /// Brings into force here what is stored, which takes no longer than one call to the database.
    /// What fails is no error of the change: that is made, and its answer may hold a secret that is
    /// shown once. `watch.rs` tries until it succeeds.
    pub(crate) async fn put_in_force(&self) {
        if let Some(redis) = self.redis.get() {
            redis.announce(CHANNEL);
        }
        let caught_up =
            tokio::time::timeout(self.db.limits().call_timeout, self.following.catch_up());
        if let Err(error) = caught_up.await.unwrap_or(Err(DbError::Interrupted.into())) {
            tracing::warn!(%error, "a change is stored but not yet in force");
        }
    }

    async fn store_change<T>(
        &self,
        actor: &Actor,
        needs: Needs,
        decide: impl AsyncFnOnce(&Change<'_>) -> Result<T, Refusal>,
    ) -> Result<T, IdentityError> {
        let now = self.now();
        let decided = self
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                store::lock(transaction).await?;
                let actor = match needs {
                    Needs::Scope(scope) => renewed(actor, transaction, Some(scope), now).await?,
                    Needs::Credential => renewed(actor, transaction, None, now).await?,
                    Needs::Nothing => actor.clone(),
                };
                let change = Change {
                    transaction,
                    actor,
                    now,
                    audit: &self.audit,
                };
                match decide(&change).await {
                    Ok(done) => Ok(Ok(done)),
                    Err(Refusal {
                        error,
                        event: Some(event),
                    }) => {
                        if self.audit.has_line(&change.actor, &event) {
                            change.record(event).await?;
                        }
                        // No error of the transaction: what was recorded is kept.
                        Ok(Err(error))
                    }
                    Err(Refusal { error, event: None }) => Err(error),
                }
            });
        // Boxed, so that the futures of all that change something stay small.
        Box::pin(decided).await?
    }
}
