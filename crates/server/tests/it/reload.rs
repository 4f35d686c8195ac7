//! Models that come and go under a running server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::server::{Server, eventually, repository};

/// Far more than the second or two that noticing a change takes.
const LIMIT: Duration = Duration::from_secs(30);

fn put(models: &Path, place: &str) {
    let place = models.join(place);
    fs::create_dir_all(&place).expect("a folder");
    let golden = repository().join("crates/engine/tests/golden/3.2/binary-logistic.json");
    fs::copy(golden, place.join("model.json")).expect("copied");
}

fn start(models: &Path, interval_ms: &str) -> Server {
    let models = models.to_str().expect("UTF-8");
    Server::start_with(&[
        ("AUSPEX__INFERENCE__MODELS", models),
        ("AUSPEX__INFERENCE__WATCH_INTERVAL_MS", interval_ms),
    ])
}

#[test]
fn a_model_that_is_added_answers_and_is_in_the_document_within_seconds() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "first/1");
    let server = start(folder.path(), "200");
    put(folder.path(), "second/1");
    let body = r#"{"features": [1, 1, 1, 1, 1]}"#;
    eventually(LIMIT, "the second model answers", || {
        server.post("/v1/models/second/predict", body).status == 200
    });
    let document = "/openapi.json";
    eventually(LIMIT, "the document shows it", || {
        server.get(document).json()["paths"]["/v1/models/second/predict"].is_object()
    });
    fs::remove_dir_all(folder.path().join("second")).expect("removed");
    eventually(LIMIT, "it is withdrawn", || {
        server.post("/v1/models/second/predict", body).status == 404
            && server.get(document).json()["paths"]["/v1/models/second/predict"].is_null()
    });
    let log = server.stop();
    assert!(
        log.contains("model loaded") && log.contains("model removed"),
        "{log}"
    );
}

#[test]
fn what_a_reload_confirms_is_in_force_when_it_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "first/1");
    put(folder.path(), "broken/1");
    fs::write(folder.path().join("broken/1/model.json"), "tree\n").expect("written");
    let server = start(folder.path(), "0");
    put(folder.path(), "second/1");
    let answer = server.post("/v1/models/reload", "").json();
    assert_eq!(
        answer["added"],
        json!([{"model": "second", "version": "1"}])
    );
    assert_eq!(answer["failed"][0]["model"], json!("broken"));
    let document = server.get("/openapi.json").json();
    assert!(document["paths"]["/v1/models/second/predict"].is_object());
    assert!(document["paths"]["/v1/models/broken/predict"].is_null());
    let metrics = String::from_utf8(server.get("/metrics").body).expect("text");
    assert!(
        metrics.contains("auspex_model_failed{model=\"broken\",version=\"1\"} 1"),
        "{metrics}"
    );
    let warnings = server.get("/v1/server").json()["warnings"].to_string();
    assert!(
        warnings.contains("MODEL_FAILED") && warnings.contains("broken 1"),
        "{warnings}"
    );
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["state"], json!("failed"));
    server.post("/v1/models/reload", "");
    let recorded = server.get("/v1/audit?action=models.reload").json();
    let said = |line: usize, what: &str| recorded["data"][line][what].clone();
    assert_eq!(said(0, "detail"), json!("failed 1"));
    assert_eq!(said(1, "detail"), json!("added 1, failed 1"));
    assert_eq!(said(1, "outcome"), json!("success"));
    assert!(said(1, "actor").to_string().starts_with("\"key:"));
}

#[test]
fn a_reload_that_cannot_look_is_recorded_as_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let models = folder.path().join("models");
    put(&models, "first/1");
    let server = start(&models, "0");
    fs::rename(&models, folder.path().join("away")).expect("moved");
    assert_eq!(server.post("/v1/models/reload", "").status, 503);
    let recorded = server.get("/v1/audit?outcome=failed").json();
    let line = &recorded["data"][0];
    assert_eq!(line["action"], json!("models.reload"));
    assert_eq!(line["detail"], json!("the models folder cannot be read"));
}

#[test]
fn a_server_without_a_good_model_says_that_it_is_unhealthy_until_one_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "half/1");
    fs::write(folder.path().join("half/1/model.json"), "{\"learner\":").expect("written");
    let server = start(folder.path(), "100");
    let health = server.get("/health");
    assert_eq!(
        (health.status, &health.json()["services"]["models"]),
        (503, &json!("unhealthy"))
    );
    put(folder.path(), "first/1");
    eventually(LIMIT, "it is healthy", || {
        server.get("/health").status == 200
    });
}

#[test]
fn what_is_wrong_in_the_folder_is_named_once_and_in_health() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "good/1");
    put(folder.path(), "bad/1");
    fs::write(folder.path().join("bad/1/model.json"), "tree\n").expect("written");
    let server = start(folder.path(), "20");
    let health = || server.connect().send("GET", "/health", &[], b"");
    let answer = health();
    assert_eq!(answer.status, 200, "all of it works in part");
    assert_eq!(
        answer.text(),
        r#"{"status":"degraded","services":{"database":"healthy","keys":"healthy","models":"degraded"},"reasons":{"models":"a package cannot be loaded"}}"#
    );
    let ready = server.connect().send("GET", "/health/ready", &[], b"");
    assert_eq!(ready.status, 200, "the good one answers");
    let services = server.get("/v1/server").json()["services"].to_string();
    assert!(
        services.contains(r#""name":"inference","status":"degraded""#),
        "{services}"
    );

    fs::write(folder.path().join("stray.json"), "{}").expect("written");
    let warnings = || server.get("/v1/server").json()["warnings"].to_string();
    eventually(LIMIT, "the stray file is a warning", || {
        warnings().contains("move it to stray/1/stray.json")
    });
    std::os::unix::fs::symlink("nowhere", folder.path().join("away")).expect("a link");
    eventually(LIMIT, "looks go on", || {
        warnings().contains("away is a link")
    });
    fs::remove_dir_all(folder.path().join("bad")).expect("removed");
    fs::remove_file(folder.path().join("away")).expect("removed");
    eventually(LIMIT, "all is well again", || {
        health().text().starts_with(r#"{"status":"healthy""#)
    });
    let log = server.stop();
    for name in ["bad", "stray.json", "away is a link"] {
        let lines = log
            .lines()
            .filter(|line| line.contains(name) && !line.contains("model loaded"));
        assert_eq!(lines.count(), 1, "{name} once in {log}");
    }
}

#[test]
fn a_strict_start_does_not_make_later_mistakes_fatal() {
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "good/1");
    let server = Server::start_with(&[
        (
            "AUSPEX__INFERENCE__MODELS",
            folder.path().to_str().expect("UTF-8"),
        ),
        ("AUSPEX__INFERENCE__WATCH_INTERVAL_MS", "20"),
        ("AUSPEX__INFERENCE__WATCH_QUIET_MS", "0"),
        ("AUSPEX__INFERENCE__STRICT", "true"),
    ]);
    fs::create_dir_all(folder.path().join("bad/1")).expect("made");
    fs::write(folder.path().join("bad/1/model.pkl"), b"\x80\x04\x95").expect("written");
    eventually(LIMIT, "the bad one is refused", || {
        let health = server.connect().send("GET", "/health", &[], b"");
        health.text().starts_with(r#"{"status":"degraded""#)
    });
    let body = r#"{"features": [1, 1, 1, 1, 1]}"#;
    assert_eq!(server.post("/v1/models/good/predict", body).status, 200);
    let bad = server.get("/v1/models/bad").json();
    let reason = bad["packages"][0]["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("model.pkl: this is a Python pickle"),
        "{reason}"
    );
}
