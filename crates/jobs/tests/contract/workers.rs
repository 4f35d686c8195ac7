//! Chunks, whoever dies over them.

use auspex_jobs::{ChunkResult, Claim, Config, Form, Status};

use crate::{ME, Store, config, get, impatient, result, submit, work};

contract! {
    every_row_is_answered_once_and_in_its_place
    a_chunk_belongs_to_one_worker_at_a_time
    a_worker_that_was_taken_for_dead_changes_nothing_any_more
    a_crash_counts_as_an_attempt
    a_chunk_that_fails_is_tried_again_and_then_ends_its_job
    what_is_not_the_fault_of_a_chunk_is_no_attempt
    a_model_that_is_not_here_is_waited_for_and_not_for_ever
    a_job_whose_package_was_replaced_fails_at_once
    workers_of_several_processes_share_a_job
    progress_never_goes_back
}

fn done(claim: &Claim, line: &str) -> ChunkResult {
    let lines = format!("{line}\n").repeat(claim.rows as usize);
    ChunkResult {
        csv_bytes: 0,
        lines: lines.into_bytes(),
        wrong: 0,
    }
}

async fn every_row_is_answered_once_and_in_its_place(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "\"wrong\"", "4", "5"]).await;
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.rows, job.done), (Status::Queued, 5, 0));
    assert_eq!(work(&jobs, &id).await, 3);
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done, job.wrong), (Status::Succeeded, 5, 1));
    assert!(job.started_at.is_some() && job.ended_at.is_some());
    let expected = "{\"prediction\":1}\n{\"prediction\":2}\n\
                    {\"error\":[{\"field\":\"a\",\"message\":\"is wrong\"}]}\n\
                    {\"prediction\":4}\n{\"prediction\":5}\n";
    assert_eq!(result(&jobs, &id, Form::Ndjson).await, expected);
}

async fn a_chunk_belongs_to_one_worker_at_a_time(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "3"]).await;
    let one = jobs.claim(&id).await.unwrap().unwrap();
    let two = jobs.claim(&id).await.unwrap().unwrap();
    assert_ne!(one.seq, two.seq);
    assert!(jobs.claim(&id).await.unwrap().is_none());
    assert_eq!(get(&jobs, &id).await.status, Status::Running);
}

async fn a_worker_that_was_taken_for_dead_changes_nothing_any_more(store: &Store) {
    let jobs = store.open(impatient()).await;
    let id = submit(&jobs, ME, &["1", "2"]).await;
    let slow = jobs.claim(&id).await.unwrap().unwrap();
    let fast = jobs.claim(&id).await.unwrap().unwrap();
    assert_eq!((slow.seq, slow.fence + 1), (fast.seq, fast.fence));
    assert!(!jobs.complete(&slow, done(&slow, "slow")).await.unwrap());
    assert_eq!(get(&jobs, &id).await.done, 0);
    assert!(jobs.complete(&fast, done(&fast, "fast")).await.unwrap());
    assert!(!jobs.complete(&fast, done(&fast, "again")).await.unwrap());
    assert!(!jobs.complete(&slow, done(&slow, "slow")).await.unwrap());
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done), (Status::Succeeded, 2));
    assert_eq!(result(&jobs, &id, Form::Ndjson).await, "fast\nfast\n");
}

async fn a_crash_counts_as_an_attempt(store: &Store) {
    let jobs = store.open(impatient()).await;
    let id = submit(&jobs, ME, &["1"]).await;
    for attempt in 1..=Config::default().attempts_max {
        // Whoever claims it is never heard of again.
        let claim = jobs.claim(&id).await.unwrap().unwrap();
        assert_eq!(claim.attempts, attempt);
    }
    assert!(jobs.claim(&id).await.unwrap().is_none());
    let job = get(&jobs, &id).await;
    assert_eq!(job.status, Status::Failed);
    let message = job.error.unwrap().message;
    assert!(
        message.contains("rows 1 to 1 failed 5 times") && message.contains("worker died"),
        "{message}"
    );
}

