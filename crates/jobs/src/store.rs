//! The SQL of this crate and nothing else. Functions that change something take a transaction, for their caller decides
//! what belongs together. Of a chunk and its job the chunk is locked first, or two workers could wait for each other.

pub(crate) mod callbacks;
pub(crate) mod chunks;
mod entity;
pub(crate) mod jobs;
pub(crate) mod owners;
pub(crate) mod results;

use std::time::Duration;

use auspex_kernel::db::DbError;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

/// The clock of the database, which all processes share, in microseconds.
pub(crate) async fn database_now(connection: &impl ConnectionTrait) -> Result<i64, DbError> {
    let backend = connection.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
        }
        _ => "SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
    };
    let row = connection
        .query_one_raw(Statement::from_string(backend, sql))
        .await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the time".into()))?;
    Ok(row.try_get_by_index(0)?)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Counts are never negative.
fn count(stored: i64) -> u64 {
    stored.unsigned_abs()
}

/// A number that is far below the limits of the database.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
