//! What every request passes and every answer carries.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::Connection;
use crate::predict::REQUEST;
use crate::server::{Server, auspex};

#[test]
fn every_answer_carries_its_headers() {
    let server = Server::start();
    for path in [
        "/health",
        "/v1/models",
        "/nowhere",
        "/docs/",
        "/openapi.json",
        "/metrics",
    ] {
        let answer = server.get(path);
        assert!(
            answer
                .header("x-request-id")
                .is_some_and(|id| id.starts_with("req_")),
            "{path}"
        );
        let time: f64 = answer
            .header("x-process-time")
            .expect(path)
            .parse()
            .expect("seconds");
        assert!((0.0..5.0).contains(&time));
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        assert!(answer.header("content-security-policy").is_some(), "{path}");
        assert!(answer.header("cache-control").is_some(), "{path}");
    }
    assert_eq!(
        server.post("/predict", REQUEST).header("cache-control"),
        Some("no-store")
    );
}

#[test]
fn answers_and_log_lines_name_the_server_that_they_are_of() {
    let all = ("AUSPEX__TELEMETRY__ACCESS_LOG", "all");
    let name_of = |settings: &[(&str, &str)]| {
        let server = Server::start_with(settings);
        let paths = ["/health/live", "/nowhere", "/v1/models", "/v1/models"];
        let answers = paths.map(|path| server.get(path));
        let names = answers.map(|answer| answer.header("x-auspex-instance").map(str::to_owned));
        assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        let [name, ..] = names;
        (name, server.stop())
    };
    let is_in = |log: &str, name: &str| {
        let begin = format!("{{\"instance\":\"{name}\",\"timestamp\":\"");
        let every = log.lines().all(|line| line.starts_with(&begin));
        every && log.contains("\"message\":\"request\"")
    };
    let (drawn, log) = name_of(&[all]);
    let drawn = drawn.expect("a name");
    assert!(drawn.len() == 8 && is_in(&log, &drawn), "{drawn}: {log}");
    let (other, _) = name_of(&[all]);
    assert_ne!(other, Some(drawn), "each start has a name of its own");

    let named = ("AUSPEX__SERVER__INSTANCE", "auspex-7d9f.zone-a_1");
    let (name, log) = name_of(&[all, named]);
    assert_eq!(name.as_deref(), Some(named.1));
    assert!(is_in(&log, named.1), "{log}");
    let hidden = ("AUSPEX__SERVER__INSTANCE_HEADER", "false");
    let (name, log) = name_of(&[all, named, hidden]);
    assert_eq!(name, None);
    assert!(is_in(&log, named.1), "{log}");
}

#[test]
fn a_name_that_no_header_may_hold_is_refused() {
    for name in ["a b", "é", "a\"b", &"x".repeat(65)] {
        let output = auspex()
            .args(["config", "check"])
            .env("AUSPEX__SERVER__INSTANCE", name)
            .output()
            .expect("runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}");
        assert!(error.contains("server.instance"), "{error}");
    }
}

#[test]
fn the_clients_request_id_is_kept_when_it_is_harmless() {
    let server = Server::start();
    let id = |sent: &str| {
        let answer = server
            .connect()
            .send("GET", "/health/live", &[("X-Request-Id", sent)], b"");
        answer.header("x-request-id").expect("an id").to_owned()
    };
    assert_eq!(id("order-42_a"), "order-42_a");
    for bad in ["a b", "x\"y", &"z".repeat(65)] {
        assert!(id(bad).starts_with("req_"), "{bad}");
    }
}

#[test]
fn unknown_paths_and_methods_answer_in_the_envelope_for_everybody() {
    let server = Server::start();
    let answer = server.connect().send("GET", "/nowhere", &[], b"");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "NOT_FOUND")
    );
    let answer = server.connect().send("GET", "/predict", &[], b"");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (405, "METHOD_NOT_ALLOWED")
    );
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = server.connect().send("DELETE", "/health", &[], b"");
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    assert_eq!(
        server.connect().send("HEAD", "/health", &[], b"").status,
        200
    );
}

