//! What fuzz targets call: the readers of bodies, which no other crate needs.

use axum::http::{HeaderMap, HeaderValue, header};

pub use crate::http::fuzzing::{read_decision, read_text};

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
