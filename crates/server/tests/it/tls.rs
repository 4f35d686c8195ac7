//! The server's own TLS, with clients that speak it and some that do not.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

use crate::certificates::{Authority, Pair, Secured, der};
use crate::client::Connection;
use crate::server::{Server, auspex, eventually};

const SOON: Duration = Duration::from_secs(20);
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];
const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
const IS_LIVE: &str = "\"alive\"";

/// With its files in its data folder.
fn start(pair: &Pair, settings: &[(&str, &str)]) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let files = pair.write(folder.path());
    start_by(folder, &files[0], &files[1], settings)
}

fn start_by(folder: TempDir, certificate: &Path, key: &Path, more: &[(&str, &str)]) -> Server {
    let [certificate, key] =
        [certificate, key].map(|file| file.to_str().expect("UTF-8").to_owned());
    let mut settings = vec![
        ("AUSPEX__SERVER__TLS__CERT_FILE", certificate.as_str()),
        ("AUSPEX__SERVER__TLS__KEY_FILE", key.as_str()),
    ];
    settings.extend(more);
    Server::start_in(folder, &settings)
}

/// What `GET PATH` with the key answers.
fn get(server: &Server, authority: &Authority, path: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {}\r\nconnection: close\r\n\r\n",
        server.key
    );
    let mut client = authority.connect(server.address);
    client.0.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    client
        .0
        .read_to_string(&mut answer)
        .expect("an answer that says goodbye");
    answer
}

#[test]
fn requests_are_answered_over_every_version_and_protocol() {
    let authority = Authority::new();
    let server = start(&authority.issue(&NAMES), &[]);
    for (version, name) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let config = authority.client_config(&[version], &[b"http/1.1"]);
        let mut client = Secured::open(config, server.address).expect("a handshake");
        for _ in 0..3 {
            let answer = client.ask(LIVE, IS_LIVE);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(!answer.contains("strict-transport-security"), "{answer}");
        }
        assert_eq!(client.version(), name);
        assert_eq!(client.protocol(), Some(&b"http/1.1"[..]));
    }
    let config = authority.client_config(rustls::ALL_VERSIONS, &[b"h2", b"http/1.1"]);
    let answer = runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(server.address)
            .await
            .expect("connects");
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector.connect(name, stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let shaken = hyper::client::conn::http2::handshake(executor, io).await;
        let (mut sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        let request = http::Request::get("https://localhost/health/live");
        let request = request.body(Empty::<Bytes>::new()).expect("valid");
        let answer = sender.send_request(request).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, http::Version::HTTP_2)
        );
        answer
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes()
    });
    assert!(String::from_utf8_lossy(&answer).contains(IS_LIVE));
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("runs")
}

#[test]
fn versions_that_are_too_old_are_refused() {
    let authority = Authority::new();
    let server = start(&authority.issue(&NAMES), &[]);
    let old = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_1",
            "-cipher",
            "ALL:@SECLEVEL=0",
            "-connect",
        ])
        .arg(server.address.to_string())
        .stdin(std::process::Stdio::null())
        .output();
    // Where there is none the next check stands alone.
    if let Ok(old) = old {
        assert!(
            !old.status.success(),
            "{}",
            String::from_utf8_lossy(&old.stdout)
        );
    }
    let only_newest = [("AUSPEX__SERVER__TLS__MIN_VERSION", "1.3")];
    let server = start(&authority.issue(&NAMES), &only_newest);
    let older = authority.client_config(&[&TLS12], &[]);
    assert!(Secured::open(older, server.address).is_err());
    let newest = authority.client_config(&[&TLS13], &[]);
    let mut newest = Secured::open(newest, server.address).expect("a handshake");
    newest.ask(LIVE, IS_LIVE);
}

