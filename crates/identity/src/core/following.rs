//! Keeps the directory in memory up to date with the database: what has changed since the last time,
//! or everything anew.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use auspex_kernel::db::{Connection, Db, DbError};
use auspex_kernel::id::{ClientId, KeyId, SessionId, UserId};
use auspex_kernel::{Clock, Timestamp};
use tokio::sync::Mutex;

use crate::directory::key_ring::KeyRing;
use crate::directory::{Directory, Ignored};
use crate::error::IdentityError;
use crate::store::changes::Change;
use crate::store::keys::KeysToLoad;
use crate::store::{self, Kind, Revoked};
use crate::types::api_key::LiveKey;
use crate::types::client::Origins;
use crate::types::user::ActiveUser;

/// Keeps the directory up to date.
pub(crate) struct Following {
    db: Db,
    clock: Clock,
    directory: Arc<Directory>,
    /// How often somebody has asked for it.
    asked: AtomicU64,
    /// Held while the directory is brought up to date: of two loads at once the one that read
    /// earlier could otherwise win and undo what the other made visible.
    known: Mutex<Known>,
}

/// Which state of the database the directory shows.
#[derive(Default)]
struct Known {
    generation: i64,
    /// So many of those who asked did so before this state was read.
    answered: u64,
    /// What was not understood, so that it is told once.
    ignored: BTreeSet<String>,
    /// The revocations that could not be read, by what is left of their ids.
    unreadable: BTreeSet<Vec<u8>>,
}

/// What some changes are about.
#[derive(Default)]
struct Changed {
    users: BTreeSet<UserId>,
    clients: BTreeSet<ClientId>,
    grants: BTreeSet<SessionId>,
    tokens: BTreeSet<String>,
    keys: BTreeSet<KeyId>,
    signing_keys: bool,
}

/// The rows of what has changed, as far as there are any.
#[derive(Default)]
struct Rows {
    users: Vec<(UserId, ActiveUser)>,
    clients: Vec<(ClientId, Origins)>,
    /// Revoked ones, with the time until which that must be known.
    grants: Vec<(SessionId, Timestamp)>,
    tokens: Vec<(String, Timestamp)>,
    /// What is left of the ids of others.
    unreadable: Vec<Vec<u8>>,
    keys: Vec<LiveKey>,
    /// All of them, if any has changed.
    signing_keys: Option<KeyRing>,
}

