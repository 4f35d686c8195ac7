//! Signed tokens (JWT, RFC 7519, in the compact form of RFC 7515), as RFC 8725 advises to handle
//! them.
//!
//! A token is [`read`], then [`verify`]-ed with a key that the caller chose. Three things decide that
//! a sloppy library leaves to the token: the algorithm is the key's, the key is ours to choose (none
//! that the token carries or points to is looked at), and what cannot be read in exactly one way is
//! refused, so that no two readers see two tokens.
//!
//! Nothing here fetches, stores or logs, and no error repeats a part of a token.

#[cfg(test)]
mod attacks;
mod claims;
mod json;
mod jws;
mod key;
mod refusal;
mod signing;
#[cfg(test)]
pub(crate) mod wycheproof;

use auspex_kernel::Timestamp;

pub(crate) use claims::{Claims, Expectations};
pub(crate) use json::parse_object;
pub(crate) use jws::{TOKEN_BYTES_MAX, Unverified, read};
pub(crate) use key::{KeyRefusal, VerifyingKey};
pub(crate) use refusal::Refusal;
pub(crate) use signing::{SigningError, SigningKey};

/// The signature algorithms in use; there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256, because most identity providers sign with nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

impl Algorithm {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// Its name in a header.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The algorithm of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// Checks the signature of a token with a key, then all that it says of itself.
///
/// # Errors
/// The first reason not to trust it.
pub(crate) fn verify(
    token: &Unverified<'_>,
    key: &VerifyingKey,
    expected: &Expectations<'_>,
    now: Timestamp,
) -> Result<Claims, Refusal> {
    token.verify_signature(key)?;
    claims::check(token, expected, now)
}

/// Checks the signature of a token of `issuer`, and that it is of this type. For whom it was made, and
/// whether its time is now, are not looked at: it lets nobody in.
///
/// # Errors
/// The first reason not to believe it.
pub(crate) fn verify_hint(
    token: &Unverified<'_>,
    key: &VerifyingKey,
    issuer: &str,
    typ: &str,
) -> Result<Claims, Refusal> {
    token.verify_signature(key)?;
    claims::check_origin(token, issuer, &[Some(typ)])
}
