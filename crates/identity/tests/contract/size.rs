//! However much history there is, no statement of a change, of a page by cursor, of following or of
//! upkeep reads all of it.
//!
//! SQLite is asked for times: a statement that reads a table of this size takes many times as long as
//! one that does not. PostgreSQL counts the rows that it reads without an index.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use auspex_identity::Identity;
use auspex_kernel::audit::{self, Filter, Outcome};
use auspex_kernel::clock::monotonic;
use auspex_kernel::db::{Db, DbError};
use auspex_kernel::page::Slice;
use auspex_kernel::{Caller, Credential, CursorKey, Scope, Timestamp};
use axum::Router;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::ask::{Answer, as_operator, ask_router};
use crate::person::{PASSWORD, add, basic, bearer, caller_by, part};
use crate::store::{ISSUER, Store, config, execute, texts};
use crate::{OPERATOR, scopes};

contract! {
    nothing_reads_all_of_history
}

const FEW: usize = 1_000;
const ROWS: usize = 100_000;
/// A call to the database has its deadline.
const SEEDED_AT_ONCE: usize = 10_000;
/// These hash passwords, and other tests do so meanwhile.
const HASHING: [&str; 2] = ["log in", "log in by name and password"];
/// Of each operation the fastest run counts.
const RUNS: usize = 5;
/// Above what a machine that is busy with other things adds to the fastest run, and far below what a
/// table of so many rows takes.
const LONGER_MAX: Duration = Duration::from_millis(15);

async fn nothing_reads_all_of_history(store: &Store) {
    let db = store.db().await;
    let identity = store.identity().await;
    add(&identity, "boss", "admin").await;
    seed(store, &db, 1..=FEW).await;
    let few = measure(store, &db, "few").await;
    for first in (FEW + 1..=ROWS).step_by(SEEDED_AT_ONCE) {
        let last = ROWS.min(first + SEEDED_AT_ONCE - 1);
        seed(store, &db, first..=last).await;
    }
    if store.folder.is_none() {
        for table in read_without_index(store).await.into_keys() {
            execute(&db, format!("ANALYZE {table}")).await;
        }
    }
    // What a start loads is no history, and is not counted.
    let loading = store.db().await;
    let before = read_without_index(store).await;
    open(store, &loading).await;
    loading.close().await;
    let loaded = read_without_index(store).await;
    let working = store.db().await;
    let many = measure(store, &working, "many").await;
    working.close().await;
    for (table, rows) in read_without_index(store).await {
        let by_loading = loaded[&table] - before[&table];
        let rows = rows - loaded[&table] - by_loading;
        assert!(
            rows < ROWS as i64 / 2,
            "{rows} rows of {table} were read without an index"
        );
    }
    // PostgreSQL plans by what it knows of its rows, and may take long for a first plan.
    if store.folder.is_none() {
        return;
    }
    for (operation, time) in &many {
        let before = few[operation];
        if HASHING.contains(operation) {
            continue;
        }
        assert!(
            *time < 2 * before + LONGER_MAX,
            "{operation} took {before:?}, and takes {time:?} with {ROWS} rows of history"
        );
    }
}

/// The fastest run of each operation.
async fn measure(store: &Store, db: &Db, prefix: &str) -> BTreeMap<&'static str, Duration> {
    let identity = open(store, db).await;
    let mut measured = Measured {
        router: identity.router(CursorKey([7; 32])),
        identity,
        operator: as_operator(Scope::ALL.iter().copied().collect()),
        times: BTreeMap::new(),
    };
    for run in 0..RUNS {
        let name = format!("{prefix}{run}");
        measured.change_users(&name).await;
        measured.change_keys(&name).await;
        measured.change_clients(&name).await;
        measured.log_in_and_out(store, &name).await;
        measured.read_lists().await;
        read_audit(db, &mut measured).await;
        let begin = monotonic();
        let maintenance = measured.identity.maintenance();
        maintenance.tend(Timestamp(0)).await.unwrap();
        measured.note("upkeep", begin);
    }
    measured.times
}

