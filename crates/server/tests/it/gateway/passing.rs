//! What goes through.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use super::backend::{Backend, Then};
use super::{OK, in_front_of, start};
use crate::server::auspex;

#[test]
fn a_request_reaches_its_service_and_the_answer_its_client() {
    let backend = Backend::saying(
        "HTTP/1.1 201 Created\r\ncontent-length: 5\r\ncontent-type: text/html\r\n\
         location: /7\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nconnection: keep-alive\r\n\
         keep-alive: timeout=5\r\n\r\nhello",
    );
    let server = in_front_of(backend.address, "strip_prefix = \"/orders\"");
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Cookie", "session=1"),
        ("X-Request-Id", "mine"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X-Auspex-Caller", "admin"),
        ("x_auspex_caller", "admin"),
        ("Accept", "text/html"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let path = "/orders/a%2fb/c?x=1&y=%20";
    let answer = server.connect().send("POST", path, &headers, b"a body");
    assert_eq!((answer.status, answer.text()), (201, "hello"));
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert_eq!(answer.header("location"), Some("/orders/7"));
    assert_eq!(
        answer.headers("set-cookie").collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    assert!(answer.header("x-ratelimit-limit").is_some());
    for absent in ["keep-alive", "content-security-policy", "cache-control"] {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    let seen = backend.only();
    assert_eq!(seen.request_line(), "POST /a%2fb/c?x=1&y=%20 HTTP/1.1");
    assert_eq!(seen.body, b"a body");
    for (name, value) in [
        ("host", backend.address.to_string().as_str()),
        ("content-length", "6"),
        ("accept", "text/html"),
        ("x-request-id", "mine"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", server.address.to_string().as_str()),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/orders"),
        ("traceparent", headers[7].1),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    let via = seen.header("via").expect("it is told");
    assert!(via.starts_with("1.1 gateway-"), "{via}");
    // A service that leads back to the gateway.
    let back = [("X-API-Key", server.key.as_str()), ("Via", via)];
    let back = server.connect().send("GET", path, &back, b"");
    assert_eq!(
        (back.status, back.error_code()),
        (508, "LOOP_DETECTED".to_owned())
    );
    let head = seen.head.to_ascii_lowercase();
    for kept_back in [
        server.key.as_str(),
        "api-key",
        "cookie",
        "auspex",
        "6.6.6.6",
    ] {
        assert!(
            !head.contains(&kept_back.to_ascii_lowercase()),
            "{kept_back}: {head}"
        );
    }
}

#[test]
fn only_those_who_may_reach_a_service() {
    let backend = Backend::saying(OK);
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\n\
         scopes = [\"predict\", \"jobs:read\"]\nmethods = [\"GET\"]\n\
         [[gateway.routes]]\npath = \"/news/{{id}}\"\nservice = \"orders\"\npublic = true\n\
         rate_limit = {{ max = 3, window_s = 60 }}\n",
        backend.address
    ));
    let anonymous = |method: &str, path: &str| server.connect().send(method, path, &[], b"").status;
    assert_eq!(anonymous("GET", "/orders/1"), 401);
    let narrow = json!({"name": "narrow", "scopes": ["predict"]}).to_string();
    let narrow = server.post("/v1/api-keys", narrow).json();
    let narrow = [("X-API-Key", narrow["key"].as_str().expect("a key"))];
    let refused = server.connect().send("GET", "/orders/1", &narrow, b"");
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("jobs:read"), "{}", refused.text());
    assert_eq!(anonymous("POST", "/orders/1"), 405);
    assert_eq!(anonymous("GET", "/orders"), 404);
    assert_eq!(backend.seen(), [], "nothing went through");

    assert_eq!(server.get("/orders/1").status, 200);
    let answers = ["GET", "PUT", "DELETE", "GET"].map(|method| anonymous(method, "/news/1"));
    assert_eq!(answers, [200, 200, 200, 429], "one count for all methods");
    assert_eq!(backend.seen().len(), 4);
    assert!(!server.get("/openapi.json").text().contains("/orders"));
    let metrics = server.get("/metrics");
    for line in [
        r#"auspex_http_requests_total{route="/orders/{*rest}",method="GET",status="2xx"} 1"#,
        r#"auspex_http_requests_total{route="/news/{id}",method="(any)",status="2xx"} 3"#,
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
}

#[test]
fn wrong_settings_end_the_start_and_say_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let refused = |command: &str, settings: &str| {
        std::fs::write(&file, settings).expect("written");
        let mut run = auspex();
        run.arg("--config").arg(&file).args(command.split(' '));
        let output = run.arg("--data-dir").arg(folder.path()).output();
        let output = output.expect("runs");
        assert!(!output.status.success(), "{settings}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let service = "[gateway.services.orders]\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let said = refused("config check", &format!("{service}timeout = 5\n"));
    assert!(
        said.contains("auspex.toml") && said.contains("timeout_ms"),
        "{said}"
    );
    let route = "[[gateway.routes]]\nservice = \"order\"\npath = \"/x\"\npublic = true\n";
    let said = refused("config check", &[service, route].concat());
    for part in [
        "auspex.toml:4",
        "gateway.routes[0].service",
        "there are orders",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let taken = "[[gateway.routes]]\nservice = \"orders\"\npublic = true\n\
         path = \"/v1/models/special/predict\"\n";
    let said = refused("serve --listen 127.0.0.1:0", &[service, taken].concat());
    for part in ["/v1/models/special/predict", "/v1/models/{model}/predict"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn connections_are_used_again_and_none_that_was_closed() {
    let backend = Backend::saying(OK);
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    let key = [("X-API-Key", server.key.as_str())];
    for _ in 0..20 {
        let answer = client.send("POST", "/orders/1", &key, b"x");
        assert_eq!(answer.status, 200);
    }
    assert_eq!(backend.connections(), 1);

    // Closed right behind the answer, without a word about it.
    let closing = Backend::start(|_, stream| {
        stream.write_all(OK.as_bytes()).expect("sent");
        Then::Close
    });
    let server = in_front_of(closing.address, "");
    let key = [("X-API-Key", server.key.as_str())];
    let mut client = server.connect();
    for number in 1..=100 {
        let body = format!("number {number}");
        let answer = client.send("POST", "/orders/1", &key, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = closing.seen();
        let sent = seen.iter().filter(|seen| seen.body == body.as_bytes());
        assert_eq!(sent.count(), 1, "{body}");
        closing.wait_for_closed(number);
        // A busy kernel hands that on later.
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn answers_of_every_form_pass() {
    let backend = Backend::start(|seen, stream| {
        let (answer, then) = match seen.request_line().split(' ').nth(1).expect("a target") {
            "/orders/chunked" => (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
                Then::Keep,
            ),
            "/orders/until-close" => ("HTTP/1.0 200 OK\r\n\r\nto the end", Then::Close),
            "/orders/empty" => ("HTTP/1.1 204 No Content\r\n\r\n", Then::Keep),
            "/orders/early" => (
                "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
                Then::Keep,
            ),
            "/orders/head" => (
                "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
                Then::Keep,
            ),
            _ => (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
                Then::Keep,
            ),
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        then
    });
    let server = in_front_of(backend.address, "");
    let key = [("X-API-Key", server.key.as_str())];
    let mut client = server.connect();
    for (method, path, status, body) in [
        ("GET", "/orders/chunked", 200, "abcde"),
        ("GET", "/orders/until-close", 200, "to the end"),
        ("DELETE", "/orders/empty", 204, ""),
        ("GET", "/orders/early", 200, "x"),
        ("HEAD", "/orders/head", 200, ""),
        ("GET", "/orders/nowhere", 404, "no"),
    ] {
        let answer = client.send(method, path, &key, b"");
        assert_eq!((answer.status, answer.text()), (status, body), "{path}");
        if method == "HEAD" {
            assert_eq!(answer.header("content-length"), Some("1000"));
        }
    }
    assert_eq!(backend.connections(), 2, "one was closed");
}

#[test]
fn many_headers_pass_both_ways() {
    let value = "v".repeat(380);
    let fields: String = (0..150).map(|n| format!("x-{n}: {value}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
    let backend = Backend::saying(Box::leak(answer.into_boxed_str()));
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    let head = format!(
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n",
        server.key
    );
    client.raw(
        [head.as_bytes(), fields.as_bytes(), b"\r\n"]
            .concat()
            .as_slice(),
    );
    let answer = client.receive(false).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = backend.only();
    for n in 0..150 {
        let name = format!("x-{n}");
        assert_eq!(answer.header(&name), Some(value.as_str()));
        assert_eq!(seen.header(&name), Some(value.as_str()));
    }
}

/// Every timeout there is is shorter than these take.
#[test]
fn what_moves_is_not_cut() {
    let backend = Backend::start(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(50));
            if stream.write_all(b"3\r\nx\n\n\r\n").is_err() {
                return Then::Close;
            }
        }
        stream.write_all(b"0\r\n\r\n").expect("sent");
        Then::Keep
    });
    let server = start(&format!(
        "[server]\nrequest_timeout_ms = 100\nbody_timeout_ms = 100\nidle_timeout_ms = 200\n\
         [gateway.services.orders]\nendpoints = [\"http://{}\"]\ntimeout_ms = 200\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    ));
    let mut client = server.connect();
    let head = "POST /orders/1 HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\n";
    client.raw(head.as_bytes());
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(50));
        client.raw(b"y");
    }
    let answer = client.receive(false).expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 36));
    assert_eq!(backend.only().body, b"yyyyyyyyyyyy");
}

#[test]
fn a_large_upload_passes_in_little_memory() {
    const MIB: usize = 128;
    let backend = Backend::saying(OK);
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\nscopes = []\n",
        backend.address
    ));
    let mut client = server.connect();
    let before = server.memory_kb("VmRSS");
    let head = format!(
        "PUT /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\n\r\n",
        server.key,
        MIB << 20
    );
    client.raw(head.as_bytes());
    let piece = vec![b'x'; 1 << 20];
    (0..MIB).for_each(|_| client.raw(&piece));
    let answer = client.receive(false).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(backend.only().body.len(), MIB << 20);
    let grown = server.memory_kb("VmHWM").saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB");
}
