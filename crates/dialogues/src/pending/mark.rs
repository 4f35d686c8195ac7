//! What is remembered of a request with an `Idempotency-Key`: MACs under a key that only this process
//! has, or only the replicas. A plain hash would let whoever sees it check guesses at a text that its customer refused.

use auspex_kernel::Random;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Makes marks. Its key is drawn at start and kept nowhere, or is that of all replicas.
#[derive(Clone)]
pub struct Marks(Hmac<Sha256>);

/// Tells requests with an `Idempotency-Key` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Of the caller and the key.
    pub(super) key: [u8; 16],
    /// Of the body.
    pub(super) body: [u8; 16],
}

impl Marks {
    /// With a key of its own.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn new(random: &Random) -> Result<Self, getrandom::Error> {
        let key: [u8; 32] = random.bytes()?;
        Ok(Self::with_key(&key))
    }

    /// With this key, so that all who have it make the same marks.
    pub(super) fn with_key(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The mark of a request: callers cannot use each other's keys.
    pub fn mark(&self, caller: &str, key: &[u8], body: &[u8]) -> Mark {
        Mark {
            key: self.mac(&[b"key", caller.as_bytes(), key]),
            body: self.mac(&[b"body", key, body]),
        }
    }

    /// Each part is preceded by its length, so that parts cannot be split in another way.
    fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let full = mac.finalize().into_bytes();
        std::array::from_fn(|at| full[at])
    }
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_callers_keys_and_bodies_apart() {
        let marks = Marks::new(&Random::system()).expect("random bytes");
        let mark = marks.mark("key:A", b"1", b"text");
        assert_eq!(marks.mark("key:A", b"1", b"text"), mark);
        assert_ne!(marks.mark("key:B", b"1", b"text").key, mark.key);
        assert_ne!(marks.mark("key:A", b"2", b"text").key, mark.key);
        assert_ne!(
            marks.mark("key:", b"A1", b"text").key,
            marks.mark("key:A", b"1", b"text").key
        );
        let other = marks.mark("key:A", b"1", b"texts");
        assert_eq!(other.key, mark.key);
        assert_ne!(other.body, mark.body);
    }

    #[test]
    fn a_mark_says_nothing_to_who_lacks_the_key() {
        let make = || Marks::new(&Random::system()).expect("random bytes");
        assert_ne!(make().mark("a", b"1", b"x"), make().mark("a", b"1", b"x"));
    }
}
