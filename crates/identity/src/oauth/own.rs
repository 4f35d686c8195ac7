//! What somebody is logged in by and what they agreed to: shown to themselves, and ended by them.

use std::sync::Arc;

use auspex_kernel::Timestamp;
use auspex_kernel::id::{ClientId, SessionId, UserId};

use crate::audit::{Action, Actor, Event};
use crate::core::{Core, Needs};
use crate::error::IdentityError;
use crate::store;
use crate::types::page_session::PageSession;
use crate::types::scope::ClientScopes;
use crate::types::user::LoginMethod;

/// The most that is shown of either kind; the latest.
const SHOWN_MAX: u64 = 1_000;
/// Enough of a digest to tell the sessions of one user apart.
const ID_BYTES: usize = 8;
const BROWSER_PREFIX: &str = "browser-";

/// Where somebody is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the pages, by a cookie.
    Browser,
    /// Where tokens are that a login by `POST /v1/auth/login` gave.
    Tokens,
}

/// A login of somebody that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnSession {
    pub(crate) id: String,
    pub(crate) place: Place,
    pub(crate) authenticated_at: Timestamp,
    /// When its tokens were last refreshed.
    pub(crate) refreshed_at: Option<Timestamp>,
    pub(crate) expires_at: Timestamp,
}

/// A client that somebody let act for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnConsent {
    pub(crate) client_id: ClientId,
    pub(crate) name: String,
    /// What it has: remembered, or in a grant that is in force.
    pub(crate) scopes: ClientScopes,
    /// How many grants it has.
    pub(crate) grants: usize,
    /// When they last agreed.
    pub(crate) agreed_at: Timestamp,
}

/// Shows and ends what is somebody's own.
#[derive(Clone)]
pub(crate) struct Own {
    core: Arc<Core>,
}

impl Own {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The logins of a user that are in force, by id.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn sessions(
        &self,
        user_id: &UserId,
    ) -> Result<Vec<OwnSession>, IdentityError> {
        let now = self.core.now();
        let found = self
            .core
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let pages = store::sessions::of_user(connection, user_id, now, SHOWN_MAX).await?;
                let grants = store::grants::of_user(connection, user_id, now, SHOWN_MAX).await?;
                Ok((pages, grants))
            });
        let (pages, grants) = found.await?;
        let at_pages = pages.into_iter().map(|session| OwnSession {
            id: page_session_id(&session),
            place: Place::Browser,
            authenticated_at: session.authenticated_at,
            refreshed_at: None,
            expires_at: session.expires_at,
        });
        let own = grants.into_iter().filter(|grant| grant.client_id.is_none());
        let by_tokens = own.map(|grant| OwnSession {
            id: grant.id.to_string(),
            place: Place::Tokens,
            authenticated_at: grant.authenticated_at,
            refreshed_at: grant.refreshed_at,
            expires_at: grant.expires_at,
        });
        let mut sessions: Vec<_> = at_pages.chain(by_tokens).collect();
        sessions.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Ok(sessions)
    }

    /// Ends one of them.
    ///
    /// # Errors
    /// [`IdentityError::SessionNotFound`], [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`].
    pub(crate) async fn end_session(
        &self,
        actor: &Actor,
        user_id: &UserId,
        id: &str,
    ) -> Result<(), IdentityError> {
        let ended = self.core.change(actor, Needs::Credential, async |change| {
            let (transaction, now) = (change.transaction, change.now);
            let event = if id.starts_with(BROWSER_PREFIX) {
                let all = store::sessions::of_user(transaction, user_id, now, SHOWN_MAX).await?;
                let mut all = all.into_iter();
                let session = all.find(|session| page_session_id(session) == id);
                let session = session.ok_or(IdentityError::SessionNotFound)?;
                store::sessions::delete(transaction, session.digest).await?;
                let target = format!("user:{user_id}");
                Event::new(Action::Logout, target).with(LoginMethod::Page.as_str())
            } else {
                let id = SessionId::parse(id).ok_or(IdentityError::SessionNotFound)?;
                let grant = store::grants::by_id(transaction, &id).await?;
                let own = |owner: &UserId, client: &Option<ClientId>| {
                    owner == user_id && client.is_none()
                };
                let grant = grant.filter(|grant| own(&grant.user_id, &grant.client_id));
                if grant.is_none() || !store::grants::revoke(transaction, &id, now).await? {
                    return Err(IdentityError::SessionNotFound.into());
                }
                Event::new(Action::TokenRevoke, format!("grant:{id}"))
            };
            Ok(change.record(event).await?)
        });
        ended.await
    }

    /// The clients that a user let act for them, by id.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn consents(
        &self,
        user_id: &UserId,
    ) -> Result<Vec<OwnConsent>, IdentityError> {
        let now = self.core.now();
        let found = self
            .core
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let consents = store::consents::of_user(connection, user_id, SHOWN_MAX).await?;
                let grants = store::grants::of_user(connection, user_id, now, SHOWN_MAX).await?;
                let mut own: Vec<OwnConsent> = Vec::new();
                let agreed = consents
                    .into_iter()
                    .map(|(client, scopes, at)| (client, scopes, at, 0));
                let given = grants.into_iter().filter_map(|grant| {
                    let scopes = ClientScopes::from_stored(&grant.scopes);
                    Some((grant.client_id?, scopes, grant.created_at, 1))
                });
                for (client_id, scopes, at, grants) in agreed.chain(given) {
                    if let Some(known) = own.iter_mut().find(|known| known.client_id == client_id) {
                        known.scopes = known.scopes.union(scopes);
                        known.grants += grants;
                        known.agreed_at = known.agreed_at.max(at);
                    } else if let Some(client) =
                        store::clients::by_id(connection, &client_id).await?
                    {
                        own.push(OwnConsent {
                            client_id,
                            name: client.name,
                            scopes,
                            grants,
                            agreed_at: at,
                        });
                    }
                }
                Ok(own)
            });
        let mut own = found.await?;
        own.sort_unstable_by(|a, b| a.client_id.as_str().cmp(b.client_id.as_str()));
        Ok(own)
    }

    /// Takes back what a user let a client have: its tokens end at once, and they are asked anew.
    ///
    /// # Errors
    /// [`IdentityError::ClientNotFound`] if it has nothing, [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`].
    pub(crate) async fn withdraw(
        &self,
        actor: &Actor,
        user_id: &UserId,
        client_id: &str,
    ) -> Result<(), IdentityError> {
        let id = ClientId::parse(client_id).ok_or(IdentityError::ClientNotFound)?;
        let withdrawn = self.core.change(actor, Needs::Credential, async |change| {
            let (transaction, now) = (change.transaction, change.now);
            let agreed = store::consents::delete(transaction, user_id, &id).await?;
            let codes = store::codes::delete_of(transaction, user_id, &id).await?;
            let devices = store::devices::delete_of(transaction, user_id, &id).await?;
            let grants =
                store::grants::revoke_of_user_and_client(transaction, user_id, &id, now).await?;
            if !agreed && !codes && !devices && grants == 0 {
                return Err(IdentityError::ClientNotFound.into());
            }
            let done = Event::new(Action::ConsentWithdraw, format!("client:{id}"));
            Ok(change.record(done.with(format!("{grants} grants"))).await?)
        });
        withdrawn.await
    }
}

/// Names a session of the pages. The digest of its cookie opens nothing, and a part of it less.
fn page_session_id(session: &PageSession) -> String {
    let bytes = session.digest.iter().take(ID_BYTES);
    let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    format!("{BROWSER_PREFIX}{hex}")
}
