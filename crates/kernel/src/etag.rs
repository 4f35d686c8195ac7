//! Entity tags (RFC 9110 §8.8.3), so that a client or cache need not fetch again what it has, and
//! does not overwrite what it has not seen.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::ApiError;

const REVALIDATE: HeaderValue = HeaderValue::from_static("private, max-age=0, must-revalidate");

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

/// The strong tag of a thing as its JSON shows it.
///
/// # Panics
/// If a map in it has keys that are not text.
pub fn of_json<T: Serialize>(value: &T) -> HeaderValue {
    of(&serde_json::to_vec(value).expect("views have text keys only"))
}

/// Whether `If-None-Match` names this tag: alone, in a list, as a weak one (`W/`), or by `*`.
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let weak = |known: &[u8]| known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes();
    any(headers, header::IF_NONE_MATCH, weak)
}

/// Whether `If-Match`, where there is one, names the tag of what is about to be changed: alone, in
/// a list, or by `*`. A weak tag matches nothing (RFC 9110 §13.1.1).
///
/// # Errors
/// 412.
pub fn check_match(headers: &HeaderMap, tag: &HeaderValue) -> Result<(), ApiError> {
    let strong = |known: &[u8]| known == tag.as_bytes();
    if !headers.contains_key(header::IF_MATCH) || any(headers, header::IF_MATCH, strong) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::PRECONDITION_FAILED,
        "PRECONDITION_FAILED",
        "it has changed since it was read; GET it again, and send the change with the new ETag as \
         If-Match",
    ))
}

/// Whether a header lists a tag for which `is_meant` holds, or `*`. Our tags hold no comma, so a
/// list can be cut at its commas.
fn any(headers: &HeaderMap, name: HeaderName, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|known| {
            let known = known.trim_ascii();
            known == b"*" || is_meant(known)
        })
    })
}

/// A JSON answer with an `ETag`, or 304 when the client has it already.
///
/// # Panics
/// If a map in it has keys that are not text.
pub fn cacheable<T: Serialize>(headers: &HeaderMap, kind: HeaderValue, value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("views have text keys only");
    let tag = of(&body);
    let is_known = is_known(headers, &tag);
    let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, REVALIDATE)];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, caching).into_response(),
        false => (caching, [(header::CONTENT_TYPE, kind)], body).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append(&name, HeaderValue::from_static("\"other\""));
        headers.append(&name, value.parse().expect("a value"));
        headers
    }

    #[test]
    fn tags_tell_bytes_apart_and_are_recognized_in_every_form() {
        let tag = of(b"abc");
        assert_eq!(tag, "\"ba7816bf8f01cfea414140de\"");
        let known = |value: &str| is_known(&headers(header::IF_NONE_MATCH, value), &tag);
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
    fn changes_of_what_was_not_seen_are_refused() {
        let tag = of(b"abc");
        let check = |value: &str| check_match(&headers(header::IF_MATCH, value), &tag);
        let text = tag.to_str().expect("ASCII");
        assert!(check(text).is_ok());
        assert!(check(&format!("\"a\",\t{text} ,W/\"b\"")).is_ok());
        assert!(check("*").is_ok());
        assert!(check_match(&HeaderMap::new(), &tag).is_ok());
        for stale in [
            format!("W/{text}"),
            "\"xyz\"".into(),
            String::new(),
            "\"*\"".into(),
        ] {
            let error = check(&stale).expect_err(&stale);
            assert_eq!(error.status(), 412);
            assert_eq!(error.code(), "PRECONDITION_FAILED");
        }
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let json = HeaderValue::from_static("application/json");
        let first = cacheable(&HeaderMap::new(), json.clone(), &[1, 2]);
        let tag = first.headers()[header::ETAG].to_str().expect("ASCII");
        assert_eq!(
            (first.status().as_u16(), tag),
            (200, of_json(&[1, 2]).to_str().expect("ASCII"))
        );
        let headers = headers(header::IF_NONE_MATCH, tag);
        assert_eq!(cacheable(&headers, json.clone(), &[1, 2]).status(), 304);
        assert_eq!(cacheable(&headers, json, &[1, 3]).status(), 200);
    }
}
