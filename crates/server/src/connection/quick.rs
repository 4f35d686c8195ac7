//! Short requests of HTTP/1.1, which are most of them, at a third of what hyper takes for one.
//!
//! Taken here is a request that came whole, is coded in no way, asks for nothing but an answer, and gets
//! one of a known length. Whatever is anything else (long bodies, chunks, upgrades, HTTP/1.0 and 2,
//! streams, garbage) is left to hyper, with every byte as it came, and the rest of the connection with
//! it. Both read heads with the same parser, so what is taken here means the same there.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::http::head::{FIELDS_MAX, plain_fields, plain_length, write_field};
use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{Method, Request, StatusCode, Uri, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::ext::ReasonPhrase;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::wire::Wire;
use super::{Counted, Door, InFlight, Watched};
use crate::edge::{Kept, Stamp};

/// What is read at once.
const READ_BYTES: usize = 8 << 10;
/// Longer heads are hyper's, which knows their limit.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Longer bodies are hyper's.
const BODY_BYTES_MAX: usize = 32 << 10;
/// Many clients send head and body apart, one right behind the other.
const BODY_WAIT: Duration = Duration::from_millis(10);
/// Parts of an answer that are sent in one piece.
const TOGETHER_BYTES_MAX: usize = 16 << 10;
/// What a connection keeps for its next answer.
const KEPT_BYTES_MAX: usize = 8 << 10;

/// A connection of which hyper serves the rest.
pub(super) struct Rest<W> {
    /// What has been read of it comes again.
    pub(super) io: Watched<W>,
    /// It is one of HTTP/1, and stays so: somebody who is passed on over it could mean something else by what
    /// follows than whoever opened it.
    pub(super) is_http1: bool,
    /// The answer to the first of its requests, which was made already.
    pub(super) answered: Option<Response<Counted>>,
}

/// Serves short requests until the connection ends or something else comes. When it is to leave it
/// ends as soon as nothing is owed to its peer.
pub(super) async fn serve<W: Wire>(mut io: Watched<W>, door: &Door) -> Option<Rest<W>> {
    let mut buffer = BytesMut::new();
    let mut out = Vec::new();
    let mut is_http1 = false;
    loop {
        if buffer.is_empty() {
            let read = read(&mut io, &mut buffer).await;
            if !matches!(read, Ok(1..)) {
                let _ = io.inner.inner_mut().shutdown().await;
                return None;
            }
        }
        let came = buffer.split().freeze();
        let request = match Came::of(&came) {
            Came::Request(request, end) => {
                buffer.extend_from_slice(&came[end..]);
                request
            }
            Came::Head { end } => {
                buffer = BytesMut::from(came);
                buffer.reserve(end - buffer.len());
                let body = async {
                    while buffer.len() < end && matches!(read(&mut io, &mut buffer).await, Ok(1..))
                    {
                    }
                };
                let _ = tokio::time::timeout(BODY_WAIT, body).await;
                if buffer.len() < end {
                    return Some(io.rest(buffer.freeze(), true, None));
                }
                continue;
            }
            Came::Other => return Some(io.rest(came, is_http1, None)),
        };
        let in_flight = InFlight::begin(&io.activity, Version::HTTP_11);
        let answering = Box::pin(door.answer(request, true, &in_flight));
        let (mut response, stamp) = attended(&mut io, answering).await.ok()?;
        let Some(length) = write_head(&response, &stamp, &mut out) else {
            stamp.put(response.headers_mut());
            let answered = response.map(|body| Counted {
                body,
                is_bodiless: false,
                in_flight,
            });
            return Some(io.rest(came, true, Some(answered)));
        };
        drop(came);
        let is_last = response.headers().contains_key(header::CONNECTION);
        // Behind those that are answered in the same turn. Sent between them it would wake a client that has just
        // gone to sleep, and a wake-up costs both sides more than writing.
        tokio::task::yield_now().await;
        send(&mut io, response.into_body(), length, &mut out)
            .await
            .ok()?;
        drop(in_flight);
        if is_last {
            let _ = io.inner.inner_mut().shutdown().await;
            return None;
        }
        out.clear();
        out.shrink_to(KEPT_BYTES_MAX);
        is_http1 = true;
    }
}

impl<W: Wire> Watched<W> {
    /// The rest of the connection, from these bytes on.
    fn rest(
        mut self,
        ahead: Bytes,
        is_http1: bool,
        answered: Option<Response<Counted>>,
    ) -> Rest<W> {
        self.ahead = ahead;
        Rest {
            io: self,
            is_http1,
            answered,
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.inner.inner_mut().write(bytes).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.moved();
            bytes = &bytes[written..];
        }
        Ok(())
    }
}

/// Reads what has come next: nothing at the end, or when the connection is to leave.
async fn read<W: Wire>(io: &mut Watched<W>, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    let activity = &io.activity;
    let reading = io.inner.inner_mut().read_buf(buffer);
    let mut reading = pin!(reading);
    let read = poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Pending if activity.is_leaving.load(Ordering::Relaxed) => Poll::Ready(Ok(0)),
        read => read,
    });
    let read = read.await?;
    io.came();
    Ok(read)
}

