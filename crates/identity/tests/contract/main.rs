//! What identity promises, on every database: SQLite always, PostgreSQL where
//! `AUSPEX_TEST_POSTGRES_URL` names one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ask;
mod person;
mod store;

use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use auspex_identity::{Actor, Identity, NewKey};
use auspex_kernel::{Authenticate, Caller, Credential, ScopeSet, Timestamp, Verdict};
use tokio::sync::oneshot;
use tracing::instrument::WithSubscriber;

use store::Store;

const START: Timestamp = Timestamp(1_769_335_200_000_000);
const TEST_MAX: Duration = Duration::from_mins(5);
static OPERATOR: LazyLock<Actor> = LazyLock::new(Actor::operator);
const NOTICED_WITHIN: Duration = Duration::from_secs(1);

fn scopes(text: &str) -> ScopeSet {
    text.parse().unwrap()
}

fn caller(identity: &Identity, token: impl AsRef<[u8]>, now: Timestamp) -> Option<Arc<Caller>> {
    match identity
        .authenticator()
        .authenticate(Credential::Token(token.as_ref()), now)
    {
        Verdict::Known(caller) => Some(caller),
        Verdict::Refused | Verdict::Unverified => None,
    }
}

fn knows(identity: &Identity, new: &NewKey) -> bool {
    caller(identity, new.secret.expose(), START).is_some()
}

/// Waits until `seen` holds, and fails if that takes longer than other processes may be behind.
async fn soon(what: &str, seen: impl Fn() -> bool) {
    let wait = async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(NOTICED_WITHIN, wait).await;
    assert!(in_time.is_ok(), "{what} was not noticed in time");
}

/// Runs `identity.watch` while `during` runs, then tells it to stop and waits until it has.
async fn while_watching(identity: &Arc<Identity>, during: impl Future<Output = ()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { stopped.await.unwrap_or_default() };
    let watch = tokio::spawn(
        Arc::clone(identity)
            .watch(stopped)
            .with_current_subscriber(),
    );
    during.await;
    stop.send(()).unwrap();
    let ended = tokio::time::timeout(NOTICED_WITHIN, watch).await;
    ended.expect("watch stops when told").unwrap();
}

/// A test that hangs is to fail by its name.
async fn in_time(test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(TEST_MAX, test).await;
    ended.expect("the test ends in time");
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::in_time(async { super::$name(&crate::Store::sqlite()).await }).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else { return };
                crate::in_time(async {
                    let store = crate::Store::postgres(&url, stringify!($name)).await;
                    super::$name(&store).await;
                    store.remove().await;
                })
                .await;
            })*
        }
    };
}

mod audit;
mod away;
mod basic;
mod chance;
mod clock;
mod device;
mod foreign;
mod keys;
mod meanwhile;
mod names;
mod oauth;
mod own_keys;
mod revocation;
mod signing;
mod size;
mod strangers;
mod tokens;
mod upkeep;
mod users;
mod vouching;
