//! Secrets by name.

use crate::db::{Connection, DbError};
use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, Set};
use sea_orm_migration::SchemaManager;

use crate::clock::Timestamp;

mod rows {
    use sea_orm::entity::prelude::*;

    use crate::clock::Timestamp;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "kernel_secrets")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) name: String,
        pub(crate) value: Vec<u8>,
        pub(crate) created_at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The secret of this name.
pub(crate) async fn find(
    connection: &impl ConnectionTrait,
    name: &str,
) -> Result<Option<Vec<u8>>, DbError> {
    let row = rows::Entity::find_by_id(name).one(connection).await?;
    Ok(row.map(|row| row.value))
}

/// Whether they have a table yet.
pub(crate) async fn has_table(connection: &Connection) -> Result<bool, DbError> {
    let manager = SchemaManager::new(connection);
    Ok(manager.has_table("kernel_secrets").await?)
}

/// All of them, by name.
pub(crate) async fn all(
    connection: &impl ConnectionTrait,
) -> Result<Vec<(String, Vec<u8>)>, DbError> {
    let rows = rows::Entity::find().all(connection).await?;
    Ok(rows.into_iter().map(|row| (row.name, row.value)).collect())
}

/// Removes the secret of this name.
pub(crate) async fn remove(transaction: &DatabaseTransaction, name: &str) -> Result<(), DbError> {
    rows::Entity::delete_by_id(name).exec(transaction).await?;
    Ok(())
}

/// Adds a secret, unless there is one of this name.
pub(crate) async fn insert_if_absent(
    transaction: &DatabaseTransaction,
    name: &str,
    value: &[u8],
    now: Timestamp,
) -> Result<(), DbError> {
    let row = rows::ActiveModel {
        name: Set(name.to_owned()),
        value: Set(value.to_vec()),
        created_at: Set(now),
    };
    let keep_the_first = OnConflict::column(rows::Column::Name)
        .do_nothing()
        .to_owned();
    rows::Entity::insert(row)
        .on_conflict(keep_the_first)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
