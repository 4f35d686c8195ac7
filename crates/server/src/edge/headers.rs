//! Headers that answers carry.

use std::time::Duration;

use auspex_kernel::quota::Decision;
use auspex_kernel::{RequestId, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, header};

const X_PROCESS_TIME: HeaderName = HeaderName::from_static("x-process-time");
const X_AUSPEX_INSTANCE: HeaderName = HeaderName::from_static("x-auspex-instance");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// An API answer is not a page: it may load nothing and be framed by nobody.
const API_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Headers that do not change between answers.
#[derive(Debug)]
pub(crate) struct Fixed {
    strict_transport: Option<HeaderValue>,
    instance: Option<HeaderValue>,
}

impl Fixed {
    /// `hsts_max_age_s`: for how long browsers are told to come by https alone; 0: they are not told.
    /// `instance`: what this server is called, if answers say so.
    pub(crate) fn new(hsts_max_age_s: u32, instance: Option<HeaderValue>) -> Self {
        let value = |seconds| HeaderValue::try_from(format!("max-age={seconds}"));
        let strict_transport = (hsts_max_age_s > 0).then(|| value(hsts_max_age_s));
        Self {
            strict_transport: strict_transport.map(|value| value.expect("a number is ASCII")),
            instance,
        }
    }

    pub(super) fn add(
        &self,
        headers: &mut HeaderMap,
        id: &RequestId,
        elapsed: Duration,
        quota: Option<(&Decision, Timestamp)>,
    ) {
        headers.reserve(13);
        headers.insert(super::X_REQUEST_ID, id.header_value());
        headers.insert(X_PROCESS_TIME, seconds(elapsed));
        if let Some(instance) = &self.instance {
            // What a replica behind the gateway says of itself says more.
            headers
                .entry(X_AUSPEX_INSTANCE)
                .or_insert_with(|| instance.clone());
        }
        if let Some((quota, now)) = quota {
            headers.insert(LIMIT, HeaderValue::from(quota.limit));
            headers.insert(REMAINING, HeaderValue::from(quota.remaining));
            let reset = now + quota.reset_in;
            let reset_s = reset.unix_seconds() + i64::from(reset.0.rem_euclid(1_000_000) > 0);
            headers.insert(RESET, HeaderValue::from(reset_s));
        }
        if let Some(value) = &self.strict_transport {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, value.clone());
        }
    }

    /// Adds what browsers must know of an answer of ours. What another server sends is its own affair.
    pub(super) fn protect(&self, headers: &mut HeaderMap) {
        let fixed = HeaderValue::from_static;
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, fixed("DENY"));
        headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
        headers
            .entry(header::CONTENT_SECURITY_POLICY)
            .or_insert(fixed(API_POLICY));
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(fixed("no-store"));
    }
}

/// Seconds with microseconds, e.g. `0.000123`.
fn seconds(elapsed: Duration) -> HeaderValue {
    let mut text = *b"0000000000.000000";
    let mut rest = elapsed.subsec_micros();
    for digit in text[11..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let mut whole = elapsed.as_secs();
    let mut first = 9;
    for (at, digit) in text[..10].iter_mut().enumerate().rev() {
        *digit = b'0' + (whole % 10) as u8;
        whole /= 10;
        first = at;
        if whole == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[first..]).expect("digits and a point")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_time_is_in_seconds() {
        for (micros, text) in [
            (0, "0.000000"),
            (123, "0.000123"),
            (1_000_000, "1.000000"),
            (61_500_007, "61.500007"),
        ] {
            assert_eq!(seconds(Duration::from_micros(micros)), text);
        }
    }
}
