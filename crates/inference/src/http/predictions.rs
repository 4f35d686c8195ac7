//! Predictions. There may be very many in a second, so no axum router stands before them: it would match
//! the path once more.

use std::sync::Arc;

use auspex_kernel::http::{JSON, segment};
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, FieldError, RequestId, body};
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::OpenApi;

use super::{Missing, find_model};
use crate::Inference;
use crate::explain::{TOP_MAX, Top};
use crate::model::Target;
use crate::openapi::{PredictBody, PredictErrors, Prediction, PredictionNumbers};
use crate::protocol::records::Records;

const TAG: &str = "predictions";
/// As many headers as an answer has.
const HEADERS_USUAL: usize = 16;

#[derive(OpenApi)]
#[openapi(paths(
    predict_default,
    predict_model,
    predict_version,
    explain_model,
    explain_version
))]
pub(super) struct Document;

/// What answers each operation.
pub(crate) fn handlers(inference: &Arc<Inference>) -> [(&'static str, Arc<dyn Handle>); 5] {
    [
        ("predict_default", predict_default(inference)),
        ("predict_model", predict_model(inference)),
        ("predict_version", predict_version(inference)),
        ("explain_model", explain_model(inference)),
        ("explain_version", explain_version(inference)),
    ]
}

/// Predict with the default model
///
/// Answers every number of every row: for each instance one list with the probability of each
/// class, or the predicted number.
#[utoipa::path(
    post, path = "/predict", tag = TAG,
    request_body(content = PredictBody),
    responses((status = 200, description = "One list of numbers per instance", body = PredictionNumbers), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
fn predict_default(inference: &Arc<Inference>) -> Arc<dyn Handle> {
    Predictions::new(inference, Named::Default, false)
}

/// Predict with a model
///
/// Uses the latest version, or the one that `model_version` names in the positional form.
#[utoipa::path(
    post, path = "/v1/models/{model}/predict", tag = TAG,
    params(("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$")),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
fn predict_model(inference: &Arc<Inference>) -> Arc<dyn Handle> {
    Predictions::new(inference, Named::Latest, false)
}

/// Predict with one version of a model
#[utoipa::path(
    post, path = "/v1/models/{model}/versions/{version}/predict", tag = TAG,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
    ),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
fn predict_version(inference: &Arc<Inference>) -> Arc<dyn Handle> {
    Predictions::new(inference, Named::Version, false)
}

/// Predict with a model and explain
///
/// Takes what the prediction takes, and answers with each prediction what each feature added to its
/// margin.
#[utoipa::path(
    post, path = "/v1/models/{model}/explain", tag = TAG,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("top" = Option<u16>, Query, description = "How many features an explanation names: those that added most, up or down. By default all", minimum = 1, maximum = 1000),
    ),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
fn explain_model(inference: &Arc<Inference>) -> Arc<dyn Handle> {
    Predictions::new(inference, Named::Latest, true)
}

/// Predict with one version of a model and explain
#[utoipa::path(
    post, path = "/v1/models/{model}/versions/{version}/explain", tag = TAG,
    params(
        ("model" = String, Path, description = "Name of the model", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("version" = String, Path, description = "A version, or `latest`", pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
        ("top" = Option<u16>, Query, description = "How many features an explanation names: those that added most, up or down. By default all", minimum = 1, maximum = 1000),
    ),
    request_body(content = PredictBody),
    responses((status = 200, description = "One prediction, or a list of them for a list", body = Prediction), PredictErrors),
    security(("api_key" = ["predict"]), ("bearer" = ["predict"]))
)]
fn explain_version(inference: &Arc<Inference>) -> Arc<dyn Handle> {
    Predictions::new(inference, Named::Version, true)
}

/// Where a request says which model it asks.
#[derive(Clone, Copy)]
enum Named {
    /// Nowhere.
    Default,
    /// `…/{model}/…`
    Latest,
    /// `…/{model}/versions/{version}/…`
    Version,
}

/// Answers the requests of one operation.
struct Predictions {
    inference: Arc<Inference>,
    named: Named,
    is_explained: bool,
}

impl Predictions {
    fn new(inference: &Arc<Inference>, named: Named, is_explained: bool) -> Arc<Self> {
        Arc::new(Self {
            inference: inference.clone(),
            named,
            is_explained,
        })
    }

    /// The hot path.
    async fn answer(&self, request: Request<Body>) -> Result<Response, ApiError> {
        let (parts, body) = request.into_parts();
        let target = self.target(parts.uri.path())?;
        let protocol = match (self.named, self.is_explained) {
            (_, true) => explained(parts.uri.query())?,
            (Named::Default, false) => Records::Numbers,
            (_, false) => Records::Full,
        };
        let body = body::read_json(&parts.headers, body).await?;
        let made;
        let request_id = match parts.extensions.get::<RequestId>() {
            Some(id) => id,
            None => {
                made = RequestId::generate();
                &made
            }
        };
        let inference = &self.inference;
        let out = inference
            .predict(target, body, protocol, request_id.as_str())
            .await?;
        let mut response = Response::new(Body::from(out));
        // What else the edge adds has room then.
        *response.headers_mut() = HeaderMap::with_capacity(HEADERS_USUAL);
        response.headers_mut().insert(header::CONTENT_TYPE, JSON);
        Ok(response)
    }

    fn target(&self, path: &str) -> Result<Target, Missing> {
        // No model has a name that cannot be decoded.
        let name = |place| segment(path, place).ok_or(Missing::Model);
        match self.named {
            Named::Default => {
                let models = self.inference.models.load();
                let model = models.default_model().cloned();
                let target = model.and_then(Target::latest);
                target.ok_or_else(|| Missing::default(&models))
            }
            Named::Latest => {
                let name = name(1)?;
                let model = find_model(&self.inference, &name)?;
                Target::latest(model).ok_or_else(|| Missing::Ready(name.into_owned()))
            }
            Named::Version => {
                let model = find_model(&self.inference, &name(3)?)?;
                let version = name(1)?;
                let target = Target::pinned(model, &version);
                target.map_err(|model| Missing::version(&model, &version))
            }
        }
    }
}

impl Handle for Predictions {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let answered = self.answer(request).await;
            answered.unwrap_or_else(ApiError::into_response)
        })
    }
}

/// How explanations are asked for by path and query.
fn explained(query: Option<&str>) -> Result<Records, ApiError> {
    let top = match query {
        None | Some("") => Some(Top::ALL),
        Some(query) => query.strip_prefix("top=").and_then(|top| top.parse().ok()),
    };
    top.map(Records::Explained).ok_or_else(|| {
        ApiError::validation(vec![FieldError {
            field: "(query)".to_owned(),
            message: format!("takes only top, an integer from 1 to {TOP_MAX}"),
        }])
    })
}
