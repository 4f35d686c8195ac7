//! What can be asked about tokens, and how they end: introspection, revocation, userinfo.
//!
//! A client learns of its own tokens alone. Of all others, in force or not, it hears the same.

use std::sync::Arc;

use auspex_kernel::Timestamp;
use auspex_kernel::id::UserId;
use serde::Serialize;
use utoipa::ToSchema;

use super::exchange::TokenError;
use crate::audit::{Action, Actor};
use crate::core::Core;
use crate::error::IdentityError;
use crate::sessions::Sessions;
use crate::store;
use crate::tokens::{Tokens, within_reach};
use crate::types::claims::UserClaims;
use crate::types::client::Client;
use crate::types::scope::{ClientScopes, OidcScope};

/// RFC 7662 §2.2. An inactive token has `active` alone.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    /// `Bearer`, or `refresh_token`
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

/// OpenID Connect Core §5.3.2. Claims that were not granted are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserInfo {
    /// Id of the user
    sub: String,
    #[serde(flatten)]
    claims: UserClaims,
}

/// Answers for tokens that were given out, and ends them.
#[derive(Clone)]
pub(crate) struct IssuedTokens {
    core: Arc<Core>,
    tokens: Arc<Tokens>,
    sessions: Sessions,
}

impl IssuedTokens {
    pub(crate) fn new(core: Arc<Core>, tokens: Arc<Tokens>, sessions: Sessions) -> Self {
        Self {
            core,
            tokens,
            sessions,
        }
    }

    /// What a token is worth, for the client that it was given to.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn introspect(
        &self,
        client: &Client,
        token: &str,
    ) -> Result<Introspection, IdentityError> {
        if let Some(claims) = self.tokens.in_force(token.as_bytes()) {
            if claims.client_id.as_deref() != Some(client.id.as_str()) {
                return Ok(Introspection::default());
            }
            // The user may have lost a role since; the token of a client has no user.
            let scope = match (claims.sid, claims.scope) {
                (Some(_), Some(scope)) => self
                    .core
                    .directory
                    .user(&UserId::from_stored(claims.sub.as_str()))
                    .map(|user| within_reach(&scope, user.roles.scopes())),
                (_, scope) => scope,
            };
            return Ok(Introspection {
                active: true,
                scope,
                client_id: claims.client_id,
                token_type: Some("Bearer"),
                exp: Some(claims.exp),
                iat: claims.iat,
                nbf: claims.nbf,
                sub: Some(claims.sub),
                aud: claims.aud.into_iter().next(),
                iss: Some(claims.iss),
                jti: claims.jti,
            });
        }
        let Some((id, sequence)) = self.tokens.refresh_token_grant(token) else {
            return Ok(Introspection::default());
        };
        let found = self
            .core
            .db
            .read(async |connection| store::grants::by_id(connection, &id).await);
        let now = self.core.now();
        let in_force = found.await?.filter(|grant| {
            grant.client_id.as_ref() == Some(&client.id)
                && grant.sequence == sequence
                && grant.revoked_at.is_none()
                && grant.expires_at > now
        });
        let in_force =
            in_force.and_then(|grant| Some((self.core.directory.user(&grant.user_id)?, grant)));
        Ok(
            in_force.map_or_else(Introspection::default, |(user, grant)| Introspection {
                active: true,
                scope: Some(within_reach(&grant.scopes, user.roles.scopes())),
                client_id: grant.client_id.map(|id| id.to_string()),
                token_type: Some("refresh_token"),
                exp: Some(grant.expires_at.unix_seconds()),
                iat: Some(
                    grant
                        .refreshed_at
                        .unwrap_or(grant.created_at)
                        .unix_seconds(),
                ),
                sub: Some(grant.user_id.to_string()),
                iss: Some(self.tokens.issuer().to_owned()),
                ..Introspection::default()
            }),
        )
    }

    /// Ends a token of a client: an access token alone, a refresh token with its grant and everything
    /// that came of it. A token that is not in force is none to end.
    ///
    /// # Errors
    /// `invalid_grant` for a token of another client, which goes on (RFC 7009 §2.1), and
    /// [`IdentityError::Database`].
    pub(crate) async fn revoke(
        &self,
        actor: &Actor,
        client: &Client,
        token: &str,
    ) -> Result<(), TokenError> {
        const NOT_ITS: TokenError =
            TokenError::Refused("invalid_grant", "the token was given to another client");
        let actor = actor.as_client(&client.id);
        if let Some(claims) = self.tokens.in_force(token.as_bytes()) {
            return match claims.jti {
                Some(jti) if claims.client_id.as_deref() == Some(client.id.as_str()) => {
                    let until = Timestamp::from_unix_seconds(claims.exp);
                    let revoked = self.sessions.revoke_access_token(&actor, jti, until);
                    Ok(revoked.await?)
                }
                _ => Err(NOT_ITS),
            };
        }
        let Some((id, _)) = self.tokens.refresh_token_grant(token) else {
            return Ok(());
        };
        let found = self
            .core
            .db
            .read(async |connection| store::grants::by_id(connection, &id).await);
        match found.await.map_err(IdentityError::from)? {
            Some(grant) if grant.client_id.as_ref() == Some(&client.id) => {
                self.sessions.end(&actor, &id, Action::TokenRevoke).await?;
                Ok(())
            }
            Some(_) => Err(NOT_ITS),
            None => Ok(()),
        }
    }

    /// Who the user of an access token is, as far as it was granted to know. `None` for a token
    /// without `openid`, and for whatever is no token of a user.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn user_info(&self, token: &[u8]) -> Result<Option<UserInfo>, IdentityError> {
        let claims = self.tokens.in_force(token);
        let Some(claims) = claims.filter(|claims| claims.sid.is_some()) else {
            return Ok(None);
        };
        let user_id = UserId::from_stored(claims.sub);
        let scopes = ClientScopes::from_stored(claims.scope.as_deref().unwrap_or_default());
        if !scopes.has(OidcScope::OpenId) {
            return Ok(None);
        }
        let found = self
            .core
            .db
            .read(async |connection| store::users::by_id(connection, &user_id).await);
        Ok(found.await?.map(|user| UserInfo {
            sub: user.id.to_string(),
            claims: UserClaims::of(&user, scopes),
        }))
    }

    /// What an access token was granted; nothing if it is none in force.
    pub(crate) fn granted(&self, token: &[u8]) -> ClientScopes {
        let claims = self.tokens.in_force(token);
        let scope = claims.and_then(|claims| claims.scope);
        ClientScopes::from_stored(&scope.unwrap_or_default())
    }
}
