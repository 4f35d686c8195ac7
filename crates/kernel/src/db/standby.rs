//! A standby of PostgreSQL. It answers lists, so that the primary has less to do; while it does not answer, the primary
//! does.

use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::{Instant, timeout};

use super::postgres::{Lease, Postgres};
use super::{Connection, Limits};

/// How long it may take to connect, before the primary is asked.
const LEND_TIMEOUT: Duration = Duration::from_secs(1);
/// One that did not answer is left alone for this long.
const AWAY_PAUSE: Duration = Duration::from_secs(5);

/// How often it is looked whether it still is a standby.
const LOOK_PAUSE: Duration = Duration::from_secs(2);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How far behind its primary it may be. Where nothing is written to that, it is behind by nothing.
const LAG_MAX_S: i64 = 10;
/// One that has applied all that it got is behind by nothing, as long as it still gets something.
const LOOK: &str = "SELECT current_setting('transaction_read_only') = 'on', \
    EXISTS (SELECT 1 FROM pg_stat_wal_receiver), \
    pg_last_wal_receive_lsn() IS NOT DISTINCT FROM pg_last_wal_replay_lsn(), \
    COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)::bigint";

/// What was replayed last may be old where the primary had nothing to do for long, and something new is just being replayed:
/// then it is level a moment later.
async fn look(connection: &Connection) -> Result<(), String> {
    if look_once(connection).await.is_ok() {
        return Ok(());
    }
    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    look_once(connection).await
}

async fn look_once(connection: &Connection) -> Result<(), String> {
    let query = Statement::from_string(DbBackend::Postgres, LOOK);
    let row = connection.query_one_raw(query).await;
    let row = row.map_err(|error| error.to_string())?;
    let row = row.ok_or("it says nothing of itself")?;
    let read = |index| {
        row.try_get_by_index::<bool>(index)
            .map_err(|error| error.to_string())
    };
    let (is_standby, is_fed, is_level) = (read(0)?, read(1)?, read(2)?);
    let behind_s: i64 = row.try_get_by_index(3).map_err(|error| error.to_string())?;
    if !is_standby {
        return Err("it takes changes of its own: it was promoted, or is no standby".to_owned());
    }
    if !(is_fed && is_level) && behind_s > LAG_MAX_S {
        return Err(format!("it is {behind_s} s behind its primary"));
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Standby {
    postgres: Postgres,
    /// When it was last seen to be one.
    looked: Mutex<Option<Instant>>,
    /// When it did not answer last, if it has not answered since.
    away: Mutex<Option<Instant>>,
}

impl Standby {
    pub(super) fn new(options: PgConnectOptions, limits: Limits) -> Self {
        Self {
            postgres: Postgres::new(options, limits),
            looked: Mutex::default(),
            away: Mutex::default(),
        }
    }

    /// A connection that answers.
    pub(super) async fn lend(&self) -> Option<Lease<'_>> {
        let was_away = {
            let mut away = self.away.lock();
            if away.is_some_and(|since| since.elapsed() < AWAY_PAUSE) {
                return None;
            }
            // One caller looks whether it is back; the others do not wait for that.
            let was_away = away.is_some();
            if was_away {
                *away = Some(Instant::now());
            }
            was_away
        };
        // A busy one is there, and the primary is faster.
        if !self.postgres.has_place() {
            return None;
        }
        match timeout(LEND_TIMEOUT, self.look()).await {
            Ok(Ok(lease)) => {
                if was_away {
                    *self.away.lock() = None;
                    let database = self.postgres.name();
                    tracing::info!(%database, "a standby answers lists again");
                }
                Some(lease)
            }
            Ok(Err(reason)) => {
                self.does_not_answer(&reason);
                None
            }
            Err(_) => {
                self.does_not_answer("it did not answer in time");
                None
            }
        }
    }

    /// A connection to whatever is there.
    pub(super) async fn connect(&self) -> Option<Lease<'_>> {
        timeout(LEND_TIMEOUT, self.postgres.lend(None))
            .await
            .ok()?
            .ok()
    }

    /// A connection to what is a standby, and not far behind: one that was promoted, or that has lost its primary, would show
    /// what was for ever. It is asked every few seconds.
    async fn look(&self) -> Result<Lease<'_>, String> {
        let lease = self.postgres.lend(None).await;
        let lease = lease.map_err(|error| error.to_string())?;
        let is_due = {
            let mut looked = self.looked.lock();
            let is_due = looked.is_none_or(|at| at.elapsed() >= LOOK_PAUSE);
            if is_due {
                *looked = Some(Instant::now());
            }
            is_due
        };
        if is_due && let Err(reason) = look(lease.connection()).await {
            *self.looked.lock() = None;
            lease.give_back();
            return Err(reason);
        }
        Ok(lease)
    }

    /// Leaves it alone for a while.
    pub(super) fn does_not_answer(&self, reason: &str) {
        if self.away.lock().replace(Instant::now()).is_none() {
            let database = self.postgres.name();
            tracing::warn!(%database, reason, "a standby does not answer; the primary answers lists");
        }
    }

    /// Whether it answered when it was last asked.
    pub(super) fn is_away(&self) -> bool {
        self.away.lock().is_some()
    }

    pub(super) async fn close(&self) {
        self.postgres.close().await;
    }
}
