//! Results, from any byte on.

use auspex_jobs::{Form, JobsError, Reach};

use crate::{ME, Store, config, read, result, submit, work};

contract! {
    there_is_a_result_when_the_job_has_succeeded
    every_range_is_what_the_whole_has_there
    a_result_is_read_as_csv_too
}

async fn there_is_a_result_when_the_job_has_succeeded(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "2", "\"panic\""]).await;
    let outcome = jobs.outcome(&Reach::All, &id, None).await;
    assert!(
        matches!(outcome, Err(JobsError::NoResult("queued"))),
        "{outcome:?}"
    );
    work(&jobs, &id).await;
    let outcome = jobs.outcome(&Reach::All, &id, None).await;
    assert!(
        matches!(outcome, Err(JobsError::NoResult("failed"))),
        "{outcome:?}"
    );
}

async fn every_range_is_what_the_whole_has_there(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "22", "333", "\"wrong\"", "5"]).await;
    work(&jobs, &id).await;
    for form in [Form::Ndjson, Form::Csv] {
        let whole = result(&jobs, &id, form).await;
        let outcome = async || {
            let opened = jobs.outcome(&Reach::All, &id, Some(form)).await;
            opened.unwrap().1
        };
        assert_eq!(outcome().await.bytes(), whole.len() as u64);
        for begin in (0..whole.len()).step_by(7) {
            for end in [begin + 1, (begin + 40).min(whole.len()), whole.len()] {
                let part = read(outcome().await, begin as u64..end as u64).await;
                assert_eq!(part, whole[begin..end], "{begin}..{end} of {form:?}");
            }
        }
    }
}

async fn a_result_is_read_as_csv_too(store: &Store) {
    let jobs = store.open(config()).await;
    let id = submit(&jobs, ME, &["1", "\"a\"", "\"wrong\""]).await;
    work(&jobs, &id).await;
    let expected = "row,prediction,probability,probabilities,outputs,error\r\n\
                    1,1,,,,\r\n2,a,,,,\r\n3,,,,,a is wrong\r\n";
    assert_eq!(result(&jobs, &id, Form::Csv).await, expected);
}
