//! Logging in: a name and a password become a user.
//!
//! Unknown, disabled and wrong give the same answer and take the same time: where there is no such
//! user, the password is checked against a hash that nobody's password has.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use auspex_kernel::db::Transaction;
use auspex_kernel::id;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::audit::{Action, Actor, Event};
use crate::canonical;
use crate::config;
use crate::core::Core;
use crate::error::IdentityError;
use crate::password::{Hasher, Lane, Password, Verified};
use crate::store;
use crate::throttle::{Attempt, REFUSED_AFTER, Throttle, Turn};
use crate::types::user::{LoginMethod, User, password_mark};

/// Another login may store a better hash of the same password while this one is being checked.
const ATTEMPTS_MAX: usize = 2;
/// The longest that a password from an address that has failed too often waits to be checked.
const TRIED_WITHIN: Duration = Duration::from_secs(10);
/// Names from addresses that have failed too often that are looked up at once. The others wait, so
/// that they leave the database to everybody else.
const LOOKUPS_MAX: usize = 2;

/// Whose password was shown.
struct Checked {
    user: User,
    /// Its hash when it was checked.
    had: Option<String>,
    /// A better one, to be stored in its place.
    rehashed: Option<String>,
}

/// Checks passwords, and hashes those that are chosen.
pub(crate) struct Passwords {
    core: Arc<Core>,
    throttle: Arc<Throttle>,
    settings: config::Passwords,
    /// See [`LOOKUPS_MAX`].
    lookups: Semaphore,
    /// Started at the first password: commands for operators rarely need it.
    hasher: OnceLock<Hasher>,
}

impl Passwords {
    pub(crate) fn new(
        core: Arc<Core>,
        throttle: Arc<Throttle>,
        settings: config::Passwords,
    ) -> Self {
        Self {
            core,
            throttle,
            settings,
            lookups: Semaphore::new(LOOKUPS_MAX),
            hasher: OnceLock::new(),
        }
    }

    /// Checks a name and a password, and records the login or the refusal. Gives the mark of the
    /// password as well.
    ///
    /// # Errors
    /// [`IdentityError::InvalidCredentials`], [`IdentityError::TooManyAttempts`],
    /// [`IdentityError::Busy`], [`IdentityError::Database`].
    pub(crate) async fn log_in(
        &self,
        actor: &Actor,
        username: &str,
        password: &Password,
        method: LoginMethod,
    ) -> Result<(User, u64), IdentityError> {
        for _ in 0..ATTEMPTS_MAX {
            let denied = Event::denied(Action::Login, None).with(method.as_str());
            let Checked {
                user,
                had,
                rehashed,
            } = self.verify(actor, username, password, denied).await?;
            let mark = password_mark(rehashed.as_deref().or(had.as_deref()));
            let user = self.record_login(actor, user, method, had, rehashed);
            if let Some(user) = user.await? {
                // Another process may have added or changed the user since this one last looked.
                let is_known =
                    self.core.directory.user(&user.id).is_some_and(|known| {
                        known.password_mark == mark && known.roles == user.roles
                    });
                if !is_known {
                    self.core.put_in_force().await;
                }
                return Ok((user, mark));
            }
        }
        Err(IdentityError::InvalidCredentials)
    }

    /// The refusal of a name and password that were found wrong after they had been shown here too, at
    /// `shown_at`. It counts, and is told when it would have been.
    pub(crate) async fn refuse_again(
        &self,
        actor: &Actor,
        method: LoginMethod,
        shown_at: Instant,
    ) -> IdentityError {
        let failed = self
            .throttle
            .failed(address_of(actor), self.core.clock.steady());
        let denied = Event::denied(Action::Login, None).with(method.as_str());
        if let Err(error) = self.core.audit.refuse(actor, denied).await {
            return error;
        }
        match failed {
            Ok(()) => IdentityError::InvalidCredentials,
            Err(retry) => {
                tokio::time::sleep_until(shown_at + REFUSED_AFTER).await;
                retry.into()
            }
        }
    }

    /// The mark of the password of a user who is logged in, if they know it. As bounded as a login;
    /// only the refusal is recorded.
    ///
    /// # Errors
    /// As of [`Self::log_in`].
    pub(crate) async fn check(
        &self,
        actor: &Actor,
        user: &User,
        password: &Password,
    ) -> Result<u64, IdentityError> {
        let denied = Event::denied(Action::UserPassword, Some(format!("user:{}", user.id)));
        let checked = self.verify(actor, &user.username, password, denied);
        Ok(password_mark(checked.await?.had.as_deref()))
    }

    /// Checks a password as the throttle allows, and records a refusal.
    async fn verify(
        &self,
        actor: &Actor,
        username: &str,
        password: &Password,
        denied: Event,
    ) -> Result<Checked, IdentityError> {
        let now = self.core.clock.steady();
        let account = canonical::key(username);
        let attempt = self.throttle.begin(address_of(actor), &account, now);
        let tried = self.try_password(&attempt, username, password);
        let Some(retry) = attempt.beyond else {
            if let Some(checked) = tried.await? {
                return Ok(checked);
            }
            self.core.audit.refuse(actor, denied).await?;
            return Err(IdentityError::InvalidCredentials);
        };
        // All refusals take the same time, whoever there is and whose turn it was. Only where hashing
        // itself takes longer, so does the answer: a right password is not refused for that.
        let refused_at = Instant::now() + REFUSED_AFTER;
        match tokio::time::timeout(TRIED_WITHIN, tried).await {
            Ok(Ok(Some(checked))) => return Ok(checked),
            Ok(Err(error)) if !matches!(error, IdentityError::Busy(_)) => return Err(error),
            Ok(Ok(None) | Err(_)) | Err(_) => {}
        }
        self.core.audit.refuse(actor, denied).await?;
        tokio::time::sleep_until(refused_at).await;
        Err(retry.into())
    }

