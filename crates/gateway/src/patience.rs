//! How long a client waits for its answer, whatever is tried meanwhile.

use std::future::Future;
use std::time::{Duration, Instant};

use auspex_kernel::ApiError;
use auspex_kernel::clock::monotonic;
use http::HeaderMap;

use crate::error::Failure;
use crate::headers::X_REQUEST_TIMEOUT_MS;

/// Until when an answer must have begun.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// What the service has, from the begin of the request or the last piece of its body.
    limit: Duration,
    until: Instant,
    /// The client waits for less than that.
    is_hurried: bool,
}

impl Patience {
    /// Of a request that began at this moment. A client may shorten the time that its service has.
    ///
    /// # Errors
    /// 400 for a time that is none.
    pub(crate) fn of(
        headers: &HeaderMap,
        limit: Duration,
        begin: Instant,
    ) -> Result<Self, ApiError> {
        let Some(stated) = headers.get(X_REQUEST_TIMEOUT_MS) else {
            return Ok(Self {
                limit,
                until: begin + limit,
                is_hurried: false,
            });
        };
        let ms = stated.to_str().ok().and_then(|text| text.parse().ok());
        let ms = ms.filter(|ms| *ms > 0).ok_or_else(|| {
            ApiError::malformed("X-Request-Timeout-Ms must be a whole number of milliseconds, at least 1 and of at most 19 digits")
        })?;
        let stated = Duration::from_millis(ms);
        Ok(Self {
            limit,
            until: begin + stated.min(limit),
            is_hurried: stated < limit,
        })
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.until.saturating_duration_since(monotonic())
    }

    /// What is left of the time that the client gave.
    pub(crate) fn stated(&self) -> Option<Duration> {
        self.is_hurried.then(|| self.left())
    }

    /// The service has its whole time since this moment, at which the body went on. What the client gave does not grow.
    /// Whether any of it is left.
    pub(crate) fn renew(&mut self, since: Instant) -> bool {
        if !self.is_hurried {
            self.until = since + self.limit;
        }
        !self.left().is_zero()
    }

    /// # Errors
    /// Whose patience has ended.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let late = match self.is_hurried {
            true => Failure::Deadline,
            false => Failure::Timeout,
        };
        let done = tokio::time::timeout_at(self.until.into(), work).await;
        done.map_err(|_| late)
    }
}
