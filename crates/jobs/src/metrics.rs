//! What is counted of jobs.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::types::{StateCount, Status};

type Labels = [(&'static str, &'static str); 1];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) submitted: Counter,
    ended: Family<Labels, Counter>,
    pub(crate) rows: Counter,
    pub(crate) failures: Counter,
    callbacks: Family<Labels, Counter>,
    stored: Family<Labels, Gauge>,
    queue_age: Gauge,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("jobs_submitted", "Jobs submitted", self.submitted.clone());
        registry.register("jobs_ended", "Jobs that ended here", self.ended.clone());
        registry.register("job_rows", "Rows of jobs answered", self.rows.clone());
        registry.register(
            "job_chunk_failures",
            "Chunks of jobs that could not be predicted",
            self.failures.clone(),
        );
        registry.register(
            "job_callbacks",
            "Requests that tell of the end of a job",
            self.callbacks.clone(),
        );
        registry.register("jobs_stored", "Jobs in the database", self.stored.clone());
        registry.register(
            "jobs_queue_age_seconds",
            "How long the oldest job waits that was not begun",
            self.queue_age.clone(),
        );
    }

    pub(crate) fn count_end(&self, status: Status) {
        let labels = [("status", status.as_str())];
        self.ended.get_or_create(&labels).inc();
    }

    pub(crate) fn count_callback(&self, was_delivered: bool) {
        let outcome = if was_delivered { "delivered" } else { "failed" };
        self.callbacks.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// What the database holds now.
    pub(crate) fn show(&self, counts: &[StateCount], queue_age_s: i64) {
        for status in Status::SHOWN {
            let found = counts.iter().find(|count| count.status == *status);
            let labels = [("status", status.as_str())];
            let count = found.map_or(0, |count| count.count);
            self.stored.get_or_create(&labels).set(count as i64);
        }
        self.queue_age.set(queue_age_s);
    }
}
