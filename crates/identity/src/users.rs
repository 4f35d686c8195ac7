//! Users are added, changed and removed here.
//!
//! Whether a change is allowed is decided inside the transaction that makes it (see `core`).
//! Refusals for want of rights enter the audit record.

mod conflicts;

use std::sync::Arc;

use auspex_kernel::db::DbError;
use auspex_kernel::id::{SessionId, UserId};
use auspex_kernel::idempotency::{self, Kept, Receipt};
use auspex_kernel::page::{Found, Slice};
use auspex_kernel::{FieldError, Scope};

use crate::audit::{Action, Actor, Event};
use crate::core::{Change, Core, Needs, Refusal};
use crate::error::IdentityError;
use crate::password::Password;
use crate::passwords::Passwords;
use crate::store::{self, Kind};
use crate::types::role::Role;
use crate::types::user::{Expected, Login, NewUser, User, UserChange, UserFilter, password_mark};

pub use conflicts::NameConflict;

/// A change with all that decides about it.
struct Edit {
    id: UserId,
    change: UserChange,
    password_hash: Option<Option<String>>,
    expected: Expected,
    /// Users who change their own password have just proved who they are by the old one, which has
    /// this mark.
    proven_by: Option<u64>,
    /// The grant that goes on.
    kept_grant: Option<SessionId>,
}

/// Adds, finds, changes and removes users.
#[derive(Clone)]
pub struct Users {
    core: Arc<Core>,
    passwords: Arc<Passwords>,
}

impl Users {
    pub(crate) fn new(core: Arc<Core>, passwords: Arc<Passwords>) -> Self {
        Self { core, passwords }
    }

    /// Adds a user. Nobody can give roles that reach further than their own rights.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`], [`IdentityError::UserTaken`], [`IdentityError::Escalation`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Busy`], [`IdentityError::Database`].
    pub async fn create(&self, actor: &Actor, new: NewUser) -> Result<User, IdentityError> {
        Ok(self.create_once(actor, new, Receipt::none()).await?.0)
    }

    /// The same for a request that may be repeated.
    pub(crate) async fn create_once(
        &self,
        actor: &Actor,
        new: NewUser,
        receipt: Receipt<User>,
    ) -> Result<(User, Kept), IdentityError> {
        let username = new.username.unwrap_or_else(|| new.email.clone());
        let described = UserChange {
            name: Some(new.name),
            email: Some(new.email),
            username: Some(username),
            age: Some(new.age),
            ..UserChange::default()
        };
        let described = described.canonical()?;
        let username = described.username.unwrap_or_default();
        let hash = match &new.password {
            Some(password) => Some(self.passwords.hash(password, &username).await?),
            None => None,
        };
        let now = self.core.now();
        let user = User {
            id: UserId::new(&self.core.clock, &self.core.random)?,
            name: described.name.unwrap_or_default(),
            email: described.email.unwrap_or_default(),
            email_verified: new.email_verified,
            username,
            age: new.age,
            roles: new.roles,
            disabled_at: None,
            created_at: now,
            updated_at: now,
            last_login_at: None,
            login_count: 0,
            version: 1,
            has_password: hash.is_some(),
        };
        let needs = Needs::Scope(Scope::UsersWrite);
        let made = self.core.change(actor, needs, async |change| {
            insert(change, &user, hash).await?;
            Ok(receipt.keep(change.transaction, &user).await?)
        });
        let kept = made.await.map_err(taken)?;
        Ok((user, kept))
    }

    /// The user with this id, in either case.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::Database`].
    pub async fn get(&self, id: impl AsRef<str>) -> Result<User, IdentityError> {
        let id = UserId::parse(id.as_ref()).ok_or(IdentityError::UserNotFound)?;
        let found = self
            .core
            .db
            .read(async |connection| store::users::by_id(connection, &id).await);
        found.await?.ok_or(IdentityError::UserNotFound)
    }

    /// The user with this id or, where there is none, this name to log in.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::Database`].
    pub async fn find(&self, id_or_username: &str) -> Result<User, IdentityError> {
        match self.get(id_or_username).await {
            Err(IdentityError::UserNotFound) => {}
            found => return found,
        }
        let username = id_or_username.to_owned();
        let found = self
            .core
            .db
            .read(async |connection| store::users::by_login_name(connection, &username).await);
        let found = found.await?.map(|(user, _)| user);
        found.ok_or(IdentityError::UserNotFound)
    }

