//! Models as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use auspex_engine::{Explain, Output, Precision};
use auspex_kernel::Timestamp;
use auspex_kernel::http::List;

use crate::answer::{Label, class_numbers};
use crate::explain::why_unexplained;
use crate::manifest::Example;
use crate::model::{Model, Models, PackageStatus, Version};
use crate::package::Package;
use crate::reload::{Changes, Name};
use crate::schema::{Field, Kind};

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
    /// `ready`: it answers. `loading`: its first version is being loaded. `failed`: none could be.
    #[schema(pattern = "^(ready|loading|failed)$")]
    state: &'static str,
    /// The version that `latest` means; null where no version answers.
    latest: Option<String>,
    /// The versions that answer, the latest last.
    versions: Vec<String>,
    /// Its packages on disk, the latest version last.
    packages: Vec<PackageView>,
}

/// What became of a package on disk.
#[derive(Serialize, ToSchema)]
pub(crate) struct PackageView {
    version: String,
    /// `ready`: served as it is on disk. `loading`: new or changed and not loaded yet. `failed`: it
    /// could not be loaded.
    #[schema(pattern = "^(ready|loading|failed)$")]
    state: &'static str,
    /// Why it failed.
    reason: Option<String>,
    /// When what is served of it was loaded; null where nothing is. With `failed` or `loading`
    /// this is the last good one.
    #[schema(format = DateTime)]
    loaded_at: Option<String>,
}

/// What a look at the models folder has changed.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReloadView {
    added: Vec<NameView>,
    replaced: Vec<NameView>,
    removed: Vec<NameView>,
    /// Packages that are being written.
    loading: Vec<NameView>,
    /// Packages that could not be loaded. Where an earlier one was good, it is served on.
    failed: Vec<FailureView>,
}

/// A version of a model.
#[derive(Serialize, ToSchema)]
struct NameView {
    model: String,
    version: String,
}

/// A package that could not be loaded.
#[derive(Serialize, ToSchema)]
struct FailureView {
    model: String,
    version: String,
    reason: String,
}

/// An input and what the model answers to it.
#[derive(Serialize, ToSchema)]
struct ExampleView {
    /// A record, or a list of values by position.
    #[schema(value_type = AnyRecord)]
    input: Value,
    /// The numbers that are expected.
    output: Vec<f64>,
    /// How far from them the model may be.
    /// Null where the package does not say it: a millionth, of the output where that is above 1.
    tolerance: Option<f64>,
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
    /// Its package on disk.
    package: PackageView,
    /// What was chosen to compute it on this machine.
    engine: String,
    output: OutputView,
    /// What it gives beside that, by name; answers have it under `outputs`.
    outputs: BTreeMap<String, OutputView>,
    /// Inputs in the model's order.
    features: Vec<FeatureView>,
    /// Inputs that are accepted and not used.
    unused: Vec<String>,
    /// The examples of its package, which it was checked with.
    examples: Vec<ExampleView>,
    /// Whether it explains its predictions.
    explanations: ExplanationsView,
}

/// What a model's explanations take, or why there are none.
#[derive(Serialize, ToSchema)]
struct ExplanationsView {
    available: bool,
    /// Memory that is kept for them, in bytes.
    bytes: usize,
    /// Why there are none.
    reason: Option<String>,
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
    /// `number`, `integer`, `boolean`, `category`, `string`, or `any` of one that the model makes nothing of.
    #[serde(rename = "type")]
    #[schema(pattern = "^(number|integer|boolean|category|string|any)$")]
    kind: &'static str,
    /// Of a category, in the order of their codes.
    values: Option<Vec<String>>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    nullable: bool,
    required: bool,
    /// The number that stands for a missing value, beside null.
    missing: Option<f64>,
    /// What stands in when it is left out.
    #[schema(value_type = AnyScalar)]
    default: Option<Value>,
    description: Option<String>,
}

/// A record, or a list of values.
pub(crate) struct AnyRecord;

impl utoipa::PartialSchema for AnyRecord {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        crate::openapi::schema_of(serde_json::json!({"anyOf": [
            {"type": "object", "additionalProperties": true},
            {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}},
        ]}))
    }
}

impl ToSchema for AnyRecord {}

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
    pub(crate) fn new(models: &Models, model: &Model) -> Self {
        let latest = model.latest().map(|version| version.package());
        let is_default = models.default_name() == Some(model.name());
        let text = |of: fn(&Package) -> Option<&str>| latest.and_then(of).map(str::to_owned);
        Self {
            name: model.name().to_owned(),
            title: text(Package::title),
            description: text(Package::description),
            default: is_default,
            state: model.state().as_str(),
            latest: latest.map(|package| package.version().to_owned()),
            packages: model.packages().iter().map(PackageView::new).collect(),
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
        let mut packages = model.packages().iter();
        let status = packages.find(|status| status.version == package.version());
        let status = status.expect("a version comes from a package");
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
            latest: model
                .latest()
                .is_some_and(|latest| latest.package().version() == package.version()),
            package: PackageView::new(status),
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
            examples: package.examples().iter().map(ExampleView::new).collect(),
            explanations: ExplanationsView::new(package),
        }
    }
}

impl ExplanationsView {
    fn new(package: &Package) -> Self {
        let explained = package.engine().explain();
        Self {
            available: explained.is_ok(),
            bytes: explained.map_or(0, Explain::bytes),
            reason: explained.err().map(why_unexplained),
        }
    }
}

impl PackageView {
    fn new(status: &PackageStatus) -> Self {
        Self {
            version: status.version.clone(),
            state: status.state.as_str(),
            reason: status.reason.clone(),
            loaded_at: status.loaded_at.map(Timestamp::to_rfc3339),
        }
    }
}

impl ExampleView {
    fn new(example: &Example) -> Self {
        Self {
            input: example.input(),
            output: example.output.as_slice().to_vec(),
            tolerance: example.tolerance,
        }
    }
}

impl From<Changes> for ReloadView {
    fn from(changes: Changes) -> Self {
        let names = |names: Vec<Name>| {
            let view = |(model, version)| NameView { model, version };
            names.into_iter().map(view).collect()
        };
        let failure = |((model, version), reason)| FailureView {
            model,
            version,
            reason,
        };
        Self {
            added: names(changes.added),
            replaced: names(changes.replaced),
            removed: names(changes.removed),
            loading: names(changes.loading),
            failed: changes.failed.into_iter().map(failure).collect(),
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
            Kind::Any => ("any", None),
        };
        Self {
            name: field.name.clone(),
            kind,
            values,
            minimum: field.min,
            maximum: field.max,
            nullable: field.nullable,
            required: field.required(),
            missing: field.missing,
            default: field.default.map(|value| field.decode(value)),
            description: field.description.clone(),
        }
    }
}
