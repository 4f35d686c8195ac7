//! A database that a service has for itself, apart from the one of all services.
//!
//! What a change is recorded with is stored in its own transaction, and so in that database. Lines of the audit record are
//! carried on to the database of all, where they are kept and read. The other way come users who were deleted: what is
//! theirs goes too.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::db::{Db, DbError};
use crate::service::StopSignal;
use crate::store::{audit, deleted_users};

/// How often it is looked for what to carry.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows that are carried at once.
const ROWS_MAX: u16 = 500;
/// Transactions that began earlier may end later, and the clocks of replicas differ.
const OVERLAP: Duration = Duration::from_hours(1);

/// The database of one service, and that of all.
#[derive(Clone)]
pub struct Apart {
    /// Of the service.
    pub own: Db,
    /// Of all services.
    pub main: Db,
    /// The time.
    pub clock: Clock,
}

impl Apart {
    /// Carries both ways until `stop` is requested, and what is there then once more. While one of the databases is away,
    /// everything waits in the other.
    pub async fn carry(self, mut stop: StopSignal) {
        let mut fails = false;
        loop {
            let carried = self.carry_once().await;
            if let (Err(error), false) = (&carried, fails) {
                let database = self.own.name();
                tracing::warn!(%error, %database, "the audit record and deleted users wait to be carried between databases");
            }
            fails = carried.is_err();
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.stop_requested() => break,
            }
        }
        // What fails now is carried after the next start.
        let _ = self.carry_once().await;
    }

    /// Carries all that there is.
    ///
    /// # Errors
    /// [`DbError`] of either database.
    pub async fn carry_once(&self) -> Result<(), DbError> {
        self.carry_lines().await?;
        self.carry_users().await
    }

    /// A line may arrive twice, and is added once.
    async fn carry_lines(&self) -> Result<(), DbError> {
        loop {
            let oldest = self.own.read(async |connection| {
                let oldest = audit::oldest(connection, ROWS_MAX.into());
                oldest.await
            });
            let lines = &oldest.await?;
            if lines.len() == 0 {
                return Ok(());
            }
            self.main
                .write(async |transaction| audit::add(transaction, lines).await)
                .await?;
            self.own
                .write(async |transaction| audit::remove(transaction, lines).await)
                .await?;
            if lines.len() < usize::from(ROWS_MAX) {
                return Ok(());
            }
        }
    }

    async fn carry_users(&self) -> Result<(), DbError> {
        let newest = self
            .own
            .read(async |connection| deleted_users::newest(connection).await);
        let mut since = newest.await?.map_or(Timestamp(0), |at| at - OVERLAP);
        loop {
            let deleted = self.main.read(async |connection| {
                let deleted = deleted_users::since(connection, since, ROWS_MAX.into());
                deleted.await
            });
            let deleted = &deleted.await?;
            let Some(last) = deleted.last() else {
                return Ok(());
            };
            let unknown = self
                .own
                .read(async |connection| deleted_users::unknown(connection, deleted).await);
            let unknown = &unknown.await?;
            if !unknown.is_empty() {
                let now = self.clock.now();
                self.own
                    .write(async |transaction| deleted_users::add(transaction, unknown, now).await)
                    .await?;
            }
            if deleted.len() < usize::from(ROWS_MAX) || last.at() == since {
                return Ok(());
            }
            since = last.at();
        }
    }
}
