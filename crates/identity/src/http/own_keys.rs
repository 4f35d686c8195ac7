//! The caller's own API keys.

use auspex_kernel::etag::cacheable;
use auspex_kernel::http::{
    ChangeErrors, CreateErrors, Creation, JSON, ListErrors, ReadErrors, Requester,
};
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, body};
use axum::body::Body;
use axum::extract::{Extension, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use super::api_keys::{
    ApiKeyList, ApiKeyView, CreateBody, NewApiKeyView, RotateBody, TAG, key_id, made, read_new,
    read_overlap,
};
use super::me::no_client;
use super::users::Id;
use crate::api_keys::Keys;
use crate::error::IdentityError;
use crate::types::api_key::ApiKey;

const LIST: &str = "/v1/me/api-keys";

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(list_my_api_keys, create_my_api_key))
        .routes(routes!(get_my_api_key, revoke_my_api_key))
        .routes(routes!(rotate_my_api_key))
}

/// Refuses whoever has no keys: OAuth clients, and keys that belong to nobody.
fn owner(requester: &Requester) -> Result<(), ApiError> {
    no_client(&requester.caller)?;
    let user = requester.caller.user_id.as_ref();
    Ok(user.map(|_| ()).ok_or(IdentityError::NoUser)?)
}

/// Create an API key for oneself
///
/// For users, who need no other right than to predict; its scopes go no further than theirs. An API key
/// can create others only with the scope `keys:write`. The answer contains the key, which is not
/// shown again: a repetition with the same `Idempotency-Key` is 409.
#[utoipa::path(
    post, path = "/me/api-keys", tag = TAG,
    params(IdempotencyParams),
    request_body(content = CreateBody),
    responses((status = 201, description = "Created; `Location` says where it is", body = NewApiKeyView), CreateErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
async fn create_my_api_key(
    State(keys): State<Keys>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    owner(&creation.requester)?;
    let body = body::read_json(&creation.headers, body).await?;
    let new = read_new(&body, keys.now())?;
    let actor = creation.requester.actor();
    let made = made(LIST, keys.now());
    let own = keys.own();
    let work = async move |receipt| {
        let created = own.create_once(&actor, &new.name, new.scopes, new.expires_at, receipt);
        Ok(created.await?.1)
    };
    creation.once(&body, Answer::Secret, made, work).await
}

/// List one's API keys
///
/// Also for users who may not predict and make none. With an API key that lacks the scope `keys:write`, that key alone.
#[utoipa::path(
    get, path = "/me/api-keys", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of keys, newest first", body = ApiKeyList), ListErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn list_my_api_keys(
    State(keys): State<Keys>,
    Extension(cursors): Extension<CursorKey>,
    requester: Requester,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    owner(&requester)?;
    let query = PageQuery::parse(&cursors, LIST, query.as_deref(), &[])?;
    let (own, actor) = (keys.own(), requester.actor());
    let found = own.page(&actor, None, query.slice()).await?;
    let now = keys.now();
    let view = |key| ApiKeyView::new(key, now);
    let list = ApiKeyList::new(&query, found, ApiKey::position, view);
    Ok(list.answer(&headers))
}

/// Show one of one's API keys
#[utoipa::path(
    get, path = "/me/api-keys/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the key")),
    responses((status = 200, description = "The key, without the key itself", body = ApiKeyView), ReadErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn get_my_api_key(
    State(keys): State<Keys>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    owner(&requester)?;
    let key = keys.own().get(&requester.actor(), &key_id(id)?).await?;
    let view = ApiKeyView::new(key, keys.now());
    Ok(cacheable(&headers, JSON, &view))
}

/// Revoke one of one's API keys
///
/// This server refuses it at once, others within a second. Revoking it again is not an error.
#[utoipa::path(
    delete, path = "/me/api-keys/{id}", tag = TAG,
    params(("id" = String, Path, description = "Id of the key")),
    responses((status = 204, description = "Revoked"), ChangeErrors),
    security(("api_key" = []), ("bearer" = []))
)]
async fn revoke_my_api_key(
    State(keys): State<Keys>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    owner(&requester)?;
    let (own, actor) = (keys.own(), requester.actor());
    // Only by its id: a name that looks like an id is not meant.
    let key = own.get(&actor, &key_id(id)?).await?;
    own.revoke(&actor, key.id.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Replace one of one's API keys
///
/// The new key has the same scopes and expires at the same time; the answer contains it, and it is
/// not shown again. The old key keeps working for at most `overlap_s` seconds. An API key can replace
/// keys only with the scope `keys:write`.
#[utoipa::path(
    post, path = "/me/api-keys/{id}/rotations", tag = TAG,
    params(("id" = String, Path, description = "Id of the key to be replaced"), IdempotencyParams),
    request_body(content = Option<RotateBody>),
    responses((status = 201, description = "Replaced; `Location` says where the new one is", body = NewApiKeyView), CreateErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
async fn rotate_my_api_key(
    State(keys): State<Keys>,
    creation: Creation,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    owner(&creation.requester)?;
    let body = body::read_json(&creation.headers, body).await?;
    let overlap = read_overlap(&body)?;
    let id = key_id(id)?;
    let actor = creation.requester.actor();
    let made = made(LIST, keys.now());
    let own = keys.own();
    let work = async move |receipt| {
        let key = own.get(&actor, &id).await?;
        let rotated = own.rotate_once(&actor, key.id.as_str(), overlap, receipt);
        Ok(rotated.await?.1)
    };
    creation.once(&body, Answer::Secret, made, work).await
}
