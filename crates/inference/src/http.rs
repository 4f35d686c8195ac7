//! The routes: parse, call, render.

use std::sync::Arc;

use auspex_kernel::etag::cacheable;
use auspex_kernel::http::{JSON, ListErrors, ReadErrors, add_error_schemas};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, RequestId, body};
use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

use crate::model::{Model, Target, Version};
use crate::openapi::{
    PredictBody, PredictErrors, Prediction, PredictionNumbers, RecordSchema, record_document,
};
use crate::protocol::Protocol;
use crate::protocol::records::Records;
use crate::view::{ModelList, ModelView, VersionView};
use crate::{Inference, PredictError, Refusal};

const SCHEMA_JSON: HeaderValue = HeaderValue::from_static("application/schema+json");
const PREDICTIONS: &str = "predictions";
const MODELS: &str = "models";

type Handle = Arc<Inference>;
type Names<T> = Result<Path<T>, PathRejection>;

impl Inference {
    /// Every route of this service. `cursors` signs the pages of its lists.
    pub fn router(self: Arc<Self>, cursors: CursorKey) -> OpenApiRouter {
        let mut router = OpenApiRouter::new()
            .routes(routes!(predict_default))
            .routes(routes!(predict_model))
            .routes(routes!(predict_version))
            .routes(routes!(list_models).layer(Extension(cursors)))
            .routes(routes!(get_model))
            .routes(routes!(get_version))
            .routes(routes!(get_model_schema))
            .routes(routes!(get_version_schema))
            .with_state(self);
        add_error_schemas(router.get_openapi_mut());
        router
    }
}

impl From<PredictError> for ApiError {
    fn from(error: PredictError) -> Self {
        match error {
            PredictError::Refused(refusal) => refusal.into(),
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

/// Predict with the default model
///
/// Answers every number of every row: for each instance one list with the probability of each
/// class, or the predicted number.
#[utoipa::path(
    post, path = "/predict", tag = PREDICTIONS,
    request_body(content = PredictBody),
    responses((status = 200, description = "One list of numbers per instance", body = PredictionNumbers), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
async fn predict_default(
    State(inference): State<Handle>,
    request: Request,
) -> Result<Response, ApiError> {
    let model = inference.default_model().ok_or(Missing::Default)?;
    let target = Target::latest(Arc::clone(model));
    answer(&inference, target, Records::Numbers, request).await
}

/// Predict with a model
///
/// Asks the latest version, or the one that `model_version` names in the positional form.
#[utoipa::path(
    post, path = "/v1/models/{model}/predict", tag = PREDICTIONS,
    params(("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
async fn predict_model(
    State(inference): State<Handle>,
    names: Names<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path(name) = names.map_err(no_model)?;
    let target = Target::latest(Arc::clone(find_model(&inference, &name)?));
    answer(&inference, target, Records::Full, request).await
}

/// Predict with one version of a model
#[utoipa::path(
    post, path = "/v1/models/{model}/versions/{version}/predict", tag = PREDICTIONS,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
async fn predict_version(
    State(inference): State<Handle>,
    names: Names<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let Path((model, version)) = names.map_err(no_model)?;
    let model = find_model(&inference, &model)?;
    let target = Target::pinned(Arc::clone(model), &version);
    let target = target.ok_or_else(|| Missing::version(model))?;
    answer(&inference, target, Records::Full, request).await
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
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = PageQuery::parse(&cursors, "/v1/models", query.as_deref(), &[])?;
    let view = |model: &Arc<Model>| ModelView::new(&inference, model);
    let list = ModelList::cut(&query, inference.models(), |model| model.name(), view);
    Ok(list.answer(&headers))
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
    Ok(cacheable(
        &headers,
        JSON,
        &ModelView::new(&inference, model),
    ))
}

/// Show one version of a model
#[utoipa::path(
    get, path = "/v1/models/{model}/versions/{version}", tag = MODELS,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    responses((status = 200, description = "The version", body = VersionView), ReadErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_version(
    State(inference): State<Handle>,
    names: Names<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((model, version)) = names.map_err(no_model)?;
    let (model, version) = find_version(&inference, &model, &version)?;
    Ok(cacheable(&headers, JSON, &VersionView::new(model, version)))
}

/// The JSON Schema of a model's records
#[utoipa::path(
    get, path = "/v1/models/{model}/schema", tag = MODELS,
    params(("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
    responses((status = 200, description = "JSON Schema 2020-12 of one record", body = RecordSchema, content_type = "application/schema+json"), ReadErrors),
    security(("api_key" = ["models:read"]), ("bearer" = ["models:read"]))
)]
async fn get_model_schema(
    State(inference): State<Handle>,
    names: Names<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path(name) = names.map_err(no_model)?;
    let model = find_model(&inference, &name)?;
    let schema = record_document(model.latest().package());
    Ok(cacheable(&headers, SCHEMA_JSON, &schema))
}

/// The JSON Schema of the records of one version
#[utoipa::path(
    get, path = "/v1/models/{model}/versions/{version}/schema", tag = MODELS,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    responses((status = 200, description = "JSON Schema 2020-12 of one record", body = RecordSchema, content_type = "application/schema+json"), ReadErrors),
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

/// The hot path.
async fn answer(
    inference: &Inference,
    target: Target,
    protocol: impl Protocol,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::read_json(&parts.headers, body).await?;
    let made;
    let request_id = match parts.extensions.get::<RequestId>() {
        Some(id) => id,
        None => {
            made = RequestId::generate();
            &made
        }
    };
    let out = inference
        .predict(target, body, protocol, request_id.as_str())
        .await?;
    Ok(([(header::CONTENT_TYPE, JSON)], out).into_response())
}

/// What a request names and is not there.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Default,
    Model,
    /// Of this model.
    Version(String),
}

impl Missing {
    fn version(model: &Model) -> Self {
        Self::Version(model.name().to_owned())
    }
}

impl From<Missing> for ApiError {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::Default => ApiError::not_found(
                "there are several models and none is the default; ask one by name at \
                 /v1/models/{model}/predict, or set [inference] default_model",
            ),
            Missing::Model => ApiError::not_found(
                "there is no model of that name; GET /v1/models lists those there are",
            ),
            Missing::Version(model) => ApiError::not_found(format!(
                "{model} has no such version; GET /v1/models/{model} lists those it has"
            )),
        }
    }
}

/// A name that cannot be decoded is the name of nothing.
fn no_model(_: PathRejection) -> ApiError {
    Missing::Model.into()
}

fn find_model<'a>(inference: &'a Inference, name: &str) -> Result<&'a Arc<Model>, Missing> {
    inference.model(name).ok_or(Missing::Model)
}

fn find_version<'a>(
    inference: &'a Inference,
    model: &str,
    version: &str,
) -> Result<(&'a Arc<Model>, &'a Arc<Version>), Missing> {
    let model = find_model(inference, model)?;
    let found = model.version(version);
    found
        .map(|version| (model, version))
        .ok_or_else(|| Missing::version(model))
}
