//! SQLite's one writer. Transactions that wait for it together share one commit, so that together
//! they pay for one `fsync`.
//!
//! The work of each transaction runs in the task that asked for it, inside a savepoint. If
//! others are waiting when it is done, it leaves the commit to them and waits for the outcome; the
//! last one commits for the whole group. An error rolls back one member's savepoint and nothing else.
//!
//! A connection whose begin, commit, rollback or savepoint failed, or that was abandoned halfway,
//! is never used again: nobody could say whether it is still inside a transaction. While a disk hangs,
//! the thread and the descriptors of such a connection stay, so there may only be a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sea_orm::{
    ConnAcquireErr, ConnectionTrait as _, DbBackend, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait as _,
};
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::{Instant, timeout};

use super::placed::{Placed, Places};
use super::sqlite::Connector;
use super::{Connection, DbError, Fault, Transaction, close};

/// How often a file that is closed is told that it has no log, while others hold it, and how long between.
const LAST_TRIES: u32 = 4;
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// How long a connection for that may take, where there is none.
const LAST_CONNECT: Duration = Duration::from_secs(1);
/// Members of one group.
const MEMBERS_MAX: usize = 256;
/// After this long a group commits even if others are waiting, so that its first member is not kept
/// waiting by slow ones behind it.
const GATHERING_MAX: Duration = Duration::from_millis(20);

/// How long one attempt to empty the log waits for readers, while nobody can write.
const TRUNCATION_WAIT: Duration = Duration::from_millis(100);
/// The one in use, and those that were discarded and whose threads have not ended.
const CONNECTIONS_MAX: usize = 3;

/// Fails inside a transaction, and changes nothing outside of one: connections have this value from the
/// beginning.
const OUTSIDE_OF_TRANSACTIONS: &str = "PRAGMA synchronous = FULL";
/// The next commit does not wait for the disk. What it stores is there after a crash of this process, and, with all that
/// is before it, after a power failure that comes later than the next commit that waits.
const UNSYNCED: &str = "PRAGMA synchronous = NORMAL";

/// What became of a group; `None` while it is open.
type Outcome = Option<Result<(), Lost>>;

/// Why a group was not committed.
#[derive(Clone, Debug)]
enum Lost {
    /// SQLite said no.
    Refused(DbErr),
    /// SQLite rolled it back by itself, or said yes and is still inside a transaction. The members
    /// are told to look.
    Unknown,
}

/// Hands out turns at the only connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    places: Places,
    turn: Mutex<Turn>,
    /// How many wait for their turn. A group that is left open relies on them to commit it.
    waiting: AtomicUsize,
}

/// What is passed from turn to turn.
#[derive(Debug)]
enum Turn {
    /// The last connection was discarded.
    Disconnected,
    /// No transaction is open.
    Idle(Placed),
    /// The group is still to be committed.
    Open(Placed, Group),
    Closed,
}

// The savepoint of a member. Each statement is a message to the connection's thread and an answer, and
// a transaction of the driver inside another is two more of both.
const BEGIN_MEMBER: &str = "SAVEPOINT member";
const KEEP: &str = "RELEASE member";
const KEEP_AND_GO_ON: &str = "RELEASE member; SAVEPOINT member";
const UNDO: &str = "ROLLBACK TO member";

/// Transactions that share a commit. While it is open, the savepoint of the next member is too.
#[derive(Debug)]
struct Group {
    transaction: Transaction,
    outcome: watch::Sender<Outcome>,
    /// Whether its commit waits for the disk.
    is_synced: bool,
    members: usize,
    began: Instant,
    /// Why it can no longer be committed.
    lost: Option<Lost>,
}

