//! A connection as a request uses it, and the body of the answer, whatever version of HTTP the endpoint speaks.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::{self, Switched};
use super::http2::{self, Stream};
use super::{Endpoint, Protocol, Upload};
use crate::error::Failure;
use crate::headers::clean_trailers;
use crate::load::InHand;

/// A place for one request.
pub(crate) enum Connection {
    /// A connection that no other request uses.
    Http1(Box<http1::Connection>),
    Http2(Stream),
}

/// Why there is no answer to a request.
pub(crate) enum Unanswered {
    /// The connection was over before it: nothing was sent.
    Unsent(Upload),
    /// It may have been carried out.
    Failed(Failure),
}

impl Connection {
    /// One that is there and that its peer has not closed, or else a new one.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(crate) async fn to(endpoint: &Arc<Endpoint>) -> Result<Self, Failure> {
        Ok(match endpoint.protocol() {
            Protocol::Http1 => Self::Http1(http1::Connection::to(endpoint).await?),
            Protocol::Http2 => Self::Http2(Stream::to(endpoint).await?),
        })
    }

    /// Whether it was there before.
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Connection::Http1(connection) => connection.is_reused(),
            Connection::Http2(stream) => stream.is_reused(),
        }
    }

    /// Sends a request, which has a `Host` and the rest of its target as its URI, and waits for the head of
    /// the answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(
        self,
        request: Request<Upload>,
    ) -> Result<Response<Received>, Unanswered> {
        match self {
            Connection::Http1(connection) => connection.send(request).await,
            Connection::Http2(stream) => stream.send(request).await,
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
    body: Incoming,
    source: Source,
    in_hand: Option<InHand>,
}

/// Where the rest of a body comes from.
enum Source {
    /// It is there already.
    Done,
    /// A connection that has to be moved on, and can be used again at its end.
    Http1(Box<http1::Connection>),
    /// A connection that moves by itself.
    Http2 {
        _line: Arc<http2::Line>,
        has_trailers: bool,
    },
    /// There is none: the connection has left HTTP.
    Switched(Box<Switched>),
}

impl Received {
    pub(super) fn over_http1(body: Incoming, connection: Option<Box<http1::Connection>>) -> Self {
        let source = connection.map_or(Source::Done, Source::Http1);
        Self::new(body, source)
    }

    pub(super) fn over_http2(body: Incoming, line: Arc<http2::Line>) -> Self {
        Self::new(
            body,
            Source::Http2 {
                _line: line,
                has_trailers: false,
            },
        )
    }

    pub(super) fn switched(body: Incoming, switched: Switched) -> Self {
        Self {
            body,
            source: Source::Switched(Box::new(switched)),
            in_hand: None,
        }
    }

    fn new(body: Incoming, source: Source) -> Self {
        let mut received = Self {
            body,
            source,
            in_hand: None,
        };
        if http_body::Body::is_end_stream(&received.body) {
            received.end();
        }
        received
    }

    /// Counts as work of its endpoint until it is read.
    pub(crate) fn holding(mut self, in_hand: Option<InHand>) -> Self {
        self.in_hand = in_hand.filter(|_| !matches!(self.source, Source::Done));
        self
    }

    /// The connection, if it has left HTTP.
    pub(crate) fn into_switched(self) -> Option<Switched> {
        match self.source {
            Source::Switched(switched) => Some(*switched),
            _ => None,
        }
    }

    /// The body has been read.
    fn end(&mut self) {
        self.in_hand = None;
        if let Source::Http1(connection) = std::mem::replace(&mut self.source, Source::Done) {
            connection.rest();
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { body, source, .. } = &mut *self;
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
                    *source = Source::Done;
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
        match &frame {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) if !body.is_end_stream() => {}
            Poll::Ready(Some(Ok(_)) | None) => self.end(),
            Poll::Ready(Some(Err(_))) => self.source = Source::Done,
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
