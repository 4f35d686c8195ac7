//! What can go wrong with a database, and how each of it is answered. Callers are told what they can
//! do; what the database itself said goes to the log.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm::sqlx::{self, error::DatabaseError};
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr};

use crate::ApiError;
use crate::files::Obstacle;

use super::MissingRight;

/// What PostgreSQL says where a pool hands the connection of one client to another between their statements.
const PREPARED_TWICE: &str = "prepared statement \"sqlx_s_";
/// What PgBouncer says to what it does not know; PostgreSQL has other words.
const UNKNOWN_TO_POOL: &str = "unsupported startup parameter";
/// For what ends by itself.
const RETRY_SOON_S: u64 = 1;
/// For what an operator has to end.
const RETRY_LATER_S: u64 = 10;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The URL is neither of SQLite nor of PostgreSQL, or cannot be read. The message does not
    /// repeat it: it may hold a password.
    #[error(
        "the database URL is not valid; it must be of the form \
         postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded, or \
         sqlite:PATH"
    )]
    InvalidUrl,
    /// The URL is one for other programs. The message says what to write.
    #[error("a database URL {0}")]
    ForeignUrl(&'static str),
    /// The URL of PostgreSQL has a parameter that means nothing. Its value may be a password.
    #[error("the database URL has an unknown parameter {name:?}; there are {known}, options[NAME]")]
    UnknownParameter {
        /// The parameter.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A file that the URL of PostgreSQL names for TLS cannot be read.
    #[error("{name} of the database URL names {}, which cannot be read: {cause}", path.display())]
    TlsFile {
        /// The parameter.
        name: String,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// A SQLite URL without a path, or one of a database in memory.
    #[error("a SQLite database must be a file; give its path, as in sqlite:/var/lib/auspex.db")]
    NoFile,
    /// What is at the path of a SQLite database is something else.
    #[error(
        "{} is {found}; a SQLite database is a file, as sqlite:/var/lib/auspex/auspex.db names one",
        path.display()
    )]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there, as in "a folder".
        found: &'static str,
    },
    /// The SQLite file is another than the one opened, or is gone.
    #[error(
        "the database file {} was replaced or removed; restart the server", path.display()
    )]
    Replaced {
        /// Where it was.
        path: PathBuf,
    },
    /// The SQLite file is not what it should be.
    #[error(
        "the database file {} is damaged: {cause}{}", path.display(), what_to_do(Fault::Damaged)
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Beside a SQLite file stands the log of another one, such as the one that a backup replaced.
    #[error("{}", foreign_log(log, *is_there))]
    ForeignLog {
        /// The log.
        log: PathBuf,
        /// Whether there is a database beside it.
        is_there: bool,
    },
    /// A copy of a database could not be made or put in its place.
    #[error("{}: {}", path.display(), match cause.kind() {
        std::io::ErrorKind::AlreadyExists => "is there already; move it away".to_owned(),
        _ => cause.to_string(),
    })]
    Copy {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The files of a SQLite database may not be written.
    #[error("the database cannot be written: {0}")]
    Forbidden(Obstacle),
    /// PostgreSQL takes no changes.
    #[error(
        "{database} takes no changes: {cause}; name the primary in its setting, such as storage.url, or see \
         default_transaction_read_only there"
    )]
    ReadOnly {
        /// Which one.
        database: String,
        /// What it said.
        cause: String,
    },
    /// The role of PostgreSQL has not the rights that it needs.
    #[error("{database}: {cause}; {}", remedy(missing))]
    Denied {
        /// Which one.
        database: String,
        /// What it said.
        cause: String,
        /// What the role lacks, as far as it is known.
        missing: Vec<MissingRight>,
    },
    /// The folder for the SQLite file could not be made.
    #[error("cannot make the data folder {}: {cause}; name another with --data-dir", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// No connection to PostgreSQL could be made.
    #[error("cannot connect to {server}: {cause}; {}", what_to_check(cause))]
    Unreachable {
        /// `PostgreSQL at HOST:PORT, database "NAME"`.
        server: String,
        /// What went wrong, which names no password.
        cause: sqlx::Error,
    },
    /// What answers is PgBouncer, in a way that cannot work.
    #[error(
        "{server} is PgBouncer with settings that do not go together with this program: set pool_mode = session and \
         ignore_startup_parameters = extra_float_digits,options there, or name PostgreSQL itself in its setting, such as storage.url ({cause})"
    )]
    Pooled {
        /// `PostgreSQL at HOST:PORT, database "NAME"`.
        server: String,
        /// What it said.
        cause: String,
    },
    /// The call took longer than `storage.call_timeout_ms`. Nothing of it was stored.
    #[error("{database} did not answer within {} ms", limit.as_millis())]
    TimedOut {
        /// `PostgreSQL at HOST:PORT, database "NAME"`, or the path of the SQLite file.
        database: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The database said no.
    #[error("{}{}", .0, fault_of(.0).map_or("", what_to_do))]
    Database(DbErr),
    /// The same of a database that is named.
    #[error("{database}: {cause}{}", what_to_do(*fault))]
    Failing {
        /// `PostgreSQL at HOST:PORT, database "NAME"`, or the path of the SQLite file.
        database: String,
        /// What it said.
        cause: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// Why a call failed that several had in common.
    #[error("{0}")]
    Shared(Arc<DbError>),
    /// The operating system gave no random bytes for an id.
    #[error("the operating system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// The call took longer than its caller waits.
    #[error("the database call did not finish in time")]
    Interrupted,
    /// The request has been carried out meanwhile, by one with the same `Idempotency-Key`; see
    /// [`crate::idempotency`].
    #[error("a request with this Idempotency-Key has just been carried out; ask again")]
    Repeated,
    /// The connection was lost or the time was up while the transaction was being committed, or
    /// another one, which was to be committed together with it, was abandoned.
    #[error("whether the change was stored is not known; look, and repeat it if it was not")]
    Abandoned,
}

/// What is wrong with the database, where an error says more about it than about the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Others keep it busy.
    Busy,
    /// It gave no answer in time.
    Slow,
    /// There is no connection to it.
    Unreachable,
    /// Its disk is full.
    DiskFull,
    /// Its disk fails.
    DiskFailing,
    /// It takes no changes.
    ReadOnly,
    /// Its role has not the rights that it needs.
    Denied,
    /// Its file is not what it should be.
    Damaged,
    /// Its file was replaced or removed.
    Replaced,
}

