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

use auspex_kernel::http::head::{FIELDS_MAX, plain_fields, write_field};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::driven::Driven;
use super::socket::Socket;
use super::{Endpoint, Limits, Received, Unanswered, Upload, pool};
use crate::error::Failure;

/// What is read at once of an answer, and of a long body.
const READ_BYTES: usize = 8 << 10;
const BODY_READ_BYTES: usize = 64 << 10;

/// Parts of a request that are sent in one piece.
const TOGETHER_BYTES_MAX: usize = 16 << 10;

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
}

impl Connection {
    /// One at rest, if there is one that its peer has not closed.
    pub(super) fn at_rest(endpoint: &Endpoint) -> Option<Self> {
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
    pub(super) async fn new(endpoint: &Endpoint) -> Result<Self, Failure> {
        Ok(Self {
            socket: Socket::new(endpoint.connect().await?),
            rested: Rested {
                endpoint: endpoint.id,
                limits: endpoint.limits,
                is_reused: false,
            },
        })
    }

    pub(super) fn is_reused(&self) -> bool {
        self.rested.is_reused
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(super) async fn send(
        mut self,
        mut request: Request<Upload>,
    ) -> Result<Response<Received>, Unanswered> {
        let Some((head, body)) = whole(&mut request) else {
            return Box::pin(Driven::send(self, request)).await;
        };
        let came = self.exchange(&head, &body).await;
        let came = came.map_err(|error| Unanswered::Failed(Failure::of_io(&error)))?;
        if came.is_empty() {
            return Err(Unanswered::Failed(Failure::CutOff));
        }
        match sized(&came) {
            Some(answer) => Ok(answer.map(|(length, begin)| Received::sized(self, length, begin))),
            None => {
                self.socket.replay(came);
                let method = request.into_parts().0.method;
                Box::pin(Driven::answer(self, method)).await
            }
        }
    }

    /// Writes a request and reads the begin of what comes. Nothing: the peer has closed the connection.
    async fn exchange(&mut self, head: &[u8], body: &[u8]) -> io::Result<Bytes> {
        let transport = self.socket.transport();
        let sent = async {
            transport.write_all(head).await?;
            transport.write_all(body).await?;
            transport.flush().await
        };
        let sent = sent.await;
        // Who refuses a request may answer and close the connection before it has read everything.
        let mut came = BytesMut::with_capacity(READ_BYTES);
        let read = transport.read_buf(&mut came).await;
        match (read, sent) {
            (Ok(1..), _) => Ok(came.freeze()),
            (_, Err(error)) | (Err(error), Ok(())) => Err(error),
            (Ok(0), Ok(())) => Ok(Bytes::new()),
        }
    }
}

impl Connection {
    /// Reads at most so much of the body of an answer. Nothing: the peer has closed the connection.
    pub(super) fn poll_read(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let most = most.min(BODY_READ_BYTES);
        let mut data = BytesMut::with_capacity(most);
        let mut room = (&mut data).limit(most);
        let reading = pin!(self.socket.transport().read_buf(&mut room));
        ready!(reading.poll(cx))?;
        Poll::Ready(Ok(data.freeze()))
    }
}

/// A request that is here as a whole, and whose answer may be a plain one: what is to be written.
fn whole(request: &mut Request<Upload>) -> Option<(Vec<u8>, Bytes)> {
    let is_other = *request.method() == Method::HEAD
        || *request.method() == Method::CONNECT
        || request.headers().contains_key(header::UPGRADE)
        || request.headers().contains_key(header::TRANSFER_ENCODING);
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    if is_other || !target.starts_with('/') {
        return None;
    }
    let mut head = Vec::with_capacity(1 << 10);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        write_field(name.as_str(), value.as_bytes(), &mut head);
    }
    head.extend_from_slice(b"\r\n");
    let body = request.body_mut().whole()?;
    if head.len() + body.len() <= TOGETHER_BYTES_MAX {
        head.extend_from_slice(&body);
        return Some((head, Bytes::new()));
    }
    Some((head, body))
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
    if head.version != Some(1) || !has_body {
        return None;
    }
    let (headers, length) = plain_fields(came, head.headers)?;
    let mut response = Response::new((length?, came.slice(head_length..)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}
