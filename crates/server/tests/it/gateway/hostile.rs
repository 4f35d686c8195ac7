//! Requests that two servers could read in two ways: what counts is what reached the second.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::Duration;

use auspex_kernel::clock::monotonic;

use super::backend::{Backend, Seen, Then};
use super::{OK, in_front_of};
use crate::server::Server;

/// Sends bytes as they are; what reached the service, and the first answer's status.
fn send(request: &str) -> (Vec<Seen>, Option<u16>) {
    let backend = Backend::saying(OK);
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    client.raw(request.replace("KEY", &server.key).as_bytes());
    let status = client
        .receive(request.starts_with("HEAD"))
        .map(|answer| answer.status);
    let _ = client.stream.shutdown(Shutdown::Write);
    assert!(client.is_closed_within(Duration::from_secs(10)));
    (backend.seen(), status)
}

const TAIL: &str = "GET /orders/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn one_request_stays_one() {
    // Both lengths: the chunks count, the other length goes, and the connection ends.
    let (seen, status) = send(&format!(
        "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ncontent-length: 6\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n{TAIL}"
    ));
    assert_eq!(status, Some(200));
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].body, b"");
    assert_eq!(seen[0].header("content-length"), None);

    // Extensions of chunks are for this hop alone, and trailers too.
    let (seen, status) = send(
        "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ntransfer-encoding: chunked\r\n\
         connection: close\r\n\r\n3;a=b\r\nabc\r\n0\r\nx-admin: 1\r\n\r\n",
    );
    assert_eq!((status, &seen[0].body[..]), (Some(200), &b"abc"[..]));

    // The same length twice is one.
    let (seen, status) = send(
        "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\ncontent-length: 3\r\n\
         content-length: 3\r\nconnection: close\r\n\r\nabc",
    );
    if status == Some(200) {
        assert_eq!(seen[0].header("content-length"), Some("3"));
    }
    assert!(seen.len() <= 1, "{seen:?}");
}

#[test]
fn what_could_mean_two_things_reaches_nobody() {
    let head = "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\n";
    for part in [
        "content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "content-length: 3, 4\r\n\r\nabcd",
        "content-length: +3\r\n\r\nabc",
        "content-length: 0x3\r\n\r\nabc",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "a: b\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "a: b\rc\r\n\r\n",
        "a\0: b\r\n\r\n",
        "a: b\0\r\n\r\n",
        "host: y\r\n\r\n",
    ] {
        let (seen, status) = send(&[head, part].concat());
        assert_eq!(seen, [], "{part}: {status:?}");
        assert!(
            status.is_none_or(|status| status == 400),
            "{part}: {status:?}"
        );
    }
    for target in [
        "/orders/../v1/users",
        "/orders/%2e%2e/v1/users",
        "/orders/..%2fv1",
        "/orders/..;/v1",
        "/orders/./1",
        "http://x/orders/../v1",
    ] {
        let request = format!(
            "GET {target} HTTP/1.1\r\nhost: x\r\nx-api-key: KEY\r\nconnection: close\r\n\r\n"
        );
        let (seen, status) = send(&request);
        assert_eq!((seen, status), (vec![], Some(400)), "{target}");
    }
    let missing = "GET /orders/1 HTTP/1.1\r\nx-api-key: KEY\r\nconnection: close\r\n\r\n";
    assert_eq!(send(missing), (vec![], Some(400)));
}

