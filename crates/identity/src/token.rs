//! Access tokens and refresh tokens.
//!
//! An access token is a JWT of the profile of RFC 9068. One of a user belongs to a grant (`sid`)
//! and ends with it.
//!
//! The refresh tokens of a grant are numbered; each is its grant's id and its number under a MAC. So
//! the database holds one number a grant, the right token can be told again to a client that lost
//! the reply, and an older one is recognised for what it is: reused.

use std::time::Duration;

use auspex_kernel::audit;
use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::id::{ClientId, SessionId, UserId};
use auspex_kernel::{Scope, ScopeSet, Timestamp, id};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::audit::{Action, Actor, Event};
use crate::change::Needs;
use crate::directory::TokenClaims;
use crate::error::IdentityError;
use crate::jwt::{self, Claims, Expectations, Refusal, Unverified};
use crate::store::grants::Grant;
use crate::user::{LoginMethod, User, password_mark};
use crate::{Identity, store};

const ACCESS_TYPE: &str = "at+jwt";
const ID_TYPE: &str = "JWT";
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
}

/// What a login gave, or a refresh token was exchanged for.
pub(crate) struct Refreshed {
    pub(crate) user: User,
    pub(crate) grant: Grant,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    /// What the access token may do; the refresh token keeps what was granted.
    pub(crate) scope: String,
}

/// How the exchange of a refresh token ended, before anything is signed.
enum Exchange {
    Done(User, Grant),
    Refused,
    /// It had been exchanged before.
    Reused(Grant),
}

impl Identity {
    /// Who issues the tokens: the public URL, without a slash at its end.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whom access tokens are for.
    pub(crate) fn audience(&self) -> &str {
        match self.config.tokens.audience.as_str() {
            "" => &self.issuer,
            audience => audience,
        }
    }

    /// How long an access token lives.
    pub(crate) fn access_ttl_s(&self) -> u64 {
        self.config.tokens.access_ttl_s.into()
    }

