//! The driver against servers that behave well and badly, on threads of this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answers::Answers;
use crate::drive::{Plan, drive};

const RIGHT: &str = r#"{"predictions":[[0.25,0.75]]}"#;

/// Serves each connection on a thread of its own with `serve`, which gets the stream and the
/// number of the connection, until the process ends.
fn server(serve: fn(TcpStream, usize)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.expect("accepted");
            thread::spawn(move || serve(stream, number));
        }
    });
    address
}

/// False when the client has closed.
fn read_request(stream: &mut TcpStream) -> bool {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"{}") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return false,
        }
    }
    true
}

fn answer(stream: &mut TcpStream, status: &str, extra: &str, body: &str) {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n{body}");
    stream.write_all(text.as_bytes()).ok();
}

fn run(address: SocketAddr, connections: usize, timeout_ms: u64) -> (bool, Value) {
    let request = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let plan = Plan {
        address,
        connections,
        warmup: Duration::from_millis(20),
        duration: Duration::from_millis(200),
        timeout: Duration::from_millis(timeout_ms),
        requests: vec![request.clone(), request],
        is_once: false,
    };
    let answers = Answers::parse("[0.25,0.75]\n[0.25,0.75]").expect("rows");
    let report = drive(&plan, answers).expect("polled");
    (report.is_clean(), report.to_json())
}

#[test]
fn right_answers_are_counted_on_every_connection() {
    let address = server(|mut stream, _| {
        while read_request(&mut stream) {
            answer(&mut stream, "200 OK", "", RIGHT);
        }
    });
    let (clean, report) = run(address, 4, 5_000);
    assert!(clean, "{report}");
    assert!(report["requests"].as_u64() > Some(10), "{report}");
    assert_eq!(report["reconnects"], 0, "{report}");
    assert!(report["latency_us"]["p50"].as_u64() > Some(0), "{report}");
}

#[test]
fn closing_between_answers_is_followed_by_a_new_connection() {
    let announced = server(|mut stream, _| {
        read_request(&mut stream);
        answer(&mut stream, "200 OK", "Connection: close\r\n", RIGHT);
    });
    // Without a word, after three answers: the next request may already be on its way.
    let silent = server(|mut stream, _| {
        for _ in 0..3 {
            read_request(&mut stream);
            answer(&mut stream, "200 OK", "", RIGHT);
        }
    });
    for address in [announced, silent] {
        let (clean, report) = run(address, 2, 5_000);
        assert!(clean, "{report}");
        assert!(report["reconnects"].as_u64() > Some(1), "{report}");
    }
}

#[test]
fn wrong_answers_and_statuses_are_errors() {
    let wrong = server(|mut stream, number| {
        while read_request(&mut stream) {
            let body = if number == 0 {
                r#"{"predictions":[[0.5,0.5]]}"#
            } else {
                RIGHT
            };
            answer(&mut stream, "200 OK", "", body);
        }
    });
    let (clean, report) = run(wrong, 2, 5_000);
    assert!(
        !clean && report["errors"]["wrong_answer"].as_u64() > Some(0),
        "{report}"
    );
    assert!(report["requests"].as_u64() > Some(0), "{report}");

    let limited = server(|mut stream, _| {
        while read_request(&mut stream) {
            answer(&mut stream, "429 Too Many Requests", "", "{}");
        }
    });
    let (clean, report) = run(limited, 1, 5_000);
    assert!(
        !clean && report["statuses"]["429"].as_u64() > Some(0),
        "{report}"
    );
}

#[test]
fn broken_answers_are_errors() {
    for (kind, serve) in [
        (
            "malformed",
            (|mut stream, _| {
                read_request(&mut stream);
                stream.write_all(b"220 mail.example ESMTP\r\n").ok();
                read_request(&mut stream);
            }) as fn(TcpStream, usize),
        ),
        ("closed", |mut stream, _| {
            read_request(&mut stream);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
                .ok();
        }),
        ("closed", |mut stream, _| {
            read_request(&mut stream);
        }),
    ] {
        let (clean, report) = run(server(serve), 1, 5_000);
        assert!(
            !clean && report["errors"][kind].as_u64() > Some(0),
            "{kind}: {report}"
        );
    }
}

#[test]
fn silent_server_ends_in_a_timeout() {
    let address = server(|mut stream, _| while read_request(&mut stream) {});
    let begins = Instant::now();
    let (clean, report) = run(address, 3, 100);
    assert!(
        !clean && report["errors"]["answer_timeout"].as_u64() >= Some(3),
        "{report}"
    );
    assert!(begins.elapsed() < Duration::from_secs(5));
}

#[test]
fn requests_that_are_sent_once_end_the_run() {
    let address = server(|mut stream, _| {
        while read_request(&mut stream) {
            answer(&mut stream, "200 OK", "", "it is pending");
        }
    });
    let request = |number| format!("PUT /{number} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}");
    let plan = Plan {
        address,
        connections: 3,
        warmup: Duration::from_secs(60),
        duration: Duration::from_secs(60),
        timeout: Duration::from_secs(5),
        requests: (0..50).map(|number| request(number).into_bytes()).collect(),
        is_once: true,
    };
    let report = drive(&plan, Answers::Containing("pending".to_owned())).expect("polled");
    assert!(report.is_clean());
    let report = report.to_json();
    assert_eq!(report["requests"], 50, "{report}");
    assert!(report["seconds"].as_f64() < Some(30.0), "{report}");
}

#[test]
fn absent_server_is_a_connect_error() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let (clean, report) = run(address, 1, 1_000);
    assert!(
        !clean && report["errors"]["connect"].as_u64() > Some(0),
        "{report}"
    );
}
