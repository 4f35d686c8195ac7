//! Workers: claim a chunk, predict it, store the result, again and again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::JobId;
use auspex_kernel::predict::{Batch, NoPrediction, Pinned, Predicted};
use auspex_kernel::service::StopSignal;
use futures_util::FutureExt as _;
use tokio::sync::SemaphorePermit;

use crate::store::chunks::{self, CHUNK_FAILED, Claimed, Failed, MODEL_REPLACED, NotDone};
use crate::types::{ChunkResult, Claim, Status};
use crate::{Core, Jobs};

/// After an error that says nothing of the chunk.
const PAUSE: Duration = Duration::from_secs(1);
/// So long a job waits for a model that this server does not have: another may, or it is on its way to all of them.
const NOT_SERVED_MAX: Duration = Duration::from_secs(3_600);
/// After a job of which no chunk could be claimed: others have them.
const YIELD: Duration = Duration::from_millis(20);

impl Jobs {
    /// Works until `stop` is given, with as many workers as the settings say.
    pub async fn work(&self, stop: &StopSignal) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match self.core.config.workers {
            // While one waits for the database, the others keep the cores busy.
            0 => cores + 1,
            workers => workers,
        };
        self.core.slots.add_permits(workers);
        let worker = |_| work(self.core.clone(), stop.clone());
        futures_util::future::join_all((0..workers).map(worker)).await;
    }

    /// Claims the next chunk of a job.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn claim(&self, job: &JobId) -> Result<Option<Claim>, DbError> {
        match self.core.claim(job).await? {
            Claimed::Chunk(claim) => Ok(Some(*claim)),
            Claimed::Dead | Claimed::Nothing => Ok(None),
        }
    }

    /// Stores the result of a chunk; whether it was still this worker's.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn complete(&self, claim: &Claim, result: ChunkResult) -> Result<bool, DbError> {
        self.core.complete(claim, result).await
    }

    /// Predicts a chunk and stores what came of it, failures too.
    ///
    /// # Errors
    /// [`DbError`]: the chunk is claimed again when its lease is over.
    pub async fn process(&self, claim: Claim) -> Result<(), DbError> {
        self.core.process(claim).await
    }
}

/// One worker.
async fn work(core: Arc<Core>, mut stop: StopSignal) {
    let mut is_failing = false;
    loop {
        let claimed = tokio::select! {
            biased;
            () = stop.stop_requested() => return,
            claimed = core.claim_next() => claimed,
        };
        let pause = match claimed {
            Ok((Claimed::Chunk(claim), _slot)) => {
                is_failing = false;
                let given_back = Claim::clone(&claim);
                let processed = tokio::select! {
                    biased;
                    () = stop.stop_requested() => {
                        // Another process goes on at once, and this was no failure.
                        let _ = core.release(&given_back, Duration::ZERO).await;
                        return;
                    }
                    processed = core.process(*claim) => processed,
                };
                match processed {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::warn!(%error, job.id = %given_back.job, "what became of a chunk could not be stored; it is predicted again");
                        PAUSE
                    }
                }
            }
            Ok((Claimed::Dead, _)) => continue,
            Ok((Claimed::Nothing, slot)) => {
                drop(slot);
                YIELD
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "no jobs can be found; it is tried again");
                }
                PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.stop_requested() => return,
        }
    }
}

/// Why a chunk was not predicted.
pub(crate) enum Failure {
    /// Nothing is wrong with it.
    NotNow,
    /// It counts as an attempt.
    Because(String),
    /// No attempt would be better.
    ForGood(String),
}

impl Core {
    /// Claims a chunk of the job whose turn it is, once there may be one more under way here.
    async fn claim_next(&self) -> Result<(Claimed, SemaphorePermit<'_>), String> {
        let job = self.carrier.next().await;
        let job = job.map_err(|error| error.to_string())?;
        let slot = self.slots.acquire().await;
        let slot = slot.map_err(|error| error.to_string())?;
        let claimed = self.claim(&job).await;
        Ok((claimed.map_err(|error| error.to_string())?, slot))
    }

    async fn claim(&self, job: &JobId) -> Result<Claimed, DbError> {
        let (lease, attempts, now) = (
            self.config.lease(),
            self.config.attempts_max,
            self.clock.now(),
        );
        let claimed = self
            .db
            .write_unsynced(async |transaction| {
                chunks::claim(transaction, job, lease, attempts, now).await
            })
            .await?;
        if let Claimed::Dead = claimed {
            self.note_dead(job);
        }
        Ok(claimed)
    }

    fn note_dead(&self, job: &JobId) {
        self.metrics.count_end(Status::Failed);
        tracing::error!(job.id = %job, "a job has failed: a chunk of it is not tried again");
    }

    async fn process(&self, claim: Claim) -> Result<(), DbError> {
        let predicted = {
            let predicting = self.predict(&claim);
            let keeping = self.keep(&claim);
            tokio::select! {
                predicted = predicting => predicted,
                // Somebody else has it, or nobody wants it.
                () = keeping => return Ok(()),
            }
        };
        match predicted {
            Ok(predicted) => {
                let result = ChunkResult::of(predicted, claim.first_row);
                self.complete(&claim, result).await?;
                Ok(())
            }
            Err(Failure::NotNow) => self.release(&claim, PAUSE).await,
            Err(Failure::Because(reason)) => {
                let attempts_max = self.config.attempts_max;
                self.fail(&claim, (CHUNK_FAILED, &reason), attempts_max)
                    .await
            }
            Err(Failure::ForGood(reason)) => {
                self.fail(&claim, (MODEL_REPLACED, &reason), claim.attempts)
                    .await
            }
        }
    }