impl Fault {
    /// In a few words, for `GET /health`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Slow => "no answer in time",
            Self::Unreachable => "unreachable",
            Self::DiskFull => "disk full",
            Self::DiskFailing => "disk error",
            Self::ReadOnly => "read-only",
            Self::Denied => "rights are missing",
            Self::Damaged => "file damaged",
            Self::Replaced => "file replaced or removed",
        }
    }

    fn answer(self) -> ApiError {
        let (message, retry_after_s) = match self {
            Self::Busy => (
                "the database is busy with other changes; ask again",
                RETRY_SOON_S,
            ),
            Self::Slow => (
                "the database did not answer in time; ask again",
                RETRY_SOON_S,
            ),
            Self::Unreachable => (
                "the database cannot be reached at the moment; ask again",
                RETRY_SOON_S,
            ),
            Self::DiskFull | Self::DiskFailing | Self::ReadOnly => (
                "the database cannot store anything at the moment; ask again later",
                RETRY_LATER_S,
            ),
            Self::Denied | Self::Damaged | Self::Replaced => (
                "the database cannot be used until its operator has mended it",
                RETRY_LATER_S,
            ),
        };
        ApiError::unavailable(message, retry_after_s)
    }
}

impl DbError {
    /// There is no connection to this server.
    pub(super) fn unreachable(server: String, cause: sqlx::Error) -> Self {
        let said = cause.to_string();
        match said.contains(UNKNOWN_TO_POOL) {
            true => Self::Pooled {
                server,
                cause: said,
            },
            false => Self::Unreachable { server, cause },
        }
    }

