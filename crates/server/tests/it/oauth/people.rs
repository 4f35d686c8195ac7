//! Whom a client expects, who is logged in, and what becomes of it in two tabs.

use serde_json::json;

use super::{CALLBACK, PASSWORD, VERIFIER, World, made, submit_consent, submit_login, text, value};
use crate::browser::{Browser, hidden, location};
use crate::client::Answer;

/// A world with a second person, and what each needs to be recognised.
struct Two {
    world: World,
    ann: String,
    bob: String,
}

impl Two {
    fn start() -> Self {
        let world = World::start();
        let bob = json!({"name": "Bob", "email": "bob@example.org", "username": "bob",
            "password": PASSWORD, "roles": ["data-scientist"]});
        made(&world.server, "/v1/users", &bob);
        let (ann, bob) = (id_token(&world, "ann"), id_token(&world, "bob"));
        Self { world, ann, bob }
    }

    /// A browser in which somebody is logged in, who has agreed before.
    fn browser_of(&self, name: &str) -> Browser {
        let mut browser = self.world.browser();
        let login = browser.get("/oauth2/login");
        submit_login(&mut browser, &login, name, PASSWORD);
        browser
    }
}

fn id_token(world: &World, name: &str) -> String {
    let mut browser = world.browser();
    let login = browser.get(&world.request(&[]));
    let answer = submit_login(&mut browser, &login, name, PASSWORD);
    let consent = browser.get(answer.header("location").expect("a place"));
    let back = location(&submit_consent(&mut browser, &consent, "allow")).1;
    let tokens = world.redeem(&back["code"], VERIFIER);
    text(&tokens.json()["id_token"])
}

fn error(answer: &Answer) -> String {
    let (place, back) = location(answer);
    assert_eq!(place, CALLBACK);
    back.get("error").cloned().unwrap_or_default()
}

#[test]
fn a_client_that_expects_one_user_never_gets_another() {
    let two = Two::start();
    let mut browser = two.browser_of("bob");
    for (hint, refused) in [
        (("id_token_hint", two.ann.as_str()), "login_required"),
        (("id_token_hint", &two.bob), ""),
        (("login_hint", "ann"), "login_required"),
        (("login_hint", "ann@example.org"), "login_required"),
        (("login_hint", &two.world.user), "login_required"),
        (("login_hint", "nobody"), "login_required"),
        (("login_hint", "bob"), ""),
        (("login_hint", "BOB@example.org"), ""),
    ] {
        let silent = two.world.request(&[("prompt", "none"), hint]);
        assert_eq!(error(&browser.get(&silent)), refused, "{hint:?}");
    }
    // Who is not the one can go on all the same where a name was only a hint, and go back otherwise.
    let instead = |page: &Answer| {
        let text = page.text();
        let (_, link) = text
            .split_once("class=\"aside\"><a href=\"")
            .expect("a link");
        link.split('"')
            .next()
            .expect("an end")
            .replace("&#38;", "&")
    };
    let login = browser.get(&two.world.request(&[("login_hint", "ann")]));
    assert!(login.text().contains("Go on as Bob"), "{}", login.text());
    let on = browser.get(&instead(&login));
    assert!(location(&on).1.contains_key("code"));
    let login = browser.get(&two.world.request(&[("id_token_hint", &two.ann)]));
    assert!(
        login.text().contains("Back to app.example.org"),
        "{}",
        login.text()
    );
    assert!(instead(&login).starts_with(&format!("{CALLBACK}?error=login_required&")));
    // An id is no name to log in with, and what can be no name is a text of whoever made the link.
    let long = "x".repeat(300);
    for text in ["Call 555 now\u{202e}", &long, &two.world.user] {
        let login = browser.get(&two.world.request(&[("login_hint", text)]));
        assert!(
            login
                .text()
                .contains("name=\"username\" type=\"text\" value=\"\"")
        );
    }
    // Asked for, somebody else logs in, and is the one who goes on.
    let asked = two.world.request(&[("id_token_hint", &two.ann)]);
    let login = browser.get(&asked);
    let said = "You are logged in as Bob.";
    assert_eq!(login.status, 200);
    assert!(login.text().contains(said), "{}", login.text());
    let again = submit_login(&mut browser, &login, "bob", PASSWORD);
    let login = browser.get(again.header("location").expect("a place"));
    assert!(login.text().contains(said), "{}", login.text());
    let done = submit_login(&mut browser, &login, "ann", PASSWORD);
    let back = browser.get(done.header("location").expect("a place"));
    assert!(location(&back).1.contains_key("code"));
    // A name is only a hint: it is filled in, and they may choose another.
    let login = browser.get(&two.world.request(&[("login_hint", "bob@example.org")]));
    assert!(
        login.text().contains("value=\"bob@example.org\""),
        "{}",
        login.text()
    );
    let done = submit_login(&mut browser, &login, "ann", PASSWORD);
    let back = browser.get(done.header("location").expect("a place"));
    assert!(location(&back).1.contains_key("code"));
}

