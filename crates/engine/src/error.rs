//! Why a model file, or a row, was refused.

/// Names the file and the place in it, and what to do if something can be done.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {message}")]
pub struct LoadError {
    /// The file as the caller named it.
    pub file: String,
    /// Place and reason.
    pub message: String,
}

/// A row for which the model has no prediction although its values are of the right types, such
/// as a text that the model's own tables do not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {reason}")]
pub struct RowRefusal {
    /// Which of the rows given, counted from 0.
    pub row: usize,
    /// What is wrong with it, such as "has a town that the model does not know". It must not
    /// repeat a value.
    pub reason: String,
}