    /// The same for each of those who had the call in common.
    pub fn shared(self) -> impl Fn() -> Self {
        let error = Arc::new(self);
        move || Self::Shared(error.clone())
    }

    /// Whether a unique index refused a row, because there is one like it.
    pub fn is_unique_violation(&self) -> bool {
        let DbError::Database(error) = self else {
            return false;
        };
        matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
    }

    /// With the name of the database, if something is wrong with that.
    pub(super) fn of(self, database: &dyn fmt::Display) -> Self {
        if let Self::Database(cause) = &self
            && cause.to_string().contains(PREPARED_TWICE)
        {
            return Self::Pooled {
                server: database.to_string(),
                cause: cause.to_string(),
            };
        }
        match (self.fault(), &self) {
            (Some(fault), Self::Database(cause)) => Self::Failing {
                database: database.to_string(),
                cause: cause.to_string(),
                fault,
            },
            _ => self,
        }
    }

    /// What is wrong, without what to do about it: for whoever finds that out.
    pub fn finding(&self) -> String {
        match self {
            Self::Damaged { cause, .. } => cause.clone(),
            Self::Denied {
                database, cause, ..
            }
            | Self::Failing {
                database, cause, ..
            } => format!("{database}: {cause}"),
            Self::Database(error) => error.to_string(),
            Self::Shared(error) => error.finding(),
            other => other.to_string(),
        }
    }

    /// What is wrong with the database; `None` where the error is about something else.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Replaced { .. } => Some(Fault::Replaced),
            Self::Forbidden(_) | Self::ReadOnly { .. } => Some(Fault::ReadOnly),
            Self::Denied { .. } => Some(Fault::Denied),
            Self::Damaged { .. } | Self::ForeignLog { .. } => Some(Fault::Damaged),
            Self::Unreachable { .. } | Self::Pooled { .. } => Some(Fault::Unreachable),
            Self::TimedOut { .. } | Self::Interrupted => Some(Fault::Slow),
            Self::Failing { fault, .. } => Some(*fault),
            Self::Shared(error) => error.fault(),
            Self::Database(error) => fault_of(error),
            Self::InvalidUrl
            | Self::ForeignUrl(_)
            | Self::UnknownParameter { .. }
            | Self::TlsFile { .. }
            | Self::NoFile
            | Self::NotAFile { .. }
            | Self::Folder { .. }
            | Self::Copy { .. }
            | Self::Randomness(_)
            | Self::Repeated
            | Self::Abandoned => None,
        }
    }
}

// Not a source of the error: its message is part of the other's.
impl From<DbErr> for DbError {
    fn from(error: DbErr) -> Self {
        Self::Database(error)
    }
}

/// What an operator can do about what the database said.
fn what_to_do(fault: Fault) -> &'static str {
    match fault {
        Fault::Busy => "; others keep the database busy or locked: try again",
        Fault::DiskFull => "; free some space on the disk of the database",
        Fault::DiskFailing => {
            "; `auspex doctor` says whether the files of the database can be used; if they can, check the disk"
        }
        Fault::Damaged => {
            "; stop the server, check the database with `auspex doctor`, and restore a backup"
        }
        Fault::Slow | Fault::Unreachable | Fault::ReadOnly | Fault::Denied | Fault::Replaced => "",
    }
}

fn what_to_check(cause: &sqlx::Error) -> &'static str {
    let is_of_tls = match cause {
        sqlx::Error::Tls(_) => true,
        // A certificate that is refused, for one.
        sqlx::Error::Io(error) => error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>()),
        _ => false,
    };
    match is_of_tls {
        true => {
            "check sslmode and sslrootcert in its setting, such as storage.url, and whether PostgreSQL speaks TLS there"
        }
        false => "check its setting, such as storage.url, and whether PostgreSQL runs there",
    }
}

