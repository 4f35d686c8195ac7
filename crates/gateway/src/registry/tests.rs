//! Two registries on one database, as two replicas have them: on SQLite always, on PostgreSQL where
//! `AUSPEX_TEST_POSTGRES_URL` names one.

use sea_orm::ConnectionTrait as _;

use super::*;
use crate::live::Means;
use crate::migration::Migrator;
use crate::plan::Plan;

/// As the first migration of another service makes it.
const AUDIT: &str = "CREATE TABLE identity_audit (id text PRIMARY KEY, at bigint NOT NULL, \
    actor text NOT NULL, action text NOT NULL, target text, outcome text NOT NULL, detail text, \
    address text, request_id text)";
const ONE: (&str, &str) = ("orders", "one");
const TTL: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

struct Replica {
    registry: Registry,
    clock: Clock,
}

/// A database of a test's own.
struct Store {
    url: String,
    schema: Option<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Store {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            url: format!("sqlite:{}", folder.path().join("auspex.db").display()),
            schema: None,
            _folder: Some(folder),
        }
    }

    /// A schema of its own in the database at `url`.
    async fn postgres(url: &str, test: &str) -> Self {
        let schema = format!("gateway_{}_{test}", std::process::id());
        let create = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        execute(&Db::open(url).await.expect("opens"), &create).await;
        let sign = if url.contains('?') { '&' } else { '?' };
        Self {
            url: format!("{url}{sign}options=-c%20search_path%3D{schema}"),
            schema: Some(schema),
            _folder: None,
        }
    }

    async fn remove(self) {
        if let Some(schema) = &self.schema {
            let db = Db::open(&self.url).await.expect("opens");
            execute(&db, &format!("DROP SCHEMA {schema} CASCADE")).await;
        }
    }
}

async fn execute(db: &Db, sql: &str) {
    let executing = db.write(async |transaction| {
        transaction.execute_unprepared(sql).await?;
        Ok::<_, DbError>(())
    });
    executing.await.expect("stored");
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Store::sqlite()).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test]
            async fn $name() {
                let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else { return };
                // Names in PostgreSQL have 63 bytes.
                let test = &stringify!($name)[..40];
                let store = super::Store::postgres(&url, test).await;
                super::$name(&store).await;
                store.remove().await;
            })*
        }
    };
}

contract! {
    what_registers_at_one_replica_is_known_to_all_and_after_a_restart
    heartbeats_at_one_replica_keep_an_instance_alive_at_all
    an_instance_lives_for_its_time_to_live_after_a_heartbeat_and_after_a_restart
    a_heartbeat_is_written_once_in_a_third_of_the_time_to_live
}

/// Each has a clock of its own.
async fn replica(store: &Store) -> Replica {
    let db = Db::open(&store.url).await.expect("opens");
    db.migrate::<Migrator>().await.expect("migrates");
    execute(&db, &AUDIT.replace("TABLE", "TABLE IF NOT EXISTS")).await;
    let clock = Clock::manual(Timestamp(1_000_000_000_000));
    let plan = Plan::of("[gateway.services.orders]").expect("valid");
    let live = Arc::new(Live::new(plan, Means::new(clock.clone(), None)));
    let registry = Registry::open(db, clock.clone(), Random::system(), live);
    Replica {
        registry: registry.await.expect("opens"),
        clock,
    }
}

impl Replica {
    async fn hear(&self, address: &str) -> bool {
        let told = Told {
            address: address.into(),
            metadata: BTreeMap::new(),
            ttl: TTL,
        };
        let heard = self.registry.hear(&Actor::operator(), ONE, told).await;
        heard.expect("valid").1
    }

    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.registry.catch_up().await.expect("follows");
        self.registry.expire().await.expect("deletes");
    }

    /// Where requests go.
    fn endpoints(&self) -> Vec<String> {
        let gateway = self.registry.live.now();
        let endpoints = gateway.services["orders"].endpoints();
        endpoints
            .iter()
            .map(|one| one.authority().to_owned())
            .collect()
    }
}

async fn what_registers_at_one_replica_is_known_to_all_and_after_a_restart(store: &Store) {
    let (one, two) = (replica(store).await, replica(store).await);
    assert!(one.hear("http://10.0.0.1:80").await);
    assert_eq!(one.endpoints(), ["10.0.0.1:80"]);
    two.pass(Duration::ZERO).await;
    assert_eq!(two.endpoints(), ["10.0.0.1:80"]);
    assert!(!two.hear("http://10.0.0.2:80").await, "the same has moved");
    one.pass(Duration::ZERO).await;
    assert_eq!(one.endpoints(), ["10.0.0.2:80"]);
    assert_eq!(replica(store).await.endpoints(), ["10.0.0.2:80"]);
    one.registry
        .remove(&Actor::operator(), "orders", "one")
        .await
        .expect("there");
    two.pass(Duration::ZERO).await;
    assert_eq!(two.endpoints(), [""; 0]);
}

async fn heartbeats_at_one_replica_keep_an_instance_alive_at_all(store: &Store) {
    let (one, two) = (replica(store).await, replica(store).await);
    one.hear("http://10.0.0.1:80").await;
    for _ in 0..30 {
        one.hear("http://10.0.0.1:80").await;
        one.pass(9 * SECOND).await;
        two.pass(9 * SECOND).await;
        assert_eq!(two.endpoints().len(), 1);
    }
    // Without them it leaves, here first where it was heard of, or there; and for good.
    for _ in 0..4 {
        one.pass(10 * SECOND).await;
        two.pass(10 * SECOND).await;
    }
    assert_eq!((one.endpoints(), two.endpoints()), (vec![], vec![]));
    assert_eq!(replica(store).await.endpoints(), [""; 0]);
}

async fn an_instance_lives_for_its_time_to_live_after_a_heartbeat_and_after_a_restart(
    store: &Store,
) {
    let one = replica(store).await;
    one.hear("http://10.0.0.1:80").await;
    one.pass(29 * SECOND).await;
    assert_eq!(one.endpoints().len(), 1);
    // The server was away for long; its clock has gone back.
    let again = replica(store).await;
    again.pass(29 * SECOND).await;
    assert_eq!(again.endpoints().len(), 1);
    again.pass(SECOND).await;
    assert_eq!(again.endpoints().len(), 0);
    one.pass(SECOND).await;
    assert_eq!(one.endpoints().len(), 0);
}

async fn a_heartbeat_is_written_once_in_a_third_of_the_time_to_live(store: &Store) {
    let (one, two) = (replica(store).await, replica(store).await);
    one.hear("http://10.0.0.1:80").await;
    let stored = async || {
        two.pass(Duration::ZERO).await;
        two.registry.of("orders")[0].seen_at
    };
    let mut written = vec![stored().await];
    for _ in 0..30 {
        one.clock.advance(SECOND);
        one.hear("http://10.0.0.1:80").await;
        written.push(stored().await);
    }
    written.dedup();
    assert_eq!(written.len(), 1 + 3, "{written:?}");
}
