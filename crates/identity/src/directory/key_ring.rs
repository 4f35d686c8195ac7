//! The keys that sign tokens, in memory: which one signs now, and which ones still verify.

use auspex_kernel::Timestamp;
use serde_json::{Value, json};

use crate::config::{REVOCATION_KEPT, Tokens};
use crate::jwt::{Algorithm, SigningKey, VerifyingKey};
use crate::types::signing_key::StoredKey;

/// The keys there are, in the order in which they sign.
#[derive(Debug, Default)]
pub(crate) struct KeyRing(Vec<RingKey>);

#[derive(Debug)]
struct RingKey {
    signing: SigningKey,
    signs_from: Timestamp,
}

impl KeyRing {
    pub(crate) fn new(stored: Vec<StoredKey>) -> Self {
        let usable = stored.into_iter().filter_map(|key| {
            let kid = key.kid.clone();
            let read = RingKey::read(key);
            if read.is_none() {
                tracing::error!(kid, "a stored signing key cannot be read and is left out");
            }
            read
        });
        Self(usable.collect())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The id of the key that signs last.
    pub(crate) fn newest(&self) -> Option<&str> {
        self.0.last().map(|key| key.signing.kid())
    }

    /// The key to sign with.
    pub(crate) fn current(&self, now: Timestamp) -> Option<&SigningKey> {
        let ready = self.0.iter().rev().find(|key| key.signs_from <= now);
        Some(&ready.or(self.0.first())?.signing)
    }

    /// The key with this id, to verify by.
    pub(crate) fn verifying(&self, kid: &str) -> Option<&VerifyingKey> {
        let key = self.0.iter().find(|key| key.signing.kid() == kid)?;
        Some(key.signing.verifying_key())
    }

    /// What signs now, and what will by a key that is waiting: what clients must be able to verify from
    /// now on.
    pub(crate) fn algorithms(&self, now: Timestamp) -> Vec<Algorithm> {
        let current = self.current(now).map(SigningKey::algorithm);
        let waiting = self.0.iter().filter(|key| key.signs_from > now);
        let waiting = waiting.map(|key| key.signing.algorithm());
        let mut algorithms: Vec<_> = current.into_iter().chain(waiting).collect();
        algorithms.dedup();
        algorithms
    }

    /// When the first key of this algorithm begins to sign, if it has not yet.
    pub(crate) fn signs_from(&self, algorithm: Algorithm, now: Timestamp) -> Option<Timestamp> {
        let waiting = self.0.iter().filter(|key| key.signs_from > now);
        let mut waiting = waiting.filter(|key| key.signing.algorithm() == algorithm);
        waiting.next().map(|key| key.signs_from)
    }

    /// The key set that is published (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().map(|key| key.signing.public_jwk()).collect();
        json!({"keys": keys})
    }

    /// Whether it is time to publish another key.
    pub(crate) fn is_due(&self, settings: &Tokens, now: Timestamp) -> bool {
        self.0.last().is_none_or(|last| {
            if last.signs_from > now {
                // One is waiting already: of two processes with two algorithms in their settings each
                // would want the last word.
                return false;
            }
            let end = last.signs_from + settings.signing_period();
            end - settings.signing_lead() <= now || last.signing.algorithm() != settings.algorithm
        })
    }

    /// Those that signed nothing that could still be valid.
    pub(crate) fn ended(&self, now: Timestamp) -> Vec<String> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs
            .filter(|(_, next)| next.signs_from + REVOCATION_KEPT < now)
            .map(|(key, _)| key.signing.kid().to_owned())
            .collect()
    }
}

impl RingKey {
    fn read(key: StoredKey) -> Option<Self> {
        let algorithm = Algorithm::named(&key.algorithm)?;
        let signing = SigningKey::from_pkcs8(algorithm, &key.pkcs8).ok()?;
        Some(Self {
            signing,
            signs_from: key.signs_from,
        })
    }
}
