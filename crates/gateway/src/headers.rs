//! Headers on their way to a service and back.
//!
//! What belongs to one connection (RFC 9110 §7.6.1) ends here. To a service nothing goes that its client
//! could forge: who asks, over which way and for which host is said by the gateway alone. Credentials are
//! meant for this server and stay here. Names with underscores are left out, for services
//! that make variables of headers cannot tell them from the same names with hyphens.

pub(crate) mod via;

use std::cell::RefCell;
use std::net::IpAddr;

use auspex_kernel::{OverTls, RequestId, Via};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{StatusCode, Version};

use crate::config::X_AUSPEX_CLUSTER;
use crate::upstream::Fields;
use crate::websocket;

pub(crate) const X_REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Some services take a request for another one by these.
pub(crate) const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-method-override"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];
/// Meant for everybody who gets a message: by `Connection` they cannot be taken off (RFC 9110 §7.6.1).
const FOR_ALL: [HeaderName; 15] = [
    header::AGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::DATE,
    header::ETAG,
    header::EXPIRES,
    // Who sends a request again by it counts on the service to have it.
    IDEMPOTENCY_KEY,
    header::LAST_MODIFIED,
    header::PRAGMA,
    header::SET_COOKIE,
    header::VARY,
    header::VIA,
];

/// Fields beside those of the client, at most.
const TOLD_MAX: usize = 14;

/// What a service is told of a request beside its own headers.
pub(crate) struct Told<'r> {
    /// The version of HTTP that the client speaks.
    pub(crate) version: Version,
    pub(crate) client: IpAddr,
    /// The trusted proxy that handed the request on.
    pub(crate) via: Option<Via>,
    pub(crate) id: Option<&'r RequestId>,
    /// The `Host` that the service gets; `None`: the client's.
    pub(crate) host: Option<&'r HeaderValue>,
    /// The host that the target of the request names, as HTTP/2 does. It wins over `Host`.
    pub(crate) target_host: Option<&'r HeaderValue>,
    /// What was taken off the path.
    pub(crate) prefix: &'r str,
    pub(crate) with_credentials: bool,
    /// What another process of this server is shown.
    pub(crate) secret: Option<&'r HeaderValue>,
    /// The length of the body; `None`: unknown.
    pub(crate) length: Option<u64>,
    /// Whether a body of no length is said to be one.
    pub(crate) has_body: bool,
    /// Whether its client speaks TLS with this server.
    pub(crate) is_secured: bool,
    /// Whether it may become a WebSocket.
    pub(crate) switches: bool,
    /// Whether it goes by HTTP/2, which has trailers.
    pub(crate) is_http2: bool,
}

/// The headers of a request as the service gets them. The request may have to be sent again, so its own stay as
/// they are.
pub(crate) fn for_service(headers: &HeaderMap, told: &Told<'_>) -> Fields {
    let named = named_by_connection(headers);
    let mut sent = Fields::with_capacity(headers.len() + TOLD_MAX);
    let asked_host = told.target_host.or_else(|| headers.get(header::HOST));
    if let Some(host) = told.host.or(asked_host) {
        sent.push((header::HOST, host.clone()));
    }
    // Nothing passes that is told below, except for `Via`, which has an entry for each on the way.
    for (name, value) in headers {
        if passes_to_service(name, told) && !named.contains(name) {
            sent.push((name.clone(), value.clone()));
        }
    }
    if told.with_credentials {
        join_cookies(&mut sent);
    }
    match told.length {
        Some(0) if !told.has_body => {}
        Some(length) => {
            sent.push((header::CONTENT_LENGTH, length.into()));
        }
        None => {
            let chunked = HeaderValue::from_static("chunked");
            sent.push((header::TRANSFER_ENCODING, chunked));
        }
    }
    if told.is_http2 && takes_trailers(headers) {
        sent.push((header::TE, HeaderValue::from_static("trailers")));
    }
    if told.switches {
        sent.push((header::CONNECTION, HeaderValue::from_static("upgrade")));
        sent.push((header::UPGRADE, websocket::PROTOCOL));
    }
    if let Some(id) = told.id {
        sent.push((X_REQUEST_ID, id.header_value()));
    }
    sent.push((header::VIA, via::entry(told.version)));
    if let Some(secret) = told.secret {
        sent.push((X_AUSPEX_CLUSTER, secret.clone()));
    }
    tell_origin(&mut sent, headers, asked_host, told);
    sent
}

