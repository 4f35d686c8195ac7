//! Models served over HTTP: packages on disk become typed, versioned endpoints.
//!
//! [`Inference`] holds the loaded models and predicts. `http` is the only file that knows axum;
//! `plan` reads requests fast, `validate` explains what is wrong with those it gave up on, `answer`
//! writes the results. On the way from body to answer there is no lock, no database and no JSON
//! tree.

mod answer;
mod compute;
mod config;
#[cfg(test)]
mod fixture;
mod http;
mod manifest;
mod openapi;
mod package;
mod plan;
mod registry;
mod schema;
mod service;
mod validate;
mod view;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use answer::Label;
pub use config::Config;
pub use package::{BenchReport, Package, PackageError};
pub use registry::InferenceError;
pub use schema::{Categories, Field, Kind, Schema, Unused};
pub use service::InferenceService;
pub use validate::Refusal;

use compute::{Busy, Compute};
use plan::{Scratch, Shape};
use registry::LATEST;
use validate::{Reader, version_asked};

/// Bodies longer than this are read on the compute pool too, not only predicted there.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// All loaded models.
#[derive(Debug)]
pub struct Inference {
    models: Vec<Model>,
    default: Option<usize>,
    config: Config,
    compute: Compute,
    predictions: Family<Vec<(String, String)>, Counter>,
}

/// A model with its versions.
#[derive(Debug)]
pub struct Model {
    name: String,
    versions: Vec<Arc<Version>>,
}

/// One version of a model, ready to predict.
#[derive(Debug)]
pub struct Version {
    package: Package,
    /// Rows predicted.
    predictions: Counter,
}

impl Model {
    /// Its name in paths.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its versions, the latest last.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// The version that `latest` means.
    pub fn latest(&self) -> &Arc<Version> {
        self.versions
            .last()
            .expect("a model is made from its first version")
    }

    /// The version of that name; `latest` is one too.
    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        if name == LATEST {
            return Some(self.latest());
        }
        self.versions
            .iter()
            .find(|version| version.package.version() == name)
    }
}

impl Version {
    /// What is served.
    pub fn package(&self) -> &Package {
        &self.package
    }
}

/// Which numbers an answer gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Every number of every row, and nothing else.
    Numbers,
    /// Labels, probabilities, model and version.
    Full,
}

