//! What jobs promise, on every database: SQLite always, PostgreSQL where `AUSPEX_TEST_POSTGRES_URL` names one.
//!
//! A lease of no length is one that is over: no test waits for time to pass.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod store;

use std::time::Duration;

use auspex_jobs::{Config, Form, Job, Jobs, JobsError, Lines, NewJob, Outcome, Reach};
use auspex_kernel::audit::Actor;
use auspex_kernel::id::JobId;
use auspex_kernel::idempotency::Receipt;
use auspex_kernel::page::Slice;
use auspex_kernel::predict::Pinned;
use auspex_kernel::{Random, Timestamp};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use store::Store;

const START: Timestamp = Timestamp(1_769_335_200_000_000);
const TEST_MAX: Duration = Duration::from_mins(5);
const ME: &str = "user:0000000000000001";

fn config() -> Config {
    Config {
        chunk_rows_max: 2,
        retry_delay_s: 0,
        ..Config::default()
    }
}

/// Leases are over when they begin.
fn impatient() -> Config {
    Config {
        lease_s: 0,
        ..config()
    }
}

fn new_job(owner: &str, callback_url: Option<String>) -> NewJob {
    NewJob {
        owner: owner.to_owned(),
        pinned: Pinned {
            model: "looks".into(),
            version: "1".into(),
            content: Some("old".into()),
        },
        header: None,
        callback_url,
    }
}

/// Submits rows in chunks of two.
async fn submit(jobs: &Jobs, owner: &str, rows: &[&str]) -> JobId {
    submit_new(jobs, new_job(owner, None), rows).await.unwrap()
}

async fn submit_new(jobs: &Jobs, new: NewJob, rows: &[&str]) -> Result<JobId, JobsError> {
    let before = ids(jobs).await;
    let mut intake = jobs.begin(new).await?;
    let (mut lines, mut chunks) = (Lines::new(Form::Ndjson, 2, 1 << 20), Vec::new());
    lines.push(rows.join("\n").as_bytes(), &mut chunks).unwrap();
    lines.finish(&mut chunks).unwrap();
    intake.take(chunks).await?;
    let _kept = intake.finish(Receipt::none()).await?;
    let mut after = ids(jobs).await.into_iter();
    Ok(after.find(|id| !before.contains(id)).unwrap())
}

/// Those of all jobs. The clock stands still, so their order tells nothing.
async fn ids(jobs: &Jobs) -> Vec<JobId> {
    let all = Slice::Seek {
        after: None,
        count: 100,
    };
    let (jobs, _) = jobs
        .list(&Reach::All, (None, None, None), all)
        .await
        .unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

async fn get(jobs: &Jobs, id: &JobId) -> Job {
    jobs.get(&Reach::All, id).await.unwrap()
}

/// Processes whatever can be claimed of a job; how many chunks.
async fn work(jobs: &Jobs, id: &JobId) -> usize {
    let mut chunks = 0;
    while let Some(claim) = jobs.claim(id).await.unwrap() {
        jobs.process(claim).await.unwrap();
        chunks += 1;
        assert!(chunks < 100, "it comes to an end");
    }
    chunks
}

/// The whole result in a form.
async fn result(jobs: &Jobs, id: &JobId, form: Form) -> String {
    let (_, outcome) = jobs.outcome(&Reach::All, id, Some(form)).await.unwrap();
    let bytes = outcome.bytes();
    read(outcome, 0..bytes).await
}

async fn read(outcome: Outcome, range: std::ops::Range<u64>) -> String {
    let (mut reading, mut all) = (outcome.read(range), Vec::new());
    while let Some(piece) = reading.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    String::from_utf8(all).unwrap()
}

/// How many chunks failed, as metrics say.
fn failures(jobs: &Jobs) -> u64 {
    let (mut registry, mut text) = (Registry::default(), String::new());
    jobs.register_metrics(&mut registry);
    encode(&mut text, &registry).unwrap();
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("job_chunk_failures_total "));
    count.unwrap().parse().unwrap()
}

fn operator() -> Actor {
    Actor::operator()
}

fn unknown_id(store: &Store) -> JobId {
    JobId::new(&store.clock, &Random::system()).unwrap()
}

/// A test that hangs is to fail by its name.
async fn in_time(test: impl Future<Output = ()>) {
    let ended = tokio::time::timeout(TEST_MAX, test).await;
    ended.expect("the test ends in time");
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::in_time(async { super::$name(&crate::Store::sqlite()).await }).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else { return };
                crate::in_time(async {
                    let store = crate::Store::postgres(&url, stringify!($name)).await;
                    super::$name(&store).await;
                    store.remove().await;
                })
                .await;
            })*
        }
    };
}

mod callbacks;
mod carrier;
mod intake;
mod operators;
mod rabbitmq;
mod removal;
mod results;
mod workers;
