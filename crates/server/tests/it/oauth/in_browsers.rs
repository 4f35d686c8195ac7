//! Clients that run in a browser: pages of other origins call the endpoints that they need.

use std::time::Duration;

use serde_json::json;

use super::{CHALLENGE, VERIFIER, World, made, submit_consent, text};
use crate::browser::{encode, location};
use crate::client::Answer;
use crate::server::eventually;

const APP: &str = "http://localhost:5173";
const OTHER: &str = "http://localhost:5174";

impl World {
    fn app_in_browsers(&self) -> String {
        let client = json!({"name": "App", "redirect_uris": [format!("{APP}/"), "org.example.app:/cb"],
            "grant_types": ["authorization_code", "refresh_token"], "scopes": ["openid", "predict"],
            "public": true});
        text(&made(&self.server, "/v1/oauth-clients", &client)["client_id"])
    }

    fn page_sends(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        let headers = [&[form], more].concat();
        let mut connection = self.server.connect();
        connection.send(method, path, &headers, body.as_bytes())
    }

    fn is_let_in(&self, path: &str, origin: &str) -> bool {
        let asks = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        let answer = self.page_sends("OPTIONS", path, &asks, "");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, (answer.status == 204).then_some(origin), "{path}");
        answer.status == 204
    }
}

#[test]
fn a_page_of_a_public_client_gets_and_uses_its_tokens() {
    let world = World::start();
    let client = world.app_in_browsers();
    let back = format!("{APP}/");
    let changes = [("client_id", &*client), ("redirect_uri", &*back)];
    let mut browser = world.browser();
    let page = world.log_in(&mut browser, &world.request(&changes));
    let code = location(&submit_consent(&mut browser, &page, "allow")).1["code"].clone();
    for path in [
        "/oauth2/token",
        "/oauth2/revoke",
        "/oauth2/userinfo",
        "/oauth2/device_authorization",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/jwks.json",
    ] {
        assert!(
            world.is_let_in(path, APP) && !world.is_let_in(path, OTHER),
            "{path}"
        );
    }
    for path in [
        "/oauth2/login",
        "/oauth2/authorize",
        "/oauth2/introspect",
        "/v1/me",
        "/v1/users",
    ] {
        assert!(!world.is_let_in(path, APP), "{path}");
    }
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", client.as_str()),
        ("code", code.as_str()),
        ("redirect_uri", back.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let read = |answer: &Answer| {
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, Some(APP), "{}", answer.text());
        assert_eq!(answer.header("vary"), Some("Origin"));
        answer.json()
    };
    let app = ("Origin", APP);
    let got = world.page_sends("POST", "/oauth2/token", &[app], &encode(&fields));
    let tokens = read(&got);
    assert_eq!(got.status, 200, "{}", got.text());
    let again = world.page_sends("POST", "/oauth2/token", &[app], &encode(&fields[..2]));
    assert_eq!(read(&again)["error"], "invalid_request", "{CHALLENGE}");
    let refresh = text(&tokens["refresh_token"]);
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", refresh.as_str()),
    ];
    let tokens = world.page_sends("POST", "/oauth2/token", &[app], &encode(&fields));
    let tokens = read(&tokens);
    let bearer = format!("Bearer {}", text(&tokens["access_token"]));
    let with_token = ("Authorization", bearer.as_str());
    let user = world.page_sends("GET", "/oauth2/userinfo", &[app, with_token], "");
    assert_eq!(read(&user)["sub"], world.user);
    let foreign = [("Origin", OTHER), with_token];
    let refused = world.page_sends("GET", "/oauth2/userinfo", &foreign, "");
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("access-control-allow-origin"), None);
    // What a browser adds by itself is no token.
    let basic = [app, ("Authorization", "Basic YW5uOng=")];
    let refused = world.page_sends("GET", "/oauth2/userinfo", &basic, "");
    assert_eq!(refused.status, 403);
    // And the token opens the rest of the API to nobody's page.
    let elsewhere = world.page_sends("GET", "/v1/me", &[app, with_token], "");
    assert_eq!(elsewhere.status, 403, "{}", elsewhere.text());
    let fields = [
        ("client_id", client.as_str()),
        ("token", bearer.trim_start_matches("Bearer ")),
    ];
    let revoked = world.page_sends("POST", "/oauth2/revoke", &[app], &encode(&fields));
    assert_eq!(revoked.status, 200);
    assert_eq!(revoked.header("access-control-allow-origin"), Some(APP));
    let ended = world.page_sends("GET", "/oauth2/userinfo", &[app, with_token], "");
    assert_eq!(
        (ended.status, read(&ended)["error"].is_object()),
        (401, true)
    );
}

#[test]
fn origins_come_and_go_with_the_clients_that_have_them() {
    let world = World::start();
    let token = "/oauth2/token";
    let (own, notebook) = ("https://app.example.org", "http://127.0.0.1");
    // One with a secret runs on a server; a notebook listens at a port that nobody knows beforehand.
    assert!(!world.is_let_in(token, own) && world.is_let_in(token, notebook));
    assert!(!world.is_let_in(token, APP));
    let client = world.app_in_browsers();
    assert!(world.is_let_in(token, APP) && !world.is_let_in(token, "null"));
    assert!(
        !world.is_let_in(token, "org.example.app:") && !world.is_let_in(token, "http://localhost")
    );
    let path = format!("/v1/oauth-clients/{client}");
    let moved = json!({"redirect_uris": [format!("{OTHER}/in")]}).to_string();
    let json = [
        ("X-API-Key", world.server.key.as_str()),
        ("Content-Type", "application/json"),
    ];
    let changed = world
        .server
        .connect()
        .send("PATCH", &path, &json, moved.as_bytes());
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert!(!world.is_let_in(token, APP) && world.is_let_in(token, OTHER));
    // Another process, which the server follows.
    let uri = format!("{APP}/again");
    let update = ["clients", "update", &client, "--redirect-uri", &uri];
    world.server.run(&update);
    eventually(Duration::from_secs(5), "the other origin", || {
        world.is_let_in(token, APP)
    });
    assert!(!world.is_let_in(token, OTHER));
    let key = [("X-API-Key", world.server.key.as_str())];
    let removed = world.server.connect().send("DELETE", &path, &key, b"");
    assert_eq!(removed.status, 204);
    assert!(!world.is_let_in(token, APP));
}

#[test]
fn a_wrong_method_is_told_in_the_form_of_its_path() {
    let world = World::start();
    let answer = world.browser().get("/oauth2/token");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(answer.json()["error"], "invalid_request");
    let page = world.browser().send("PUT", "/oauth2/login", &[], "");
    assert_eq!(page.status, 405);
    assert!(page.text().contains("role=\"alert\""), "{}", page.text());
    let usual = world.browser().send("PUT", "/v1/oauth-clients", &[], "");
    assert_eq!(usual.json()["error"]["code"], "METHOD_NOT_ALLOWED");
}
