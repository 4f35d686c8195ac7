//! Models as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use auspex_engine::{Output, Precision};
use auspex_kernel::http::List;

use crate::answer::{Label, class_numbers};
use crate::schema::{Field, Kind};
use crate::{Inference, Model, Version};

pub(crate) type ModelList = List<ModelView>;

/// A model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelView {
    /// Its name in paths.
    name: String,
    title: Option<String>,
    description: Option<String>,
    /// Whether `POST /predict` asks it.
    default: bool,
    /// The version that `latest` means.
    latest: String,
    /// All versions, the latest last.
    versions: Vec<String>,
}

/// One version of a model.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionView {
    model: String,
    version: String,
    title: Option<String>,
    description: Option<String>,
    /// Whether `latest` means it.
    latest: bool,
    /// What was chosen to compute it on this machine.
    engine: String,
    output: OutputView,
    /// What it gives beside that, by name; answers have it under `outputs`.
    outputs: BTreeMap<String, OutputView>,
    /// Inputs in the model's order.
    features: Vec<FeatureView>,
    /// Inputs that are accepted and not used.
    unused: Vec<String>,
}

/// What a model gives.
#[derive(Serialize, ToSchema)]
struct OutputView {
    /// `binary`, `multiclass`, `class` (labels without probabilities) or `numbers`.
    #[schema(pattern = "^(binary|multiclass|class|numbers)$")]
    kind: &'static str,
    /// Classes, or numbers per row.
    count: usize,
    /// Names of the classes, null for plain numbers.
    labels: Option<Vec<Label>>,
    /// `f32` or `f64`.
    #[schema(pattern = "^f(32|64)$")]
    precision: &'static str,
}

/// One input of a model.
#[derive(Serialize, ToSchema)]
struct FeatureView {
    name: String,
    /// `number`, `integer`, `boolean`, `category` or `string`.
    #[serde(rename = "type")]
    #[schema(pattern = "^(number|integer|boolean|category|string)$")]
    kind: &'static str,
    /// Of a category, in the order of their codes.
    values: Option<Vec<String>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    nullable: bool,
    required: bool,
    /// What stands in when it is left out.
    #[schema(value_type = AnyScalar)]
    default: Option<Value>,
    description: Option<String>,
}

/// A string, number, boolean or null.
pub(crate) struct AnyScalar;

impl utoipa::PartialSchema for AnyScalar {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::openapi::schema_of(
            serde_json::json!({"type": ["string", "number", "boolean", "null"]}),
        )
    }
}

impl ToSchema for AnyScalar {}

impl ModelView {
    pub(crate) fn new(inference: &Inference, model: &Model) -> Self {
        let latest = model.latest().package();
        let is_default = inference
            .default_model()
            .is_some_and(|default| default.name() == model.name());
        Self {
            name: model.name().to_owned(),
            title: latest.title().map(str::to_owned),
            description: latest.description().map(str::to_owned),
            default: is_default,
            latest: latest.version().to_owned(),
            versions: model
                .versions()
                .iter()
                .map(|v| v.package().version().to_owned())
                .collect(),
        }
    }
}

impl VersionView {
    pub(crate) fn new(model: &Model, version: &Version) -> Self {
        let package = version.package();
        let signature = package.engine().signature();
        let labels = package.labels().map(<[Label]>::to_vec);
        let more = signature.more_outputs.iter().map(|more| {
            let view =
                OutputView::new(more.output, signature.precision, class_numbers(more.output));
            (more.name.clone(), view)
        });
        Self {
            model: model.name().to_owned(),
            version: package.version().to_owned(),
            title: package.title().map(str::to_owned),
            description: package.description().map(str::to_owned),
            latest: model.latest().package().version() == package.version(),
            engine: package.engine().description(),
            output: OutputView::new(signature.output, signature.precision, labels),
            outputs: more.collect(),
            features: package
                .schema()
                .features
                .iter()
                .map(FeatureView::new)
                .collect(),
            unused: package
                .schema()
                .unused
                .iter()
                .map(|unused| unused.name.clone())
                .collect(),
        }
    }
}

impl OutputView {
    fn new(output: Output, precision: Precision, labels: Option<Vec<Label>>) -> Self {
        let (kind, count) = match output {
            Output::Binary => ("binary", 2),
            Output::Multiclass { classes } => ("multiclass", classes),
            Output::Class { classes } => ("class", classes),
            Output::Numbers { count } => ("numbers", count),
        };
        let precision = match precision {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
        };
        Self {
            kind,
            count,
            labels,
            precision,
        }
    }
}

impl FeatureView {
    fn new(field: &Field) -> Self {
        let (kind, values) = match &field.kind {
            Kind::Number => ("number", None),
            Kind::Integer => ("integer", None),
            Kind::Boolean => ("boolean", None),
            Kind::Category(categories) => ("category", Some(categories.values().to_vec())),
            Kind::Text => ("string", None),
        };
        Self {
            name: field.name.clone(),
            kind,
            values,
            minimum: field.min,
            maximum: field.max,
            nullable: field.nullable,
            required: field.required(),
            default: field.default.map(|value| field.decode(value)),
            description: field.description.clone(),
        }
    }
}
