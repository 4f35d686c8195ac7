//! Who calls, and what he may do: users, API keys, tokens, OAuth 2.0.
//!
//! Every request is answered from memory ([`directory`]); the database is asked when something is
//! made, changed or listed, and by [`Identity::watch`], which notices what other processes did. What
//! an operation confirms is in force in this process when it returns.
//!
//! This crate never logs a password, key, token or e-mail, and stores of a key its SHA-256 alone.

mod api_key;
mod audit;
mod authenticate;
mod config;
mod directory;
mod error;
mod http;
mod issuer;
mod jwt;
mod login;
mod maintenance;
mod migration;
mod password;
mod remembered;
mod role;
mod signing;
mod store;
mod throttle;
mod token;
mod user;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use auspex_kernel::db::Db;
use auspex_kernel::{Clock, ScopeSet, Timestamp, secrets};
use aws_lc_rs::hmac;
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::sync::Mutex;

pub use api_key::{ApiKey, InvalidKeyId, KeyId, NewKey, Secret};
pub use audit::{Action, Actor, Outcome};
pub use config::Config;
pub use error::IdentityError;
pub use http::document;
pub use login::LoginMethod;
pub use role::{Role, RoleSet, UnknownRole};
pub use user::User;

use api_key::Digest;
use audit::Event;
use directory::{Directory, Ignored};
use issuer::Issuers;
use password::Hasher;
use remembered::{Mark, Remembered};
use signing::KeyRing;
use store::Kind;
use store::keys::Which;
use throttle::Throttle;

