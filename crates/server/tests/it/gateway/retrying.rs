//! What is sent once more, how often, and what is not.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use auspex_kernel::clock::monotonic;
use parking_lot::Mutex;

use super::backend::{Backend, Seen, Then};
use super::{OK, refusal, start};
use crate::server::{Server, eventually};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

/// In front of these, with this `retry` and circuits that stay closed.
fn in_front_of(addresses: &[SocketAddr], retry: &str) -> Server {
    let endpoints: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"http://{address}\""))
        .collect();
    start(&format!(
        "[gateway.services.orders]\nendpoints = [{}]\ntimeout_ms = 2000\nretry = {{ {retry} }}\n\
         circuit_breaker = {{ failure_threshold = 1000000, requests_min = 1000000 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n\
         rate_limit = {{ max = 1000000, window_s = 60 }}\n",
        endpoints.join(", ")
    ))
}

const QUICK: &str = "base_delay_ms = 1";

/// A backend that says that it is busy so many times before it answers each path.
fn busy(times: usize) -> Backend {
    let counts = Mutex::new(std::collections::HashMap::new());
    Backend::start(move |seen, stream| {
        let mut counts = counts.lock();
        let count: &mut usize = counts.entry(seen.request_line().to_owned()).or_default();
        *count += 1;
        let answer = if *count <= times { BUSY } else { OK };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    })
}

/// What the backend does with a request that it does not answer.
fn hang_up(_: &Seen, _: &mut TcpStream) -> Then {
    Then::Close
}

#[test]
fn a_failure_that_passes_is_not_seen_and_waits_double() {
    let arrivals: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = arrivals.clone();
    let backend = Backend::start(move |_, stream| {
        let mut arrivals = noted.lock();
        arrivals.push(monotonic());
        let answer = if arrivals.len() < 4 { BUSY } else { OK };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    });
    let server = in_front_of(&[backend.address], "jitter = false");
    let answer = server.get("/orders/1");
    assert_eq!((answer.status, answer.text()), (200, "ok"));
    assert_eq!(answer.header("x-gateway-retries"), Some("3"));
    let arrivals = arrivals.lock();
    let waits = arrivals.windows(2).map(|two| two[1] - two[0]);
    for (wait, least) in waits.zip([100, 200, 400]) {
        let least = Duration::from_millis(least);
        assert!(
            (least..least + Duration::from_millis(300)).contains(&wait),
            "{wait:?}"
        );
    }
    let first = server.get("/orders/2");
    assert_eq!(
        first.header("x-gateway-retries"),
        None,
        "it went well at once"
    );
}

#[test]
fn after_the_last_retry_the_client_gets_what_the_service_said() {
    let backend = Backend::saying(BUSY);
    let server = in_front_of(&[backend.address], QUICK);
    let answer = server.get("/orders/1");
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    assert_eq!(answer.header("x-gateway-retries"), Some("3"));
    assert_eq!(backend.seen().len(), 4);

    // Also where the next one could not even be sent.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        drop(listener);
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        stream.write_all(BUSY.as_bytes()).expect("sent");
    });
    let server = in_front_of(&[address], QUICK);
    let answer = server.get("/orders/1");
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    let answer = server.post("/orders/1", "x");
    let refused = (502, "BAD_GATEWAY".into(), "refused".into());
    assert_eq!(refusal(&answer), refused);
    assert_eq!(
        answer.header("x-gateway-retries"),
        Some("3"),
        "nothing was sent"
    );
}

