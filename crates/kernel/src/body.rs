//! Request bodies with a size and a deadline.
//!
//! The edge wraps every body in a [`Bounded`]; reading it with [`read`] gives bytes or the right
//! [`ApiError`].

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::Sleep;

use crate::error::ApiError;

/// How much of a body that is too long is read and thrown away, so that its sender, still writing,
/// sees the answer and not a reset connection.
const DRAIN_BYTES_MAX: usize = 4 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Over the limit of that many bytes.
    #[error("body over {0} bytes")]
    TooLarge(usize),
    /// No memory left for bodies that come in pieces.
    #[error("too many bodies at once")]
    NoRoom,
    /// Not complete in that time.
    #[error("body not complete within {} ms", .0.as_millis())]
    TooSlow(Duration),
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge(max) => ApiError::payload_too_large(format!(
                "the body is longer than {max} bytes; send less at once"
            )),
            BodyError::NoRoom => {
                ApiError::unavailable("too many long bodies are on their way; try again soon", 1)
            }
            BodyError::TooSlow(limit) => ApiError::request_timeout(format!(
                "the body did not arrive within {} ms",
                limit.as_millis()
            )),
        }
    }
}

/// The buffer of a body that comes in pieces has this at least. The allocator keeps pages of 4 MiB
/// for each thread and each length from 64 to 512 KiB, and returns what is longer.
const BUFFER_BYTES_MIN: usize = 1 << 20;

/// Memory that the bodies of all requests share until these are answered. A body takes the length that
/// its head states as soon as its first piece is there, so those that find no room cost nothing, and no
/// buffer has to grow. A short one that is here when its request begins is not counted: most are dealt
/// with at once.
#[derive(Debug)]
pub struct Budget {
    bytes_left: AtomicUsize,
}

impl Budget {
    /// For this many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_left: AtomicUsize::new(bytes_max),
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        let order = Ordering::Relaxed;
        self.bytes_left.fetch_update(order, order, less).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes_left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What the body of one request has taken of a [`Budget`]. The edge keeps it until the request is
/// answered, because the body is in memory until then; dropping it gives everything back.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
    unread: Mutex<Option<Body>>,
}

