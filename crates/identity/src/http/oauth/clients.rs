//! Clients: register, see, remove.

use std::sync::Arc;

use auspex_kernel::error::Envelope;
use auspex_kernel::fields::{self, Fields, Wrong};
use auspex_kernel::page::{PageParams, PageQuery, Pagination};
use auspex_kernel::{ApiError, Caller, CursorKey, Peer, RequestId, body};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use crate::audit::Actor;
use crate::error::IdentityError;
use crate::http::Handle;
use crate::oauth::{Client, ClientDraft, ClientScopes, GrantType};

const PATH: &str = "/v1/oauth-clients";
const URI_CHARS_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(create_oauth_client, list_oauth_clients))
        .routes(routes!(get_oauth_client, delete_oauth_client))
}

/// What a client is to be.
#[derive(ToSchema)]
#[schema(as = OAuthClientRequest)]
#[expect(dead_code, reason = "only its description is used")]
struct ClientBody {
    /// What people are shown
    #[schema(example = "Dashboard", min_length = 1, max_length = 100)]
    name: String,
    /// Where browsers may be sent back to, exactly; https, or for public clients http on a loopback
    /// address (any port) and schemes with a dot
    #[schema(required = false, max_items = 10, example = json!(["https://app.example.org/callback"]))]
    redirect_uris: Vec<String>,
    /// Of `authorization_code`, `refresh_token`, `client_credentials`
    #[schema(example = json!(["authorization_code", "refresh_token"]))]
    grant_types: Vec<String>,
    /// The most it may be given: scopes of the maker, and `openid`, `profile`, `email`,
    /// `offline_access`
    #[schema(example = json!(["openid", "profile", "predict"]))]
    scopes: Vec<String>,
    /// Whether it goes without a secret, for it could not keep one
    #[schema(required = false, default = false)]
    public: bool,
}

/// A client.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthClient)]
struct ClientView {
    client_id: String,
    name: String,
    redirect_uris: Vec<String>,
    grant_types: Vec<&'static str>,
    scopes: Vec<&'static str>,
    public: bool,
    created_at: String,
}

impl From<&Client> for ClientView {
    fn from(client: &Client) -> Self {
        Self {
            client_id: client.id.clone(),
            name: client.name.clone(),
            redirect_uris: client.redirect_uris.clone(),
            grant_types: client
                .grant_types
                .iter()
                .map(|kind| kind.as_str())
                .collect(),
            scopes: client.scopes.iter().collect(),
            public: client.public,
            created_at: client.created_at.to_rfc3339(),
        }
    }
}

/// A client just registered.
#[derive(Serialize, ToSchema)]
#[schema(as = NewOAuthClient)]
struct NewClientView {
    /// Shown this once; null for public clients.
    client_secret: Option<String>,
    #[serde(flatten)]
    client: ClientView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OAuthClientList)]
struct ClientList {
    data: Vec<ClientView>,
    pagination: Pagination,
}

/// Register a client
///
/// The answer holds its secret, which cannot be had again.
#[utoipa::path(
    post, path = "/v1/oauth-clients", tag = TAG,
    request_body(content = ClientBody),
    responses(
        (status = 201, description = "Registered", body = NewClientView),
        (status = 400, description = "Not a JSON object", body = Envelope),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "Scope missing, or more asked for than the caller has", body = Envelope),
        (status = 413, description = "Too long", body = Envelope),
        (status = 415, description = "Not JSON", body = Envelope),
        (status = 422, description = "Fields are missing or wrong", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    ),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn create_oauth_client(
    State(identity): State<Handle>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let draft = read(&body::read_json(&headers, body).await?)?;
    let actor = Actor::caller(&caller, peer, Some(&request_id));
    let new = identity.create_client(&actor, draft).await?;
    let location = HeaderValue::try_from(format!("{PATH}/{}", new.client.id));
    let location = location.map_err(ApiError::internal)?;
    let view = NewClientView {
        client_secret: new.secret.map(|secret| secret.expose().to_owned()),
        client: ClientView::from(&new.client),
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(view),
    )
        .into_response())
}

/// List clients
#[utoipa::path(
    get, path = "/v1/oauth-clients", tag = TAG,
    params(PageParams),
    responses(
        (status = 200, description = "One page of the clients, oldest first", body = ClientList),
        (status = 400, description = "The cursor is not of this list", body = Envelope),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "Scope missing", body = Envelope),
        (status = 422, description = "Parameters are wrong", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    ),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn list_oauth_clients(
    State(identity): State<Handle>,
    Extension(cursors): Extension<CursorKey>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, PATH, uri.query(), &[])?;
    let clients = identity.list_clients().await?;
    let (page, pagination) = query.cut(&clients, |client| &client.id);
    let links = pagination.link_header();
    let list = ClientList {
        data: page.into_iter().map(ClientView::from).collect(),
        pagination,
    };
    Ok(([(header::LINK, links)], Json(list)).into_response())
}

/// Show a client
#[utoipa::path(
    get, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses(
        (status = 200, description = "The client", body = ClientView),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "Scope missing", body = Envelope),
        (status = 404, description = "No such client", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    ),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn get_oauth_client(
    State(identity): State<Handle>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ClientView>, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let client = identity.get_client(&id).await?;
    Ok(Json(ClientView::from(&client)))
}

/// Remove a client
///
/// Its tokens stop at once.
#[utoipa::path(
    delete, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses(
        (status = 204, description = "Removed"),
        (status = 401, description = "No or no valid credential", body = Envelope),
        (status = 403, description = "Scope missing", body = Envelope),
        (status = 404, description = "No such client", body = Envelope),
        (status = 429, description = "Too many requests", body = Envelope),
    ),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn delete_oauth_client(
    State(identity): State<Handle>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(peer): Extension<Peer>,
    Extension(request_id): Extension<RequestId>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let actor = Actor::caller(&caller, peer, Some(&request_id));
    identity.delete_client(&actor, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What fields mean alone is read here; what they mean together, [`ClientDraft`] knows.
fn read(body: &[u8]) -> Result<ClientDraft, ApiError> {
    let mut body = Fields::parse(body)?;
    let kinds: Vec<_> = GrantType::ALL
        .iter()
        .map(|kind| (kind.as_str(), *kind))
        .collect();
    let name = body.required("name", fields::text(1..=100));
    let uris = fields::list(0..=10, fields::text(1..=URI_CHARS_MAX));
    let redirect_uris = body.optional("redirect_uris", uris);
    let grant_types = body.required("grant_types", fields::list(1..=3, fields::one_of(&kinds)));
    let scopes = body.required("scopes", scopes);
    let public = body.optional("public", fields::boolean);
    body.finish()?;
    Ok(ClientDraft {
        name: name.unwrap_or_default(),
        redirect_uris: redirect_uris.unwrap_or_default(),
        grant_types: grant_types.unwrap_or_default(),
        scopes: scopes.unwrap_or_default(),
        public: public.unwrap_or_default(),
    })
}

fn scopes(value: &Value) -> Result<ClientScopes, Wrong> {
    let names: Option<Vec<&str>> = value
        .as_array()
        .and_then(|scopes| scopes.iter().map(Value::as_str).collect());
    let scopes = names.and_then(|names| ClientScopes::parse(&names.join(" ")).ok());
    scopes.filter(|scopes| !scopes.is_empty()).ok_or_else(|| {
        let known: Vec<&str> = ClientScopes::names().collect();
        format!(
            "must be a list of scopes; known scopes: {}",
            known.join(", ")
        )
        .into()
    })
}
