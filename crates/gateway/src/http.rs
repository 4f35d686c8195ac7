//! The routes of the registry: parse, call, render.

mod endpoint;
mod overview;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::config::Reloads;
use auspex_kernel::etag::cacheable;
use auspex_kernel::fields::{Body as _, Kind, Wrong, integer, optional, required, text};
use auspex_kernel::http::{
    CreateErrors, JSON, List, ListErrors, ReadErrors, Requester, add_error_schemas, created,
    error_responses,
};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, Clock, CursorKey, FieldError, body, request_body};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::openapi::{OpenApi, RefOr, Response as Documented};
use utoipa::{IntoResponses, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::balance::Service;
use crate::live::Live;
use crate::registry::{Instance, Registry, RegistryError, Told};
use endpoint::EndpointView;

pub(crate) const TAG: &str = "services";
/// They go on without end.
pub(crate) const STREAMS: [&str; 1] = ["watch_gateway"];
const LIST: &str = "/v1/services";
const ADDRESS_CHARS_MAX: usize = 256;
const TTL_S_MAX: i64 = 3600;
const TTL_S_USUAL: i64 = 30;
const METADATA_MAX: usize = 16;
const METADATA_CHARS_MAX: usize = 256;

/// What the routes ask.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) live: Arc<Live>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
    pub(crate) reloads: Reloads,
}

/// A service behind the gateway.
#[derive(Serialize, ToSchema)]
struct ServiceView {
    #[schema(example = "orders")]
    name: String,
    /// Who says which servers it has: the `settings`, `dns`, or the `registry`
    #[schema(pattern = "^(settings|dns|registry)$")]
    source: &'static str,
    /// Its servers
    instances: usize,
    /// Those of them that get requests
    healthy: usize,
}

type ServiceList = List<ServiceView>;

/// A service with its servers.
#[derive(Serialize, ToSchema)]
struct ServiceDetailsView {
    #[serde(flatten)]
    about: ServiceView,
    /// By their addresses
    servers: Vec<ServerView>,
}

/// A server of a service.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceServer)]
struct ServerView {
    #[serde(flatten)]
    endpoint: EndpointView,
    /// The instances that registered with this address; empty where the settings name it
    instances: Vec<InstanceView>,
}

/// An instance that registered.
#[derive(Serialize, ToSchema)]
struct InstanceView {
    #[schema(example = "orders-7")]
    id: String,
    #[schema(example = "http://10.0.0.5:9001")]
    address: String,
    metadata: BTreeMap<String, String>,
    ttl_s: u64,
    #[schema(format = DateTime)]
    registered_at: String,
    /// When it was heard of last, exact for this server
    #[schema(format = DateTime)]
    seen_at: String,
}

request_body! {
    /// An instance as it registers, and again as it is heard of.
    struct InstanceBody as "InstanceRegister" {
        /// URL of the server by its IP address, without a path
        address: String = required(text(1..=ADDRESS_CHARS_MAX).example("http://10.0.0.5:9001")),
        /// Seconds until it leaves if it is not heard of again; send the same request about three times as often
        ttl_s: Option<i64> = optional(integer(1..=TTL_S_MAX).by_default(TTL_S_USUAL)),
        /// What is to be shown of it
        metadata: Option<BTreeMap<String, String>> = optional(Metadata),
    }
}

/// A few texts by name.
struct Metadata;

impl Kind for Metadata {
    type Value = BTreeMap<String, String>;

    fn read(&self, value: &Value) -> Result<Self::Value, Wrong> {
        let text = |(name, value): (&String, &Value)| {
            let value = value.as_str()?;
            let fits = |text: &str| text.chars().count() <= METADATA_CHARS_MAX;
            (fits(name) && fits(value)).then(|| (name.clone(), value.to_owned()))
        };
        let members = value.as_object().filter(|all| all.len() <= METADATA_MAX);
        let texts = members.and_then(|all| all.iter().map(text).collect());
        let reason = format!(
            "must be an object of at most {METADATA_MAX} texts, names and texts of at most \
             {METADATA_CHARS_MAX} characters"
        );
        texts.ok_or_else(|| reason.into())
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object", "maxProperties": METADATA_MAX,
            "additionalProperties": {"type": "string", "maxLength": METADATA_CHARS_MAX},
        })
    }
}

/// The error answers of a removal.
struct RemoveErrors;

impl IntoResponses for RemoveErrors {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        error_responses(&[401, 403, 404, 409, 429, 500, 503])
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::NoService | RegistryError::NoInstance => ApiError::not_found(message),
            RegistryError::Reserved => ApiError::forbidden(message),
            RegistryError::NotRegistered | RegistryError::TooMany => ApiError::conflict(message),
            RegistryError::Address(reason) => invalid("address", reason),
            RegistryError::Database(error) => error.into(),
        }
    }
}

fn invalid(field: &str, message: &str) -> ApiError {
    ApiError::validation(vec![FieldError {
        field: field.into(),
        message: message.into(),
    }])
}

