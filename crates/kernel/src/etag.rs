//! Entity tags (RFC 9110 §8.8.3), so that a client or cache does not fetch again what it has.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// `Cache-Control` of an answer that depends on the caller and is checked again before each use.
pub const REVALIDATE: HeaderValue = HeaderValue::from_static("private, max-age=0, must-revalidate");

/// The strong tag of these bytes.
///
/// # Panics
/// Never: quoted hexadecimal digits are a header value.
pub fn of(bytes: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(bytes);
    let hex: String = digest[..12]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("\"{hex}\"")).expect("quoted hexadecimal digits")
}

/// The answer with its tag and `Cache-Control`, or 304 where `If-None-Match` in the request's
/// headers names the tag.
pub fn answer(
    headers: &HeaderMap,
    tag: HeaderValue,
    cache_control: HeaderValue,
    full: impl IntoResponse,
) -> Response {
    let is_known = is_known(headers, &tag);
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, cache_control)];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, caching).into_response(),
        false => (caching, full).into_response(),
    }
}

/// A view as JSON of the content type `kind`, with its `ETag`, or 304.
///
/// # Panics
/// If a map in it has keys that are not text.
pub fn cacheable<T: Serialize>(headers: &HeaderMap, kind: HeaderValue, value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("views have text keys only");
    let full = ([(header::CONTENT_TYPE, kind)], body);
    answer(headers, of(&full.1), REVALIDATE, full)
}

/// Whether `If-None-Match` names this tag: alone, in a list, as a weak one (`W/`), or by `*`. One with a comma in
/// it is not found, for the list is split there.
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tag = tag.as_bytes();
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    let mut known = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    known.any(|known| {
        let known = known.trim_ascii();
        known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_none_match(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        headers.append(header::IF_NONE_MATCH, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn tags_distinguish_bytes_and_are_recognized_in_every_form() {
        let tag = of(b"abc");
        assert_eq!(tag, "\"ba7816bf8f01cfea414140de\"");
        let known = |value: &str| is_known(&if_none_match(value), &tag);
        let text = tag.to_str().expect("ASCII");
        assert!(known(text));
        assert!(known(&format!("W/{text}")));
        assert!(known(&format!("\"a\" ,W/\"b\",\t{text} ")));
        assert!(known("*"));
        assert!(!known("ba7816bf8f01cfea414140de"));
        assert!(!known("\"\", \"*\", W/"));
        assert!(!is_known(&HeaderMap::new(), &tag));
        assert_ne!(of(b"xyz"), tag);
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let json = HeaderValue::from_static("application/json");
        let first = cacheable(&HeaderMap::new(), json.clone(), &[1, 2]);
        let tag = first.headers()[header::ETAG].to_str().expect("ASCII");
        assert_eq!(
            (first.status().as_u16(), tag),
            (200, of(b"[1,2]").to_str().expect("ASCII"))
        );
        let headers = if_none_match(tag);
        assert_eq!(cacheable(&headers, json.clone(), &[1, 2]).status(), 304);
        assert_eq!(cacheable(&headers, json, &[1, 3]).status(), 200);
    }
}
