//! The settings of this service; `defaults.toml` explains them.

use std::time::Duration;

use auspex_kernel::config::ConfigError;
use serde::Deserialize;

use crate::issuer::IssuerConfig;
use crate::jwt::Algorithm;
use crate::password::Parameters;
use crate::throttle;
use crate::types::role::Role;

/// No access token lives longer than a day, so a revocation need not be remembered longer; five
/// minutes more for clocks that differ.
pub(crate) const REVOCATION_KEPT: Duration = Duration::from_mins(24 * 60 + 5);

/// Every setting with its default and its meaning.
pub(crate) const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[identity]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub(crate) basic_cache_s: u32,
    pub(crate) verified_max: usize,
    pub(crate) tokens: Tokens,
    pub(crate) passwords: Passwords,
    pub(crate) throttle: throttle::Settings,
    pub(crate) retention: Retention,
    pub(crate) issuers: Vec<IssuerConfig>,
}

/// `[identity.tokens]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokens {
    pub(crate) algorithm: Algorithm,
    pub(crate) audience: String,
    pub(crate) access_ttl_s: u32,
    pub(crate) refresh_ttl_s: u32,
    pub(crate) refresh_grace_s: u32,
    pub(crate) signing_key_days: u32,
    pub(crate) signing_key_lead_s: u32,
}

/// `[identity.passwords]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Passwords {
    pub(crate) memory_kib: u32,
    pub(crate) iterations: u32,
    pub(crate) parallelism: u32,
    pub(crate) threads: usize,
    pub(crate) queue_max: usize,
}

/// `[identity.retention]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    pub(crate) ended_days: u32,
    pub(crate) logins_days: u32,
    pub(crate) audit_days: u32,
}

impl Config {
    /// What types alone cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let reason = format!("must be between {low} and {high}");
            Err(ConfigError::wrong(key, reason))
        };
        let tokens = &self.tokens;
        range("identity.basic_cache_s", self.basic_cache_s, 1, 300)?;
        range(
            "identity.tokens.access_ttl_s",
            tokens.access_ttl_s,
            10,
            86_400,
        )?;
        range(
            "identity.tokens.refresh_ttl_s",
            tokens.refresh_ttl_s,
            60,
            31_536_000,
        )?;
        range(
            "identity.tokens.refresh_grace_s",
            tokens.refresh_grace_s,
            0,
            10,
        )?;
        range(
            "identity.tokens.signing_key_days",
            tokens.signing_key_days,
            1,
            3_650,
        )?;
        range(
            "identity.tokens.signing_key_lead_s",
            tokens.signing_key_lead_s,
            0,
            86_400,
        )?;
        range(
            "identity.throttle.failures_max",
            self.throttle.failures_max,
            1,
            10_000,
        )?;
        range(
            "identity.throttle.window_s",
            self.throttle.window_s,
            1,
            86_400,
        )?;
        range(
            "identity.throttle.delay_max_ms",
            self.throttle.delay_max_ms,
            0,
            10_000,
        )?;
        range(
            "identity.retention.ended_days",
            self.retention.ended_days,
            1,
            36_500,
        )?;
        range(
            "identity.retention.logins_days",
            self.retention.logins_days,
            1,
            36_500,
        )?;
        range(
            "identity.retention.audit_days",
            self.retention.audit_days,
            1,
            36_500,
        )?;
        let passwords = &self.passwords;
        passwords
            .parameters()
            .check()
            .map_err(|reason| ConfigError::wrong("identity.passwords", reason))?;
        for (key, value, max) in [
            ("identity.passwords.threads", passwords.threads, 64),
            ("identity.passwords.queue_max", passwords.queue_max, 100_000),
            ("identity.verified_max", self.verified_max, 10_000_000),
        ] {
            if !(1..=max).contains(&value) {
                let reason = format!("must be between 1 and {max}");
                return Err(ConfigError::wrong(key, reason));
            }
        }
        let wrong_issuer = |reason| ConfigError::wrong("identity.issuers", reason);
        for issuer in &self.issuers {
            issuer.check().map_err(wrong_issuer)?;
            for role in issuer.roles.values() {
                let known = role.parse::<Role>();
                known.map_err(|error| wrong_issuer(format!("roles: {error}")))?;
            }
        }
        Ok(())
    }
}

impl Tokens {
    pub(crate) fn refresh_ttl(&self) -> Duration {
        Duration::from_secs(self.refresh_ttl_s.into())
    }

    pub(crate) fn refresh_grace(&self) -> Duration {
        Duration::from_secs(self.refresh_grace_s.into())
    }

    /// How long a key signs.
    pub(crate) fn signing_period(&self) -> Duration {
        Duration::from_hours(24) * self.signing_key_days
    }

    /// How long a key is published before it signs.
    pub(crate) fn signing_lead(&self) -> Duration {
        Duration::from_secs(self.signing_key_lead_s.into())
    }
}

impl Passwords {
    pub(crate) fn parameters(&self) -> Parameters {
        Parameters {
            memory_kib: self.memory_kib,
            iterations: self.iterations,
            parallelism: self.parallelism,
        }
    }
}
