//! Grants: what one login or one consent gave. See `migration.rs`.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::{ClientId, SessionId, UserId};
use sea_orm::sea_query::{CaseStatement, Expr, ExprTrait as _, Func, IntoCondition};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect, Set,
};

use super::changes::{Kind, record_change};
use super::entity::grants;
use crate::types::grant::Grant;

impl From<grants::Model> for Grant {
    fn from(row: grants::Model) -> Self {
        Self {
            id: row.id,
            user_id: row.user_id,
            client_id: row.client_id,
            scopes: row.scopes,
            created_at: row.created_at,
            authenticated_at: row.authenticated_at,
            expires_at: row.expires_at,
            sequence: row.sequence,
            refreshed_at: row.refreshed_at,
            revoked_at: row.revoked_at,
        }
    }
}

/// Adds a grant.
pub(crate) async fn insert(transaction: &DatabaseTransaction, grant: Grant) -> Result<(), DbError> {
    let row = grants::ActiveModel {
        id: Set(grant.id),
        user_id: Set(grant.user_id),
        client_id: Set(grant.client_id),
        scopes: Set(grant.scopes),
        created_at: Set(grant.created_at),
        authenticated_at: Set(grant.authenticated_at),
        expires_at: Set(grant.expires_at),
        sequence: Set(grant.sequence),
        refreshed_at: Set(grant.refreshed_at),
        revoked_at: Set(grant.revoked_at),
    };
    grants::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The grant with this id.
pub(crate) async fn by_id(
    connection: &impl ConnectionTrait,
    id: &SessionId,
) -> Result<Option<Grant>, DbError> {
    let row = grants::Entity::find_by_id(id.clone()).one(connection);
    Ok(row.await?.map(Grant::from))
}

/// The same, and nobody else can change it until this transaction ends.
pub(crate) async fn lock_by_id(
    transaction: &DatabaseTransaction,
    id: &SessionId,
) -> Result<Option<Grant>, DbError> {
    let row = grants::Entity::find_by_id(id.clone()).lock_exclusive();
    Ok(row.one(transaction).await?.map(Grant::from))
}

/// The grants of a user that are in force, the latest first.
pub(crate) async fn of_user(
    connection: &impl ConnectionTrait,
    user_id: &UserId,
    now: Timestamp,
    count: u64,
) -> Result<Vec<Grant>, DbError> {
    let rows = grants::Entity::find()
        .filter(grants::Column::UserId.eq(user_id))
        .filter(grants::Column::RevokedAt.is_null())
        .filter(grants::Column::ExpiresAt.gt(now))
        .order_by_desc(grants::Column::ExpiresAt)
        .limit(count)
        .all(connection)
        .await?;
    Ok(rows.into_iter().map(Grant::from).collect())
}

/// Makes the next refresh token the current one.
pub(crate) async fn advance(
    transaction: &DatabaseTransaction,
    id: &SessionId,
    sequence: i64,
    now: Timestamp,
) -> Result<(), DbError> {
    grants::Entity::update_many()
        .col_expr(grants::Column::Sequence, Expr::value(sequence))
        .col_expr(grants::Column::RefreshedAt, Expr::value(now))
        .filter(grants::Column::Id.eq(id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Ends a grant and every token that came of it. Whether it was in force. If the wall clock was set
/// back since its last token was made, it ends when that was made, so that the end is known for as
/// long as the token could be good.
pub(crate) async fn revoke(
    transaction: &DatabaseTransaction,
    id: &SessionId,
    now: Timestamp,
) -> Result<bool, DbError> {
    let last_token_at = || {
        let refreshed_at = Expr::col(grants::Column::RefreshedAt);
        Expr::from(Func::coalesce([
            refreshed_at,
            Expr::col(grants::Column::CreatedAt),
        ]))
    };
    let at = CaseStatement::new()
        .case(last_token_at().gt(now), last_token_at())
        .finally(Expr::value(now));
    let done = grants::Entity::update_many()
        .col_expr(grants::Column::RevokedAt, at.into())
        .filter(grants::Column::Id.eq(id))
        .filter(grants::Column::RevokedAt.is_null())
        .exec(transaction)
        .await?;
    if done.rows_affected > 0 {
        record_change(transaction, Kind::Grant, id, now).await?;
    }
    Ok(done.rows_affected > 0)
}

/// Ends every grant of a user. How many there were.
pub(crate) async fn revoke_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    now: Timestamp,
) -> Result<usize, DbError> {
    revoke_those(transaction, grants::Column::UserId.eq(user_id), None, now).await
}

/// Ends every grant of a user but the one they are using. How many there were.
pub(crate) async fn revoke_others_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    kept: &SessionId,
    now: Timestamp,
) -> Result<usize, DbError> {
    let theirs = grants::Column::UserId.eq(user_id);
    revoke_those(transaction, theirs, Some(kept), now).await
}

/// Ends every grant that a client was given for a user. How many there were.
pub(crate) async fn revoke_of_user_and_client(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    client_id: &ClientId,
    now: Timestamp,
) -> Result<usize, DbError> {
    let theirs = Condition::all()
        .add(grants::Column::UserId.eq(user_id))
        .add(grants::Column::ClientId.eq(client_id));
    revoke_those(transaction, theirs, None, now).await
}

/// Ends every grant that a client was given. How many there were.
pub(crate) async fn revoke_of_client(
    transaction: &DatabaseTransaction,
    client_id: &ClientId,
    now: Timestamp,
) -> Result<usize, DbError> {
    let its = grants::Column::ClientId.eq(client_id);
    revoke_those(transaction, its, None, now).await
}

async fn revoke_those(
    transaction: &DatabaseTransaction,
    those: impl IntoCondition,
    kept: Option<&SessionId>,
    now: Timestamp,
) -> Result<usize, DbError> {
    let mut ids: Vec<SessionId> = grants::Entity::find()
        .select_only()
        .column(grants::Column::Id)
        .filter(those)
        .filter(grants::Column::RevokedAt.is_null())
        // An access token of the last moment lives on, for a day at most.
        .filter(grants::Column::ExpiresAt.gt(now - Duration::from_hours(24)))
        .into_tuple()
        .all(transaction)
        .await?;
    ids.retain(|id| Some(id) != kept);
    for id in &ids {
        revoke(transaction, id, now).await?;
    }
    Ok(ids.len())
}
