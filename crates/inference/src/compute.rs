//! Long work away from the threads that serve connections, and no more of it than there are cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

/// How many requests may wait for a core; further ones are asked to come back.
const WAITING_MAX: usize = 256;

/// Too many requests are waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WAITING_MAX} long predictions are waiting already")]
pub(crate) struct Busy;

/// A bounded share of the runtime's blocking threads.
#[derive(Debug)]
pub(crate) struct Compute {
    cores: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Counts one waiting request until it is dropped, even if its client leaves.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Compute {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            cores: Arc::new(Semaphore::new(cores)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Runs `work` as soon as a core is free.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let queued = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        if queued >= WAITING_MAX {
            return Err(Busy);
        }
        let permit = Arc::clone(&self.cores).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        drop(waiting);
        let task = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        match task.await {
            Ok(done) => Ok(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that is shutting down cancels blocking work.
                Err(_) => Err(Busy),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_to_a_full_queue_is_refused_and_the_queue_empties() {
        let compute = Compute::new();
        let cores = compute.cores.available_permits() as u32;
        let all = Arc::clone(&compute.cores)
            .acquire_many_owned(cores)
            .await
            .expect("open");
        compute.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert_eq!(compute.run(|| 1).await, Err(Busy));
        compute.waiting.store(0, Ordering::Relaxed);
        drop(all);
        assert_eq!(compute.run(|| 1).await, Ok(1));
        assert_eq!(compute.waiting.load(Ordering::Relaxed), 0);
    }
}
