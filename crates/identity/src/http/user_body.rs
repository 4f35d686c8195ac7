//! Users as requests describe them and answers show them.

use auspex_kernel::fields::{self, Fields};
use auspex_kernel::http::List;
use auspex_kernel::page::PageQuery;
use auspex_kernel::{ApiError, FieldError, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::role::Role;
use crate::user::{
    self, Login, NewUser, User, UserChange, UserFilter, read_age, read_email, read_name,
    read_roles, read_username,
};

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserView {
    #[schema(example = "01JD3V9K2Q4W7M5X")]
    id: String,
    name: String,
    email: String,
    /// What he logs in with, in either case.
    username: String,
    age: Option<i32>,
    roles: Vec<Role>,
    /// Whether he is kept out.
    disabled: bool,
    /// Whether he can log in by password.
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
            id: user.id,
            name: user.name,
            email: user.email,
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
    /// Where from: the /24 of an IPv4 address, the /48 of an IPv6 one.
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

/// A user to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserCreate)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct CreateBody {
    #[schema(min_length = 1, max_length = 200, example = "Alice")]
    name: String,
    /// One user an address, whatever its case
    #[schema(format = Email, max_length = 254, example = "alice@example.org")]
    email: String,
    /// What he logs in with, without a colon; the e-mail address where left out
    #[schema(min_length = 1, max_length = 254, pattern = "^[^:]*$")]
    username: Option<String>,
    #[schema(minimum = 1, maximum = 150)]
    age: Option<i32>,
    /// What he is to this installation; nobody can give more than he has
    roles: Option<Vec<Role>>,
    /// 8 to 1024 bytes; without one he cannot log in by password
    #[schema(format = Password, min_length = 8, max_length = 1024)]
    password: Option<String>,
}

/// What a user is to be from now on. What is left out gets its usual value, but for the password,
/// which stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserReplace)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct ReplaceBody {
    #[schema(min_length = 1, max_length = 200, example = "Alice")]
    name: String,
    #[schema(format = Email, max_length = 254, example = "alice@example.org")]
    email: String,
    /// The e-mail address where left out
    #[schema(min_length = 1, max_length = 254, pattern = "^[^:]*$")]
    username: Option<String>,
    #[schema(minimum = 1, maximum = 150)]
    age: Option<i32>,
    /// None where left out
    roles: Option<Vec<Role>>,
    /// Not where left out
    disabled: Option<bool>,
    #[schema(format = Password, min_length = 8, max_length = 1024)]
    password: Option<String>,
}

/// What is to change of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserPatch)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct PatchBody {
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    #[schema(format = Email, max_length = 254, nullable = false)]
    email: Option<String>,
    #[schema(
        min_length = 1,
        max_length = 254,
        pattern = "^[^:]*$",
        nullable = false
    )]
    username: Option<String>,
    /// null: no longer told
    #[schema(minimum = 1, maximum = 150)]
    age: Option<i32>,
    /// All of his roles
    #[schema(nullable = false)]
    roles: Option<Vec<Role>>,
    /// Logs him out everywhere, and keeps him and his keys out until it is false again
    #[schema(nullable = false)]
    disabled: Option<bool>,
    /// null: none
    #[schema(format = Password, min_length = 8, max_length = 1024)]
    password: Option<String>,
}

/// Which users to list: those that meet every condition.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct FilterParams {
    /// With this e-mail address, in either case
    #[param(required = false, min_length = 1, max_length = 256)]
    email: String,
    /// With this name to log in, in either case
    #[param(required = false, min_length = 1, max_length = 256)]
    username: String,
    /// With this role, and perhaps others
    #[param(required = false)]
    role: Role,
    /// Disabled, or not
    #[param(required = false)]
    disabled: bool,
}

pub(super) fn read_filter(query: &PageQuery) -> Result<UserFilter, ApiError> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, message: String| {
        let field = field.to_owned();
        wrong.push(FieldError { field, message });
    };
    let role = query.filter("role").map(str::parse::<Role>).transpose();
    let role = role.unwrap_or_else(|unknown| {
        refuse("role", unknown.to_string());
        None
    });
    let disabled = match query.filter("disabled") {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(_) => {
            refuse("disabled", "must be true or false".into());
            None
        }
    };
    if !wrong.is_empty() {
        return Err(ApiError::validation(wrong));
    }
    Ok(UserFilter {
        email: query.filter("email").map(str::to_owned),
        username: query.filter("username").map(str::to_owned),
        role,
        disabled,
    })
}

pub(super) fn read_new(mut body: Fields) -> Result<NewUser, ApiError> {
    let name = body.required("name", read_name);
    let email = body.required("email", read_email);
    let username = body.optional("username", read_username);
    let age = body.optional("age", read_age);
    let roles = body.optional("roles", read_roles);
    let password = body.optional("password", user::read_password);
    let login = username.as_ref().or(email.as_ref());
    check_choice(&mut body, password.as_deref(), login);
    body.finish()?;
    Ok(NewUser {
        name: name.unwrap_or_default(),
        email: email.unwrap_or_default(),
        username,
        age,
        roles: roles.unwrap_or_default(),
        password,
    })
}

pub(super) fn read_change(mut body: Fields) -> Result<UserChange, ApiError> {
    let name = body.patch("name", read_name);
    let email = body.patch("email", read_email);
    let username = body.patch("username", read_username);
    let age = body.patch("age", read_age);
    let roles = body.patch("roles", read_roles);
    let disabled = body.patch("disabled", fields::boolean);
    let password = body.patch("password", user::read_password);
    let chosen = password.as_ref().and_then(Option::as_deref);
    let login = username.as_ref().and_then(Option::as_ref);
    check_choice(&mut body, chosen, login);
    let change = UserChange {
        name: present(&mut body, "name", name),
        email: present(&mut body, "email", email),
        username: present(&mut body, "username", username),
        age,
        roles: present(&mut body, "roles", roles),
        disabled: present(&mut body, "disabled", disabled),
        password,
    };
    body.finish()?;
    Ok(change)
}

/// So that it is told together with the other fields.
fn check_choice(body: &mut Fields, password: Option<&str>, username: Option<&String>) {
    let username = username.map(String::as_str).unwrap_or_default();
    let wrong = password.and_then(|password| user::wrong_password(password, username));
    if let Some(wrong) = wrong {
        body.refuse(&wrong.field, wrong.message);
    }
}

fn present<T>(body: &mut Fields, name: &str, value: Option<Option<T>>) -> Option<T> {
    if let Some(None) = value {
        body.refuse(name, "cannot be null; leave it out to keep it as it is");
    }
    value.flatten()
}
