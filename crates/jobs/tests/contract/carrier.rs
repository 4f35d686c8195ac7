//! What every carrier promises: that workers hear of every job that has work, sooner or later.

use std::sync::Arc;
use std::time::Duration;

use auspex_jobs::carrier::Carrier;
use auspex_jobs::{Jobs, Reach};
use auspex_kernel::id::JobId;

use crate::{ME, Store, config, operator, submit, work};

contract! {
    an_offered_job_is_given_to_who_waits
    a_job_that_nobody_offered_is_found
    a_job_without_work_is_not_given_for_ever
    no_job_keeps_the_others_waiting
    no_owner_keeps_the_others_waiting
}

pub(crate) const LONG: Duration = Duration::from_secs(20);

async fn opened(store: &Store, pause: Duration) -> (Jobs, Arc<dyn Carrier>) {
    let jobs = store.open(config()).await;
    (jobs, store.carrier(pause).await)
}

pub(crate) async fn next(carrier: &dyn Carrier) -> JobId {
    let next = tokio::time::timeout(LONG, carrier.next()).await;
    next.expect("in time").unwrap()
}

pub(crate) async fn an_offered_job_is_given_to_who_waits(store: &Store) {
    let (jobs, carrier) = opened(store, LONG).await;
    let waiting = tokio::spawn({
        let carrier = carrier.clone();
        async move { next(&*carrier).await }
    });
    let id = submit(&jobs, ME, &["1"]).await;
    carrier.offer(&id).await.unwrap();
    assert_eq!(waiting.await.unwrap(), id);
}

pub(crate) async fn a_job_that_nobody_offered_is_found(store: &Store) {
    let (jobs, carrier) = opened(store, Duration::from_millis(5)).await;
    let waiting = tokio::spawn({
        let carrier = carrier.clone();
        async move { next(&*carrier).await }
    });
    let id = submit(&jobs, ME, &["1"]).await;
    assert_eq!(waiting.await.unwrap(), id);
}

pub(crate) async fn a_job_without_work_is_not_given_for_ever(store: &Store) {
    let (jobs, carrier) = opened(store, Duration::from_millis(5)).await;
    let cancelled = submit(&jobs, ME, &["1"]).await;
    let done = submit(&jobs, ME, &["1"]).await;
    let open = submit(&jobs, ME, &["1"]).await;
    for id in [&cancelled, &done, &open] {
        carrier.offer(id).await.unwrap();
    }
    jobs.remove(&operator(), &Reach::All, &cancelled)
        .await
        .unwrap();
    work(&jobs, &done).await;
    let mut given = Vec::new();
    while given.last() != Some(&open) {
        given.push(next(&*carrier).await);
        assert!(given.len() < 10, "{given:?}");
    }
    work(&jobs, &open).await;
    let none = tokio::time::timeout(Duration::from_millis(100), async {
        loop {
            let id = next(&*carrier).await;
            assert!(jobs.claim(&id).await.unwrap().is_none());
        }
    });
    none.await.expect_err("there is no work any more");
}

pub(crate) async fn no_job_keeps_the_others_waiting(store: &Store) {
    let (jobs, carrier) = opened(store, Duration::from_millis(5)).await;
    let large = submit(&jobs, ME, &["1"; 20]).await;
    carrier.offer(&large).await.unwrap();
    let small = submit(&jobs, ME, &["1"]).await;
    carrier.offer(&small).await.unwrap();
    for claims in 1.. {
        let id = next(&*carrier).await;
        let claim = jobs.claim(&id).await.unwrap().unwrap();
        jobs.process(claim).await.unwrap();
        if id == small {
            break;
        }
        assert!(claims < 5, "a small job waits for a large one");
    }
}

pub(crate) async fn no_owner_keeps_the_others_waiting(store: &Store) {
    let (jobs, carrier) = opened(store, Duration::from_millis(5)).await;
    for _ in 0..10 {
        let id = submit(&jobs, ME, &["1"]).await;
        carrier.offer(&id).await.unwrap();
    }
    let others = submit(&jobs, "user:other", &["1"]).await;
    carrier.offer(&others).await.unwrap();
    for claims in 1.. {
        let id = next(&*carrier).await;
        let claim = jobs.claim(&id).await.unwrap().unwrap();
        jobs.process(claim).await.unwrap();
        if id == others {
            break;
        }
        assert!(claims < 2, "one job of an owner waits for all of another");
    }
}
