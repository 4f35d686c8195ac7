//! What goes on beside requests and workers: jobs that nobody wants any more, or that were kept long enough, are deleted,
//! and the metrics of what lies in the database are brought up to date.

use std::time::Duration;

use auspex_kernel::id::JobId;
use auspex_kernel::service::StopSignal;

use crate::error::JobsError;
use crate::intake::STILL_COMES;
use crate::store::jobs::{Discard, Which};
use crate::types::Status;
use crate::{Jobs, store};

const ROUND: Duration = Duration::from_secs(10);
/// In one transaction.
const CHUNKS_AT_ONCE: u64 = 50;
const JOBS_AT_ONCE: u64 = 100;
/// So long a job is left whose input is not heard of: its server has died.
const RECEIVING: Duration = STILL_COMES.saturating_mul(10);

impl Jobs {
    /// Runs until `stop` is given. An error is logged when it begins.
    pub(crate) async fn keep_up(&self, mut stop: StopSignal) {
        let mut is_failing = false;
        loop {
            let round = async {
                self.show_counts().await?;
                self.discard().await?;
                self.apply_retention().await
            };
            let outcome = tokio::select! {
                biased;
                () = stop.stop_requested() => return,
                outcome = round => outcome,
            };
            match &outcome {
                Ok(0) => {}
                Ok(count) => {
                    tracing::info!(count, "jobs that were kept long enough are deleted");
                }
                Err(error) if !is_failing => {
                    tracing::warn!(%error, "jobs are not deleted by age; it is tried again");
                }
                Err(_) => {}
            }
            is_failing = outcome.is_err();
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = self.core.discarded.notified() => {}
                () = stop.stop_requested() => return,
            }
        }
    }

    /// Deletes what is left of jobs that were cancelled or deleted, and the jobs of users who were deleted.
    ///
    /// # Errors
    /// [`JobsError::Database`].
    pub async fn discard(&self) -> Result<(), JobsError> {
        let noted: Result<(), JobsError> = self
            .core
            .db
            .write(async |transaction| {
                store::owners::tidy(transaction).await?;
                let theirs = Which::OfDeletedUsers;
                Ok(store::jobs::discard(transaction, theirs, Discard::All).await?)
            })
            .await;
        noted?;
        loop {
            let some = self
                .core
                .db
                .read(async |connection| store::jobs::discarded(connection, JOBS_AT_ONCE).await);
            let some = some.await?;
            for id in &some {
                self.delete(id).await?;
            }
            if (some.len() as u64) < JOBS_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Deletes what was kept long enough; how many jobs.
    ///
    /// # Errors
    /// [`JobsError::Database`].
    pub async fn apply_retention(&self) -> Result<u64, JobsError> {
        let (config, now) = (&self.core.config, self.core.clock.now());
        let times = (now - config.retention(), now - RECEIVING);
        let mut count = 0;
        loop {
            let old = self.core.db.read(async |connection| {
                store::jobs::kept_long_enough(connection, times, JOBS_AT_ONCE).await
            });
            let old = old.await?;
            for id in &old {
                let noted: Result<(), JobsError> = self
                    .core
                    .db
                    .write(async |transaction| {
                        let which = Which::Job(id);
                        Ok(store::jobs::discard(transaction, which, Discard::All).await?)
                    })
                    .await;
                noted?;
                self.delete(id).await?;
            }
            count += old.len() as u64;
            if (old.len() as u64) < JOBS_AT_ONCE {
                return Ok(count);
            }
        }
    }

    /// Deletes a job, some chunks at a time.
    pub(crate) async fn delete(&self, id: &JobId) -> Result<(), JobsError> {
        loop {
            let deleted = self.core.db.write(async |transaction| {
                store::jobs::delete_some(transaction, id, CHUNKS_AT_ONCE).await
            });
            if deleted.await? {
                return Ok(());
            }
        }
    }

    async fn show_counts(&self) -> Result<(), JobsError> {
        let counts = self.state_counts().await?;
        let now = self.core.clock.now();
        let queued = counts.iter().find(|count| count.status == Status::Queued);
        let oldest = queued.and_then(|count| count.oldest_at);
        let age = oldest.map_or(0, |oldest| now.since(oldest).as_secs());
        let age = i64::try_from(age).unwrap_or(i64::MAX);
        self.core.metrics.show(&counts, age);
        Ok(())
    }
}
