//! The file of a SQLite database and connections to it.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use sea_orm::sqlx::pool::PoolOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Sqlite};
use sea_orm::{DbErr, RuntimeErr};
use tokio::time::Instant;

use crate::files::{Obstacle, make_private, narrow};

use super::{Connection, DbError, Fault, make_private_folder};

/// Rows that a connection's thread reads ahead of whoever collects them: where it has to wait for each
/// few, and they for it, waking each other takes longer than reading.
const ROWS_AHEAD: usize = 1_000;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
/// So that opening goes on for as long as its thread does: the driver would let go of a thread whose
/// time is up.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// Makes the folder of a SQLite file where missing.
pub(super) fn make_folder(file: &Path) -> Result<(), DbError> {
    let folder = file.parent().unwrap_or(file);
    make_private_folder(folder).map_err(|cause| DbError::Folder {
        folder: folder.into(),
        cause,
    })
}

/// SQLite files begin with these bytes.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;

/// Every SQLite file that this process has ever opened, to look at its header. They are never closed:
/// closing any descriptor of a file gives up all locks that SQLite holds on it.
static HEADERS: Mutex<Vec<(FileId, Arc<File>)>> = Mutex::new(Vec::new());

/// Device and inode.
type FileId = (u64, u64);

/// The file that was opened, by its identity: a connection stays with it whatever becomes of its
/// name.
#[derive(Debug)]
pub(super) struct SqliteFile {
    pub(super) path: PathBuf,
    id: FileId,
    header: Arc<File>,
    /// Its size when it was last looked at.
    bytes: AtomicU64,
}

impl SqliteFile {
    pub(super) fn at(path: PathBuf) -> Result<Self, DbError> {
        let opened = std::fs::metadata(&path)
            .and_then(|metadata| header_of(&path, &metadata))
            .and_then(|header| Ok((header.metadata()?, header)));
        match opened {
            Ok((metadata, header)) => Ok(Self {
                id: id_of(&metadata),
                bytes: AtomicU64::new(metadata.len()),
                path,
                header,
            }),
            Err(_) => Err(DbError::Replaced { path }),
        }
    }

