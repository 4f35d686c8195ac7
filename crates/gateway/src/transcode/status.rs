//! How a call of gRPC ended, and what that is in HTTP.
//!
//! Statuses are mapped as `google/rpc/code.proto` says; what a service tells of an error beside its message is read
//! where clients can use it (`google/rpc/error_details.proto`).

use auspex_kernel::ApiError;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode;
use prost::Message;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// Of what is wrong with a request.
const DETAILS_MAX: usize = 100;
/// The longest that a client is told to wait.
const RETRY_AFTER_S_MAX: i64 = 86_400;

/// How a call ended that did not succeed.
#[derive(Debug)]
pub(super) struct Status {
    code: u32,
    message: String,
    details: Vec<Any>,
}

/// Reads how a call ended. `None`: it does not say.
///
/// # Errors
/// [`Status`]: it failed.
pub(super) fn of(trailers: &HeaderMap) -> Option<Result<(), Status>> {
    let code = trailers.get(GRPC_STATUS)?;
    let code = code.to_str().ok().and_then(|code| code.parse().ok());
    // What is no number is no status that there is.
    let code = code.unwrap_or(2);
    if code == 0 {
        return Some(Ok(()));
    }
    let message = trailers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
    let message = percent_decode(message.unwrap_or_default()).decode_utf8_lossy();
    let details = trailers.get(GRPC_STATUS_DETAILS).and_then(details);
    Some(Err(Status {
        code,
        message: message.into_owned(),
        details: details.unwrap_or_default(),
    }))
}

/// `google.rpc.Status` in base64, with or without its padding.
fn details(value: &HeaderValue) -> Option<Vec<Any>> {
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
    let bytes = engine.decode(value.as_bytes()).ok()?;
    Some(RpcStatus::decode(bytes.as_slice()).ok()?.details)
}

impl Status {
    /// The answer to the client.
    pub(super) fn answer(&self, service: &str) -> ApiError {
        let (status, code) = self.http();
        let message = match self.message.is_empty() {
            true => format!("the service {service} answered with the status {code}"),
            false => self.message.clone(),
        };
        let mut error = ApiError::new(status, code, message);
        let mut listed = 0;
        for detail in &self.details {
            let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
            match kind {
                "google.rpc.BadRequest" => {
                    let violations = BadRequest::decode(detail.value.as_slice());
                    for one in violations.unwrap_or_default().field_violations {
                        if listed < DETAILS_MAX {
                            listed += 1;
                            error = error.with_detail(&one.field, &one.description);
                        }
                    }
                }
                "google.rpc.ErrorInfo" => {
                    let info = ErrorInfo::decode(detail.value.as_slice()).unwrap_or_default();
                    if !info.reason.is_empty() {
                        error = error.with_detail("reason", &info.reason);
                    }
                }
                "google.rpc.RetryInfo" => {
                    let info = RetryInfo::decode(detail.value.as_slice()).unwrap_or_default();
                    if let Some(delay) = info.retry_delay {
                        let seconds = delay.seconds.saturating_add(i64::from(delay.nanos > 0));
                        let seconds = seconds.clamp(0, RETRY_AFTER_S_MAX);
                        error = error.with_header(header::RETRY_AFTER, seconds.into());
                    }
                }
                _ => {}
            }
        }
        error
    }

    fn http(&self) -> (StatusCode, &'static str) {
        let cancelled = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        match self.code {
            1 => (cancelled, "CANCELLED"),
            3 => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            4 => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
            5 => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            6 => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
            7 => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            8 => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            9 => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
            10 => (StatusCode::CONFLICT, "ABORTED"),
            11 => (StatusCode::BAD_REQUEST, "OUT_OF_RANGE"),
            12 => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
            13 => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
            14 => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            15 => (StatusCode::INTERNAL_SERVER_ERROR, "DATA_LOSS"),
            16 => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};

    use super::*;

    fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        let pairs = pairs.map(|(name, value)| {
            (
                HeaderName::from_static(name),
                value.parse().expect("a value"),
            )
        });
        pairs.collect()
    }

