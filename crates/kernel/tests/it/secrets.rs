//! Secrets are made once for all processes.

use auspex_kernel::secrets::load_or_create;

use crate::on_every_database;
use crate::store::Store;

on_every_database! { processes_that_start_at_once_share_a_secret secrets_stay_and_differ }

async fn processes_that_start_at_once_share_a_secret(store: &Store) {
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(store.db().await);
    }
    let load = |db| tokio::spawn(async move { load_or_create(&db, "one").await.unwrap() });
    let loading: Vec<_> = processes.into_iter().map(load).collect();
    let mut secrets = Vec::new();
    for secret in loading {
        secrets.push(secret.await.unwrap());
    }
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
}

async fn secrets_stay_and_differ(store: &Store) {
    let one = load_or_create(&store.db().await, "one").await.unwrap();
    let other = load_or_create(&store.db().await, "other").await.unwrap();
    assert_ne!(one, other);
    assert_ne!(one, [0; 32]);
    assert_eq!(load_or_create(&store.db().await, "one").await.unwrap(), one);
}
