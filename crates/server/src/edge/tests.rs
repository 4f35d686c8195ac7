//! The edge around handlers that misbehave, which the program itself has none of.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use auspex_kernel::caller::Verification;
use auspex_kernel::id::{KeyId, UserId};
use auspex_kernel::policy::{Access, Policy};
use auspex_kernel::quota::{Quotas, RateLimit};
use auspex_kernel::service::{Boxed, Documented, Handle, Routes, UndocumentedRoute};
use auspex_kernel::{Credential, Scope, ScopeSet, Subject};
use axum::routing::{MethodRouter, get};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::metrics::RouteMetrics;
use crate::telemetry::{AccessLog, Reports};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Knows one key, `good`.
struct OneKey;

impl Authenticate for OneKey {
    fn authenticate(&self, credential: Credential<'_>, _: Timestamp) -> Verdict {
        match credential {
            Credential::Token(b"good") => {
                Verdict::Known(Arc::new(caller(Subject::Key(KeyId::from_stored("1")))))
            }
            Credential::Token(_) => Verdict::Refused,
            Credential::Basic(_) => Verdict::Unverified,
        }
    }

    fn verify(self: Arc<Self>, credential: Credential<'_>, _: IpAddr) -> Verification {
        let verified = match credential {
            Credential::Basic(b"good") => {
                Ok(Arc::new(caller(Subject::User(UserId::from_stored("1")))))
            }
            _ => Err(ApiError::unauthenticated("name or password is wrong")),
        };
        Box::pin(std::future::ready(verified))
    }

    fn is_origin_of_client(&self, origin: &str) -> bool {
        origin == "https://client.example.org"
    }
}

/// Knows `good` until it is revoked.
#[derive(Default)]
pub(crate) struct Revocable {
    revoked: AtomicBool,
}

impl Revocable {
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }
}

impl Authenticate for Revocable {
    fn authenticate(&self, credential: Credential<'_>, now: Timestamp) -> Verdict {
        match self.revoked.load(Ordering::Relaxed) {
            true => Verdict::Refused,
            false => OneKey.authenticate(credential, now),
        }
    }

    fn verify(self: Arc<Self>, credential: Credential<'_>, peer: IpAddr) -> Verification {
        Arc::new(OneKey).verify(credential, peer)
    }

    fn is_origin_of_client(&self, _: &str) -> bool {
        false
    }
}

fn caller(subject: Subject) -> Caller {
    Caller {
        subject,
        scopes: ScopeSet::from_iter([Scope::Predict]),
        quota_key: 1,
        expires_at: None,
        user_id: None,
        session_id: None,
        client_id: None,
    }
}

const LIMITS: Limits = Limits {
    body_bytes_max: 100,
    body_timeout: Duration::from_secs(30),
    request_timeout: Duration::from_secs(60),
};

/// Quotas of a server without replicas.
pub(crate) fn alone() -> Quotas {
    Quotas::new(None, Clock::system())
}

pub(crate) fn quota(max: u32) -> Quota {
    let limit = RateLimit {
        max,
        window_s: 10,
        callers_max: 100,
    };
    alone().quota(&limit, "tests")
}

/// A signal that is never given.
fn running() -> StopSignal {
    let (stop, signal) = StopSignal::new();
    std::mem::forget(stop);
    signal
}

/// Handlers as a service offers them; what they document is given apart.
fn routes(handlers: axum::Router) -> Routes {
    let documented = Documented::new(utoipa::openapi::OpenApi::default());
    Routes::new(handlers, documented)
}

fn table(routes: Routes, document: &Value) -> RouteTable {
    let declared = declared(&routes, document).expect("rules");
    let metrics = |_: &str, _: &str| RouteMetrics::default();
    let quotas = alone();
    let usual = Usual {
        limits: LIMITS,
        quotas: &quotas,
    };
    RouteTable::new(declared, usual, None, metrics).expect("no clash")
}

/// A table of one route, `GET /x`, for callers with the scope `predict`.
pub(crate) fn table_with(handler: MethodRouter, policy: Policy) -> RouteTable {
    let document = json!({"paths": {"/x": {"get": {
        "operationId": "get_x",
        "security": [{"bearer": ["predict"]}],
    }}}});
    let handlers = axum::Router::new().route("/x", handler);
    table(routes(handlers).with_policy(&["get_x"], policy), &document)
}

/// A table of one public route that is read by GET.
pub(crate) fn public_table(handlers: axum::Router, path: &'static str) -> RouteTable {
    table(routes(handlers).with_pages(&[path]), &Value::Null)
}

