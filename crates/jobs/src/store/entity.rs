//! The tables as SeaORM sees them; `migration.rs` says what the columns are for.

macro_rules! table {
    ($module:ident, $name:literal {
        $($(#[$attribute:meta])* $column:ident: $type:ty,)*
    }) => {
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $name)]
            pub(crate) struct Model {
                $($(#[$attribute])* pub(crate) $column: $type,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub(crate) enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

table! {
    jobs, "jobs_jobs" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        id: String,
        #[sea_orm(column_type = "Text")]
        owner: String,
        #[sea_orm(column_type = "Text")]
        model: String,
        #[sea_orm(column_type = "Text")]
        version: String,
        #[sea_orm(column_type = "Text")]
        form: String,
        #[sea_orm(column_type = "Text", nullable)]
        header: Option<String>,
        #[sea_orm(column_type = "Text")]
        status: String,
        row_count: i64,
        done: i64,
        wrong: i64,
        chunks: i64,
        chunks_done: i64,
        created_at: auspex_kernel::Timestamp,
        received_at: auspex_kernel::Timestamp,
        started_at: Option<auspex_kernel::Timestamp>,
        ended_at: Option<auspex_kernel::Timestamp>,
        turn: Option<i64>,
        #[sea_orm(column_type = "Text", nullable)]
        error_code: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        error_message: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        callback_url: Option<String>,
        #[sea_orm(column_type = "Text", nullable)]
        callback_state: Option<String>,
        callback_attempts: i64,
        callback_due: Option<i64>,
        #[sea_orm(column_type = "Text", nullable)]
        content: Option<String>,
        stored_bytes: i64,
        #[sea_orm(column_type = "Text", nullable)]
        discard: Option<String>,
    }
}

table! {
    owners, "jobs_owners" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        owner: String,
        turn: i64,
    }
}

table! {
    chunks, "jobs_chunks" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        job: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        first_row: i64,
        row_count: i64,
        #[sea_orm(column_type = "Text")]
        state: String,
        attempts: i64,
        fence: i64,
        chunk_due: i64,
        #[sea_orm(column_type = "Text", nullable)]
        error: Option<String>,
        ndjson_bytes: i64,
        csv_bytes: i64,
    }
}

table! {
    inputs, "jobs_inputs" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        job: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        lines: Vec<u8>,
    }
}

table! {
    results, "jobs_results" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        job: String,
        #[sea_orm(primary_key, auto_increment = false)]
        seq: i64,
        lines: Vec<u8>,
    }
}
