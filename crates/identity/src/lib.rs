//! Who calls, and what he may do: API keys.
//!
//! Every request is answered from a snapshot in memory; the database is asked when a key is made,
//! revoked or listed, and by [`Identity::watch`], which notices what other processes did. What an
//! operation confirms is in force in this process when it returns.
//!
//! This crate never logs a key or a hash, and stores of a key its SHA-256 alone.

mod api_key;
mod error;
mod migration;
mod snapshot;
mod store;
mod watch;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use auspex_kernel::db::Db;
use auspex_kernel::{Authenticate, Caller, Clock, Credential, ScopeSet, Timestamp};
use sea_orm::{DatabaseTransaction, DbErr};
use tokio::sync::Mutex;

pub use api_key::{ApiKey, InvalidKeyId, KeyId, NewKey, Secret};
pub use error::IdentityError;

use api_key::Digest;
use snapshot::Snapshot;

const BOOTSTRAP_NAME: &str = "admin";
/// How many keys of one name an error lists.
const AMBIGUOUS_SHOWN_MAX: u64 = 10;

/// The identity service.
pub struct Identity {
    db: Db,
    clock: Clock,
    snapshot: ArcSwap<Snapshot>,
    /// Held while a snapshot is loaded and put in place: of two loads at once the one that read
    /// earlier could otherwise win and undo what the other made visible.
    loading: Mutex<()>,
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

    /// Opens the service on a database whose tables are up to date, and loads the keys.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn open(db: Db, clock: Clock) -> Result<Arc<Self>, IdentityError> {
        let identity = Self {
            db,
            clock,
            snapshot: ArcSwap::default(),
            loading: Mutex::new(()),
        };
        identity.refresh().await?;
        Ok(Arc::new(identity))
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
            .read(|connection| Box::pin(store::has_keys(connection)));
        if has_keys.await? {
            // Another process may have made it since this one was opened.
            self.refresh_if_changed().await?;
            return Ok(None);
        }
        let new = self.draw_key(BOOTSTRAP_NAME, ScopeSet::all(), None)?;
        let made = self
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock_keys(transaction).await?;
                    if store::has_keys(transaction).await? {
                        return Ok(None);
                    }
                    add(transaction, &new.key, &new.secret.digest()).await?;
                    keep(&new.secret).map_err(|error| DbErr::Custom(error.to_string()))?;
                    Ok(Some(new))
                })
            })
            .await?;
        self.put_in_force().await;
        Ok(made)
    }

    /// Makes a key. `name` is 1 to 100 printable characters, not blank; `expires_at` lies in the
    /// future. The secret is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Database`], [`IdentityError::Randomness`].
    pub async fn create_key(
        &self,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
    ) -> Result<NewKey, IdentityError> {
        let wrong = api_key::validate(name, scopes, expires_at, self.clock.now());
        if !wrong.is_empty() {
            return Err(IdentityError::Invalid(wrong));
        }
        let new = self.draw_key(name, scopes, expires_at)?;
        let (key, digest) = (new.key.clone(), new.secret.digest());
        self.db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock_keys(transaction).await?;
                    add(transaction, &key, &digest).await
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
            .read(|connection| Box::pin(store::list_keys(connection)));
        Ok(list.await?)
    }

    /// Ends a key, given by its id (in either case) or by a name that one unrevoked key has. To
    /// revoke a revoked key changes nothing and is no error.
    ///
    /// # Errors
    /// [`IdentityError::KeyNotFound`], [`IdentityError::KeyAmbiguous`], [`IdentityError::Database`].
    pub async fn revoke_key(&self, id_or_name: &str) -> Result<ApiKey, IdentityError> {
        // Also keeps text from the database that it cannot take, such as a NUL.
        if !api_key::is_name(id_or_name) {
            return Err(IdentityError::KeyNotFound);
        }
        let id_or_name = id_or_name.to_owned();
        let now = self.clock.now();
        let revoked = self
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    store::lock_keys(transaction).await?;
                    let mut key = match find_key(transaction, &id_or_name).await? {
                        Ok(key) => key,
                        refused => return Ok(refused),
                    };
                    if key.revoked_at.is_none() {
                        store::set_revoked_at(transaction, &key.id, now).await?;
                        store::count_change(transaction).await?;
                        key.revoked_at = Some(now);
                    }
                    Ok(Ok(key))
                })
            })
            .await??;
        self.refresh().await?;
        Ok(revoked)
    }

    /// Makes a stored key known here. An error now would lose its secret for good, so that a
    /// database that fails at this very moment only delays it until [`Identity::watch`] succeeds.
    async fn put_in_force(&self) {
        if let Err(error) = self.refresh().await {
            tracing::warn!(%error, "a new API key is stored but not yet in force");
        }
    }

    /// Loads the keys anew. Only after an error need anybody but [`Identity::watch`] call it.
    ///
    /// # Errors
    /// [`IdentityError::Database`]; the keys known so far stay in force.
    pub async fn refresh(&self) -> Result<(), IdentityError> {
        let _loading = self.loading.lock().await;
        self.load().await
    }

    /// Loads the keys if the database says that they are others than those known.
    async fn refresh_if_changed(&self) -> Result<(), IdentityError> {
        let _loading = self.loading.lock().await;
        let generation = self
            .db
            .read(|connection| Box::pin(store::generation(connection)));
        if generation.await? == self.snapshot.load().generation() {
            return Ok(());
        }
        self.load().await
    }

    async fn load(&self) -> Result<(), IdentityError> {
        let now = self.clock.now();
        let snapshot = self
            .db
            .read(move |connection| {
                Box::pin(async move {
                    // The counter first: a change in between makes the keys newer than it says,
                    // and they are loaded once more for nothing, rather than once too seldom.
                    let generation = store::generation(connection).await?;
                    let keys = store::live_keys(connection, now).await?;
                    Ok(Snapshot::new(generation, keys))
                })
            })
            .await?;
        let snapshot = Arc::new(snapshot);
        let older = self.snapshot.swap(Arc::clone(&snapshot));
        for what in snapshot.newly_ignored(&older) {
            tracing::warn!("while loading the API keys {what} was ignored");
        }
        Ok(())
    }

    fn draw_key(
        &self,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
    ) -> Result<NewKey, IdentityError> {
        let key = ApiKey {
            id: KeyId::random()?,
            name: name.to_owned(),
            scopes,
            created_at: self.clock.now(),
            expires_at,
            revoked_at: None,
        };
        Ok(NewKey {
            key,
            secret: Secret::random()?,
        })
    }
}

