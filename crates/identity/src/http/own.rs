//! The caller's own sessions, and the applications that they let act for them.

use auspex_kernel::http::{ChangeErrors, List, ListErrors, Requester};
use auspex_kernel::id::UserId;
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, Caller, CursorKey, Subject, Timestamp};
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use super::users::Id;
use crate::error::IdentityError;
use crate::oauth::{Own, OwnConsent, OwnSession, Place};

const TAG: &str = "users";

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(list_my_sessions))
        .routes(routes!(end_my_session))
        .routes(routes!(list_my_consents))
        .routes(routes!(withdraw_my_consent))
}

/// A login that is in force.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionView {
    id: String,
    /// `browser` at the login pages, `tokens` where the tokens of `POST /v1/auth/login` are
    #[schema(pattern = "^(browser|tokens)$")]
    kind: &'static str,
    /// Whether the request is by this one
    current: bool,
    /// When the password was given
    #[schema(format = DateTime)]
    created_at: String,
    /// When its tokens were last refreshed
    #[schema(format = DateTime)]
    refreshed_at: Option<String>,
    #[schema(format = DateTime)]
    expires_at: String,
}

/// An application that may act for the user.
#[derive(Serialize, ToSchema)]
#[schema(as = Consent)]
struct ConsentView {
    client_id: String,
    name: String,
    /// What it may have
    scopes: Vec<&'static str>,
    /// How many of its logins are in force
    sessions: usize,
    /// When the user last agreed
    #[schema(format = DateTime)]
    agreed_at: String,
}

impl From<&OwnConsent> for ConsentView {
    fn from(consent: &OwnConsent) -> Self {
        Self {
            client_id: consent.client_id.to_string(),
            name: consent.name.clone(),
            scopes: consent.scopes.iter().collect(),
            sessions: consent.grants,
            agreed_at: consent.agreed_at.to_rfc3339(),
        }
    }
}

type SessionList = List<SessionView>;
type ConsentList = List<ConsentView>;

/// The user who asks themselves: not a key of theirs, nor an application.
fn themselves(caller: &Caller) -> Result<&UserId, ApiError> {
    match (&caller.subject, &caller.client_id, &caller.user_id) {
        (Subject::User(_), None, Some(id)) => Ok(id),
        _ => Err(ApiError::forbidden(
            "only users themselves can do this, logged in by their password",
        )),
    }
}

/// List one's sessions
///
/// Those in force. Not for API keys and OAuth clients.
#[utoipa::path(
    get, path = "/me/sessions", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of the sessions, by id", body = SessionList), ListErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn list_my_sessions(
    State(own): State<Own>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = themselves(&requester.caller)?;
    let query = PageQuery::parse(&cursors, "/v1/me/sessions", query.as_deref(), &[])?;
    let all = own.sessions(id).await?;
    let current = requester.caller.session_id.as_ref().map(AsRef::as_ref);
    let view = |session: &OwnSession| SessionView {
        id: session.id.clone(),
        kind: match session.place {
            Place::Browser => "browser",
            Place::Tokens => "tokens",
        },
        current: current == Some(session.id.as_str()),
        created_at: session.authenticated_at.to_rfc3339(),
        refreshed_at: session.refreshed_at.map(Timestamp::to_rfc3339),
        expires_at: session.expires_at.to_rfc3339(),
    };
    Ok(SessionList::cut(&query, &all, |session| &session.id, view).answer(&headers))
}

/// End one of one's sessions
///
/// Its cookie or tokens stop working at once. Not for API keys and OAuth clients.
#[utoipa::path(
    delete, path = "/me/sessions/{session_id}", tag = TAG,
    params(("session_id" = String, Path, description = "Id of the session")),
    responses((status = 204, description = "Ended"), ChangeErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn end_my_session(
    State(own): State<Own>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let user_id = themselves(&requester.caller)?;
    let Path(id) = id.map_err(|_| IdentityError::SessionNotFound)?;
    own.end_session(&requester.actor(), user_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the applications that may act for one
///
/// Those that the user agreed to, and those with a login in force. Not for API keys and OAuth clients.
#[utoipa::path(
    get, path = "/me/consents", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of the applications, by id", body = ConsentList), ListErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn list_my_consents(
    State(own): State<Own>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = themselves(&requester.caller)?;
    let query = PageQuery::parse(&cursors, "/v1/me/consents", query.as_deref(), &[])?;
    let all = own.consents(id).await?;
    let list = ConsentList::cut(
        &query,
        &all,
        |consent| consent.client_id.as_str(),
        ConsentView::from,
    );
    Ok(list.answer(&headers))
}

/// Withdraw what an application may do for one
///
/// Its tokens for this user stop working at once, and the user is asked again. Not for API keys and OAuth
/// clients.
#[utoipa::path(
    delete, path = "/me/consents/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses((status = 204, description = "Withdrawn"), ChangeErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn withdraw_my_consent(
    State(own): State<Own>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let user_id = themselves(&requester.caller)?;
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    own.withdraw(&requester.actor(), user_id, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
