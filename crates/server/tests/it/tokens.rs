//! From a name and a password to a prediction and back, as a newcomer meets it, and what an operator
//! does when a token has leaked.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::client::{Answer, Connection};
use crate::predict::REQUEST;
use crate::server::{Server, auspex, eventually};
use crate::users::ask;

pub(crate) const PASSWORD: &str = "correct horse battery";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const SECOND: Duration = Duration::from_secs(1);

/// A server with a user `ann`, and her id.
pub(crate) fn with_ann(settings: &[(&str, &str)]) -> (Server, String) {
    let server = Server::start_with(settings);
    let ann = json!({"name": "Ann", "email": "ann@example.org", "username": "ann",
        "password": PASSWORD, "roles": ["data-scientist"]});
    let made = ask(&server, &server.key, "POST", "/v1/users", &ann);
    assert_eq!(made.status, 201, "{}", made.text());
    let id = text(&made.json(), "id");
    (server, id)
}

pub(crate) fn text(json: &Value, name: &str) -> String {
    json[name].as_str().expect("a text").to_owned()
}

/// Sends JSON without a credential.
pub(crate) fn post(server: &Server, path: &str, body: impl AsRef<[u8]>) -> Answer {
    let mut connection = server.connect();
    connection.send("POST", path, &[JSON], body.as_ref())
}

