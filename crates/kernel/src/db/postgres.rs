//! Connections to PostgreSQL. A call has one of them to itself until it ends. One whose call was
//! abandoned, or whose transaction failed to end, is closed and never used again.
//!
//! The driver's own pool waits for the answer of an abandoned call before it takes the connection
//! back: a peer that has gone silent would hold its place for ever. So here each connection is the
//! only one of a pool of its own, which can be closed apart from the others, and the places are
//! counted beside them.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::TransactionTrait as _;
use sea_orm::{ConnAcquireErr, ConnectionTrait as _, DbBackend, DbErr, RuntimeErr, Statement};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::calls::Boxed;
use super::{Connection, DbError, Limits, Transaction};

/// A connection that was idle has this long at most to show that it is alive.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What the driver takes in a URL, besides `options[NAME]`.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// Those that name files of TLS.
const FILES: &[&str] = &[
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslrootcert",
];

#[derive(Debug)]
pub(super) struct Postgres {
    options: PgConnectOptions,
    call_timeout: Duration,
    connections_max: u32,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl Postgres {
    /// Connects when it is asked.
    pub(super) fn new(options: PgConnectOptions, limits: Limits) -> Self {
        Self {
            options,
            call_timeout: limits.call_timeout,
            connections_max: limits.connections_max,
            places: Semaphore::new(limits.connections_max as usize),
            idle: Mutex::default(),
        }
    }

    /// Connects once, to see whether that works.
    pub(super) async fn open(options: PgConnectOptions, limits: Limits) -> Result<Self, DbError> {
        let (postgres, call_timeout) = (Self::new(options, limits), limits.call_timeout);
        let connected = timeout(call_timeout, postgres.connect(call_timeout)).await;
        let connection = connected.unwrap_or_else(|_| {
            Err(DbError::TimedOut {
                database: postgres.name(),
                limit: call_timeout,
            })
        })?;
        postgres.idle.lock().push(connection);
        Ok(postgres)
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        let host = match self.options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => self.options.get_host().to_owned(),
        };
        let server = format!("PostgreSQL at {host}:{}", self.options.get_port());
        match self.options.get_database() {
            Some(database) => format!("{server}, database {database:?}"),
            None => server,
        }
    }

    /// Waits for the calls under way and closes every connection; later calls fail.
    pub(super) async fn close(&self) {
        let Ok(_places) = self.places.acquire_many(self.connections_max).await else {
            return;
        };
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in idle {
            super::close(&connection).await;
        }
    }

    /// Whether a connection could be lent now.
    pub(super) fn has_place(&self) -> bool {
        self.places.available_permits() > 0
    }

    /// A connection that answers; one of its own, whose statements may take as long as `apart`.
    pub(super) async fn lend(&self, apart: Option<Duration>) -> Result<Lease<'_>, DbError> {
        if let Some(limit) = apart {
            return Ok(Lease {
                postgres: self,
                connection: self.connect(limit).await?,
                place: None,
                is_given_back: false,
            });
        }
        let place = self.places.acquire().await;
        let place =
            place.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed))?;
        let connection = match self.answering().await {
            Some(connection) => connection,
            None => self.connect(self.call_timeout).await?,
        };
        Ok(Lease {
            postgres: self,
            connection,
            place: Some(place),
            is_given_back: false,
        })
    }

    /// A transaction on a connection as of [`Self::lend`].
    pub(super) async fn begin(&self, apart: Option<Duration>) -> Result<Open<'_>, DbError> {
        let lease = self.lend(apart).await?;
        match closing_if_dropped(&lease.connection, lease.connection.begin()).await {
            Ok(transaction) => Ok(Open { lease, transaction }),
            Err(error) => {
                lease.ended_badly();
                Err(error.into())
            }
        }
    }

    /// A connection that was idle and answers in time.
    async fn answering(&self) -> Option<Connection> {
        let mut asked = Asked {
            postgres: self,
            connection: Some(self.idle.lock().pop()?),
        };
        // The rest of the call's time is for a new one.
        let limit = PING_TIMEOUT.min(self.call_timeout / 4);
        let alive = is_alive(asked.connection.as_ref()?, limit).await;
        alive.then(|| asked.connection.take())?
    }

    /// A new connection whose statements may take as long as `limit`. The handshake of TLS makes the future a large one.
    fn connect(&self, limit: Duration) -> Boxed<'_, Result<Connection, DbError>> {
        Box::pin(async move {
            let options = with_limits(self.options.clone(), limit);
            // The pool would try again and again, and then only say that its time is up. A connection
            // without a pool says why there is none.
            let tried = async { PgConnection::connect_with(&options).await?.close().await };
            tried
                .await
                .map_err(|cause| DbError::unreachable(self.name(), cause))?;
            let pool = PoolOptions::<sqlx::Postgres>::new()
                .max_connections(1)
                .acquire_timeout(limit)
                .test_before_acquire(false)
                .connect_with(options);
            let connected = pool
                .await
                .map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
            Ok(connected.into())
        })
    }
}