const BOOTSTRAP_NAME: &str = "admin";
/// How many keys of one name an error lists.
const AMBIGUOUS_SHOWN_MAX: u64 = 10;
/// No access token lives longer, so a revocation need not be remembered longer.
const ACCESS_TTL_MAX: Duration = Duration::from_hours(24);

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
    keys: ArcSwap<KeyRing>,
    refresh_key: hmac::Key,
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
        let issuers = Issuers::new(config.issuers.clone(), clock.clone());
        let identity = Self {
            db,
            clock,
            issuer: issuer.trim_end_matches('/').to_owned(),
            directory: Directory::default(),
            remembered: Remembered::new(config.verified_max)?,
            verifying: parking_lot::Mutex::default(),
            keys: ArcSwap::default(),
            refresh_key: hmac::Key::new(hmac::HMAC_SHA256, &refresh_key),
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

    /// Makes a key named `admin` with every scope if the database has never had a key. Of several
    /// processes that start at once exactly one gets it.
    ///
    /// `keep` is given the secret before the key exists, so that a key whose secret nobody has
    /// cannot come about: if it fails, no key is made.
    ///
    /// # Errors
    /// [`IdentityError::Database`], also with the error of `keep`, [`IdentityError::Randomness`].
    pub async fn bootstrap(
        &self,
        keep: impl FnOnce(&Secret) -> std::io::Result<()> + Send + 'static,
    ) -> Result<Option<NewKey>, IdentityError> {
        let has_keys = self
            .db
            .read(|connection| Box::pin(store::keys::has_keys(connection)));
        if has_keys.await? {
            // Another process may have made it since this one was opened.
            self.catch_up().await?;
            return Ok(None);
        }
        let new = self.draw_key(BOOTSTRAP_NAME, ScopeSet::all(), None, None)?;
        let now = self.clock.now();
        let made = self
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock(transaction).await?;
                    if store::keys::has_keys(transaction).await? {
                        return Ok(None);
                    }
                    add(transaction, &new.key, &new.secret.digest(), now).await?;
                    let made = Event::new(Action::KeyCreate, format!("key:{}", new.key.id));
                    store::audit::record(transaction, &Actor::operator(), made, now).await?;
                    keep(&new.secret).map_err(|error| DbErr::Custom(error.to_string()))?;
                    Ok(Some(new))
                })
            })
            .await?;
        self.put_in_force().await;
        Ok(made)
    }

    /// Makes a key that belongs to whoever makes it. `name` is 1 to 100 printable characters, not
    /// blank; `expires_at` lies in the future; `scopes` go no further than the maker's own. The
    /// secret is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Escalation`], [`IdentityError::Database`],
    /// [`IdentityError::Randomness`].
    pub async fn create_key(
        &self,
        actor: &Actor,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
    ) -> Result<NewKey, IdentityError> {
        let now = self.clock.now();
        let wrong = api_key::validate(name, scopes, expires_at, now);
        if !wrong.is_empty() {
            return Err(IdentityError::Invalid(wrong));
        }
        if !actor.scopes.contains_all(scopes) {
            return Err(IdentityError::Escalation);
        }
        let new = self.draw_key(name, scopes, expires_at, actor.user_id.clone())?;
        let (key, digest, actor) = (new.key.clone(), new.secret.digest(), actor.clone());
        self.db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock(transaction).await?;
                    add(transaction, &key, &digest, now).await?;
                    let made = Event::new(Action::KeyCreate, format!("key:{}", key.id))
                        .with(key.scopes.to_string());
                    store::audit::record(transaction, &actor, made, now).await
                })
            })
            .await?;
        self.put_in_force().await;
        Ok(new)
    }

    /// Every key, revoked and expired ones too, newest first. Neither secrets nor hashes.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list_keys(&self) -> Result<Vec<ApiKey>, IdentityError> {
        let list = self
            .db
            .read(|connection| Box::pin(store::keys::list_keys(connection)));
        Ok(list.await?)
    }

    /// Ends a key, given by its id (in either case) or by a name that one unrevoked key has. To
    /// revoke a revoked key changes nothing and is no error.
    ///
    /// # Errors
    /// [`IdentityError::KeyNotFound`], [`IdentityError::KeyAmbiguous`], [`IdentityError::Database`].
    pub async fn revoke_key(
        &self,
        actor: &Actor,
        id_or_name: &str,
    ) -> Result<ApiKey, IdentityError> {
        // Also keeps text from the database that it cannot take, such as a NUL.
        if !api_key::is_name(id_or_name) {
            return Err(IdentityError::KeyNotFound);
        }
        let (id_or_name, actor) = (id_or_name.to_owned(), actor.clone());
        let now = self.clock.now();
        let revoked = self
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock(transaction).await?;
                    let mut key = match find_key(transaction, &id_or_name).await? {
                        Ok(key) => key,
                        refused => return Ok(refused),
                    };
                    if key.revoked_at.is_none() {
                        store::keys::set_revoked_at(transaction, &key.id, now).await?;
                        let id = key.id.as_str();
                        store::record_change(transaction, Kind::Key, id, now).await?;
                        let revoked = Event::new(Action::KeyRevoke, format!("key:{id}"));
                        store::audit::record(transaction, &actor, revoked, now).await?;
                        key.revoked_at = Some(now);
                    }
                    Ok(Ok(key))
                })
            })
            .await??;
        self.catch_up().await?;
        Ok(revoked)
    }

    /// Makes what was stored known here. An error now would lose a secret for good, so that a
    /// database that fails at this very moment only delays it until [`Identity::watch`] succeeds.
    async fn put_in_force(&self) {
        if let Err(error) = self.catch_up().await {
            tracing::warn!(%error, "a change is stored but not yet in force");
        }
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
        let changes = self.db.read(move |connection| {
            Box::pin(store::changes::changes_after(connection, generation))
        });
        let Some(changes) = changes.await? else {
            return self.load(&mut known).await;
        };
        let Some(last) = changes.last().map(|change| change.generation) else {
            return Ok(());
        };
        let of = |kind: Kind| -> Vec<String> {
            let subjects: BTreeSet<_> = changes
                .iter()
                .filter(|change| change.kind == Some(kind))
                .map(|change| &change.subject)
                .collect();
            subjects.into_iter().cloned().collect()
        };
        let mut ignored = Ignored::new();
        // Keys are laid out by what their owners may do, and so come last.
        self.load_users(of(Kind::User)).await?;
        self.load_clients(of(Kind::Client)).await?;
        self.load_revocations(of(Kind::Grant), of(Kind::Token))
            .await?;
        self.load_keys(of(Kind::Key), of(Kind::User), &mut ignored)
            .await?;
        self.directory.changed();
        known.generation = last;
        known.tell(ignored);
        Ok(())
    }

    async fn load_users(&self, ids: Vec<String>) -> Result<(), IdentityError> {
        if ids.is_empty() {
            return Ok(());
        }
        let wanted = Some(ids.clone());
        let found = self
            .db
            .read(move |connection| Box::pin(store::changes::active_users(connection, wanted)));
        let mut found: HashMap<_, _> = found.await?.into_iter().collect();
        for id in ids {
            let user = found.remove(&id);
            self.directory.set_user(id, user);
        }
        Ok(())
    }

    async fn load_clients(&self, ids: Vec<String>) -> Result<(), IdentityError> {
        if ids.is_empty() {
            return Ok(());
        }
        let wanted = Some(ids.clone());
        let found = self
            .db
            .read(move |connection| Box::pin(store::changes::client_ids(connection, wanted)));
        let found: BTreeSet<String> = found.await?.into_iter().collect();
        for id in ids {
            let exists = found.contains(&id);
            self.directory.set_client(id, exists);
        }
        Ok(())
    }

    async fn load_revocations(
        &self,
        grants: Vec<String>,
        tokens: Vec<String>,
    ) -> Result<(), IdentityError> {
        if !grants.is_empty() {
            let since = earlier(self.clock.now(), ACCESS_TTL_MAX);
            let found = self.db.read(move |connection| {
                Box::pin(store::changes::revoked_grants(
                    connection,
                    Some(grants),
                    since,
                ))
            });
            for (id, at) in found.await? {
                self.directory.revoke_grant(id, later(at, ACCESS_TTL_MAX));
            }
        }
        if !tokens.is_empty() {
            let found = self.db.read(move |connection| {
                Box::pin(store::changes::revoked_tokens(connection, Some(tokens)))
            });
            for (jti, until) in found.await? {
                self.directory.revoke_token(jti, until);
            }
        }
        Ok(())
    }

    async fn load_keys(
        &self,
        mut ids: Vec<String>,
        owners: Vec<String>,
        ignored: &mut Ignored,
    ) -> Result<(), IdentityError> {
        if ids.is_empty() && owners.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let (ids, found) = self
            .db
            .read(move |connection| {
                Box::pin(async move {
                    if !owners.is_empty() {
                        ids.extend(store::keys::ids_of_owners(connection, owners.clone()).await?);
                    }
                    let which = Which::Changed {
                        ids: ids.clone(),
                        owners,
                    };
                    Ok((ids, store::keys::live_keys(connection, which, now).await?))
                })
            })
            .await?;
        let mut found: HashMap<_, _> = found.into_iter().map(|key| (key.id.clone(), key)).collect();
        // A key that changed together with its owner is there twice, and to be set once.
        let ids: BTreeSet<String> = ids.into_iter().collect();
        for id in ids.into_iter().map(KeyId) {
            let key = found.remove(&id);
            self.directory.set_key(&id, key, ignored);
        }
        Ok(())
    }

    async fn load(&self, known: &mut Known) -> Result<(), IdentityError> {
        let now = self.clock.now();
        let since = earlier(now, ACCESS_TTL_MAX);
        let (generation, users, clients, grants, tokens, keys) = self
            .db
            .read(move |connection| {
                Box::pin(async move {
                    // The counter first: a change in between makes the rows newer than it says,
                    // and they are loaded once more for nothing, rather than once too seldom.
                    Ok((
                        store::changes::generation(connection).await?,
                        store::changes::active_users(connection, None).await?,
                        store::changes::client_ids(connection, None).await?,
                        store::changes::revoked_grants(connection, None, since).await?,
                        store::changes::revoked_tokens(connection, None).await?,
                        store::keys::live_keys(connection, Which::All, now).await?,
                    ))
                })
            })
            .await?;
        let until = |(id, at)| (id, later(at, ACCESS_TTL_MAX));
        let grants = grants.into_iter().map(until).collect();
        let mut ignored = Ignored::new();
        self.directory.fill(users, clients, grants, tokens);
        self.directory.fill_keys(keys, &mut ignored);
        self.load_signing_keys().await?;
        self.directory.changed();
        known.generation = generation;
        known.tell(ignored);
        Ok(())
    }

    fn draw_key(
        &self,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
        owner_id: Option<String>,
    ) -> Result<NewKey, IdentityError> {
        let key = ApiKey {
            id: KeyId::random()?,
            name: name.to_owned(),
            scopes,
            created_at: self.clock.now(),
            expires_at,
            revoked_at: None,
            owner_id,
            replaced_by: None,
            last_used_at: None,
        };
        Ok(NewKey {
            key,
            secret: Secret::random()?,
        })
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

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0 - by.as_micros() as i64)
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0 + by.as_micros() as i64)
}