/// Many clients send the head of a request and its body in two pieces.
#[test]
fn an_answer_that_needs_no_body_does_not_end_its_connection() {
    let server = Server::start();
    let asked = |method: &str, path: &str, body: &[u8]| {
        let mut connection = server.connect();
        let (address, key, length) = (server.address, &server.key, body.len());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        connection.raw(head.as_bytes());
        std::thread::sleep(Duration::from_millis(50));
        connection.raw(body);
        let answer = connection.receive(false).expect("an answer");
        assert_ne!(answer.header("connection"), Some("close"), "{path}");
        let next = connection.send("GET", "/health/live", &[], b"");
        assert_eq!(next.status, 200, "{path}");
        answer.status
    };
    let body = br#"{"name": "x"}"#;
    assert_eq!(asked("POST", "/v1/models/none/predict", body), 404);
    assert_eq!(
        asked("POST", "/v1/models/santander/versions/9/predict", body),
        404
    );
    assert_eq!(asked("POST", "/v1/models/reload", body), 200);
    assert_eq!(asked("POST", "/v1/me/api-keys", body), 403);
    assert_eq!(asked("DELETE", "/v1/api-keys/none", body), 404);
    assert_eq!(asked("GET", "/health", body), 200);
    let long = vec![b' '; 500_000];
    assert_eq!(asked("POST", "/v1/models/none/predict", &long), 404);
}

#[test]
fn a_request_has_exactly_one_host() {
    let server = Server::start();
    for head in [
        "GET /health HTTP/1.1\r\n\r\n".to_owned(),
        format!(
            "GET /health HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\n\r\n",
            server.address
        ),
    ] {
        let mut connection = server.connect();
        connection.raw(head.as_bytes());
        let answer = connection.receive(false).expect("an answer");
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (400, "MALFORMED_REQUEST")
        );
    }
}

/// Every name can be made to lead here; only what goes without a credential must not be shown there.
#[test]
fn pages_are_shown_under_our_names_alone() {
    let server = Server::start_with(&[("AUSPEX__SERVER__HOSTS", "models.internal")]);
    let ask = |path: &str, host: &str| {
        let mut connection = server.connect();
        let key = &server.key;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nX-API-Key: {key}\r\n\r\n");
        connection.raw(head.as_bytes());
        connection.receive(false).expect("an answer")
    };
    for path in ["/", "/oauth2/login"] {
        for ours in ["models.internal:80", "localhost", "127.0.0.1:1", "[::1]"] {
            assert_eq!(ask(path, ours).status, 200, "{path} {ours}");
        }
        let foreign = ask(path, "rebound.example");
        assert_eq!(foreign.status, 421, "{path}");
        assert!(
            foreign.text().contains("server.hosts"),
            "{}",
            foreign.text()
        );
        assert!(!foreign.text().contains("rebound"), "{}", foreign.text());
    }
    // The target of a request wins over its Host (RFC 9112, 3.2.2).
    assert_eq!(ask("http://rebound.example/", "localhost").status, 421);
    assert_eq!(ask("http://localhost/", "rebound.example").status, 200);
    // What goes by a credential goes by it alone.
    assert_eq!(ask("/v1/models", "rebound.example").status, 200);
    assert_eq!(ask("/health", "auspex:8080").status, 200);
    for garbage in ["a b", "a/b", "u@a", "a:b:c", "[::1", "\u{e4}"] {
        let answer = ask("/health", garbage);
        assert_eq!(answer.status, 400, "{garbage}");
        assert_eq!(answer.error_code(), "MALFORMED_REQUEST");
    }
}

/// RFC 9113, 8.3.1. What a proxy goes by must be what we go by.
#[test]
fn over_http2_the_host_is_that_of_the_authority() {
    let server = Server::start();
    let status = |host: &[u8]| {
        // HPACK: GET, /, http, an :authority and a host, none of them indexed.
        let authority = [&[0x82, 0x84, 0x86, 0x01, 9][..], b"localhost"].concat();
        let length = u8::try_from(host.len()).expect("short");
        let fields = [&authority[..], &[0, 4], b"host", &[length], host].concat();
        let length = u8::try_from(fields.len()).expect("short");
        let frames = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
            &[0, 0, length, 1, 5, 0, 0, 0, 1],
            &fields,
        ];
        let mut stream = TcpStream::connect(server.address).expect("connects");
        stream.write_all(&frames.concat()).expect("sent");
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).expect("a frame");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).expect("a payload");
            if head[3] == 1 {
                return payload[0];
            }
        }
    };
    let (ok, malformed) = (0x88, 0x8c);
    assert_eq!(status(b"LOCALHOST"), ok);
    assert_eq!(status(b"rebound.example"), malformed);
}

