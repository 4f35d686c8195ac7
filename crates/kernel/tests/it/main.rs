//! What the kernel keeps in databases: SQLite always, PostgreSQL where `AUSPEX_TEST_POSTGRES_URL`
//! names one. And what replicas share in Redis.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apart;
mod idempotency;
mod postgres;
mod proxy;
mod redis;
mod secrets;
mod store;

/// Runs each test on a new database of each kind.
macro_rules! on_every_database {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&crate::store::Store::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else { return };
                let store = crate::store::Store::postgres(&url, stringify!($name)).await;
                super::$name(&store).await;
                store.remove().await;
            })*
        }
    };
}

pub(crate) use on_every_database;
