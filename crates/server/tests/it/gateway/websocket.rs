//! WebSockets, and what else a client may try with `Upgrade`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use serde_json::json;

use super::backend::{Backend, Then};
use super::{OK, in_front_of, refusal, start};
use crate::client::Connection;
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(10);
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\
    upgrade: WebSocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    sec-websocket-protocol: chat\r\ncontent-length: 0\r\n\r\n";

/// Agrees to every request, and then sends back what comes.
fn echo() -> Backend {
    Backend::start(|_, stream| {
        stream.write_all(AGREED.as_bytes()).expect("sent");
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            if stream.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        Then::Close
    })
}

fn request(key: &str, more: &str) -> String {
    format!(
        "GET /orders/chat?room=1 HTTP/1.1\r\nhost: shop.example\r\nx-api-key: {key}\r\n{more}\r\n"
    )
}

fn upgrade(key: &str) -> String {
    request(
        key,
        "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: chat\r\n\
         sec-websocket-extensions: permessage-deflate\r\norigin: http://shop.example\r\n",
    )
}

/// A WebSocket, of which the head of the answer has been read.
fn open(server: &Server) -> TcpStream {
    open_with(server, &server.key)
}

fn open_with(server: &Server, key: &str) -> TcpStream {
    let mut client = server.connect();
    client.raw(upgrade(key).as_bytes());
    let answer = client.receive(true).expect("an answer");
    assert_eq!(answer.status, 101);
    client.stream
}

fn echoes(client: &mut TcpStream, text: &[u8]) {
    client.write_all(text).expect("sent");
    let mut back = vec![0; text.len()];
    client.read_exact(&mut back).expect("sent back");
    assert_eq!(back, text);
}

fn ends(mut client: TcpStream) {
    client.set_read_timeout(Some(SOON)).expect("set");
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

fn in_hand(server: &Server) -> u64 {
    let view = server.get("/v1/gateway").json();
    let endpoint = &view["services"][0]["endpoints"][0];
    assert_eq!(endpoint["circuit"], "closed");
    endpoint["in_hand"].as_u64().expect("a number")
}

#[test]
fn a_websocket_reaches_its_service_and_bytes_pass_both_ways() {
    let backend = echo();
    let server = in_front_of(backend.address, "strip_prefix = \"/orders\"");
    let mut client = server.connect();
    client.raw(upgrade(&server.key).as_bytes());
    let answer = client.receive(true).expect("an answer");
    assert_eq!(answer.status, 101);
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert_eq!(answer.header("content-length"), None);
    let mut stream = client.stream;
    echoes(&mut stream, b"\x81\x02hi");
    let long = vec![7; 1 << 20];
    let mut sending = stream.try_clone().expect("cloned");
    let sent = long.clone();
    let sender = std::thread::spawn(move || sending.write_all(&sent).expect("sent"));
    let mut back = vec![0; long.len()];
    stream.read_exact(&mut back).expect("sent back");
    sender.join().expect("sent");
    assert!(back == long);
    assert_eq!(in_hand(&server), 1, "it counts as in hand");

    let seen = backend.only();
    assert_eq!(seen.request_line(), "GET /chat?room=1 HTTP/1.1");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "chat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "http://shop.example"),
        ("x-forwarded-host", "shop.example"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert!(!seen.head.contains(&server.key));

    // Whoever has sent everything may still be sent something.
    stream.shutdown(Shutdown::Write).expect("shut down");
    ends(stream);
    backend.wait_for_closed(1);
    eventually(SOON, "it is in hand no longer", || in_hand(&server) == 0);
}

#[test]
fn what_comes_before_the_answer_is_no_second_request() {
    let second = "GET /orders/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    // The service agrees: what came early is for the other protocol.
    let backend = echo();
    let server = in_front_of(backend.address, "");
    let mut client = server.connect();
    client.raw([&upgrade(&server.key), second].concat().as_bytes());
    assert_eq!(client.receive(true).expect("an answer").status, 101);
    let mut back = vec![0; second.len()];
    client.read_exact(&mut back).expect("sent back");
    assert_eq!(back, second.as_bytes());
    assert_eq!(backend.seen().len(), 1);

    // It does not: then it is a request like any other, to be admitted first.
    for refusal in [
        "HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
    ] {
        let backend = Backend::saying(refusal);
        let server = in_front_of(backend.address, "");
        let mut client = server.connect();
        client.raw([&upgrade(&server.key), second].concat().as_bytes());
        let status = client.receive(false).expect("an answer").status;
        assert!(refusal.contains(&status.to_string()), "{status}");
        assert_eq!(client.receive(false).expect("an answer").status, 401);
        assert_eq!(backend.seen().len(), 1, "{:?}", backend.seen());
    }
}

#[test]
fn only_websocket_is_passed_on() {
    let backend = Backend::saying(OK);
    let server = in_front_of(backend.address, "");
    for more in [
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "connection: upgrade\r\nupgrade: websocket, h2c\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\nupgrade: h2c\r\n",
        "connection: upgrade\r\nupgrade: TLS/1.3\r\n",
        "connection: close\r\nupgrade: websocket\r\n",
        "upgrade: websocket\r\n",
        "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nabc",
        "connection: upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
    ] {
        let before = backend.seen().len();
        let mut client = server.connect();
        client.raw(request(&server.key, more).as_bytes());
        assert_eq!(client.receive(false).expect("an answer").status, 200);
        let seen = backend.seen();
        assert_eq!(seen.len(), before + 1, "{more}");
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(seen[before].header(name), None, "{more}");
        }
    }
    let mut client = server.connect();
    client.raw(upgrade(&server.key).replace("GET", "POST").as_bytes());
    client.receive(false).expect("an answer");
    let post = backend.seen().pop().expect("one");
    assert_eq!(post.header("upgrade"), None);

    let server = in_front_of(backend.address, "websocket = false");
    let mut client = server.connect();
    client.raw(upgrade(&server.key).as_bytes());
    assert_eq!(client.receive(false).expect("an answer").status, 200);
    assert_eq!(backend.seen().pop().expect("one").header("upgrade"), None);
}

#[test]
fn a_service_that_agrees_to_something_else_is_wrong() {
    for agreed in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    ] {
        let backend = Backend::saying(agreed);
        let server = in_front_of(backend.address, "");
        let mut client = server.connect();
        client.raw(upgrade(&server.key).as_bytes());
        let answer = client.receive(false).expect("an answer");
        let invalid = (502, "BAD_GATEWAY".into(), "invalid".into());
        assert_eq!(refusal(&answer), invalid, "{agreed}");
    }
    let backend = Backend::saying(AGREED);
    let server = in_front_of(backend.address, "");
    let unasked = server.get("/orders/1");
    assert_eq!(refusal(&unasked).2, "invalid");
}

