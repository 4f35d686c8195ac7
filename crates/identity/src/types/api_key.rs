//! API keys: their format, what is stored of one, and what may be said of one.
//!
//! A key is `ax_`, 30 random base62 characters and the CRC-32 of all that in 6 more. The checksum
//! lets a mistyped or invented key be refused without hashing it, and lets secret scanners tell a
//! real key from noise. With 178 bits of chance in a key a plain SHA-256 is enough to store:
//! there is nothing to guess that a slow hash would slow down.
//!
//! A key's text exists in [`Secret`] alone. Nothing here prints it.

use std::fmt;

use auspex_kernel::error::is_shown_name;
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::{FieldError, Random, ScopeSet, Timestamp};
use sha2::{Digest as _, Sha256};

const PREFIX: &[u8] = b"ax_";
const RANDOM_CHARS: usize = 30;
const CHECKSUM_CHARS: usize = 6;
const CHECKED_LEN: usize = PREFIX.len() + RANDOM_CHARS;
const KEY_LEN: usize = CHECKED_LEN + CHECKSUM_CHARS;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const NAME_CHARS_MAX: usize = 100;

/// What may be known of a key once it is made; neither the key nor its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// What its owner calls it; several keys may share a name.
    pub name: String,
    /// What it may do. Scopes that this version does not know are left out.
    pub scopes: ScopeSet,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// The user it belongs to; keys made by operators have none.
    pub owner_id: Option<UserId>,
    /// The key that replaces it, if it was rotated.
    pub replaced_by: Option<KeyId>,
    /// When it was last used, to within about a minute in other processes.
    pub last_used_at: Option<Timestamp>,
}

impl ApiKey {
    /// How it stands.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|at| at <= now) {
            KeyState::Expired
        } else {
            KeyState::Active
        }
    }

    /// Where the key stands in the list of all keys. Ids are random, so the time of creation comes
    /// first.
    pub(crate) fn position(&self) -> String {
        format!("{}.{}", self.created_at.0, self.id)
    }
}

/// What recognises a key that is in force.
pub(crate) struct LiveKey {
    pub(crate) id: KeyId,
    pub(crate) digest: Vec<u8>,
    pub(crate) scopes: String,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) owner_id: Option<UserId>,
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It does, if its owner is not disabled.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

impl KeyState {
    /// As shown.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyState::Active => "active",
            KeyState::Expired => "expired",
            KeyState::Revoked => "revoked",
        }
    }
}

/// A key just made, with the only copy of its secret.
#[derive(Debug)]
pub struct NewKey {
    /// What is stored of it.
    pub key: ApiKey,
    /// The key to hand to its owner; it cannot be had again.
    pub secret: Secret,
}

/// The text of a key. Debug output hides it.
pub struct Secret(String);

impl Secret {
    pub(crate) fn random(random: &Random) -> Result<Self, getrandom::Error> {
        let mut key = Vec::with_capacity(KEY_LEN);
        key.extend_from_slice(PREFIX);
        while key.len() < CHECKED_LEN {
            let bytes: [u8; 2 * RANDOM_CHARS] = random.bytes()?;
            // Of the 64 values of six bits two are thrown away: a remainder would favour some
            // characters.
            let chars = bytes
                .iter()
                .filter_map(|byte| BASE62.get(usize::from(byte % 64)));
            key.extend(chars.take(CHECKED_LEN - key.len()));
        }
        key.extend_from_slice(&checksum(&key));
        Ok(Self(key.into_iter().map(char::from).collect()))
    }

    /// The key itself, to be shown to its owner once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of a whole key.
#[derive(Clone, Copy)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of a presented token; `None`, and nothing hashed, if it has not a key's shape.
    pub(crate) fn of_token(token: &[u8]) -> Option<Self> {
        is_well_formed(token).then(|| Self::of(token))
    }

