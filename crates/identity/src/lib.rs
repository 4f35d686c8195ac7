//! Who calls, and what they may do: users, API keys, tokens, OAuth 2.0.
//!
//! Every request is answered from memory (`directory.rs`); the database is asked when something is
//! made, changed or listed, and by [`Identity::watch`], which notices what other processes did. What
//! an operation confirms is in force in this process when it returns.
//!
//! This crate never logs a password, key, token or e-mail, and stores of a key its SHA-256 alone.

mod api_key;
mod api_keys;
mod audit;
mod authenticate;
mod change;
mod config;
mod directory;
mod error;
mod following;
mod http;
mod issuer;
mod jwt;
mod key_ring;
mod login;
mod maintenance;
mod migration;
mod oauth;
mod password;
mod remembered;
mod revocation;
mod role;
mod service;
mod shards;
mod signing;
mod store;
mod throttle;
mod token;
mod user;
mod users;
mod watch;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use auspex_kernel::db::Db;
use auspex_kernel::{Clock, Timestamp, secrets};
use aws_lc_rs::hmac;
use tokio::sync::Mutex;

pub use api_key::{ApiKey, KeyState, NewKey, Secret};
pub use audit::{Action, Actor, Outcome};
pub use config::Config;
pub use error::IdentityError;
pub use oauth::{
    Client, ClientDraft, ClientScopes, ClientSecret, GrantType, NewClient, UnknownClientScope,
};
pub use role::{Role, RoleSet, UnknownRole};
pub use service::IdentityService;
pub use user::{Expected, Login, LoginMethod, NewUser, User, UserChange, UserFilter};

use directory::Directory;
use following::Known;
use issuer::Issuers;
use oauth::OAuthKey;
use password::Hasher;
use remembered::{Mark, Remembered};
use throttle::Throttle;

/// The identity service.
pub struct Identity {
    db: Db,
    clock: Clock,
    config: Config,
    issuer: String,
    directory: Directory,
    remembered: Remembered,
    /// One lock per password that is being verified, for all who show it at the same time.
    verifying: parking_lot::Mutex<HashMap<Mark, Arc<Mutex<()>>>>,
    refresh_key: hmac::Key,
    oauth_key: OAuthKey,
    issuers: Issuers,
    throttle: Throttle,
    /// Started at the first password: commands for operators rarely need it.
    hasher: OnceLock<Hasher>,
    /// Held while the directory is brought up to date: of two loads at once the one that read
    /// earlier could otherwise win and undo what the other made visible.
    known: Mutex<Known>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

impl Identity {
    /// Brings the tables up to date. Safe to run from several processes at once.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn migrate(db: &Db) -> Result<(), IdentityError> {
        Ok(db.migrate::<migration::Migrator>().await?)
    }

    /// Opens the service on a database whose tables are up to date, and loads who is in force.
    /// `issuer` is the public URL of the server.
    ///
    /// # Errors
    /// [`IdentityError::Database`], [`IdentityError::Randomness`], [`IdentityError::Issuers`].
    pub async fn open(
        db: Db,
        clock: Clock,
        config: Config,
        issuer: &str,
    ) -> Result<Arc<Self>, IdentityError> {
        let refresh_key = secrets::load_or_create(&db, "identity.refresh").await?;
        let oauth_key = secrets::load_or_create(&db, "identity.oauth").await?;
        let issuers = Issuers::new(config.issuers.clone(), clock.clone());
        let identity = Self {
            db,
            clock,
            issuer: issuer.trim_end_matches('/').to_owned(),
            directory: Directory::default(),
            remembered: Remembered::new(config.verified_max)?,
            verifying: parking_lot::Mutex::default(),
            refresh_key: hmac::Key::new(hmac::HMAC_SHA256, &refresh_key),
            oauth_key: OAuthKey::new(&oauth_key),
            issuers: issuers.map_err(IdentityError::Issuers)?,
            throttle: Throttle::new(config.throttle.into()),
            hasher: OnceLock::new(),
            known: Mutex::default(),
            config,
        };
        identity.reload().await?;
        Ok(Arc::new(identity))
    }

    /// The time here.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The threads that hash passwords.
    fn hasher(&self) -> Result<&Hasher, IdentityError> {
        if let Some(hasher) = self.hasher.get() {
            return Ok(hasher);
        }
        let settings = &self.config.passwords;
        let started = Hasher::start(settings.parameters(), settings.threads, settings.queue_max);
        let started = started.map_err(|error| IdentityError::Hasher(Arc::new(error)))?;
        // Of two started at once the second ends when it is dropped.
        Ok(self.hasher.get_or_init(|| started))
    }
}
