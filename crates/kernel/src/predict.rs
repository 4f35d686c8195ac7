//! Predictions for work that is longer than a request: the seam between services that have records, and inference,
//! which has models.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use csv::StringRecord;

use crate::ApiError;

/// A version of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The name of the model.
    pub model: String,
    /// The name of the version, never `latest`.
    pub version: String,
    /// What tells the content of its package from any other; none: whichever is served predicts.
    pub content: Option<String>,
}

/// Records, as [`Input`](crate::records::Input) reads them.
#[derive(Clone, Debug)]
pub struct Batch {
    /// That of CSV; none: JSON Lines.
    pub header: Option<StringRecord>,
    /// The rows.
    pub text: Bytes,
}

/// What became of a [`Batch`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Predicted {
    /// JSON Lines, one for each row: `{"prediction": …}`, or `{"error": […]}` where the row is wrong, as one that is
    /// blank is.
    pub lines: Vec<u8>,
    /// How many there are.
    pub rows: u64,
    /// How many of these rows are wrong.
    pub wrong: u64,
}

/// Why a batch has no prediction at all.
#[derive(Debug, thiserror::Error)]
pub enum NoPrediction {
    /// The version is not served.
    #[error("version {} of {} is not served", .0.version, .0.model)]
    NotServed(Pinned),
    /// The version is served with another content than that which was pinned.
    #[error("version {} of {} was replaced by another package since", .0.version, .0.model)]
    Replaced(Pinned),
    /// The header does not fit the version that is served now.
    #[error("the header does not fit the model: {0}")]
    Header(String),
    /// Too much waits already; nothing is wrong with the batch.
    #[error("too many predictions are waiting already")]
    Busy,
}

/// The future of [`Predict::predict`].
pub type Predicting = Pin<Box<dyn Future<Output = Result<Predicted, NoPrediction>> + Send>>;

/// Predicts rows of records.
pub trait Predict: Send + Sync {
    /// The version that these names mean now: of the default model where none is named, and the latest where no
    /// version is.
    ///
    /// # Errors
    /// What the client is told who named them.
    fn pin(&self, model: Option<&str>, version: Option<&str>) -> Result<Pinned, ApiError>;

    /// Whether rows of CSV with this header can be records of the version.
    ///
    /// # Errors
    /// [`NoPrediction::NotServed`], [`NoPrediction::Replaced`], [`NoPrediction::Header`].
    fn check_header(&self, pinned: &Pinned, header: &StringRecord) -> Result<(), NoPrediction>;

    /// Predicts every row. It works away from the thread that asks.
    fn predict(self: Arc<Self>, pinned: Pinned, batch: Batch) -> Predicting;
}