/// Clients of HTTP/2 may send each cookie for itself; servers of HTTP/1.1 read one header (RFC 9113 §8.2.3).
fn join_cookies(sent: &mut Fields) {
    let crumbs = sent.iter().filter(|(name, _)| *name == header::COOKIE);
    let crumbs: Vec<&[u8]> = crumbs.map(|(_, value)| value.as_bytes()).collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        sent.retain(|(name, _)| *name != header::COOKIE);
        sent.push((header::COOKIE, joined));
    }
}

fn tell_origin(
    sent: &mut Fields,
    headers: &HeaderMap,
    asked_host: Option<&HeaderValue>,
    told: &Told<'_>,
) {
    let client = told.client.to_canonical();
    let written = written(client);
    let proxy = told.via.map(|Via(proxy)| proxy.to_canonical());
    // Of what the proxy was told nothing is passed on: its begin was written by the client.
    let chain = match proxy.filter(|proxy| *proxy != client) {
        Some(proxy) => value(&format!("{client}, {proxy}")),
        None => written.clone(),
    };
    sent.push((X_REAL_IP, written));
    sent.push((X_FORWARDED_FOR, chain));
    let scheme = HeaderValue::from_static(match is_secure(headers, told.via, told.is_secured) {
        true => "https",
        false => "http",
    });
    sent.push((X_FORWARDED_PROTO, scheme));
    if let Some(host) = asked_host {
        sent.push((X_FORWARDED_HOST, host.clone()));
    }
    if !told.prefix.is_empty()
        && let Ok(prefix) = HeaderValue::from_str(told.prefix)
    {
        sent.push((X_FORWARDED_PREFIX, prefix));
    }
}

/// Whether who asks takes trailers. Servers of gRPC want to be told.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::TE).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

fn value(addresses: &str) -> HeaderValue {
    HeaderValue::from_str(addresses).expect("addresses are ASCII")
}

/// The address as text. The next request is often of the same client.
fn written(address: IpAddr) -> HeaderValue {
    thread_local! {
        static LAST: RefCell<Option<(IpAddr, HeaderValue)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some((of, written)) if *of == address => written.clone(),
        _ => {
            let written = value(&address.to_string());
            *last = Some((address, written.clone()));
            written
        }
    })
}

/// Whether the client came by https: as the proxy says that is believed, or else by the connection.
fn is_secure(headers: &HeaderMap, via: Option<Via>, is_secured: bool) -> bool {
    if via.is_none() {
        return is_secured;
    }
    let mut schemes = headers.get_all(X_FORWARDED_PROTO).iter();
    match (schemes.next(), schemes.next()) {
        (None, _) => is_secured,
        (Some(scheme), None) => scheme == "https",
        (Some(_), Some(_)) => false,
    }
}

/// Whether a service is told that the client came by https.
pub(crate) fn tells_secure(parts: &Parts) -> bool {
    let is_secured = parts.extensions.get::<OverTls>().is_some();
    is_secure(&parts.headers, parts.extensions.get().copied(), is_secured)
}

fn passes_to_service(name: &HeaderName, told: &Told<'_>) -> bool {
    match name.as_str() {
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "content-length"
        | "expect"
        | "http2-settings"
        | "host" => false,
        "x-api-key" | "authorization" | "cookie" => told.with_credentials,
        "forwarded" | "x-real-ip" | "x-request-id" | "x-request-timeout-ms" => false,
        name if name.contains('_') => false,
        name => !name.starts_with("x-forwarded-") && !name.starts_with("x-auspex-"),
    }
}

/// Takes what belongs to the connection of the service off its answer, and what contradicts it.
pub(crate) fn for_client(status: StatusCode, headers: &mut HeaderMap) {
    // What came is as long as its coding says (RFC 9112 §6.3); an answer without a body has no length (RFC 9110 §8.6).
    if headers.contains_key(header::TRANSFER_ENCODING) || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named = named_by_connection(headers);
    let ends_here = |name: &&HeaderName| is_of_connection(name) || named.contains(name);
    let ending: Vec<HeaderName> = headers.keys().filter(ends_here).cloned().collect();
    for name in ending {
        headers.remove(name);
    }
}

/// Takes off trailers what has its place in a head: how a body is cut and coded, who asks, for what and over which way
/// (RFC 9110 §6.5.1). Names with underscores are left out as they are there.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    let is_of_head = |name: &&HeaderName| {
        is_of_connection(name)
            || matches!(
                name.as_str(),
                "te" | "host"
                    | "expect"
                    | "max-forwards"
                    | "range"
                    | "authorization"
                    | "proxy-authorization"
                    | "x-api-key"
                    | "cookie"
                    | "set-cookie"
                    | "cache-control"
                    | "forwarded"
                    | "x-real-ip"
                    | "x-request-id"
                    | "x-request-timeout-ms"
                    | "idempotency-key"
            )
            || ["content-", "x-forwarded-", "x-auspex-"]
                .iter()
                .any(|begin| name.as_str().starts_with(begin))
            || name.as_str().contains('_')
            || OVERRIDES.contains(name)
    };
    let ending: Vec<HeaderName> = trailers.keys().filter(is_of_head).cloned().collect();
    for name in ending {
        trailers.remove(name);
    }
}

