//! `auspex doctor` says what is wrong with a data folder, and changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use sea_orm_migration::sea_orm::ConnectionTrait as _;
use serde_json::json;
use tempfile::TempDir;

use crate::server::{Server, auspex, auspex_held_to_modes, take_away};

/// What it says, and whether all is well.
fn doctor(folder: &Path) -> (String, bool) {
    let before = contents(folder);
    let output = auspex()
        .args(["doctor", "--data-dir"])
        .arg(folder)
        .output()
        .expect("runs");
    assert!(contents(folder) == before, "it changes nothing");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    (text, output.status.success())
}

/// Every file with its content; SQLite's index of the log is made anew by whoever reads.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        (name, fs::read(entry.path()).expect("read"))
    });
    files.filter(|(name, _)| !name.ends_with("-shm")).collect()
}

fn finds(folder: &Path, parts: &[&str]) {
    let (text, is_well) = doctor(folder);
    assert!(!is_well, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

/// A folder that a server has left behind.
fn left_behind(signal: &str) -> TempDir {
    let mut server = Server::start();
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.signal(signal);
    server.wait(Duration::from_secs(20));
    folder
}

#[test]
fn a_sound_folder_is_well_beside_a_server_after_it_and_after_a_crash() {
    let server = Server::start();
    let (text, is_well) = doctor(server.folder.path());
    assert!(is_well && text.contains("a server is running"), "{text}");
    let folder = left_behind("TERM");
    let (text, is_well) = doctor(folder.path());
    assert!(is_well && text.contains("no server is running"), "{text}");
    assert!(text.contains("is sound"), "{text}");
    let folder = left_behind("KILL");
    let (text, is_well) = doctor(folder.path());
    assert!(is_well && text.contains("auspex.db-wal"), "{text}");
}

#[test]
fn each_problem_is_named_with_what_to_do() {
    let folder = left_behind("TERM");
    let file = folder.path().join("auspex.db");
    let key = folder.path().join("admin.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    finds(folder.path(), &["1 problem", "admin.key", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");

    let sound = fs::read(&file).expect("read");
    let name = file.display().to_string();
    let mut damaged = sound.clone();
    // In the middle of a page, for several pages.
    for byte in &mut damaged[8_200..30_000] {
        *byte = 0xab;
    }
    fs::write(&file, damaged).expect("written");
    finds(folder.path(), &[&name, "restore a backup"]);
    fs::write(&file, "no database").expect("written");
    finds(folder.path(), &[&name, "restore a backup"]);
    fs::write(&file, &sound[..sound.len() / 2]).expect("written");
    finds(folder.path(), &[&name, "restore a backup"]);

    let nowhere = folder.path().join("nowhere");
    let output = auspex()
        .args(["doctor", "--data-dir"])
        .arg(&nowhere)
        .output()
        .expect("runs");
    assert!(!output.status.success() && !nowhere.exists());
}

/// Replicas are replaced one after the other: the first of the newer version brings the tables further, and those
/// of this one serve and start with them.
#[test]
fn tables_of_a_newer_version_are_told_and_served() {
    let folder = left_behind("TERM");
    let file = folder.path().join("auspex.db");
    for sql in [
        "ALTER TABLE identity_api_keys ADD COLUMN from_tomorrow TEXT",
        "INSERT INTO identity_migrations VALUES ('m9999_from_tomorrow', 0)",
        "INSERT INTO kernel_migrations VALUES ('m9999_from_tomorrow', 0)",
    ] {
        execute(&file, sql);
    }
    let (text, is_well) = doctor(folder.path());
    assert!(is_well, "{text}");
    for part in ["newer version", "identity_migrations.m9999_from_tomorrow"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let server = Server::start_in(folder, &[]);
    let made = server.post(
        "/v1/api-keys",
        r#"{"name": "older", "scopes": ["predict"]}"#,
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let log = server.stop();
    for part in ["a newer version", "kernel_migrations.m9999_from_tomorrow"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

/// What `doctor` says by a command, which ends by itself.
fn said(mut command: Command, folder: &Path) -> String {
    let command = command.args(["doctor", "--data-dir"]).arg(folder);
    let output = command.output().expect("runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// What cannot be looked at is neither well nor damaged nor missing.
#[test]
fn what_cannot_be_looked_at_is_told_as_that() {
    let whole = tempfile::tempdir().expect("a folder");
    for name in ["auspex.db", "serve.lock", ""] {
        let folder = whole.path().join(format!("without-{name}"));
        let migrated = auspex()
            .args(["migrate", "--data-dir"])
            .arg(&folder)
            .output();
        assert!(migrated.expect("runs").status.success());
        fs::write(folder.join("serve.lock"), "").expect("written");
        let narrow = fs::Permissions::from_mode(0o600);
        fs::set_permissions(folder.join("serve.lock"), narrow).expect("set");
        let taken = folder.join(name);
        take_away(&taken);
        let text = said(auspex_held_to_modes(), &folder);
        let shown = taken.display().to_string();
        let shown = shown.trim_end_matches('/');
        for part in [shown, "cannot be looked at", "Permission denied", "run"] {
            assert!(text.contains(part), "{name}: {part} is not in {text}");
        }
        for part in ["backup", "not there", "no server is running"] {
            let is_true = name == "auspex.db" && part == "no server is running";
            assert_eq!(text.contains(part), is_true, "{name}: {part}: {text}");
        }
        let back = fs::Permissions::from_mode(0o700);
        fs::set_permissions(taken, back).expect("to be removed");
    }
}

#[test]
fn what_is_no_file_is_named_and_never_waited_for() {
    for name in ["serve.lock", "admin.key", "auspex.db", "auspex.db-wal"] {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join(name);
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        let text = said(auspex(), folder.path());
        let named = format!("{} is a pipe", pipe.display());
        assert!(text.contains(&named), "{text}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = auspex();
    command.env(
        "DATABASE_URL",
        format!("sqlite:{}", folder.path().display()),
    );
    let text = said(command, folder.path());
    assert!(
        text.contains("is a folder, not a file") && text.contains("storage.url"),
        "{text}"
    );
    assert!(!text.contains("backup"), "{text}");
}

/// A role without rights gets an answer, and can do nothing with it.
#[test]
fn rights_that_a_role_of_postgresql_lacks_are_named() {
    let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let schema = format!("server_{}_rights", std::process::id());
    run_sql(
        &url,
        &format!("CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO pg_monitor"),
    );
    let sign = if url.contains('?') { '&' } else { '?' };
    let owner = format!("{url}{sign}options=-c%20search_path%3D{schema}");
    let role = format!("{owner}%20-c%20role%3Dpg_monitor");
    let with = |url: &str, arguments: &[&str]| {
        let mut command = auspex();
        command.args(arguments).arg("--data-dir").arg(folder.path());
        let output = command.env("DATABASE_URL", url).output().expect("runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).expect("UTF-8"),
        )
    };
    let grant = format!("GRANT CREATE ON SCHEMA {schema} TO pg_monitor");
    for arguments in [&["migrate"][..], &["doctor"], &["keys", "list"]] {
        let (code, text) = with(&role, arguments);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&grant), "{arguments:?}: {text}");
    }
    assert_eq!(with(&owner, &["migrate"]).0, Some(0));
    for arguments in [&["doctor"][..], &["keys", "list"]] {
        let (code, text) = with(&role, arguments);
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES"),
            "{text}"
        );
        assert!(!text.contains("holds no tables"), "{text}");
    }
    run_sql(
        &url,
        &format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO pg_monitor"
        ),
    );
    // The keys of texts are in the same database here, and their tables are there too.
    let retention = ["dialogues", "retention", "--dry-run"];
    for arguments in [&["doctor"][..], &["keys", "list"], &retention] {
        let (code, text) = with(&role, arguments);
        assert_eq!(code, Some(0), "{text}");
    }
    run_sql(
        &url,
        &format!("DROP TABLE {schema}.dialogues_keys_migrations"),
    );
    let (code, text) = with(&role, &["doctor"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&grant), "{text}");
    run_sql(&url, &format!("DROP SCHEMA {schema} CASCADE"));
}

pub(crate) fn execute(file: &Path, sql: &str) {
    run_sql(&format!("sqlite:{}", file.display()), sql);
}

fn run_sql(url: &str, sql: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let db = Db::open(url).await.expect("opens");
        let done = db.write(async |transaction| {
            transaction.execute_unprepared(sql).await?;
            Ok::<_, DbError>(())
        });
        done.await.expect("written");
        db.close().await;
    });
}

#[test]
fn a_row_that_cannot_be_read_does_not_stop_the_start() {
    let mut server = Server::start();
    let make = |name: &str| {
        let body = json!({"name": name, "scopes": ["models:read"]}).to_string();
        let made = server.post("/v1/api-keys", body).json();
        let text = |field: &str| made[field].as_str().expect("a text").to_owned();
        (text("id"), text("key"))
    };
    let (good, bad) = (make("good"), make("bad"));
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.stop();
    let damage = format!(
        "UPDATE identity_api_keys SET scopes = CAST(x'ff6d' AS TEXT) WHERE id = '{}'",
        bad.0
    );
    execute(&folder.path().join("auspex.db"), &damage);
    let row = "scopes of row";
    finds(folder.path(), &["1 problem", row, "identity_api_keys"]);

    let server = Server::start_in(folder, &[]);
    let ask = |key: &str| {
        let mut connection = server.connect();
        connection
            .send("GET", "/v1/models", &[("X-API-Key", key)], b"")
            .status
    };
    assert_eq!((ask(&good.1), ask(&bad.1)), (200, 401));
    // What needs the row says that the database is damaged; the rest works.
    let list = server.get("/v1/api-keys");
    assert_eq!(list.status, 503, "{}", list.text());
    assert_eq!(server.get(&format!("/v1/api-keys/{}", good.0)).status, 200);
    let log = server.stop();
    assert!(
        log.contains("identity_api_keys") && log.contains(&bad.0),
        "{log}"
    );
}

#[test]
fn a_master_key_that_a_server_could_not_use_is_a_problem() {
    let folder = left_behind("TERM");
    let (text, is_well) = doctor(folder.path());
    assert!(is_well && text.contains("keys.db is sound"), "{text}");
    assert!(text.contains("dialogues.key has wrapped"), "{text}");
    let file = folder.path().join("dialogues.key");
    let key = fs::read(&file).expect("a key");
    let foreign = "00".repeat(32);
    for (content, part) in [
        (foreign.as_bytes(), "none of the master keys"),
        (b"no key", "line 1 is not 32 bytes"),
        (b"\xff\xfe\x00", "is no text"),
        (b"", "there is none"),
    ] {
        fs::write(&file, content).expect("written");
        finds(folder.path(), &["1 problem", "dialogues.key", part]);
    }
    fs::write(&file, &key).expect("written");
    take_away(&file);
    let text = said(auspex_held_to_modes(), folder.path());
    let denied = format!("{}: Permission denied", file.display());
    assert!(text.contains(&denied), "{text}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    fs::remove_file(&file).expect("removed");
    finds(
        folder.path(),
        &["dialogues.key is not there", "put it back"],
    );
    // A key in a setting is compared, too.
    let mut command = auspex();
    command.env("AUSPEX__DIALOGUES__MASTER_KEY", foreign);
    let text = said(command, folder.path());
    assert!(
        text.contains("in dialogues.master_key has wrapped"),
        "{text}"
    );
}

/// Run as root it can be read, and by the service it cannot.
#[test]
fn a_master_key_of_another_user_is_a_problem() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = left_behind("TERM");
    for entry in fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::os::unix::fs::chown(path, Some(65_534), None).expect("chown");
    }
    std::os::unix::fs::chown(folder.path(), Some(65_534), None).expect("chown");
    assert!(doctor(folder.path()).1);
    let file = folder.path().join("dialogues.key");
    std::os::unix::fs::chown(&file, Some(0), None).expect("chown");
    finds(
        folder.path(),
        &["1 problem", "dialogues.key", "chown 65534"],
    );
}

#[test]
fn a_folder_that_is_mounted_read_only_is_a_problem() {
    let folder = left_behind("TERM");
    let shown = folder.path().display();
    let mount = format!("mount --bind {shown} {shown} && mount -o remount,ro,bind {shown}");
    let apart = |then: &str| {
        let mut command = Command::new("unshare");
        let script = format!("{mount} && exec {then}");
        command.args(["--mount", "sh", "-c", &script]);
        command.output()
    };
    // Where nobody may mount, there is nothing to be seen.
    if !apart("true").is_ok_and(|tried| tried.status.success()) {
        return;
    }
    let binary = env!("CARGO_BIN_EXE_auspex");
    let looked = apart(&format!("{binary} doctor --data-dir {shown}")).expect("runs");
    let text = String::from_utf8(looked.stdout).expect("UTF-8");
    assert_eq!(looked.status.code(), Some(1), "{text}");
    assert!(text.contains("mounted read-only"), "{text}");
}

/// Whoever asks is told what to do, and not to ask.
#[test]
fn nothing_that_it_says_sends_to_itself() {
    let folder = left_behind("TERM");
    let file = folder.path().join("auspex.db");
    let sound = fs::read(&file).expect("read");
    for content in [&b"no database"[..], &sound[..sound.len() / 2]] {
        fs::write(&file, content).expect("written");
        let (text, _) = doctor(folder.path());
        assert!(!text.contains("auspex doctor"), "{text}");
    }
}
