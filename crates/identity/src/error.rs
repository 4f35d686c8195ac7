//! What can go wrong here, and how it leaves the program.
//!
//! No message repeats what the caller sent: an id or name may be a key pasted into the wrong place.

use auspex_kernel::db::DbError;
use auspex_kernel::id::KeyId;
use auspex_kernel::{ApiError, FieldError, Timestamp};
use http::{HeaderValue, StatusCode, header};

use std::sync::Arc;

use crate::jwt;
use crate::password::Busy;
use crate::throttle::RetryAfter;

/// Why an operation on identities failed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// What is to be made or changed is not well described; every wrong field is named.
    #[error("{}", list(.0))]
    Invalid(Vec<FieldError>),
    /// Somebody tried to give more than they have.
    #[error("nobody can give, or take from others, rights that they do not have themselves")]
    Escalation,
    /// A key would outlive the right by which it is made.
    #[error(
        "a token of an OAuth client or of another issuer can make no API key; log in as a user"
    )]
    NoKeyMaker,
    /// A client would outlive the right by which it is made or changed.
    #[error(
        "a key that expires, or a token of an OAuth client or of another issuer, can make and change no \
         client; log in as a user, or use a key without expires_at"
    )]
    NoClientMaker,
    /// A key that leaked must make no other.
    #[error(
        "an API key makes and replaces keys only with the scope keys:write; log in as its user"
    )]
    KeyMakesNoKeys,
    /// What stands behind the credential ended, or lost the right, after the request had begun.
    #[error("the credential, or its right to do this, was revoked meanwhile; log in again")]
    CredentialEnded,
    /// Name or password is wrong, or there is no such user, or they are disabled.
    #[error("name or password is wrong")]
    InvalidCredentials,
    /// This address has failed too often.
    #[error("{0}")]
    TooManyAttempts(#[from] RetryAfter),
    /// More passwords are to be checked than can be.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// A trusted issuer is not well described.
    #[error("identity.issuers: {0}")]
    Issuers(String),
    /// The threads that hash passwords could not be started.
    #[error("passwords cannot be checked: {0}")]
    Hasher(Arc<std::io::Error>),
    /// A refresh token or code that is unknown, used, revoked, expired or another client's.
    #[error("the token is unknown, used, revoked or expired; log in again")]
    InvalidGrant,
    /// More was asked for than was granted.
    #[error("that scope was not granted")]
    ScopeNotGranted,
    /// More devices wait for somebody to allow them than may.
    #[error("too many devices wait to be allowed; try again in a minute")]
    TooManyDevices,
    /// No OAuth client has this id.
    #[error("no OAuth client has this id; list the clients to see what there is")]
    ClientNotFound,
    /// The credential is no session that could be ended.
    #[error("this credential has no session; revoke a key with DELETE /v1/api-keys/{{id}}")]
    NoSession,
    /// No session has this id.
    #[error("no session has this id; it is the claim sid of its tokens")]
    SessionNotFound,
    /// There is no key to sign with, because the database could not be used when one was due.
    #[error("there is no signing key yet; the log says why")]
    NoSigningKey,
    /// A service that would get tokens that are good here could act as their callers.
    #[error(
        "the audience of a service must not be that of this server; change gateway.services.NAME.audience"
    )]
    OwnAudience,
    /// A token could not be made.
    #[error("the token could not be signed")]
    Signing(#[from] jwt::SigningError),
    /// No user has this id or name.
    #[error("there is no such user; GET /v1/users or `auspex users list` shows those there are")]
    UserNotFound,
    /// Two users cannot share an e-mail address or a name to log in.
    #[error("another user has this as e-mail address, username or id; choose another")]
    UserTaken,
    /// Somebody tried to change their own rights.
    #[error("nobody can change their own roles; ask another administrator")]
    OwnRoles,
    /// Without any administrator nobody could make one.
    #[error("this is the last administrator who is not disabled; make another one first")]
    LastAdmin,
    /// The thing has changed since the client read it.
    #[error("it has been changed since you read it; read it again and repeat your change")]
    VersionMismatch,
    /// The credential is nobody's in particular.
    #[error("no user is behind this credential; log in as one")]
    NoUser,
    /// A revoked, expired or replaced key cannot be replaced.
    #[error("this key is revoked, expired or replaced already; make a new one")]
    KeyEnded,
    /// A public client has nothing to prove itself by.
    #[error("this client is public and has no secret; register another one that has")]
    NoSecret,
    /// A client has never more than two secrets in force. Holds when the older one ends.
    #[error(
        "the secret before the last one works until {}; rotate again after that, or with an overlap of 0, which ends it and the last one at once",
        .0.to_rfc3339()
    )]
    SecretsOverlap(Timestamp),
    /// The secret of the first key could not be put where its owner finds it.
    #[error("the first API key was not made, because it could not be kept: {0}")]
    KeyNotKept(std::io::Error),
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
            IdentityError::CredentialEnded
            | IdentityError::InvalidCredentials
            | IdentityError::InvalidGrant => ApiError::unauthenticated(error.to_string()),
            IdentityError::TooManyAttempts(ref retry) => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                error.to_string(),
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry.seconds())),
            IdentityError::Busy(_) => ApiError::unavailable(error.to_string(), 1),
            IdentityError::TooManyDevices => ApiError::unavailable(error.to_string(), 60),
            IdentityError::Hasher(_)
            | IdentityError::KeyNotKept(_)
            | IdentityError::Issuers(_)
            | IdentityError::NoSigningKey
            | IdentityError::OwnAudience
            | IdentityError::Signing(_) => ApiError::internal(error),
            IdentityError::ScopeNotGranted => ApiError::forbidden(error.to_string()),
            IdentityError::NoSession => {
                ApiError::new(StatusCode::CONFLICT, "CONFLICT", error.to_string())
            }
            IdentityError::UserTaken
            | IdentityError::LastAdmin
            | IdentityError::NoSecret
            | IdentityError::SecretsOverlap(_)
            | IdentityError::KeyEnded => ApiError::conflict(error.to_string()),
            IdentityError::OwnRoles
            | IdentityError::NoUser
            | IdentityError::NoKeyMaker
            | IdentityError::NoClientMaker
            | IdentityError::KeyMakesNoKeys => ApiError::forbidden(error.to_string()),
            IdentityError::VersionMismatch => ApiError::new(
                StatusCode::PRECONDITION_FAILED,
                "PRECONDITION_FAILED",
                error.to_string(),
            ),
            IdentityError::ClientNotFound
            | IdentityError::SessionNotFound
            | IdentityError::UserNotFound
            | IdentityError::KeyNotFound => ApiError::not_found(error.to_string()),
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
