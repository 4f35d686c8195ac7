//! The tables of this crate, and how older databases get them. A migration that was released is
//! never changed; the next one is added below it.

use sea_orm_migration::prelude::*;

/// Knows every migration of this crate and keeps its own record of those that ran, so that other
/// services can share the database.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(ApiKeys)]
    }

    fn migration_table_name() -> DynIden {
        "identity_migrations".into_iden()
    }
}

struct ApiKeys;

impl MigrationName for ApiKeys {
    fn name(&self) -> &str {
        "m0001_api_keys"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for ApiKeys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let keys = Table::create()
            .table("identity_api_keys")
            .col(ColumnDef::new("id").text().not_null().primary_key())
            .col(ColumnDef::new("name").text().not_null())
            .col(ColumnDef::new("digest").blob().not_null().unique_key())
            .col(ColumnDef::new("scopes").text().not_null())
            .col(ColumnDef::new("created_at").big_integer().not_null())
            .col(ColumnDef::new("expires_at").big_integer())
            .col(ColumnDef::new("revoked_at").big_integer())
            .to_owned();
        manager.create_table(keys).await?;
        let by_name = Index::create()
            .name("identity_api_keys_by_name")
            .table("identity_api_keys")
            .col("name")
            .to_owned();
        manager.create_index(by_name).await?;

        // One row. Its lock puts changes in order, its counter tells other processes of them.
        let key_sets = Table::create()
            .table("identity_key_sets")
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .col(ColumnDef::new("generation").big_integer().not_null())
            .to_owned();
        manager.create_table(key_sets).await?;
        let the_row = Query::insert()
            .into_table("identity_key_sets")
            .columns(["id", "generation"])
            .values_panic([1.into(), 0.into()])
            .to_owned();
        manager.execute(the_row).await
    }
}
