//! Access tokens and refresh tokens.
//!
//! An access token is a JWT of the profile of RFC 9068. One of a user belongs to a grant (`sid`)
//! and ends with it.
//!
//! The refresh tokens of a grant are numbered; each is its grant's id and its number under a MAC. So
//! the database holds one number a grant, the right token can be told again to a client that lost
//! the reply, and an older one is recognised for what it is: reused.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::id::{ClientId, SessionId, UserId};
use auspex_kernel::{Caller, Clock, Random, Scope, ScopeSet, Subject, Timestamp, id};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::config;
use crate::core::Core;
use crate::directory::{Directory, Proof, TokenClaims};
use crate::error::IdentityError;
use crate::jwt::{self, Algorithm, Claims, Expectations, Refusal, Unverified};
use crate::types::claims::UserClaims;
use crate::types::grant::Grant;
use crate::types::scope::ClientScopes;
use crate::types::user::User;

const ACCESS_TYPE: &str = "at+jwt";
const ID_TYPE: &str = "JWT";
/// No access token's, so that none of ours is taken for one by whoever looks at it.
const IDENTITY_TYPE: &str = "identity+jwt";
/// Of a token for a service behind this server.
const IDENTITY_TTL: Duration = Duration::from_secs(60);
const REFRESH_PREFIX: &str = "axr_";
/// By how much the clock of another process of ours may run ahead. Without it a token that one made
/// could be refused by the next in the same second.
const LEEWAY_S: i64 = 60;

/// What an access token says.
#[derive(Serialize)]
struct AccessClaims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(flatten)]
    user: UserClaims,
}

/// What a token tells a service of who calls.
#[derive(Serialize)]
struct IdentityClaims<'a> {
    iss: &'a str,
    sub: String,
    aud: &'a str,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    scope: String,
    caller: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

/// A token for a service.
pub(crate) struct IdentityToken {
    pub(crate) token: String,
    /// The key that signed it.
    pub(crate) kid: String,
    pub(crate) expires_at: Timestamp,
}

/// What an ID token tells as a hint.
pub(crate) struct IdTokenHint {
    pub(crate) user_id: UserId,
    pub(crate) client_id: ClientId,
}

/// Makes and reads the tokens of this server.
pub(crate) struct Tokens {
    clock: Clock,
    random: Random,
    directory: Arc<Directory>,
    settings: config::Tokens,
    issuer: String,
    refresh_key: hmac::Key,
}

impl Tokens {
    /// `issuer` is the public URL of the server.
    pub(crate) fn new(
        core: &Core,
        settings: config::Tokens,
        issuer: &str,
        refresh_secret: &[u8],
    ) -> Self {
        Self {
            clock: core.clock.clone(),
            random: core.random.clone(),
            directory: Arc::clone(&core.directory),
            settings,
            issuer: issuer.trim_end_matches('/').to_owned(),
            refresh_key: hmac::Key::new(hmac::HMAC_SHA256, refresh_secret),
        }
    }

    /// Who issues the tokens: the public URL, without a slash at its end.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whom access tokens are for.
    pub(crate) fn audience(&self) -> &str {
        match self.settings.audience.as_str() {
            "" => &self.issuer,
            audience => audience,
        }
    }

    /// How long an access token lives.
    pub(crate) fn access_ttl_s(&self) -> u64 {
        self.settings.access_ttl_s.into()
    }

