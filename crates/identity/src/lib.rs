//! Who calls, and what he may do: users, API keys, tokens, OAuth 2.0.
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
mod http;
mod issuer;
mod jwt;
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

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use auspex_kernel::db::Db;
use auspex_kernel::id::{ClientId, KeyId, SessionId, UserId};
use auspex_kernel::{Clock, secrets};
use aws_lc_rs::hmac;
use tokio::sync::Mutex;

pub use api_key::{ApiKey, KeyState, NewKey, Secret};
pub use audit::{Action, Actor, Outcome};
pub use config::Config;
pub use error::IdentityError;
pub use login::LoginMethod;
pub use oauth::{
    Client, ClientDraft, ClientScopes, ClientSecret, GrantType, NewClient, UnknownClientScope,
};
pub use role::{Role, RoleSet, UnknownRole};
pub use service::IdentityService;
pub use user::{Expected, Login, NewUser, User, UserChange, UserFilter};

use api_key::Digest;
use directory::{Directory, Ignored};
use issuer::Issuers;
use oauth::OAuthKey;
use password::Hasher;
use remembered::{Mark, Remembered};
use signing::KeyRing;
use store::Kind;
use store::changes::Change;
use store::keys::Which;
use throttle::Throttle;

/// No access token lives longer than a day, so a revocation need not be remembered longer; five
/// minutes more for clocks that differ.
const REVOCATION_KEPT: Duration = Duration::from_mins(24 * 60 + 5);

/// The identity service.
pub struct Identity {
    db: Db,
    clock: Clock,
    config: Config,
    issuer: String,
    directory: Directory,
    remembered: Remembered,
    /// Held by who verifies a password that others show at the same time.
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

/// Which state of the database the directory shows.
#[derive(Default)]
struct Known {
    generation: i64,
    /// What was not understood, so that it is told once.
    ignored: BTreeSet<String>,
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

    /// Loads everything anew. Only after an error need anybody but [`Identity::watch`] call it.
    ///
    /// # Errors
    /// [`IdentityError::Database`]; what is known so far stays in force.
    pub async fn reload(&self) -> Result<(), IdentityError> {
        self.load(&mut *self.known.lock().await).await
    }

    /// Loads what has changed since the last time.
    async fn catch_up(&self) -> Result<(), IdentityError> {
        let mut known = self.known.lock().await;
        let generation = known.generation;
        let changes = self
            .db
            .read(async |connection| store::changes::changes_after(connection, generation).await);
        let Some(changes) = changes.await? else {
            return self.load(&mut known).await;
        };
        let Some(last) = changes.last().map(|change| change.generation) else {
            return Ok(());
        };
        let mut ignored = Ignored::new();
        let applied = self.apply(&changes, &mut ignored).await;
        // Even if only some were: what is remembered must be looked at again.
        self.directory.changed();
        applied?;
        known.generation = last;
        known.tell(ignored);
        Ok(())
    }

    /// Loads what these changes are about.
    async fn apply(&self, changes: &[Change], ignored: &mut Ignored) -> Result<(), IdentityError> {
        let of = |kind: Kind| -> BTreeSet<&str> {
            let of_kind = changes.iter().filter(|change| change.kind == Some(kind));
            of_kind.map(|change| change.subject.as_str()).collect()
        };
        let users = || {
            of(Kind::User)
                .into_iter()
                .map(UserId::from_stored)
                .collect()
        };
        self.load_users(users()).await?;
        let clients = of(Kind::Client).into_iter();
        self.load_clients(clients.map(ClientId::from_stored).collect())
            .await?;
        let grants = of(Kind::Grant).into_iter().map(SessionId::from_stored);
        let tokens = of(Kind::Token).into_iter().map(str::to_owned);
        self.load_revocations(grants.collect(), tokens.collect())
            .await?;
        // They are laid out by what their owners may do, and so come after those.
        let keys = of(Kind::Key).into_iter().map(KeyId::from_stored);
        self.load_keys(keys.collect(), users(), ignored).await?;
        if !of(Kind::SigningKey).is_empty() {
            let stored = self
                .db
                .read(async |connection| store::signing_keys::all(connection).await);
            let ring = KeyRing::new(stored.await?);
            self.directory.set_signing_keys(ring);
        }
        Ok(())
    }