/// Tells one stored password from another without telling what it is.
fn password_mark(hash: Option<&str>) -> u64 {
    hash.map_or(0, |hash| Digest::of(hash.as_bytes()).prefix())
}

async fn add(
    transaction: &DatabaseTransaction,
    key: &ApiKey,
    digest: &Digest,
    now: Timestamp,
) -> Result<(), DbErr> {
    store::keys::insert_key(transaction, key, digest).await?;
    store::record_change(transaction, Kind::Key, key.id.as_str(), now).await
}

/// The key that `id_or_name` means. An id goes before a name; of names, keys not yet revoked go
/// before revoked ones.
async fn find_key(
    transaction: &DatabaseTransaction,
    id_or_name: &str,
) -> Result<Result<ApiKey, IdentityError>, DbErr> {
    if let Ok(id) = id_or_name.parse::<KeyId>()
        && let Some(key) = store::keys::key_by_id(transaction, &id).await?
    {
        return Ok(Ok(key));
    }
    let mut keys =
        store::keys::keys_by_name(transaction, id_or_name, false, AMBIGUOUS_SHOWN_MAX).await?;
    if keys.len() > 1 {
        let ids = keys.into_iter().map(|key| key.id).collect();
        return Ok(Err(IdentityError::KeyAmbiguous(ids)));
    }
    if keys.is_empty() {
        keys = store::keys::keys_by_name(transaction, id_or_name, true, 1).await?;
    }
    Ok(keys.pop().ok_or(IdentityError::KeyNotFound))
}
