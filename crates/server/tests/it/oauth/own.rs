//! What people see of their sessions and consents, and end.

use serde_json::{Value, json};

use super::{PASSWORD, World, made, submit_login, text};
use crate::browser::{Browser, hidden};
use crate::client::Answer;

impl World {
    /// A request by the tokens of a login of one's own, which it also returns.
    fn log_in_by_api(&self, name: &str) -> Value {
        let body = json!({"username": name, "password": PASSWORD});
        let answer = self.server.post("/v1/auth/login", body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    fn by(&self, token: &Value, method: &str, path: &str) -> Answer {
        let bearer = format!("Bearer {}", text(token));
        let headers = [("Authorization", bearer.as_str())];
        self.server.connect().send(method, path, &headers, b"")
    }
}

fn data(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().expect("a list").clone()
}

#[test]
fn users_see_their_sessions_and_end_them_by_api() {
    let world = World::start();
    let bob = json!({"name": "Bob", "email": "bob@example.org", "username": "bob",
        "password": PASSWORD, "roles": ["viewer"]});
    made(&world.server, "/v1/users", &bob);
    let mut browser = world.browser();
    let login = browser.get("/oauth2/login");
    submit_login(&mut browser, &login, "ann", PASSWORD);
    let (mine, other) = (world.log_in_by_api("ann"), world.log_in_by_api("ann"));
    let token = &mine["access_token"];
    let sessions = data(&world.by(token, "GET", "/v1/me/sessions"));
    let of = |kind: &str, current: bool| {
        let mut found = sessions.iter();
        let found = found.find(|one| one["kind"] == kind && one["current"] == current);
        text(&found.unwrap_or_else(|| panic!("{sessions:?}"))["id"])
    };
    assert_eq!(sessions.len(), 3);
    let (at_pages, another) = (of("browser", false), of("tokens", false));
    of("tokens", true);
    let page = data(&world.by(token, "GET", "/v1/me/sessions?limit=2"));
    assert_eq!(page, sessions[..2]);
    // Nobody else's.
    let bob = world.log_in_by_api("bob");
    assert_eq!(
        data(&world.by(&bob["access_token"], "GET", "/v1/me/sessions")).len(),
        1
    );
    for id in [&at_pages, &another] {
        let path = format!("/v1/me/sessions/{id}");
        assert_eq!(world.by(&bob["access_token"], "DELETE", &path).status, 404);
        assert_eq!(world.by(token, "DELETE", &path).status, 204);
        assert_eq!(world.by(token, "DELETE", &path).status, 404);
    }
    assert_eq!(
        world.by(&other["access_token"], "GET", "/v1/me").status,
        401
    );
    assert!(
        browser
            .get("/oauth2/login")
            .text()
            .contains("<h1>Log in</h1>")
    );
    let long = "x".repeat(2_000);
    for id in [
        "browser-",
        "browser-0000000000000000",
        "%00",
        "%ff",
        "..",
        long.as_str(),
    ] {
        let path = format!("/v1/me/sessions/{id}");
        assert_eq!(world.by(token, "DELETE", &path).status, 404, "{id}");
        let path = format!("/v1/me/consents/{id}");
        assert_eq!(world.by(token, "DELETE", &path).status, 404, "{id}");
    }
}

#[test]
fn a_withdrawn_consent_ends_what_it_gave_at_once() {
    let world = World::start();
    let (access, refresh) = world.tokens();
    let unused = world.code();
    let mine = world.log_in_by_api("ann");
    let token = &mine["access_token"];
    let consents = data(&world.by(token, "GET", "/v1/me/consents"));
    assert_eq!(consents.len(), 1, "{consents:?}");
    assert_eq!(consents[0]["client_id"], *world.app.0);
    assert_eq!(consents[0]["scopes"], json!(["openid", "predict"]));
    assert_eq!(consents[0]["sessions"], 1);
    let path = format!("/v1/me/consents/{}", world.app.0);
    // Neither the application itself nor a key can do this.
    assert_eq!(world.by(&json!(access), "DELETE", &path).status, 403);
    assert_eq!(
        world.by(&json!(access), "GET", "/v1/me/sessions").status,
        403
    );
    let key = [("X-API-Key", world.server.key.as_str())];
    let by_key = world.server.connect().send("DELETE", &path, &key, b"");
    assert_eq!(by_key.status, 403);
    assert_eq!(world.status_with(&access), 200);
    assert_eq!(world.by(token, "DELETE", &path).status, 204);
    assert_eq!(world.status_with(&access), 401);
    assert_eq!(
        super::error_of(&world.refresh(&refresh, "")),
        "invalid_grant"
    );
    let redeemed = world.redeem(&unused, super::VERIFIER);
    assert_eq!(super::error_of(&redeemed), "invalid_grant");
    assert_eq!(world.by(token, "DELETE", &path).status, 404);
    assert!(data(&world.by(token, "GET", "/v1/me/consents")).is_empty());
    // Their own login goes on, and the next time they are asked.
    let asked = world.log_in(&mut world.browser(), &world.request(&[]));
    assert!(asked.text().contains("<h1>Allow"), "{}", asked.text());
}

#[test]
fn people_end_sessions_and_consents_on_the_page() {
    let world = World::start();
    let (access, _) = world.tokens();
    world.log_in_by_api("ann");
    let mut browser = world.browser();
    let login = browser.get("/oauth2/login");
    submit_login(&mut browser, &login, "ann", PASSWORD);
    let page = browser.get("/oauth2/login");
    let button = |page: &Answer, name: &str| {
        let begin = format!("name=\"{name}\" value=\"");
        let rest = page
            .text()
            .split_once(&begin)
            .expect("a button")
            .1
            .to_owned();
        rest.split('"').next().expect("an end").to_owned()
    };
    assert!(page.text().contains("App &#60;b&#62;"), "{}", page.text());
    let (token, request) = (hidden(&page, "csrf_token"), hidden(&page, "request"));
    let own = [("csrf_token", &*token), ("request", &*request)];
    let session = ("end_session", &*button(&page, "end_session"));
    let client = button(&page, "withdraw");
    let withdraw = ("withdraw", &*client);
    let post = |browser: &mut Browser, fields: &[(&str, &str)]| {
        let answer = browser.post("/oauth2/account", fields);
        (answer.status, answer.header("location").map(str::to_owned))
    };
    let long = ("withdraw", &*"x".repeat(70_000));
    for (fields, status) in [
        (vec![withdraw], 403),
        (vec![("csrf_token", "AAAA"), own[1], withdraw], 403),
        (vec![own[0], withdraw], 403),
        (own.to_vec(), 400),
        ([&own[..], &[withdraw, session]].concat(), 400),
        ([&own[..], &[withdraw, withdraw]].concat(), 400),
        ([&own[..], &[long]].concat(), 413),
    ] {
        assert_eq!(post(&mut browser, &fields), (status, None));
    }
    let fields = [own[0], own[1], withdraw];
    assert_eq!(post(&mut world.browser(), &fields).0, 403);
    assert_eq!(world.status_with(&access), 200);
    let back = (303, Some("/oauth2/login".to_owned()));
    for _ in 0..2 {
        assert_eq!(post(&mut browser, &fields), back);
        assert_eq!(world.status_with(&access), 401);
    }
    let page = browser.get("/oauth2/login");
    assert!(page.text().contains("There are none."), "{}", page.text());
    // All of them, the one of this browser last or not.
    for _ in 0..10 {
        let page = browser.get("/oauth2/login");
        if !page.text().contains("You are logged in") {
            return;
        }
        let fields = [
            ("csrf_token", &*hidden(&page, "csrf_token")),
            ("request", &*hidden(&page, "request")),
            ("end_session", &*button(&page, "end_session")),
        ];
        assert_eq!(post(&mut browser, &fields), back);
    }
    panic!("the sessions do not end");
}
