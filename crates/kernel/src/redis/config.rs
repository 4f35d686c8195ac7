//! The settings of Redis.

use std::time::Duration;

use redis::Client;
use serde::Deserialize;

use crate::config::ConfigError;

/// Where Redis is, if there is one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://`, or `rediss://` for TLS; empty: none, and nothing is shared.
    pub url: String,
    /// What all keys and channels begin with.
    pub prefix: String,
    /// How long a call may take.
    pub timeout_ms: u64,
}

impl RedisConfig {
    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// What types alone cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(10..=5_000).contains(&self.timeout_ms) {
            let reason = "must be between 10 and 5,000";
            return Err(ConfigError::wrong("redis.timeout_ms", reason));
        }
        if self.prefix.len() > 64 || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            let reason = "must be at most 64 visible ASCII characters";
            return Err(ConfigError::wrong("redis.prefix", reason));
        }
        if self.is_on() {
            let client = self.client();
            client.map_err(|reason| ConfigError::wrong("redis.url", reason))?;
        }
        Ok(())
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// The error does not repeat the URL, which may have a password in it.
    pub(super) fn client(&self) -> Result<Client, String> {
        let usable = ["redis://", "rediss://"];
        if !usable.iter().any(|scheme| self.url.starts_with(scheme)) {
            return Err("must begin with redis:// or rediss://".into());
        }
        Client::open(self.url.as_str()).map_err(|_| {
            "cannot be used; write it as redis://USER:PASSWORD@HOST:PORT/DATABASE, of which HOST is needed, and percent-encode what is special in URLs".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_without_repeating_a_password() {
        let check = |url: &str, prefix: &str, timeout_ms| {
            let config = RedisConfig {
                url: url.into(),
                prefix: prefix.into(),
                timeout_ms,
            };
            config.check().map_err(|error| error.to_string())
        };
        for url in [
            "",
            "redis://127.0.0.1",
            "redis://:secret@redis.internal:6380/3",
            "rediss://user:secret@[::1]:6379",
        ] {
            assert_eq!(check(url, "auspex:", 250), Ok(()), "{url}");
        }
        for url in [
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "redis://:secret@host:port",
            "redis://:secret@host/notanumber",
            "unix:///run/redis.sock",
        ] {
            let refused = check(url, "auspex:", 250).expect_err(url);
            assert!(refused.contains("redis.url"), "{refused}");
            assert!(!refused.contains("secret"), "{refused}");
        }
        assert!(check("", "with space", 250).is_err());
        assert!(check("", "auspex:", 9).is_err());
        assert!(check("", "auspex:", 5_001).is_err());
    }
}