fn foreign_log(log: &Path, is_there: bool) -> String {
    let log = log.display();
    match is_there {
        true => format!(
            "{log} is the log of another file: a copy was put in the place of a database that had not been closed. Move the log \
             away, or put the copy there with `auspex restore`, which does so"
        ),
        false => format!(
            "{log} is there, but its database is not; put that back beside its log, or restore a backup with `auspex restore`"
        ),
    }
}

/// What to do about rights that are missing.
fn remedy(missing: &[MissingRight]) -> String {
    if missing.is_empty() {
        return "`auspex doctor` says which rights are missing; `auspex migrate` needs those of the \
                role that made the tables"
            .into();
    }
    let parts: Vec<String> = missing.iter().map(MissingRight::to_string).collect();
    parts.join("; ")
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match (error.fault(), &error) {
            (Some(Fault::Busy), _) => Fault::Busy.answer(),
            (Some(fault), _) => fault.answer().with_cause(error),
            (None, DbError::Abandoned | DbError::Repeated) => {
                Self::unavailable(error.to_string(), RETRY_SOON_S)
            }
            (None, _) => Self::internal(error),
        }
    }
}

fn fault_of(error: &DbErr) -> Option<Fault> {
    match error {
        DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => Some(Fault::Busy),
        DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => Some(Fault::Unreachable),
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => fault_of_driver(error),
        _ => None,
    }
}

fn fault_of_driver(error: &sqlx::Error) -> Option<Fault> {
    match error {
        sqlx::Error::PoolTimedOut => Some(Fault::Busy),
        sqlx::Error::ColumnDecode { source, .. } if source.is::<std::str::Utf8Error>() => {
            Some(Fault::Damaged)
        }
        // A driver that lost step with the server says `Protocol`.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Some(Fault::Unreachable),
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => fault_of_postgres(error.code()),
            None => fault_of_sqlite(error.as_ref()),
        },
        _ => None,
    }
}

/// By the table of codes in PostgreSQL's manual, appendix A.
fn fault_of_postgres(code: &str) -> Option<Fault> {
    match code {
        // Deadlocks and serialization, locks and statements that took too long, no memory or
        // connection left.
        "40001" | "40P01" | "55P03" | "57014" | "53000" | "53200" | "53300" | "53400" => {
            Some(Fault::Busy)
        }
        "53100" => Some(Fault::DiskFull),
        "58030" => Some(Fault::DiskFailing),
        "25006" => Some(Fault::ReadOnly),
        // The same where the right to a schema is missing: then none is selected.
        "42501" | "3F000" => Some(Fault::Denied),
        "XX001" | "XX002" => Some(Fault::Damaged),
        // Ended while it was idle in a transaction, or because PostgreSQL stops, starts or crashed.
        "25P03" => Some(Fault::Unreachable),
        _ if code.starts_with("57P") || code.starts_with("08") => Some(Fault::Unreachable),
        _ => None,
    }
}

/// By <https://www.sqlite.org/rescode.html>. The lower byte is the primary code.
fn fault_of_sqlite(error: &dyn DatabaseError) -> Option<Fault> {
    /// The index of the log could not grow.
    const IOERR_SHMSIZE: i32 = 4874;
    const READONLY_DBMOVED: i32 = 1032;
    let code: i32 = error.code()?.parse().ok()?;
    match (code, code & 0xff) {
        (IOERR_SHMSIZE, _) | (_, 13) => Some(Fault::DiskFull),
        (READONLY_DBMOVED, _) => Some(Fault::Replaced),
        (_, 5 | 6 | 7 | 9) => Some(Fault::Busy),
        (_, 3 | 8) => Some(Fault::ReadOnly),
        (_, 10 | 14) => Some(Fault::DiskFailing),
        (_, 11 | 26) => Some(Fault::Damaged),
        _ => None,
    }
}
