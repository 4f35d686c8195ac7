//! The device grant: from the code that a program shows to its tokens, and every way that this ends.

use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{ClientChange, Expected, Identity, Role, UserChange};
use auspex_kernel::Timestamp;
use serde_json::{Value, json};

use crate::OPERATOR;
use crate::oauth::{Browser, Seen, ann, register};
use crate::person::{PASSWORD, change, part};
use crate::store::{Store, execute, texts};

const KIND: &str = "urn:ietf:params:oauth:grant-type:device_code";

contract! {
    a_device_gets_the_tokens_that_somebody_allows_elsewhere
    a_device_is_told_what_is_wrong
    a_device_that_asks_too_often_is_to_ask_more_slowly
    a_device_has_ten_minutes
    of_ten_questions_in_two_processes_one_gets_tokens
    an_allowed_device_is_worth_what_its_user_and_client_still_are
    a_decision_belongs_to_one_login_and_what_it_was_shown
    codes_cannot_be_guessed_without_end
    so_many_devices_wait_and_no_more
    devices_that_have_ended_are_removed
    no_device_code_is_stored
}

/// A client of devices; its id and its secret.
async fn client(identity: &Arc<Identity>, changes: Value) -> (String, String) {
    let mut all =
        json!({"redirect_uris": [], "grant_types": [KIND, "refresh_token"], "public": true});
    for (name, value) in changes.as_object().unwrap() {
        all[name] = value.clone();
    }
    register(identity, all).await
}

fn as_client<'a>(
    (id, secret): &'a (String, String),
    fields: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let own = [("client_id", &**id), ("client_secret", &**secret)];
    let own = own.into_iter().filter(|(_, value)| !value.is_empty());
    own.chain(fields.iter().copied()).collect()
}

async fn begin(identity: &Arc<Identity>, app: &(String, String), scope: &str) -> Seen {
    let fields = as_client(app, &[("scope", scope)]);
    let mut device = Browser::new(identity);
    device.post("/oauth2/device_authorization", &fields).await
}

/// The device code and the address with the user code.
async fn begun(identity: &Arc<Identity>, app: &(String, String)) -> (String, String) {
    let seen = begin(identity, app, "").await;
    assert_eq!(seen.status, 200, "{}", seen.text);
    let text = |name: &str| seen.json()[name].as_str().unwrap().to_owned();
    let page = text("verification_uri_complete");
    let (_, path) = page.split_once("example.org").unwrap();
    (text("device_code"), path.to_owned())
}

async fn poll(identity: &Arc<Identity>, app: &(String, String), code: &str) -> Seen {
    let fields = as_client(app, &[("grant_type", KIND), ("device_code", code)]);
    Browser::new(identity).post("/oauth2/token", &fields).await
}

async fn told(identity: &Arc<Identity>, app: &(String, String), code: &str) -> String {
    let seen = poll(identity, app, code).await;
    let error = seen.json()["error"].as_str().unwrap_or("none").to_owned();
    let expected = if error == "none" { 200 } else { 400 };
    assert_eq!(seen.status, expected, "{}", seen.text);
    error
}

/// A browser that is logged in.
async fn logged_in(identity: &Arc<Identity>) -> Browser {
    let mut browser = Browser::new(identity);
    let page = browser.get("/oauth2/login").await;
    assert_eq!(browser.log_in(&page).await.status, 303);
    browser
}

async fn decide(browser: &mut Browser, page: &Seen, decision: &str) -> Seen {
    let fields = [
        ("csrf_token", page.hidden("csrf_token")),
        ("request", page.hidden("request")),
        ("decision", decision),
    ];
    browser.post("/oauth2/device", &fields).await
}

/// Allows the device of the page at `path`.
async fn allow(identity: &Arc<Identity>, path: &str) {
    let mut browser = logged_in(identity).await;
    let page = browser.get(path).await;
    let done = decide(&mut browser, &page, "allow").await;
    assert_eq!(done.status, 200, "{}", done.text);
}

