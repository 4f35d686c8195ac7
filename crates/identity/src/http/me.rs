//! The caller's own account.

use auspex_kernel::etag::cacheable;
use auspex_kernel::fields::{Body as _, required};
use auspex_kernel::http::{ChangeErrors, JSON, ListErrors, ReadErrors, Requester};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, Caller, CursorKey, Scope, Timestamp, body, request_body};
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::SECRET_CHARS_MAX;
use super::user_body::LoginList;
use super::{Handles, oauth, users};
use crate::error::IdentityError;
use crate::oauth::IssuedTokens;
use crate::password::{self, Password};
use crate::types::claims::UserClaims;
use crate::types::role::Role;
use crate::types::scope::ClientScopes;
use crate::users::Users;

const TAG: &str = "users";

/// Operations that exist under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(get_me))
}

pub(super) fn more_routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(replace_my_password))
        .routes(routes!(list_my_logins))
}

/// Who calls, and what they may do. The fields of a user are null for a key that belongs to nobody. An
/// OAuth client sees the user's `id`, and what it was granted to know, as at `/oauth2/userinfo`: `name`,
/// `username` and `updated_at` by `profile`, `email` and `email_verified` by `email`, `roles` by `roles`.
#[derive(Serialize, ToSchema)]
struct MeView {
    /// As in the audit record: `user:ID`, `key:ID` or `client:ID`.
    #[schema(example = "user:01JD3V9K2Q4W7M5X")]
    subject: String,
    /// What the credential allows.
    scopes: Vec<&'static str>,
    /// When the credential expires.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Id of the user.
    id: Option<String>,
    name: Option<String>,
    email: Option<String>,
    /// Whether an administrator says that the address is the user's.
    email_verified: Option<bool>,
    /// The name to log in with, in either case.
    username: Option<String>,
    age: Option<i32>,
    roles: Option<Vec<Role>>,
    /// Whether the user can log in by password.
    has_password: Option<bool>,
    #[schema(format = DateTime)]
    created_at: Option<String>,
    #[schema(format = DateTime)]
    updated_at: Option<String>,
    #[schema(format = DateTime)]
    last_login_at: Option<String>,
    /// Successful logins so far.
    login_count: Option<i64>,
}

request_body! {
    /// The current password, and the new one.
    pub(super) struct PasswordBody as "PasswordChange" {
        current_password: Password = required(password::presented(SECRET_CHARS_MAX)),
        /// 8 to 1024 characters
        new_password: Password = required(password::chosen()),
    }
}

/// Refuses an OAuth client, whatever scopes it was given.
pub(super) fn no_client(caller: &Caller) -> Result<(), ApiError> {
    match caller.client_id {
        Some(_) => Err(ApiError::forbidden(
            "an application cannot do this for its user, who has to log in here",
        )),
        None => Ok(()),
    }
}

/// Show who calls
#[utoipa::path(
    get, path = "/me", tag = TAG,
    responses((status = 200, description = "The caller", body = MeView), ReadErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn get_me(
    State(users): State<Users>,
    State(issued): State<IssuedTokens>,
    requester: Requester,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let user = match &requester.caller.user_id {
        Some(id) => Some(users.get(id).await?),
        None => None,
    };
    let of = user.as_ref();
    // Letting an application predict does not mean letting it see who the user is.
    let to_themselves = of.filter(|_| requester.caller.client_id.is_none());
    let claims = match (of, to_themselves) {
        (Some(user), None) => {
            let token = oauth::presented_token(&headers).unwrap_or_default();
            UserClaims::of(user, issued.granted(token))
        }
        (Some(user), Some(_)) => UserClaims::of(user, ClientScopes::all_oidc()),
        (None, _) => UserClaims::default(),
    };
    let updated_at = of.filter(|_| claims.updated_at.is_some());
    let view = MeView {
        subject: requester.caller.subject.to_string(),
        scopes: requester.caller.scopes.iter().map(Scope::as_str).collect(),
        expires_at: requester.caller.expires_at.map(Timestamp::to_rfc3339),
        id: of.map(|user| user.id.to_string()),
        name: claims.name,
        email: claims.email,
        email_verified: claims.email_verified,
        username: claims.preferred_username,
        age: to_themselves.and_then(|user| user.age),
        roles: claims.roles,
        has_password: to_themselves.map(|user| user.has_password),
        created_at: to_themselves.map(|user| user.created_at.to_rfc3339()),
        updated_at: updated_at.map(|user| user.updated_at.to_rfc3339()),
        last_login_at: to_themselves.and_then(|user| user.last_login_at.map(Timestamp::to_rfc3339)),
        login_count: to_themselves.map(|user| user.login_count),
    };
    Ok(cacheable(&headers, JSON, &view))
}

/// Change one's password
///
/// For users who have a password, and not for OAuth clients. Every other session of the user ends;
/// their API keys stay.
#[utoipa::path(
    put, path = "/me/password", tag = TAG,
    request_body(content = PasswordBody),
    responses((status = 204, description = "Changed"), ChangeErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn replace_my_password(
    State(users): State<Users>,
    requester: Requester,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    no_client(&requester.caller)?;
    let body = PasswordBody::parse(&body::read_json(&headers, body).await?)?;
    let session = requester.caller.session_id.clone();
    let actor = requester.actor();
    let changed =
        users.change_own_password(&actor, session, &body.current_password, body.new_password);
    changed.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List one's logins
///
/// Not for OAuth clients.
#[utoipa::path(
    get, path = "/me/logins", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of logins, newest first", body = LoginList), ListErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn list_my_logins(
    State(users): State<Users>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    no_client(&requester.caller)?;
    let id = requester
        .caller
        .user_id
        .as_ref()
        .ok_or(IdentityError::NoUser)?;
    let query = PageQuery::parse(&cursors, "/v1/me/logins", query.as_deref(), &[])?;
    users::logins(&users, id, &query, &headers).await
}
