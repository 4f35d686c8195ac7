//! Settings of the inference service: the `[inference]` section.

use std::path::PathBuf;

use auspex_kernel::config::ConfigError;
use serde::Deserialize;

use crate::onnxruntime::use_onnxruntime;

/// Every setting with its default and its meaning.
pub(crate) const DEFAULTS: &str = include_str!("../defaults.toml");

/// `[inference]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Folder with `<model>/<version>/`, or one package, or one model file.
    pub models: PathBuf,
    /// The model behind `POST /predict`. Empty: the package that says `default = true`, else the
    /// only one.
    pub default_model: String,
    /// Whether the start ends with an error where something in the models folder cannot be served.
    pub strict: bool,
    /// The most instances one request may hold.
    pub instances_max: usize,
    /// Requests of up to this many rows are computed on the thread that read them; longer ones go
    /// to a pool of as many threads as there are cores.
    pub inline_rows_max: usize,
    /// Memory that explanations of one version of a model may need, in bytes; one that needs more is
    /// served without them.
    pub explanation_bytes_max: usize,
    /// The library of ONNX Runtime, for graphs that the engine itself refuses. Empty: not used.
    pub onnxruntime: PathBuf,
    /// How often to look at the models folder, in milliseconds; 0: never.
    pub watch_interval_ms: u64,
    /// How long no file of a package may have changed before it is loaded, in milliseconds.
    pub watch_quiet_ms: u64,
    /// How long reading one package may take, in milliseconds.
    pub read_timeout_ms: u64,
}

impl Config {
    /// Loads the library of ONNX Runtime, if one is named.
    pub(crate) fn load_onnxruntime(&self) -> Result<(), String> {
        match self.onnxruntime.as_os_str().is_empty() {
            true => Ok(()),
            false => use_onnxruntime(&self.onnxruntime),
        }
    }

    /// What types alone cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let positive = [
            ("inference.instances_max", self.instances_max as u64),
            ("inference.read_timeout_ms", self.read_timeout_ms),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(ConfigError::wrong(key, "must be at least 1")),
            None => Ok(()),
        }
    }
}

/// The embedded defaults.
impl Default for Config {
    fn default() -> Self {
        #[derive(Deserialize)]
        struct Defaults {
            inference: Config,
        }
        let defaults: Defaults = toml::from_str(DEFAULTS).expect("checked by every test");
        defaults.inference
    }
}