    async fn load_users(&self, ids: Vec<UserId>) -> Result<(), IdentityError> {
        if ids.is_empty() {
            return Ok(());
        }
        let wanted = Some(ids.clone());
        let found = self
            .db
            .read(async |connection| store::changes::active_users(connection, wanted).await);
        let mut found: HashMap<_, _> = found.await?.into_iter().collect();
        for id in ids {
            let user = found.remove(&id);
            self.directory.set_user(id, user);
        }
        Ok(())
    }

    async fn load_clients(&self, ids: Vec<ClientId>) -> Result<(), IdentityError> {
        if ids.is_empty() {
            return Ok(());
        }
        let wanted = Some(ids.clone());
        let found = self
            .db
            .read(async |connection| store::changes::client_ids(connection, wanted).await);
        let found: BTreeSet<ClientId> = found.await?.into_iter().collect();
        for id in ids {
            let exists = found.contains(&id);
            self.directory.set_client(id, exists);
        }
        Ok(())
    }

    async fn load_revocations(
        &self,
        grants: Vec<SessionId>,
        tokens: Vec<String>,
    ) -> Result<(), IdentityError> {
        if !grants.is_empty() {
            let since = self.clock.now() - REVOCATION_KEPT;
            let found = self.db.read(async |connection| {
                store::changes::revoked_grants(connection, Some(grants), since).await
            });
            for (id, at) in found.await? {
                self.directory.revoke_grant(id, at + REVOCATION_KEPT);
            }
        }
        if !tokens.is_empty() {
            let found = self.db.read(async |connection| {
                store::changes::revoked_tokens(connection, Some(tokens)).await
            });
            for (jti, until) in found.await? {
                self.directory.revoke_token(jti, until);
            }
        }
        Ok(())
    }

    async fn load_keys(
        &self,
        mut ids: Vec<KeyId>,
        owners: Vec<UserId>,
        ignored: &mut Ignored,
    ) -> Result<(), IdentityError> {
        if ids.is_empty() && owners.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let (ids, found) = self
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                if !owners.is_empty() {
                    ids.extend(store::keys::ids_of_owners(connection, owners.clone()).await?);
                }
                let which = Which::Changed {
                    ids: ids.clone(),
                    owners,
                };
                Ok((ids, store::keys::live_keys(connection, which, now).await?))
            })
            .await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|key| (key.id.clone(), key)).collect();
        // A key that changed together with its owner is there twice, and to be set once.
        let ids: BTreeSet<KeyId> = ids.into_iter().collect();
        for id in ids {
            let key = found.remove(&id);
            self.directory.set_key(&id, key, ignored);
        }
        Ok(())
    }

    async fn load(&self, known: &mut Known) -> Result<(), IdentityError> {
        let now = self.clock.now();
        let since = now - REVOCATION_KEPT;
        let (generation, users, clients, grants, tokens, keys, signing_keys) = self
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                // The counter first: a change in between makes the rows newer than it says,
                // and they are loaded once more for nothing, rather than once too seldom.
                Ok((
                    store::changes::generation(connection).await?,
                    store::changes::active_users(connection, None).await?,
                    store::changes::client_ids(connection, None).await?,
                    store::changes::revoked_grants(connection, None, since).await?,
                    store::changes::revoked_tokens(connection, None).await?,
                    store::keys::live_keys(connection, Which::All, now).await?,
                    store::signing_keys::all(connection).await?,
                ))
            })
            .await?;
        let until = |(id, at)| (id, at + REVOCATION_KEPT);
        let grants = grants.into_iter().map(until).collect();
        let mut ignored = Ignored::new();
        self.directory.fill(users, clients, grants, tokens);
        self.directory.fill_keys(keys, &mut ignored);
        self.directory.set_signing_keys(KeyRing::new(signing_keys));
        self.directory.changed();
        known.generation = generation;
        known.tell(ignored);
        Ok(())
    }
}

impl Known {
    /// Logs what was ignored and had not been before.
    fn tell(&mut self, ignored: Ignored) {
        for what in ignored {
            if !self.ignored.contains(&what) {
                tracing::warn!("while loading the API keys {what} was ignored");
                self.ignored.insert(what);
            }
        }
    }
}

/// Tells one stored password from another without telling what it is.
fn password_mark(hash: Option<&str>) -> u64 {
    hash.map_or(0, |hash| Digest::of(hash.as_bytes()).prefix())
}
