//! OAuth clients: register, show, list, change, remove.

use auspex_kernel::fields::{
    Body as _, Kind, Wrong, boolean, change, list, one_of, optional, required, text,
};
use auspex_kernel::http::{
    ChangeErrors, CreateErrors, Creation, JSON, List, ListErrors, ReadErrors, Requester, created,
};
use auspex_kernel::idempotency::{Answer, IdempotencyParams};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, body, etag, request_body};
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::TAG;
use crate::error::IdentityError;
use crate::http::Handles;
use crate::http::api_keys::{RotateBody, read_overlap};
use crate::http::users::Id;
use crate::oauth::Clients;
use crate::types::client::{Client, ClientChange, ClientDraft, GrantType, NewClient};
use crate::types::scope::ClientScopes;

const PATH: &str = "/v1/oauth-clients";
const URI_CHARS_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new()
        .routes(routes!(create_oauth_client, list_oauth_clients))
        .routes(routes!(
            get_oauth_client,
            update_oauth_client,
            delete_oauth_client
        ))
        .routes(routes!(rotate_oauth_client_secret))
}

request_body! {
    /// A client to register.
    pub(in crate::http) struct ClientBody as "OAuthClientRequest" {
        /// What people are shown
        name: String = required(text(1..=100).example("Dashboard")),
        /// Where browsers may be sent back to, exactly; https, or for public clients http on a
        /// loopback address (any port) and schemes with a dot
        redirect_uris: Option<Vec<String>> = optional(
            list(0..=10, text(1..=URI_CHARS_MAX)).example(["https://app.example.org/callback"].as_slice()),
        ),
        /// Where browsers may be sent back to after a logout, by the same rules
        post_logout_redirect_uris: Option<Vec<String>> = optional(
            list(0..=10, text(1..=URI_CHARS_MAX)).example(["https://app.example.org/"].as_slice()),
        ),
        /// How it may get tokens
        grant_types: Vec<GrantType> = required(
            list(1..=GrantType::ALL.len(), one_of(GrantType::ALL, GrantType::as_str))
                .example(["authorization_code", "refresh_token"].as_slice()),
        ),
        /// The most it may be given: scopes of the caller, and `openid`, `profile`, `email`,
        /// `roles`, `offline_access`
        scopes: ClientScopes = required(
            RegisteredScopes.example(["openid", "profile", "predict"].as_slice()),
        ),
        /// Whether it has no secret, because it could not keep one
        public: Option<bool> = optional(boolean().by_default(false)),
    }
}

request_body! {
    /// What to change about a client.
    pub(in crate::http) struct ClientPatchBody as "OAuthClientPatch" {
        /// What people are shown
        name: Option<String> = change(text(1..=100)),
        /// All addresses where browsers may be sent back to
        redirect_uris: Option<Vec<String>> = change(list(0..=10, text(1..=URI_CHARS_MAX))),
        /// All addresses where browsers may be sent back to after a logout
        post_logout_redirect_uris: Option<Vec<String>> = change(list(0..=10, text(1..=URI_CHARS_MAX))),
        /// All of its scopes. If it loses one, its logins end
        scopes: Option<ClientScopes> = change(RegisteredScopes),
    }
}

/// A list of scopes of both kinds, with at least one.
struct RegisteredScopes;

impl Kind for RegisteredScopes {
    type Value = ClientScopes;

    fn read(&self, value: &Value) -> Result<ClientScopes, Wrong> {
        let name = |value: &Value| ClientScopes::names().find(|name| *value == **name);
        let names: Option<Vec<&str>> = value
            .as_array()
            .and_then(|scopes| scopes.iter().map(name).collect());
        let scopes = names.and_then(|names| names.join(" ").parse::<ClientScopes>().ok());
        scopes.filter(|scopes| !scopes.is_empty()).ok_or_else(|| {
            let known: Vec<&str> = ClientScopes::names().collect();
            let known = known.join(", ");
            format!("must be a list of scopes; known scopes: {known}").into()
        })
    }

    fn schema(&self) -> Value {
        let known: Vec<&str> = ClientScopes::names().collect();
        let scope = json!({"type": "string", "enum": known});
        json!({"type": "array", "items": scope, "minItems": 1})
    }
}

/// A client.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthClient)]
struct ClientView {
    client_id: String,
    name: String,
    redirect_uris: Vec<String>,
    post_logout_redirect_uris: Vec<String>,
    grant_types: Vec<&'static str>,
    scopes: Vec<&'static str>,
    public: bool,
    created_at: String,
}

