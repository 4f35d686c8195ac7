//! Users over HTTP and on the command line, as a newcomer meets them.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Answer;
use crate::server::{Server, auspex, eventually};

/// Sends JSON with a key.
pub(crate) fn ask(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut connection = server.connect();
    connection.send(method, path, &headers, body.as_bytes())
}

fn admin(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    ask(server, &server.key, method, path, body)
}

/// The entries of a list from its first page to its last, by the header.
pub(crate) fn walk(server: &Server, path: &str) -> Vec<Value> {
    let (mut found, mut next) = (Vec::new(), Some(path.to_owned()));
    while let Some(path) = next {
        let answer = server.get(&path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        found.extend(
            answer.json()["data"]
                .as_array()
                .expect("a list")
                .iter()
                .cloned(),
        );
        let links = answer.header("link").expect("links").split(", ");
        next = links
            .filter_map(|link| link.strip_suffix(">; rel=\"next\"")?.strip_prefix('<'))
            .map(str::to_owned)
            .next();
    }
    found
}

/// Runs a subcommand with a password on standard input; its standard output.
fn run_with_input(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut child = auspex()
        .args(arguments)
        .arg("--data-dir")
        .arg(server.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn log_in(server: &Server, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password}).to_string();
    let headers = [("Content-Type", "application/json")];
    let mut connection = server.connect();
    connection.send("POST", "/v1/auth/login", &headers, body.as_bytes())
}

fn with_token(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut connection = server.connect();
    connection.send(method, path, &headers, body.as_bytes())
}

#[test]
fn a_newcomer_adds_a_user_who_logs_in_and_looks_at_himself() {
    let server = Server::start();
    let made = admin(
        &server,
        "POST",
        "/users",
        &json!({
            "name": "Alice", "email": "alice@example.org", "roles": ["viewer"],
            "password": "correct horse battery",
        }),
    );
    assert_eq!(made.status, 201, "{}", made.text());
    let user = made.json();
    assert_eq!(
        made.header("location"),
        Some(&*format!("/users/{}", user["id"].as_str().expect("id")))
    );
    assert!(!made.text().contains("correct horse"));
    let path = format!("/v1/users/{}", user["id"].as_str().expect("an id"));
    assert_eq!(server.get(&path).json(), user);

    let token = log_in(&server, "Alice@example.org", "correct horse battery").json();
    let token = token["access_token"].as_str().expect("a token").to_owned();
    let me = with_token(&server, &token, "GET", "/v1/me", &Value::Null);
    assert_eq!(me.status, 200, "{}", me.text());
    let me = me.json();
    assert_eq!(me["email"], "alice@example.org");
    assert_eq!(me["roles"], json!(["viewer"]));
    assert_eq!((&me["login_count"], &me["id"]), (&json!(1), &user["id"]));
    assert!(me["last_login_at"].is_string());
    let twin = with_token(&server, &token, "GET", "/me", &Value::Null).json();
    assert_eq!(twin["id"], me["id"]);
    let logins = with_token(&server, &token, "GET", "/v1/me/logins", &Value::Null).json();
    assert_eq!(logins["data"][0]["method"], "password");
    assert_eq!(logins["data"][0]["address"], "127.0.0.0/24");
    assert_eq!(
        server.get(&format!("{path}/logins")).json()["data"],
        logins["data"]
    );
    assert_eq!(
        with_token(&server, &token, "GET", "/v1/users", &Value::Null).status,
        403,
        "a viewer does not read users"
    );

    // Another password ends the other sessions, and the old one opens nothing.
    let other = log_in(&server, "alice@example.org", "correct horse battery").json();
    let other = other["access_token"].as_str().expect("a token").to_owned();
    let change =
        json!({"current_password": "correct horse battery", "new_password": "another one"});
    let changed = with_token(&server, &token, "PUT", "/v1/me/password", &change);
    assert_eq!(changed.status, 204, "{}", changed.text());
    assert_eq!(
        with_token(&server, &token, "GET", "/v1/me", &Value::Null).status,
        200
    );
    assert_eq!(
        with_token(&server, &other, "GET", "/v1/me", &Value::Null).status,
        401
    );
    assert_eq!(
        log_in(&server, "alice@example.org", "correct horse battery").status,
        401
    );
    assert_eq!(
        log_in(&server, "alice@example.org", "another one").status,
        200
    );

    // A disabled user is out at once, with every credential.
    let disabled = admin(&server, "PATCH", &path, &json!({"disabled": true}));
    assert_eq!(disabled.json()["disabled"], true);
    assert_eq!(
        with_token(&server, &token, "GET", "/v1/me", &Value::Null).status,
        401
    );
    assert_eq!(
        log_in(&server, "alice@example.org", "another one").status,
        401
    );
    assert_eq!(admin(&server, "DELETE", &path, &Value::Null).status, 204);
    let log = server.stop();
    for secret in ["correct horse", "another one", "alice@", token.as_str()] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[test]
fn the_worked_examples_of_the_validator_hold() {
    let server = Server::start();
    let status = |body: Value| {
        let answer = admin(&server, "POST", "/users", &body);
        let fields = match answer.status {
            422 => answer.wrong_fields(),
            _ => Vec::new(),
        };
        (answer.status, fields.join(" "))
    };
    let alice = json!({"name": "Alice", "email": "alice@example.com"});
    assert_eq!(status(alice), (201, String::new()));
    let invalid = json!({"name": "", "email": "invalid"});
    assert_eq!(status(invalid), (422, "name email".into()));
    let bob = json!({"name": "Bob", "email": "bob@test.com", "age": -5});
    assert_eq!(status(bob), (422, "age".into()));
}

#[test]
fn garbage_is_refused_in_the_usual_shape() {
    let server = Server::start();
    let made = admin(
        &server,
        "POST",
        "/v1/users",
        &json!({"name": "x", "email": "x@example.org"}),
    );
    let path = format!("/v1/users/{}", made.json()["id"].as_str().expect("an id"));
    let json = ("Content-Type", "application/json");
    for (method, path) in [
        ("POST", "/v1/users"),
        ("POST", "/users"),
        ("PUT", path.as_str()),
        ("PATCH", path.as_str()),
        ("PUT", "/v1/me/password"),
        ("POST", "/v1/api-keys"),
    ] {
        for (body, kind, expected) in [
            (&b""[..], json, 400),
            (b"{", json, 400),
            (b"[]", json, 400),
            (b"null", json, 400),
            (b"\xff\xfe", json, 400),
            (b"{\"name\": \"\\ud800\"}", json, 400),
            (b"{\"hunter2\": 1, \"hunter2\": 2}", json, 422),
            (b"{}", ("Content-Type", "text/plain"), 415),
        ] {
            let headers = [("X-API-Key", server.key.as_str()), kind];
            let answer = server.connect().send(method, path, &headers, body);
            assert_eq!(
                answer.status,
                expected,
                "{method} {path} {body:?}: {}",
                answer.text()
            );
            answer.error_code();
        }
    }
    for id in ["%00", "%ff", "0", "0123456789ABCDEF", "%F0%9F%92%A9"] {
        for method in ["GET", "PATCH", "DELETE"] {
            let body = json!({});
            let answer = admin(&server, method, &format!("/v1/users/{id}"), &body);
            assert_eq!(
                (answer.status, &*answer.error_code()),
                (404, "NOT_FOUND"),
                "{method} {id}"
            );
        }
    }
    for query in ["cursor=nonsense", "cursor=%00"] {
        assert_eq!(
            server.get(&format!("/v1/users?{query}")).status,
            400,
            "{query}"
        );
    }
    let long = json!({"name": "x", "email": "y@example.org", "password": "p".repeat(1_100)});
    assert_eq!(
        admin(&server, "POST", "/users", &long).wrong_fields(),
        ["password"]
    );
    assert!(!server.stop().contains("hunter2"));
}

#[test]
fn lists_are_walked_by_their_links() {
    let server = Server::start();
    let mut made: Vec<Value> = (0..5)
        .map(|n| {
            let body = json!({"name": format!("u{n}"), "email": format!("u{n}@example.org")});
            admin(&server, "POST", "/v1/users", &body).json()["id"].clone()
        })
        .collect();
    made.sort_by_key(Value::to_string);
    for begin in ["limit=2", "per_page=2", "offset=0&limit=2"] {
        for path in ["/v1/users", "/users"] {
            let found = walk(&server, &format!("{path}?{begin}&disabled=false"));
            let found: Vec<&Value> = found.iter().map(|user| &user["id"]).collect();
            assert_eq!(found, made.iter().collect::<Vec<_>>(), "{path}?{begin}");
        }
    }
    let lines = walk(&server, "/v1/audit?action=user.create&limit=2");
    assert_eq!(lines.len(), 5);
    let request = lines[0]["request_id"].as_str().expect("the request");
    assert!(request.starts_with("req_"), "{request}");
    assert_eq!(walk(&server, "/v1/api-keys?per_page=1").len(), 1);
}

#[test]
fn a_request_with_an_idempotency_key_is_carried_out_once() {
    let server = Server::start();
    let body = json!({"name": "Alice", "email": "alice@example.org"}).to_string();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
        ("Idempotency-Key", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
    ];
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let send = || {
            server
                .connect()
                .send("POST", "/v1/users", &headers, body.as_bytes())
        };
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(send)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Answer>| thread.join().expect("ends");
        threads.into_iter().map(join).collect()
    });
    let first = &answers[0];
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 && answer.body == first.body)
    );
    let is_first = |answer: &&Answer| answer.header("idempotency-replayed").is_none();
    assert_eq!(answers.iter().filter(is_first).count(), 1);
    assert_eq!(walk(&server, "/v1/users").len(), 1);
    let again = server
        .connect()
        .send("POST", "/v1/users", &headers, body.as_bytes());
    assert_eq!(
        (again.status, again.header("location")),
        (201, first.header("location"))
    );
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
}

