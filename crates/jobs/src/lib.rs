//! Jobs: predictions of more records than a request should wait for. Their input and result lie in the database, cut into
//! chunks; workers of any number of processes claim those, and the row of the job says how far it is.
//!
//! Whatever dies and whenever: a chunk that was done is never done again, one that was not is, and nobody sees the
//! difference.

mod audit;
mod callback;
pub mod carrier;
mod config;
mod error;
mod http;
mod input;
mod intake;
mod metrics;
mod migration;
mod outcome;
mod service;
mod store;
mod table;
mod types;
mod upkeep;
mod worker;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use auspex_kernel::audit::{Actor, record};
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::predict::Predict;
use auspex_kernel::service::Condition;
use auspex_kernel::{Clock, Random};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, Semaphore};

pub use audit::Action;
pub use callback::{Outgoing, Secrets};
pub use config::{CallbacksConfig, Config};
pub use error::JobsError;
pub use input::{Lines, NoRows};
pub use intake::Intake;
pub use outcome::{Outcome, Reading};
pub use service::JobsService;
pub use types::{
    Callback, CallbackState, Chunk, ChunkResult, Claim, Form, Job, JobError, NewJob, Reach,
    StateCount, Status,
};

use audit::Event;
use carrier::Carrier;
use metrics::Metrics;
use store::jobs::{Discard, Listed, Which};

/// Jobs, and all that can be done with them. Cheap to clone; used on the control runtime.
#[derive(Clone)]
pub struct Jobs {
    core: Arc<Core>,
}

struct Core {
    db: Db,
    clock: Clock,
    random: Random,
    config: Config,
    carrier: Arc<dyn Carrier>,
    predictor: Arc<dyn Predict>,
    secrets: Secrets,
    metrics: Metrics,
    /// Whose callbacks are under way.
    calling: parking_lot::Mutex<HashSet<String>>,
    /// Held from a look at these until another one is added.
    claiming_callback: tokio::sync::Mutex<()>,
    /// Something is to be deleted.
    discarded: Notify,
    /// A chunk has one while it is predicted: as many as there are workers, once these work.
    slots: Arc<Semaphore>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").finish_non_exhaustive()
    }
}

impl Jobs {
    /// Opens the jobs of a database whose tables are up to date.
    ///
    /// # Errors
    /// [`JobsError`].
    pub async fn open(
        db: Db,
        config: Config,
        carrier: Arc<dyn Carrier>,
        predictor: Arc<dyn Predict>,
        clock: Clock,
        random: Random,
    ) -> Result<Self, JobsError> {
        let secrets = Secrets::open(&db, &clock, &random).await?;
        Ok(Self {
            core: Arc::new(Core {
                db,
                clock,
                random,
                config,
                carrier,
                predictor,
                secrets,
                metrics: Metrics::default(),
                calling: parking_lot::Mutex::default(),
                claiming_callback: tokio::sync::Mutex::default(),
                discarded: Notify::new(),
                slots: Arc::new(Semaphore::new(0)),
            }),
        })
    }