    /// The algorithms that tokens are signed with, now and by keys that are waiting.
    pub(crate) fn algorithms(&self) -> Vec<&'static str> {
        let ring = self.directory.signing_keys();
        let algorithms = ring.algorithms(self.clock.now()).into_iter();
        algorithms.map(Algorithm::name).collect()
    }

    /// The published key set (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> serde_json::Value {
        self.directory.signing_keys().jwks()
    }

    /// An access token of a user, by a grant.
    ///
    /// # Errors
    /// [`IdentityError::Signing`], [`IdentityError::Randomness`].
    pub(crate) fn user_access_token(
        &self,
        user: &User,
        grant: &Grant,
        scope: &str,
    ) -> Result<String, IdentityError> {
        let claims = AccessClaims {
            sub: user.id.as_str(),
            client_id: grant.client_id.as_ref().map(ClientId::as_str),
            sid: Some(grant.id.as_str()),
            ..self.claims(scope)?
        };
        // A client's token tells what its user let it know; a user's own tells who they are.
        self.sign_access_token(match grant.client_id {
            Some(_) => AccessClaims {
                user: UserClaims::of(user, ClientScopes::from_stored(scope)),
                ..claims
            },
            None => AccessClaims {
                name: Some(&user.name),
                role: (user.roles != Default::default()).then(|| user.roles.to_string()),
                ..claims
            },
        })
    }

    /// An access token of a client that acts for itself.
    ///
    /// # Errors
    /// [`IdentityError::Signing`], [`IdentityError::Randomness`].
    pub(crate) fn client_access_token(
        &self,
        client_id: &ClientId,
        scope: &str,
    ) -> Result<String, IdentityError> {
        self.sign_access_token(AccessClaims {
            sub: client_id.as_str(),
            client_id: Some(client_id.as_str()),
            ..self.claims(scope)?
        })
    }

    /// A token that tells the service of this audience who calls. It ends with the credential, if that is soon.
    ///
    /// # Errors
    /// [`IdentityError::Signing`], [`IdentityError::Randomness`], [`IdentityError::OwnAudience`].
    pub(crate) fn identity_token(
        &self,
        caller: &Caller,
        audience: &str,
        now: Timestamp,
    ) -> Result<IdentityToken, IdentityError> {
        if [self.audience(), &self.issuer].contains(&audience) {
            return Err(IdentityError::OwnAudience);
        }
        let ring = self.directory.signing_keys();
        let key = ring.current(now).ok_or(IdentityError::NoSigningKey)?;
        let usual = now + IDENTITY_TTL;
        let expires_at = caller.expires_at.map_or(usual, |at| at.min(usual));
        let now_s = now.unix_seconds();
        let claims = IdentityClaims {
            iss: &self.issuer,
            // As in the access tokens of users and clients.
            sub: match (&caller.user_id, &caller.subject) {
                (Some(id), _) => id.to_string(),
                (None, Subject::Client(id)) => id.to_string(),
                (None, subject) => subject.to_string(),
            },
            aud: audience,
            exp: expires_at.unix_seconds(),
            iat: now_s,
            nbf: now_s,
            jti: id::new_id(&self.clock, &self.random)?,
            scope: caller.scopes.to_string(),
            caller: caller.subject.to_string(),
            client_id: caller.client_id.as_ref().map(ClientId::as_str),
        };
        Ok(IdentityToken {
            token: key.sign(IDENTITY_TYPE, &claims)?,
            kid: key.kid().to_owned(),
            expires_at,
        })
    }

    fn claims<'a>(&'a self, scope: &'a str) -> Result<AccessClaims<'a>, IdentityError> {
        let now_s = self.clock.now().unix_seconds();
        Ok(AccessClaims {
            iss: &self.issuer,
            sub: "",
            aud: self.audience(),
            exp: now_s + i64::from(self.settings.access_ttl_s),
            iat: now_s,
            nbf: now_s,
            jti: id::new_id(&self.clock, &self.random)?,
            scope,
            client_id: None,
            sid: None,
            name: None,
            role: None,
            user: UserClaims::default(),
        })
    }

    fn sign_access_token(&self, claims: AccessClaims<'_>) -> Result<String, IdentityError> {
        self.sign(ACCESS_TYPE, &claims)
    }

    /// Signs an ID token (OpenID Connect Core §2).
    ///
    /// # Errors
    /// [`IdentityError::Signing`].
    pub(crate) fn sign_id_token(&self, claims: &impl Serialize) -> Result<String, IdentityError> {
        self.sign(ID_TYPE, claims)
    }

    fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, IdentityError> {
        let ring = self.directory.signing_keys();
        let key = ring
            .current(self.clock.now())
            .ok_or(IdentityError::NoSigningKey)?;
        Ok(key.sign(typ, claims)?)
    }

    /// The claims of an access token of ours whose signature and times are right. Whether it is
    /// still in force is another question.
    pub(crate) fn verify_access_token(
        &self,
        token: &Unverified<'_>,
        now: Timestamp,
    ) -> Result<Claims, Refusal> {
        let ring = self.directory.signing_keys();
        let key = token
            .kid()
            .and_then(|kid| ring.verifying(kid))
            .ok_or(Refusal::UnknownKey)?;
        let expectations = Expectations {
            issuer: &self.issuer,
            audiences: &[self.audience()],
            types: &[Some(ACCESS_TYPE)],
            leeway_s: LEEWAY_S,
        };
        jwt::verify(token, key, &expectations, now)
    }

    /// Of whom an ID token of ours was, and for whom. It may have expired: it proves nothing but that
    /// we made it.
    pub(crate) fn id_token_hint(&self, token: &str) -> Option<IdTokenHint> {
        let token = jwt::read(token.as_bytes()).ok()?;
        let ring = self.directory.signing_keys();
        let key = ring.verifying(token.kid()?)?;
        let claims = jwt::verify_hint(&token, key, &self.issuer, ID_TYPE).ok()?;
        Some(IdTokenHint {
            user_id: UserId::from_stored(claims.sub),
            client_id: ClientId::from_stored(claims.aud.into_iter().next()?),
        })
    }

    /// The claims of an access token of ours that is in force, with all that stands behind it.
    pub(crate) fn in_force(&self, token: &[u8]) -> Option<Claims> {
        let now = self.clock.now();
        let read = jwt::read(token).ok()?;
        let claims = self.verify_access_token(&read, now).ok()?;
        let token_claims = token_claims(&read, &claims);
        self.directory.caller(&Proof::Token(token_claims))?;
        Some(claims)
    }

    /// The current refresh token of a grant.
    pub(crate) fn refresh_token(&self, grant: &Grant) -> String {
        let numbered = format!("{}_{}", grant.id, grant.sequence);
        let mac = hmac::sign(&self.refresh_key, numbered.as_bytes());
        format!("{REFRESH_PREFIX}{numbered}_{}", URL_SAFE_NO_PAD.encode(mac))
    }

    /// The grant and number of a refresh token that we made.
    pub(crate) fn refresh_token_grant(&self, token: &str) -> Option<(SessionId, i64)> {
        let (numbered, mac) = {
            let mut parts = token.strip_prefix(REFRESH_PREFIX)?.splitn(3, '_');
            let (grant, sequence) = (parts.next()?, parts.next()?);
            (format!("{grant}_{sequence}"), parts.next()?)
        };
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.refresh_key, numbered.as_bytes(), &mac).ok()?;
        let (grant, sequence) = numbered.split_once('_')?;
        Some((SessionId::from_stored(grant), sequence.parse().ok()?))
    }
}

