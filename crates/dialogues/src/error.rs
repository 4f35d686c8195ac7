//! What can go wrong here, and how it leaves the program.
//!
//! No message repeats an id or a text.

use auspex_kernel::ApiError;
use auspex_kernel::db::{DbError, Fault};

use crate::keys::KeysError;
use crate::pending::Away;

const RETRY_SOON_S: u64 = 1;

/// Why an operation on dialogues failed.
#[derive(Debug, thiserror::Error)]
pub enum DialoguesError {
    /// No such dialogue waits for a decision or was decided.
    #[error("no dialogue with this id is known: none was begun, or it has expired or was erased")]
    Unknown,
    /// It was decided otherwise before.
    #[error(
        "consent was refused or withdrawn before, and the texts are gone; a new consent needs a new dialogue"
    )]
    NoWayBack,
    /// The dialogue belongs to somebody else.
    #[error(
        "a dialogue with this id belongs to another customer; ids of dialogues must not repeat"
    )]
    OtherCustomer,
    /// Somebody else decides it at this moment.
    #[error("the dialogue is being decided by another request; ask again")]
    Busy,
    /// The texts that wait for consent cannot be reached.
    #[error(transparent)]
    Away(#[from] Away),
    /// A key cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// A database could not be used.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl DialoguesError {
    /// Whether what was to be changed may be stored all the same.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Database(DbError::Abandoned))
    }
}

/// Whether the database does not answer: another question would wait as long.
pub(crate) fn is_silent(error: &DbError) -> bool {
    matches!(error.fault(), Some(Fault::Slow | Fault::Unreachable))
}

impl From<DialoguesError> for ApiError {
    fn from(error: DialoguesError) -> Self {
        match error {
            DialoguesError::Unknown => Self::not_found(error.to_string()),
            DialoguesError::NoWayBack | DialoguesError::OtherCustomer => {
                Self::conflict(error.to_string())
            }
            DialoguesError::Busy | DialoguesError::Away(_) => {
                Self::unavailable(error.to_string(), RETRY_SOON_S)
            }
            DialoguesError::Keys(KeysError::Database(error)) => error.into(),
            DialoguesError::Keys(error) => Self::internal(error),
            DialoguesError::Randomness(error) => Self::internal(error),
            DialoguesError::Database(error) => error.into(),
        }
    }
}