impl Following {
    /// Nothing is loaded yet.
    pub(crate) fn new(db: Db, clock: Clock, directory: Arc<Directory>) -> Self {
        Self {
            db,
            clock,
            directory,
            asked: AtomicU64::new(0),
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

    /// Loads what has changed since the last time. Those who wait for each other share a load that
    /// began after they asked, and wait no longer than a call takes. Dropping this changes nothing.
    ///
    /// # Errors
    /// [`IdentityError::Database`]; what is known so far stays in force.
    pub(crate) async fn catch_up(&self) -> Result<(), IdentityError> {
        let place = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let known = tokio::time::timeout(self.db.limits().call_timeout, self.known.lock()).await;
        let mut known = known.map_err(|_| DbError::Interrupted)?;
        if known.answered >= place {
            return Ok(());
        }
        let asked = self.asked.load(Ordering::SeqCst);
        let (generation, now) = (known.generation, self.clock.now());
        let found = self
            .db
            .read(async |connection| -> Result<_, IdentityError> {
                let changes = store::changes::changes_after(connection, generation).await?;
                let Some(changes) = changes else {
                    return Ok(None);
                };
                let last = changes.last().map_or(generation, |last| last.generation);
                let mut changed = Changed::of(&changes);
                let rows = changed.rows(connection, now).await?;
                Ok(Some((last, changed, rows)))
            });
        let Some((last, changed, rows)) = found.await? else {
            return self.load(&mut known).await;
        };
        if last > generation {
            self.refuse_for(&rows.unreadable, &mut known);
            known.tell(self.apply(changed, rows));
        }
        known.generation = last;
        known.answered = asked;
        Ok(())
    }

    /// Forgets revocations of what is not valid any more anyway.
    pub(crate) async fn forget_ended(&self, now: Timestamp) {
        // Alone: a revocation that comes at this very moment would be forgotten with the ended ones.
        let _known = self.known.lock().await;
        self.directory.forget_ended(now);
    }

    /// Brings into force what has changed. What has no row is in force no more.
    fn apply(&self, changed: Changed, rows: Rows) -> Ignored {
        let directory = &self.directory;
        let mut users: HashMap<_, _> = rows.users.into_iter().collect();
        for id in changed.users {
            let user = users.remove(&id);
            directory.set_user(id, user);
        }
        let mut clients: HashMap<_, _> = rows.clients.into_iter().collect();
        for id in changed.clients {
            let origins = clients.remove(&id);
            directory.set_client(id, origins);
        }
        for (id, until) in rows.grants {
            directory.revoke_grant(id, until);
        }
        for (jti, until) in rows.tokens {
            directory.revoke_token(jti, until);
        }
        // They are laid out by what their owners may do, and so come after those.
        let mut ignored = Ignored::new();
        let keys = rows.keys.into_iter().map(|key| (key.id.clone(), key));
        let mut keys: HashMap<_, _> = keys.collect();
        for id in changed.keys {
            let key = keys.remove(&id);
            directory.set_key(&id, key, &mut ignored);
        }
        if let Some(ring) = rows.signing_keys {
            directory.set_signing_keys(ring);
        }
        directory.changed();
        ignored
    }

    /// A revocation that cannot be read may be of any token: those issued until it is found are refused.
    /// Their holders refresh them or log in anew.
    fn refuse_for(&self, unreadable: &[Vec<u8>], known: &mut Known) {
        for id in unreadable {
            if known.unreadable.insert(id.clone()) {
                self.directory.refuse_issued_until(self.clock.latest());
            }
        }
    }

    async fn load(&self, known: &mut Known) -> Result<(), IdentityError> {
        let asked = self.asked.load(Ordering::SeqCst);
        let now = self.clock.now();
        let (generation, users, clients, grants, tokens, keys, signing_keys) = self
            .db
            .load(async |connection| -> Result<_, IdentityError> {
                // The counter first: a change in between makes the rows newer than it says,
                // and they are loaded once more for nothing, rather than once too seldom.
                Ok((
                    store::changes::generation(connection).await?,
                    store::changes::active_users(connection, None).await?,
                    store::changes::clients(connection, None).await?,
                    store::changes::revoked_grants(connection, None, now).await?,
                    store::changes::revoked_tokens(connection, None, now).await?,
                    store::keys::live_keys(connection, KeysToLoad::All, now).await?,
                    store::signing_keys::all(connection).await?,
                ))
            })
            .await?;
        let mut ignored = Ignored::new();
        for unreadable in [&grants.unreadable, &tokens.unreadable] {
            self.refuse_for(unreadable, known);
        }
        self.directory
            .fill(users, clients, grants.known, tokens.known);
        self.directory.fill_keys(keys, &mut ignored);
        self.directory.set_signing_keys(KeyRing::new(signing_keys));
        self.directory.changed();
        known.generation = generation;
        known.answered = asked;
        known.tell(ignored);
        Ok(())
    }
}

impl Changed {
    fn of(changes: &[Change]) -> Self {
        let mut changed = Self::default();
        for Change { kind, subject, .. } in changes {
            match kind {
                Some(Kind::User) => drop(changed.users.insert(UserId::from_stored(subject))),
                Some(Kind::Client) => drop(changed.clients.insert(ClientId::from_stored(subject))),
                Some(Kind::Grant) => drop(changed.grants.insert(SessionId::from_stored(subject))),
                Some(Kind::Token) => drop(changed.tokens.insert(subject.clone())),
                Some(Kind::Key) => drop(changed.keys.insert(KeyId::from_stored(subject))),
                Some(Kind::SigningKey) => changed.signing_keys = true,
                None => {}
            }
        }
        changed
    }

    /// Reads what has changed. The keys of changed users count as changed.
    async fn rows(
        &mut self,
        connection: &Connection,
        now: Timestamp,
    ) -> Result<Rows, IdentityError> {
        let mut rows = Rows::default();
        if !self.users.is_empty() {
            let ids: Vec<UserId> = self.users.iter().cloned().collect();
            let keys = store::keys::ids_of_owners(connection, ids.clone()).await?;
            self.keys.extend(keys);
            rows.users = store::changes::active_users(connection, Some(ids)).await?;
        }
        if !self.clients.is_empty() {
            let ids = self.clients.iter().cloned().collect();
            rows.clients = store::changes::clients(connection, Some(ids)).await?;
        }
        if !self.grants.is_empty() {
            let ids = Some(self.grants.iter().cloned().collect());
            let Revoked { known, unreadable } =
                store::changes::revoked_grants(connection, ids, now).await?;
            rows.grants = known;
            rows.unreadable.extend(unreadable);
        }
        if !self.tokens.is_empty() {
            let jtis = Some(self.tokens.iter().cloned().collect());
            let Revoked { known, unreadable } =
                store::changes::revoked_tokens(connection, jtis, now).await?;
            rows.tokens = known;
            rows.unreadable.extend(unreadable);
        }
        if !self.keys.is_empty() {
            let which = KeysToLoad::Changed(self.keys.iter().cloned().collect());
            rows.keys = store::keys::live_keys(connection, which, now).await?;
        }
        if self.signing_keys {
            let stored = store::signing_keys::all(connection).await?;
            rows.signing_keys = Some(KeyRing::new(stored));
        }
        Ok(rows)
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

#[cfg(test)]
mod tests {
    use auspex_kernel::Random;

    use super::*;
    use crate::Identity;
    use crate::core::Core;

    #[tokio::test]
    async fn whoever_waits_takes_what_was_read_since_they_asked() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("auspex.db").display());
        let db = Db::open(&url).await.unwrap();
        Identity::migrate(&db).await.unwrap();
        let core = Core::open(db.clone(), Clock::system(), Random::system()).await;
        let core = Arc::new(core.unwrap());
        let mut known = core.following.known.lock().await;
        // Whoever reads now fails.
        db.close().await;
        let waiting = Arc::clone(&core);
        let waiting = tokio::spawn(async move { waiting.following.catch_up().await });
        while core.following.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        known.answered = 1;
        drop(known);
        waiting.await.unwrap().unwrap();
        assert!(
            core.following.catch_up().await.is_err(),
            "asked after it was read"
        );
    }
}
