//! Models served over HTTP: packages on disk become typed, versioned endpoints.
//!
//! [`Inference`] holds the loaded models and predicts. `http` is the only file that knows axum;
//! a `protocol` says how a body is read and answered: `plan` reads requests fast, `validate`
//! explains what is wrong with those it gave up on, `answer` writes the results. On the way from
//! body to answer there is no lock, no database and no JSON tree.

mod answer;
mod audit;
mod batch;
mod bench;
mod catalogue;
mod checksums;
mod compute;
mod condition;
mod config;
mod draft;
mod explain;
mod files;
mod fingerprint;
#[cfg(test)]
mod fixture;
mod folder;
mod graph;
mod http;
mod manifest;
mod model;
mod names;
mod onnxruntime;
mod openapi;
mod package;
mod plan;
mod protocol;
mod reads;
mod registry;
mod reload;
mod schema;
mod service;
mod strays;
mod table;
#[cfg(feature = "tract")]
mod tract;
mod validate;
mod view;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use auspex_engine::RowBuffer;
use auspex_kernel::{Clock, FieldError};
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

pub use answer::Label;
pub use bench::BenchReport;
pub use config::Config;
pub use draft::{Draft, Written};
pub use explain::{TOP_MAX, Top, why_unexplained};
pub use folder::ModelsFolder;
pub use model::{Model, Models, Version};
pub use onnxruntime::use_onnxruntime;
pub use package::{Package, PackageError};
pub use registry::InferenceError;
pub use schema::{Categories, Field, Kind, Schema, Unused};
pub use service::InferenceService;
pub use table::Columns;
pub use validate::Refusal;

use answer::Answer;
use catalogue::Catalogue;
use compute::{Busy, Compute};
use explain::{EXPLAIN, NotExplained};
use model::Target;
use plan::Scratch;
use protocol::Protocol;
use reads::Reads;
use registry::Layout;
use reload::{FolderState, Look};

/// Bodies longer than this are read on the compute pool too, not only predicted there.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The models and everything that predicting with them needs.
#[derive(Debug)]
pub struct Inference {
    models: ArcSwap<Models>,
    /// What the models are made from. A look at the folder holds it.
    catalogue: Arc<Mutex<Catalogue>>,
    /// What the last look found wrong with the folder itself.
    folder: ArcSwap<FolderState>,
    /// What is being read of the folder.
    reads: Reads,
    /// How many looks at the folder have begun.
    looks: AtomicU64,
    layout: Layout,
    config: Config,
    clock: Clock,
    compute: Compute,
    metrics: Metrics,
}

type Labels = Vec<(String, String)>;

/// What is counted. Labels of models that are removed go with them.
#[derive(Debug, Default)]
struct Metrics {
    predictions: Family<Labels, Counter>,
    /// 1 for each package that cannot be loaded as it is on disk.
    failed: Family<Labels, Gauge>,
    /// 1 while the models folder can be read.
    folder_readable: Gauge,
    loaded: Counter,
    refused: Counter,
}

fn version_labels(model: &str, version: &str) -> Labels {
    vec![
        ("model".to_owned(), model.to_owned()),
        ("version".to_owned(), version.to_owned()),
    ]
}

/// Why there is no prediction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PredictError {
    #[error("the body was refused")]
    Refused(Refusal),
    #[error("the version of {0} that the body names could not be loaded")]
    NotReady(String),
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

/// Rows for the compute pool, or an answer that needs no more work.
enum Step<S> {
    Answered(Vec<u8>),
    Rows(RowBuffer, S),
}

impl Inference {
    /// Loads every package under `models/<model>/<version>/`, or the one package or model file that
    /// the path is itself. A package that cannot be used is logged and listed, and the others are
    /// served; a folder without a good one is served too, because models may come.
    ///
    /// # Errors
    /// If the folder is missing or cannot be read, or if the path is one package and it cannot be
    /// used.
    pub fn load(config: &Config, clock: Clock) -> Result<Arc<Self>, InferenceError> {
        config
            .load_onnxruntime()
            .map_err(InferenceError::OnnxRuntime)?;
        let inference = Self::empty(config, clock);
        let mut catalogue = Catalogue::default();
        let changes = inference.look(&mut catalogue, Look::Start)?;
        let models = inference.models();
        if models.ready().next().is_none() {
            if inference.layout == Layout::Package {
                let reason = |((model, version), reason)| format!("{model} {version}: {reason}");
                let reasons = changes.failed.into_iter().map(reason);
                return Err(InferenceError::NothingGood(reasons.collect()));
            }
            let folder = config.models.display().to_string();
            tracing::warn!(
                folder,
                "there is no model yet; put one there as <model>/<version>/model.ubj"
            );
        }
        if let (Some(default), None) = (models.default_name(), models.default_model()) {
            tracing::warn!(
                default,
                "the default model is not there; POST /predict is 503"
            );
        }
        Ok(inference.with(catalogue))
    }

