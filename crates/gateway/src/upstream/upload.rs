//! The body of a request on its way, and how far it is: who is waited for decides whose fault a silence is. A
//! short one is kept, so that it can be sent again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

use crate::headers::clean_trailers;

/// Bodies up to this length are kept.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// A body that tells how far it is.
pub(crate) struct Upload {
    body: Body,
    /// What was taken of it already.
    ahead: Option<Piece>,
    /// `None`: there is nothing to send.
    progress: Option<Arc<Progress>>,
    with_trailers: bool,
}

/// How far the body of a request is.
#[derive(Debug)]
pub(crate) struct Progress {
    /// When the exchange began, and after how many milliseconds the last piece was handed over.
    begun: Instant,
    moved_ms: AtomicU64,
    /// The client has to send the next one.
    waits_for_client: AtomicBool,
    is_done: AtomicBool,
    has_failed: AtomicBool,
    kept: Mutex<Kept>,
}

/// What of a body can be sent again.
#[derive(Debug, Default)]
enum Kept {
    /// Nothing: it is too long, or need not be sent again.
    #[default]
    Not,
    /// Its begin. A body in one piece is not copied.
    Piece(Bytes),
    Pieces(BytesMut),
}

impl Upload {
    /// `is_kept`: the body may have to be sent again. `with_trailers`: they pass, which they do where it is plain
    /// that they are some.
    pub(crate) fn new(
        body: Body,
        is_kept: bool,
        with_trailers: bool,
    ) -> (Self, Option<Arc<Progress>>) {
        let is_empty = body.is_end_stream();
        let is_short = body.size_hint().lower() <= KEPT_BYTES_MAX as u64;
        let kept = match is_kept && is_short {
            true => Kept::Piece(Bytes::new()),
            false => Kept::Not,
        };
        let progress = (!is_empty).then(|| {
            Arc::new(Progress {
                begun: monotonic(),
                moved_ms: AtomicU64::new(0),
                waits_for_client: AtomicBool::new(false),
                is_done: AtomicBool::new(false),
                has_failed: AtomicBool::new(false),
                kept: Mutex::new(kept),
            })
        });
        let upload = Self {
            body,
            ahead: None,
            progress: progress.clone(),
            with_trailers,
        };
        (upload, progress)
    }

    /// The whole body, if all of it is here and of this length.
    pub(super) fn whole(&mut self, length: usize) -> Option<Bytes> {
        if length == 0 && self.is_end_stream() {
            return Some(Bytes::new());
        }
        let frame = self.frame().now_or_never()??;
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) if self.is_end_stream() && data.len() == length => return Some(data),
            Ok(Ok(data)) => self.ahead = Some(Ok(Frame::data(data))),
            Ok(Err(frame)) => self.ahead = Some(Ok(frame)),
            Err(error) => self.ahead = Some(Err(error)),
        }
        None
    }

    /// The body, as far as it has not been sent.
    pub(crate) fn into_body(self) -> Body {
        match self.ahead {
            Some(ahead) => Body::new(Rejoined {
                ahead: Some(ahead),
                rest: self.body,
            }),
            None => self.body,
        }
    }
}

type Piece = Result<Frame<Bytes>, axum::Error>;

/// How much there is with this before it.
fn behind(ahead: Option<&Piece>, mut rest: SizeHint) -> SizeHint {
    let data = ahead.and_then(|ahead| ahead.as_ref().ok()?.data_ref());
    let length = data.map_or(0, |data| data.len() as u64);
    if let Some(upper) = rest.upper() {
        rest.set_upper(upper.saturating_add(length));
    }
    rest.set_lower(rest.lower().saturating_add(length));
    rest
}

/// A body of which something was taken and put back.
struct Rejoined {
    ahead: Option<Piece>,
    rest: Body,
}

impl http_body::Body for Rejoined {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self.ahead.take() {
            Some(ahead) => Poll::Ready(Some(ahead)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        behind(self.ahead.as_ref(), self.rest.size_hint())
    }
}

impl Progress {
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn note_move(&self) {
        let ms = self.begun.elapsed().as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        self.moved_ms.store(ms, Ordering::Relaxed);
    }

