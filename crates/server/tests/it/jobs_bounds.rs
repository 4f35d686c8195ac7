//! Jobs that must not go on, and what one caller may have of them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::jobs::{LIMIT, NDJSON, ask, ended, id, key, record, submit};
use crate::server::{Server, eventually, repository};

#[test]
fn jobs_of_a_deleted_user_are_deleted() {
    let server = Server::start();
    let user = json!({"name": "leaver", "email": "leaver@example.org", "roles": ["service"], "password": "correct horse battery"});
    let made = server.post("/v1/users", user.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    let user = made.json()["id"].as_str().expect("an id").to_owned();
    let basic = STANDARD.encode("leaver@example.org:correct horse battery");
    let basic = format!("Basic {basic}");
    let headers = [("Authorization", basic.as_str()), ("Content-Type", NDJSON)];
    let body = format!("{}\n", record(1));
    let path = "/v1/jobs?model=mean-score";
    let mut client = server.connect();
    let job = id(&client.send("POST", path, &headers, body.as_bytes()));
    ended(&server, &job);
    let deleted = ask(&server, &server.key, "DELETE", &format!("/v1/users/{user}"));
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    eventually(LIMIT, "the job goes", || {
        server.get(&format!("/v1/jobs/{job}")).status == 404
    });
}

#[test]
fn what_is_no_address_of_a_callback_is_refused_whatever_bytes_it_has() {
    let server = Server::start();
    let line = format!("{}\n", record(1));
    for url in ["https://example.org/%00", "https://exa%00mple.org/", "%00"] {
        let answer = submit(
            &server,
            &format!("?model=mean-score&callback_url={url}"),
            NDJSON,
            &line,
        );
        assert!(
            matches!(answer.status, 202 | 422),
            "{url}: {}",
            answer.text()
        );
    }
    let path = "/v1/jobs";
    let body = json!({"model": "mean-score", "records": [record(1)], "callback_url": "https://example.org/a\u{0}b"});
    let answer = server.post(path, body.to_string());
    let callback = answer.json()["callback"]["url"].clone();
    match answer.status {
        202 => assert_eq!(callback, "https://example.org/a%00b"),
        status => assert_eq!(status, 422, "{}", answer.text()),
    }
}

/// A server with one model, which its test replaces or removes.
struct Served {
    server: Server,
    models: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let models = tempfile::tempdir().expect("a folder");
        let package = models.path().join("first/1");
        std::fs::create_dir_all(&package).expect("a folder");
        let golden = repository().join("crates/engine/tests/golden/3.2/binary-logistic.json");
        std::fs::copy(golden, package.join("model.json")).expect("copied");
        let path = models.path().to_str().expect("UTF-8").to_owned();
        let server = Server::start_with(&[
            ("AUSPEX__INFERENCE__MODELS", &path),
            ("AUSPEX__INFERENCE__WATCH_INTERVAL_MS", "100"),
            ("AUSPEX__JOBS__CHUNK_ROWS_MAX", "2"),
        ]);
        Self { server, models }
    }

    /// Submits a job, and has `change` done when all rows but the last have come. Its id.
    fn submit_amid(&self, change: impl FnOnce()) -> String {
        let mut client = self.server.connect();
        let head = format!(
            "POST /v1/jobs?model=first HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: {NDJSON}\r\n\
             transfer-encoding: chunked\r\n\r\n",
            self.server.key
        );
        let piece = |rows: &str| format!("{:x}\r\n{rows}\r\n", rows.len());
        let row = "[1, 1, 1, 1, 1]\n";
        client.raw(format!("{head}{}", piece(&row.repeat(1_000))).as_bytes());
        change();
        client.raw(format!("{}0\r\n\r\n", piece(row)).as_bytes());
        id(&client.receive(false).expect("an answer"))
    }
}

#[test]
fn a_caller_watches_so_many_jobs_at_once() {
    let served = Served::start();
    let server = &served.server;
    // What is left of it waits for its model.
    let job = served.submit_amid(|| {
        std::fs::remove_dir_all(served.models.path().join("first")).expect("removed");
        assert_eq!(server.post("/v1/models/reload", "").status, 200);
        assert_eq!(server.get("/v1/models/first").status, 404);
    });
    let path = format!("/v1/jobs/{job}/events");
    let watch = || {
        let mut client = server.connect();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\r\n",
            server.key
        );
        client.raw(head.as_bytes());
        let status = client.receive(true).expect("a head").status;
        (status, client)
    };
    let mut watchers: Vec<_> = (0..20).map(|_| watch()).collect();
    assert!(watchers.iter().all(|(status, _)| *status == 200));
    assert_eq!(watch().0, 503);
    // Another caller has places of their own.
    let other = key(server, &["jobs:read", "jobs:operate"]);
    let mut client = server.connect();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {other}\r\n\r\n");
    client.raw(head.as_bytes());
    assert_eq!(client.receive(true).expect("a head").status, 200);
    watchers.pop();
    // That one has gone is noticed when it is sent something, perhaps for the second time: without news after 30 s.
    eventually(3 * LIMIT, "a place is free", || {
        // Callers have so many requests a minute.
        std::thread::sleep(Duration::from_millis(500));
        watch().0 == 200
    });
}

#[test]
fn a_package_that_is_replaced_ends_its_jobs() {
    let served = Served::start();
    let server = &served.server;
    let job = served.submit_amid(|| {
        let about = served.models.path().join("first/1/model.toml");
        std::fs::write(about, "title = \"Another\"\n").expect("written");
        let is_there = || server.get("/v1/models/first").text().contains("Another");
        eventually(LIMIT, "the package is replaced", is_there);
    });
    let job = ended(server, &job);
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(job["error"]["code"], "MODEL_REPLACED", "{job}");
    let done = job["progress"]["done"].as_u64().expect("a number");
    assert!(done < 1_001, "{job}");
}