/// What of a scope a user's roles still allow; words that are no scopes of ours, such as `openid`, do
/// not depend on roles. Services elsewhere believe what a token says.
pub(crate) fn within_reach(scope: &str, reach: ScopeSet) -> String {
    let words = scope
        .split_ascii_whitespace()
        .filter(|word| match word.parse::<Scope>() {
            Ok(scope) => reach.contains(scope),
            Err(_) => true,
        });
    words.collect::<Vec<_>>().join(" ")
}

/// What of the claims decides on each request.
pub(crate) fn token_claims(token: &Unverified<'_>, claims: &Claims) -> TokenClaims {
    let words = claims
        .scope
        .as_deref()
        .unwrap_or_default()
        .split_ascii_whitespace();
    TokenClaims {
        kid: token.kid().unwrap_or_default().to_owned(),
        // A client that acts for itself has no session.
        user_id: claims
            .sid
            .is_some()
            .then(|| UserId::from_stored(claims.sub.as_str())),
        client_id: claims.client_id.clone().map(ClientId::from_stored),
        grant_id: claims.sid.clone().map(SessionId::from_stored),
        jti: claims.jti.clone().unwrap_or_default(),
        scopes: words
            .filter_map(|word| word.parse().ok())
            .collect::<ScopeSet>(),
        issued_at: Timestamp::from_unix_seconds(claims.iat.unwrap_or_default()),
        expires_at: Timestamp::from_unix_seconds(claims.exp),
    }
}