async fn open(store: &Store, db: &Db) -> Arc<Identity> {
    let identity = Identity::open(
        db.clone(),
        store.clock.clone(),
        store.random.clone(),
        config(),
        ISSUER,
    );
    identity.await.unwrap()
}

struct Measured {
    identity: Arc<Identity>,
    /// Made once: that takes longer than what is measured.
    router: Router,
    operator: Caller,
    times: BTreeMap<&'static str, Duration>,
}

impl Measured {
    fn note(&mut self, operation: &'static str, begin: Instant) {
        let time = begin.elapsed();
        let least = self.times.entry(operation).or_insert(time);
        *least = time.min(*least);
    }

    async fn ask(&mut self, operation: &'static str, request: (&str, &str), body: Value) -> Answer {
        let caller = self.operator.clone();
        self.ask_as(&caller, operation, request, body).await
    }

    async fn ask_as(
        &mut self,
        caller: &Caller,
        operation: &'static str,
        (method, path): (&str, &str),
        body: Value,
    ) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        // A key for each body, so that the same is a repetition.
        let key = format!(
            "key{:x}",
            body.bytes()
                .fold(7_u64, |sum, byte| sum * 31 % 99_991 + u64::from(byte))
        );
        let keyed = [("idempotency-key", &*key)];
        let router = self.router.clone();
        let begin = monotonic();
        let answer = ask_router(router, caller, method, path, &body, &keyed).await;
        self.note(operation, begin);
        let Answer { status, error, .. } = &answer;
        assert!(
            (200..300).contains(status),
            "{operation}: {status} {error:?}"
        );
        answer
    }

    async fn change_users(&mut self, name: &str) {
        let email = format!("{name}@example.org");
        let body = json!({"name": name, "email": email, "roles": ["admin"]});
        let users = ("POST", "/v1/users");
        let id = self
            .ask("create a user", users, body.clone())
            .await
            .text("id");
        self.ask("repeat a request", users, body).await;
        let path = format!("/v1/users/{id}");
        for (operation, change) in [
            ("rename a user", json!({"name": "Other"})),
            (
                "take the role of an administrator",
                json!({"roles": ["viewer"]}),
            ),
            ("disable a user", json!({"disabled": true})),
        ] {
            self.ask(operation, ("PATCH", &path), change).await;
        }
        self.ask("delete a user", ("DELETE", &path), Value::Null)
            .await;
    }

    async fn change_keys(&mut self, name: &str) {
        let body = json!({"name": name, "scopes": ["predict"]});
        let made = self.ask("create a key", ("POST", "/v1/api-keys"), body);
        let path = format!("/v1/api-keys/{}", made.await.text("id"));
        let rotations = format!("{path}/rotations");
        self.ask("rotate a key", ("POST", &rotations), Value::Null)
            .await;
        self.ask("revoke a key", ("DELETE", &path), Value::Null)
            .await;
        // Of this name there are many that have ended.
        let identity = Arc::clone(&self.identity);
        let shop = identity
            .keys()
            .create(&OPERATOR, "shop", scopes("predict"), None);
        shop.await.unwrap();
        let begin = monotonic();
        let rotated = identity.keys().rotate(&OPERATOR, "shop", Duration::ZERO);
        let new = rotated.await.unwrap().key;
        self.note("rotate a key by its name", begin);
        let revoked = identity.keys().revoke(&OPERATOR, new.id.as_str());
        revoked.await.unwrap();
        let old = new.id.as_str();
        identity.keys().revoke(&OPERATOR, old).await.unwrap();
        let begin = monotonic();
        let again = identity.keys().revoke(&OPERATOR, "shop");
        let _ = again.await.unwrap();
        self.note("revoke a key by its name", begin);
    }

    async fn change_clients(&mut self, name: &str) {
        let body = json!({"name": name, "redirect_uris": ["https://app.example.org/cb"],
            "scopes": ["openid"], "grant_types": ["authorization_code"], "public": false});
        let made = self.ask("register a client", ("POST", "/v1/oauth-clients"), body);
        let path = format!("/v1/oauth-clients/{}", made.await.text("client_id"));
        self.ask("remove a client", ("DELETE", &path), Value::Null)
            .await;
    }

    async fn log_in_and_out(&mut self, store: &Store, name: &str) {
        let identity = Arc::clone(&self.identity);
        let id = add(&identity, name, "operator").await;
        let body = json!({"username": name, "password": PASSWORD});
        let session = self.ask("log in", ("POST", "/v1/auth/login"), body).await;
        let body = json!({"refresh_token": session.text("refresh_token")});
        let session = self
            .ask("refresh", ("POST", "/v1/auth/refresh"), body)
            .await;
        let access = session.text("access_token");
        let caller = bearer(&identity, store, &access).unwrap();
        let logout = ("POST", "/v1/auth/logout");
        self.ask_as(&caller, "log out", logout, Value::Null).await;
        let jti = part(&access, 1)["jti"].as_str().unwrap().to_owned();
        let begin = monotonic();
        let revoked = identity.sessions().revoke_jti(&OPERATOR, &jti);
        revoked.await.unwrap();
        self.note("revoke a token", begin);
        let begin = monotonic();
        let ended = identity.sessions().revoke_all_of_user(&OPERATOR, &id);
        ended.await.unwrap();
        self.note("end all sessions", begin);
        let text = basic(name, PASSWORD);
        let begin = monotonic();
        let known = caller_by(&identity, store, Credential::Basic(&text));
        known.await.unwrap();
        self.note("log in by name and password", begin);
    }

    async fn read_lists(&mut self) {
        for path in [
            "/v1/users",
            "/v1/users?role=operator",
            "/v1/users?role=admin",
            "/v1/users?disabled=true",
            "/v1/users?disabled=false",
            "/v1/users?email=nobody@example.org",
            "/v1/users/0000SEED10000001/logins",
            "/v1/api-keys",
            "/v1/api-keys?owner_id=0000SEED10000001",
            "/v1/api-keys?owner_id=0000SEED10000009",
            "/v1/oauth-clients",
        ] {
            let page = self.ask(path, ("GET", path), Value::Null).await;
            if let Some(next) = page.json["pagination"]["links"]["next"].as_str() {
                self.ask(path, ("GET", next), Value::Null).await;
            }
        }
    }
}

