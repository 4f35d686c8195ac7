//! A request for WebSocket (RFC 6455), and the connection after its service has agreed: bytes both ways, read
//! only as fast as the other side takes them. Other protocols are not passed on.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use hyper::rt::{Read, ReadBuf, Write};
use hyper::upgrade::OnUpgrade;

use crate::exchange::Answer;
use crate::headers;
use crate::load::InHand;
use crate::upstream::Switched;

/// The value of `Upgrade`.
pub(crate) const PROTOCOL: HeaderValue = HeaderValue::from_static("websocket");
/// Read at once.
const SCRATCH_BYTES: usize = 16 << 10;

thread_local! {
    /// Shared by all connections of a thread, so that one on which nothing moves holds no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// The client's connection, to be had once it was told 101, if it asks for WebSocket and may. That stays in the
/// extensions of the request, to say so. What else it asks for is forgotten.
pub(crate) fn asked(parts: &mut Parts, is_allowed: bool) -> Option<OnUpgrade> {
    if !parts.headers.contains_key(header::UPGRADE) {
        return None;
    }
    let client = parts.extensions.remove::<OnUpgrade>()?;
    let Parts {
        method, headers, ..
    } = &*parts;
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
    if !is_allowed || *method != Method::GET || has_body || !is_chosen(headers) {
        return None;
    }
    parts.extensions.insert(client.clone());
    Some(client)
}

/// Whether a request asks as [`asked`] found.
pub(crate) fn is_asked(parts: &Parts) -> bool {
    parts.extensions.get::<OnUpgrade>().is_some()
}

/// Whether a request asks for WebSocket and nothing else, or an answer agrees to that.
pub(crate) fn is_chosen(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none());
    let is_websocket =
        protocol.is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()));
    let mut options = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| {
            let options = value.as_bytes().split(|byte| *byte == b',');
            options.map(<[u8]>::trim_ascii)
        });
    is_websocket && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// The answer 101. After it the client and the service are joined, until one of them has gone.
pub(crate) fn join(client: OnUpgrade, answer: Answer) -> Response {
    let (mut parts, received) = answer.response.into_parts();
    headers::for_client(parts.status, &mut parts.headers);
    parts.headers.remove(header::CONTENT_LENGTH);
    let upgrade = HeaderValue::from_static("upgrade");
    parts.headers.insert(header::CONNECTION, upgrade);
    parts.headers.insert(header::UPGRADE, PROTOCOL);
    if let Some(service) = received.into_switched() {
        tokio::spawn(carry(client, service, answer.in_hand));
    }
    Response::from_parts(parts, Body::empty())
}

/// The client's side fails when the edge has ended it.
async fn carry(client: OnUpgrade, service: Switched, _in_hand: Option<InHand>) {
    let Ok(mut client) = client.await else { return };
    let Switched { mut socket, ahead } = service;
    let (mut up, mut down) = (Way::default(), Way::default());
    down.rest = ahead;
    // Whoever breaks off is seen to have done so by the other.
    let _ = poll_fn(|cx| {
        let up = up.poll(cx, &mut client, &mut socket)?;
        let down = down.poll(cx, &mut socket, &mut client)?;
        match up.is_ready() && down.is_ready() {
            true => Poll::Ready(Ok::<(), io::Error>(())),
            false => Poll::Pending,
        }
    })
    .await;
}

/// One of the two ways.
#[derive(Default)]
struct Way {
    /// What was read and could not be written yet.
    rest: Bytes,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// There is no more to read.
    Read,
    Closed,
}

impl Way {
    /// Goes on until one side is waited for. Ready when the end has been passed on.
    fn poll<F, T>(&mut self, cx: &mut Context<'_>, from: &mut F, to: &mut T) -> Poll<io::Result<()>>
    where
        F: Read + Unpin,
        T: Write + Unpin,
    {
        loop {
            while !self.rest.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.rest.advance(written);
            }
            match self.state {
                State::Open => {}
                State::Read => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
            if self.state == State::Open && self.poll_move(cx, from, to)?.is_pending() {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                return Poll::Pending;
            }
        }
    }

    /// Reads once and writes what can be written at once.
    fn poll_move<F, T>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
    ) -> Poll<io::Result<()>>
    where
        F: Read + Unpin,
        T: Write + Unpin,
    {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, buffer.unfilled()))?;
            let read = buffer.filled();
            if read.is_empty() {
                self.state = State::Read;
                return Poll::Ready(Ok(()));
            }
            let written = match Pin::new(to).poll_write(cx, read)? {
                Poll::Ready(written) => written,
                Poll::Pending => 0,
            };
            self.rest = Bytes::copy_from_slice(&read[written..]);
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    fn headers(connection: &str, upgrade: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, connection.parse().expect("a value"));
        for protocol in upgrade {
            headers.append(header::UPGRADE, protocol.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn only_websocket_is_asked_for() {
        for (connection, upgrade) in [
            ("upgrade", "websocket"),
            ("Upgrade", "WebSocket"),
            ("keep-alive , UPGRADE", "websocket"),
        ] {
            assert!(is_chosen(&headers(connection, &[upgrade])), "{connection}");
        }
        for (connection, upgrade) in [
            ("keep-alive", &["websocket"][..]),
            ("upgraded", &["websocket"]),
            ("", &["websocket"]),
            ("upgrade", &["h2c"]),
            ("upgrade", &["websocket, h2c"]),
            ("upgrade", &["websocket/13"]),
            ("upgrade", &["websocket", "h2c"]),
            ("upgrade", &[]),
        ] {
            assert!(!is_chosen(&headers(connection, upgrade)), "{upgrade:?}");
        }
    }

    /// Carries what is written to the first to the second, over pipes of a few bytes.
    fn way() -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<()>) {
        let (client, from) = duplex(7);
        let (to, service) = duplex(5);
        let carrying = tokio::spawn(async move {
            let (mut from, mut to) = (TokioIo::new(from), TokioIo::new(to));
            let mut way = Way::default();
            let carried = poll_fn(|cx| way.poll(cx, &mut from, &mut to)).await;
            carried.expect("no error");
        });
        (client, service, carrying)
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_and_so_does_the_end() {
        let (mut client, mut service, carrying) = way();
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            client.write_all(&sent).await.expect("sent");
            client.shutdown().await.expect("closed");
            client
        });
        let mut received = Vec::new();
        service.read_to_end(&mut received).await.expect("received");
        assert!(received == expected);
        carrying.await.expect("it has ended");
        sending.await.expect("sent");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_that_nobody_takes() {
        let (mut client, service, _carrying) = way();
        let sending = client.write_all(&[0; 100_000]);
        let sent = tokio::time::timeout(std::time::Duration::from_secs(60), sending).await;
        assert!(sent.is_err(), "it waits");
        drop(service);
    }
}
