//! One connection: HTTP/1.1 or HTTP/2 over a socket, with a bound on every wait.
//!
//! hyper's own timers cover neither a silent connection (its version sniffing has none) nor an idle
//! HTTP/2 one, so a task beside the connection checks it a few times per timeout (see `activity`). It reads
//! plain counters: a request costs no clock reading and no timer.

mod activity;
mod proxied;
mod proxy_header;
mod quick;
mod secured;
mod upgraded;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use auspex_kernel::service::StopSignal;
use auspex_kernel::{OverTls, body};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::edge::{Admitted, Arrival, Edge, Stamp};
use activity::Activity;
use wire::Wire;

/// How long the peer may take to close an idle connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Fields of the head of a request; hyper's default is 100. Each costs every request a little.
const HEADERS_MAX: usize = 160;

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    head_bytes_max: usize,
    http2_streams_max: u32,
    head_timeout: Duration,
    idle_timeout: Duration,
    /// With requests in flight, for a peer that neither reads nor writes.
    stall_timeout: Duration,
    /// How long an HTTP/1.1 connection is kept for requests on their way when the server stops.
    linger_timeout: Duration,
}

impl Bounds {
    pub(crate) fn new(server: &config::Server) -> Self {
        Self {
            head_bytes_max: server.head_bytes_max,
            http2_streams_max: server.http2_streams_max,
            head_timeout: config::ms(server.head_timeout_ms),
            idle_timeout: config::ms(server.idle_timeout_ms),
            stall_timeout: config::ms(server.request_timeout_ms + server.body_timeout_ms),
            linger_timeout: config::ms(server.linger_timeout_ms),
        }
    }
}

/// Serves one connection: the header of a proxy, if it has one, then TLS, if the server speaks it, then HTTP.
pub(crate) async fn serve(
    mut stream: TcpStream,
    mut peer: IpAddr,
    edge: Arc<Edge>,
    bounds: Bounds,
    tls: Option<TlsAcceptor>,
    stop: StopSignal,
) {
    if edge.proxies.announces(peer) {
        let limit = bounds.head_timeout;
        let header = proxied::client(&mut stream, peer, limit);
        match unless_stopped(header, &stop, &bounds).await {
            Some(client) => peer = client,
            None => return,
        }
    }
    let Some(acceptor) = tls else {
        return serve_http(stream, peer, edge, bounds, stop).await;
    };
    let handshake = secured::accept(stream, acceptor, bounds.head_timeout);
    if let Some(stream) = unless_stopped(Box::pin(handshake), &stop, &bounds).await {
        Box::pin(serve_http(stream, peer, edge, bounds, stop)).await;
    }
}

/// What comes of what goes before HTTP, unless the server stops meanwhile.
async fn unless_stopped<T>(
    begin: impl Future<Output = Option<T>>,
    stop: &StopSignal,
    bounds: &Bounds,
) -> Option<T> {
    let mut stopping = stop.clone();
    let cut = async {
        stopping.stop_requested().await;
        tokio::time::sleep(bounds.linger_timeout).await;
    };
    tokio::select! {
        begun = begin => begun,
        () = cut => None,
    }
}

/// Serves HTTP until the connection ends, breaks a bound, or a stop is requested and its requests are done.
///
/// HTTP/2 tells its peer which request is the last. HTTP/1.1 cannot: closing at once would lose a
/// request that is on its way. So after `stop` every answer carries `Connection: close`, and the
/// connection is closed only if the peer stays silent for a while.
async fn serve_http<W: Wire>(
    stream: W,
    peer: IpAddr,
    edge: Arc<Edge>,
    bounds: Bounds,
    mut stop: StopSignal,
) {
    let activity = Arc::new(Activity::default());
    let io = Watched {
        inner: TokioIo::new(stream),
        ahead: Bytes::new(),
        activity: activity.clone(),
    };
    let door = Arc::new(Door {
        edge,
        peer,
        is_secured: W::IS_SECURED,
        activity: activity.clone(),
        answered: Mutex::new(None),
    });
    let stall_timeout = bounds.stall_timeout;
    // Beside the task of the connection, which is woken for each request and would look at every timer then.
    let mut beside = JoinSet::new();
    beside.spawn(activity.clone().look_after(bounds.clone(), stop.clone()));
    let mut connection = pin!(speak(io, door, &bounds, &activity));
    let is_done = poll_fn(|cx| {
        activity.task.register(cx.waker());
        match activity.is_over.load(Ordering::Relaxed) {
            true => Poll::Ready(false),
            false => connection.as_mut().poll(cx).map(|()| true),
        }
    });
    if !is_done.await {
        return;
    }
    drop(beside);
    if let Some(admitted) = activity.upgraded.get() {
        upgraded::watch(&activity, admitted, stall_timeout, &mut stop).await;
    }
}

