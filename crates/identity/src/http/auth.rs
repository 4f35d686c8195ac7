//! Logging in for tokens, and out again.

use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::fields::{self, Fields};
use auspex_kernel::{ApiError, Caller, Peer, RequestId, body};
use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handle;
use crate::Identity;
use crate::audit::{Action, Actor};
use crate::error::IdentityError;
use crate::token::Refreshed;

const TAG: &str = "authentication";
/// Longer than any name, password or token that could be right.
const TEXT_CHARS_MAX: usize = 4_096;

pub(super) fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(log_in))
        .routes(routes!(refresh_token))
        .routes(routes!(log_out))
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LoginRequest)]
#[expect(dead_code, reason = "only its description is used")]
struct LoginBody {
    /// In either case
    #[schema(example = "ann@example.org", max_length = 4096)]
    username: String,
    #[schema(format = Password, max_length = 4096)]
    password: String,
}

/// A refresh token, which is worth one exchange.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RefreshRequest)]
#[expect(dead_code, reason = "only its description is used")]
struct RefreshBody {
    #[schema(max_length = 4096)]
    refresh_token: String,
}

/// What to call with, and what to get the next one with.
#[derive(Serialize, ToSchema)]
struct TokenPair {
    /// A JWT, to be sent as `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: u64,
    /// For `POST /v1/auth/refresh`; each is worth one exchange.
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
        (status = 415, description = "Not JSON", body = Envelope),
        (status = 422, description = "Fields are missing or wrong", body = Envelope),
        (status = 429, description = "Too many requests or failures from this address", body = Envelope),
        (status = 503, description = "Too many passwords to check", body = Envelope),
    )
)]
async fn log_in(
    State(identity): State<Handle>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenPair>, ApiError> {
    let mut body = Fields::parse(&body::read_json(&headers, body).await?)?;
    let username = body.required("username", text);
    let password = body.required("password", text);
    body.finish()?;
    let (username, password) = (username.unwrap_or_default(), password.unwrap_or_default());
    let actor = Actor::anonymous(peer, Some(&request_id));
    let issued = identity
        .log_in_for_tokens(&actor, &username, &password)
        .await?;
    Ok(Json(pair(&identity, issued)))
}

fn pair(identity: &Identity, issued: Refreshed) -> TokenPair {
    TokenPair {
        access_token: issued.access_token,
        token_type: "Bearer",
        expires_in: identity.access_ttl_s(),
        refresh_token: issued.refresh_token,
        scope: issued.scope,
    }
}

/// Exchange a refresh token
///
/// The answer holds the next one. To lose a reply is no harm: for a few seconds the same exchange
/// gives the same refresh token. An older one is taken for stolen and ends the session.
#[utoipa::path(
    post, path = "/v1/auth/refresh", tag = TAG, security(()),
    request_body(content = RefreshBody),
    responses(
        (status = 200, description = "Exchanged", body = TokenPair),
        (status = 400, description = "Not a JSON object", body = Envelope),
        (status = 401, description = "Unknown, used, revoked or expired", body = Envelope),
        (status = 415, description = "Not JSON", body = Envelope),
        (status = 422, description = "Fields are missing or wrong", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn refresh_token(
    State(identity): State<Handle>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<TokenPair>, ApiError> {
    let mut body = Fields::parse(&body::read_json(&headers, body).await?)?;
    let token = body.required("refresh_token", text);
    body.finish()?;
    let actor = Actor::anonymous(peer, Some(&request_id));
    let token = token.unwrap_or_default();
    let issued = identity.refresh(&actor, &token, None, None).await?;
    Ok(Json(pair(&identity, issued)))
}

/// Log out
///
/// Ends the session of the access token that is shown: it and its refresh token are refused from
/// now on.
#[utoipa::path(
    post, path = "/v1/auth/logout", tag = TAG,
    security(("api_key" = []), ("bearer" = [])),
    responses(
        (status = 204, description = "Logged out"),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 409, description = "The credential has no session", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    )
)]
async fn log_out(
    State(identity): State<Handle>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
) -> Result<StatusCode, ApiError> {
    let session = caller
        .session_id
        .as_deref()
        .ok_or(IdentityError::NoSession)?;
    let actor = Actor::caller(&caller, peer, Some(&request_id));
    identity
        .revoke_grant(&actor, session, Action::Logout)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Any text: of what could be right only the right one is, and of the rest nothing is to be learnt.
fn text(value: &serde_json::Value) -> Result<String, fields::Wrong> {
    match value.as_str() {
        Some(text) if text.len() <= TEXT_CHARS_MAX => Ok(text.to_owned()),
        Some(_) => Err("is too long".into()),
        None => Err("must be a string".into()),
    }
}