    /// The published key set (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> serde_json::Value {
        self.directory.signing_keys().jwks()
    }

    /// A grant that is not yet stored.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub(crate) fn new_grant(
        &self,
        user: &User,
        client_id: Option<&ClientId>,
        scopes: &str,
        authenticated_at: Timestamp,
    ) -> Result<Grant, IdentityError> {
        let now = self.clock.now();
        Ok(Grant {
            id: SessionId::new(now)?,
            user_id: user.id.clone(),
            client_id: client_id.cloned(),
            scopes: scopes.to_owned(),
            created_at: now,
            authenticated_at,
            expires_at: now + self.config.tokens.refresh_ttl(),
            sequence: 1,
            refreshed_at: None,
            revoked_at: None,
        })
    }

    /// Logs in by password, and begins a session.
    ///
    /// # Errors
    /// As of [`Self::log_in`], [`IdentityError::Signing`], [`IdentityError::Randomness`].
    pub(crate) async fn log_in_for_tokens(
        &self,
        actor: &Actor,
        username: &str,
        password: &str,
    ) -> Result<Refreshed, IdentityError> {
        let logged_in = self.log_in_marked(actor, username, password, LoginMethod::Password);
        let (user, mark) = logged_in.await?;
        let scope = user.roles.scopes().to_string();
        let grant = self.new_grant(&user, None, &scope, self.clock.now())?;
        let stored = grant.clone();
        let begun = self
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                // Giving a user another password ends their sessions. One that begins by the old
                // password must not come after that.
                let hash = store::users::lock_password(transaction, &stored.user_id).await?;
                let unchanged = hash.is_some_and(|hash| password_mark(hash.as_deref()) == mark);
                if unchanged {
                    store::grants::insert(transaction, stored).await?;
                }
                Ok(unchanged)
            });
        if !begun.await? {
            return Err(IdentityError::InvalidCredentials);
        }
        Ok(Refreshed {
            access_token: self.user_access_token(&user, &grant, &scope)?,
            refresh_token: self.refresh_token(&grant),
            user,
            grant,
            scope,
        })
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
        let role = (user.roles != Default::default()).then(|| user.roles.to_string());
        self.sign_access_token(AccessClaims {
            sub: user.id.as_str(),
            client_id: grant.client_id.as_ref().map(ClientId::as_str),
            sid: Some(grant.id.as_str()),
            name: Some(&user.name),
            role,
            ..self.claims(scope)?
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

    fn claims<'a>(&'a self, scope: &'a str) -> Result<AccessClaims<'a>, IdentityError> {
        let now = self.clock.now();
        let now_s = now.unix_seconds();
        Ok(AccessClaims {
            iss: &self.issuer,
            sub: "",
            aud: self.audience(),
            exp: now_s + i64::from(self.config.tokens.access_ttl_s),
            iat: now_s,
            nbf: now_s,
            jti: id::new_id(now)?,
            scope,
            client_id: None,
            sid: None,
            name: None,
            role: None,
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

    /// The claims of an access token of ours that is in force, with all that stands behind it.
    pub(crate) fn own_access_token(&self, token: &[u8]) -> Option<Claims> {
        let now = self.clock.now();
        let read = jwt::read(token).ok()?;
        let claims = self.verify_access_token(&read, now).ok()?;
        let token_claims = token_claims(&read, &claims);
        self.directory
            .caller(&crate::directory::Proof::Token(token_claims))?;
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

    /// Exchanges a refresh token. The one before the current one still gets the current one again
    /// for a few seconds, for a client whose reply was lost or who asked twice at once; any older one is
    /// taken for stolen and ends the grant.
    ///
    /// # Errors
    /// [`IdentityError::InvalidGrant`], [`IdentityError::ScopeNotGranted`],
    /// [`IdentityError::Database`], [`IdentityError::Signing`].
    pub(crate) async fn refresh(
        &self,
        actor: &Actor,
        refresh_token: &str,
        client_id: Option<&ClientId>,
        narrower: Option<&str>,
    ) -> Result<Refreshed, IdentityError> {
        let number = self.refresh_token_grant(refresh_token);
        let (grant_id, sequence) = number.ok_or(IdentityError::InvalidGrant)?;
        let (who, client, asked) = (
            actor.clone(),
            client_id.cloned(),
            narrower.map(str::to_owned),
        );
        let (now, grace) = (self.clock.now(), self.config.tokens.refresh_grace());
        let exchange = self.db.write(async |transaction| {
            let Some(grant) = store::grants::lock_by_id(transaction, &grant_id).await? else {
                return Ok(Ok(Exchange::Refused));
            };
            let granted = asked.is_none_or(|asked| is_within(&asked, &grant.scopes));
            if grant.client_id == client && !granted {
                return Ok(Err(IdentityError::ScopeNotGranted));
            }
            let is_theirs = grant.client_id == client;
            if !is_theirs || grant.revoked_at.is_some() || grant.expires_at <= now {
                return Ok(Ok(Exchange::Refused));
            }
            exchange(transaction, &who, grant, sequence, now, grace)
                .await
                .map(Ok)
        });
        let (user, grant) = match exchange.await?? {
            Exchange::Done(user, grant) => (user, grant),
            Exchange::Refused => return Err(IdentityError::InvalidGrant),
            Exchange::Reused(grant) => {
                let actor = actor.as_user(&grant.user_id, ScopeSet::default());
                let target = Some(format!("grant:{}", grant.id));
                let reused = Event::denied(Action::TokenReuse, target);
                self.end_grant(&actor, &grant.id, reused).await?;
                return Err(IdentityError::InvalidGrant);
            }
        };
        let asked = narrower.unwrap_or(&grant.scopes);
        let scope = within_reach(asked, user.roles.scopes());
        Ok(Refreshed {
            access_token: self.user_access_token(&user, &grant, &scope)?,
            refresh_token: self.refresh_token(&grant),
            user,
            grant,
            scope,
        })
    }

    /// Ends a grant and all its tokens.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn revoke_grant(
        &self,
        actor: &Actor,
        grant_id: &SessionId,
        action: Action,
    ) -> Result<bool, IdentityError> {
        let ended = Event::new(action, format!("grant:{grant_id}"));
        self.end_grant(actor, grant_id, ended).await
    }

    async fn end_grant(
        &self,
        actor: &Actor,
        grant_id: &SessionId,
        event: Event,
    ) -> Result<bool, IdentityError> {
        let revoked = self.change(actor, Needs::Nothing, async |change| {
            let revoked = store::grants::revoke(change.transaction, grant_id, change.now).await?;
            if revoked {
                change.record(event).await?;
            }
            Ok(revoked)
        });
        revoked.await
    }
}

async fn exchange(
    transaction: &Transaction,
    actor: &Actor,
    mut grant: Grant,
    sequence: i64,
    now: Timestamp,
    grace: Duration,
) -> Result<Exchange, DbError> {
    let user = store::users::by_id(transaction, &grant.user_id).await?;
    let Some(user) = user.filter(|user| user.disabled_at.is_none()) else {
        return Ok(Exchange::Refused);
    };
    let actor = actor.as_user(&user.id, user.roles.scopes());
    let mut done = Event::new(Action::TokenRefresh, format!("grant:{}", grant.id));
    let lately = grant.refreshed_at.is_some_and(|at| now.since(at) <= grace);
    if sequence == grant.sequence {
        grant.sequence += 1;
        grant.refreshed_at = Some(now);
        store::grants::advance(transaction, &grant.id, grant.sequence, now).await?;
    } else if sequence + 1 == grant.sequence && lately && !grace.is_zero() {
        done = done.with("again");
    } else {
        return Ok(Exchange::Reused(grant));
    }
    audit::record(transaction, &actor, done, now).await?;
    Ok(Exchange::Done(user, grant))
}

/// Whether every word of `asked` is one of `granted`.
fn is_within(asked: &str, granted: &str) -> bool {
    asked
        .split_ascii_whitespace()
        .all(|word| granted.split_ascii_whitespace().any(|known| known == word))
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
        expires_at: Timestamp::from_unix_seconds(claims.exp),
    }
}
