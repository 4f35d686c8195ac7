//! A database that a service has for itself, apart from the one of all services.
//!
//! What a change is recorded with is stored in its own transaction, and so in that database. Lines of the audit record are
//! carried on to the database of all, where they are kept and read. The other way come users who were deleted: what is
//! theirs goes too.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::db::{Connection, Db, DbError};
use crate::random::Random;
use crate::secrets::load_or_create;
use crate::service::StopSignal;
use crate::store::{audit, deleted_users, secrets};

/// How often it is looked for what to carry.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows that are carried at once.
const ROWS_MAX: u16 = 500;
/// Transactions that began earlier may end later, and the clocks of replicas differ.
const OVERLAP: Duration = Duration::from_hours(1);

/// The secret by which databases are known to belong together.
const TOGETHER: &str = "databases";

/// What a database of all, and those that services have beside it, are known by.
///
/// # Errors
/// [`DbError`].
pub async fn id_of(db: &Db, clock: &Clock, random: &Random) -> Result<[u8; 32], DbError> {
    load_or_create(db, clock, random, TOGETHER).await
}

/// Gives the database that a service has for itself the secrets which the service has drawn in that of all. False where it
/// belongs to another database of all, unless it is to be taken over from that.
///
/// # Errors
/// [`DbError`] of either database.
pub async fn hand_over(
    main: &Db,
    own: &Db,
    service: &str,
    (clock, random): (&Clock, &Random),
    takes_over: bool,
) -> Result<bool, DbError> {
    let id = id_of(main, clock, random).await?;
    let all = main.read(async |connection| secrets::all(connection).await);
    let all = all.await?;
    let its = format!("{service}.");
    let theirs = &all.iter().filter(|(name, _)| name.starts_with(&its));
    let now = clock.now();
    own.write(async |transaction| -> Result<bool, DbError> {
        if takes_over {
            secrets::remove(transaction, TOGETHER).await?;
        }
        secrets::insert_if_absent(transaction, TOGETHER, &id, now).await?;
        if secrets::find(transaction, TOGETHER).await?.as_deref() != Some(&id[..]) {
            return Ok(false);
        }
        for (name, value) in theirs.clone() {
            secrets::insert_if_absent(transaction, name, value, now).await?;
        }
        Ok(true)
    })
    .await
}

/// Notes in the database of all services that one has a database for itself.
///
/// # Errors
/// [`DbError`].
pub async fn note(main: &Db, service: &str, now: Timestamp) -> Result<(), DbError> {
    let mark = mark(service);
    main.write(async |transaction| secrets::insert_if_absent(transaction, &mark, &[], now).await)
        .await
}

/// Takes the note back.
///
/// # Errors
/// [`DbError`].
pub async fn forget(main: &Db, service: &str) -> Result<(), DbError> {
    let mark = mark(service);
    main.write(async |transaction| secrets::remove(transaction, &mark).await)
        .await
}

/// Whether it is noted in the database of all services that one has a database for itself.
///
/// # Errors
/// [`DbError`].
pub async fn is_noted(main: &Connection, service: &str) -> Result<bool, DbError> {
    // One that holds no tables yet has noted nothing.
    if !secrets::has_table(main).await? {
        return Ok(false);
    }
    Ok(secrets::find(main, &mark(service)).await?.is_some())
}

/// Stands where secrets do, since it is of the same kind: made once for all processes.
fn mark(service: &str) -> String {
    format!("{service} has a database of its own")
}

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
    /// Carries both ways until `stop` is requested. While one of the databases is away, everything waits in the other.
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
                () = stop.stop_requested() => return,
            }
        }
    }

    /// Carries all that there is.
    ///
    /// # Errors
    /// [`DbError`] of either database; what goes the other way is carried all the same.
    pub async fn carry_once(&self) -> Result<(), DbError> {
        let lines = self.carry_lines().await;
        let users = self.carry_users().await;
        lines.and(users)
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