#[test]
fn everything_that_names_the_server_says_https() {
    let authority = Authority::new();
    let settings = [("AUSPEX__SERVER__TLS__HSTS_MAX_AGE_S", "600")];
    let server = start(&authority.issue(&NAMES), &settings);
    let answer = get(&server, &authority, "/.well-known/openid-configuration");
    let url = format!("https://{}", server.address);
    assert!(
        answer.contains(&format!("\"issuer\":\"{url}\"")),
        "{answer}"
    );
    assert!(
        answer.contains("strict-transport-security: max-age=600\r\n"),
        "{answer}"
    );
    let health = auspex()
        .arg("health")
        .envs([
            ("AUSPEX__SERVER__LISTEN", server.address.to_string()),
            (
                "AUSPEX__SERVER__TLS__CERT_FILE",
                in_folder(&server, "cert.pem"),
            ),
            (
                "AUSPEX__SERVER__TLS__KEY_FILE",
                in_folder(&server, "key.pem"),
            ),
        ])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&health.stdout);
    assert!(
        health.status.success() && said.contains(IS_LIVE),
        "{health:?}"
    );
}

fn in_folder(server: &Server, name: &str) -> String {
    let file = server.folder.path().join(name);
    file.to_str().expect("UTF-8").to_owned()
}

#[test]
fn who_does_not_speak_tls_is_told_or_closed() {
    let authority = Authority::new();
    let slow = [("AUSPEX__SERVER__HEAD_TIMEOUT_MS", "500")];
    let server = start(&authority.issue(&NAMES), &slow);
    let mut plain = server.connect();
    plain.raw(format!("{LIVE}{LIVE}").as_bytes());
    let answer = plain.receive(false).expect("an answer");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert!(plain.is_closed_within(SOON));
    let mut plain = server.connect();
    plain.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(plain.receive(false).expect("an answer").status, 400);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x80\x2e\x01\x00\x02",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"",
    ] {
        let mut client = server.connect();
        client.raw(garbage);
        assert!(client.is_closed_within(SOON), "{garbage:?}");
    }
    // Whoever trickles a handshake has the time of a head for all of it.
    let mut trickling = server.connect();
    trickling.raw(b"\x16\x03\x01\x02\x00");
    eventually(SOON, "it is closed", || {
        trickling.raw(b"\x01");
        is_closed(&mut trickling)
    });
    authority.connect(server.address).ask(LIVE, IS_LIVE);
    eventually(SOON, "no other is open", || {
        get(&server, &authority, "/metrics").contains("auspex_http_connections 1\n")
    });
}