impl Authenticate for Identity {
    fn authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Option<Arc<Caller>> {
        let Credential::Token(token) = credential;
        let digest = Digest::of_token(token)?;
        self.snapshot.load().caller(&digest, now).map(Arc::clone)
    }
}

async fn add(
    transaction: &DatabaseTransaction,
    key: &ApiKey,
    digest: &Digest,
) -> Result<(), DbErr> {
    store::insert_key(transaction, key, digest).await?;
    store::count_change(transaction).await
}

/// The key that `id_or_name` means. An id goes before a name; of names, keys not yet revoked go
/// before revoked ones.
async fn find_key(
    transaction: &DatabaseTransaction,
    id_or_name: &str,
) -> Result<Result<ApiKey, IdentityError>, DbErr> {
    if let Ok(id) = id_or_name.parse::<KeyId>()
        && let Some(key) = store::key_by_id(transaction, &id).await?
    {
        return Ok(Ok(key));
    }
    let mut keys = store::keys_by_name(transaction, id_or_name, false, AMBIGUOUS_SHOWN_MAX).await?;
    if keys.len() > 1 {
        let ids = keys.into_iter().map(|key| key.id).collect();
        return Ok(Err(IdentityError::KeyAmbiguous(ids)));
    }
    if keys.is_empty() {
        keys = store::keys_by_name(transaction, id_or_name, true, 1).await?;
    }
    Ok(keys.pop().ok_or(IdentityError::KeyNotFound))
}
