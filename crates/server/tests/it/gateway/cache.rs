//! Answers that are kept for the next who ask, and those that must not be.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;

use super::backend::{Backend, Seen, Then};
use super::start;
use crate::client::Answer;
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A service that numbers its answers, with these headers.
fn numbering(headers: &'static str) -> Backend {
    numbering_by(move |_| ("200 OK", headers.to_owned()))
}

/// One whose status and headers depend on the request.
fn numbering_by(head: impl Fn(&Seen) -> (&'static str, String) + Send + Sync + 'static) -> Backend {
    let count = AtomicUsize::new(0);
    Backend::start(move |seen, stream| {
        let (status, headers) = head(seen);
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        say(stream, status, &headers, &format!("answer {number}"));
        Then::Keep
    })
}

fn say(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let is_empty = ["204", "304"].iter().any(|bare| status.starts_with(bare));
    let (length, body) = match is_empty {
        true => (String::new(), ""),
        false => (format!("content-length: {}\r\n", body.len()), body),
    };
    let answer = format!("HTTP/1.1 {status}\r\n{length}{headers}\r\n{body}");
    // The gateway may have left.
    let _ = stream.write_all(answer.as_bytes());
}

/// `/open/…` for everybody, `/own/…` for callers, `/seen/…` for everybody with credentials that the service gets.
fn in_front_of(backend: &Backend) -> Server {
    start(&settings(backend, ""))
}

fn settings(backend: &Backend, more: &str) -> String {
    let route = |path: &str, access: &str| {
        format!(
            "[[gateway.routes]]\npath = \"/{path}/{{*rest}}\"\nservice = \"orders\"\n{access}\n\
             cache = {{ ttl_s = 3600 }}\n"
        )
    };
    let routes = [
        route("open", "public = true"),
        route("own", "scopes = []"),
        route("seen", "public = true\nforward_credentials = true"),
    ];
    format!(
        "[server.rate_limit]\nmax = 1000000\n[server.address_limit]\nmax = 1000000\n\
         [gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         circuit_breaker = {{ failure_threshold = 1000 }}\nretry = {{ retries_max = 0 }}\n{more}\n{}",
        backend.address,
        routes.concat()
    )
}

fn ask(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.connect().send("GET", path, headers, b"")
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_default()
}

/// The bodies of two answers to one request.
fn twice(server: &Server, path: &str, headers: &[(&str, &str)]) -> [String; 2] {
    [(); 2].map(|()| ask(server, path, headers).text().to_owned())
}

/// Another API key of the administrator, who is another caller.
fn second_key(server: &Server) -> String {
    let body = "{\"name\": \"second\", \"scopes\": [\"predict\"]}";
    let answer = server.post("/v1/api-keys", body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["key"].as_str().expect("a key").to_owned()
}

#[test]
fn an_answer_is_kept_for_the_next_who_ask() {
    let backend = numbering("x-own: 1\r\n");
    let server = in_front_of(&backend);
    let first = ask(&server, "/open/1?a=b", &[]);
    assert_eq!((first.status, first.text()), (200, "answer 1"));
    assert_eq!(status(&first), "auspex; fwd=uri-miss; stored");
    let second = ask(&server, "/open/1?a=b", &[]);
    assert_eq!((second.status, second.text()), (200, "answer 1"));
    assert!(
        status(&second).starts_with("auspex; hit; ttl=3"),
        "{}",
        status(&second)
    );
    let age: u64 = second
        .header("age")
        .expect("an age")
        .parse()
        .expect("seconds");
    assert!(age < 60);
    for name in ["x-own", "date", "x-request-id"] {
        assert!(second.header(name).is_some(), "{name}");
    }
    // Another query, path or host is another request.
    for path in ["/open/1?a=c", "/open/1", "/open/2?a=b"] {
        assert!(
            status(&ask(&server, path, &[])).contains("uri-miss"),
            "{path}"
        );
    }
    let mut client = server.connect();
    client.raw(b"GET /open/1?a=b HTTP/1.1\r\nhost: other.example\r\n\r\n");
    let other = client.receive(false).expect("an answer");
    assert!(status(&other).contains("uri-miss"));
    // HEAD is answered by what GET has brought.
    let head = server.connect().send("HEAD", "/open/1?a=b", &[], b"");
    assert!(status(&head).contains("; hit"));
    assert_eq!(head.header("content-length"), Some("8"));
    assert_eq!(backend.seen().len(), 5);
    let metrics = server.get("/metrics");
    for (result, count) in [("hit", 2), ("miss", 5), ("bypass", 0)] {
        let line = format!(
            "auspex_gateway_cache_total{{service=\"orders\",result=\"{result}\"}} {count}\n"
        );
        assert!(metrics.text().contains(&line), "{line} {}", metrics.text());
    }
}

#[test]
fn what_an_answer_says_of_itself_is_honoured() {
    let backend = numbering_by(|seen| {
        let path = seen
            .request_line()
            .split(['/', ' ', '?'])
            .nth(3)
            .expect("a segment");
        let (status, headers) = match path {
            "no-store" => ("200 OK", "cache-control: no-store"),
            "private" => ("200 OK", "cache-control: private, max-age=60"),
            "expired" => ("200 OK", "cache-control: max-age=0"),
            "cookie" => (
                "200 OK",
                "cache-control: public, max-age=60\r\nset-cookie: a=b",
            ),
            "vary" => ("200 OK", "vary: *"),
            "address" => ("200 OK", "vary: x-forwarded-for"),
            "old" => ("200 OK", "cache-control: max-age=60\r\nage: 60"),
            "error" => ("500 Oh no", "cache-control: max-age=60"),
            "missing" => ("404 Not Found", "x: y"),
            "part" => (
                "206 Part",
                "cache-control: max-age=60\r\ncontent-range: bytes 0-7/9",
            ),
            "hidden" => (
                "200 OK",
                "connection: cache-control, set-cookie\r\ncache-control: private\r\nset-cookie: a=b",
            ),
            "malformed" => ("200 OK", "cache-control: max-age=60, x=\"a, private"),
            "events" => ("200 OK", "content-type: text/event-stream"),
            "fresh" => ("200 OK", "cache-control: max-age=60"),
            "known-missing" => ("404 Not Found", "cache-control: max-age=60"),
            _ => ("301 Moved", "location: /x"),
        };
        (status, format!("{headers}\r\n"))
    });
    let server = in_front_of(&backend);
    for path in [
        "no-store",
        "private",
        "expired",
        "cookie",
        "vary",
        "address",
        "old",
        "error",
        "missing",
        "part",
        "events",
        "hidden",
        "malformed",
    ] {
        let [first, second] = twice(&server, &format!("/open/{path}"), &[]);
        assert_ne!(first, second, "{path}");
    }
    for path in ["fresh", "known-missing", "moved"] {
        let [first, second] = twice(&server, &format!("/open/{path}"), &[]);
        assert_eq!(first, second, "{path}");
    }
}

#[test]
fn what_a_client_wants_is_honoured() {
    let backend = numbering("");
    let server = in_front_of(&backend);
    let none = ask(&server, "/open/1", &[("cache-control", "only-if-cached")]);
    assert_eq!(
        (none.status, none.error_code().as_str()),
        (504, "NOT_CACHED")
    );
    let text = |headers: &[(&str, &str)]| ask(&server, "/open/1", headers).text().to_owned();
    assert_eq!(text(&[]), "answer 1");
    assert_eq!(text(&[("cache-control", "only-if-cached")]), "answer 1");
    assert_eq!(text(&[("cache-control", "max-age=60")]), "answer 1");
    assert_eq!(text(&[("cache-control", "min-fresh=3700")]), "answer 2");
    for (number, header) in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("pragma", "no-cache"),
    ]
    .iter()
    .enumerate()
    {
        let anew = format!("answer {}", number + 3);
        assert_eq!(text(&[*header]), anew, "{header:?}");
        // It is kept for the others.
        assert_eq!(text(&[]), anew);
    }
    for header in [
        ("cache-control", "no-store"),
        ("range", "bytes=0-1"),
        ("if-match", "\"a\""),
    ] {
        let answer = ask(&server, "/open/1", &[header]);
        assert_eq!(status(&answer), "auspex; fwd=bypass", "{header:?}");
        assert_eq!(text(&[]), "answer 5");
    }
}

#[test]
fn one_caller_never_gets_the_answer_to_another() {
    let backend = numbering("");
    let server = in_front_of(&backend);
    let (one, two) = (server.key.clone(), second_key(&server));
    let own = |key: &str| {
        ask(&server, "/own/1", &[("x-api-key", key)])
            .text()
            .to_owned()
    };
    assert_eq!(
        (own(&one), own(&two)),
        ("answer 1".into(), "answer 2".into())
    );
    assert_eq!(
        (own(&one), own(&two)),
        ("answer 1".into(), "answer 2".into())
    );
    let bearer = format!("Bearer {one}");
    assert_eq!(
        ask(&server, "/own/1", &[("authorization", &bearer)]).text(),
        "answer 1"
    );
    // Without a key there is nothing.
    assert_eq!(ask(&server, "/own/1", &[]).status, 401);
    assert_eq!(
        ask(&server, "/own/1", &[("x-api-key", "wrong")]).status,
        401
    );

    for shared in [
        "cache-control: public\r\n",
        "cache-control: s-maxage=60\r\n",
    ] {
        let backend = numbering(shared);
        let server = in_front_of(&backend);
        let (one, two) = (server.key.clone(), second_key(&server));
        for key in [&one, &two] {
            let answer = ask(&server, "/own/1", &[("x-api-key", key)]);
            assert_eq!(answer.text(), "answer 1", "{shared}");
        }
    }
}

#[test]
fn what_a_credential_was_shown_for_is_not_kept() {
    let backend = numbering("");
    let server = in_front_of(&backend);
    let open = ask(&server, "/seen/1", &[]).text().to_owned();
    for header in [
        ("cookie", "a=b"),
        ("authorization", "Basic x"),
        ("x-api-key", "k"),
    ] {
        let [first, second] = twice(&server, "/seen/1", &[header]);
        assert!(
            first != second && first != open && second != open,
            "{header:?}"
        );
        // Those without one are not disturbed.
        assert_eq!(ask(&server, "/seen/1", &[]).text(), open);
    }
    // A credential that the service does not see makes no difference.
    let [first, second] = twice(&server, "/open/1", &[("cookie", "a=b")]);
    assert_eq!(first, second);
    let public = numbering("cache-control: public, max-age=60\r\n");
    let server = in_front_of(&public);
    let [first, second] = twice(&server, "/seen/1", &[("cookie", "a=b")]);
    assert_eq!(first, second);
}

#[test]
fn answers_that_vary_are_kept_apart() {
    let backend = numbering("vary: Accept-Language\r\n");
    let server = in_front_of(&backend);
    let said = |language: &str| {
        let answer = ask(&server, "/open/1", &[("accept-language", language)]);
        answer.text().to_owned()
    };
    assert_eq!(
        (said("de"), said("en")),
        ("answer 1".into(), "answer 2".into())
    );
    assert_eq!(
        (said("de"), said("en")),
        ("answer 1".into(), "answer 2".into())
    );
    let none = ask(&server, "/open/1", &[]);
    assert_eq!(
        (none.text(), status(&none)),
        ("answer 3", "auspex; fwd=vary-miss; stored")
    );
}

#[test]
fn an_answer_is_kept_for_what_its_service_was_asked() {
    let backend = numbering("vary: x-tenant\r\n");
    let server = in_front_of(&backend);
    let tenant = ("x-tenant", "acme");
    let cut = ask(
        &server,
        "/open/1",
        &[("connection", "close, X-Tenant"), tenant],
    );
    assert_eq!(status(&cut), "auspex; fwd=bypass");
    assert_eq!(twice(&server, "/open/1", &[tenant]), ["answer 2"; 2]);
    assert_eq!(backend.seen()[0].header("x-tenant"), None);
    // What the service may take for another request, or even for a change.
    let overriding = [tenant, ("x-http-method-override", "DELETE")];
    let answer = ask(&server, "/open/1", &overriding);
    assert_eq!(
        (status(&answer), answer.text()),
        ("auspex; fwd=bypass", "answer 3")
    );
    assert_eq!(twice(&server, "/open/1", &[tenant]), ["answer 4"; 2]);
}

#[test]
fn an_answer_that_cannot_be_kept_ends_none_that_is() {
    let backend = numbering_by(|seen| match seen.header("x-odd") {
        Some(_) => ("400 Bad Request", String::new()),
        None => ("200 OK", String::new()),
    });
    let server = in_front_of(&backend);
    assert_eq!(twice(&server, "/open/1", &[]), ["answer 1"; 2]);
    let odd = ask(
        &server,
        "/open/1",
        &[("cache-control", "no-cache"), ("x-odd", "1")],
    );
    assert_eq!(odd.status, 400);
    assert_eq!(twice(&server, "/open/1", &[]), ["answer 1"; 2]);
}

#[test]
fn an_answer_for_one_host_is_not_kept_for_another() {
    let backend = numbering("");
    let server = in_front_of(&backend);
    // Services are told the host of the target.
    for request in [
        "GET http://evil.example/open/1 HTTP/1.1\r\nhost: good.example\r\n\r\n",
        "GET /open/1 HTTP/1.1\r\nhost: good.example\r\n\r\n",
    ] {
        let mut client = server.connect();
        client.raw(request.as_bytes());
        let answer = client.receive(false).expect("an answer");
        let is_refused = answer.status == 400;
        assert!(
            is_refused || status(&answer).contains("uri-miss"),
            "{answer:?}"
        );
    }
}

#[test]
fn answers_by_http_and_by_https_are_kept_apart() {
    let backend = numbering("");
    let trusting = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";
    let server = start(&(trusting.to_owned() + &settings(&backend, "")));
    let https = [("x-forwarded-proto", "https")];
    assert_eq!(twice(&server, "/open/1", &[]), ["answer 1"; 2]);
    assert_eq!(twice(&server, "/open/1", &https), ["answer 2"; 2]);
    // Others cannot say so.
    let server = in_front_of(&backend);
    assert_eq!(twice(&server, "/open/1", &[]), ["answer 3"; 2]);
    assert_eq!(twice(&server, "/open/1", &https), ["answer 3"; 2]);
}

#[test]
fn a_client_that_has_an_answer_is_not_sent_it_again() {
    const HEAD: &str = "etag: \"v1\"\r\nlast-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let backend = numbering(HEAD);
    let server = in_front_of(&backend);
    // Also by the request that fetches it: the service is asked for the whole.
    for _ in 0..2 {
        let known = ask(&server, "/open/1", &[("if-none-match", "\"x\", W/\"v1\"")]);
        assert_eq!((known.status, known.body.len()), (304, 0));
        assert_eq!(known.header("etag"), Some("\"v1\""));
    }
    assert_eq!(backend.only().header("if-none-match"), None);
    let since = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(ask(&server, "/open/1", &[since]).status, 304);
    let other = ask(&server, "/open/1", &[("if-none-match", "\"v2\""), since]);
    assert_eq!((other.status, other.text()), (200, "answer 1"));
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn an_old_answer_is_confirmed_by_its_service() {
    let backend = numbering_by(|seen| match seen.header("if-none-match") {
        Some("\"v1\"") => ("304 Not Modified", "etag: \"v1\"\r\nx-seen: 2\r\n".into()),
        _ => (
            "200 OK",
            "etag: \"v1\"\r\nx-seen: 1\r\ncache-control: no-cache\r\n".into(),
        ),
    });
    let server = in_front_of(&backend);
    assert_eq!(ask(&server, "/open/1", &[]).header("x-seen"), Some("1"));
    let answer = ask(&server, "/open/1", &[]);
    assert_eq!((answer.status, answer.text()), (200, "answer 1"));
    assert_eq!(answer.header("x-seen"), Some("2"));
    assert_eq!(status(&answer), "auspex; fwd=stale; fwd-status=304; stored");
    // What the client has may be the same.
    let known = ask(&server, "/open/1", &[("if-none-match", "\"v1\"")]);
    assert_eq!(known.status, 304);
    let changed = ask(&server, "/open/1", &[("if-none-match", "\"v0\"")]);
    assert_eq!((changed.status, changed.text()), (200, "answer 1"));
    for seen in &backend.seen()[1..] {
        assert_eq!(seen.header("if-none-match"), Some("\"v1\""));
    }
}

#[test]
fn an_old_answer_stands_in_where_it_says_so() {
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = fails.clone();
    let backend = numbering_by(move |seen| match failing.load(Ordering::SeqCst) {
        0 if seen.request_line().contains("/stand") => {
            let headers = "cache-control: max-age=0, stale-if-error=600\r\netag: \"a\"\r\n";
            ("200 OK", headers.into())
        }
        0 => (
            "200 OK",
            "cache-control: max-age=0\r\netag: \"a\"\r\n".into(),
        ),
        _ => ("503 Away", String::new()),
    });
    let server = in_front_of(&backend);
    for path in ["/open/stand", "/open/1"] {
        assert_eq!(ask(&server, path, &[]).status, 200);
    }
    fails.store(1, Ordering::SeqCst);
    let stale = ask(&server, "/open/stand", &[]);
    assert_eq!((stale.status, stale.text()), (200, "answer 1"));
    assert!(
        status(&stale).ends_with("; detail=stale-if-error"),
        "{}",
        status(&stale)
    );
    assert_eq!(ask(&server, "/open/1", &[]).status, 503);
}

#[test]
fn a_change_ends_what_was_kept() {
    let backend = numbering_by(|seen| match seen.request_line().starts_with("DELETE") {
        true => ("404 Not Found", String::new()),
        false => ("200 OK", String::new()),
    });
    let more = "[[gateway.routes]]\npath = \"/open/{*rest}\"\nservice = \"orders\"\n\
                scopes = []\nmethods = [\"PUT\", \"DELETE\"]\n";
    let settings = settings(&backend, "") + more;
    let server = start(&settings);
    let key = server.key.clone();
    let send = |method: &str, path: &str| {
        let headers = [("x-api-key", key.as_str())];
        let answer = server.connect().send(method, path, &headers, b"");
        (answer.status, answer.text().to_owned())
    };
    let get = |path: &str| send("GET", path).1;
    for path in ["/open/1", "/open/2", "/own/1"] {
        get(path);
    }
    // Refused, so nothing has changed.
    assert_eq!(send("DELETE", "/open/1").0, 404);
    assert_eq!(get("/open/1"), "answer 1");
    // By another route, and for every caller.
    assert_eq!(send("PUT", "/open/1").0, 200);
    let again = ask(&server, "/open/1", &[]);
    assert_eq!(
        (again.text(), status(&again)),
        ("answer 6", "auspex; fwd=uri-miss; stored")
    );
    assert_eq!(get("/open/2"), "answer 2");
    assert_eq!(send("POST", "/own/1").0, 200);
    assert_eq!(get("/own/1"), "answer 8");
}

/// A service that answers when it is told to, with these headers, and tells of each request.
fn waiting(headers: &'static str) -> (Backend, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (allow, allowed) = mpsc::channel();
    let allowed = Arc::new(Mutex::new(allowed));
    let backend = Backend::start(move |_, stream| {
        tell.send(()).expect("listening");
        allowed.lock().recv_timeout(SOON).expect("allowed");
        say(stream, "200 OK", headers, "answer");
        Then::Keep
    });
    (backend, told, allow)
}

#[test]
fn a_thousand_who_ask_the_same_make_one_request() {
    let (backend, told, allow) = waiting("");
    let server = in_front_of(&backend);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("runs");
    let statuses: Vec<String> = runtime.block_on(async {
        let mut asking = Vec::new();
        for _ in 0..10 {
            let stream = tokio::net::TcpStream::connect(server.address).await;
            let (mut client, connection) = h2::client::handshake(stream.expect("connects"))
                .await
                .expect("speaks");
            tokio::spawn(connection);
            for _ in 0..100 {
                client = client.ready().await.expect("goes on");
                let request = http::Request::get(format!("http://{}/open/1", server.address));
                let request = request.body(()).expect("valid");
                asking.push(client.send_request(request, true).expect("sent").0);
            }
        }
        told.recv_timeout(SOON).expect("asked");
        allow.send(()).expect("it waits");
        let mut statuses = Vec::new();
        for asked in asking {
            let answer = asked.await.expect("an answer");
            assert_eq!(answer.status(), 200);
            let status = answer.headers()["cache-status"].to_str().expect("text");
            statuses.push(status.to_owned());
        }
        statuses
    });
    let stored = statuses
        .iter()
        .filter(|status| status.ends_with("; stored"))
        .count();
    assert_eq!((statuses.len(), stored), (1000, 1));
    assert_eq!(backend.seen().len(), 1);
}

const GET: &[u8] = b"GET /open/1 HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn one_who_fetches_and_leaves_hands_over() {
    let (backend, told, allow) = waiting("");
    let server = in_front_of(&backend);
    let mut first = server.connect();
    first.raw(GET);
    told.recv_timeout(SOON).expect("asked");
    let mut others = [(); 3].map(|()| server.connect());
    for other in &mut others {
        other.raw(GET);
    }
    drop(first);
    told.recv_timeout(SOON).expect("asked again");
    for _ in 0..2 {
        allow.send(()).expect("it waits");
    }
    for mut other in others {
        assert_eq!(other.receive(false).expect("an answer").text(), "answer");
    }
    assert_eq!(backend.seen().len(), 2);
}

/// Sends GET so often, each over its own connection, once a first one is at the service.
fn others(server: &Server, count: usize, get: &[u8]) -> Vec<crate::client::Connection> {
    let mut others: Vec<_> = (0..count).map(|_| server.connect()).collect();
    for other in &mut others {
        other.raw(get);
    }
    others
}

#[test]
fn callers_wait_for_what_is_for_everybody() {
    let (backend, told, allow) = waiting("cache-control: public, max-age=60\r\n");
    let server = in_front_of(&backend);
    let get = format!(
        "GET /own/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
        server.key
    );
    let clients = others(&server, 5, get.as_bytes());
    told.recv_timeout(SOON).expect("asked");
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    allow.send(()).expect("it waits");
    for mut client in clients {
        assert_eq!(client.receive(false).expect("an answer").text(), "answer");
    }
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn after_a_failure_one_asks_next() {
    let (tell, told) = mpsc::channel();
    let (allow, allowed) = mpsc::channel::<&'static str>();
    let allowed = Arc::new(Mutex::new(allowed));
    let backend = Backend::start(move |_, stream| {
        tell.send(()).expect("listening");
        let status = allowed.lock().recv_timeout(SOON).expect("allowed");
        say(stream, status, "", status);
        Then::Keep
    });
    let server = in_front_of(&backend);
    let mut first = server.connect();
    first.raw(GET);
    told.recv_timeout(SOON).expect("asked");
    let clients = others(&server, 4, GET);
    // They wait for the first.
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    allow.send("500 Oh no").expect("it waits");
    assert_eq!(first.receive(false).expect("an answer").status, 500);
    told.recv_timeout(SOON).expect("asked again");
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    allow.send("200 OK").expect("it waits");
    for mut client in clients {
        assert_eq!(client.receive(false).expect("an answer").text(), "200 OK");
    }
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn one_who_waits_no_longer_hands_over() {
    let (tell, told) = mpsc::channel();
    let (allow, allowed) = mpsc::channel::<()>();
    let allowed = Arc::new(Mutex::new(allowed));
    let backend = Backend::start(move |_, stream| {
        tell.send(()).expect("listening");
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n";
        stream.write_all(head).expect("sent");
        allowed.lock().recv_timeout(SOON).expect("allowed");
        let _ = stream.write_all(b"answer");
        Then::Keep
    });
    let server = in_front_of(&backend);
    let mut hurried = server.connect();
    hurried.raw(b"GET /open/1 HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 1000\r\n\r\n");
    told.recv_timeout(SOON).expect("asked");
    let mut clients = others(&server, 1, GET);
    told.recv_timeout(SOON).expect("asked again");
    clients.extend(others(&server, 3, GET));
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    for _ in 0..2 {
        allow.send(()).expect("it waits");
    }
    clients.push(hurried);
    for mut client in clients {
        assert_eq!(client.receive(false).expect("an answer").text(), "answer");
    }
    assert_eq!(backend.seen().len(), 2);
}

/// A service that numbers its answers, tells of each PUT, and answers it when it is told to.
fn changing() -> (Backend, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let (allow, allowed) = mpsc::channel();
    let allowed = Arc::new(Mutex::new(allowed));
    let backend = numbering_by(move |seen| {
        if seen.request_line().starts_with("PUT") {
            tell.send(()).expect("listening");
            let _ = allowed.lock().recv_timeout(SOON);
        }
        ("200 OK", String::new())
    });
    (backend, told, allow)
}

const PUT: &[u8] = b"PUT /open/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";

fn get(server: &Server) -> String {
    let mut client = server.connect();
    client.raw(GET);
    client.receive(false).expect("an answer").text().to_owned()
}

#[test]
fn a_change_without_an_answer_ends_what_was_kept() {
    let (backend, told, allow) = changing();
    let server = in_front_of(&backend);
    assert_eq!([get(&server), get(&server)], ["answer 1"; 2]);
    let mut client = server.connect();
    client.raw(PUT);
    told.recv_timeout(SOON).expect("asked");
    drop(client);
    eventually(SOON, "another answer", || get(&server) != "answer 1");
    drop(allow);
}

#[test]
fn a_change_ends_what_was_kept_since_the_limits_changed() {
    let (backend, told, allow) = changing();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let text = "[gateway.cache]\nbytes_max = 1000000\n".to_owned() + &settings(&backend, "");
    std::fs::write(&file, &text).expect("written");
    let server = super::start_from(folder, &file, &[]);
    let mut client = server.connect();
    client.raw(PUT);
    told.recv_timeout(SOON).expect("asked");
    let more = "[[gateway.routes]]\npath = \"/more\"\nservice = \"orders\"\npublic = true\n";
    let changed = text.replace("1000000\n[", "2000000\n[") + more;
    assert_ne!(changed, text.clone() + more);
    std::fs::write(&file, changed).expect("written");
    server.signal("HUP");
    eventually(SOON, "/more", || ask(&server, "/more", &[]).status == 200);
    let kept = get(&server);
    assert_eq!(get(&server), kept);
    allow.send(()).expect("it waits");
    assert_eq!(client.receive(false).expect("an answer").status, 200);
    assert_ne!(get(&server), kept);
}

#[test]
fn answers_that_cannot_be_kept_are_not_waited_for_one_by_one() {
    let (backend, told, allow) = waiting("cache-control: no-store\r\n");
    let server = in_front_of(&backend);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.raw(GET);
    }
    told.recv_timeout(SOON).expect("the first");
    // No other is asked for until it is known that there is no use in waiting.
    assert!(told.recv_timeout(Duration::from_millis(300)).is_err());
    allow.send(()).expect("it waits");
    // Then all at once.
    for _ in 0..4 {
        told.recv_timeout(SOON).expect("the others");
    }
    for _ in 0..4 {
        allow.send(()).expect("it waits");
    }
    for client in &mut clients {
        assert_eq!(client.receive(false).expect("an answer").text(), "answer");
    }
    // And the next ones do not wait for each other at all.
    for client in &mut clients {
        client.raw(GET);
    }
    for _ in 0..5 {
        told.recv_timeout(SOON).expect("each");
    }
    for _ in 0..5 {
        allow.send(()).expect("it waits");
    }
    for mut client in clients {
        assert_eq!(client.receive(false).expect("an answer").text(), "answer");
    }
}

#[test]
fn nobody_waits_for_another_longer_than_they_want() {
    let (backend, told, allow) = waiting("");
    let server = in_front_of(&backend);
    let mut first = server.connect();
    first.raw(GET);
    told.recv_timeout(SOON).expect("asked");
    let mut hurried = server.connect();
    hurried.raw(b"GET /open/1 HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 50\r\n\r\n");
    assert_eq!(hurried.receive(false).expect("an answer").status, 504);
    allow.send(()).expect("it waits");
    assert_eq!(first.receive(false).expect("an answer").text(), "answer");
    assert_eq!(backend.seen().len(), 1);
}

#[test]
fn what_is_cut_off_or_too_long_passes_and_is_not_kept() {
    let count = AtomicUsize::new(0);
    let backend = Backend::start(move |seen, stream| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let line = seen.request_line();
        let answer = if line.contains("/cut") {
            format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 100\r\n\r\nanswer {number}"
            )
        } else if line.contains("/coded") {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nanswer {number}")
        } else if line.contains("/endless") {
            format!("HTTP/1.1 200 OK\r\n\r\nanswer {number}")
        } else {
            let long = "x".repeat(200);
            format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nc8\r\n{long}\r\n8\r\nanswer {number}\r\n0\r\n\r\n"
            )
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Close
    });
    let limits = "[gateway.cache]\nentry_bytes_max = 100\n";
    let server = start(&(limits.to_owned() + &settings(&backend, "")));
    for path in ["/open/cut", "/open/coded", "/open/endless", "/open/long"] {
        let texts = [(); 2].map(|()| {
            let mut client = server.connect();
            let get = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            client.raw(get.as_bytes());
            let mut all = Vec::new();
            let _ = std::io::Read::read_to_end(&mut client, &mut all);
            String::from_utf8(all).expect("ASCII")
        });
        let number = |text: &str| {
            let (_, rest) = text.split_once("answer ").expect(text);
            rest[..1].to_owned()
        };
        assert_ne!(number(&texts[0]), number(&texts[1]), "{path}");
        if path == "/open/long" {
            assert!(texts[0].contains(&"x".repeat(200)));
        }
    }
}

#[test]
fn what_is_kept_survives_other_changes_of_the_settings() {
    let backend = numbering("");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let text = settings(&backend, "");
    std::fs::write(&file, &text).expect("written");
    let server = super::start_from(folder, &file, &[]);
    let get = || ask(&server, "/open/1", &[]).text().to_owned();
    assert_eq!(get(), "answer 1");
    let change = |text: &str, probe: &str| {
        std::fs::write(&file, text).expect("written");
        server.signal("HUP");
        eventually(SOON, probe, || ask(&server, probe, &[]).status == 200);
    };
    let other = "[[gateway.routes]]\npath = \"/NAME\"\nservice = \"orders\"\npublic = true\n";
    change(&(text.clone() + &other.replace("NAME", "more")), "/more");
    assert_eq!(get(), "answer 1");
    let route = text.replace("ttl_s = 3600", "ttl_s = 3599");
    change(&(route + &other.replace("NAME", "again")), "/again");
    assert_ne!(get(), "answer 1");
}
