//! Paths on their way to a service. They are passed on as they were matched, byte by byte: what a service
//! would read as another path than the edge did is refused.

use auspex_kernel::ApiError;
use http::Uri;
use http::uri::PathAndQuery;

/// Whether `prefix` is the begin of a route's path, up to a `/`, and has no parameters.
pub(crate) fn is_prefix(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix);
    let ends_well = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ends_well && !prefix.contains('{')
}

/// # Errors
/// 400 for a path that leads elsewhere.
pub(crate) fn check(path: &str) -> Result<(), ApiError> {
    match leads_elsewhere(path) {
        true => Err(ApiError::malformed(
            "the path must not have the segments . and .., however they are written",
        )),
        false => Ok(()),
    }
}

/// Whether a path has a segment that leads elsewhere, `.` or `..`, for whoever decodes it: also with
/// percent-encoding, with `\` for `/`, or with parameters after a `;`.
pub(crate) fn leads_elsewhere(path: &str) -> bool {
    let bytes = path.as_bytes();
    // Nearly all paths have neither.
    if !bytes.iter().any(|byte| matches!(byte, b'.' | b'%')) {
        return false;
    }
    let (mut decoded, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail
            .first_chunk::<2>()
            .map(|two| two.map(|digit| digit.to_ascii_lowercase()));
        (decoded, rest) = match (byte, hex.as_ref()) {
            (b'%', Some(b"2e")) => (with(decoded, b'.'), &tail[2..]),
            (b'%', Some(b"2f" | b"5c")) => (with(decoded, b'/'), &tail[2..]),
            (b'%', Some(b"3b")) => (with(decoded, b';'), &tail[2..]),
            (b'\\', _) => (with(decoded, b'/'), tail),
            _ => (with(decoded, byte), tail),
        };
    }
    decoded.split(|byte| *byte == b'/').any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

fn with(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// The same host, asked for something else.
pub(crate) fn at(uri: &Uri, target: PathAndQuery) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.clone());
    Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(target))
}

/// The target of a request without `prefix`, which its path begins with.
pub(crate) fn without_prefix(target: &PathAndQuery, prefix: &str) -> PathAndQuery {
    let rest = target.as_str().strip_prefix(prefix);
    let rest = match rest {
        Some(rest) if rest.starts_with('/') => PathAndQuery::try_from(rest),
        Some(rest) => PathAndQuery::try_from(format!("/{rest}")),
        None => return target.clone(),
    };
    // A part of a valid target behind a `/` is one.
    rest.unwrap_or_else(|_| target.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_with_a_segment() {
        for prefix in ["", "/orders", "/orders/new"] {
            assert!(is_prefix(prefix, "/orders/new/{*rest}"), "{prefix}");
        }
        for prefix in ["/ord", "/orders/", "/orders/new/{*rest}", "/x", "orders"] {
            assert!(!is_prefix(prefix, "/orders/new/{*rest}"), "{prefix}");
        }
    }

    #[test]
    fn dot_segments_are_found_however_they_are_written() {
        for path in [
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/%2e%2E/b",
            "/a/.%2e/b",
            "/a/..%2fb",
            "/a%2F..%2fb",
            "/a/..%5cb",
            "/a/..\\b",
            "/a/..;x=1/b",
            "/a/%2e%2e%3bx/b",
            "/%2e",
        ] {
            assert!(leads_elsewhere(path), "{path}");
        }
        for path in [
            "/",
            "/a.b",
            "/a/..b",
            "/a/...",
            "/.well-known",
            "/a%20b",
            "/a%2fb",
            "/a%2",
            "/a%",
            "/%252e%252e/a",
            "/a;..",
        ] {
            assert!(!leads_elsewhere(path), "{path}");
        }
    }

    #[test]
    fn the_host_stays_where_the_path_changes() {
        let target = PathAndQuery::from_static("/b?c");
        for (uri, expected) in [
            ("http://a.example/x?y", "http://a.example/b?c"),
            ("/x", "/b?c"),
            ("a.example:80", "/b?c"),
        ] {
            let uri: Uri = uri.parse().expect("a URI");
            assert_eq!(at(&uri, target.clone()), expected);
        }
    }

    #[test]
    fn a_prefix_is_taken_off_and_the_rest_stays_as_it_is() {
        let stripped = |target: &'static str| {
            let target = PathAndQuery::from_static(target);
            without_prefix(&target, "/orders").to_string()
        };
        assert_eq!(stripped("/orders/1%2f2?a=/orders"), "/1%2f2?a=/orders");
        assert_eq!(stripped("/orders"), "/");
        assert_eq!(stripped("/orders?a=1"), "/?a=1");
        assert_eq!(stripped("/orders//x"), "//x");
    }
}