/// Who is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) model: &'a Model,
    pub(crate) version: &'a Arc<Version>,
    /// Whether the caller has named the version already, outside the body.
    pub(crate) pinned: bool,
}

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PredictError {
    #[error("the body was refused")]
    Refused(Refusal),
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl From<Refusal> for PredictError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

#[derive(Default)]
struct Buffers {
    scratch: Scratch,
    outputs: Vec<f64>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Rows that go to the compute pool, or an answer that needs no more work.
enum Step {
    Answered(Vec<u8>),
    Rows(Vec<f64>, Shape, Arc<Version>),
}

impl Inference {
    /// Loads every package under `MODELS_DIR/<model>/<version>/`, or the one package or model file
    /// that the path is itself.
    ///
    /// # Errors
    /// If there is no model, or one that cannot be used: nothing is served then.
    pub fn load(models_dir: &Path, config: &Config) -> Result<Arc<Self>, InferenceError> {
        Self::from_packages(registry::load_all(models_dir)?, config).map(Arc::new)
    }

    pub(crate) fn from_packages(
        packages: Vec<Package>,
        config: &Config,
    ) -> Result<Self, InferenceError> {
        let default = registry::default_model(&packages, &config.default_model)?;
        let predictions = Family::<Vec<(String, String)>, Counter>::default();
        let mut models: Vec<Model> = Vec::new();
        for package in packages {
            let name = package.model().to_owned();
            let labels = vec![
                ("model".to_owned(), name.clone()),
                ("version".to_owned(), package.version().to_owned()),
            ];
            let predictions = predictions.get_or_create_owned(&labels);
            let version = Arc::new(Version {
                package,
                predictions,
            });
            match models.last_mut().filter(|model| model.name == name) {
                Some(model) => model.versions.push(version),
                None => models.push(Model {
                    name,
                    versions: vec![version],
                }),
            }
        }
        Ok(Self {
            default: default.and_then(|name| models.iter().position(|model| model.name == name)),
            models,
            config: config.clone(),
            compute: Compute::new(),
            predictions,
        })
    }

    /// The loaded models, by name.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The model behind `POST /predict`.
    pub fn default_model(&self) -> Option<&Model> {
        self.default.map(|index| &self.models[index])
    }

    /// Adds `predictions_total{model,version}`, under the registry's prefix.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register("predictions", "Rows predicted", self.predictions.clone());
    }

    /// Reads a body, predicts, and writes the answer.
    pub(crate) async fn predict(
        self: &Arc<Self>,
        target: Target<'_>,
        body: Bytes,
        answer: Answer,
        request_id: &str,
    ) -> Result<Vec<u8>, PredictError> {
        let step = if body.len() <= INLINE_BYTES_MAX {
            self.step(target, &body, answer, request_id)?
        } else {
            let (inference, version) = (Arc::clone(self), Arc::clone(target.version));
            let (model, pinned) = (target.model.name.clone(), target.pinned);
            let request_id = request_id.to_owned();
            let read = move || {
                let model = inference.model(&model).expect("models are never removed");
                let target = Target {
                    model,
                    version: &version,
                    pinned,
                };
                inference.step(target, &body, answer, &request_id)
            };
            self.compute.run(read).await??
        };
        match step {
            Step::Answered(out) => Ok(out),
            Step::Rows(rows, shape, version) => {
                let request_id = request_id.to_owned();
                let work = move || {
                    let mut outputs = Vec::new();
                    finish(&version, &rows, shape, answer, &request_id, &mut outputs)
                };
                Ok(self.compute.run(work).await?)
            }
        }
    }

    /// Reads a body, and answers it too when it is short.
    fn step(
        &self,
        target: Target<'_>,
        body: &[u8],
        answer: Answer,
        request_id: &str,
    ) -> Result<Step, PredictError> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let at = error.valid_up_to();
            Refusal::Malformed(format!("the body is not valid UTF-8 (after {at} bytes)"))
        })?;
        BUFFERS.with_borrow_mut(|Buffers { scratch, outputs }| {
            let (version, shape) = self.read(target, text, scratch)?;
            let width = version.package.plan.width();
            if scratch.rows.len() > self.config.inline_rows_max * width {
                let rows = std::mem::take(&mut scratch.rows);
                return Ok(Step::Rows(rows, shape, Arc::clone(version)));
            }
            let out = finish(version, &scratch.rows, shape, answer, request_id, outputs);
            Ok(Step::Answered(out))
        })
    }

    /// Reads a body into rows, fast if it is as expected, else slowly; and says for which version
    /// they are, since a body may choose one.
    fn read<'a>(
        &self,
        target: Target<'a>,
        text: &str,
        scratch: &mut Scratch,
    ) -> Result<(&'a Arc<Version>, Shape), Refusal> {
        let rows_max = self.config.instances_max;
        let Target {
            model,
            mut version,
            pinned,
        } = target;
        for _ in 0..2 {
            let is_asked = |asked: &str| {
                model
                    .version(asked)
                    .is_some_and(|v| Arc::ptr_eq(v, version))
            };
            if let Some(shape) = version
                .package
                .plan
                .read(text, rows_max, &is_asked, scratch)
            {
                return Ok((version, shape));
            }
            let other = version_asked(text).filter(|_| !pinned);
            match other.and_then(|name| model.version(&name)) {
                Some(other) if !Arc::ptr_eq(other, version) => version = other,
                _ => break,
            }
        }
        let is_allowed = |v: &&Arc<Version>| !pinned || Arc::ptr_eq(v, version);
        let allowed = model.versions.iter().filter(is_allowed);
        let mut versions: Vec<&str> = allowed.map(|v| v.package.version()).collect();
        if !pinned || Arc::ptr_eq(version, model.latest()) {
            versions.push(LATEST);
        }
        let reader = Reader {
            schema: version.package.schema(),
            rows_max,
            versions: &versions,
        };
        let shape = reader.read(text, &mut scratch.rows)?;
        Ok((version, shape))
    }
}

/// Predicts rows and writes the answer.
fn finish(
    version: &Version,
    rows: &[f64],
    shape: Shape,
    answer: Answer,
    request_id: &str,
    outputs: &mut Vec<f64>,
) -> Vec<u8> {
    let package = &version.package;
    package.predict(rows, outputs);
    version
        .predictions
        .inc_by((rows.len() / package.plan.width()) as u64);
    let mut out = Vec::new();
    match (answer, shape) {
        (Answer::Numbers, _) => package.writer.all_numbers(outputs, &mut out),
        (Answer::Full, Shape::Single) => package.writer.single(outputs, request_id, &mut out),
        (Answer::Full, Shape::List) => package.writer.list(outputs, request_id, &mut out),
    }
    out
}

#[cfg(test)]
mod tests;
