//! Calls: a connection is lent, work runs on it, and it is given back; all within a deadline.
//!
//! There are as many kinds of work as there are queries, and each is compiled apart. So what does not depend on
//! the work is in futures of fixed types, behind pointers.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::postgres::CloseOnDrop;
use super::{
    Backend, Connection, Db, DbError, LOAD_TIMEOUT, Transaction, postgres, readers, writer,
};

/// A future of a fixed type.
pub(super) type Boxed<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// A connection that one call reads with.
enum Lease<'d> {
    Sqlite(readers::Lease<'d>),
    Postgres(postgres::Lease<'d>),
}

/// A transaction that is open.
enum Open<'d> {
    Sqlite(writer::Open<'d>),
    Postgres(postgres::Open<'d>),
}

impl Db {
    /// Runs `query` on a reader.
    ///
    /// # Errors
    /// What `query` says; [`DbError::Unreachable`], [`DbError::TimedOut`], [`DbError::Replaced`].
    pub async fn read<T, E: From<DbError>>(
        &self,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let reading = self.read_on(None, query);
        self.within(self.limits.call_timeout, None, Box::pin(reading))
            .await
    }

    /// Runs a `query` that may miss what was stored in the last moment: on the standby, where there is one that answers.
    /// What fails there is asked here once more.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub async fn list<T, E: From<DbError>>(
        &self,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E> + Clone,
    ) -> Result<T, E> {
        let reading = async {
            if let Some(standby) = &self.standby
                && let Some(lease) = standby.lend().await
            {
                if let Ok(found) = self.read_by(Lease::Postgres(lease), query.clone()).await {
                    return Ok(found);
                }
                let here = self.read_on(None, query).await;
                if here.is_ok() {
                    standby.does_not_answer("a query failed there that the primary answered");
                }
                return here;
            }
            self.read_on(None, query).await
        };
        self.within(self.limits.call_timeout, None, Box::pin(reading))
            .await
    }

    /// Runs a `query` that reads whole tables and may take longer than others.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub async fn load<T, E: From<DbError>>(
        &self,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let reading = self.read_on(Some(LOAD_TIMEOUT), query);
        self.within(LOAD_TIMEOUT, None, Box::pin(reading)).await
    }

    /// Runs `work` in one write transaction: `Ok` commits it, and an error rolls it back. So does
    /// dropping this future while `work` runs; after that it may be committed all the same. When
    /// this returns `Ok` the changes are durable.
    ///
    /// # Errors
    /// What `work` says; [`DbError::TimedOut`], after which nothing is stored;
    /// [`DbError::Abandoned`], after which it may be; [`DbError::Database`],
    /// [`DbError::Unreachable`], [`DbError::Replaced`].
    pub async fn write<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_within(None, true, work).await
    }

    /// As [`Self::write`], but what was stored may be undone by a power failure, the last first: SQLite does not wait for
    /// the disk. PostgreSQL does.
    ///
    /// # Errors
    /// As of [`Self::write`].
    pub async fn write_unsynced<T, E: From<DbError>>(
        &self,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_within(None, false, work).await
    }

    /// As [`Self::write`], where each statement may take as long as `limit`, too.
    pub(super) async fn write_apart<T, E: From<DbError>>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_within(Some(limit), true, work).await
    }

    async fn write_within<T, E: From<DbError>>(
        &self,
        apart: Option<Duration>,
        is_synced: bool,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let limit = apart.unwrap_or(self.limits.call_timeout);
        let committing = AtomicBool::new(false);
        let writing = self.write_on(apart, is_synced, work, &committing);
        self.within(limit, Some(&committing), Box::pin(writing))
            .await
    }

    /// With `apart` on a connection of its own, if that limits how long statements take.
    async fn read_on<T, E: From<DbError>>(
        &self,
        apart: Option<Duration>,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let lease = self.lend(apart).await?;
        self.read_by(lease, query).await
    }

    async fn read_by<T, E: From<DbError>>(
        &self,
        lease: Lease<'_>,
        query: impl AsyncFnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = {
            let query = pin!(query(lease.connection()));
            let unfinished = lease.closes_if_dropped();
            let result = query.await;
            unfinished.disarm();
            result
        };
        lease.give_back();
        self.explained(result)
    }

    async fn write_on<T, E: From<DbError>>(
        &self,
        apart: Option<Duration>,
        is_synced: bool,
        work: impl AsyncFnOnce(&Transaction) -> Result<T, E>,
        committing: &AtomicBool,
    ) -> Result<T, E> {
        let open = self.begin(apart, is_synced).await?;
        let result = {
            let work = pin!(work(open.transaction()));
            let unfinished = open.closes_if_dropped();
            let result = work.await;
            unfinished.disarm();
            result
        };
        let ended = open.end(result.is_ok(), committing).await;
        // Why the work failed says more than that it could not be rolled back either.
        self.explained(result.and_then(|value| Ok(ended.map(|()| value)?)))
    }

    fn lend(&self, apart: Option<Duration>) -> Boxed<'_, Result<Lease<'_>, DbError>> {
        Box::pin(async move {
            Ok(match &self.backend {
                Backend::Sqlite(sqlite) => {
                    sqlite.file.check()?;
                    let lease = sqlite.readers.lend().await;
                    Lease::Sqlite(lease.map_err(|error| self.explained_error(error))?)
                }
                Backend::Postgres(postgres) => Lease::Postgres(postgres.lend(apart).await?),
            })
        })
    }

    fn begin(
        &self,
        apart: Option<Duration>,
        is_synced: bool,
    ) -> Boxed<'_, Result<Open<'_>, DbError>> {
        Box::pin(async move {
            Ok(match &self.backend {
                Backend::Sqlite(sqlite) => {
                    sqlite.file.check()?;
                    let open = sqlite.writer.begin(is_synced).await;
                    Open::Sqlite(open.map_err(|error| self.explained_error(error))?)
                }
                Backend::Postgres(postgres) => Open::Postgres(postgres.begin(apart).await?),
            })
        })
    }

    /// What has become of a file says more than what SQLite made of it.
    fn explained<T, E: From<DbError>>(&self, result: Result<T, E>) -> Result<T, E> {
        result.map_err(|error| match self.check_file() {
            Err(replaced) => replaced.into(),
            Ok(()) => error,
        })
    }

    fn explained_error(&self, error: DbError) -> DbError {
        self.check_file().err().unwrap_or(error)
    }

    fn check_file(&self) -> Result<(), DbError> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.file.check(),
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// Waits for a call until `limit`. What it had not begun to commit by then is not stored.
    pub(super) async fn within<T, E: From<DbError>>(
        &self,
        limit: Duration,
        committing: Option<&AtomicBool>,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        debug_assert!(
            self.control.is_current(),
            "the database is used on the control runtime alone; hand the work to Db::control"
        );
        match timeout(limit, call).await {
            Ok(done) => done,
            Err(_) => Err(self.missed(limit, committing).into()),
        }
    }

    fn missed(&self, limit: Duration, committing: Option<&AtomicBool>) -> DbError {
        let database = self.name();
        if committing.is_some_and(|committing| committing.load(Ordering::Relaxed)) {
            tracing::warn!(%database, "a transaction was not committed in time");
            return DbError::Abandoned;
        }
        DbError::TimedOut { database, limit }
    }
}

