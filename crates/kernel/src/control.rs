//! The control runtime: everything but predictions happens there.
//!
//! A pooled socket belongs to the runtime that opened it, so the database is used there alone. Work
//! is handed over once per request and goes on to its end: a client that leaves, or a deadline, ends
//! only the waiting for it.

use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::JoinError;

use crate::error::ApiError;

const RETRY_AFTER_S: u64 = 1;

/// A handle to the control runtime, cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Handle);

impl Control {
    /// The runtime that this is called on.
    ///
    /// # Panics
    /// Outside any runtime.
    pub fn current() -> Self {
        Self(Handle::current())
    }

    /// Runs `work` on the control runtime, to its end even if this future is dropped.
    ///
    /// # Errors
    /// 503 while the program stops.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.0.spawn(work).await.map_err(passed_on)
    }

    /// Whether the caller is already there.
    pub(crate) fn is_current(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.0.id())
    }
}

/// A panic goes on where the answer is waited for; otherwise the program is stopping.
pub(crate) fn passed_on(ended: JoinError) -> ApiError {
    match ended.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => ApiError::unavailable("the server is stopping; ask again", RETRY_AFTER_S),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it_any_more() {
        let (begin, begun) = oneshot::channel::<()>();
        let (finish, finished) = oneshot::channel();
        let control = Control::current();
        let work = control.run(async move {
            begun.await.unwrap();
            finish.send(()).unwrap();
        });
        assert!(work.now_or_never().is_none());
        begin.send(()).unwrap();
        let finished = tokio::time::timeout(Duration::from_secs(10), finished).await;
        finished.expect("bounded").unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn a_panic_reaches_who_waits() {
        let _ = Control::current().run(async { panic!("broken") }).await;
    }
}
