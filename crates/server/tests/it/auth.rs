//! Keys: who gets in, who does not, and how fast a change is in force.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::server::{Server, eventually};

fn status_with(server: &Server, headers: &[(&str, &str)]) -> u16 {
    server
        .connect()
        .send("GET", "/v1/models", headers, b"")
        .status
}

#[test]
fn the_first_key_is_an_admins_and_only_its_owner_can_read_it() {
    let server = Server::start();
    let file = server.folder.path().join("admin.key");
    let mode = std::fs::metadata(&file)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(server.get("/v1/models").status, 200);
    assert_eq!(server.get("/metrics").status, 200);
    let key = server.key.clone();
    let log = server.stop();
    assert!(!log.contains(&key), "the key is in the log");
}

#[test]
fn both_headers_carry_a_key() {
    let server = Server::start();
    let bearer = format!("Bearer {}", server.key);
    assert_eq!(status_with(&server, &[("X-API-Key", &server.key)]), 200);
    assert_eq!(status_with(&server, &[("Authorization", &bearer)]), 200);
}

#[test]
fn without_a_valid_key_the_answer_is_401_with_a_challenge() {
    let server = Server::start();
    let mut wrong = server.key.clone();
    wrong.replace_range(10..11, if &wrong[10..11] == "A" { "B" } else { "A" });
    let (wrong_bearer, basic) = (format!("Bearer {wrong}"), "Basic YWRtaW46YWRtaW4=");
    for headers in [
        vec![],
        vec![("X-API-Key", "")],
        vec![("X-API-Key", "ax_short")],
        vec![("X-API-Key", wrong.as_str())],
        vec![("Authorization", wrong_bearer.as_str())],
        vec![("Authorization", basic)],
        vec![("Authorization", "Bearer")],
        vec![
            ("X-API-Key", server.key.as_str()),
            ("Authorization", wrong_bearer.as_str()),
        ],
        vec![
            ("X-API-Key", server.key.as_str()),
            ("X-API-Key", wrong.as_str()),
        ],
    ] {
        let answer = server.connect().send("GET", "/v1/models", &headers, b"");
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (401, "UNAUTHENTICATED")
        );
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        // RFC 6750 §3.1: no error where nothing was sent that could be one.
        let sent = headers
            .iter()
            .any(|(name, value)| *name == "X-API-Key" || value.contains("ax_"));
        let says_so = challenge.contains("error=\"invalid_token\"");
        assert!(!says_so || sent, "{headers:?}: {challenge}");
        assert!(
            says_so || headers.len() != 1 || !sent,
            "{headers:?}: {challenge}"
        );
        assert!(
            !answer.text().contains(&wrong),
            "the answer repeats the key"
        );
    }
}

#[test]
fn a_key_without_the_scope_is_told_which_one_is_missing() {
    let server = Server::start();
    let key = server.run(&[
        "keys",
        "create",
        "--name",
        "reader",
        "--scope",
        "models:read",
    ]);
    let headers = [
        ("X-API-Key", key.trim()),
        ("Content-Type", "application/json"),
    ];
    let limit = Duration::from_secs(1);
    eventually(limit, "the new key is known", || {
        status_with(&server, &headers) == 200
    });
    let answer = server.connect().send("POST", "/predict", &headers, b"{}");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (403, "FORBIDDEN")
    );
    assert!(answer.text().contains("scope predict"), "{}", answer.text());
    assert_eq!(
        server
            .connect()
            .send("GET", "/metrics", &headers, b"")
            .status,
        403
    );
}

#[test]
fn a_running_server_knows_new_and_revoked_keys_within_a_second() {
    let server = Server::start();
    let key = server.run(&[
        "keys",
        "create",
        "--name",
        "batch",
        "--scope",
        "models:read",
    ]);
    assert_eq!(
        key.lines().count(),
        1,
        "the key stands alone on standard output"
    );
    let key = key.trim();
    let limit = Duration::from_secs(1);
    eventually(limit, "the new key works", || {
        status_with(&server, &[("X-API-Key", key)]) == 200
    });
    let list = server.run(&["keys", "list"]);
    assert!(
        list.contains("batch") && list.contains("active") && !list.contains(key),
        "{list}"
    );
    server.run(&["keys", "revoke", "batch"]);
    eventually(limit, "the key is dead", || {
        status_with(&server, &[("X-API-Key", key)]) == 401
    });
    assert!(server.run(&["keys", "list"]).contains("revoked"));
}

#[test]
fn a_restarted_server_keeps_its_keys_and_makes_no_second_first_one() {
    let mut server = Server::start();
    let key = server.key.clone();
    let folder = std::mem::replace(&mut server.folder, tempfile::tempdir().expect("a folder"));
    server.stop();
    let server = Server::start_in(folder, &[]);
    assert_eq!(server.key, key);
    assert_eq!(server.get("/v1/models").status, 200);
    assert_eq!(server.run(&["keys", "list"]).matches("admin").count(), 1);
}

#[test]
fn pages_of_other_origins_cannot_use_a_key() {
    let server = Server::start();
    let ours = format!("http://{}", server.address);
    let with =
        |origin: &str| status_with(&server, &[("X-API-Key", &server.key), ("Origin", origin)]);
    assert_eq!(with(&ours), 200);
    assert_eq!(with("https://evil.example"), 403);
    assert_eq!(with("null"), 403);
}

#[test]
fn a_missing_scope_is_named_for_programs_too() {
    let server = Server::start();
    let key = server.run(&["keys", "create", "--name", "k", "--scope", "predict"]);
    let answered = || {
        let headers = [("X-API-Key", key.trim())];
        server.connect().send("GET", "/v1/users", &headers, b"")
    };
    eventually(Duration::from_secs(5), "the key is known", || {
        answered().status == 403
    });
    let challenge = answered()
        .header("www-authenticate")
        .expect("a challenge")
        .to_owned();
    assert_eq!(
        challenge,
        "Bearer realm=\"auspex\", error=\"insufficient_scope\", scope=\"users:read\""
    );
}
