//! Trained models as pure functions from rows of numbers to rows of numbers.
//!
//! Nothing here knows about runtimes, HTTP, JSON records or SQL. A loader turns an untrusted file
//! into a checked [`Engine`]; after that a prediction fails only if an engine refuses a row.
//!
//! Read are models as XGBoost (JSON and UBJSON), LightGBM (text) and CatBoost (`.cbm` and JSON) save them, those of
//! scikit-learn in pickles and files of skops, and ONNX graphs of tables and texts; the content of a file decides. Predictions are those of the
//! library that trained the model, sums of leaves bit for bit; those of ONNX are as near to ONNX Runtime's as `f32` is.
//!
//! ```
//! use std::path::Path;
//!
//! use auspex_engine::{FeatureKind, RowBuffer, load};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/3.2/named.ubj");
//! # /*
//! let path = "model.ubj";
//! # */
//! let model = load(Path::new(path))?;
//! let signature = model.signature();
//! for feature in &signature.features {
//!     println!("{}: {:?}", feature.name, feature.kind);
//! }
//!
//! // Two rows, one value for each feature in that order; NaN is a missing value.
//! let width = signature.features.len();
//! let mut rows = RowBuffer::default();
//! rows.values.resize(width, 0.5);
//! for feature in &signature.features {
//!     let value = match feature.kind {
//!         // A category's code is its place in the list; a text stands beside the rows.
//!         FeatureKind::Text | FeatureKind::TextOrInteger { .. } => rows.texts.push("a"),
//!         _ => f64::NAN,
//!     };
//!     rows.values.push(value);
//! }
//! let mut out = vec![0.0; 2 * signature.outputs()];
//! model.predict(rows.rows(width), &mut out)?;
//! # assert!(out.iter().all(|value| value.is_finite()));
//! # Ok(())
//! # }
//! ```
//!
//! [`Engine::predict`] stays on the caller's thread; [`predict_in_parallel`] divides a large batch. With
//! [`LoadOptions::explanation_bytes_max`] a model also [explains](Engine::explain) what it predicts.

mod catboost;
mod document;
mod error;
mod explain;
mod forest;
mod format;
mod iterations;
mod lightgbm;
mod onnx;
mod parallel;
mod pickle;
mod row;
mod shape;
mod signature;
mod sklearn;
mod xgboost;

pub use error::{LoadError, RowRefusal};
pub use explain::{Explain, Unexplained};
#[doc(hidden)]
pub use forest::with_kernel;
pub use format::{is_onnx, name_other};
pub use parallel::predict_in_parallel;
pub use row::{RowBuffer, Rows, Texts};
pub use signature::{ClassLabel, Feature, FeatureKind, NamedOutput, Output, Precision, Signature};

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest model file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 2 << 30;

/// A loaded model. Cheap to share between threads, never blocks.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// What goes in and what comes out.
    fn signature(&self) -> &Signature;

    /// What was chosen for this model on this machine, for display, e.g. `xgboost gbtree, 1100
    /// trees, byte ranks, avx2`.
    fn description(&self) -> String;

    /// Where calls of the training library that look alike do not agree, with which of them this engine
    /// does, and how to choose; for people.
    fn caution(&self) -> Option<String> {
        None
    }

    /// The model as one that explains its predictions.
    ///
    /// # Errors
    /// If it does not, with the reason.
    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        Err(Unexplained::Kind)
    }

    /// Gives rows to a model whose explanations compare others with them; one that needs none, or whose file has
    /// typical values, ignores them.
    fn compare_with(&mut self, _rows: Rows<'_>, _options: &LoadOptions) {}

    /// Writes `rows.len() × signature().outputs()` values to `out`, row-major.
    ///
    /// # Errors
    /// If the model has no prediction for a row of valid values. The content of `out` is then
    /// unspecified.
    ///
    /// # Panics
    /// If the widths do not match the signature, which is a bug of the caller.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal>;
}

/// Options for loading a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The boosting iterations whose trees count: the first and the one after the last, where an
    /// end of 0 means "to the last", as in XGBoost's `iteration_range`. `None` takes the
    /// iterations up to the best one if early stopping has recorded it in the file, as XGBoost's
    /// scikit-learn interface does, else all. Models without iterations ignore it.
    pub iteration_range: Option<(u32, u32)>,
    /// Memory that may be kept for [`Engine::explain`], in bytes; with 0, the default, none is. Trees
    /// take about 40 bytes for each split; a model that needs more than this is loaded without.
    pub explanation_bytes_max: usize,
}

/// Loads a model file; its content decides which format it has.
///
/// # Errors
/// If the file cannot be read, is not a model, is damaged, or needs something that no engine has.
/// The message names the place.
pub fn load(path: &Path) -> Result<Box<dyn Engine>, LoadError> {
    load_with(path, &LoadOptions::default())
}

/// [`load`] with options.
///
/// # Errors
/// As [`load`], and if the file does not have the requested iterations.
pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Box<dyn Engine>, LoadError> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    let message = match read {
        Ok(length) if length as u64 <= FILE_BYTES_MAX => {
            return load_bytes(&file, &bytes, options);
        }
        Ok(_) => format!("larger than {FILE_BYTES_MAX} bytes"),
        Err(error) => error.to_string(),
    };
    Err(LoadError { file, message })
}

/// [`load_with`] for a file that is already in memory and that errors call `file`.
///
/// # Errors
/// As [`load_with`].
pub fn load_bytes(
    file: &str,
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Engine>, LoadError> {
    format::load(bytes, options).map_err(|fault| LoadError {
        file: file.to_owned(),
        message: fault.0,
    })
}
