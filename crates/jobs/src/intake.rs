//! From the first byte of a job's input to its row: memory holds a chunk of it at a time.
//!
//! The chunks of a long input are stored as they come, and a job that nobody sees waits for the rest. A job of one chunk
//! is stored at once.

use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::predict::Pinned;
use csv::StringRecord;

use crate::error::JobsError;
use crate::types::{Chunk, Job, NewJob};
use crate::{Jobs, store};

/// A job whose input is on its way.
#[derive(Debug)]
pub struct Intake {
    jobs: Jobs,
    id: JobId,
    new: NewJob,
    /// The chunk that came last, which is stored when another one comes.
    held: Option<Chunk>,
    /// Chunks that are stored, and their rows.
    stored: (i64, u64),
}

impl Jobs {
    /// Begins to receive a job of somebody who may have one more.
    ///
    /// # Errors
    /// [`JobsError::TooMany`], [`JobsError::Randomness`], [`JobsError::Database`].
    pub async fn begin(&self, new: NewJob) -> Result<Intake, JobsError> {
        let owner = new.owner.as_str();
        let count = self
            .core
            .db
            .read(async |connection| store::jobs::count_open(connection, owner, true).await);
        let count = count.await?;
        if count >= self.core.config.open_jobs_max {
            return Err(JobsError::TooMany(count));
        }
        self.receive(new)
    }

    /// Begins to receive a job that may be one that there is already. At the end it is counted.
    ///
    /// # Errors
    /// [`JobsError::Randomness`].
    pub fn receive(&self, new: NewJob) -> Result<Intake, JobsError> {
        Ok(Intake {
            jobs: self.clone(),
            id: JobId::new(&self.core.clock, &self.core.random)?,
            new,
            held: None,
            stored: (0, 0),
        })
    }
}

impl Intake {
    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`JobsError::Forgotten`], [`JobsError::Database`].
    pub async fn take(&mut self, chunk: Chunk) -> Result<(), JobsError> {
        let Some(before) = self.held.replace(chunk) else {
            return Ok(());
        };
        let (core, now) = (&self.jobs.core, self.jobs.core.clock.now());
        let (seq, rows) = self.stored;
        let stored: Result<(), JobsError> = core
            .db
            .write(async |transaction| {
                if seq == 0 {
                    store::jobs::insert(transaction, &self.id, &self.new, now).await?;
                } else if !store::jobs::note_received(transaction, &self.id, now).await? {
                    return Err(JobsError::Forgotten);
                }
                let place = (seq, rows);
                Ok(store::chunks::insert(transaction, &self.id, place, &before).await?)
            })
            .await;
        stored?;
        self.stored = (seq + 1, rows + before.rows);
        Ok(())
    }

    /// What predicts its rows.
    pub fn pinned(&self) -> &Pinned {
        &self.new.pinned
    }

    /// Whether the header of CSV was set.
    pub fn has_header(&self) -> bool {
        self.new.header.is_some()
    }

    /// Sets the header of CSV, before the first chunk is taken.
    pub fn set_header(&mut self, header: StringRecord) {
        self.new.header = Some(header);
    }

    /// Whether a row has come.
    pub fn has_rows(&self) -> bool {
        self.held.is_some()
    }

    /// The input is complete: from here on the job exists.
    ///
    /// # Errors
    /// [`JobsError::Forgotten`], [`JobsError::TooMany`], [`JobsError::Database`].
    pub async fn finish(&mut self, receipt: Receipt<Job>) -> Result<Kept, JobsError> {
        let (core, now) = (self.jobs.core.clone(), self.jobs.core.clock.now());
        let last = self.held.take().unwrap_or_default();
        let (seq, rows) = self.stored;
        let kept: Result<Kept, JobsError> = core
            .db
            .write(async |transaction| {
                if seq == 0 {
                    store::jobs::insert(transaction, &self.id, &self.new, now).await?;
                }
                store::chunks::insert(transaction, &self.id, (seq, rows), &last).await?;
                let counts = (rows + last.rows, seq + 1);
                let job = store::jobs::open(transaction, &self.id, counts, now).await?;
                let job = job.ok_or(JobsError::Forgotten)?;
                let owner = self.new.owner.as_str();
                let open = store::jobs::count_open(transaction, owner, false).await?;
                if open > core.config.open_jobs_max {
                    return Err(JobsError::TooMany(open - 1));
                }
                Ok(receipt.keep(transaction, &job).await?)
            })
            .await;
        let kept = kept?;
        self.stored = (0, 0);
        core.metrics.submitted.inc();
        core.offer(&self.id).await;
        Ok(kept)
    }

    /// Deletes what was stored of a job that does not come about. After a failure the upkeep does so, later.
    pub async fn drop_input(self) {
        if self.stored.0 > 0
            && let Err(error) = self.jobs.delete(&self.id).await
        {
            tracing::warn!(%error, "the input of a job that was not submitted is deleted later");
        }
    }
}
