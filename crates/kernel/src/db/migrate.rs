//! Brings tables up to date, and lives with those that a newer version has brought further.

use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend};
use sea_orm_migration::MigratorTrait;
use tokio::time::Instant;

use super::{Db, DbError, Difference, Fault, KnownMigrations, Transaction, compare, rights};

/// How long bringing the tables of a service up to date may take, the wait for other processes that
/// do the same included.
const MIGRATION_TIMEOUT: Duration = Duration::from_mins(10);
/// Before a migration that other processes kept waiting is tried again.
const MIGRATION_PAUSE: Duration = Duration::from_millis(100);
/// Any constant known to every replica.
const MIGRATION_LOCK: i64 = 0x6175_7370_6578;

impl Difference {
    /// Tells the log of migrations that a newer version has carried out. Tables only ever gain what
    /// older versions can do without, so these go on with them, as they do while replicas are
    /// replaced one after the other.
    pub fn tell_of_newer(&self, database: &str) {
        if !self.unknown.is_empty() {
            let migrations = self.unknown.join(", ");
            tracing::warn!(%database, %migrations, "a newer version has brought the tables further; this one goes on with them");
        }
    }
}

impl Db {
    /// Brings one service's tables up to date; those that a newer version has brought further stay as they
    /// are. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`DbError::Database`], also where this and another version know migrations that the other does not;
    /// [`DbError::Denied`], [`DbError::TimedOut`], [`DbError::Abandoned`].
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), DbError> {
        let known = [KnownMigrations::of::<M>()];
        // Where there is nothing to do, neither a lock nor the right to make tables is needed.
        let found = compare(self, &known).await;
        let found = found.map_err(|error| self.named(error))?;
        found.tell_of_newer(&self.name());
        if found.pending.is_empty() {
            return Ok(());
        }
        let end = Instant::now() + MIGRATION_TIMEOUT;
        let mut is_told = false;
        loop {
            match self.migrate_once::<M>().await {
                Err(error) if error.fault() == Some(Fault::Busy) && Instant::now() < end => {
                    if !std::mem::replace(&mut is_told, true) {
                        let (database, wait_s) = (self.name(), MIGRATION_TIMEOUT.as_secs());
                        tracing::warn!(%database, wait_s, "another process holds the database locked; waiting for it");
                    }
                    tokio::time::sleep(MIGRATION_PAUSE).await;
                }
                migrated => return migrated,
            }
        }
    }

    async fn migrate_once<M: MigratorTrait>(&self) -> Result<(), DbError> {
        let known = KnownMigrations::of::<M>();
        let up = async |transaction: &Transaction| {
            if transaction.get_database_backend() == DbBackend::Postgres {
                let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
                transaction.execute_unprepared(&lock).await?;
            }
            // While this waited for the lock a newer version may have done it all.
            let found = known.compare(transaction).await?;
            if found.pending.is_empty() {
                return Ok(());
            }
            Ok::<_, DbError>(M::up(transaction, None).await?)
        };
        match self.write_apart(MIGRATION_TIMEOUT, up).await {
            Err(error) if error.fault() == Some(Fault::Denied) => {
                let table = M::migration_table_name().to_string();
                let missing = self.read(async |connection| {
                    Ok::<_, DbError>(rights::missing(connection, &[&table], true).await?)
                });
                Err(DbError::Denied {
                    database: self.name(),
                    cause: error.to_string(),
                    missing: missing.await.unwrap_or_default(),
                })
            }
            Err(error) => Err(self.named(error)),
            Ok(()) => Ok(()),
        }
    }
}
