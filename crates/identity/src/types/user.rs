//! Users: people, and programs that log in like people.

use auspex_kernel::fields::{self, Email, Kind, Text, Wrong};
use auspex_kernel::id::UserId;
use auspex_kernel::{FieldErrors, Timestamp};
use serde_json::{Value, json};

use crate::canonical::Name;
use crate::error::IdentityError;
use crate::password::Password;
use crate::types::api_key::Digest;
use crate::types::role::{Role, RoleSet};

const NAME_CHARS_MAX: usize = 200;
pub(crate) const USERNAME_CHARS_MAX: usize = 254;
const AGE_MAX: i64 = 150;

/// A user. The hash of the password stays in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// In the order of creation.
    pub id: UserId,
    /// What people call them.
    pub name: String,
    /// Where they are reached; no two users have the same address.
    pub email: String,
    /// Whether an administrator says that the address is theirs.
    pub email_verified: bool,
    /// What they log in with, in either case; no two users have the same.
    pub username: String,
    /// In years, where known.
    pub age: Option<i32>,
    /// What they are to this installation.
    pub roles: RoleSet,
    /// When they were disabled, if they are.
    pub disabled_at: Option<Timestamp>,
    /// When they were added.
    pub created_at: Timestamp,
    /// When somebody last changed them.
    pub updated_at: Timestamp,
    /// Their last successful login.
    pub last_login_at: Option<Timestamp>,
    /// Their successful logins so far.
    pub login_count: i64,
    /// Counts changes, for `ETag`; logins are none.
    pub version: i64,
    /// Whether they can log in by password.
    pub has_password: bool,
}

/// One successful login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// In the order of time.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// `password`, `basic` or `page`.
    pub method: String,
    /// Where from: the /24 of an IPv4 address, the /48 of an IPv6 one; empty where not known.
    pub address: String,
}

/// How somebody logged in, for their history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginMethod {
    /// `POST /v1/auth/login`.
    Password,
    /// HTTP Basic on any endpoint.
    Basic,
    /// The login page.
    Page,
}

impl LoginMethod {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            LoginMethod::Password => "password",
            LoginMethod::Basic => "basic",
            LoginMethod::Page => "page",
        }
    }
}

/// What memory keeps of a user who is not disabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActiveUser {
    pub(crate) roles: RoleSet,
    /// Changes with the password, so that what was verified with an older one is not believed.
    pub(crate) password_mark: u64,
}

/// Tells one stored password from another without telling what it is.
pub(crate) fn password_mark(hash: Option<&str>) -> u64 {
    hash.map_or(0, |hash| Digest::of(hash.as_bytes()).prefix())
}

/// Which users a list shows: those that meet every condition there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// With this e-mail address, in either case.
    pub email: Option<String>,
    /// With this name to log in, in either case.
    pub username: Option<String>,
    /// With this role, and perhaps others.
    pub role: Option<Role>,
    /// Disabled, or not.
    pub disabled: Option<bool>,
}

/// A user to be added.
#[derive(Clone, Default)]
pub struct NewUser {
    /// What people call them.
    pub name: String,
    /// Where they are reached.
    pub email: String,
    /// Whether the address is known to be theirs.
    pub email_verified: bool,
    /// What they log in with; the e-mail address where left out.
    pub username: Option<String>,
    /// In years.
    pub age: Option<i32>,
    /// What they are to this installation.
    pub roles: RoleSet,
    /// Without one they cannot log in by password.
    pub password: Option<Password>,
}

/// What is to become of a user; `None` leaves as it is.
#[derive(Clone, Default)]
pub struct UserChange {
    /// What people call them.
    pub name: Option<String>,
    /// Where they are reached.
    pub email: Option<String>,
    /// Whether the address is known to be theirs. Left out, it stays so with the address alone.
    pub email_verified: Option<bool>,
    /// What they log in with.
    pub username: Option<String>,
    /// In years, or no longer told.
    pub age: Option<Option<i32>>,
    /// All of their roles.
    pub roles: Option<RoleSet>,
    /// Whether they are disabled.
    pub disabled: Option<bool>,
    /// Their password, or that they have none.
    pub password: Option<Option<Password>>,
}

