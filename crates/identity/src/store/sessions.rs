//! Sessions of the login pages, by the digest of their cookie.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::UserId;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Set,
};

use super::entity::sessions;
use crate::types::page_session::PageSession;

impl From<sessions::Model> for PageSession {
    fn from(row: sessions::Model) -> Self {
        Self {
            digest: row.digest,
            user_id: row.user_id,
            authenticated_at: row.authenticated_at,
            expires_at: row.expires_at,
        }
    }
}

/// Adds a session.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    session: PageSession,
) -> Result<(), DbError> {
    let row = sessions::ActiveModel {
        digest: Set(session.digest),
        user_id: Set(session.user_id),
        authenticated_at: Set(session.authenticated_at),
        expires_at: Set(session.expires_at),
    };
    sessions::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The session with this digest, unless it has ended or has not yet begun.
pub(crate) async fn by_digest(
    connection: &impl ConnectionTrait,
    digest: Vec<u8>,
    now: Timestamp,
) -> Result<Option<PageSession>, DbError> {
    let session = sessions::Entity::find_by_id(digest).one(connection).await?;
    let session = session.map(PageSession::from);
    Ok(session.filter(|session| now.is_during(session.authenticated_at, session.expires_at)))
}

/// The sessions of a user that are in force, the latest first.
pub(crate) async fn of_user(
    connection: &impl ConnectionTrait,
    user_id: &UserId,
    now: Timestamp,
    count: u64,
) -> Result<Vec<PageSession>, DbError> {
    let rows = sessions::Entity::find()
        .filter(sessions::Column::UserId.eq(user_id))
        .filter(sessions::Column::ExpiresAt.gt(now))
        .order_by_desc(sessions::Column::ExpiresAt)
        .limit(count)
        .all(connection)
        .await?;
    Ok(rows.into_iter().map(PageSession::from).collect())
}

/// Ends a session.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    digest: Vec<u8>,
) -> Result<(), DbError> {
    sessions::Entity::delete_by_id(digest)
        .exec(transaction)
        .await?;
    Ok(())
}

/// Ends every session of a user.
pub(crate) async fn delete_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
) -> Result<(), DbError> {
    sessions::Entity::delete_many()
        .filter(sessions::Column::UserId.eq(user_id))
        .exec(transaction)
        .await?;
    Ok(())
}
