//! SQL of the registry.

use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::DbError;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DatabaseTransaction, EntityTrait as _, QueryFilter as _, Set,
};

use crate::registry::Instance;

mod rows {
    use auspex_kernel::Timestamp;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "gateway_instances")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) service: String,
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) instance: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) address: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) metadata: String,
        pub(crate) ttl_s: i64,
        pub(crate) registered_at: Timestamp,
        pub(crate) seen_at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

use rows::{ActiveModel, Column, Entity, Model};

impl From<Model> for Instance {
    fn from(row: Model) -> Self {
        Self {
            // Nobody but this module writes it.
            metadata: serde_json::from_str(&row.metadata).unwrap_or_default(),
            ttl: Duration::from_secs(row.ttl_s.unsigned_abs()),
            service: row.service,
            id: row.instance,
            address: row.address,
            registered_at: row.registered_at,
            seen_at: row.seen_at,
        }
    }
}

/// Every instance; the registry bounds how many there are.
pub(crate) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Instance>, DbError> {
    let rows = Entity::find().all(connection).await?;
    Ok(rows.into_iter().map(Instance::from).collect())
}

/// Adds an instance, or replaces it.
pub(crate) async fn put(
    transaction: &DatabaseTransaction,
    instance: &Instance,
) -> Result<(), DbError> {
    let metadata = serde_json::to_string(&instance.metadata).expect("texts are JSON");
    let row = ActiveModel {
        service: Set(instance.service.clone()),
        instance: Set(instance.id.clone()),
        address: Set(instance.address.clone()),
        metadata: Set(metadata),
        ttl_s: Set(instance.ttl.as_secs() as i64),
        registered_at: Set(instance.registered_at),
        seen_at: Set(instance.seen_at),
    };
    let replace = OnConflict::columns([Column::Service, Column::Instance])
        .update_columns([
            Column::Address,
            Column::Metadata,
            Column::TtlS,
            Column::RegisteredAt,
            Column::SeenAt,
        ])
        .to_owned();
    Entity::insert(row)
        .on_conflict(replace)
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}

pub(crate) async fn delete(
    transaction: &DatabaseTransaction,
    service: &str,
    instance: &str,
) -> Result<(), DbError> {
    let id = (service.to_owned(), instance.to_owned());
    Entity::delete_by_id(id).exec(transaction).await?;
    Ok(())
}

/// Deletes an instance unless it was heard of again.
pub(crate) async fn delete_unheard(
    transaction: &DatabaseTransaction,
    service: &str,
    instance: &str,
    seen_at: Timestamp,
) -> Result<(), DbError> {
    Entity::delete_many()
        .filter(Column::Service.eq(service))
        .filter(Column::Instance.eq(instance))
        .filter(Column::SeenAt.eq(seen_at))
        .exec(transaction)
        .await?;
    Ok(())
}
