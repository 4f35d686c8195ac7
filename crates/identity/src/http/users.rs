//! Users and their logins.

use auspex_kernel::fields::Filters as _;
use auspex_kernel::http::{
    ChangeErrors, CreateErrors, Creation, ListErrors, ReadErrors, Requester, created,
};
use auspex_kernel::id::UserId;
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, body, etag};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, OriginalUri, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use super::user_body::{
    CreateBody, LoginList, LoginView, PatchBody, ReplaceBody, UserFilters, UserList, UserView,
    read_change, read_new, read_replacement,
};
use crate::error::IdentityError;
use crate::types::user::{Expected, User};
use crate::users::Users;

const TAG: &str = "users";

/// An id that cannot be decoded belongs to nobody.
pub(super) type Id = Result<Path<String>, PathRejection>;

/// Operations that exist under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(list_users, create_user))
        .routes(routes!(get_user, replace_user, update_user, delete_user))
}

pub(super) fn history_routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(list_user_logins))
}

/// Add a user
///
/// Nobody can grant roles that reach further than their own rights.
#[utoipa::path(
    post, path = "/users", tag = TAG,
    params(IdempotencyParams),
    request_body(content = CreateBody),
    responses((status = 201, description = "Added; `Location` says where the user is", body = UserView), CreateErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn create_user(
    State(users): State<Users>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let new = read_new(&body)?;
    let path = creation.path.clone();
    let actor = creation.requester.actor();
    let made = move |user: &User| {
        let location = format!("{path}/{}", user.id);
        let tag = [(header::ETAG, tag(user))];
        (tag, created(location, &UserView::from(user.clone()))).into_response()
    };
    let work = async move |receipt| Ok(users.create_once(&actor, new, receipt).await?.1);
    creation.once(&body, Answer::Stored, made, work).await
}

/// List the users
#[utoipa::path(
    get, path = "/users", tag = TAG,
    params(PageParams, UserFilters),
    responses((status = 200, description = "One page of users, in the order of their creation", body = UserList), ListErrors),
    security(("api_key" = ["users:read"]), ("bearer" = ["users:read"]))
)]
async fn list_users(
    State(users): State<Users>,
    Extension(cursors): Extension<CursorKey>,
    OriginalUri(uri): OriginalUri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = UserFilters::parse(&cursors, uri.path(), query.as_deref())?;
    let found = users.page(filters.into(), query.slice());
    let found = found.await?;
    let list = UserList::new(&query, found, |user| user.id.to_string(), UserView::from);
    Ok(list.answer(&headers))
}

/// Show a user
#[utoipa::path(
    get, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 200, description = "The user", body = UserView), ReadErrors),
    security(("api_key" = ["users:read"]), ("bearer" = ["users:read"]))
)]
async fn get_user(
    State(users): State<Users>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = users.get(&text(id)?).await?;
    let tag = tag(&user);
    let view = Json(UserView::from(user));
    Ok(etag::answer(&headers, tag, etag::REVALIDATE, view))
}

/// Replace a user
///
/// What is left out gets its default: no age, no roles, not disabled, the e-mail address as the
/// username. The password stays. With `If-Match` the change is refused if somebody else has changed
/// the user meanwhile.
#[utoipa::path(
    put, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    request_body(content = ReplaceBody),
    responses((status = 200, description = "The user after the change", body = UserView), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn replace_user(
    State(users): State<Users>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let id = text(id)?;
    let change = read_replacement(&body::read_json(&headers, body).await?)?;
    let (actor, expected) = (requester.actor(), expected(&headers));
    let user = users.update(&actor, &id, change, expected);
    Ok(shown(user.await?))
}

/// Change a user
///
/// The identity, roles and password of a user can be changed only by a caller who has all of the
/// user's rights, and nobody can change their own roles. With `If-Match` the change is refused if
/// somebody else has changed the user meanwhile.
#[utoipa::path(
    patch, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    request_body(content = PatchBody),
    responses((status = 200, description = "The user after the change", body = UserView), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn update_user(
    State(users): State<Users>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let id = text(id)?;
    let change = read_change(&body::read_json(&headers, body).await?)?;
    let (actor, expected) = (requester.actor(), expected(&headers));
    let user = users.update(&actor, &id, change, expected);
    Ok(shown(user.await?))
}

/// Remove a user
///
/// With their keys, sessions, consents and history. What they did stays in the audit record.
#[utoipa::path(
    delete, path = "/users/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the user")),
    responses((status = 204, description = "Removed"), ChangeErrors),
    security(("api_key" = ["users:write"]), ("bearer" = ["users:write"]))
)]
async fn delete_user(
    State(users): State<Users>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let expected = expected(&headers);
    users
        .delete(&requester.actor(), &text(id)?, expected)
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
    State(users): State<Users>,
    Extension(cursors): Extension<CursorKey>,
    id: Id,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = users.get(&text(id)?).await?;
    let path = format!("/v1/users/{}/logins", user.id);
    let query = PageQuery::parse(&cursors, &path, query.as_deref(), &[])?;
    logins(&users, &user.id, &query, &headers).await
}

pub(super) async fn logins(
    users: &Users,
    user_id: &UserId,
    query: &PageQuery,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let found = users.page_of_logins(user_id, query.slice()).await?;
    let list = LoginList::new(query, found, |login| login.id.clone(), LoginView::from);
    Ok(list.answer(headers))
}

pub(super) fn text(id: Id) -> Result<String, IdentityError> {
    match id {
        Ok(Path(id)) => Ok(id),
        Err(_) => Err(IdentityError::UserNotFound),
    }
}

/// The user with an `ETag`.
fn shown(user: User) -> Response {
    let tag = tag(&user);
    ([(header::ETAG, tag)], Json(UserView::from(user))).into_response()
}

/// Changes with every edit and every login.
fn tag(user: &User) -> HeaderValue {
    let tag = format!("\"{}-{}\"", user.version, user.login_count);
    HeaderValue::try_from(tag).expect("digits")
}

/// The state that `If-Match` requires. A login is not a change that a client could overwrite, so only
/// the first half of a tag counts. Weak tags match nothing (RFC 9110 §13.1.1).
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
