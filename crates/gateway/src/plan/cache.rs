//! What is kept of answers.

use std::time::Duration;

use auspex_kernel::config::ConfigError;

use super::Key;
use crate::cache::Limits;
use crate::config::{CacheConfig, RouteConfig};

const TTL_S_MAX: u64 = 86_400;
const BYTES_MAX: u64 = 1 << 40;
const ENTRY_BYTES_MAX: usize = 64 << 20;

/// # Errors
/// [`ConfigError::wrong`] with the whole key.
pub(super) fn limits(config: CacheConfig) -> Result<Limits, ConfigError> {
    let at = Key("gateway.cache".to_owned());
    let CacheConfig {
        bytes_max,
        entry_bytes_max,
    } = config;
    if !(1..=BYTES_MAX).contains(&bytes_max) {
        return Err(at.wrong("bytes_max", format!("must be between 1 and {BYTES_MAX}")));
    }
    if !(1..=ENTRY_BYTES_MAX).contains(&entry_bytes_max) {
        let reason = format!("must be between 1 and {ENTRY_BYTES_MAX}");
        return Err(at.wrong("entry_bytes_max", reason));
    }
    Ok(Limits {
        bytes_max,
        entry_bytes_max,
    })
}

/// How long answers of a route are fresh that do not say it; `None`: none are kept.
///
/// # Errors
/// [`ConfigError::wrong`] with the whole key.
pub(super) fn ttl(at: &Key, route: &RouteConfig) -> Result<Option<Duration>, ConfigError> {
    let Some(cache) = route.cache else {
        return Ok(None);
    };
    if route.service.is_none() {
        let reason = "is for routes with service; the parts of an answer are asked for each time";
        return Err(at.wrong("cache", reason));
    }
    if route.transcode.is_some() {
        return Err(at.wrong(
            "cache",
            "does not go together with transcode; leave one out",
        ));
    }
    let is_read = |methods: &Vec<String>| methods.iter().any(|name| name == "GET");
    if !route.methods.as_ref().is_none_or(is_read) {
        let reason = "keeps answers to GET, which methods does not name";
        return Err(at.wrong("cache", reason));
    }
    match cache.ttl_s {
        ..=TTL_S_MAX => Ok(Some(Duration::from_secs(cache.ttl_s))),
        _ => Err(at.wrong("cache.ttl_s", format!("must be at most {TTL_S_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::plan::Plan;

    const ROUTE: &str = "[gateway.services.orders]\nendpoints = [\"http://127.0.0.1:9001\"]\n\
        [[gateway.routes]]\npath = \"/orders\"\nservice = \"orders\"\npublic = true\n";

    #[test]
    fn a_route_keeps_answers_where_it_says_so() {
        let ttl = |more: &str| {
            let plan = Plan::of(&[ROUTE, more].concat()).expect("valid");
            plan.routes[0].cache_ttl
        };
        assert_eq!(ttl(""), None);
        assert_eq!(ttl("cache = { ttl_s = 10 }"), Some(Duration::from_secs(10)));
        assert_eq!(ttl("cache = { ttl_s = 0 }"), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        let limits = |text: &str| format!("[gateway]\ncache = {{ {text} }}");
        let parts = ROUTE.replace(
            "service = \"orders\"",
            "aggregate = [{ name = \"a\", service = \"orders\", path = \"/a\" }]",
        );
        for (settings, key) in [
            (
                limits("bytes_max = 0, entry_bytes_max = 1"),
                "gateway.cache.bytes_max",
            ),
            (
                limits("bytes_max = 1, entry_bytes_max = 0"),
                "gateway.cache.entry_bytes_max",
            ),
            (
                format!("{ROUTE}cache = {{ ttl_s = 86401 }}"),
                "gateway.routes[0].cache.ttl_s",
            ),
            (
                format!("{parts}cache = {{ ttl_s = 1 }}"),
                "gateway.routes[0].cache",
            ),
        ] {
            let error = Plan::of(&settings).expect_err(&settings).to_string();
            assert!(error.contains(&format!("{key}\" ")), "{settings}: {error}");
        }
    }
}
