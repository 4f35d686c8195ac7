//! Models served over HTTP: packages on disk become typed, versioned endpoints.
//!
//! [`Inference`] holds the loaded models and predicts. `http` is the only file that knows axum;
//! a `protocol` says how a body is read and answered: `plan` reads requests fast, `validate`
//! explains what is wrong with those it gave up on, `answer` writes the results. On the way from
//! body to answer there is no lock, no database and no JSON tree.

mod answer;
mod compute;
mod config;
#[cfg(test)]
mod fixture;
mod http;
mod manifest;
mod model;
mod openapi;
mod package;
mod plan;
mod protocol;
mod registry;
mod schema;
mod service;
mod validate;
mod view;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use auspex_engine::RowBuffer;
use auspex_kernel::FieldError;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

pub use answer::Label;
pub use config::Config;
pub use model::{Model, Version};
pub use package::{BenchReport, Package, PackageError};
pub use registry::InferenceError;
pub use schema::{Categories, Field, Kind, Schema, Unused};
pub use service::InferenceService;
pub use validate::Refusal;

use compute::{Busy, Compute};
use model::Target;
use plan::Scratch;
use protocol::Protocol;

/// Bodies longer than this are read on the compute pool too, not only predicted there.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// All loaded models.
#[derive(Debug)]
pub struct Inference {
    models: Vec<Arc<Model>>,
    default: Option<usize>,
    config: Config,
    compute: Compute,
    predictions: Family<Vec<(String, String)>, Counter>,
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
enum Step<S> {
    Answered(Vec<u8>),
    Rows(RowBuffer, S),
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
        let mut models: Vec<Arc<Model>> = Vec::new();
        for group in registry::by_model(packages) {
            let name = group[0].model().to_owned();
            let versions = group.into_iter().map(|package| {
                let labels = vec![
                    ("model".to_owned(), name.clone()),
                    ("version".to_owned(), package.version().to_owned()),
                ];
                let counter = predictions.get_or_create_owned(&labels);
                Arc::new(Version::new(package, counter))
            });
            let versions = versions.collect();
            models.push(Arc::new(Model::new(name, versions)));
        }
        Ok(Self {
            default: default.and_then(|name| models.iter().position(|model| model.name() == name)),
            models,
            config: config.clone(),
            compute: Compute::new(),
            predictions,
        })
    }

    /// The loaded models, by name.
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.name() == name)
    }

    /// The model behind `POST /predict`.
    pub fn default_model(&self) -> Option<&Arc<Model>> {
        self.default.map(|index| &self.models[index])
    }

    /// Adds `predictions_total{model,version}`, under the registry's prefix.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register("predictions", "Rows predicted", self.predictions.clone());
    }

    /// Reads a body, predicts, and writes the answer.
    pub(crate) async fn predict<P: Protocol>(
        &self,
        mut target: Target,
        body: Bytes,
        protocol: P,
        request_id: &str,
    ) -> Result<Vec<u8>, PredictError> {
        let limits = Limits {
            rows_max: self.config.instances_max,
            inline_rows_max: self.config.inline_rows_max,
        };
        let step = if body.len() <= INLINE_BYTES_MAX {
            read(&mut target, &body, protocol, request_id, limits)?
        } else {
            let id = request_id.to_owned();
            let work = move || {
                let step = read(&mut target, &body, protocol, &id, limits);
                (target, step)
            };
            let step;
            (target, step) = self.compute.run(work).await?;
            step?
        };
        match step {
            Step::Answered(out) => Ok(out),
            Step::Rows(rows, shape) => {
                let id = request_id.to_owned();
                let work = move || finish(&target, &rows, protocol, shape, &id, &mut Vec::new());
                Ok(self.compute.run(work).await??)
            }
        }
    }
}

/// Bounds on one request.
#[derive(Clone, Copy)]
struct Limits {
    rows_max: usize,
    /// More rows than this are not predicted on the thread that read them.
    inline_rows_max: usize,
}

/// Reads a body, and answers it too when it is short.
fn read<P: Protocol>(
    target: &mut Target,
    body: &[u8],
    protocol: P,
    request_id: &str,
    limits: Limits,
) -> Result<Step<P::Shape>, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Refusal::Malformed(format!("the body is not valid UTF-8 (after {at} bytes)"))
    })?;
    BUFFERS.with_borrow_mut(|Buffers { scratch, outputs }| {
        let shape = protocol.read(target, text, limits.rows_max, scratch)?;
        let width = target.version().package().plan.width();
        if scratch.rows.values.len() > limits.inline_rows_max * width {
            return Ok(Step::Rows(std::mem::take(&mut scratch.rows), shape));
        }
        let out = finish(target, &scratch.rows, protocol, shape, request_id, outputs)?;
        Ok(Step::Answered(out))
    })
}

/// Predicts rows and writes the answer.
fn finish<P: Protocol>(
    target: &Target,
    rows: &RowBuffer,
    protocol: P,
    shape: P::Shape,
    request_id: &str,
    outputs: &mut Vec<f64>,
) -> Result<Vec<u8>, Refusal> {
    let version = target.version();
    let package = version.package();
    package.predict(rows, outputs).map_err(|refusal| {
        Refusal::Invalid(vec![FieldError {
            field: protocol.place(shape, refusal.row),
            message: refusal.reason,
        }])
    })?;
    let count = rows.values.len() / package.plan.width();
    version.predictions.inc_by(count as u64);
    let mut out = Vec::new();
    protocol.write(version, shape, outputs, request_id, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests;
