//! The tables as SeaORM sees them; `migration.rs` says what the columns are for.

pub(crate) mod api_keys {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::{KeyId, UserId};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_api_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: KeyId,
        #[sea_orm(column_type = "Text")]
        pub(crate) name: String,
        pub(crate) digest: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) created_at: Timestamp,
        pub(crate) expires_at: Option<Timestamp>,
        pub(crate) revoked_at: Option<Timestamp>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) owner_id: Option<UserId>,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) replaced_by: Option<KeyId>,
        pub(crate) last_used_at: Option<Timestamp>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod key_sets {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_key_sets")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: i32,
        pub(crate) generation: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod changes {
    use auspex_kernel::Timestamp;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_changes")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) generation: i64,
        #[sea_orm(column_type = "Text")]
        pub(crate) kind: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) subject: String,
        pub(crate) at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod users {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::UserId;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: UserId,
        #[sea_orm(column_type = "Text")]
        pub(crate) name: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) email: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) email_key: String,
        pub(crate) email_verified: bool,
        #[sea_orm(column_type = "Text")]
        pub(crate) username: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) username_key: String,
        pub(crate) age: Option<i32>,
        #[sea_orm(column_type = "Text")]
        pub(crate) roles: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) password_hash: Option<String>,
        pub(crate) disabled_at: Option<Timestamp>,
        pub(crate) created_at: Timestamp,
        pub(crate) updated_at: Timestamp,
        pub(crate) last_login_at: Option<Timestamp>,
        pub(crate) login_count: i64,
        pub(crate) version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod logins {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::UserId;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_logins")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) user_id: UserId,
        pub(crate) at: Timestamp,
        #[sea_orm(column_type = "Text")]
        pub(crate) method: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) address: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod grants {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::{ClientId, SessionId, UserId};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_grants")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: SessionId,
        #[sea_orm(column_type = "Text")]
        pub(crate) user_id: UserId,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) client_id: Option<ClientId>,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) created_at: Timestamp,
        pub(crate) authenticated_at: Timestamp,
        pub(crate) expires_at: Timestamp,
        pub(crate) sequence: i64,
        pub(crate) refreshed_at: Option<Timestamp>,
        pub(crate) revoked_at: Option<Timestamp>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod codes {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::{ClientId, SessionId, UserId};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_codes")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) digest: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        pub(crate) client_id: ClientId,
        #[sea_orm(column_type = "Text")]
        pub(crate) user_id: UserId,
        #[sea_orm(column_type = "Text")]
        pub(crate) redirect_uri: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) challenge: String,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) nonce: Option<String>,
        pub(crate) authenticated_at: Timestamp,
        pub(crate) expires_at: Timestamp,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) grant_id: Option<SessionId>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod devices {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::{ClientId, UserId};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_devices")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) digest: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        pub(crate) user_code: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) client_id: ClientId,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) expires_at: Timestamp,
        pub(crate) interval_s: i64,
        pub(crate) polled_at: Option<Timestamp>,
        pub(crate) denied: bool,
        #[sea_orm(column_type = "Text", nullable)]
        pub(crate) user_id: Option<UserId>,
        pub(crate) authenticated_at: Option<Timestamp>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod clients {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::ClientId;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_clients")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) id: ClientId,
        #[sea_orm(column_type = "Text")]
        pub(crate) name: String,
        pub(crate) secret_digest: Option<Vec<u8>>,
        pub(crate) old_secret_digest: Option<Vec<u8>>,
        pub(crate) old_secret_until: Option<Timestamp>,
        #[sea_orm(column_type = "Text")]
        pub(crate) redirect_uris: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) post_logout_redirect_uris: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) grant_types: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) created_at: Timestamp,
        #[sea_orm(column_type = "Text")]
        pub(crate) created_by: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod consents {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::{ClientId, UserId};
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_consents")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) user_id: UserId,
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) client_id: ClientId,
        #[sea_orm(column_type = "Text")]
        pub(crate) scopes: String,
        pub(crate) at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod sessions {
    use auspex_kernel::Timestamp;
    use auspex_kernel::id::UserId;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_sessions")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) digest: Vec<u8>,
        #[sea_orm(column_type = "Text")]
        pub(crate) user_id: UserId,
        pub(crate) authenticated_at: Timestamp,
        pub(crate) expires_at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod revoked_tokens {
    use auspex_kernel::Timestamp;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_revoked_tokens")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) jti: String,
        pub(crate) expires_at: Timestamp,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) mod signing_keys {
    use auspex_kernel::Timestamp;
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "identity_signing_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
        pub(crate) kid: String,
        #[sea_orm(column_type = "Text")]
        pub(crate) algorithm: String,
        pub(crate) pkcs8: Vec<u8>,
        pub(crate) created_at: Timestamp,
        pub(crate) signs_from: Timestamp,
    }

    /// Never shows the private key.
    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            let mut shown = f.debug_struct("SigningKey");
            shown.field("kid", &self.kid).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