fn is_closed(connection: &mut Connection) -> bool {
    let stream = &mut connection.stream;
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("set");
    match stream.read(&mut [0; 64]) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

#[test]
fn the_header_of_a_proxy_goes_before_tls() {
    let authority = Authority::new();
    let settings = [
        ("AUSPEX__SERVER__PROXY_PROTOCOL", "true"),
        ("AUSPEX__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
        ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "2"),
    ];
    let server = start(&authority.issue(&NAMES), &settings);
    let status = |client: &str| {
        let mut stream = TcpStream::connect(server.address).expect("connects");
        let header = format!("PROXY TCP4 {client} 127.0.0.1 4711 443\r\n");
        stream.write_all(header.as_bytes()).expect("sent");
        let config = authority.client_config(rustls::ALL_VERSIONS, &[]);
        let mut client = Secured::over(config, stream).expect("a handshake");
        let health = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.ask(health, "\r\n\r\n")[9..12].to_owned()
    };
    assert_eq!(["203.0.113.7"; 3].map(status), ["200", "200", "429"]);
    assert_eq!(status("203.0.113.8"), "200");
}

/// As Kubernetes and cert-manager do it: a link to a folder leads to another one.
#[test]
fn a_new_certificate_comes_into_force_while_clients_are_served() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let lay = |name: &str, pair: &Pair| {
        let inner = folder.path().join(name);
        std::fs::create_dir(&inner).expect("made");
        pair.write(&inner);
        std::os::unix::fs::symlink(name, folder.path().join("new")).expect("linked");
        std::fs::rename(folder.path().join("new"), folder.path().join("data")).expect("swapped");
    };
    let (first, second) = (authority.issue(&NAMES), authority.issue(&NAMES));
    lay("one", &first);
    let data = folder.path().join("data");
    let own = tempfile::tempdir().expect("a folder");
    let server = start_by(own, &data.join("cert.pem"), &data.join("key.pem"), &[]);
    let mut held = authority.connect(server.address);
    held.ask(LIVE, IS_LIVE);
    assert_eq!(held.certificate(), der(&first.certificate));

    let stop = AtomicBool::new(false);
    let shown = |address: SocketAddr| {
        let mut client = authority.connect(address);
        client.ask(LIVE, IS_LIVE);
        client.certificate()
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    shown(server.address);
                }
            });
        }
        lay("two", &second);
        eventually(SOON, "the second is shown", || {
            shown(server.address) == der(&second.certificate)
        });
        // The key of another one, no PEM, and nothing at all.
        let torn = Pair {
            certificate: authority.issue(&NAMES).certificate,
            key: first.key.clone(),
        };
        let garbage = Pair {
            certificate: "garbage".to_owned(),
            key: second.key.clone(),
        };
        for (name, pair, said) in [
            (
                "three",
                &torn,
                "server.tls.key_file names a key that is not that",
            ),
            (
                "four",
                &garbage,
                "server.tls.cert_file names a file without a certificate",
            ),
        ] {
            lay(name, pair);
            eventually(SOON, said, || {
                let view = get(&server, &authority, "/v1/server");
                view.contains("TLS_CERTIFICATE_REFUSED") && view.contains(said)
            });
            assert_eq!(shown(server.address), der(&second.certificate));
        }
        lay("five", &first);
        eventually(SOON, "the first is shown again", || {
            shown(server.address) == der(&first.certificate)
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert!(!get(&server, &authority, "/v1/server").contains("TLS_CERTIFICATE_REFUSED"));
    held.ask(LIVE, IS_LIVE);
    drop(held);
    let log = server.stop();
    let refusals = log.matches("the changed certificate is refused").count();
    assert_eq!(refusals, 2, "{log}");
}

#[test]
fn what_an_operator_should_know_is_said() {
    let authority = Authority::new();
    let server = start(&authority.issue_until(&NAMES, 2020), &[]);
    let key = server.folder.path().join("key.pem");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("set");
    let config = authority.client_config(rustls::ALL_VERSIONS, &[]);
    assert!(
        Secured::open(config, server.address).is_err(),
        "it has ended"
    );
    let health = Command::new("curl")
        .args(["-sSk", "-H", &format!("X-API-Key: {}", server.key)])
        .args(["/v1/server", "/metrics"].map(|path| format!("https://{}{path}", server.address)))
        .output();
    let said = String::from_utf8(health.expect("curl").stdout).expect("UTF-8");
    for part in [
        "TLS_CERTIFICATE_EXPIRES",
        "has ended at 2020-01-01T00:00:00",
        "TLS_KEY_READABLE",
        "auspex_tls_certificate_expiry_timestamp_seconds 1577836800\n",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(server.stop().contains("TLS_CERTIFICATE_EXPIRES"));
}

#[test]
fn wrong_settings_end_the_start_and_say_what_to_do() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let [certificate, key] = authority.issue(&NAMES).write(folder.path());
    let other = folder.path().join("other.pem");
    std::fs::write(&other, authority.issue(&NAMES).key).expect("written");
    let refused = |certificate: &Path, key: &Path, more: (&str, &str)| {
        let output = auspex()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .env("AUSPEX__SERVER__TLS__CERT_FILE", certificate)
            .env("AUSPEX__SERVER__TLS__KEY_FILE", key)
            .envs([more])
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let none = ("LANG", "C");
    let (empty, away) = (Path::new(""), folder.path().join("away.pem"));
    for (certificate, key, more, parts) in [
        (
            &*certificate,
            &*other,
            none,
            ["server.tls.key_file", "not that of the certificate"],
        ),
        (
            &certificate,
            empty,
            none,
            ["server.tls.key_file", "private key"],
        ),
        (empty, &key, none, ["server.tls.cert_file", "certificate"]),
        (&away, &key, none, ["server.tls.cert_file", "away.pem"]),
        (
            &key,
            &key,
            none,
            ["server.tls.cert_file", "without a certificate"],
        ),
        (
            &certificate,
            &certificate,
            none,
            ["server.tls.key_file", "without a private key"],
        ),
        (
            &certificate,
            &key,
            ("AUSPEX__SERVER__TLS__MIN_VERSION", "1.1"),
            ["server.tls.min_version", "1.2"],
        ),
        (
            &certificate,
            &key,
            ("AUSPEX__SERVER__PUBLIC_URL", "http://x.example.org"),
            ["server.public_url", "https://"],
        ),
    ] {
        let said = refused(certificate, key, more);
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
