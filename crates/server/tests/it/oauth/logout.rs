//! The end of a login at the provider, for a client and by hand.

use serde_json::json;

use super::{CALLBACK, VERIFIER, World, made, submit_consent, submit_login, text};
use crate::browser::{Browser, encode, hidden, location};
use crate::client::Answer;

const HOME: &str = "https://app.example.org/bye";

struct LoggedIn {
    world: World,
    browser: Browser,
    id_token: String,
    refresh_token: String,
}

impl LoggedIn {
    /// Somebody is logged in, here and at an application that wants them back after a logout.
    fn start() -> Self {
        let mut world = World::start();
        let app = json!({"name": "Leaving", "redirect_uris": [CALLBACK], "scopes": ["openid"],
            "post_logout_redirect_uris": [HOME],
            "grant_types": ["authorization_code", "refresh_token"]});
        let app = made(&world.server, "/v1/oauth-clients", &app);
        assert_eq!(app["post_logout_redirect_uris"], json!([HOME]));
        world.app = (text(&app["client_id"]), text(&app["client_secret"]));
        let mut browser = world.browser();
        let consent = world.log_in(&mut browser, &world.request(&[("scope", "openid")]));
        let back = location(&submit_consent(&mut browser, &consent, "allow")).1;
        let tokens = world.redeem(&back["code"], VERIFIER).json();
        Self {
            id_token: text(&tokens["id_token"]),
            refresh_token: text(&tokens["refresh_token"]),
            browser,
            world,
        }
    }

    fn is_logged_in(&mut self) -> bool {
        let page = self.browser.get("/oauth2/login");
        page.text().contains("You are logged in")
    }

    fn ask(&mut self, fields: &[(&str, &str)]) -> Answer {
        self.browser
            .get(&format!("/oauth2/end-session?{}", encode(fields)))
    }
}

#[test]
fn with_its_id_token_a_client_ends_the_login_and_has_the_user_back() {
    let mut person = LoggedIn::start();
    let metadata = person
        .world
        .server
        .get("/.well-known/openid-configuration")
        .json();
    let endpoint = format!("{}/oauth2/end-session", person.world.issuer());
    assert_eq!(metadata["end_session_endpoint"], *endpoint);
    let (hint, id) = (person.id_token.clone(), person.world.app.0.clone());
    let fields = [
        ("id_token_hint", &*hint),
        ("client_id", &*id),
        ("post_logout_redirect_uri", HOME),
        ("state", "a b&c"),
    ];
    let gone = person.ask(&fields);
    let (place, back) = location(&gone);
    assert_eq!((gone.status, place.as_str()), (303, HOME));
    assert_eq!(back["state"], "a b&c");
    assert!(!person.is_logged_in());
    // What the client has got is its own to revoke.
    assert_eq!(person.world.refresh(&person.refresh_token, "").status, 200);
    // There is nothing more to end, and the way is the same.
    assert_eq!(location(&person.ask(&fields)).0, HOME);
    let told = person.ask(&[("id_token_hint", &hint)]);
    assert!(
        told.text().contains("You are logged out"),
        "{}",
        told.text()
    );
}

