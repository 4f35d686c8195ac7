//! Trained models as pure functions from rows of numbers to rows of numbers.
//!
//! Nothing here knows a runtime, HTTP, JSON records or SQL. A loader turns an untrusted file into a
//! checked [`Engine`]; after that prediction cannot fail.

mod error;
mod signature;

pub use error::LoadError;
pub use signature::{Feature, FeatureKind, Output, Precision, Signature};

use std::path::Path;

/// A view of `n × width` input values, row-major. `NaN` means "missing".
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f64],
    width: usize,
}

impl<'a> Rows<'a> {
    /// # Panics
    /// If `values` is not a whole number of rows of `width` (at least one feature).
    pub fn new(values: &'a [f64], width: usize) -> Self {
        assert!(width > 0 && values.len().is_multiple_of(width), "ragged rows");
        Self { values, width }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Row `index`, one value a feature in the signature's order.
    pub fn row(&self, index: usize) -> &'a [f64] {
        &self.values[index * self.width..][..self.width]
    }
}

/// A loaded model. Cheap to share between threads, never blocks, never fails.
pub trait Engine: Send + Sync + std::fmt::Debug {
    /// What goes in and what comes out.
    fn signature(&self) -> &Signature;

    /// What was chosen for this model on this machine, for people, e.g. `xgboost gbtree, 1100
    /// trees, 4-byte rank nodes, scalar`.
    fn description(&self) -> String;

    /// Writes `rows.len() × signature().outputs()` values to `out`, row-major.
    ///
    /// # Panics
    /// If the widths do not match the signature: a caller's bug.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]);
}

/// Loads a model file, the format being told by its content.
pub fn load(path: &Path) -> Result<Box<dyn Engine>, LoadError> {
    let _ = path;
    unimplemented!()
}
