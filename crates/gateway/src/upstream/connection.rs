//! One connection to an endpoint, driven by the request that uses it.
//!
//! No task stands between: whoever waits for the answer moves the connection on, and so does whoever reads
//! the body of the answer, which gives the connection back at its end. Whoever leaves drops the
//! connection, and with it what the service was doing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;

use super::socket::{Look, Socket};
use super::{Endpoint, Limits, Upload, pool};
use crate::error::Failure;
use crate::load::InHand;

/// Fields of the head of an answer; hyper's default is 100.
const HEADERS_MAX: usize = 256;
/// Bytes of the head of an answer, and of what is read ahead of its body.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// A connection that no other request uses.
pub(crate) struct Connection {
    sender: http1::SendRequest<Upload>,
    driver: http1::Connection<Socket, Upload>,
    look: Look,
    endpoint: u64,
    limits: Limits,
    /// It was at rest before.
    is_reused: bool,
}

/// Why there is no answer to a request.
pub(crate) enum Unanswered {
    /// The connection was over before it: nothing was sent.
    Unsent(Upload),
    /// It may have been carried out.
    Failed(Failure),
}

impl Connection {
    /// One at rest, if there is one that its peer has not closed, or else a new one.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(crate) async fn to(endpoint: &Endpoint) -> Result<Box<Self>, Failure> {
        while let Some(mut resting) = pool::take(endpoint.id) {
            if resting.is_alive() {
                resting.is_reused = true;
                return Ok(resting);
            }
        }
        let (socket, look) = Socket::new(endpoint.connect().await?);
        let mut builder = http1::Builder::new();
        builder
            .max_headers(HEADERS_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        let shaken = builder.handshake(socket).await;
        let (sender, driver) = shaken.map_err(|_| Failure::Refused)?;
        Ok(Box::new(Self {
            sender,
            driver,
            look,
            endpoint: endpoint.id,
            limits: endpoint.limits,
            is_reused: false,
        }))
    }

    pub(super) fn endpoint(&self) -> u64 {
        self.endpoint
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether its peer has neither closed it nor said anything unasked.
    fn is_alive(&mut self) -> bool {
        self.look.again();
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.driver).poll(&mut cx).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: Request<Upload>,
    ) -> Result<Response<Received>, Unanswered> {
        let mut is_over = false;
        let response = {
            let mut answered = pin!(self.sender.try_send_request(request));
            let driver = &mut self.driver;
            poll_fn(|cx| {
                // What ends the driver it tells the request too.
                is_over = is_over || Pin::new(&mut *driver).poll(cx).is_ready();
                answered.as_mut().poll(cx)
            })
            .await
        };
        let response = response.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(request.into_body()),
            None => Unanswered::Failed(Failure::of_exchange(error.error())),
        })?;
        // What is left of the answer has been read already.
        let connection = (!is_over).then_some(self);
        Ok(response.map(|body| Received::new(body, connection)))
    }

    /// Gives it back, if it can be used again.
    fn rest(mut self: Box<Self>) {
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut self.driver).poll(&mut cx).is_pending() && self.sender.is_ready() {
            pool::keep(self);
        }
    }
}

/// The body of an answer.
pub(crate) struct Received {
    body: Incoming,
    /// Until the body is read.
    connection: Option<Box<Connection>>,
    in_hand: Option<InHand>,
}

impl Received {
    fn new(body: Incoming, connection: Option<Box<Connection>>) -> Self {
        let mut received = Self {
            body,
            connection,
            in_hand: None,
        };
        received.rest_if_done();
        received
    }

    /// Counts as work of its endpoint until it is read.
    pub(crate) fn holding(mut self, in_hand: Option<InHand>) -> Self {
        self.in_hand = in_hand.filter(|_| self.connection.is_some());
        self
    }

    fn rest_if_done(&mut self) {
        if http_body::Body::is_end_stream(&self.body)
            && let Some(connection) = self.connection.take()
        {
            self.in_hand = None;
            connection.rest();
        }
    }
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self {
            body, connection, ..
        } = &mut *self;
        let mut frame = Pin::new(&mut *body).poll_frame(cx);
        if frame.is_pending()
            && let Some(driven) = connection
        {
            // It reads what was asked for just now.
            let is_over = Pin::new(&mut driven.driver).poll(cx).is_ready();
            if is_over {
                *connection = None;
            }
            frame = Pin::new(body).poll_frame(cx);
        }
        let frame = ready!(frame);
        match &frame {
            Some(Ok(_)) => self.rest_if_done(),
            None => {
                if let Some(connection) = self.connection.take() {
                    connection.rest();
                }
            }
            Some(Err(_)) => self.connection = None,
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
