//! Models served over HTTP.
use std::path::Path;
use std::sync::Arc;
use auspex_engine::Engine;
use auspex_kernel::FieldError;
mod config;
pub use config::Config;
/// Service.
pub struct Inference;
/// Error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InferenceError(String);
/// Error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PackageError(String);
/// Model.
pub struct Model;
impl Inference {
    /// Load.
    pub fn load(_models_dir: &Path, _config: &Config) -> Result<Arc<Self>, InferenceError> { unimplemented!() }
    /// Models.
    pub fn models(&self) -> &[Model] { unimplemented!() }
    /// Metrics.
    pub fn register_metrics(&self, _registry: &mut prometheus_client::registry::Registry) { unimplemented!() }
    /// Routes.
    pub fn router(self: Arc<Self>) -> utoipa_axum::router::OpenApiRouter { unimplemented!() }
    /// Doc.
    pub fn add_model_operations(&self, _document: &mut utoipa::openapi::OpenApi) { unimplemented!() }
}
/// Package.
pub struct Package;
/// Bench.
pub struct BenchReport { /// a
 pub one_row_us: f64, /// b
 pub batch_rows: usize, /// c
 pub batch_us_per_row: f64, /// d
 pub json_us_per_row: f64 }
impl Package {
    /// Load.
    pub fn load(_path: &Path) -> Result<Self, PackageError> { unimplemented!() }
    /// Engine.
    pub fn engine(&self) -> &dyn Engine { unimplemented!() }
    /// Line.
    pub fn parse_line(&self, _line: &str) -> Result<Vec<f64>, Vec<FieldError>> { unimplemented!() }
    /// Examples.
    pub fn check_examples(&self) -> Result<usize, PackageError> { unimplemented!() }
    /// Line.
    pub fn write_prediction_line(&self, _out: &mut Vec<u8>, _values: &[f64]) { unimplemented!() }
    /// Bench.
    pub fn bench(&self) -> BenchReport { unimplemented!() }
}