impl Share {
    /// Nothing yet.
    pub fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self {
            budget,
            bytes: AtomicUsize::new(0),
            unread: Mutex::new(None),
        })
    }

    /// What whoever had the body did not read of it.
    pub fn unread(&self) -> Option<Body> {
        self.unread.lock().take()
    }

    /// Raises what is taken to `bytes`; whether there was room.
    fn raise(&self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes.load(Ordering::Relaxed));
        let is_taken = self.budget.take(more);
        if is_taken {
            self.bytes.fetch_add(more, Ordering::Relaxed);
        }
        is_taken
    }

    fn give_back(&self) {
        self.budget.give_back(self.bytes.swap(0, Ordering::Relaxed));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A body that ends with a [`BodyError`] when it gets too long or too slow, or finds no room.
pub struct Bounded {
    inner: Body,
    left: usize,
    max: usize,
    deadline: Duration,
    /// `None`: what is read is not kept.
    share: Option<Arc<Share>>,
    /// What comes after this verdict is read and thrown away.
    found_no_room: bool,
    /// Nothing more is to be had of it.
    is_over: bool,
    /// Armed only when the body did not come with the head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    /// Wraps `inner`. Without a share it is to be read and thrown away.
    pub fn new(
        inner: Body,
        bytes_max: usize,
        deadline: Duration,
        share: Option<Arc<Share>>,
    ) -> Self {
        Self {
            inner,
            left: bytes_max,
            max: bytes_max,
            deadline,
            share,
            found_no_room: false,
            is_over: false,
            timer: None,
        }
    }
}

impl Bounded {
    /// Whether there is room for the `bytes` that have come and for those that are known to follow. If
    /// not, nothing is taken any more.
    fn has_room(&self, bytes: usize) -> bool {
        let Some(share) = &self.share else {
            return true;
        };
        let has_room = share.raise(bytes.saturating_add(coming(&self.inner)));
        if !has_room {
            share.give_back();
        }
        has_room
    }
}

/// How many bytes of a body are known to follow.
fn coming(body: &impl http_body::Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

impl Drop for Bounded {
    /// An answer that leaves some of the body unread would end the connection.
    fn drop(&mut self) {
        if let Some(share) = &self.share
            && !self.is_over
            && !http_body::Body::is_end_stream(&self.inner)
        {
            *share.unread.lock() = Some(std::mem::take(&mut self.inner));
        }
    }
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                if length > self.left {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(BodyError::TooLarge(self.max).into())));
                }
                self.left -= length;
                let bytes = self.max - self.left;
                let came_with_head = bytes == length && self.inner.is_end_stream();
                if self.found_no_room || !(came_with_head || self.has_room(bytes)) {
                    self.found_no_room = true;
                    self.is_over = true;
                    return Poll::Ready(Some(Err(BodyError::NoRoom.into())));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending => {
                let deadline = self.deadline;
                let timer = self
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => {
                        self.is_over = true;
                        Poll::Ready(Some(Err(BodyError::TooSlow(deadline).into())))
                    }
                    Poll::Pending => Poll::Pending,
                }
            }
            Poll::Ready(other) => {
                self.is_over = true;
                Poll::Ready(other.map(|r| r.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Reads a whole body.
///
/// # Errors
/// 413 or 408 for a body that broke its bounds, 400 for one that broke off.
pub async fn read(mut body: Body) -> Result<Bytes, ApiError> {
    let mut first: Option<Bytes> = None;
    let mut joined: Option<Vec<u8>> = None;
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                drop((first, joined));
                return Err(failed(&error, body).await);
            }
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let begin = first.take();
        if begin.is_none() && joined.is_none() {
            first = Some(data);
            continue;
        }
        let coming = coming(&body);
        let all = joined.get_or_insert_default();
        if let Some(begin) = begin {
            join(all, &begin, data.len().saturating_add(coming));
        }
        join(all, &data, coming);
    }
    Ok(joined.map_or_else(|| first.unwrap_or_default(), Bytes::from))
}

/// Appends a piece of a body of which `coming` bytes are known to follow. Where that is unknown the buffer
/// doubles.
fn join(all: &mut Vec<u8>, piece: &[u8], coming: usize) {
    if all.capacity() - all.len() < piece.len() {
        let length = all.len() + piece.len();
        let capacity = match coming {
            0 => length.max(2 * all.len()),
            _ => length.saturating_add(coming),
        };
        all.reserve_exact(capacity.max(BUFFER_BYTES_MIN) - all.len());
    }
    all.extend_from_slice(piece);
}

/// Reads a whole body that must be JSON, or state no type at all.
///
/// # Errors
/// 415, or what [`read`] says.
pub async fn read_json(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    check_json(headers)?;
    read(body).await
}

/// Refuses a body that is stated to be anything but JSON, or to be encoded.
///
/// # Errors
/// 415.
pub fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    check_encoding(headers)?;
    match headers.get(header::CONTENT_TYPE) {
        Some(stated) if stated != "application/json" && !is_json(stated) => {
            Err(ApiError::unsupported_media_type(
                "the body must be JSON; send it with Content-Type: application/json",
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses a body that is stated to be encoded.
///
/// # Errors
/// 415.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            let error = ApiError::unsupported_media_type(
                "that Content-Encoding is not read here; send the body as it is",
            );
            let identity = HeaderValue::from_static("identity");
            Err(error.with_header(header::ACCEPT_ENCODING, identity))
        }
        _ => Ok(()),
    }
}

/// `application/json` or `…/…+json`, with or without parameters.
fn is_json(stated: &HeaderValue) -> bool {
    let essence = stated
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    match essence.split_once('/') {
        Some((kind, subtype)) => {
            let subtype = subtype.to_ascii_lowercase();
            !kind.is_empty()
                && (kind.eq_ignore_ascii_case("application") && subtype == "json"
                    || subtype.len() > 5 && subtype.ends_with("+json"))
        }
        None => false,
    }
}

async fn failed(error: &axum::Error, rest: Body) -> ApiError {
    if let Some(BodyError::TooLarge(_) | BodyError::NoRoom) = broken_bound(error) {
        drain(rest).await;
    }
    error_of(error)
}

/// What a client is told whose body ended with this error.
pub fn error_of(error: &axum::Error) -> ApiError {
    match broken_bound(error) {
        Some(bound) => bound.into(),
        None => ApiError::malformed("the body broke off before its end"),
    }
}

fn broken_bound(error: &axum::Error) -> Option<BodyError> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if let Some(bound) = inner.downcast_ref() {
            return Some(*bound);
        }
        source = inner.source();
    }
    None
}

