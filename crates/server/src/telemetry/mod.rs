//! What the program reports while it runs: log lines, traces, errors.

mod logs;
mod reports;
mod traces;

use auspex_kernel::config::ConfigError;
use serde::Deserialize;

pub(crate) use logs::{AccessLog, LogFormat, start};
pub(crate) use reports::Reports;
pub(crate) use traces::{Trace, Traces};

/// `[telemetry]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
    pub(crate) access_log: AccessLog,
    pub(crate) otlp_endpoint: String,
    pub(crate) otlp_sample_ratio: f64,
    pub(crate) sentry_dsn: String,
    pub(crate) sentry_environment: String,
}

impl Config {
    /// What types alone cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        logs::filter(&self.log_level)
            .map_err(|reason| ConfigError::wrong("telemetry.log_level", reason))?;
        if !(0.0..=1.0).contains(&self.otlp_sample_ratio) {
            let reason = "must be between 0 and 1";
            return Err(ConfigError::wrong("telemetry.otlp_sample_ratio", reason));
        }
        if !self.otlp_endpoint.is_empty() {
            traces::check_endpoint(&self.otlp_endpoint)
                .map_err(|reason| ConfigError::wrong("telemetry.otlp_endpoint", reason))?;
        }
        if !self.sentry_dsn.is_empty() {
            reports::read_dsn(&self.sentry_dsn)
                .map_err(|reason| ConfigError::wrong("telemetry.sentry_dsn", reason))?;
        }
        Ok(())
    }

    /// Where traces go, if anywhere.
    pub(crate) fn traces(&self, instance: &str) -> Result<Option<Traces>, String> {
        match self.otlp_endpoint.as_str() {
            "" => Ok(None),
            endpoint => Traces::new(endpoint, self.otlp_sample_ratio, instance).map(Some),
        }
    }

    /// Where errors are reported, if anywhere.
    pub(crate) fn reports(&self) -> Result<Option<Reports>, String> {
        match self.sentry_dsn.as_str() {
            "" => Ok(None),
            dsn => Reports::new(dsn, &self.sentry_environment).map(Some),
        }
    }
}
