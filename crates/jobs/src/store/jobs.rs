//! Jobs.

use auspex_kernel::db::{Connection, DbError};
use auspex_kernel::id::JobId;
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::predict::Pinned;
use auspex_kernel::{Timestamp, deleted_users, idempotency};
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait as _,
    ExprTrait as _, Order, PaginatorTrait as _, QueryFilter as _, QuerySelect as _, Set,
};

use sea_orm_migration::SchemaManager;

use super::entity::jobs::{ActiveModel, Column, Entity, Model};
use super::{count, number};
use crate::types::{
    Callback, CallbackState, Form, Job, JobError, NewJob, Reach, StateCount, Status,
};

impl TryFrom<Model> for Job {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let unknown = |what: &str| DbErr::Custom(format!("a job has an unknown {what}"));
        let error = row.error_code.zip(row.error_message);
        let state = row.callback_state.as_deref().and_then(CallbackState::parse);
        let callback = row.callback_url.map(|url| Callback {
            url,
            state: state.unwrap_or(CallbackState::Waiting),
            attempts: row.callback_attempts as u32,
        });
        Ok(Self {
            id: JobId::from_stored(row.id),
            owner: row.owner,
            pinned: Pinned {
                model: row.model,
                version: row.version,
                content: row.content,
            },
            form: Form::parse(&row.form).ok_or_else(|| unknown("form"))?,
            status: Status::parse(&row.status).ok_or_else(|| unknown("status"))?,
            rows: count(row.row_count),
            done: count(row.done),
            wrong: count(row.wrong),
            created_at: row.created_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            error: error.map(|(code, message)| JobError { code, message }),
            callback,
        })
    }
}

/// Adds a job whose input is on its way.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    id: &JobId,
    new: &NewJob,
    now: Timestamp,
) -> Result<(), DbError> {
    let form = match new.header {
        Some(_) => Form::Csv,
        None => Form::Ndjson,
    };
    let state = new.callback_url.as_ref().map(|_| CallbackState::Waiting);
    let row = ActiveModel {
        id: Set(id.to_string()),
        owner: Set(new.owner.clone()),
        model: Set(new.pinned.model.clone()),
        version: Set(new.pinned.version.clone()),
        form: Set(form.as_str().into()),
        header: Set(new.header.as_ref().map(super::chunks::header_line)),
        status: Set(Status::Receiving.as_str().into()),
        row_count: Set(0),
        done: Set(0),
        wrong: Set(0),
        chunks: Set(0),
        chunks_done: Set(0),
        created_at: Set(now),
        received_at: Set(now),
        started_at: Set(None),
        ended_at: Set(None),
        turn: Set(None),
        error_code: Set(None),
        error_message: Set(None),
        callback_url: Set(new.callback_url.clone()),
        callback_state: Set(state.map(|state| state.as_str().into())),
        callback_attempts: Set(0),
        callback_due: Set(None),
        content: Set(new.pinned.content.clone()),
        stored_bytes: Set(0),
        discard: Set(None),
    };
    Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Notes that so many bytes of its input came; whether it is still being received.
pub(crate) async fn note_received(
    transaction: &DatabaseTransaction,
    id: &JobId,
    bytes: usize,
    now: Timestamp,
) -> Result<bool, DbError> {
    let noted = Entity::update_many()
        .col_expr(Column::ReceivedAt, Expr::value(now.0))
        .col_expr(Column::StoredBytes, plus(Column::StoredBytes, bytes as u64))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Status.eq(Status::Receiving.as_str()))
        .filter(Column::Discard.is_null())
        .exec(transaction);
    Ok(noted.await?.rows_affected == 1)
}

/// How much of something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Amount {
    pub(crate) chunks: i64,
    pub(crate) rows: u64,
    /// Of the rows, if they have their answers.
    pub(crate) wrong: u64,
}

