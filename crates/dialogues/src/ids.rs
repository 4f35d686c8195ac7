//! The ids that a chatbot gives to customers and dialogues, and the pseudonyms that stand for them
//! everywhere else.
//!
//! An id may be a name or a telephone number, so none is ever stored in the clear, logged or shown
//! by `Debug`. A pseudonym is a keyed hash of it: the same for the same id, and for nobody
//! without the key a way back.

use std::fmt;
use std::hash::{Hash, Hasher};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
const REF_BYTES: usize = 16;
/// Five bits each: 128 bits, and two zeros in front of them.
const REF_CHARS: usize = 26;
/// Crockford's base32.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {ID_BYTES_MAX} bytes of UTF-8 without control characters")]
pub struct NotAnId;

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident, $(#[$ref_doc:meta])* $reference:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// 1 to 128 bytes of UTF-8 without control characters; nothing else is known of it.
        #[derive(Clone, PartialEq, Eq)]
        pub struct $id(Zeroizing<String>);

        impl Hash for $id {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.as_str().hash(state);
            }
        }

        impl $id {
            /// From the text of a request.
            ///
            /// # Errors
            /// [`NotAnId`].
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                let is_id = (1..=ID_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
                is_id.then(|| Self(Zeroizing::new(text.to_owned()))).ok_or(NotAnId)
            }

            /// As the chatbot sent it.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($id), "(not shown)"))
            }
        }

        $(#[$ref_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $reference([u8; REF_BYTES]);

        impl $reference {
            /// From its text, as in a filter.
            pub fn parse(text: &str) -> Option<Self> {
                parse_ref(text.strip_prefix($prefix)?).map(Self)
            }

            /// As it is stored.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// As it is stored.
            pub fn as_bytes(&self) -> &[u8; REF_BYTES] {
                &self.0
            }
        }

        impl fmt::Display for $reference {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&text_of($prefix, self.0))
            }
        }

        impl fmt::Debug for $reference {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// Whom the chatbot talks to, as the chatbot calls them.
    CustomerId,
    /// Stands for a customer: `c_` and 26 characters.
    CustomerRef, "c_";
    /// A conversation, as the chatbot calls it. One dialogue belongs to one customer.
    DialogId,
    /// Stands for a dialogue: `d_` and 26 characters.
    DialogueRef, "d_";
}

/// Makes pseudonyms of ids.
#[derive(Clone)]
pub struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// With this key. Under another one every pseudonym would be another.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("a key of any length"))
    }

    /// Stands for this customer.
    pub fn customer(&self, id: &CustomerId) -> CustomerRef {
        CustomerRef(self.cut(b'c', id.expose()))
    }

    /// Stands for this dialogue.
    pub fn dialogue(&self, id: &DialogId) -> DialogueRef {
        DialogueRef(self.cut(b'd', id.expose()))
    }

    fn cut(&self, kind: u8, id: &str) -> [u8; REF_BYTES] {
        let mut mac = self.0.clone();
        mac.update(&[kind]);
        mac.update(id.as_bytes());
        let digest: [u8; 32] = mac.finalize().into_bytes().into();
        std::array::from_fn(|place| digest[place])
    }
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms").finish_non_exhaustive()
    }
}

fn text_of(prefix: &str, bytes: [u8; REF_BYTES]) -> String {
    let bits = u128::from_be_bytes(bytes);
    let digit = |place: usize| char::from(ALPHABET[(bits >> (5 * place) & 31) as usize]);
    let digits = (0..REF_CHARS).rev().map(digit);
    prefix.chars().chain(digits).collect()
}

fn parse_ref(text: &str) -> Option<[u8; REF_BYTES]> {
    let digit = |byte| ALPHABET.iter().position(|digit| *digit == byte);
    // The first of 26 digits has two bits that 128 bits do not fill.
    let fits = text.len() == REF_CHARS && digit(*text.as_bytes().first()?)? < 8;
    let add = |bits: u128, byte| Some(bits << 5 | digit(byte)? as u128);
    let bits = text.bytes().try_fold(0, add)?;
    fits.then(|| bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_bounded_and_never_shown() {
        let id = CustomerId::parse("María ✓ 1").unwrap();
        assert_eq!(id.expose(), "María ✓ 1");
        assert_eq!(format!("{id:?}"), "CustomerId(not shown)");
        assert!(DialogId::parse(&"x".repeat(128)).is_ok());
        for wrong in [
            "",
            "a\nb",
            "a\u{7f}",
            "a\u{85}",
            &"x".repeat(129),
            &"é".repeat(65),
        ] {
            assert_eq!(DialogId::parse(wrong), Err(NotAnId));
        }
    }

    #[test]
    fn a_pseudonym_depends_on_key_kind_and_id() {
        let (one, other) = (Pseudonyms::new(&[1; 32]), Pseudonyms::new(&[2; 32]));
        let (id, dialogue) = (
            CustomerId::parse("7").unwrap(),
            DialogId::parse("7").unwrap(),
        );
        assert_eq!(one.customer(&id), one.customer(&id));
        assert_ne!(one.customer(&id), other.customer(&id));
        assert_ne!(
            one.customer(&id).as_bytes(),
            one.dialogue(&dialogue).as_bytes()
        );
        assert_ne!(
            one.customer(&id),
            one.customer(&CustomerId::parse("8").unwrap())
        );
    }

    proptest! {
        #[test]
        fn a_pseudonym_is_read_as_it_is_shown(bytes: [u8; REF_BYTES], garbage in "(c_)?[0-9a-z]{24,28}") {
            let shown = CustomerRef(bytes).to_string();
            prop_assert_eq!(shown.len(), 28);
            prop_assert_eq!(CustomerRef::parse(&shown), Some(CustomerRef(bytes)));
            prop_assert_eq!(DialogueRef::parse(&shown), None);
            if let Some(read) = CustomerRef::parse(&garbage) {
                prop_assert_eq!(read.to_string(), garbage);
            }
        }
    }
}
