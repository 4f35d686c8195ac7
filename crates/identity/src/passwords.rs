//! Logging in: a name and a password become a user.
//!
//! Unknown, disabled and wrong give the same answer and take the same time: where there is no such
//! user, the password is checked against a hash that nobody's password has.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use auspex_kernel::db::Transaction;
use auspex_kernel::id;

use crate::audit::{Action, Actor, Event};
use crate::config;
use crate::core::Core;
use crate::error::IdentityError;
use crate::password::{Hasher, Lane, Password};
use crate::store;
use crate::throttle::Throttle;
use crate::types::user::{LoginMethod, User, password_mark};

/// Another login may store a better hash of the same password while this one is being checked.
const ATTEMPTS_MAX: usize = 2;

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
    throttle: Throttle,
    settings: config::Passwords,
    /// Started at the first password: commands for operators rarely need it.
    hasher: OnceLock<Hasher>,
}

impl Passwords {
    pub(crate) fn new(core: Arc<Core>, config: &config::Config) -> Self {
        Self {
            core,
            throttle: Throttle::new(config.throttle),
            settings: config.passwords.clone(),
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

    async fn verify(
        &self,
        actor: &Actor,
        username: &str,
        password: &Password,
        denied: Event,
    ) -> Result<Checked, IdentityError> {
        let address = actor.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let admission = self
            .throttle
            .admit(address, username, self.core.clock.steady())?;
        if !admission.delay.is_zero() {
            tokio::time::sleep(admission.delay).await;
        }
        let name = username.to_owned();
        let found = self
            .core
            .db
            .read(async |connection| store::users::by_username(connection, &name).await);
        let (user, stored) = match found.await? {
            Some((user, stored)) if user.disabled_at.is_none() => (Some(user), stored),
            Some(_) | None => (None, None),
        };
        let had = stored.clone();
        let verified = self
            .hasher()?
            .verify(password.clone(), stored, admission.lane)
            .await?;
        let now = self.core.clock.steady();
        let Some(user) = user.filter(|_| verified.matches) else {
            self.throttle.failed(address, username, now);
            self.core.audit.add(actor, denied).await?;
            return Err(IdentityError::InvalidCredentials);
        };
        self.throttle.succeeded(address, username, now);
        Ok(Checked {
            user,
            had,
            rehashed: verified.rehashed,
        })
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
        password
            .check_choice(username)
            .map_err(|wrong| IdentityError::Invalid(vec![wrong]))?;
        Ok(self.hasher()?.hash(password.clone(), Lane::Known).await?)
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
