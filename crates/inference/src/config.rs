//! Settings of the inference service: the `[inference]` section.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How predictions are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder with `<model>/<version>/`, or one package, or one model file.
    pub models: PathBuf,
    /// The model behind `POST /predict`. Empty: the package that says `default = true`, else the
    /// only one there is.
    pub default_model: String,
    /// The most instances one request may hold.
    pub instances_max: usize,
    /// Requests of up to so many rows are computed on the thread that read them; longer ones go to
    /// a pool of as many threads as there are cores.
    pub inline_rows_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            models: PathBuf::from("./models"),
            default_model: String::new(),
            instances_max: 1000,
            inline_rows_max: 64,
        }
    }
}
