//! The tables of this crate, and how older databases get them: those of the main database here,
//! those of the keys database in `keys`. A migration that was released is never changed; the next
//! one is added below it. Times are microseconds, pseudonyms 16 bytes.

mod keys;

use sea_orm_migration::prelude::*;

pub(crate) use keys::KeysMigrator;

/// Knows every migration of the main database and keeps its own record of those that ran, so that
/// services can share it.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Dialogues)]
    }

    fn migration_table_name() -> DynIden {
        "dialogues_migrations".into_iden()
    }
}

struct Dialogues;

impl MigrationName for Dialogues {
    fn name(&self) -> &str {
        "m0001_dialogues"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Dialogues {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for (table, columns) in [
            ("dialogues_dialogues", &["customer", "dialogue"][..]),
            ("dialogues_dialogues", &["decided_at", "dialogue"]),
            // Each as `store/messages.rs` asks for it: what is wanted, then newest first.
            ("dialogues_messages", &["received_at", "id"]),
            (
                "dialogues_messages",
                &["primary_language", "received_at", "id"],
            ),
            ("dialogues_messages", &["language", "received_at", "id"]),
            ("dialogues_messages", &["customer", "received_at", "id"]),
            ("dialogues_messages", &["dialogue", "received_at", "id"]),
            ("dialogues_consents", &["customer", "id"]),
            ("dialogues_consents", &["dialogue"]),
            ("dialogues_withdrawals", &["at", "id"]),
            ("dialogues_withdrawals", &["customer", "id"]),
            ("dialogues_erased", &["key_id"]),
        ] {
            let mut index = Index::create();
            index.name(format!("{table}_by_{}", columns.join("_")));
            index.table(table);
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        // Of sealed rows, those that are erased.
        let erased =
            "CREATE INDEX dialogues_sealed_erased ON dialogues_sealed (id) WHERE is_erased = 1";
        manager.get_connection().execute_unprepared(erased).await?;
        Ok(())
    }
}

fn tables() -> [TableCreateStatement; 7] {
    [
        // What became of each dialogue that was decided. Refused ones have neither key nor ids.
        Table::create()
            .table("dialogues_dialogues")
            .col(blob("dialogue").primary_key())
            .col(blob("customer"))
            .col(ColumnDef::new("key_id").blob())
            .col(text("status"))
            .col(number("texts"))
            .col(number("began_at"))
            .col(number("decided_at"))
            // Where its ids are sealed, as the chatbot sent them.
            .col(ColumnDef::new("ids_id").big_integer())
            .to_owned(),
        // The texts of consented dialogues, each sealed under the same id. The order of `id` is that
        // of receipt.
        Table::create()
            .table("dialogues_messages")
            .col(number("id").primary_key())
            .col(blob("dialogue"))
            .col(blob("customer"))
            .col(blob("key_id"))
            .col(text("language"))
            .col(text("primary_language"))
            .col(text("purpose"))
            .col(number("received_at"))
            .col(number("ordinal"))
            .to_owned(),
        // What is encrypted. `store/sealed.rs` says why it stands apart.
        Table::create()
            .table("dialogues_sealed")
            .col(number("id").primary_key())
            .col(ColumnDef::new("is_erased").integer().not_null())
            .col(blob("sealed"))
            .to_owned(),
        // Every decision; lines are only added, and removed by age.
        Table::create()
            .table("dialogues_consents")
            .col(number("id").primary_key())
            .col(blob("dialogue"))
            .col(blob("customer"))
            .col(text("decision"))
            .col(number("decided_at"))
            .col(text("channel"))
            .col(text("policy_version"))
            .col(text("purpose"))
            .to_owned(),
        // What readers have to delete from their copies.
        Table::create()
            .table("dialogues_withdrawals")
            .col(number("id").primary_key())
            .col(blob("dialogue"))
            .col(blob("customer"))
            .col(text("reason"))
            .col(number("at"))
            .to_owned(),
        // The erasures of the keys database that were carried out in this one.
        Table::create()
            .table("dialogues_erased")
            .col(blob("erasure_id").primary_key())
            .col(ColumnDef::new("key_id").blob())
            .to_owned(),
        // Counts by day and language, each spread over a few rows: two transactions that
        // count in one row would wait for each other.
        Table::create()
            .table("dialogues_statistics")
            .col(number("day"))
            .col(text("language"))
            .col(number("part"))
            .col(number("granted"))
            .col(number("refused"))
            .col(number("withdrawn"))
            .col(number("texts"))
            .primary_key(Index::create().col("day").col("language").col("part"))
            .to_owned(),
    ]
}

fn blob(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).blob().not_null().to_owned()
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().to_owned()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().to_owned()
}
