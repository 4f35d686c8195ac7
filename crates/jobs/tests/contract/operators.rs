//! Jobs that are called off, and dead ones that are run again.

use auspex_jobs::{Form, JobsError, Reach, Status};
use auspex_kernel::idempotency::Receipt;

use crate::{ME, Store, config, get, impatient, operator, result, submit, unknown_id, work};

contract! {
    a_cancelled_job_stays_so_and_its_workers_come_to_nothing
    a_dead_job_runs_again_and_keeps_what_was_done
    jobs_are_counted_by_their_state
}

async fn a_cancelled_job_stays_so_and_its_workers_come_to_nothing(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "3"]).await;
    let claim = jobs.claim(&id).await.unwrap().unwrap();
    let own = Reach::Own(ME.into());
    jobs.remove(&operator(), &own, &id).await.unwrap();
    jobs.process(claim).await.unwrap();
    assert!(jobs.claim(&id).await.unwrap().is_none());
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done), (Status::Cancelled, 0));
    assert_eq!(store.count("jobs_results").await, 0);
    assert_eq!(
        store.count("identity_audit").await,
        1,
        "it is recorded once"
    );
}

async fn a_dead_job_runs_again_and_keeps_what_was_done(store: &Store) {
    let jobs = store.open(impatient()).await;
    let id = submit(&jobs, ME, &["1", "2", "3", "4"]).await;
    let first = jobs.claim(&id).await.unwrap().unwrap();
    jobs.process(first).await.unwrap();
    let mut last = None;
    while let Some(claim) = jobs.claim(&id).await.unwrap() {
        last = Some(claim);
    }
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done), (Status::Failed, 2));

    let _kept = jobs.retry(&operator(), &id, Receipt::none()).await.unwrap();
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done, job.error), (Status::Queued, 2, None));
    let again = jobs.retry(&operator(), &id, Receipt::none()).await;
    assert!(
        matches!(again, Err(JobsError::NotFailed("queued"))),
        "{again:?}"
    );
    // Who had it before is not heard any more.
    jobs.process(last.unwrap()).await.unwrap();
    assert_eq!(get(&jobs, &id).await.done, 2);
    assert_eq!(work(&jobs, &id).await, 1);
    assert_eq!(get(&jobs, &id).await.status, Status::Succeeded);
    let expected: String = (1..=4)
        .map(|row| format!("{{\"prediction\":{row}}}\n"))
        .collect();
    assert_eq!(result(&jobs, &id, Form::Ndjson).await, expected);
    let unknown = jobs
        .retry(&operator(), &unknown_id(store), Receipt::none())
        .await;
    assert!(matches!(unknown, Err(JobsError::Unknown)));
}

async fn jobs_are_counted_by_their_state(store: &Store) {
    let jobs = store.open(config()).await;
    let first = store.clock.now();
    submit(&jobs, ME, &["1"]).await;
    store.clock.advance(std::time::Duration::from_secs(60));
    submit(&jobs, "user:other", &["1"]).await;
    let done = submit(&jobs, ME, &["1"]).await;
    work(&jobs, &done).await;
    let mut counts = jobs.state_counts().await.unwrap();
    counts.sort_by_key(|count| count.status.as_str());
    let counts: Vec<_> = counts
        .iter()
        .map(|count| (count.status, count.count, count.oldest_at))
        .collect();
    let expected = [
        (Status::Queued, 2, Some(first)),
        (Status::Succeeded, 1, Some(store.clock.now())),
    ];
    assert_eq!(counts, expected);
}
