//! A standby of PostgreSQL. It answers lists, so that the primary has less to do; while it does not answer, the primary
//! does.

use std::time::Duration;

use parking_lot::Mutex;
use sea_orm::sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, timeout};

use super::Limits;
use super::postgres::{Lease, Postgres};

/// How long it may take to connect, before the primary is asked.
const LEND_TIMEOUT: Duration = Duration::from_secs(1);
/// One that did not answer is left alone for this long.
const AWAY_PAUSE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Standby {
    postgres: Postgres,
    /// When it did not answer last, if it has not answered since.
    away: Mutex<Option<Instant>>,
}

impl Standby {
    pub(super) fn new(options: PgConnectOptions, limits: Limits) -> Self {
        Self {
            postgres: Postgres::new(options, limits),
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
        match timeout(LEND_TIMEOUT, self.postgres.lend(None)).await {
            Ok(Ok(lease)) => {
                if was_away {
                    *self.away.lock() = None;
                    let database = self.postgres.name();
                    tracing::info!(%database, "a standby answers lists again");
                }
                Some(lease)
            }
            _ => {
                self.does_not_answer();
                None
            }
        }
    }

    /// Leaves it alone for a while.
    pub(super) fn does_not_answer(&self) {
        if self.away.lock().replace(Instant::now()).is_none() {
            let database = self.postgres.name();
            tracing::warn!(%database, "a standby does not answer; the primary answers lists");
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
