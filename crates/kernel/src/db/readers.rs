//! SQLite's connections that read. A call has one of them to itself until it ends; one whose call was
//! given up is discarded.

use parking_lot::Mutex;
use sea_orm::{ConnAcquireErr, DbErr};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::placed::{Placed, Places};
use super::sqlite::Connector;
use super::{Connection, DbError, close};

/// Calls that read at once.
const TURNS: u32 = 4;
/// Those in use, and those that were discarded and whose threads have not ended.
const CONNECTIONS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Readers {
    places: Places,
    turns: Semaphore,
    idle: Mutex<Vec<Placed>>,
}

impl Readers {
    /// Connects once, to see whether that works.
    pub(super) async fn open(connector: Connector) -> Result<Self, DbError> {
        let places = Places::new(connector, CONNECTIONS_MAX);
        let first = places.next().await?;
        Ok(Self {
            places,
            turns: Semaphore::new(TURNS as usize),
            idle: Mutex::new(vec![first]),
        })
    }

    pub(super) async fn lend(&self) -> Result<Lease<'_>, DbError> {
        let turn = self.turns.acquire().await;
        let closed = DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed);
        let turn = turn.map_err(|_| DbError::from(closed))?;
        let idle = self.idle.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.places.next().await?,
        };
        Ok(Lease {
            readers: self,
            connection,
            _turn: turn,
        })
    }

    /// Waits for the calls under way and closes every connection; later calls fail.
    pub(super) async fn close(&self) {
        let Ok(_all) = self.turns.acquire_many(TURNS).await else {
            return;
        };
        self.turns.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        for connection in &idle {
            close(connection).await;
        }
    }
}

/// A connection that one call has to itself. Dropped, it is discarded.
pub(super) struct Lease<'r> {
    readers: &'r Readers,
    connection: Placed,
    _turn: SemaphorePermit<'r>,
}

impl Lease<'_> {
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn give_back(self) {
        self.readers.idle.lock().push(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sea_orm::ConnectionTrait as _;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    /// A thread that waits for a lock stands still, as one does whose disk hangs.
    #[tokio::test]
    async fn calls_that_were_given_up_hold_no_turn() {
        const LOCK: &str = "BEGIN IMMEDIATE";
        let folder = tempfile::tempdir().unwrap();
        let connector = Connector {
            path: folder.path().join("x.db"),
            call_timeout: Duration::from_secs(60),
        };
        let holder = connector.first_writer().await.unwrap();
        holder.execute_unprepared(LOCK).await.unwrap();
        let readers = Readers::open(connector).await.unwrap();
        let ping = async || {
            let lease = readers.lend().await?;
            lease.connection().ping().await?;
            lease.give_back();
            Ok::<_, DbError>(())
        };
        let give_up = async || {
            let begun = Notify::new();
            let reading = async {
                let lease = readers.lend().await.unwrap();
                begun.notify_one();
                lease.connection().execute_unprepared(LOCK).await
            };
            let soon = async {
                begun.notified().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            tokio::select! {
                _ = reading => panic!("it is locked"),
                () = soon => {}
            }
        };
        for _ in 0..CONNECTIONS_MAX - 1 {
            give_up().await;
        }
        ping().await.unwrap();
        give_up().await;
        let refused = ping().await.unwrap_err();
        assert!(matches!(refused, DbError::TimedOut { .. }), "{refused}");
        holder.execute_unprepared("ROLLBACK").await.unwrap();
        // The threads end, and so does their hold on the places.
        let all = readers.places.free.acquire_many(CONNECTIONS_MAX as u32);
        drop(
            timeout(Duration::from_secs(60), all)
                .await
                .unwrap()
                .unwrap(),
        );
        ping().await.unwrap();
        readers.close().await;
        assert!(ping().await.is_err());
        close(&holder).await;
    }
}
