//! The form of the errors of the endpoints that clients ask directly (RFC 6749 §5.2).

use std::borrow::Cow;

use auspex_kernel::{ApiError, RequestId};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::oauth::TokenError;

/// An error of RFC 6749 §5.2.
#[derive(Serialize, ToSchema)]
pub(super) struct OAuthError<'e> {
    /// For programs
    #[schema(example = "invalid_grant")]
    error: &'static str,
    /// For people
    error_description: Cow<'e, str>,
}

/// Renders every error of these endpoints, those of the edge included.
pub(crate) fn render(error: &ApiError, _: &RequestId) -> Response {
    let body = OAuthError {
        error: code(error),
        error_description: error.message().into(),
    };
    let mut response = (error.status(), Json(body)).into_response();
    let headers = response.headers_mut();
    headers.extend(error.headers().clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// The code of a [`TokenError`], or the one that is nearest to an error from elsewhere.
fn code(error: &ApiError) -> &'static str {
    let is_oauth = |code: &str| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match error.status() {
        _ if is_oauth(error.code()) => error.code(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            "temporarily_unavailable"
        }
        StatusCode::UNAUTHORIZED => "invalid_client",
        status if status.is_client_error() => "invalid_request",
        _ => "server_error",
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Failed(error) => error.into(),
            TokenError::Refused(code, description) => {
                ApiError::new(StatusCode::BAD_REQUEST, code, description)
            }
            TokenError::Scope(wrong) => {
                ApiError::new(StatusCode::BAD_REQUEST, "invalid_scope", wrong.to_string())
            }
            TokenError::InvalidClient => {
                let description = "the client is unknown, or did not prove who it is";
                let challenge = HeaderValue::from_static("Basic realm=\"auspex\"");
                ApiError::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
                    .with_header(header::WWW_AUTHENTICATE, challenge)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_from_elsewhere_get_the_nearest_code() {
        for (error, expected) in [
            (ApiError::payload_too_large("x"), "invalid_request"),
            (ApiError::unavailable("x", 1), "temporarily_unavailable"),
            (ApiError::internal("x"), "server_error"),
            (TokenError::InvalidClient.into(), "invalid_client"),
            (
                TokenError::Refused("invalid_grant", "x").into(),
                "invalid_grant",
            ),
        ] {
            assert_eq!(code(&error), expected);
        }
        let busy = render(&ApiError::unavailable("x", 7), &RequestId::generate());
        assert_eq!(busy.headers()[header::RETRY_AFTER], "7");
        assert_eq!(busy.headers()[header::PRAGMA], "no-cache");
    }
}
