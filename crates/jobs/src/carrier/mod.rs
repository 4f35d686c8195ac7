//! What carries ids of jobs to workers: the seam for message brokers.
//!
//! The database says what is to be done; a carrier only says where to look first. So it may lose an id, give it twice or to
//! several workers, and keep one that nobody wants any more: whoever gets an id claims a chunk of that job, or finds none.

mod database;
mod rabbitmq;

use auspex_kernel::db::DbError;
use auspex_kernel::id::JobId;
use auspex_kernel::service::{Boxed, Condition};
use prometheus_client::registry::Registry;

pub use database::InDatabase;
pub use rabbitmq::{InRabbitMq, RabbitMqConfig};

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

    /// How what it needs beside the database is, under a name for health.
    fn condition(&self) -> Option<(&'static str, Condition)> {
        None
    }

    /// Adds its metrics, under the registry's prefix.
    fn register_metrics(&self, registry: &mut Registry) {
        let _ = registry;
    }
}

/// A carrier does not work.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] DbError),
    /// RabbitMQ has not taken the id.
    #[error("RabbitMQ has not taken it: {0}")]
    RabbitMq(String),
}
