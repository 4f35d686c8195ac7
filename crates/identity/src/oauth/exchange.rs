//! The token endpoint: a client, and what it has, become tokens.

use std::sync::Arc;

use aws_lc_rs::digest as hash;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::code::{Codes, Redeemed};
use super::device::Devices;
use super::parameters::Parameters;
use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::sessions::Sessions;
use crate::tokens::{Tokens, within_reach};
use crate::types::claims::UserClaims;
use crate::types::client::{Client, GrantType};
use crate::types::grant::Grant;
use crate::types::scope::{ClientScopes, OidcScope, WrongScope};
use crate::types::user::User;

/// Why the endpoints that clients ask directly refuse (RFC 6749 §5.2).
#[derive(Debug)]
pub(crate) enum TokenError {
    /// The client did not prove who it is.
    InvalidClient,
    /// Code and description.
    Refused(&'static str, &'static str),
    Scope(WrongScope),
    Failed(IdentityError),
}

impl From<WrongScope> for TokenError {
    fn from(error: WrongScope) -> Self {
        Self::Scope(error)
    }
}

impl From<IdentityError> for TokenError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::InvalidGrant => Self::Refused(
                "invalid_grant",
                "the code or token is unknown, used, revoked, expired, or was given to another \
                 client, address or verifier",
            ),
            IdentityError::ScopeNotGranted | IdentityError::Escalation => {
                Self::Refused("invalid_scope", "a scope goes beyond what was granted")
            }
            error => Self::Failed(error),
        }
    }
}

/// What a client gets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenResponse {
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds
    expires_in: u64,
    /// What the access token may do, space-separated
    scope: String,
    /// For clients registered with that grant
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// Where `openid` was granted
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
}

/// OpenID Connect Core §2. Absent members are left out, as everywhere in JWTs.
#[derive(Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    iat: i64,
    auth_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_hash: Option<String>,
    #[serde(flatten)]
    user: UserClaims,
}

/// The token endpoint.
#[derive(Clone)]
pub(crate) struct TokenEndpoint {
    core: Arc<Core>,
    tokens: Arc<Tokens>,
    sessions: Sessions,
    codes: Codes,
    devices: Devices,
}

impl TokenEndpoint {
    pub(crate) fn new(
        core: Arc<Core>,
        tokens: Arc<Tokens>,
        sessions: Sessions,
        devices: Devices,
    ) -> Self {
        Self {
            codes: Codes::new(Arc::clone(&core), sessions.clone()),
            core,
            tokens,
            sessions,
            devices,
        }
    }

    /// Answers a request for tokens by a client that proved who it is.
    ///
    /// # Errors
    /// Those of RFC 6749 §5.2.
    pub(crate) async fn exchange(
        &self,
        actor: &Actor,
        client: &Client,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let Some(kind) = parameters.get("grant_type") else {
            return Err(missing("grant_type is missing"));
        };
        let Some(kind) = GrantType::parse(kind) else {
            let description = "grant_type must be one of grant_types_supported";
            return Err(TokenError::Refused("unsupported_grant_type", description));
        };
        if !client.may(kind) {
            let description = "the client is not registered for this grant_type";
            return Err(TokenError::Refused("unauthorized_client", description));
        }
        match kind {
            GrantType::AuthorizationCode => self.exchange_code(actor, client, parameters).await,
            GrantType::RefreshToken => self.exchange_refresh(actor, client, parameters).await,
            GrantType::ClientCredentials => {
                self.exchange_client_credentials(actor, client, parameters)
                    .await
            }
            GrantType::DeviceCode => {
                let Some(code) = parameters.get("device_code") else {
                    return Err(missing("device_code is missing"));
                };
                let redeemed = self.devices.redeem(client, code).await?;
                Ok(self.tokens_for(client, &redeemed)?)
            }
        }
    }

    async fn exchange_code(
        &self,
        actor: &Actor,
        client: &Client,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let (Some(code), Some(redirect_uri), Some(verifier)) = (
            parameters.get("code"),
            parameters.get("redirect_uri"),
            parameters.get("code_verifier"),
        ) else {
            return Err(missing("code, redirect_uri and code_verifier are required"));
        };
        let redeemed = self
            .codes
            .redeem(actor, client, code, redirect_uri, verifier)
            .await?;
        Ok(self.tokens_for(client, &redeemed)?)
    }

