//! Chunks: what workers claim.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::JobId;
use auspex_kernel::predict::Pinned;
use auspex_kernel::records::cells;
use csv::StringRecord;
use sea_orm::sea_query::{Expr, LockBehavior, LockType};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _,
    ExprTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, UpdateMany,
};

use super::entity::chunks::{ActiveModel, Column, Entity, Model};
use super::entity::{inputs, jobs as rows, results};
use super::{count, database_now, jobs, micros, number};
use crate::types::{ChunkResult, Claim, Content, JobError, Placed, Status};

/// To be done, now or later.
pub(crate) const OPEN: &str = "open";
const DONE: &str = "done";
/// Failed too often.
const DEAD: &str = "dead";

/// Codes of errors of jobs: a chunk failed as often as it is tried.
pub(crate) const CHUNK_FAILED: &str = "CHUNK_FAILED";
/// The package that the job is pinned to is not the one that is served.
pub(crate) const MODEL_REPLACED: &str = "MODEL_REPLACED";

/// What a worker that has died leaves to be told.
const CRASHED: &str = "its worker died or was not heard of in time";

/// A header as the table has it.
pub(crate) fn header_line(header: &StringRecord) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // It goes to memory.
    let _ = writer.write_record(header);
    let line = writer.into_inner().unwrap_or_default();
    String::from_utf8(line).unwrap_or_default()
}

/// Adds chunks to a job.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    job: &JobId,
    chunks: Vec<Placed>,
) -> Result<(), DbError> {
    let (mut rows, mut inputs, mut results) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        let (job, seq) = (Set(job.to_string()), Set(chunk.seq));
        let (state, ndjson_bytes, csv_bytes) = match &chunk.content {
            Content::Input(_) => (OPEN, 0, 0),
            Content::Result(result) => (DONE, result.lines.len() as u64, result.csv_bytes),
        };
        rows.push(ActiveModel {
            job: job.clone(),
            seq: seq.clone(),
            first_row: Set(number(chunk.first_row)),
            row_count: Set(number(chunk.rows)),
            state: Set(state.into()),
            attempts: Set(0),
            fence: Set(0),
            chunk_due: Set(0),
            error: Set(None),
            ndjson_bytes: Set(number(ndjson_bytes)),
            csv_bytes: Set(number(csv_bytes)),
        });
        match chunk.content {
            Content::Input(lines) => inputs.push(inputs::ActiveModel {
                job,
                seq,
                lines: Set(lines),
            }),
            Content::Result(result) => results.push(results::ActiveModel {
                job,
                seq,
                lines: Set(result.lines),
            }),
        }
    }
    Entity::insert_many(rows)
        .exec_without_returning(transaction)
        .await?;
    if !inputs.is_empty() {
        inputs::Entity::insert_many(inputs)
            .exec_without_returning(transaction)
            .await?;
    }
    if !results.is_empty() {
        results::Entity::insert_many(results)
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(())
}

/// What came of looking for a chunk.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is the worker's for the length of its lease.
    Chunk(Box<Claim>),
    /// One was found that had failed too often, by the deaths of its workers: its job has failed.
    Dead,
    /// There is none.
    Nothing,
}

