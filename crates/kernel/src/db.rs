//! The database handle every service shares: SQLite with nothing to install, PostgreSQL by URL.
//!
//! It is used on the control runtime alone (see [`Control`]), which is handed the work of a whole
//! request at once: nothing here spawns, boxes or clones for a call. SQLite has readers and one
//! `Writer`, whose transactions share commits; PostgreSQL has one pool for both.

mod connect;
mod writer;

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnAcquireErr, ConnectionTrait, DbBackend, DbErr, SqlErr, TransactionTrait as _};
use sea_orm_migration::MigratorTrait;

use crate::control::Control;
use writer::Writer;

/// What [`Db::read`] reads with.
pub use sea_orm::DatabaseConnection as Connection;
/// What [`Db::write`] writes with.
pub use sea_orm::DatabaseTransaction as Transaction;

/// The longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_AFTER_S: u64 = 1;
/// Any constant known to every replica.
const MIGRATION_LOCK: i64 = 0x6175_7370_6578;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The URL is neither of SQLite nor of PostgreSQL, or cannot be read. The message does not
    /// repeat it: it may hold a password.
    #[error(
        "the database URL is not valid; it must be of the form \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded"
    )]
    InvalidUrl,
    /// A SQLite URL without a path, or one of a database in memory.
    #[error("a SQLite database must be a file; give its path, as in sqlite:/var/lib/auspex.db")]
    NoFile,
    /// The SQLite file is another than the one opened, or is gone.
    #[error(
        "the database file {} was replaced or removed; restart the server", path.display()
    )]
    Replaced {
        /// Where it was.
        path: PathBuf,
    },
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
    /// The operating system gave no random bytes for an id.
    #[error("the operating system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// The call took longer than its caller waits.
    #[error("the database call did not finish in time")]
    Interrupted,
    /// Another transaction, which was to be committed together with this one, was abandoned.
    #[error("whether the change was stored is not known; look, and repeat it if it was not")]
    Abandoned,
}

impl DbError {
    /// Whether a unique index refused a row, because there is one like it.
    pub fn is_unique_violation(&self) -> bool {
        let DbError::Database(error) = self else {
            return false;
        };
        matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
    }
}

impl From<DbError> for crate::ApiError {
    fn from(error: DbError) -> Self {
        match &error {
            DbError::Database(cause) if is_busy(cause) => crate::ApiError::unavailable(
                "the database is busy with other changes; ask again",
                RETRY_AFTER_S,
            ),
            DbError::Abandoned => crate::ApiError::unavailable(error.to_string(), RETRY_AFTER_S),
            _ => crate::ApiError::internal(error),
        }
    }
}

/// Whether it failed only because others kept it waiting.
fn is_busy(error: &DbErr) -> bool {
    let timed_out = DbErr::ConnectionAcquire(ConnAcquireErr::Timeout);
    *error == timed_out || connect::is_locked(error)
}

/// A database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    read: Connection,
    write: Write,
    control: Control,
    file: Option<Arc<SqliteFile>>,
}

#[derive(Clone, Debug)]
enum Write {
    Sqlite(Arc<Writer>),
    Postgres(Connection),
}

impl Db {
    /// Opens `postgres://…`, or `sqlite:PATH`, which is made with its folder where missing. PATH
    /// is taken as it stands: nothing in it is decoded, and it has no parameters. `sqlite://PATH`
    /// is the same, so that `sqlite:///data/x.db` is `/data/x.db` and `sqlite://x.db` is `x.db`.
    /// Must be called on the control runtime.
    ///
    /// # Errors
    /// [`DbError::InvalidUrl`], [`DbError::NoFile`], [`DbError::Folder`] or [`DbError::Database`].
    pub async fn open(url: &str) -> Result<Self, DbError> {
        let (read, write, file) = match url.strip_prefix("sqlite:") {
            Some(path) => {
                let path = connect::sqlite_path(path)?;
                // The writer first: it creates the file and turns on WAL.
                let writer = Writer::open(path.clone()).await?;
                let file = SqliteFile::at(path)?;
                let read = connect::readers(&file.path).await?;
                (read, Write::Sqlite(writer), Some(Arc::new(file)))
            }
            None => {
                let pool = connect::postgres(url).await?;
                (pool.clone(), Write::Postgres(pool), None)
            }
        };
        Ok(Self {
            read,
            write,
            control: Control::current(),
            file,
        })
    }

