//! The keys that sign tokens, and their rotation.
//!
//! A new key is published before it signs, for resource servers keep key sets for minutes; an old
//! one stays published until the last token that it signed has ended.

use std::time::Duration;

use auspex_kernel::Timestamp;
use serde_json::{Value, json};

use crate::audit::{Action, Actor, Event};
use crate::change::Needs;
use crate::config::Tokens;
use crate::error::IdentityError;
use crate::jwt::{Algorithm, SigningError, SigningKey, VerifyingKey};
use crate::store::signing_keys::StoredKey;
use crate::{Identity, REVOCATION_KEPT, store};

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

    /// The key set that is published (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().map(|key| key.signing.public_jwk()).collect();
        json!({"keys": keys})
    }

    /// Whether it is time to publish another key.
    fn is_due(&self, settings: &Tokens, now: Timestamp) -> bool {
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
    fn ended(&self, now: Timestamp) -> Vec<String> {
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

impl Identity {
    /// Makes the first key, or the next one where it is time, and removes those that have ended.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub async fn tend_signing_keys(&self) -> Result<(), IdentityError> {
        let (ring, now) = (self.directory.signing_keys().clone(), self.clock.now());
        let is_due = ring.is_due(&self.config.tokens, now);
        let ended = ring.ended(now);
        if !is_due && ended.is_empty() {
            return Ok(());
        }
        // Nobody can have fetched an empty set: the first key signs at once.
        let lead = match ring.0.is_empty() {
            true => Duration::ZERO,
            false => self.config.tokens.signing_lead(),
        };
        let next = match is_due {
            true => Some(self.draw_signing_key(now + lead).await?),
            false => None,
        };
        let newest = ring.0.last().map(|key| key.signing.kid().to_owned());
        let operator = Actor::operator();
        let tended = self.change(&operator, Needs::Nothing, async |change| {
            let transaction = change.transaction;
            store::signing_keys::remove(transaction, ended, now).await?;
            let stored = store::signing_keys::all(transaction).await?;
            // Another process may have been first.
            let is_last = stored.last().map(|key| &key.kid) == newest.as_ref();
            if let Some(key) = next.filter(|_| is_last) {
                change.record(made(&key)).await?;
                store::signing_keys::insert(transaction, key, now).await?;
            }
            Ok(())
        });
        tended.await
    }

    /// Makes a key that signs once it has been published for a while; its id. With `drop_others` it
    /// signs from now on, and every token signed so far is refused at once: for the day on which a
    /// key has leaked.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub async fn rotate_signing_key(
        &self,
        actor: &Actor,
        drop_others: bool,
    ) -> Result<String, IdentityError> {
        let now = self.clock.now();
        let lead = match drop_others {
            true => Duration::ZERO,
            false => self.config.tokens.signing_lead(),
        };
        let key = self.draw_signing_key(now + lead).await?;
        let kid = key.kid.clone();
        let rotated = self.change(actor, Needs::Credential, async |change| {
            let transaction = change.transaction;
            if drop_others {
                let old = store::signing_keys::all(transaction).await?;
                let old = old.into_iter().map(|key| key.kid).collect();
                store::signing_keys::remove(transaction, old, now).await?;
            }
            let others = match drop_others {
                true => "others removed",
                false => "others kept",
            };
            change.record(made(&key).with(others)).await?;
            Ok(store::signing_keys::insert(transaction, key, now).await?)
        });
        rotated.await?;
        Ok(kid)
    }

    async fn draw_signing_key(&self, signs_from: Timestamp) -> Result<StoredKey, IdentityError> {
        let algorithm = self.config.tokens.algorithm;
        // One for RSA takes a good part of a second.
        let drawn = tokio::task::spawn_blocking(move || SigningKey::generate(algorithm));
        let key = drawn.await.unwrap_or(Err(SigningError::Library))?;
        Ok(StoredKey {
            kid: key.kid().to_owned(),
            algorithm: algorithm.name().to_owned(),
            pkcs8: key.pkcs8()?.to_vec(),
            created_at: self.clock.now(),
            signs_from,
        })
    }
}

fn made(key: &StoredKey) -> Event {
    Event::new(Action::SigningKeyRotate, format!("signing_key:{}", key.kid))
}
