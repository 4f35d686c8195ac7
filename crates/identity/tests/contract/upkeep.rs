//! What is done now and then: nothing grows without bound, and nobody misses a change by it.

use std::time::Duration;

use auspex_identity::Expected;
use auspex_kernel::id::SessionId;
use auspex_kernel::{Caller, ScopeSet, Timestamp};
use serde_json::json;

use crate::ask::{as_key, as_operator, ask, ask_with};
use crate::person::{PASSWORD, add, bearer, disable, log_in, part};
use crate::store::{Store, execute, texts};
use crate::{OPERATOR, START, scopes};

contract! {
    what_has_ended_is_removed_however_much_it_is
    what_was_revoked_or_has_expired_is_removed_after_its_days
    answers_of_idempotent_requests_go_with_their_day_and_their_user
    uses_of_keys_are_stored
    whoever_missed_all_changes_loads_everything
}

async fn count(store: &Store, table: &str) -> usize {
    let sql = format!("SELECT CAST(COUNT(*) AS TEXT) FROM {table}");
    texts(&store.db().await, &sql).await[0].parse().unwrap()
}

async fn what_has_ended_is_removed_however_much_it_is(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500)";
    for insert in [
        format!(
            "INSERT INTO identity_logins (id, user_id, at, method, address) {many} \
             SELECT 'old ' || i, '{id}', i, 'basic', '' FROM n"
        ),
        format!(
            "INSERT INTO identity_audit (id, at, actor, action, outcome) {many} \
             SELECT 'old ' || i, i, 'operator', 'login', 'success' FROM n"
        ),
    ] {
        execute(&store.db().await, insert).await;
    }
    log_in(&identity, "ann", PASSWORD)
        .await
        .text("access_token");
    let audit = count(store, "identity_audit").await;
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(count(store, "identity_logins").await, 1);
    assert_eq!(count(store, "identity_audit").await, audit - 3_500);
    store.clock.advance(Duration::from_hours(89 * 24));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(count(store, "identity_logins").await, 1);
    assert_eq!(count(store, "identity_grants").await, 0);
    store.clock.advance(Duration::from_hours(2 * 24));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(count(store, "identity_logins").await, 0);
    store.clock.advance(Duration::from_hours(310 * 24));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    for table in ["identity_grants", "identity_changes", "identity_audit"] {
        // What this very round did with signing keys is younger.
        assert!(count(store, table).await <= 3, "{table}");
    }
}

async fn what_was_revoked_or_has_expired_is_removed_after_its_days(store: &Store) {
    let identity = store.identity().await;
    let create = async |name: &str, days: Option<u64>| {
        let expires_at = days.map(|days| START + Duration::from_hours(24 * days));
        let key = identity
            .keys()
            .create(&OPERATOR, name, scopes("predict"), expires_at);
        key.await.unwrap().key.id
    };
    // The first key stays even when it has ended, or a start of the server would make another.
    let first = create("first", Some(1)).await;
    store.clock.advance(Duration::from_secs(1));
    create("expires", Some(1)).await;
    let revoked = create("revoked", None).await;
    create("in force", None).await;
    identity
        .keys()
        .revoke(&OPERATOR, first.as_str())
        .await
        .unwrap();
    identity
        .keys()
        .revoke(&OPERATOR, revoked.as_str())
        .await
        .unwrap();
    let id = add(&identity, "ann", "viewer").await;
    let access = log_in(&identity, "ann", PASSWORD)
        .await
        .text("access_token");
    let jti = part(&access, 1)["jti"].as_str().unwrap().to_owned();
    identity
        .sessions()
        .revoke_jti(&OPERATOR, &jti)
        .await
        .unwrap();
    identity
        .sessions()
        .revoke_all_of_user(&OPERATOR, &id)
        .await
        .unwrap();
    let left = async || {
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        let (keys, grants) = ("identity_api_keys", "identity_grants");
        let tokens = "identity_revoked_tokens";
        [
            count(store, keys).await,
            count(store, grants).await,
            count(store, tokens).await,
        ]
    };
    let days = |days: u64| START + Duration::from_hours(24 * days) + Duration::from_secs(2);
    store.clock.step(days(29));
    assert_eq!(left().await, [4, 1, 1]);
    store.clock.step(days(30));
    assert_eq!(left().await, [3, 0, 1], "what was revoked");
    store.clock.step(days(32));
    assert_eq!(left().await, [2, 0, 0], "what has expired since");
    let listed = identity.keys().list().await.unwrap();
    let names: Vec<&str> = listed.iter().map(|key| &*key.name).collect();
    assert_eq!(names, ["in force", "first"]);
}

async fn answers_of_idempotent_requests_go_with_their_day_and_their_user(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(ScopeSet::all());
    let create = async |list: &str, name: &str| {
        let body = json!({"name": name, "email": format!("{name}@example.org")}).to_string();
        let headers = [("idempotency-key", name)];
        ask_with(&identity, &by, "POST", list, &body, &headers).await
    };
    let kept = async || {
        let sql = "SELECT CAST(COUNT(body) AS TEXT) FROM kernel_idempotency_keys";
        texts(&store.db().await, sql).await[0].clone()
    };
    for (list, name) in [("/v1/users", "ann"), ("/users", "bob"), ("/users", "eve")] {
        assert_eq!(create(list, name).await.status, 201);
    }
    let again = create("/v1/users", "ann").await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(kept().await, "3");
    for (list, name, left) in [("/v1/users", "ann", "2"), ("/users", "bob", "1")] {
        let id = create(list, name).await.text("id");
        let removed = identity.users().delete(&OPERATOR, &id, Expected::Any);
        removed.await.unwrap();
        assert_eq!(kept().await, left, "{name}");
        assert_eq!(create(list, name).await.status, 409, "not made again");
    }
    let keys = "kernel_idempotency_keys";
    store.clock.advance(Duration::from_hours(23));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(count(store, keys).await, 3);
    store.clock.advance(Duration::from_hours(2));
    identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(count(store, keys).await, 0);
}

async fn uses_of_keys_are_stored(store: &Store) {
    let identity = store.identity().await;
    let key = identity
        .keys()
        .create(&OPERATOR, "k", scopes("predict"), None);
    let key = key.await.unwrap();
    store.clock.advance(Duration::from_secs(7));
    let used_at = store.clock.now();
    assert!(bearer(&identity, store, key.secret.expose()).is_some());
    store.clock.advance(Duration::from_secs(7));
    let until = identity.maintenance().tend(Timestamp(0)).await.unwrap();
    assert_eq!(until, store.clock.now());
    let elsewhere = store.identity().await;
    let listed = elsewhere.keys().list().await.unwrap();
    assert_eq!(listed[0].last_used_at, Some(used_at));
}

async fn whoever_missed_all_changes_loads_everything(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    let id = add(&here, "ann", "viewer").await;
    there.reload().await.unwrap();
    store.clock.advance(Duration::from_mins(50));
    let token = log_in(&here, "ann", PASSWORD).await.text("access_token");
    assert!(bearer(&there, store, &token).is_some());
    disable(&here, &id).await;
    execute(&store.db().await, "DELETE FROM identity_changes".into()).await;
    // Whatever makes it catch up.
    let stranger = Caller {
        session_id: Some(SessionId::from_stored("of nobody")),
        client_id: None,
        ..as_key("K", ScopeSet::default())
    };
    ask(&there, &stranger, "POST", "/v1/auth/logout", "").await;
    assert!(bearer(&there, store, &token).is_none());
}
