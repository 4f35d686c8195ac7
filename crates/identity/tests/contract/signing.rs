//! The keys that sign tokens: made once, published before they sign, kept as long as they are needed.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::Identity;
use auspex_kernel::ScopeSet;
use serde_json::json;

use crate::ask::{as_key, ask};
use crate::person::{PASSWORD, add, bearer, log_in, part};
use crate::store::{Store, settings, texts};
use crate::{OPERATOR, soon, while_watching};

const LEAD: Duration = Duration::from_hours(1);
const PERIOD: Duration = Duration::from_hours(90 * 24);

contract! {
    processes_that_start_at_once_make_one_key
    a_new_key_waits_until_it_is_known_and_the_old_one_until_it_is_forgotten
    the_next_key_is_made_in_time
    dropped_keys_are_refused_at_once
    the_metadata_tells_what_signs_now_and_next
}

async fn keys(store: &Store) -> Vec<String> {
    let sql = "SELECT kid FROM identity_signing_keys ORDER BY signs_from";
    texts(&store.db().await, sql).await
}

async fn token(identity: &Arc<Identity>) -> String {
    log_in(identity, "ann", PASSWORD).await.text("access_token")
}

fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

async fn processes_that_start_at_once_make_one_key(store: &Store) {
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = store.shared();
        starts.spawn(async move { store.identity().await });
    }
    let processes = starts.join_all().await;
    assert_eq!(keys(store).await.len(), 1);
    let elsewhere = store.identity().await;
    add(&elsewhere, "ann", "viewer").await;
    for signing in &processes {
        // Nothing but the start has told it of the key.
        let token = token(signing).await;
        for process in &processes {
            process.reload().await.unwrap();
            assert!(bearer(process, store, &token).is_some());
        }
    }
}

async fn a_new_key_waits_until_it_is_known_and_the_old_one_until_it_is_forgotten(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = keys(store).await.remove(0);
    let second = identity
        .signing_keys()
        .rotate(&OPERATOR, false)
        .await
        .unwrap();
    assert_eq!(keys(store).await, [first.clone(), second.clone()]);
    let nobody = as_key("NOBODY", ScopeSet::default());
    let published = ask(&identity, &nobody, "GET", "/.well-known/jwks.json", "").await;
    assert_eq!(
        published.json["keys"][1]["kid"], second,
        "{}",
        published.json
    );

    store.clock.advance(LEAD - Duration::from_secs(1));
    let old = token(&identity).await;
    assert_eq!(kid(&old), first, "others may not have seen the second yet");
    store.clock.advance(Duration::from_secs(1));
    let new = token(&identity).await;
    assert_eq!(kid(&new), second);
    identity.signing_keys().tend().await.unwrap();
    for token in [&old, &new] {
        assert!(bearer(&identity, store, token).is_some());
    }
    // No token can be older than a day.
    store.clock.advance(Duration::from_hours(24));
    identity.signing_keys().tend().await.unwrap();
    assert_eq!(keys(store).await.len(), 2);
    store.clock.advance(Duration::from_hours(1));
    identity.signing_keys().tend().await.unwrap();
    assert_eq!(keys(store).await, [second]);
}

async fn the_metadata_tells_what_signs_now_and_next(store: &Store) {
    let before = store.identity().await;
    add(&before, "ann", "viewer").await;
    let mut settings = settings();
    settings["tokens"]["algorithm"] = "RS256".into();
    let changed = serde_json::from_value(settings).unwrap();
    let identity = store.identity_with(changed).await;
    identity.signing_keys().tend().await.unwrap();
    let nobody = as_key("NOBODY", ScopeSet::default());
    let advertised = async || {
        let path = "/.well-known/openid-configuration";
        let metadata = ask(&identity, &nobody, "GET", path, "").await.json;
        metadata["id_token_signing_alg_values_supported"].clone()
    };
    let signs = async || part(&token(&identity).await, 0)["alg"].clone();
    assert_eq!(signs().await, "EdDSA");
    assert_eq!(advertised().await, json!(["EdDSA", "RS256"]));
    store.clock.advance(LEAD);
    assert_eq!(signs().await, "RS256");
    // The old key still verifies, and signs no more.
    assert_eq!(advertised().await, json!(["RS256"]));
    assert_eq!(keys(store).await.len(), 2);
}

async fn the_next_key_is_made_in_time(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let first = keys(store).await;
    store.clock.advance(PERIOD - LEAD - Duration::from_secs(1));
    identity.signing_keys().tend().await.unwrap();
    assert_eq!(keys(store).await, first);
    store.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        identity.signing_keys().tend().await.unwrap();
        assert_eq!(keys(store).await.len(), 2);
        assert_eq!(kid(&token(&identity).await), first[0]);
    }
    store.clock.advance(LEAD);
    identity.signing_keys().tend().await.unwrap();
    assert_eq!(kid(&token(&identity).await), keys(store).await[1]);
}

async fn dropped_keys_are_refused_at_once(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    add(&here, "ann", "viewer").await;
    there.reload().await.unwrap();
    let old = token(&here).await;
    for process in [&here, &there] {
        assert!(bearer(process, store, &old).is_some(), "and is remembered");
    }
    while_watching(
        &there,
        Box::pin(async {
            let kept = here.signing_keys().rotate(&OPERATOR, true).await.unwrap();
            assert!(bearer(&here, store, &old).is_none());
            assert_eq!(keys(store).await, [kept]);
            soon("the loss of the key", || {
                bearer(&there, store, &old).is_none()
            })
            .await;
        }),
    )
    .await;
    for process in [&here, &there] {
        let new = token(process).await;
        assert!(bearer(&here, store, &new).is_some() && bearer(&there, store, &new).is_some());
    }
    let audit = "SELECT actor || ' ' || detail FROM identity_audit \
                 WHERE action = 'signing_key.rotate' AND detail IS NOT NULL";
    assert_eq!(
        texts(&store.db().await, audit).await,
        ["operator others removed"]
    );
}
