//! Clients that know only JSON, in front of a service that speaks gRPC. `scripts/judges/transcode.py` asks a real one.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::json;

use super::http2::{Http2Backend, whole};
use super::{refusal, start, start_from};
use crate::client::Answer;
use crate::server::{Server, eventually, repository};

const SOON: Duration = Duration::from_secs(20);

fn descriptor() -> PathBuf {
    repository().join("crates/gateway/tests/grpc/scores.binpb")
}

fn settings(address: std::net::SocketAddr, descriptor: &std::path::Path) -> String {
    format!(
        "[gateway.services.scores]\nendpoints = [\"http://{address}\"]\nprotocol = \"http2\"\n\
         timeout_ms = 1000\ncircuit_breaker = {{ failure_threshold = 100 }}\n\
         [[gateway.routes]]\npath = \"/grpc/{{*rest}}\"\nservice = \"scores\"\nscopes = [\"predict\"]\n\
         strip_prefix = \"/grpc\"\ntranscode = {{ descriptor = {descriptor:?} }}\n"
    )
}

fn in_front_of(backend: &Http2Backend) -> Server {
    start(&settings(backend.address, &descriptor()))
}

/// A score of this id, in its frame.
fn score(id: u8) -> Vec<u8> {
    vec![0, 0, 0, 0, 2, 0x10, id]
}

