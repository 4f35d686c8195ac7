//! One connection of HTTP/1.1 to an endpoint.
//!
//! No task stands between: whoever waits for the answer moves the connection on, and so does whoever reads
//! the body of the answer, which gives the connection back at its end. Whoever leaves drops the
//! connection, and with it what the service was doing.
//!
//! A request that is here as a whole is written at once, and an answer that states its length is read as it is.
//! Everything else is hyper's: long bodies from the begin, and answers of another kind from their first byte on, for
//! which hyper is made to believe that it had sent the request.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use auspex_kernel::http::head::{FIELDS_MAX, plain_fields, plain_length, write_field};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Response, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::driven::Driven;
use super::socket::Socket;
use super::{Endpoint, Limits, Outgoing, Received, Unanswered, is_refusal, pool};
use crate::error::Failure;

/// What is read at once of an answer, and of a long body.
const READ_BYTES: usize = 8 << 10;
const BODY_READ_BYTES: usize = 64 << 10;

/// What a request usually takes.
const WRITTEN_BYTES_USUAL: usize = 1 << 10;
/// Bodies that go with their head. Sockets take so much without anybody reading it.
const WHOLE_BYTES_MAX: usize = 8 << 10;

/// A connection that no other request uses.
pub(crate) struct Connection {
    pub(super) socket: Socket,
    pub(super) rested: Rested,
}

/// What a connection is kept by.
#[derive(Clone, Copy)]
pub(super) struct Rested {
    pub(super) endpoint: u64,
    pub(super) limits: Limits,
    /// It was at rest before.
    is_reused: bool,
    /// Not all of a request could be written.
    is_broken: bool,
}

impl Connection {
    /// One at rest, if there is one that its peer has not closed.
    pub(super) fn at_rest(endpoint: &Endpoint) -> Option<Box<Self>> {
        loop {
            let mut resting = pool::take(endpoint.id)?;
            if resting.socket.is_silent() {
                resting.rested.is_reused = true;
                return Some(resting);
            }
        }
    }

    /// A new one.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(super) async fn new(endpoint: &Endpoint) -> Result<Box<Self>, Failure> {
        Ok(Box::new(Self {
            socket: Socket::new(endpoint.connect().await?),
            rested: Rested {
                endpoint: endpoint.id,
                limits: endpoint.limits,
                is_reused: false,
                is_broken: false,
            },
        }))
    }

    pub(super) fn is_reused(&self) -> bool {
        self.rested.is_reused
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(super) async fn send(
        mut self: Box<Self>,
        mut request: Box<Outgoing>,
    ) -> Result<Response<Received>, Unanswered> {
        if !self.rested.is_reused && self.socket.was_closed_at_once() {
            return Err(Unanswered::Unsent(Box::new(request.body)));
        }
        let Some(written) = whole(&mut request) else {
            return Box::pin(Driven::send(self, request.into_request())).await;
        };
        let came = self.exchange(&written).await;
        let came = came.map_err(|error| Unanswered::Failed(Failure::of_io(&error)))?;
        if came.is_empty() {
            return Err(Unanswered::Failed(Failure::CutOff));
        }
        match sized(&came) {
            Some(answer) => Ok(answer.map(|(length, begin)| Received::sized(self, length, begin))),
            None => {
                self.socket.replay(came);
                Box::pin(Driven::answer(self, request.method)).await
            }
        }
    }

    /// Writes a request and reads the begin of what comes. Nothing: the peer has closed the connection.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<Bytes> {
        let transport = self.socket.transport();
        // Behind those of the same turn, so that services are woken once for all of them.
        tokio::task::yield_now().await;
        let sent = async {
            transport.write_all(request).await?;
            transport.flush().await
        };
        let sent = sent.await;
        self.rested.is_broken = sent.is_err();
        // Who refuses a request may say so and close the connection before it has read everything.
        let mut came = BytesMut::with_capacity(READ_BYTES);
        let read = transport.read_buf(&mut came).await;
        match (read, sent) {
            (Ok(1..), _) => Ok(came.freeze()),
            (Err(said), Err(_)) if is_refusal(&said) => Err(said),
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
            (Ok(0), Ok(())) => Ok(Bytes::new()),
        }
    }

    /// Reads at most so much of the body of an answer. Nothing: the peer has closed the connection. What of
    /// the room is left is for the next call.
    pub(super) fn poll_read(
        &mut self,
        room: &mut BytesMut,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        if room.capacity() < most.min(BODY_READ_BYTES / 16) {
            room.reserve(most.min(BODY_READ_BYTES));
        }
        let most = most.min(room.capacity());
        let mut limited = (&mut *room).limit(most);
        let reading = pin!(self.socket.transport().read_buf(&mut limited));
        ready!(reading.poll(cx))?;
        Poll::Ready(Ok(room.split().freeze()))
    }

    /// Gives it back, if it can be used again.
    pub(super) fn rest(self: Box<Self>) {
        if !self.rested.is_broken {
            pool::keep(self);
        }
    }
}

/// A short request that is here as a whole, and whose answer may be a plain one: what is to be written.
fn whole(request: &mut Outgoing) -> Option<Vec<u8>> {
    let is_other = [Method::HEAD, Method::CONNECT].contains(&request.method);
    let target = request.target.path_and_query();
    let target = target.map_or("/", |target| target.as_str());
    if is_other || !target.starts_with('/') {
        return None;
    }
    let mut written = Vec::with_capacity(WRITTEN_BYTES_USUAL);
    written.extend_from_slice(request.method.as_str().as_bytes());
    written.push(b' ');
    written.extend_from_slice(target.as_bytes());
    written.extend_from_slice(b" HTTP/1.1\r\n");
    let mut length = 0;
    for (name, value) in &request.fields {
        match *name {
            header::UPGRADE | header::TRANSFER_ENCODING => return None,
            header::CONTENT_LENGTH => length = plain_length(value.as_bytes())?,
            _ => {}
        }
        write_field(name.as_str(), value.as_bytes(), &mut written);
    }
    written.extend_from_slice(b"\r\n");
    if length > WHOLE_BYTES_MAX {
        return None;
    }
    let body = request.body.whole(length)?;
    written.extend_from_slice(&body);
    Some(written)
}

/// The head of an answer that states its length, which is given with the begin of its body. `None`: it is another.
fn sized(came: &Bytes) -> Option<Response<(usize, Bytes)>> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_length) = head.parse(came).ok()? else {
        return None;
    };
    let status = StatusCode::from_u16(head.code?).ok()?;
    let has_body = !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED;
    // Other words for a status are told on by hyper alone.
    let has_usual_reason = head.reason == status.canonical_reason();
    if head.version != Some(1) || !has_body || !has_usual_reason {
        return None;
    }
    let (headers, length) = plain_fields(came, head.headers)?;
    let mut response = Response::new((length?, came.slice(head_length..)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}
