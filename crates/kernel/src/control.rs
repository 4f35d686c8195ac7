//! The control runtime: everything but predictions happens there.
//!
//! A pooled socket belongs to the runtime that opened it, so the database is used there alone. Work
//! is handed over once per request and goes on to its end: a client that leaves, or a deadline, ends
//! only the waiting for it.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinError;

use crate::error::ApiError;

const RETRY_AFTER_S: u64 = 1;

/// A handle to the control runtime, cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    handle: Handle,
    /// Tasks that have not ended.
    running: watch::Sender<usize>,
}

impl Control {
    /// The runtime that this is called on.
    ///
    /// # Panics
    /// Outside any runtime.
    pub fn current() -> Self {
        Self {
            handle: Handle::current(),
            running: watch::Sender::new(0),
        }
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
        let counted = Counted::new(self.running.clone());
        let running = self.handle.spawn(async move {
            let _counted = counted;
            work.await
        });
        running.await.map_err(passed_on)
    }

    /// Whether all that this handle and its clones run has ended within `limit`, also what nobody
    /// waits for any more.
    pub async fn ended(&self, limit: Duration) -> bool {
        let mut running = self.running.subscribe();
        let ended = running.wait_for(|running| *running == 0);
        tokio::time::timeout(limit, ended).await.is_ok()
    }

    /// Whether the caller is already there.
    pub(crate) fn is_current(&self) -> bool {
        Handle::try_current().is_ok_and(|current| current.id() == self.handle.id())
    }
}

/// Counts a task until it ends, in whatever way.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(running: watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
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
        assert!(!control.ended(Duration::from_millis(10)).await);
        begin.send(()).unwrap();
        assert!(control.ended(Duration::from_secs(10)).await);
        finished.await.unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "broken")]
    async fn a_panic_reaches_who_waits() {
        let _ = Control::current().run(async { panic!("broken") }).await;
    }
}