    /// The first tokens of a grant.
    fn tokens_for(
        &self,
        client: &Client,
        redeemed: &Redeemed,
    ) -> Result<TokenResponse, IdentityError> {
        let (user, grant) = (&redeemed.user, &redeemed.grant);
        // The user may have lost a role since they agreed.
        let scope = within_reach(&grant.scopes, user.roles.scopes());
        let access_token = self.tokens.user_access_token(user, grant, &scope)?;
        let nonce = redeemed.nonce.as_deref();
        let id_token = self.id_token(client, user, grant, &scope, nonce, &access_token)?;
        let refresh_token = client
            .may(GrantType::RefreshToken)
            .then(|| self.tokens.refresh_token(grant));
        Ok(self.response(access_token, scope, refresh_token, id_token))
    }

    async fn exchange_refresh(
        &self,
        actor: &Actor,
        client: &Client,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let Some(token) = parameters.get("refresh_token") else {
            return Err(missing("refresh_token is missing"));
        };
        let narrower = parameters.get("scope");
        let known = narrower.map(str::parse::<ClientScopes>).transpose();
        known.map_err(|_| TokenError::from(IdentityError::ScopeNotGranted))?;
        let refreshed = self
            .sessions
            .refresh(actor, token, Some(&client.id), narrower)
            .await?;
        let (user, grant, scope) = (refreshed.user, refreshed.grant, refreshed.scope);
        let access_token = refreshed.access_token;
        let id_token = self.id_token(client, &user, &grant, &scope, None, &access_token)?;
        Ok(self.response(access_token, scope, Some(refreshed.refresh_token), id_token))
    }

    /// The client acts for itself.
    async fn exchange_client_credentials(
        &self,
        actor: &Actor,
        client: &Client,
        parameters: &Parameters,
    ) -> Result<TokenResponse, TokenError> {
        let own = client.scopes.without_oidc();
        let scope = own.asked(parameters.get("scope"))?.to_string();
        let access_token = self.tokens.client_access_token(&client.id, &scope)?;
        let actor = actor.as_client(&client.id);
        let done = Event::new(Action::ClientLogin, actor.subject.to_string()).with(scope.clone());
        self.core.audit.add(&actor, done).await?;
        Ok(self.response(access_token, scope, None, None))
    }

    fn response(
        &self,
        access_token: String,
        scope: String,
        refresh_token: Option<String>,
        id_token: Option<String>,
    ) -> TokenResponse {
        TokenResponse {
            access_token,
            token_type: "Bearer",
            expires_in: self.tokens.access_ttl_s(),
            scope,
            refresh_token,
            id_token,
        }
    }

    fn id_token(
        &self,
        client: &Client,
        user: &User,
        grant: &Grant,
        scope: &str,
        nonce: Option<&str>,
        access_token: &str,
    ) -> Result<Option<String>, IdentityError> {
        let scopes = ClientScopes::from_stored(scope);
        if !scopes.has(OidcScope::OpenId) {
            return Ok(None);
        }
        let now_s = self.core.now().unix_seconds();
        let claims = IdClaims {
            iss: self.tokens.issuer(),
            sub: user.id.as_str(),
            aud: client.id.as_str(),
            exp: now_s.saturating_add_unsigned(self.tokens.access_ttl_s()),
            iat: now_s,
            auth_time: grant.authenticated_at.unix_seconds(),
            nonce,
            at_hash: at_hash(access_token),
            user: UserClaims::of(user, scopes),
        };
        self.tokens.sign_id_token(&claims).map(Some)
    }
}

fn missing(description: &'static str) -> TokenError {
    TokenError::Refused("invalid_request", description)
}

/// Binds the access token to the ID token beside it (OpenID Connect Core §3.1.3.6): the left half of
/// its hash, by the hash function of the signature. One key signs both, so the access token's header
/// tells the algorithm. Ed25519 hashes by SHA-512.
fn at_hash(access_token: &str) -> Option<String> {
    let header = URL_SAFE_NO_PAD
        .decode(access_token.split('.').next()?)
        .ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    let function = match header["alg"].as_str()? {
        "EdDSA" => &hash::SHA512,
        "ES256" | "RS256" => &hash::SHA256,
        _ => return None,
    };
    let full = hash::digest(function, access_token.as_bytes());
    let half = &full.as_ref()[..full.as_ref().len() / 2];
    Some(URL_SAFE_NO_PAD.encode(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenID Connect Core §3.1.3.6.
    #[test]
    fn the_hash_of_an_access_token_is_half_of_it() {
        let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\"}");
        let token = format!("{header}.e30.c2ln");
        let hash = URL_SAFE_NO_PAD.decode(at_hash(&token).unwrap()).unwrap();
        let full = hash::digest(&hash::SHA256, token.as_bytes());
        assert_eq!(hash, full.as_ref()[..16]);
        let header = URL_SAFE_NO_PAD.encode("{\"alg\":\"EdDSA\"}");
        let hash = at_hash(&format!("{header}.e30.c2ln")).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(hash).unwrap().len(), 32);
        assert_eq!(at_hash("axr_nothing"), None);
    }
}
