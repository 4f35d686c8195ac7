//! Sessions of the login pages, by the digest of their cookie.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::UserId;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel as _,
    QueryFilter,
};

use super::entity::sessions;
pub(crate) use super::entity::sessions::Model as Session;

/// Adds a session.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    session: Session,
) -> Result<(), DbError> {
    sessions::Entity::insert(session.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The session with this digest, unless it has ended.
pub(crate) async fn by_digest(
    connection: &impl ConnectionTrait,
    digest: Vec<u8>,
    now: Timestamp,
) -> Result<Option<Session>, DbError> {
    Ok(sessions::Entity::find_by_id(digest)
        .filter(sessions::Column::ExpiresAt.gt(now))
        .one(connection)
        .await?)
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
