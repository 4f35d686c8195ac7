//! Secrets are made once for all processes.

use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Random, secrets};

use crate::on_every_database;
use crate::store::Store;

on_every_database! { processes_that_start_at_once_share_a_secret secrets_stay_and_differ }

async fn load(db: Db, name: &'static str) -> [u8; 32] {
    let (clock, random) = (Clock::system(), Random::system());
    let loaded = secrets::load_or_create(&db, &clock, &random, name);
    loaded.await.unwrap()
}

async fn processes_that_start_at_once_share_a_secret(store: &Store) {
    let mut processes = Vec::new();
    for _ in 0..4 {
        processes.push(store.db().await);
    }
    let loading = processes.into_iter();
    let loading: Vec<_> = loading.map(|db| tokio::spawn(load(db, "one"))).collect();
    let mut secrets = Vec::new();
    for secret in loading {
        secrets.push(secret.await.unwrap());
    }
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
}

async fn secrets_stay_and_differ(store: &Store) {
    let one = load(store.db().await, "one").await;
    let other = load(store.db().await, "other").await;
    assert_ne!(one, other);
    assert_ne!(one, [0; 32]);
    assert_eq!(load(store.db().await, "one").await, one);
}
