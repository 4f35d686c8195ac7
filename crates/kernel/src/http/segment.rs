use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A segment of a path, decoded; the last one is that at `place_from_end` 0. For handlers without a router, whose
/// route has matched the path. `None`: it is not UTF-8.
#[must_use]
pub fn segment(path: &str, place_from_end: usize) -> Option<Cow<'_, str>> {
    let segment = path.rsplit('/').nth(place_from_end).unwrap_or_default();
    percent_decode_str(segment).decode_utf8().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_from_the_end_and_decoded() {
        let path = "/v1/models/caf%C3%A9/versions/%FF/predict";
        assert_eq!(segment(path, 0).as_deref(), Some("predict"));
        assert_eq!(segment(path, 1), None);
        assert_eq!(segment(path, 3).as_deref(), Some("café"));
        assert_eq!(segment("/a%2Fb/c", 1).as_deref(), Some("a/b"));
        assert_eq!(segment("/a", 9).as_deref(), Some(""));
    }
}
