//! From the first byte of a job's input to its row: memory holds a chunk of it at a time.
//!
//! The chunks of a long input are stored as they come, and a job that nobody sees waits for the rest. A job of one chunk
//! is stored at once.
//!
//! Where workers are idle meanwhile, chunks are predicted as they come, and their results are stored in place of them. The
//! last one is not, nor is one that fails or takes long: workers claim those when the job is there.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::clock::monotonic;
use auspex_kernel::db::Transaction;
use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::predict::{Batch, Pinned};
use bytes::Bytes;
use csv::StringRecord;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::error::JobsError;
use crate::store::jobs::Amount;
use crate::types::{Chunk, ChunkResult, Content, Job, NewJob, Placed};
use crate::{Jobs, store};

/// So many chunks are stored by one transaction at most.
const TOGETHER_MAX: usize = 256;
/// How long the prediction of a chunk may take here, and how long the input waits for predictions, altogether.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is noted that an input is on its way still, while nothing of it is stored.
pub(crate) const STILL_COMES: Duration = Duration::from_secs(30);

/// A job whose input is on its way.
#[derive(Debug)]
pub struct Intake {
    jobs: Jobs,
    id: JobId,
    new: NewJob,
    /// The chunk that came last, which is stored when another one comes.
    held: Option<Chunk>,
    /// What came before that.
    came: Amount,
    predicting: JoinSet<Placed>,
    /// How long the input may still wait for these; none left: chunks are no longer predicted here.
    patience: Duration,
    /// Whether anything is stored.
    is_stored: bool,
    /// What is stored with its results.
    done: Amount,
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
            came: Amount::default(),
            predicting: JoinSet::new(),
            patience: PATIENCE,
            is_stored: false,
            done: Amount::default(),
        })
    }
}

impl Intake {
    /// Takes the next chunks.
    ///
    /// # Errors
    /// [`JobsError::Forgotten`], [`JobsError::TooMuch`], [`JobsError::Database`].
    pub async fn take(&mut self, chunks: impl IntoIterator<Item = Chunk>) -> Result<(), JobsError> {
        let mut ready = Vec::new();
        for chunk in chunks {
            if let Some(chunk) = self.held.replace(chunk) {
                match self.slot(&mut ready).await? {
                    Some(slot) => self.predict(chunk, slot),
                    None => ready.push(self.place(chunk)),
                }
            }
            while let Some(placed) = self.predicting.try_join_next() {
                ready.push(self.noted(placed)?);
            }
            if ready.len() >= TOGETHER_MAX {
                self.store(std::mem::take(&mut ready)).await?;
            }
        }
        self.store(ready).await
    }

    /// Notes that the input is on its way still, though nothing has come for a while: what is not heard of is
    /// deleted after some minutes.
    ///
    /// # Errors
    /// [`JobsError::Forgotten`], [`JobsError::Database`].
    pub async fn note_waiting(&self) -> Result<(), JobsError> {
        if !self.is_stored {
            return Ok(());
        }
        let (core, now) = (&self.jobs.core, self.jobs.core.clock.now());
        let noted: Result<bool, JobsError> = core
            .db
            .write_unsynced(async |transaction| {
                Ok(store::jobs::note_received(transaction, &self.id, 0, now).await?)
            })
            .await;
        match noted? {
            true => Ok(()),
            false => Err(JobsError::Forgotten),
        }
    }

    /// The right to predict a chunk, if no worker needs it. Predictions of this input that are under way are waited for:
    /// to those that end meanwhile `ready` is added.
    async fn slot(
        &mut self,
        ready: &mut Vec<Placed>,
    ) -> Result<Option<OwnedSemaphorePermit>, JobsError> {
        while !self.patience.is_zero() {
            let slots = &self.jobs.core.slots;
            // One is left to workers, where there are several: each takes memory.
            let is_spared = self.predicting.is_empty() || slots.available_permits() > 1;
            if is_spared && let Ok(slot) = slots.clone().try_acquire_owned() {
                return Ok(Some(slot));
            }
            if self.predicting.is_empty() {
                return Ok(None);
            }
            let began = monotonic();
            if let Ok(Some(placed)) = timeout(self.patience, self.predicting.join_next()).await {
                ready.push(self.noted(placed)?);
            }
            self.patience = self.patience.saturating_sub(began.elapsed());
        }
        Ok(None)
    }

