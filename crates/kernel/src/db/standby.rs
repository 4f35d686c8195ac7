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
        let away = *self.away.lock();
        if away.is_some_and(|since| since.elapsed() < AWAY_PAUSE) {
            return None;
        }
        let lent = timeout(LEND_TIMEOUT, self.postgres.lend(None)).await;
        let database = self.postgres.name();
        let (lease, now_away) = match lent {
            Ok(Ok(lease)) => (Some(lease), None),
            _ => (None, Some(Instant::now())),
        };
        let was_away = std::mem::replace(&mut *self.away.lock(), now_away).is_some();
        match (was_away, now_away.is_some()) {
            (false, true) => {
                tracing::warn!(%database, "a standby does not answer; the primary answers lists");
            }
            (true, false) => tracing::info!(%database, "a standby answers lists again"),
            _ => {}
        }
        lease
    }

    pub(super) async fn close(&self) {
        self.postgres.close().await;
    }
}
