//! The tables as SeaORM sees them; `migration.rs` says what the columns are for.

macro_rules! table {
    ($(#[doc = $doc:literal])* $module:ident, $name:literal {
        $($(#[$attribute:meta])* $column:ident: $type:ty,)*
    }) => {
        $(#[doc = $doc])*
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
    dialogues, "dialogues_dialogues" {
        #[sea_orm(primary_key, auto_increment = false)]
        dialogue: Vec<u8>,
        customer: Vec<u8>,
        key_id: Option<Vec<u8>>,
        #[sea_orm(column_type = "Text")]
        status: String,
        texts: i64,
        began_at: auspex_kernel::Timestamp,
        decided_at: auspex_kernel::Timestamp,
        ids_id: Option<i64>,
    }
}

table! {
    messages, "dialogues_messages" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: i64,
        dialogue: Vec<u8>,
        customer: Vec<u8>,
        key_id: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        language: String,
        #[sea_orm(column_type = "Text")]
        primary_language: String,
        #[sea_orm(column_type = "Text")]
        purpose: String,
        received_at: auspex_kernel::Timestamp,
        ordinal: i64,
    }
}

table! {
    sealed, "dialogues_sealed" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: i64,
        is_erased: i32,
        sealed: Vec<u8>,
    }
}

table! {
    consents, "dialogues_consents" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: i64,
        dialogue: Vec<u8>,
        customer: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        decision: String,
        decided_at: auspex_kernel::Timestamp,
        #[sea_orm(column_type = "Text")]
        channel: String,
        #[sea_orm(column_type = "Text")]
        policy_version: String,
        #[sea_orm(column_type = "Text")]
        purpose: String,
    }
}

table! {
    withdrawals, "dialogues_withdrawals" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: i64,
        dialogue: Vec<u8>,
        customer: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        reason: String,
        at: auspex_kernel::Timestamp,
    }
}

table! {
    erased, "dialogues_erased" {
        #[sea_orm(primary_key, auto_increment = false)]
        erasure_id: Vec<u8>,
        key_id: Option<Vec<u8>>,
    }
}

table! {
    keys, "dialogues_keys" {
        #[sea_orm(primary_key, auto_increment = false)]
        customer: Vec<u8>,
        key_id: Vec<u8>,
        wrapped: Vec<u8>,
        master_id: Vec<u8>,
        created_at: auspex_kernel::Timestamp,
    }
}

table! {
    secrets, "dialogues_key_secrets" {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        name: String,
        wrapped: Vec<u8>,
        master_id: Vec<u8>,
    }
}

table! {
    belonging, "dialogues_keys_belonging" {
        #[sea_orm(primary_key, auto_increment = false)]
        one: i64,
        main: Vec<u8>,
        id: Vec<u8>,
    }
}

table! {
    erasures, "dialogues_erasures" {
        #[sea_orm(primary_key, auto_increment = false)]
        id: Vec<u8>,
        customer: Vec<u8>,
        dialogue: Option<Vec<u8>>,
        key_id: Option<Vec<u8>>,
        erased_at: auspex_kernel::Timestamp,
        completed_at: Option<auspex_kernel::Timestamp>,
        messages: i64,
        dialogues: i64,
        pending_texts: i64,
        log_truncated: bool,
    }
}
