//! Grants: what one login or one consent gave. Codes and devices, which a client exchanges for one.

use auspex_kernel::Timestamp;
use auspex_kernel::id::{ClientId, SessionId, UserId};

use super::user_code::UserCode;

/// What one login, or one consent, gave. Tokens name it, and end with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) id: SessionId,
    pub(crate) user_id: UserId,
    /// None: the user's own login.
    pub(crate) client_id: Option<ClientId>,
    /// Space-separated; words of OpenID Connect among them.
    pub(crate) scopes: String,
    pub(crate) created_at: Timestamp,
    /// When the user gave their password.
    pub(crate) authenticated_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// The number of the current refresh token.
    pub(crate) sequence: i64,
    pub(crate) refreshed_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// An authorization code that was given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// What is kept of its text.
    pub(crate) digest: Vec<u8>,
    pub(crate) client_id: ClientId,
    pub(crate) user_id: UserId,
    pub(crate) redirect_uri: String,
    /// Space-separated.
    pub(crate) scopes: String,
    /// Of PKCE (RFC 7636).
    pub(crate) challenge: String,
    pub(crate) nonce: Option<String>,
    pub(crate) authenticated_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// What it was exchanged for, once it was.
    pub(crate) grant_id: Option<SessionId>,
}

/// A program that waits until somebody lets it act for them, by a browser elsewhere (RFC 8628).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// What is kept of its device code.
    pub(crate) digest: Vec<u8>,
    pub(crate) user_code: UserCode,
    pub(crate) client_id: ClientId,
    /// Space-separated: what it asks for; once it is allowed, what it may have.
    pub(crate) scopes: String,
    pub(crate) expires_at: Timestamp,
    /// How long it is to wait before it asks again.
    pub(crate) interval_s: i64,
    pub(crate) polled_at: Option<Timestamp>,
    pub(crate) decision: Option<Decision>,
}

/// What somebody decided about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Denied,
    /// By this user, who had logged in then.
    Allowed {
        user_id: UserId,
        authenticated_at: Timestamp,
    },
}
