//! API keys.

use std::time::Duration;

use auspex_kernel::fields::{
    Body as _, Filters as _, Kind as _, integer, optional, required, scopes, text, timestamp,
};
use auspex_kernel::http::{
    ChangeErrors, CreateErrors, Creation, JSON, List, ListErrors, ReadErrors, Requester, created,
};
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::PageParams;
use auspex_kernel::{
    ApiError, CursorKey, Scope, ScopeSet, Timestamp, body, query_filters, request_body,
};
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use super::users::Id;
use crate::api_keys::Keys;
use crate::error::IdentityError;
use crate::types::api_key::{ApiKey, NewKey};

pub(super) const TAG: &str = "api-keys";
const LIST: &str = "/v1/api-keys";
const NAME_CHARS_MAX: usize = 100;
const OVERLAP_S_MAX: i64 = 604_800;
const OVERLAP_S_USUAL: i64 = 86_400;

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(list_api_keys, create_api_key))
        .routes(routes!(get_api_key, revoke_api_key))
        .routes(routes!(rotate_api_key))
}

/// An API key; never the key itself.
#[derive(Serialize, ToSchema)]
pub(super) struct ApiKeyView {
    #[schema(example = "7K3QX0M8E2V5T1RD")]
    id: String,
    name: String,
    scopes: Vec<&'static str>,
    #[schema(pattern = "^(active|expired|revoked)$")]
    state: &'static str,
    /// The user it belongs to, whose rights limit it.
    owner_id: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(format = DateTime)]
    revoked_at: Option<String>,
    /// Exact for this server, to about a minute for other servers.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// Id of the key that replaced it.
    replaced_by: Option<String>,
}

impl ApiKeyView {
    pub(super) fn new(key: ApiKey, now: Timestamp) -> Self {
        Self {
            state: key.state(now).as_str(),
            id: key.id.to_string(),
            name: key.name,
            scopes: key.scopes.iter().map(Scope::as_str).collect(),
            owner_id: key.owner_id.map(|id| id.to_string()),
            created_at: key.created_at.to_rfc3339(),
            expires_at: key.expires_at.map(Timestamp::to_rfc3339),
            revoked_at: key.revoked_at.map(Timestamp::to_rfc3339),
            last_used_at: key.last_used_at.map(Timestamp::to_rfc3339),
            replaced_by: key.replaced_by.map(|id| id.to_string()),
        }
    }
}

/// A key that was just created.
#[derive(Serialize, ToSchema)]
pub(super) struct NewApiKeyView {
    /// The key itself. It is shown only once.
    #[schema(pattern = "^ax_[0-9A-Za-z]{36}$")]
    key: String,
    #[serde(flatten)]
    about: ApiKeyView,
}

pub(super) type ApiKeyList = List<ApiKeyView>;

request_body! {
    /// A key to create.
    pub(super) struct CreateBody as "ApiKeyCreate" {
        /// What it is for
        name: String = required(text(1..=NAME_CHARS_MAX).example("nightly batch")),
        /// What it may do; no more than the caller
        scopes: ScopeSet = required(scopes()),
        /// When it expires; by default never, or with the key that creates it
        expires_at: Option<Timestamp> = optional(timestamp()),
    }
}

request_body! {
    /// How a key is to be replaced.
    pub(super) struct RotateBody as "ApiKeyRotate" {
        /// Seconds for which the old key keeps working
        overlap_s: Option<i64> = optional(integer(0..=OVERLAP_S_MAX).by_default(OVERLAP_S_USUAL)),
    }
}

query_filters! {
    /// Which keys to list.
    pub(super) struct KeyFilters {
        /// Those of this user
        owner_id: String = text(1..=256),
    }
}

/// Create an API key
///
/// The answer contains the key, which is not shown again: a repetition with the same
/// `Idempotency-Key` is 409. A key created by a user belongs to that user.
#[utoipa::path(
    post, path = "/api-keys", tag = TAG,
    params(IdempotencyParams),
    request_body(content = CreateBody),
    responses((status = 201, description = "Created; `Location` says where it is", body = NewApiKeyView), CreateErrors),
    security(("api_key" = ["keys:write"]), ("bearer" = ["keys:write"]))
)]
async fn create_api_key(
    State(keys): State<Keys>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let new = read_new(&body, keys.now())?;
    let actor = creation.requester.actor();
    let made = made(LIST, keys.now());
    let work = async move |receipt| {
        let created = keys.create_once(&actor, &new.name, new.scopes, new.expires_at, receipt);
        Ok(created.await?.1)
    };
    creation.once(&body, Answer::Secret, made, work).await
}

