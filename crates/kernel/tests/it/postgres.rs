//! What happens to calls when PostgreSQL is away, silent, blocked or ends sessions.

use std::time::Duration;

use auspex_kernel::ApiError;
use auspex_kernel::clock::Timestamp;
use auspex_kernel::db::{Db, DbError, Fault, Limits, StandbyFound, missing_rights};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::store::{Store, execute, texts};

const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The URL of a schema of the test's own; `None` without PostgreSQL.
async fn schema(test: &str) -> Option<Store> {
    let url = std::env::var("AUSPEX_TEST_POSTGRES_URL").ok()?;
    let store = Store::postgres(&url, test).await;
    execute(
        &Db::open(&store.url).await.unwrap(),
        "CREATE TABLE t (a integer UNIQUE)".into(),
    )
    .await;
    Some(store)
}

async fn hasty(url: &str) -> Db {
    Db::open_with(url, Limits::within(CALL_TIMEOUT))
        .await
        .unwrap()
}

/// A database behind a proxy.
async fn behind_proxy(store: &Store, call_timeout: Duration) -> (Proxy, Db) {
    let (proxy, url) = proxied(store).await;
    let limits = Limits::within(call_timeout);
    (proxy, Db::open_with(&url, limits).await.unwrap())
}

/// Its URL behind a proxy.
async fn proxied(store: &Store) -> (Proxy, String) {
    let url = &store.url;
    let (head, rest) = url.split_at(url.find("//").unwrap() + 2);
    let (authority, path) = rest.split_once('/').unwrap();
    let (user, host) = authority
        .rsplit_once('@')
        .unwrap_or(("postgres", authority));
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:5432")
    };
    let proxy = Proxy::to(&host).await;
    let url = format!("{head}{user}@{}/{path}", proxy.address);
    (proxy, url)
}

/// What stands in the one place of the two tells which was asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_answers_lists_and_while_it_does_not_the_primary_does() {
    let Some(store) = schema("standby_of").await else {
        return;
    };
    let url = std::env::var("AUSPEX_TEST_POSTGRES_URL").unwrap();
    let behind = Store::postgres(&url, "standby").await;
    let (primary, standby) = (store.db().await, behind.db().await);
    let secret = "INSERT INTO kernel_secrets VALUES ('one', '\\x01', 0)";
    for (db, number) in [(&primary, 1), (&standby, 2)] {
        execute(db, "CREATE TABLE IF NOT EXISTS t (a integer)".into()).await;
        execute(db, format!("INSERT INTO t VALUES ({number})")).await;
        execute(db, secret.into()).await;
    }
    let (proxy, url) = proxied(&behind).await;
    let limits = Limits::within(CALL_TIMEOUT);
    let read_only = format!("{url}%20-c%20default_transaction_read_only%3Don");
    let db = primary.clone().with_standby(&read_only, limits).unwrap();
    let promoted = primary.clone().with_standby(&url, limits).unwrap();
    let list_of = async |db: &Db| {
        let listed = db.list(async |connection| -> Result<String, DbError> {
            let query = Statement::from_string(DbBackend::Postgres, "SELECT a::text FROM t");
            let row = connection.query_one_raw(query).await?;
            Ok(row.unwrap().try_get_by_index(0)?)
        });
        listed.await.unwrap()
    };
    let list = || list_of(&db);
    let says = |text: &str| StandbyFound::Other(text.to_owned());
    // One that was promoted has a life of its own.
    let found = promoted.look_at_standby().await.unwrap();
    assert_eq!(found, says("it takes changes"));
    assert_eq!(list_of(&promoted).await, "1");
    assert_eq!(promoted.standby_answers().await, Some(false));

    assert_eq!(list().await, "2");
    assert_eq!(texts(&db, "SELECT a::text FROM t").await, ["1"]);
    assert_eq!(db.standby_answers().await, Some(true));

    proxy.silence_all();
    let begin = Instant::now();
    assert_eq!(list().await, "1");
    assert!(begin.elapsed() < CALL_TIMEOUT, "{:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(
        (list().await.as_str(), db.standby_answers().await),
        ("1", Some(false))
    );
    assert!(
        begin.elapsed() < CALL_TIMEOUT / 5,
        "it is left alone for a while"
    );
    proxy.silence();
    let again = async { while list().await == "1" {} };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .expect("it is asked again");

    // What fails there is asked of the primary.
    execute(&standby, "ALTER TABLE t RENAME TO away".into()).await;
    assert_eq!(list().await, "1");
    assert_eq!(db.standby_answers().await, Some(false));

    let db = primary.clone().with_standby(&read_only, limits).unwrap();
    assert_eq!(db.look_at_standby().await.unwrap(), StandbyFound::Copy);
    execute(&standby, "UPDATE kernel_secrets SET value = '\\x02'".into()).await;
    let other = says("it holds something else");
    assert_eq!(db.look_at_standby().await.unwrap(), other);
    execute(&standby, "DROP TABLE kernel_secrets".into()).await;
    let broken = db.look_at_standby().await.unwrap();
    assert!(
        matches!(&broken, StandbyFound::Other(why) if why.contains("kernel_secrets")),
        "{broken:?}"
    );
    assert_eq!(primary.look_at_standby().await.unwrap(), StandbyFound::None);
    assert_eq!(primary.standby_answers().await, None);
    behind.remove().await;
    store.remove().await;
}

