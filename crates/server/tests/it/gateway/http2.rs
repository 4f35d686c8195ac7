//! Services that are called by HTTP/2, and what passes only there: trailers, many requests on one connection.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::tls::{certified_key, provider};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::backend::Backend;
use super::{OK, refusal, start};
use crate::certificates::Authority;
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(10);

/// A request and the way to its answer.
type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

/// A server that speaks HTTP/2 and nothing else.
pub(super) struct Http2Backend {
    pub(super) address: SocketAddr,
    /// Heads, as they came.
    pub(super) seen: Arc<Mutex<Vec<Request<()>>>>,
    connections: Arc<AtomicUsize>,
}

impl Http2Backend {
    pub(super) fn start(
        answer: impl Fn(Exchange) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self::with(100, None, answer)
    }

    /// One that takes so many requests at once on a connection.
    fn with(
        streams_max: u32,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(Exchange) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("set");
        let seen: Arc<Mutex<Vec<Request<()>>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (all, counted, answer) = (seen.clone(), connections.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            runtime().block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let (all, answer, tls) = (all.clone(), answer.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => serve(stream, streams_max, &all, &*answer).await,
                            Some(tls) => {
                                let stream = tls.accept(stream).await.expect("a handshake");
                                serve(stream, streams_max, &all, &*answer).await;
                            }
                        }
                    });
                }
            });
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    fn seen(&self) -> usize {
        self.seen.lock().len()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin,
    streams_max: u32,
    all: &Mutex<Vec<Request<()>>>,
    answer: &(impl Fn(Exchange) -> BoxFuture<'static, ()> + Sync),
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok(exchange)) = connection.accept().await {
        all.lock().push(head_of(&exchange.0));
        tokio::spawn(answer(exchange));
    }
}

fn head_of(request: &Request<RecvStream>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("runs")
}

/// Answers 200 with this text.
fn say(mut respond: SendResponse<Bytes>, text: &str) {
    let head = Response::new(());
    let mut body = respond.send_response(head, false).expect("sent");
    let text = Bytes::copy_from_slice(text.as_bytes());
    body.send_data(text, true).expect("sent");
}

pub(super) async fn whole(mut body: RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        bytes.extend_from_slice(&data);
    }
    (bytes, body.trailers().await.expect("no error"))
}

/// One thread in front of it, and no wait between retries.
fn in_front_of(address: SocketAddr, more: &str) -> Server {
    start(&settings(&format!("http://{address}"), more))
}

fn settings(endpoint: &str, more: &str) -> String {
    format!(
        "[server]\nworkers = 1\n[gateway.services.orders]\nendpoints = [\"{endpoint}\"]\n\
         protocol = \"http2\"\ntimeout_ms = 5000\n{more}\n\
         circuit_breaker = {{ failure_threshold = 100 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\n\
         strip_prefix = \"/orders\"\nscopes = [\"predict\"]\n"
    )
}

#[test]
fn requests_share_a_connection_and_say_what_http2_says() {
    let backend = Http2Backend::start(|(request, respond)| {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let (body, _) = whole(request.into_body()).await;
            say(respond, &format!("{path} {}", body.len()));
        })
    });
    let server = in_front_of(backend.address, "");
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("TE", "gzip, Trailers"),
        ("Connection", "keep-alive, te"),
    ];
    let mut client = server.connect();
    for body in [&b""[..], b"a body", &[7; 300_000]] {
        let answer = client.send("POST", "/orders/a%2Fb?x=1", &headers, body);
        let expected = format!("/a%2Fb {}", body.len());
        assert_eq!((answer.status, answer.text()), (200, expected.as_str()));
    }
    let key = &headers[..1];
    assert_eq!(client.send("GET", "/orders/2", key, b"").text(), "/2 0");
    assert_eq!(client.send("HEAD", "/orders/1", key, b"").status, 200);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    let seen = backend.seen.lock();
    let uri = format!("http://{}/a%2Fb?x=1", backend.address);
    assert_eq!(seen[0].uri().to_string(), uri);
    for (at, (te, length)) in [
        (Some("trailers"), Some("0")),
        (Some("trailers"), Some("6")),
        (Some("trailers"), Some("300000")),
        (None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let header = |name: &str| {
            seen[at]
                .headers()
                .get(name)
                .map(|v| v.to_str().expect("text"))
        };
        assert_eq!(header("te"), te, "{at}");
        assert_eq!(header("content-length"), length, "{at}");
        let host = server.address.to_string();
        assert_eq!(header("x-forwarded-host"), Some(host.as_str()));
        for absent in ["host", "connection", "transfer-encoding", "x-api-key"] {
            assert_eq!(header(absent), None, "{absent}");
        }
    }
}

