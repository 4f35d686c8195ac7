//! Databases for the contract, new and empty.

use std::sync::Arc;

use auspex_identity::{Config, Identity};
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::{Clock, Random};
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};

use crate::START;

pub(crate) const ISSUER: &str = "https://id.example.org";

/// A database of a test's own. Each [`Store::db`] is what another process would open.
pub(crate) struct Store {
    pub(crate) url: String,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) folder: Option<tempfile::TempDir>,
}

impl Store {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}", folder.path().join("auspex.db").display()),
            clock: Clock::manual(START),
            random: Random::system(),
            folder: Some(folder),
        }
    }

    /// The same database, for another task. This one must outlive it.
    pub(crate) fn shared(&self) -> Self {
        Self {
            url: self.url.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            folder: None,
        }
    }

    /// A schema of its own in the database at `url`.
    pub(crate) async fn postgres(url: &str, test: &str) -> Self {
        let schema = format!("identity_{}_{test}", std::process::id());
        let admin = Db::open(url).await.unwrap();
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        execute(&admin, create).await;
        let sign = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{sign}options=-c%20search_path%3D{schema}"),
            clock: Clock::manual(START),
            random: Random::system(),
            folder: None,
        }
    }

    pub(crate) async fn remove(self) {
        if let Some((_, schema)) = self.url.split_once("search_path%3D") {
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            execute(&self.db().await, drop).await;
        }
    }

    pub(crate) async fn db(&self) -> Db {
        Db::open(&self.url).await.unwrap()
    }

    /// These columns of the lines of the audit record that meet the condition, newest first.
    pub(crate) async fn recorded(&self, columns: &str, condition: &str) -> Vec<String> {
        let sql = format!(
            "SELECT {columns} FROM identity_audit WHERE {condition} ORDER BY at DESC, id DESC"
        );
        texts(&self.db().await, &sql).await
    }

    /// A process of its own: its own connections, its own snapshot.
    pub(crate) async fn identity(&self) -> Arc<Identity> {
        self.identity_with(config()).await
    }

    /// The same with settings of its own.
    pub(crate) async fn identity_with(&self, config: Config) -> Arc<Identity> {
        let db = self.db().await;
        auspex_kernel::migrate(&db).await.unwrap();
        Identity::migrate(&db).await.unwrap();
        let identity = Identity::open(db, self.clock.clone(), self.random.clone(), config, ISSUER);
        let identity = identity.await.unwrap();
        identity.signing_keys().tend().await.unwrap();
        identity
    }
}

/// The usual settings.
pub(crate) fn config() -> Config {
    serde_json::from_value(settings()).unwrap()
}

/// The same, to be changed.
pub(crate) fn settings() -> Value {
    json!({
        "basic_cache_s": 60, "verified_max": 1_000, "issuers": [],
        "tokens": {
            "algorithm": "EdDSA", "audience": "", "access_ttl_s": 900, "refresh_ttl_s": 2_592_000,
            "refresh_grace_s": 10, "signing_key_days": 90, "signing_key_lead_s": 3_600,
        },
        "passwords": {
            "memory_kib": 19_456, "iterations": 2, "parallelism": 1, "threads": 1, "queue_max": 64,
        },
        "throttle": {"failures_max": 20, "window_s": 600, "delay_max_ms": 2_000},
        "retention": {"ended_days": 30, "logins_days": 90, "audit_days": 400},
    })
}

/// Runs `sql` as it is.
pub(crate) async fn execute(db: &Db, sql: String) {
    db.write(async |transaction| -> Result<_, DbError> {
        Ok(transaction.execute_unprepared(&sql).await?)
    })
    .await
    .unwrap();
}

/// The rows of a query, each its first column as text.
pub(crate) async fn texts(db: &Db, sql: &str) -> Vec<String> {
    let sql = sql.to_owned();
    db.read(async |connection| -> Result<_, DbError> {
        let backend = connection.get_database_backend();
        let rows = connection.query_all_raw(Statement::from_string(backend, sql));
        let rows = rows.await?;
        let texts = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(texts.collect::<Result<_, _>>()?)
    })
    .await
    .unwrap()
}
