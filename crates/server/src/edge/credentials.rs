//! The credential that a request carries.

use auspex_kernel::{ApiError, Credential};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::X_API_KEY;

/// The credential of a request, if it has one.
///
/// # Errors
/// 401 for a scheme that is not supported, and for two credentials that differ: choosing one would
/// be a guess.
pub(super) fn find(headers: &HeaderMap) -> Result<Option<Credential<'_>>, ApiError> {
    let key = one(headers, &X_API_KEY)?.map(HeaderValue::as_bytes);
    let authorization = match one(headers, &header::AUTHORIZATION)? {
        Some(value) => Some(read(value.as_bytes()).ok_or_else(|| {
            ApiError::unauthenticated("Authorization must be of the form: Bearer KEY-OR-TOKEN")
        })?),
        None => None,
    };
    match (key, authorization) {
        (Some(key), Some(Credential::Token(token))) if key == token => {
            Ok(Some(Credential::Token(key)))
        }
        (Some(_), Some(_)) => Err(ApiError::unauthenticated(
            "X-API-Key and Authorization differ; send one of them",
        )),
        (Some(key), None) => Ok(Some(Credential::Token(key))),
        (None, authorization) => Ok(authorization),
    }
}

fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(ApiError::unauthenticated(format!(
            "the header {name} is given more than once"
        )));
    }
    Ok(first)
}

fn read(value: &[u8]) -> Option<Credential<'_>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        Some(Credential::Token(rest))
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        Some(Credential::Basic(rest))
    } else {
        None
    }
}

/// Keeps web pages of other origins from making a browser send credentials: an `Origin` must be ours,
/// unless it was let in.
///
/// # Errors
/// 403.
pub(super) fn check_origin(
    origin: &HeaderValue,
    host: Option<&str>,
    public_authority: &str,
) -> Result<(), ApiError> {
    let origin = origin
        .to_str()
        .ok()
        .and_then(|text| text.split_once("://"))
        .map(|(_, host)| host);
    let ours = origin.is_some_and(|origin| {
        host.is_some_and(|host| host.eq_ignore_ascii_case(origin))
            || public_authority.eq_ignore_ascii_case(origin)
    });
    if ours {
        return Ok(());
    }
    Err(ApiError::forbidden(
        "credentials from a page of another origin are refused; set server.public_url if it is \
         yours, or allow it in server.cors.origins",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
            .collect()
    }

    fn token(pairs: &[(&'static str, &'static str)]) -> Result<Option<String>, u16> {
        let headers = headers(pairs);
        find(&headers)
            .map(|found| {
                found.map(|credential| match credential {
                    Credential::Token(text) => String::from_utf8_lossy(text).into_owned(),
                    Credential::Basic(text) => {
                        format!("basic {}", String::from_utf8_lossy(text))
                    }
                })
            })
            .map_err(|error| error.status().as_u16())
    }

    #[test]
    fn keys_are_found_in_both_headers() {
        assert_eq!(token(&[]), Ok(None));
        assert_eq!(token(&[("x-api-key", "k")]), Ok(Some("k".into())));
        assert_eq!(
            token(&[("authorization", "bearer k")]),
            Ok(Some("k".into()))
        );
        assert_eq!(
            token(&[("authorization", "BASIC dTpw")]),
            Ok(Some("basic dTpw".into()))
        );
        assert_eq!(
            token(&[("authorization", "Bearer k"), ("x-api-key", "k")]),
            Ok(Some("k".into()))
        );
    }

    #[test]
    fn what_would_be_a_guess_is_refused() {
        assert_eq!(
            token(&[("authorization", "Bearer k"), ("x-api-key", "j")]),
            Err(401)
        );
        assert_eq!(
            token(&[("authorization", "Basic dTpw"), ("x-api-key", "k")]),
            Err(401)
        );
        assert_eq!(token(&[("authorization", "Digest dTpw")]), Err(401));
        assert_eq!(token(&[("authorization", "")]), Err(401));
        let mut doubled = headers(&[("x-api-key", "a")]);
        doubled.append(X_API_KEY, HeaderValue::from_static("b"));
        assert!(find(&doubled).is_err());
    }

    #[test]
    fn credentials_of_foreign_pages_are_refused() {
        let check = |origin: &'static str| {
            let origin = HeaderValue::from_static(origin);
            check_origin(&origin, Some("127.0.0.1:8080"), "models.example.org").is_ok()
        };
        assert!(check("http://127.0.0.1:8080"));
        assert!(check("https://models.example.org"));
        assert!(!check("https://evil.example"));
        assert!(!check("http://127.0.0.1:8080.evil.example"));
        assert!(!check("null"));
    }
}