/// An idle connection that is asked whether it is alive. If it is not taken out of here, or nobody
/// waits for its answer any more, all that are idle are closed: what one has lost, the others have
/// most likely lost too.
struct Asked<'p> {
    postgres: &'p Postgres,
    connection: Option<Connection>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(dead) = &self.connection {
            close(dead);
            let others = std::mem::take(&mut *self.postgres.idle.lock());
            others.iter().for_each(close);
        }
    }
}

/// A connection that one call has to itself. It is closed unless it is given back.
pub(super) struct Lease<'p> {
    postgres: &'p Postgres,
    connection: Connection,
    /// None where it is one of its own.
    place: Option<SemaphorePermit<'p>>,
    is_given_back: bool,
}

impl Lease<'_> {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn closes_if_dropped(&self) -> CloseOnDrop<'_> {
        CloseOnDrop(Some(&self.connection))
    }

    pub(super) fn give_back(mut self) {
        if self.place.is_some() {
            self.postgres.idle.lock().push(self.connection.clone());
            self.is_given_back = true;
        }
    }

    fn ended_badly(self) {
        let database = self.postgres.name();
        tracing::warn!(%database, "a transaction did not end well; its connection is closed");
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if !self.is_given_back {
            close(&self.connection);
        }
    }
}

/// A transaction under way. If it is dropped, its connection is closed first, or the transaction would wait for
/// the peer.
pub(super) struct Open<'p> {
    lease: Lease<'p>,
    transaction: Transaction,
}

impl Open<'_> {
    pub(super) fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    pub(super) fn closes_if_dropped(&self) -> CloseOnDrop<'_> {
        self.lease.closes_if_dropped()
    }

    /// Commits, or rolls back what is not to be kept. `committing` is set before the commit begins.
    pub(super) async fn end(self, is_kept: bool, committing: &AtomicBool) -> Result<(), DbError> {
        let Self { lease, transaction } = self;
        let connection = &lease.connection;
        let ending = async {
            match is_kept {
                true => commit(transaction, committing).await,
                false => {
                    let rolled_back = transaction.rollback().await.is_ok();
                    (Ok(()), rolled_back && takes_changes(connection).await)
                }
            }
        };
        let (result, has_ended) = closing_if_dropped(connection, ending).await;
        match has_ended {
            true => lease.give_back(),
            false => lease.ended_badly(),
        }
        result
    }
}

/// How it went, and whether the connection is outside of any transaction for certain.
async fn commit(transaction: Transaction, committing: &AtomicBool) -> (Result<(), DbError>, bool) {
    // To the COMMIT of a transaction in which a statement failed PostgreSQL answers with success,
    // and rolls it back. Any other statement tells.
    if let Err(error) = transaction.execute_unprepared("SELECT 1").await {
        return (Err(error.into()), false);
    }
    committing.store(true, Ordering::Relaxed);
    match transaction.commit().await {
        Ok(()) => (Ok(()), true),
        Err(error) if is_refusal(&error) => (Err(error.into()), false),
        Err(error) => {
            tracing::warn!(%error, "whether a transaction was committed is not known");
            (Err(DbError::Abandoned), false)
        }
    }
}

/// Whether PostgreSQL itself refused to commit. Where it says nothing, ends the session (57P), or the
/// connection failed (08) or it does not know itself (40003), it may have committed before.
fn is_refusal(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        error
    else {
        return false;
    };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| !code.starts_with("57P") && !code.starts_with("08") && code != "40003")
}

/// After a fail-over the server behind a connection may have become one that only reads.
pub(super) async fn takes_changes(connection: &Connection) -> bool {
    let query = Statement::from_string(DbBackend::Postgres, "SHOW transaction_read_only");
    let row = connection.query_one_raw(query).await;
    let value = row
        .ok()
        .flatten()
        .map(|row| row.try_get_by_index::<String>(0));
    matches!(value, Some(Ok(value)) if value == "off")
}

