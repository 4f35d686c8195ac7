//! From the first byte of a job's input to its row: memory holds a chunk of it at a time.
//!
//! The chunks of a long input are stored as they come, and a job that nobody sees waits for the rest. A job of one chunk
//! is stored at once.

use std::collections::VecDeque;

use auspex_kernel::Timestamp;
use auspex_kernel::db::Transaction;
use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::predict::Pinned;
use csv::StringRecord;

use crate::error::JobsError;
use crate::types::{Chunk, Job, NewJob};
use crate::{Jobs, store};

/// So many chunks are stored by one transaction at most.
const TOGETHER_MAX: usize = 256;

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
    /// [`JobsError::TooMany`], [`JobsError::TooMuch`], [`JobsError::Randomness`], [`JobsError::Database`].
    pub async fn begin(&self, new: NewJob) -> Result<Intake, JobsError> {
        let owner = new.owner.as_str();
        let held: Result<(u64, u64), JobsError> = self
            .core
            .db
            .read(async |connection| {
                let count = store::jobs::count_open(connection, owner, true).await?;
                Ok((count, store::jobs::stored_bytes(connection, owner).await?))
            })
            .await;
        let (count, bytes) = held?;
        let config = &self.core.config;
        if count >= config.open_jobs_max {
            return Err(JobsError::TooMany(count));
        }
        if bytes >= config.stored_bytes_max {
            return Err(JobsError::TooMuch(config.stored_bytes_max));
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
    /// Takes the next chunks.
    ///
    /// # Errors
    /// [`JobsError::Forgotten`], [`JobsError::TooMuch`], [`JobsError::Database`].
    pub async fn take(&mut self, chunks: impl IntoIterator<Item = Chunk>) -> Result<(), JobsError> {
        let mut waiting: VecDeque<Chunk> = self.held.take().into_iter().chain(chunks).collect();
        self.held = waiting.pop_back();
        while !waiting.is_empty() {
            let count = waiting.len().min(TOGETHER_MAX);
            let group: Vec<Chunk> = waiting.drain(..count).collect();
            self.store(&group).await?;
        }
        Ok(())
    }

    async fn store(&mut self, chunks: &[Chunk]) -> Result<(), JobsError> {
        let (core, now) = (&self.jobs.core, self.jobs.core.clock.now());
        let stored: Result<(), JobsError> = core
            .db
            .write(async |transaction| {
                self.add(transaction, chunks, now).await?;
                // Whether the job is one that there is already is known at the end, so there must be room for it.
                let room = core.config.input_bytes_max as u64;
                self.check_bytes(transaction, room).await
            })
            .await;
        stored?;
        let rows: u64 = chunks.iter().map(|chunk| chunk.rows).sum();
        self.stored.0 += chunks.len() as i64;
        self.stored.1 += rows;
        Ok(())
    }

    /// Stores chunks, and before the first one the job.
    async fn add(
        &self,
        transaction: &Transaction,
        chunks: &[Chunk],
        now: Timestamp,
    ) -> Result<(), JobsError> {
        if self.stored.0 == 0 {
            store::jobs::insert(transaction, &self.id, &self.new, now).await?;
        }
        let bytes = chunks.iter().map(|chunk| chunk.text.len()).sum();
        if !store::jobs::note_received(transaction, &self.id, bytes, now).await? {
            return Err(JobsError::Forgotten);
        }
        Ok(store::chunks::insert(transaction, &self.id, self.stored, chunks).await?)
    }

    /// Whether its owner holds no more than they may, and `room` beside.
    async fn check_bytes(&self, transaction: &Transaction, room: u64) -> Result<(), JobsError> {
        let max = self.jobs.core.config.stored_bytes_max;
        let stored = store::jobs::stored_bytes(transaction, &self.new.owner).await?;
        match stored > max.saturating_add(room) {
            true => Err(JobsError::TooMuch(max)),
            false => Ok(()),
        }
    }

    /// What predicts its rows.
    pub fn pinned(&self) -> &Pinned {
        &self.new.pinned
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
    /// [`JobsError::Forgotten`], [`JobsError::TooMany`], [`JobsError::TooMuch`], [`JobsError::Database`].
    pub async fn finish(&mut self, receipt: Receipt<Job>) -> Result<Kept, JobsError> {
        let (core, now) = (self.jobs.core.clone(), self.jobs.core.clock.now());
        let last = self.held.take().unwrap_or_default();
        let (seq, rows) = self.stored;
        let kept: Result<Kept, JobsError> = core
            .db
            .write(async |transaction| {
                self.add(transaction, std::slice::from_ref(&last), now)
                    .await?;
                let counts = (rows + last.rows, seq + 1);
                let job = store::jobs::open(transaction, &self.id, counts, now).await?;
                let job = job.ok_or(JobsError::Forgotten)?;
                let owner = self.new.owner.as_str();
                let open = store::jobs::count_open(transaction, owner, false).await?;
                if open > core.config.open_jobs_max {
                    return Err(JobsError::TooMany(open - 1));
                }
                self.check_bytes(transaction, 0).await?;
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
