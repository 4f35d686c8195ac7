//! Keeps the directory in memory up to date with the database: what has changed since the last time,
//! or everything anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use auspex_kernel::id::{ClientId, KeyId, SessionId, UserId};
use auspex_kernel::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::config::REVOCATION_KEPT;
use crate::directory::key_ring::KeyRing;
use crate::directory::{Directory, Ignored};
use crate::error::IdentityError;
use crate::store::changes::Change;
use crate::store::keys::KeysToLoad;
use crate::store::{self, Kind};

/// Keeps the directory up to date.
pub(crate) struct Following {
    db: Db,
    clock: Clock,
    directory: Arc<Directory>,
    /// Held while the directory is brought up to date: of two loads at once the one that read
    /// earlier could otherwise win and undo what the other made visible.
    known: Mutex<Known>,
}

/// The longest wait for others who bring the directory up to date.
const TURN_MAX: Duration = Duration::from_secs(5);

/// Which state of the database the directory shows.
#[derive(Default)]
struct Known {
    generation: i64,
    /// What was not understood, so that it is told once.
    ignored: BTreeSet<String>,
}

impl Following {
    /// Nothing is loaded yet.
    pub(crate) fn new(db: Db, clock: Clock, directory: Arc<Directory>) -> Self {
        Self {
            db,
            clock,
            directory,
            known: Mutex::default(),
        }
    }

    /// Loads everything anew.
    ///
    /// # Errors
    /// [`IdentityError::Database`]; what is known so far stays in force.
    pub(crate) async fn reload(&self) -> Result<(), IdentityError> {
        self.load(&mut *self.known.lock().await).await
    }

    /// Loads what has changed since the last time.
    pub(crate) async fn catch_up(&self) -> Result<(), IdentityError> {
        let known = tokio::time::timeout(TURN_MAX, self.known.lock()).await;
        let mut known = known.map_err(|_| DbError::Interrupted)?;
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

    /// Forgets revocations of what is not valid any more anyway.
    pub(crate) async fn forget_ended(&self, now: Timestamp) {
        // Alone: a revocation that comes at this very moment would be forgotten with the ended ones.
        let _known = self.known.lock().await;
        self.directory.forget_ended(now);
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
            let now = self.clock.now();
            let found = self.db.read(async |connection| {
                store::changes::revoked_tokens(connection, Some(tokens), now).await
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
                    ids.extend(store::keys::ids_of_owners(connection, owners).await?);
                }
                let which = KeysToLoad::Changed(ids.clone());
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
            .load(async |connection| -> Result<_, IdentityError> {
                // The counter first: a change in between makes the rows newer than it says,
                // and they are loaded once more for nothing, rather than once too seldom.
                Ok((
                    store::changes::generation(connection).await?,
                    store::changes::active_users(connection, None).await?,
                    store::changes::client_ids(connection, None).await?,
                    store::changes::revoked_grants(connection, None, since).await?,
                    store::changes::revoked_tokens(connection, None, now).await?,
                    store::keys::live_keys(connection, KeysToLoad::All, now).await?,
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
