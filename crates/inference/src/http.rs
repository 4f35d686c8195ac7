//! The routes: parse, call, render.

mod predictions;

use std::sync::Arc;

use auspex_kernel::db::Db;
use auspex_kernel::etag::cacheable;
use auspex_kernel::http::{JSON, ListErrors, ReadErrors, Requester, add_error_schemas};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::service::Publisher;
use auspex_kernel::{ApiError, CursorKey, Random};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use axum::{Extension, Json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::model::{Model, Models, Version};
use crate::openapi::{RecordSchema, ReloadErrors, VersionErrors, record_document};
use crate::reload::RefreshError;
use crate::view::{ModelList, ModelView, ReloadView, VersionView};
use crate::{Inference, PredictError, Refusal};
use predictions::Document;

pub(crate) use predictions::handlers;

const SCHEMA_JSON: HeaderValue = HeaderValue::from_static("application/schema+json");
const MODELS: &str = "models";
/// When a model that cannot be served may be asked again, in seconds.
const NOT_READY_RETRY_S: u64 = 5;

type Handle = Arc<Inference>;
type Names<T> = Result<Path<T>, PathRejection>;

impl Inference {
    /// Every route of this service but those of [`predictions`].
    pub(crate) fn router(self: Arc<Self>, tools: Tools) -> axum::Router {
        let router = models().layer(Extension(tools));
        router.with_state(self).into()
    }

    /// The part of the OpenAPI document that describes all routes.
    pub(crate) fn operations() -> OpenApi {
        let mut router = OpenApiRouter::with_openapi(Document::openapi()).merge(models());
        add_error_schemas(router.get_openapi_mut());
        router.into_openapi()
    }
}

/// What operations on models need beside the models.
#[derive(Clone)]
pub(crate) struct Tools {
    /// Signs the pages of lists.
    pub(crate) cursors: CursorKey,
    /// Is told when models have come or gone.
    pub(crate) publisher: Publisher,
    /// Has the audit record.
    pub(crate) db: Db,
    /// For the ids of its lines.
    pub(crate) random: Random,
}

fn models() -> OpenApiRouter<Handle> {
    OpenApiRouter::new()
        .routes(routes!(list_models))
        .routes(routes!(reload_models))
        .routes(routes!(get_model))
        .routes(routes!(get_version))
        .routes(routes!(get_model_schema))
        .routes(routes!(get_version_schema))
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        match error {
            PredictError::Refused(refusal) => refusal.into(),
            PredictError::NotReady(model) => Missing::Ready(model).into(),
            PredictError::Busy(busy) => ApiError::unavailable(busy.to_string(), 1),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(message) => ApiError::malformed(message),
            Refusal::Invalid(fields) => ApiError::validation(fields),
        }
    }
}

/// List the models
#[utoipa::path(
    get, path = "/v1/models", tag = MODELS,
    params(PageParams),
    responses((status = 200, description = "One page of models, by name", body = ModelList), ListErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn list_models(
    State(inference): State<Handle>,
    Extension(Tools { cursors, .. }): Extension<Tools>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, "/v1/models", query.as_deref(), &[])?;
    let models = inference.models();
    let view = |model: &Arc<Model>| ModelView::new(&models, model);
    let list = ModelList::cut(&query, models.all(), |model| model.name(), view);
    Ok(list.answer(&headers))
}

/// Look at the models folder now
///
/// Serves what is there and does not change for a moment, without waiting as long as the server
/// does when it notices a change by itself, and tries again what failed. The answer comes when the
/// changes are in force. Without changes it does nothing; of several requests at once one looks for all.
#[utoipa::path(
    post, path = "/v1/models/reload", tag = MODELS,
    responses((status = 200, description = "What has changed, and what is wrong", body = ReloadView), ReloadErrors),
    security(("api_key" = ["models:write"]), ("bearer" = ["models:write"]))
)]
async fn reload_models(
    State(inference): State<Handle>,
    Extension(tools): Extension<Tools>,
    requester: Requester,
) -> Result<Json<ReloadView>, ApiError> {
    let actor = requester.actor();
    let Tools {
        publisher,
        db,
        random,
        ..
    } = &tools;
    let changes = inference.reload(&actor, publisher, db, random).await?;
    Ok(Json(ReloadView::from(changes)))
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Folder(error) => {
                tracing::error!(%error, "models are not up to date; those loaded are served on");
                let message = "the models folder cannot be read; what was loaded is served on, \
                               and the log has the reason";
                ApiError::unavailable(message, NOT_READY_RETRY_S)
            }
            RefreshError::Document(error) => error.into(),
        }
    }
}