    /// Every user who meets the conditions, in the order of creation.
    ///
    /// # Errors
    /// [`IdentityError::Database`].
    pub async fn list(&self, filter: UserFilter) -> Result<Vec<User>, IdentityError> {
        let all = Slice::Seek {
            after: None,
            count: i64::MAX as u64,
        };
        Ok(self.page(filter, all).await?.0)
    }

    pub(crate) async fn page(
        &self,
        filter: UserFilter,
        slice: Slice,
    ) -> Result<Found<User>, IdentityError> {
        let found = self
            .core
            .db
            .list(async |connection| store::user_rows::list(connection, filter, slice).await);
        Ok(found.await?)
    }

    pub(crate) async fn page_of_logins(
        &self,
        user_id: &UserId,
        slice: Slice,
    ) -> Result<Found<Login>, IdentityError> {
        let id = self.get(user_id).await?.id;
        let found = self
            .core
            .db
            .list(async |connection| store::logins::list(connection, id, slice).await);
        Ok(found.await?)
    }

    /// Changes a user. What decides who they are or what they may do (e-mail and whether it is verified, username, roles,
    /// password, whether they are disabled) can be changed only by an actor who has all of the user's
    /// rights, before and after; nobody can change their own roles. A disabled user, and one with a new password, is
    /// logged out everywhere.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::VersionMismatch`],
    /// [`IdentityError::Invalid`], [`IdentityError::UserTaken`], [`IdentityError::Escalation`],
    /// [`IdentityError::OwnRoles`], [`IdentityError::LastAdmin`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Busy`], [`IdentityError::Database`].
    pub async fn update(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
        change: UserChange,
        expected: Expected,
    ) -> Result<User, IdentityError> {
        let user = self.get(id).await?;
        let change = change.canonical()?;
        let password_hash = match &change.password {
            Some(Some(password)) => {
                let username = change.username.as_ref().unwrap_or(&user.username);
                Some(Some(self.passwords.hash(password, username).await?))
            }
            Some(None) => Some(None),
            None => None,
        };
        let edit = Edit {
            id: user.id,
            change,
            password_hash,
            expected,
            proven_by: None,
            kept_grant: None,
        };
        self.edit(actor, edit).await
    }

    /// Gives the user behind `actor` another password, for which they must know the one they have.
    /// Their other sessions end; `session_id` is the one they are using.
    ///
    /// # Errors
    /// [`IdentityError::NoUser`], [`IdentityError::Invalid`], also for the wrong password,
    /// [`IdentityError::TooManyAttempts`], [`IdentityError::CredentialEnded`],
    /// [`IdentityError::Busy`], [`IdentityError::Database`].
    pub(crate) async fn change_own_password(
        &self,
        actor: &Actor,
        session_id: Option<SessionId>,
        current: &Password,
        new: Password,
    ) -> Result<User, IdentityError> {
        let id = actor.user_id.as_ref().ok_or(IdentityError::NoUser)?;
        let user = self.get(id).await?;
        let mark = match self.passwords.check(actor, &user, current).await {
            Err(IdentityError::InvalidCredentials) => return Err(wrong_current_password()),
            checked => checked?,
        };
        let hash = self.passwords.hash(&new, &user.username).await;
        let hash = hash.map_err(|error| match error {
            IdentityError::Invalid(mut fields) => {
                fields
                    .iter_mut()
                    .for_each(|field| field.field = "new_password".into());
                IdentityError::Invalid(fields)
            }
            other => other,
        })?;
        let edit = Edit {
            id: user.id,
            change: UserChange {
                password: Some(Some(new)),
                ..UserChange::default()
            },
            password_hash: Some(Some(hash)),
            expected: Expected::Any,
            proven_by: Some(mark),
            kept_grant: session_id,
        };
        self.edit(actor, edit).await
    }

