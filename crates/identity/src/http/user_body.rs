//! Users, as requests describe them and answers show them.

use auspex_kernel::fields::{
    Body as _, Fields, Kind as _, boolean, change, change_or_clear, one_of, optional, required,
    text,
};
use auspex_kernel::http::List;
use auspex_kernel::{ApiError, Timestamp, query_filters, request_body};
use serde::Serialize;
use utoipa::ToSchema;

use crate::password::{self, Password};
use crate::types::role::{Role, RoleSet};
use crate::types::user::{self, Age, Login, NewUser, Roles, User, UserChange, UserFilter};

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    #[schema(example = "01JD3V9K2Q4W7M5X")]
    id: String,
    name: String,
    email: String,
    /// Whether an administrator says that the address is the user's.
    email_verified: bool,
    /// The name to log in with, in either case.
    username: String,
    age: Option<i32>,
    roles: Vec<Role>,
    /// A disabled user is refused with every credential.
    disabled: bool,
    /// Whether the user can log in by password.
    has_password: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
    #[schema(format = DateTime)]
    last_login_at: Option<String>,
    /// Successful logins so far.
    login_count: i64,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            email: user.email,
            email_verified: user.email_verified,
            username: user.username,
            age: user.age,
            roles: user.roles.iter().collect(),
            disabled: user.disabled_at.is_some(),
            has_password: user.has_password,
            created_at: user.created_at.to_rfc3339(),
            updated_at: user.updated_at.to_rfc3339(),
            last_login_at: user.last_login_at.map(Timestamp::to_rfc3339),
            login_count: user.login_count,
        }
    }
}

pub(super) type UserList = List<UserView>;

/// A successful login.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginView {
    id: String,
    #[schema(format = DateTime)]
    at: String,
    /// `password`, `basic` (credentials with a request) or `page` (the login page).
    #[schema(pattern = "^(password|basic|page)$")]
    method: String,
    /// Where it came from: the /24 of an IPv4 address, the /48 of an IPv6 address.
    #[schema(example = "192.0.2.0/24")]
    address: Option<String>,
}

impl From<Login> for LoginView {
    fn from(login: Login) -> Self {
        Self {
            id: login.id,
            at: login.at.to_rfc3339(),
            method: login.method,
            address: Some(login.address).filter(|address| !address.is_empty()),
        }
    }
}

pub(super) type LoginList = List<LoginView>;

request_body! {
    /// A user to add.
    pub(super) struct CreateBody as "UserCreate" {
        name: String = required(user::name().example("Alice")),
        /// Unique among users, whatever its case
        email: String = required(user::email().example("alice@example.org")),
        /// Whether the address is known to be the user's; applications are told so
        email_verified: Option<bool> = optional(boolean().by_default(false)),
        /// The name to log in with, without a colon; by default the e-mail address
        username: Option<String> = optional(user::username()),
        age: Option<i32> = optional(Age),
        /// The user's roles; nobody can give rights that they do not have
        roles: Option<RoleSet> = optional(Roles),
        /// 8 to 1024 characters; without one the user cannot log in by password
        password: Option<Password> = optional(password::chosen()),
    }
}

request_body! {
    /// The new state of a user. What is left out gets its default, except the password, which
    /// stays.
    pub(super) struct ReplaceBody as "UserReplace" {
        name: String = required(user::name().example("Alice")),
        email: String = required(user::email().example("alice@example.org")),
        /// By default `false`
        email_verified: Option<bool> = optional(boolean()),
        /// By default the e-mail address
        username: Option<String> = optional(user::username()),
        age: Option<i32> = optional(Age),
        /// By default none
        roles: Option<RoleSet> = optional(Roles),
        /// By default `false`
        disabled: Option<bool> = optional(boolean()),
        /// 8 to 1024 characters
        password: Option<Password> = optional(password::chosen()),
    }
}

request_body! {
    /// What to change about a user.
    pub(super) struct PatchBody as "UserPatch" {
        name: Option<String> = change(user::name()),
        /// Another address is not verified, unless the same change says so
        email: Option<String> = change(user::email()),
        /// Whether the address is known to be the user's; applications are told so
        email_verified: Option<bool> = change(boolean()),
        username: Option<String> = change(user::username()),
        /// `null` clears it
        age: Option<Option<i32>> = change_or_clear(Age),
        /// All of the user's roles
        roles: Option<RoleSet> = change(Roles),
        /// Logs the user out everywhere, and refuses them and their keys until it is false again
        disabled: Option<bool> = change(boolean()),
        /// 8 to 1024 characters; `null` removes it
        password: Option<Option<Password>> = change_or_clear(password::chosen()),
    }
}

query_filters! {
    /// Which users to list: those that meet every condition.
    pub(super) struct UserFilters {
        /// With this e-mail address, in either case
        email: String = text(1..=256),
        /// With this username, in either case
        username: String = text(1..=256),
        /// With this role, possibly among others
        role: Role = one_of(Role::ALL, Role::as_str),
        /// Whether the user is disabled
        disabled: bool = boolean(),
    }
}

impl From<UserFilters> for UserFilter {
    fn from(filters: UserFilters) -> Self {
        Self {
            email: filters.email,
            username: filters.username,
            role: filters.role,
            disabled: filters.disabled,
        }
    }
}

pub(super) fn read_new(body: &[u8]) -> Result<NewUser, ApiError> {
    let body = CreateBody::parse_and_check(body, |body, fields| {
        let username = body.username.as_ref().unwrap_or(&body.email);
        check_choice(fields, body.password.as_ref(), username);
    })?;
    Ok(NewUser {
        name: body.name,
        email: body.email,
        email_verified: body.email_verified.unwrap_or_default(),
        username: body.username,
        age: body.age,
        roles: body.roles.unwrap_or_default(),
        password: body.password,
    })
}

pub(super) fn read_replacement(body: &[u8]) -> Result<UserChange, ApiError> {
    let body = ReplaceBody::parse_and_check(body, |body, fields| {
        let username = body.username.as_ref().unwrap_or(&body.email);
        check_choice(fields, body.password.as_ref(), username);
    })?;
    Ok(UserChange {
        username: Some(body.username.unwrap_or_else(|| body.email.clone())),
        name: Some(body.name),
        email: Some(body.email),
        email_verified: Some(body.email_verified.unwrap_or_default()),
        age: Some(body.age),
        roles: Some(body.roles.unwrap_or_default()),
        disabled: Some(body.disabled.unwrap_or_default()),
        password: body.password.map(Some),
    })
}

pub(super) fn read_change(body: &[u8]) -> Result<UserChange, ApiError> {
    let body = PatchBody::parse_and_check(body, |body, fields| {
        let username = body.username.as_deref().unwrap_or_default();
        let password = body.password.as_ref().and_then(Option::as_ref);
        check_choice(fields, password, username);
    })?;
    Ok(UserChange {
        name: body.name,
        email: body.email,
        email_verified: body.email_verified,
        username: body.username,
        age: body.age,
        roles: body.roles,
        disabled: body.disabled,
        password: body.password,
    })
}

/// So that the client learns of it together with the other fields.
fn check_choice(fields: &mut Fields, password: Option<&Password>, username: &str) {
    if let Some(Err(wrong)) = password.map(|password| password.check_choice(username)) {
        fields.refuse(&wrong.field, wrong.message);
    }
}
