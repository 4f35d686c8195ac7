//! Connections of HTTP/2 to endpoints, which requests share. A task of its own moves each on.
//!
//! A connection that has fallen silent is found out in three ways: it does not answer pings while requests wait for
//! it; a request was given up on it while nothing at all came; nobody has used it for a while.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, Version, header};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::oneshot;

use super::socket::{Look, Socket};
use super::{Endpoint, HEAD_BYTES_MAX, Outgoing, Received, Unanswered, Upload, lines};
use crate::error::Failure;

/// Requests at once on one connection, if its peer takes as many.
pub(super) const STREAMS_MAX: usize = 100;
/// Of one answer that waits for its client. What all of them may hold together keeps none of them waiting.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_MAX as u32;
/// A peer from which nothing has come for so long while it owes an answer is asked whether it is there. Servers of
/// gRPC take more than three such questions within five minutes amiss.
const PING_PAUSE: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that was given up after so long, without a byte from the peer, says that it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// A connection.
pub(crate) struct Line {
    sender: http2::SendRequest<Upload>,
    look: Look,
    streams_max: Arc<AtomicUsize>,
    /// No request begins on it any more.
    is_given_up: AtomicBool,
}

/// A place on a connection for one request.
pub(crate) struct Stream {
    line: Arc<Line>,
    scheme: Scheme,
    /// Named where the request names none.
    host: HeaderValue,
    is_reused: bool,
}

impl Stream {
    /// On a connection that is there, or else on a new one.
    ///
    /// # Errors
    /// As of [`Endpoint::connect`]: nothing has been sent.
    pub(super) async fn to(endpoint: &Endpoint) -> Result<Self, Failure> {
        let stream = |line, is_reused| Self {
            line,
            scheme: endpoint.scheme(),
            host: endpoint.host().clone(),
            is_reused,
        };
        if let Some(line) = lines::take(endpoint) {
            return Ok(stream(line, true));
        }
        // Those who come meanwhile wait for the same connection, and share its failure.
        let begin = monotonic();
        let door = lines::door(endpoint.id);
        let mut last_failure = door.lock().await;
        if let Some(line) = lines::take(endpoint) {
            return Ok(stream(line, true));
        }
        if let Some((at, failure)) = *last_failure
            && at >= begin
        {
            return Err(failure);
        }
        match Line::open(endpoint).await {
            Ok(line) => {
                let line = Arc::new(line);
                lines::keep(endpoint, line.clone());
                Ok(stream(line, false))
            }
            Err(failure) => {
                *last_failure = Some((monotonic(), failure));
                Err(failure)
            }
        }
    }

    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub(super) async fn send(self, request: Outgoing) -> Result<Response<Received>, Unanswered> {
        let mut request = request.into_request();
        self.address(&mut request);
        let mut sender = self.line.sender.clone();
        let waiting = Waiting::new(&self.line);
        let answered = sender.try_send_request(request).await;
        drop(waiting);
        match answered {
            Ok(response) => Ok(response.map(|body| Received::over_http2(body, self.line))),
            Err(error) => Err(match Unanswered::of(error) {
                Ok(request) => Unanswered::Unsent(Box::new(request.into_body())),
                Err(failure) => Unanswered::Failed(failure),
            }),
        }
    }

    /// HTTP/2 names the host in the target and has no coding of the whole body.
    fn address(&self, request: &mut Request<Upload>) {
        let host = request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::TRANSFER_ENCODING);
        let target = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        let host = host.filter(|host| !host.is_empty());
        let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
        // A target without a host could not be sent.
        parts.authority = authority.or_else(|| self.host.as_bytes().try_into().ok());
        parts.path_and_query = Some(target.unwrap_or(PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
    }
}

impl Line {
    /// One whose peer has spoken, so that it is known to take requests, and how many.
    async fn open(endpoint: &Endpoint) -> Result<Self, Failure> {
        let opening = async {
            let socket = Socket::new(endpoint.connect().await?);
            let look = socket.look();
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .keep_alive_interval(PING_PAUSE)
                .keep_alive_timeout(PING_TIMEOUT);
            let shaken = builder.handshake(socket).await;
            let (sender, driver) = shaken.map_err(|_| Failure::Refused)?;
            let streams_max = Arc::new(AtomicUsize::new(STREAMS_MAX));
            let (told, has_spoken) = oneshot::channel();
            tokio::spawn(drive(driver, look.clone(), streams_max.clone(), told));
            has_spoken.await.unwrap_or(Err(Failure::Refused))?;
            Ok(Self {
                sender,
                look,
                streams_max,
                is_given_up: AtomicBool::new(false),
            })
        };
        let opened = tokio::time::timeout(endpoint.limits.connect_timeout, opening).await;
        opened.unwrap_or(Err(Failure::ConnectTimeout))
    }

    /// Whether a request may begin on it.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed() && !self.is_given_up.load(Ordering::Relaxed)
    }

    /// Requests that it takes at once.
    pub(super) fn streams_max(&self) -> usize {
        let stated = self.streams_max.load(Ordering::Relaxed);
        stated.clamp(1, STREAMS_MAX)
    }
}

/// Moves a connection on to its end. Tells when its peer has spoken, and how many requests that takes.
async fn drive(
    mut driver: http2::Connection<Socket, Upload, TokioExecutor>,
    look: Look,
    streams_max: Arc<AtomicUsize>,
    has_spoken: oneshot::Sender<Result<(), Failure>>,
) {
    let mut has_spoken = Some(has_spoken);
    let end = poll_fn(|cx| {
        look.wake_at_first(cx);
        let polled = Pin::new(&mut driver).poll(cx);
        streams_max.store(driver.current_max_send_streams(), Ordering::Relaxed);
        if look.reads() > 0
            && polled.is_pending()
            && let Some(has_spoken) = has_spoken.take()
        {
            let _ = has_spoken.send(Ok(()));
        }
        polled
    })
    .await;
    let is_nonsense = |error: &hyper::Error| Failure::of_exchange(error) == Failure::Invalid;
    if let Some(has_spoken) = has_spoken
        && end.is_err_and(|error| is_nonsense(&error))
    {
        let _ = has_spoken.send(Err(Failure::Invalid));
    }
}

/// A request that waits for its answer.
struct Waiting<'l> {
    line: &'l Line,
    begun: Instant,
    reads: u32,
}

impl<'l> Waiting<'l> {
    fn new(line: &'l Line) -> Self {
        Self {
            line,
            begun: monotonic(),
            reads: line.look.reads(),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.reads == self.line.look.reads() && self.begun.elapsed() >= SILENCE_MAX {
            self.line.is_given_up.store(true, Ordering::Relaxed);
        }
    }
}