async fn a_chunk_that_fails_is_tried_again_and_then_ends_its_job(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "\"panic\""]).await;
    assert_eq!(work(&jobs, &id).await, 1 + 5);
    let job = get(&jobs, &id).await;
    assert_eq!((job.status, job.done), (Status::Failed, 2));
    let error = job.error.unwrap();
    assert_eq!(error.code, "CHUNK_FAILED");
    assert!(
        error.message.contains("rows 3 to 3") && error.message.contains("panicked"),
        "{error:?}"
    );
    assert!(
        jobs.claim(&id).await.unwrap().is_none(),
        "the job is left alone"
    );
}

async fn a_model_that_is_not_here_is_waited_for_and_not_for_ever(store: &Store) {
    let jobs = store.open(config()).await;
    let db = store.db().await;
    let id = submit(&jobs, ME, &["\"away\""]).await;
    for _ in 0..7 {
        let claim = jobs.claim(&id).await.unwrap().unwrap();
        assert_eq!(claim.attempts, 1, "another server may have it");
        jobs.process(claim).await.unwrap();
        crate::store::execute(&db, "UPDATE jobs_chunks SET chunk_due = 0").await;
    }
    crate::store::execute(&db, "UPDATE jobs_jobs SET created_at = 0").await;
    assert_eq!(work(&jobs, &id).await, 5);
    let job = get(&jobs, &id).await;
    let message = job.error.unwrap().message;
    let reason = "version 1 of looks is not served";
    assert!(
        job.status == Status::Failed && message.contains(reason),
        "{message}"
    );
}

async fn a_job_whose_package_was_replaced_fails_at_once(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "\"replaced\""]).await;
    let claim = jobs.claim(&id).await.unwrap().unwrap();
    assert_eq!(claim.pinned.content.as_deref(), Some("old"), "it is kept");
    jobs.process(claim).await.unwrap();
    assert_eq!(work(&jobs, &id).await, 1, "it is not tried again");
    let job = get(&jobs, &id).await;
    let error = job.error.unwrap();
    assert_eq!((job.status, job.done), (Status::Failed, 2));
    assert_eq!(error.code, "MODEL_REPLACED");
    let reason = "version 1 of looks was replaced by another package since";
    assert!(error.message.contains(reason), "{error:?}");
}

async fn what_is_not_the_fault_of_a_chunk_is_no_attempt(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["\"busy\""]).await;
    let claim = jobs.claim(&id).await.unwrap().unwrap();
    assert_eq!(claim.attempts, 1);
    jobs.process(claim).await.unwrap();
    assert!(
        jobs.claim(&id).await.unwrap().is_none(),
        "it waits a little"
    );
    let db = store.db().await;
    crate::store::execute(&db, "UPDATE jobs_chunks SET chunk_due = 0").await;
    let claim = jobs.claim(&id).await.unwrap().unwrap();
    assert_eq!((claim.attempts, claim.fence), (1, 2));
}

async fn workers_of_several_processes_share_a_job(store: &Store) {
    let one = store.open(config()).await;
    let two = store.open(config()).await;
    let rows: Vec<String> = (0..40).map(|row| row.to_string()).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let id = submit(&one, ME, &rows).await;
    let (first, second) = tokio::join!(work(&one, &id), work(&two, &id));
    assert_eq!(first + second, 20);
    let job = get(&two, &id).await;
    assert_eq!((job.status, job.done), (Status::Succeeded, 40));
    let expected: String = (0..40)
        .map(|row| format!("{{\"prediction\":{row}}}\n"))
        .collect();
    assert_eq!(result(&two, &id, Form::Ndjson).await, expected);
}

async fn progress_never_goes_back(store: &Store) {
    let jobs = store.open(impatient()).await;
    let id = submit(&jobs, ME, &["1", "2", "3", "4", "5", "6"]).await;
    let mut seen = 0;
    while let Some(claim) = jobs.claim(&id).await.unwrap() {
        // Each chunk is claimed by one that dies first.
        let again = jobs.claim(&id).await.unwrap().unwrap();
        for claim in [claim, again] {
            jobs.complete(&claim, done(&claim, "x")).await.unwrap();
            let now = get(&jobs, &id).await.done;
            assert!(now >= seen && now <= 6);
            seen = now;
        }
    }
    assert_eq!(seen, 6);
}
