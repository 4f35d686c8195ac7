//! Connections of proxies that begin with a header of the PROXY protocol.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::client::Connection;
use crate::server::{Server, auspex};
use auspex_kernel::clock::monotonic;

const ON: (&str, &str) = ("AUSPEX__SERVER__PROXY_PROTOCOL", "true");
const PROXY: (&str, &str) = ("AUSPEX__SERVER__TRUSTED_PROXIES", "127.0.0.1");
const ASK: &[u8] = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";

/// A header of version 2 for a client with an address of version 4, and something more.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let rest = [&client[..], &[127, 0, 0, 1, 0x12, 0x34, 0, 80, 4, 0, 1, 0]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[16], &rest].concat()
}

/// The status of the answer to what begins with `header`; `None` if the connection is closed.
fn status(server: &Server, header: &[u8]) -> Option<u16> {
    let mut connection = server.connect();
    connection.raw(&[header, ASK].concat());
    connection.receive(false).map(|answer| answer.status)
}

#[test]
fn limits_see_the_client_for_whom_a_proxy_connects() {
    let limit = ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "3");
    let server = Server::start_with(&[ON, PROXY, limit]);
    let health = |header: &[u8]| {
        let mut connection = server.connect();
        let ask = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
        connection.raw(&[header, ask].concat());
        connection.receive(false).expect("an answer").status
    };
    let text = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n";
    for header in [&text[..], &binary([203, 0, 113, 7]), text] {
        assert_eq!(health(header), 200);
    }
    assert_eq!(
        health(&binary([203, 0, 113, 7])),
        429,
        "one client, two versions"
    );
    assert_eq!(health(&binary([203, 0, 113, 8])), 200, "another client");
    assert_eq!(health(b"PROXY TCP6 2001:db8::1 ::1 1 80\r\n"), 200);
    assert_eq!(health(b"PROXY UNKNOWN\r\n"), 200, "the proxy itself");
    assert_eq!(
        health(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
        200,
        "the proxy itself"
    );
}

#[test]
fn what_is_no_header_closes_the_connection_and_the_log_says_so() {
    let slow = ("AUSPEX__SERVER__HEAD_TIMEOUT_MS", "500");
    let server = Server::start_with(&[ON, PROXY, slow]);
    for garbage in [
        &b""[..],
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711\r\n",
        b"PROXY UNKNOWN with a line that is longer than any header of the first version may be, which is one hundred and seven bytes\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        assert_eq!(status(&server, garbage), None, "{garbage:?}");
    }
    // Cut off, and then silent.
    let mut silent = TcpStream::connect(server.address).expect("connects");
    silent.write_all(b"PROXY TCP4 203").expect("sent");
    let began = monotonic();
    silent
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    assert_eq!(silent.read(&mut [0; 1]).expect("closed"), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    // One byte at a time, in time.
    let mut trickled = Connection::open(server.address);
    for byte in binary([203, 0, 113, 7]) {
        trickled.raw(&[byte]);
    }
    trickled.raw(ASK);
    assert_eq!(trickled.receive(false).expect("an answer").status, 404);
    let log = server.stop();
    assert!(log.contains("server.proxy_protocol = false"), "{log}");
    assert!(!log.contains("203.0.113"), "{log}");
}

#[test]
fn http2_follows_the_header_as_well() {
    let server = Server::start_with(&[ON, PROXY]);
    let mut stream = TcpStream::connect(server.address).expect("connects");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let all = [&binary([203, 0, 113, 7])[..], preface].concat();
    stream.write_all(&all).expect("sent");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("set");
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[3], 4, "settings");
}

/// By its address, never by what it sends: a header of anybody else is no HTTP.
#[test]
fn who_is_no_trusted_proxy_speaks_for_itself() {
    let elsewhere = ("AUSPEX__SERVER__TRUSTED_PROXIES", "10.0.0.0/8");
    let server = Server::start_with(&[ON, elsewhere]);
    assert_eq!(status(&server, b""), Some(404));
    assert_eq!(status(&server, &binary([203, 0, 113, 7])), Some(400));
    // Without the setting nobody's header is read.
    let server = Server::start_with(&[PROXY]);
    assert_eq!(status(&server, b"PROXY UNKNOWN\r\n"), Some(400));
}

#[test]
fn health_checks_from_the_machine_of_the_proxy_work() {
    let server = Server::start_with(&[ON, PROXY]);
    let mut health = auspex();
    health.args(["health", "--listen", &server.address.to_string()]);
    let output = health.envs([ON, PROXY]).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
}
