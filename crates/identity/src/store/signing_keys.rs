//! Keys that sign tokens.

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel as _,
    QueryFilter, QueryOrder,
};

use super::changes::{Kind, record_change};
use super::entity::signing_keys;
pub(crate) use super::entity::signing_keys::Model as StoredKey;

/// Every key, in the order in which they sign.
pub(crate) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<StoredKey>, DbError> {
    Ok(signing_keys::Entity::find()
        .order_by_asc(signing_keys::Column::SignsFrom)
        .order_by_asc(signing_keys::Column::Kid)
        .all(connection)
        .await?)
}

/// Adds a key.
pub(crate) async fn insert(
    transaction: &DatabaseTransaction,
    key: StoredKey,
    now: Timestamp,
) -> Result<(), DbError> {
    record_change(transaction, Kind::SigningKey, &key.kid, now).await?;
    signing_keys::Entity::insert(key.into_active_model())
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