#[test]
fn what_is_unusual_arrives_as_it_should() {
    let target = |target: &str, version: &str| {
        let (seen, status) = send(&format!(
            "GET {target} {version}\r\nhost: x\r\nx-api-key: KEY\r\nconnection: close\r\n\r\n"
        ));
        assert_eq!(status, Some(200), "{target}");
        assert_eq!(seen.len(), 1);
        seen[0].request_line().to_owned()
    };
    for (sent, received) in [
        ("http://x/orders/1?a", "GET /orders/1?a HTTP/1.1"),
        ("/orders/a%2Fb", "GET /orders/a%2Fb HTTP/1.1"),
        ("/orders//x", "GET /orders//x HTTP/1.1"),
        ("/orders/%00", "GET /orders/%00 HTTP/1.1"),
        ("/orders/1?x=/../", "GET /orders/1?x=/../ HTTP/1.1"),
    ] {
        assert_eq!(target(sent, "HTTP/1.1"), received);
    }
    assert_eq!(target("/orders/1", "HTTP/1.0"), "GET /orders/1 HTTP/1.1");
    // A bare line feed ends a line (RFC 9112 §2.2), and does so for the service too.
    let (seen, _) =
        send("GET /orders/1 HTTP/1.1\nhost: x\nx-api-key: KEY\na: b\nconnection: close\n\n");
    for one in &seen {
        assert_eq!(one.header("a"), Some("b"));
        assert!(!one.head.replace("\r\n", "").contains('\n'), "{one:?}");
    }
}

/// Bodies in chunks, and what of each reaches the service.
const CHUNKS: [(&str, Option<&str>); 26] = [
    ("5\r\nhello\r\n0\r\n\r\n", Some("hello")),
    ("A\r\n0123456789\r\n0\r\n\r\n", Some("0123456789")),
    ("0000005\r\nhello\r\n00\r\n\r\n", Some("hello")),
    ("5;a=b;c\r\nhello\r\n0;d\r\n\r\n", Some("hello")),
    ("5\r\nhello\r\n0\r\nx-admin: 1\r\n\r\n", Some("hello")),
    (
        "5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n",
        Some("hello"),
    ),
    // What stands before the end of the line is no part of the size, and does not get there.
    ("5 \r\nhello\r\n0\r\n\r\n", Some("hello")),
    (" 5\r\nhello\r\n0\r\n\r\n", None),
    ("0x5\r\nhello\r\n0\r\n\r\n", None),
    ("+5\r\nhello\r\n0\r\n\r\n", None),
    ("-5\r\nhello\r\n0\r\n\r\n", None),
    ("5.\r\nhello\r\n0\r\n\r\n", None),
    ("5_\r\nhello\r\n0\r\n\r\n", None),
    ("g\r\nhello\r\n0\r\n\r\n", None),
    ("\r\nhello\r\n0\r\n\r\n", None),
    ("10000000000000005\r\nhello\r\n0\r\n\r\n", None),
    ("ffffffffffffffff\r\nhello\r\n0\r\n\r\n", None),
    ("5\nhello\n0\n\n", None),
    ("5\rhello\r0\r\r", None),
    ("5\r\nhello0\r\n\r\n", None),
    ("5\r\nhelloX\r\n0\r\n\r\n", None),
    ("5\r\nhello\n0\r\n\r\n", None),
    ("5\r\nhello\r\n0\n\r\n", None),
    ("5;a\nb\r\nhello\r\n0\r\n\r\n", None),
    ("5;a\rb\r\nhello\r\n0\r\n\r\n", None),
    ("5\r\nhello\r\n0\r\nx y: 1\r\n\r\n", None),
];

/// One server for many requests, each on a connection of its own.
struct Door {
    backend: Backend,
    server: Server,
}

impl Door {
    fn open() -> Self {
        let backend = Backend::saying(OK);
        let server = in_front_of(backend.address, "");
        Self { backend, server }
    }

    /// What of a request reaches the service.
    fn send(&self, request: &str) -> Vec<Seen> {
        let before = self.backend.seen().len();
        let mut client = self.server.connect();
        client.raw(request.replace("$KEY", &self.server.key).as_bytes());
        // Either it is answered and closed, or there is more to come, for which nobody waits here.
        let _ = client.is_closed_within(Duration::from_secs(2));
        self.backend.seen().split_off(before)
    }
}