/// Speaks HTTP, first as long as requests are short, then whatever comes. When it is to leave it ends as soon
/// as nothing is owed to its peer.
async fn speak<W: Wire>(io: Watched<W>, door: Arc<Door>, bounds: &Bounds, activity: &Activity) {
    let Some(rest) = quick::serve(io, &door).await else {
        return;
    };
    *door.answered.lock() = rest.answered;
    let service = Service(door);
    if rest.is_http1 {
        let mut builder = http1::Builder::new();
        builder
            .max_buf_size(bounds.head_bytes_max)
            .max_headers(HEADERS_MAX)
            .half_close(true);
        let connection = builder.serve_connection(rest.io, service).with_upgrades();
        let leave = http1::UpgradeableConnection::graceful_shutdown;
        return Box::pin(drive(connection, leave, activity)).await;
    }
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(bounds.head_bytes_max)
        .max_headers(HEADERS_MAX)
        .half_close(true);
    builder
        .http2()
        .max_concurrent_streams(bounds.http2_streams_max)
        .max_header_list_size(u32::try_from(bounds.head_bytes_max).unwrap_or(u32::MAX));
    let connection = builder.serve_connection_with_upgrades(rest.io, service);
    let leave = auto::UpgradeableConnection::graceful_shutdown;
    Box::pin(drive(connection, leave, activity)).await;
}

/// Moves a connection of hyper on to its end.
async fn drive<C: Future>(connection: C, leave: impl Fn(Pin<&mut C>), activity: &Activity) {
    let mut connection = pin!(connection);
    let mut has_been_told = false;
    poll_fn(|cx| {
        // Errors are the peer's: a broken connection, garbage instead of HTTP. What has come is read before it is
        // told to leave, for that answers nothing any more.
        let ended = connection.as_mut().poll(cx);
        if ended.is_ready() || has_been_told || !activity.is_leaving.load(Ordering::Relaxed) {
            return ended.map(drop);
        }
        has_been_told = true;
        leave(connection.as_mut());
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// The socket, which counts what moves.
struct Watched<W> {
    inner: TokioIo<W>,
    /// What was read of it already, and is read again.
    ahead: Bytes,
    activity: Arc<Activity>,
}

impl<W: Wire> Watched<W> {
    fn moved(&self) {
        self.activity.moves.fetch_add(1, Ordering::Relaxed);
    }

    fn came(&self) {
        self.moved();
        self.activity.head_begun.store(true, Ordering::Relaxed);
    }

    /// hyper does not read while an answer is made, so that a client may close its sending side behind
    /// its request. Where that counts as leaving it is looked for here, without taking anything.
    fn check_client(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.activity.ends_with_client.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.inner.inner_mut().check_peer(cx)
    }
}

impl<W> Drop for Watched<W> {
    fn drop(&mut self) {
        self.activity.tether.release();
    }
}

impl<W: Wire> Read for Watched<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.activity.tether.check_read(cx)?;
        if self.ahead.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        } else {
            let length = self.ahead.len().min(buffer.remaining());
            buffer.put_slice(&self.ahead.split_to(length));
        }
        self.came();
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire> Write for Watched<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.activity.tether.check_write(cx)?;
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.moved();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.tether.check_write(cx)?;
        // hyper flushes at the end of each of its rounds.
        self.check_client(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.tether.check_write(cx)?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.tether.check_write(cx)?;
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, slices))?;
        self.moved();
        Poll::Ready(Ok(written))
    }
}

/// From a connection to the edge.
struct Door {
    edge: Arc<Edge>,
    peer: IpAddr,
    is_secured: bool,
    activity: Arc<Activity>,
    /// The answer to the next request, where it was made before.
    answered: Mutex<Option<Response<Counted>>>,
}

