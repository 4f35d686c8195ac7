//! The tables of this crate, and how older databases get them. A migration that was released is never changed; the next
//! one is added below it. Times are microseconds: what lies in columns named `…_due` is by the clock of the database, all
//! else by that of the process.

use sea_orm_migration::prelude::*;

/// Knows every migration and keeps its own record of those that ran, so that services can share a database.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Jobs), Box::new(Owners)]
    }

    fn migration_table_name() -> DynIden {
        "jobs_migrations".into_iden()
    }
}

struct Jobs;

impl MigrationName for Jobs {
    fn name(&self) -> &str {
        "m0001_jobs"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Jobs {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for (table, columns) in [
            ("jobs_jobs", &["owner", "id"][..]),
            ("jobs_jobs", &["owner", "turn"]),
            ("jobs_jobs", &["turn", "id"]),
            ("jobs_jobs", &["status", "id"]),
            ("jobs_jobs", &["ended_at", "id"]),
            ("jobs_jobs", &["callback_due", "id"]),
            ("jobs_chunks", &["job", "state", "chunk_due"]),
        ] {
            manager.create_index(index(table, columns)).await?;
        }
        Ok(())
    }
}

struct Owners;

impl MigrationName for Owners {
    fn name(&self) -> &str {
        "m0002_owners"
    }
}

/// Columns and a table that versions before it do without.
#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Owners {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for mut column in [
            // The content of the package that it is pinned to; null: whatever is served under the version.
            ColumnDef::new("content").text().to_owned(),
            // Of its input and result.
            number("stored_bytes").default(0).to_owned(),
            // `content` or `all`: what of it is to be deleted; null: nothing.
            ColumnDef::new("discard").text().to_owned(),
        ] {
            let mut table = Table::alter();
            manager
                .alter_table(table.table("jobs_jobs").add_column(&mut column).to_owned())
                .await?;
        }
        let owners = Table::create()
            .table("jobs_owners")
            .col(text("owner").primary_key())
            // When a chunk of theirs was claimed last.
            .col(number("turn"))
            .to_owned();
        manager.create_table(owners).await?;
        for (table, columns) in [
            ("jobs_jobs", &["owner", "stored_bytes"][..]),
            ("jobs_jobs", &["discard", "id"]),
            ("jobs_owners", &["turn", "owner"]),
        ] {
            manager.create_index(index(table, columns)).await?;
        }
        Ok(())
    }
}

fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("{table}_by_{}", columns.join("_")));
    index.table(table);
    for column in columns {
        index.col(*column);
    }
    index
}

fn tables() -> [TableCreateStatement; 4] {
    [
        Table::create()
            .table("jobs_jobs")
            .col(text("id").primary_key())
            .col(text("owner"))
            .col(text("model"))
            .col(text("version"))
            .col(text("form"))
            // That of CSV, as a line.
            .col(ColumnDef::new("header").text())
            .col(text("status"))
            .col(number("row_count"))
            .col(number("done"))
            .col(number("wrong"))
            .col(number("chunks"))
            .col(number("chunks_done"))
            .col(number("created_at"))
            // When something of its input came last.
            .col(number("received_at"))
            .col(ColumnDef::new("started_at").big_integer())
            .col(ColumnDef::new("ended_at").big_integer())
            // When one of its chunks was claimed last; null unless it is queued or running. Whose turn is the oldest
            // is next.
            .col(ColumnDef::new("turn").big_integer())
            .col(ColumnDef::new("error_code").text())
            .col(ColumnDef::new("error_message").text())
            .col(ColumnDef::new("callback_url").text())
            .col(ColumnDef::new("callback_state").text())
            .col(number("callback_attempts"))
            // When it is sent, or taken for lost while it is; null unless it is due.
            .col(ColumnDef::new("callback_due").big_integer())
            .to_owned(),
        Table::create()
            .table("jobs_chunks")
            .col(text("job"))
            .col(number("seq"))
            .col(number("first_row"))
            .col(number("row_count"))
            // `open`, `done` or `dead`.
            .col(text("state"))
            .col(number("attempts"))
            // Goes up with each claim.
            .col(number("fence"))
            // When it may be claimed: until then a worker has it, or it waits after a failure.
            .col(number("chunk_due"))
            .col(ColumnDef::new("error").text())
            .col(number("ndjson_bytes"))
            .col(number("csv_bytes"))
            .primary_key(Index::create().col("job").col("seq"))
            .to_owned(),
        // Apart from the chunks, which change more often.
        Table::create()
            .table("jobs_inputs")
            .col(text("job"))
            .col(number("seq"))
            .col(ColumnDef::new("lines").blob().not_null())
            .primary_key(Index::create().col("job").col("seq"))
            .to_owned(),
        Table::create()
            .table("jobs_results")
            .col(text("job"))
            .col(number("seq"))
            .col(ColumnDef::new("lines").blob().not_null())
            .primary_key(Index::create().col("job").col("seq"))
            .to_owned(),
    ]
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().to_owned()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().to_owned()
}