    /// Brings one service's tables up to date. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`DbError::Database`].
    pub async fn migrate<M: MigratorTrait>(&self) -> Result<(), DbError> {
        self.write(async |transaction| {
            if transaction.get_database_backend() == DbBackend::Postgres {
                let lock = format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})");
                transaction.execute_unprepared(&lock).await?;
            }
            Ok(M::up(transaction, None).await?)
        })
        .await
    }

    /// Runs `query` on a reader.
    ///
    /// # Errors
    /// What `query` says; [`DbError::Replaced`].
    pub async fn read<T, E: From<DbError>>(
        &self,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check()?;
        query(&self.read).await
    }

    /// Runs `work` in one write transaction: `Ok` commits it, and an error rolls it back. So does
    /// dropping this future while `work` runs; after that it may be committed all the same. When
    /// this returns `Ok` the changes are durable.
    ///
    /// # Errors
    /// What `work` says; [`DbError::Database`], [`DbError::Replaced`].
    pub async fn write<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.check()?;
        match &self.write {
            Write::Sqlite(writer) => writer.write(work).await,
            Write::Postgres(pool) => {
                let transaction = pool.begin().await.map_err(DbError::from)?;
                let result = work(&transaction).await?;
                transaction.commit().await.map_err(DbError::from)?;
                Ok(result)
            }
        }
    }

    /// What is written to a file that was replaced is lost, and what is read there is out of date:
    /// neither may look like success.
    fn check(&self) -> Result<(), DbError> {
        debug_assert!(
            self.control.is_current(),
            "the database is used on the control runtime alone; hand the work to Db::control"
        );
        self.file.as_ref().map_or(Ok(()), |file| file.check())
    }

    /// The runtime that the database was opened on.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Whether the database answers, and is still the one that was opened.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::Replaced`].
    pub async fn ping(&self) -> Result<(), DbError> {
        self.read(async |connection| Ok(connection.ping().await?))
            .await
    }

    /// Tells when another connection has written.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::Replaced`].
    pub async fn watch(&self) -> Result<Watch, DbError> {
        let sqlite = match &self.file {
            Some(file) => {
                file.check()?;
                let connection = connect::watcher(&file.path).await?;
                Some((Arc::clone(file), connection))
            }
            None => None,
        };
        Ok(Watch { sqlite, seen: None })
    }

    /// Waits for the calls under way and closes every connection; later calls fail. SQLite moves
    /// its log into the file when the last connection closes, so close each [`Watch`] before.
    pub async fn close(&self) {
        close(&self.read).await;
        match &self.write {
            Write::Sqlite(writer) => writer.close().await,
            Write::Postgres(pool) => close(pool).await,
        }
    }
}