impl Door {
    async fn answer(
        &self,
        mut request: Request<Body>,
        has_whole_body: bool,
        in_flight: &InFlight,
    ) -> (Response<Body>, Stamp<'_>) {
        if self.is_secured {
            request.extensions_mut().insert(OverTls);
        }
        let is_http2 = request.version() == Version::HTTP_2;
        let arrival = Arrival {
            peer: self.peer,
            has_whole_body,
            ends_with_client: &in_flight.0.ends_with_client,
        };
        let edge = &self.edge;
        let (mut response, stamp) = edge.handle_for(request, arrival).await;
        if let Some(admitted) = response.extensions_mut().remove() {
            in_flight.leave_http(admitted);
        } else if !is_http2 && (in_flight.is_last() || edge.leaving.load(Ordering::Relaxed)) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        (response, stamp)
    }
}

/// hyper's.
struct Service(Arc<Door>);

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Counted>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        if let Some(answered) = self.0.answered.lock().take() {
            // What is left unread would end the connection.
            return Box::pin(async {
                let _ = request.into_body().collect().await;
                Ok(answered)
            });
        }
        let door = self.0.clone();
        let in_flight = InFlight::begin(&door.activity, request.version());
        let is_http2 = request.version() == Version::HTTP_2;
        // hyper itself leaves out what HTTP/1.1 would send.
        let is_bodiless = is_http2 && request.method() == Method::HEAD;
        let is_awaited = request.headers().contains_key(header::EXPECT);
        let request = request.map(|body| match is_http2 && !body.is_end_stream() {
            true => Body::new(Arriving {
                body: Some(body),
                is_awaited,
                activity: door.activity.clone(),
            }),
            false => Body::new(body),
        });
        Box::pin(async move {
            let (mut response, stamp) = door.answer(request, false, &in_flight).await;
            stamp.put(response.headers_mut());
            if is_bodiless {
                leave_out_body(&mut response);
            }
            Ok(response.map(|body| Counted {
                body,
                is_bodiless,
                in_flight,
            }))
        })
    }
}

/// The answer to HEAD: that to GET, with the length of its body in place of it.
fn leave_out_body(response: &mut Response<Body>) {
    let body = std::mem::take(response.body_mut());
    if let Some(length @ 1..) = body.size_hint().exact() {
        let headers = response.headers_mut();
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
}

/// A request, until the body of its answer has been sent.
struct InFlight(Arc<Activity>);

impl InFlight {
    fn begin(activity: &Arc<Activity>, version: Version) -> Self {
        if version == Version::HTTP_2 {
            activity.http2.store(true, Ordering::Relaxed);
        }
        activity.begun.fetch_add(1, Ordering::Relaxed);
        Self(activity.clone())
    }

    /// After this answer the connection is the handler's.
    fn leave_http(&self, admitted: Admitted) {
        self.0.tether.leave_http();
        // A connection leaves once.
        let _ = self.0.upgraded.set(admitted);
    }

    /// Whether an HTTP/1.1 connection ends with this answer.
    fn is_last(&self) -> bool {
        let ends = [&self.0.stopping, &self.0.is_leaving];
        let ends = ends.iter().any(|end| end.load(Ordering::Relaxed));
        ends && !self.0.http2.load(Ordering::Relaxed)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.head_begun.store(false, Ordering::Relaxed);
        self.0.ends_with_client.store(false, Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// The body of a request over HTTP/2, which tells that it goes on. Many clients take the end of their stream for a
/// failure, in spite of an answer that came before they had sent everything, so a little of what nobody wants is read.
struct Arriving {
    /// Until it is dropped.
    body: Option<Incoming>,
    /// Its client sends it only when it is told to.
    is_awaited: bool,
    activity: Arc<Activity>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let unread = |body: &Incoming| !body.is_end_stream() && !self.is_awaited;
        if let Some(body) = self.body.take().filter(unread)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(body::drain(Body::new(body)));
        }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        let data = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        if data.is_some_and(|data| !data.is_empty()) {
            self.activity.pieces.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(Incoming::size_hint)
            .unwrap_or_default()
    }
}

/// An answer's body that ends its request when dropped.
struct Counted {
    body: Body,
    /// It is empty whatever the head says of its length.
    is_bodiless: bool,
    in_flight: InFlight,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.in_flight.0.pieces.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_bodiless {
            true => SizeHint::default(),
            false => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// A client, and the other end of its connection.
    pub(super) async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("connects");
        (client, listener.accept().await.expect("a client").0)
    }
}
