//! Services with a database of their own.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::jobs::{NDJSON, ended, id, key, record, submit};
use crate::server::{Server, auspex, eventually};
use crate::tokens::{PASSWORD, log_in};

const LIMIT: Duration = Duration::from_secs(30);

/// A file beside the others.
fn beside(folder: &tempfile::TempDir, name: &str) -> String {
    format!("sqlite:{}", folder.path().join(name).display())
}

fn holds(file: &Path, text: &str) -> bool {
    let read = std::fs::read(file).expect("a file");
    read.windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn actions(server: &Server, query: &str) -> Vec<String> {
    let record = server.get(&format!("/v1/audit?{query}")).json();
    let lines = record["data"].as_array().expect("a list").iter();
    lines
        .map(|line| line["action"].as_str().expect("a text").to_owned())
        .collect()
}

#[test]
fn jobs_stand_in_their_own_file_and_what_was_done_is_recorded_with_all_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = beside(&folder, "jobs.db");
    let settings = [("AUSPEX__STORAGE__SERVICES__JOBS", url.as_str())];
    let server = Server::start_in(folder, &settings);
    let row = format!("{}\n", record(1));
    let job = id(&submit(&server, "?model=mean-score", NDJSON, &row));
    assert_eq!(ended(&server, &job)["status"], "succeeded");
    let health = server.get("/health").json();
    assert_eq!(health["services"]["jobs_database"], "healthy", "{health}");

    let deleted = server.connect().send(
        "DELETE",
        &format!("/v1/jobs/{job}"),
        &[("X-API-Key", &server.key)],
        b"",
    );
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    eventually(LIMIT, "it is recorded", || {
        actions(&server, "action=job.delete") == ["job.delete"]
    });
    let kept = id(&submit(&server, "?model=mean-score", NDJSON, &row));
    assert_eq!(ended(&server, &kept)["status"], "succeeded");
    let (folder, _) = server.stop_and_keep();
    let [main, jobs] = ["auspex.db", "jobs.db"].map(|name| folder.path().join(name));
    assert!(!holds(&main, "CREATE TABLE \"jobs_jobs\""));
    assert!(holds(&jobs, "CREATE TABLE \"jobs_jobs\""));
    assert!(holds(&jobs, &kept) && !holds(&main, &kept));

    // Copied, lost and put back by itself.
    let copy = folder.path().join("copy.db").display().to_string();
    let run = |arguments: &[&str], url: Option<&str>| {
        let mut command = auspex();
        command.args(arguments).arg("--data-dir").arg(folder.path());
        command.envs(url.map(|url| ("AUSPEX__STORAGE__SERVICES__JOBS", url)));
        let output = command.output().expect("runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text + &shown)
    };
    let done = run(&["backup", "--service", "jobs", &copy], Some(&url));
    assert_eq!(done.0, Some(0), "{}", done.1);
    let none = run(&["backup", "--service", "gateway", "x"], Some(&url));
    assert!(
        none.0 == Some(1) && none.1.contains("gateway has no database for itself"),
        "{}",
        none.1
    );
    std::fs::remove_file(&jobs).expect("removed");
    // Neither is it begun anew in silence, nor are tables elsewhere taken for it.
    for (url, part) in [
        (Some(url.as_str()), "jobs.db does not exist"),
        (None, "storage.services.jobs"),
    ] {
        let (code, said) = run(&["serve", "--listen", "127.0.0.1:0"], url);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(part) && said.contains("has noted"), "{said}");
        let (code, said) = run(&["doctor"], url);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(part) && said.contains("has noted"), "{said}");
    }
    // It does not take the place of another database.
    let unknown = run(&["restore", &copy], None);
    assert!(
        unknown.0 == Some(1) && unknown.1.contains("[storage.services]"),
        "{}",
        unknown.1
    );
    let done = run(&["restore", &copy], Some(&url));
    assert_eq!(done.0, Some(0), "{}", done.1);
    let done = run(&["doctor"], Some(&url));
    assert_eq!(done.0, Some(0), "{}", done.1);
    assert!(done.1.contains("jobs.db is sound"), "{}", done.1);

    let server = Server::start_in(folder, &settings);
    assert_eq!(server.get(&format!("/v1/jobs/{kept}")).status, 200);
    server.stop();
}

#[test]
fn jobs_of_a_deleted_user_go_from_another_database_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = beside(&folder, "jobs.db");
    let server = Server::start_in(folder, &[("AUSPEX__STORAGE__SERVICES__JOBS", &url)]);
    let ann = json!({"name": "Ann", "email": "ann@example.org", "username": "ann",
        "password": PASSWORD, "roles": ["data-scientist"]});
    let ann = server.post("/v1/users", ann.to_string()).json();
    let ann = ann["id"].as_str().expect("an id");
    let tokens = log_in(&server);
    let token = format!(
        "Bearer {}",
        tokens["access_token"].as_str().expect("a token")
    );
    let job = server.connect().send(
        "POST",
        "/v1/jobs?model=mean-score",
        &[("Authorization", &token), ("Content-Type", NDJSON)],
        record(1).to_string().as_bytes(),
    );
    let job = id(&job);
    let operator = key(&server, &["jobs:read", "jobs:operate"]);
    let seen = || crate::jobs::ask(&server, &operator, "GET", &format!("/v1/jobs/{job}")).status;
    assert_eq!(seen(), 200);
    let path = format!("/v1/users/{ann}");
    let deleted = server
        .connect()
        .send("DELETE", &path, &[("X-API-Key", &server.key)], b"");
    assert_eq!(deleted.status, 204, "{}", deleted.text());
    eventually(LIMIT, "the job is gone", || seen() == 404);
    server.stop();
}

