//! What carries ids of jobs to workers: the seam for message brokers.
//!
//! The database says what is to be done; a carrier only says where to look first. So it may lose an id, give it twice or to
//! several workers, and keep one that nobody wants any more: whoever gets an id claims a chunk of that job, or finds none.

use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::JobId;
use auspex_kernel::service::Boxed;
use tokio::sync::Notify;

use crate::store;

/// Carries ids of jobs that have work.
pub trait Carrier: Send + Sync {
    /// Takes the id of a job that has something to do. It is bounded in time.
    ///
    /// # Errors
    /// [`CarrierError`]: the job will be found later.
    fn offer<'a>(&'a self, job: &'a JobId) -> Boxed<'a, Result<(), CarrierError>>;

    /// The next job to look at. It waits until there is one, for as long as that takes; dropping it loses nothing for
    /// good.
    ///
    /// # Errors
    /// [`CarrierError`]: ask again after a while.
    fn next(&self) -> Boxed<'_, Result<JobId, CarrierError>>;
}

/// A carrier does not work.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] DbError),
}

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
}

impl Carrier for InDatabase {
    fn offer<'a>(&'a self, _: &'a JobId) -> Boxed<'a, Result<(), CarrierError>> {
        self.offered.notify_one();
        Box::pin(std::future::ready(Ok(())))
    }

    fn next(&self) -> Boxed<'_, Result<JobId, CarrierError>> {
        Box::pin(async {
            loop {
                let found = self
                    .db
                    .read(async |connection| store::owners::next(connection).await);
                if let Some(job) = found.await? {
                    // Another worker may find more.
                    self.offered.notify_one();
                    return Ok(job);
                }
                // Not notified in time is as good as notified.
                let _ = tokio::time::timeout(self.pause, self.offered.notified()).await;
            }
        })
    }
}
