//! Why a model file was refused.

/// Names the file and the place in it, and what to do where something can be done.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct LoadError {
    /// The file as the caller named it.
    pub file: String,
    /// Place and reason.
    pub message: String,
}
