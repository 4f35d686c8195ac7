//! Logging in for tokens, and out again.

use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::fields::{Body as _, Kind as _, opaque, required};
use auspex_kernel::{ApiError, Caller, Peer, RequestId, body, request_body};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use crate::audit::{Action, Actor};
use crate::error::IdentityError;
use crate::password::{self, Password};
use crate::sessions::{Refreshed, Sessions};

const TAG: &str = "authentication";
/// Longer than any username, password or token that could be right.
pub(super) const SECRET_CHARS_MAX: usize = 4_096;

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(refresh_token))
        .routes(routes!(log_out))
}

request_body! {
    /// A username and its password.
    pub(super) struct LoginBody as "LoginRequest" {
        /// In either case
        username: String = required(opaque(SECRET_CHARS_MAX).example("ann@example.org")),
        password: Password = required(password::presented(SECRET_CHARS_MAX)),
    }
}

request_body! {
    /// A refresh token, which can be exchanged once.
    pub(super) struct RefreshBody as "RefreshRequest" {
        refresh_token: String = required(opaque(SECRET_CHARS_MAX)),
    }
}

/// A token to call with, and one to get the next pair with.
#[derive(Serialize, ToSchema)]
struct TokenPair {
    /// A JWT, to be sent as `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token expires.
    expires_in: u64,
    /// For `POST /v1/auth/refresh`; each can be exchanged once.
    refresh_token: String,
    /// What the access token may do, space-separated.
    scope: String,
}

/// Log in with name and password
#[utoipa::path(
    post, path = "/v1/auth/login", tag = TAG, security(()),
    request_body(content = LoginBody),
    responses(
        (status = 200, description = "Logged in", body = TokenPair),
        (status = 400, description = "Not a JSON object", body = Envelope),
        (status = 401, description = "Name or password is wrong", body = Envelope),
        (status = 413, description = "The body is too long", body = Envelope),
        (status = 415, description = "Not JSON", body = Envelope),
        (status = 422, description = "Fields are missing or wrong", body = Envelope),
        (status = 429, description = "Too many requests or failures from this address", body = Envelope),
        (status = 503, description = "Too many passwords to check, or the database is away", body = Envelope),
    )
)]
async fn log_in(
    State(sessions): State<Sessions>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenPair>, ApiError> {
    let body = LoginBody::parse(&body::read_json(&headers, body).await?)?;
    let actor = Actor::anonymous(peer, Some(&request_id));
    let issued = sessions
        .log_in(&actor, &body.username, &body.password)
        .await?;
    Ok(Json(issued.into()))
}

impl From<Refreshed> for TokenPair {
    fn from(issued: Refreshed) -> Self {
        Self {
            access_token: issued.access_token,
            token_type: "Bearer",
            expires_in: issued.expires_in_s,
            refresh_token: issued.refresh_token,
            scope: issued.scope,
        }
    }
}

/// Exchange a refresh token
///
/// The answer contains the next one. If the reply is lost, the same exchange gives the same refresh
/// token for a few seconds. An older token is treated as stolen and ends the session.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = TAG, security(()),
    request_body(content = RefreshBody),
    responses(
        (status = 200, description = "Exchanged", body = TokenPair),
        (status = 400, description = "Not a JSON object", body = Envelope),
        (status = 401, description = "Unknown, used, revoked or expired", body = Envelope),
        (status = 413, description = "The body is too long", body = Envelope),
        (status = 415, description = "Not JSON", body = Envelope),
        (status = 422, description = "Fields are missing or wrong", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
        (status = 503, description = "The database is away", body = Envelope),
    )
)]
async fn refresh_token(
    State(sessions): State<Sessions>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenPair>, ApiError> {
    let body = RefreshBody::parse(&body::read_json(&headers, body).await?)?;
    let actor = Actor::anonymous(peer, Some(&request_id));
    let issued = sessions.refresh(&actor, &body.refresh_token, None, None);
    let issued = issued.await?;
    Ok(Json(issued.into()))
}

/// Log out
///
/// Ends the session of the access token that is sent: this token and its refresh token are refused
/// from now on.
#[utoipa::path(
    post, path = "/v1/auth/logout", tag = TAG,
    security(("api_key" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Logged out"),
        (status = 401, description = "No valid credential", body = Envelope),
        (status = 409, description = "The credential has no session", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
        (status = 503, description = "The database is away", body = Envelope),
    )
)]
async fn log_out(
    State(sessions): State<Sessions>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
) -> Result<StatusCode, ApiError> {
    let session = caller.session_id.as_ref().ok_or(IdentityError::NoSession)?;
    let actor = Actor::caller(&caller, peer, Some(&request_id));
    sessions.end(&actor, session, Action::Logout).await?;
    Ok(StatusCode::NO_CONTENT)
}