    /// Renews the lease of a chunk for as long as it is wanted.
    async fn keep(&self, claim: &Claim) {
        let lease = self.config.lease();
        loop {
            tokio::time::sleep(lease / 3).await;
            let renewed = self
                .db
                .write_unsynced(async |transaction| chunks::renew(transaction, claim, lease).await);
            // While the database does not answer the lease may last all the same.
            if let Ok(false) = renewed.await {
                return;
            }
        }
    }

    /// The rows of a chunk. They are read after it was claimed: meanwhile others claim theirs.
    async fn input(&self, claim: &Claim) -> Result<Vec<u8>, Failure> {
        let read = self
            .db
            .read(async |connection| chunks::input(connection, claim).await);
        match read.await {
            Ok(Some(input)) => Ok(input),
            Ok(None) => Err(Failure::Because("its rows are gone".into())),
            Err(error) => {
                tracing::warn!(%error, job.id = %claim.job, "the rows of a chunk could not be read; they are read again");
                Err(Failure::NotNow)
            }
        }
    }

    async fn predict(&self, claim: &Claim) -> Result<Predicted, Failure> {
        let batch = Batch {
            header: claim.header.clone(),
            text: self.input(claim).await?.into(),
        };
        self.predict_batch(&claim.pinned, batch, claim.rows, claim.created_at)
            .await
    }

    /// Predicts so many rows of a job that has been there since then.
    pub(crate) async fn predict_batch(
        &self,
        pinned: &Pinned,
        batch: Batch,
        rows: u64,
        since: Timestamp,
    ) -> Result<Predicted, Failure> {
        let predicting = Arc::clone(&self.predictor).predict(pinned.clone(), batch);
        let limit = Duration::from_secs(self.config.chunk_timeout_s);
        let predicting = AssertUnwindSafe(tokio::time::timeout(limit, predicting)).catch_unwind();
        match predicting.await {
            Ok(Ok(Ok(predicted))) if predicted.rows == rows => Ok(predicted),
            Ok(Ok(Ok(_))) => Err(Failure::Because("not every row had its answer".into())),
            Ok(Ok(Err(NoPrediction::Busy))) => Err(Failure::NotNow),
            Ok(Ok(Err(NoPrediction::NotServed(_))))
                if self.clock.now().since(since) < NOT_SERVED_MAX =>
            {
                Err(Failure::NotNow)
            }
            Ok(Ok(Err(error @ NoPrediction::Replaced(_)))) => {
                Err(Failure::ForGood(error.to_string()))
            }
            Ok(Ok(Err(error))) => Err(Failure::Because(error.to_string())),
            Ok(Err(_)) => {
                let limit = limit.as_secs();
                Err(Failure::Because(format!("it took longer than {limit} s")))
            }
            Err(_) => Err(Failure::Because("the prediction panicked".into())),
        }
    }

    /// After a power failure some chunks may be predicted again, but not once their job has ended.
    async fn complete(&self, claim: &Claim, mut result: ChunkResult) -> Result<bool, DbError> {
        let now = self.clock.now();
        let unsynced = self.db.write_unsynced(async |transaction| {
            chunks::complete(transaction, claim, &mut result, false, now).await
        });
        let mut completed = unsynced.await;
        if let Err(NotDone::Last) = completed {
            let synced = self.db.write(async |transaction| {
                chunks::complete(transaction, claim, &mut result, true, now).await
            });
            completed = synced.await;
        }
        match completed {
            Ok(is_last) => {
                self.metrics.rows.inc_by(claim.rows);
                if is_last {
                    self.metrics.count_end(Status::Succeeded);
                }
                Ok(true)
            }
            Err(NotDone::Lost | NotDone::Last) => Ok(false),
            Err(NotDone::Database(error)) => Err(error),
        }
    }

    /// Notes that a chunk failed, if it is still the worker's; after so many attempts its job has.
    async fn fail(
        &self,
        claim: &Claim,
        (code, reason): (&str, &str),
        attempts_max: u32,
    ) -> Result<(), DbError> {
        let now = self.clock.now();
        let again = (self.config.retry_delay(claim.attempts), attempts_max);
        let why = (code, reason);
        let failed = self
            .db
            .write(async |transaction| chunks::fail(transaction, claim, why, again, now).await);
        let failed: Failed = failed.await?;
        if failed == Failed::Lost {
            return Ok(());
        }
        self.metrics.failures.inc();
        tracing::warn!(
            job.id = %claim.job,
            first_row = claim.first_row + 1,
            attempt = claim.attempts,
            reason,
            "a chunk of a job failed"
        );
        if failed == Failed::Dead {
            self.note_dead(&claim.job);
        }
        Ok(())
    }

    async fn release(&self, claim: &Claim, delay: Duration) -> Result<(), DbError> {
        self.db
            .write_unsynced(async |transaction| chunks::release(transaction, claim, delay).await)
            .await
    }
}
