//! Which callbacks are due.

use std::collections::HashSet;
use std::time::Duration;

use auspex_kernel::db::DbError;
use sea_orm::sea_query::{Expr, LockBehavior, LockType};
use sea_orm::{
    ColumnTrait as _, DatabaseTransaction, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::entity::jobs::{Column, Entity};
use super::{database_now, micros};
use crate::types::{CallbackState, Job};

/// The job has ended: whoever is to be told of it is.
pub(super) async fn set_due(transaction: &DatabaseTransaction, id: &str) -> Result<(), DbError> {
    let now = database_now(transaction).await?;
    Entity::update_many()
        .col_expr(Column::CallbackDue, Expr::value(now))
        .col_expr(
            Column::CallbackState,
            Expr::value(CallbackState::Due.as_str()),
        )
        .filter(Column::Id.eq(id))
        .filter(Column::CallbackUrl.is_not_null())
        .exec(transaction)
        .await?;
    Ok(())
}

/// A job of whose end somebody is to be told now, who is none of `busy`. Nobody else gets it for the length of the lease, and the claim counts
/// as an attempt.
pub(crate) async fn claim(
    transaction: &DatabaseTransaction,
    lease: Duration,
    busy: &HashSet<String>,
) -> Result<Option<Job>, DbError> {
    let now = database_now(transaction).await?;
    let found = Entity::find()
        .filter(Column::CallbackDue.lte(now))
        .filter(Column::Owner.is_not_in(busy.iter().map(String::as_str)))
        .order_by_asc(Column::CallbackDue)
        .limit(1)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .one(transaction)
        .await?;
    let Some(mut row) = found else {
        return Ok(None);
    };
    row.callback_attempts += 1;
    Entity::update_many()
        .col_expr(
            Column::CallbackDue,
            Expr::value(now.saturating_add(micros(lease))),
        )
        .col_expr(
            Column::CallbackAttempts,
            Expr::col(Column::CallbackAttempts).add(1),
        )
        .filter(Column::Id.eq(row.id.as_str()))
        .exec(transaction)
        .await?;
    Ok(Some(Job::try_from(row)?))
}

/// Notes what became of this attempt, unless somebody has made another one meanwhile. It is sent again after `again`.
pub(crate) async fn note(
    transaction: &DatabaseTransaction,
    job: &Job,
    state: CallbackState,
    again: Option<Duration>,
) -> Result<(), DbError> {
    let attempts = job
        .callback
        .as_ref()
        .map_or(0, |callback| callback.attempts);
    let due = match again {
        Some(delay) => Some(
            database_now(transaction)
                .await?
                .saturating_add(micros(delay)),
        ),
        None => None,
    };
    Entity::update_many()
        .col_expr(Column::CallbackState, Expr::value(state.as_str()))
        .col_expr(Column::CallbackDue, Expr::value(due))
        .filter(Column::Id.eq(job.id.as_str()))
        .filter(Column::CallbackAttempts.eq(i64::from(attempts)))
        .filter(Column::CallbackDue.is_not_null())
        .exec(transaction)
        .await?;
    Ok(())
}