    async fn edit(&self, actor: &Actor, edit: Edit) -> Result<User, IdentityError> {
        // Their own password anybody may change.
        let needs = match edit.proven_by {
            Some(_) => Needs::Credential,
            None => Needs::Scope(Scope::UsersWrite),
        };
        let changed = self
            .core
            .change(actor, needs, async |change| apply(change, edit).await);
        changed.await.map_err(taken)
    }

    /// Removes a user with their keys, sessions, consents and history. Only an actor who has all of
    /// the user's rights can.
    ///
    /// # Errors
    /// [`IdentityError::UserNotFound`], [`IdentityError::VersionMismatch`],
    /// [`IdentityError::Escalation`], [`IdentityError::LastAdmin`],
    /// [`IdentityError::CredentialEnded`], [`IdentityError::Database`].
    pub async fn delete(
        &self,
        actor: &Actor,
        id: impl AsRef<str>,
        expected: Expected,
    ) -> Result<(), IdentityError> {
        let id = UserId::parse(id.as_ref()).ok_or(IdentityError::UserNotFound)?;
        let needs = Needs::Scope(Scope::UsersWrite);
        let removed = self.core.change(actor, needs, async |change| {
            remove(change, &id, expected).await
        });
        removed.await
    }
}

/// Two may add the same name at once; the unique index lets one of them.
fn taken(error: IdentityError) -> IdentityError {
    match error {
        IdentityError::Database(error) if error.is_unique_violation() => IdentityError::UserTaken,
        error => error,
    }
}

fn wrong_current_password() -> IdentityError {
    IdentityError::Invalid(vec![FieldError {
        field: "current_password".into(),
        message: "is not the password you have".into(),
    }])
}

async fn insert(
    change: &Change<'_>,
    user: &User,
    password_hash: Option<String>,
) -> Result<(), Refusal> {
    if !change.actor.scopes.contains_all(user.roles.scopes()) {
        let denied = Event::denied(Action::UserCreate, None).with(user.roles.to_string());
        return Err(Refusal::recorded(IdentityError::Escalation, denied));
    }
    if store::user_rows::is_name_of_another(change.transaction, user).await? {
        return Err(IdentityError::UserTaken.into());
    }
    store::user_rows::insert(change.transaction, user, password_hash).await?;
    change.publish(Kind::User, &user.id).await?;
    let mut made = Event::new(Action::UserCreate, target(&user.id));
    if !user.roles.scopes().is_empty() {
        made = made.with(user.roles.to_string());
    }
    Ok(change.record(made).await?)
}

async fn apply(change: &Change<'_>, edit: Edit) -> Result<User, Refusal> {
    let transaction = change.transaction;
    let before = store::users::by_id(transaction, &edit.id).await?;
    let before = before.ok_or(IdentityError::UserNotFound)?;
    if !edit.expected.allows(&before) {
        return Err(IdentityError::VersionMismatch.into());
    }
    if let Some(mark) = edit.proven_by {
        // Since it was checked an administrator may have set another, which must not be undone.
        let stored = store::users::password_hash(transaction, &edit.id).await?;
        if password_mark(stored.as_deref()) != mark {
            return Err(wrong_current_password().into());
        }
    }
    let has_new_password = matches!(edit.password_hash, Some(Some(_)));
    let after = edit
        .change
        .applied_to(&before, has_new_password, change.now);
    let events = events(&before, &after, has_new_password);
    let Some(first) = events.first() else {
        return Ok(before);
    };
    if edit.proven_by.is_none()
        && let Err(refused) = check_rights(&change.actor, &before, &after, &events)
    {
        let denied = Event::denied(first.action, Some(target(&before.id)));
        return Err(Refusal::recorded(refused, denied));
    }
    if is_active_admin(&before)
        && !is_active_admin(&after)
        && !store::user_rows::has_other_admin(transaction, &before.id).await?
    {
        return Err(IdentityError::LastAdmin.into());
    }
    let is_renamed = before.username != after.username || before.email != after.email;
    if is_renamed && store::user_rows::is_name_of_another(transaction, &after).await? {
        return Err(IdentityError::UserTaken.into());
    }
    store::user_rows::update(transaction, &before, &after, edit.password_hash).await?;
    change.publish(Kind::User, &after.id).await?;
    let is_logged_out = events
        .iter()
        .any(|event| matches!(event.action, Action::UserDisable | Action::UserPassword));
    if is_logged_out {
        log_out(change, &after.id, edit.kept_grant.as_ref()).await?;
    }
    for event in events {
        change.record(event).await?;
    }
    Ok(after)
}

