//! When requests of a service are sent again: what the service says, and else what holds for all.

use std::time::Duration;

use auspex_kernel::config::ConfigError;

use super::Key;
use crate::config::{RetryConfig, ServiceRetryConfig};
use crate::retry::RetryLaw;

/// Of more nobody would see the end.
const RETRIES_MAX: u32 = 10;
const DELAY_MS_MAX: u32 = 60_000;

pub(super) fn law(
    at: &Key,
    own: &ServiceRetryConfig,
    usual: &RetryConfig,
) -> Result<RetryLaw, ConfigError> {
    let pick = |name: &str, own: Option<u32>, usual: u32, (min, max): (u32, u32)| {
        let value = own.unwrap_or(usual);
        if (min..=max).contains(&value) {
            return Ok(value);
        }
        let section = own.map_or("gateway", |_| at.0.as_str());
        let key = format!("{section}.retry.{name}");
        let reason = format!("must be between {min} and {max}");
        Err(ConfigError::wrong(&key, reason))
    };
    let retries_max = pick(
        "retries_max",
        own.retries_max,
        usual.retries_max,
        (0, RETRIES_MAX),
    )?;
    let base_delay_ms = pick(
        "base_delay_ms",
        own.base_delay_ms,
        usual.base_delay_ms,
        (1, DELAY_MS_MAX),
    )?;
    let budget_percent = pick(
        "budget_percent",
        own.budget_percent,
        usual.budget_percent,
        (0, 1_000),
    )?;
    Ok(RetryLaw {
        retries_max,
        base_delay: Duration::from_millis(base_delay_ms.into()),
        budget_percent,
        has_jitter: own.jitter.unwrap_or(usual.jitter),
    })
}
