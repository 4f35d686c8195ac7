//! A connection as a request uses it, and the body of the answer, whatever version of HTTP the endpoint speaks.

use std::cmp;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use bytes::{Bytes, BytesMut};
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::driven::{Driven, Switched};
use super::http1;
use super::http2::{self, Stream};
use super::{Endpoint, Outgoing, Protocol, Upload};
use crate::error::Failure;
use crate::headers::clean_trailers;
use crate::load::InHand;

/// A place for one request.
pub(crate) enum Connection {
    /// A connection that no other request uses.
    Http1(Box<http1::Connection>),
    Http2(Box<Stream>),
}

/// Why there is no answer to a request.
pub(crate) enum Unanswered {
    /// The connection was over before it: nothing was sent.
    Unsent(Box<Upload>),
    /// It may have been carried out.
    Failed(Failure),
}

impl Connection {
    /// One that nobody uses, without waiting.
    pub(crate) fn at_rest(endpoint: &Endpoint) -> Option<Self> {
        match endpoint.protocol() {
            Protocol::Http1 => http1::Connection::at_rest(endpoint).map(Self::Http1),
            Protocol::Http2 => None,
        }
    }

    /// One where [`Connection::at_rest`] has none.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(crate) async fn to(endpoint: &Arc<Endpoint>) -> Result<Self, Failure> {
        Ok(match endpoint.protocol() {
            Protocol::Http1 => Self::Http1(http1::Connection::new(endpoint).await?),
            Protocol::Http2 => Self::Http2(Box::new(Stream::to(endpoint).await?)),
        })
    }

    /// Whether it was there before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Connection::Http1(connection) => connection.is_reused(),
            Connection::Http2(stream) => stream.is_reused(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(
        self,
        request: Box<Outgoing>,
    ) -> Result<Response<Received>, Unanswered> {
        match self {
            Connection::Http1(connection) => connection.send(request).await,
            // Apart, so that the other need not be as long.
            Connection::Http2(stream) => Box::pin(stream.send(*request)).await,
        }
    }
}

impl Unanswered {
    pub(super) fn of<T>(mut error: hyper::client::conn::TrySendError<T>) -> Result<T, Failure> {
        match error.take_message() {
            Some(message) => Ok(message),
            None => Err(Failure::of_exchange(error.error())),
        }
    }
}

/// The body of an answer.
pub(crate) struct Received {
    content: Content,
    in_hand: Option<InHand>,
}

enum Content {
    Sized(Sized),
    Incoming(Incoming, Source),
}

/// A body of a known length.
struct Sized {
    /// What has come of it.
    ahead: Bytes,
    left: usize,
    /// Where the rest comes from, and goes to.
    connection: Option<Box<http1::Connection>>,
    room: BytesMut,
}

/// Where the rest of a body comes from that hyper reads.
enum Source {
    /// It is there already.
    Done,
    /// A connection that has to be moved on, and can be used again at its end.
    Http1(Box<Driven>),
    /// A connection that moves by itself.
    Http2 {
        _line: Arc<http2::Line>,
        has_trailers: bool,
    },
    /// There is none: the connection has left HTTP.
    Switched(Box<Switched>),
}

impl Sized {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let data = match &mut self.connection {
            _ if !self.ahead.is_empty() => Ok(std::mem::take(&mut self.ahead)),
            Some(connection) => ready!(connection.poll_read(&mut self.room, self.left, cx)),
            None => Ok(Bytes::new()),
        };
        let data = match data {
            Ok(data) if !data.is_empty() => data,
            broken => {
                *self = Self {
                    ahead: Bytes::new(),
                    left: 0,
                    connection: None,
                    room: BytesMut::new(),
                };
                let cut_off = io::ErrorKind::UnexpectedEof.into();
                return Poll::Ready(Some(Err(broken.err().unwrap_or(cut_off))));
            }
        };
        self.left -= data.len();
        if self.left == 0
            && let Some(connection) = self.connection.take()
        {
            connection.rest();
        }
        Poll::Ready(Some(Ok(data)))
    }
}

