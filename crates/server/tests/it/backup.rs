//! Backups: made beside a server, put back without one; what is left of a database is never taken for a first start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use auspex_kernel::clock::monotonic;
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Server, auspex};

/// Commands end within this.
const RUN_MAX: Duration = Duration::from_secs(60);

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = auspex();
    command.args(arguments).arg("--data-dir").arg(folder);
    // A server that starts against all expectation does not end by itself.
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let end = monotonic() + RUN_MAX;
    while child.try_wait().expect("a child").is_none() {
        if monotonic() > end {
            child.kill().expect("killed");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output")
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).expect("UTF-8")
}

#[track_caller]
fn works(folder: &Path, arguments: &[&str]) -> String {
    let output = run_in(folder, arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
    text
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], parts: &[&str]) {
    let output = run_in(folder, arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    for part in parts {
        assert!(
            text.contains(part),
            "{arguments:?}: {part} is not in {text}"
        );
    }
}

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

fn new_key(server: &Server, name: &str) -> String {
    let body = json!({"name": name, "scopes": ["models:read"]}).to_string();
    let made = server.post("/v1/api-keys", body);
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["key"].as_str().expect("a key").to_owned()
}

fn status_with(server: &Server, key: &str) -> u16 {
    let headers = [("X-API-Key", key)];
    let mut connection = server.connect();
    connection.send("GET", "/v1/models", &headers, b"").status
}

/// Hands in a text of a customer who agrees.
fn keep_a_text(server: &Server, customer: &str) {
    let body = json!({"text": "kept", "language": "en"}).to_string();
    let pushed = server.post(&format!("/data/{customer}/{customer}"), body);
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    let decided = server.post(&format!("/consents/{customer}"), "true");
    assert_eq!(decided.status, 200, "{}", decided.text());
}

fn end(mut server: Server, signal: &str) -> TempDir {
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.signal(signal);
    server.wait(Duration::from_secs(20));
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn backups_of_a_running_server_come_back_over_a_crashed_one() {
    let server = Server::start();
    let copies = tempfile::tempdir().expect("a folder");
    let [main, keys] = ["main.db", "keys.db"].map(|name| copies.path().join(name));
    let early = new_key(&server, "early");
    keep_a_text(&server, "ann");
    works(server.folder.path(), &["backup", text(&main)]);
    works(server.folder.path(), &["backup", "--keys", text(&keys)]);
    for copy in [&main, &keys] {
        let mode = fs::metadata(copy).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = ["backup", text(&main)];
    fails(
        server.folder.path(),
        &again,
        &["main.db", "is there already"],
    );
    let late = new_key(&server, "late");
    keep_a_text(&server, "bob");
    let restore = ["restore", text(&main)];
    fails(server.folder.path(), &restore, &["another server uses"]);

    let folder = end(server, "KILL");
    let file = folder.path().join("auspex.db");
    assert!(folder.path().join("auspex.db-wal").exists(), "it crashed");
    let told = works(folder.path(), &restore);
    assert!(told.contains("auspex.db.replaced"), "{told}");
    works(folder.path(), &["restore", text(&keys)]);
    assert!(!folder.path().join("auspex.db-wal").exists());
    let mode = fs::metadata(&file).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = Server::start_in(folder, &[]);
    let [early, late] = [early, late].map(|key| status_with(&server, &key));
    assert_eq!((early, late), (200, 401));
    let kept = server.get("/data/").json();
    assert_eq!(kept["data"].as_array().map(Vec::len), Some(1), "{kept}");
    works(server.folder.path(), &["doctor"]);
}

#[test]
fn a_copy_over_a_crashed_database_is_not_mixed_with_its_log() {
    let folder = end(Server::start(), "TERM");
    let [copy, file, log] =
        ["copy", "auspex.db", "auspex.db-wal"].map(|name| folder.path().join(name));
    assert!(!log.exists(), "it was closed");
    fs::copy(&file, &copy).expect("copied");
    let server = Server::start_in(folder, &[]);
    new_key(&server, "late");
    let folder = end(server, "KILL");
    fs::copy(&copy, &file).expect("copied");
    let before = fs::read(&log).expect("there");
    for command in [&SERVE[..], &["migrate"], &["keys", "list"], &["doctor"]] {
        fails(
            folder.path(),
            command,
            &["auspex.db-wal", "log of another file", "auspex restore"],
        );
    }
    assert!(
        fs::read(&log).expect("there") == before
            && fs::read(&file).expect("there") == fs::read(&copy).expect("there")
    );
    fs::remove_file(&log).expect("removed");
    works(folder.path(), &["doctor"]);
    drop(Server::start_in(folder, &[]));
}

#[test]
fn only_a_copy_that_a_server_can_use_is_restored() {
    let folder = end(Server::start(), "TERM");
    let file = folder.path().join("auspex.db");
    let sound = fs::read(&file).expect("read");
    let copy = folder.path().join("copy");
    let restore = ["restore", text(&copy)];
    let mut damaged = sound.clone();
    damaged[8_200..30_000].fill(0xab);
    for (content, said) in [
        (&b"no database"[..], "not a database"),
        (&damaged, "copy"),
        (&[], "is empty"),
    ] {
        fs::write(&copy, content).expect("written");
        fails(folder.path(), &restore, &[said]);
    }
    fs::remove_file(&copy).expect("removed");
    fails(folder.path(), &restore, &["does not exist"]);
    for (sql, said) in [
        (
            "CREATE TABLE t (a)",
            "no copy of a database of this program",
        ),
        (
            "CREATE TABLE kernel_migrations (version TEXT, applied_at INTEGER); \
             INSERT INTO kernel_migrations VALUES ('m9999_from_tomorrow', 0)",
            "newer version",
        ),
    ] {
        fs::remove_file(&copy).ok();
        crate::doctor::execute(&copy, sql);
        fails(folder.path(), &restore, &[said]);
    }
    assert!(
        fs::read(&file).expect("read") == sound,
        "it stays as it was"
    );
    assert!(!folder.path().join("auspex.db.replaced").exists());
}

#[test]
fn a_lost_database_is_not_begun_anew_unless_that_is_asked_for() {
    for is_empty in [false, true] {
        let folder = end(Server::start(), "TERM");
        let [file, key, old] =
            ["auspex.db", "admin.key", "admin.key.old"].map(|name| folder.path().join(name));
        fs::remove_file(&file).expect("removed");
        if is_empty {
            fs::write(&file, "").expect("written");
        }
        let first_key = fs::read(&key).expect("a key");
        for command in [&SERVE[..], &["migrate"], &["doctor"]] {
            fails(
                folder.path(),
                command,
                &[
                    "auspex.db",
                    "keys.db",
                    "admin.key",
                    "--create",
                    "auspex restore",
                ],
            );
        }
        fails(folder.path(), &["keys", "list"], &["auspex.db"]);
        assert_eq!(file.exists(), is_empty);
        assert_eq!(fs::read(&key).expect("a key"), first_key);
        works(folder.path(), &["migrate", "--create"]);
        let server = Server::start_in(folder, &[]);
        assert_eq!(fs::read(&old).expect("kept"), first_key);
        let mode = fs::metadata(&old).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(server.stop().contains("admin.key.old"));
    }
}

#[test]
fn lost_keys_of_texts_are_not_begun_anew_unless_that_is_asked_for() {
    let server = Server::start();
    keep_a_text(&server, "ann");
    let folder = end(server, "TERM");
    let file = folder.path().join("keys.db");
    fs::remove_file(&file).expect("removed");
    let commands: [&[&str]; 4] = [
        &SERVE,
        &["migrate"],
        &["doctor"],
        &["dialogues", "replay-erasures"],
    ];
    for command in commands {
        fails(
            folder.path(),
            command,
            &[
                "keys.db does not exist",
                "auspex restore",
                "migrate --create",
            ],
        );
        assert!(!file.exists());
    }
    works(folder.path(), &["migrate", "--create"]);
    drop(Server::start_in(folder, &[]));
}

#[test]
fn every_database_is_brought_up_to_date_before_a_server_that_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--no-migrate"];
    fails(folder.path(), &serve, &["auspex.db", "auspex migrate"]);
    let told = works(folder.path(), &["migrate"]);
    assert!(
        told.contains("auspex.db") && told.contains("keys.db"),
        "{told}"
    );
    let keys = folder.path().join("keys.db");
    fs::remove_file(&keys).expect("removed");
    fails(folder.path(), &serve, &["keys.db", "auspex migrate"]);
    assert!(!keys.exists(), "it makes none");
    works(folder.path(), &["migrate"]);
    let mut command = Command::new("sh");
    let run = format!("exec {} \"$@\" --no-migrate", env!("CARGO_BIN_EXE_auspex"));
    command.args(["-c", &run, "sh"]);
    command.current_dir(crate::server::repository());
    drop(Server::start_by(command, folder, &[]));
}

#[test]
fn a_database_of_postgresql_is_left_to_its_own_tools() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = auspex();
    let file: PathBuf = folder.path().join("copy");
    command
        .arg("backup")
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path());
    command.env("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/x");
    let output = command.output().expect("runs");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("pg_dump") && !text.contains("hunter2"),
        "{text}"
    );
}
