//! What is recorded about a finished request: metric, log line, trace, error report.

use std::time::Duration;

use auspex_kernel::quota::Decision;
use auspex_kernel::{ApiError, Caller, RequestId};
use http::{HeaderMap, Method, StatusCode};

use super::Route;
use crate::metrics::RouteMetrics;
use crate::telemetry::{AccessLog, Reports, Trace, Traces};

/// A success slower than this gets a log line too.
const SLOW: Duration = Duration::from_secs(1);

/// Where finished requests are recorded.
pub(crate) struct Observers {
    pub(crate) access_log: AccessLog,
    pub(crate) unmatched: RouteMetrics,
    pub(crate) traces: Option<Traces>,
    pub(crate) reports: Option<Reports>,
}

/// A request whose answer is decided.
pub(super) struct Finished<'r> {
    pub(super) route: Option<&'r Route>,
    pub(super) method: &'r Method,
    pub(super) status: StatusCode,
    pub(super) quota: Option<&'r Decision>,
    pub(super) caller: Option<&'r Caller>,
    pub(super) error: Option<&'r ApiError>,
    pub(super) id: &'r RequestId,
    pub(super) elapsed: Duration,
    pub(super) trace: Option<Trace>,
}

impl Finished<'_> {
    /// Empty where there is no route.
    fn template(&self) -> &str {
        self.route.map_or("", |route| route.template.as_str())
    }
}

impl Observers {
    pub(super) fn begin(&self, headers: &HeaderMap) -> Option<Trace> {
        self.traces.as_ref().map(|_| Trace::begin(headers))
    }

    pub(super) fn end(&self, request: &Finished<'_>) {
        let metrics = request
            .route
            .map_or(&self.unmatched, |route| &route.metrics);
        metrics.observe(request.status, request.elapsed);
        self.log(request);
        if let (Some(traces), Some(trace)) = (&self.traces, &request.trace) {
            traces.record(
                trace,
                method_name(request.method),
                request.template(),
                request.status,
                request.id,
            );
        }
        self.report(request);
    }

    /// The end of a handler after its request was answered, and counted: only an internal error is
    /// worth a word.
    pub(super) fn end_late(&self, request: &Finished<'_>) {
        if request.error.is_some_and(|error| error.cause().is_some()) {
            self.log(request);
            self.report(request);
        }
    }

    fn report(&self, request: &Finished<'_>) {
        if let (Some(reports), Some(error)) = (&self.reports, request.error)
            && request.status == StatusCode::INTERNAL_SERVER_ERROR
        {
            let method = method_name(request.method);
            reports.send(error, method, request.template(), request.id);
        }
    }

    /// Sends what is still waiting to be sent. Blocks for a few seconds at most.
    pub(crate) fn flush(&self) {
        if let Some(traces) = &self.traces {
            traces.flush();
        }
        if let Some(reports) = &self.reports {
            reports.flush();
        }
    }

    fn log(&self, request: &Finished<'_>) {
        let Finished {
            method,
            status,
            id,
            elapsed,
            ..
        } = request;
        // Clients over a limit could flood the log; the metrics count them all the same.
        let over_limit = request.quota.is_some_and(|quota| !quota.allowed);
        let failed = (status.as_u16() >= 400 && !over_limit) || *elapsed >= SLOW;
        let method = method_name(method);
        let cause = request.error.and_then(ApiError::cause);
        let wanted = match self.access_log {
            AccessLog::All => true,
            AccessLog::Errors => failed,
            AccessLog::Off => false,
        };
        if !wanted && cause.is_none() {
            return;
        }
        // The template, never the path: a path may hold a customer's id.
        let route = request
            .route
            .map_or("(none)", |route| route.template.as_str());
        let caller = request.caller.map(|caller| caller.subject.to_string());
        let caller = caller.as_deref().unwrap_or("-");
        let code = request.error.map_or("-", ApiError::code);
        let ms = elapsed.as_secs_f64() * 1e3;
        let (status, id) = (status.as_u16(), id.as_str());
        match cause {
            Some(cause) => tracing::error!(
                request.id = id,
                http.method = method,
                http.route = route,
                http.status = status,
                caller,
                code,
                duration_ms = ms,
                cause,
                "request failed"
            ),
            None => tracing::info!(
                request.id = id,
                http.method = method,
                http.route = route,
                http.status = status,
                caller,
                code,
                duration_ms = ms,
                "request"
            ),
        }
    }
}

/// The methods of RFC 9110 and PATCH; any other text is the client's, and may be long.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "_OTHER",
    }
}