#[test]
fn what_may_have_been_carried_out_is_sent_again_only_if_that_is_safe() {
    let key = [("Idempotency-Key", "k")];
    let of = |answers: &'static str| {
        Backend::start(move |_, stream| {
            stream.write_all(answers.as_bytes()).expect("sent");
            if answers.is_empty() {
                Then::Close
            } else {
                Then::Keep
            }
        })
    };
    for (what, status) in [(BUSY, 503), ("", 502)] {
        for (method, headers, times) in [
            ("GET", &[][..], 4),
            ("PUT", &[], 4),
            ("DELETE", &[], 4),
            ("POST", &[], 1),
            ("PATCH", &[], 1),
            ("POST", &key, 4),
            ("PATCH", &key, 4),
        ] {
            let backend = of(what);
            let server = in_front_of(&[backend.address], QUICK);
            let body = if method == "GET" { "" } else { "a body" };
            let mut client = server.connect();
            let answer = client.send(method, "/orders/1", headers, body.as_bytes());
            assert_eq!(answer.status, status, "{method} {headers:?}");
            let seen = backend.seen();
            assert_eq!(seen.len(), times, "{method} {headers:?}: {what}");
            for one in seen {
                assert_eq!(one.body, body.as_bytes(), "{method}");
                let length = one.header("content-length");
                assert_eq!(length, (!body.is_empty()).then_some("6"), "{method}");
            }
        }
    }
}

#[test]
fn what_does_not_pass_is_not_sent_again() {
    let answers = [
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        // Nobody would wait as long as that.
        "HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n",
    ];
    for said in answers {
        let backend = Backend::saying(said);
        let server = in_front_of(&[backend.address], QUICK);
        let answer = server.get("/orders/1");
        assert_eq!(answer.header("x-gateway-retries"), None, "{said}");
        assert_eq!(backend.seen().len(), 1, "{said}");
    }
    // Nor when the client has no time left.
    let backend = Backend::saying(BUSY);
    let server = in_front_of(&[backend.address], "base_delay_ms = 1000, jitter = false");
    let begun = monotonic();
    let hurried = [("X-Request-Timeout-Ms", "900")];
    let answer = server.connect().send("GET", "/orders/1", &hurried, b"");
    assert_eq!((answer.status, backend.seen().len()), (503, 1));
    assert!(
        begun.elapsed() < Duration::from_millis(800),
        "it did not wait"
    );
    let none = in_front_of(&[backend.address], "retries_max = 0");
    assert_eq!(none.get("/orders/1").status, 503);
    assert_eq!(backend.seen().len(), 2);
}

#[test]
fn short_bodies_are_sent_again_and_long_ones_are_not() {
    let chunked = |server: &Server, path: &str, pieces: &[Vec<u8>]| {
        let mut client = server.connect();
        let head = format!("PUT {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        client.raw(head.as_bytes());
        for piece in pieces {
            client.raw(format!("{:x}\r\n", piece.len()).as_bytes());
            client.raw(piece);
            client.raw(b"\r\n");
        }
        client.raw(b"0\r\n\r\n");
        client.receive(false).expect("an answer")
    };
    let backend = busy(2);
    let server = in_front_of(&[backend.address], QUICK);
    let pieces: Vec<Vec<u8>> = (b'a'..=b'j').map(|byte| vec![byte; 5_000]).collect();
    assert_eq!(chunked(&server, "/orders/chunks", &pieces).status, 200);
    assert_eq!(
        server
            .connect()
            .send("PUT", "/orders/length", &[], &pieces.concat())
            .status,
        200
    );
    let seen = backend.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().all(|one| one.body == pieces.concat()));

    let long = vec![b'x'; (64 << 10) + 1];
    let answer = server.connect().send("PUT", "/orders/long", &[], &long);
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    let long = [vec![b'x'; 40 << 10], vec![b'y'; 40 << 10]];
    assert_eq!(chunked(&server, "/orders/longer", &long).status, 503);
    assert_eq!(backend.seen().len(), 8);
}