/// Begins a job whose input is complete, and of which some is `done`. `None`: it is gone.
pub(crate) async fn open(
    transaction: &DatabaseTransaction,
    id: &JobId,
    all: Amount,
    done: Amount,
    now: Timestamp,
) -> Result<Option<Job>, DbError> {
    let (status, started_at) = match done.chunks {
        0 => (Status::Queued, None),
        _ => (Status::Running, Some(now.0)),
    };
    let opened = Entity::update_many()
        .col_expr(Column::Status, Expr::value(status.as_str()))
        .col_expr(Column::StartedAt, Expr::value(started_at))
        .col_expr(Column::RowCount, Expr::value(number(all.rows)))
        .col_expr(Column::Chunks, Expr::value(all.chunks))
        .col_expr(Column::Done, Expr::value(number(done.rows)))
        .col_expr(Column::Wrong, Expr::value(number(done.wrong)))
        .col_expr(Column::ChunksDone, Expr::value(done.chunks))
        .col_expr(Column::CreatedAt, Expr::value(now.0))
        // Before all that were served once.
        .col_expr(Column::Turn, Expr::value(0_i64))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Status.eq(Status::Receiving.as_str()))
        .exec(transaction);
    if opened.await?.rows_affected != 1 {
        return Ok(None);
    }
    let job = find(transaction, id, &Reach::All).await?;
    if let Some(job) = &job {
        // Who has had no turn is next.
        super::owners::set_turn(transaction, &job.owner, None).await?;
    }
    Ok(job)
}

/// A job that somebody reaches, unless it is still being received, or deleted.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    id: &JobId,
    reach: &Reach,
) -> Result<Option<Job>, DbError> {
    let row = Entity::find_by_id(id.as_str()).filter(is_kept());
    let row = row.one(connection).await?;
    let job = row.map(Job::try_from).transpose()?;
    Ok(job.filter(|job| job.status != Status::Receiving && reach.includes(&job.owner)))
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listed {
    pub(crate) owner: Option<String>,
    pub(crate) status: Option<Status>,
    pub(crate) model: Option<String>,
}

/// Jobs, newest first.
pub(crate) async fn page(
    connection: &impl ConnectionTrait,
    listed: &Listed,
    slice: Slice,
) -> Result<Found<Job>, DbError> {
    let mut query = Entity::find()
        .filter(Column::Status.ne(Status::Receiving.as_str()))
        .filter(is_kept());
    if let Some(owner) = &listed.owner {
        query = query.filter(Column::Owner.eq(owner.as_str()));
    }
    if let Some(status) = listed.status {
        query = query.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(model) = &listed.model {
        query = query.filter(Column::Model.eq(model.as_str()));
    }
    let found = slice.by_id(connection, query, Column::Id, Order::Desc);
    let (rows, total) = found.await?;
    let jobs: Result<_, DbErr> = rows.into_iter().map(Job::try_from).collect();
    Ok((jobs?, total))
}

/// How many jobs of this owner have not ended, and those that are being received where they count too.
pub(crate) async fn count_open(
    connection: &impl ConnectionTrait,
    owner: &str,
    counts_received: bool,
) -> Result<u64, DbError> {
    let is_received = Column::Status.eq(Status::Receiving.as_str());
    let is_open = match counts_received {
        true => Column::Turn.is_not_null().or(is_received),
        false => Column::Turn.is_not_null(),
    };
    let open = Entity::find()
        .filter(Column::Owner.eq(owner))
        .filter(is_open);
    Ok(open.count(connection).await?)
}

/// How many bytes the input and the results of all jobs of this owner have, those that are being received too.
pub(crate) async fn stored_bytes(
    connection: &impl ConnectionTrait,
    owner: &str,
) -> Result<u64, DbError> {
    // A sum of integers is no integer on PostgreSQL.
    let sum = Expr::col(Column::StoredBytes).sum().cast_as("bigint");
    let stored: Option<Option<i64>> = Entity::find()
        .select_only()
        .column_as(sum, "stored")
        .filter(Column::Owner.eq(owner))
        .into_tuple()
        .one(connection)
        .await?;
    Ok(stored.flatten().map_or(0, count))
}

/// How many jobs there are in each state that some are in.
pub(crate) async fn state_counts(
    connection: &impl ConnectionTrait,
) -> Result<Vec<StateCount>, DbError> {
    let counts: Vec<(String, i64, Option<Timestamp>)> = Entity::find()
        .select_only()
        .column(Column::Status)
        .column_as(Column::Id.count(), "count")
        .column_as(Column::CreatedAt.min(), "oldest")
        .filter(is_kept())
        .group_by(Column::Status)
        .into_tuple()
        .all(connection)
        .await?;
    let known = counts.into_iter().filter_map(|(status, all, oldest_at)| {
        Some(StateCount {
            status: Status::parse(&status).filter(|status| *status != Status::Receiving)?,
            count: count(all),
            oldest_at,
        })
    });
    Ok(known.collect())
}

/// Notes that one of its chunks is claimed; whether the job is to be worked on.
pub(crate) async fn take_turn(
    transaction: &DatabaseTransaction,
    id: &str,
    database_now: i64,
    now: Timestamp,
) -> Result<bool, DbError> {
    let begun = Expr::col(Column::StartedAt).if_null(now.0);
    let taken = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Running.as_str()))
        .col_expr(Column::Turn, Expr::value(database_now))
        .col_expr(Column::StartedAt, begun)
        .filter(Column::Id.eq(id))
        .filter(Column::Turn.is_not_null())
        .exec(transaction);
    Ok(taken.await?.rows_affected == 1)
}

