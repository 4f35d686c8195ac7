//! Logging in, refreshing and logging out.

use std::time::Duration;

use auspex_kernel::ScopeSet;

use crate::person::{PASSWORD, add, bearer, bearer_scopes, log_in, log_out, post, refresh, set};
use crate::store::{Store, config, execute, settings, texts};

contract! {
    a_login_gives_tokens_and_is_recorded_when_answered
    every_refusal_looks_the_same
}

async fn a_login_gives_tokens_and_is_recorded_when_answered(store: &Store) {
    let identity = store.identity().await;
    let id = add(store, &identity, "ann", "data-scientist viewer").await;
    let answer = log_in(&identity, "ANN", PASSWORD).await;
    assert_eq!(answer.status, 200, "{:?}", answer.error);
    assert_eq!(answer.json["token_type"], "Bearer");
    assert_eq!(answer.json["expires_in"], 900);
    let caller = bearer(&identity, store, &answer.text("access_token")).unwrap();
    assert_eq!(caller.subject, format!("user:{id}"));
    let scopes: ScopeSet = answer.text("scope").parse().unwrap();
    assert_eq!(caller.scopes, scopes);
    assert!(scopes.to_string().contains("predict") && scopes.to_string().contains("metrics:read"));

    let db = store.db().await;
    let now = store.clock.now().0;
    let of_user = |columns: &str| format!("SELECT {columns} FROM identity_users WHERE id = '{id}'");
    let text = |column| of_user(&format!("CAST({column} AS TEXT)"));
    assert_eq!(texts(&db, &text("last_login_at")).await, [now.to_string()]);
    assert_eq!(texts(&db, &text("login_count")).await, ["1"]);
    let logins = "SELECT user_id || ' ' || method || ' ' || address FROM identity_logins";
    assert_eq!(
        texts(&db, logins).await,
        [format!("{id} password 192.0.2.0/24")]
    );
    let audit = "SELECT actor || ' ' || action || ' ' || outcome FROM identity_audit \
                 WHERE action = 'login'";
    assert_eq!(
        texts(&db, audit).await,
        [format!("user:{id} login success")]
    );
}

async fn every_refusal_looks_the_same(store: &Store) {
    let identity = store.identity().await;
    add(store, &identity, "ann", "viewer").await;
    let off = add(store, &identity, "off", "viewer").await;
    set(store, &identity, &off, "disabled_at", "1").await;
    let without = add(store, &identity, "without", "viewer").await;
    set(store, &identity, &without, "password_hash", "NULL").await;
    let mut told = Vec::new();
    for (name, password) in [
        ("ann", "wrong"),
        ("nobody", PASSWORD),
        ("off", PASSWORD),
        ("without", PASSWORD),
        ("without", ""),
        ("a\0b", PASSWORD),
        ("", ""),
    ] {
        let answer = log_in(&identity, name, password).await;
        assert_eq!(answer.status, 401, "{name}");
        told.push(format!("{:?}", answer.error.unwrap()));
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    let denied = "SELECT actor || ' ' || outcome FROM identity_audit WHERE action = 'login'";
    let denied = texts(&store.db().await, denied).await;
    assert_eq!(denied, ["anonymous denied"; 7]);
}