#[test]
fn by_tls_it_is_agreed_upon() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let key = certified_key(pair.certificate.as_bytes(), pair.key.as_bytes());
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.expect("a pair"))));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let backend = Http2Backend::with(100, Some(tls), |(_, respond)| {
        say(respond, "ok");
        Box::pin(async {})
    });
    let folder = tempfile::tempdir().expect("a folder");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).expect("written");
    let url = format!("https://localhost:{}", backend.address.port());
    let server = start(&settings(
        &url,
        &format!("tls = {{ ca_file = \"{}\" }}", ca.display()),
    ));
    for _ in 0..5 {
        assert_eq!(server.get("/orders/1").text(), "ok");
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    let uri = backend.seen.lock()[0].uri().to_string();
    assert_eq!(uri, format!("{url}/1"));
}

/// As gRPC does it, over HTTP/2 on both sides.
#[test]
fn trailers_pass_both_ways() {
    let backend = Http2Backend::start(|(request, mut respond)| {
        Box::pin(async move {
            let (body, trailers) = whole(request.into_body()).await;
            let head = Response::builder().header("content-type", "application/grpc");
            let head = head.body(()).expect("valid");
            let mut answer = respond.send_response(head, false).expect("sent");
            answer.send_data(body.into(), false).expect("sent");
            let mut back = HeaderMap::new();
            back.insert("grpc-status", "0".parse().expect("a value"));
            let said = trailers.and_then(|all| all.get("x-checksum").cloned());
            back.insert("x-said", said.expect("a trailer"));
            answer.send_trailers(back).expect("sent");
        })
    });
    let server = in_front_of(backend.address, "");
    runtime().block_on(async {
        let mut sender = client(server.address).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", "17".parse().expect("a value"));
        let frames = [
            Frame::data(Bytes::from_static(b"ping")),
            Frame::trailers(trailers),
        ];
        let frames = frames.map(Ok::<_, Infallible>);
        let request = Request::post(format!("http://{}/orders/Echo", server.address))
            .header("x-api-key", &server.key)
            .header("te", "trailers")
            .body(StreamBody::new(futures_util::stream::iter(frames)))
            .expect("valid");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_2);
        let body = answer.into_body().collect().await.expect("whole");
        let trailers = body.trailers().expect("trailers").clone();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-said"], "17");
        let host = server.address.to_string();
        let seen = backend.seen.lock()[0].headers().clone();
        assert_eq!(seen["x-forwarded-host"], host.as_str());
        assert_eq!(body.to_bytes(), "ping");
    });
}

#[test]
fn trailers_of_a_client_bring_a_service_no_head_and_its_circuit_no_failure() {
    let backend = Http2Backend::start(|(request, respond)| {
        Box::pin(async move {
            let (_, trailers) = whole(request.into_body()).await;
            let mut names: Vec<String> = trailers
                .iter()
                .flat_map(|all| all.keys().map(ToString::to_string))
                .collect();
            names.sort();
            say(respond, &names.join(","));
        })
    });
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    // Of these HTTP/2 takes none, and a service must believe none.
    client.raw(
        format!(
            "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ntransfer-encoding: chunked\r\n\r\n\
             3\r\nabc\r\n0\r\nte: gzip\r\nconnection: close\r\nx-api-key: k\r\nauthorization: k\r\n\
             x-auspex-cluster: k\r\nx-forwarded-for: 6.6.6.6\r\ncontent-length: 9\r\nx-checksum: 1\r\n\r\n",
            server.key
        )
        .as_bytes(),
    );
    let answer = client.receive(false).expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "x-checksum"));
}

