//! Keys that sign tokens.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QueryResult, Set,
};

use super::changes::{Kind, record_change};
use super::entity::signing_keys;
use super::readable::readable;
use crate::types::signing_key::StoredKey;

impl From<signing_keys::Model> for StoredKey {
    fn from(row: signing_keys::Model) -> Self {
        Self {
            kid: row.kid,
            algorithm: row.algorithm,
            pkcs8: row.pkcs8,
            created_at: row.created_at,
            signs_from: row.signs_from,
        }
    }
}

/// Every key, in the order in which they sign.
pub(crate) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<StoredKey>, DbError> {
    let query = signing_keys::Entity::find()
        .order_by_asc(signing_keys::Column::SignsFrom)
        .order_by_asc(signing_keys::Column::Kid);
    let read = |row: &QueryResult| signing_keys::Model::from_query_result(row, "");
    let rows = readable(connection, "identity_signing_keys", query, read).await?;
    Ok(rows.into_iter().map(StoredKey::from).collect())
}

/// Adds a key.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    key: StoredKey,
    now: Timestamp,
) -> Result<(), DbError> {
    record_change(transaction, Kind::SigningKey, &key.kid, now).await?;
    let row = signing_keys::ActiveModel {
        kid: Set(key.kid),
        algorithm: Set(key.algorithm),
        pkcs8: Set(key.pkcs8),
        created_at: Set(key.created_at),
        signs_from: Set(key.signs_from),
    };
    signing_keys::Entity::insert(row)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

/// Removes keys: what they signed is refused.
pub(crate) async fn remove(
    transaction: &DatabaseTransaction,
    kids: Vec<String>,
    now: Timestamp,
) -> Result<(), DbError> {
    for kid in &kids {
        record_change(transaction, Kind::SigningKey, kid, now).await?;
    }
    signing_keys::Entity::delete_many()
        .filter(signing_keys::Column::Kid.is_in(kids))
        .exec(transaction)
        .await?;
    Ok(())
}
