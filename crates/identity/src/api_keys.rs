//! API keys are made, replaced, ended and listed here.
//!
//! A key belongs to the user who made it; those that operators make belong to nobody. What a key
//! makes ends with it at the latest, and who acts for an OAuth client or another issuer makes none:
//! a key must not keep what was given for a time.
//!
//! An actor with `users:write` deals with everybody's keys, a user with their own. A key that belongs to
//! nobody deals with itself alone: others like it may be anybody's.
//!
//! Users see and end keys of their own ([`Keys::own`]), whatever else they may, and make them if they
//! may predict, without `keys:write`. With a key that lacks that scope they see and end that key alone:
//! one that leaked must make no other.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::db::{DbError, Transaction};
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::idempotency::{Kept, Receipt};
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::{FieldError, Scope, ScopeSet, Timestamp};

use crate::audit::{Action, Actor, Event};
use crate::core::{Change, Core, Needs, Refusal};
use crate::error::IdentityError;
use crate::store::keys::KeysOf;
use crate::store::{self, Kind};
use crate::types::api_key::{self, ApiKey, Digest, KeyState, NewKey, Secret};

const BOOTSTRAP_NAME: &str = "admin";
/// How many keys of one name an error lists.
const AMBIGUOUS_SHOWN_MAX: u64 = 10;

/// Makes, replaces, ends and lists API keys.
#[derive(Clone)]
pub struct Keys {
    core: Arc<Core>,
    whose: Whose,
}

/// Which keys are dealt with, and by what right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Those that `keys:write` reaches.
    Reached,
    /// The actor's own.
    Own,
}

impl Whose {
    fn needs_to_make(self) -> Needs {
        Needs::Scope(match self {
            Whose::Reached => Scope::KeysWrite,
            Whose::Own => Scope::Predict,
        })
    }

    fn needs_to_end(self) -> Needs {
        match self {
            Whose::Reached => Needs::Scope(Scope::KeysWrite),
            Whose::Own => Needs::Credential,
        }
    }

    fn includes(self, actor: &Actor, key: &ApiKey) -> bool {
        match (&actor.user_id, self) {
            _ if self.reaches_all(actor) => true,
            (Some(_), _) if !self.only_itself(actor) => actor.user_id == key.owner_id,
            _ => actor.key_id() == Some(&key.id),
        }
    }

    fn reaches_all(self, actor: &Actor) -> bool {
        self == Whose::Reached && actor.scopes.contains(Scope::UsersWrite)
    }

    fn only_itself(self, actor: &Actor) -> bool {
        let by_key = actor.key_id().is_some();
        self == Whose::Own && by_key && !actor.scopes.contains(Scope::KeysWrite)
    }

    /// Why somebody may make no keys, if so.
    fn no_maker(self, actor: &Actor) -> Option<IdentityError> {
        if actor.has_borrowed_rights() {
            return Some(IdentityError::NoKeyMaker);
        }
        if self == Whose::Own && actor.user_id.is_none() {
            return Some(IdentityError::NoUser);
        }
        self.only_itself(actor)
            .then_some(IdentityError::KeyMakesNoKeys)
    }
}