#[test]
fn tables_in_use_are_not_left_behind_in_silence() {
    let server = Server::start();
    let row = format!("{}\n", record(1));
    let job = id(&submit(&server, "?model=mean-score", NDJSON, &row));
    assert_eq!(ended(&server, &job)["status"], "succeeded");
    let (folder, _) = server.stop_and_keep();
    let url = beside(&folder, "jobs.db");
    let run = |arguments: &[&str]| {
        let mut command = auspex();
        command.args(arguments).arg("--data-dir").arg(folder.path());
        command.env("AUSPEX__STORAGE__SERVICES__JOBS", &url);
        let output = command.output().expect("runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), error + &shown)
    };
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "jobs.db does not exist",
        "auspex.db holds jobs",
        "storage.services.jobs",
        "auspex migrate --create",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!folder.path().join("jobs.db").exists());
    let (code, said) = run(&["doctor"]);
    assert!(
        code == Some(1) && said.contains("auspex.db holds jobs"),
        "{said}"
    );
    let (code, said) = run(&["migrate", "--create"]);
    assert_eq!(code, Some(0), "{said}");
    // What is left where it was is told until it is gone.
    let (code, said) = run(&["doctor"]);
    assert!(
        code == Some(1) && said.contains("jobs that nothing reaches"),
        "{said}"
    );
    let server = Server::start_in(folder, &[("AUSPEX__STORAGE__SERVICES__JOBS", &url)]);
    assert_eq!(server.get("/v1/jobs").json()["data"], json!([]));
    let log = server.stop();
    assert!(log.contains("has left rows behind"), "{log}");
}

#[test]
fn two_installations_do_not_share_the_database_of_a_service() {
    let shared = tempfile::tempdir().expect("a folder");
    let url = beside(&shared, "jobs.db");
    let settings = [("AUSPEX__STORAGE__SERVICES__JOBS", url.as_str())];
    Server::start_in(tempfile::tempdir().expect("a folder"), &settings).stop();
    let (other, _) = Server::start().stop_and_keep();
    let run = |arguments: &[&str]| {
        let mut command = auspex();
        command.args(arguments).arg("--data-dir").arg(other.path());
        let output = command.envs(settings).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "belongs to another database",
        "storage.services.jobs",
        "migrate --create",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Whose database of all was lost takes it over.
    assert_eq!(run(&["migrate", "--create"]).0, Some(0));
    Server::start_in(other, &settings).stop();
}

#[test]
fn the_database_of_all_is_not_taken_for_one_of_a_service() {
    let server = Server::start();
    let (folder, _) = server.stop_and_keep();
    let mut command = auspex();
    command.args(["migrate", "--data-dir"]).arg(folder.path());
    // Another way to write its name.
    command.env(
        "AUSPEX__STORAGE__SERVICES__JOBS",
        beside(&folder, "./auspex.db"),
    );
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("storage.services.jobs") && said.contains("users and keys"),
        "{said}"
    );
}

#[test]
fn texts_and_their_keys_stand_in_files_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = beside(&folder, "texts.db");
    let settings = [("AUSPEX__STORAGE__SERVICES__DIALOGUES", url.as_str())];
    let server = Server::start_in(folder, &settings);
    let text = json!({"text": "good morning", "language": "en"}).to_string();
    assert!(server.post("/data/ann/d1", &text).status < 300);
    assert!(server.post("/consents/d1", "true").status < 300);
    let texts = server.get("/data/").json();
    assert_eq!(texts["data"][0]["text"], "good morning", "{texts}");
    eventually(LIMIT, "reading is recorded", || {
        actions(&server, "action=messages.read") == ["messages.read"]
    });
    let (folder, _) = server.stop_and_keep();
    assert!(!holds(
        &folder.path().join("auspex.db"),
        "dialogues_messages"
    ));
    assert!(folder.path().join("keys.db").exists());

    // A command works on the same, and what it did is recorded with all else.
    let mut command = auspex();
    command
        .args(["dialogues", "erase", "ann", "--data-dir"])
        .arg(folder.path());
    command.env("AUSPEX__STORAGE__SERVICES__DIALOGUES", &url);
    let output = command.output().expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let receipt: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(receipt["texts"], 1, "{receipt}");
    let server = Server::start_in(folder, &settings);
    assert!(actions(&server, "actor=operator").contains(&"customer.erase".to_owned()));
    server.stop();
}

/// Its folder has keys of its own: it would drop the texts of the other server, and erase nothing that this one has.
#[test]
fn a_server_whose_keys_do_not_go_with_the_texts_is_refused() {
    let server = Server::start();
    let url = format!(
        "sqlite:{}",
        server.folder.path().join("auspex.db").display()
    );
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| {
        let output = auspex()
            .args(arguments)
            .arg("--data-dir")
            .arg(folder.path())
            .env("AUSPEX__STORAGE__URL", &url)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for _ in 0..2 {
        let (code, said) = run(&["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("dialogues.keys_url"), "{said}");
    }
    server.stop();
    // Whoever runs it says that these are the keys from now on.
    let (code, said) = run(&["migrate", "--create"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(&["dialogues", "retention", "--dry-run"]);
    assert_eq!(code, Some(0), "{said}");
}
