//! Answers that are made of the answers of several services.

use std::io::Write as _;
use std::sync::Barrier;
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use serde_json::json;

use super::backend::{Backend, Seen, Then};
use super::{refusal, start};
use crate::client::Answer;
use crate::server::Server;

/// A route of a needed `user` and `orders`, which may be missing.
fn overview(users: &Backend, orders: &Backend) -> Server {
    overview_with(users, orders, "")
}

fn overview_with(users: &Backend, orders: &Backend, more: &str) -> Server {
    start(&format!(
        "[gateway]\npart_bytes_max = 1000\n{more}\n\
         [gateway.services.users]\nendpoints = [\"http://{}\"]\n\
         [gateway.services.orders]\nendpoints = [\"http://{}\"]\ntimeout_ms = 500\n\
         circuit_breaker = {{ failure_threshold = 100 }}\n\
         [[gateway.routes]]\npath = \"/overview/{{id}}\"\nscopes = [\"predict\"]\n\
         aggregate = [ {{ name = \"user\", service = \"users\", path = \"/users/{{id}}\" }},\n\
           {{ name = \"orders\", service = \"orders\", path = \"/orders?user={{id}}&page={{query.page}}\", \
         optional = true }} ]\n",
        users.address, orders.address
    ))
}

/// A service that answers with JSON.
fn saying(body: &'static str) -> Backend {
    Backend::start(move |_, stream| {
        answer(stream, "200 OK", body);
        Then::Keep
    })
}

/// One that answers as the last segment of its path, or the value of its query, says.
fn obeying() -> Backend {
    Backend::start(|seen, stream| {
        let target = seen.request_line().split(' ').nth(1).expect("a target");
        let word = target
            .split(['=', '&', '/'])
            .find(|word| word.starts_with("do-"));
        match word.unwrap_or_default() {
            "do-missing" => answer(stream, "404 Not Found", "{\"secret\": \"404\"}"),
            "do-fail" => answer(stream, "500 Oh no", "{\"secret\": \"500\"}"),
            "do-lead" => answer(stream, "302 Found", "{\"secret\": \"302\"}"),
            "do-html" => answer(stream, "200 OK", "<p>secret</p>"),
            "do-nothing" => answer(stream, "200 OK", ""),
            "do-long" => answer(stream, "200 OK", &format!("\"secret{}\"", "x".repeat(1000))),
            "do-none" => {
                stream
                    .write_all(b"HTTP/1.1 204 None\r\n\r\n")
                    .expect("sent");
            }
            "do-break" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"secret\": 1}";
                stream.write_all(head.as_bytes()).expect("sent");
                return Then::Close;
            }
            "do-stall" => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"secret\": 1}";
                stream.write_all(head.as_bytes()).expect("sent");
            }
            "do-wait" => {}
            "do-zip" => {
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\n1";
                stream.write_all(head.as_bytes()).expect("sent");
            }
            _ => answer(stream, "200 OK", "{}"),
        }
        Then::Keep
    })
}

fn answer(stream: &mut std::net::TcpStream, status: &str, body: &str) {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    // The client may have what it needs.
    let _ = stream.write_all(answer.as_bytes());
}

fn parts(answer: &Answer) -> (&str, &str) {
    let header = |name| answer.header(name).unwrap_or_default();
    (header("x-gateway-completed"), header("x-gateway-parts"))
}

#[test]
fn an_answer_is_made_of_parts() {
    let users = saying(" {\"id\": 12345678901234567890, \"n\": 1.10} \n");
    let orders = saying("[]");
    let server = overview(&users, &orders);
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Accept-Encoding", "gzip"),
        ("If-None-Match", "*"),
        ("Range", "bytes=0-1"),
        ("Accept-Language", "de"),
        ("X-Request-Id", "req_mine"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("X-Original-URL", "/admin"),
    ];
    let path = "/overview/a%20b%2F%3F?page=1%262";
    let answer = server.connect().send("GET", path, &headers, b"");
    assert_eq!(answer.status, 200);
    // Numbers stay as they were written.
    let expected = "{\"user\":{\"id\": 12345678901234567890, \"n\": 1.10},\"orders\":[]}";
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(parts(&answer), ("true", "user=200, orders=200"));

    let line = |seen: &Seen| seen.request_line().to_owned();
    assert_eq!(line(&users.only()), "GET /users/a%20b%2F%3F HTTP/1.1");
    let asked = orders.only();
    assert_eq!(
        line(&asked),
        "GET /orders?user=a%20b%2F%3F&page=1%262 HTTP/1.1"
    );
    for gone in [
        "x-api-key",
        "accept-encoding",
        "if-none-match",
        "range",
        "connection",
        "upgrade",
        "x-http-method-override",
        "x-original-url",
    ] {
        assert_eq!(asked.header(gone), None, "{gone}");
    }
    for (name, value) in [
        ("accept", "application/json"),
        ("accept-language", "de"),
        ("x-real-ip", "127.0.0.1"),
        ("x-request-id", "req_mine"),
    ] {
        assert_eq!(asked.header(name), Some(value), "{name}");
    }
}