/// Claims a chunk of a job that is due. Each claim counts as an attempt.
pub(crate) async fn claim(
    transaction: &DatabaseTransaction,
    job: &JobId,
    lease: Duration,
    attempts_max: u32,
    now: Timestamp,
) -> Result<Claimed, DbError> {
    let database_now = database_now(transaction).await?;
    let found = Entity::find()
        .filter(Column::Job.eq(job.as_str()))
        .filter(Column::State.eq(OPEN))
        .filter(Column::ChunkDue.lte(database_now))
        .order_by_asc(Column::Seq)
        .limit(1)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .one(transaction)
        .await?;
    let Some(chunk) = found else {
        return Ok(Claimed::Nothing);
    };
    if !jobs::take_turn(transaction, job.as_str(), database_now, now).await? {
        return Ok(Claimed::Nothing);
    }
    if chunk.attempts >= i64::from(attempts_max) {
        let reason = chunk.error.clone();
        bury(
            transaction,
            &chunk,
            (CHUNK_FAILED, reason.as_deref().unwrap_or(CRASHED)),
            now,
        )
        .await?;
        return Ok(Claimed::Dead);
    }
    let (fence, attempts) = (chunk.fence + 1, chunk.attempts + 1);
    update(job.as_str(), chunk.seq)
        .col_expr(Column::Fence, Expr::value(fence))
        .col_expr(Column::Attempts, Expr::value(attempts))
        .col_expr(Column::Error, Expr::value(None::<String>))
        .col_expr(
            Column::ChunkDue,
            Expr::value(database_now.saturating_add(micros(lease))),
        )
        .exec(transaction)
        .await?;
    let row = rows::Entity::find_by_id(job.as_str());
    let row = row.one(transaction).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the job of a chunk".into()))?;
    super::owners::set_turn(transaction, &row.owner, Some(database_now)).await?;
    Ok(Claimed::Chunk(Box::new(Claim {
        job: job.clone(),
        seq: chunk.seq,
        fence,
        attempts: attempts as u32,
        first_row: count(chunk.first_row),
        rows: count(chunk.row_count),
        pinned: Pinned {
            model: row.model,
            version: row.version,
            content: row.content,
        },
        created_at: row.created_at,
        header: row
            .header
            .as_deref()
            .and_then(|line| cells(line.as_bytes())),
    })))
}

/// The rows of a chunk; `None`: they are gone.
pub(crate) async fn input(
    connection: &impl ConnectionTrait,
    claim: &Claim,
) -> Result<Option<Vec<u8>>, DbError> {
    let id = (claim.job.to_string(), claim.seq);
    let found = inputs::Entity::find_by_id(id).one(connection).await?;
    Ok(found.map(|input| input.lines))
}

/// Keeps a chunk for its worker for another while; whether it was still theirs.
pub(crate) async fn renew(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    lease: Duration,
) -> Result<bool, DbError> {
    let until = database_now(transaction)
        .await?
        .saturating_add(micros(lease));
    let renewed = own(claim)
        .col_expr(Column::ChunkDue, Expr::value(until))
        .exec(transaction);
    Ok(renewed.await?.rows_affected == 1)
}

/// Why nothing was stored. The transaction must not be committed.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// The worker has lost the chunk, or nobody wants its result any more.
    Lost,
    /// It is the last one, which may not end its job here.
    Last,
    Database(DbError),
}

impl From<DbError> for NotDone {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

/// Stores the result of a chunk, which is taken; whether the job has succeeded by that, if it `may_end`.
pub(crate) async fn complete(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    result: &mut ChunkResult,
    may_end: bool,
    now: Timestamp,
) -> Result<bool, NotDone> {
    let done = own(claim)
        .col_expr(Column::State, Expr::value(DONE))
        .col_expr(
            Column::NdjsonBytes,
            Expr::value(number(result.lines.len() as u64)),
        )
        .col_expr(Column::CsvBytes, Expr::value(number(result.csv_bytes)))
        .exec(transaction)
        .await
        .map_err(DbError::from)?;
    if done.rows_affected != 1 {
        return Err(NotDone::Lost);
    }
    let counts = (claim.rows, result.wrong);
    let bytes = result.lines.len();
    let is_last = jobs::count_done(transaction, &claim.job, counts, bytes).await?;
    let is_last = is_last.ok_or(NotDone::Lost)?;
    if is_last && !may_end {
        return Err(NotDone::Last);
    }
    let row = results::ActiveModel {
        job: Set(claim.job.to_string()),
        seq: Set(claim.seq),
        lines: Set(std::mem::take(&mut result.lines)),
    };
    results::Entity::insert(row)
        .exec_without_returning(transaction)
        .await
        .map_err(DbError::from)?;
    if is_last {
        let id = claim.job.as_str();
        jobs::end(transaction, id, Status::Succeeded, None, now).await?;
    }
    Ok(is_last)
}

/// What has become of a chunk that could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It is somebody else's, or nobody wants it any more.
    Lost,
    /// It is tried again.
    Again,
    /// It is not, and its job has failed by that.
    Dead,
}

