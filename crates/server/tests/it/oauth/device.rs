//! Programs without a browser (RFC 8628), from outside.

use serde_json::{Value, json};

use super::{PASSWORD, World, error_of, made, submit_login, text};
use crate::browser::{encode, hidden, location};
use crate::client::Answer;

const KIND: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The id of a public client of devices.
fn register(world: &World) -> String {
    let body = json!({"name": "Shell <i>", "grant_types": [KIND, "refresh_token"],
        "scopes": ["openid", "predict"], "public": true});
    text(&made(&world.server, "/v1/oauth-clients", &body)["client_id"])
}

fn begin(world: &World, client: &str) -> Value {
    let fields = [("client_id", client), ("scope", "openid predict")];
    let begun = world
        .browser()
        .post("/oauth2/device_authorization", &fields);
    assert_eq!(begun.status, 200, "{}", begun.text());
    assert_eq!(begun.header("cache-control"), Some("no-store"));
    begun.json()
}

fn poll(world: &World, client: &str, code: &str) -> Answer {
    let fields = [
        ("grant_type", KIND),
        ("client_id", client),
        ("device_code", code),
    ];
    world.browser().post("/oauth2/token", &fields)
}

fn decide(browser: &mut crate::browser::Browser, page: &Answer, decision: &str) -> Answer {
    let fields = [
        ("csrf_token", &*hidden(page, "csrf_token")),
        ("request", &*hidden(page, "request")),
        ("decision", decision),
    ];
    browser.post("/oauth2/device", &fields)
}

#[test]
fn a_command_line_logs_in_by_a_browser_elsewhere() {
    let world = World::start();
    let client = register(&world);
    let metadata = world.server.get("/.well-known/openid-configuration").json();
    assert_eq!(
        metadata["device_authorization_endpoint"],
        format!("{}/oauth2/device_authorization", world.issuer())
    );
    let kinds = metadata["grant_types_supported"]
        .as_array()
        .expect("a list");
    assert!(kinds.contains(&json!(KIND)));

    let begun = begin(&world, &client);
    let (code, shown) = (text(&begun["device_code"]), text(&begun["user_code"]));
    assert_eq!(
        begun["verification_uri"],
        format!("{}/oauth2/device", world.issuer())
    );
    let complete = text(&begun["verification_uri_complete"]);
    let pending = poll(&world, &client, &code);
    assert_eq!(
        (pending.status, error_of(&pending)),
        (400, "authorization_pending".into())
    );
    let faster = poll(&world, &client, &code);
    assert_eq!(error_of(&faster), "slow_down");

    // By themselves, without the code: they log in, enter it, and allow.
    let mut browser = world.browser();
    let login = browser.get("/oauth2/device");
    let wrong = submit_login(&mut browser, &login, "ann", "wrong");
    assert_eq!(wrong.status, 401, "{}", wrong.text());
    let back = submit_login(&mut browser, &wrong, "ann", PASSWORD);
    assert_eq!(location(&back).0, "/oauth2/device");
    let page = browser.get("/oauth2/device");
    for part in ["name=\"user_code\"", "somebody else gave you"] {
        assert!(page.text().contains(part), "{}", page.text());
    }
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("default-src 'none'") && !page.text().contains("<script"));
    let written = encode(&[("user_code", &*shown.to_lowercase().replace('-', " "))]);
    let asked = browser.get(&format!("/oauth2/device?{written}"));
    for part in [
        &*shown,
        "Shell &#60;i&#62;",
        "Ann &#60;i&#62;",
        "cannot prove",
    ] {
        assert!(asked.text().contains(part), "{part}: {}", asked.text());
    }
    let unasked = browser.send("POST", "/oauth2/device", &[], "");
    assert_eq!(unasked.status, 400, "{}", unasked.text());
    assert_eq!(
        decide(&mut world.browser(), &asked, "allow").status,
        403,
        "another browser"
    );
    let done = decide(&mut browser, &asked, "allow");
    assert_eq!(done.status, 200, "{}", done.text());

    let tokens = poll(&world, &client, &code);
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    let tokens = tokens.json();
    assert!(tokens["refresh_token"].is_string() && tokens["id_token"].is_string());
    assert_eq!(world.status_with(&text(&tokens["access_token"])), 200);
    assert_eq!(error_of(&poll(&world, &client, &code)), "invalid_grant");
    let again = browser.get(complete.split_once(&world.issuer()).expect("ours").1);
    assert_eq!(again.status, 404);
    // They see it, and can end it.
    let account = browser.get("/oauth2/login");
    assert!(
        account.text().contains("Shell &#60;i&#62;"),
        "{}",
        account.text()
    );
    let withdrawn = [
        ("csrf_token", &*hidden(&account, "csrf_token")),
        ("request", &*hidden(&account, "request")),
        ("withdraw", &*client),
    ];
    browser.post("/oauth2/account", &withdrawn);
    assert_eq!(world.status_with(&text(&tokens["access_token"])), 401);
}

#[test]
fn a_command_line_that_is_denied_gets_nothing() {
    let world = World::start();
    let client = register(&world);
    let begun = begin(&world, &client);
    let complete = text(&begun["verification_uri_complete"]);
    let (_, path) = complete.split_once(&world.issuer()).expect("ours");
    let mut browser = world.browser();
    let asked = world.log_in(&mut browser, path);
    let done = decide(&mut browser, &asked, "deny");
    assert_eq!(done.status, 200, "{}", done.text());
    let denied = poll(&world, &client, &text(&begun["device_code"]));
    assert_eq!(
        (denied.status, error_of(&denied)),
        (400, "access_denied".into())
    );
    let denials = world.server.get("/v1/audit?action=consent.deny");
    assert!(denials.text().contains("on a device"), "{}", denials.text());
}

#[test]
fn one_address_cannot_take_all_places_of_a_client() {
    let world = World::start();
    let client = register(&world);
    for _ in 0..90 {
        begin(&world, &client);
    }
    let fields = [("client_id", &*client)];
    let begun = || {
        let mut browser = world.browser();
        browser.post("/oauth2/device_authorization", &fields)
    };
    let refused = (0..20).map(|_| begun()).find(|answer| answer.status != 200);
    let refused = refused.expect("an end");
    assert_eq!(refused.status, 429);
    assert_eq!(error_of(&refused), "temporarily_unavailable");
    assert!(refused.header("retry-after").is_some());
    // Those that wait already ask as before.
    assert_eq!(error_of(&poll(&world, &client, "x")), "invalid_grant");
}