pub(crate) fn edge(reports: Option<Reports>) -> Edge {
    let handlers = axum::Router::new()
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a broken invariant") }),
        )
        .route("/hang", get(std::future::pending::<&'static str>))
        .route("/scoped", get(async || "scoped"))
        .route("/anyone", get(async || "anyone"));
    let document = json!({"paths": {
        "/panic": {"get": {"security": []}},
        "/hang": {"get": {"security": []}},
        "/scoped": {"get": {"security": [{"bearer": ["predict"]}]}},
        "/forbidden": {"get": {"security": [{"bearer": ["audit:read"]}]}},
        "/anyone": {"get": {"security": [{"bearer": []}]}},
    }});
    Edge {
        routes: ArcSwap::from_pointee(table(routes(handlers), &document)),
        identity: Arc::new(OneKey),
        callers: quota(3),
        addresses: quota(5),
        control: Control::current(),
        clock: Clock::manual(Timestamp(1_769_335_200_000_000)),
        observers: Arc::new(Observers {
            access_log: AccessLog::Off,
            unmatched: RouteMetrics::default(),
            traces: None,
            reports,
        }),
        headers: headers::Fixed::new(31_536_000, None),
        cors: Cors::new(&CorsConfig {
            origins: Vec::new(),
            max_age_s: 600,
        }),
        limits: LIMITS,
        public_authority: "models.example.org".into(),
        hosts: Hosts::new("models.example.org", &[]),
        proxies: Proxies::new(&[], ForwardedHeader::XForwardedFor).expect("none"),
        leaving: Arc::default(),
        stop: running(),
        bodies: Arc::new(Budget::new(1000)),
    }
}

async fn ask(edge: &Edge, path: &str, key: Option<&str>) -> (u16, http::HeaderMap, Value) {
    let mut request = Request::get(path).header("host", "x");
    if let Some(key) = key {
        request = request.header("x-api-key", key);
    }
    let request = request.body(Body::empty()).expect("valid");
    let (parts, body) = edge
        .handle(request, Ipv4Addr::LOCALHOST.into())
        .await
        .into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (parts.status.as_u16(), parts.headers, body)
}

#[tokio::test]
async fn a_panic_is_a_500_envelope_without_its_message() {
    let edge = edge(None);
    let (status, headers, body) = ask(&edge, "/panic", None).await;
    assert_eq!((status, &body["error"]["code"]), (500, &json!("INTERNAL")));
    assert_eq!(
        body["error"]["request_id"],
        headers["x-request-id"].to_str().expect("ASCII")
    );
    assert!(!body.to_string().contains("invariant"));
    assert_eq!(headers["strict-transport-security"], "max-age=31536000");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_answers_is_503() {
    let (status, headers, body) = ask(&edge(None), "/hang", None).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (503, &json!("UNAVAILABLE"))
    );
    assert!(headers.contains_key("retry-after"));
}

#[test]
fn handlers_run_on_the_control_runtime_unless_they_are_inline() {
    let [control, worker] = [(); 2].map(|()| tokio::runtime::Runtime::new().expect("starts"));
    let there = control.block_on(async { tokio::runtime::Handle::current().id() });
    let here = worker.block_on(async { tokio::runtime::Handle::current().id() });
    let answered = |runs| {
        let edge = control.block_on(async { edge(None) });
        let (tell, told) = std::sync::mpsc::channel();
        let handler = get(async move || {
            tell.send(tokio::runtime::Handle::current().id())
                .expect("open");
        });
        let policy = Policy {
            runs,
            ..Policy::default()
        };
        edge.routes.store(Arc::new(table_with(handler, policy)));
        let (status, ..) = worker.block_on(ask(&edge, "/x", Some("good")));
        assert_eq!(status, 200);
        told.recv().expect("called")
    };
    assert_eq!(answered(Runs::OnControl), there);
    assert_eq!(answered(Runs::Inline), here);
}

#[tokio::test]
async fn a_route_may_have_limits_and_a_form_of_errors_of_its_own() {
    let edge = edge(None);
    let policy = Policy {
        caller_limit: Some(RateLimit {
            max: 1,
            window_s: 10,
            callers_max: 10,
        }),
        body_bytes_max: Some(1),
        render_error: |error, _| (error.status(), axum::Json(error.code())).into_response(),
        ..Policy::default()
    };
    let table = table_with(get(async || "x"), policy);
    edge.routes.store(Arc::new(table));
    assert_eq!(ask(&edge, "/x", Some("good")).await.0, 200);
    let (status, headers, body) = ask(&edge, "/x", Some("good")).await;
    assert_eq!((status, body), (429, json!("RATE_LIMITED")));
    assert_eq!(headers["x-ratelimit-limit"], "1");
    let long = Request::get("/x")
        .header("host", "x")
        .header("content-length", "2");
    let answer = edge
        .handle(long.body(Body::from("xx")).expect("valid"), ADDRESS)
        .await;
    assert_eq!(answer.status(), 413);
    // The count of the server is another one.
    let other = table_with(get(async || "x"), Policy::default());
    edge.routes.store(Arc::new(other));
    assert_eq!(ask(&edge, "/x", Some("good")).await.0, 200);
}

/// A request that is under way ends with the table it began with; others get the new one.
#[tokio::test]
async fn a_table_is_replaced_under_requests() {
    let edge = edge(None);
    let (begin, began) = tokio::sync::oneshot::channel::<()>();
    let began = Arc::new(std::sync::Mutex::new(Some(began)));
    let slow = get(async move || {
        let began = began.lock().expect("one user").take().expect("one request");
        began.await.expect("begun");
        "old"
    });
    edge.routes
        .store(Arc::new(table_with(slow, Policy::default())));
    let old = ask(&edge, "/x", Some("good"));
    let new = async {
        tokio::task::yield_now().await;
        let handler = get(async || axum::Json("new"));
        edge.routes
            .store(Arc::new(table_with(handler, Policy::default())));
        let answer = ask(&edge, "/x", Some("good")).await;
        begin.send(()).expect("waiting");
        answer
    };
    let (old, new) = tokio::join!(old, new);
    assert_eq!((old.0, new.0, new.2), (200, 200, json!("new")));
}

/// A body is in memory until its request is answered, and not only while it arrives.
#[tokio::test]
async fn a_body_has_its_share_of_memory_until_its_request_is_answered() {
    let (answer, answered) = tokio::sync::watch::channel(false);
    let handler = get(async move |request: Request<Body>| {
        let bytes = body::read(request.into_body()).await?;
        let _ = answered.clone().wait_for(|answered| *answered).await;
        Ok::<_, ApiError>(bytes.len().to_string())
    });
    for runs in [Runs::OnControl, Runs::Inline] {
        answer.send_replace(false);
        let edge = Edge {
            bodies: Arc::new(Budget::new(100)),
            ..edge(None)
        };
        let policy = Policy {
            runs,
            ..Policy::default()
        };
        let table = table_with(handler.clone(), policy);
        edge.routes.store(Arc::new(table));
        let ask = async || {
            let pieces = ["x".repeat(30), "y".repeat(30)].map(Ok::<_, std::io::Error>);
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            let request = Request::get("/x")
                .header("host", "x")
                .header("x-api-key", "good");
            let request = request.body(body).expect("valid");
            edge.handle(request, ADDRESS).await.status().as_u16()
        };
        let first = ask();
        let second = async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let status = ask().await;
            answer.send_replace(true);
            status
        };
        assert_eq!(tokio::join!(first, second), (200, 503), "{runs:?}");
        assert_eq!(ask().await, 200, "{runs:?}");
    }
}

