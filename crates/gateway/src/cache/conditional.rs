//! What a client says that it has (RFC 9110 §13).

use auspex_kernel::etag;
use http::{HeaderMap, HeaderName, header};

use super::stored::time_of;
use crate::headers::{is_cut, is_overriding};

/// Ask whether something is still so; a cache can answer them.
pub(super) const ASKING: [HeaderName; 2] = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE];
/// Concern parts of an answer, what a change depends on, or another protocol; a cache leaves them to the service.
const OTHERS: [HeaderName; 5] = [
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::UPGRADE,
];

/// Whether only the service can answer a request. It also gets those that would be kept under what the service did not see, or
/// took for another request.
pub(super) fn needs_service(headers: &HeaderMap) -> bool {
    OTHERS.iter().any(|name| headers.contains_key(name))
        || is_overriding(headers)
        || is_cut(headers)
}

/// Whether the client that sent `asked` has the answer with the headers `has` already.
pub(super) fn is_known(asked: &HeaderMap, has: &HeaderMap) -> bool {
    if asked.contains_key(header::IF_NONE_MATCH) {
        let tag = has.get(header::ETAG);
        return tag.is_some_and(|tag| etag::is_known(asked, tag));
    }
    let since = asked.get(header::IF_MODIFIED_SINCE).and_then(time_of);
    let changed = has.get(header::LAST_MODIFIED).and_then(time_of);
    since
        .zip(changed)
        .is_some_and(|(since, changed)| changed <= since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(asked: &[(HeaderName, &str)]) -> bool {
        let map = |pairs: &[(HeaderName, &str)]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| (name.clone(), value.parse().expect("a value")))
                .collect()
        };
        let has = [
            (header::ETAG, "W/\"a\""),
            (header::LAST_MODIFIED, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        is_known(&map(asked), &map(&has))
    }

    #[test]
    fn tags_come_before_dates() {
        assert!(known(&[(header::IF_NONE_MATCH, "\"x\", \"a\"")]));
        assert!(known(&[(header::IF_NONE_MATCH, "W/\"a\"")]));
        assert!(!known(&[(header::IF_NONE_MATCH, "\"b\"")]));
        let same = "Sun, 06 Nov 1994 08:49:37 GMT";
        let before = "Sun, 06 Nov 1994 08:49:36 GMT";
        assert!(known(&[(header::IF_MODIFIED_SINCE, same)]));
        assert!(!known(&[(header::IF_MODIFIED_SINCE, before)]));
        assert!(!known(&[(header::IF_MODIFIED_SINCE, "yesterday")]));
        let both = [
            (header::IF_NONE_MATCH, "\"b\""),
            (header::IF_MODIFIED_SINCE, same),
        ];
        assert!(!known(&both));
        assert!(!known(&[]));
    }
}