async fn close(connection: &Connection) {
    if let Err(error) = connection.close_by_ref().await {
        tracing::warn!(%error, "a database connection was not closed");
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
    sqlite: Option<(Arc<SqliteFile>, Connection)>,
    seen: Option<i64>,
}

impl Watch {
    /// Whether something may have changed since the last call. PostgreSQL has no such counter and
    /// always says yes.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::Replaced`].
    pub async fn changed(&mut self) -> Result<bool, DbError> {
        let Some((file, connection)) = &self.sqlite else {
            return Ok(true);
        };
        file.check()?;
        let statement = sea_orm::Statement::from_string(DbBackend::Sqlite, "PRAGMA data_version");
        let row = connection.query_one_raw(statement).await?;
        let version = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?;
        let changed = version != self.seen;
        self.seen = version;
        Ok(changed)
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Some((_, connection)) = self.sqlite {
            close(&connection).await;
        }
    }
}

/// The file that was opened, by its identity: a connection stays with it whatever becomes of its
/// name.
#[derive(Debug)]
struct SqliteFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SqliteFile {
    fn at(path: PathBuf) -> Result<Self, DbError> {
        match file_id(&path) {
            Some(id) => Ok(Self { path, id }),
            None => Err(DbError::Replaced { path }),
        }
    }

    fn check(&self) -> Result<(), DbError> {
        if file_id(&self.path) == Some(self.id) {
            return Ok(());
        }
        let path = self.path.clone();
        Err(DbError::Replaced { path })
    }
}

/// Device and inode.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(path: &Path) -> String {
        format!("sqlite:{}", path.display())
    }

    async fn execute(db: &Db, sql: &'static str) -> Result<(), DbError> {
        db.write(async |transaction| {
            transaction.execute_unprepared(sql).await?;
            Ok(())
        })
        .await
    }

    #[tokio::test]
    async fn sqlite_paths_are_taken_as_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["%41", "a?mode=ro", "a#b", "a b", "file:x", "é"] {
            for prefix in ["sqlite:", "sqlite://"] {
                let file = folder.path().join(name).join("x?y.db");
                let url = format!("{prefix}{}", file.display());
                let db = Db::open(&url).await.unwrap();
                execute(&db, "CREATE TABLE IF NOT EXISTS t (a)")
                    .await
                    .unwrap();
                db.ping().await.unwrap();
                assert!(file.is_file(), "{name}");
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 6);
    }

    #[test]
    fn relative_sqlite_paths_are_of_the_working_folder() {
        let here = std::env::current_dir().unwrap();
        for text in ["x.db", "//x.db", "./x.db"] {
            assert_eq!(
                connect::sqlite_path(text).unwrap(),
                here.join("x.db"),
                "{text}"
            );
        }
        assert_eq!(connect::sqlite_path("file:x").unwrap(), here.join("file:x"));
    }

    #[tokio::test]
    async fn a_sqlite_database_is_a_file() {
        for url in [
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite://:memory:",
        ] {
            let error = Db::open(url).await.unwrap_err();
            assert!(matches!(error, DbError::NoFile), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn passwords_are_not_told() {
        for url in [
            "postgres://u:hunter2@127.0.0.1:99999/x",
            "postgres://u:hunter2/y@127.0.0.1/x",
            "postgres://u:1/hunter2@127.0.0.1/x",
            "postgres://u:1?hunter2@127.0.0.1/x",
            "postgres://u:1#hunter2@127.0.0.1/x",
            "postgres://u:hunter2@127.0.0.1/x?sslmode=no",
            "mysql://u:hunter2@127.0.0.1/x",
            "hunter2",
        ] {
            let error = Db::open(url).await.unwrap_err();
            assert!(matches!(error, DbError::InvalidUrl), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
        // Nobody listens there.
        let error = Db::open("postgres://u:hunter2@h/x?host=/nowhere").await;
        let error = error.unwrap_err();
        assert!(matches!(error, DbError::Database(_)));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_replaced_or_removed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let moved = folder.path().join("moved.db");
        let db = Db::open(&url(&file)).await.unwrap();
        let mut watch = db.watch().await.unwrap();
        let is_lost = |result: Result<(), DbError>| {
            let error = result.unwrap_err();
            assert!(matches!(error, DbError::Replaced { .. }), "{error}");
            assert!(error.to_string().contains("restart the server"));
        };

        std::fs::rename(&file, &moved).unwrap();
        for replacement in [None, Some("another")] {
            if let Some(content) = replacement {
                std::fs::write(&file, content).unwrap();
            }
            is_lost(db.ping().await);
            is_lost(execute(&db, "CREATE TABLE t (a)").await);
            is_lost(watch.changed().await.map(|_| ()));
            is_lost(db.watch().await.map(|_| ()));
            assert_eq!(file.exists(), replacement.is_some());
        }

        std::fs::rename(&moved, &file).unwrap();
        db.ping().await.unwrap();
        execute(&db, "CREATE TABLE t (a)").await.unwrap();
        assert!(watch.changed().await.unwrap());
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "on the control runtime alone")]
    fn use_on_another_runtime_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let url = url(&folder.path().join("x.db"));
        let [control, other] = [(); 2].map(|()| tokio::runtime::Runtime::new().unwrap());
        let db = control.block_on(Db::open(&url)).unwrap();
        let _ = other.block_on(db.ping());
    }

    #[tokio::test]
    async fn an_error_of_the_work_rolls_back_and_ok_commits() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&url(&folder.path().join("x.db"))).await.unwrap();
        execute(&db, "CREATE TABLE t (a)").await.unwrap();
        for is_refused in [true, false] {
            let written = db.write(async |transaction| -> Result<(), DbError> {
                transaction
                    .execute_unprepared("INSERT INTO t VALUES (1)")
                    .await?;
                if is_refused {
                    Err(DbError::NoFile)
                } else {
                    Ok(())
                }
            });
            assert_eq!(written.await.is_err(), is_refused);
        }
        let rows = db.read(async |connection| -> Result<i64, DbError> {
            let count =
                sea_orm::Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM t");
            let row = connection.query_one_raw(count).await?.unwrap();
            Ok(row.try_get_by_index(0)?)
        });
        assert_eq!(rows.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn closing_moves_the_log_into_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let db = Db::open(&url(&file)).await.unwrap();
        let mut watch = db.watch().await.unwrap();
        watch.changed().await.unwrap();
        execute(&db, "CREATE TABLE t (a)").await.unwrap();
        assert!(folder.path().join("x.db-wal").exists());
        watch.close().await;
        db.close().await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(db.ping().await.is_err());
    }
}
