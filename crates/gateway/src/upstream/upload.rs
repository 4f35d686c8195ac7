//! The body of a request on its way, and how far it is: who is waited for decides whose fault a silence is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// A body that tells how far it is.
pub(crate) struct Upload {
    body: Body,
    /// `None`: there is nothing to send.
    progress: Option<Arc<Progress>>,
}

/// How far the body of a request is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Pieces that were handed over.
    pieces: AtomicU32,
    /// The client has to send the next one.
    waits_for_client: AtomicBool,
    is_done: AtomicBool,
    has_failed: AtomicBool,
}

impl Upload {
    pub(crate) fn new(body: Body) -> (Self, Option<Arc<Progress>>) {
        let is_empty = http_body::Body::is_end_stream(&body);
        let progress = (!is_empty).then(Arc::default);
        let upload = Self {
            body,
            progress: progress.clone(),
        };
        (upload, progress)
    }
}

impl Progress {
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Whether the body has gone on since `seen`, or waits for its client: then the service is not late.
    pub(crate) fn goes_on(&self, seen: &mut u32) -> bool {
        let pieces = self.pieces.load(Ordering::Relaxed);
        let has_moved = std::mem::replace(seen, pieces) != pieces;
        let waits = self.waits_for_client.load(Ordering::Relaxed);
        has_moved || (waits && !self.is_done.load(Ordering::Relaxed))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, progress } = &mut *self;
        let Some(progress) = progress else {
            return Pin::new(body).poll_frame(cx);
        };
        progress.waits_for_client.store(true, Ordering::Relaxed);
        let frame = ready!(Pin::new(body).poll_frame(cx));
        progress.waits_for_client.store(false, Ordering::Relaxed);
        progress.pieces.fetch_add(1, Ordering::Relaxed);
        match &frame {
            None => progress.is_done.store(true, Ordering::Relaxed),
            Some(Err(_)) => progress.has_failed.store(true, Ordering::Relaxed),
            // Trailers are for the next hop alone.
            Some(Ok(frame)) if frame.is_trailers() => return Poll::Ready(None),
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