impl From<&Client> for ClientView {
    fn from(client: &Client) -> Self {
        Self {
            client_id: client.id.to_string(),
            name: client.name.clone(),
            redirect_uris: client.redirect_uris.clone(),
            post_logout_redirect_uris: client.post_logout_redirect_uris.clone(),
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

/// A client that was just registered.
#[derive(Serialize, ToSchema)]
#[schema(as = NewOAuthClient)]
struct NewClientView {
    /// Shown only once; null for public clients.
    client_secret: Option<String>,
    #[serde(flatten)]
    client: ClientView,
}

type ClientList = List<ClientView>;

/// Register a client
///
/// The answer contains its secret, which is not shown again: a repetition with the same
/// `Idempotency-Key` is 409.
#[utoipa::path(
    post, path = "/v1/oauth-clients", tag = TAG,
    params(IdempotencyParams),
    request_body(content = ClientBody),
    responses((status = 201, description = "Registered; `Location` says where it is", body = NewClientView), CreateErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn create_oauth_client(
    State(clients): State<Clients>,
    creation: Creation,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let draft = read(&body)?;
    let actor = creation.requester.actor();
    let work = async move |receipt| Ok(clients.create_once(&actor, draft, receipt).await?.1);
    creation.once(&body, Answer::Secret, made, work).await
}

/// List clients
#[utoipa::path(
    get, path = "/v1/oauth-clients", tag = TAG,
    params(PageParams),
    responses((status = 200, description = "One page of the clients, oldest first", body = ClientList), ListErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn list_oauth_clients(
    State(clients): State<Clients>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, PATH, query.as_deref(), &[])?;
    let found = clients.page(query.slice()).await?;
    let position = |client: &Client| client.id.to_string();
    let list = ClientList::new(&query, found, position, |client| ClientView::from(&client));
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
    State(clients): State<Clients>,
    id: Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let client = clients.get(&id).await?;
    Ok(etag::cacheable(&headers, JSON, &ClientView::from(&client)))
}

/// Change a client
///
/// Only for callers who have all scopes of the client, before and after. With `If-Match` the change is
/// refused if somebody else has changed the client meanwhile.
#[utoipa::path(
    patch, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    request_body(content = ClientPatchBody),
    responses((status = 200, description = "The client after the change", body = ClientView), ChangeErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn update_oauth_client(
    State(clients): State<Clients>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let body = ClientPatchBody::parse(&body::read_json(&headers, body).await?)?;
    let change = ClientChange {
        name: body.name,
        redirect_uris: body.redirect_uris,
        post_logout_redirect_uris: body.post_logout_redirect_uris,
        scopes: body.scopes,
    };
    let expected = |client: &Client| is_as_seen(&headers, client);
    let actor = requester.actor();
    let changed = clients.update(&actor, &id, change, expected).await?;
    let view = ClientView::from(&changed);
    Ok(etag::cacheable(&HeaderMap::new(), JSON, &view))
}

/// Whether `If-Match` names the state of the client, or is not there.
fn is_as_seen(headers: &HeaderMap, client: &Client) -> bool {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let shown = etag::cacheable(&HeaderMap::new(), JSON, &ClientView::from(client));
    let tag = shown.headers().get(header::ETAG);
    let tag = tag.and_then(|tag| tag.to_str().ok());
    let mut named = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    named.any(|one| one == "*" || Some(one) == tag)
}

/// Replace a client's secret
///
/// The answer contains the new one, and it is not shown again. The old one keeps working for at most
/// `overlap_s` seconds; one that is older ends at once.
#[utoipa::path(
    post, path = "/v1/oauth-clients/{client_id}/secret-rotations", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client"), IdempotencyParams),
    request_body(content = Option<RotateBody>),
    responses((status = 201, description = "Replaced; `Location` says where the client is", body = NewClientView), CreateErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn rotate_oauth_client_secret(
    State(clients): State<Clients>,
    creation: Creation,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    let body = body::read_json(&creation.headers, body).await?;
    let overlap = read_overlap(&body)?;
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    let actor = creation.requester.actor();
    let work = async move |receipt| {
        let rotated = clients.rotate_secret_once(&actor, &id, overlap, receipt);
        Ok(rotated.await?.1)
    };
    creation.once(&body, Answer::Secret, made, work).await
}

/// Remove a client
///
/// Its tokens stop working at once.
#[utoipa::path(
    delete, path = "/v1/oauth-clients/{client_id}", tag = TAG,
    params(("client_id" = String, Path, description = "Id of the client")),
    responses((status = 204, description = "Removed"), ChangeErrors),
    security(("api_key" = ["clients:write"]), ("bearer" = ["clients:write"]))
)]
async fn delete_oauth_client(
    State(clients): State<Clients>,
    requester: Requester,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id.map_err(|_| IdentityError::ClientNotFound)?;
    clients.delete(&requester.actor(), &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn made(new: &NewClient) -> Response {
    let secret = new.secret.as_ref();
    let view = NewClientView {
        client_secret: secret.map(|secret| secret.expose().to_owned()),
        client: ClientView::from(&new.client),
    };
    created(format!("{PATH}/{}", new.client.id), &view)
}

/// [`ClientDraft`] checks what the fields mean together.
fn read(body: &[u8]) -> Result<ClientDraft, ApiError> {
    let body = ClientBody::parse(body)?;
    Ok(ClientDraft {
        name: body.name,
        redirect_uris: body.redirect_uris.unwrap_or_default(),
        post_logout_redirect_uris: body.post_logout_redirect_uris.unwrap_or_default(),
        grant_types: body.grant_types,
        scopes: body.scopes,
        public: body.public.unwrap_or_default(),
    })
}