/// Reads a little of what is still coming, within bounds, and forgets it.
pub async fn drain(mut body: Body) {
    let mut left = DRAIN_BYTES_MAX;
    let reading = async {
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => match left.checked_sub(frame.data_ref().map_or(0, Buf::remaining)) {
                    Some(rest) => left = rest,
                    None => return,
                },
                // A bounded body repeats its verdict for what comes after; keep reading past it.
                Err(error) => match broken_bound(&error) {
                    Some(BodyError::TooLarge(_) | BodyError::NoRoom) => {
                        left = left.saturating_sub(16 << 10)
                    }
                    _ => return,
                },
            }
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn chunks(sizes: &'static [usize]) -> Body {
        let frames = sizes
            .iter()
            .map(|n| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; *n]))));
        Body::new(StreamBody::new(futures_util::stream::iter(frames)))
    }

    async fn read_bounded(body: Body, max: usize) -> Result<usize, u16> {
        let share = Share::new(Arc::new(Budget::new(1_000_000)));
        let bounded = Bounded::new(body, max, Duration::from_secs(30), Some(share));
        read(Body::new(bounded))
            .await
            .map(|b| b.len())
            .map_err(|e| e.status().as_u16())
    }

    #[tokio::test]
    async fn bodies_are_read_up_to_their_limit() {
        assert_eq!(read_bounded(chunks(&[]), 10).await, Ok(0));
        assert_eq!(read_bounded(chunks(&[4, 3, 3]), 10).await, Ok(10));
        assert_eq!(read_bounded(chunks(&[4, 3, 4]), 10).await, Err(413));
        assert_eq!(
            read_bounded(chunks(&[4, 900_000, 900_000]), 10).await,
            Err(413)
        );
    }

    #[tokio::test]
    async fn bodies_share_a_budget_until_their_requests_are_answered() {
        let budget = Arc::new(Budget::new(10));
        let request = |sizes| {
            let share = Share::new(budget.clone());
            let limit = Duration::from_secs(30);
            let body = Bounded::new(chunks(sizes), 100, limit, Some(share.clone()));
            (Body::new(body), share)
        };
        let (body, share) = request(&[6, 1]);
        let bytes = read(body).await.expect("room");
        assert_eq!(bytes.len(), 7);
        let refused = read(request(&[6, 1]).0).await.expect_err("no room");
        assert_eq!(refused.status(), 503);
        drop(share);
        assert_eq!(
            read(request(&[6, 1]).0).await.map(|b| b.len()).ok(),
            Some(7)
        );
        assert_eq!(budget.bytes_left.load(Ordering::Relaxed), 10);
    }

    /// A body whose head states its length, and whose second piece never comes.
    struct Promise {
        first: Option<Bytes>,
        length: u64,
    }

    impl http_body::Body for Promise {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            match self.first.take() {
                Some(first) => {
                    self.length -= first.len() as u64;
                    Poll::Ready(Some(Ok(Frame::data(first))))
                }
                None => Poll::Pending,
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    #[tokio::test]
    async fn a_body_takes_its_stated_length_with_its_first_piece() {
        let budget = Arc::new(Budget::new(1000));
        let promise = |kept: bool| {
            let share = kept.then(|| Share::new(budget.clone()));
            let promise = Body::new(Promise {
                first: Some(Bytes::from_static(b"a piece")),
                length: 600,
            });
            Bounded::new(promise, 1000, Duration::from_secs(30), share)
        };
        let left = || budget.bytes_left.load(Ordering::Relaxed);
        let mut thrown_away = promise(false);
        assert!(thrown_away.frame().await.is_some_and(|frame| frame.is_ok()));
        assert_eq!(left(), 1000);
        let mut first = promise(true);
        assert!(first.frame().await.is_some_and(|frame| frame.is_ok()));
        assert_eq!(left(), 400);
        let mut second = promise(true);
        assert!(second.frame().await.is_some_and(|frame| frame.is_err()));
        assert_eq!(left(), 400);
        drop((first, second));
        assert_eq!(left(), 1000);
    }

    #[test]
    fn a_buffer_never_grows_where_the_length_is_known_and_doubles_where_it_is_not() {
        let read = |length_is_known| {
            let (mut all, mut coming, mut grown) = (Vec::new(), 4_000_000, 0);
            while coming > 0 {
                coming -= 16_000;
                let before = all.capacity();
                join(
                    &mut all,
                    &[b'x'; 16_000],
                    if length_is_known { coming } else { 0 },
                );
                grown += usize::from(all.capacity() != before);
            }
            (all.len(), all.capacity(), grown)
        };
        assert_eq!(read(true), (4_000_000, 4_000_000, 1));
        let (_, capacity, grown) = read(false);
        assert!(
            capacity < 8_000_000 && grown < 4,
            "{capacity}, {grown} times"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_body_ends_at_its_deadline() {
        let stalled = Body::new(StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, BodyError>,
        >()));
        assert_eq!(read_bounded(stalled, 10).await, Err(408));
    }
}
