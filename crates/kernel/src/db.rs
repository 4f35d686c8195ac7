//! The database handle every service shares: SQLite with nothing to install, PostgreSQL by URL.
//!
//! It is used on the control runtime alone (see [`Control`]), which is handed the work of a whole
//! request at once: nothing here spawns or clones for a call, and one box keeps the futures of
//! callers small. SQLite has readers and one `Writer`, whose transactions share commits; PostgreSQL
//! has one set of connections for both.
//!
//! Every call has a deadline. One that misses it is told whether its change may be stored all the
//! same, and its connection is not used again where the call may still be going on in it.

mod calls;
mod copies;
mod error;
mod inspect;
mod migrate;
mod placed;
mod postgres;
mod readers;
mod rights;
mod sqlite;
mod standby;
mod url;
mod writer;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::{Instant, timeout};

use crate::clock::Timestamp;
use crate::control::Control;
use crate::files::what_is_no_file;
use crate::store;
use postgres::Postgres;
use readers::Readers;
use sqlite::{Connector, SqliteFile};
use standby::Standby;
use url::Location;
use writer::Writer;

pub use copies::{copy_sqlite, restore_sqlite};
pub use error::{DbError, Fault};
pub use inspect::{Difference, Inspection, KnownMigrations, compare, has_run};
pub use rights::{MissingRight, missing_rights};
/// What [`Db::read`] reads with.
pub use sea_orm::DatabaseConnection as Connection;
/// What [`Db::write`] writes with.
pub use sea_orm::DatabaseTransaction as Transaction;
pub use sqlite::log_of;

/// How long a call may take where nothing else is said.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long reading whole tables may take.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(20);
/// A disk on which less is free is full: a few changes, and there is no room for the next.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// Before readers who kept SQLite's log from being emptied are asked again.
const TRUNCATION_PAUSE: Duration = Duration::from_millis(20);

/// A database, cheap to clone.
#[derive(Clone, Debug)]
pub struct Db {
    backend: Backend,
    standby: Option<Arc<Standby>>,
    control: Control,
    limits: Limits,
}

/// What is at the URL of a standby.
#[derive(Debug, PartialEq, Eq)]
pub enum StandbyFound {
    /// There is none.
    None,
    /// Nothing that answers now.
    Away,
    /// A standby of the database.
    Copy,
    /// Something else; why.
    Other(String),
}

/// What a database may be asked for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a call may take, connecting included.
    pub call_timeout: Duration,
    /// Connections to PostgreSQL at once.
    pub connections_max: u32,
}

impl Limits {
    /// The usual ones but for this.
    pub fn within(call_timeout: Duration) -> Self {
        Self {
            call_timeout,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            call_timeout: CALL_TIMEOUT,
            connections_max: 10,
        }
    }
}

#[derive(Clone, Debug)]
enum Backend {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

#[derive(Debug)]
struct Sqlite {
    file: SqliteFile,
    readers: Readers,
    writer: Arc<Writer>,
    connector: Connector,
}

impl Db {
    /// As [`Self::open_with`], with the usual limits.
    ///
    /// # Errors
    /// As of [`Self::open_with`].
    pub async fn open(url: &str) -> Result<Self, DbError> {
        Self::open_with(url, Limits::default()).await
    }

    /// Opens `postgres://…`, or `sqlite:PATH`, which is made with its folder where missing. PATH
    /// is taken as it stands: nothing in it is decoded, and it has no parameters. `sqlite:///PATH`
    /// is the same, so that `sqlite:////data/x.db` is `/data/x.db` and `sqlite:///x.db` is `x.db`.
    /// Must be called on the control runtime.
    ///
    /// # Errors
    /// As of [`check_url`]; [`DbError::Folder`], [`DbError::Forbidden`], [`DbError::Unreachable`],
    /// [`DbError::TimedOut`] or [`DbError::Database`].
    pub async fn open_with(url: &str, limits: Limits) -> Result<Self, DbError> {
        let call_timeout = limits.call_timeout;
        let backend = match url::read(url)? {
            Location::Sqlite(path) => {
                check_sqlite_file(&path)?;
                sqlite::make_folder(&path)?;
                let name = path.display().to_string();
                let opened = timeout(call_timeout, Sqlite::open(path, call_timeout)).await;
                Backend::Sqlite(Arc::new(opened.unwrap_or(Err(DbError::TimedOut {
                    database: name,
                    limit: call_timeout,
                }))?))
            }
            Location::Postgres(options) => {
                Backend::Postgres(Arc::new(Postgres::open(*options, limits).await?))
            }
        };
        Ok(Self {
            backend,
            standby: None,
            control: Control::current(),
            limits,
        })
    }

