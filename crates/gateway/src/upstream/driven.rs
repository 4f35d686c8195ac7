//! A connection of HTTP/1.1 in the hands of hyper: for long bodies, and for answers whose length is not known
//! when they begin.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::client::conn::http1;

use super::http1::{Connection, Rested};
use super::socket::Socket;
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Received, Unanswered, Upload};
use crate::error::Failure;
use crate::headers;

/// It is moved on by whoever waits for the answer, and then by whoever reads its body, which gives it back at
/// its end.
pub(crate) struct Driven {
    sender: http1::SendRequest<Upload>,
    driver: http1::Connection<Socket, Upload>,
    rested: Rested,
}

/// A connection that has left HTTP.
pub(crate) struct Switched {
    pub(crate) socket: Socket,
    /// What came right behind the answer.
    pub(crate) ahead: Bytes,
}

impl Driven {
    async fn new(connection: Box<Connection>) -> Result<Box<Self>, Failure> {
        let Connection { socket, rested } = *connection;
        let mut builder = http1::Builder::new();
        builder
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX);
        let shaken = builder.handshake(socket).await;
        let (sender, driver) = shaken.map_err(|_| Failure::Refused)?;
        Ok(Box::new(Self {
            sender,
            driver,
            rested,
        }))
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(super) async fn send(
        connection: Box<Connection>,
        request: Request<Upload>,
    ) -> Result<Response<Received>, Unanswered> {
        let driven = Self::new(connection).await;
        driven.map_err(Unanswered::Failed)?.exchange(request).await
    }

    async fn exchange(
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
            Ok(request) => Unanswered::Unsent(Box::new(request.into_body())),
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
            let mut parts = self.driver.into_parts();
            let left = parts.io.end_replay();
            let switched = Switched {
                socket: parts.io,
                ahead: [parts.read_buf, left].concat().into(),
            };
            return Ok(response.map(|body| Received::switched(body, switched)));
        }
        // What is left of the answer has been read already.
        let connection = (!is_over).then_some(self);
        Ok(response.map(|body| Received::driven(body, connection)))
    }

    /// Reads the answer to a request by this method that was sent already, which the socket replays.
    ///
    /// # Errors
    /// [`Unanswered::Failed`].
    pub(super) async fn answer(
        connection: Box<Connection>,
        method: Method,
    ) -> Result<Response<Received>, Unanswered> {
        let (nothing, _) = Upload::new(Body::empty(), false, false);
        let mut again = Request::new(nothing);
        *again.method_mut() = method;
        let answered = Self::send(connection, again).await;
        answered.map_err(|unanswered| {
            Unanswered::Failed(match unanswered {
                Unanswered::Failed(failure) if failure.was_sent() => failure,
                _ => Failure::CutOff,
            })
        })
    }

    /// Moves it on, for whoever reads the answer. It is over when its peer or itself has closed it.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.driver).poll(cx).is_ready()
    }

    /// Gives it back, if it can be used again.
    pub(super) fn rest(mut self: Box<Self>) {
        let mut cx = Context::from_waker(Waker::noop());
        if !Pin::new(&mut self.driver).poll(&mut cx).is_pending() || !self.sender.is_ready() {
            return;
        }
        let mut parts = self.driver.into_parts();
        if parts.io.end_replay().is_empty() && parts.read_buf.is_empty() {
            let (socket, rested) = (parts.io, self.rested);
            Box::new(Connection { socket, rested }).rest();
        }
    }
}
