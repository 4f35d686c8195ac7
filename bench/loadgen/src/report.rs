//! What a run found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use serde_json::{Value, json};

use crate::answers::Wrong;
use crate::connection::Lost;
use crate::histogram::Histogram;

/// Failures told in full; the others are counted.
const SAMPLES_MAX: usize = 3;
const SAMPLE_BYTES_MAX: usize = 300;

/// Why a request brought no right answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Connect,
    ConnectTimeout,
    AnswerTimeout,
    Closed,
    Malformed(String),
    Status(u16),
    WrongAnswer(String),
}

impl Failure {
    pub(crate) fn wrong(wrong: &Wrong) -> Self {
        Self::WrongAnswer(wrong.to_string())
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::AnswerTimeout => "answer_timeout",
            Self::Closed => "closed",
            Self::Malformed(_) => "malformed",
            Self::Status(_) => "status",
            Self::WrongAnswer(_) => "wrong_answer",
        }
    }
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Connect => Self::Connect,
            Lost::ConnectTimeout => Self::ConnectTimeout,
            Lost::AnswerTimeout => Self::AnswerTimeout,
            Lost::ClosedIdle | Lost::Closed => Self::Closed,
            Lost::Malformed(malformed) => Self::Malformed(malformed.to_string()),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) | Self::WrongAnswer(why) => write!(out, "{}: {why}", self.kind()),
            Self::Status(status) => write!(out, "status {status}"),
            _ => out.write_str(self.kind()),
        }
    }
}

pub(crate) struct Report {
    connections: usize,
    duration: Duration,
    /// Right answers within the measured time.
    requests: u64,
    /// Of those and of the requests under way when it ended.
    latencies: Histogram,
    reconnects: u64,
    errors: BTreeMap<&'static str, u64>,
    statuses: BTreeMap<u16, u64>,
    samples: Vec<String>,
}

impl Report {
    pub(crate) fn new(connections: usize, duration: Duration) -> Self {
        Self {
            connections,
            duration,
            requests: 0,
            latencies: Histogram::new(),
            reconnects: 0,
            errors: BTreeMap::new(),
            statuses: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    /// A right answer. Late ones, to requests still under way at the end, count for latency but
    /// not for throughput: leaving them out would hide the slowest.
    pub(crate) fn answered(&mut self, latency: Duration, in_time: bool) {
        self.latencies.record(latency.as_micros() as u64);
        self.requests += u64::from(in_time);
    }

    /// How long it took, where that was not known before.
    pub(crate) fn lasted(&mut self, duration: Duration) {
        self.duration = duration;
    }

    pub(crate) fn reconnected(&mut self) {
        self.reconnects += 1;
    }

    /// A request without a right answer, while warming up as well.
    pub(crate) fn failed(&mut self, failure: &Failure, record: usize, body: &[u8]) {
        *self.errors.entry(failure.kind()).or_default() += 1;
        if let Failure::Status(status) = failure {
            *self.statuses.entry(*status).or_default() += 1;
        }
        if self.samples.len() < SAMPLES_MAX {
            let body = String::from_utf8_lossy(&body[..body.len().min(SAMPLE_BYTES_MAX)]);
            self.samples
                .push(format!("record {}: {failure} {body}", record + 1));
        }
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty() && self.requests > 0
    }

    fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.duration.as_secs_f64()
    }

    pub(crate) fn to_json(&self) -> Value {
        let statuses: BTreeMap<String, u64> = self
            .statuses
            .iter()
            .map(|(status, count)| (status.to_string(), *count))
            .collect();
        json!({
            "connections": self.connections,
            "seconds": self.duration.as_secs_f64(),
            "requests": self.requests,
            "requests_per_s": self.requests_per_s(),
            "latency_us": {
                "mean": self.latencies.mean_us(),
                "p50": self.latencies.quantile_us(0.5),
                "p90": self.latencies.quantile_us(0.9),
                "p99": self.latencies.quantile_us(0.99),
                "p99_9": self.latencies.quantile_us(0.999),
                "max": self.latencies.max_us(),
            },
            "reconnects": self.reconnects,
            "errors_total": self.errors.values().sum::<u64>(),
            "errors": self.errors,
            "statuses": statuses,
            "samples": self.samples,
        })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latencies = &self.latencies;
        writeln!(
            out,
            "{} connections, {} s: {} right answers, {:.0} req/s, {} reconnects",
            self.connections,
            self.duration.as_secs_f64(),
            self.requests,
            self.requests_per_s(),
            self.reconnects,
        )?;
        write!(
            out,
            "latency µs: p50 {}  p90 {}  p99 {}  p99.9 {}  max {}  (of {})",
            latencies.quantile_us(0.5),
            latencies.quantile_us(0.9),
            latencies.quantile_us(0.99),
            latencies.quantile_us(0.999),
            latencies.max_us(),
            latencies.total(),
        )?;
        for (kind, count) in &self.errors {
            write!(out, "\nerrors: {kind} {count}")?;
        }
        for (status, count) in &self.statuses {
            write!(out, "\nstatus {status}: {count}")?;
        }
        for sample in &self.samples {
            write!(out, "\n  {sample}")?;
        }
        Ok(())
    }
}