impl Keys {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let whose = Whose::Reached;
        Self { core, whose }
    }

    /// The keys of whoever acts. To make them the right to predict is enough, to see and end them none is
    /// needed.
    pub(crate) fn own(&self) -> Self {
        Self {
            whose: Whose::Own,
            ..self.clone()
        }
    }

    /// The time here, by which a key is in force or is not.
    pub(crate) fn now(&self) -> Timestamp {
        self.core.now()
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
        keep: impl FnOnce(&Secret) -> std::io::Result<()>,
    ) -> Result<Option<NewKey>, IdentityError> {
        let has_keys = self
            .core
            .db
            .read(async |connection| store::keys::has_keys(connection).await);
        if has_keys.await? {
            // Another process may have made it since this one was opened.
            self.core.following.catch_up().await?;
            return Ok(None);
        }
        let new = self.draw_key(BOOTSTRAP_NAME, ScopeSet::all(), None, None)?;
        let operator = Actor::operator();
        let made = self.core.change(&operator, Needs::Nothing, async |change| {
            if store::keys::has_keys(change.transaction).await? {
                return Ok(None);
            }
            add(change, &new.key, &new.secret.digest()).await?;
            let made = Event::new(Action::KeyCreate, target(&new.key.id));
            change.record(made).await?;
            keep(&new.secret).map_err(IdentityError::KeyNotKept)?;
            Ok(Some(new))
        });
        made.await
    }

    /// Makes a key that belongs to the user who makes it. `name` is 1 to 100 printable characters, not
    /// blank; `expires_at` lies in the future; `scopes` go no further than the maker's own. What
    /// a key makes ends with it, or before. The secret is returned this once.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::Escalation`], [`IdentityError::NoKeyMaker`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`],
    /// [`IdentityError::Randomness`].
    pub async fn create(
        &self,
        actor: &Actor,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
    ) -> Result<NewKey, IdentityError> {
        let created = self.create_once(actor, name, scopes, expires_at, Receipt::none());
        Ok(created.await?.0)
    }

    /// The same for a request that may be repeated.
    pub(crate) async fn create_once(
        &self,
        actor: &Actor,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
        receipt: Receipt<NewKey>,
    ) -> Result<(NewKey, Kept), IdentityError> {
        let now = self.core.now();
        let wrong = api_key::validate(name, scopes, expires_at, now);
        if !wrong.is_empty() {
            return Err(IdentityError::Invalid(wrong));
        }
        let new = self.draw_key(name, scopes, expires_at, actor.user_id.clone())?;
        let (NewKey { key, secret }, whose) = (new, self.whose);
        let made = self
            .core
            .change(actor, whose.needs_to_make(), async |change| {
                let key = create(change, whose, key, &secret.digest()).await?;
                let new = NewKey { key, secret };
                let kept = receipt.keep(change.transaction, &new).await?;
                Ok((new, kept))
            });
        made.await
    }

    /// Every key, revoked and expired ones too, newest first. Neither secrets nor hashes.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list(&self) -> Result<Vec<ApiKey>, IdentityError> {
        let list = self
            .core
            .db
            .read(async |connection| store::keys::list_keys(connection).await);
        Ok(self.with_last_uses(list.await?))
    }

    /// The keys that `actor` deals with, newest first: everybody's, those of one owner, or one.
    pub(crate) async fn page(
        &self,
        actor: &Actor,
        owner_id: Option<UserId>,
        slice: Slice,
    ) -> Result<Found<ApiKey>, IdentityError> {
        let mut whose = Vec::from_iter(owner_id.map(KeysOf::User));
        if !self.whose.reaches_all(actor) {
            whose.push(match &actor.user_id {
                Some(id) if !self.whose.only_itself(actor) => KeysOf::User(id.clone()),
                _ => KeysOf::Own(actor.key_id().cloned()),
            });
        }
        let page = self
            .core
            .db
            .list(async |connection| store::keys::page(connection, whose, slice).await);
        let (keys, total) = page.await?;
        Ok((self.with_last_uses(keys), total))
    }

    /// A key that `actor` deals with.
    pub(crate) async fn get(&self, actor: &Actor, id: &KeyId) -> Result<ApiKey, IdentityError> {
        let id = id.clone();
        let found = self
            .core
            .db
            .read(async |connection| store::keys::key_by_id(connection, &id).await);
        let key = found.await?;
        let key = key.filter(|key| self.whose.includes(actor, key));
        let mut keys = self.with_last_uses(Vec::from_iter(key));
        keys.pop().ok_or(IdentityError::KeyNotFound)
    }

    /// The database learns of uses now and then only.
    fn with_last_uses(&self, mut keys: Vec<ApiKey>) -> Vec<ApiKey> {
        for key in &mut keys {
            key.last_used_at = key
                .last_used_at
                .max(self.core.directory.key_used_at(&key.id));
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
    pub async fn revoke(&self, actor: &Actor, id_or_name: &str) -> Result<ApiKey, IdentityError> {
        let (id_or_name, whose) = (checked(id_or_name)?, self.whose);
        let revoked = self
            .core
            .change(actor, whose.needs_to_end(), async |change| {
                revoke(change, whose, id_or_name).await
            });
        revoked.await
    }

    /// Makes a key that may do the same as the one given as in [`Self::revoke`], and ends at the
    /// same time, or with the key that makes it. The old one works on for `overlap`, unless it ends before.
    ///
    /// # Errors
    /// [`IdentityError::KeyNotFound`], [`IdentityError::KeyAmbiguous`],
    /// [`IdentityError::KeyEnded`], [`IdentityError::Escalation`], [`IdentityError::NoKeyMaker`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`],
    /// [`IdentityError::Randomness`].
    pub async fn rotate(
        &self,
        actor: &Actor,
        id_or_name: &str,
        overlap: Duration,
    ) -> Result<NewKey, IdentityError> {
        let rotated = self.rotate_once(actor, id_or_name, overlap, Receipt::none());
        Ok(rotated.await?.0)
    }

    /// The same for a request that may be repeated.
    pub(crate) async fn rotate_once(
        &self,
        actor: &Actor,
        id_or_name: &str,
        overlap: Duration,
        receipt: Receipt<NewKey>,
    ) -> Result<(NewKey, Kept), IdentityError> {
        let (id_or_name, whose) = (checked(id_or_name)?, self.whose);
        // Name and scopes are those of the old one, once it is found.
        let drawn = self.draw_key("", ScopeSet::default(), None, None)?;
        let rotation = Rotation {
            id: drawn.key.id,
            digest: drawn.secret.digest(),
            old_until: drawn.key.created_at + overlap,
        };
        let rotated = self
            .core
            .change(actor, whose.needs_to_make(), async |change| {
                let key = rotate(change, whose, id_or_name, rotation).await?;
                let secret = drawn.secret;
                let new = NewKey { key, secret };
                let kept = receipt.keep(change.transaction, &new).await?;
                Ok((new, kept))
            });
        rotated.await
    }

    fn draw_key(
        &self,
        name: &str,
        scopes: ScopeSet,
        expires_at: Option<Timestamp>,
        owner_id: Option<UserId>,
    ) -> Result<NewKey, IdentityError> {
        let key = ApiKey {
            id: KeyId::random(&self.core.random)?,
            name: name.to_owned(),
            scopes,
            created_at: self.core.now(),
            expires_at,
            revoked_at: None,
            owner_id,
            replaced_by: None,
            last_used_at: None,
        };
        Ok(NewKey {
            key,
            secret: Secret::random(&self.core.random)?,
        })
    }
}

/// Text that may be an id or a name. Also keeps from the database what it cannot take, such as a NUL.
fn checked(id_or_name: &str) -> Result<&str, IdentityError> {
    match api_key::is_name(id_or_name) {
        true => Ok(id_or_name),
        false => Err(IdentityError::KeyNotFound),
    }
}

fn target(id: &KeyId) -> String {
    format!("key:{id}")
}

async fn add(change: &Change<'_>, key: &ApiKey, digest: &Digest) -> Result<(), DbError> {
    store::keys::insert_key(change.transaction, key, digest).await?;
    change.publish(Kind::Key, &key.id).await
}

async fn create(
    change: &Change<'_>,
    whose: Whose,
    mut key: ApiKey,
    digest: &Digest,
) -> Result<ApiKey, Refusal> {
    let refused = whose.no_maker(&change.actor).or_else(|| {
        let goes_further = !change.actor.scopes.contains_all(key.scopes);
        goes_further.then_some(IdentityError::Escalation)
    });
    if let Some(refused) = refused {
        let denied = Event::denied(Action::KeyCreate, None).with(key.scopes.to_string());
        return Err(Refusal::recorded(refused, denied));
    }
    if let Some(end) = change.end_of_key().await? {
        if key.expires_at.is_some_and(|at| at > end) {
            return Err(outlives_maker().into());
        }
        key.expires_at = key.expires_at.or(Some(end));
    }
    add(change, &key, digest).await?;
    let made = Event::new(Action::KeyCreate, target(&key.id)).with(key.scopes.to_string());
    change.record(made).await?;
    Ok(key)
}

fn outlives_maker() -> IdentityError {
    IdentityError::Invalid(vec![FieldError {
        field: "expires_at".into(),
        message: "must be no later than the end of the key that makes it".into(),
    }])
}

async fn revoke(change: &Change<'_>, whose: Whose, id_or_name: &str) -> Result<ApiKey, Refusal> {
    let (transaction, actor) = (change.transaction, &change.actor);
    let mut key = find_key(transaction, actor, whose, id_or_name).await?;
    if key.revoked_at.is_some() {
        return Ok(key);
    }
    let is_own = actor.user_id.is_some() && actor.user_id == key.owner_id;
    if !is_own && !actor.scopes.contains_all(key.scopes) {
        let denied = Event::denied(Action::KeyRevoke, Some(target(&key.id)));
        return Err(Refusal::recorded(IdentityError::Escalation, denied));
    }
    store::keys::set_revoked_at(transaction, &key.id, change.now).await?;
    change.publish(Kind::Key, &key.id).await?;
    let revoked = Event::new(Action::KeyRevoke, target(&key.id));
    change.record(revoked).await?;
    key.revoked_at = Some(change.now);
    Ok(key)
}

/// The key that takes another's place.
struct Rotation {
    id: KeyId,
    digest: Digest,
    /// When the old one ends at the latest.
    old_until: Timestamp,
}

async fn rotate(
    change: &Change<'_>,
    whose: Whose,
    id_or_name: &str,
    rotation: Rotation,
) -> Result<ApiKey, Refusal> {
    let (transaction, actor, now) = (change.transaction, &change.actor, change.now);
    let old = find_key(transaction, actor, whose, id_or_name).await?;
    let refused = whose.no_maker(actor).or_else(|| {
        let goes_further = !actor.scopes.contains_all(old.scopes);
        goes_further.then_some(IdentityError::Escalation)
    });
    if let Some(refused) = refused {
        let denied = Event::denied(Action::KeyRotate, Some(target(&old.id)));
        return Err(Refusal::recorded(refused, denied));
    }
    if old.state(now) != KeyState::Active || old.replaced_by.is_some() {
        return Err(IdentityError::KeyEnded.into());
    }
    let maker = change.end_of_key().await?;
    let ends = [old.expires_at, maker].into_iter().flatten().min();
    let until = old.expires_at.unwrap_or(rotation.old_until);
    let until = until.min(rotation.old_until);
    store::keys::set_replaced(transaction, &old.id, &rotation.id, until).await?;
    change.publish(Kind::Key, &old.id).await?;
    let rotated = Event::new(Action::KeyRotate, target(&old.id)).with(target(&rotation.id));
    change.record(rotated).await?;
    let new = ApiKey {
        id: rotation.id,
        created_at: now,
        expires_at: ends,
        replaced_by: None,
        last_used_at: None,
        ..old
    };
    add(change, &new, &rotation.digest).await?;
    Ok(new)
}

/// The key that `id_or_name` means, if `actor` deals with it. An id goes before a name; of names,
/// keys not yet revoked go before revoked ones.
async fn find_key(
    transaction: &Transaction,
    actor: &Actor,
    whose: Whose,
    id_or_name: &str,
) -> Result<ApiKey, IdentityError> {
    if let Some(id) = KeyId::parse(id_or_name)
        && let Some(key) = store::keys::key_by_id(transaction, &id).await?
    {
        let allowed = Some(key).filter(|key| whose.includes(actor, key));
        return allowed.ok_or(IdentityError::KeyNotFound);
    }
    let mut keys =
        store::keys::keys_by_name(transaction, id_or_name, false, AMBIGUOUS_SHOWN_MAX).await?;
    keys.retain(|key| whose.includes(actor, key));
    if keys.len() > 1 {
        let ids = keys.into_iter().map(|key| key.id).collect();
        return Err(IdentityError::KeyAmbiguous(ids));
    }
    if keys.is_empty() {
        keys = store::keys::keys_by_name(transaction, id_or_name, true, 1).await?;
        keys.retain(|key| whose.includes(actor, key));
    }
    keys.pop().ok_or(IdentityError::KeyNotFound)
}
