//! Connections to SQLite and PostgreSQL, as every part of the program wants them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::monotonic;
use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, ConnectOptions as _, Postgres, Sqlite};
use sea_orm::{DbErr, RuntimeErr};

use super::{ACQUIRE_TIMEOUT, Connection, DbError, make_private_folder};

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
const SQLITE_BUSY: &str = "5";
const SQLITE_READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 10;

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

/// The connection that writes, which creates the file where there is none. Several processes may
/// start on a new file at once: one turns on WAL, and SQLite does not let the others wait for that,
/// whatever the busy timeout, but reports the file as locked.
pub(super) async fn first_writer(path: &Path) -> Result<Connection, DbErr> {
    let end = monotonic() + BUSY_TIMEOUT;
    loop {
        match sqlite(options(path).create_if_missing(true), 1).await {
            Err(error) if is_locked(&error) && monotonic() < end => {
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// A connection that takes the place of the one that wrote. A missing file is an error now.
pub(super) async fn next_writer(path: &Path) -> Result<Connection, DbErr> {
    sqlite(options(path), 1).await
}

/// The connections that read.
pub(super) async fn readers(path: &Path) -> Result<Connection, DbErr> {
    sqlite(options(path), SQLITE_READERS).await
}

/// One connection that is never replaced: each counts `data_version` for itself.
pub(super) async fn watcher(path: &Path) -> Result<Connection, DbErr> {
    sqlite(options(path), 1).await
}

/// Whether another process holds the lock on a SQLite file.
pub(super) fn is_locked(error: &DbErr) -> bool {
    let (DbErr::Conn(RuntimeErr::SqlxError(error))
    | DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))) = error
    else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| code == SQLITE_BUSY)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("secure_delete", "ON")
        .disable_statement_logging()
}

async fn sqlite(options: SqliteConnectOptions, connections_max: u32) -> Result<Connection, DbErr> {
    // A connection to a file does not go stale.
    let pool = pool_options::<Sqlite>(connections_max)
        .idle_timeout(None)
        .max_lifetime(None);
    let connected = pool.connect_with(options).await;
    Ok(connected.map_err(not_connected)?.into())
}

pub(super) async fn postgres(url: &str) -> Result<Connection, DbError> {
    let options = postgres_options(url).ok_or(DbError::InvalidUrl)?;
    let pool = pool_options::<Postgres>(POSTGRES_CONNECTIONS);
    let connected = pool.connect_with(options).await;
    Ok(connected.map_err(not_connected)?.into())
}

fn postgres_options(url: &str) -> Option<PgConnectOptions> {
    let (scheme, rest) = url.split_once("://")?;
    let (_, after_host) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A bare `@` there means that the password contains a bare `/`, `?` or `#`. Read otherwise, the
    // password would be part of a name that is logged.
    if !matches!(scheme, "postgres" | "postgresql") || after_host.contains('@') {
        return None;
    }
    let options = url.parse::<PgConnectOptions>().ok()?;
    Some(options.disable_statement_logging())
}

fn pool_options<D: sqlx::Database>(connections_max: u32) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
}

fn not_connected(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(error.into()))
}