async fn client<B>(address: SocketAddr) -> hyper::client::conn::http2::SendRequest<B>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = tokio::net::TcpStream::connect(address).await;
    let io = hyper_util::rt::TokioIo::new(stream.expect("connects"));
    let executor = hyper_util::rt::TokioExecutor::new();
    let shaken = hyper::client::conn::http2::handshake(executor, io).await;
    let (sender, connection) = shaken.expect("HTTP/2");
    tokio::spawn(connection);
    sender
}

#[test]
fn what_was_not_processed_is_sent_again_whatever_it_is() {
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    let backend = Http2Backend::start(move |(request, mut respond)| {
        let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            let (body, _) = whole(request.into_body()).await;
            match is_first {
                true => respond.send_reset(Reason::REFUSED_STREAM),
                false => say(respond, &String::from_utf8_lossy(&body)),
            }
        })
    });
    let server = in_front_of(backend.address, "");
    let answer = server.post("/orders/1", "pay once");
    assert_eq!((answer.status, answer.text()), (200, "pay once"));
    assert_eq!(backend.seen(), 2);

    let backend = Http2Backend::start(|(_, mut respond)| {
        respond.send_reset(Reason::REFUSED_STREAM);
        Box::pin(async {})
    });
    let server = in_front_of(backend.address, "retry = { retries_max = 1 }");
    let answer = server.post("/orders/1", "x");
    let refused = (502, "BAD_GATEWAY".into(), "refused".into());
    assert_eq!(refusal(&answer), refused, "{}", answer.text());
}

#[test]
fn a_request_that_names_no_host_is_for_the_endpoint() {
    let backend = Http2Backend::start(|(_, respond)| {
        say(respond, "ok");
        Box::pin(async {})
    });
    let server = start(&format!(
        "{}preserve_host = true\n",
        settings(&format!("http://{}", backend.address), "")
    ));
    let mut client = server.connect();
    let head = "GET /orders/1 HTTP/1.1\r\nhost: \r\n";
    client.raw(format!("{head}x-api-key: {}\r\n\r\n", server.key).as_bytes());
    let answer = client.receive(false).expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    let uri = format!("http://{}/1", backend.address);
    assert!(
        backend
            .seen
            .lock()
            .iter()
            .all(|seen| seen.uri().to_string() == uri)
    );
}

/// hyper takes that for an end.
#[test]
fn a_stream_that_is_reset_without_an_error_does_not_look_whole() {
    let backend = Http2Backend::start(|(_, mut respond)| {
        Box::pin(async move {
            let head = Response::new(());
            let mut body = respond.send_response(head, false).expect("sent");
            let piece = Bytes::from_static(b"half of it");
            body.send_data(piece, false).expect("sent");
            tokio::time::sleep(Duration::from_millis(200)).await;
            body.send_reset(Reason::NO_ERROR);
        })
    });
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    let request = format!(
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
        server.key
    );
    client.raw(request.as_bytes());
    client.stream.set_read_timeout(Some(SOON)).expect("set");
    let mut received = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client, &mut received);
    let received = String::from_utf8_lossy(&received);
    assert!(received.contains("half of it"), "{received}");
    assert!(!received.ends_with("0\r\n\r\n"), "{received}");
}

#[test]
fn a_body_that_goes_on_over_http2_is_not_cut() {
    let backend = Http2Backend::start(|(request, respond)| {
        Box::pin(async move {
            let (body, _) = whole(request.into_body()).await;
            say(respond, &body.len().to_string());
        })
    });
    let url = format!("http://{}", backend.address);
    let limits = "[server]\nrequest_timeout_ms = 500\nbody_timeout_ms = 500\n";
    let server = start(&settings(&url, "").replacen("[server]\n", limits, 1));
    runtime().block_on(async {
        let mut sender = client(server.address).await;
        let pieces = futures_util::stream::unfold(0, async |sent| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let frame = Frame::data(Bytes::from_static(b"piece"));
            (sent < 30).then_some((Ok::<_, Infallible>(frame), sent + 1))
        });
        let request = Request::post(format!("http://{}/orders/1", server.address))
            .header("x-api-key", &server.key)
            .body(StreamBody::new(Box::pin(pieces)))
            .expect("valid");
        let answer = sender.send_request(request).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("whole");
        assert_eq!(body.to_bytes(), "150");
    });
}

