//! What can go wrong here, and how it leaves the program.
//!
//! No message repeats what the caller sent: an id or name may be a key pasted into the wrong place.

use auspex_kernel::db::DbError;
use auspex_kernel::{ApiError, FieldError};
use http::StatusCode;

use crate::api_key::KeyId;

/// Why an operation on identities failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key to be made is not well described; every wrong field is named.
    #[error("the key cannot be made: {}", list(.0))]
    Invalid(Vec<FieldError>),
    /// Somebody tried to give more than he has.
    #[error("nobody can give, or take from others, rights that he does not have himself")]
    Escalation,
    /// No key has this id or name.
    #[error("no API key has this id or name; list the keys to see what there is")]
    KeyNotFound,
    /// Several keys in force have the name. Holds the ids of some of them, newest first.
    #[error("several API keys have this name; give the id of one of them: {}", join(.0))]
    KeyAmbiguous(Vec<KeyId>),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Randomness(#[from] getrandom::Error),
    /// The database could not be used.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<IdentityError> for ApiError {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Invalid(details) => ApiError::validation(details),
            IdentityError::Escalation => ApiError::forbidden(error.to_string()),
            IdentityError::KeyNotFound => ApiError::not_found(error.to_string()),
            IdentityError::KeyAmbiguous(_) => {
                ApiError::new(StatusCode::CONFLICT, "CONFLICT", error.to_string())
            }
            IdentityError::Randomness(_) => ApiError::internal(error),
            IdentityError::Database(cause) => cause.into(),
        }
    }
}

fn list(fields: &[FieldError]) -> String {
    let texts = fields.iter().map(|e| format!("{} {}", e.field, e.message));
    texts.collect::<Vec<_>>().join("; ")
}

fn join(ids: &[KeyId]) -> String {
    let texts = ids.iter().map(KeyId::as_str);
    texts.collect::<Vec<_>>().join(", ")
}
