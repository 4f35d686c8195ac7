//! Connections to a SQLite file that keep a place until their threads have ended. A call may be given
//! up while the thread of its connection goes on, with a disk that hangs or a long statement. Such a
//! connection is discarded and another one opened, and there may only be a few of them.

use std::ops::Deref;
use std::sync::Arc;

use sea_orm::{ConnAcquireErr, DbErr};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::sqlite::Connector;
use super::{Connection, DbError, close};

/// The places of connections to one file.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) connector: Connector,
    pub(super) control: Handle,
    pub(super) free: Arc<Semaphore>,
}

/// A connection that keeps its place until its thread has ended.
#[derive(Debug)]
pub(super) struct Placed {
    connection: Connection,
    control: Handle,
    place: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(connector: Connector, count: usize) -> Self {
        Self {
            connector,
            control: Handle::current(),
            free: Arc::new(Semaphore::new(count)),
        }
    }

    /// Another connection.
    ///
    /// # Errors
    /// As of [`Self::connect`].
    pub(super) async fn next(&self) -> Result<Placed, DbError> {
        let connector = self.connector.clone();
        self.connect(async move { Ok(connector.next().await?) })
            .await
    }

    /// What `connecting` gives, with a place.
    ///
    /// # Errors
    /// What it says; [`DbError::TimedOut`] at once while the threads of discarded connections hold all
    /// places.
    pub(super) async fn connect(
        &self,
        connecting: impl Future<Output = Result<Connection, DbError>> + Send + 'static,
    ) -> Result<Placed, DbError> {
        let place = Arc::clone(&self.free).try_acquire_owned();
        let place = place.map_err(|_| DbError::TimedOut {
            database: self.connector.path.display().to_string(),
            limit: self.connector.call_timeout,
        })?;
        let control = self.control.clone();
        // In a task, which keeps the place until there is a connection, whoever gives up meanwhile.
        let connecting = self.control.spawn(async move {
            Ok(Placed {
                connection: connecting.await?,
                control,
                place: Some(place),
            })
        });
        let connected = connecting.await;
        connected.unwrap_or_else(|_| {
            Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed).into())
        })
    }
}

impl Deref for Placed {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        let (connection, place) = (self.connection.clone(), self.place.take());
        self.control.spawn(async move {
            close(&connection).await;
            drop(place);
        });
    }
}
