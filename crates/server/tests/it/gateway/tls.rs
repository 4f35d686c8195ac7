//! Services that are called by TLS, and clients that are served by it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::tls::{certified_key, provider};
use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::{OK, refusal, start, start_from};
use crate::certificates::{Authority, Pair};
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);

/// A server of HTTP/1.1 over TLS, or of nothing else than the begin of HTTP/2.
struct TlsBackend {
    address: SocketAddr,
    /// Heads, as they came.
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl TlsBackend {
    /// It believes clients of an authority alone, if it is given one.
    fn start(pair: &Pair, clients: Option<&Authority>) -> Self {
        let key = certified_key(pair.certificate.as_bytes(), pair.key.as_bytes());
        let key = key.expect("a pair");
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let pem = auspex_kernel::tls::certificates(authority.pem.as_bytes());
                for certificate in pem.expect("certificates") {
                    roots.add(certificate).expect("a root");
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (all, counted) = (seen.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::SeqCst);
                let (config, all) = (config.clone(), all.clone());
                std::thread::spawn(move || {
                    let session = ServerConnection::new(config).expect("a session");
                    serve(StreamOwned::new(session, stream), &all);
                });
            }
        });
        Self {
            address,
            seen,
            connections,
        }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Answers every head, and sends back all that comes after one that asks for WebSocket.
fn serve(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>, all: &Mutex<Vec<String>>) {
    let mut buffer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..read]);
        if !buffer.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8(std::mem::take(&mut buffer)).expect("ASCII");
        let is_websocket = head.contains("upgrade: websocket");
        let says_more = head.starts_with("GET /orders/more ");
        all.lock().push(head);
        if says_more {
            let begin = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
            stream.write_all(begin.as_bytes()).expect("sent");
            std::thread::sleep(Duration::from_millis(100));
            // Two records in one packet.
            let mut writer = stream.conn.writer();
            writer.write_all(b"ab").expect("written");
            let unasked = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nunasked";
            writer.write_all(unasked).expect("written");
            stream.flush().expect("sent");
            continue;
        }
        if !is_websocket {
            stream.write_all(OK.as_bytes()).expect("sent");
            continue;
        }
        let agreed =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(agreed.as_bytes()).expect("sent");
        while let Ok(read @ 1..) = stream.read(&mut chunk) {
            stream.write_all(&chunk[..read]).expect("sent back");
            stream.flush().expect("sent back");
        }
        return;
    }
}

/// Files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.path().join(name);
        std::fs::write(&file, text).expect("written");
        file
    }
}

fn settings(endpoint: &str, more: &str) -> String {
    format!(
        "[gateway.services.orders]\nendpoints = [\"{endpoint}\"]\n\
         circuit_breaker = {{ failure_threshold = 1000, requests_min = 100000 }}\nretry = {{ retries_max = 0 }}\n{more}\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\nscopes = [\"predict\"]\n"
    )
}

fn in_front_of(endpoint: &str, more: &str) -> Server {
    start(&settings(endpoint, more))
}

#[test]
fn a_service_is_called_by_tls_and_known_by_its_certificate() {
    let (authority, files) = (Authority::new(), Files::new());
    let ca = files.write("ca.pem", &authority.pem);
    let trust = |more: &str| format!("tls = {{ ca_file = \"{}\"{more} }}", ca.display());
    let backend = TlsBackend::start(&authority.issue(&["localhost"]), None);
    let url = format!("https://localhost:{}", backend.port());
    let server = in_front_of(&url, &trust(""));
    let mut client = server.connect();
    let key = [("X-API-Key", server.key.as_str())];
    for _ in 0..10 {
        assert_eq!(client.send("GET", "/orders/1", &key, b"").status, 200);
    }
    assert_eq!(
        backend.connections.load(Ordering::SeqCst),
        1,
        "it is used again"
    );
    let head = backend.seen.lock()[0].clone();
    let host = format!("host: localhost:{}\r\n", backend.port());
    assert!(
        head.contains(&host) && head.contains("x-forwarded-proto: http\r\n"),
        "{head}"
    );
    let view = server.get("/v1/gateway").json();
    assert_eq!(view["services"][0]["endpoints"][0]["url"], url);

    // The address is not in the certificate, unless the settings say whom to expect.
    let address = format!("https://{}", backend.address);
    let server = in_front_of(&address, &trust(""));
    let refused = (502, "BAD_GATEWAY".into(), "tls".into());
    assert_eq!(refusal(&server.get("/orders/1")), refused);
    assert!(
        server
            .get("/metrics")
            .text()
            .contains("auspex_gateway_requests_total{service=\"orders\",outcome=\"tls\"} 1")
    );
    let log = server.stop();
    assert!(
        log.contains("certificate") && log.contains(&backend.address.to_string()),
        "{log}"
    );
    let server = in_front_of(&address, &trust(", server_name = \"localhost\""));
    assert_eq!(server.get("/orders/1").status, 200);

    // Nobody else's certificates are believed, and plain HTTP is none.
    let server = in_front_of(&url, "");
    assert_eq!(refusal(&server.get("/orders/1")), refused);
    let stranger = files.write("stranger.pem", &Authority::new().pem);
    let other = format!("tls = {{ ca_file = \"{}\" }}", stranger.display());
    let server = in_front_of(&url, &other);
    assert_eq!(refusal(&server.get("/orders/1")), refused);
    let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = plain.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in plain.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let server = in_front_of(&format!("https://localhost:{}", at.port()), &trust(""));
    assert_eq!(refusal(&server.get("/orders/1")).2, "tls");
    // HTTP/2 must be agreed upon.
    let http2 = trust("") + "\nprotocol = \"http2\"";
    let server = in_front_of(&url, &http2);
    assert_eq!(refusal(&server.get("/orders/1")).2, "tls");
}

