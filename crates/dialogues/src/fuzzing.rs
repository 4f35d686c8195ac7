//! What fuzz targets call: the readers of bodies, which no other crate needs.

pub use crate::http::fuzzing::{MEDIA_TYPES, headers, read_decision, read_text};
