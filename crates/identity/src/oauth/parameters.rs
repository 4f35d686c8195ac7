//! Parameters of a request, read strictly: what two readers could read differently is refused.

use std::collections::HashSet;

use zeroize::Zeroizing;

/// No request of the protocol has half as many.
const PARAMETERS_MAX: usize = 64;

/// Why parameters are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The body is of another media type.
    MediaType,
    /// A text is not form-encoded or not UTF-8, holds a NUL, or there are absurdly many.
    Encoding,
    /// A parameter is given more than once.
    Repeated,
}

impl Malformed {
    /// What is wrong and what to do, for the client's developer.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Malformed::MediaType => {
                "the body must be a form; send it with Content-Type: application/x-www-form-urlencoded"
            }
            Malformed::Encoding => {
                "a parameter cannot be decoded; encode each name and value in UTF-8, with % and two digits"
            }
            Malformed::Repeated => "a parameter is given more than once; send each once",
        }
    }
}

/// Decoded parameters. One without a value counts as left out (RFC 6749 §3.1).
pub(crate) struct Parameters {
    /// The values are overwritten in the end: one may be a password.
    pairs: Vec<(String, Zeroizing<String>)>,
    repeated: HashSet<String>,
}

impl Parameters {
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let mut pairs: Vec<(String, Zeroizing<String>)> = Vec::new();
        let mut repeated = HashSet::new();
        for pair in text
            .split(|byte| *byte == b'&')
            .filter(|pair| !pair.is_empty())
        {
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &b""[..]),
            };
            let (name, value) = (decode(name)?, Zeroizing::new(decode(value)?));
            if pairs.len() == PARAMETERS_MAX {
                return Err(Malformed::Encoding);
            }
            if pairs.iter().any(|(known, _)| *known == name) {
                repeated.insert(name);
            } else {
                pairs.push((name, value));
            }
        }
        Ok(Self { pairs, repeated })
    }

    /// Only the parameters of these names.
    pub(crate) fn only(mut self, names: &[&str]) -> Self {
        self.pairs
            .retain(|(name, _)| names.contains(&name.as_str()));
        self
    }

    /// The value of a parameter that was given once, or the first of several.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        let (_, value) = pairs.find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value.as_str())
    }

    /// Whether a parameter was given more than once, which is never allowed (RFC 6749 §3.1).
    pub(crate) fn repeats(&self, name: &str) -> bool {
        self.repeated.contains(name)
    }

    /// Whether any was.
    pub(crate) fn has_repeated(&self) -> bool {
        !self.repeated.is_empty()
    }

    /// All of them, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Decodes one name or value of a form.
pub(crate) fn decode(text: &[u8]) -> Result<String, Malformed> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte.unwrap_or_default()).to_digit(16);
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let (high, low) = (
                    high.ok_or(Malformed::Encoding)?,
                    low.ok_or(Malformed::Encoding)?,
                );
                u8::try_from(high << 4 | low).map_err(|_| Malformed::Encoding)?
            }
            byte => byte,
        });
    }
    match str::from_utf8(&bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(Malformed::Encoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_decoded_once_and_doubled_ones_are_noted() {
        let read = Parameters::parse(b"a=1+2%2B%C3%B1&b=&&c&a=3&d=%3D=x").unwrap();
        assert_eq!(read.get("a"), Some("1 2+ñ"));
        assert_eq!(
            (read.get("b"), read.get("c"), read.get("e")),
            (None, None, None)
        );
        assert_eq!(read.get("d"), Some("==x"));
        assert!(read.repeats("a") && read.has_repeated() && !read.repeats("d"));
        assert_eq!(read.iter().count(), 4);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for text in ["a=%", "a=%2", "a=%zz", "a=%ff", "%=1", "a=%00", "a=%+1"] {
            assert!(Parameters::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Parameters::parse(b"a=\xff").is_err());
        let many: String = (0..65).map(|i| format!("a{i}=1&")).collect();
        assert!(Parameters::parse(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(text in "[^\0]{1,60}") {
            let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            prop_assert_eq!(decode(encoded.as_bytes()), Ok(text));
        }

        #[test]
        fn garbage_is_no_panic(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parameters::parse(&text);
        }
    }
}