/// Whether a job is there and has not ended.
pub(crate) async fn is_open(
    transaction: &DatabaseTransaction,
    id: &JobId,
) -> Result<bool, DbError> {
    let found = Entity::find_by_id(id.as_str()).filter(Column::Turn.is_not_null());
    Ok(found.count(transaction).await? == 1)
}

/// Counts a chunk that is done. `None`: the job is not worked on any more. Else whether it was the last one.
pub(crate) async fn count_done(
    transaction: &DatabaseTransaction,
    id: &JobId,
    (rows, wrong): (u64, u64),
    bytes: usize,
) -> Result<Option<bool>, DbError> {
    let counted = Entity::update_many()
        .col_expr(Column::Done, plus(Column::Done, rows))
        .col_expr(Column::Wrong, plus(Column::Wrong, wrong))
        .col_expr(Column::ChunksDone, plus(Column::ChunksDone, 1))
        .col_expr(Column::StoredBytes, plus(Column::StoredBytes, bytes as u64))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Turn.is_not_null())
        .exec(transaction);
    if counted.await?.rows_affected != 1 {
        return Ok(None);
    }
    let row = Entity::find_by_id(id.as_str()).one(transaction).await?;
    Ok(row.map(|row| row.chunks == row.chunks_done))
}

/// Ends a job that has not ended; whether it had not.
pub(crate) async fn end(
    transaction: &DatabaseTransaction,
    id: &str,
    status: Status,
    error: Option<&JobError>,
    now: Timestamp,
) -> Result<bool, DbError> {
    let ended = Entity::update_many()
        .col_expr(Column::Status, Expr::value(status.as_str()))
        .col_expr(Column::EndedAt, Expr::value(now.0))
        .col_expr(Column::Turn, Expr::value(None::<i64>))
        .col_expr(
            Column::ErrorCode,
            Expr::value(error.map(|error| error.code.clone())),
        )
        .col_expr(
            Column::ErrorMessage,
            Expr::value(error.map(|error| error.message.clone())),
        )
        .filter(Column::Id.eq(id))
        .filter(Column::Turn.is_not_null())
        .exec(transaction);
    if ended.await?.rows_affected != 1 {
        return Ok(false);
    }
    super::callbacks::set_due(transaction, id).await?;
    Ok(true)
}

/// Begins a failed job again, with its chunks that are not done; whether it had failed. If not, the transaction must
/// not be committed.
pub(crate) async fn reopen(transaction: &DatabaseTransaction, id: &JobId) -> Result<bool, DbError> {
    super::chunks::reopen(transaction, id).await?;
    let waiting = Some(CallbackState::Waiting.as_str());
    let reopened = Entity::update_many()
        .col_expr(Column::Status, Expr::value(Status::Queued.as_str()))
        .col_expr(Column::EndedAt, Expr::value(None::<i64>))
        .col_expr(Column::Turn, Expr::value(0_i64))
        .col_expr(Column::ErrorCode, Expr::value(None::<String>))
        .col_expr(Column::ErrorMessage, Expr::value(None::<String>))
        .col_expr(Column::CallbackState, Expr::value(waiting))
        .col_expr(Column::CallbackAttempts, Expr::value(0_i64))
        .col_expr(Column::CallbackDue, Expr::value(None::<i64>))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Status.eq(Status::Failed.as_str()))
        .exec(transaction);
    Ok(reopened.await?.rows_affected == 1)
}

