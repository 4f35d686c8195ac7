//! Jobs as they come in.

use auspex_jobs::{Chunk, Config, Form, Job, Jobs, JobsError, Reach, Status};
use auspex_kernel::idempotency::Receipt;
use auspex_kernel::page::Slice;
use auspex_kernel::service::StopSignal;
use std::time::Duration;

use crate::{
    ME, Store, config, failures, get, ids, new_job, result, submit, submit_new, unknown_id, work,
};

contract! {
    a_job_exists_when_its_input_is_complete
    what_comes_is_predicted_where_workers_are_idle
    what_fails_on_its_way_in_is_left_to_the_workers
    input_that_is_not_wanted_is_deleted
    input_whose_server_has_died_is_deleted
    a_job_is_its_owners_alone
    a_caller_has_so_many_open_jobs
    jobs_that_were_kept_long_enough_go_with_all_they_hold
}

fn chunk(text: &str) -> Chunk {
    Chunk {
        rows: 1,
        text: text.into(),
    }
}

const ALL: Slice = Slice::Seek {
    after: None,
    count: 100,
};

async fn a_job_exists_when_its_input_is_complete(store: &Store) {
    let jobs = store.open(config()).await;
    let mut intake = jobs.begin(new_job(ME, None)).await.unwrap();
    for row in ["1\n", "2\n", "3\n"] {
        intake.take([chunk(row)]).await.unwrap();
    }
    assert_eq!(store.count("jobs_inputs").await, 2, "one is held in memory");
    let listed = jobs
        .list(&Reach::All, (None, None, None), ALL)
        .await
        .unwrap();
    assert!(listed.0.is_empty());
    assert!(jobs.state_counts().await.unwrap().is_empty());
    let _kept = intake.finish(Receipt::none()).await.unwrap();
    let (listed, _) = jobs
        .list(&Reach::All, (None, None, None), ALL)
        .await
        .unwrap();
    assert_eq!((listed.len(), listed[0].rows), (1, 3));
    assert_eq!(work(&jobs, &listed[0].id).await, 3);
}