pub(crate) fn log_in(server: &Server) -> Value {
    let body = json!({"username": "ann", "password": PASSWORD}).to_string();
    let answer = post(server, "/v1/auth/login", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn refresh(server: &Server, token: &Value) -> Answer {
    let body = json!({"refresh_token": token}).to_string();
    post(server, "/v1/auth/refresh", body)
}

fn predict(server: &Server, headers: &[(&str, &str)]) -> Answer {
    let headers = [headers, &[JSON]].concat();
    let mut connection = server.connect();
    connection.send("POST", "/predict", &headers, REQUEST.as_bytes())
}

/// The status of a prediction asked for with this token.
pub(crate) fn by_token(server: &Server, token: &str) -> u16 {
    predict(server, &[("Authorization", &format!("Bearer {token}"))]).status
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// A claim of a token.
fn claim(token: &str, name: &str) -> String {
    let claims = token.split('.').nth(1).expect("claims");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    text(&serde_json::from_slice(&claims).expect("JSON"), name)
}

#[test]
fn a_newcomer_gets_from_a_password_to_a_prediction() {
    let (server, id) = with_ann(&[]);
    let session = log_in(&server);
    assert_eq!(
        (&session["token_type"], &session["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    let token = text(&session, "access_token");
    assert_eq!(by_token(&server, &token), 200);
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let me = server.connect().send("GET", "/v1/me", &headers, b"").json();
    assert_eq!((&me["id"], &me["login_count"]), (&json!(id), &json!(1)));
    assert!(me["last_login_at"].is_string(), "{me}");
    let logins = server.get(&format!("/v1/users/{id}/logins")).json();
    assert_eq!(logins["data"][0]["method"], "password");
    assert_eq!(logins["data"][0]["at"], me["last_login_at"]);

    let next = refresh(&server, &session["refresh_token"]);
    assert_eq!(next.status, 200, "{}", next.text());
    assert_eq!(next.header("cache-control"), Some("no-store"));
    let next = next.json();
    assert_eq!(by_token(&server, &text(&next, "access_token")), 200);
    let out = server
        .connect()
        .send("POST", "/v1/auth/logout", &headers, b"");
    assert_eq!(out.status, 204);
    for session in [&session, &next] {
        assert_eq!(by_token(&server, &text(session, "access_token")), 401);
        assert_eq!(refresh(&server, &session["refresh_token"]).status, 401);
    }
    let audit = server.get("/v1/audit?limit=50").json();
    let actions: Vec<_> = audit["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| &e["action"])
        .collect();
    for action in ["login", "token.refresh", "logout"] {
        assert!(actions.contains(&&json!(action)), "{actions:?}");
    }
}

#[test]
fn basic_credentials_work_everywhere_and_are_never_asked_for() {
    let (server, id) = with_ann(&[]);
    let good = basic("ANN", PASSWORD);
    for _ in 0..3 {
        assert_eq!(predict(&server, &[("Authorization", &good)]).status, 200);
    }
    let logins = server.get(&format!("/v1/users/{id}/logins")).json();
    assert_eq!(
        logins["data"].as_array().map(Vec::len),
        Some(1),
        "hashed once"
    );
    assert_eq!(logins["data"][0]["method"], "basic");
    let forbidden = server
        .connect()
        .send("GET", "/v1/users", &[("Authorization", &good)], b"");
    assert_eq!(forbidden.status, 403);
    let key = server.key.as_str();
    let both = predict(&server, &[("Authorization", &good), ("X-API-Key", key)]);
    let (wrong, nobody) = (basic("ann", "wrong"), basic("nobody", PASSWORD));
    let refused = [
        both,
        predict(&server, &[("Authorization", &wrong)]),
        predict(&server, &[("Authorization", &nobody)]),
        predict(&server, &[("Authorization", "Basic")]),
        predict(&server, &[("Authorization", "Basic !!!!")]),
        predict(&server, &[]),
        post(
            &server,
            "/v1/auth/login",
            json!({"username": "ann", "password": "x"}).to_string(),
        ),
        refresh(&server, &json!("axr_nothing")),
    ];
    for answer in refused {
        assert_eq!(answer.error_code(), "UNAUTHENTICATED");
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        assert!(
            !challenge.to_lowercase().contains("basic"),
            "a browser would ask its user"
        );
    }
}

#[test]
fn garbage_is_refused_and_not_repeated() {
    let (server, _) = with_ann(&[]);
    let deep = "[".repeat(60_000);
    let deep_field = format!(
        "{{\"username\": \"ann\", \"password\": {}}}",
        "[".repeat(5_000)
    );
    let long = "x".repeat(60_000);
    let huge = "x".repeat(70_000);
    let cases: Vec<(u16, String)> = vec![
        (400, String::new()),
        (400, "canary".into()),
        (400, "[\"canary\"]".into()),
        (400, "\"canary\"".into()),
        (400, "{\"username\": \"canary\"".into()),
        (400, deep),
        (400, deep_field),
        (422, "{}".into()),
        (422, json!({"username": "canary"}).to_string()),
        (
            422,
            json!({"username": ["canary"], "password": {"canary": 1}}).to_string(),
        ),
        (422, json!({"username": 7, "password": null}).to_string()),
        (
            422,
            json!({"username": "ann", "password": PASSWORD, "canary": 1}).to_string(),
        ),
        (
            422,
            format!(
                "{{\"username\": \"ann\", \"username\": \"bob\", \"password\": \"{PASSWORD}\"}}"
            ),
        ),
        (
            422,
            json!({"username": "ann", "password": long}).to_string(),
        ),
        (
            401,
            json!({"username": "canary\u{0}", "password": "canary"}).to_string(),
        ),
        (401, json!({"username": "", "password": ""}).to_string()),
        (
            401,
            json!({"username": "canary' OR 1=1 --", "password": "canary"}).to_string(),
        ),
        (413, huge),
    ];
    for (status, body) in &cases {
        let answer = post(&server, "/v1/auth/login", body);
        let shown = &body[..body.len().min(80)];
        assert_eq!(answer.status, *status, "{shown}: {}", answer.text());
        answer.error_code();
        // An unknown field is named.
        let told = answer.text().replace("\"field\":\"canary\"", "");
        assert!(!told.contains("canary"), "{told}");
        assert!(!told.contains(PASSWORD), "{told}");
    }
    let token = text(&log_in(&server), "refresh_token");
    for (status, body) in [
        (422, json!({"refresh_token": 1})),
        (422, json!({"refresh_token": null})),
        (422, json!({"refresh_token": token, "scope": "admin"})),
        (422, json!({"refresh_token": "x".repeat(5_000)})),
        (401, json!({"refresh_token": ""})),
        (401, json!({"refresh_token": format!("{token}\u{0}")})),
        (
            401,
            json!({"refresh_token": "axr_0000000000000000_99999999999999999999_AAAA"}),
        ),
    ] {
        let answer = post(&server, "/v1/auth/refresh", body.to_string());
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(!answer.text().contains(&token));
    }
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("username=ann&password={PASSWORD}");
    let answer = server
        .connect()
        .send("POST", "/v1/auth/login", &form, body.as_bytes());
    assert_eq!(answer.status, 415);
}

/// A login from another address of this machine.
fn log_in_from(address: [u8; 4], server: SocketAddr, password: &str) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("starts");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((address, 0).into()).expect("binds");
        socket.connect(server).await.expect("connects")
    });
    let stream = stream.into_std().expect("a stream");
    stream.set_nonblocking(false).expect("set");
    let mut connection = Connection::over(stream, server);
    let body = json!({"username": "ann", "password": password}).to_string();
    connection.send("POST", "/v1/auth/login", &[JSON], body.as_bytes())
}

#[test]
fn an_address_that_guesses_waits_and_others_do_not() {
    let (server, _) = with_ann(&[]);
    let wrong = |n: usize| {
        let body = json!({"username": format!("user {n}"), "password": "guess"}).to_string();
        post(&server, "/v1/auth/login", body)
    };
    for n in 0..20 {
        assert_eq!(wrong(n).status, 401, "{n}");
    }
    let refused = wrong(20);
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "RATE_LIMITED")
    );
    // A right password is tried with the next turn.
    assert_eq!(refused.header("retry-after"), Some("2"));
    let by_basic = |password| {
        let credential = basic("ann", password);
        predict(&server, &[("Authorization", &credential)]).status
    };
    assert_eq!(by_basic("guess"), 429, "by Basic as well");
    assert_eq!(
        by_basic(PASSWORD),
        200,
        "who knows their password is not kept out"
    );
    assert_eq!(
        server.post("/predict", REQUEST).status,
        200,
        "with a key nothing is guessed"
    );
    let there = log_in_from([127, 0, 0, 2], server.address, PASSWORD);
    assert_eq!(there.status, 200, "{}", there.text());
}

#[test]
fn no_credential_and_no_name_ever_reaches_the_log() {
    let (server, _) = with_ann(&[
        ("AUSPEX__TELEMETRY__LOG_LEVEL", "trace"),
        ("AUSPEX__TELEMETRY__ACCESS_LOG", "all"),
    ]);
    let session = log_in(&server);
    let (token, long) = (
        text(&session, "access_token"),
        text(&session, "refresh_token"),
    );
    assert_eq!(by_token(&server, &token), 200);
    let next = refresh(&server, &session["refresh_token"]).json();
    let last = refresh(&server, &next["refresh_token"]).json();
    refresh(&server, &session["refresh_token"]);
    let credential = basic("ann", PASSWORD);
    predict(&server, &[("Authorization", &credential)]);
    let typed = "typed-in-the-wrong-field";
    for (name, password) in [("ann", typed), (typed, "x"), ("ann@example.org", typed)] {
        predict(&server, &[("Authorization", &basic(name, password))]);
        let body = json!({"username": name, "password": password}).to_string();
        post(&server, "/v1/auth/login", body);
    }
    post(
        &server,
        "/v1/auth/login",
        format!("{{\"username\": \"ann\", \"password\": \"{typed}"),
    );
    post(
        &server,
        "/v1/auth/login",
        json!({"username": "ann", typed: 1}).to_string(),
    );
    let mut forged = token.clone();
    forged.replace_range(token.len() - 8.., "AAAAAAAA");
    by_token(&server, &forged);
    by_token(&server, typed);
    server
        .connect()
        .send("GET", &format!("/v1/models?access_token={typed}"), &[], b"");
    server.connect().send(
        "GET",
        &format!("/v1/users?email={typed}@example.org"),
        &[("X-API-Key", &server.key)],
        b"",
    );
    server.run(&["tokens", "revoke", "--user", "ann"]);
    let key = server.key.clone();
    let log = server.stop();
    assert!(
        log.contains("/v1/auth/login") && log.contains("a token was refused"),
        "{log}"
    );
    let mut secrets = vec![
        PASSWORD.to_owned(),
        typed.into(),
        long,
        key,
        credential[6..].to_owned(),
    ];
    secrets.extend([&next, &last].map(|session| text(session, "refresh_token")));
    for token in [
        &token,
        &forged,
        &text(&next, "access_token"),
        &text(&last, "access_token"),
    ] {
        secrets.extend(token.split('.').skip(1).map(str::to_owned));
    }
    secrets.extend([
        "ann@example.org".into(),
        "\"ann\"".into(),
        "=ann ".into(),
        "Ann".into(),
    ]);
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[test]
fn what_an_operator_ends_is_over_within_a_second() {
    let (server, id) = with_ann(&[]);
    let (one, other, third) = (log_in(&server), log_in(&server), log_in(&server));
    let [first, second, last] = [&one, &other, &third].map(|session| text(session, "access_token"));
    for token in [&first, &second, &last] {
        assert_eq!(by_token(&server, token), 200);
    }
    server.run(&["tokens", "revoke", "--jti", &claim(&first, "jti")]);
    eventually(SECOND, "the token is refused", || {
        by_token(&server, &first) == 401
    });
    assert_eq!(
        refresh(&server, &one["refresh_token"]).status,
        200,
        "its session goes on"
    );
    server.run(&["tokens", "revoke", "--session", &claim(&second, "sid")]);
    eventually(SECOND, "the session is over", || {
        by_token(&server, &second) == 401
    });
    assert_eq!(refresh(&server, &other["refresh_token"]).status, 401);
    assert_eq!(by_token(&server, &last), 200);
    server.run(&["tokens", "revoke", "--user", "ann"]);
    eventually(SECOND, "all are over", || by_token(&server, &last) == 401);
    assert_eq!(refresh(&server, &third["refresh_token"]).status, 401);
    assert_eq!(
        by_token(&server, &text(&log_in(&server), "access_token")),
        200
    );
    let audit = server.get("/v1/audit?action=token.revoke").json();
    let targets: Vec<_> = audit["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|e| text(e, "target"))
        .collect();
    assert_eq!(targets.len(), 3, "{targets:?}");
    assert!(targets.contains(&format!("user:{id}")), "{targets:?}");
}

#[test]
fn a_leaked_signing_key_is_replaced_within_a_second() {
    let (server, _) = with_ann(&[]);
    let session = log_in(&server);
    let token = text(&session, "access_token");
    assert_eq!(by_token(&server, &token), 200);
    let published = || {
        let keys = server
            .connect()
            .send("GET", "/.well-known/jwks.json", &[], b"")
            .json();
        keys["keys"].as_array().expect("keys").len()
    };
    server.run(&["tokens", "rotate-key"]);
    eventually(SECOND, "the next key is published", || published() == 2);
    assert_eq!(by_token(&server, &token), 200);
    server.run(&["tokens", "rotate-key", "--drop-others"]);
    eventually(SECOND, "the token is refused", || {
        by_token(&server, &token) == 401
    });
    assert_eq!(published(), 1);
    let next = refresh(&server, &session["refresh_token"]).json();
    assert_eq!(by_token(&server, &text(&next, "access_token")), 200);
}

#[test]
fn commands_about_tokens_say_what_is_wrong() {
    let (server, _) = with_ann(&[]);
    let token = text(&log_in(&server), "access_token");
    for (arguments, code, said) in [
        (&["revoke"][..], 2, "--user"),
        (
            &["revoke", "--user", "ann", "--jti", "x"],
            2,
            "cannot be used with",
        ),
        (&["revoke", "--user", "nobody"], 1, "no such user"),
        (&["revoke", "--session", "0000000000000000"], 1, "sid"),
        (&["revoke", "--jti", &token], 1, "claim jti"),
    ] {
        let mut command = auspex();
        command
            .arg("tokens")
            .args(arguments)
            .arg("--data-dir")
            .arg(server.folder.path());
        let output = command.output().expect("runs");
        let error = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said) && !error.contains(&token), "{error}");
    }
    assert_eq!(by_token(&server, &token), 200);
}
