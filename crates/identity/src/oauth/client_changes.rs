//! What can be changed about a client that is registered: what it is called, where its users go, what it
//! may be given, and its secret.

use std::collections::BTreeSet;
use std::time::Duration;

use auspex_kernel::id::ClientId;
use auspex_kernel::idempotency::{Kept, Receipt};

use super::clients::{CLIENTS_WRITE, Clients, may_make};
use crate::audit::{Action, Actor, Event};
use crate::core::{Change, Refusal};
use crate::error::IdentityError;
use crate::store;
use crate::store::Kind;
use crate::types::client::{Client, ClientChange, ClientDraft, ClientSecret, NewClient};
use crate::types::redirect;

impl Clients {
    /// Changes a client; `expected` says whether it is in the state that the caller has seen. Only an
    /// actor who has all scopes of the client can, before and after: who chooses where codes are sent
    /// can use them. If it loses a scope, its logins end; if it then is no longer what users agreed to,
    /// they are asked again.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::VersionMismatch`],
    /// [`IdentityError::Invalid`], [`IdentityError::NoClientMaker`], [`IdentityError::Escalation`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`].
    pub async fn update(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
        change: ClientChange,
        expected: impl Fn(&Client) -> bool,
    ) -> Result<Client, IdentityError> {
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let changed = self.core.change(actor, CLIENTS_WRITE, async |making| {
            apply(making, &id, change, expected).await
        });
        changed.await
    }

    /// Gives a client another secret, which is returned this once. The one before works on for a while;
    /// meanwhile only a rotation without overlap, which ends all others at once, is possible.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::NoSecret`], [`IdentityError::SecretsOverlap`],
    /// [`IdentityError::NoClientMaker`], [`IdentityError::Escalation`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`], [`IdentityError::Randomness`].
    pub async fn rotate_secret(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
        overlap: Duration,
    ) -> Result<NewClient, IdentityError> {
        let rotated = self.rotate_secret_once(actor, id, overlap, Receipt::none());
        Ok(rotated.await?.0)
    }

    /// The same for a request that may be repeated.
    pub(crate) async fn rotate_secret_once(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
        overlap: Duration,
        receipt: Receipt<NewClient>,
    ) -> Result<(NewClient, Kept), IdentityError> {
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let secret = ClientSecret::random(&self.core.random)?;
        let rotated = self.core.change(actor, CLIENTS_WRITE, async |change| {
            let client = replace_secret(change, &id, secret.digest(), overlap).await?;
            let new = NewClient {
                client,
                secret: Some(secret),
            };
            let kept = receipt.keep(change.transaction, &new).await?;
            Ok((new, kept))
        });
        rotated.await
    }
}

async fn apply(
    making: &Change<'_>,
    id: &ClientId,
    change: ClientChange,
    expected: impl Fn(&Client) -> bool,
) -> Result<Client, Refusal> {
    let transaction = making.transaction;
    may_make(making, denied(id)).await?;
    let before = store::clients::by_id(transaction, id).await?;
    let before = before.ok_or(IdentityError::ClientNotFound)?;
    if !expected(&before) {
        return Err(IdentityError::VersionMismatch.into());
    }
    let after = change.applied_to(&before);
    let wrong = ClientDraft::of(&after).validate();
    if !wrong.is_empty() {
        return Err(IdentityError::Invalid(wrong).into());
    }
    if after == before {
        return Ok(before);
    }
    if !reaches(making, &before, &after) {
        return Err(beyond_reach(id));
    }
    store::clients::update(transaction, &after).await?;
    making.publish(Kind::Client, id).await?;
    if is_unlike(&after, &before) {
        store::consents::delete_of_client(transaction, id).await?;
    }
    let mut done = changed(id);
    if !after.scopes.contains_all(before.scopes) {
        store::clients::delete_codes(transaction, id).await?;
        let grants = store::grants::revoke_of_client(transaction, id, making.now).await?;
        done = done.with(format!("{grants} grants"));
    }
    making.record(done).await?;
    Ok(after)
}

/// Whether users agreed to something else than the client is now: it leads to places that they were not
/// shown, or lost a scope, which must not come back with what they once agreed to.
fn is_unlike(after: &Client, before: &Client) -> bool {
    let places = |client: &Client| -> BTreeSet<String> {
        let uris = client.redirect_uris.iter();
        uris.map(|uri| redirect::shown(uri)).collect()
    };
    !places(after).is_subset(&places(before)) || !after.scopes.contains_all(before.scopes)
}

async fn replace_secret(
    change: &Change<'_>,
    id: &ClientId,
    digest: Vec<u8>,
    overlap: Duration,
) -> Result<Client, Refusal> {
    may_make(change, denied(id)).await?;
    let found = store::clients::with_secret(change.transaction, id).await?;
    let (client, secret) = found.ok_or(IdentityError::ClientNotFound)?;
    let old = secret.current.ok_or(IdentityError::NoSecret)?;
    if !reaches(change, &client, &client) {
        return Err(beyond_reach(id));
    }
    let overlapping = secret.old.filter(|(_, until)| *until > change.now);
    if let Some((_, until)) = overlapping.filter(|_| !overlap.is_zero()) {
        return Err(IdentityError::SecretsOverlap(until).into());
    }
    let until = change.now + overlap;
    store::clients::replace_secret(change.transaction, id, digest, old, until).await?;
    change.record(changed(id).with("secret".to_owned())).await?;
    Ok(client)
}

/// Whether the actor may do all that the client may, before and after.
fn reaches(change: &Change<'_>, before: &Client, after: &Client) -> bool {
    let needed = before.scopes.api.union(after.scopes.api);
    change.actor.scopes.contains_all(needed)
}

fn beyond_reach(id: &ClientId) -> Refusal {
    Refusal::recorded(IdentityError::Escalation, denied(id))
}

fn denied(id: &ClientId) -> Event {
    Event::denied(Action::ClientUpdate, Some(format!("client:{id}")))
}

fn changed(id: &ClientId) -> Event {
    Event::new(Action::ClientUpdate, format!("client:{id}"))
}