#[test]
fn what_a_service_says_unasked_answers_no_other_request() {
    let (authority, files) = (Authority::new(), Files::new());
    let service = TlsBackend::start(&authority.issue(&["localhost"]), None);
    let roots = files.write("roots.pem", &authority.pem);
    let roots = format!("{{ ca_file = {roots:?} }}");
    let server = in_front_of(
        &format!("https://localhost:{}", service.port()),
        &format!("tls = {roots}"),
    );
    let first = server.get("/orders/more");
    assert_eq!((first.status, first.text()), (200, "ab"));
    for _ in 0..3 {
        assert_eq!(server.get("/orders/1").text(), "ok");
    }
}

#[test]
fn a_service_that_asks_who_calls_is_shown_a_certificate() {
    let (authority, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let backend = TlsBackend::start(&authority.issue(&["localhost"]), Some(&clients));
    let url = format!("https://localhost:{}", backend.port());
    let ca = files.write("ca.pem", &authority.pem);
    let trust = format!("tls = {{ ca_file = \"{}\"", ca.display());
    let server = in_front_of(&url, &format!("{trust} }}"));
    let refused = (502, "BAD_GATEWAY".into(), "tls".into());
    assert_eq!(refusal(&server.get("/orders/1")), refused);
    let own = clients.issue(&["auspex"]);
    let certificate = files.write("own.pem", &own.certificate);
    let key = files.write("own.key", &own.key);
    let shown = format!(
        "{trust}, client_cert_file = \"{}\", client_key_file = \"{}\" }}",
        certificate.display(),
        key.display()
    );
    let server = in_front_of(&url, &shown);
    assert_eq!(server.get("/orders/1").status, 200);
}

#[test]
fn changed_certificates_are_followed() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    let backend = TlsBackend::start(&new.issue(&["localhost"]), None);
    let ca = files.write("ca.pem", &old.pem);
    let url = format!("https://localhost:{}", backend.port());
    let trust = format!("tls = {{ ca_file = \"{}\" }}", ca.display());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, settings(&url, &trust)).expect("written");
    let server = start_from(folder, &file, &[]);
    assert_eq!(refusal(&server.get("/orders/1")).2, "tls");
    files.write("ca.pem", "garbage");
    eventually(SOON, "it is refused", || {
        server
            .get("/v1/server")
            .text()
            .contains("GATEWAY_CERTIFICATES_REFUSED")
    });
    files.write("ca.pem", &new.pem);
    eventually(SOON, "the new authority is believed", || {
        server.get("/orders/1").status == 200
    });
    assert!(
        !server
            .get("/v1/server")
            .text()
            .contains("GATEWAY_CERTIFICATES_REFUSED")
    );
}

#[test]
fn a_websocket_passes_by_tls_on_both_sides() {
    let (authority, files) = (Authority::new(), Files::new());
    let pair = authority.issue(&["localhost", "127.0.0.1"]);
    let backend = TlsBackend::start(&pair, None);
    let ca = files.write("ca.pem", &authority.pem);
    let [certificate, key] = pair.write(files.0.path());
    let trust = format!("tls = {{ ca_file = \"{}\" }}", ca.display());
    let url = format!("https://localhost:{}", backend.port());
    let own = format!(
        "[server.tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n{}",
        certificate.display(),
        key.display(),
        settings(&url, &trust)
    );
    let server = start(&own);
    let mut client = authority.connect(server.address);
    let head = format!(
        "GET /orders/1 HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\n",
        server.key
    );
    let asked =
        format!("{head}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n");
    let answer = client.ask(&asked, "\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(client.ask("ping", "ping").ends_with("ping"));
    let long = "x".repeat(60_000) + "!";
    assert!(client.ask(&long, "!").ends_with(&long));
    assert!(backend.seen.lock()[0].contains("x-forwarded-proto: https\r\n"));

    // A client that leaves ends its request here too.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let other = own
        .replace(&url, &format!("http://{address}"))
        .replace(&trust, "");
    let server = start(&other);
    let mut client = authority.connect(server.address);
    let head = head.replace(&key_of(&head), &server.key);
    client
        .0
        .write_all(format!("{head}\r\n").as_bytes())
        .expect("sent");
    let (mut received, _) = silent.accept().expect("a connection");
    client.0.conn.send_close_notify();
    client.0.flush().expect("said");
    drop(client);
    received.set_read_timeout(Some(SOON)).expect("set");
    let mut rest = Vec::new();
    received.read_to_end(&mut rest).expect("it is closed");
}

fn key_of(head: &str) -> String {
    let (_, rest) = head.split_once("x-api-key: ").expect("a key");
    rest.split("\r\n").next().expect("a line").to_owned()
}
