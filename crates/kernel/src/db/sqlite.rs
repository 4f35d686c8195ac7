//! The file of a SQLite database and connections to it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Sqlite};
use sea_orm::{DbErr, RuntimeErr};
use tokio::time::Instant;

use crate::files::{make_private, narrow};

use super::{Connection, DbError, Fault, make_private_folder};

const LOCKED_PAUSE: Duration = Duration::from_millis(10);
const READERS: u32 = 4;

/// The file that a SQLite URL names, after `sqlite:`. Its folder is made where missing.
pub(super) fn sqlite_path(path: &str) -> Result<PathBuf, DbError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() || path == ":memory:" {
        return Err(DbError::NoFile);
    }
    let failed = |folder: &Path, cause| DbError::Folder {
        folder: folder.into(),
        cause,
    };
    // SQLite takes what begins with `file:` for a URI; nothing absolute does.
    let path = std::path::absolute(path).map_err(|cause| failed(Path::new(path), cause))?;
    let folder = path.parent().unwrap_or(&path);
    make_private_folder(folder).map_err(|cause| failed(folder, cause))?;
    Ok(path)
}

/// The file that was opened, by its identity: a connection stays with it whatever becomes of its
/// name.
#[derive(Debug)]
pub(super) struct SqliteFile {
    pub(super) path: PathBuf,
    id: (u64, u64),
}

impl SqliteFile {
    pub(super) fn at(path: PathBuf) -> Result<Self, DbError> {
        match file_id(&path) {
            Some(id) => Ok(Self { path, id }),
            None => Err(DbError::Replaced { path }),
        }
    }

    /// What is written to a file that was replaced is lost, and what is read there is out of date:
    /// neither may look like success.
    pub(super) fn check(&self) -> Result<(), DbError> {
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

/// Opens connections to one file.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) path: PathBuf,
    /// The longest wait for a connection. A lock is waited for less long, so that what waits can
    /// still say so.
    pub(super) call_timeout: Duration,
}

impl Connector {
    /// The connection that writes, which creates the file where there is none. Several processes
    /// may start on a new file at once: one turns on WAL, and SQLite does not let the others wait
    /// for that, whatever the busy timeout, but reports the file as locked.
    pub(super) async fn first_writer(&self) -> Result<Connection, DbError> {
        // SQLite gives its other files the mode of the database.
        make_private(&self.path);
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut other = self.path.as_os_str().to_owned();
            other.push(suffix);
            narrow(Path::new(&other));
        }
        let end = Instant::now() + self.busy_timeout();
        loop {
            let options = self.options().create_if_missing(true);
            match self.connect(options, 1).await.map_err(DbError::from) {
                Err(error) if error.fault() == Some(Fault::Busy) && Instant::now() < end => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                connected => return connected,
            }
        }
    }

    /// A connection that takes the place of the one that wrote. A missing file is an error now.
    pub(super) async fn next_writer(&self) -> Result<Connection, DbErr> {
        self.connect(self.options(), 1).await
    }

    /// The connections that read.
    pub(super) async fn readers(&self) -> Result<Connection, DbErr> {
        self.connect(self.options(), READERS).await
    }

    /// One connection that is never replaced: each counts `data_version` for itself.
    pub(super) async fn watcher(&self) -> Result<Connection, DbErr> {
        self.connect(self.options(), 1).await
    }

    fn busy_timeout(&self) -> Duration {
        self.call_timeout * 4 / 5
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(self.busy_timeout())
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .disable_statement_logging()
    }

    async fn connect(
        &self,
        options: SqliteConnectOptions,
        connections_max: u32,
    ) -> Result<Connection, DbErr> {
        // A connection to a file does not go stale.
        let pool = PoolOptions::<Sqlite>::new()
            .max_connections(connections_max)
            .acquire_timeout(self.call_timeout)
            .idle_timeout(None)
            .max_lifetime(None);
        let connected = pool.connect_with(options).await;
        let connected = connected.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())));
        Ok(connected?.into())
    }
}