/// A state in which a user must be for a change to be made; see [`User::version`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Whichever.
    #[default]
    Any,
    /// One of these.
    Versions(Vec<i64>),
}

impl Expected {
    pub(crate) fn allows(&self, user: &User) -> bool {
        match self {
            Expected::Any => true,
            Expected::Versions(versions) => versions.contains(&user.version),
        }
    }
}

/// What people call a user.
pub(crate) fn name() -> Text {
    fields::text(1..=NAME_CHARS_MAX)
}

/// Basic authentication ends a name at its first colon (RFC 7617 §2).
pub(crate) fn username() -> Name<Text> {
    Name(fields::text(1..=USERNAME_CHARS_MAX).without_colon())
}

/// It is the username where none is given.
pub(crate) fn email() -> Name<Email> {
    Name(fields::email())
}

/// Age in years.
pub(crate) struct Age;

impl Kind for Age {
    type Value = i32;

    fn read(&self, value: &Value) -> Result<i32, Wrong> {
        let age = fields::whole(value).filter(|age| (1..=AGE_MAX).contains(age));
        age.and_then(|age| i32::try_from(age).ok())
            .ok_or_else(|| format!("must be a positive integer of at most {AGE_MAX}").into())
    }

    fn schema(&self) -> Value {
        json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": AGE_MAX})
    }
}

/// A list of roles without repetition.
pub(crate) struct Roles;

impl Kind for Roles {
    type Value = RoleSet;

    fn read(&self, value: &Value) -> Result<RoleSet, Wrong> {
        let role = |value: &Value| value.as_str()?.parse::<Role>().ok();
        let roles: Option<Vec<Role>> = value
            .as_array()
            .and_then(|roles| roles.iter().map(role).collect());
        let set = roles
            .as_ref()
            .map(|roles| roles.iter().copied().collect::<RoleSet>());
        match (roles, set) {
            (Some(roles), Some(set)) if set.iter().count() == roles.len() => Ok(set),
            _ => {
                let known: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
                let known = known.join(", ");
                Err(format!("must be a list of different roles; known roles: {known}").into())
            }
        }
    }

    fn schema(&self) -> Value {
        let role = fields::one_of(Role::ALL, Role::as_str).schema();
        json!({"type": "array", "items": role, "uniqueItems": true})
    }
}

impl UserChange {
    /// The change with every name in its canonical form, or what is wrong with it, whoever requests
    /// it.
    pub(crate) fn canonical(mut self) -> Result<Self, IdentityError> {
        let mut wrong = FieldErrors::default();
        let mut text = |field, value: &mut Option<String>, kind: &dyn Kind<Value = String>| {
            if let Some(text) = value {
                match kind.read(&text.as_str().into()) {
                    Ok(read) => *text = read,
                    Err(message) => wrong.add(field, message),
                }
            }
        };
        text("name", &mut self.name, &name());
        text("email", &mut self.email, &email());
        text("username", &mut self.username, &username());
        let age = self.age.flatten().map(|age| Age.read(&age.into()));
        if let Some(Err(message)) = age {
            wrong.add("age", message);
        }
        match wrong.into_list("(body)") {
            wrong if wrong.is_empty() => Ok(self),
            wrong => Err(IdentityError::Invalid(wrong)),
        }
    }

    /// The user as changed; the same where nothing changes.
    pub(crate) fn applied_to(&self, before: &User, has_new_password: bool, now: Timestamp) -> User {
        let mut after = before.clone();
        let take = |new: &Option<String>, old: &mut String| {
            if let Some(new) = new {
                old.clone_from(new);
            }
        };
        take(&self.name, &mut after.name);
        take(&self.email, &mut after.email);
        take(&self.username, &mut after.username);
        let same_address = before.email_verified && after.email == before.email;
        after.email_verified = self.email_verified.unwrap_or(same_address);
        after.age = self.age.unwrap_or(after.age);
        after.roles = self.roles.unwrap_or(after.roles);
        after.disabled_at = match self.disabled {
            Some(true) => before.disabled_at.or(Some(now)),
            Some(false) => None,
            None => before.disabled_at,
        };
        if let Some(password) = &self.password {
            after.has_password = password.is_some();
        }
        if after != *before || has_new_password {
            after.updated_at = now;
            after.version += 1;
        }
        after
    }
}
