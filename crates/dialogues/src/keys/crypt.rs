//! XChaCha20-Poly1305 with a random nonce in front of what it seals. The nonce is long enough to be
//! drawn by chance for any number of texts under one key.

use auspex_kernel::Random;
use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::{Zeroize as _, Zeroizing};

const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// What sealing adds.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A key that is overwritten when it is dropped.
#[derive(Clone)]
pub(crate) struct Key(Zeroizing<[u8; 32]>);

impl Key {
    pub(crate) fn random(random: &Random) -> Result<Self, getrandom::Error> {
        Ok(Self(Zeroizing::new(random.bytes()?)))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        (bytes.len() == key.len()).then(|| {
            key.copy_from_slice(bytes);
            Self(key)
        })
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Ready to seal and to open; setting up costs a few copies.
    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }

    /// Encrypts. The result is opened only with the same `context`, which is not part of it: what
    /// was moved to another row does not open there.
    pub(crate) fn seal(
        &self,
        random: &Random,
        context: &[u8],
        plain: &[u8],
    ) -> Result<Vec<u8>, getrandom::Error> {
        let nonce: [u8; NONCE_BYTES] = random.bytes()?;
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let body = &mut sealed[NONCE_BYTES..];
        let tag = self
            .cipher()
            .encrypt_inout_detached(&XNonce::from(nonce), context, body.into())
            .expect("no text is as long as 256 GiB");
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Decrypts; `None` if it was not sealed by this key with this context.
    pub(crate) fn open(&self, context: &[u8], mut sealed: Vec<u8>) -> Option<Zeroizing<Vec<u8>>> {
        let body_end = sealed.len().checked_sub(TAG_BYTES)?;
        let nonce: [u8; NONCE_BYTES] = sealed.get(..NONCE_BYTES)?.try_into().ok()?;
        let tag: [u8; TAG_BYTES] = sealed[body_end..].try_into().ok()?;
        let body = sealed.get_mut(NONCE_BYTES..body_end)?;
        let opened = self.cipher().decrypt_inout_detached(
            &XNonce::from(nonce),
            context,
            body.into(),
            &Tag::from(tag),
        );
        if opened.is_err() {
            sealed.zeroize();
            return None;
        }
        sealed.truncate(body_end);
        sealed.drain(..NONCE_BYTES);
        Some(Zeroizing::new(sealed))
    }
}

/// Shows nothing.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key {
        Key::random(&Random::system()).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_with_the_same_key_and_context_alone(
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            place in any::<proptest::sample::Index>(),
        ) {
            let (key, random) = (key(), Random::system());
            let sealed = key.seal(&random, b"row 1", &plain).unwrap();
            prop_assert_eq!(sealed.len(), plain.len() + SEAL_BYTES);
            let opened = key.open(b"row 1", sealed.clone());
            prop_assert_eq!(opened.as_deref(), Some(&plain));
            prop_assert!(key.open(b"row 2", sealed.clone()).is_none());
            prop_assert!(super::tests::key().open(b"row 1", sealed.clone()).is_none());
            let mut damaged = sealed.clone();
            damaged[place.index(sealed.len())] ^= 1;
            prop_assert!(key.open(b"row 1", damaged).is_none());
            prop_assert!(key.open(b"row 1", sealed[..place.index(sealed.len())].to_vec()).is_none());
        }
    }

    #[test]
    fn equal_texts_are_sealed_differently() {
        let (key, random) = (key(), Random::system());
        let seal = || key.seal(&random, b"", b"yes").unwrap();
        assert_ne!(seal(), seal());
    }
}
