//! RabbitMQ as the carrier: what every carrier promises, and what happens while RabbitMQ is away. A test starts one of its own.

mod server;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auspex_jobs::Jobs;
use auspex_jobs::carrier::{Carrier, RabbitMqConfig};
use auspex_kernel::clock::monotonic;
use auspex_kernel::id::JobId;
use auspex_kernel::service::Condition;

use crate::carrier::{self, LONG, next};
use crate::{ME, Store, config, submit, work};
use server::RabbitMqServer;

/// Of the looks at the database while RabbitMQ is away.
const PAUSE: Duration = Duration::from_millis(100);
/// Less than the time to a look at the database while RabbitMQ works: who is told sooner was woken.
const WOKEN: Duration = Duration::from_secs(3);

fn queue(server: &RabbitMqServer, name: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        url: server.url(),
        ca_file: PathBuf::new(),
        queue: name.to_owned(),
    }
}

/// The same over TLS.
fn secured_queue(server: &RabbitMqServer, name: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        url: server.secured_url(),
        ca_file: server.ca_file(),
        ..queue(server, name)
    }
}

macro_rules! each {
    ($server:expr, $($name:ident)*) => {$(
        let store = Store::sqlite().with(queue($server, stringify!($name)));
        carrier::$name(&store).await;
        if let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") {
            let store = Store::postgres(&url, concat!("rabbitmq_", stringify!($name))).await;
            let store = store.with(queue($server, concat!("pg_", stringify!($name))));
            carrier::$name(&store).await;
            store.remove().await;
        }
    )*};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_what_every_carrier_promises_and_its_absence_is_bearable() {
    let Some(mut server) = RabbitMqServer::start() else {
        return;
    };
    each! { &server,
        an_offered_job_is_given_to_who_waits
        a_job_that_nobody_offered_is_found
        a_job_without_work_is_not_given_for_ever
        no_job_keeps_the_others_waiting
        no_owner_keeps_the_others_waiting
    }
    let store = Store::sqlite().with(secured_queue(&server, "over_tls"));
    carrier::an_offered_job_is_given_to_who_waits(&store).await;
    let carrier = store.carrier(PAUSE).await;
    assert_eq!(carrier.condition().unwrap().1, Condition::Works);
    let stranger = RabbitMqConfig {
        ca_file: PathBuf::new(),
        ..secured_queue(&server, "untrusted")
    };
    let carrier = Store::sqlite().with(stranger).carrier(PAUSE).await;
    assert_ne!(carrier.condition().unwrap().1, Condition::Works);

    let store = Store::sqlite().with(queue(&server, "outages"));
    let processes = Processes {
        jobs: store.open(config()).await,
        here: store.carrier(PAUSE).await,
        there: store.carrier(PAUSE).await,
    };
    assert!(processes.wakes().await < WOKEN);
    processes.wakes_one_after_the_other().await;

    server.limit_queues(2);
    processes.is_not_bothered_by_a_full_queue().await;
    server.limit_queues(100_000);
    processes.takes_ids_again().await;

    delete_queue(&queue(&server, "outages")).await;
    processes.finds_jobs_without().await;
    processes.takes_ids_again().await;
    assert!(processes.wakes().await < WOKEN, "with a queue made anew");

    server.kill();
    processes.is(false).await;
    processes.finds_jobs_without().await;
    server.start_again();
    let back = monotonic();
    processes.is(true).await;
    assert!(back.elapsed() < Duration::from_secs(4), "{back:?}");
    assert!(processes.wakes().await < WOKEN, "after its return");

    server.freeze();
    processes.finds_jobs_without().await;
    processes.is(false).await;
    server.thaw();
    processes.is(true).await;
    assert!(processes.wakes().await < WOKEN, "after it stood still");
}

async fn delete_queue(config: &RabbitMqConfig) {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&config.url, properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let (name, options) = (config.queue.as_str().into(), Default::default());
    channel.queue_delete(name, options).await.unwrap();
}

/// Two of them on one database.
struct Processes {
    jobs: Jobs,
    here: Arc<dyn Carrier>,
    there: Arc<dyn Carrier>,
}

impl Processes {
    /// How long it takes until one hears of a job that the other was offered.
    async fn wakes(&self) -> Duration {
        let there = self.there.clone();
        let waiting = tokio::spawn(async move { next(&*there).await });
        // Until it waits, so that it does not just find the job.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let id = submit(&self.jobs, ME, &["1"]).await;
        let begun = monotonic();
        self.here.offer(&id).await.unwrap();
        assert_eq!(waiting.await.unwrap(), id);
        work(&self.jobs, &id).await;
        begun.elapsed()
    }

    /// One id wakes all who wait, as long as there is work.
    async fn wakes_one_after_the_other(&self) {
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let carrier = if number % 2 == 0 {
                    &self.here
                } else {
                    &self.there
                };
                let carrier = carrier.clone();
                tokio::spawn(async move { next(&*carrier).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let id = submit(&self.jobs, ME, &["1"; 20]).await;
        self.here.offer(&id).await.unwrap();
        let begun = monotonic();
        for one in waiting {
            assert_eq!(one.await.unwrap(), id);
        }
        assert!(begun.elapsed() < WOKEN);
        work(&self.jobs, &id).await;
    }

    /// Ids that find no place are not missed: nothing fails, no connection ends, and the jobs are found.
    async fn is_not_bothered_by_a_full_queue(&self) {
        let mut ids = BTreeSet::new();
        for _ in 0..30 {
            let id = submit(&self.jobs, ME, &["1"]).await;
            self.here.offer(&id).await.unwrap();
            let (_, condition) = self.here.condition().unwrap();
            assert_eq!(condition, Condition::Works);
            ids.insert(id.as_str().to_owned());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        while !ids.is_empty() {
            let id = next(&*self.there).await;
            assert!(ids.remove(id.as_str()), "{id:?}");
            work(&self.jobs, &id).await;
        }
    }

    /// Waits until ids are taken.
    async fn takes_ids_again(&self) {
        let id = submit(&self.jobs, ME, &["1"]).await;
        let (begun, mut taken) = (monotonic(), 0);
        loop {
            // While there is no connection an offer is left to the database.
            let is_up = self.here.condition().unwrap().1 == Condition::Works;
            taken = match self.here.offer(&id).await.is_ok() && is_up {
                true => taken + 1,
                false => 0,
            };
            // Once may be by the connection from before.
            if taken == 20 {
                break;
            }
            assert!(begun.elapsed() < LONG);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        work(&self.jobs, &id).await;
    }

    /// Jobs are taken, within a time that a client would wait, and found.
    async fn finds_jobs_without(&self) {
        let id: JobId = submit(&self.jobs, ME, &["1"]).await;
        let begun = monotonic();
        // It may be told that the id was not carried.
        let _ = self.here.offer(&id).await;
        assert!(begun.elapsed() < WOKEN);
        assert_eq!(next(&*self.there).await, id);
        work(&self.jobs, &id).await;
    }

    /// Waits until both say that RabbitMQ works, or that it does not.
    async fn is(&self, up: bool) {
        let begun = monotonic();
        for carrier in [&self.here, &self.there] {
            loop {
                let (_, condition) = carrier.condition().unwrap();
                if (condition == Condition::Works) == up {
                    break;
                }
                assert!(begun.elapsed() < LONG, "{condition:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