#[test]
fn chunks_are_read_in_one_way() {
    let door = Door::open();
    let mut wrong = Vec::new();
    for (chunks, expected) in CHUNKS {
        let seen = door.send(&format!(
            "POST /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\n\
             transfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunks}"
        ));
        let bodies: Vec<_> = seen
            .iter()
            .map(|one| String::from_utf8_lossy(&one.body))
            .collect();
        if bodies.iter().map(|body| &**body).ne(expected) {
            wrong.push(format!("{chunks:?}: {bodies:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Heads, and the request lines that reach the service.
const HEADS: [(&str, Option<&str>); 40] = [
    (
        "GET /orders/1 HTTP/1.1\r\nHOST: x\r\nX-API-KEY: $KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost:x\r\nx-api-key:$KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: \t x \t\r\nx-api-key: $KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "GET http://y/orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "\r\nGET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "FOO /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        Some("FOO /orders/1 HTTP/1.1"),
    ),
    (
        "get /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        Some("get /orders/1 HTTP/1.1"),
    ),
    (
        "GET /orders/1?a=b?c=d&e HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        Some("GET /orders/1?a=b?c=d&e HTTP/1.1"),
    ),
    (
        "GET  /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1  HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET\t/orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1\tHTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        " GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    ("GET /orders/1\r\nhost: x\r\nx-api-key: $KEY", None),
    ("GET /orders/1 HTTP/0.9\r\nhost: x\r\nx-api-key: $KEY", None),
    ("GET /orders/1 HTTP/1.2\r\nhost: x\r\nx-api-key: $KEY", None),
    ("GET /orders/1 HTTP/2.0\r\nhost: x\r\nx-api-key: $KEY", None),
    ("GET /orders/1 http/1.1\r\nhost: x\r\nx-api-key: $KEY", None),
    (
        "GET /orders/1 HTTP/1.1 x\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    ("GET orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY", None),
    (
        "GET /orders/a b HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/\x01 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    ("G@T /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY", None),
    (
        "TRACE /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    ("CONNECT x:1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY", None),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: \r\nx-api-key: $KEY",
        Some("GET /orders/1 HTTP/1.1"),
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x y\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x, y\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: u@x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x/y\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nhost: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost : x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\n host: x\r\nx-api-key: $KEY",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\na b: c",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\n: c",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\nabc",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\na: b\x01c",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.0\r\nhost: x\r\nx-api-key: $KEY\r\ntransfer-encoding: chunked",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\ncontent-length:",
        None,
    ),
    (
        "GET /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: $KEY\r\ncontent-length: 1 1",
        None,
    ),
];

#[test]
fn heads_are_read_in_one_way() {
    let door = Door::open();
    let mut wrong = Vec::new();
    for (head, expected) in HEADS {
        let seen = door.send(&format!("{head}\r\nconnection: close\r\n\r\n"));
        let lines: Vec<&str> = seen.iter().map(Seen::request_line).collect();
        if lines.iter().copied().ne(expected) {
            wrong.push(format!("{head:?}: {lines:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a service says, and what its client gets of it.
fn said(answer: &'static str) -> (u16, Vec<u8>) {
    let backend = Backend::start(move |_, stream| {
        let _ = stream.write_all(answer.as_bytes());
        Then::Close
    });
    let server = in_front_of(backend.address, "");
    let answer = server.get("/orders/1");
    (answer.status, answer.body)
}

#[test]
fn an_answer_of_two_lengths_is_as_long_as_its_chunks() {
    for length in [0, 1, 3] {
        let answer: &'static str = match length {
            0 => {
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            }
            1 => {
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            }
            _ => {
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n2\r\nab\r\n0\r\n\r\n"
            }
        };
        assert_eq!(said(answer), (200, b"ab".to_vec()), "{length}");
    }
    // Taken out of its chunks only, it would be something else.
    let coded = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    assert_eq!(said(coded).0, 502);
}

#[test]
fn a_service_has_its_time_once_whether_or_not_there_is_a_body() {
    let backend = Backend::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        Then::Close
    });
    // It has 500 ms.
    let server = in_front_of(backend.address, "");
    let asked = |method: &str, body: &[u8]| {
        let begun = monotonic();
        let key = [("X-API-Key", server.key.as_str())];
        let answer = server.connect().send(method, "/orders/1", &key, body);
        (answer.status, begun.elapsed() < Duration::from_millis(900))
    };
    assert_eq!(asked("POST", b""), (504, true));
    assert_eq!(asked("POST", b"abc"), (504, true));
}
