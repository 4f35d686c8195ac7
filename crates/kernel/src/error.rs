//! The one shape in which every error leaves the program.
//!
//! A service turns its own error type into an [`ApiError`]. The edge alone renders it, because only
//! there the request id is known, and logs its cause, which never reaches the client.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::RequestId;

/// One wrong field of a request, by its path (`age`, `[3].age`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Path of the field in the body.
    #[schema(example = "age")]
    pub field: String,
    /// What it must be; never what it was.
    #[schema(example = "must be an integer between 0 and 130")]
    pub message: String,
}

/// An error as the client sees it, and its cause as the log sees it.
///
/// Boxed, for a result that is nearly always `Ok` should not be as large as its rare error.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Vec<FieldError>,
    headers: HeaderMap,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The body of every error answer.
#[derive(Serialize, ToSchema)]
#[schema(as = ErrorEnvelope)]
pub struct Envelope {
    /// The error itself.
    error: EnvelopeError,
}

#[derive(Serialize, ToSchema)]
struct EnvelopeError {
    /// For programs.
    #[schema(example = "VALIDATION_ERROR")]
    code: &'static str,
    /// For people.
    #[schema(example = "2 fields are invalid")]
    message: Cow<'static, str>,
    /// Every wrong field at once; empty for other errors.
    details: Vec<FieldError>,
    /// Names this request in the server's log.
    #[schema(example = "req_01JD3V9K2Q4W")]
    request_id: String,
}

impl ApiError {
    /// An error of any status; the named constructors below are the usual way.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            message: message.into(),
            details: Vec::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// 400: the request cannot be read at all.
    pub fn malformed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED_REQUEST", message)
    }

    /// 401 with the challenge of RFC 6750.
    pub fn unauthenticated(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message).with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"auspex\""),
        )
    }

    /// 403.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404, also where existence is secret.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 408: the body did not arrive in time.
    pub fn request_timeout(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
    }

    /// 413.
    pub fn payload_too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            message,
        )
    }

    /// 422 naming every wrong field.
    pub fn validation(details: Vec<FieldError>) -> Self {
        let message = match details.len() {
            1 => "1 field is invalid".into(),
            n => format!("{n} fields are invalid"),
        };
        let mut error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "VALIDATION_ERROR",
            message,
        );
        error.0.details = details;
        error
    }

    /// 500; the cause is logged, not shown.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let mut error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "something failed inside the server; its log has the cause under this request_id",
        );
        error.0.cause = Some(Arc::from(cause.into()));
        error
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The code for programs.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The message for people.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The wrong fields.
    pub fn details(&self) -> &[FieldError] {
        &self.0.details
    }

    /// What happened inside, with its chain of sources, for the log.
    pub fn cause(&self) -> Option<String> {
        let cause = self.0.cause.as_deref()?;
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(inner) = source {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        Some(text)
    }

    /// The finished answer. Called by the edge.
    pub fn render(&self, request_id: &RequestId) -> Response {
        let envelope = Envelope {
            error: EnvelopeError {
                code: self.0.code,
                message: self.0.message.clone(),
                details: self.0.details.clone(),
                request_id: request_id.as_str().to_owned(),
            },
        };
        let mut response = (self.0.status, axum::Json(envelope)).into_response();
        response.headers_mut().extend(self.0.headers.clone());
        response
    }
}

/// Leaves the error in the response's extensions, for the edge to render.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_keeps_the_chain_and_the_envelope_hides_it() {
        let error = ApiError::internal(std::io::Error::other("disk gone"));
        assert_eq!(error.cause().as_deref(), Some("disk gone"));
        assert!(!error.message().contains("disk"));
    }
}
