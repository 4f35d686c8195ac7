//! What the server reports about itself: health, metrics, logs, traces.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::predict::REQUEST;
use crate::server::Server;

#[test]
fn health_names_the_parts() {
    let server = Server::start();
    let answer = server.connect().send("GET", "/health", &[], b"");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        r#"{"status":"healthy","services":{"database":"healthy","keys":"healthy","models":"healthy"}}"#
    );
    assert_eq!(
        server
            .connect()
            .send("GET", "/health/live", &[], b"")
            .status,
        200
    );
    assert_eq!(
        server
            .connect()
            .send("GET", "/health/ready", &[], b"")
            .status,
        200
    );
}

#[test]
fn metrics_count_requests_by_route_and_predictions_by_model() {
    let server = Server::start();
    for _ in 0..3 {
        server.post("/v1/models/santander/predict", REQUEST);
    }
    server.post("/v1/models/santander/predict", "{}");
    server.get("/secret-customer-path");
    let answer = server.get("/metrics");
    let text = answer.text();
    assert!(
        answer
            .header("content-type")
            .is_some_and(|t| t.contains("openmetrics-text"))
    );
    for line in [
        r#"auspex_http_requests_total{route="/v1/models/{model}/predict",method="POST",status="2xx"} 3"#,
        r#"auspex_http_requests_total{route="/v1/models/{model}/predict",method="POST",status="4xx"} 1"#,
        r#"auspex_predictions_total{model="santander",version="1"} 3"#,
        r#"auspex_http_requests_total{route="(none)",method="(any)",status="4xx"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    assert!(!text.contains("secret-customer-path"));
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn metrics_can_be_public() {
    let server = Server::start_with(&[("AUSPEX__SERVER__METRICS__PUBLIC", "true")]);
    assert_eq!(
        server.connect().send("GET", "/metrics", &[], b"").status,
        200
    );
}

#[test]
fn json_lines_name_the_request_and_never_the_path_or_the_key() {
    let server = Server::start_with(&[
        ("AUSPEX__TELEMETRY__ACCESS_LOG", "all"),
        ("AUSPEX__TELEMETRY__LOG_FORMAT", "json"),
    ]);
    let headers = [
        ("X-Request-Id", "find-me-1"),
        ("X-API-Key", server.key.as_str()),
    ];
    server
        .connect()
        .send("GET", "/v1/models/customer-4711", &headers, b"");
    let key = server.key.clone();
    let log = server.stop();
    let line = log
        .lines()
        .find(|line| line.contains("find-me-1"))
        .expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(line["http.route"], "/v1/models/{model}");
    assert_eq!(
        (&line["http.status"], &line["code"]),
        (&404.into(), &"NOT_FOUND".into())
    );
    assert!(
        line["caller"]
            .as_str()
            .is_some_and(|caller| caller.starts_with("key:")),
        "{line}"
    );
    assert!(
        !log.contains("customer-4711") && !log.contains(&key),
        "{log}"
    );
    assert!(
        log.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{log}"
    );
}

#[test]
fn a_log_that_nobody_reads_stops_no_request() {
    let server = Server::start_with(&[("AUSPEX__TELEMETRY__ACCESS_LOG", "all")]);
    server.close_log();
    for _ in 0..50 {
        assert_eq!(
            server.connect().send("GET", "/nowhere", &[], b"").status,
            404
        );
    }
    server.signal("TERM");
    assert_eq!(server.wait(Duration::from_secs(10)).0.code(), Some(0));
}

#[test]
fn unknown_methods_are_not_logged_as_sent() {
    let server = Server::start();
    server.connect().send("CANARY7261", "/health", &[], b"");
    assert!(!server.stop().contains("CANARY7261"));
}

#[test]
fn probes_are_answered_to_an_address_over_its_limit() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "3")]);
    let ask = |path| server.connect().send("GET", path, &[], b"").status;
    for _ in 0..5 {
        assert_eq!(ask("/nowhere"), 404);
    }
    assert_eq!(ask("/health"), 429);
    assert_eq!((ask("/health/live"), ask("/health/ready")), (200, 200));
}

#[test]
fn traces_reach_a_collector_as_children_of_the_caller() {
    let collector = TcpListener::bind("127.0.0.1:0").expect("binds");
    let endpoint = format!(
        "http://{}/v1/traces",
        collector.local_addr().expect("bound")
    );
    let received = receive_one(collector);
    let server = Server::start_with(&[("AUSPEX__TELEMETRY__OTLP_ENDPOINT", &endpoint)]);
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
        ("X-Request-Id", "traced-1"),
        ("traceparent", parent),
    ];
    let answer = server
        .connect()
        .send("POST", "/predict", &headers, REQUEST.as_bytes());
    assert_eq!(answer.status, 200);
    server.stop();
    let (head, body) = received
        .recv_timeout(Duration::from_secs(20))
        .expect("a delivery");
    assert!(head.starts_with("POST /v1/traces "), "{head}");
    let has = |bytes: &[u8]| body.windows(bytes.len()).any(|window| window == bytes);
    for text in ["auspex", "POST /predict", "http.route", "traced-1"] {
        assert!(has(text.as_bytes()), "{text} was not delivered");
    }
    assert!(
        has(b"\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c"),
        "trace id"
    );
    assert!(has(b"\xb7\xad\x6b\x71\x69\x20\x33\x31"), "parent id");
}

#[test]
fn a_dead_collector_disturbs_no_request() {
    let endpoint = "http://127.0.0.1:1/v1/traces";
    let server = Server::start_with(&[("AUSPEX__TELEMETRY__OTLP_ENDPOINT", endpoint)]);
    assert_eq!(server.post("/predict", REQUEST).status, 200);
    server.signal("TERM");
    let (status, log) = server.wait(Duration::from_secs(15));
    assert_eq!(status.code(), Some(0));
    assert!(
        log.contains("opentelemetry"),
        "the failed delivery is logged: {log}"
    );
}

/// Takes one HTTP request and answers it 200.
pub(crate) fn receive_one(listener: TcpListener) -> mpsc::Receiver<(String, Vec<u8>)> {
    let (send, received) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set");
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let read = stream.read(&mut chunk).expect("bytes");
            bytes.extend_from_slice(&chunk[..read]);
            let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                })
                .unwrap_or(0usize);
            if bytes.len() >= end + 4 + length {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .expect("sent");
                let _ = send.send((head, bytes[end + 4..].to_vec()));
                return;
            }
        }
    });
    received
}
