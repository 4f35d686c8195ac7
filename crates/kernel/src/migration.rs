//! The tables of this crate, and how older databases get them. A migration that was released is
//! never changed; the next one is added below it.

use sea_orm_migration::prelude::*;

use crate::db::{Db, DbError};

/// Brings the tables of this crate up to date. Safe to run from several processes at once.
///
/// # Errors
/// [`DbError::Database`].
pub async fn migrate(db: &Db) -> Result<(), DbError> {
    db.migrate::<Migrator>().await
}

/// Knows every migration of this crate and keeps its own record of those that ran, so that
/// services can share the database.
struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Secrets)]
    }

    fn migration_table_name() -> DynIden {
        "kernel_migrations".into_iden()
    }
}

struct Secrets;

impl MigrationName for Secrets {
    fn name(&self) -> &str {
        "m0001_secrets"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Secrets {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let secrets = Table::create()
            .table("kernel_secrets")
            .col(ColumnDef::new("name").text().not_null().primary_key())
            .col(ColumnDef::new("value").blob().not_null())
            .col(ColumnDef::new("created_at").big_integer().not_null())
            .to_owned();
        manager.create_table(secrets).await
    }
}
