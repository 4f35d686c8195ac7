//! Databases for the contract, new and empty.

use std::path::Path;

use auspex_dialogues::{Config, Dialogues, KeysError, migrate};
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::{Clock, Random};
use sea_orm::{ConnectionTrait as _, Statement};

use crate::START;

/// As the first migration of another service makes it.
const AUDIT: &str = "CREATE TABLE IF NOT EXISTS identity_audit (id text PRIMARY KEY, \
     at bigint NOT NULL, actor text NOT NULL, action text NOT NULL, target text, \
     outcome text NOT NULL, detail text, address text, request_id text)";

/// Databases of a test's own. Each [`Store::dialogues`] is what another process would open.
pub(crate) struct Store {
    pub(crate) url: String,
    pub(crate) clock: Clock,
    /// With the master key, and with the databases where they are files.
    pub(crate) folder: tempfile::TempDir,
}

impl Store {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite:{}", folder.path().join("auspex.db").display()),
            clock: Clock::manual(START),
            folder,
        }
    }

    /// A schema of its own in the database at `url`.
    pub(crate) async fn postgres(url: &str, test: &str) -> Self {
        let schema = format!("dialogues_{}_{test}", std::process::id());
        let admin = Db::open(url).await.unwrap();
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        execute(&admin, &create).await;
        let sign = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{sign}options=-c%20search_path%3D{schema}"),
            clock: Clock::manual(START),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn remove(self) {
        if let Some((_, schema)) = self.url.split_once("search_path%3D") {
            let drop = format!("DROP SCHEMA {schema} CASCADE");
            execute(&self.db().await, &drop).await;
        }
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.url.starts_with("sqlite:")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The main database.
    pub(crate) async fn db(&self) -> Db {
        Db::open(&self.url).await.unwrap()
    }

    /// The keys database.
    pub(crate) async fn keys_db(&self) -> Db {
        match self.is_sqlite() {
            true => {
                let url = format!("sqlite:{}", self.path().join("keys.db").display());
                Db::open(&url).await.unwrap()
            }
            false => self.db().await,
        }
    }

    /// The condition that a column has these bytes.
    pub(crate) fn is(&self, column: &str, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.is_sqlite() {
            true => format!("{column} = X'{hex}'"),
            false => format!("{column} = '\\x{hex}'::bytea"),
        }
    }

    /// The query for all tables of this service that have a column.
    pub(crate) fn tables_with(&self, column: &str) -> String {
        match self.is_sqlite() {
            true => format!(
                "SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
                 WHERE m.type = 'table' AND c.name = '{column}'"
            ),
            false => format!(
                "SELECT table_name::text FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND column_name = '{column}'"
            ),
        }
    }

    /// Makes the tables of a main database.
    pub(crate) async fn prepare(db: &Db) {
        auspex_kernel::migrate(db).await.unwrap();
        execute(db, AUDIT).await;
        migrate(db).await.unwrap();
    }

    /// A process of its own: its own connections, buffer and keys in memory.
    pub(crate) async fn dialogues(&self) -> Dialogues {
        self.open(Config::default()).await.unwrap()
    }

    /// The same with settings of its own.
    pub(crate) async fn open(&self, config: Config) -> Result<Dialogues, KeysError> {
        let db = self.db().await;
        Self::prepare(&db).await;
        let random = Random::system();
        Dialogues::open(db, config, self.path(), self.clock.clone(), random).await
    }
}

/// Runs `sql` as it is.
pub(crate) async fn execute(db: &Db, sql: &str) {
    db.write(async |transaction| -> Result<_, DbError> {
        Ok(transaction.execute_unprepared(sql).await?)
    })
    .await
    .unwrap();
}

/// The number that a query answers.
pub(crate) async fn number(db: &Db, sql: &str) -> i64 {
    let sql = sql.to_owned();
    db.read(async |connection| -> Result<_, DbError> {
        let backend = connection.get_database_backend();
        let row = connection.query_one_raw(Statement::from_string(backend, sql));
        Ok(row.await?.unwrap().try_get_by_index(0)?)
    })
    .await
    .unwrap()
}

/// The rows of a query, each its first column as text.
pub(crate) async fn texts(db: &Db, sql: &str) -> Vec<String> {
    first_columns(db, sql).await
}

/// The rows of a query, each its first column as bytes.
pub(crate) async fn blobs(db: &Db, sql: &str) -> Vec<Vec<u8>> {
    first_columns(db, sql).await
}

async fn first_columns<T: sea_orm::TryGetable>(db: &Db, sql: &str) -> Vec<T> {
    let sql = sql.to_owned();
    db.read(async |connection| -> Result<_, DbError> {
        let backend = connection.get_database_backend();
        let rows = connection.query_all_raw(Statement::from_string(backend, sql));
        let rows = rows.await?;
        let blobs = rows.iter().map(|row| row.try_get_by_index(0));
        Ok(blobs.collect::<Result<_, _>>()?)
    })
    .await
    .unwrap()
}
