//! The readers of bodies as functions of bytes.

use axum::http::{HeaderMap, HeaderValue, header};

use super::bodies::{SentDecision, SentText};
use crate::language::Language;

/// The media types that a body may be sent with, and one that is none of them.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "image/png",
];

/// The headers of a body of this type.
pub fn headers(media_type: &'static str) -> HeaderMap {
    let value = HeaderValue::from_static(media_type);
    HeaderMap::from_iter([(header::CONTENT_TYPE, value)])
}

/// The text and its language, if the body is one.
pub fn read_text(headers: &HeaderMap, body: &[u8], bytes_max: usize) -> Option<(String, Language)> {
    let sent = SentText::read(headers, body, bytes_max).ok()?;
    Some((sent.text.to_string(), sent.language))
}

/// The decision, if the body is one.
pub fn read_decision(headers: &HeaderMap, body: &[u8]) -> Option<bool> {
    SentDecision::read(headers, body)
        .ok()
        .map(|sent| sent.consent)
}
