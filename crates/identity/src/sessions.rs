//! Sessions: what a login begins, a refresh token carries on, and a logout ends.
//!
//! They also end by hand, for the day on which a token has leaked. The user keeps their password and
//! their keys then: those end elsewhere.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::id::{self, ClientId, SessionId, UserId};
use auspex_kernel::{FieldError, ScopeSet, Timestamp};

use crate::audit::{Action, Actor, Event};
use crate::config::{self, REVOCATION_KEPT};
use crate::core::{Core, Needs};
use crate::error::IdentityError;
use crate::password::Password;
use crate::passwords::Passwords;
use crate::store;
use crate::tokens::{Tokens, within_reach};
use crate::types::grant::Grant;
use crate::types::user::{LoginMethod, User, password_mark};
use crate::users::Users;

/// What a login gave, or a refresh token was exchanged for.
pub(crate) struct Refreshed {
    pub(crate) user: User,
    pub(crate) grant: Grant,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    /// What the access token may do; the refresh token keeps what was granted.
    pub(crate) scope: String,
    /// How long the access token lives.
    pub(crate) expires_in_s: u64,
}

/// How the exchange of a refresh token ended, before anything is signed.
enum Exchange {
    Done(User, Grant),
    Refused,
    /// It had been exchanged before.
    Reused(Grant),
}

/// Begins, carries on and ends sessions.
#[derive(Clone)]
pub struct Sessions {
    core: Arc<Core>,
    users: Users,
    passwords: Arc<Passwords>,
    tokens: Arc<Tokens>,
    ttl: Duration,
    refresh_grace: Duration,
}

impl Sessions {
    pub(crate) fn new(
        core: Arc<Core>,
        users: Users,
        passwords: Arc<Passwords>,
        tokens: Arc<Tokens>,
        settings: &config::Tokens,
    ) -> Self {
        Self {
            core,
            users,
            passwords,
            tokens,
            ttl: settings.refresh_ttl(),
            refresh_grace: settings.refresh_grace(),
        }
    }