/// Waits for something while its client is there, where that matters.
async fn attended<W: Wire, F: Future + Unpin>(
    io: &mut Watched<W>,
    mut waiting: F,
) -> io::Result<F::Output> {
    poll_fn(|cx: &mut Context<'_>| match waiting.poll_unpin(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => match io.check_client(cx) {
            Ok(()) => Poll::Pending,
            Err(gone) => Poll::Ready(Err(gone)),
        },
    })
    .await
}

/// What the bytes that came are.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Came {
    /// A short request, and where it ends.
    Request(Request<Body>, usize),
    /// The head of one of which some is missing, and where it will end.
    Head { end: usize },
    /// Anything else.
    Other,
}

impl Came {
    fn of(bytes: &Bytes) -> Self {
        Self::short(bytes).unwrap_or(Came::Other)
    }

    /// `None`: it is no short request.
    fn short(bytes: &Bytes) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(head_length) = head.parse(bytes).ok()? else {
            return None;
        };
        if head.version != Some(1) || head_length > HEAD_BYTES_MAX {
            return None;
        }
        // The answer to HEAD has no body, and that to CONNECT no end.
        let method = match head.method? {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "PATCH" => Method::PATCH,
            "DELETE" => Method::DELETE,
            _ => return None,
        };
        let target = head.path.filter(|target| target.starts_with('/'))?;
        let uri = Uri::from_maybe_shared(bytes.slice_ref(target.as_bytes())).ok()?;
        let (headers, body_length) = plain_fields(bytes, head.headers)?;
        let body_length = body_length.unwrap_or(0);
        if body_length > BODY_BYTES_MAX {
            return None;
        }
        let end = head_length + body_length;
        if end > bytes.len() {
            return Some(Came::Head { end });
        }
        let body = match body_length {
            0 => Body::empty(),
            _ => Body::from(bytes.slice(head_length..end)),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Some(Came::Request(request, end))
    }
}

/// Writes the head of an answer with a body of a known length, and tells this. `None`: it is another one.
fn write_head(response: &Response, stamp: &Stamp<'_>, out: &mut Vec<u8>) -> Option<u64> {
    let status = response.status();
    let has_body = status.as_u16() >= 200
        && ![
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ]
        .contains(&status);
    let length = response.body().size_hint().exact().filter(|_| has_body)?;
    let has_other_reason = response.extensions().get::<ReasonPhrase>().is_some();
    let reason = status.canonical_reason().filter(|_| !has_other_reason)?;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let (mut has_length, mut has_date) = (false, false);
    let mut kept = Kept::default();
    for (name, value) in response.headers() {
        match *name {
            header::TRANSFER_ENCODING | header::UPGRADE | header::TRAILER => return None,
            header::CONNECTION if value != "close" => return None,
            header::CONTENT_LENGTH
                if has_length || plain_length(value.as_bytes())? as u64 != length =>
            {
                return None;
            }
            header::CONTENT_LENGTH => has_length = true,
            header::DATE => has_date = true,
            _ if stamp.replaces(name) => continue,
            _ => kept.note(name),
        }
        write_field(name.as_str(), value.as_bytes(), out);
    }
    stamp.each(kept, |name, value| {
        write_field(name.as_str(), value, out);
    });
    if !has_length {
        let mut text = itoa::Buffer::new();
        write_field("content-length", text.format(length).as_bytes(), out);
    }
    if !has_date {
        with_date(stamp.date(), |date| {
            write_field("date", date.as_bytes(), out)
        });
    }
    out.extend_from_slice(b"\r\n");
    Some(length)
}

