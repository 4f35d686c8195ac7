//! API keys are made, replaced, ended and listed here.
//!
//! A key belongs to the user who made it; those that operators make belong to nobody. What a key
//! makes ends with it at the latest, and who acts for an OAuth client or another issuer makes none:
//! nobody keeps by a key what was given to him for a time.
//!
//! Whoever has `users:write` deals with everybody's keys, a user with his own. A key that belongs to
//! nobody deals with itself alone: others like it may be anybody's.

use std::time::Duration;

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::{FieldError, Scope, ScopeSet, Timestamp};

use crate::api_key::{self, ApiKey, Digest, KeyId, KeyState, NewKey, Secret};
use crate::audit::{Action, Actor, Event};
use crate::error::IdentityError;
use crate::store::keys::Whose;
use crate::store::{self, Kind};
use crate::{Identity, later};

const BOOTSTRAP_NAME: &str = "admin";
/// How many keys of one name an error lists.
const AMBIGUOUS_SHOWN_MAX: u64 = 10;

impl Identity {
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
        keep: impl FnOnce(&Secret) -> std::io::Result<()>,
    ) -> Result<Option<NewKey>, IdentityError> {
        let has_keys = self
            .db
            .read(async |connection| store::keys::has_keys(connection).await);
        if has_keys.await? {
            // Another process may have made it since this one was opened.
            self.catch_up().await?;
            return Ok(None);
        }
        let new = self.draw_key(BOOTSTRAP_NAME, ScopeSet::all(), None, None)?;
        let now = self.clock.now();
        let made = self
            .db
            .write(async |transaction| -> Result<_, IdentityError> {
                store::lock(transaction).await?;
                if store::keys::has_keys(transaction).await? {
                    return Ok(None);
                }
                add(transaction, &new.key, &new.secret.digest(), now).await?;
                let made = Event::new(Action::KeyCreate, target(&new.key.id));
                store::audit::record(transaction, &Actor::operator(), made, now).await?;
                keep(&new.secret).map_err(IdentityError::KeyNotKept)?;
                Ok(Some(new))
            })
            .await?;
        self.put_in_force().await;
        Ok(made)
    }

    /// Makes a key that belongs to the user who makes it. `name` is 1 to 100 printable characters, not
    /// blank; `expires_at` lies in the future; `scopes` go no further than the maker's own. What
    /// a key makes ends with it, or before. The secret is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Escalation`], [`IdentityError::NoKeyMaker`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`],
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
        let new = self.draw_key(name, scopes, expires_at, actor.user_id.clone())?;
        let NewKey { key, secret } = new;
        let (digest, actor) = (secret.digest(), actor.clone());
        let key = self
            .db
            .write(async |transaction| create(transaction, actor, key, digest, now).await)
            .await??;
        self.put_in_force().await;
        Ok(NewKey { key, secret })
    }

    /// Every key, revoked and expired ones too, newest first. Neither secrets nor hashes.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list_keys(&self) -> Result<Vec<ApiKey>, IdentityError> {
        let list = self
            .db
            .read(async |connection| store::keys::list_keys(connection).await);
        Ok(self.with_last_uses(list.await?))
    }

    /// The keys that `actor` deals with, newest first: everybody's, those of one owner, or one.
    pub(crate) async fn page_of_keys(
        &self,
        actor: &Actor,
        owner_id: Option<String>,
        slice: Slice,
    ) -> Result<Found<ApiKey>, IdentityError> {
        let mut whose = Vec::from_iter(owner_id.map(Whose::User));
        if !actor.scopes.contains(Scope::UsersWrite) {
            whose.push(match &actor.user_id {
                Some(id) => Whose::User(id.clone()),
                None => Whose::Own(actor.key_id()),
            });
        }
        let page = self
            .db
            .read(async |connection| store::keys::page(connection, whose, slice).await);
        let (keys, total) = page.await?;
        Ok((self.with_last_uses(keys), total))
    }

    /// A key that `actor` deals with.
    pub(crate) async fn get_key(&self, actor: &Actor, id: &KeyId) -> Result<ApiKey, IdentityError> {
        let id = id.clone();
        let found = self
            .db
            .read(async |connection| store::keys::key_by_id(connection, &id).await);
        let key = found.await?.filter(|key| deals_with(actor, key));
        let mut keys = self.with_last_uses(Vec::from_iter(key));
        keys.pop().ok_or(IdentityError::KeyNotFound)
    }

    /// The database learns of uses now and then only.
    fn with_last_uses(&self, mut keys: Vec<ApiKey>) -> Vec<ApiKey> {
        for key in &mut keys {
            key.last_used_at = key.last_used_at.max(self.directory.key_used_at(&key.id));
        }
        keys
    }

    /// Ends a key, given by its id (in either case) or by a name that one unrevoked key has. To
    /// revoke a revoked key changes nothing and is no error. A key of somebody else can be ended
    /// only by who has all of its scopes.
    ///
    /// # Errors
    /// [`IdentityError::KeyNotFound`], [`IdentityError::KeyAmbiguous`],
    /// [`IdentityError::Escalation`], [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Database`].
    pub async fn revoke_key(
        &self,
        actor: &Actor,
        id_or_name: &str,
    ) -> Result<ApiKey, IdentityError> {
        let id_or_name = checked(id_or_name)?;
        let (actor, now) = (actor.clone(), self.clock.now());
        let revoked = self
            .db
            .write(async |transaction| revoke(transaction, actor, id_or_name, now).await)
            .await??;
        self.catch_up().await?;
        Ok(revoked)
    }

    /// Makes a key that may do the same as the one given as in [`Self::revoke_key`], and ends at the
    /// same time, or with the key that makes it. The old one works on for `overlap`, unless it ends before.
    ///
    /// # Errors
    /// [`IdentityError::KeyNotFound`], [`IdentityError::KeyAmbiguous`],
    /// [`IdentityError::KeyEnded`], [`IdentityError::Escalation`], [`IdentityError::NoKeyMaker`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`],
    /// [`IdentityError::Randomness`].
    pub async fn rotate_key(
        &self,
        actor: &Actor,
        id_or_name: &str,
        overlap: Duration,
    ) -> Result<NewKey, IdentityError> {
        let id_or_name = checked(id_or_name)?;
        let actor = actor.clone();
        // Name and scopes are those of the old one, once it is found.
        let drawn = self.draw_key("", ScopeSet::default(), None, None)?;
        let rotation = Rotation {
            id: drawn.key.id,
            digest: drawn.secret.digest(),
            now: drawn.key.created_at,
            old_until: later(drawn.key.created_at, overlap),
        };
        let key = self
            .db
            .write(async |transaction| rotate(transaction, actor, id_or_name, rotation).await)
            .await??;
        self.put_in_force().await;
        Ok(NewKey {
            key,
            secret: drawn.secret,
        })
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

/// Text that may be an id or a name. Also keeps from the database what it cannot take, such as a NUL.
fn checked(id_or_name: &str) -> Result<String, IdentityError> {
    match api_key::is_name(id_or_name) {
        true => Ok(id_or_name.to_owned()),
        false => Err(IdentityError::KeyNotFound),
    }
}

fn target(id: &KeyId) -> String {
    format!("key:{id}")
}

fn deals_with(actor: &Actor, key: &ApiKey) -> bool {
    actor.scopes.contains(Scope::UsersWrite)
        || match &actor.user_id {
            Some(_) => actor.user_id == key.owner_id,
            None => actor.key_id().as_ref() == Some(&key.id),
        }
}

/// What the transaction of a change ends with. A refusal is no error of the database: what it
/// recorded is kept.
type Decided<T> = Result<Result<T, IdentityError>, DbError>;

async fn add(
    transaction: &Transaction,
    key: &ApiKey,
    digest: &Digest,
    now: Timestamp,
) -> Result<(), DbError> {
    store::keys::insert_key(transaction, key, digest).await?;
    store::record_change(transaction, Kind::Key, key.id.as_str(), now).await
}

async fn create(
    transaction: &Transaction,
    actor: Actor,
    mut key: ApiKey,
    digest: Digest,
    now: Timestamp,
) -> Decided<ApiKey> {
    store::lock(transaction).await?;
    let actor = match actor
        .renewed(transaction, Some(Scope::KeysWrite), now)
        .await?
    {
        Ok(actor) => actor,
        Err(ended) => return Ok(Err(ended)),
    };
    if !may_make_keys(&actor) {
        let denied = Event::denied(Action::KeyCreate, None).with(key.scopes.to_string());
        store::audit::record(transaction, &actor, denied, now).await?;
        return Ok(Err(IdentityError::NoKeyMaker));
    }
    if !actor.scopes.contains_all(key.scopes) {
        let denied = Event::denied(Action::KeyCreate, None).with(key.scopes.to_string());
        store::audit::record(transaction, &actor, denied, now).await?;
        return Ok(Err(IdentityError::Escalation));
    }
    if let Some(end) = end_of_maker(transaction, &actor).await? {
        if key.expires_at.is_some_and(|at| at > end) {
            return Ok(Err(outlives_maker()));
        }
        key.expires_at = key.expires_at.or(Some(end));
    }
    add(transaction, &key, &digest, now).await?;
    let made = Event::new(Action::KeyCreate, target(&key.id)).with(key.scopes.to_string());
    store::audit::record(transaction, &actor, made, now).await?;
    Ok(Ok(key))
}

fn may_make_keys(actor: &Actor) -> bool {
    actor.client_id.is_none() && !actor.is_external()
}

/// When the key by which somebody acts ends, if it does.
async fn end_of_maker(
    transaction: &Transaction,
    actor: &Actor,
) -> Result<Option<Timestamp>, DbError> {
    let Some(id) = actor.key_id() else {
        return Ok(None);
    };
    let maker = store::keys::key_by_id(transaction, &id).await?;
    Ok(maker.and_then(|maker| maker.expires_at))
}

fn outlives_maker() -> IdentityError {
    IdentityError::Invalid(vec![FieldError {
        field: "expires_at".into(),
        message: "must be no later than the end of the key that makes it".into(),
    }])
}

async fn revoke(
    transaction: &Transaction,
    actor: Actor,
    id_or_name: String,
    now: Timestamp,
) -> Decided<ApiKey> {
    store::lock(transaction).await?;
    let actor = match actor
        .renewed(transaction, Some(Scope::KeysWrite), now)
        .await?
    {
        Ok(actor) => actor,
        Err(ended) => return Ok(Err(ended)),
    };
    let mut key = match find_key(transaction, &actor, &id_or_name).await? {
        Ok(key) => key,
        refused => return Ok(refused),
    };
    if key.revoked_at.is_some() {
        return Ok(Ok(key));
    }
    let is_own = actor.user_id.is_some() && actor.user_id == key.owner_id;
    if !is_own && !actor.scopes.contains_all(key.scopes) {
        let denied = Event::denied(Action::KeyRevoke, Some(target(&key.id)));
        store::audit::record(transaction, &actor, denied, now).await?;
        return Ok(Err(IdentityError::Escalation));
    }
    store::keys::set_revoked_at(transaction, &key.id, now).await?;
    store::record_change(transaction, Kind::Key, key.id.as_str(), now).await?;
    let revoked = Event::new(Action::KeyRevoke, target(&key.id));
    store::audit::record(transaction, &actor, revoked, now).await?;
    key.revoked_at = Some(now);
    Ok(Ok(key))
}

/// The key that takes another's place.
struct Rotation {
    id: KeyId,
    digest: Digest,
    now: Timestamp,
    /// When the old one ends at the latest.
    old_until: Timestamp,
}

async fn rotate(
    transaction: &Transaction,
    actor: Actor,
    id_or_name: String,
    rotation: Rotation,
) -> Decided<ApiKey> {
    let now = rotation.now;
    store::lock(transaction).await?;
    let actor = match actor
        .renewed(transaction, Some(Scope::KeysWrite), now)
        .await?
    {
        Ok(actor) => actor,
        Err(ended) => return Ok(Err(ended)),
    };
    let old = match find_key(transaction, &actor, &id_or_name).await? {
        Ok(key) => key,
        refused => return Ok(refused),
    };
    let refused = match () {
        () if !may_make_keys(&actor) => Some(IdentityError::NoKeyMaker),
        () if !actor.scopes.contains_all(old.scopes) => Some(IdentityError::Escalation),
        () => None,
    };
    if let Some(refused) = refused {
        let denied = Event::denied(Action::KeyRotate, Some(target(&old.id)));
        store::audit::record(transaction, &actor, denied, now).await?;
        return Ok(Err(refused));
    }
    if old.state(now) != KeyState::Active || old.replaced_by.is_some() {
        return Ok(Err(IdentityError::KeyEnded));
    }
    let maker = end_of_maker(transaction, &actor).await?;
    let ends = [old.expires_at, maker].into_iter().flatten().min();
    let until = old.expires_at.unwrap_or(rotation.old_until);
    let until = until.min(rotation.old_until);
    store::keys::set_replaced(transaction, &old.id, &rotation.id, until).await?;
    store::record_change(transaction, Kind::Key, old.id.as_str(), now).await?;
    let rotated = Event::new(Action::KeyRotate, target(&old.id)).with(target(&rotation.id));
    store::audit::record(transaction, &actor, rotated, now).await?;
    let new = ApiKey {
        id: rotation.id,
        created_at: now,
        expires_at: ends,
        replaced_by: None,
        last_used_at: None,
        ..old
    };
    add(transaction, &new, &rotation.digest, now).await?;
    Ok(Ok(new))
}

/// The key that `id_or_name` means, if `actor` deals with it. An id goes before a name; of names,
/// keys not yet revoked go before revoked ones.
async fn find_key(transaction: &Transaction, actor: &Actor, id_or_name: &str) -> Decided<ApiKey> {
    if let Ok(id) = id_or_name.parse::<KeyId>()
        && let Some(key) = store::keys::key_by_id(transaction, &id).await?
    {
        let allowed = Some(key).filter(|key| deals_with(actor, key));
        return Ok(allowed.ok_or(IdentityError::KeyNotFound));
    }
    let mut keys =
        store::keys::keys_by_name(transaction, id_or_name, false, AMBIGUOUS_SHOWN_MAX).await?;
    keys.retain(|key| deals_with(actor, key));
    if keys.len() > 1 {
        let ids = keys.into_iter().map(|key| key.id).collect();
        return Ok(Err(IdentityError::KeyAmbiguous(ids)));
    }
    if keys.is_empty() {
        keys = store::keys::keys_by_name(transaction, id_or_name, true, 1).await?;
        keys.retain(|key| deals_with(actor, key));
    }
    Ok(keys.pop().ok_or(IdentityError::KeyNotFound))
}
