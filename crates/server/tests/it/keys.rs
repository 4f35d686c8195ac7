//! API keys over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use crate::server::{Server, eventually};
use crate::users::ask;

fn models(server: &Server, key: &str) -> u16 {
    ask(server, key, "GET", "/v1/models", &Value::Null).status
}

#[test]
fn a_key_is_made_used_replaced_and_revoked() {
    let server = Server::start();
    let admin =
        |method: &str, path: &str, body: Value| ask(&server, &server.key, method, path, &body);
    let body = json!({"name": "batch", "scopes": ["models:read"]});
    let made = admin("POST", "/v1/api-keys", body);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let path = made.header("location").expect("a location").to_owned();
    let made = made.json();
    let key = made["key"].as_str().expect("a key");
    assert_eq!(
        models(&server, key),
        200,
        "in force when the answer arrives"
    );
    let shown = admin("GET", &path, Value::Null).json();
    assert_eq!(
        (&shown["name"], &shown["state"]),
        (&json!("batch"), &json!("active"))
    );
    assert!(shown["last_used_at"].is_string(), "{shown}");
    assert!(!shown.to_string().contains(key));

    let rotated = admin(
        "POST",
        &format!("{path}/rotations"),
        json!({"overlap_s": 1}),
    );
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let next_path = rotated.header("location").expect("a location").to_owned();
    let rotated = rotated.json();
    let next = rotated["key"].as_str().expect("a key");
    assert_eq!(models(&server, next), 200);
    assert_eq!(
        admin("GET", &path, Value::Null).json()["replaced_by"],
        rotated["id"]
    );
    let limit = Duration::from_secs(3);
    eventually(limit, "the old key ends", || models(&server, key) == 401);
    assert_eq!(models(&server, next), 200);

    assert_eq!(admin("DELETE", &next_path, Value::Null).status, 204);
    assert_eq!(models(&server, next), 401, "at once");
    assert_eq!(
        admin("GET", &next_path, Value::Null).json()["state"],
        "revoked"
    );
    let (key, next) = (key.to_owned(), next.to_owned());
    let log = server.stop();
    assert!(
        !log.contains(&key) && !log.contains(&next),
        "a key is in the log"
    );
}

#[test]
fn a_repeated_request_shows_no_key_again() {
    let server = Server::start();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "once"),
    ];
    let body = br#"{"name": "batch", "scopes": ["predict"]}"#;
    let send = || {
        server
            .connect()
            .send("POST", "/v1/api-keys", &headers, body)
    };
    let (first, second) = (send(), send());
    assert_eq!((first.status, second.status), (201, 409));
    assert_eq!(second.error_code(), "CONFLICT");
    assert_eq!(second.header("location"), first.header("location"));
    assert!(!second.text().contains("ax_"), "{}", second.text());
    let keys = server.get("/v1/api-keys").json();
    assert_eq!(keys["data"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_key_makes_no_stronger_one() {
    let server = Server::start();
    let body = json!({"name": "maker", "scopes": ["keys:write", "models:read"]});
    let maker = ask(&server, &server.key, "POST", "/v1/api-keys", &body).json();
    let maker = maker["key"].as_str().expect("a key");
    let make = |scopes: Value| {
        let body = json!({"name": "x", "scopes": scopes});
        ask(&server, maker, "POST", "/v1/api-keys", &body).status
    };
    assert_eq!(make(json!(["models:read"])), 201);
    assert_eq!(make(json!(["models:read", "predict"])), 403);
    // It learns nothing about the other keys, which have no owner.
    let seen = ask(&server, maker, "GET", "/v1/api-keys", &Value::Null).json();
    assert_eq!(seen["data"].as_array().map(Vec::len), Some(1));
    let keys = server.get("/v1/api-keys").json();
    let first = keys["data"]
        .as_array()
        .expect("keys")
        .last()
        .expect("the first")
        .clone();
    assert_eq!(first["name"], "admin");
    let path = format!("/v1/api-keys/{}", first["id"].as_str().expect("an id"));
    assert_eq!(
        ask(&server, maker, "DELETE", &path, &Value::Null).status,
        404
    );
    let rotations = format!("{path}/rotations");
    assert_eq!(
        ask(&server, maker, "POST", &rotations, &json!({})).status,
        404
    );
    assert_eq!(models(&server, &server.key), 200);
}

#[test]
fn operators_rotate_keys_on_the_command_line() {
    let server = Server::start();
    let old = server.run(&["keys", "create", "--name", "ci", "--scope", "models:read"]);
    let new = server.run(&["keys", "rotate", "ci", "--overlap-s", "0"]);
    assert_eq!(
        new.lines().count(),
        1,
        "the key stands alone on standard output"
    );
    let limit = Duration::from_secs(1);
    eventually(limit, "the new key works and the old does not", || {
        models(&server, new.trim()) == 200 && models(&server, old.trim()) == 401
    });
    let list: Value = serde_json::from_str(&server.run(&["keys", "list", "--json"])).expect("JSON");
    let of = |state: &str| {
        let mut keys = list.as_array().expect("keys").iter();
        keys.find(|key| key["name"] == "ci" && key["state"] == state)
            .expect(state)
            .clone()
    };
    assert_eq!(of("expired")["replaced_by"], of("active")["id"]);
}
