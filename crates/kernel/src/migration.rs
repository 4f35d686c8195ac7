//! The tables of this crate, and how older databases get them. A migration that was released is
//! never changed; the next one is added below it.

use sea_orm_migration::prelude::*;

use crate::db::{Db, DbError, KnownMigrations};
use crate::service::Migrations;

/// Brings the tables of this crate up to date. Safe to run from several processes at once.
///
/// # Errors
/// [`DbError::Database`].
pub async fn migrate(db: &Db) -> Result<(), DbError> {
    db.migrate::<Migrator>().await
}

/// Whether the tables of this crate have ever been made.
///
/// # Errors
/// As of [`Db::read`].
pub async fn is_migrated(db: &Db) -> Result<bool, DbError> {
    let record = Migrator::migration_table_name().to_string();
    db.read(async |connection| Ok(SchemaManager::new(connection).has_table(&record).await?))
        .await
}

/// The migrations of this crate.
pub fn known_migrations() -> KnownMigrations {
    KnownMigrations::of::<Migrator>()
}

/// What a database that a service has for itself holds beside the tables of that service and those of this crate: the
/// audit record, whose table is elsewhere made by the service that knows callers.
pub fn migrations_apart() -> Migrations {
    Migrations::of::<Apart>()
}

/// The migrations of this crate, to be run with others.
pub fn migrations() -> Migrations {
    Migrations::of::<Migrator>()
}

/// Knows every migration of this crate and keeps its own record of those that ran, so that
/// services can share the database.
struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Secrets),
            Box::new(IdempotencyKeys),
            Box::new(WriteProof),
            Box::new(KeysWithoutClaims),
            Box::new(KeysByLocation),
            Box::new(DeletedUsers),
        ]
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

struct IdempotencyKeys;

impl MigrationName for IdempotencyKeys {
    fn name(&self) -> &str {
        "m0002_idempotency_keys"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for IdempotencyKeys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let keys = Table::create()
            .table("kernel_idempotency_keys")
            .col(ColumnDef::new("digest").blob().not_null().primary_key())
            .col(ColumnDef::new("claim").blob().not_null())
            .col(ColumnDef::new("fingerprint").blob().not_null())
            .col(ColumnDef::new("expires_at").big_integer().not_null())
            .col(ColumnDef::new("status").integer())
            .col(ColumnDef::new("location").text())
            .col(ColumnDef::new("etag").text())
            .col(ColumnDef::new("content_type").text())
            .col(ColumnDef::new("body").blob())
            .to_owned();
        manager.create_table(keys).await?;
        let by_expiry = Index::create()
            .name("kernel_idempotency_keys_by_expiry")
            .table("kernel_idempotency_keys")
            .col("expires_at")
            .to_owned();
        manager.create_index(by_expiry).await
    }
}

struct WriteProof;

impl MigrationName for WriteProof {
    fn name(&self) -> &str {
        "m0003_write_proof"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for WriteProof {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let proof = Table::create()
            .table("kernel_write_proof")
            .col(ColumnDef::new("id").integer().not_null().primary_key())
            .col(ColumnDef::new("written_at").big_integer().not_null())
            .col(ColumnDef::new("filler").blob().not_null())
            .to_owned();
        manager.create_table(proof).await
    }
}

/// A key is stored together with what was done for it, and no longer before.
struct KeysWithoutClaims;

impl MigrationName for KeysWithoutClaims {
    fn name(&self) -> &str {
        "m0004_keys_without_claims"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for KeysWithoutClaims {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let unanswered = Query::delete()
            .from_table("kernel_idempotency_keys")
            .and_where(Expr::col("status").is_null())
            .to_owned();
        manager.execute(unanswered).await?;
        let claim = Table::alter()
            .table("kernel_idempotency_keys")
            .drop_column("claim")
            .to_owned();
        manager.alter_table(claim).await
    }
}

/// What was answered about a thing is forgotten with it, and found by where it was.
struct KeysByLocation;

impl MigrationName for KeysByLocation {
    fn name(&self) -> &str {
        "m0005_keys_by_location"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for KeysByLocation {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let by_location = Index::create()
            .name("kernel_idempotency_keys_by_location")
            .table("kernel_idempotency_keys")
            .col("location")
            .to_owned();
        manager.create_index(by_location).await
    }
}

struct DeletedUsers;

impl MigrationName for DeletedUsers {
    fn name(&self) -> &str {
        "m0006_deleted_users"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for DeletedUsers {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let users = Table::create()
            .table("kernel_deleted_users")
            .col(ColumnDef::new("subject").text().not_null().primary_key())
            .col(ColumnDef::new("deleted_at").big_integer().not_null())
            .to_owned();
        manager.create_table(users).await?;
        let by_age = Index::create()
            .name("kernel_deleted_users_by_deleted_at")
            .table("kernel_deleted_users")
            .col("deleted_at")
            .to_owned();
        manager.create_index(by_age).await
    }
}

/// The migrations of databases of a single service.
struct Apart;

#[async_trait::async_trait]
impl MigratorTrait for Apart {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(AuditRecord)]
    }

    fn migration_table_name() -> DynIden {
        "kernel_apart_migrations".into_iden()
    }
}

/// Lines on their way to the record that is read.
struct AuditRecord;

impl MigrationName for AuditRecord {
    fn name(&self) -> &str {
        "m0001_audit_record"
    }
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "async_trait counts a written lifetime apart from the trait's, which leaves it out"
)]
#[async_trait::async_trait]
impl MigrationTrait for AuditRecord {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let text = |name: &'static str| ColumnDef::new(name).text().to_owned();
        let lines = Table::create()
            .table("identity_audit")
            .col(text("id").not_null().primary_key())
            .col(ColumnDef::new("at").big_integer().not_null())
            .col(text("actor").not_null())
            .col(text("action").not_null())
            .col(text("target"))
            .col(text("outcome").not_null())
            .col(text("detail"))
            .col(text("address"))
            .col(text("request_id"))
            .to_owned();
        manager.create_table(lines).await
    }
}
