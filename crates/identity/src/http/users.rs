//! Users and their logins.

use auspex_kernel::fields::{self, Fields};
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::{PageParams, PageQuery, Pagination};
use auspex_kernel::{ApiError, CursorKey, FieldError, Timestamp, body, etag};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, OriginalUri, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::{By, Creation};
use super::errors::{ChangeErrors, CreateErrors, ListErrors, ReadErrors};
use super::{Handle, list};
use crate::error::IdentityError;
use crate::role::Role;
use crate::user::{
    self, Expected, Login, NewUser, User, UserChange, UserFilter, read_age, read_email, read_name,
    read_roles, read_username,
};

const TAG: &str = "users";
const REVALIDATE: HeaderValue = HeaderValue::from_static("private, max-age=0, must-revalidate");

/// An id that cannot be decoded is nobody's.
pub(super) type Id = Result<Path<String>, PathRejection>;

/// Operations that exist under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, replace_user, update_user, delete_user))
}

pub(super) fn history_routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new().routes(routes!(list_user_logins))
}

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

/// One page of users.
#[derive(Serialize, ToSchema)]
struct UserList {
    data: Vec<UserView>,
    pagination: Pagination,
}

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

/// One page of logins.
#[derive(Serialize, ToSchema)]
pub(super) struct LoginList {
    pub(super) data: Vec<LoginView>,
    pub(super) pagination: Pagination,
}

/// A user to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserCreate)]
#[expect(dead_code, reason = "only its description is used")]
struct CreateBody {
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
struct ReplaceBody {
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
struct PatchBody {
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
struct FilterParams {
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

/// Add a user
///
/// Nobody can give roles that reach further than his own rights.
#[utoipa::path(
    post, path = "/users", tag = TAG,
    params(IdempotencyParams),
    request_body(content = CreateBody),
    responses((status = 201, description = "Added; `Location` says where he is", body = UserView), CreateErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn create_user(
    State(identity): State<Handle>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let new = read_new(Fields::parse(&body)?)?;
    let path = creation.path.clone();
    let actor = creation.by.actor.clone();
    let work = async move {
        let user = identity.create_user(&actor, new).await?;
        let location = format!("{path}/{}", user.id);
        let headers = [(header::LOCATION, location)];
        Ok((StatusCode::CREATED, headers, shown(user)).into_response())
    };
    creation.once(&body, Answer::Stored, work).await
}

/// List the users
#[utoipa::path(
    get, path = "/users", tag = TAG,
    params(PageParams, FilterParams),
    responses((status = 200, description = "One page of users, in the order of their creation", body = UserList), ListErrors),
    security(("api_key" = ["users:read"]), ("bearer" = ["users:read"]))
)]
async fn list_users(
    State(identity): State<Handle>,
    Extension(cursors): Extension<CursorKey>,
    OriginalUri(uri): OriginalUri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filters = ["email", "username", "role", "disabled"];
    let query = PageQuery::parse(&cursors, uri.path(), query.as_deref(), &filters)?;
    let filter = read_filter(&query)?;
    let found = identity.page_of_users(filter, list::slice(&query)).await?;
    let (data, pagination) = list::page(&query, found, |user| user.id.clone(), UserView::from);
    let links = pagination.link_header();
    Ok(list::answer(
        &headers,
        links,
        &UserList { data, pagination },
    ))
}

/// Show a user
#[utoipa::path(
    get, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 200, description = "The user", body = UserView), ReadErrors),
    security(("api_key" = ["users:read"]), ("bearer" = ["users:read"]))
)]
async fn get_user(
    State(identity): State<Handle>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = identity.get_user(&text(id)?).await?;
    let tag = tag(&user);
    if etag::is_known(&headers, &tag) {
        let caching = [(header::ETAG, tag), (header::CACHE_CONTROL, REVALIDATE)];
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    let mut response = shown(user);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, REVALIDATE);
    Ok(response)
}