    /// Adds the metrics of jobs, under the registry's prefix.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.core.metrics.register(registry);
        self.core.carrier.register_metrics(registry);
    }

    /// As [`Carrier::condition`].
    pub(crate) fn carrier_condition(&self) -> Option<(&'static str, Condition)> {
        self.core.carrier.condition()
    }

    /// What predicts for jobs.
    pub fn predictor(&self) -> &dyn Predict {
        &*self.core.predictor
    }

    /// What callbacks are signed with.
    pub fn secrets(&self) -> &Secrets {
        &self.core.secrets
    }

    /// A job that somebody reaches.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::Database`].
    pub async fn get(&self, reach: &Reach, id: &JobId) -> Result<Job, JobsError> {
        let found = self
            .core
            .db
            .read(async |connection| store::jobs::find(connection, id, reach).await);
        found.await?.ok_or(JobsError::Unknown)
    }

    /// Jobs that somebody reaches, newest first; of one owner, state or model where these are named.
    ///
    /// # Errors
    /// [`JobsError::Database`].
    pub async fn list(
        &self,
        reach: &Reach,
        (owner, status, model): (Option<String>, Option<Status>, Option<String>),
        slice: Slice,
    ) -> Result<Found<Job>, JobsError> {
        let owner = match reach {
            Reach::All => owner,
            // Of others they see none.
            Reach::Own(own) if owner.as_ref().is_some_and(|owner| owner != own) => {
                return Ok((Vec::new(), 0));
            }
            Reach::Own(own) => Some(own.clone()),
        };
        let listed = Listed {
            owner,
            status,
            model,
        };
        let found = self
            .core
            .db
            .list(async |connection| store::jobs::page(connection, &listed, slice).await);
        Ok(found.await?)
    }

    /// How many jobs there are in each state that some are in.
    ///
    /// # Errors
    /// [`JobsError::Database`].
    pub async fn state_counts(&self) -> Result<Vec<StateCount>, JobsError> {
        let counts = self
            .core
            .db
            .read(async |connection| store::jobs::state_counts(connection).await);
        Ok(counts.await?)
    }

    /// Calls a job off, whose input and results go; work on a chunk under way comes to nothing. A job that has ended is
    /// deleted.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::HasEnded`], [`JobsError::Database`].
    pub async fn remove(&self, actor: &Actor, reach: &Reach, id: &JobId) -> Result<(), JobsError> {
        let now = self.core.clock.now();
        let cancelled: Result<bool, JobsError> = self
            .core
            .db
            .write(async |transaction| {
                let job = store::jobs::find(transaction, id, reach).await?;
                let job = job.ok_or(JobsError::Unknown)?;
                let has_ended = job.status.has_ended();
                let (what, action) = match has_ended {
                    true => (Discard::All, Action::JobDelete),
                    false => (Discard::Content, Action::JobCancel),
                };
                let status = Status::Cancelled;
                if !has_ended
                    && !store::jobs::end(transaction, id.as_str(), status, None, now).await?
                {
                    // Nobody deletes a result that they do not know of.
                    let job = store::jobs::find(transaction, id, reach).await?;
                    let job = job.ok_or(JobsError::Unknown)?;
                    return Err(JobsError::HasEnded(job.status.as_str()));
                }
                store::jobs::discard(transaction, Which::Job(id), what).await?;
                self.record(transaction, actor, action, id).await?;
                Ok(!has_ended)
            })
            .await;
        if cancelled? {
            self.core.metrics.count_end(Status::Cancelled);
        }
        self.core.discarded.notify_one();
        Ok(())
    }

    /// Runs a job again that has failed: the chunks that are not done, with all their attempts.
    ///
    /// # Errors
    /// [`JobsError::Unknown`], [`JobsError::NotFailed`], [`JobsError::Database`].
    pub async fn retry(
        &self,
        actor: &Actor,
        id: &JobId,
        receipt: Receipt<Job>,
    ) -> Result<Kept, JobsError> {
        let kept: Result<Kept, JobsError> = self
            .core
            .db
            .write(async |transaction| {
                let is_open = store::jobs::reopen(transaction, id).await?;
                let job = store::jobs::find(transaction, id, &Reach::All).await?;
                let job = job.ok_or(JobsError::Unknown)?;
                if !is_open {
                    return Err(JobsError::NotFailed(job.status.as_str()));
                }
                self.record(transaction, actor, Action::JobRetry, id)
                    .await?;
                Ok(receipt.keep(transaction, &job).await?)
            })
            .await;
        self.core.offer(id).await;
        kept
    }

    async fn record(
        &self,
        transaction: &auspex_kernel::db::Transaction,
        actor: &Actor,
        action: Action,
        id: &JobId,
    ) -> Result<(), DbError> {
        let event = Event::new(action, format!("job:{id}"));
        record(
            transaction,
            actor,
            event,
            &self.core.clock,
            &self.core.random,
        )
        .await
    }
}

impl Core {
    /// Tells workers of a job. It is in the database, and they would find it there as well.
    async fn offer(&self, id: &JobId) {
        if let Err(error) = self.carrier.offer(id).await {
            tracing::warn!(%error, job.id = %id, "workers were not told of a job; they look for it themselves");
        }
    }
}

/// Brings the tables up to date. Safe to run from several processes at once.
///
/// # Errors
/// [`DbError`].
pub async fn migrate(db: &Db) -> Result<(), DbError> {
    db.migrate::<migration::Migrator>().await
}