/// The date as HTTP writes it, which is the same for all answers of a second.
fn with_date(now: Timestamp, write: impl FnOnce(&str)) {
    thread_local! {
        static LAST: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    LAST.with_borrow_mut(|(second, date)| {
        if *second != now.unix_seconds() {
            *second = now.unix_seconds();
            let since_epoch = Duration::from_secs(u64::try_from(*second).unwrap_or(0));
            *date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since_epoch);
        }
        write(date);
    });
}

/// Sends a head that is written already and a body of this length.
async fn send<W: Wire>(
    io: &mut Watched<W>,
    mut body: Body,
    mut left: u64,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    while left > 0 {
        let mut frame = body.frame();
        let next = match (&mut frame).now_or_never() {
            Some(next) => next,
            None => {
                io.write(out).await?;
                out.clear();
                io.inner.inner_mut().flush().await?;
                attended(io, frame).await?
            }
        };
        // Whoever reads must not take what is missing for the whole.
        let frame = next.ok_or(io::ErrorKind::UnexpectedEof)?;
        let frame = frame.map_err(io::Error::other)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let length = data.len() as u64;
        left = left.checked_sub(length).ok_or(io::ErrorKind::InvalidData)?;
        if out.len() + data.len() <= TOGETHER_BYTES_MAX {
            out.extend_from_slice(&data);
        } else {
            io.write(out).await?;
            out.clear();
            io.write(&data).await?;
        }
    }
    io.write(out).await?;
    io.inner.inner_mut().flush().await
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use auspex_kernel::body::Budget;
    use auspex_kernel::policy::Policy;
    use auspex_kernel::service::StopSignal;
    use axum::response::IntoResponse as _;
    use axum::routing::get;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::connection::tests::connected;
    use crate::connection::{self, Bounds};
    use crate::edge::Edge;
    use crate::edge::tests::{edge, quota, table_with};

    const SHORT: &[u8] = b"GET /x HTTP/1.1\r\nhost: x\r\nx-api-key: good\r\n\r\n";
    /// Moves its connection to hyper.
    const HEAD: &[u8] = b"HEAD /x HTTP/1.1\r\nhost: x\r\nx-api-key: good\r\n\r\n";
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const PAUSE: Duration = Duration::from_millis(50);
    const LIMIT: Duration = Duration::from_secs(10);

    fn bounds() -> Bounds {
        Bounds {
            head_bytes_max: 65_536,
            http2_streams_max: 10,
            head_timeout: LIMIT,
            idle_timeout: LIMIT,
            stall_timeout: LIMIT,
            linger_timeout: LIMIT,
        }
    }

    /// Sends the body back, in one piece or as a stream.
    async fn echo(request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let headers = [
            ("x-content-type-options", "mine"),
            ("cache-control", "max-age=1"),
        ];
        match parts.uri.query() {
            Some("stream") => {
                let parts = body
                    .into_data_stream()
                    .chain(futures_util::stream::iter([Ok(Bytes::from_static(b"end"))]));
                (headers, Body::from_stream(parts)).into_response()
            }
            Some("nothing") => StatusCode::NO_CONTENT.into_response(),
            Some("long") => vec![b'x'; 3 * TOGETHER_BYTES_MAX].into_response(),
            _ => {
                let body = body
                    .collect()
                    .await
                    .map(http_body_util::Collected::to_bytes);
                (
                    headers,
                    body.unwrap_or_else(|_| Bytes::from_static(b"cut off")),
                )
                    .into_response()
            }
        }
    }

    /// What comes back on one connection, without what differs from time to time.
    async fn answers(pieces: &[&[u8]]) -> Vec<String> {
        let edge = Edge {
            callers: quota(1000),
            bodies: Arc::new(Budget::new(1 << 20)),
            ..edge(None)
        };
        edge.routes
            .store(Arc::new(table_with(get(echo), Policy::default())));
        let (mut client, stream) = connected().await;
        let stop = edge.stop.clone();
        let serving = connection::serve(stream, PEER, Arc::new(edge), bounds(), None, stop);
        let serving = tokio::spawn(serving);
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            // One who was refused may have hung up.
            let _ = client.write_all(piece).await;
        }
        let _ = client.shutdown().await;
        let mut came = Vec::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_end(&mut came)).await;
        let _ = read.expect("the connection ends");
        serving.await.expect("no panic");
        let came = String::from_utf8_lossy(&came).into_owned();
        let mut lines: Vec<String> = came
            .lines()
            .filter(|line| {
                let varying = [
                    "date: ",
                    "x-request-id: ",
                    "x-process-time: ",
                    "x-ratelimit-re",
                ];
                !varying.iter().any(|name| line.starts_with(name)) && !line.contains("request_id")
            })
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_short_request_is_answered_as_by_hyper() {
        const KEY: &str = "host: x\r\nx-api-key: good\r\n";
        let get = |rest: &str| format!("GET /x HTTP/1.1\r\n{KEY}{rest}");
        let many = "x-many: 1\r\n".repeat(FIELDS_MAX);
        let long = format!("x-long: {}\r\n", "x".repeat(HEAD_BYTES_MAX));
        let body = "b".repeat(BODY_BYTES_MAX + 1);
        let most = "b".repeat(BODY_BYTES_MAX);
        let two = [get("content-length: 2\r\n\r\nab"), get("\r\n")].concat();
        let whole = [
            get("\r\n"),
            get("content-length: 2\r\n\r\nab"),
            two.clone(),
            [two, get("\r\n").replace("GET", "HEAD"), get("\r\n")].concat(),
            get(&many) + "\r\n",
            get(&long) + "\r\n",
            get(&format!("content-length: {}\r\n\r\n{body}", body.len())),
            get("content-length: 2\r\ncontent-length: 2\r\n\r\nab"),
            get("content-length: 2\r\ncontent-length: 3\r\n\r\nabc"),
            get("content-length: +2\r\n\r\nab"),
            get("content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
            get("transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"),
            get("expect: 100-continue\r\ncontent-length: 2\r\n\r\nab"),
            get("connection: close\r\n\r\n") + &get("\r\n"),
            get("connection: keep-alive\r\n\r\n"),
            get("content-length: 5\r\n\r\nab"),
            get(" folded\r\n\r\n"),
            get("no colon\r\n\r\n"),
            get("bad name: 1\r\n\r\n"),
            get("\r\n").replace("\r\n", "\n"),
            get("\r\n").replace("/x", "/x?stream"),
            get("content-length: 2\r\n\r\nab").replace("/x", "/x?stream"),
            get(&format!("content-length: {}\r\n\r\n{most}", most.len()))
                .replace("/x", "/x?stream")
                + &get("\r\n"),
            get("\r\n").replace("/x", "/x?nothing"),
            get("\r\n").replace("/x", "/x?long"),
            get("\r\n").replace("/x", "/nowhere"),
            get("\r\n").replace("/x", "http://x/x"),
            get("\r\n").replace("/x", "*"),
            get("\r\n").replace("good", "bad"),
            get("\r\n").replace("host: x\r\n", ""),
            get("host: x\r\n\r\n"),
            get("\r\n").replace("GET", "BREW"),
            get("\r\n").replace("GET", "DELETE"),
            get("\r\n").replace("1.1", "1.0"),
            get("\r\n").replace("1.1", "1.2"),
            format!("\r\n\r\n{}", get("\r\n")),
            "\u{16}\u{3}\u{1} no HTTP\r\n\r\n".to_owned(),
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".to_owned(),
        ];
        for request in whole {
            assert_alike(request.as_bytes()).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_request_is_answered_as_by_hyper() {
        const ODD: &[u8] = b"\r\n\0 \t:;,+-/*09aG\x7f\x80";
        let second = "GET /x HTTP/1.1\r\nHost: x\r\nX-Api-Key: good\r\n";
        let whole = format!("{second}Content-Length: 3\r\n\r\nabc{second}\r\n");
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).expect("small")
        };
        for _ in 0..300 {
            let mut request = whole.clone().into_bytes();
            for _ in 0..=random(2) {
                let at = random(request.len());
                match random(3) {
                    0 => request[at] = ODD[random(ODD.len())],
                    1 => request.insert(at, ODD[random(ODD.len())]),
                    _ => drop(request.remove(at)),
                }
            }
            assert_alike(&request).await;
        }
    }

    async fn assert_alike(request: &[u8]) {
        let by_hyper = answers(&[&[SHORT, HEAD, request].concat()]).await;
        let mut quick = answers(&[HEAD]).await;
        quick.extend(answers(&[&[SHORT, request].concat()]).await);
        quick.sort();
        let shown = String::from_utf8_lossy(request);
        assert_eq!(quick, by_hyper, "{shown:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_in_pieces_is_the_same_request() {
        let (head, body) = (
            "GET /x HTTP/1.1\r\nhost: x\r\nx-api-key: good\r\ncontent-length: 4\r\n\r\n",
            "body",
        );
        let whole = answers(&[[head, body].concat().as_bytes()]).await;
        assert!(whole.contains(&"body".to_owned()), "{whole:?}");
        for pieces in [
            &[head, body][..],
            &[&head[..20], &head[20..], body],
            &[head, "bo", "dy"],
        ] {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| piece.as_bytes()).collect();
            assert_eq!(answers(&pieces).await, whole);
        }
    }

    /// What is sent on a connection whose server stops while the answer is made.
    async fn answer_of_a_stopping_server(answer: fn() -> Response) -> String {
        let (stop, signal) = StopSignal::new();
        let edge = Edge {
            stop: signal,
            ..edge(None)
        };
        let slow = get(move || async move {
            tokio::time::sleep(6 * PAUSE).await;
            answer()
        });
        edge.routes
            .store(Arc::new(table_with(slow, Policy::default())));
        let (mut client, stream) = connected().await;
        let bounds = Bounds {
            linger_timeout: PAUSE,
            ..bounds()
        };
        let signal = edge.stop.clone();
        let serving = connection::serve(stream, PEER, Arc::new(edge), bounds, None, signal);
        let serving = tokio::spawn(serving);
        client.write_all(SHORT).await.expect("sent");
        tokio::time::sleep(PAUSE).await;
        stop.send_replace(true);
        let mut came = String::new();
        let read = tokio::time::timeout(LIMIT, client.read_to_string(&mut came)).await;
        read.expect("the connection ends").expect("text");
        serving.await.expect("no panic");
        came
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_is_sent_though_the_server_stops() {
        let whole = answer_of_a_stopping_server(|| "whole".into_response()).await;
        assert!(whole.contains("connection: close\r\n"), "{whole}");
        assert!(whole.ends_with("\r\n\r\nwhole"), "{whole}");
        let nothing = answer_of_a_stopping_server(|| StatusCode::NO_CONTENT.into_response()).await;
        assert!(nothing.starts_with("HTTP/1.1 204 "), "{nothing}");
        let stream = answer_of_a_stopping_server(|| {
            let pieces = futures_util::stream::iter([Ok::<_, io::Error>("in chunks")]);
            Body::from_stream(pieces).into_response()
        })
        .await;
        assert!(stream.contains("in chunks\r\n0\r\n"), "{stream}");
    }

    #[test]
    fn only_what_came_whole_is_a_short_request() {
        let request = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
        let behind = Bytes::from(format!("{request}GET"));
        let Came::Request(read, end) = Came::of(&behind) else {
            panic!("it is one");
        };
        assert_eq!((end, read.method()), (request.len(), &Method::POST));
        assert_eq!(read.uri(), "/x");
        let head = Bytes::from_static(&request.as_bytes()[..request.len() - 1]);
        assert!(matches!(Came::of(&head), Came::Head { end } if end == request.len()));
        for cut in 1..request.len() - "ab".len() {
            let begin = Bytes::copy_from_slice(&request.as_bytes()[..cut]);
            assert!(matches!(Came::of(&begin), Came::Other), "{cut}");
        }
    }
}
