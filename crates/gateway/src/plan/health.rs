//! How the endpoints of a service are checked, where its settings say so.

use std::time::Duration;

use auspex_kernel::config::ConfigError;
use http::uri::PathAndQuery;

use super::Key;
use crate::config::HealthConfig;
use crate::health::HealthLaw;

const INTERVAL_MS_MIN: u64 = 100;
const INTERVAL_MS_MAX: u64 = 3_600_000;
const COUNT_MAX: u32 = 1_000;

pub(super) fn law(at: &Key, config: &HealthConfig) -> Result<HealthLaw, ConfigError> {
    let at = Key(format!("{}.health", at.0));
    let path = config.path.starts_with('/').then(|| config.path.parse());
    let path: Option<PathAndQuery> = path.and_then(Result::ok);
    let path = path.ok_or_else(|| at.wrong("path", "must be a path, such as \"/health\""))?;
    if !(INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&config.interval_ms) {
        let reason = format!("must be between {INTERVAL_MS_MIN} and {INTERVAL_MS_MAX}");
        return Err(at.wrong("interval_ms", reason));
    }
    let timeout_ms = config.timeout_ms.unwrap_or(config.interval_ms.min(1_000));
    if !(1..=config.interval_ms).contains(&timeout_ms) {
        let reason = "must be between 1 and interval_ms, or checks would overtake one another";
        return Err(at.wrong("timeout_ms", reason));
    }
    let count = |name: &str, value: u32| match (1..=COUNT_MAX).contains(&value) {
        true => Ok(value),
        false => Err(at.wrong(name, format!("must be between 1 and {COUNT_MAX}"))),
    };
    Ok(HealthLaw {
        path,
        interval: Duration::from_millis(config.interval_ms),
        timeout: Duration::from_millis(timeout_ms),
        unhealthy_after: count("unhealthy_after", config.unhealthy_after)?,
        healthy_after: count("healthy_after", config.healthy_after)?,
    })
}
