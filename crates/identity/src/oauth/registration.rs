//! Registering and removing clients.

use auspex_kernel::Scope;
use auspex_kernel::id::ClientId;

use super::client::{Client, ClientDraft, ClientSecret, NewClient};
use crate::audit::{Action, Actor, Event};
use crate::change::{Change, Needs, Refusal};
use crate::error::IdentityError;
use crate::store::Kind;
use crate::{Identity, store};

const CLIENTS_WRITE: Needs = Needs::Scope(Scope::ClientsWrite);

impl Identity {
    /// Registers a client. Its secret, if it has one, is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Escalation`] for scopes that the actor does not
    /// have, [`IdentityError::CredentialEnded`], [`IdentityError::Database`],
    /// [`IdentityError::Randomness`].
    pub async fn create_client(
        &self,
        actor: &Actor,
        draft: ClientDraft,
    ) -> Result<NewClient, IdentityError> {
        let wrong = draft.validate();
        if !wrong.is_empty() {
            return Err(IdentityError::Invalid(wrong));
        }
        let now = self.clock.now();
        let secret = (!draft.public).then(ClientSecret::random).transpose()?;
        let mut grant_types = Vec::new();
        for kind in draft.grant_types {
            if !grant_types.contains(&kind) {
                grant_types.push(kind);
            }
        }
        let client = Client {
            id: ClientId::new(now)?,
            name: draft.name,
            redirect_uris: draft.redirect_uris,
            grant_types,
            scopes: draft.scopes,
            public: draft.public,
            created_at: now,
            created_by: actor.subject.to_string(),
        };
        let digest = secret.as_ref().map(ClientSecret::digest);
        let added = self.change_for_secret(actor, CLIENTS_WRITE, async |change| {
            insert(change, &client, digest).await
        });
        added.await?;
        Ok(NewClient { client, secret })
    }

    /// Every client, oldest first.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list_clients(&self) -> Result<Vec<Client>, IdentityError> {
        let list = self
            .db
            .read(async |connection| store::clients::list(connection).await);
        Ok(list.await?)
    }

    /// The client with this id.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::Database`].
    pub async fn get_client(&self, id: impl AsRef<str>) -> Result<Client, IdentityError> {
        // Keeps text from the database that it cannot take, such as a NUL.
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let found = self
            .db
            .read(async |connection| store::clients::by_id(connection, &id).await);
        found.await?.ok_or(IdentityError::ClientNotFound)
    }

    /// Removes a client, with its grants, codes and consents; its tokens stop at once.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`], [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`].
    pub async fn delete_client(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
    ) -> Result<(), IdentityError> {
        let id = ClientId::parse(id.as_ref()).ok_or(IdentityError::ClientNotFound)?;
        let removed = self.change(actor, CLIENTS_WRITE, async |change| {
            remove(change, &id).await
        });
        removed.await
    }
}

async fn insert(
    change: &Change<'_>,
    client: &Client,
    secret_digest: Option<Vec<u8>>,
) -> Result<(), Refusal> {
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
    if !store::clients::delete(change.transaction, id).await? {
        return Err(IdentityError::ClientNotFound.into());
    }
    let grants = store::grants::revoke_of_client(change.transaction, id, change.now).await?;
    change.publish(Kind::Client, id).await?;
    let done =
        Event::new(Action::ClientDelete, format!("client:{id}")).with(format!("{grants} grants"));
    Ok(change.record(done).await?)
}
