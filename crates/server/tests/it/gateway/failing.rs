//! Services that are down, slow, or break off: their clients learn why, and at once.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;

use super::backend::{Backend, Then};
use super::{OK, in_front_of, refusal, start};

const SOON: Duration = Duration::from_secs(10);

/// An address at which nothing listens. A port that was free a moment ago may be another test's by now.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

#[test]
fn every_failure_has_its_reason() {
    let server = in_front_of(NOWHERE, "");
    let refused = refusal(&server.get("/orders/1"));
    assert_eq!(refused, (502, "BAD_GATEWAY".into(), "refused".into()));

    let backend = Backend::start(|seen, stream| {
        let answer = match seen.request_line().split(' ').nth(1).expect("a target") {
            "/orders/head" => "HTTP/1.1 200 OK\r\nconte",
            "/orders/garbage" => "SSH-2.0-OpenSSH\r\n\r\n",
            "/orders/folded" => "HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 0\r\n\r\n",
            "/orders/lengths" => {
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"
            }
            "/orders/upgrade" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
            "/orders/silent" => return Then::Keep,
            _ => "",
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Close
    });
    let server = in_front_of(backend.address, "");
    for (path, status, reason) in [
        ("/orders/nothing", 502, "cut_off"),
        ("/orders/head", 502, "cut_off"),
        ("/orders/garbage", 502, "invalid"),
        ("/orders/folded", 502, "invalid"),
        ("/orders/lengths", 502, "invalid"),
        ("/orders/upgrade", 502, "invalid"),
        ("/orders/silent", 504, "timeout"),
    ] {
        let (got, _, why) = refusal(&server.get(path));
        assert_eq!((got, why.as_str()), (status, reason), "{path}");
    }
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn a_client_may_shorten_the_wait_and_not_lengthen_it() {
    let backend = Backend::start(|_, _| Then::Keep);
    let server = in_front_of(backend.address, "");
    for (stated, at_least, at_most) in [("100", 100, 400), ("60000", 500, 5_000)] {
        let headers = [
            ("X-API-Key", server.key.as_str()),
            ("X-Request-Timeout-Ms", stated),
        ];
        let start = monotonic();
        let answer = server.connect().send("GET", "/orders/1", &headers, b"");
        assert_eq!(refusal(&answer).2, "timeout");
        let took = start.elapsed().as_millis();
        assert!((at_least..at_most).contains(&took), "{stated}: {took} ms");
    }
    let told: Vec<Option<u64>> = backend
        .seen()
        .iter()
        .map(|seen| {
            seen.header("x-request-timeout-ms")
                .and_then(|ms| ms.parse().ok())
        })
        .collect();
    assert!(matches!(told[..], [Some(1..=100), None]), "{told:?}");
    let hurried = [
        ("X-API-Key", server.key.as_str()),
        ("X-Request-Timeout-Ms", "1"),
    ];
    for _ in 0..20 {
        let answer = server.connect().send("GET", "/orders/1", &hurried, b"");
        assert_eq!(refusal(&answer).2, "timeout");
    }
    let told = backend.seen();
    let mut told = told.iter().map(|seen| seen.header("x-request-timeout-ms"));
    assert!(told.all(|ms| ms != Some("0")), "it is no time");
    for wrong in ["0", "-1", "soon", "1.5"] {
        let headers = [
            ("X-API-Key", server.key.as_str()),
            ("X-Request-Timeout-Ms", wrong),
        ];
        let answer = server.connect().send("GET", "/orders/1", &headers, b"");
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

#[test]
fn an_answer_that_breaks_off_does_not_look_whole() {
    let (allow, allowed) = mpsc::channel();
    let allowed = Mutex::new(allowed);
    let backend = Backend::start(move |seen, stream| {
        let answer = match seen.request_line().contains("chunked") {
            true => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        allowed
            .lock()
            .recv_timeout(SOON)
            .expect("the client has it");
        Then::Close
    });
    let server = in_front_of(backend.address, "");
    for path in ["/orders/chunked", "/orders/length"] {
        let mut client = server.connect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
            server.key
        );
        client.raw(head.as_bytes());
        let mut all = Vec::new();
        while !all.ends_with(b"hello") && !all.ends_with(b"hello\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).expect("a piece");
            all.extend(byte);
        }
        allow.send(()).expect("it waits");
        let _ = client.read_to_end(&mut all);
        let text = String::from_utf8_lossy(&all);
        assert!(
            text.contains("hello") && !text.ends_with("0\r\n\r\n"),
            "{text}"
        );
    }
}

#[test]
fn a_client_that_leaves_ends_the_work_for_it() {
    let (tell, told) = mpsc::channel();
    let backend = Backend::start(move |seen, stream| {
        if seen.request_line().contains("streaming") {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
            stream.write_all(head.as_bytes()).expect("sent");
        }
        tell.send("began").expect("listening");
        stream.set_read_timeout(Some(SOON)).expect("set");
        let ended = matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_));
        tell.send(if ended { "left" } else { "more" })
            .expect("listening");
        Then::Close
    });
    let settings = format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    );
    let server = start(&settings);
    for path in ["/orders/waiting", "/orders/streaming"] {
        let mut client = server.connect();
        client.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        assert_eq!(told.recv_timeout(SOON), Ok("began"));
        let start = monotonic();
        drop(client);
        assert_eq!(told.recv_timeout(SOON), Ok("left"));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn an_endpoint_that_takes_no_connection_is_passed_over() {
    let backend = Backend::saying(OK);
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\", \"http://{}\"]\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        NOWHERE, backend.address
    ));
    for _ in 0..10 {
        assert_eq!(server.post("/orders/1", "x").status, 200);
    }
    assert_eq!(backend.seen().len(), 10);
}

/// However many of its neighbours are away, and before any circuit has opened.
#[test]
fn among_many_that_take_no_connection_the_one_that_does_is_found() {
    let backend = Backend::saying(OK);
    for balance in ["p2c", "round-robin", "least-requests", "hash(ip)"] {
        let away = (1..=50).map(|number| format!("\"http://127.0.0.{number}:1\""));
        let there = format!("\"http://{}\"", backend.address);
        let endpoints: Vec<String> = away.chain([there]).collect();
        let server = start(&format!(
            "[gateway.services.orders]\nendpoints = [{}]\nbalance = \"{balance}\"\n\
             retry = {{ retries_max = 0 }}\n\
             circuit_breaker = {{ failure_threshold = 1000, requests_min = 1000 }}\n\
             [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
            endpoints.join(", ")
        ));
        for _ in 0..10 {
            let answer = server.post("/orders/1", "x");
            assert_eq!(answer.status, 200, "{balance}: {}", answer.text());
        }
    }
    assert_eq!(backend.seen().len(), 40);
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    // A length that never comes in full: the backend above would wait for it.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read(&mut [0; 1024]);
        let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer.as_bytes()).expect("sent");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let server = in_front_of(address, "");
    let mut client = server.connect();
    let head = format!(
        "PUT /orders/1 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: 1000000\r\n\r\nxx",
        server.key
    );
    client.raw(head.as_bytes());
    assert_eq!(client.receive(false).map(|answer| answer.status), Some(413));
}
