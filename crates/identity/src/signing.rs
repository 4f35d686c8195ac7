//! The keys that sign tokens, and their rotation.
//!
//! A new key is published before it signs, for resource servers keep key sets for minutes; an old
//! one stays published until the last token that it signed has ended.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;

use crate::audit::{Action, Actor, Event};
use crate::config;
use crate::core::{Core, Needs};
use crate::error::IdentityError;
use crate::jwt::{SigningError, SigningKey};
use crate::store;
use crate::types::signing_key::StoredKey;

/// Makes the keys that sign tokens, and replaces them in time.
#[derive(Clone)]
pub struct SigningKeys {
    core: Arc<Core>,
    settings: config::Tokens,
}

impl SigningKeys {
    pub(crate) fn new(core: Arc<Core>, settings: config::Tokens) -> Self {
        Self { core, settings }
    }

    /// Makes the first key, or the next one where it is time, and removes those that have ended.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub async fn tend(&self) -> Result<(), IdentityError> {
        let (ring, now) = (self.core.directory.signing_keys().clone(), self.core.now());
        let is_due = ring.is_due(&self.settings, now);
        let ended = ring.ended(now);
        if !is_due && ended.is_empty() {
            return Ok(());
        }
        // Nobody can have fetched an empty set: the first key signs at once.
        let lead = match ring.is_empty() {
            true => Duration::ZERO,
            false => self.settings.signing_lead(),
        };
        let next = match is_due {
            true => Some(self.draw(now + lead).await?),
            false => None,
        };
        let newest = ring.newest().map(str::to_owned);
        let operator = Actor::operator();
        let tended = self.core.change(&operator, Needs::Nothing, async |change| {
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
        tended.await?;
        if let Some(pending) = self.pending() {
            tracing::warn!("{pending}");
        }
        Ok(())
    }

    /// What is pending after a change of `identity.tokens.algorithm`, in words: tokens are signed by
    /// another one than the settings say, since the new key has to be known first.
    pub(crate) fn pending(&self) -> Option<String> {
        let (ring, now) = (self.core.directory.signing_keys(), self.core.now());
        let (wanted, signs) = (self.settings.algorithm, *ring.algorithms(now).first()?);
        if signs == wanted {
            return None;
        }
        let (signs, name) = (signs.name(), wanted.name());
        Some(match ring.signs_from(wanted, now) {
            Some(at) => format!(
                "tokens are signed with {signs} until {}, and from then on with {name}, as \
                 identity.tokens.algorithm says; clients have to take both meanwhile",
                at.to_rfc3339()
            ),
            None => format!(
                "tokens are signed with {signs} and not yet with {name}, as identity.tokens.algorithm \
                 says, because another new key is waiting; a key of {name} follows it"
            ),
        })
    }

    /// Makes a key that signs once it has been published for a while; its id. With `drop_others` it
    /// signs from now on, and every token signed so far is refused at once: for the day on which a
    /// key has leaked.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub async fn rotate(&self, actor: &Actor, drop_others: bool) -> Result<String, IdentityError> {
        let now = self.core.now();
        let lead = match drop_others {
            true => Duration::ZERO,
            false => self.settings.signing_lead(),
        };
        let key = self.draw(now + lead).await?;
        let kid = key.kid.clone();
        let rotated = self.core.change(actor, Needs::Credential, async |change| {
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

    async fn draw(&self, signs_from: Timestamp) -> Result<StoredKey, IdentityError> {
        let algorithm = self.settings.algorithm;
        // One for RSA takes a good part of a second.
        let drawn = tokio::task::spawn_blocking(move || SigningKey::generate(algorithm));
        let key = drawn.await.unwrap_or(Err(SigningError::Library))?;
        Ok(StoredKey {
            kid: key.kid().to_owned(),
            algorithm: algorithm.name().to_owned(),
            pkcs8: key.pkcs8()?.to_vec(),
            created_at: self.core.now(),
            signs_from,
        })
    }
}

fn made(key: &StoredKey) -> Event {
    Event::new(Action::SigningKeyRotate, format!("signing_key:{}", key.kid))
}