    /// A chunk in its place, after all that came.
    fn place(&mut self, chunk: Chunk) -> Placed {
        let placed = Placed {
            seq: self.came.chunks,
            first_row: self.came.rows,
            rows: chunk.rows,
            content: Content::Input(chunk.text),
        };
        self.came.chunks += 1;
        self.came.rows += chunk.rows;
        placed
    }

    fn predict(&mut self, chunk: Chunk, slot: OwnedSemaphorePermit) {
        let mut placed = self.place(chunk);
        let (core, pinned) = (self.jobs.core.clone(), self.new.pinned.clone());
        let header = self.new.header.clone();
        self.predicting.spawn(async move {
            let Content::Input(text) = placed.content else {
                return placed;
            };
            let text = Bytes::from(text);
            let batch = Batch {
                header,
                text: text.clone(),
            };
            let now = core.clock.now();
            let predicting = core.predict_batch(&pinned, batch, placed.rows, now);
            let predicted = timeout(PATIENCE, predicting).await;
            placed.content = match predicted {
                Ok(Ok(predicted)) => Content::Result(ChunkResult::of(predicted, placed.first_row)),
                _ => Content::Input(text.into()),
            };
            drop(slot);
            placed
        });
    }

    /// Counts a chunk that was to be predicted here. If it was not, others are not tried.
    fn noted(&mut self, placed: Result<Placed, JoinError>) -> Result<Placed, JobsError> {
        // The server stops.
        let placed = placed.map_err(|_| JobsError::Forgotten)?;
        match &placed.content {
            Content::Result(result) => {
                self.done.chunks += 1;
                self.done.rows += placed.rows;
                self.done.wrong += result.wrong;
            }
            Content::Input(_) => self.patience = Duration::ZERO,
        }
        Ok(placed)
    }

    async fn store(&mut self, chunks: Vec<Placed>) -> Result<(), JobsError> {
        if chunks.is_empty() {
            return Ok(());
        }
        let (core, now) = (&self.jobs.core, self.jobs.core.clock.now());
        let stored: Result<(), JobsError> = core
            .db
            // The end of the input, which is acknowledged, waits for the disk.
            .write_unsynced(async |transaction| {
                self.add(transaction, chunks, now).await?;
                // Whether the job is one that there is already is known at the end, so there must be room for it.
                let room = core.config.input_bytes_max as u64;
                self.check_bytes(transaction, room).await
            })
            .await;
        stored?;
        self.is_stored = true;
        Ok(())
    }

    /// Stores chunks, and before the first ones the job.
    async fn add(
        &self,
        transaction: &Transaction,
        chunks: Vec<Placed>,
        now: Timestamp,
    ) -> Result<(), JobsError> {
        if !self.is_stored {
            store::jobs::insert(transaction, &self.id, &self.new, now).await?;
        }
        let bytes = chunks.iter().map(|chunk| chunk.content.bytes()).sum();
        if !store::jobs::note_received(transaction, &self.id, bytes, now).await? {
            return Err(JobsError::Forgotten);
        }
        Ok(store::chunks::insert(transaction, &self.id, chunks).await?)
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
        let mut ready = Vec::new();
        while let Some(placed) = self.predicting.join_next().await {
            ready.push(self.noted(placed)?);
        }
        let last = self.held.take().unwrap_or_default();
        ready.push(self.place(last));
        let (core, now) = (self.jobs.core.clone(), self.jobs.core.clock.now());
        let kept: Result<Kept, JobsError> = core
            .db
            .write(async |transaction| {
                self.add(transaction, ready, now).await?;
                let (all, done) = (self.came, self.done);
                let job = store::jobs::open(transaction, &self.id, all, done, now).await?;
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
        self.is_stored = false;
        core.metrics.submitted.inc();
        core.metrics.rows.inc_by(self.done.rows);
        core.offer(&self.id).await;
        Ok(kept)
    }

    /// Deletes what was stored of a job that does not come about. After a failure the upkeep does so, later.
    pub async fn drop_input(self) {
        if self.is_stored
            && let Err(error) = self.jobs.delete(&self.id).await
        {
            tracing::warn!(%error, "the input of a job that was not submitted is deleted later");
        }
    }
}