impl Writer {
    pub(super) async fn open(connector: Connector) -> Result<Arc<Self>, DbError> {
        let places = Places::new(connector.clone(), CONNECTIONS_MAX);
        let first = places.connect(async move { connector.first_writer().await });
        let first = first.await?;
        Ok(Arc::new(Self {
            places,
            turn: Mutex::new(Turn::Idle(first)),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// A transaction, once it has its turn. Its commit waits for the disk if it `is_synced`.
    pub(super) async fn begin(self: &Arc<Self>, is_synced: bool) -> Result<Open<'_>, DbError> {
        let mut turn = self.wait_for_turn().await;
        let (connection, group) = self.join(&mut turn, is_synced).await?;
        Ok(Open {
            group,
            connection,
            turn,
            writer: self,
        })
    }

    /// Commits what is under way, and then empties the log; false if readers did not let it.
    pub(super) async fn truncate_log(self: &Arc<Self>) -> Result<bool, DbError> {
        let mut turn = self.wait_for_turn().await;
        let connection = match std::mem::replace(&mut *turn, Turn::Disconnected) {
            Turn::Idle(connection) => connection,
            Turn::Open(connection, group) => {
                group.commit(&connection).await?;
                connection
            }
            closed @ Turn::Closed => {
                *turn = closed;
                return Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed).into());
            }
            Turn::Disconnected => self.places.next().await?,
        };
        let is_empty = truncate(&connection, &self.places.connector).await?;
        *turn = Turn::Idle(connection);
        Ok(is_empty)
    }

    /// Waits for the transactions under way and closes the connection. Later writes fail.
    pub(super) async fn close(&self) {
        let last = std::mem::replace(&mut *self.turn.lock().await, Turn::Closed);
        match last {
            Turn::Idle(last) => close_last(&last).await,
            Turn::Open(last, group) => {
                // Its members hear of a failure from the group itself.
                let _ = group.commit(&last).await;
                close_last(&last).await;
            }
            // A write that was given up took the connection along.
            Turn::Disconnected => {
                if let Ok(Ok(last)) = timeout(LAST_CONNECT, self.places.next()).await {
                    close_last(&last).await;
                }
            }
            Turn::Closed => {}
        }
    }

    async fn wait_for_turn(self: &Arc<Self>) -> MutexGuard<'_, Turn> {
        let mut waiting = Waiting::begin(self);
        let turn = self.turn.lock().await;
        waiting.has_turn = true;
        turn
    }

    /// The open group, unless it does not wait for the disk and should, or a new one.
    async fn join(&self, turn: &mut Turn, is_synced: bool) -> Result<(Placed, Group), DbError> {
        let connection = match std::mem::replace(turn, Turn::Disconnected) {
            Turn::Open(connection, group) if group.is_synced || !is_synced => {
                return Ok((connection, group));
            }
            Turn::Open(connection, group) => match group.commit(&connection).await {
                Ok(()) => connection,
                // Its members hear of that.
                Err(_) => self.places.next().await?,
            },
            Turn::Idle(connection) => connection,
            Turn::Disconnected => self.places.next().await?,
            Turn::Closed => {
                *turn = Turn::Closed;
                return Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed).into());
            }
        };
        let group = Group::begin(&connection, is_synced).await?;
        Ok((connection, group))
    }

    /// Commits a group that was left open for somebody who gave up waiting.
    async fn commit_abandoned(&self) {
        let mut turn = self.turn.lock().await;
        match std::mem::replace(&mut *turn, Turn::Disconnected) {
            Turn::Open(connection, group) => {
                let committed = group.commit(&connection);
                let committed = timeout(self.places.connector.call_timeout, committed).await;
                if matches!(committed, Ok(Ok(()))) {
                    *turn = Turn::Idle(connection);
                }
            }
            other => *turn = other,
        }
    }
}

/// A transaction that has its turn. Until the turn is put back it holds no connection: if this is dropped, the
/// connection is gone with it, and so is everything the group had written.
pub(super) struct Open<'w> {
    group: Group,
    connection: Placed,
    turn: MutexGuard<'w, Turn>,
    writer: &'w Arc<Writer>,
}

impl Open<'_> {
    pub(super) fn transaction(&self) -> &Transaction {
        &self.group.transaction
    }

    /// Returns when what it did is durable, or, if it is not to be kept, undone. `committing` is set when the commit
    /// begins, or is left to others.
    pub(super) async fn end(self, is_kept: bool, committing: &AtomicBool) -> Result<(), DbError> {
        let Self {
            writer,
            mut turn,
            connection,
            mut group,
        } = self;
        let goes_on = writer.waiting.load(Ordering::SeqCst) > 0 && group.takes_more();
        let ended = group.end_member(is_kept, goes_on).await;
        if goes_on && group.lost.is_none() {
            let outcome = group.outcome.subscribe();
            *turn = Turn::Open(connection, group);
            drop(turn);
            // What was rolled back does not depend on the commit.
            if !is_kept {
                return Ok(());
            }
            committing.store(true, Ordering::Relaxed);
            return committed(outcome).await;
        }
        committing.store(is_kept && ended.is_ok(), Ordering::Relaxed);
        let committed = group.commit(&connection).await;
        if committed.is_ok() {
            *turn = Turn::Idle(connection);
        }
        drop(turn);
        ended?;
        match is_kept {
            true => Ok(committed?),
            false => Ok(()),
        }
    }
}

impl Group {
    async fn begin(connection: &Connection, is_synced: bool) -> Result<Self, DbErr> {
        if !is_synced {
            connection.execute_unprepared(UNSYNCED).await?;
        }
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = connection.begin_with_options(options).await?;
        transaction.execute_unprepared(BEGIN_MEMBER).await?;
        Ok(Self {
            transaction,
            outcome: watch::Sender::new(None),
            is_synced,
            members: 0,
            began: Instant::now(),
            lost: None,
        })
    }