/// A log that can be read.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is counted and logged of a request whose handler fails after nobody waits for it any more.
async fn failed_unheard(leave: impl AsyncFnOnce(&Edge)) -> (RouteMetrics, String) {
    let (begin, begun) = tokio::sync::watch::channel(false);
    let handler = get(async move || -> Result<(), ApiError> {
        let mut begun = begun.clone();
        let _ = begun.wait_for(|begun| *begun).await;
        Err(ApiError::internal("the disk is on fire"))
    });
    let mut edge = edge(None);
    let observers = Arc::get_mut(&mut edge.observers).expect("one owner");
    observers.access_log = AccessLog::All;
    let table = table_with(handler, Policy::default());
    let route = table.find_plain(&http::Method::GET, "/x").expect("there");
    let metrics = route.metrics.clone();
    edge.routes.store(Arc::new(table));
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // What nobody listens to when it is first met by a test beside this one may be left out for good.
    let nowhere = tracing_subscriber::fmt().with_writer(std::io::sink);
    let _ = tracing::subscriber::set_global_default(nowhere.finish());
    let _guard = tracing::subscriber::set_default(subscriber);
    leave(&edge).await;
    begin.send_replace(true);
    assert!(edge.control.ended(Duration::from_secs(10)).await);
    let text = String::from_utf8_lossy(&log.0.lock().expect("no panic")).into_owned();
    (metrics, text)
}

