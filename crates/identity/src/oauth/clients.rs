//! Clients are registered, recognised and removed here.

use std::sync::Arc;

use auspex_kernel::Scope;
use auspex_kernel::id::ClientId;
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::page::{Found, Slice};

use super::exchange::TokenError;
use crate::audit::{Action, Actor, Event};
use crate::core::{Change, Core, Needs, Refusal};
use crate::error::IdentityError;
use crate::store;
use crate::store::Kind;
use crate::throttle::Throttle;
use crate::types::client::{Client, ClientDraft, ClientSecret, NewClient};

pub(super) const CLIENTS_WRITE: Needs = Needs::Scope(Scope::ClientsWrite);

/// How a client says who it is.
pub(crate) struct Presented {
    pub(crate) client_id: String,
    /// None: a public client.
    pub(crate) secret: Option<String>,
}

/// Registers, finds, recognises and removes clients.
#[derive(Clone)]
pub struct Clients {
    pub(super) core: Arc<Core>,
    throttle: Arc<Throttle>,
}

impl Clients {
    pub(crate) fn new(core: Arc<Core>, throttle: Arc<Throttle>) -> Self {
        Self { core, throttle }
    }

    /// Registers a client. Its secret, if it has one, is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::NoClientMaker`], [`IdentityError::Escalation`] for
    /// scopes that the actor does not have, [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`], [`IdentityError::Randomness`].
    pub async fn create(
        &self,
        actor: &Actor,
        draft: ClientDraft,
    ) -> Result<NewClient, IdentityError> {
        Ok(self.create_once(actor, draft, Receipt::none()).await?.0)
    }

    /// The same for a request that may be repeated.
    pub(crate) async fn create_once(
        &self,
        actor: &Actor,
        draft: ClientDraft,
        receipt: Receipt<NewClient>,
    ) -> Result<(NewClient, Kept), IdentityError> {
        let wrong = draft.validate();
        if !wrong.is_empty() {
            return Err(IdentityError::Invalid(wrong));
        }
        let now = self.core.now();
        let random = &self.core.random;
        let secret = match draft.public {
            true => None,
            false => Some(ClientSecret::random(random)?),
        };
        let mut grant_types = Vec::new();
        for kind in draft.grant_types {
            if !grant_types.contains(&kind) {
                grant_types.push(kind);
            }
        }
        let client = Client {
            id: ClientId::new(&self.core.clock, random)?,
            name: draft.name,
            redirect_uris: draft.redirect_uris,
            post_logout_redirect_uris: draft.post_logout_redirect_uris,
            grant_types,
            scopes: draft.scopes,
            public: draft.public,
            created_at: now,
            created_by: actor.subject.to_string(),
        };
        let digest = secret.as_ref().map(ClientSecret::digest);
        let added = self.core.change(actor, CLIENTS_WRITE, async |change| {
            insert(change, &client, digest).await?;
            let new = NewClient { client, secret };
            let kept = receipt.keep(change.transaction, &new).await?;
            Ok((new, kept))
        });
        added.await
    }