    fn error(pairs: &[(&'static str, &str)]) -> ApiError {
        let status = of(&trailers(pairs)).expect("a status");
        status.expect_err("it failed").answer("scores")
    }

    #[test]
    fn every_status_is_one_of_http() {
        assert!(of(&HeaderMap::new()).is_none());
        assert!(
            of(&trailers(&[("grpc-status", "0")]))
                .expect("a status")
                .is_ok()
        );
        let expected = [
            (1, 499),
            (2, 500),
            (3, 400),
            (4, 504),
            (5, 404),
            (6, 409),
            (7, 403),
            (8, 429),
            (9, 400),
            (10, 409),
            (11, 400),
            (12, 501),
            (13, 500),
            (14, 503),
            (15, 500),
            (16, 401),
            (17, 500),
        ];
        for (code, status) in expected {
            let error = error(&[("grpc-status", &code.to_string())]);
            assert_eq!(error.status(), status, "{code}");
            assert!(error.message().contains("scores"));
        }
        for code in ["", "x", "-1", "99999999999"] {
            assert_eq!(error(&[("grpc-status", code)]).status(), 500, "{code}");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        for (seconds, nanos, expected) in [
            (i64::MAX, 5, "86400"),
            (i64::MIN, i32::MIN, "0"),
            (-1, 5, "0"),
            (7, -1, "7"),
        ] {
            let delay = Delay { seconds, nanos };
            let info = RetryInfo {
                retry_delay: Some(delay),
            };
            let any = Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
                value: info.encode_to_vec(),
            };
            let status = RpcStatus {
                code: 14,
                message: String::new(),
                details: vec![any],
            };
            let encoded = BASE64_STANDARD.encode(status.encode_to_vec());
            let error = error(&[("grpc-status", "14"), ("grpc-status-details-bin", &encoded)]);
            assert_eq!(error.headers()[header::RETRY_AFTER], expected, "{seconds}");
        }
    }

    #[test]
    fn messages_and_details_reach_the_client() {
        let any = |name: &str, value: Vec<u8>| Any {
            type_url: format!("type.googleapis.com/google.rpc.{name}"),
            value,
        };
        let violation = FieldViolation {
            field: "user.age".into(),
            description: "must not be negative".into(),
        };
        let status = RpcStatus {
            code: 3,
            message: "wrong".into(),
            details: vec![
                any(
                    "BadRequest",
                    BadRequest {
                        field_violations: vec![violation],
                    }
                    .encode_to_vec(),
                ),
                any(
                    "ErrorInfo",
                    ErrorInfo {
                        reason: "AGE".into(),
                    }
                    .encode_to_vec(),
                ),
                any(
                    "RetryInfo",
                    RetryInfo {
                        retry_delay: Some(Delay {
                            seconds: 2,
                            nanos: 1,
                        }),
                    }
                    .encode_to_vec(),
                ),
                any("Help", vec![1, 2, 3]),
                any("BadRequest", vec![255]),
            ],
        };
        for encoded in [
            BASE64_STANDARD.encode(status.encode_to_vec()),
            BASE64_STANDARD_NO_PAD.encode(status.encode_to_vec()),
        ] {
            let error = error(&[
                ("grpc-status", "3"),
                ("grpc-message", "wr%C3%B6ng %"),
                ("grpc-status-details-bin", &encoded),
            ]);
            assert_eq!(
                (error.status().as_u16(), error.code(), error.message()),
                (400, "INVALID_ARGUMENT", "wröng %")
            );
            let details: Vec<_> = error
                .details()
                .iter()
                .map(|one| (one.field.as_str(), one.message.as_str()))
                .collect();
            assert_eq!(
                details,
                [("user.age", "must not be negative"), ("reason", "AGE")]
            );
            assert_eq!(error.headers()[header::RETRY_AFTER], "3");
        }
        let broken = error(&[("grpc-status", "3"), ("grpc-status-details-bin", "!")]);
        assert!(broken.details().is_empty());
    }
}