#[test]
fn it_ends_with_its_credential_and_with_the_server() {
    let backend = echo();
    let server = in_front_of(backend.address, "");
    let body = json!({"name": "chat", "scopes": ["predict"]}).to_string();
    let made = server.post("/v1/api-keys", body).json();
    let mut client = open_with(&server, made["key"].as_str().expect("a key"));
    let mut other = open(&server);
    echoes(&mut client, b"one");
    echoes(&mut other, b"two");
    let path = format!("/v1/api-keys/{}", made["id"].as_str().expect("an id"));
    let key = [("X-API-Key", server.key.as_str())];
    let deleted = server.connect().send("DELETE", &path, &key, b"");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    ends(client);
    backend.wait_for_closed(1);
    echoes(&mut other, b"the other stays");
    server.signal("TERM");
    ends(other);
    backend.wait_for_closed(2);
    let (status, log) = server.wait(SOON);
    assert!(status.success(), "{log}");
}

#[test]
fn it_outlives_every_timeout_while_something_moves() {
    let backend = echo();
    let server = start(&format!(
        "[server]\nrequest_timeout_ms = 200\nbody_timeout_ms = 200\nidle_timeout_ms = 200\n\
         head_timeout_ms = 200\n[gateway]\nidle_timeout_ms = 200\nconnect_timeout_ms = 2000\n\
         [gateway.services.orders]\nendpoints = [\"http://{}\"]\ntimeout_ms = 2000\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    ));
    let mut client = open(&server);
    let begin = monotonic();
    while begin.elapsed() < Duration::from_secs(2) {
        echoes(&mut client, b"x");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nothing moves for longer than the two timeouts together.
    ends(client);
    backend.wait_for_closed(1);
}

#[test]
fn nothing_is_collected_that_nobody_takes() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(AGREED.as_bytes()).expect("sent");
        let piece = vec![0; 1 << 20];
        while stream.write_all(&piece).is_ok() {}
        Then::Close
    });
    let server = in_front_of(backend.address, "");
    let mut client = open(&server);
    let mut chunk = vec![0; 1 << 20];
    client.read_exact(&mut chunk).expect("the first of it");
    let before = server.memory_kb("VmRSS");
    std::thread::sleep(Duration::from_millis(500));
    let grown = server.memory_kb("VmRSS").saturating_sub(before);
    assert!(grown < 4 << 10, "{grown} KiB");
    (0..16).for_each(|_| client.read_exact(&mut chunk).expect("more of it"));
    drop(client);
    backend.wait_for_closed(1);
}

#[test]
fn whoever_leaves_is_missed_by_the_other() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(AGREED.as_bytes()).expect("sent");
        Then::Close
    });
    let server = in_front_of(backend.address, "");
    ends(open(&server));
    let backend = echo();
    let server = in_front_of(backend.address, "");
    drop(open(&server));
    backend.wait_for_closed(1);
    // Another request goes its own way.
    let mut client = Connection::open(server.address);
    client.raw(upgrade(&server.key).as_bytes());
    assert_eq!(client.receive(true).expect("an answer").status, 101);
}

/// A service that does not mind the end of its client: it neither answers nor leaves.
#[test]
fn one_whose_client_has_sent_its_last_ends_like_any_other() {
    let backend = Backend::start(|_, stream| {
        stream.write_all(AGREED.as_bytes()).expect("sent");
        let mut chunk = [0; 64];
        while !matches!(stream.read(&mut chunk), Ok(0) | Err(_)) {}
        std::thread::sleep(6 * SOON);
        Then::Close
    });
    let server = start(&format!(
        "[server]\nrequest_timeout_ms = 500\nbody_timeout_ms = 500\n\
         [gateway.services.orders]\nendpoints = [\"http://{}\"]\ntimeout_ms = 2000\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\nscopes = []\n",
        backend.address
    ));
    let (left, half) = (open(&server), open(&server));
    assert_eq!(in_hand(&server), 2);
    drop(left);
    half.shutdown(Shutdown::Write).expect("half closed");
    ends(half);
    eventually(SOON, "nothing is in hand", || in_hand(&server) == 0);
}
