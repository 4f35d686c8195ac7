//! Clients: register, see, remove.

use auspex_kernel::fields::{self, Fields, Wrong};
use auspex_kernel::http::{
    ChangeErrors, CreateErrors, Creation, JSON, List, ListErrors, ReadErrors, Requester, created,
};
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, body, etag};
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use crate::error::IdentityError;
use crate::http::users::Id;
use crate::http::{Handle, actor};
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

type ClientList = List<ClientView>;

/// Register a client
///
/// The answer holds its secret, which cannot be had again: a repetition with the same
/// `Idempotency-Key` is 409.
#[utoipa::path(
    post, path = "/v1/oauth-clients", tag = TAG,
    params(IdempotencyParams),
    request_body(content = ClientBody),
    responses((status = 201, description = "Registered; `Location` says where it is", body = NewClientView), CreateErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn create_oauth_client(
    State(identity): State<Handle>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let draft = read(&body)?;
    let actor = actor(&creation.requester);
    let work = async move {
        let new = identity.create_client(&actor, draft).await?;
        let view = NewClientView {
            client_secret: new.secret.map(|secret| secret.expose().to_owned()),
            client: ClientView::from(&new.client),
        };
        Ok(created(format!("{PATH}/{}", new.client.id), &view))
    };
    creation.once(&body, Answer::Secret, work).await
}

/// List clients
#[utoipa::path(
    get, path = "/v1/oauth-clients", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of the clients, oldest first", body = ClientList), ListErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn list_oauth_clients(
    State(identity): State<Handle>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, PATH, query.as_deref(), &[])?;
    let clients = identity.list_clients().await?;
    let list = ClientList::cut(&query, &clients, |client| &client.id, ClientView::from);
    Ok(list.answer(&headers))
}

/// Show a client
#[utoipa::path(
    get, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses((status = 200, description = "The client", body = ClientView), ReadErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn get_oauth_client(
    State(identity): State<Handle>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let client = identity.get_client(&id).await?;
    Ok(etag::cacheable(&headers, JSON, &ClientView::from(&client)))
}

/// Remove a client
///
/// Its tokens stop at once.
#[utoipa::path(
    delete, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses((status = 204, description = "Removed"), ChangeErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn delete_oauth_client(
    State(identity): State<Handle>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    identity.delete_client(&actor(&requester), &id).await?;
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
    let scopes = names.and_then(|names| names.join(" ").parse::<ClientScopes>().ok());
    scopes.filter(|scopes| !scopes.is_empty()).ok_or_else(|| {
        let known: Vec<&str> = ClientScopes::names().collect();
        format!(
            "must be a list of scopes; known scopes: {}",
            known.join(", ")
        )
        .into()
    })
}
