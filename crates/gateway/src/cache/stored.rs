//! An answer that is kept: whether it may be, for whom, for how long, and how old it is.
//!
//! It follows RFC 9111 for caches that many share. Where that leaves a choice, the one is taken that shows less.

use std::time::{Duration, UNIX_EPOCH};

use auspex_kernel::Timestamp;
use auspex_kernel::clock::Steady;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::directives::{Directives, seconds, split};

/// What an answer takes beside its texts, roughly.
const OVERHEAD_BYTES: usize = 512;
/// The same of a header.
const HEADER_BYTES: usize = 128;

/// A whole answer.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    /// Without those of its connection.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The headers that it varies by, with what the request had for them.
    pub(super) varying: Vec<(HeaderName, Vec<HeaderValue>)>,
    /// When it was asked for, or lately confirmed.
    pub(super) asked_at: Steady,
    /// When its age was 0.
    pub(super) born: Steady,
    pub(super) law: Law,
}

/// How an answer may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Law {
    /// Until this age it may be shown unasked. Zero: it must be confirmed each time.
    pub(super) lifetime: Duration,
    /// Beyond that, while its service fails.
    pub(super) stale_if_error: Duration,
    /// For everybody, or only for the caller who asked.
    pub(super) is_shared: bool,
    /// It says that it is for everybody.
    pub(super) is_public: bool,
}

/// What an answer was to.
pub(super) struct Asking<'r> {
    pub(super) headers: &'r HeaderMap,
    /// A caller is known by a credential.
    pub(super) has_caller: bool,
    /// The service got credentials of the client.
    pub(super) has_forwarded: bool,
    /// How long an answer is fresh that says nothing of it.
    pub(super) ttl: Duration,
}

impl Law {
    /// How an answer may be kept; `None`: not at all.
    pub(super) fn of(
        asking: &Asking<'_>,
        status: StatusCode,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Option<Self> {
        let said = Directives::of(headers);
        let is_forbidden = said.no_store || said.is_private;
        if is_forbidden || !is_keepable(status) || has_its_own(headers) {
            return None;
        }
        let varying = names_varying(headers)?;
        let is_public = said.is_public || said.s_maxage.is_some();
        if asking.has_forwarded && !is_public {
            return None;
        }
        // What names the caller to a service is written by the gateway, so the request's header tells nothing.
        let varies_by_caller = varying.iter().any(is_credential);
        let lifetime = match said.no_cache {
            true => Duration::ZERO,
            false => lifetime(asking, &said, status, headers, now),
        };
        if lifetime.is_zero() && !has_validator(headers) {
            return None;
        }
        let must_ask = said.must_revalidate || said.s_maxage.is_some() || said.no_cache;
        let stale_if_error = said.stale_if_error.filter(|_| !must_ask).unwrap_or(0);
        Some(Self {
            lifetime,
            stale_if_error: Duration::from_secs(stale_if_error),
            is_shared: !asking.has_caller || (is_public && !varies_by_caller),
            is_public,
        })
    }
}

/// What is stated (§4.2.1), or else what the settings say for answers that usually last.
fn lifetime(
    asking: &Asking<'_>,
    said: &Directives,
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> Duration {
    if let Some(seconds) = said.s_maxage.or(said.max_age) {
        return Duration::from_secs(seconds);
    }
    if let Some(expires) = headers.get(header::EXPIRES) {
        // An answer whose `Expires` is no date has expired.
        let date = date_of(headers).unwrap_or(now);
        return time_of(expires).map_or(Duration::ZERO, |expires| expires.since(date));
    }
    match status {
        StatusCode::OK
        | StatusCode::NON_AUTHORITATIVE_INFORMATION
        | StatusCode::MOVED_PERMANENTLY
        | StatusCode::PERMANENT_REDIRECT => asking.ttl,
        _ => Duration::ZERO,
    }
}

pub(super) fn is_keepable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300..=303 | 307 | 308 | 404 | 405 | 410 | 414
    )
}

/// Whether an answer is one client's, a part, or has no end.
fn has_its_own(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let events = b"text/event-stream";
    let is_stream = kind
        .and_then(|kind| kind.get(..events.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(events));
    let is_part = headers.contains_key(header::CONTENT_RANGE);
    is_stream || is_part || headers.contains_key(header::SET_COOKIE)
}

/// The headers that an answer varies by. `None`: by more than a request tells, such as what the gateway itself says to
/// the service.
fn names_varying(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in headers.get_all(header::VARY) {
        for member in split(value.as_bytes()).filter(|member| !member.is_empty()) {
            let name = HeaderName::from_bytes(member)
                .ok()
                .filter(|_| member != b"*")?;
            let text = name.as_str();
            let is_told = matches!(
                text,
                "forwarded" | "x-real-ip" | "x-request-id" | "x-request-timeout-ms" | "via"
            );
            if is_told || text.starts_with("x-forwarded-") || text.starts_with("x-auspex-") {
                return None;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Some(names)
}

/// Whether it says who calls.
pub(super) fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "cookie" | "x-api-key")
}

fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ETAG) || headers.contains_key(header::LAST_MODIFIED)
}

fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    headers.get(header::DATE).and_then(time_of)
}

/// A date of HTTP.
pub(super) fn time_of(value: &HeaderValue) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    let seconds = i64::try_from(since.as_secs()).ok()?;
    Some(Timestamp::from_unix_seconds(seconds))
}

/// When an answer's age was 0 that was asked for at one moment and came at another (§4.2.3).
fn birth(headers: &HeaderMap, asked_at: Steady, came: (Steady, Timestamp)) -> Steady {
    let (came_at, now) = came;
    let stated = headers.get(header::AGE).map(HeaderValue::as_bytes);
    let stated = Duration::from_secs(seconds(stated).unwrap_or(0));
    let apparent = date_of(headers).map_or(Duration::ZERO, |date| now.since(date));
    came_at - apparent.max(stated + came_at.since(asked_at))
}

impl Stored {
    /// An answer that came just now. Where it has no `Date` it gets one.
    pub(super) fn new(
        law: Law,
        (status, headers): (StatusCode, HeaderMap),
        body: Bytes,
        asking: &Asking<'_>,
        asked_at: Steady,
        came: (Steady, Timestamp),
    ) -> Self {
        let names = names_varying(&headers).unwrap_or_default();
        let varying = names.into_iter().map(|name| {
            let values = asking.headers.get_all(&name).iter();
            let values = values.map(copied).collect();
            (name, values)
        });
        let varying = varying.collect();
        // Without the room that the map has for the headers of other answers.
        let mut headers: HeaderMap = {
            let values = headers.iter();
            values
                .map(|(name, value)| (name.clone(), copied(value)))
                .collect()
        };
        let born = birth(&headers, asked_at, came);
        let date = || UNIX_EPOCH + Duration::from_secs(came.1.unix_seconds().unsigned_abs());
        if let header::Entry::Vacant(entry) = headers.entry(header::DATE) {
            let date = HeaderValue::try_from(httpdate::fmt_http_date(date()));
            entry.insert(date.expect("a date is ASCII"));
        }
        headers.remove(header::AGE);
        if status != StatusCode::NO_CONTENT {
            headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        Self {
            status,
            headers,
            body,
            varying,
            asked_at,
            born,
            law,
        }
    }

    /// The same after its service has confirmed it by a 304 (§4.3.4).
    pub(super) fn confirmed(&self, with: &HeaderMap) -> HeaderMap {
        let mut headers = self.headers.clone();
        for name in with.keys() {
            let is_of_body = matches!(
                name.as_str(),
                "content-length" | "content-encoding" | "content-type" | "content-range"
            );
            if is_of_body || name == header::SET_COOKIE {
                continue;
            }
            headers.remove(name);
            for value in with.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        if !with.contains_key(header::DATE) {
            headers.remove(header::DATE);
        }
        if !with.contains_key(header::AGE) {
            headers.remove(header::AGE);
        }
        headers
    }

    /// Whether it answers a request with these headers.
    pub(super) fn fits(&self, headers: &HeaderMap) -> bool {
        self.varying
            .iter()
            .all(|(name, values)| headers.get_all(name).iter().eq(values))
    }

    pub(super) fn age(&self, now: Steady) -> Duration {
        now.since(self.born)
    }

    /// How long it is still fresh, in seconds; negative: for how long not.
    pub(super) fn left(&self, now: Steady) -> i64 {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        seconds(self.law.lifetime).saturating_sub(seconds(self.age(now)))
    }

    /// Whether it may be shown without asking its service.
    pub(super) fn is_fresh_for(&self, wanted: &Directives, now: Steady) -> bool {
        let age = self.age(now);
        let asks = wanted.no_cache || self.law.lifetime.is_zero();
        let is_young = wanted
            .max_age
            .is_none_or(|max| age <= Duration::from_secs(max));
        let reserve = Duration::from_secs(wanted.min_fresh.unwrap_or(0));
        !asks && is_young && age + reserve < self.law.lifetime
    }

    /// Whether it may be shown because its service fails.
    pub(super) fn stands_in(&self, now: Steady) -> bool {
        let limit = self.law.lifetime.saturating_add(self.law.stale_if_error);
        !self.law.stale_if_error.is_zero() && self.age(now) < limit
    }

    /// Roughly what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let one = |name: &HeaderName, value: &HeaderValue| {
            HEADER_BYTES + name.as_str().len() + value.len()
        };
        let headers = self.headers.iter().map(|(name, value)| one(name, value));
        let varying = self.varying.iter().map(|(name, values)| {
            let values = values.iter().map(|value| one(name, value));
            HEADER_BYTES + name.as_str().len() + values.sum::<usize>()
        });
        OVERHEAD_BYTES + self.body.len() + headers.sum::<usize>() + varying.sum::<usize>()
    }
}

/// The same text in memory of its own: what came over a connection holds the whole head that it was read with.
fn copied(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

#[cfg(test)]
pub(super) mod tests;
