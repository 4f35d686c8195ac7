//! What can go wrong here, and how it leaves the program.

use auspex_kernel::ApiError;
use auspex_kernel::db::DbError;
use http::StatusCode;

const RETRY_S: u64 = 60;

/// Why an operation on jobs failed.
#[derive(Debug, thiserror::Error)]
pub enum JobsError {
    /// There is none of that id, or it is somebody else's.
    #[error("there is no job with this id; GET /v1/jobs lists yours")]
    Unknown,
    /// It ended just when it was to be cancelled.
    #[error("the job has {0} in the same moment; DELETE it again to delete it with its result")]
    HasEnded(&'static str),
    /// It is not dead.
    #[error("only a job that has failed is run again; this one is {0}")]
    NotFailed(&'static str),
    /// It has no result yet, or never will.
    #[error("the job is {0}; there is a result once it has succeeded")]
    NoResult(&'static str),
    /// The caller has too many.
    #[error("{0} jobs of yours have not ended yet; wait for some of them, or cancel some")]
    TooMany(u64),
    /// The caller's have too many bytes.
    #[error("input and results of your jobs may have {0} bytes; DELETE jobs that have ended")]
    TooMuch(u64),
    /// It was taken away while it was received.
    #[error("the job was received too slowly and is gone; send it again")]
    Forgotten,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// The database could not be used.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<JobsError> for ApiError {
    fn from(error: JobsError) -> Self {
        let message = error.to_string();
        match error {
            JobsError::Unknown => Self::not_found(message),
            JobsError::HasEnded(_) | JobsError::NotFailed(_) | JobsError::NoResult(_) => {
                Self::conflict(message)
            }
            JobsError::TooMany(_) | JobsError::TooMuch(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message)
                    .with_header(http::header::RETRY_AFTER, http::HeaderValue::from(RETRY_S))
            }
            JobsError::Forgotten => Self::request_timeout(message),
            JobsError::Randomness(error) => Self::internal(error),
            JobsError::Database(error) => error.into(),
        }
    }
}
