//! Authorization codes.

use auspex_kernel::db::DbError;
use auspex_kernel::id::{ClientId, SessionId, UserId};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, Set};

use super::entity::codes;
use crate::types::grant::Code;

impl From<codes::Model> for Code {
    fn from(row: codes::Model) -> Self {
        Self {
            digest: row.digest,
            client_id: row.client_id,
            user_id: row.user_id,
            redirect_uri: row.redirect_uri,
            scopes: row.scopes,
            challenge: row.challenge,
            nonce: row.nonce,
            authenticated_at: row.authenticated_at,
            expires_at: row.expires_at,
            grant_id: row.grant_id,
        }
    }
}

/// Adds a code.
pub(crate) async fn insert(transaction: &DatabaseTransaction, code: Code) -> Result<(), DbError> {
    let row = codes::ActiveModel {
        digest: Set(code.digest),
        client_id: Set(code.client_id),
        user_id: Set(code.user_id),
        redirect_uri: Set(code.redirect_uri),
        scopes: Set(code.scopes),
        challenge: Set(code.challenge),
        nonce: Set(code.nonce),
        authenticated_at: Set(code.authenticated_at),
        expires_at: Set(code.expires_at),
        grant_id: Set(code.grant_id),
    };
    codes::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// The code with this digest.
pub(crate) async fn by_digest(
    connection: &impl ConnectionTrait,
    digest: Vec<u8>,
) -> Result<Option<Code>, DbError> {
    let row = codes::Entity::find_by_id(digest).one(connection);
    Ok(row.await?.map(Code::from))
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

/// Removes the codes of a user for a client. Whether there were any.
pub(crate) async fn delete_of(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    client_id: &ClientId,
) -> Result<bool, DbError> {
    let deleted = codes::Entity::delete_many()
        .filter(codes::Column::UserId.eq(user_id))
        .filter(codes::Column::ClientId.eq(client_id))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected > 0)
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