fn routes() -> OpenApiRouter<Desk> {
    let mut router = OpenApiRouter::new()
        .routes(routes!(list_services))
        .routes(routes!(get_service))
        .routes(routes!(register_instance, remove_instance))
        .merge(overview::routes());
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The part of the OpenAPI document that describes these routes.
pub(crate) fn document() -> OpenApi {
    routes().into_openapi()
}

/// Every route of this service that is documented. `cursors` signs the pages of its lists.
pub(crate) fn router(desk: Desk, cursors: CursorKey) -> axum::Router {
    axum::Router::from(routes().with_state(desk)).layer(Extension(cursors))
}

/// List services
#[utoipa::path(
    get, path = "/v1/services", tag = TAG, params(PageParams),
    responses((status = 200, description = "One page of services, by name", body = ServiceList), ListErrors),
    security(("api_key" = ["gateway:read"]), ("bearer" = ["gateway:read"]))
)]
async fn list_services(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, LIST, query.as_deref(), &[])?;
    let gateway = desk.live.now();
    let services: Vec<Arc<Service>> = gateway.services.values().cloned().collect();
    let view = |service: &Arc<Service>| ServiceView::of(service);
    let list = ServiceList::cut(&query, &services, |one| &one.plan.name, view);
    Ok(list.answer(&headers))
}

/// Show a service and its servers
#[utoipa::path(
    get, path = "/v1/services/{service}", tag = TAG,
    params(("service" = String, Path, description = "Name of the service")),
    responses((status = 200, description = "The service", body = ServiceDetailsView), ReadErrors),
    security(("api_key" = ["gateway:read"]), ("bearer" = ["gateway:read"]))
)]
async fn get_service(
    State(desk): State<Desk>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(name) = name.map_err(|_| RegistryError::NoService)?;
    let gateway = desk.live.now();
    let service = gateway
        .services
        .get(&name)
        .ok_or(RegistryError::NoService)?;
    let (instances, dates) = (desk.registry.of(&name), desk.dates());
    let endpoints = service.endpoints();
    let servers = endpoints.iter().map(|endpoint| {
        let is_here = |instance: &&Instance| {
            let authority = service.plan.source.authority_of(&instance.address);
            authority.is_ok_and(|authority| authority == endpoint.authority())
        };
        let instances = instances.iter().filter(is_here).map(InstanceView::from);
        ServerView {
            endpoint: EndpointView::new(service, endpoint, dates),
            instances: instances.collect(),
        }
    });
    let view = ServiceDetailsView {
        about: ServiceView::of(service),
        servers: servers.collect(),
    };
    Ok(cacheable(&headers, JSON, &view))
}

/// Register an instance, or tell that it is still there
///
/// Requests go to it when the answer arrives. It leaves when this request was not repeated for `ttl_s` seconds.
#[utoipa::path(
    put, path = "/v1/services/{service}/instances/{instance}", tag = TAG,
    params(
        ("service" = String, Path, description = "Name of the service, which the settings have without endpoints"),
        ("instance" = String, Path, description = "Name of the instance", pattern = "^[A-Za-z0-9._:-]{1,128}$"),
    ),
    request_body(content = InstanceBody),
    responses(
        (status = 200, description = "The instance, which was there before", body = InstanceView),
        (status = 201, description = "The instance, which is new", body = InstanceView),
        CreateErrors
    ),
    security(("api_key" = ["gateway:write"]), ("bearer" = ["gateway:write"]))
)]
async fn register_instance(
    State(desk): State<Desk>,
    requester: Requester,
    names: Names,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let Path((service, id)) = names.map_err(|_| RegistryError::NoService)?;
    let body = InstanceBody::parse(&body::read_json(&headers, body).await?)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if !(1..=128).contains(&id.len()) || !id.bytes().all(is_plain) {
        return Err(invalid(
            "instance",
            "must be 1 to 128 letters, digits, ., _, : and -",
        ));
    }
    let told = Told {
        address: body.address,
        metadata: body.metadata.unwrap_or_default(),
        ttl: Duration::from_secs(body.ttl_s.unwrap_or(TTL_S_USUAL).unsigned_abs()),
    };
    let actor = requester.actor();
    let heard = desk.registry.hear(&actor, (&service, &id), told);
    let (instance, is_new) = heard.await?;
    let view = InstanceView::from(&instance);
    Ok(match is_new {
        true => created(format!("{LIST}/{service}"), &view),
        false => Json(view).into_response(),
    })
}

/// Remove an instance
///
/// No request goes to it any more when the answer arrives; those that it has may end.
#[utoipa::path(
    delete, path = "/v1/services/{service}/instances/{instance}", tag = TAG,
    params(
        ("service" = String, Path, description = "Name of the service"),
        ("instance" = String, Path, description = "Name of the instance"),
    ),
    responses((status = 204, description = "Removed"), RemoveErrors),
    security(("api_key" = ["gateway:write"]), ("bearer" = ["gateway:write"]))
)]
async fn remove_instance(
    State(desk): State<Desk>,
    requester: Requester,
    names: Names,
) -> Result<StatusCode, ApiError> {
    let Path((service, id)) = names.map_err(|_| RegistryError::NoService)?;
    let actor = requester.actor();
    desk.registry.remove(&actor, &service, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Of a service and an instance.
type Names = Result<Path<(String, String)>, PathRejection>;

impl ServiceView {
    fn of(service: &Service) -> Self {
        let (healthy, instances) = service.asked();
        Self {
            name: service.plan.name.clone(),
            source: service.plan.source.as_str(),
            instances,
            healthy,
        }
    }
}

impl From<&Instance> for InstanceView {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            address: instance.address.clone(),
            metadata: instance.metadata.clone(),
            ttl_s: instance.ttl.as_secs(),
            registered_at: instance.registered_at.to_rfc3339(),
            seen_at: instance.seen_at.to_rfc3339(),
        }
    }
}
