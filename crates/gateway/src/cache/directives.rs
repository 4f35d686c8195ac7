//! `Cache-Control` of requests and answers (RFC 9111 §5.2).

use http::{HeaderMap, HeaderName, header};

/// Longer times mean "for ever" (§1.2.2).
const SECONDS_MAX: u64 = 1 << 31;

/// What it says, as far as it matters to a cache that many share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directives {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) is_private: bool,
    pub(super) is_public: bool,
    /// `must-revalidate` or `proxy-revalidate`.
    pub(super) must_revalidate: bool,
    pub(super) only_if_cached: bool,
    /// Seconds.
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) min_fresh: Option<u64>,
    pub(super) stale_if_error: Option<u64>,
}

impl Directives {
    /// Of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            for directive in split(value.as_bytes()) {
                directives.add(directive);
            }
        }
        directives
    }

    /// Of a request, which may also say it in the way of HTTP/1.0.
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        let mut directives = Self::of(headers);
        if !headers.contains_key(header::CACHE_CONTROL) {
            let mut pragmas = headers.get_all(header::PRAGMA).iter();
            let is_no_cache = |text: &[u8]| text.eq_ignore_ascii_case(b"no-cache");
            directives.no_cache = pragmas.any(|one| split(one.as_bytes()).any(is_no_cache));
        }
        directives
    }

    fn add(&mut self, directive: &[u8]) {
        let mut sides = directive.splitn(2, |byte| *byte == b'=');
        let name = sides.next().unwrap_or_default().trim_ascii();
        let value = sides.next();
        // Nobody knows what is meant.
        let is_well_formed = is_token(name) && value.is_none_or(is_value);
        self.no_store |= !(directive.is_empty() || is_well_formed);
        match name.to_ascii_lowercase().as_slice() {
            b"no-store" => self.no_store = true,
            // With names of headers it would hold for these alone; for all is safe.
            b"no-cache" => self.no_cache = true,
            b"private" => self.is_private = true,
            b"public" => self.is_public = true,
            b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate = true,
            b"only-if-cached" => self.only_if_cached = true,
            b"max-age" => least(&mut self.max_age, value),
            b"s-maxage" => least(&mut self.s_maxage, value),
            b"min-fresh" => self.min_fresh = Some(seconds(value).unwrap_or(SECONDS_MAX)),
            b"stale-if-error" => least(&mut self.stale_if_error, value),
            _ => {}
        }
    }
}

fn is_token(text: &[u8]) -> bool {
    // Names of headers are tokens.
    HeaderName::from_bytes(text).is_ok()
}

/// Whether it is nothing, a token, or quoted from its begin to its end.
fn is_value(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    let Some(inner) = text.strip_prefix(b"\"") else {
        return text.is_empty() || is_token(text);
    };
    let mut is_escaped = false;
    let end = inner.iter().position(|byte| {
        let escaped = std::mem::replace(&mut is_escaped, false);
        is_escaped = *byte == b'\\' && !escaped;
        *byte == b'"' && !escaped
    });
    end.is_some_and(|end| end + 1 == inner.len())
}

/// Of two values the lesser counts, and one that is none is 0 (§4.2.1).
fn least(known: &mut Option<u64>, value: Option<&[u8]>) {
    let new = seconds(value).unwrap_or(0);
    *known = Some(known.map_or(new, |known| known.min(new)));
}

/// A number of seconds, with or without quotes.
pub(super) fn seconds(value: Option<&[u8]>) -> Option<u64> {
    let text = value?.trim_ascii();
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    let text = text.strip_suffix(b"\"").unwrap_or(text);
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| {
        let next = sum.saturating_mul(10);
        next.saturating_add(u64::from(digit - b'0'))
            .min(SECONDS_MAX)
    };
    Some(text.iter().fold(0, add))
}

/// The members of a list, between commas that no quotes are around.
pub(super) fn split(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let members = value.split(move |byte| {
        let escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'\\' if is_quoted && !escaped => is_escaped = true,
            b'"' if !escaped => is_quoted = !is_quoted,
            b',' if !is_quoted => return true,
            _ => {}
        }
        false
    });
    members.map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&str]) -> Directives {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CACHE_CONTROL, value.parse().expect("a value"));
        }
        Directives::of(&headers)
    }

    #[test]
    fn directives_are_read_in_every_form() {
        let read = of(&[
            "Public, MAX-AGE = 10 ,s-maxage=\"20\"",
            "no-cache=\"set-cookie, x\"",
        ]);
        let expected = Directives {
            is_public: true,
            no_cache: true,
            max_age: Some(10),
            s_maxage: Some(20),
            ..Directives::default()
        };
        assert_eq!(read, expected);
        assert!(of(&["private=\"x\""]).is_private);
        assert!(of(&["proxy-revalidate"]).must_revalidate);
        // A comma or a directive within quotes is part of a value.
        assert!(!of(&["x=\"a, no-store\""]).no_store);
        assert!(!of(&["x=\"a\\\", no-store\""]).no_store);
        assert!(of(&["x=\"a\\\\\", no-store"]).no_store);
    }

    #[test]
    fn what_is_malformed_is_not_kept() {
        for value in [
            "public, x=\"a, private",
            "x=\"a\\\", no-store",
            "no-store\"",
            "\"private\"",
            "private; max-age=5",
            "max-age=5 no-store",
            "public no-store",
            "=5",
            "x=\"a\"b",
            "x=\"",
            "max-age=60, x=\"a\\",
        ] {
            assert!(of(&[value]).no_store, "{value}");
        }
        for value in [
            "",
            " , max-age=5,,",
            "x=\"\"",
            "x=\"a\\\"b\", y = z",
            "max-age=",
        ] {
            assert!(!of(&[value]).no_store, "{value}");
        }
    }

    #[test]
    fn times_that_are_none_have_passed_and_of_two_the_lesser_counts() {
        for (value, expected) in [
            ("max-age=10, max-age=5", 5),
            ("max-age", 0),
            ("max-age=", 0),
            ("max-age=soon", 0),
            ("max-age=-1", 0),
            ("max-age=1.5", 0),
            ("max-age=99999999999999999999999", SECONDS_MAX),
        ] {
            assert_eq!(of(&[value]).max_age, Some(expected), "{value}");
        }
    }

    #[test]
    fn pragma_counts_where_there_is_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.append(header::PRAGMA, HeaderValue::from_static("x, No-Cache"));
        assert!(Directives::of_request(&headers).no_cache);
        headers.append(header::CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
        assert!(!Directives::of_request(&headers).no_cache);
    }

    proptest! {
        #[test]
        fn anything_can_be_read(value in "[ -~]{0,60}") {
            of(&[&value]);
        }
    }
}