/// List the API keys
///
/// With `users:write` everybody's, otherwise those of the caller's user. A key that belongs to
/// nobody sees only itself.
#[utoipa::path(
    get, path = "/api-keys", tag = TAG,
    params(PageParams, KeyFilters),
    responses((status = 200, description = "One page of keys, newest first", body = ApiKeyList), ListErrors),
    security(("api_key" = ["keys:write"]), ("bearer" = ["keys:write"]))
)]
async fn list_api_keys(
    State(keys): State<Keys>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = KeyFilters::parse(&cursors, LIST, query.as_deref())?;
    // A text that cannot be an id belongs to nobody.
    let owner = filters.owner_id.map(|text| UserId::parse(&text));
    let owner = owner.map(|id| id.unwrap_or_else(|| UserId::from_stored("")));
    let slice = query.slice();
    let found = keys.page(&requester.actor(), owner, slice).await?;
    let now = keys.now();
    let view = |key| ApiKeyView::new(key, now);
    let list = ApiKeyList::new(&query, found, ApiKey::position, view);
    Ok(list.answer(&headers))
}

/// Show an API key
#[utoipa::path(
    get, path = "/api-keys/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the key")),
    responses((status = 200, description = "The key, without the key itself", body = ApiKeyView), ReadErrors),
    security(("api_key" = ["keys:write"]), ("bearer" = ["keys:write"]))
)]
async fn get_api_key(
    State(keys): State<Keys>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = keys.get(&requester.actor(), &key_id(id)?).await?;
    let view = ApiKeyView::new(key, keys.now());
    Ok(auspex_kernel::etag::cacheable(&headers, JSON, &view))
}

/// Revoke an API key
///
/// This server refuses it at once, others within a second. Revoking it again is not an error.
#[utoipa::path(
    delete, path = "/api-keys/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the key")),
    responses((status = 204, description = "Revoked"), ChangeErrors),
    security(("api_key" = ["keys:write"]), ("bearer" = ["keys:write"]))
)]
async fn revoke_api_key(
    State(keys): State<Keys>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    // Only by its id: a name that looks like an id is not meant.
    let key = keys.get(&requester.actor(), &key_id(id)?).await?;
    keys.revoke(&requester.actor(), key.id.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replace an API key
///
/// The new key has the same scopes and expires at the same time; the answer contains it, and it is
/// not shown again. The old key keeps working for at most `overlap_s` seconds.
#[utoipa::path(
    post, path = "/api-keys/{id}/rotations", tag = TAG,
    params(("id" = String, Path, description = "Id of the key to be replaced"), IdempotencyParams),
    request_body(content = Option<RotateBody>),
    responses((status = 201, description = "Replaced; `Location` says where the new one is", body = NewApiKeyView), CreateErrors),
    security(("api_key" = ["keys:write"]), ("bearer" = ["keys:write"]))
)]
async fn rotate_api_key(
    State(keys): State<Keys>,
    creation: Creation,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let overlap = read_overlap(&body)?;
    let id = key_id(id)?;
    let actor = creation.requester.actor();
    let made = made(LIST, keys.now());
    let work = async move |receipt| {
        let key = keys.get(&actor, &id).await?;
        let rotated = keys.rotate_once(&actor, key.id.as_str(), overlap, receipt);
        Ok(rotated.await?.1)
    };
    creation.once(&body, Answer::Secret, made, work).await
}

pub(super) fn read_new(body: &[u8], now: Timestamp) -> Result<CreateBody, ApiError> {
    CreateBody::parse_and_check(body, |body, fields| {
        if body.expires_at.is_some_and(|at| at <= now) {
            fields.refuse("expires_at", "must lie in the future");
        }
    })
}

/// How long a key works on that is replaced as this body says, which may be empty.
pub(super) fn read_overlap(body: &[u8]) -> Result<Duration, ApiError> {
    let overlap_s = match body.trim_ascii() {
        b"" | b"null" => None,
        given => RotateBody::parse(given)?.overlap_s,
    };
    let overlap_s = overlap_s.unwrap_or(OVERLAP_S_USUAL);
    Ok(Duration::from_secs(overlap_s.unsigned_abs()))
}

pub(super) fn key_id(id: Id) -> Result<KeyId, IdentityError> {
    let text = id.map(|path| path.0).unwrap_or_default();
    KeyId::parse(&text).ok_or(IdentityError::KeyNotFound)
}

pub(super) fn made(list: &'static str, now: Timestamp) -> impl FnOnce(&NewKey) -> Response {
    move |new| {
        let location = format!("{list}/{}", new.key.id);
        let view = NewApiKeyView {
            key: new.secret.expose().to_owned(),
            about: ApiKeyView::new(new.key.clone(), now),
        };
        created(location, &view)
    }
}