async fn read_audit(db: &Db, measured: &mut Measured) {
    let is = |text: &str| Some(text.to_owned());
    // The oldest lines of all, far from where a list begins.
    let oldest = "SELECT CAST(MIN(at) AS TEXT) FROM identity_audit";
    let oldest = Timestamp(texts(db, oldest).await[0].parse().unwrap());
    let between = Filter {
        from: Some(oldest),
        to: Some(oldest + Duration::from_millis(1)),
        ..Filter::default()
    };
    for (operation, filter) in [
        ("audit", Filter::default()),
        (
            "audit of an actor",
            Filter {
                actor: is("user:X"),
                ..Filter::default()
            },
        ),
        (
            "audit of an action",
            Filter {
                action: is("key.rotate"),
                ..Filter::default()
            },
        ),
        (
            "audit of a target",
            Filter {
                target: is("user:X"),
                ..Filter::default()
            },
        ),
        (
            "audit of refusals",
            Filter {
                outcome: Some(Outcome::Denied),
                ..Filter::default()
            },
        ),
        ("audit between two times", between.clone()),
        (
            "audit of an actor between two times",
            Filter {
                actor: is("user:X"),
                ..between
            },
        ),
    ] {
        let slice = Slice::Seek {
            after: None,
            count: 101,
        };
        let begin = monotonic();
        let page = db.read(async |connection| audit::page(connection, filter, slice).await);
        page.await.unwrap();
        measured.note(operation, begin);
    }
}