/// Takes rows, one in each chunk, while workers work, and waits until the job has ended.
async fn worked_on(store: &Store, rows: &[&str]) -> (Jobs, Job) {
    let jobs = store.open(config()).await;
    let (_stop, signal) = StopSignal::new();
    let taken = async {
        let mut intake = jobs.begin(new_job(ME, None)).await.unwrap();
        for row in rows {
            intake.take([chunk(&format!("{row}\n"))]).await.unwrap();
        }
        let _kept = intake.finish(Receipt::none()).await.unwrap();
        let id = ids(&jobs).await.remove(0);
        let begun = get(&jobs, &id).await;
        assert!(begun.status != Status::Queued && begun.started_at.is_some());
        loop {
            let job = get(&jobs, &id).await;
            if job.status.has_ended() {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let job = tokio::select! {
        biased;
        () = jobs.work(&signal) => panic!("they were not told to stop"),
        job = taken => job,
    };
    (jobs, job)
}

async fn what_comes_is_predicted_where_workers_are_idle(store: &Store) {
    let (jobs, job) = worked_on(store, &["1", "\"wrong\"", "3", "4"]).await;
    assert_eq!((job.status, job.done, job.wrong), (Status::Succeeded, 4, 1));
    assert_eq!(store.count("jobs_inputs").await, 1, "the last one alone");
    let expected = "{\"prediction\":1}\n\
                    {\"error\":[{\"field\":\"a\",\"message\":\"is wrong\"}]}\n\
                    {\"prediction\":3}\n{\"prediction\":4}\n";
    assert_eq!(result(&jobs, &job.id, Form::Ndjson).await, expected);
    let expected = "row,prediction,probability,probabilities,outputs,error\r\n\
                    1,1,,,,\r\n2,,,,,a is wrong\r\n3,3,,,,\r\n4,4,,,,\r\n";
    assert_eq!(result(&jobs, &job.id, Form::Csv).await, expected);
}

async fn what_fails_on_its_way_in_is_left_to_the_workers(store: &Store) {
    let (jobs, job) = worked_on(store, &["1", "\"panic\"", "3", "4"]).await;
    assert_eq!(job.status, Status::Failed);
    assert!(
        job.error
            .unwrap()
            .message
            .contains("rows 2 to 2 failed 5 times")
    );
    assert_eq!(failures(&jobs), 5, "the first time was no attempt");
}

async fn input_that_is_not_wanted_is_deleted(store: &Store) {
    let jobs = store.open(config()).await;
    let begun = async || {
        let mut intake = jobs.begin(new_job(ME, None)).await.unwrap();
        for row in ["1\n", "2\n", "3\n"] {
            intake.take([chunk(row)]).await.unwrap();
        }
        intake
    };
    begun().await.drop_input().await;
    assert_eq!(store.count("jobs_inputs").await, 0);
    assert_eq!(store.count("jobs_jobs").await, 0);
    // One whose process has died.
    drop(begun().await);
    assert_eq!(
        jobs.apply_retention().await.unwrap(),
        0,
        "it may still come"
    );
    store.clock.advance(Duration::from_hours(2));
    assert_eq!(jobs.apply_retention().await.unwrap(), 1);
    assert_eq!(store.count("jobs_chunks").await, 0);
    // One that was only slow.
    let mut slow = begun().await;
    store.clock.advance(Duration::from_hours(2));
    jobs.apply_retention().await.unwrap();
    let late = slow.take([chunk("4\n")]).await;
    assert!(matches!(late, Err(JobsError::Forgotten)), "{late:?}");
}

async fn input_whose_server_has_died_is_deleted(store: &Store) {
    let jobs = store.open(config()).await;
    let mut intakes = Vec::new();
    for _ in 0..2 {
        let mut intake = jobs.begin(new_job(ME, None)).await.unwrap();
        for row in ["1\n", "2\n"] {
            intake.take([chunk(row)]).await.unwrap();
        }
        intakes.push(intake);
    }
    let (mut slow, dead) = (intakes.remove(0), intakes.remove(0));
    for _ in 0..3 {
        store.clock.advance(Duration::from_mins(2));
        slow.note_waiting().await.unwrap();
        jobs.apply_retention().await.unwrap();
    }
    assert_eq!(store.count("jobs_jobs").await, 1);
    let gone = dead.note_waiting().await;
    assert!(matches!(gone, Err(JobsError::Forgotten)), "{gone:?}");
    let _kept = slow.finish(Receipt::none()).await.unwrap();
    assert_eq!(ids(&jobs).await.len(), 1);
}

async fn a_job_is_its_owners_alone(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1"]).await;
    let other = Reach::Own("user:0000000000000002".into());
    let actor = crate::operator();
    for reach in [&other, &Reach::Own(String::new())] {
        let got = jobs.get(reach, &id).await;
        assert!(matches!(got, Err(JobsError::Unknown)), "{got:?}");
        let cancelled = jobs.remove(&actor, reach, &id).await;
        assert!(matches!(cancelled, Err(JobsError::Unknown)));
        let read = jobs.outcome(reach, &id, None).await;
        assert!(matches!(read, Err(JobsError::Unknown)));
        for owner in [None, Some(ME.to_owned())] {
            let listed = jobs.list(reach, (owner, None, None), ALL).await.unwrap();
            assert!(listed.0.is_empty());
        }
    }
    for reach in [Reach::Own(ME.into()), Reach::All] {
        assert_eq!(jobs.get(&reach, &id).await.unwrap().id, id);
        let listed = jobs.list(
            &reach,
            (None, Some(Status::Queued), Some("looks".into())),
            ALL,
        );
        assert_eq!(listed.await.unwrap().0.len(), 1);
    }
    let unknown = jobs.get(&Reach::All, &unknown_id(store)).await;
    assert!(matches!(unknown, Err(JobsError::Unknown)));
}

async fn a_caller_has_so_many_open_jobs(store: &Store) {
    let jobs = store
        .open(Config {
            open_jobs_max: 2,
            ..config()
        })
        .await;
    let first = submit(&jobs, ME, &["1"]).await;
    submit(&jobs, ME, &["1"]).await;
    let third = submit_new(&jobs, new_job(ME, None), &["1"]).await;
    assert!(matches!(third, Err(JobsError::TooMany(2))), "{third:?}");
    submit(&jobs, "user:other", &["1"]).await;
    work(&jobs, &first).await;
    submit(&jobs, ME, &["1"]).await;
}

async fn jobs_that_were_kept_long_enough_go_with_all_they_hold(store: &Store) {
    let jobs = store.open(config()).await;
    let rows: Vec<&str> = vec!["1"; 150];
    let ended = submit(&jobs, ME, &rows).await;
    work(&jobs, &ended).await;
    let cancelled = submit(&jobs, ME, &["1"]).await;
    jobs.remove(&crate::operator(), &Reach::All, &cancelled)
        .await
        .unwrap();
    let open = submit(&jobs, ME, &["1"]).await;
    store.clock.advance(Duration::from_hours(24 * 30));
    assert_eq!(jobs.apply_retention().await.unwrap(), 0);
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(jobs.apply_retention().await.unwrap(), 2);
    assert_eq!(get(&jobs, &open).await.status, Status::Queued);
    for table in ["jobs_jobs", "jobs_chunks", "jobs_inputs"] {
        assert_eq!(store.count(table).await, 1, "{table}");
    }
    assert_eq!(store.count("jobs_results").await, 0);
}