#[test]
fn a_hint_is_an_id_token_that_the_client_was_given() {
    let two = Two::start();
    let world = &two.world;
    let (access_token, refresh_token) = world.tokens();
    let (signed, signature) = two.ann.rsplit_once('.').expect("a signature");
    let long = format!("{}{}", two.ann, "A".repeat(7_000));
    for wrong in [
        "x",
        "..",
        "eyJhbGciOiJub25lIn0.e30.",
        &access_token,
        &refresh_token,
        &format!("{signed}."),
        &format!("{signed}.{}", signature.to_uppercase()),
        &long,
    ] {
        for prompt in ["", "none"] {
            let request = world.request(&[("id_token_hint", wrong), ("prompt", prompt)]);
            assert_eq!(
                error(&world.browser().get(&request)),
                "invalid_request",
                "{wrong}"
            );
        }
    }
    let foreign = world.request(&[
        ("id_token_hint", &two.ann),
        ("client_id", &world.notebook),
        ("redirect_uri", super::LOOPBACK),
    ]);
    let back = location(&world.browser().get(&foreign)).1;
    assert_eq!(back["error"], "invalid_request");
    let twice = format!(
        "{}&id_token_hint=x",
        world.request(&[("id_token_hint", &two.ann)])
    );
    assert_eq!(error(&world.browser().get(&twice)), "invalid_request");
}

#[test]
fn who_has_no_right_to_what_is_asked_is_told_and_can_switch() {
    let world = World::start();
    let request = world.request(&[("scope", "users:write")]);
    let mut browser = world.browser();
    let told = world.log_in(&mut browser, &request);
    assert_eq!(told.status, 200);
    for part in [
        "no right to",
        "Ann &#60;i&#62;",
        "Create, change and remove users",
    ] {
        assert!(told.text().contains(part), "{part}: {}", told.text());
    }
    let silent = browser.get(&format!("{request}&prompt=none"));
    assert_eq!(error(&silent), "access_denied");
    assert_eq!(
        error(&submit_consent(&mut browser, &told, "deny")),
        "access_denied"
    );
    assert_eq!(
        error(&submit_consent(&mut browser, &told, "allow")),
        "access_denied"
    );
    let fields = [
        ("csrf_token", &*hidden(&told, "csrf_token")),
        ("request", &*hidden(&told, "request")),
    ];
    let out = browser.post("/oauth2/logout", &fields);
    let login = browser.get(out.header("location").expect("a place"));
    assert!(login.text().contains("<h1>Log in</h1>"), "{}", login.text());
    // Who has some of it is told what is left out.
    let some = world.log_in(
        &mut browser,
        &world.request(&[("scope", "predict users:write")]),
    );
    assert!(some.text().contains("have no right to"), "{}", some.text());
}

#[test]
fn the_form_of_a_first_tab_goes_on_after_a_login_in_a_second() {
    let two = Two::start();
    let world = &two.world;
    let mut browser = world.browser();
    let asked = world.request(&[("prompt", "consent")]);
    let first_login = browser.get(&asked);
    let first_consent = world.log_in(&mut browser, &asked);
    // The same person once more, in a second tab.
    let again = browser.get(&world.request(&[("prompt", "login")]));
    submit_login(&mut browser, &again, "ann", PASSWORD);
    let back = submit_consent(&mut browser, &first_consent, "allow");
    let back: Vec<_> = location(&back).1.into_iter().collect();
    assert!(value(&back, "code").is_some(), "{back:?}");
    let late = submit_login(&mut browser, &first_login, "ann", PASSWORD);
    assert_eq!(late.status, 303);
    // Somebody else: nothing is agreed to in their name, and they are asked.
    let login = browser.get(&world.request(&[("prompt", "login")]));
    submit_login(&mut browser, &login, "bob", PASSWORD);
    let place = submit_consent(&mut browser, &first_consent, "allow");
    let place = place.header("location").expect("a place");
    assert!(place.starts_with("/oauth2/authorize?"), "{place}");
    assert!(browser.get(place).text().contains("as <strong>Bob"));
}
