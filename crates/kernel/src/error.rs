//! The one shape in which every error leaves the program.
//!
//! A service turns its own error type into an [`ApiError`]. The edge alone renders it, because only
//! there the request id is known, and logs its cause, which never reaches the client.

use std::borrow::Cow;
use std::fmt;
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

/// More wrong fields than this are counted, not listed.
const FIELD_ERRORS_MAX: usize = 100;
const NAME_SHOWN_MAX: usize = 64;

/// Wrong fields collected before the request is refused for all of them at once.
#[derive(Debug, Default)]
pub struct FieldErrors {
    listed: Vec<FieldError>,
    count: usize,
}

impl FieldErrors {
    /// Adds one. Only what is listed in the end is written out.
    pub fn add(&mut self, field: impl fmt::Display, message: impl fmt::Display) {
        self.count += 1;
        if self.listed.len() < FIELD_ERRORS_MAX {
            self.listed.push(FieldError {
                field: field.to_string(),
                message: message.to_string(),
            });
        }
    }

    /// How many there are, listed or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What was collected. Where it is too much, the last entry says of `whole` how many more
    /// there are.
    pub fn into_list(mut self, whole: &str) -> Vec<FieldError> {
        if self.count > FIELD_ERRORS_MAX {
            self.listed.truncate(FIELD_ERRORS_MAX - 1);
            let more = self.count - self.listed.len();
            self.listed.push(FieldError {
                field: whole.into(),
                message: format!("has {more} more invalid fields that are not listed"),
            });
        }
        self.listed
    }
}

/// A name that the client made up, fit to be repeated to it: cut where it is absurdly long, and
/// with escapes for what does not print.
pub fn shown(name: &str) -> Cow<'_, str> {
    let end = name.char_indices().nth(NAME_SHOWN_MAX);
    let name = &name[..end.map_or(name.len(), |(at, _)| at)];
    if name.chars().all(is_printable) {
        return Cow::Borrowed(name);
    }
    let mut text = String::new();
    for c in name.chars() {
        match is_printable(c) {
            true => text.push(c),
            false => text.extend(c.escape_default()),
        }
    }
    Cow::Owned(text)
}

/// Marks that turn the direction of writing or break lines can make a terminal or a log show
/// another text than the one stored, and what nobody sees (`Default_Ignorable_Code_Point`, Unicode
/// Annex 44) makes two texts that look the same. The two joiners of letters and emoji are allowed.
pub fn is_printable(c: char) -> bool {
    let is_unseen = matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0e}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    );
    !c.is_control() && !is_unseen
}

/// Whether a text can be a name that people are shown: printable, neither blank nor with blanks at its
/// ends, and something to be seen in it.
pub fn is_shown_name(text: &str) -> bool {
    let is_joiner = |c: char| matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe0f}');
    text.chars().all(is_printable)
        && text.trim() == text
        && text.chars().any(|c| !is_joiner(c) && !c.is_whitespace())
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

    /// 409.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", message)
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
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "something failed inside the server; its log has the cause under this request_id",
        )
        .with_cause(cause)
    }

    /// 503 with `Retry-After`.
    pub fn unavailable(message: impl Into<Cow<'static, str>>, retry_after_s: u64) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
            .with_header(header::RETRY_AFTER, HeaderValue::from(retry_after_s))
    }

    /// Adds what happened inside, for the log.
    #[must_use]
    pub fn with_cause(
        mut self,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.cause = Some(Arc::from(cause.into()));
        self
    }

    /// Adds an entry to the details, such as a reason for programs.
    #[must_use]
    pub fn with_detail(mut self, field: &str, message: &str) -> Self {
        self.0.details.push(FieldError {
            field: field.to_owned(),
            message: message.to_owned(),
        });
        self
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

    /// The headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
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
            let inner_text = inner.to_string();
            // Some errors repeat what is in them.
            if !text.ends_with(&inner_text) {
                text.push_str(": ");
                text.push_str(&inner_text);
            }
            source = inner.source();
        }
        Some(text)
    }

    /// What the client sees of it.
    pub fn envelope(&self, request_id: &RequestId) -> Envelope {
        Envelope {
            error: EnvelopeError {
                code: self.0.code,
                message: self.0.message.clone(),
                details: self.0.details.clone(),
                request_id: request_id.as_str().to_owned(),
            },
        }
    }

    /// The finished answer. Called by the edge.
    pub fn render(&self, request_id: &RequestId) -> Response {
        let envelope = self.envelope(request_id);
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

        #[derive(Debug, thiserror::Error)]
        #[error("cannot store: {0}")]
        struct Repeating(#[source] std::io::Error);
        let error = ApiError::internal(Repeating(std::io::Error::other("disk gone")));
        assert_eq!(error.cause().as_deref(), Some("cannot store: disk gone"));
    }

    #[test]
    fn names_are_repeated_short_and_printable() {
        assert_eq!(shown("age"), "age");
        assert_eq!(shown("a\u{202e}b\n"), r"a\u{202e}b\n");
        assert_eq!(shown(&"é".repeat(65)), "é".repeat(64));
    }

    #[test]
    fn no_more_fields_are_listed_than_anybody_reads() {
        let mut errors = FieldErrors::default();
        (0..100).for_each(|n| errors.add(n, "is wrong"));
        assert_eq!(errors.into_list("(body)").len(), 100);
        let mut errors = FieldErrors::default();
        (0..250).for_each(|n| errors.add(n, "is wrong"));
        let listed = errors.into_list("(body)");
        assert_eq!((listed.len(), listed[99].field.as_str()), (100, "(body)"));
        assert!(listed[99].message.contains("151"), "{}", listed[99].message);
    }
}