/// Show a model
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = MODELS,
    params(("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
    responses((status = 200, description = "The model", body = ModelView), ReadErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_model(
    State(inference): State<Handle>,
    names: Names<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(name) = names.map_err(no_model)?;
    let model = find_model(&inference, &name)?;
    let view = ModelView::new(&inference.models(), &model);
    Ok(cacheable(&headers, JSON, &view))
}

/// Show one version of a model
#[utoipa::path(
    get, path = "/v1/models/{model}/versions/{version}", tag = MODELS,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    responses((status = 200, description = "The version", body = VersionView), VersionErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_version(
    State(inference): State<Handle>,
    names: Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((model, version)) = names.map_err(no_model)?;
    let (model, version) = find_version(&inference, &model, &version)?;
    Ok(cacheable(
        &headers,
        JSON,
        &VersionView::new(&model, &version),
    ))
}

/// The JSON Schema of a model's records
#[utoipa::path(
    get, path = "/v1/models/{model}/schema", tag = MODELS,
    params(("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
    responses((status = 200, description = "JSON Schema 2020-12 of one record", body = RecordSchema, content_type = "application/schema+json"), VersionErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_model_schema(
    State(inference): State<Handle>,
    names: Names<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(name) = names.map_err(no_model)?;
    let model = find_model(&inference, &name)?;
    let latest = model.latest().ok_or(Missing::Ready(name))?;
    let schema = record_document(latest.package());
    Ok(cacheable(&headers, SCHEMA_JSON, &schema))
}

/// The JSON Schema of the records of one version
#[utoipa::path(
    get, path = "/v1/models/{model}/versions/{version}/schema", tag = MODELS,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    responses((status = 200, description = "JSON Schema 2020-12 of one record", body = RecordSchema, content_type = "application/schema+json"), VersionErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_version_schema(
    State(inference): State<Handle>,
    names: Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((model, version)) = names.map_err(no_model)?;
    let (_, version) = find_version(&inference, &model, &version)?;
    let schema = record_document(version.package());
    Ok(cacheable(&headers, SCHEMA_JSON, &schema))
}

/// Something that a request names and that does not exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Default,
    /// The default model of this name, at the moment.
    DefaultAway(String),
    Model,
    /// Of this model.
    Version(String),
    /// The model or a version of it is on disk and cannot be served.
    Ready(String),
}

impl Missing {
    pub(crate) fn default(models: &Models) -> Self {
        match models.default_name() {
            Some(name) => Self::DefaultAway(name.to_owned()),
            None => Self::Default,
        }
    }

    pub(crate) fn version(model: &Model, version: &str) -> Self {
        let name = model.name().to_owned();
        match model.has_package(version) {
            true => Self::Ready(name),
            false => Self::Version(name),
        }
    }
}

impl From<Missing> for ApiError {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Default => ApiError::not_found(
                "no model is the default; ask one by name at \
                 /v1/models/{model}/predict, or set [inference] default_model",
            ),
            Missing::DefaultAway(model) => ApiError::unavailable(
                format!(
                    "the default model, {model}, is not served at the moment; put it back, or let another say default = true"
                ),
                NOT_READY_RETRY_S,
            ),
            Missing::Model => ApiError::not_found(
                "there is no model of that name; GET /v1/models lists those there are",
            ),
            Missing::Version(model) => ApiError::not_found(format!(
                "{model} has no such version that could be loaded; GET /v1/models/{model} lists \
                 those it has"
            )),
            Missing::Ready(model) => ApiError::unavailable(
                format!(
                    "the package of {model} could not be loaded; GET /v1/models/{model} says why"
                ),
                NOT_READY_RETRY_S,
            ),
        }
    }
}

/// No model has a name that cannot be decoded.
fn no_model(_: PathRejection) -> ApiError {
    Missing::Model.into()
}

pub(crate) fn find_model(inference: &Inference, name: &str) -> Result<Arc<Model>, Missing> {
    let models = inference.models.load();
    models.model(name).cloned().ok_or(Missing::Model)
}

fn find_version(
    inference: &Inference,
    model: &str,
    version: &str,
) -> Result<(Arc<Model>, Arc<Version>), Missing> {
    let model = find_model(inference, model)?;
    match model.version(version).cloned() {
        Some(version) => Ok((model, version)),
        None => Err(Missing::version(&model, version)),
    }
}