#[test]
fn operators_manage_users_on_the_command_line() {
    let server = Server::start();
    let add = [
        "users",
        "add",
        "--name",
        "Ann",
        "--email",
        "ann@example.org",
        "--username",
        "ann",
        "--role",
        "viewer",
        "--password-stdin",
    ];
    let id = run_with_input(&server, &add, "correct horse battery\n");
    assert_eq!(
        id.lines().count(),
        1,
        "the id stands alone on standard output"
    );
    let id = id.trim();
    let limit = Duration::from_secs(1);
    eventually(limit, "the new user logs in", || {
        log_in(&server, "ann", "correct horse battery").status == 200
    });
    assert!(server.run(&["users", "list"]).contains("ann@example.org"));
    assert_eq!(server.run(&["users", "conflicts"]), "");
    let list: Value =
        serde_json::from_str(&server.run(&["users", "list", "--json"])).expect("JSON");
    assert_eq!(
        (&list[0]["id"], &list[0]["has_password"]),
        (&json!(id), &json!(true))
    );

    let set = ["users", "set-password", "ANN", "--password-stdin"];
    run_with_input(&server, &set, "another one\r\nrest");
    assert_eq!(log_in(&server, "ann", "another one").status, 200);
    let path = format!("/v1/users/{id}");
    server.run(&[
        "users", "roles", id, "--role", "service", "--role", "operator",
    ]);
    assert_eq!(
        server.get(&path).json()["roles"],
        json!(["operator", "service"])
    );
    server.run(&["users", "disable", "ann"]);
    assert_eq!(log_in(&server, "ann", "another one").status, 401);
    server.run(&["users", "enable", id]);
    assert_eq!(log_in(&server, "ann", "another one").status, 200);
    server.run(&["users", "delete", "ann"]);
    assert_eq!(server.get(&path).status, 404);

    let refused = |arguments: &[&str]| {
        let output = auspex()
            .args(arguments)
            .arg("--data-dir")
            .arg(server.folder.path())
            .output()
            .expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, error) = refused(&["users", "disable", "nobody"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("users list"), "{error}");
    let (code, error) = refused(&["users", "add", "--name", "x", "--email", "x"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("email must be"), "{error}");
    let (code, error) = refused(&["users", "roles", "x"]);
    assert_eq!(code, Some(2), "none is not meant by saying nothing");
    assert!(error.contains("--none"), "{error}");
    let (code, error) = refused(&["users", "roles", "x", "--role", "emperor"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("data-scientist"), "{error}");
    let (code, error) = refused(&add);
    assert_eq!(code, Some(1));
    assert!(error.contains("no password"), "{error}");
}