    /// The same, whose lists a standby of PostgreSQL at `url` answers; see [`Self::list`]. It need not be there yet.
    ///
    /// # Errors
    /// As of [`check_url`].
    pub fn with_standby(self, url: &str, limits: Limits) -> Result<Self, DbError> {
        let standby = match url::read(url)? {
            Location::Postgres(options) => Some(Arc::new(Standby::new(*options, limits))),
            // Files have none.
            Location::Sqlite(_) => None,
        };
        Ok(Self { standby, ..self })
    }

    /// What is at the URL of its standby.
    ///
    /// # Errors
    /// As of [`Self::read`], of this database.
    pub async fn look_at_standby(&self) -> Result<StandbyFound, DbError> {
        let Some(standby) = &self.standby else {
            return Ok(StandbyFound::None);
        };
        let Some(lease) = standby.connect().await else {
            return Ok(StandbyFound::Away);
        };
        let is_standby = !postgres::takes_changes(lease.connection()).await;
        let there = store::secrets::all(lease.connection()).await;
        lease.give_back();
        let here = self.read(async |connection| store::secrets::all(connection).await);
        let here = here.await?;
        Ok(match there {
            Err(error) => StandbyFound::Other(error.to_string()),
            Ok(_) if !is_standby => StandbyFound::Other("it takes changes".to_owned()),
            Ok(there) if there.is_empty() || !there.iter().all(|secret| here.contains(secret)) => {
                StandbyFound::Other("it holds something else".to_owned())
            }
            Ok(_) => StandbyFound::Copy,
        })
    }

    /// Whether its standby answers; `None` without one.
    pub async fn standby_answers(&self) -> Option<bool> {
        let standby = self.standby.as_ref()?;
        match Box::pin(standby.lend()).await {
            Some(lease) => {
                lease.give_back();
                Some(true)
            }
            None => Some(!standby.is_away()),
        }
    }

    /// The file, or the database of PostgreSQL with its host and port, for messages.
    pub fn name(&self) -> String {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.file.path.display().to_string(),
            Backend::Postgres(postgres) => postgres.name(),
        }
    }

    /// Names the database where an error says that it is damaged or cannot be written.
    fn named(&self, error: DbError) -> DbError {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.connector.named(error),
            Backend::Postgres(_) if error.fault() == Some(Fault::ReadOnly) => DbError::ReadOnly {
                database: self.name(),
                cause: error.to_string(),
            },
            Backend::Postgres(_) if error.fault() == Some(Fault::Denied) => DbError::Denied {
                database: self.name(),
                cause: error.to_string(),
                missing: Vec::new(),
            },
            Backend::Postgres(_) => error.of(&self.name()),
        }
    }

    /// What it was opened with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The same, with its work counted as that of another database: whoever waits for the end of the one waits for both.
    #[must_use]
    pub fn with_control_of(self, other: &Self) -> Self {
        Self {
            control: other.control.clone(),
            ..self
        }
    }

    /// The runtime that the database was opened on.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Whether changes are stored, proved by making a small one.
    ///
    /// # Errors
    /// As of [`Self::write`].
    pub async fn prove_writes(&self, now: Timestamp) -> Result<(), DbError> {
        let renewed =
            self.write(async |transaction| Ok(store::write_proof::renew(transaction, now).await?));
        let proved = match renewed.await {
            Ok(()) => self.has_room().await,
            failed => failed,
        };
        proved.map_err(|error| self.named(error))
    }

    /// Whether larger changes than the proof find room too: what a change that did not fit leaves of SQLite's log
    /// may do for the proof.
    async fn has_room(&self) -> Result<(), DbError> {
        let Backend::Sqlite(sqlite) = &self.backend else {
            return Ok(());
        };
        let path = sqlite.file.path.clone();
        let looking = async {
            let space = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&path)).await;
            // What is not known is no reason to refuse: the change was stored.
            let Ok(Ok(space)) = space else { return Ok(()) };
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            match free < FREE_BYTES_MIN {
                true => Err(DbError::Failing {
                    database: self.name(),
                    cause: format!(
                        "{free} bytes are free; free some space on the disk of the database"
                    ),
                    fault: Fault::DiskFull,
                }),
                false => Ok(()),
            }
        };
        self.within(self.limits.call_timeout, None, looking).await
    }

    /// Whether PostgreSQL takes changes: no standby does. Of SQLite only a change can tell.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub async fn takes_changes(&self) -> Result<bool, DbError> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(true),
            Backend::Postgres(_) => {
                self.read(async |connection| Ok(postgres::takes_changes(connection).await))
                    .await
            }
        }
    }

    /// Tells when another connection has written.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::TimedOut`], [`DbError::Replaced`].
    pub async fn watch(&self) -> Result<Watch, DbError> {
        let sqlite = match &self.backend {
            Backend::Sqlite(sqlite) => {
                let connecting = async {
                    sqlite.file.check()?;
                    Ok::<_, DbError>(sqlite.connector.watcher().await?)
                };
                let connection = self.within(self.limits.call_timeout, None, connecting);
                Some((Arc::clone(sqlite), connection.await?))
            }
            Backend::Postgres(_) => None,
        };
        Ok(Watch {
            db: self.clone(),
            sqlite,
            seen: None,
        })
    }

    /// Moves what SQLite's log holds into the file and empties the log, so that what was deleted
    /// before this call is in neither; whether that came about. It does not while somebody reads
    /// what was there before. PostgreSQL keeps its log as it likes: true, and nothing is done.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::TimedOut`], [`DbError::Replaced`].
    pub async fn truncate_log(&self) -> Result<bool, DbError> {
        let Backend::Sqlite(sqlite) = &self.backend else {
            return Ok(true);
        };
        let end = Instant::now() + self.limits.call_timeout * 3 / 5;
        let truncating = async {
            sqlite.file.check()?;
            loop {
                if sqlite.writer.truncate_log().await? {
                    return Ok(true);
                }
                if Instant::now() >= end {
                    return Ok(false);
                }
                tokio::time::sleep(TRUNCATION_PAUSE).await;
            }
        };
        self.within(self.limits.call_timeout, None, Box::pin(truncating))
            .await
    }

    /// Whether it is a file beside which others can stand.
    pub fn is_sqlite(&self) -> bool {
        matches!(self.backend, Backend::Sqlite(_))
    }

    /// Waits for the calls under way and closes every connection; later calls fail. SQLite moves
    /// its log into the file when the last connection closes, so close each [`Watch`] before. The file then says that it
    /// has no log.
    pub async fn close(&self) {
        if let Some(standby) = &self.standby {
            standby.close().await;
        }
        match &self.backend {
            Backend::Sqlite(sqlite) => {
                sqlite.readers.close().await;
                sqlite.writer.close().await;
            }
            Backend::Postgres(postgres) => postgres.close().await,
        }
    }
}

