//! A deadline that costs nothing for futures that are ready at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// `None` if `inner` does not finish in time. The timer is started only if the first poll is pending,
/// and never for `Duration::MAX`.
pub(crate) struct Lazy<F> {
    inner: Pin<Box<F>>,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Lazy<F> {
    pub(crate) fn new(inner: F, limit: Duration) -> Self {
        Self {
            inner: Box::pin(inner),
            limit,
            timer: None,
        }
    }
}

impl<F: Future> Future for Lazy<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.inner.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        let limit = self.limit;
        if limit == Duration::MAX {
            return Poll::Pending;
        }
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_never_done_ends_at_its_limit() {
        let limit = Duration::from_secs(60);
        assert_eq!(Lazy::new(std::future::ready(1), limit).await, Some(1));
        assert_eq!(Lazy::new(std::future::pending::<()>(), limit).await, None);
    }
}
