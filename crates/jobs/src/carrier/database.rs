//! The database as the carrier of ids.

use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::JobId;
use auspex_kernel::service::Boxed;
use tokio::sync::Notify;

use super::{Carrier, CarrierError};
use crate::store;

/// The database itself: the job that was served longest ago is next. Workers of this process are woken by an offer,
/// those of others look now and then.
#[derive(Debug)]
pub struct InDatabase {
    db: Db,
    pause: Duration,
    offered: Notify,
}

impl InDatabase {
    /// Looks every `pause`.
    pub fn new(db: Db, pause: Duration) -> Self {
        Self {
            db,
            pause,
            offered: Notify::new(),
        }
    }

    /// The job whose turn it is, if one has something to do.
    pub(super) async fn look(&self) -> Result<Option<JobId>, DbError> {
        let found = self
            .db
            .read(async |connection| store::owners::next(connection).await);
        found.await
    }

    /// Wakes a worker of this process that waits, or else the next one that would.
    pub(super) fn wake(&self) {
        self.offered.notify_one();
    }

    /// Waits until it is worth a look.
    pub(super) async fn wait(&self, longest: Duration) {
        // Not woken in time is as good as woken.
        let _ = tokio::time::timeout(longest, self.offered.notified()).await;
    }

    pub(super) fn pause(&self) -> Duration {
        self.pause
    }
}

impl Carrier for InDatabase {
    fn offer<'a>(&'a self, _: &'a JobId) -> Boxed<'a, Result<(), CarrierError>> {
        self.wake();
        Box::pin(std::future::ready(Ok(())))
    }

    fn next(&self) -> Boxed<'_, Result<JobId, CarrierError>> {
        Box::pin(async {
            loop {
                if let Some(job) = self.look().await? {
                    // Another worker may find more.
                    self.wake();
                    return Ok(job);
                }
                self.wait(self.pause).await;
            }
        })
    }
}