/// Notes that a chunk could not be done. It is tried again after `delay`, unless this was the last attempt.
pub(crate) async fn fail(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    (code, reason): (&str, &str),
    (delay, attempts_max): (Duration, u32),
    now: Timestamp,
) -> Result<Failed, DbError> {
    let due = database_now(transaction)
        .await?
        .saturating_add(micros(delay));
    let noted = own(claim)
        .col_expr(Column::Error, Expr::value(reason))
        .col_expr(Column::ChunkDue, Expr::value(due))
        .exec(transaction);
    if noted.await?.rows_affected != 1 || !jobs::is_open(transaction, &claim.job).await? {
        return Ok(Failed::Lost);
    }
    if claim.attempts < attempts_max {
        return Ok(Failed::Again);
    }
    let id = (claim.job.to_string(), claim.seq);
    let chunk = Entity::find_by_id(id).one(transaction).await?;
    let chunk = chunk.ok_or_else(|| DbErr::RecordNotFound("a chunk".into()))?;
    bury(transaction, &chunk, (code, reason), now).await?;
    Ok(Failed::Dead)
}

/// Gives a chunk back that nothing was wrong with.
pub(crate) async fn release(
    transaction: &DatabaseTransaction,
    claim: &Claim,
    delay: Duration,
) -> Result<(), DbError> {
    let due = database_now(transaction)
        .await?
        .saturating_add(micros(delay));
    own(claim)
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).sub(1))
        .col_expr(Column::ChunkDue, Expr::value(due))
        .exec(transaction)
        .await?;
    Ok(())
}

/// The chunk is dead, and its job has failed by that.
async fn bury(
    transaction: &DatabaseTransaction,
    chunk: &Model,
    (code, reason): (&str, &str),
    now: Timestamp,
) -> Result<(), DbError> {
    update(&chunk.job, chunk.seq)
        .col_expr(Column::State, Expr::value(DEAD))
        .col_expr(Column::Error, Expr::value(reason))
        .exec(transaction)
        .await?;
    let (first, last) = (chunk.first_row + 1, chunk.first_row + chunk.row_count);
    let often = match chunk.attempts {
        1 => "because".to_owned(),
        attempts => format!("{attempts} times, the last time because"),
    };
    let error = JobError {
        code: code.to_owned(),
        message: format!(
            "rows {first} to {last} failed {often} {reason}; an operator can run the job again"
        ),
    };
    jobs::end(transaction, &chunk.job, Status::Failed, Some(&error), now).await?;
    Ok(())
}

/// Opens the chunks of a job that are not done, as if they had never been tried.
pub(crate) async fn reopen(transaction: &DatabaseTransaction, job: &JobId) -> Result<(), DbError> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(OPEN))
        .col_expr(Column::Attempts, Expr::value(0_i64))
        .col_expr(Column::Error, Expr::value(None::<String>))
        .col_expr(Column::ChunkDue, Expr::value(0_i64))
        // Who still works on one has lost it.
        .col_expr(Column::Fence, Expr::col(Column::Fence).add(1))
        .filter(Column::Job.eq(job.as_str()))
        .filter(Column::State.ne(DONE))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Deletes some chunks of a job with their input and result; how many.
pub(crate) async fn delete_some(
    transaction: &DatabaseTransaction,
    job: &JobId,
    limit: u64,
) -> Result<u64, DbError> {
    let seqs: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::Seq)
        .filter(Column::Job.eq(job.as_str()))
        .order_by_asc(Column::Seq)
        .limit(limit)
        .into_tuple()
        .all(transaction)
        .await?;
    let Some(last) = seqs.last() else {
        return Ok(0);
    };
    let id = job.as_str();
    inputs::Entity::delete_many()
        .filter(inputs::Column::Job.eq(id))
        .filter(inputs::Column::Seq.lte(*last))
        .exec(transaction)
        .await?;
    results::Entity::delete_many()
        .filter(results::Column::Job.eq(id))
        .filter(results::Column::Seq.lte(*last))
        .exec(transaction)
        .await?;
    Entity::delete_many()
        .filter(Column::Job.eq(id))
        .filter(Column::Seq.lte(*last))
        .exec(transaction)
        .await?;
    Ok(seqs.len() as u64)
}

fn update(job: &str, seq: i64) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Job.eq(job))
        .filter(Column::Seq.eq(seq))
}

/// A change of a chunk by the worker that has it.
fn own(claim: &Claim) -> UpdateMany<Entity> {
    update(claim.job.as_str(), claim.seq)
        .filter(Column::Fence.eq(claim.fence))
        .filter(Column::State.eq(OPEN))
}