#[tokio::test]
async fn the_end_of_a_handler_whose_client_has_left_is_recorded() {
    let (metrics, log) = failed_unheard(async |edge| {
        let asked = ask(edge, "/x", Some("good"));
        assert!(asked.now_or_never().is_none(), "the client leaves");
    })
    .await;
    assert_eq!(
        (metrics.read().requests(), metrics.read().of_class(5)),
        (1, 1)
    );
    assert_eq!(log.matches("the disk is on fire").count(), 1, "{log}");
    assert!(
        log.contains("http.status=500") && log.contains("key:1"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_is_logged_and_its_request_is_not_counted_twice() {
    let (metrics, log) = failed_unheard(async |edge| {
        let (status, ..) = ask(edge, "/x", Some("good")).await;
        assert_eq!(status, 503);
    })
    .await;
    assert_eq!(metrics.read().requests(), 1);
    assert_eq!(log.matches("the disk is on fire").count(), 1, "{log}");
    assert_eq!(log.matches("http.status=503").count(), 1, "{log}");
}

#[tokio::test]
async fn routes_ask_for_what_they_declare() {
    let edge = edge(None);
    assert_eq!(ask(&edge, "/anyone", Some("good")).await.0, 200);
    assert_eq!(ask(&edge, "/scoped", Some("good")).await.0, 200);
    let (status, _, body) = ask(&edge, "/forbidden", Some("good")).await;
    assert_eq!(status, 403);
    assert!(body.to_string().contains("audit:read"), "{body}");
    assert_eq!(ask(&edge, "/anyone", None).await.0, 401);
    assert_eq!(ask(&edge, "/scoped", Some("bad")).await.0, 401);
}

#[tokio::test]
async fn limits_free_with_the_clock() {
    let edge = edge(None);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(ask(&edge, "/scoped", Some("good")).await.0);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    edge.clock.advance(Duration::from_secs(9));
    assert_eq!(ask(&edge, "/scoped", Some("good")).await.0, 429);
    edge.clock.advance(Duration::from_millis(1_160));
    assert_eq!(ask(&edge, "/scoped", Some("good")).await.0, 200);
}

/// Neither is a limit lifted, nor does it last longer; the header says the date as it is now.
#[tokio::test]
async fn limits_do_not_move_with_the_wall_clock() {
    let edge = edge(None);
    let start = edge.clock.now();
    for _ in 0..3 {
        assert_eq!(ask(&edge, "/scoped", Some("good")).await.0, 200);
    }
    let (hour, days) = (Duration::from_hours(1), Duration::from_hours(240));
    for to in [start + hour, start - hour, start + days, start - days] {
        edge.clock.step(to);
        let (status, headers, _) = ask(&edge, "/scoped", Some("good")).await;
        assert_eq!(status, 429);
        let number = |name: &str| headers[name].to_str().expect("ASCII").parse::<i64>();
        let wait = number("retry-after").expect("seconds");
        assert!((1..=11).contains(&wait), "{wait}");
        let reset = number("x-ratelimit-reset").expect("seconds");
        assert!((reset - to.unix_seconds() - wait).abs() <= 1, "{reset}");
    }
    edge.clock.advance(Duration::from_millis(10_160));
    assert_eq!(ask(&edge, "/scoped", Some("good")).await.0, 200);
}

/// The earlier step decides: an unknown path is 404 for an address over its limit too.
#[tokio::test]
async fn the_order_is_route_then_address_then_key_then_quota_then_scope() {
    let edge = edge(None);
    for _ in 0..5 {
        assert_eq!(ask(&edge, "/scoped", Some("bad")).await.0, 401);
    }
    assert_eq!(ask(&edge, "/nowhere", Some("bad")).await.0, 404);
    assert_eq!(ask(&edge, "/scoped", Some("bad")).await.0, 429);
    let edge = self::edge(None);
    for status in [403, 403, 403, 429] {
        assert_eq!(ask(&edge, "/forbidden", Some("good")).await.0, status);
    }
}

/// Takes one delivery, as Sentry would; its text.
pub(crate) fn receive_report(sentry: TcpListener) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = sentry.accept().expect("a delivery");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set");
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        while !text.windows(11).any(|w| w == b"request.id\"") {
            match stream.read(&mut chunk) {
                Ok(read) if read > 0 => text.extend_from_slice(&chunk[..read]),
                _ => break,
            }
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        String::from_utf8_lossy(&text).into_owned()
    })
}

#[tokio::test]
async fn internal_errors_are_reported_to_sentry_and_nothing_personal_with_them() {
    let sentry = TcpListener::bind("127.0.0.1:0").expect("binds");
    let dsn = format!("http://public@{}/1", sentry.local_addr().expect("bound"));
    let received = receive_report(sentry);
    let edge = edge(Some(Reports::new(&dsn, "test").expect("a DSN")));
    let (status, headers, _) = ask(&edge, "/panic", Some("good")).await;
    assert_eq!(status, 500);
    let flushed = tokio::task::spawn_blocking(move || edge.observers.flush());
    flushed.await.expect("flushed");
    let text = received.join().expect("received");
    let id = headers["x-request-id"].to_str().expect("ASCII");
    for part in ["/api/1/envelope/", "a broken invariant", "GET /panic", id] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        !text.contains("good\"") && !text.contains("127.0.0.1\""),
        "{text}"
    );
}