#[test]
fn another_endpoint_is_asked_where_there_is_one() {
    let (busy, good) = (Backend::saying(BUSY), Backend::saying(OK));
    let broken = Backend::start(hang_up);
    let server = in_front_of(&[busy.address, broken.address, good.address], QUICK);
    for number in 0..50 {
        let answer = server.get(&format!("/orders/{number}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let retries = answer.header("x-gateway-retries").unwrap_or("0");
        assert!(["0", "1", "2"].contains(&retries), "{retries}");
    }
    assert_eq!(good.seen().len(), 50);
}

#[test]
fn a_service_that_starts_again_is_waited_for() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    let server = in_front_of(&[address], "jitter = false, base_delay_ms = 200");
    let starting = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        let listener = TcpListener::bind(address).expect("it is free");
        let (mut stream, _) = listener.accept().expect("a connection");
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        stream.write_all(OK.as_bytes()).expect("sent");
    });
    // Nothing had been sent: it does not matter what.
    let answer = server.post("/orders/1", "x");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-gateway-retries"), Some("1"));
    starting.join().expect("no panic");
}

#[test]
fn each_try_counts_for_the_circuit_which_ends_them() {
    let backend = Backend::saying(BUSY);
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         retry = {{ base_delay_ms = 1, retries_max = 10 }}\n\
         circuit_breaker = {{ failure_threshold = 3 }}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    ));
    let answer = server.get("/orders/1");
    assert_eq!(
        (answer.status, answer.text()),
        (503, "busy"),
        "its own answer"
    );
    assert_eq!(answer.header("x-gateway-retries"), Some("2"));
    assert_eq!(refusal(&server.get("/orders/1")).2, "circuit_open");
    assert_eq!(backend.seen().len(), 3);
}

#[test]
fn a_request_that_waits_holds_no_place() {
    let backend = busy(1);
    let server = in_front_of(&[backend.address], "jitter = false, base_delay_ms = 1500");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.get("/orders/1").status);
        eventually(Duration::from_secs(10), "it has been refused once", || {
            backend.seen().len() == 1
        });
        let endpoint = || server.get("/v1/gateway").json()["services"][0]["endpoints"][0].clone();
        eventually(
            Duration::from_secs(1),
            "the endpoint has nothing in hand",
            || endpoint()["in_hand"] == 0,
        );
        assert_eq!(backend.seen().len(), 1, "it waits still");
        assert_eq!(waiting.join().expect("no panic"), 200);
    });
}

#[test]
fn connections_that_are_closed_unseen_lose_nothing() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(OK.as_bytes()).expect("sent");
        // It says nothing of it, and the next request may be on its way already.
        Then::Close
    });
    let server = in_front_of(&[backend.address], "");
    let mut client = server.connect();
    for number in 0..300 {
        let answer = client.send("GET", &format!("/orders/{number}"), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for number in 0..300 {
        let body = format!("number {number}");
        client.send("POST", "/orders/1", &[], body.as_bytes());
    }
    let mut bodies: Vec<Vec<u8>> = backend.seen().into_iter().map(|seen| seen.body).collect();
    bodies.retain(|body| !body.is_empty());
    let all = bodies.len();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), all, "a POST came twice");
}

#[test]
fn when_everything_fails_retries_stay_a_share_of_the_requests() {
    const CLIENTS: usize = 8;
    const SECONDS: usize = 4;
    let arrived = Arc::new(AtomicUsize::new(0));
    let counted = arrived.clone();
    let backend = Backend::start(move |_, stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = stream.write_all(BUSY.as_bytes());
        Then::Keep
    });
    let server = in_front_of(&[backend.address], QUICK);
    let begun = monotonic();
    let sent: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    let mut sent = 0;
                    while begun.elapsed() < Duration::from_secs(SECONDS as u64) {
                        let answer = client.send("GET", "/orders/1", &[], b"");
                        assert_eq!((answer.status, answer.text()), (503, "busy"));
                        sent += 1;
                    }
                    sent
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|one| one.join().expect("no panic"))
            .sum()
    });
    let retried = arrived.load(Ordering::Relaxed) - sent;
    println!("{sent} requests in {SECONDS} s, {retried} retries");
    assert!(retried <= sent / 5 + 100, "{retried} of {sent}");
    assert!(
        retried >= sent / 6,
        "{retried} of {sent}: the budget is used"
    );
}
