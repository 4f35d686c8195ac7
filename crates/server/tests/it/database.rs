//! A database that is away, full or damaged, seen by clients and operators.

use std::process::Command;
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use serde_json::json;

use crate::client::Answer;
use crate::predict::REQUEST;
use crate::server::{Server, auspex, eventually};

const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

fn make_key(server: &Server, name: &str) -> Answer {
    let body = json!({"name": name, "scopes": ["predict"]}).to_string();
    server.post("/v1/api-keys", body)
}

fn refused_for_now(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn without_its_database_the_server_predicts_and_says_why() {
    let server = Server::start();
    let client = server.run(&[
        "clients",
        "create",
        "--name",
        "x",
        "--grant-type",
        "client_credentials",
        "--scope",
        "predict",
    ]);
    let client: serde_json::Value = serde_json::from_str(&client).expect("JSON");
    assert_eq!(server.get("/health").status, 200);
    let file = server.folder.path().join("auspex.db");
    std::fs::rename(&file, server.folder.path().join("away")).expect("moved");

    let begin = monotonic();
    let answer = make_key(&server, "one");
    refused_for_now(&answer);
    assert_eq!(answer.error_code(), "UNAVAILABLE");
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        client["client_id"].as_str().expect("an id"),
        client["client_secret"].as_str().expect("a secret"),
    );
    let answer = server
        .connect()
        .send("POST", "/oauth2/token", &[FORM], form.as_bytes());
    refused_for_now(&answer);
    assert_eq!(answer.json()["error"], json!("temporarily_unavailable"));
    assert!(begin.elapsed() < Duration::from_secs(5));

    assert_eq!(server.post("/predict", REQUEST).status, 200);
    eventually(Duration::from_secs(10), "it is told", || {
        server.get("/health").json()["status"] == json!("degraded")
    });
    let health = server.get("/health");
    let expected = json!({
        "status": "degraded",
        "services": {"database": "unhealthy", "keys": "healthy", "models": "healthy"},
        "reasons": {"database": "file replaced or removed"},
    });
    assert_eq!((health.status, health.json()), (503, expected));
    assert_eq!(server.get("/health/ready").status, 200);
    let log = server.stop();
    assert!(log.contains(&file.display().to_string()), "{log}");
}

/// Without the keys of customers no text can be read, and all else is answered.
#[test]
fn without_the_database_of_the_keys_the_server_is_ready_and_degraded() {
    let server = Server::start();
    let file = server.folder.path().join("keys.db");
    std::fs::rename(&file, server.folder.path().join("away")).expect("moved");
    eventually(Duration::from_secs(10), "it is told", || {
        server.get("/health").json()["services"]["keys"] == json!("unhealthy")
    });
    assert_eq!(server.get("/health").json()["status"], json!("degraded"));
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.post("/predict", REQUEST).status, 200);
}

/// `prlimit` of util-linux, on the running server: its files may grow to this size.
fn limit_files(server: &Server, size: &str) {
    let id = server.id().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &id, &format!("--fsize={size}:")])
        .status();
    assert!(limited.expect("prlimit").success());
}

#[test]
fn what_was_confirmed_while_the_disk_refused_writes_is_stored() {
    let settings = [("AUSPEX__SERVER__RATE_LIMIT__MAX", "10000000")];
    let mut server = Server::start_with(&settings);
    let mut confirmed = Vec::new();
    let mut refused = Vec::new();
    for round in 0..6 {
        let is_limited = round % 2 == 1;
        let log = server.folder.path().join("auspex.db-wal");
        let size = std::fs::metadata(log).expect("there").len();
        // In the middle of a page, so that a write of several pages is refused halfway.
        let size = (size + 10_000).to_string();
        limit_files(&server, if is_limited { &size } else { "unlimited" });
        for n in 0..12 {
            let name = format!("key-{round}-{n}");
            let answer = make_key(&server, &name);
            match answer.status {
                201 => confirmed.push(name),
                _ => {
                    refused_for_now(&answer);
                    refused.push(name);
                }
            }
        }
        assert_eq!(server.post("/predict", REQUEST).status, 200);
        if is_limited {
            eventually(Duration::from_secs(10), "it is told", || {
                server.get("/health").json()["reasons"]["database"] == json!("disk error")
            });
            assert_eq!(server.get("/health/ready").status, 200);
        }
    }
    assert!(
        confirmed.len() >= 36 && refused.len() >= 10,
        "{confirmed:?}"
    );
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.signal("KILL");
    server.wait(Duration::from_secs(10));
    let server = Server::start_in(folder, &settings);
    let list = server.get("/v1/api-keys?limit=200").json();
    let keys = list["data"].as_array().expect("keys");
    let names: Vec<&str> = keys.iter().filter_map(|key| key["name"].as_str()).collect();
    for name in &confirmed {
        let count = names.iter().filter(|known| *known == name).count();
        assert_eq!(count, 1, "{name}");
    }
    for name in names {
        let is_known = confirmed.iter().chain(&refused).any(|known| known == name);
        assert!(is_known || name == "admin", "{name}");
    }
}

#[test]
fn a_postgresql_that_is_not_there_is_named_at_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let begin = monotonic();
    let output = auspex()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .env("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/x")
        .output()
        .expect("ends by itself");
    assert!(begin.elapsed() < Duration::from_secs(10));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for part in ["127.0.0.1:1", "refused", "storage.url"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}
