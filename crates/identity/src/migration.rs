//! The tables of this crate, and how older databases get them. A migration that was released is
//! never changed; the next one is added below it.

mod names;

use sea_orm_migration::prelude::*;

/// Knows every migration of this crate and keeps its own record of those that ran, so that other
/// services can share the database.
pub(crate) struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(ApiKeys),
            Box::new(Users),
            Box::new(Indexes),
            Box::new(VerifiedEmails),
            Box::new(Logouts),
            Box::new(AuditByTime),
            Box::new(Names),
            Box::new(OldSecrets),
            Box::new(Devices),
        ]
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

/// Users and everything that is issued to them or in their name. Times are microseconds.
struct Users;

impl MigrationName for Users {
    fn name(&self) -> &str {
        "m0002_users"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Users {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in users_tables() {
            manager.create_table(table).await?;
        }
        for column in [
            text("owner_id").take(),
            text("replaced_by").take(),
            time("last_used_at").take(),
        ] {
            // SQLite adds one column at a time.
            let added = Table::alter()
                .table("identity_api_keys")
                .add_column(column)
                .to_owned();
            manager.alter_table(added).await?;
        }
        for (table, columns) in [
            ("identity_logins", &["user_id", "id"][..]),
            ("identity_logins", &["at"]),
            ("identity_grants", &["user_id"]),
            ("identity_grants", &["client_id"]),
            ("identity_grants", &["expires_at"]),
            ("identity_grants", &["revoked_at"]),
            ("identity_codes", &["expires_at"]),
            ("identity_sessions", &["user_id"]),
            ("identity_sessions", &["expires_at"]),
            ("identity_revoked_tokens", &["expires_at"]),
            ("identity_changes", &["at"]),
            ("identity_audit", &["at"]),
            ("identity_audit", &["actor", "id"]),
            ("identity_audit", &["action", "id"]),
            ("identity_api_keys", &["owner_id"]),
            ("identity_api_keys", &["created_at", "id"]),
        ] {
            let mut index = Index::create();
            index.name(format!("{table}_by_{}", columns.join("_")));
            index.table(table);
            for column in columns {
                index.col(*column);
            }
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// No statement of a change or a list reads a whole table, however much history there is.
struct Indexes;

impl MigrationName for Indexes {
    fn name(&self) -> &str {
        "m0003_indexes"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Indexes {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for (name, of) in [
            // Names come again and again where keys are replaced.
            (
                "api_keys_unrevoked_by_name",
                "api_keys (name, created_at, id) WHERE revoked_at IS NULL",
            ),
            (
                "api_keys_revoked_by_name",
                "api_keys (name, created_at, id) WHERE revoked_at IS NOT NULL",
            ),
            (
                "api_keys_by_owner_id_created_at",
                "api_keys (owner_id, created_at, id)",
            ),
            (
                "api_keys_unrevoked_by_owner_id",
                "api_keys (owner_id) WHERE revoked_at IS NULL",
            ),
            ("api_keys_by_end", "api_keys (revoked_at, expires_at)"),
            (
                "grants_unrevoked_by_user_id",
                "grants (user_id, expires_at) WHERE revoked_at IS NULL",
            ),
            (
                "grants_unrevoked_by_client_id",
                "grants (client_id, expires_at) WHERE revoked_at IS NULL",
            ),
            ("codes_by_user_id", "codes (user_id)"),
            ("codes_by_client_id", "codes (client_id)"),
            ("consents_by_client_id", "consents (client_id)"),
            ("audit_by_target_id", "audit (target, id)"),
            ("audit_by_outcome_id", "audit (outcome, id)"),
            ("users_disabled", "users (id) WHERE disabled_at IS NOT NULL"),
            // Each as `store/user_rows.rs` asks for it.
            (
                "users_admin",
                "users (id) WHERE ' ' || roles || ' ' LIKE '% admin %'",
            ),
            (
                "users_data_scientist",
                "users (id) WHERE ' ' || roles || ' ' LIKE '% data-scientist %'",
            ),
            (
                "users_operator",
                "users (id) WHERE ' ' || roles || ' ' LIKE '% operator %'",
            ),
            (
                "users_service",
                "users (id) WHERE ' ' || roles || ' ' LIKE '% service %'",
            ),
            (
                "users_viewer",
                "users (id) WHERE ' ' || roles || ' ' LIKE '% viewer %'",
            ),
        ] {
            let create = format!("CREATE INDEX identity_{name} ON identity_{of}");
            connection.execute_unprepared(&create).await?;
        }
        for replaced in [
            "api_keys_by_name",
            "api_keys_by_owner_id",
            "grants_by_user_id",
            "grants_by_client_id",
        ] {
            let drop = format!("DROP INDEX identity_{replaced}");
            connection.execute_unprepared(&drop).await?;
        }
        Ok(())
    }
}

/// Whether an administrator says that a user's address is theirs.
struct VerifiedEmails;

impl MigrationName for VerifiedEmails {
    fn name(&self) -> &str {
        "m0004_verified_emails"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for VerifiedEmails {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut verified = ColumnDef::new("email_verified");
        verified.boolean().not_null().default(false);
        let added = Table::alter()
            .table("identity_users")
            .add_column(verified)
            .to_owned();
        manager.alter_table(added).await
    }
}

/// Where clients have their users back after a logout.
struct Logouts;

impl MigrationName for Logouts {
    fn name(&self) -> &str {
        "m0005_logouts"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Logouts {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Space-separated.
        let mut uris = text("post_logout_redirect_uris");
        let added = Table::alter()
            .table("identity_clients")
            .add_column(uris.not_null().default(""))
            .to_owned();
        manager.alter_table(added).await
    }
}

/// The audit record between two times, in their order.
struct AuditByTime;

impl MigrationName for AuditByTime {
    fn name(&self) -> &str {
        "m0006_audit_by_time"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for AuditByTime {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        for sql in [
            "CREATE INDEX identity_audit_by_at_id ON identity_audit (at, id)",
            "DROP INDEX identity_audit_by_at",
        ] {
            connection.execute_unprepared(sql).await?;
        }
        Ok(())
    }
}

/// Names have one form.
struct Names;

impl MigrationName for Names {
    fn name(&self) -> &str {
        "m0007_names"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Names {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        names::bring_into_form(manager).await
    }
}

/// The secret of a client that its next one replaces.
struct OldSecrets;

impl MigrationName for OldSecrets {
    fn name(&self) -> &str {
        "m0008_old_secrets"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for OldSecrets {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [
            ColumnDef::new("old_secret_digest").blob().take(),
            time("old_secret_until"),
        ] {
            let added = Table::alter()
                .table("identity_clients")
                .add_column(column)
                .to_owned();
            manager.alter_table(added).await?;
        }
        Ok(())
    }
}

/// Programs that wait for somebody to allow them, from a browser elsewhere.
struct Devices;

impl MigrationName for Devices {
    fn name(&self) -> &str {
        "m0009_devices"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for Devices {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let devices = table("identity_devices")
            .col(ColumnDef::new("digest").blob().not_null().primary_key())
            .col(text("user_code").not_null().unique_key())
            .col(text("client_id").not_null())
            .col(text("scopes").not_null())
            .col(time("expires_at").not_null())
            .col(ColumnDef::new("interval_s").big_integer().not_null())
            .col(time("polled_at"))
            .col(ColumnDef::new("denied").boolean().not_null())
            // Who allowed it, and when they had logged in.
            .col(text("user_id"))
            .col(time("authenticated_at"))
            .to_owned();
        manager.create_table(devices).await?;
        let connection = manager.get_connection();
        for (name, of) in [
            ("by_expires_at", "(expires_at)"),
            ("by_client_id", "(client_id, expires_at)"),
            ("by_user_id", "(user_id) WHERE user_id IS NOT NULL"),
        ] {
            let create = format!("CREATE INDEX identity_devices_{name} ON identity_devices {of}");
            connection.execute_unprepared(&create).await?;
        }
        Ok(())
    }
}

fn users_tables() -> [TableCreateStatement; 11] {
    [
        table("identity_users")
            .col(text("id").primary_key())
            .col(text("name").not_null())
            .col(text("email").not_null())
            // Lower-cased: what must be unique and is looked up.
            .col(text("email_key").not_null().unique_key())
            .col(text("username").not_null())
            .col(text("username_key").not_null().unique_key())
            .col(ColumnDef::new("age").integer())
            .col(text("roles").not_null())
            // PHC string; none: no login by password.
            .col(text("password_hash"))
            .col(time("disabled_at"))
            .col(time("created_at").not_null())
            .col(time("updated_at").not_null())
            .col(time("last_login_at"))
            .col(ColumnDef::new("login_count").big_integer().not_null())
            // Counts changes by callers, for `ETag`; logins are none.
            .col(ColumnDef::new("version").big_integer().not_null())
            .to_owned(),
        table("identity_logins")
            .col(text("id").primary_key())
            .col(text("user_id").not_null())
            .col(time("at").not_null())
            .col(text("method").not_null())
            .col(text("address").not_null())
            .to_owned(),
        // What one login or one consent gave: revoking it stops every token that came of it.
        table("identity_grants")
            .col(text("id").primary_key())
            .col(text("user_id").not_null())
            .col(text("client_id"))
            .col(text("scopes").not_null())
            .col(time("created_at").not_null())
            .col(time("authenticated_at").not_null())
            .col(time("expires_at").not_null())
            // Which refresh token is the current one, and since when.
            .col(ColumnDef::new("sequence").big_integer().not_null())
            .col(time("refreshed_at"))
            .col(time("revoked_at"))
            .to_owned(),
        table("identity_codes")
            .col(ColumnDef::new("digest").blob().not_null().primary_key())
            .col(text("client_id").not_null())
            .col(text("user_id").not_null())
            .col(text("redirect_uri").not_null())
            .col(text("scopes").not_null())
            .col(text("challenge").not_null())
            .col(text("nonce"))
            .col(time("authenticated_at").not_null())
            .col(time("expires_at").not_null())
            // What its redemption gave, to be revoked when it comes again.
            .col(text("grant_id"))
            .to_owned(),
        table("identity_clients")
            .col(text("id").primary_key())
            .col(text("name").not_null())
            // None: a public client.
            .col(ColumnDef::new("secret_digest").blob())
            // Space-separated, each of the four next.
            .col(text("redirect_uris").not_null())
            .col(text("grant_types").not_null())
            .col(text("scopes").not_null())
            .col(time("created_at").not_null())
            .col(text("created_by").not_null())
            .to_owned(),
        table("identity_consents")
            .col(text("user_id").not_null())
            .col(text("client_id").not_null())
            .col(text("scopes").not_null())
            .col(time("at").not_null())
            .primary_key(Index::create().col("user_id").col("client_id"))
            .to_owned(),
        // Of the login pages, by the digest of the cookie.
        table("identity_sessions")
            .col(ColumnDef::new("digest").blob().not_null().primary_key())
            .col(text("user_id").not_null())
            .col(time("authenticated_at").not_null())
            .col(time("expires_at").not_null())
            .to_owned(),
        table("identity_revoked_tokens")
            .col(text("jti").primary_key())
            .col(time("expires_at").not_null())
            .to_owned(),
        table("identity_signing_keys")
            .col(text("kid").primary_key())
            .col(text("algorithm").not_null())
            .col(ColumnDef::new("pkcs8").blob().not_null())
            .col(time("created_at").not_null())
            // Published before, used from then on.
            .col(time("signs_from").not_null())
            .to_owned(),
        // What changed for the copy in memory, numbered by the generation that it made.
        table("identity_changes")
            .col(
                ColumnDef::new("generation")
                    .big_integer()
                    .not_null()
                    .primary_key(),
            )
            .col(text("kind").not_null())
            .col(text("subject").not_null())
            .col(time("at").not_null())
            .to_owned(),
        table("identity_audit")
            .col(text("id").primary_key())
            .col(time("at").not_null())
            .col(text("actor").not_null())
            .col(text("action").not_null())
            .col(text("target"))
            .col(text("outcome").not_null())
            .col(text("detail"))
            .col(text("address"))
            .col(text("request_id"))
            .to_owned(),
    ]
}

fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).to_owned()
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().to_owned()
}

fn time(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().to_owned()
}