#[test]
fn without_an_id_token_of_theirs_a_person_is_asked() {
    let mut person = LoggedIn::start();
    let bob = json!({"name": "Bob", "email": "bob@example.org", "username": "bob",
        "password": super::PASSWORD, "roles": ["viewer"]});
    made(&person.world.server, "/v1/users", &bob);
    let id = person.world.app.0.clone();
    let own = person.id_token.clone();
    let by_client = [("client_id", &*id), ("post_logout_redirect_uri", HOME)];
    let garbage = [&by_client[..], &[("id_token_hint", "x.y.z")]].concat();
    for fields in [&by_client[..], &garbage, &[]] {
        let asked = person.ask(fields);
        assert_eq!(asked.status, 200, "{fields:?}");
        assert!(
            asked.text().contains("<h1>Log out?</h1>"),
            "{}",
            asked.text()
        );
        assert!(person.is_logged_in(), "{fields:?}");
    }
    let asked = person.ask(&by_client);
    let (token, request) = (hidden(&asked, "csrf_token"), hidden(&asked, "request"));
    for (token, request) in [("", &*request), ("AAAA", &request)] {
        let fields = [("csrf_token", token), ("request", request)];
        assert_eq!(person.browser.post("/oauth2/logout", &fields).status, 403);
    }
    assert!(person.is_logged_in());
    let fields = [("csrf_token", &*token), ("request", &*request)];
    assert_eq!(
        location(&person.browser.post("/oauth2/logout", &fields)).0,
        HOME
    );
    assert!(!person.is_logged_in());
    // An ID token of somebody else ends nobody's login unasked.
    let login = person.browser.get("/oauth2/login");
    submit_login(&mut person.browser, &login, "bob", super::PASSWORD);
    let asked = person.ask(&[("id_token_hint", &own)]);
    assert!(asked.text().contains("as <strong>Bob"), "{}", asked.text());
    assert!(person.is_logged_in());
}

#[test]
fn a_logout_leads_nowhere_but_to_what_the_client_registered() {
    let mut person = LoggedIn::start();
    let (hint, id) = (person.id_token.clone(), person.world.app.0.clone());
    let other = person.world.notebook.clone();
    let long = "x".repeat(9_000);
    let wrong: [&[(&str, &str)]; 4] = [
        &[("client_id", "nobody"), ("post_logout_redirect_uri", HOME)],
        &[("client_id", &other), ("id_token_hint", &hint)],
        &[("client_id", &id), ("client_id", &id)],
        &[("id_token_hint", &hint), ("state", &long)],
    ];
    let shown = |answer: Answer, what: &str| {
        assert_eq!(
            (answer.status, answer.header("location")),
            (400, None),
            "{what}"
        );
        assert!(answer.text().contains("role=\"alert\""), "{what}");
    };
    for fields in wrong {
        shown(person.ask(fields), &format!("{fields:?}"));
        let posted = person.browser.post("/oauth2/end-session", fields);
        assert_eq!(
            (posted.status, posted.header("location")),
            (400, None),
            "{fields:?}"
        );
    }
    shown(
        person.browser.get("/oauth2/end-session?state=%ff"),
        "no UTF-8",
    );
    let json = [("Content-Type", "application/json")];
    let sent = person
        .browser
        .send("POST", "/oauth2/end-session", &json, "{}");
    shown(sent, "no form");
    assert!(person.is_logged_in());
    // By a form of the client's site no cookie comes; the browser comes again with it.
    let fields = [
        ("id_token_hint", &*hint),
        ("post_logout_redirect_uri", HOME),
    ];
    let step = person.world.browser().post("/oauth2/end-session", &fields);
    let step = step.header("location").expect("a place").to_owned();
    // Addresses are kept in histories and logs, where no token belongs.
    assert!(
        !step.contains(&hint) && !step.contains("id_token_hint"),
        "{step}"
    );
    assert_eq!(location(&person.browser.get(&step)).0, HOME);
    assert!(!person.is_logged_in());
}

#[test]
fn who_wants_to_log_out_does_also_where_nobody_is_sent_back() {
    for uri in [
        CALLBACK,
        "https://app.example.org/bye/",
        "https://evil.example/",
        "javascript:alert(1)",
    ] {
        let mut person = LoggedIn::start();
        let hint = person.id_token.clone();
        let fields = [("id_token_hint", &*hint), ("post_logout_redirect_uri", uri)];
        let out = person.ask(&fields);
        assert_eq!((out.status, out.header("location")), (200, None), "{uri}");
        let text = out.text();
        assert!(
            text.contains("has not registered") && !text.contains(uri),
            "{text}"
        );
        assert!(!person.is_logged_in());
    }
    // Without a proof of who is meant they are asked first.
    let mut person = LoggedIn::start();
    let asked = person.ask(&[("post_logout_redirect_uri", HOME)]);
    assert!(asked.text().contains("Log out?"), "{}", asked.text());
    assert!(person.is_logged_in());
}