#[test]
fn a_body_with_two_lengths_ends_its_connection() {
    let server = Server::start();
    let mut connection = server.connect();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        server.address, server.key
    );
    connection.raw(head.as_bytes());
    let answer = connection.receive(false).expect("an answer");
    assert!(matches!(answer.status, 400 | 422), "{}", answer.status);
    assert!(connection.is_closed_within(Duration::from_secs(2)));
}

#[test]
fn long_bodies_are_413_however_they_come() {
    let server = Server::start();
    let long = vec![b' '; 2_097_153];
    assert_eq!(
        server.post("/predict", &long).error_code(),
        "PAYLOAD_TOO_LARGE"
    );
    let mut connection = server.connect();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        server.address, server.key
    );
    connection.raw(head.as_bytes());
    for _ in 0..33 {
        connection.raw(b"10000\r\n");
        connection.raw(&vec![b' '; 65_536]);
        connection.raw(b"\r\n");
    }
    connection.raw(b"0\r\n\r\n");
    assert_eq!(connection.receive(false).expect("an answer").status, 413);
    let mut fits = vec![b' '; 2_097_152 - REQUEST.len()];
    fits.extend_from_slice(REQUEST.as_bytes());
    assert_eq!(server.post("/predict", &fits).status, 200);
}

#[test]
fn long_bodies_of_strangers_are_answered_too() {
    let server = Server::start();
    let answer = server
        .connect()
        .send("POST", "/predict", &[], &vec![b' '; 1_500_000]);
    assert_eq!(answer.status, 401);
}

#[test]
fn long_heads_are_431() {
    let server = Server::start();
    let mut connection = server.connect();
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    connection.raw(head.as_bytes());
    assert_eq!(connection.receive(true).expect("an answer").status, 431);
    let head = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nA: {}\r\n\r\n",
        "a".repeat(50_000)
    );
    let mut connection = server.connect();
    connection.raw(head.as_bytes());
    assert_eq!(connection.receive(false).expect("an answer").status, 200);
    // Host is one of the fields.
    for (more, status) in [(159, 200), (160, 431)] {
        let fields = "A: b\r\n".repeat(more);
        let mut connection = server.connect();
        connection.raw(format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes());
        let answer = connection.receive(status != 200).expect("an answer");
        assert_eq!(answer.status, status, "{more}");
    }
}

#[test]
fn requests_on_one_connection_follow_each_other() {
    let server = Server::start();
    let mut connection = Connection::open(server.address);
    for _ in 0..100 {
        assert_eq!(connection.send("GET", "/health/live", &[], b"").status, 200);
    }
    let one = format!(
        "GET /health/live HTTP/1.1\r\nHost: {}\r\n\r\n",
        server.address
    );
    connection.raw(one.repeat(20).as_bytes());
    for _ in 0..20 {
        assert_eq!(connection.receive(false).expect("pipelined").status, 200);
    }
}

#[test]
fn http2_without_tls_is_spoken() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runs");
    let (status, version, id) = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address)
            .await
            .expect("connects");
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://{}/predict", server.address))
            .header("X-API-Key", &server.key)
            .header("Content-Type", "application/json")
            .body(http_body_util::Full::new(bytes::Bytes::from_static(
                REQUEST.as_bytes(),
            )))
            .expect("valid");
        let answer = sender.send_request(request).await.expect("an answer");
        (
            answer.status().as_u16(),
            answer.version(),
            answer.headers().contains_key("x-request-id"),
        )
    });
    assert_eq!((status, version, id), (200, http::Version::HTTP_2, true));
}

#[test]
fn pages_of_the_origins_in_the_settings_are_let_in() {
    let (page, other) = ("https://a.example.org", "https://b.example.org");
    let both = format!("{page}, {other}");
    let server = Server::start_with(&[("AUSPEX__SERVER__CORS__ORIGINS", &both)]);
    let preflight = |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "x-api-key"),
        ];
        server.connect().send("OPTIONS", "/predict", &headers, b"")
    };
    for origin in [page, other] {
        let answer = preflight(origin);
        assert_eq!(answer.status, 204);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some(origin));
        let methods = answer.header("access-control-allow-methods");
        assert_eq!(methods, Some("POST"));
    }
    assert_eq!(preflight("https://c.example.org").status, 405);
    let headers = [("Origin", page), ("X-API-Key", server.key.as_str())];
    let answer = server.connect().send("GET", "/v1/models", &headers, b"");
    let allowed = answer.header("access-control-allow-origin");
    assert_eq!((answer.status, allowed), (200, Some(page)));
}