/// Replace a user
///
/// What is left out gets its usual value: no age, no roles, not disabled, the e-mail address as the
/// username. The password stays. `If-Match` refuses the change if somebody else was faster.
#[utoipa::path(
    put, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    request_body(content = ReplaceBody),
    responses((status = 200, description = "The user as he is now", body = UserView), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn replace_user(
    State(identity): State<Handle>,
    by: By,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let id = text(id)?;
    let mut body = Fields::parse(&body::read_json(&headers, body).await?)?;
    let disabled = body.optional("disabled", fields::boolean).unwrap_or(false);
    let new = read_new(body)?;
    let change = UserChange {
        username: Some(new.username.unwrap_or_else(|| new.email.clone())),
        name: Some(new.name),
        email: Some(new.email),
        age: Some(new.age),
        roles: Some(new.roles),
        disabled: Some(disabled),
        password: new.password.map(Some),
    };
    let expected = expected(&headers);
    let user = identity.update_user(&by.actor, &id, change, expected);
    Ok(shown(user.await?))
}

/// Change a user
///
/// Who he is and what he may do can be changed only by who has all of his rights; his own roles
/// nobody can change. `If-Match` refuses the change if somebody else was faster.
#[utoipa::path(
    patch, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    request_body(content = PatchBody),
    responses((status = 200, description = "The user as he is now", body = UserView), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn update_user(
    State(identity): State<Handle>,
    by: By,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let id = text(id)?;
    let change = read_change(Fields::parse(&body::read_json(&headers, body).await?)?)?;
    let expected = expected(&headers);
    let user = identity.update_user(&by.actor, &id, change, expected);
    Ok(shown(user.await?))
}

/// Remove a user
///
/// With his keys, sessions, consents and history. What he did stays in the audit record.
#[utoipa::path(
    delete, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 204, description = "Removed"), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn delete_user(
    State(identity): State<Handle>,
    by: By,
    id: Id,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let expected = expected(&headers);
    identity
        .delete_user(&by.actor, &text(id)?, expected)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List a user's logins
#[utoipa::path(
    get, path = "/users/{id}/logins", tag = TAG,
    params(("id" = String, Path, description = "Id of the user"), PageParams),
    responses((status = 200, description = "One page of logins, newest first", body = LoginList), ListErrors),
    security(("api_key" = ["users:read"]), ("bearer" = ["users:read"]))
)]
async fn list_user_logins(
    State(identity): State<Handle>,
    Extension(cursors): Extension<CursorKey>,
    id: Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = identity.get_user(&text(id)?).await?;
    let path = format!("/v1/users/{}/logins", user.id);
    let query = PageQuery::parse(&cursors, &path, query.as_deref(), &[])?;
    logins(&identity, &user.id, &query, &headers).await
}

pub(super) async fn logins(
    identity: &Handle,
    user_id: &str,
    query: &PageQuery,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let found = identity.page_of_logins(user_id, list::slice(query)).await?;
    let (data, pagination) = list::page(query, found, |login| login.id.clone(), LoginView::from);
    let links = pagination.link_header();
    Ok(list::answer(
        headers,
        links,
        &LoginList { data, pagination },
    ))
}

pub(super) fn text(id: Id) -> Result<String, IdentityError> {
    match id {
        Ok(Path(id)) => Ok(id),
        Err(_) => Err(IdentityError::UserNotFound),
    }
}

/// The user with his `ETag`.
fn shown(user: User) -> Response {
    let tag = tag(&user);
    ([(header::ETAG, tag)], Json(UserView::from(user))).into_response()
}

/// Moves with every change and every login.
fn tag(user: &User) -> HeaderValue {
    let tag = format!("\"{}-{}\"", user.version, user.login_count);
    HeaderValue::try_from(tag).expect("digits")
}

/// What `If-Match` asks for. A login meanwhile is no change that a client could overwrite, so only
/// the first half of a tag counts; weak tags match nothing (RFC 9110 §13.1.1).
fn expected(headers: &HeaderMap) -> Expected {
    if !headers.contains_key(header::IF_MATCH) {
        return Expected::Any;
    }
    let mut versions = Vec::new();
    for value in headers.get_all(header::IF_MATCH) {
        for tag in value.to_str().unwrap_or_default().split(',') {
            let tag = tag.trim();
            if tag == "*" {
                return Expected::Any;
            }
            let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = inner.and_then(|tag| tag.split_once('-')?.0.parse::<i64>().ok());
            versions.extend(version);
        }
    }
    Expected::Versions(versions)
}

fn read_filter(query: &PageQuery) -> Result<UserFilter, ApiError> {
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

fn read_new(mut body: Fields) -> Result<NewUser, ApiError> {
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

fn read_change(mut body: Fields) -> Result<UserChange, ApiError> {
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