    /// Packages that are not on disk, for tests.
    #[cfg(test)]
    pub(crate) fn from_packages(packages: Vec<Package>, config: &Config) -> Arc<Self> {
        let clock = Clock::manual(auspex_kernel::Timestamp(0));
        let inference = Self::empty(config, clock);
        let served = |package: Package| {
            let place = registry::Place {
                model: package.model().to_owned(),
                version: package.version().to_owned(),
                path: std::path::PathBuf::new(),
                problem: None,
            };
            let labels = version_labels(&place.model, &place.version);
            let counter = inference.metrics.predictions.get_or_create_owned(&labels);
            let version = Version::new(package, counter, inference.clock.now());
            catalogue::Entry::served(place, Arc::new(version))
        };
        let entries: Vec<_> = packages.into_iter().map(served).collect();
        inference.publish(&entries, None);
        inference.with(Catalogue::default())
    }

    /// Without any model.
    fn empty(config: &Config, clock: Clock) -> Self {
        Self {
            models: ArcSwap::default(),
            catalogue: Arc::default(),
            folder: ArcSwap::from_pointee(FolderState {
                is_readable: true,
                has_unreadable: false,
                problems: Vec::new(),
            }),
            reads: Reads::default(),
            looks: AtomicU64::new(0),
            layout: Layout::of(&config.models),
            config: config.clone(),
            clock,
            compute: Compute::new(),
            metrics: Metrics::default(),
        }
    }

    fn with(mut self, catalogue: Catalogue) -> Arc<Self> {
        self.catalogue = Arc::new(Mutex::new(catalogue));
        Arc::new(self)
    }

    /// The models as they are now.
    pub fn models(&self) -> Arc<Models> {
        self.models.load_full()
    }

    /// Adds the metrics of models and predictions, under the registry's prefix.
    pub fn register_metrics(&self, registry: &mut Registry) {
        let metrics = &self.metrics;
        registry.register("predictions", "Rows predicted", metrics.predictions.clone());
        registry.register(
            "model_failed",
            "Packages that cannot be loaded as they are on disk",
            metrics.failed.clone(),
        );
        registry.register(
            "models_folder_readable",
            "1 while the models folder can be read and holds a package if one is served, else 0",
            metrics.folder_readable.clone(),
        );
        registry.register("model_loads", "Packages loaded", metrics.loaded.clone());
        registry.register(
            "model_refusals",
            "Attempts to load a package that failed",
            metrics.refused.clone(),
        );
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
) -> Result<Step<P::Shape>, PredictError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Refusal::Malformed(format!("the body is not valid UTF-8 (after {at} bytes)"))
    })?;
    // Programs that write UTF-8 "with signature" begin with it; it says nothing (RFC 8259, 8.1).
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    BUFFERS.with_borrow_mut(|Buffers { scratch, outputs }| {
        let shape = protocol.read(target, text, limits.rows_max, scratch)?;
        let package = target.version().package();
        let count = scratch.rows.values.len() / package.plan.width();
        let is_long = || protocol.explain(shape).is_some() && package.is_long_to_explain(count);
        if count > limits.inline_rows_max || is_long() {
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
    let explained = protocol.explain(shape);
    let explained = explained.map(|top| package.explain(rows, outputs, top));
    let explained = explained.transpose().map_err(|error| {
        let (field, message) = match error {
            NotExplained::Row(refusal) => (protocol.place(shape, refusal.row), refusal.reason),
            other => (EXPLAIN.to_owned(), other.to_string()),
        };
        Refusal::Invalid(vec![FieldError { field, message }])
    })?;
    let count = rows.values.len() / package.plan.width();
    version.predictions.inc_by(count as u64);
    let answer = Answer {
        values: outputs,
        explained: explained.as_ref(),
    };
    let mut out = Vec::new();
    protocol.write(version, shape, &answer, request_id, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests;