    /// What the database holds; `None` if it is no SHA-256.
    pub(crate) fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(crate) fn as_array(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 bytes as a number.
    pub(crate) fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

fn is_well_formed(token: &[u8]) -> bool {
    token.len() == KEY_LEN
        && token.starts_with(PREFIX)
        && token[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric)
        && token[CHECKED_LEN..] == checksum(&token[..CHECKED_LEN])
}

/// CRC-32 in base62, most significant digit first, padded with `0`. 62⁶ is more than 2³².
fn checksum(checked: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(checked);
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// Reads stored scopes and hands those it does not know, which a newer version wrote, to `unknown`.
pub(crate) fn read_scopes<'t>(text: &'t str, mut unknown: impl FnMut(&'t str)) -> ScopeSet {
    let known = |word: &'t str| word.parse().map_err(|_| unknown(word)).ok();
    text.split_ascii_whitespace().filter_map(known).collect()
}

/// Everything wrong with a key to be made.
pub(crate) fn validate(
    name: &str,
    scopes: ScopeSet,
    expires_at: Option<Timestamp>,
    now: Timestamp,
) -> Vec<FieldError> {
    let wrong_name = !is_name(name) || !is_shown_name(name);
    let no_scope = scopes.iter().next().is_none();
    let in_the_past = expires_at.is_some_and(|at| at <= now);
    [
        (
            wrong_name,
            "name",
            "must be 1 to 100 printable characters, without blanks at its ends",
        ),
        (no_scope, "scopes", "must hold at least one scope"),
        (in_the_past, "expires_at", "must be in the future"),
    ]
    .into_iter()
    .filter(|(wrong, ..)| *wrong)
    .map(|(_, field, message)| FieldError {
        field: field.into(),
        message: message.into(),
    })
    .collect()
}

/// Whether a key may have this name, which may be older than the rule for new ones.
pub(crate) fn is_name(name: &str) -> bool {
    !name.trim().is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use auspex_kernel::Scope;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn generated_keys_have_the_published_shape() {
        let mut seen = BTreeSet::new();
        for _ in 0..2_000 {
            let secret = Secret::random(&Random::system()).unwrap();
            let key = secret.expose();
            assert_eq!(key.len(), 39);
            assert!(key.starts_with("ax_"));
            assert!(is_well_formed(key.as_bytes()));
            seen.extend(key[3..33].bytes());
        }
        assert_eq!(seen.len(), 62, "every character occurs");
    }

    #[test]
    fn checksum_is_padded_and_covers_the_prefix() {
        // CRC-32 of "123456789" is 0xcbf43926, the check value of every CRC catalogue.
        assert_eq!(&checksum(b"123456789"), b"3jZRME");
        assert_eq!(&checksum(b""), b"000000");
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let now = Timestamp(10);
        let fields = |wrong: Vec<FieldError>| -> Vec<String> {
            wrong.into_iter().map(|error| error.field).collect()
        };
        assert_eq!(
            fields(validate(" ", ScopeSet::default(), Some(now), now)),
            ["name", "scopes", "expires_at"]
        );
        let one = ScopeSet::from_iter([Scope::Predict]);
        assert_eq!(validate("batch job", one, Some(Timestamp(11)), now), []);
        assert_eq!(validate(&"é".repeat(100), one, None, now), []);
        for name in ["", "\t", &"x".repeat(101), "a\nb", "a\u{202e}b", "a\0"] {
            assert_eq!(fields(validate(name, one, None, now)), ["name"], "{name:?}");
        }
    }

    #[test]
    fn unknown_scopes_are_handed_over_and_left_out() {
        let mut unknown = Vec::new();
        let scopes = read_scopes("predict moon:land models:read", |word| unknown.push(word));
        assert_eq!(scopes.to_string(), "predict models:read");
        assert_eq!(unknown, ["moon:land"]);
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_keys(token in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(Digest::of_token(&token).is_none());
        }

        #[test]
        fn text_of_the_right_shape_is_no_key_without_its_checksum(
            body in "[0-9A-Za-z]{30}", sum in "[0-9A-Za-z]{6}",
        ) {
            let token = format!("ax_{body}{sum}");
            let right = checksum(format!("ax_{body}").as_bytes()) == sum.as_bytes();
            prop_assert_eq!(Digest::of_token(token.as_bytes()).is_some(), right);
        }

        #[test]
        fn any_flipped_bit_is_noticed(byte in 0..KEY_LEN, bit in 0..8_u32) {
            let mut token = Secret::random(&Random::system()).unwrap().expose().as_bytes().to_vec();
            prop_assert!(Digest::of_token(&token).is_some());
            token[byte] ^= 1_u8 << bit;
            prop_assert!(Digest::of_token(&token).is_none());
        }
    }
}
