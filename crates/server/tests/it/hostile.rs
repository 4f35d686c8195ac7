//! Clients that are slow, silent, many or mad.

use std::time::Duration;

use crate::client::Connection;
use crate::predict::REQUEST;
use crate::server::{Server, eventually};
use auspex_kernel::clock::monotonic;

/// Short bounds, so that the tests see them without long waits.
const IMPATIENT: [(&str, &str); 4] = [
    ("AUSPEX__SERVER__HEAD_TIMEOUT_MS", "500"),
    ("AUSPEX__SERVER__BODY_TIMEOUT_MS", "500"),
    ("AUSPEX__SERVER__IDLE_TIMEOUT_MS", "1000"),
    ("AUSPEX__SERVER__REQUEST_TIMEOUT_MS", "2000"),
];

#[test]
fn a_silent_connection_is_closed() {
    let server = Server::start_with(&IMPATIENT);
    let start = monotonic();
    assert!(server.connect().is_closed_within(Duration::from_secs(5)));
    assert!(
        start.elapsed() >= Duration::from_millis(400),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn trickled_headers_are_cut_off() {
    let server = Server::start_with(&IMPATIENT);
    let mut connection = server.connect();
    connection.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n");
    let start = monotonic();
    while !connection.is_closed_within(Duration::from_millis(50)) {
        connection.raw(b"A: b\r\n");
        assert!(start.elapsed() < Duration::from_secs(5), "still open");
    }
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_stalled_body_is_answered_408() {
    let server = Server::start_with(&IMPATIENT);
    let mut connection = server.connect();
    let head = format!(
        "POST /predict HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nContent-Type: application/json\r\n\
         Content-Length: 500\r\n\r\n{{\"age\"",
        server.address, server.key
    );
    connection.raw(head.as_bytes());
    let answer = connection.receive(false).expect("an answer");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (408, "REQUEST_TIMEOUT")
    );
}

#[test]
fn an_idle_connection_is_closed_later_than_a_silent_one() {
    let server = Server::start_with(&IMPATIENT);
    let mut connection = server.connect();
    assert_eq!(connection.send("GET", "/health/live", &[], b"").status, 200);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(
        connection.send("GET", "/health/live", &[], b"").status,
        200,
        "still open"
    );
    assert!(connection.is_closed_within(Duration::from_secs(5)));
}

#[test]
fn five_thousand_idle_connections_do_not_keep_others_out() {
    rlimit::increase_nofile_limit(6_000).expect("descriptors for the client side");
    let server = Server::start();
    let idle: Vec<Connection> = (0..5_000)
        .map(|i| {
            let mut connection = server.connect();
            if i % 2 == 0 {
                connection.raw(b"GET /health HTTP/1.1\r\nHo");
            }
            connection
        })
        .collect();
    let start = monotonic();
    for _ in 0..20 {
        assert_eq!(server.post("/predict", REQUEST).status, 200);
    }
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    drop(idle);
    assert_eq!(server.post("/predict", REQUEST).status, 200);
}

#[test]
fn connections_over_the_cap_are_told_so() {
    let server = Server::start_with(&[("AUSPEX__SERVER__CONNECTIONS_MAX", "3")]);
    let held: Vec<_> = (0..3)
        .map(|_| {
            let mut connection = server.connect();
            assert_eq!(connection.send("GET", "/health/live", &[], b"").status, 200);
            connection
        })
        .collect();
    let mut refused = server.connect();
    let answer = refused.receive(false).expect("an answer");
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("1"))
    );
    drop(held);
    eventually(Duration::from_secs(2), "room again", || {
        let mut connection = server.connect();
        connection.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
        connection
            .receive(false)
            .is_some_and(|answer| answer.status == 200)
    });
}

#[test]
fn without_descriptors_new_clients_are_told_so_and_old_ones_are_served() {
    let server = Server::start();
    let mut kept = server.connect();
    let live = |connection: &mut Connection| {
        connection.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.receive(false).map(|answer| answer.status)
    };
    assert_eq!(live(&mut kept), Some(200));
    server.limit_descriptors(2);
    let (mut held, mut refused) = (Vec::new(), 0);
    let start = monotonic();
    while start.elapsed() < Duration::from_millis(1500) {
        let mut connection = server.connect();
        match live(&mut connection) {
            // The server opens and closes files of its own in the meantime.
            Some(200) => held.push(connection),
            answer => {
                assert_eq!(answer, Some(503));
                refused += 1;
            }
        }
        assert_eq!(live(&mut kept), Some(200));
    }
    assert!(refused > held.len(), "{refused} and {}", held.len());
    drop(held);
    server.limit_descriptors(50);
    eventually(Duration::from_secs(5), "room again", || {
        live(&mut server.connect()) == Some(200)
    });
    let log = server.stop();
    let lines = log.matches("new connections are refused").count();
    assert!((1..=3).contains(&lines), "{log}");
}

#[test]
fn without_descriptors_silent_clients_do_not_delay_others() {
    let server = Server::start();
    let live = || {
        let mut connection = server.connect();
        connection.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
        connection.receive(false).map(|answer| answer.status)
    };
    assert_eq!(live(), Some(200));
    // The server needs some of them for files of its own.
    server.limit_descriptors(20);
    let silent: Vec<Connection> = (0..60).map(|_| server.connect()).collect();
    let start = monotonic();
    assert_eq!(live(), Some(503));
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    drop(silent);
    eventually(Duration::from_secs(5), "room again", || live() == Some(200));
}

#[test]
fn garbage_instead_of_http_harms_nobody() {
    let server = Server::start();
    let garbage: [&[u8]; 7] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\0\0",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ];
    for bytes in garbage {
        let mut connection = server.connect();
        connection.raw(bytes);
        // The server may have hung up already.
        let _ = connection.stream.shutdown(std::net::Shutdown::Write);
        assert!(
            connection.is_closed_within(Duration::from_secs(5)),
            "{bytes:?}"
        );
    }
    assert_eq!(server.post("/predict", REQUEST).status, 200);
}
