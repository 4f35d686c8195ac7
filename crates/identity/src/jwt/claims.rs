//! What a token says, and whether it may say it here and now (RFC 7519, 9068).

use auspex_kernel::Timestamp;
use serde_json::{Map, Value};

use super::{Refusal, Unverified};

const SUBJECT_BYTES_MAX: usize = 256;

/// What a token must say to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectations<'e> {
    /// Who alone may have issued it.
    pub(crate) issuer: &'e str,
    /// Names of this service, of which it must be meant for one.
    pub(crate) audiences: &'e [&'e str],
    /// What its `typ` may be; `None` lets it be absent. Case and a leading `application/` do not
    /// matter.
    pub(crate) types: &'e [Option<&'e str>],
    /// By how much the issuer's clock may run ahead of ours (`nbf`, `iat`). `exp` has none.
    pub(crate) leeway_s: i64,
}

/// What a verified token says. Times are seconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    pub(crate) iss: String,
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: Option<i64>,
    pub(crate) nbf: Option<i64>,
    pub(crate) jti: Option<String>,
    /// Words with spaces between them.
    pub(crate) scope: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) sid: Option<String>,
    pub(crate) name: Option<String>,
    /// One role in a token of ours; others may send a list.
    pub(crate) role: Vec<String>,
    /// All the rest.
    pub(crate) other: Map<String, Value>,
}

/// Reads the claims of a token whose signature is right, and compares them with what is expected.
pub(super) fn check(
    token: &Unverified<'_>,
    expected: &Expectations<'_>,
    now: Timestamp,
) -> Result<Claims, Refusal> {
    let claims = check_origin(token, expected.issuer, expected.types)?;
    let for_us = |audience: &String| expected.audiences.contains(&audience.as_str());
    if !claims.aud.iter().any(for_us) {
        return Err(Refusal::Audience);
    }
    // Whole seconds: a token whose `exp` is this very second has expired.
    let now_s = now.unix_seconds();
    let latest_s = now_s.saturating_add(expected.leeway_s);
    if claims.exp <= now_s {
        return Err(Refusal::Expired);
    }
    if claims.nbf.is_some_and(|nbf| nbf > latest_s) {
        return Err(Refusal::NotYetValid);
    }
    if claims.iat.is_some_and(|iat| iat > latest_s) {
        return Err(Refusal::IssuedInTheFuture);
    }
    Ok(claims)
}

/// Reads the claims of a token that is of one of these types and of this issuer.
pub(super) fn check_origin(
    token: &Unverified<'_>,
    issuer: &str,
    types: &[Option<&str>],
) -> Result<Claims, Refusal> {
    if !types.iter().any(|one| same_type(*one, token.typ())) {
        return Err(Refusal::Type);
    }
    let claims = read(token.payload()?)?;
    if claims.iss != issuer {
        return Err(Refusal::Issuer);
    }
    Ok(claims)
}

fn same_type(expected: Option<&str>, typ: Option<&str>) -> bool {
    fn short(typ: &str) -> &str {
        const PREFIX: &str = "application/";
        match typ.get(..PREFIX.len()) {
            Some(start) if start.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
            _ => typ,
        }
    }
    match (expected, typ) {
        (None, None) => true,
        (Some(expected), Some(typ)) => short(expected).eq_ignore_ascii_case(short(typ)),
        _ => false,
    }
}

fn read(mut members: Map<String, Value>) -> Result<Claims, Refusal> {
    let members = &mut members;
    let required = |name| move |value: Option<_>| value.ok_or(Refusal::ClaimMissing(name));
    let sub = text(members, "sub").and_then(required("sub"))?;
    if sub.is_empty() || sub.len() > SUBJECT_BYTES_MAX {
        return Err(Refusal::ClaimMalformed("sub"));
    }
    Ok(Claims {
        sub,
        iss: text(members, "iss").and_then(required("iss"))?,
        aud: texts(members, "aud")?.ok_or(Refusal::ClaimMissing("aud"))?,
        exp: time(members, "exp")?.ok_or(Refusal::ClaimMissing("exp"))?,
        iat: time(members, "iat")?,
        nbf: time(members, "nbf")?,
        jti: text(members, "jti")?,
        scope: text(members, "scope")?,
        client_id: text(members, "client_id")?,
        sid: text(members, "sid")?,
        name: text(members, "name")?,
        role: texts(members, "role")?.unwrap_or_default(),
        other: std::mem::take(members),
    })
}

fn text(members: &mut Map<String, Value>, name: &'static str) -> Result<Option<String>, Refusal> {
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::ClaimMalformed(name)),
    }
}

/// A text or a list of texts.
fn texts(
    members: &mut Map<String, Value>,
    name: &'static str,
) -> Result<Option<Vec<String>>, Refusal> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Refusal::ClaimMalformed(name)),
    };
    match members.shift_remove(name) {
        None => Ok(None),
        Some(Value::Array(list)) => list
            .into_iter()
            .map(text)
            .collect::<Result<_, _>>()
            .map(Some),
        Some(one) => Ok(Some(vec![text(one)?])),
    }
}

/// Up to here a float counts seconds one by one.
const EXACT_MAX: f64 = (1_u64 << 53) as f64;

/// Seconds from 0 on. RFC 7519 §2 lets them have a fraction, which is cut off.
fn time(members: &mut Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = members.shift_remove(name) else {
        return Ok(None);
    };
    let seconds = match value.as_u64() {
        Some(whole) => i64::try_from(whole).ok(),
        None => value
            .as_f64()
            .filter(|seconds| (0.0..EXACT_MAX).contains(seconds))
            .map(|seconds| seconds as i64),
    };
    seconds.map(Some).ok_or(Refusal::ClaimMalformed(name))
}
