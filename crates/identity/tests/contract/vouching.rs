//! Services are told who calls: what the tokens say, how long they are used, and that they are good for nothing else.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::Identity;
use auspex_kernel::{Caller, Subject};
use serde_json::Value;

use crate::OPERATOR;
use crate::ask::as_key;
use crate::person::{PASSWORD, add, bearer, log_in, part};
use crate::scopes;
use crate::store::{ISSUER, Store};

contract! {
    a_token_says_who_calls_and_is_for_one_service
    a_token_is_used_for_a_while_and_ends_with_its_credential
    a_token_by_a_dropped_key_is_not_used_any_more
    no_service_gets_a_token_that_is_good_here
}

async fn told(identity: &Identity, caller: &Arc<Caller>, audience: &str) -> Option<String> {
    let voucher = identity.voucher();
    let made = voucher.vouch(Arc::clone(caller), audience.into()).await;
    let value = made.ok()?;
    assert!(value.is_sensitive(), "no log may show it");
    let token = value.to_str().unwrap().strip_prefix("Bearer ");
    Some(token.unwrap().to_owned())
}

fn remembered(identity: &Identity, store: &Store, caller: &Caller, audience: &str) -> bool {
    let voucher = identity.voucher();
    let known = voucher.remembered(caller, audience, store.clock.now());
    known.is_some()
}

async fn ann(identity: &Arc<Identity>, store: &Store) -> Arc<Caller> {
    let token = log_in(identity, "ann", PASSWORD).await.text("access_token");
    bearer(identity, store, &token).unwrap()
}

async fn a_token_says_who_calls_and_is_for_one_service(store: &Store) {
    let identity = store.identity().await;
    let id = add(&identity, "ann", "viewer").await;
    let ann = ann(&identity, store).await;
    let token = told(&identity, &ann, "orders").await.unwrap();
    let claims = part(&token, 1);
    for (name, expected) in [
        ("iss", ISSUER),
        ("aud", "orders"),
        ("sub", &id),
        ("caller", &format!("user:{id}")),
        ("scope", &ann.scopes.to_string()),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    assert_eq!(claims["client_id"], Value::Null);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        60
    );
    assert_eq!(part(&token, 0)["typ"], "identity+jwt");
    assert!(
        bearer(&identity, store, &token).is_none(),
        "it is none of ours"
    );
    // A caller with less, or for another service, gets another one.
    assert!(remembered(&identity, store, &ann, "orders"));
    assert!(!remembered(&identity, store, &ann, "customers"));
    let less = Caller {
        scopes: scopes("models:read"),
        ..Caller::clone(&ann)
    };
    assert!(!remembered(&identity, store, &less, "orders"));
    let key = Arc::new(as_key("7K3Q", scopes("predict")));
    let token = told(&identity, &key, "orders").await.unwrap();
    assert_eq!(part(&token, 1)["sub"], "key:7K3Q");
    assert_eq!(
        key.subject,
        Subject::Key(auspex_kernel::id::KeyId::from_stored("7K3Q"))
    );
}

async fn a_token_is_used_for_a_while_and_ends_with_its_credential(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let ann = ann(&identity, store).await;
    let first = told(&identity, &ann, "orders").await;
    store.clock.advance(Duration::from_secs(29));
    assert_eq!(told(&identity, &ann, "orders").await, first);
    store.clock.advance(Duration::from_secs(2));
    assert!(!remembered(&identity, store, &ann, "orders"));
    assert_ne!(told(&identity, &ann, "orders").await, first);
    // One whose credential ends sooner is not told by it for longer.
    let now = store.clock.now();
    let short = Arc::new(Caller {
        expires_at: Some(now + Duration::from_secs(10)),
        ..Caller::clone(&ann)
    });
    assert!(!remembered(&identity, store, &short, "orders"));
    let token = told(&identity, &short, "orders").await.unwrap();
    assert_eq!(part(&token, 1)["exp"], now.unix_seconds() + 10);
}

async fn a_token_by_a_dropped_key_is_not_used_any_more(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let ann = ann(&identity, store).await;
    let old = told(&identity, &ann, "orders").await.unwrap();
    let rotated = identity.signing_keys().rotate(&OPERATOR, true).await;
    rotated.unwrap();
    assert!(!remembered(&identity, store, &ann, "orders"));
    let new = told(&identity, &ann, "orders").await.unwrap();
    assert_ne!(part(&old, 0)["kid"], part(&new, 0)["kid"]);
}

async fn no_service_gets_a_token_that_is_good_here(store: &Store) {
    let identity = store.identity().await;
    add(&identity, "ann", "viewer").await;
    let ann = ann(&identity, store).await;
    assert_eq!(told(&identity, &ann, ISSUER).await, None);
}