/// What of a job is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Discard {
    /// Input and result.
    Content,
    /// The job itself too: nobody sees it any more.
    All,
}

impl Discard {
    fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::All => "all",
        }
    }
}

/// Whether there is any, also where the table was never made.
pub(crate) async fn are_any(connection: &Connection) -> Result<bool, DbError> {
    if !SchemaManager::new(connection)
        .has_table("jobs_jobs")
        .await?
    {
        return Ok(false);
    }
    let first = Entity::find()
        .select_only()
        .column(Column::Id)
        .into_tuple::<String>();
    Ok(first.one(connection).await?.is_some())
}

/// The job has not been deleted.
fn is_kept() -> SimpleExpr {
    let is_deleted = Column::Discard.eq(Discard::All.as_str());
    Column::Discard.is_null().or(is_deleted.not())
}

/// Which jobs go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'w> {
    /// This one.
    Job(&'w JobId),
    /// Those of users who were deleted.
    OfDeletedUsers,
}

/// Notes that jobs are to be deleted, or what they hold: nobody works on them any more, nor is told of their end where
/// they go altogether.
pub(crate) async fn discard(
    transaction: &DatabaseTransaction,
    which: Which<'_>,
    what: Discard,
) -> Result<(), DbError> {
    let mut discarded = Entity::update_many()
        .col_expr(Column::Discard, Expr::value(what.as_str()))
        // Its owner has room again at once, though it takes a while to delete.
        .col_expr(Column::StoredBytes, Expr::value(0_i64))
        .col_expr(Column::Turn, Expr::value(None::<i64>));
    if what == Discard::All {
        discarded = discarded.col_expr(Column::CallbackDue, Expr::value(None::<i64>));
        if let Which::Job(id) = which {
            // Who repeats the request that began it would wait for nothing.
            idempotency::forget_answers(transaction, [format!("/v1/jobs/{id}")]).await?;
        }
    }
    let which = match which {
        Which::Job(id) => Column::Id.eq(id.as_str()),
        Which::OfDeletedUsers => Column::Owner
            .in_subquery(deleted_users::subjects())
            .and(is_kept()),
    };
    discarded.filter(which).exec(transaction).await?;
    Ok(())
}

/// Some jobs of which something is to be deleted.
pub(crate) async fn discarded(
    connection: &impl ConnectionTrait,
    limit: u64,
) -> Result<Vec<JobId>, DbError> {
    let ids: Vec<String> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Discard.is_not_null())
        .limit(limit)
        .into_tuple()
        .all(connection)
        .await?;
    Ok(ids.into_iter().map(JobId::from_stored).collect())
}

/// Some jobs that ended before `ended`, or whose input stopped coming before `received`.
pub(crate) async fn kept_long_enough(
    connection: &impl ConnectionTrait,
    (ended, received): (Timestamp, Timestamp),
    limit: u64,
) -> Result<Vec<JobId>, DbError> {
    let old = Column::EndedAt.lt(ended);
    let given_up = Column::Status
        .eq(Status::Receiving.as_str())
        .and(Column::ReceivedAt.lt(received));
    let ids: Vec<String> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(old.or(given_up))
        .limit(limit)
        .into_tuple()
        .all(connection)
        .await?;
    Ok(ids.into_iter().map(JobId::from_stored).collect())
}

/// Deletes some chunks of a job, and at last the job itself unless only its content is to go; whether that was all.
pub(crate) async fn delete_some(
    transaction: &DatabaseTransaction,
    id: &JobId,
    chunks: u64,
) -> Result<bool, DbError> {
    if super::chunks::delete_some(transaction, id, chunks).await? == chunks {
        return Ok(false);
    }
    let emptied = Entity::update_many()
        .col_expr(Column::Discard, Expr::value(None::<String>))
        .col_expr(Column::StoredBytes, Expr::value(0_i64))
        .filter(Column::Id.eq(id.as_str()))
        .filter(Column::Discard.eq(Discard::Content.as_str()))
        .exec(transaction);
    if emptied.await?.rows_affected == 0 {
        Entity::delete_by_id(id.as_str()).exec(transaction).await?;
    }
    Ok(true)
}

fn plus(column: Column, more: u64) -> SimpleExpr {
    Expr::col(column).add(number(more))
}