#[test]
fn what_may_have_been_processed_is_not() {
    let backend = Http2Backend::start(|(_, mut respond)| {
        respond.send_reset(Reason::INTERNAL_ERROR);
        Box::pin(async {})
    });
    let server = in_front_of(backend.address, "");
    let answer = server.post("/orders/1", "x");
    assert_eq!(refusal(&answer).2, "reset", "{}", answer.text());
    assert_eq!(backend.seen(), 1);
    let again = server.get("/orders/1");
    assert_eq!(refusal(&again).2, "reset");
    assert_eq!(again.header("x-gateway-retries"), Some("3"));
}

#[test]
fn a_server_of_http1_is_no_server_of_http2() {
    let backend = Backend::saying(OK);
    let server = in_front_of(backend.address, "");
    let answer = server.get("/orders/1");
    let invalid = (502, "BAD_GATEWAY".into(), "invalid".into());
    assert_eq!(refusal(&answer), invalid, "{}", answer.text());
}

#[test]
fn whoever_leaves_ends_what_the_service_does_and_nothing_else() {
    let (cancelled, told) = std::sync::mpsc::channel();
    let backend = Http2Backend::start(move |(request, mut respond)| {
        let cancelled = cancelled.clone();
        Box::pin(async move {
            if request.uri().path() == "/quick" {
                return say(respond, "ok");
            }
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = cancelled.send(reason.expect("a reason"));
        })
    });
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    let head = format!(
        "GET /orders/slow HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
        server.key
    );
    client.raw(head.as_bytes());
    eventually(SOON, "it is there", || backend.seen() == 1);
    drop(client);
    assert_eq!(told.recv_timeout(SOON).expect("told"), Reason::CANCEL);
    assert_eq!(server.get("/orders/quick").status, 200);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

/// Its first connection is lost on the way without a word, after it had begun well.
#[test]
fn a_connection_that_fell_silent_is_left() {
    let backend = Http2Backend::start(|(_, respond)| {
        say(respond, "ok");
        Box::pin(async {})
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, behind) = (listener.local_addr().expect("bound"), backend.address);
    std::thread::spawn(move || {
        let (mut lost, _) = listener.accept().expect("a connection");
        let no_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        lost.write_all(&no_settings).expect("sent");
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut there = std::net::TcpStream::connect(behind).expect("connects");
            let mut back = (
                there.try_clone().expect("cloned"),
                stream.try_clone().expect("cloned"),
            );
            std::thread::spawn(move || std::io::copy(&mut stream, &mut there));
            std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1));
        }
        drop(lost);
    });
    let server = in_front_of(address, "");
    assert_eq!(refusal(&server.get("/orders/1")).2, "timeout");
    assert_eq!(server.get("/orders/1").text(), "ok");
}

/// A peer that takes few requests at once gets more connections, and nobody waits for another.
#[test]
fn many_requests_at_once_take_few_connections() {
    let running = Arc::new(AtomicUsize::new(0));
    let counted = running.clone();
    let backend = Http2Backend::with(10, None, move |(_, respond)| {
        let running = counted.clone();
        Box::pin(async move {
            running.fetch_add(1, Ordering::SeqCst);
            while running.load(Ordering::SeqCst) < 40 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            say(respond, "ok");
        })
    });
    let server = in_front_of(backend.address, "");
    // Its settings are known from now on.
    running.store(40, Ordering::SeqCst);
    assert_eq!(server.get("/orders/1").status, 200);
    running.store(0, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let asking = [(); 40].map(|()| scope.spawn(|| server.get("/orders/1").status));
        for asked in asking {
            assert_eq!(asked.join().expect("answered"), StatusCode::OK);
        }
    });
    let connections = backend.connections.load(Ordering::SeqCst);
    assert!((2..=8).contains(&connections), "{connections}");
}