/// A standby, or a database that its operator has closed to changes.
#[tokio::test]
async fn a_database_that_takes_no_changes_is_named_with_what_to_do() {
    let Some(store) = schema("read_only").await else {
        return;
    };
    let url = format!("{}%20-c%20default_transaction_read_only%3Don", store.url);
    let db = hasty(&url).await;
    let before = auspex_kernel::migrate(&db).await.unwrap_err();
    auspex_kernel::migrate(&store.db().await).await.unwrap();
    assert!(auspex_kernel::is_migrated(&db).await.unwrap());
    auspex_kernel::migrate(&db).await.unwrap();
    for error in [before, db.prove_writes(Timestamp(0)).await.unwrap_err()] {
        assert_eq!(error.fault(), Some(Fault::ReadOnly), "{error}");
        let said = error.to_string();
        for part in [
            "PostgreSQL at ",
            ", database \"",
            "default_transaction_read_only",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    store.remove().await;
}

/// What is said is enough to get on: whoever grants it, right after right, gets everything to work.
#[tokio::test]
async fn a_role_is_told_which_rights_it_lacks() {
    let Some(store) = schema("rights").await else {
        return;
    };
    let admin = Db::open(&store.url).await.unwrap();
    // Every PostgreSQL has this role, and it has no rights here.
    let role = format!("{}%20-c%20role%3Dpg_monitor", store.url);
    let mut told = Vec::new();
    for _ in 0..4 {
        match auspex_kernel::migrate(&hasty(&role).await).await {
            Ok(()) => break,
            Err(DbError::Denied { missing, .. }) => {
                for right in missing {
                    told.push(right.what);
                    execute(&admin, right.grant).await;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("pg_monitor may use no schema"), "{told:?}");
    execute(&admin, "DROP TABLE kernel_migrations CASCADE".into()).await;
    let known = [auspex_kernel::known_migrations()];
    let lacks = async || missing_rights(&hasty(&role).await, &known).await.unwrap();
    assert_eq!(lacks().await, [], "it made them");

    let schema = store.url.rsplit("%3D").next().unwrap();
    let tables =
        "kernel_secrets, kernel_idempotency_keys, kernel_write_proof, kernel_deleted_users";
    execute(&admin, format!("DROP TABLE {tables}")).await;
    auspex_kernel::migrate(&admin).await.unwrap();
    execute(
        &admin,
        format!("REVOKE CREATE ON SCHEMA {schema} FROM pg_monitor"),
    )
    .await;
    let error = hasty(&role).await.prove_writes(Timestamp(0)).await;
    let error = error.unwrap_err();
    assert_eq!(error.fault(), Some(Fault::Denied));
    assert!(error.to_string().contains("auspex doctor"), "{error}");
    let missing = lacks().await;
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(missing[0].what.contains("5 of them"), "{missing:?}");
    execute(&admin, missing[0].grant.clone()).await;
    assert_eq!(lacks().await, []);
    let db = hasty(&role).await;
    auspex_kernel::migrate(&db).await.unwrap();
    db.prove_writes(Timestamp(0)).await.unwrap();
    store.remove().await;
}

async fn value(db: &Db, sql: &str) -> Result<String, DbError> {
    let query = Statement::from_string(DbBackend::Postgres, sql);
    db.read(async |connection| {
        let row = connection.query_one_raw(query).await?.unwrap();
        Ok(row.try_get_by_index(0)?)
    })
    .await
}

async fn write(db: &Db, sql: &str) -> Result<(), DbError> {
    db.write(async |transaction| {
        transaction.execute_unprepared(sql).await?;
        Ok(())
    })
    .await
}

async fn count(db: &Db) -> String {
    value(db, "SELECT count(*)::text FROM t").await.unwrap()
}

fn fault(result: Result<impl std::fmt::Debug, DbError>) -> Fault {
    let error = result.unwrap_err();
    error.fault().unwrap_or_else(|| panic!("no fault: {error}"))
}

async fn together<T>(count: usize, one: impl AsyncFn(usize) -> T) -> Vec<T> {
    futures_util::future::join_all((0..count).map(|n| one(n))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_silent_connections_hold_no_place() {
    let Some(store) = schema("silent").await else {
        return;
    };
    let (proxy, db) = behind_proxy(&store, CALL_TIMEOUT).await;
    let calls = together(12, async |n| {
        if n == 0 {
            tokio::time::sleep(Duration::from_millis(700)).await;
            proxy.silence();
        }
        value(&db, "SELECT pg_sleep(1)::text").await
    });
    let begin = Instant::now();
    for call in calls.await {
        assert_eq!(fault(call), Fault::Slow);
    }
    assert!(begin.elapsed() < CALL_TIMEOUT * 2, "{:?}", begin.elapsed());
    // All places are free at once.
    let begin = Instant::now();
    for result in together(12, async |_| value(&db, "SELECT 'here'").await).await {
        assert_eq!(result.unwrap(), "here");
    }
    assert!(begin.elapsed() < CALL_TIMEOUT, "{:?}", begin.elapsed());
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_change_is_stored_or_said_not_to_be() {
    let Some(store) = schema("silent_change").await else {
        return;
    };
    let (proxy, db) = behind_proxy(&store, CALL_TIMEOUT).await;
    let written = db.write(async |transaction| -> Result<(), DbError> {
        transaction
            .execute_unprepared("INSERT INTO t VALUES (1)")
            .await?;
        proxy.silence();
        transaction
            .execute_unprepared("INSERT INTO t VALUES (2)")
            .await?;
        Ok(())
    });
    assert_eq!(fault(written.await), Fault::Slow);
    // PostgreSQL ends the session that nobody speaks to any more, so that its rows are free again.
    let begin = Instant::now();
    while write(&db, "INSERT INTO t VALUES (1)").await.is_err() {
        assert!(begin.elapsed() < CALL_TIMEOUT * 6);
    }
    assert_eq!(count(&db).await, "1");
    store.remove().await;
}

/// Opens all connections, and leaves them idle.
async fn fill(proxy: &Proxy, db: &Db) {
    for result in together(10, async |_| value(db, "SELECT pg_sleep(0.1)::text").await).await {
        result.unwrap();
    }
    assert!(proxy.accepted() >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_that_fell_silent_are_replaced_within_a_call() {
    let Some(store) = schema("silent_idle").await else {
        return;
    };
    // Less than a second is not enough to wait a second for an answer and then connect.
    for (id, call_timeout) in [CALL_TIMEOUT, Duration::from_millis(900)]
        .into_iter()
        .enumerate()
    {
        let (proxy, db) = behind_proxy(&store, call_timeout).await;
        fill(&proxy, &db).await;
        proxy.silence();
        let insert = format!("INSERT INTO t VALUES ({id})");
        write(&db, &insert).await.unwrap();
        assert_eq!(count(&db).await, (id + 1).to_string());
    }
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_that_a_call_gave_up_on_warns_of_the_others() {
    let Some(store) = schema("silent_given_up").await else {
        return;
    };
    let long = Duration::from_secs(20);
    let (proxy, db) = behind_proxy(&store, long).await;
    fill(&proxy, &db).await;
    proxy.silence();
    let given_up = tokio::time::timeout(Duration::from_millis(50), value(&db, "SELECT 'a'"));
    given_up.await.unwrap_err();
    let begin = Instant::now();
    assert_eq!(value(&db, "SELECT 'b'").await.unwrap(), "b");
    // Nobody waited a second for the next silent one.
    assert!(begin.elapsed() < Duration::from_millis(900));
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_ended_is_unreachable_and_replaced() {
    let Some(store) = schema("ended").await else {
        return;
    };
    let db = hasty(&store.url).await;
    let admin = hasty(&store.url).await;
    // Idle: nobody notices.
    let pid = value(&db, "SELECT pg_backend_pid()::text").await.unwrap();
    write(&admin, &format!("SELECT pg_terminate_backend({pid})"))
        .await
        .unwrap();
    write(&db, "INSERT INTO t VALUES (1)").await.unwrap();
    // At work.
    let written = db.write(async |transaction| -> Result<(), DbError> {
        let pid = Statement::from_string(DbBackend::Postgres, "SELECT pg_backend_pid()");
        let pid: i32 = transaction
            .query_one_raw(pid)
            .await?
            .unwrap()
            .try_get_by_index(0)?;
        transaction
            .execute_unprepared("INSERT INTO t VALUES (2)")
            .await?;
        write(&admin, &format!("SELECT pg_terminate_backend({pid})")).await?;
        transaction
            .execute_unprepared("INSERT INTO t VALUES (3)")
            .await?;
        Ok(())
    });
    assert_eq!(fault(written.await), Fault::Unreachable);
    write(&db, "INSERT INTO t VALUES (4)").await.unwrap();
    assert_eq!(count(&db).await, "2");
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_waits_for_a_lock_ends_in_time() {
    let Some(store) = schema("locked").await else {
        return;
    };
    let (db, other) = (hasty(&store.url).await, Db::open(&store.url).await.unwrap());
    let (hold, held) = tokio::sync::oneshot::channel();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let holding = tokio::spawn(async move {
        let written = other.write(async |transaction| -> Result<(), DbError> {
            transaction.execute_unprepared("LOCK TABLE t").await?;
            hold.send(()).unwrap();
            released.await.unwrap();
            Ok(())
        });
        written.await
    });
    held.await.unwrap();
    let begin = Instant::now();
    assert_eq!(
        fault(write(&db, "INSERT INTO t VALUES (1)").await),
        Fault::Busy
    );
    assert!(begin.elapsed() < CALL_TIMEOUT, "{:?}", begin.elapsed());
    release.send(()).unwrap();
    holding.await.unwrap().unwrap();
    assert_eq!(count(&db).await, "0");
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_which_a_statement_failed_is_not_acknowledged() {
    let Some(store) = schema("failed").await else {
        return;
    };
    let db = hasty(&store.url).await;
    let written = db.write(async |transaction| -> Result<(), DbError> {
        transaction
            .execute_unprepared("INSERT INTO t VALUES (1)")
            .await?;
        let again = transaction
            .execute_unprepared("INSERT INTO t VALUES (1)")
            .await;
        again.unwrap_err();
        Ok(())
    });
    written.await.unwrap_err();
    assert_eq!(count(&db).await, "0");
    write(&db, "INSERT INTO t VALUES (2)").await.unwrap();
    assert_eq!(count(&db).await, "1");
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_itself_holds_sessions_to_limits() {
    let Some(store) = schema("limits").await else {
        return;
    };
    let db = hasty(&store.url).await;
    for (name, expected) in [
        ("statement_timeout", "1500ms"),
        ("lock_timeout", "1200ms"),
        ("idle_in_transaction_session_timeout", "3s"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("tcp_user_timeout", "60000"),
    ] {
        let shown = value(&db, &format!("SHOW {name}")).await.unwrap();
        assert_eq!(shown, expected, "{name}");
    }
    let query = Statement::from_string(DbBackend::Postgres, "SHOW statement_timeout");
    let loaded = db.load(async |connection| -> Result<String, DbError> {
        Ok(connection
            .query_one_raw(query)
            .await?
            .unwrap()
            .try_get_by_index(0)?)
    });
    assert_eq!(loaded.await.unwrap(), "20s");
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_that_says_that_the_database_is_away_is_503() {
    let Some(store) = schema("codes").await else {
        return;
    };
    let db = hasty(&store.url).await;
    for (code, expected) in [
        ("57P01", Fault::Unreachable),
        ("57P02", Fault::Unreachable),
        ("57P03", Fault::Unreachable),
        ("08006", Fault::Unreachable),
        ("53300", Fault::Busy),
        ("53200", Fault::Busy),
        ("57014", Fault::Busy),
        ("55P03", Fault::Busy),
        ("40001", Fault::Busy),
        ("40P01", Fault::Busy),
        ("53100", Fault::DiskFull),
        ("58030", Fault::DiskFailing),
        ("25006", Fault::ReadOnly),
        ("XX001", Fault::Damaged),
    ] {
        let raise = format!("DO $$ BEGIN RAISE 'secret' USING ERRCODE = '{code}'; END $$");
        let error = write(&db, &raise).await.unwrap_err();
        assert_eq!(error.fault(), Some(expected), "{code}");
        let answer = ApiError::from(error);
        assert_eq!(answer.status(), 503, "{code}");
        assert!(answer.headers().contains_key("retry-after"), "{code}");
        assert!(!answer.message().contains("secret"), "{code}");
    }
    let error = write(&db, "INSERT INTO nowhere VALUES (1)")
        .await
        .unwrap_err();
    assert_eq!(ApiError::from(error).status(), 500);
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proof_of_writing_takes_space() {
    let Some(store) = schema("proof").await else {
        return;
    };
    let db = store.db().await;
    let stored = "SELECT pg_column_size(filler)::text FROM kernel_write_proof";
    for second in 0..2 {
        let now = Timestamp::from_unix_seconds(1_700_000_000 + second);
        db.prove_writes(now).await.unwrap();
        let bytes: usize = value(&db, stored).await.unwrap().parse().unwrap();
        assert!(bytes >= 32 << 10, "{bytes}");
    }
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_to_commit_that_leaves_the_outcome_open_is_told_as_such() {
    let Some(store) = schema("commit_codes").await else {
        return;
    };
    let db = hasty(&store.url).await;
    for (code, is_open) in [
        ("08000", true),
        ("08006", true),
        ("08007", true),
        ("40003", true),
        ("57P01", true),
        ("57P02", true),
        ("40001", false),
        ("23505", false),
        ("53100", false),
    ] {
        // Raised by the commit, not by a statement.
        let raise = format!(
            "CREATE OR REPLACE FUNCTION raise() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$; \
             CREATE CONSTRAINT TRIGGER raise AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION raise(); \
             INSERT INTO t VALUES (1)"
        );
        let error = write(&db, &raise).await.unwrap_err();
        assert_eq!(matches!(error, DbError::Abandoned), is_open, "{code}");
    }
    assert_eq!(count(&db).await, "0");
    store.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_there_is_named_with_the_cause() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/x");
    let begin = Instant::now();
    let error = Db::open(&url).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(1));
    let text = error.to_string();
    for part in [&format!("127.0.0.1:{port}"), "refused", "storage.url"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!format!("{text} {error:?}").contains("hunter2"));
    let answer = ApiError::from(error);
    assert_eq!(answer.status(), 503);
    assert!(!answer.message().contains("127.0.0.1"));
    assert!(
        answer
            .cause()
            .unwrap()
            .contains(&format!("127.0.0.1:{port}"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u@{}/x", silent.local_addr().unwrap());
    let begin = Instant::now();
    let error = Db::open_with(&url, Limits::within(CALL_TIMEOUT))
        .await
        .unwrap_err();
    assert!(begin.elapsed() < CALL_TIMEOUT * 2);
    let text = error.to_string();
    assert!(
        text.contains(&silent.local_addr().unwrap().to_string()),
        "{text}"
    );
    assert_eq!(error.fault(), Some(Fault::Slow));
}