    /// Checks a password when it is its turn; `None` if it is wrong, or has no turn.
    async fn try_password(
        &self,
        attempt: &Attempt,
        username: &str,
        password: &Password,
    ) -> Result<Option<Checked>, IdentityError> {
        let tried = self.hash_in_turn(attempt, username, password).await;
        if tried.is_err() {
            self.throttle.untried(attempt);
        }
        tried
    }

    async fn hash_in_turn(
        &self,
        attempt: &Attempt,
        username: &str,
        password: &Password,
    ) -> Result<Option<Checked>, IdentityError> {
        if self.throttle.is_hopeless(attempt, self.core.clock.steady()) {
            return Ok(None);
        }
        let (user, stored) = match self.look_up(attempt, username).await? {
            Some((user, stored)) if user.disabled_at.is_none() => (Some(user), stored),
            Some(_) | None => (None, None),
        };
        let now = self.core.clock.steady();
        let Some(Turn { delay, lane }) = self.throttle.turn(attempt, user.is_some(), now) else {
            return Ok(None);
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let had = stored.clone();
        let verified = self.check_forms(password, stored, lane).await?;
        let Some(user) = user.filter(|_| verified.matches) else {
            return Ok(None);
        };
        self.throttle.succeeded(attempt, self.core.clock.steady());
        Ok(Some(Checked {
            user,
            had,
            rehashed: verified.rehashed,
        }))
    }

    /// Checks a password in its canonical form, and as it was sent where it has another: it may have
    /// been chosen before there was such a form, and is then hashed anew.
    async fn check_forms(
        &self,
        password: &Password,
        stored: Option<String>,
        lane: Lane,
    ) -> Result<Verified, IdentityError> {
        let hasher = self.hasher()?;
        let canonical = password.canonical();
        if let Some(canonical) = &canonical {
            let verified = hasher.verify(canonical.clone(), stored.clone(), lane);
            let verified = verified.await?;
            if verified.matches || canonical.bytes() == password.bytes() {
                return Ok(verified);
            }
        }
        let mut verified = hasher.verify(password.clone(), stored, lane).await?;
        if verified.matches
            && let Some(canonical) = canonical
        {
            verified.rehashed = Some(hasher.hash(canonical, lane).await?);
        }
        Ok(verified)
    }

    async fn look_up(
        &self,
        attempt: &Attempt,
        username: &str,
    ) -> Result<Option<(User, Option<String>)>, IdentityError> {
        let _place = match attempt.beyond {
            Some(_) if !attempt.is_known => self.lookups.acquire().await.ok(),
            Some(_) | None => None,
        };
        let name = username.to_owned();
        let found = self
            .core
            .db
            .read(async |connection| store::users::by_login_name(connection, &name).await);
        Ok(found.await?)
    }

    /// The user as they are after the login; `None` if they were disabled, or were given another
    /// password, while this one was being checked.
    async fn record_login(
        &self,
        actor: &Actor,
        user: User,
        method: LoginMethod,
        had: Option<String>,
        rehashed: Option<String>,
    ) -> Result<Option<User>, IdentityError> {
        let (actor, now) = (
            actor.as_user(&user.id, user.roles.scopes()),
            self.core.now(),
        );
        let changes_hash = rehashed.is_some();
        let recorded = self
            .core
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                let transaction: &Transaction = transaction;
                if changes_hash {
                    store::lock(transaction).await?;
                }
                let counted = store::users::count_login(transaction, &user.id, had, rehashed, now);
                let Some(user) = counted.await? else {
                    return Ok(None);
                };
                let login = id::new_id(&self.core.clock, &self.core.random)?;
                store::users::insert_login(transaction, login, &user.id, method, &actor, now)
                    .await?;
                let done = Event::new(Action::Login, format!("user:{}", user.id));
                let done = done.with(method.as_str());
                self.core.audit.record(transaction, &actor, done).await?;
                Ok(Some(user))
            })
            .await?;
        if changes_hash {
            self.core.put_in_force().await;
        }
        Ok(recorded)
    }

    /// The hash of a password that somebody chose.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] if it may not be chosen, [`IdentityError::Busy`].
    pub(crate) async fn hash(
        &self,
        password: &Password,
        username: &str,
    ) -> Result<String, IdentityError> {
        let chosen = password
            .check_choice(username)
            .map_err(|wrong| IdentityError::Invalid(vec![wrong]))?;
        Ok(self.hasher()?.hash(chosen, Lane::Known).await?)
    }

    /// The threads that hash passwords.
    fn hasher(&self) -> Result<&Hasher, IdentityError> {
        if let Some(hasher) = self.hasher.get() {
            return Ok(hasher);
        }
        let (parameters, settings) = (self.settings.parameters(), &self.settings);
        let started = Hasher::start(
            parameters,
            settings.threads,
            settings.queue_max,
            &self.core.random,
        );
        let started = started.map_err(|error| IdentityError::Hasher(Arc::new(error)))?;
        // Of two started at once the second ends when it is dropped.
        Ok(self.hasher.get_or_init(|| started))
    }
}

/// Commands of operators come from here.
fn address_of(actor: &Actor) -> IpAddr {
    actor.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