impl Lease<'_> {
    fn connection(&self) -> &Connection {
        match self {
            Self::Sqlite(lease) => lease.connection(),
            Self::Postgres(lease) => lease.connection(),
        }
    }

    fn closes_if_dropped(&self) -> CloseOnDrop<'_> {
        match self {
            // One that is not given back is discarded.
            Self::Sqlite(_) => CloseOnDrop::nothing(),
            Self::Postgres(lease) => lease.closes_if_dropped(),
        }
    }

    fn give_back(self) {
        match self {
            Self::Sqlite(lease) => lease.give_back(),
            Self::Postgres(lease) => lease.give_back(),
        }
    }
}

impl<'d> Open<'d> {
    fn transaction(&self) -> &Transaction {
        match self {
            Self::Sqlite(open) => open.transaction(),
            Self::Postgres(open) => open.transaction(),
        }
    }

    fn closes_if_dropped(&self) -> CloseOnDrop<'_> {
        match self {
            Self::Sqlite(_) => CloseOnDrop::nothing(),
            Self::Postgres(open) => open.closes_if_dropped(),
        }
    }

    /// Keeps what was done, or undoes it. `committing` is set when the commit begins, or is left to
    /// others.
    fn end<'e>(self, is_kept: bool, committing: &'e AtomicBool) -> Boxed<'e, Result<(), DbError>>
    where
        'd: 'e,
    {
        match self {
            Self::Sqlite(open) => Box::pin(open.end(is_kept, committing)),
            Self::Postgres(open) => Box::pin(open.end(is_kept, committing)),
        }
    }
}
