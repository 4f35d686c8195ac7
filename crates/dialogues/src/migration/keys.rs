//! The tables of the keys database, which is a file of its own unless told otherwise.

use sea_orm_migration::prelude::*;

use super::{blob, number, text};

/// Knows every migration of the keys database.
pub(crate) struct KeysMigrator;

#[async_trait::async_trait]
impl MigratorTrait for KeysMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Keys), Box::new(Belonging)]
    }

    fn migration_table_name() -> DynIden {
        "dialogues_keys_migrations".into_iden()
    }
}

struct Keys;

impl MigrationName for Keys {
    fn name(&self) -> &str {
        "m0001_keys"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Keys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // A customer's key, wrapped by the master key of this id.
        let keys = Table::create()
            .table("dialogues_keys")
            .col(blob("customer").primary_key())
            .col(blob("key_id").unique_key())
            .col(blob("wrapped"))
            .col(blob("master_id"))
            .col(number("created_at"))
            .to_owned();
        // Keys that belong to no customer: that of the pseudonyms.
        let secrets = Table::create()
            .table("dialogues_key_secrets")
            .col(text("name").primary_key())
            .col(blob("wrapped"))
            .col(blob("master_id"))
            .to_owned();
        // What must not come back from a backup: erased customers, with the receipt, and withdrawn
        // dialogues.
        let erasures = Table::create()
            .table("dialogues_erasures")
            .col(blob("id").primary_key())
            .col(blob("customer"))
            // A withdrawal: of this dialogue alone.
            .col(ColumnDef::new("dialogue").blob())
            .col(ColumnDef::new("key_id").blob())
            .col(number("erased_at"))
            .col(ColumnDef::new("completed_at").big_integer())
            .col(number("messages"))
            .col(number("dialogues"))
            .col(number("pending_texts"))
            .col(
                ColumnDef::new("log_truncated")
                    .boolean()
                    .not_null()
                    .default(false),
            )
            .to_owned();
        for table in [keys, secrets, erasures] {
            manager.create_table(table).await?;
        }
        let mut by_master = Index::create();
        by_master
            .name("dialogues_keys_by_master_id")
            .table("dialogues_keys")
            .col("master_id");
        manager.create_index(by_master).await?;
        let mut by_customer = Index::create();
        by_customer
            .name("dialogues_erasures_by_customer_erased_at_id")
            .table("dialogues_erasures");
        by_customer.col("customer").col("erased_at").col("id");
        manager.create_index(by_customer).await?;
        let mut by_time = Index::create();
        by_time
            .name("dialogues_erasures_by_erased_at_id")
            .table("dialogues_erasures");
        by_time.col("erased_at").col("id");
        manager.create_index(by_time).await?;
        // Those of customers, which have a receipt.
        let receipts = "CREATE INDEX dialogues_erasures_with_receipt \
                        ON dialogues_erasures (erased_at, id) WHERE dialogue IS NULL";
        manager
            .get_connection()
            .execute_unprepared(receipts)
            .await?;
        Ok(())
    }
}

struct Belonging;

impl MigrationName for Belonging {
    fn name(&self) -> &str {
        "m0002_belonging"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Belonging {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One row: the main database that the keys belong to, and what they are known by there.
        let belonging = Table::create()
            .table("dialogues_keys_belonging")
            .col(number("one").primary_key())
            .col(blob("main"))
            .col(blob("id"))
            .to_owned();
        manager.create_table(belonging).await
    }
}
