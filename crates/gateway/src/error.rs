//! Why a request could not be passed on, and what its client is told.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use auspex_kernel::ApiError;
use http::StatusCode;

use crate::circuit::Outcome;
use crate::upstream::{HEAD_BYTES_MAX, HEADERS_MAX, is_refusal};

/// What went wrong with an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// There was no connection: nothing was sent.
    Refused,
    /// There was none in time: nothing was sent.
    ConnectTimeout,
    /// It could not be encrypted, or the other side is not who it should be: nothing was sent.
    Tls,
    /// The connection broke.
    Reset,
    /// It ended before the answer did.
    CutOff,
    /// What came was no answer of HTTP.
    Invalid,
    /// What came was the head of an answer, and larger than is taken.
    TooLarge,
    /// It said that it had done nothing about the request.
    Unprocessed,
    /// No answer began in time.
    Timeout,
    /// The client gave less time than the service has.
    Deadline,
    /// The body of the request broke off, which is no fault of the endpoint.
    Body,
    /// Every endpoint failed too often: nothing was sent. The first is tried again after so long.
    CircuitOpen(Duration),
    /// The health checks of every endpoint fail: nothing was sent. It stays so for so long at least.
    Unhealthy(Duration),
    /// Every endpoint that may be asked has all the requests that it may have: nothing was sent.
    Overloaded,
    /// It could not be said who calls: nothing was sent.
    Untold,
    /// The service has no endpoint at the moment.
    NoEndpoint,
}

impl Failure {
    /// For programs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Failure::Refused | Failure::Unprocessed => "refused",
            Failure::Tls => "tls",
            Failure::Reset => "reset",
            Failure::CutOff => "cut_off",
            Failure::Invalid => "invalid",
            Failure::TooLarge => "too_large",
            Failure::ConnectTimeout | Failure::Timeout | Failure::Deadline => "timeout",
            Failure::Body => "body",
            Failure::CircuitOpen(_) => "circuit_open",
            Failure::Unhealthy(_) => "unhealthy",
            Failure::Overloaded => "overloaded",
            Failure::Untold => "identity_token",
            Failure::NoEndpoint => "no_endpoint",
        }
    }

    /// What it says of the endpoint.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            // It takes no more for the moment, such as before it ends.
            Failure::Unprocessed
            | Failure::Deadline
            | Failure::Body
            | Failure::CircuitOpen(_)
            | Failure::Unhealthy(_)
            | Failure::Overloaded
            | Failure::Untold
            | Failure::NoEndpoint => Outcome::Neutral,
            Failure::Refused | Failure::ConnectTimeout | Failure::Reset | Failure::CutOff => {
                Outcome::Unreachable
            }
            Failure::Tls | Failure::Invalid | Failure::TooLarge | Failure::Timeout => {
                Outcome::Failure
            }
        }
    }

    /// Whether anything of the request may have been carried out.
    pub(crate) fn was_sent(self) -> bool {
        !matches!(
            self,
            Failure::Refused
                | Failure::ConnectTimeout
                | Failure::Tls
                | Failure::Unprocessed
                | Failure::CircuitOpen(_)
                | Failure::Unhealthy(_)
                | Failure::Overloaded
                | Failure::Untold
                | Failure::NoEndpoint
        )
    }

    /// Whether the same may go well a moment later.
    pub(crate) fn may_pass(self) -> bool {
        matches!(
            self,
            Failure::Refused
                | Failure::ConnectTimeout
                | Failure::Unprocessed
                | Failure::Reset
                | Failure::CutOff
        )
    }

    /// What hyper says of an exchange that failed.
    pub(crate) fn of_exchange(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Failure::TooLarge;
        }
        if error.is_parse() {
            return Failure::Invalid;
        }
        let mut source = error.source();
        while let Some(inner) = source {
            if let Some(error) = inner.downcast_ref::<io::Error>() {
                return Self::of_io(error);
            }
            if let Some(error) = inner.downcast_ref::<h2::Error>() {
                return Self::of_http2(error);
            }
            source = inner.source();
        }
        Failure::CutOff
    }

    /// What broke the connection after something was sent.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            _ if is_refusal(error) => Failure::Tls,
            io::ErrorKind::UnexpectedEof => Failure::CutOff,
            _ => Failure::Reset,
        }
    }

    /// RFC 9113 §6.8 and §8.7 say when a request was not processed.
    fn of_http2(error: &h2::Error) -> Self {
        let reason = error.reason();
        let is_refused = error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM);
        let is_leaving = error.is_go_away() && reason == Some(h2::Reason::NO_ERROR);
        match error.is_remote() {
            true if is_refused || is_leaving => Failure::Unprocessed,
            true => Failure::Reset,
            false => Failure::Invalid,
        }
    }

    /// The answer to the client.
    pub(crate) fn answer(self, service: &str) -> ApiError {
        let (status, code, message) = match self {
            Failure::Refused => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!(
                    "no server of {service} that was asked took a connection, or its name leads nowhere; nothing was sent"
                ),
            ),
            Failure::Tls => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!(
                    "there is no TLS connection to the service {service}; nothing was sent to it, and \
                     the log says why"
                ),
            ),
            Failure::Unprocessed => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!(
                    "no server of {service} that was asked took the request; nothing was carried out"
                ),
            ),
            Failure::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "GATEWAY_TIMEOUT",
                format!(
                    "no server of {service} that was asked took a connection in time; nothing was sent"
                ),
            ),
            Failure::Reset | Failure::CutOff => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!(
                    "the service {service} closed the connection before it answered; it may have \
                     carried the request out"
                ),
            ),
            Failure::Invalid => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!("what the service {service} sent is not an answer of HTTP"),
            ),
            Failure::TooLarge => (
                StatusCode::BAD_GATEWAY,
                "BAD_GATEWAY",
                format!(
                    "the head of the answer of the service {service} has more than {HEADERS_MAX} fields \
                     or {} KiB",
                    HEAD_BYTES_MAX >> 10
                ),
            ),
            Failure::Timeout | Failure::Deadline => (
                StatusCode::GATEWAY_TIMEOUT,
                "GATEWAY_TIMEOUT",
                format!(
                    "the service {service} did not answer in time; it may have carried the request \
                     out"
                ),
            ),
            Failure::CircuitOpen(wait) => {
                return self.unavailable(
                    wait,
                    format!(
                        "the service {service} failed too often and is left alone for a while; \
                         nothing was sent to it"
                    ),
                );
            }
            Failure::Unhealthy(wait) => {
                return self.unavailable(
                    wait,
                    format!(
                        "the health checks of every server of the service {service} fail; nothing \
                         was sent to it"
                    ),
                );
            }
            Failure::Overloaded => {
                return self.unavailable(
                    Duration::ZERO,
                    format!(
                        "every server of the service {service} has as many requests as it may \
                         have; nothing was sent to it"
                    ),
                );
            }
            Failure::Untold => {
                return self.unavailable(
                    Duration::ZERO,
                    format!(
                        "the token that tells the service {service} who calls could not be made; \
                         nothing was sent to it, and the log says why"
                    ),
                );
            }
            Failure::NoEndpoint => {
                return self.unavailable(
                    Duration::ZERO,
                    format!("no server of the service {service} is known at the moment"),
                );
            }
            Failure::Body => {
                return ApiError::malformed("the body broke off before its end");
            }
        };
        ApiError::new(status, code, message).with_detail("reason", self.reason())
    }

    /// Try again after so long, and a second at least.
    fn unavailable(self, wait: Duration, message: String) -> ApiError {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let error = ApiError::unavailable(message, seconds.max(1));
        error.with_detail("reason", self.reason())
    }
}
