//! The readers of bodies as functions of bytes.

use axum::http::HeaderMap;

use super::bodies::{SentDecision, SentText};
use crate::language::Language;

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
