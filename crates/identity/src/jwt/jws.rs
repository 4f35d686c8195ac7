//! The envelope of a token: three parts, of which the header is read before anything is trusted.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::json::NotStrict;
use super::{Algorithm, Refusal, VerifyingKey, parse_object};

pub(crate) const TOKEN_BYTES_MAX: usize = 8 * 1024;
const KID_BYTES_MAX: usize = 256;
const TYP_BYTES_MAX: usize = 64;

/// Members that bring or point to a key, ask for extensions (we know none), or say that the payload
/// is not what it seems. `x5t` is a mere name, which many providers send, and is not looked at.
const FORBIDDEN: [&str; 8] = ["crit", "jku", "jwk", "x5u", "x5c", "b64", "zip", "enc"];

/// A token whose form is right. Nothing it says may be believed yet, except to choose the key to
/// check it with.
#[derive(Clone)]
pub(crate) struct Unverified<'t> {
    algorithm: Algorithm,
    kid: Option<String>,
    typ: Option<String>,
    payload: Vec<u8>,
    /// Header and payload as they were sent: what is signed.
    signed: &'t [u8],
    /// In base64url.
    signature: &'t str,
}

/// Reads a token's envelope.
///
/// # Errors
/// What is wrong with its form, or its algorithm.
pub(crate) fn read(token: &[u8]) -> Result<Unverified<'_>, Refusal> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong);
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::NotThreeParts);
    };
    let signed = &token[..header.len() + 1 + payload.len()];
    let header = object("header", &decode("header", header)?)?;
    for name in FORBIDDEN {
        if header.contains_key(name) {
            return Err(Refusal::HeaderForbidden(name));
        }
    }
    let algorithm = algorithm(&header)?;
    let payload = decode("payload", payload)?;
    decode("signature", signature)?;
    Ok(Unverified {
        algorithm,
        kid: text(&header, "kid", KID_BYTES_MAX)?,
        typ: text(&header, "typ", TYP_BYTES_MAX)?,
        payload,
        signed,
        signature: str::from_utf8(signature).map_err(|_| Refusal::Encoding("signature"))?,
    })
}

impl Unverified<'_> {
    /// What it claims to be signed with.
    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Names its key. To be compared with names of known keys, and used for nothing else.
    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What kind of token it claims to be.
    pub(crate) fn typ(&self) -> Option<&str> {
        self.typ.as_deref()
    }

    /// Whom it claims to be from. To find the issuer whose keys to check it with.
    ///
    /// # Errors
    /// The payload is no object, or has no `iss`.
    pub(crate) fn claimed_issuer(&self) -> Result<String, Refusal> {
        match self.payload()?.get("iss") {
            Some(Value::String(issuer)) => Ok(issuer.clone()),
            Some(_) => Err(Refusal::ClaimMalformed("iss")),
            None => Err(Refusal::ClaimMissing("iss")),
        }
    }

    /// # Errors
    /// The payload is not a strict JSON object.
    pub(super) fn payload(&self) -> Result<Map<String, Value>, Refusal> {
        object("payload", &self.payload)
    }

    /// Whether the key signed it; says nothing of its claims.
    ///
    /// # Errors
    /// [`Refusal::AlgorithmMismatch`] or [`Refusal::Signature`].
    pub(crate) fn verify_signature(&self, key: &VerifyingKey) -> Result<(), Refusal> {
        if self.algorithm != key.algorithm() {
            return Err(Refusal::AlgorithmMismatch);
        }
        if !key.has_signed(self.signed, self.signature) {
            return Err(Refusal::Signature);
        }
        Ok(())
    }
}

/// The decoder refuses padding, foreign characters and bits that no encoder leaves, so that a token
/// cannot be changed in any character and still be the same.
fn decode(part: &'static str, text: &[u8]) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::Encoding(part))
}

fn object(part: &'static str, text: &[u8]) -> Result<Map<String, Value>, Refusal> {
    parse_object(text).map_err(|error| match error {
        NotStrict::Duplicate => Refusal::DuplicateMember(part),
        NotStrict::NotAnObject => Refusal::NotAnObject(part),
    })
}

fn algorithm(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    let Some(Value::String(name)) = header.get("alg") else {
        return Err(Refusal::HeaderMember("alg"));
    };
    if name.eq_ignore_ascii_case("none") {
        return Err(Refusal::AlgorithmNone);
    }
    if name
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("HS"))
    {
        return Err(Refusal::AlgorithmSymmetric);
    }
    Algorithm::named(name).ok_or(Refusal::AlgorithmUnsupported)
}

fn text(
    header: &Map<String, Value>,
    name: &'static str,
    bytes_max: usize,
) -> Result<Option<String>, Refusal> {
    match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= bytes_max => Ok(Some(text.clone())),
        Some(_) => Err(Refusal::HeaderMember(name)),
    }
}