    /// Keeps what a member did, or undoes it. A savepoint that cannot be closed loses the group.
    async fn end_member(&mut self, is_kept: bool, goes_on: bool) -> Result<(), DbError> {
        self.members += 1;
        let end = match (is_kept, goes_on) {
            (true, true) => KEEP_AND_GO_ON,
            (true, false) => KEEP,
            (false, _) => UNDO,
        };
        let ended = self.transaction.execute_unprepared(end).await;
        ended.map(drop).map_err(|error| self.lose(error))
    }

    /// SQLite has rolled back the whole group by itself, as after errors of the disk.
    fn lose(&mut self, error: DbErr) -> DbError {
        tracing::warn!(%error, "transactions were rolled back together");
        self.lost = Some(Lost::Unknown);
        Lost::Unknown.into()
    }

    fn takes_more(&self) -> bool {
        self.lost.is_none() && self.members < MEMBERS_MAX && self.began.elapsed() < GATHERING_MAX
    }

    /// Commits if it can, and tells the members.
    async fn commit(self, connection: &Connection) -> Result<(), Lost> {
        let committed = match self.lost {
            None => commit(self.transaction, connection).await,
            Some(lost) => Err(lost),
        };
        self.outcome.send_replace(Some(committed.clone()));
        committed
    }
}

impl From<Lost> for DbError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Refused(error) => error.into(),
            Lost::Unknown => Self::Abandoned,
        }
    }
}

/// Nobody is told of a commit before the connection is known to be outside of any transaction: a driver
/// that has miscounted savepoints would release one of them instead.
async fn commit(transaction: Transaction, connection: &Connection) -> Result<(), Lost> {
    transaction.commit().await.map_err(Lost::Refused)?;
    let outside = connection.execute_unprepared(OUTSIDE_OF_TRANSACTIONS).await;
    outside.map_err(|error| {
        tracing::error!(%error, "a commit left its connection inside a transaction; it is closed");
        Lost::Unknown
    })?;
    Ok(())
}

/// Closes the connection. If nobody else has the file open, it says from now on that it has no log, so that the log of
/// another one is known when it stands beside it or beside a copy.
async fn close_last(connection: &Connection) {
    let _ = connection
        .execute_unprepared("PRAGMA busy_timeout = 0")
        .await;
    for _ in 0..LAST_TRIES {
        let end = Statement::from_string(DbBackend::Sqlite, "PRAGMA journal_mode = DELETE");
        let mode = connection.query_one_raw(end).await;
        let mode = mode.ok().flatten().map(|row| row.try_get_by_index(0));
        if mode == Some(Ok("delete".to_owned())) {
            break;
        }
        // Readers that were given up may be closing still. If others use it, they go on with its log.
        tokio::time::sleep(LAST_PAUSE).await;
    }
    close(connection).await;
}

/// Waits for readers for less long than a write would: others wait for this connection.
async fn truncate(connection: &Connection, connector: &Connector) -> Result<bool, DbErr> {
    let wait_for = |limit: Duration| format!("PRAGMA busy_timeout = {}", limit.as_millis());
    connection
        .execute_unprepared(&wait_for(TRUNCATION_WAIT.min(connector.call_timeout / 5)))
        .await?;
    let checkpoint = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
    let row = connection.query_one_raw(checkpoint).await;
    connection
        .execute_unprepared(&wait_for(connector.busy_timeout()))
        .await?;
    match row {
        Ok(Some(row)) => Ok(row.try_get_by_index::<i32>(0)? == 0),
        // Another process writes or does the same.
        Err(error) if DbError::from(error.clone()).fault() == Some(Fault::Busy) => Ok(false),
        Err(error) => Err(error),
        Ok(None) => Ok(false),
    }
}

/// Waits until the group is committed. A group that was dropped without an outcome was not.
async fn committed(mut outcome: watch::Receiver<Outcome>) -> Result<(), DbError> {
    let outcome = outcome.wait_for(Option::is_some).await;
    match outcome.as_deref() {
        Ok(Some(committed)) => Ok(committed.clone()?),
        _ => Err(DbError::Abandoned),
    }
}

/// Somebody who waits for their turn.
struct Waiting<'w> {
    writer: &'w Arc<Writer>,
    has_turn: bool,
}

impl<'w> Waiting<'w> {
    fn begin(writer: &'w Arc<Writer>) -> Self {
        writer.waiting.fetch_add(1, Ordering::SeqCst);
        Self {
            writer,
            has_turn: false,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let was_last = self.writer.waiting.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last && !self.has_turn {
            let writer = Arc::clone(self.writer);
            let commit = async move { writer.commit_abandoned().await };
            self.writer.places.control.spawn(commit);
        }
    }
}

#[cfg(test)]
mod tests;
