//! The end of a handler that nobody waits for any more.
//!
//! A handler on the control runtime runs to its end even if its client leaves or its deadline
//! passes. What became of it is recorded here; otherwise nobody would learn of its errors.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use auspex_kernel::body::Share;
use auspex_kernel::{ApiError, Caller, RequestId};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::Method;

use super::access::{Finished, Observers};
use super::{Route, panic_message};

/// A request whose handler is on its own.
pub(super) struct Unheard {
    pub(super) observers: Arc<Observers>,
    pub(super) route: Arc<Route>,
    pub(super) method: Method,
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) id: RequestId,
    pub(super) started: Instant,
    /// The memory of its body, until the handler ends.
    pub(super) _share: Option<Arc<Share>>,
    /// Whether the client was told that it takes too long; that answer has been recorded.
    pub(super) is_answered: Arc<AtomicBool>,
}

impl Unheard {
    /// Runs a handler to its end. If it panics, its answer is an error.
    pub(super) async fn run(self, handler: impl Future<Output = Response>) -> Ended {
        let response = match AssertUnwindSafe(handler).catch_unwind().await {
            Ok(response) => response,
            Err(panic) => ApiError::internal(panic_message(&*panic)).into_response(),
        };
        Ended {
            response: Some(response),
            unheard: self,
        }
    }

    fn record(&self, response: &Response) {
        let error = response.extensions().get::<ApiError>();
        let finished = Finished {
            route: Some(&self.route),
            method: &self.method,
            status: error.map_or(response.status(), ApiError::status),
            quota: None,
            caller: self.caller.as_deref(),
            error,
            id: &self.id,
            elapsed: self.started.elapsed(),
            trace: None,
        };
        if self.is_answered.load(Ordering::Relaxed) {
            self.observers.end_late(&finished);
        } else {
            self.observers.end(&finished);
        }
    }
}

/// The answer of a handler, which is recorded when it is dropped without having been taken.
pub(super) struct Ended {
    response: Option<Response>,
    unheard: Unheard,
}

impl Ended {
    pub(super) fn take(mut self) -> Response {
        self.response.take().expect("taken once")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(response) = &self.response {
            self.unheard.record(response);
        }
    }
}
