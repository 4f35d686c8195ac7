//! What users agreed to.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use auspex_kernel::id::{ClientId, UserId};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect, Set,
};

use super::entity::consents;
use crate::types::scope::ClientScopes;

/// What a user let a client have; nothing if they were never asked.
pub(crate) async fn scopes(
    connection: &impl ConnectionTrait,
    user_id: &UserId,
    client_id: &ClientId,
) -> Result<ClientScopes, DbError> {
    let id = (user_id.to_owned(), client_id.to_owned());
    let row = consents::Entity::find_by_id(id).one(connection).await?;
    Ok(row.map_or_else(ClientScopes::default, |row| {
        ClientScopes::from_stored(&row.scopes)
    }))
}

/// Keeps what a user lets a client have, instead of what was kept before.
pub(crate) async fn set(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    client_id: &ClientId,
    scopes: ClientScopes,
    now: Timestamp,
) -> Result<(), DbError> {
    let row = consents::ActiveModel {
        user_id: Set(user_id.to_owned()),
        client_id: Set(client_id.to_owned()),
        scopes: Set(scopes.to_string()),
        at: Set(now),
    };
    let again = OnConflict::columns([consents::Column::UserId, consents::Column::ClientId])
        .update_columns([consents::Column::Scopes, consents::Column::At])
        .to_owned();
    consents::Entity::insert(row)
        .on_conflict(again)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// What a user let clients have, and since when.
pub(crate) async fn of_user(
    connection: &impl ConnectionTrait,
    user_id: &UserId,
    count: u64,
) -> Result<Vec<(ClientId, ClientScopes, Timestamp)>, DbError> {
    let rows = consents::Entity::find()
        .filter(consents::Column::UserId.eq(user_id))
        .limit(count)
        .all(connection)
        .await?;
    let read = |row: consents::Model| {
        let scopes = ClientScopes::from_stored(&row.scopes);
        (row.client_id, scopes, row.at)
    };
    Ok(rows.into_iter().map(read).collect())
}

/// Forgets what a user let a client have. Whether there was something.
pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
    client_id: &ClientId,
) -> Result<bool, DbError> {
    let id = (user_id.to_owned(), client_id.to_owned());
    let deleted = consents::Entity::delete_by_id(id).exec(transaction).await?;
    Ok(deleted.rows_affected > 0)
}

/// Forgets what users let a client have.
pub(crate) async fn delete_of_client(
    transaction: &DatabaseTransaction,
    client_id: &ClientId,
) -> Result<(), DbError> {
    consents::Entity::delete_many()
        .filter(consents::Column::ClientId.eq(client_id))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Forgets what a user agreed to.
pub(crate) async fn delete_of_user(
    transaction: &DatabaseTransaction,
    user_id: &UserId,
) -> Result<(), DbError> {
    consents::Entity::delete_many()
        .filter(consents::Column::UserId.eq(user_id))
        .exec(transaction)
        .await?;
    Ok(())
}