/// What has long been, older than all that is made by others here.
async fn seed(store: &Store, db: &Db, numbers: RangeInclusive<usize>) {
    let (first, last) = numbers.into_inner();
    let many = format!(
        "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
    );
    let bytes = match store.folder {
        Some(_) => "CAST('digest ' || i AS BLOB)",
        None => "CAST('digest ' || i AS BYTEA)",
    };
    let user = "'0000SEED' || (10000000 + i)";
    // Not yet to be removed.
    let at = store.clock.now().0 - 2 * 86_400_000_000;
    let later = store.clock.now().0 + 86_400_000_000;
    for insert in [
        format!(
            "identity_users (id, name, email, email_key, username, username_key, roles, created_at, \
             updated_at, login_count, version) {many} SELECT {user}, 'n', 'e' || i, 'e' || i, 'u' || i, \
             'u' || i, 'viewer', i, i, 0, 1 FROM n"
        ),
        format!(
            "identity_api_keys (id, name, digest, scopes, created_at, revoked_at, owner_id) {many} \
             SELECT '0000KEY' || i, CASE WHEN i % 2 = 0 THEN 'shop' ELSE 'k' || i END, {bytes}, 'predict', \
             i, {at}, '0000SEED10000001' FROM n"
        ),
        format!(
            "identity_clients (id, name, redirect_uris, grant_types, scopes, created_at, created_by) {many} \
             SELECT '0000CLIENT' || (100000 + i), 'c', '', '', '', i, 'operator' FROM n"
        ),
        format!(
            "identity_logins (id, user_id, at, method, address) {many} \
             SELECT '0000LOGIN' || (1000000 + i), '0000SEED10000001', {at}, 'basic', '' FROM n"
        ),
        format!(
            "identity_grants (id, user_id, client_id, scopes, created_at, authenticated_at, expires_at, \
             sequence, revoked_at) {many} SELECT '0000GRANT' || i, {user}, 'c' || i, '', {at}, {at}, {later}, 1, \
             {at} FROM n"
        ),
        format!(
            "identity_codes (digest, client_id, user_id, redirect_uri, scopes, challenge, \
             authenticated_at, expires_at) {many} SELECT {bytes}, 'c' || i, {user}, '', '', '', {at}, {at} FROM n"
        ),
        format!(
            "identity_devices (digest, user_code, client_id, scopes, expires_at, interval_s, denied, user_id, \
             authenticated_at) {many} SELECT {bytes}, 'u' || i, 'c' || i, '', {later}, 5, FALSE, {user}, {at} FROM n"
        ),
        format!(
            "identity_consents (user_id, client_id, scopes, at) {many} \
             SELECT {user}, 'c' || i, '', {at} FROM n"
        ),
        format!(
            "identity_sessions (digest, user_id, authenticated_at, expires_at) {many} \
             SELECT {bytes}, {user}, {at}, {at} FROM n"
        ),
        format!("identity_revoked_tokens (jti, expires_at) {many} SELECT 'jti ' || i, {at} FROM n"),
        format!(
            "identity_audit (id, at, actor, action, outcome, target) {many} \
             SELECT '0000AUDIT' || (1000000 + i), {at}, 'user:' || i, 'login', 'success', 'user:' || i FROM n"
        ),
        format!(
            "kernel_idempotency_keys (digest, fingerprint, expires_at, status) {many} \
             SELECT {bytes}, {bytes}, {later}, 201 FROM n"
        ),
        // They come before those there are, so that there is no gap after what is known.
        format!(
            "identity_changes (generation, kind, subject, at) {many} \
             SELECT -i, 'user', 'x', {later} FROM n"
        ),
    ] {
        execute(db, format!("INSERT INTO {insert}")).await;
    }
    let users = texts(db, "SELECT CAST(COUNT(*) AS TEXT) FROM identity_users").await;
    assert!(users[0].parse::<usize>().unwrap() > last);
}

/// Of each table of the test, how many rows PostgreSQL has read without an index.
async fn read_without_index(store: &Store) -> BTreeMap<String, i64> {
    if store.folder.is_some() {
        return BTreeMap::new();
    }
    let db = store.db().await;
    let rows = db.read(async |connection| -> Result<_, DbError> {
        let sql = "SELECT relname::text, seq_tup_read FROM pg_stat_user_tables \
                   WHERE schemaname = current_schema()";
        let statement = Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(statement).await?;
        let read =
            |row: &sea_orm::QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
        rows.iter().map(read).collect()
    });
    let rows = rows.await.unwrap();
    db.close().await;
    rows
}
