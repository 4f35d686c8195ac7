//! Routes of one path that hosts and headers tell apart.

use std::io::Write as _;

use super::backend::{Backend, Then};
use super::start;
use crate::server::{Server, auspex};

/// Answers with its name.
fn named(name: &'static str) -> Backend {
    Backend::start(move |_, stream| {
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}",
            name.len()
        );
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    })
}

const NAMES: [&str; 5] = ["one", "below", "two", "plain", "shop"];

fn serve(backends: &[Backend]) -> Server {
    let services: String = NAMES
        .iter()
        .zip(backends)
        .map(|(name, backend)| {
            format!(
                "[gateway.services.{name}]\nendpoints = [\"http://{}\"]\n",
                backend.address
            )
        })
        .collect();
    start(&format!(
        "[gateway]\nroutes = [\n\
         {{ path = \"/a\", service = \"plain\", public = true }},\n\
         {{ path = \"/a\", service = \"one\", scopes = [\"predict\"], hosts = [\"Api.example.org\"] }},\n\
         {{ path = \"/a\", service = \"below\", public = true, hosts = [\"*.example.org\"] }},\n\
         {{ path = \"/a\", service = \"two\", public = true, headers = {{ x-version = \"2\" }} }},\n\
         {{ path = \"/{{*rest}}\", service = \"shop\", public = true, hosts = [\"shop.example.com\"], \
            methods = [\"GET\"] }},\n]\n{services}"
    ))
}

/// What a request gets, byte by byte as it is sent.
fn asked(server: &Server, head: &str) -> (u16, String) {
    let mut connection = server.connect();
    connection.raw(format!("{head}\r\n\r\n").as_bytes());
    let answer = connection.receive(false).expect("an answer");
    (answer.status, answer.text().to_owned())
}

#[test]
fn hosts_and_headers_tell_routes_apart_however_they_are_written() {
    let backends = NAMES.map(named);
    let server = serve(&backends);
    let key = format!("X-API-Key: {}", server.key);
    let with_key = |host: &str| format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{key}");
    for host in [
        "api.example.org",
        "API.EXAMPLE.ORG",
        "api.example.org:8443",
        "api.example.org.",
    ] {
        assert_eq!(
            asked(&server, &with_key(host)),
            (200, "one".into()),
            "{host}"
        );
        // The access of a route is that of the one that is matched.
        let anonymous = format!("GET /a HTTP/1.1\r\nHost: {host}");
        assert_eq!(asked(&server, &anonymous).0, 401, "{host}");
    }
    for (head, expected) in [
        ("GET /a HTTP/1.1\r\nHost: b.example.org", "below"),
        ("GET /a HTTP/1.1\r\nHost: x.y.example.org:1", "below"),
        ("GET /a HTTP/1.1\r\nHost: example.org", "plain"),
        ("GET /a HTTP/1.1\r\nHost: ", "plain"),
        ("GET /a HTTP/1.0", "plain"),
        ("GET http://b.example.org/a HTTP/1.1\r\nHost: x", "below"),
        ("GET http://x/a HTTP/1.1\r\nHost: b.example.org", "plain"),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX-Version: 2", "two"),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX-VERSION:  2 ", "two"),
        (
            "GET /a HTTP/1.1\r\nHost: b.example.org\r\nX-Version: 2",
            "below",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nX-Version: 2\r\nX-Version: 2",
            "plain",
        ),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nX-Version: 1\r\nX-Version: 2",
            "plain",
        ),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX-Version: 2, 1", "plain"),
        ("GET /a HTTP/1.1\r\nHost: x\r\nX_Version: 2", "plain"),
        (
            "GET /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-Host: b.example.org",
            "plain",
        ),
        ("GET /b HTTP/1.1\r\nHost: shop.example.com", "shop"),
    ] {
        assert_eq!(asked(&server, head), (200, expected.into()), "{head}");
    }
    for (head, status) in [
        ("GET /a HTTP/1.1", 400),
        (
            "GET /a HTTP/1.1\r\nHost: b.example.org\r\nHost: b.example.org",
            400,
        ),
        ("GET /a HTTP/1.1\r\nHost: b.example.org/x", 400),
        ("GET /a HTTP/1.1\r\nHost: a@b.example.org", 400),
        ("GET /b HTTP/1.1\r\nHost: x", 404),
        ("DELETE /b HTTP/1.1\r\nHost: shop.example.com", 405),
        // Under every host the server's own paths are its own.
        ("GET /v1/models HTTP/1.1\r\nHost: shop.example.com", 401),
        ("GET /health/live HTTP/1.1\r\nHost: shop.example.com", 200),
    ] {
        assert_eq!(asked(&server, head).0, status, "{head}");
    }
    let long = format!("{}b.example.org", "a.".repeat(2_000));
    let head = format!("GET /a HTTP/1.1\r\nHost: {long}");
    assert_eq!(asked(&server, &head), (200, "plain".into()));
}

#[test]
fn routes_that_cannot_be_told_apart_stop_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let route = |hosts: &str| {
        format!(
            "[[gateway.routes]]\npath = \"/a\"\nservice = \"one\"\npublic = true\n\
             hosts = [{hosts}]\nheaders = {{ x-version = \"2\" }}\n"
        )
    };
    let text = format!(
        "[gateway.services.one]\nendpoints = [\"http://127.0.0.1:9\"]\n{}{}",
        route("\"a.example\", \"*.b.example\""),
        route("\"*.B.example\"")
    );
    std::fs::write(&file, text).expect("written");
    let mut check = auspex();
    check.arg("--config").arg(&file).args(["config", "check"]);
    let checked = check.output().expect("runs");
    assert_eq!(checked.status.code(), Some(2));
    let said = String::from_utf8_lossy(&checked.stderr);
    for key in ["gateway.routes[0]", "gateway.routes[1]"] {
        assert!(said.contains(key), "{said}");
    }
}
