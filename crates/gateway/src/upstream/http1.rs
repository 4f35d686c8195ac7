//! One connection of HTTP/1.1 to an endpoint, driven by the request that uses it.
//!
//! No task stands between: whoever waits for the answer moves the connection on, and so does whoever reads
//! the body of the answer, which gives the connection back at its end. Whoever leaves drops the
//! connection, and with it what the service was doing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::client::conn::http1;

use super::socket::{Look, Socket};
use super::{Endpoint, HEAD_BYTES_MAX, HEADERS_MAX, Limits, Received, Unanswered, Upload, pool};
use crate::error::Failure;
use crate::headers;

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

/// A connection that has left HTTP.
pub(crate) struct Switched {
    pub(crate) socket: Socket,
    /// What came right behind the answer.
    pub(crate) ahead: Bytes,
}

impl Connection {
    /// One at rest, if there is one that its peer has not closed, or else a new one.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(super) async fn to(endpoint: &Endpoint) -> Result<Box<Self>, Failure> {
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
            .max_buf_size(HEAD_BYTES_MAX);
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

    pub(super) fn is_reused(&self) -> bool {
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
    pub(super) async fn send(
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
        let response = response.map_err(|error| match Unanswered::of(error) {
            Ok(request) => Unanswered::Unsent(request.into_body()),
            Err(failure) => Unanswered::Failed(failure),
        })?;
        if !headers::is_plainly_coded(response.headers()) {
            return Err(Unanswered::Failed(Failure::Invalid));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !is_over {
                // It ends as soon as it has seen the answer that it gave.
                let _ = (&mut self.driver).await;
            }
            let parts = self.driver.into_parts();
            let switched = Switched {
                socket: parts.io,
                ahead: parts.read_buf,
            };
            return Ok(response.map(|body| Received::switched(body, switched)));
        }
        // What is left of the answer has been read already.
        let connection = (!is_over).then_some(self);
        Ok(response.map(|body| Received::over_http1(body, connection)))
    }

    /// Moves it on, for whoever reads the answer. It is over when its peer or itself has closed it.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.driver).poll(cx).is_ready()
    }

    /// Gives it back, if it can be used again.
    pub(super) fn rest(mut self: Box<Self>) {
        let mut cx = Context::from_waker(Waker::noop());
        if Pin::new(&mut self.driver).poll(&mut cx).is_pending() && self.sender.is_ready() {
            pool::keep(self);
        }
    }
}
