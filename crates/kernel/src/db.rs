//! The database handle every service shares: SQLite with nothing to install, PostgreSQL by URL.
//!
//! Calls run on the control runtime, not on the runtime of the core that met the request: a pooled
//! socket belongs to the runtime that opened it, and a client's disconnect must not cancel a
//! transaction. Reads and writes have pools apart; SQLite has one writer, and every write
//! transaction begins IMMEDIATE, for a deferred one that reads first fails under contention.

use std::future::Future;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend,
    DbErr, RuntimeErr, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use tokio::runtime::Handle;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
const SQLITE_BUSY: &str = "5";
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;
/// Any constant known to every replica.
const MIGRATION_LOCK: i64 = 0x6175_7370_6578;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The folder for the SQLite file could not be made.
    #[error("cannot make the data folder {}: {cause}; name another with --data-dir", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The database said no.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// The call panicked, or the program is stopping.
    #[error("the database call did not finish")]
    Interrupted,
}

impl From<DbError> for crate::ApiError {
    fn from(error: DbError) -> Self {
        crate::ApiError::internal(error)
    }
}

/// The future of one database call.
pub type Call<'c, T> = Pin<Box<dyn Future<Output = Result<T, DbErr>> + Send + 'c>>;

/// A database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    read: DatabaseConnection,
    write: DatabaseConnection,
    control: Handle,
    url: String,
}

impl Db {
    /// Opens `sqlite:PATH` or `postgres://…`; a SQLite file and its folder are made where missing.
    /// Must be called on the control runtime.
    ///
    /// # Errors
    /// [`DbError::Folder`] or [`DbError::Database`].
    pub async fn open(url: &str) -> Result<Self, DbError> {
        let (read, write) = match url.strip_prefix("sqlite:") {
            Some(path) => {
                let folder = Path::new(path).parent().unwrap_or(Path::new("."));
                make_private_folder(folder).map_err(|cause| DbError::Folder {
                    folder: folder.into(),
                    cause,
                })?;
                // The writer first: it makes the file and turns on WAL.
                let write = connect_writer(url).await?;
                (connect(url, SQLITE_READERS).await?, write)
            }
            None => {
                let pool = connect(url, POSTGRES_CONNECTIONS).await?;
                (pool.clone(), pool)
            }
        };
        Ok(Self {
            read,
            write,
            control: Handle::current(),
            url: url.to_owned(),
        })
    }

    /// Brings one service's tables up to date. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), DbError> {
        self.write(|transaction| {
            Box::pin(async move {
                if transaction.get_database_backend() == DbBackend::Postgres {
                    let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
                    transaction.execute_unprepared(&lock).await?;
                }
                M::up(transaction, None).await
            })
        })
        .await
    }

    /// Runs a query on a reader.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn read<T, F>(&self, query: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseConnection) -> Call<'c, T> + Send + 'static,
    {
        let connection = self.read.clone();
        let call = async move { query(&connection).await };
        Ok(self
            .control
            .spawn(call)
            .await
            .map_err(|_| DbError::Interrupted)??)
    }

    /// Runs `work` in one write transaction and commits it; an error rolls it back.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> Call<'c, T> + Send + 'static,
    {
        let connection = self.write.clone();
        let call = async move {
            let options = TransactionOptions {
                sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
                ..TransactionOptions::default()
            };
            let transaction = connection.begin_with_options(options).await?;
            let result = work(&transaction).await?;
            transaction.commit().await?;
            Ok::<T, DbErr>(result)
        };
        Ok(self
            .control
            .spawn(call)
            .await
            .map_err(|_| DbError::Interrupted)??)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn ping(&self) -> Result<(), DbError> {
        self.read(|connection| Box::pin(async move { connection.ping().await }))
            .await
    }

    /// Tells when another connection has written.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn watch(&self) -> Result<Watch, DbError> {
        Ok(Watch {
            connection: connect(&self.url, 1).await?,
            seen: None,
        })
    }
}

/// Makes a folder, with those above it, that only its owner may enter.
///
/// # Errors
/// What the operating system says.
pub fn make_private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Notices writes of other connections and processes, by SQLite's `data_version`, which is counted
/// per connection and so needs one of its own.
#[derive(Debug)]
pub struct Watch {
    connection: DatabaseConnection,
    seen: Option<i64>,
}

impl Watch {
    /// Whether something may have changed since the last call. PostgreSQL has no such counter and
    /// always says yes.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn changed(&mut self) -> Result<bool, DbError> {
        if self.connection.get_database_backend() != DbBackend::Sqlite {
            return Ok(true);
        }
        let statement = sea_orm::Statement::from_string(DbBackend::Sqlite, "PRAGMA data_version");
        let row = self.connection.query_one_raw(statement).await?;
        let version = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?;
        let changed = version != self.seen;
        self.seen = version;
        Ok(changed)
    }
}

/// Several processes may start at once on a new file. One turns on WAL; SQLite does not let the
/// others wait for it, whatever the busy timeout, but says at once that the file is locked.
async fn connect_writer(url: &str) -> Result<DatabaseConnection, DbErr> {
    let end = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connect(url, 1).await {
            Err(error) if is_locked(&error) && Instant::now() < end => {
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            result => return result,
        }
    }
}

fn is_locked(error: &DbErr) -> bool {
    let DbErr::Conn(RuntimeErr::SqlxError(error)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == SQLITE_BUSY)
}

async fn connect(url: &str, connections_max: u32) -> Result<DatabaseConnection, DbErr> {
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite:{path}?mode=rwc"),
        None => url.to_owned(),
    };
    let is_file = url.starts_with("sqlite:");
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        .map_sqlx_sqlite_opts(|sqlite| {
            sqlite
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
                .pragma("secure_delete", "ON")
        });
    if is_file {
        // A file's connection does not go stale, and each counts `data_version` for itself: were
        // the watching one replaced, a write at that moment could go unnoticed.
        options
            .idle_timeout(None::<Duration>)
            .max_lifetime(None::<Duration>);
    }
    Database::connect(options).await
}
