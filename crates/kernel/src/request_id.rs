//! Names one request in answers, logs and traces.

use http::HeaderValue;

use crate::id::ALPHABET;
use crate::random::per_thread;

/// The client's own id where it is 1–64 of `[A-Za-z0-9_-]`, else `req_` and 60 random bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Takes over the client's id if it is well-formed.
    pub fn from_client(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fits = (1..=64).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        fits.then(|| Self(value.clone()))
    }

    /// A new id, unique with the usual odds of 60 random bits. Not a secret.
    pub fn generate() -> Self {
        let mut bits = per_thread();
        let mut text = *b"req_000000000000";
        for slot in &mut text[4..] {
            *slot = ALPHABET[(bits & 31) as usize];
            bits >>= 5;
        }
        Self(HeaderValue::from_bytes(&text).expect("the alphabet is ASCII"))
    }

    /// As a header value, without copying.
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0
            .to_str()
            .expect("only ASCII letters, digits, _ and -")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_taken_over_only_when_harmless() {
        let id = |text: &'static str| RequestId::from_client(&HeaderValue::from_static(text));
        assert_eq!(
            id("job-7_A").as_ref().map(RequestId::as_str),
            Some("job-7_A")
        );
        assert_eq!(id(""), None);
        assert_eq!(id("a b"), None);
        assert_eq!(id("a\"b"), None);
        let long = HeaderValue::from_str(&"x".repeat(65)).expect("ASCII");
        assert_eq!(RequestId::from_client(&long), None);
    }

    #[test]
    fn generated_ids_do_not_repeat() {
        let ids: std::collections::HashSet<_> = (0..10_000)
            .map(|_| RequestId::generate().as_str().to_owned())
            .collect();
        assert_eq!(ids.len(), 10_000);
        assert!(
            ids.iter()
                .all(|id| id.len() == 16 && id.starts_with("req_"))
        );
    }
}