impl Received {
    /// Of this length, of which this has come.
    pub(super) fn sized(
        connection: Box<http1::Connection>,
        length: usize,
        mut ahead: Bytes,
    ) -> Self {
        let connection = match ahead.len().cmp(&length) {
            cmp::Ordering::Less => Some(connection),
            cmp::Ordering::Equal => {
                connection.rest();
                None
            }
            // Nobody has asked for what comes behind it.
            cmp::Ordering::Greater => {
                ahead.truncate(length);
                None
            }
        };
        Self {
            content: Content::Sized(Sized {
                ahead,
                left: length,
                connection,
                room: BytesMut::new(),
            }),
            in_hand: None,
        }
    }

    pub(super) fn driven(body: Incoming, connection: Option<Box<Driven>>) -> Self {
        Self::incoming(body, connection.map_or(Source::Done, Source::Http1))
    }

    pub(super) fn over_http2(body: Incoming, line: Arc<http2::Line>) -> Self {
        let source = Source::Http2 {
            _line: line,
            has_trailers: false,
        };
        Self::incoming(body, source)
    }

    pub(super) fn switched(body: Incoming, switched: Switched) -> Self {
        Self {
            content: Content::Incoming(body, Source::Switched(Box::new(switched))),
            in_hand: None,
        }
    }

    fn incoming(body: Incoming, source: Source) -> Self {
        let is_over = body.is_end_stream();
        let mut received = Self {
            content: Content::Incoming(body, source),
            in_hand: None,
        };
        if is_over {
            received.end();
        }
        received
    }

    /// Counts as work of its endpoint until it is read.
    pub(crate) fn holding(mut self, in_hand: Option<InHand>) -> Self {
        let is_here = match &self.content {
            Content::Sized(sized) => sized.connection.is_none(),
            Content::Incoming(_, source) => matches!(source, Source::Done),
        };
        self.in_hand = in_hand.filter(|_| !is_here);
        self
    }

    /// The connection, if it has left HTTP.
    pub(crate) fn into_switched(self) -> Option<Switched> {
        match self.content {
            Content::Incoming(_, Source::Switched(switched)) => Some(*switched),
            _ => None,
        }
    }

    /// The body has been read.
    fn end(&mut self) {
        self.in_hand = None;
        if let Content::Incoming(_, source) = &mut self.content
            && let Source::Http1(connection) = std::mem::replace(source, Source::Done)
        {
            connection.rest();
        }
    }
}

/// What comes next of a body that hyper reads.
fn poll_incoming(
    body: &mut Incoming,
    source: &mut Source,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    let mut frame = Pin::new(&mut *body).poll_frame(cx);
    if frame.is_pending()
        && let Source::Http1(connection) = source
    {
        // It reads what was asked for just now.
        let is_over = connection.is_over(cx);
        if is_over {
            *source = Source::Done;
        }
        frame = Pin::new(&mut *body).poll_frame(cx);
    }
    if let Source::Http2 { has_trailers, .. } = source {
        match &frame {
            Poll::Ready(Some(Ok(frame))) => *has_trailers |= frame.is_trailers(),
            // hyper takes a stream that was reset without an error for one that has ended.
            Poll::Ready(None)
                if !*has_trailers
                    && !body.is_end_stream()
                    && body.size_hint().exact() != Some(0) =>
            {
                let cut_off = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Poll::Ready(Some(Err(cut_off.into())));
            }
            _ => {}
        }
    }
    if let Poll::Ready(Some(Ok(frame))) = &mut frame
        && let Some(trailers) = frame.trailers_mut()
    {
        clean_trailers(trailers);
    }
    frame.map_err(Into::into)
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = match &mut self.content {
            Content::Sized(sized) => sized
                .poll(cx)
                .map(|data| data.map(|data| data.map(Frame::data).map_err(Into::into))),
            Content::Incoming(body, source) => poll_incoming(body, source, cx),
        };
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) if !self.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => self.end(),
            Poll::Ready(Some(Err(_))) => {
                if let Content::Incoming(_, source) = &mut self.content {
                    *source = Source::Done;
                }
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Sized(sized) => sized.left == 0,
            Content::Incoming(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Sized(sized) => SizeHint::with_exact(sized.left as u64),
            Content::Incoming(body, _) => body.size_hint(),
        }
    }
}
