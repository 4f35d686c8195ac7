//! Who is logged in to the login pages.
//!
//! A session is a row under the digest of its cookie: a copy of the database opens none, and those of
//! one user can be ended. It says who logged in and when, nothing else. Every login begins a new one,
//! so that a cookie planted before it never becomes somebody's session.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::db::{DbError, Transaction};

use crate::audit::{Action, Actor, Event};
use crate::core::Core;
use crate::error::IdentityError;
use crate::password::Password;
use crate::passwords::Passwords;
use crate::store;
use crate::types::client::{digest, random_text};
use crate::types::page_session::PageSession;
use crate::types::user::{LoginMethod, User};

pub(crate) const SESSION_TTL: Duration = Duration::from_hours(12);

/// A session in force.
#[derive(Clone, Debug)]
pub(crate) struct LoginSession {
    pub(crate) user: User,
    pub(crate) authenticated_at: Timestamp,
    digest: Vec<u8>,
}

impl LoginSession {
    /// Whether it still is in force, and its user as they were when it was read. The transaction must
    /// hold the lock: ending sessions and changing users take it too, and come before or after.
    pub(super) async fn holds(
        &self,
        transaction: &Transaction,
        now: Timestamp,
    ) -> Result<bool, DbError> {
        let session = store::sessions::by_digest(transaction, self.digest.clone(), now).await?;
        Ok(session.is_some() && is_unchanged(transaction, &self.user).await?)
    }
}

async fn is_unchanged(transaction: &Transaction, user: &User) -> Result<bool, DbError> {
    let now = store::users::by_id(transaction, &user.id).await?;
    Ok(now.is_some_and(|now| now.disabled_at.is_none() && now.version == user.version))
}

/// Begins, finds and ends sessions of the login pages.
#[derive(Clone)]
pub(crate) struct PageSessions {
    core: Arc<Core>,
    passwords: Arc<Passwords>,
}

impl PageSessions {
    pub(crate) fn new(core: Arc<Core>, passwords: Arc<Passwords>) -> Self {
        Self { core, passwords }
    }

    /// The text of a new cookie, which is no session yet.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub(crate) fn draw_cookie(&self) -> Result<String, IdentityError> {
        Ok(random_text(&self.core.random)?)
    }

    /// Logs in by the login page. The text is for the cookie of the new session; the session of the
    /// cookie that came with the form ends.
    ///
    /// # Errors
    /// Those of [`Passwords::log_in`], [`IdentityError::Randomness`].
    pub(crate) async fn begin(
        &self,
        actor: &Actor,
        username: &str,
        password: &Password,
        replaced: Option<&str>,
    ) -> Result<String, IdentityError> {
        let method = LoginMethod::Page;
        let logged_in = self.passwords.log_in(actor, username, password, method);
        let (user, _) = logged_in.await?;
        let cookie = self.draw_cookie()?;
        let now = self.core.now();
        let session = PageSession {
            digest: digest(cookie.as_bytes()),
            user_id: user.id.clone(),
            authenticated_at: now,
            expires_at: now + SESSION_TTL,
        };
        let replaced = replaced.map(|cookie| digest(cookie.as_bytes()));
        let written = self
            .core
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                // First, as in all that ends sessions: another order could end in a deadlock.
                store::lock(transaction).await?;
                if let Some(replaced) = replaced {
                    store::sessions::delete(transaction, replaced).await?;
                }
                // A change of the user takes the lock too and ends their sessions: before or after this.
                let same = is_unchanged(transaction, &user).await?;
                if same {
                    store::sessions::insert(transaction, session).await?;
                }
                Ok(same)
            });
        if !written.await? {
            return Err(IdentityError::InvalidCredentials);
        }
        Ok(cookie)
    }

    /// The session of a cookie, if it is in force and its user still is.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn find(&self, cookie: &str) -> Result<Option<LoginSession>, IdentityError> {
        let (digest, now) = (digest(cookie.as_bytes()), self.core.now());
        let found = self
            .core
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let session = store::sessions::by_digest(connection, digest, now).await?;
                let Some(session) = session else {
                    return Ok(None);
                };
                let user = store::users::by_id(connection, &session.user_id).await?;
                let user = user.filter(|user| user.disabled_at.is_none());
                Ok(user.map(|user| LoginSession {
                    user,
                    authenticated_at: session.authenticated_at,
                    digest: session.digest,
                }))
            });
        found.await
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub(crate) async fn end(
        &self,
        actor: &Actor,
        session: LoginSession,
    ) -> Result<(), IdentityError> {
        let LoginSession { user, digest, .. } = session;
        let actor = actor.as_user(&user.id, user.roles.scopes());
        let written = self.core.db.write(async |transaction| {
            store::sessions::delete(transaction, digest).await?;
            let target = format!("user:{}", user.id);
            let done = Event::new(Action::Logout, target).with(LoginMethod::Page.as_str());
            self.core.audit.record(transaction, &actor, done).await
        });
        Ok(written.await?)
    }
}