    /// Every client, oldest first.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list(&self) -> Result<Vec<Client>, IdentityError> {
        let all = Slice::Seek {
            after: None,
            count: i64::MAX as u64,
        };
        Ok(self.page(all).await?.0)
    }

    /// Clients, oldest first.
    pub(crate) async fn page(&self, slice: Slice) -> Result<Found<Client>, IdentityError> {
        let page = self
            .core
            .db
            .list(async |connection| store::clients::page(connection, slice).await);
        Ok(page.await?)
    }

    /// The client with this id.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::Database`].
    pub async fn get(&self, id: impl AsRef<str>) -> Result<Client, IdentityError> {
        // Keeps text from the database that it cannot take, such as a NUL.
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let found = self
            .core
            .db
            .read(async |connection| store::clients::by_id(connection, &id).await);
        found.await?.ok_or(IdentityError::ClientNotFound)
    }

    /// The client with exactly this id.
    pub(super) async fn find(&self, id: &str) -> Result<Option<Client>, IdentityError> {
        match self.get(id).await {
            // Ids are found in either case; here they are compared with what was issued.
            Ok(client) => Ok(Some(client).filter(|client| client.id.as_str() == id)),
            Err(IdentityError::ClientNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The client that proves to be who it says. The failure of one that exists is recorded. Failures
    /// count for the address like wrong passwords; the right secret, which is too long to be guessed, is
    /// never refused.
    ///
    /// # Errors
    /// [`TokenError::InvalidClient`], [`TokenError::Failed`], also where the address has failed too
    /// often.
    pub(crate) async fn authenticate(
        &self,
        actor: &Actor,
        presented: &Presented,
    ) -> Result<Client, TokenError> {
        // Keeps text from the database that it cannot take. Ids are taken as they were issued.
        let id = ClientId::parse(&presented.client_id);
        let id = id.filter(|id| id.as_str() == presented.client_id);
        let found = match id {
            Some(id) => {
                let found = self
                    .core
                    .db
                    .read(async |connection| store::clients::with_secret(connection, &id).await);
                found.await.map_err(IdentityError::from)?
            }
            None => None,
        };
        let target = found
            .as_ref()
            .map(|(client, _)| format!("client:{}", client.id));
        if let Some((client, known)) = found
            && known.fits(presented.secret.as_deref(), self.core.now())
        {
            // Another process may have registered it since this one last looked.
            if !self.core.directory.has_client(&client.id) {
                self.core.following.catch_up().await?;
            }
            return Ok(client);
        }
        // Of ids that nobody has there is nothing to tell, and anybody could send any number.
        if target.is_some() {
            let denied = Event::denied(Action::ClientLogin, target);
            self.core.audit.refuse(actor, denied).await?;
        }
        if let Some(address) = actor.address {
            let failed = self.throttle.failed(address, self.core.clock.steady());
            failed.map_err(IdentityError::from)?;
        }
        Err(TokenError::InvalidClient)
    }

    /// Removes a client, with its grants, codes and consents; its tokens stop at once. Only an actor who
    /// has all its scopes can.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::Escalation`],
    /// [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`].
    pub async fn delete(&self, actor: &Actor, id: impl AsRef<str>) -> Result<(), IdentityError> {
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let removed = self.core.change(actor, CLIENTS_WRITE, async |change| {
            remove(change, &id).await
        });
        removed.await
    }
}

/// A client has no end, so whoever acts by a right that has one makes none and chooses neither the secret nor
/// the addresses of another.
pub(super) async fn may_make(change: &Change<'_>, denied: Event) -> Result<(), Refusal> {
    if change.actor.has_borrowed_rights() || change.end_of_key().await?.is_some() {
        return Err(Refusal::recorded(IdentityError::NoClientMaker, denied));
    }
    Ok(())
}

async fn insert(
    change: &Change<'_>,
    client: &Client,
    secret_digest: Option<Vec<u8>>,
) -> Result<(), Refusal> {
    may_make(change, Event::denied(Action::ClientCreate, None)).await?;
    if !change.actor.scopes.contains_all(client.scopes.api) {
        return Err(IdentityError::Escalation.into());
    }
    store::clients::insert(change.transaction, client, secret_digest).await?;
    change.publish(Kind::Client, &client.id).await?;
    let made = Event::new(Action::ClientCreate, format!("client:{}", client.id))
        .with(client.scopes.to_string());
    Ok(change.record(made).await?)
}

async fn remove(change: &Change<'_>, id: &ClientId) -> Result<(), Refusal> {
    let client = store::clients::by_id(change.transaction, id).await?;
    let client = client.ok_or(IdentityError::ClientNotFound)?;
    if !change.actor.scopes.contains_all(client.scopes.api) {
        let denied = Event::denied(Action::ClientDelete, Some(format!("client:{id}")));
        return Err(Refusal::recorded(IdentityError::Escalation, denied));
    }
    store::clients::delete(change.transaction, id).await?;
    let grants = store::grants::revoke_of_client(change.transaction, id, change.now).await?;
    change.publish(Kind::Client, id).await?;
    let done =
        Event::new(Action::ClientDelete, format!("client:{id}")).with(format!("{grants} grants"));
    Ok(change.record(done).await?)
}
