//! Entity tags (RFC 9110 §8.8.3), so that a client or cache need not fetch again what it has.

use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};

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

/// Whether `If-None-Match` names this tag: alone, in a list, as a weak one (`W/`), or by `*`.
///
/// Our tags hold no comma, so a list can be cut at its commas.
pub fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|known| {
            let known = known.trim_ascii();
            known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_tell_bytes_apart_and_are_recognized_in_every_form() {
        let tag = of(b"abc");
        assert_eq!(tag, "\"ba7816bf8f01cfea414140de\"");
        let known = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
            headers.append(header::IF_NONE_MATCH, value.parse().expect("a value"));
            is_known(&headers, &tag)
        };
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
}