    /// What is written to a file that was replaced is lost, and what is read there is out of date:
    /// neither may look like success. A file that was overwritten or cut off in its place is still
    /// the same to SQLite, which goes on with the pages it remembers.
    pub(super) fn check(&self) -> Result<(), DbError> {
        let metadata = std::fs::metadata(&self.path);
        let Some(metadata) = metadata.ok().filter(|now| id_of(now) == self.id) else {
            let path = self.path.clone();
            return Err(DbError::Replaced { path });
        };
        let damaged = |cause: &str| DbError::Damaged {
            path: self.path.clone(),
            cause: cause.to_owned(),
        };
        let mut header = [0; HEADER_BYTES];
        let read = self.header.read_exact_at(&mut header, 0);
        if read.is_err() || !header.starts_with(MAGIC) {
            return Err(damaged("it does not begin like a SQLite database any more"));
        }
        let bytes = metadata.len();
        // Only VACUUM makes a database shorter. Otherwise it is compared with its own word, which
        // is ahead of its size while a checkpoint makes it longer.
        if bytes < self.bytes.load(Ordering::Relaxed) && bytes < bytes_by(&header) {
            return Err(damaged("its end is missing"));
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a database is there or may be made. What else a wrong URL names must keep its mode.
fn may_be_database(path: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(path) else {
        return true;
    };
    let mut magic = [0; MAGIC.len()];
    let mut read_magic = || header_of(path, &metadata)?.read_exact_at(&mut magic, 0);
    metadata.is_file() && (metadata.len() == 0 || read_magic().is_ok() && magic == *MAGIC)
}

fn header_of(path: &Path, metadata: &Metadata) -> std::io::Result<Arc<File>> {
    let mut headers = HEADERS.lock();
    if let Some((_, header)) = headers.iter().find(|(id, _)| *id == id_of(metadata)) {
        return Ok(header.clone());
    }
    let header = Arc::new(File::open(path)?);
    headers.push((id_of(&header.metadata()?), header.clone()));
    Ok(header)
}

/// The size that a header tells: pages times bytes of a page, where 1 stands for 64 KiB.
fn bytes_by(header: &[u8; HEADER_BYTES]) -> u64 {
    let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 1 << 16,
        bytes => u64::from(bytes),
    };
    let pages = [header[28], header[29], header[30], header[31]];
    u64::from(u32::from_be_bytes(pages)) * page_bytes
}

fn id_of(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

/// The log beside a SQLite file.
pub fn log_of(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// Checks whether the log beside a file, if there is one, can be its own. SQLite replays any log into any
/// file. But a database turns to its log before it writes there, and [`Db::close`](super::Db::close) turns it
/// back: a file that says it has no log is one that was closed, or a copy of one, and the log is another's.
pub(super) async fn check_log(path: &Path) -> Result<(), DbError> {
    let log = log_of(path);
    // Another process may open or close it between these looks.
    for _ in 0..2 {
        let has_log = std::fs::metadata(&log).is_ok_and(|log| log.len() > 0);
        if !has_log || logs(path) {
            return Ok(());
        }
        tokio::time::sleep(LOCKED_PAUSE).await;
    }
    let is_there = std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    Err(DbError::ForeignLog { log, is_there })
}

/// Whether the header of a file says that changes go to a log; not where there is no database yet. What is no database is
/// left to SQLite.
fn logs(path: &Path) -> bool {
    /// The versions for writing and for reading.
    const LOGGED: [u8; 2] = [2, 2];
    let Ok(metadata) = std::fs::metadata(path) else {
        return false;
    };
    let mut header = [0; HEADER_BYTES];
    let read = header_of(path, &metadata).and_then(|file| file.read_exact_at(&mut header, 0));
    match read {
        Ok(()) => !header.starts_with(MAGIC) || header[18..20] == LOGGED,
        Err(_) => metadata.len() > 0,
    }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Pages that the writer keeps, in KiB. A large transaction that has to put changed pages into the log before
/// its end writes them more than once.
const WRITER_CACHE: &str = "-16384";

/// Pages that the log has before they are put into the file, 16 MiB. Each time waits for the disk twice.
const LOG_PAGES: &str = "4000";

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
        check_log(&self.path).await?;
        // SQLite gives its other files the mode of the database.
        if may_be_database(&self.path) {
            make_private(&self.path);
            for suffix in ["-wal", "-shm", "-journal"] {
                narrow(&beside(&self.path, suffix));
            }
        }
        let end = Instant::now() + self.busy_timeout();
        loop {
            let options = self.options().create_if_missing(true);
            let options = options.pragma("cache_size", WRITER_CACHE);
            match self
                .connect(options, self.call_timeout)
                .await
                .map_err(|error| self.named(error))
            {
                Err(error) if error.fault() == Some(Fault::Busy) && Instant::now() < end => {
                    tokio::time::sleep(LOCKED_PAUSE).await;
                }
                connected => return connected,
            }
        }
    }

    /// A connection once there is one that wrote. A missing file is an error now. While the disk hangs
    /// this goes on, as does the thread that opens it.
    pub(super) async fn next(&self) -> Result<Connection, DbErr> {
        self.connect(self.options(), NEVER).await
    }

    /// One connection that is never replaced: each counts `data_version` for itself.
    pub(super) async fn watcher(&self) -> Result<Connection, DbErr> {
        self.connect(self.options(), self.call_timeout).await
    }

    /// Names the file where an error says that something is wrong with it.
    pub(super) fn named(&self, error: impl Into<DbError>) -> DbError {
        let error = error.into();
        match (error.fault(), error) {
            (Some(Fault::Damaged), DbError::Database(cause)) => DbError::Damaged {
                path: self.path.clone(),
                cause: cause.to_string(),
            },
            // SQLite says the same of a file that it may not open as of a disk that fails.
            (Some(Fault::ReadOnly | Fault::DiskFailing | Fault::Replaced), error) => {
                let obstacle = self.obstacle().map(DbError::Forbidden);
                obstacle.unwrap_or_else(|| error.of(&self.path.display()))
            }
            (_, error) => error.of(&self.path.display()),
        }
    }

    /// What this process may not write, of the files that it has to write.
    fn obstacle(&self) -> Option<Obstacle> {
        let beside = ["", "-wal", "-shm"].map(|suffix| beside(&self.path, suffix));
        let folder = self.path.parent().map(Path::to_owned);
        beside
            .iter()
            .chain(&folder)
            .find_map(|path| Obstacle::to_writing(path))
    }

    pub(super) fn busy_timeout(&self) -> Duration {
        self.call_timeout * 4 / 5
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(self.busy_timeout())
            .foreign_keys(true)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("secure_delete", "ON")
            .pragma("wal_autocheckpoint", LOG_PAGES)
            // What a savepoint can undo would go to files, page by page.
            .pragma("temp_store", "MEMORY")
            .disable_statement_logging()
    }

    async fn connect(
        &self,
        options: SqliteConnectOptions,
        timeout: Duration,
    ) -> Result<Connection, DbErr> {
        // A connection to a file does not go stale.
        let pool = PoolOptions::<Sqlite>::new()
            .max_connections(1)
            .acquire_timeout(timeout)
            .idle_timeout(None)
            .max_lifetime(None);
        let connected = pool.connect_with(options).await;
        let connected = connected.map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())));
        Ok(connected?.into())
    }
}
