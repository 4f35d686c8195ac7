//! What nobody wants any more goes, and nobody fills the database.

use auspex_jobs::{Chunk, Config, JobsError, Reach, Status};
use auspex_kernel::audit::Actor;
use auspex_kernel::db::DbError;
use auspex_kernel::deleted_users;
use auspex_kernel::id::UserId;
use auspex_kernel::idempotency::Receipt;

use crate::{ME, Store, config, failures, get, new_job, operator, submit, submit_new, work};

contract! {
    a_job_that_has_ended_is_deleted_with_all_it_holds
    a_cancelled_job_keeps_nothing_but_its_row
    a_chunk_of_a_cancelled_job_is_no_failure
    the_jobs_of_a_deleted_user_go
    what_one_caller_stores_has_a_bound
}

const TABLES: [&str; 4] = ["jobs_jobs", "jobs_chunks", "jobs_inputs", "jobs_results"];

async fn counts(store: &Store) -> [i64; 4] {
    let mut counts = [0; 4];
    for (count, table) in counts.iter_mut().zip(TABLES) {
        *count = store.count(table).await;
    }
    counts
}

async fn a_job_that_has_ended_is_deleted_with_all_it_holds(store: &Store) {
    let jobs = store.open(config()).await;
    let own = Reach::Own(ME.into());
    let url = Some("https://example.org/".to_owned());
    let id = submit_new(&jobs, new_job(ME, url), &["1", "2", "3"]).await;
    let id = id.unwrap();
    work(&jobs, &id).await;
    jobs.remove(&operator(), &own, &id).await.unwrap();
    let got = jobs.get(&Reach::All, &id).await;
    assert!(matches!(got, Err(JobsError::Unknown)), "at once: {got:?}");
    assert!(jobs.state_counts().await.unwrap().is_empty());
    let again = jobs.remove(&Actor::operator(), &own, &id).await;
    assert!(matches!(again, Err(JobsError::Unknown)), "{again:?}");
    let told = jobs.send_callback(&jobs.outgoing().unwrap()).await.unwrap();
    assert!(!told, "nobody is told of its end");
    jobs.discard().await.unwrap();
    assert_eq!(counts(store).await, [0; 4]);
    jobs.discard().await.unwrap();
    assert_eq!(store.count("jobs_owners").await, 0);
    assert_eq!(store.count("identity_audit").await, 1);
}

async fn a_cancelled_job_keeps_nothing_but_its_row(store: &Store) {
    let jobs = store.open(config()).await;
    let rows = ["1"; 150];
    let id = submit(&jobs, ME, &rows).await;
    let claim = jobs.claim(&id).await.unwrap().unwrap();
    jobs.process(claim).await.unwrap();
    jobs.remove(&operator(), &Reach::All, &id).await.unwrap();
    jobs.discard().await.unwrap();
    assert_eq!(counts(store).await, [1, 0, 0, 0]);
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.rows), (Status::Cancelled, 150));
    jobs.remove(&operator(), &Reach::All, &id).await.unwrap();
    jobs.discard().await.unwrap();
    assert_eq!(counts(store).await, [0; 4]);
}

async fn a_chunk_of_a_cancelled_job_is_no_failure(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["\"panic\"", "1", "\"panic\""]).await;
    let first = jobs.claim(&id).await.unwrap().unwrap();
    jobs.process(first).await.unwrap();
    assert_eq!(failures(&jobs), 1);
    let again = jobs.claim(&id).await.unwrap().unwrap();
    jobs.remove(&operator(), &Reach::All, &id).await.unwrap();
    jobs.process(again).await.unwrap();
    assert_eq!(failures(&jobs), 1, "nobody waits for it");
}

async fn the_jobs_of_a_deleted_user_go(store: &Store) {
    let jobs = store.open(config()).await;
    let done = submit(&jobs, ME, &["1"]).await;
    work(&jobs, &done).await;
    let open = submit(&jobs, ME, &["1", "2", "3"]).await;
    let claim = jobs.claim(&open).await.unwrap().unwrap();
    let mut received = jobs.begin(new_job(ME, None)).await.unwrap();
    let chunk = || Chunk {
        rows: 1,
        text: b"1\n".into(),
    };
    received.take([chunk()]).await.unwrap();
    received.take([chunk()]).await.unwrap();
    let others = submit(&jobs, "user:0000000000000002", &["1"]).await;

    let user = UserId::from_stored(ME.trim_start_matches("user:"));
    let noted: Result<(), DbError> = store
        .db()
        .await
        .write(async |transaction| {
            deleted_users::record(transaction, &user, store.clock.now()).await
        })
        .await;
    noted.unwrap();
    jobs.discard().await.unwrap();
    jobs.process(claim).await.unwrap();
    assert_eq!(failures(&jobs), 0, "nobody wants its rows");
    assert!(jobs.claim(&open).await.unwrap().is_none());
    let late = received.finish(Receipt::none()).await;
    assert!(matches!(late, Err(JobsError::Forgotten)), "{late:?}");
    assert_eq!(counts(store).await, [1, 1, 1, 0]);
    assert_eq!(get(&jobs, &others).await.status, Status::Queued);
}

async fn what_one_caller_stores_has_a_bound(store: &Store) {
    let jobs = store
        .open(Config {
            stored_bytes_max: 100,
            input_bytes_max: 50,
            ..config()
        })
        .await;
    // Two bytes a row, and 17 a line of the result.
    let id = submit(&jobs, ME, &["1"; 6]).await;
    work(&jobs, &id).await;
    let refused = submit_new(&jobs, new_job(ME, None), &["1"]).await;
    assert!(
        matches!(refused, Err(JobsError::TooMuch(100))),
        "{refused:?}"
    );
    submit(&jobs, "user:other", &["1"]).await;
    // There is room before anything of it is deleted.
    jobs.remove(&operator(), &Reach::All, &id).await.unwrap();

    let id = submit(&jobs, ME, &["1"; 40]).await;
    let refused = submit_new(&jobs, new_job(ME, None), &["1"; 11]).await;
    assert!(matches!(refused, Err(JobsError::TooMuch(_))), "{refused:?}");
    // One that may be a repetition is received as far as one more job may be long, and refused when it is not.
    let mut intake = jobs.receive(new_job(ME, None)).unwrap();
    let chunk = || Chunk {
        rows: 10,
        text: b"1\n".repeat(10),
    };
    for _ in 0..3 {
        intake.take([chunk()]).await.unwrap();
    }
    let refused = intake.take([chunk()]).await;
    assert!(matches!(refused, Err(JobsError::TooMuch(_))), "{refused:?}");
    intake.drop_input().await;
    jobs.remove(&operator(), &Reach::All, &id).await.unwrap();
}