#[test]
fn parts_are_asked_at_the_same_time() {
    static BOTH: Barrier = Barrier::new(2);
    let meeting = || {
        Backend::start(|_, stream| {
            BOTH.wait();
            answer(stream, "200 OK", "1");
            Then::Keep
        })
    };
    let (users, orders) = (meeting(), meeting());
    let answer = overview(&users, &orders).get("/overview/1");
    assert_eq!(answer.json(), json!({"user": 1, "orders": 1}));
}

#[test]
fn an_optional_part_may_be_missing_and_says_why() {
    let (users, orders) = (saying("{}"), obeying());
    let server = overview(&users, &orders);
    for (id, word) in [
        ("do-missing", "404"),
        ("do-fail", "500"),
        ("do-lead", "302"),
        ("do-html", "not_json"),
        ("do-nothing", "not_json"),
        ("do-zip", "not_json"),
        ("do-long", "too_long"),
        ("do-break", "cut_off"),
        ("do-stall", "timeout"),
        ("do-wait", "timeout"),
    ] {
        let answer = server.get(&format!("/overview/{id}"));
        assert_eq!(
            (answer.status, answer.text()),
            (200, "{\"user\":{},\"orders\":null}"),
            "{id}"
        );
        assert_eq!(
            parts(&answer),
            ("false", format!("user=200, orders={word}").as_str())
        );
    }
    let answer = server.get("/overview/do-none");
    assert_eq!(answer.text(), "{\"user\":{},\"orders\":null}");
    assert_eq!(parts(&answer), ("true", "user=200, orders=204"));
}

#[test]
fn without_a_needed_part_there_is_no_answer() {
    let (users, orders) = (obeying(), saying("{\"secret\": 1}"));
    let server = overview_with(&users, &orders, "timeout_ms = 300");
    for (id, status, reason) in [
        ("do-fail", 502, "500"),
        ("do-lead", 502, "302"),
        ("do-html", 502, "not_json"),
        ("do-long", 502, "too_long"),
        ("do-break", 502, "cut_off"),
        ("do-stall", 504, "timeout"),
        ("do-wait", 504, "timeout"),
    ] {
        let answer = server.get(&format!("/overview/{id}"));
        let (got, _, why) = refusal(&answer);
        assert_eq!((got, why.as_str()), (status, reason), "{id}");
        let part = &answer.json()["error"]["details"][1];
        assert_eq!(part, &json!({"field": "part", "message": "user"}), "{id}");
        assert!(!answer.text().contains("secret"), "{id}: {}", answer.text());
    }
    // What a needed part says of the request is the answer.
    let answer = server.get("/overview/do-missing");
    assert_eq!(
        (answer.status, answer.text()),
        (404, "{\"secret\": \"404\"}")
    );
    assert_eq!(answer.header("x-gateway-parts"), Some("user=404"));
}

#[test]
fn a_client_may_shorten_the_wait_for_all_parts() {
    let (users, orders) = (saying("1"), obeying());
    let server = overview(&users, &orders);
    let begin = monotonic();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("X-Request-Timeout-Ms", "50"),
    ];
    let path = "/overview/do-wait";
    let answer = server.connect().send("GET", path, &headers, b"");
    assert_eq!(parts(&answer), ("false", "user=200, orders=timeout"));
    assert!(begin.elapsed() < Duration::from_millis(450));
    let told = orders.only();
    let told: u64 = told
        .header("x-request-timeout-ms")
        .expect("told")
        .parse()
        .expect("ms");
    assert!(told <= 50);
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("X-Request-Timeout-Ms", "soon"),
    ];
    let answer = server.connect().send("GET", path, &headers, b"");
    assert_eq!(answer.status, 400);
}

#[test]
fn nothing_that_a_client_writes_leads_elsewhere() {
    let (users, orders) = (saying("1"), saying("1"));
    let server = overview(&users, &orders);
    for id in ["..", ".", "%2e%2e", "..%2f..%2fadmin", "..%5cadmin", "..;x"] {
        let answer = server.get(&format!("/overview/{id}"));
        assert_eq!(answer.status, 400, "{id}");
    }
    assert!(users.seen().is_empty() && orders.seen().is_empty());
    assert_eq!(
        server
            .get("/overview/1&user=2%26user=3%23?page=4&user=5")
            .status,
        200
    );
    let line = orders.only().request_line().to_owned();
    assert_eq!(
        line,
        "GET /orders?user=1%26user%3D2%26user%3D3%23&page=4 HTTP/1.1"
    );
}

#[test]
fn an_answer_of_parts_is_read_only_and_has_a_head() {
    let (users, orders) = (saying("1"), saying("1"));
    let server = overview(&users, &orders);
    assert_eq!(server.post("/overview/1", "{}").status, 405);
    let key = [("X-API-Key", server.key.as_str())];
    let head = server.connect().send("HEAD", "/overview/1", &key, b"");
    assert_eq!((head.status, parts(&head).0), (200, "true"));
    assert_eq!(users.only().request_line(), "GET /users/1 HTTP/1.1");
    assert_eq!(
        server.connect().send("GET", "/overview/1", &[], b"").status,
        401
    );
}