/// Whether the body of an answer is coded in a way that is understood here: in chunks, or not at all.
pub(crate) fn is_plainly_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = |value: &HeaderValue| {
        let coding = value.as_bytes().trim_ascii();
        [&b"chunked"[..], b"identity"]
            .iter()
            .any(|plain| coding.eq_ignore_ascii_case(plain))
    };
    codings.next().is_none_or(is_plain) && codings.next().is_none()
}

/// Whether a header is that of its connection.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "transfer-encoding"
            | "trailer"
            | "upgrade"
            | "keep-alive"
            | "proxy-connection"
    )
}

/// Whether a service may take a request for another one than it is.
pub(crate) fn is_overriding(headers: &HeaderMap) -> bool {
    let mut custom = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-"));
    custom.any(|name| OVERRIDES.contains(name))
}

/// Whether the `Connection` of a request takes off headers that a service would get.
pub(crate) fn is_cut(headers: &HeaderMap) -> bool {
    let named = named_by_connection(headers);
    let mut others = named.iter().filter(|name| !is_of_connection(name));
    others.any(|name| *name != header::TE && headers.contains_key(name))
}

/// The headers that the `Connection` of a message names.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut named = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            match HeaderName::from_bytes(option.trim_ascii()) {
                Ok(name) if !matches!(name.as_str(), "close" | "keep-alive") => named.push(name),
                _ => {}
            }
        }
    }
    named.retain(|name| !FOR_ALL.contains(name));
    named
}

/// Puts the prefix that was taken off back into where an answer leads, and into the paths of its cookies. The service is
/// known by any of these names, its own and the one that it was called by.
pub(crate) fn restore_prefix(headers: &mut HeaderMap, prefix: &str, names: &[&str]) {
    let location = headers.get(header::LOCATION);
    let restored = location
        .and_then(|value| value.to_str().ok())
        .and_then(|location| path_within(location, names))
        .and_then(|path| HeaderValue::try_from(behind(prefix, path)).ok());
    if let Some(restored) = restored {
        headers.insert(header::LOCATION, restored);
    }
    if let header::Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) {
        for cookie in cookies.iter_mut() {
            let restored = cookie.to_str().ok().and_then(|text| {
                let restored = cookie_with_prefix(text, prefix)?;
                HeaderValue::try_from(restored).ok()
            });
            if let Some(restored) = restored {
                *cookie = restored;
            }
        }
    }
}

/// The path with the prefix, which a service that knows of it may have put there itself.
fn behind(prefix: &str, path: &str) -> String {
    match path.strip_prefix(prefix) {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => path.to_owned(),
        _ => format!("{prefix}{path}"),
    }
}

/// The path of a location, with its query, if it is one of the service with these names.
fn path_within<'l>(location: &'l str, names: &[&str]) -> Option<&'l str> {
    let Some((scheme, rest)) = location.split_once("://") else {
        let is_path = location.starts_with('/') && !location.starts_with("//");
        return (is_path || location.is_empty()).then_some(location);
    };
    if !["http", "https"]
        .iter()
        .any(|one| scheme.eq_ignore_ascii_case(one))
    {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let is_own = names
        .iter()
        .any(|name| authority.eq_ignore_ascii_case(name));
    is_own.then_some(path)
}

/// The cookie for the path behind the prefix, if it names a path. One whose name begins with `__Host-` has to be for `/`.
fn cookie_with_prefix(cookie: &str, prefix: &str) -> Option<String> {
    if cookie
        .trim_start()
        .get(..7)
        .is_some_and(|name| name.eq_ignore_ascii_case("__Host-"))
    {
        return None;
    }
    let is_path = |attribute: &str| {
        let (name, path) = attribute.split_once('=')?;
        let path = path.trim();
        (name.trim().eq_ignore_ascii_case("path") && path.starts_with('/')).then(|| path.to_owned())
    };
    let attributes = cookie.split(';').enumerate().map(|(index, attribute)| {
        // The first is the cookie itself.
        match is_path(attribute).filter(|_| index > 0) {
            Some(path) => format!(" Path={}", behind(prefix, &path)),
            None => attribute.to_owned(),
        }
    });
    let restored = attributes.collect::<Vec<_>>().join(";");
    (restored != cookie).then_some(restored)
}

#[cfg(test)]
mod tests;
