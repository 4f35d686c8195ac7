//! Settings of the jobs service: the `[jobs]` section.

use std::time::Duration;

use auspex_kernel::config::ConfigError;
use serde::Deserialize;

use crate::carrier::RabbitMqConfig;

/// Every setting with its default and its meaning.
pub(crate) const DEFAULTS: &str = include_str!("../defaults.toml");

const WORKERS_MAX: usize = 256;
const DAYS_MAX: u32 = 36_500;

/// `[jobs]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Chunks that this process has in hand at once; 0: one more than there are cores.
    pub workers: usize,
    /// How often workers without work look for some.
    pub poll_interval_ms: u64,
    /// When a worker that was not heard of is taken for dead.
    pub lease_s: u64,
    /// How long the prediction of one chunk may take.
    pub chunk_timeout_s: u64,
    /// How often a chunk is tried.
    pub attempts_max: u32,
    /// Before a chunk that failed is tried again.
    pub retry_delay_s: u64,
    /// Rows of a chunk.
    pub chunk_rows_max: usize,
    /// Bytes of the input of a chunk.
    pub chunk_bytes_max: usize,
    /// Bytes of the input of a job.
    pub input_bytes_max: usize,
    /// How long it may take to arrive.
    pub input_timeout_s: u64,
    /// Jobs of one caller that have not ended.
    pub open_jobs_max: u64,
    /// Bytes of the input and results of one caller's jobs.
    pub stored_bytes_max: u64,
    /// How long a job that has ended is kept.
    pub retention_days: u32,
    /// `[jobs.callbacks]`.
    pub callbacks: CallbacksConfig,
    /// `[jobs.rabbitmq]`.
    pub rabbitmq: RabbitMqConfig,
}

/// `[jobs.callbacks]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbacksConfig {
    /// Whether they may go to private networks, and by plain HTTP.
    pub allow_private_addresses: bool,
    /// How often one is sent.
    pub attempts_max: u32,
    /// Until it is answered.
    pub timeout_ms: u64,
}

impl Config {
    /// What types alone cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.rabbitmq.check()?;
        let positive = [
            ("jobs.poll_interval_ms", self.poll_interval_ms),
            ("jobs.lease_s", self.lease_s),
            ("jobs.chunk_timeout_s", self.chunk_timeout_s),
            ("jobs.attempts_max", self.attempts_max.into()),
            ("jobs.chunk_rows_max", self.chunk_rows_max as u64),
            ("jobs.input_timeout_s", self.input_timeout_s),
            ("jobs.open_jobs_max", self.open_jobs_max),
            ("jobs.stored_bytes_max", self.stored_bytes_max),
            ("jobs.retention_days", self.retention_days.into()),
            (
                "jobs.callbacks.attempts_max",
                self.callbacks.attempts_max.into(),
            ),
            ("jobs.callbacks.timeout_ms", self.callbacks.timeout_ms),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::wrong(key, "must be at least 1"));
        }
        let bounded = [
            ("jobs.workers", self.workers as u64, 0, WORKERS_MAX as u64),
            ("jobs.lease_s", self.lease_s, 1, 86_400),
            (
                "jobs.chunk_rows_max",
                self.chunk_rows_max as u64,
                1,
                100_000,
            ),
            (
                "jobs.chunk_bytes_max",
                self.chunk_bytes_max as u64,
                1 << 10,
                16 << 20,
            ),
            (
                "jobs.retention_days",
                self.retention_days.into(),
                1,
                DAYS_MAX.into(),
            ),
        ];
        let is_out = |(_, value, low, high): &(_, u64, u64, u64)| value < low || value > high;
        match bounded.into_iter().find(is_out) {
            Some((key, _, low, high)) => Err(ConfigError::wrong(
                key,
                format!("must be between {low} and {high}"),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }

    /// How long a chunk waits that has failed so often.
    pub(crate) fn retry_delay(&self, attempts: u32) -> Duration {
        const LONGEST: Duration = Duration::from_mins(5);
        let doubled = 1_u64 << attempts.saturating_sub(1).min(16);
        Duration::from_secs(self.retry_delay_s.saturating_mul(doubled)).min(LONGEST)
    }

    pub(crate) fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_days) * 24 * 60 * 60)
    }
}

/// The embedded defaults.
impl Default for Config {
    fn default() -> Self {
        #[derive(Deserialize)]
        struct Defaults {
            jobs: Config,
        }
        let defaults: Defaults = toml::from_str(DEFAULTS).expect("checked by every test");
        defaults.jobs
    }
}