/// Ends what a user is logged in by, except for one grant.
async fn log_out(
    change: &Change<'_>,
    id: &UserId,
    kept_grant: Option<&SessionId>,
) -> Result<(), DbError> {
    let (transaction, now) = (change.transaction, change.now);
    match kept_grant {
        Some(kept) => store::grants::revoke_others_of_user(transaction, id, kept, now).await?,
        None => store::grants::revoke_of_user(transaction, id, now).await?,
    };
    store::user_rows::end_sessions(transaction, id).await
}

async fn remove(change: &Change<'_>, id: &UserId, expected: Expected) -> Result<(), Refusal> {
    let transaction = change.transaction;
    let user = store::users::by_id(transaction, id).await?;
    let user = user.ok_or(IdentityError::UserNotFound)?;
    if !expected.allows(&user) {
        return Err(IdentityError::VersionMismatch.into());
    }
    if !change.actor.scopes.contains_all(user.roles.scopes()) {
        let denied = Event::denied(Action::UserDelete, Some(target(id)));
        return Err(Refusal::recorded(IdentityError::Escalation, denied));
    }
    if is_active_admin(&user) && !store::user_rows::has_other_admin(transaction, id).await? {
        return Err(IdentityError::LastAdmin.into());
    }
    store::grants::revoke_of_user(transaction, id, change.now).await?;
    store::user_rows::delete(transaction, id, change.now).await?;
    // What was answered when they were made says who they were.
    let made_at = ["/v1/users", "/users"].map(|list| format!("{list}/{id}"));
    idempotency::forget_answers(transaction, made_at).await?;
    auspex_kernel::deleted_users::record(transaction, id, change.now).await?;
    let removed = Event::new(Action::UserDelete, target(id));
    Ok(change.record(removed).await?)
}

fn target(id: &UserId) -> String {
    format!("user:{id}")
}

fn is_active_admin(user: &User) -> bool {
    user.disabled_at.is_none() && user.roles.contains(Role::Admin)
}

fn check_rights(
    actor: &Actor,
    before: &User,
    after: &User,
    events: &[Event],
) -> Result<(), IdentityError> {
    let changes_roles = before.roles != after.roles;
    if changes_roles && actor.user_id.as_ref() == Some(&before.id) {
        return Err(IdentityError::OwnRoles);
    }
    let is_harmless = before.email == after.email
        && before.email_verified == after.email_verified
        && before.username == after.username
        && events
            .iter()
            .all(|event| event.action == Action::UserUpdate);
    let needed = before.roles.scopes().union(after.roles.scopes());
    if is_harmless || actor.scopes.contains_all(needed) {
        return Ok(());
    }
    Err(IdentityError::Escalation)
}

/// What is to be recorded of a change: a line for each kind of it, none for none.
fn events(before: &User, after: &User, has_new_password: bool) -> Vec<Event> {
    let mut events = Vec::new();
    let event = |action| Event::new(action, target(&before.id));
    if before.roles != after.roles {
        events.push(event(Action::UserRoles).with(after.roles.to_string()));
    }
    match (before.disabled_at, after.disabled_at) {
        (None, Some(_)) => events.push(event(Action::UserDisable)),
        (Some(_), None) => events.push(event(Action::UserEnable)),
        _ => {}
    }
    if has_new_password || before.has_password != after.has_password {
        events.push(event(Action::UserPassword));
    }
    let fields: Vec<&str> = [
        ("name", before.name != after.name),
        ("email", before.email != after.email),
        (
            "email_verified",
            before.email_verified != after.email_verified,
        ),
        ("username", before.username != after.username),
        ("age", before.age != after.age),
    ]
    .into_iter()
    .filter_map(|(field, differs)| differs.then_some(field))
    .collect();
    if !fields.is_empty() {
        events.push(event(Action::UserUpdate).with(fields.join(" ")));
    }
    events
}