    /// Since when the service is the one that is waited for: since the last piece of the body, or not at all where its
    /// client has to send the next one.
    pub(crate) fn waits_since(&self) -> Instant {
        let waits = self.waits_for_client.load(Ordering::Relaxed);
        if waits && !self.is_done.load(Ordering::Relaxed) {
            return monotonic();
        }
        self.begun + Duration::from_millis(self.moved_ms.load(Ordering::Relaxed))
    }

    /// The whole body, if it has come to its end and was kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        if !self.is_done.load(Ordering::Relaxed) {
            return None;
        }
        match std::mem::take(&mut *self.kept.lock()) {
            Kept::Not => None,
            Kept::Piece(piece) => Some(piece),
            Kept::Pieces(pieces) => Some(pieces.freeze()),
        }
    }
}

impl Kept {
    fn add(&mut self, piece: &Bytes) {
        let length = match self {
            Kept::Not => return,
            Kept::Piece(first) => first.len(),
            Kept::Pieces(pieces) => pieces.len(),
        };
        if length + piece.len() > KEPT_BYTES_MAX {
            *self = Kept::Not;
            return;
        }
        match self {
            Kept::Not => {}
            Kept::Piece(first) if first.is_empty() => *first = piece.clone(),
            Kept::Piece(first) => {
                let mut pieces = BytesMut::from(&first[..]);
                pieces.extend_from_slice(piece);
                *self = Kept::Pieces(pieces);
            }
            Kept::Pieces(pieces) => pieces.extend_from_slice(piece),
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(ahead));
        }
        let Self {
            body,
            progress,
            with_trailers,
            ..
        } = &mut *self;
        let Some(progress) = progress else {
            return Pin::new(body).poll_frame(cx);
        };
        progress.waits_for_client.store(true, Ordering::Relaxed);
        let mut frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        progress.waits_for_client.store(false, Ordering::Relaxed);
        progress.note_move();
        match &mut frame {
            None => progress.is_done.store(true, Ordering::Relaxed),
            Some(Err(_)) => progress.has_failed.store(true, Ordering::Relaxed),
            Some(Ok(frame)) if frame.is_trailers() => {
                progress.is_done.store(true, Ordering::Relaxed);
                if !*with_trailers {
                    return Poll::Ready(None);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    clean_trailers(trailers);
                }
                *progress.kept.lock() = Kept::Not;
            }
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    progress.kept.lock().add(piece);
                }
                if body.is_end_stream() {
                    progress.is_done.store(true, Ordering::Relaxed);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        behind(self.ahead.as_ref(), self.body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(pieces: &'static [&'static str]) -> Upload {
        let pieces = pieces.iter().map(|piece| Ok::<_, std::io::Error>(*piece));
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        Upload::new(body, false, false).0
    }

    async fn bytes(body: Body) -> Bytes {
        body.collect().await.expect("no error").to_bytes()
    }

    #[tokio::test]
    async fn a_body_that_is_not_whole_loses_nothing_by_being_looked_at() {
        let mut upload = in_pieces(&["ab", "cd"]);
        assert_eq!(upload.whole(4), None);
        assert_eq!(upload.size_hint().lower(), 2);
        let body = upload.into_body();
        assert_eq!(body.size_hint().lower(), 2);
        assert_eq!(bytes(body).await, "abcd");
        let mut upload = in_pieces(&["ab", "cd"]);
        assert_eq!(upload.whole(2), None);
        assert_eq!(bytes(Body::new(upload)).await, "abcd");
    }

    #[tokio::test]
    async fn a_whole_body_has_the_length_that_was_stated() {
        let whole = |length| Upload::new(Body::from("ab"), false, false).0.whole(length);
        assert_eq!(whole(2), Some(Bytes::from("ab")));
        assert_eq!((whole(0), whole(1), whole(3)), (None, None, None));
        let empty = |length| Upload::new(Body::empty(), false, false).0.whole(length);
        assert_eq!((empty(0), empty(1)), (Some(Bytes::new()), None));
    }
}