#[test]
fn an_ipv6_network_is_one_address_and_mapped_ipv4_is_ipv4() {
    let key = |text: &str| address_key(text.parse().expect("an address"));
    assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
}

#[test]
fn retry_after_is_rounded_up_to_whole_seconds() {
    let decision = Decision {
        allowed: false,
        limit: 3,
        remaining: 0,
        reset_in: Duration::from_micros(2_000_001),
    };
    let rendered = rate_limited(&decision, "x").render(&RequestId::generate());
    assert_eq!(rendered.headers()[header::RETRY_AFTER], "3");
}

#[test]
fn a_route_that_is_not_public_cannot_be_without_limits() {
    let document = json!({"paths": {"/x": {"get": {
        "operationId": "get_x",
        "security": [{"bearer": ["predict"]}],
    }}}});
    let unlimited = Policy {
        is_limited: false,
        ..Policy::default()
    };
    let routes = routes(axum::Router::new()).with_policy(&["get_x"], unlimited);
    let refused = declared(&routes, &document).expect_err("no limits");
    assert!(refused.to_string().contains("GET /x"), "{refused}");
}

/// Tells how long a body is and whether a proxy handed it on.
struct Counting;

impl Handle for Counting {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async {
            let is_handed_on = request.extensions().get::<auspex_kernel::Via>().is_some();
            let body = request
                .into_body()
                .collect()
                .await
                .expect("no bound is broken");
            let text = format!("{} {is_handed_on}", body.to_bytes().len());
            let headers = [(header::CACHE_CONTROL, "max-age=60")];
            (headers, text).into_response()
        })
    }
}

#[tokio::test]
async fn what_is_passed_on_has_no_bounds_and_no_headers_but_its_own() {
    let route = UndocumentedRoute {
        key: "gateway.routes[0].path".to_owned(),
        path: "/orders/{*rest}".to_owned(),
        methods: Vec::new(),
        conditions: Default::default(),
        access: Access::Scopes(ScopeSet::from_iter([Scope::Predict])),
        policy: Policy {
            runs: Runs::Inline,
            answer: Answer::PassedOn,
            streams_body: true,
            ..Policy::default()
        },
        handler: Arc::new(Counting),
    };
    let routes = routes(axum::Router::new()).with_undocumented(vec![route]);
    let edge = Edge {
        proxies: Proxies::new(&["10.0.0.0/8".into()], ForwardedHeader::XForwardedFor).expect("one"),
        ..edge(None)
    };
    edge.routes.store(Arc::new(table(routes, &Value::Null)));
    let send = async |peer: [u8; 4], key: &str| {
        let request = Request::put("/orders/1")
            .header("host", "x")
            .header("x-api-key", key);
        let request = request.body(Body::from(vec![b'x'; 5000])).expect("valid");
        let (parts, body) = edge.handle(request, peer.into()).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), parts.headers, bytes)
    };
    let (status, headers, body) = send([127, 0, 0, 1], "good").await;
    assert_eq!((status, &body[..]), (200, &b"5000 false"[..]));
    assert_eq!(headers["cache-control"], "max-age=60");
    assert!(headers.contains_key("x-request-id") && headers.contains_key("x-ratelimit-limit"));
    assert!(!headers.contains_key("content-security-policy"));
    assert_eq!(send([10, 0, 0, 1], "good").await.2, "5000 true");
    let (status, headers, _) = send([127, 0, 0, 1], "bad").await;
    assert_eq!(status, 401, "it is no less guarded");
    assert!(headers.contains_key("content-security-policy"));
}
