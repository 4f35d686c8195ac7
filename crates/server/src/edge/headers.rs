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
}

/// The headers that an answer gets beside its own. They are put to it when it is sent, because a table of
/// headers costs more than writing them.
#[derive(Debug)]
pub(crate) struct Stamp<'e> {
    pub(super) fixed: &'e Fixed,
    pub(super) id: RequestId,
    pub(super) elapsed: Duration,
    pub(super) quota: Option<Decision>,
    pub(super) now: Timestamp,
    /// Browsers are told what they must know of an answer of ours. What another server sends is its own
    /// affair.
    pub(super) is_ours: bool,
}

impl Stamp<'_> {
    /// When the answer was made.
    pub(crate) fn date(&self) -> Timestamp {
        self.now + self.elapsed
    }

    /// Adds them to those of the answer.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        let mut kept = Kept::default();
        headers.keys().for_each(|name| kept.note(name));
        headers.reserve(13);
        self.each(kept, |name, value| {
            headers.insert(name, HeaderValue::from_bytes(value).expect("visible ASCII"));
        });
    }

    /// Whether one of the answer's own gives way.
    pub(crate) fn replaces(&self, own: &HeaderName) -> bool {
        match *own {
            header::X_CONTENT_TYPE_OPTIONS | header::X_FRAME_OPTIONS | header::REFERRER_POLICY => {
                self.is_ours
            }
            header::STRICT_TRANSPORT_SECURITY => self.fixed.strict_transport.is_some(),
            _ if own == super::X_REQUEST_ID || own == X_PROCESS_TIME => true,
            _ if own == LIMIT || own == REMAINING || own == RESET => self.quota.is_some(),
            _ => false,
        }
    }

    /// Gives each of them that goes with the answer's own.
    pub(crate) fn each(&self, kept: Kept, mut give: impl FnMut(HeaderName, &[u8])) {
        give(super::X_REQUEST_ID, self.id.as_str().as_bytes());
        let (text, first) = seconds(self.elapsed);
        give(X_PROCESS_TIME, &text[first..]);
        // What a replica behind the gateway says of itself says more.
        if let Some(instance) = &self.fixed.instance
            && !kept.instance
        {
            give(X_AUSPEX_INSTANCE, instance.as_bytes());
        }
        if let Some(quota) = &self.quota {
            let reset = self.now + quota.reset_in;
            let reset_s = reset.unix_seconds() + i64::from(reset.0.rem_euclid(1_000_000) > 0);
            let mut text = itoa::Buffer::new();
            give(LIMIT, text.format(quota.limit).as_bytes());
            give(REMAINING, text.format(quota.remaining).as_bytes());
            give(RESET, text.format(reset_s).as_bytes());
        }
        if let Some(value) = &self.fixed.strict_transport {
            give(header::STRICT_TRANSPORT_SECURITY, value.as_bytes());
        }
        if !self.is_ours {
            return;
        }
        give(header::X_CONTENT_TYPE_OPTIONS, b"nosniff");
        give(header::X_FRAME_OPTIONS, b"DENY");
        give(header::REFERRER_POLICY, b"no-referrer");
        if !kept.policy {
            give(header::CONTENT_SECURITY_POLICY, API_POLICY.as_bytes());
        }
        if !kept.caching {
            give(header::CACHE_CONTROL, b"no-store");
        }
    }
}

/// Headers of an answer's own that say more than those of the stamp.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    instance: bool,
    policy: bool,
    caching: bool,
}

impl Kept {
    /// One of the answer's own.
    pub(crate) fn note(&mut self, own: &HeaderName) {
        match *own {
            header::CONTENT_SECURITY_POLICY => self.policy = true,
            header::CACHE_CONTROL => self.caching = true,
            _ if own == X_AUSPEX_INSTANCE => self.instance = true,
            _ => {}
        }
    }
}

/// Seconds with microseconds, e.g. `0.000123`, and where they begin in the text.
fn seconds(elapsed: Duration) -> ([u8; 17], usize) {
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
    (text, first)
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
            let (written, first) = seconds(Duration::from_micros(micros));
            assert_eq!(&written[first..], text.as_bytes());
        }
    }
}