/// Answers with these pieces and, unless it is cut off, trailers.
fn answer_with(
    mut respond: SendResponse<Bytes>,
    pieces: &[Vec<u8>],
    trailers: &[(&'static str, &str)],
) {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc+proto");
    head.headers_mut().insert("content-type", grpc);
    let mut body = respond.send_response(head, false).expect("sent");
    for piece in pieces {
        body.send_data(Bytes::copy_from_slice(piece), false)
            .expect("sent");
    }
    if trailers.is_empty() {
        body.send_data(Bytes::new(), true).expect("sent");
        return;
    }
    let pairs = trailers.iter();
    let pairs = pairs.map(|(name, value)| {
        let name = http::HeaderName::from_static(name);
        (name, value.parse().expect("a value"))
    });
    body.send_trailers(pairs.collect::<HeaderMap>())
        .expect("sent");
}

fn error(answer: &Answer) -> (u16, String) {
    (answer.status, answer.error_code())
}

#[test]
fn a_request_becomes_a_call_and_its_answer_json() {
    let backend = Http2Backend::start(|(request, respond)| {
        Box::pin(async move {
            let (sent, trailers) = whole(request.into_body()).await;
            assert_eq!((sent, trailers), (vec![0, 0, 0, 0, 2, 0x08, 7], None));
            answer_with(respond, &[score(7)], &[("grpc-status", "0")]);
        })
    });
    let server = in_front_of(&backend);
    let answer = server.get("/grpc/v1/scores/7");
    assert_eq!((answer.status, answer.text()), (200, "{\"id\":\"7\"}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("grpc-status"), None);
    let seen = backend.seen.lock();
    let headers = seen[0].headers();
    assert_eq!(seen[0].uri().path(), "/auspex.test.Scores/GetScore");
    assert_eq!(seen[0].method(), "POST");
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(headers["te"], "trailers");
    let timeout = headers["grpc-timeout"].to_str().expect("text");
    let ms: u64 = timeout
        .strip_suffix('m')
        .expect("milliseconds")
        .parse()
        .expect("a number");
    assert!((1..=1000).contains(&ms), "{timeout}");
    assert!(!headers.contains_key("x-api-key"));
}

#[test]
fn what_is_no_answer_of_grpc_is_not_shown() {
    let backend = Http2Backend::start(|(request, mut respond)| {
        Box::pin(async move {
            let (sent, _) = whole(request.into_body()).await;
            let ok = [("grpc-status", "0")];
            match sent.last().expect("an id") {
                1 => answer_with(respond, &[score(1), score(2)], &ok),
                2 => answer_with(respond, &[], &ok),
                3 => answer_with(respond, &[vec![1, 0, 0, 0, 0]], &ok),
                4 => answer_with(respond, &[vec![0, 0x7f, 0, 0, 0]], &ok),
                5 => answer_with(respond, &[vec![0, 0, 0, 0, 1, 0xff]], &ok),
                6 => answer_with(respond, &[vec![0, 0, 0]], &ok),
                7 => answer_with(respond, &[score(7)], &[]),
                8 => {
                    let html = Response::builder().header("content-type", "text/html");
                    respond
                        .send_response(html.body(()).expect("valid"), true)
                        .map(drop)
                        .expect("sent");
                }
                _ => {
                    let only = Response::builder()
                        .header("content-type", "application/grpc")
                        .header("grpc-status", "5")
                        .header("grpc-message", "no%20such%20score");
                    respond
                        .send_response(only.body(()).expect("valid"), true)
                        .map(drop)
                        .expect("sent");
                }
            }
        })
    });
    let server = in_front_of(&backend);
    for (id, reason) in [
        (1, "invalid"),
        (2, "invalid"),
        (3, "invalid"),
        (4, "too_long"),
        (5, "invalid"),
        (6, "cut_off"),
        (7, "cut_off"),
        (8, "invalid"),
    ] {
        let answer = server.get(&format!("/grpc/v1/scores/{id}"));
        assert_eq!(
            refusal(&answer),
            (502, "BAD_GATEWAY".into(), reason.into()),
            "{id}"
        );
    }
    let answer = server.get("/grpc/v1/scores/9");
    assert_eq!(error(&answer), (404, "NOT_FOUND".into()));
    assert_eq!(answer.json()["error"]["message"], "no such score");
}

#[test]
fn a_stream_comes_message_by_message() {
    let backend = Http2Backend::start(|(request, mut respond)| {
        Box::pin(async move {
            let (sent, _) = whole(request.into_body()).await;
            let mut head = Response::new(());
            head.headers_mut()
                .insert("content-type", HeaderValue::from_static("application/grpc"));
            let mut body = respond.send_response(head, false).expect("sent");
            // In pieces that are no messages.
            let both = [score(1), score(2)].concat();
            for piece in both.chunks(3) {
                body.send_data(Bytes::copy_from_slice(piece), false)
                    .expect("sent");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut trailers = HeaderMap::new();
            let status = match sent.get(6) {
                Some(2) => return body.send_reset(h2::Reason::INTERNAL_ERROR),
                Some(1) => "8",
                _ => "0",
            };
            trailers.insert("grpc-status", HeaderValue::from_static(status));
            body.send_trailers(trailers).expect("sent");
        })
    });
    let server = in_front_of(&backend);
    let lines = server.get("/grpc/v1/scores:watch");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(lines.text(), "{\"id\":\"1\"}\n{\"id\":\"2\"}\n");
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Accept", "text/event-stream"),
    ];
    let events = server
        .connect()
        .send("GET", "/grpc/v1/scores:watch", &headers, b"");
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    assert_eq!(
        events.text(),
        "data: {\"id\":\"1\"}\n\ndata: {\"id\":\"2\"}\n\n"
    );
    let failed = server.get("/grpc/v1/scores:watch?count=1");
    let last = failed.text().lines().last().expect("a line").to_owned();
    let last: serde_json::Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!(last["error"]["code"], "RESOURCE_EXHAUSTED");
    assert_eq!(
        last["error"]["request_id"].as_str(),
        failed.header("x-request-id")
    );
    // What is cut off does not look whole.
    let mut client = server.connect();
    let get = format!(
        "GET /grpc/v1/scores:watch?count=2 HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
        server.key
    );
    client.raw(get.as_bytes());
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    assert!(
        text.contains("{\"id\":\"2\"}") && !text.ends_with("0\r\n\r\n"),
        "{text}"
    );
}

#[test]
fn what_is_wrong_with_a_request_is_said_without_asking() {
    let backend = Http2Backend::start(|_| Box::pin(async { unreachable!("nobody asks") }));
    let server = in_front_of(&backend);
    let wrong = server.post("/grpc/v1/scores", json!({"user": {"age": "x"}}).to_string());
    assert_eq!(
        (error(&wrong).0, wrong.wrong_fields()),
        (422, vec!["user.age".to_owned()])
    );
    assert_eq!(
        error(&server.post("/grpc/v1/scores", "{")),
        (400, "MALFORMED_REQUEST".into())
    );
    assert_eq!(server.get("/grpc/v1/scores/x").wrong_fields(), ["id"]);
    assert_eq!(server.get("/grpc/v1/nowhere").status, 404);
    let other = server.post("/grpc/v1/names", "{}");
    assert_eq!(
        (other.status, other.header("allow")),
        (405, Some("GET, PUT"))
    );
    assert_eq!(server.post("/grpc/v1/collect", "{}").status, 501);
    let long = server.post("/grpc/v1/scores", " ".repeat((1 << 20) + 1));
    assert_eq!(long.status, 413);
    assert!(backend.seen.lock().is_empty());
}

#[test]
fn a_bad_descriptor_is_refused_and_the_last_good_one_stays() {
    let backend = Http2Backend::start(|(_, respond)| {
        Box::pin(async move { answer_with(respond, &[score(7)], &[("grpc-status", "0")]) })
    });
    let folder = tempfile::tempdir().expect("a folder");
    let (file, set) = (
        folder.path().join("auspex.toml"),
        folder.path().join("set.binpb"),
    );
    std::fs::copy(descriptor(), &set).expect("copied");
    std::fs::write(&file, settings(backend.address, &set)).expect("written");
    let server = start_from(folder, &file, &[]);
    assert_eq!(server.get("/grpc/v1/scores/7").status, 200);
    std::fs::write(&set, "nonsense").expect("written");
    server.signal("HUP");
    eventually(SOON, "it is refused", || {
        let refused =
            server.get("/v1/gateway").json()["configuration"]["refused"]["reason"].to_string();
        refused.contains("gateway.routes[0].transcode.descriptor")
            && refused.contains("protoc --include_imports")
    });
    assert_eq!(server.get("/grpc/v1/scores/7").status, 200);
}
