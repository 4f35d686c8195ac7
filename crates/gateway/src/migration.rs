//! The tables of this crate, and how older databases get them. A migration that was released is never changed; the
//! next one is added below it.

use sea_orm_migration::prelude::*;

/// Knows every migration and keeps its own record of those that ran.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Instances)]
    }

    fn migration_table_name() -> DynIden {
        "gateway_migrations".into_iden()
    }
}

struct Instances;

impl MigrationName for Instances {
    fn name(&self) -> &str {
        "m0001_instances"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Instances {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = |name: &'static str| ColumnDef::new(name).text().not_null().take();
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().take();
        // Servers that registered and were heard of lately. Times are microseconds, metadata a JSON object of texts.
        let instances = Table::create()
            .table("gateway_instances")
            .col(text("service"))
            .col(text("instance"))
            .col(text("address"))
            .col(text("metadata"))
            .col(number("ttl_s"))
            .col(number("registered_at"))
            .col(number("seen_at"))
            .primary_key(Index::create().col("service").col("instance"))
            .to_owned();
        manager.create_table(instances).await
    }
}
