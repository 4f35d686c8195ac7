//! Ids and secrets come from the source that the service is given, and from no other.

use auspex_identity::{ClientDraft, GrantType, NewUser};
use auspex_kernel::Random;

use crate::store::Store;
use crate::{OPERATOR, scopes};

/// Everything random that a new service shows after the same operations.
async fn drawn(random: Random) -> Vec<String> {
    let store = Store {
        random,
        ..Store::sqlite()
    };
    let identity = store.identity().await;
    let new = NewUser {
        name: "Ann".into(),
        email: "ann@example.org".into(),
        ..NewUser::default()
    };
    let user = identity.users().create(&OPERATOR, new).await.unwrap();
    let key = identity
        .keys()
        .create(&OPERATOR, "key", scopes("predict"), None);
    let key = key.await.unwrap();
    let draft = ClientDraft {
        name: "App".into(),
        redirect_uris: Vec::new(),
        post_logout_redirect_uris: Vec::new(),
        grant_types: vec![GrantType::ClientCredentials],
        scopes: "predict".parse().unwrap(),
        public: false,
    };
    let new = identity.clients().create(&OPERATOR, draft).await.unwrap();
    let mut all = vec![
        user.id.to_string(),
        key.key.id.to_string(),
        key.secret.expose().to_owned(),
        new.client.id.to_string(),
        new.secret.unwrap().expose().to_owned(),
    ];
    all.extend(store.recorded("id", "1 = 1").await);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_makes_the_same_ids_and_secrets_again() {
    let first = drawn(Random::seeded(7)).await;
    assert_eq!(drawn(Random::seeded(7)).await, first);
    let other = drawn(Random::seeded(8)).await;
    assert!(first.iter().zip(&other).all(|(one, other)| one != other));
}