impl Sqlite {
    async fn open(path: PathBuf, call_timeout: Duration) -> Result<Self, DbError> {
        let connector = Connector { path, call_timeout };
        match Self::open_by(connector.clone()).await {
            Err(error) => Err(connector.named(error)),
            opened => opened,
        }
    }

    async fn open_by(connector: Connector) -> Result<Self, DbError> {
        // The writer first: it creates the file and turns on WAL.
        let writer = Writer::open(connector.clone()).await?;
        let file = SqliteFile::at(connector.path.clone())?;
        let readers = Readers::open(connector.clone()).await?;
        Ok(Self {
            file,
            readers,
            writer,
            connector,
        })
    }
}

async fn close(connection: &Connection) {
    if let Err(error) = connection.close_by_ref().await {
        tracing::warn!(%error, "a database connection was not closed");
    }
}

/// Checks whether a URL names a database, without looking for it.
///
/// # Errors
/// [`DbError::InvalidUrl`], [`DbError::ForeignUrl`], [`DbError::UnknownParameter`] or
/// [`DbError::NoFile`].
pub fn check_url(url: &str) -> Result<(), DbError> {
    url::read(url).map(drop)
}

/// The file of a SQLite URL, which need not be there; `None` for another URL.
pub fn sqlite_file(url: &str) -> Option<PathBuf> {
    match url::read(url) {
        Ok(Location::Sqlite(path)) => Some(path),
        _ => None,
    }
}

/// Checks whether what is at a path, if anything, is a file.
///
/// # Errors
/// [`DbError::NotAFile`].
pub fn check_sqlite_file(path: &Path) -> Result<(), DbError> {
    let metadata = std::fs::metadata(path).ok();
    match metadata.and_then(|metadata| what_is_no_file(&metadata)) {
        Some(found) => Err(DbError::NotAFile {
            path: path.to_owned(),
            found,
        }),
        None => Ok(()),
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
    db: Db,
    sqlite: Option<(Arc<Sqlite>, Connection)>,
    seen: Option<i64>,
}

impl Watch {
    /// Whether something may have changed since the last call. PostgreSQL has no such counter and
    /// always says yes.
    ///
    /// # Errors
    /// [`DbError::Database`], [`DbError::TimedOut`], [`DbError::Replaced`].
    pub async fn changed(&mut self) -> Result<bool, DbError> {
        let Some((sqlite, connection)) = &self.sqlite else {
            return Ok(true);
        };
        let asking = async {
            sqlite.file.check()?;
            let query = Statement::from_string(DbBackend::Sqlite, "PRAGMA data_version");
            let row = connection.query_one_raw(query).await?;
            let version = row.map(|row| row.try_get_by_index::<i64>(0)).transpose()?;
            Ok::<_, DbError>(version)
        };
        let limit = self.db.limits.call_timeout;
        let version = self.db.within(limit, None, asking).await?;
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

#[cfg(test)]
mod tests;