async fn a_device_gets_the_tokens_that_somebody_allows_elsewhere(store: &Store) {
    let (identity, elsewhere) = (store.identity().await, store.identity().await);
    let user = ann(&identity).await;
    let app = client(&identity, json!({"name": "Notebook <b>", "public": false})).await;
    let seen = begin(&identity, &app, "openid predict").await;
    let json = seen.json();
    assert_eq!(
        (&json["expires_in"], &json["interval"]),
        (&json!(600), &json!(5))
    );
    assert_eq!(
        json["verification_uri"],
        "https://id.example.org/oauth2/device"
    );
    let (code, shown) = (
        json["device_code"].as_str().unwrap(),
        json["user_code"].as_str().unwrap(),
    );
    assert_eq!(told(&identity, &app, code).await, "authorization_pending");

    // Nobody is logged in: they log in first, and come back with the code.
    let mut browser = Browser::new(&elsewhere);
    let typed = shown.to_lowercase().replace('-', "%20");
    let page = browser
        .get(&format!("/oauth2/device?user_code={typed}"))
        .await;
    assert!(page.asks_for_password(), "{}", page.text);
    store.clock.advance(Duration::from_secs(60));
    let answer = browser.log_in(&page).await;
    assert_eq!(answer.location, format!("/oauth2/device?user_code={shown}"));
    let page = browser.get(&answer.location).await;
    for part in [shown, "Notebook &#60;b&#62;", "somebody else"] {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    store.clock.advance(Duration::from_secs(60));
    let done = decide(&mut browser, &page, "allow").await;
    assert!(done.text.contains("allowed"), "{}", done.text);

    let tokens = poll(&identity, &app, code).await;
    assert_eq!(tokens.status, 200, "{}", tokens.text);
    let tokens = tokens.json();
    assert_eq!(tokens["scope"], "openid predict");
    let access = part(tokens["access_token"].as_str().unwrap(), 1);
    assert_eq!(
        (&access["sub"], &access["client_id"]),
        (&json!(user.id.as_str()), &json!(app.0))
    );
    let id_token = part(tokens["id_token"].as_str().unwrap(), 1);
    assert_eq!(
        (&id_token["aud"], &id_token["sub"]),
        (&json!(app.0), &access["sub"])
    );
    let now_s = store.clock.now().0 / 1_000_000;
    assert_eq!(id_token["auth_time"], now_s - 60, "when they logged in");
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
    let fields = as_client(&app, &fields);
    let mut device = Browser::new(&identity);
    assert_eq!(device.post("/oauth2/token", &fields).await.status, 200);

    // Once.
    assert_eq!(told(&elsewhere, &app, code).await, "invalid_grant");
    let again = browser.get(&answer.location).await;
    assert_eq!(again.status, 404, "{}", again.text);
    assert_eq!(decide(&mut browser, &page, "allow").await.status, 409);
    let noted = store.recorded("detail", "action = 'consent.grant'").await;
    assert_eq!(noted, ["on a device: openid predict"]);

    // Without openid and without that grant there are no more tokens than asked for.
    let plain = client(
        &identity,
        json!({"grant_types": [KIND], "scopes": ["predict"]}),
    )
    .await;
    let (code, path) = begun(&identity, &plain).await;
    allow(&identity, &path).await;
    let tokens = poll(&identity, &plain, &code).await.json();
    assert_eq!(tokens["scope"], "predict");
    assert!(tokens.get("id_token").is_none() && tokens.get("refresh_token").is_none());
}

async fn a_device_is_told_what_is_wrong(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = client(&identity, json!({})).await;
    let other = client(&identity, json!({})).await;
    let secret = client(&identity, json!({"public": false})).await;
    let without = register(&identity, json!({})).await;
    let error = |seen: Seen| {
        (
            seen.status,
            seen.json()["error"].as_str().unwrap().to_owned(),
        )
    };
    let wrong =
        async |app: &(String, String), scope: &str| error(begin(&identity, app, scope).await);
    let is = |status: u16, code: &str| (status, code.to_owned());
    for scope in ["users:write", "nonsense", "openid users:write", "\u{1f600}"] {
        assert_eq!(
            wrong(&app, scope).await,
            is(400, "invalid_scope"),
            "{scope}"
        );
    }
    assert_eq!(wrong(&without, "").await, is(400, "unauthorized_client"));
    for unproven in [
        (secret.0.clone(), "x".into()),
        (secret.0, String::new()),
        ("x".into(), String::new()),
    ] {
        assert_eq!(wrong(&unproven, "").await, is(401, "invalid_client"));
    }
    let twice = [
        ("client_id", &*app.0),
        ("scope", "openid"),
        ("scope", "openid"),
    ];
    let mut device = Browser::new(&identity);
    let twice = device.post("/oauth2/device_authorization", &twice).await;
    assert_eq!(error(twice), is(400, "invalid_request"));

    let (code, path) = begun(&identity, &app).await;
    for wrong in ["x", &code[1..], &"\u{1f600}".repeat(400), "' OR 1=1 --"] {
        assert_eq!(
            told(&identity, &app, wrong).await,
            "invalid_grant",
            "{wrong}"
        );
    }
    assert_eq!(told(&identity, &app, "").await, "invalid_request");
    assert_eq!(told(&identity, &other, &code).await, "invalid_grant");
    assert_eq!(
        told(&identity, &without, &code).await,
        "unauthorized_client"
    );
    assert_eq!(told(&identity, &app, &code).await, "authorization_pending");

    let mut browser = logged_in(&identity).await;
    for (written, status) in [
        ("", 200),
        ("?user_code=", 200),
        ("?user_code=%3Cscript%3E", 200),
        ("?user_code=%F0%9F%98%80", 200),
        ("?user_code=BBBB-BBBB", 404),
        ("?user_code=%ff", 400),
        ("?user_code=%00", 400),
    ] {
        let seen = browser.get(&format!("/oauth2/device{written}")).await;
        assert_eq!(seen.status, status, "{written}: {}", seen.text);
        assert!(!seen.text.contains("<script"), "{}", seen.text);
    }
    let page = browser.get(&path).await;
    let (token, request) = (page.hidden("csrf_token"), page.hidden("request"));
    for (token, request, decision, status) in [
        ("", request, "allow", 403),
        ("x", request, "allow", 403),
        (token, "x", "allow", 403),
        (token, "", "allow", 403),
        (token, request, "", 400),
        (token, request, "yes", 400),
        (token, request, "deny", 200),
        (token, request, "allow", 409),
    ] {
        let fields = [
            ("csrf_token", token),
            ("request", request),
            ("decision", decision),
        ];
        let seen = browser.post("/oauth2/device", &fields).await;
        assert_eq!(seen.status, status, "{decision}: {}", seen.text);
    }
    for _ in 0..2 {
        assert_eq!(told(&identity, &app, &code).await, "access_denied");
    }
}

async fn a_device_that_asks_too_often_is_to_ask_more_slowly(store: &Store) {
    let (here, there) = (store.identity().await, store.identity().await);
    ann(&here).await;
    let app = client(&here, json!({})).await;
    let (code, path) = begun(&here, &app).await;
    for (wait_s, expected) in [
        (0, "authorization_pending"),
        (4, "slow_down"),
        (9, "slow_down"),
        (15, "authorization_pending"),
        (14, "slow_down"),
        (20, "authorization_pending"),
    ] {
        store.clock.advance(Duration::from_secs(wait_s));
        assert_eq!(
            told(&there, &app, &code).await,
            expected,
            "after {wait_s} s"
        );
    }
    // A decision is told at once.
    allow(&here, &path).await;
    assert_eq!(told(&here, &app, &code).await, "none");
}

async fn a_device_has_ten_minutes(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = client(&identity, json!({})).await;
    let (start, ttl) = (store.clock.now(), Duration::from_mins(10));
    let last = Duration::from_millis(1);
    let (allowed, path) = begun(&identity, &app).await;
    allow(&identity, &path).await;
    let (waiting, path) = begun(&identity, &app).await;
    let mut browser = logged_in(&identity).await;
    let page = browser.get(&path).await;
    for late in [start + ttl, start + Duration::from_hours(240)] {
        store.clock.step(late);
        assert_eq!(told(&identity, &app, &allowed).await, "expired_token");
        assert_eq!(told(&identity, &app, &waiting).await, "expired_token");
    }
    store.clock.step(start - Duration::from_hours(1));
    assert_eq!(
        told(&identity, &app, &allowed).await,
        "expired_token",
        "set back"
    );
    store.clock.step(start + ttl);
    assert_eq!(browser.get(&path).await.status, 404);
    assert_eq!(decide(&mut browser, &page, "allow").await.status, 409);
    store.clock.step(start + ttl - last);
    assert_eq!(told(&identity, &app, &allowed).await, "none");
    assert_eq!(decide(&mut browser, &page, "allow").await.status, 200);
    assert_eq!(told(&identity, &app, &waiting).await, "none");
}

async fn of_ten_questions_in_two_processes_one_gets_tokens(store: &Store) {
    let processes = [store.identity().await, store.identity().await];
    ann(&processes[0]).await;
    let app = client(&processes[0], json!({})).await;
    let (code, path) = begun(&processes[0], &app).await;
    allow(&processes[0], &path).await;
    let mut attempts = tokio::task::JoinSet::new();
    for i in 0..10 {
        let (identity, app, code) = (processes[i % 2].clone(), app.clone(), code.clone());
        attempts.spawn(async move { told(&identity, &app, &code).await });
    }
    let mut answers = attempts.join_all().await;
    answers.sort_unstable();
    assert_eq!(answers[9], "none");
    assert!(
        answers[..9].iter().all(|answer| answer == "invalid_grant"),
        "{answers:?}"
    );
    let grants = "SELECT CAST(COUNT(*) AS TEXT) FROM identity_grants";
    assert_eq!(texts(&store.db().await, grants).await, ["1"]);
}

async fn an_allowed_device_is_worth_what_its_user_and_client_still_are(store: &Store) {
    let identity = store.identity().await;
    let user = ann(&identity).await;
    let app = client(&identity, json!({})).await;
    let allowed = async |app: &(String, String)| {
        let (code, path) = begun(&identity, app).await;
        allow(&identity, &path).await;
        code
    };
    let set = async |changed: UserChange| change(&identity, user.id.as_str(), changed).await;
    let roles = |role: Role| UserChange {
        roles: Some([role].into_iter().collect()),
        ..UserChange::default()
    };
    let disabled = |disabled: bool| UserChange {
        disabled: Some(disabled),
        ..UserChange::default()
    };

    let code = allowed(&app).await;
    set(roles(Role::Viewer)).await;
    let tokens = poll(&identity, &app, &code).await;
    assert_eq!(tokens.json()["scope"], "openid", "{}", tokens.text);
    set(roles(Role::DataScientist)).await;

    let code = allowed(&app).await;
    set(disabled(true)).await;
    assert_eq!(told(&identity, &app, &code).await, "invalid_grant");
    set(disabled(false)).await;
    assert_eq!(
        told(&identity, &app, &code).await,
        "invalid_grant",
        "for good"
    );

    let code = allowed(&app).await;
    set(UserChange {
        password: Some(Some("another long secret".into())),
        ..UserChange::default()
    })
    .await;
    assert_eq!(told(&identity, &app, &code).await, "invalid_grant");
    set(UserChange {
        password: Some(Some(PASSWORD.into())),
        ..UserChange::default()
    })
    .await;

    let code = allowed(&app).await;
    let mut browser = logged_in(&identity).await;
    let page = browser.get("/oauth2/login").await;
    let fields = [
        ("csrf_token", page.hidden("csrf_token")),
        ("request", page.hidden("request")),
        ("withdraw", &*app.0),
    ];
    browser.post("/oauth2/account", &fields).await;
    assert_eq!(told(&identity, &app, &code).await, "invalid_grant");

    let (code, (waiting, path)) = (allowed(&app).await, begun(&identity, &app).await);
    let narrower = ClientChange {
        scopes: Some("openid".parse().unwrap()),
        ..ClientChange::default()
    };
    let clients = identity.clients();
    clients
        .update(&OPERATOR, &app.0, narrower, |_| true)
        .await
        .unwrap();
    assert_eq!(told(&identity, &app, &code).await, "invalid_grant");
    assert_eq!(told(&identity, &app, &waiting).await, "invalid_grant");
    assert_eq!(logged_in(&identity).await.get(&path).await.status, 404);

    let code = allowed(&app).await;
    clients.delete(&OPERATOR, &app.0).await.unwrap();
    assert_eq!(poll(&identity, &app, &code).await.status, 401);

    let app = client(&identity, json!({})).await;
    let code = allowed(&app).await;
    let removed = identity.users().delete(&OPERATOR, &user.id, Expected::Any);
    removed.await.unwrap();
    assert_eq!(told(&identity, &app, &code).await, "invalid_grant");
}

async fn a_decision_belongs_to_one_login_and_what_it_was_shown(store: &Store) {
    let identity = store.identity().await;
    let user = ann(&identity).await;
    let app = client(
        &identity,
        json!({"scopes": ["openid", "predict", "models:read"]}),
    )
    .await;
    let roles = async |role: Role| {
        let roles = Some([role].into_iter().collect());
        let changed = UserChange {
            roles,
            ..UserChange::default()
        };
        change(&identity, user.id.as_str(), changed).await;
    };
    // What they were not shown they do not give, though they have the right by then.
    roles(Role::Viewer).await;
    let (code, path) = begun(&identity, &app).await;
    let mut browser = logged_in(&identity).await;
    let page = browser.get(&path).await;
    assert!(page.text.contains("no right to"), "{}", page.text);
    roles(Role::DataScientist).await;
    assert_eq!(decide(&mut browser, &page, "allow").await.status, 200);
    let tokens = poll(&identity, &app, &code).await.json();
    assert_eq!(tokens["scope"], "openid models:read");

    // The session has ended: they log in anew, and come back with the code.
    let (code, path) = begun(&identity, &app).await;
    let page = browser.get(&path).await;
    let fields = [
        ("csrf_token", page.hidden("csrf_token")),
        ("request", page.hidden("request")),
    ];
    let out = browser.post("/oauth2/logout", &fields).await;
    assert_eq!(out.location, path);
    let away = decide(&mut browser, &page, "allow").await;
    assert_eq!(away.location, path);
    assert!(browser.get(&path).await.asks_for_password());
    assert_eq!(told(&identity, &app, &code).await, "authorization_pending");

    // Whoever has no right to anything can only deny.
    let admin = client(&identity, json!({"scopes": ["users:write"]})).await;
    let (code, path) = begun(&identity, &admin).await;
    let mut browser = logged_in(&identity).await;
    let page = browser.get(&path).await;
    assert!(!page.text.contains("value=\"allow\""), "{}", page.text);
    decide(&mut browser, &page, "allow").await;
    assert_eq!(told(&identity, &admin, &code).await, "access_denied");
}

async fn codes_cannot_be_guessed_without_end(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = client(&identity, json!({})).await;
    let mut browser = logged_in(&identity).await;
    let (_, path) = begun(&identity, &app).await;
    for _ in 0..30 {
        assert_eq!(
            browser.get(&path).await.status,
            200,
            "right ones are no guesses"
        );
    }
    for n in 0..20 {
        let seen = browser.get("/oauth2/device?user_code=BBBB-BBBB").await;
        assert_eq!(seen.status, 404, "{n}");
    }
    for path in ["/oauth2/device?user_code=BBBB-BBBB", &path] {
        let seen = browser.get(path).await;
        assert_eq!(seen.status, 429, "{}", seen.text);
    }
    let noted = store.recorded("outcome", "action = 'device.guess'").await;
    assert!(!noted.is_empty() && noted.iter().all(|outcome| outcome == "denied"));
    store.clock.advance(Duration::from_mins(10));
    let mut browser = logged_in(&identity).await;
    let (_, path) = begun(&identity, &app).await;
    assert_eq!(browser.get(&path).await.status, 200);
}

async fn so_many_devices_wait_and_no_more(store: &Store) {
    let identity = store.identity().await;
    let (app, other) = (
        client(&identity, json!({})).await,
        client(&identity, json!({})).await,
    );
    begun(&identity, &app).await;
    let bytes = match store.folder {
        Some(_) => "BLOB",
        None => "BYTEA",
    };
    let fill = async |name: &str, client: &str, count: usize| {
        let until = store.clock.now().0 + 300_000_000;
        let insert = format!(
            "INSERT INTO identity_devices (digest, user_code, client_id, scopes, expires_at, interval_s, denied) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
             SELECT CAST('{name} ' || i AS {bytes}), '{name} ' || i, '{client}', '', {until}, 5, FALSE FROM n"
        );
        execute(&store.db().await, insert).await;
    };
    fill("own", &app.0, 998).await;
    begun(&identity, &app).await;
    let full = begin(&identity, &app, "").await;
    assert_eq!(full.status, 503, "{}", full.text);
    begun(&identity, &other).await;
    fill("others", "X", 8_998).await;
    begun(&identity, &other).await;
    assert_eq!(begin(&identity, &other, "").await.status, 503);
    store.clock.advance(Duration::from_mins(5));
    begun(&identity, &app).await;
}

async fn devices_that_have_ended_are_removed(store: &Store) {
    let identity = store.identity().await;
    let app = client(&identity, json!({})).await;
    begun(&identity, &app).await;
    store.clock.advance(Duration::from_mins(30));
    begun(&identity, &app).await;
    let left = async || {
        identity.maintenance().tend(Timestamp(0)).await.unwrap();
        let sql = "SELECT CAST(COUNT(*) AS TEXT) FROM identity_devices";
        texts(&store.db().await, sql).await[0].clone()
    };
    store.clock.advance(Duration::from_mins(40));
    assert_eq!(left().await, "2");
    store.clock.advance(Duration::from_secs(1));
    assert_eq!(left().await, "1");
}

async fn no_device_code_is_stored(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = client(&identity, json!({})).await;
    let (code, path) = begun(&identity, &app).await;
    assert_eq!(code.len(), 43, "256 bits");
    allow(&identity, &path).await;
    let Some(folder) = &store.folder else { return };
    let mut bytes = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        let mut windows = content.windows(code.len());
        assert!(!windows.any(|window| window == code.as_bytes()));
    }
    assert!(bytes > 0);
}
