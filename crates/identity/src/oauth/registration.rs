//! Registering and removing clients.

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::{Scope, Timestamp, id};

use super::client::{Client, ClientDraft, ClientSecret, NewClient};
use crate::audit::{Action, Actor, Event};
use crate::error::IdentityError;
use crate::store::Kind;
use crate::{Identity, store};

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
            id: id::new_id(now)?,
            name: draft.name,
            redirect_uris: draft.redirect_uris,
            grant_types,
            scopes: draft.scopes,
            public: draft.public,
            created_at: now,
            created_by: actor.subject.clone(),
        };
        let digest = secret.as_ref().map(ClientSecret::digest);
        let (stored, actor) = (client.clone(), actor.clone());
        let written = self
            .db
            .write(async |transaction| insert(transaction, actor, stored, digest, now).await);
        written.await??;
        self.put_in_force().await;
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
    pub async fn get_client(&self, id: &str) -> Result<Client, IdentityError> {
        // Keeps text from the database that it cannot take, such as a NUL.
        let id = id::parse_id(id).ok_or(IdentityError::ClientNotFound)?;
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
    pub async fn delete_client(&self, actor: &Actor, id: &str) -> Result<(), IdentityError> {
        let id = id::parse_id(id).ok_or(IdentityError::ClientNotFound)?;
        let (actor, now) = (actor.clone(), self.clock.now());
        let deleted = self
            .db
            .write(async |transaction| remove(transaction, actor, id, now).await);
        deleted.await??;
        self.catch_up().await
    }
}

/// A refusal is no error of the database.
type Decided<T> = Result<Result<T, IdentityError>, DbError>;

async fn insert(
    transaction: &Transaction,
    actor: Actor,
    client: Client,
    secret_digest: Option<Vec<u8>>,
    now: Timestamp,
) -> Decided<()> {
    store::lock(transaction).await?;
    let actor = match actor
        .renewed(transaction, Some(Scope::ClientsWrite), now)
        .await?
    {
        Ok(actor) => actor,
        Err(ended) => return Ok(Err(ended)),
    };
    if !actor.scopes.contains_all(client.scopes.api) {
        return Ok(Err(IdentityError::Escalation));
    }
    store::clients::insert(transaction, &client, secret_digest).await?;
    store::record_change(transaction, Kind::Client, &client.id, now).await?;
    let made = Event::new(Action::ClientCreate, format!("client:{}", client.id))
        .with(client.scopes.to_string());
    store::audit::record(transaction, &actor, made, now).await?;
    Ok(Ok(()))
}

async fn remove(
    transaction: &Transaction,
    actor: Actor,
    id: String,
    now: Timestamp,
) -> Decided<()> {
    store::lock(transaction).await?;
    let actor = match actor
        .renewed(transaction, Some(Scope::ClientsWrite), now)
        .await?
    {
        Ok(actor) => actor,
        Err(ended) => return Ok(Err(ended)),
    };
    if !store::clients::delete(transaction, &id).await? {
        return Ok(Err(IdentityError::ClientNotFound));
    }
    let grants = store::grants::revoke_of_client(transaction, &id, now).await?;
    store::record_change(transaction, Kind::Client, &id, now).await?;
    let done =
        Event::new(Action::ClientDelete, format!("client:{id}")).with(format!("{grants} grants"));
    store::audit::record(transaction, &actor, done, now).await?;
    Ok(Ok(()))
}