    /// A grant that is not yet stored.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub(crate) fn new_grant(
        &self,
        user_id: &UserId,
        client_id: Option<&ClientId>,
        scopes: &str,
        authenticated_at: Timestamp,
    ) -> Result<Grant, IdentityError> {
        let now = self.core.now();
        Ok(Grant {
            id: SessionId::new(&self.core.clock, &self.core.random)?,
            user_id: user_id.clone(),
            client_id: client_id.cloned(),
            scopes: scopes.to_owned(),
            created_at: now,
            authenticated_at,
            expires_at: now + self.ttl,
            sequence: 1,
            refreshed_at: None,
            revoked_at: None,
        })
    }

    /// Logs in by password, and begins a session.
    ///
    /// # Errors
    /// As of [`Passwords::log_in`], [`IdentityError::Signing`], [`IdentityError::Randomness`].
    pub(crate) async fn log_in(
        &self,
        actor: &Actor,
        username: &str,
        password: &Password,
    ) -> Result<Refreshed, IdentityError> {
        let logged_in = self
            .passwords
            .log_in(actor, username, password, LoginMethod::Password);
        let (user, mark) = logged_in.await?;
        let scope = user.roles.scopes().to_string();
        let grant = self.new_grant(&user.id, None, &scope, self.core.now())?;
        let stored = grant.clone();
        let begun = self
            .core
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
        self.issue(user, grant, scope)
    }

    /// Exchanges a refresh token. The one before the current one still gets the current one again
    /// for a few seconds, for a client whose reply was lost or who asked twice at once; any older one is
    /// taken for stolen and ends the grant. A newer one than the database knows, which was restored
    /// meanwhile, is refused and ends nothing.
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
        let number = self.tokens.refresh_token_grant(refresh_token);
        let (grant_id, sequence) = number.ok_or(IdentityError::InvalidGrant)?;
        let (who, client, asked) = (
            actor.clone(),
            client_id.cloned(),
            narrower.map(str::to_owned),
        );
        let (core, grace) = (&self.core, self.refresh_grace);
        let exchange = self.core.db.write(async |transaction| {
            let Some(grant) = store::grants::lock_by_id(transaction, &grant_id).await? else {
                return Ok(Ok(Exchange::Refused));
            };
            let granted = asked.is_none_or(|asked| is_within(&asked, &grant.scopes));
            if grant.client_id == client && !granted {
                return Ok(Err(IdentityError::ScopeNotGranted));
            }
            let is_theirs = grant.client_id == client;
            if !is_theirs || grant.revoked_at.is_some() || grant.expires_at <= core.now() {
                return Ok(Ok(Exchange::Refused));
            }
            exchange(transaction, core, &who, grant, sequence, grace)
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
                self.end_as(&actor, &grant.id, reused).await?;
                return Err(IdentityError::InvalidGrant);
            }
        };
        let asked = narrower.unwrap_or(&grant.scopes);
        let scope = within_reach(asked, user.roles.scopes());
        self.issue(user, grant, scope)
    }

    fn issue(&self, user: User, grant: Grant, scope: String) -> Result<Refreshed, IdentityError> {
        Ok(Refreshed {
            access_token: self.tokens.user_access_token(&user, &grant, &scope)?,
            refresh_token: self.tokens.refresh_token(&grant),
            expires_in_s: self.tokens.access_ttl_s(),
            user,
            grant,
            scope,
        })
    }

    /// Ends a grant and all its tokens.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn end(
        &self,
        actor: &Actor,
        grant_id: &SessionId,
        action: Action,
    ) -> Result<bool, IdentityError> {
        let ended = Event::new(action, format!("grant:{grant_id}"));
        self.end_as(actor, grant_id, ended).await
    }

    async fn end_as(
        &self,
        actor: &Actor,
        grant_id: &SessionId,
        event: Event,
    ) -> Result<bool, IdentityError> {
        let revoked = self.core.change(actor, Needs::Nothing, async |change| {
            let revoked = store::grants::revoke(change.transaction, grant_id, change.now).await?;
            if revoked {
                change.record(event).await?;
            }
            Ok(revoked)
        });
        revoked.await
    }

    /// Ends every session of a user, given by id or username: their tokens, whoever has them, and
    /// their logins to the login page. Returns their id, and how many sessions had tokens.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::Database`].
    pub async fn revoke_all_of_user(
        &self,
        actor: &Actor,
        id_or_username: &str,
    ) -> Result<(UserId, usize), IdentityError> {
        let user_id = self.users.find(id_or_username).await?.id;
        let id = &user_id;
        let revoked = self.core.change(actor, Needs::Credential, async |change| {
            let transaction = change.transaction;
            let count = store::grants::revoke_of_user(transaction, id, change.now).await?;
            store::user_rows::end_sessions(transaction, id).await?;
            let done = Event::new(Action::TokenRevoke, format!("user:{id}"));
            change
                .record(done.with(format!("{count} sessions")))
                .await?;
            Ok(count)
        });
        let count = revoked.await?;
        Ok((user_id, count))
    }

    /// Ends one session: the claim `sid` of its tokens names it. Whether it was in force.
    ///
    /// # Errors
    /// [`IdentityError::SessionNotFound`], [`IdentityError::Database`].
    pub async fn revoke(&self, actor: &Actor, id: &str) -> Result<bool, IdentityError> {
        let id = SessionId::parse(id).ok_or(IdentityError::SessionNotFound)?;
        let found = self
            .core
            .db
            .read(async |connection| store::grants::by_id(connection, &id).await);
        if found.await?.is_none() {
            return Err(IdentityError::SessionNotFound);
        }
        self.end(actor, &id, Action::TokenRevoke).await
    }

    /// Refuses one access token until it would have ended anyway.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn revoke_access_token(
        &self,
        actor: &Actor,
        jti: String,
        until: Timestamp,
    ) -> Result<(), IdentityError> {
        let revoked = self.core.change(actor, Needs::Nothing, async |change| {
            store::tokens::revoke(change.transaction, &jti, until, change.now).await?;
            let done = Event::new(Action::TokenRevoke, format!("token:{jti}"));
            Ok(change.record(done).await?)
        });
        revoked.await
    }

    /// Refuses one access token, named by its claim `jti`, until it would have ended anyway. Nobody
    /// keeps a list of tokens, so that whether there is such a one is not known.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Database`].
    pub async fn revoke_jti(&self, actor: &Actor, jti: &str) -> Result<(), IdentityError> {
        // A whole token, pasted here, must not come into the database.
        let jti = id::parse_id(jti).ok_or_else(|| {
            IdentityError::Invalid(vec![FieldError {
                field: "jti".into(),
                message: "must be the claim jti of an access token of this server".into(),
            }])
        })?;
        let until = self.core.clock.latest() + REVOCATION_KEPT;
        self.revoke_access_token(actor, jti, until).await
    }
}

async fn exchange(
    transaction: &Transaction,
    core: &Core,
    actor: &Actor,
    mut grant: Grant,
    sequence: i64,
    grace: Duration,
) -> Result<Exchange, DbError> {
    let now = core.now();
    let user = store::users::by_id(transaction, &grant.user_id).await?;
    let Some(user) = user.filter(|user| user.disabled_at.is_none()) else {
        return Ok(Exchange::Refused);
    };
    let actor = actor.as_user(&user.id, user.roles.scopes());
    let mut done = Event::new(Action::TokenRefresh, format!("grant:{}", grant.id));
    let lately = grant
        .refreshed_at
        .is_some_and(|at| now.is_during(at, at + grace));
    if sequence == grant.sequence {
        grant.sequence += 1;
        grant.refreshed_at = Some(now);
        store::grants::advance(transaction, &grant.id, grant.sequence, now).await?;
    } else if sequence + 1 == grant.sequence && lately && !grace.is_zero() {
        done = done.with("again");
    } else if sequence > grant.sequence {
        // Of a time that a restored database has not seen: nobody has used it twice.
        return Ok(Exchange::Refused);
    } else {
        return Ok(Exchange::Reused(grant));
    }
    core.audit.record(transaction, &actor, done).await?;
    Ok(Exchange::Done(user, grant))
}

/// Whether every word of `asked` is one of `granted`.
fn is_within(asked: &str, granted: &str) -> bool {
    asked
        .split_ascii_whitespace()
        .all(|word| granted.split_ascii_whitespace().any(|known| known == word))
}