async fn is_alive(connection: &Connection, limit: Duration) -> bool {
    // Its only connection has come to an end, by age or by an error.
    if connection.get_postgres_connection_pool().size() == 0 {
        return false;
    }
    let answered = timeout(limit, closing_if_dropped(connection, connection.ping()));
    matches!(answered.await, Ok(Ok(())))
}

/// Runs `work`, and closes the connection that it uses if it is dropped before it is done.
async fn closing_if_dropped<T>(connection: &Connection, work: impl Future<Output = T>) -> T {
    let work = pin!(work);
    let unfinished = CloseOnDrop(Some(connection));
    let done = work.await;
    unfinished.disarm();
    done
}

/// Closes a connection unless it is disarmed. Declare it after the work that uses the connection: the last one
/// declared is dropped first, and when work lets go of the connection, its pool must be closed already, or
/// it would wait for the peer.
pub(super) struct CloseOnDrop<'c>(Option<&'c Connection>);

impl CloseOnDrop<'_> {
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.into_iter().for_each(close);
    }
}

/// Closes a connection now if it is idle, otherwise as soon as it is let go of. That is decided when
/// this returns; what is left to do is done by a task.
fn close(connection: &Connection) {
    let pool = connection.get_postgres_connection_pool().clone();
    // The call marks the pool as closed; only the rest waits.
    drop(pool.close());
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move { pool.close().await });
    }
}

/// Reads a URL of PostgreSQL.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, DbError> {
    let (_, rest) = url.split_once("://").ok_or(DbError::InvalidUrl)?;
    let (_, after_host) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A bare `@` there means that the password contains a bare `/`, `?` or `#`. Read otherwise, the
    // password would be part of a name that is logged.
    if after_host.contains('@') {
        return Err(DbError::InvalidUrl);
    }
    let before_fragment = after_host.split('#').next().unwrap_or_default();
    if let Some((_, query)) = before_fragment.split_once('?') {
        check_parameters(query)?;
    }
    let options = url.parse::<PgConnectOptions>();
    let options = options.map_err(|_| DbError::InvalidUrl)?;
    Ok(options.disable_statement_logging())
}

/// The driver logs a parameter that it does not know, and its value, which may be a password. Of a file that it cannot
/// read it does not say which it is.
fn check_parameters(query: &str) -> Result<(), DbError> {
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        // Without a `=` it may be the rest of a password that contains a bare `&`.
        if !parameter.contains('=') {
            return Err(DbError::InvalidUrl);
        }
        for (name, value) in form_urlencoded::parse(parameter.as_bytes()) {
            let is_option = name.starts_with("options[") && name.ends_with(']');
            if !is_option && !PARAMETERS.contains(&&*name) {
                return Err(DbError::UnknownParameter {
                    name: name.into_owned(),
                    known: PARAMETERS.join(", "),
                });
            }
            if FILES.contains(&&*name) {
                check_file(&name, &value)?;
            }
        }
    }
    Ok(())
}

fn check_file(name: &str, path: &str) -> Result<(), DbError> {
    // What is no file, such as a pipe, may be without an end.
    let readable = std::fs::metadata(path).and_then(|found| match found.is_file() {
        true => File::open(path).map(drop),
        false => Err(io::Error::other("it is no file")),
    });
    readable.map_err(|cause| DbError::TlsFile {
        name: name.to_owned(),
        path: path.into(),
        cause,
    })
}

/// What PostgreSQL itself holds sessions to, so that nobody waits for one whose client has gone or
/// stands still.
fn with_limits(options: PgConnectOptions, limit: Duration) -> PgConnectOptions {
    let ms = limit.as_millis();
    options.options([
        ("statement_timeout", ms),
        // Below the limit of the whole call, which can then say why it failed.
        ("lock_timeout", ms * 4 / 5),
        ("idle_in_transaction_session_timeout", ms * 2),
        // A client that vanished without a word is noticed within a minute, and its locks go. In
        // seconds, but the last in milliseconds.
        ("tcp_keepalives_idle", 30),
        ("tcp_keepalives_interval", 10),
        ("tcp_keepalives_count", 3),
        ("tcp_user_timeout", 60_000),
    ])
}
