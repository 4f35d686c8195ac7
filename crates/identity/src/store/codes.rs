//! Authorization codes.

use auspex_kernel::db::DbError;
use auspex_kernel::id::{SessionId, UserId};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel as _,
    QueryFilter,
};

use super::entity::codes;
pub(crate) use super::entity::codes::Model as Code;

/// Adds a code.
pub(crate) async fn insert(transaction: &DatabaseTransaction, code: Code) -> Result<(), DbError> {
    codes::Entity::insert(code.into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The code with this digest.
pub(crate) async fn by_digest(
    connection: &impl ConnectionTrait,
    digest: Vec<u8>,
) -> Result<Option<Code>, DbError> {
    Ok(codes::Entity::find_by_id(digest).one(connection).await?)
}

/// Takes a code for a grant. Of any number who try, in whatever processes, exactly one is told yes.
pub(crate) async fn take(
    transaction: &DatabaseTransaction,
    digest: Vec<u8>,
    grant_id: &SessionId,
) -> Result<bool, DbError> {
    let taken = codes::Entity::update_many()
        .col_expr(codes::Column::GrantId, Expr::value(grant_id))
        .filter(codes::Column::Digest.eq(digest))
        .filter(codes::Column::GrantId.is_null())
        .exec(transaction)
        .await?;
    Ok(taken.rows_affected == 1)
}

/// Removes the codes of a user.
pub(crate) async fn delete_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
) -> Result<(), DbError> {
    codes::Entity::delete_many()
        .filter(codes::Column::UserId.eq(user_id))
        .exec(transaction)
        .await?;
    Ok(())
}
