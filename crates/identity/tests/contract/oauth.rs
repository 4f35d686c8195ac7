//! OAuth 2.0: what time, other processes and the database make of codes, sessions and consents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use auspex_identity::{Expected, Identity, NewUser, Role, User, UserChange};
use auspex_kernel::{ApiError, CursorKey, RequestId};
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tower_service::Service as _;

use crate::OPERATOR;
use crate::ask::{PEER, as_operator, ask, ask_with, walk};
use crate::person::{PASSWORD, change, part};
use crate::store::{ISSUER, Store, texts};

const CALLBACK: &str = "https://app.example.org/cb";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

contract! {
    clients_are_registered_listed_and_removed
    a_registration_is_refused_for_every_wrong_field_at_once
    a_code_is_worth_one_exchange_for_what_it_was_made_for
    a_code_ends_after_a_minute
    what_a_user_has_lost_his_clients_have_lost
    wrong_secrets_are_recorded_of_clients_that_exist
    of_ten_redemptions_in_two_processes_one_wins
    a_session_lasts_twelve_hours_and_ends_with_the_password
    the_password_is_asked_for_again_where_the_client_wants_it
    people_are_asked_once_but_public_clients_every_time
    a_page_can_be_used_for_half_an_hour
    nothing_becomes_younger_when_the_clock_is_set_back
    an_id_token_is_a_hint_after_it_has_expired
    cookies_belong_to_this_host_and_to_https
    no_secret_is_stored
}

/// A browser and whatever it is pointed at.
#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) identity: Arc<Identity>,
    cookies: BTreeMap<String, String>,
}

pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) location: String,
    cookies: Vec<String>,
    pub(crate) text: String,
}

impl Browser {
    pub(crate) fn new(identity: &Arc<Identity>) -> Self {
        Self {
            identity: Arc::clone(identity),
            cookies: BTreeMap::new(),
        }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Seen {
        self.send(Request::get(path), String::new()).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Seen {
        let form = "application/x-www-form-urlencoded";
        let request = Request::post(path).header("content-type", form);
        self.send(request, encode(fields)).await
    }

    async fn send(&mut self, request: axum::http::request::Builder, body: String) -> Seen {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        let request = request
            .header("cookie", cookies.join("; "))
            .extension(PEER)
            .extension(RequestId::generate());
        let mut router = Arc::clone(&self.identity).router(CursorKey([7; 32]));
        let request = request.body(Body::from(body)).unwrap();
        let (parts, body) = router.call(request).await.unwrap().into_parts();
        let body = auspex_kernel::body::read(body).await.unwrap();
        // The edge renders errors; their code is enough here.
        let text = match parts.extensions.get::<ApiError>() {
            Some(error) => json!({"error": error.code()}).to_string(),
            None => String::from_utf8(body.to_vec()).unwrap(),
        };
        let header = |name| {
            parts
                .headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap().to_owned())
        };
        let cookies: Vec<String> = header("set-cookie").collect();
        self.cookies.extend(cookies.iter().map(|line| pair(line)));
        let mut location = header("location").next().unwrap_or_default();
        // A page in between leads on from a form.
        if location.starts_with("/oauth2/continue?") {
            let page = Box::pin(self.get(&location)).await;
            let (_, rest) = page.text.split_once("content=\"0;url=").expect(&page.text);
            let to = rest.split('"').next().expect("an end");
            location = to.replace("&#38;", "&");
        }
        Seen {
            status: parts.status.as_u16(),
            location,
            cookies,
            text,
        }
    }

    pub(crate) async fn log_in(&mut self, page: &Seen) -> Seen {
        let (token, request) = (page.hidden("csrf_token"), page.hidden("request"));
        let fields = [
            ("csrf_token", token),
            ("request", request),
            ("username", "ann"),
            ("password", PASSWORD),
        ];
        self.post("/oauth2/login", &fields).await
    }

    async fn allow(&mut self, page: &Seen) -> Seen {
        let (token, request) = (page.hidden("csrf_token"), page.hidden("request"));
        let fields = [
            ("csrf_token", token),
            ("request", request),
            ("decision", "allow"),
        ];
        self.post("/oauth2/consent", &fields).await
    }

    /// Goes all the way to a code.
    async fn authorize(&mut self, request: &str) -> String {
        let mut seen = self.get(request).await;
        for _ in 0..4 {
            seen = match &*seen.location {
                "" if seen.asks_for_password() => self.log_in(&seen).await,
                "" => self.allow(&seen).await,
                place if place.starts_with("/oauth2/") => self.get(place).await,
                _ => return seen.parameter("code"),
            };
        }
        panic!("no code: {} {}", seen.status, seen.text)
    }
}

impl Seen {
    pub(crate) fn hidden(&self, name: &str) -> &str {
        let begin = format!("name=\"{name}\" value=\"");
        let from = self
            .text
            .find(&begin)
            .unwrap_or_else(|| panic!("{}", self.text));
        self.text[from + begin.len()..].split('"').next().unwrap()
    }

    fn parameter(&self, name: &str) -> String {
        let query = self.location.split_once('?').unwrap_or_default().1;
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        let found = pairs.find(|(known, _)| known == name);
        found
            .unwrap_or_else(|| panic!("no {name}: {}", self.location))
            .1
            .into_owned()
    }

    pub(crate) fn asks_for_password(&self) -> bool {
        self.text.contains("name=\"password\"")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

/// Name and value of a cookie that is set.
fn pair(line: &str) -> (String, String) {
    let pair = line.split(';').next().unwrap().split_once('=').unwrap();
    (pair.0.to_owned(), pair.1.to_owned())
}

fn encode(fields: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields).finish()
}

pub(crate) async fn ann(identity: &Identity) -> User {
    let new = NewUser {
        name: "Ann".into(),
        email: "ann@example.org".into(),
        username: Some("ann".into()),
        roles: [Role::DataScientist].into_iter().collect(),
        password: Some(PASSWORD.into()),
        ..NewUser::default()
    };
    identity.users().create(&OPERATOR, new).await.unwrap()
}

/// Registers a client; its id and its secret.
pub(crate) async fn register(identity: &Arc<Identity>, changes: Value) -> (String, String) {
    let mut body = json!({"name": "App", "redirect_uris": [CALLBACK], "scopes": ["openid", "predict"],
        "grant_types": ["authorization_code", "refresh_token"], "public": false});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    let by = as_operator(auspex_kernel::ScopeSet::all());
    let made = ask(
        identity,
        &by,
        "POST",
        "/v1/oauth-clients",
        &body.to_string(),
    )
    .await;
    assert_eq!(made.status, 201, "{:?}", made.error);
    let text = |name: &str| made.json[name].as_str().unwrap_or_default().to_owned();
    (text("client_id"), text("client_secret"))
}

fn request(client_id: &str, more: &str) -> String {
    let fields = [
        ("response_type", "code"),
        ("client_id", client_id),
        ("redirect_uri", CALLBACK),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
        ("nonce", "n-1"),
    ];
    format!("/oauth2/authorize?{}{more}", encode(&fields))
}

async fn redeem(
    identity: &Arc<Identity>,
    (id, secret): &(String, String),
    code: &str,
    uri: &str,
    verifier: &str,
) -> Seen {
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", id),
        ("client_secret", secret),
        ("code", code),
        ("redirect_uri", uri),
        ("code_verifier", verifier),
    ];
    Browser::new(identity).post("/oauth2/token", &fields).await
}

async fn clients_are_registered_listed_and_removed(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(auspex_kernel::ScopeSet::all());
    let mut made = Vec::new();
    for name in ["One", "Two", "Three"] {
        made.push(register(&identity, json!({"name": name})).await.0);
        store.clock.advance(Duration::from_millis(1));
    }
    let list = walk(&identity, &by, "/v1/oauth-clients?limit=2").await;
    let ids: Vec<&str> = list
        .iter()
        .map(|client| client["client_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, made);
    assert!(
        list.iter()
            .all(|client| client.get("client_secret").is_none())
    );
    let path = format!("/v1/oauth-clients/{}", made[1].to_lowercase());
    let one = ask(&identity, &by, "GET", &path, "").await;
    assert_eq!((one.status, &one.json), (200, &list[1]));
    for (method, expected) in [("DELETE", 204), ("DELETE", 404), ("GET", 404)] {
        assert_eq!(
            ask(&identity, &by, method, &path, "").await.status,
            expected
        );
    }
    let body = json!({"name": "x", "grant_types": ["client_credentials"], "scopes": ["predict"]});
    let (body, key) = (body.to_string(), [("idempotency-key", "once")]);
    for expected in [201, 409] {
        let answer = ask_with(&identity, &by, "POST", "/v1/oauth-clients", &body, &key).await;
        assert_eq!(answer.status, expected);
    }
    let less = as_operator("clients:write".parse().unwrap());
    let answer = ask(&identity, &less, "POST", "/v1/oauth-clients", &body).await;
    assert_eq!(answer.status, 403);
}

async fn a_registration_is_refused_for_every_wrong_field_at_once(store: &Store) {
    let identity = store.identity().await;
    let by = as_operator(auspex_kernel::ScopeSet::all());
    let wrong = async |body: Value| {
        let answer = ask(
            &identity,
            &by,
            "POST",
            "/v1/oauth-clients",
            &body.to_string(),
        )
        .await;
        assert_eq!(answer.status, 422, "{body}");
        let error = answer.error.unwrap();
        let fields = error.details().iter().map(|wrong| wrong.field.clone());
        fields.collect::<Vec<_>>()
    };
    let nothing = wrong(json!({"admin": true})).await;
    assert_eq!(nothing, ["name", "grant_types", "scopes", "admin"]);
    let together = json!({"name": "x", "redirect_uris": ["https://a.example/#x", "http://a.example/"],
        "grant_types": ["authorization_code", "client_credentials"], "scopes": ["predict"],
        "public": true});
    let together = wrong(together).await;
    assert_eq!(
        together,
        ["redirect_uris[0]", "redirect_uris[1]", "grant_types"]
    );
}

async fn a_code_is_worth_one_exchange_for_what_it_was_made_for(store: &Store) {
    let (identity, elsewhere) = (store.identity().await, store.identity().await);
    let user = ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let other = register(&identity, json!({})).await;
    let code = Browser::new(&identity)
        .authorize(&request(&app.0, ""))
        .await;
    for (client, uri, verifier) in [
        (&other, CALLBACK, VERIFIER),
        (&app, "https://app.example.org/cb/", VERIFIER),
        (&app, CALLBACK, CHALLENGE),
    ] {
        let refused = redeem(&identity, client, &code, uri, verifier).await;
        assert_eq!(
            (refused.status, &refused.json()["error"]),
            (400, &json!("invalid_grant"))
        );
    }
    let tokens = redeem(&elsewhere, &app, &code, CALLBACK, VERIFIER)
        .await
        .json();
    let id_token = part(tokens["id_token"].as_str().unwrap(), 1);
    let now_s = store.clock.now().0 / 1_000_000;
    assert_eq!(
        id_token,
        json!({"iss": ISSUER, "sub": user.id, "aud": app.0, "exp": now_s + 900, "iat": now_s,
            "auth_time": now_s, "nonce": "n-1", "at_hash": id_token["at_hash"]})
    );
    let hash = URL_SAFE_NO_PAD
        .decode(id_token["at_hash"].as_str().unwrap())
        .unwrap();
    assert_eq!(hash.len(), 32, "half of SHA-512");
    let worth = async |token: &Value| {
        let fields = [
            ("client_id", &*app.0),
            ("client_secret", &*app.1),
            ("token", token.as_str().unwrap()),
        ];
        let answer = Browser::new(&identity)
            .post("/oauth2/introspect", &fields)
            .await;
        answer.json()["active"].as_bool().unwrap()
    };
    assert!(worth(&tokens["access_token"]).await && worth(&tokens["refresh_token"]).await);
    let foreign = redeem(&identity, &other, &code, CALLBACK, VERIFIER).await;
    assert_eq!(foreign.status, 400);
    assert!(worth(&tokens["access_token"]).await, "others cannot end it");
    let again = redeem(&identity, &app, &code, CALLBACK, "wrong").await;
    assert_eq!(again.status, 400);
    assert!(!worth(&tokens["access_token"]).await && !worth(&tokens["refresh_token"]).await);
    let noted = "SELECT outcome FROM identity_audit WHERE action = 'code.reuse'";
    assert_eq!(texts(&store.db().await, noted).await, ["denied"]);
}

async fn a_code_ends_after_a_minute(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    for (seconds, status) in [(60, 400), (59, 200)] {
        let code = browser.authorize(&request(&app.0, "")).await;
        store.clock.advance(Duration::from_secs(seconds));
        let answer = redeem(&identity, &app, &code, CALLBACK, VERIFIER).await;
        assert_eq!(answer.status, status, "{seconds} s");
    }
}

async fn what_a_user_has_lost_his_clients_have_lost(store: &Store) {
    let identity = store.identity().await;
    let user = ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let introspect = async |token: &Value| {
        let fields = [
            ("client_id", &*app.0),
            ("client_secret", &*app.1),
            ("token", token.as_str().unwrap()),
        ];
        let mut browser = Browser::new(&identity);
        browser.post("/oauth2/introspect", &fields).await.json()["scope"].clone()
    };
    let mut browser = Browser::new(&identity);
    let code = browser.authorize(&request(&app.0, "")).await;
    let before = redeem(&identity, &app, &code, CALLBACK, VERIFIER).await;
    let before = before.json();
    assert_eq!(before["scope"], "openid predict");
    let code = browser.authorize(&request(&app.0, "")).await;
    // A viewer may not predict.
    let demoted = UserChange {
        roles: Some([Role::Viewer].into_iter().collect()),
        ..UserChange::default()
    };
    change(&identity, user.id.as_str(), demoted).await;
    for name in ["access_token", "refresh_token"] {
        assert_eq!(introspect(&before[name]).await, "openid", "{name}");
    }
    let after = redeem(&identity, &app, &code, CALLBACK, VERIFIER).await;
    assert_eq!(after.status, 200, "{}", after.text);
    let after = after.json();
    assert_eq!(after["scope"], "openid");
    let access = part(after["access_token"].as_str().unwrap(), 1);
    assert_eq!(access["scope"], "openid");
    assert_eq!(introspect(&after["refresh_token"]).await, "openid");
}

async fn wrong_secrets_are_recorded_of_clients_that_exist(store: &Store) {
    let identity = store.identity().await;
    let (id, _) = register(&identity, json!({})).await;
    let nobody = "06H02AB3M8RT5VXD";
    for client in [nobody, "x", &*id, nobody] {
        let wrong = (client.to_owned(), "wrong".to_owned());
        let refused = redeem(&identity, &wrong, "x", CALLBACK, VERIFIER).await;
        let error = refused.json()["error"].clone();
        assert_eq!((refused.status, error), (401, json!("invalid_client")));
    }
    let noted = "SELECT target FROM identity_audit WHERE action = 'client.login'";
    let noted = texts(&store.db().await, noted).await;
    assert_eq!(noted, [format!("client:{id}")]);
}

async fn of_ten_redemptions_in_two_processes_one_wins(store: &Store) {
    let processes = [store.identity().await, store.identity().await];
    ann(&processes[0]).await;
    let app = register(&processes[0], json!({})).await;
    let code = Browser::new(&processes[0])
        .authorize(&request(&app.0, ""))
        .await;
    let mut attempts = tokio::task::JoinSet::new();
    for i in 0..10 {
        let (identity, app, code) = (processes[i % 2].clone(), app.clone(), code.clone());
        attempts.spawn(async move {
            redeem(&identity, &app, &code, CALLBACK, VERIFIER)
                .await
                .status
        });
    }
    let mut statuses = attempts.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400, 400, 400, 400, 400, 400, 400, 400, 400]);
    let revoked = "SELECT CAST(COUNT(*) AS TEXT) FROM identity_grants WHERE revoked_at IS NOT NULL";
    assert_eq!(texts(&store.db().await, revoked).await, ["1"]);
}

async fn a_session_lasts_twelve_hours_and_ends_with_the_password(store: &Store) {
    let identity = store.identity().await;
    let user = ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    browser.authorize(&request(&app.0, "")).await;
    store.clock.advance(Duration::from_secs(12 * 3_600 - 1));
    assert!(!browser.get(&request(&app.0, "")).await.asks_for_password());
    store.clock.advance(Duration::from_secs(1));
    assert!(browser.get(&request(&app.0, "")).await.asks_for_password());

    let code = browser.authorize(&request(&app.0, "")).await;
    let change = UserChange {
        password: Some(Some("another long secret".into())),
        ..UserChange::default()
    };
    let changed = identity
        .users()
        .update(&OPERATOR, &user.id, change, Expected::Any)
        .await;
    changed.unwrap();
    assert!(browser.get(&request(&app.0, "")).await.asks_for_password());
    assert_eq!(
        redeem(&identity, &app, &code, CALLBACK, VERIFIER)
            .await
            .status,
        400
    );
}

async fn the_password_is_asked_for_again_where_the_client_wants_it(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    browser.authorize(&request(&app.0, "")).await;
    let at_once = browser.get(&request(&app.0, "&max_age=0")).await;
    assert!(at_once.asks_for_password(), "{}", at_once.location);
    let silent = request(&app.0, "&max_age=0&prompt=none");
    let silent = browser.get(&silent).await;
    assert_eq!(silent.parameter("error"), "login_required");
    let answer = browser.log_in(&at_once).await;
    let next = browser.get(&answer.location).await;
    assert!(next.location.contains("code="), "not asked twice");
    store.clock.advance(Duration::from_secs(100));
    for (more, asked) in [
        ("", false),
        ("&max_age=100", false),
        ("&max_age=99", true),
        ("&prompt=login", true),
        ("&prompt=select_account", true),
    ] {
        let seen = browser.get(&request(&app.0, more)).await;
        assert_eq!(seen.asks_for_password(), asked, "{more}");
    }
    let seen = browser
        .get(&request(&app.0, "&prompt=none&max_age=99"))
        .await;
    assert_eq!(seen.parameter("error"), "login_required");
    // Who has just logged in is not asked again, however slow the way back is.
    let page = browser
        .get(&request(&app.0, "&prompt=login%20consent&max_age=0"))
        .await;
    let answer = browser.log_in(&page).await;
    store.clock.advance(Duration::from_secs(5));
    let next = browser.get(&answer.location).await;
    assert!(next.text.contains("value=\"allow\""), "{}", next.text);
    let code = browser.allow(&next).await.parameter("code");
    let tokens = redeem(&identity, &app, &code, CALLBACK, VERIFIER)
        .await
        .json();
    let id_token = part(tokens["id_token"].as_str().unwrap(), 1);
    let now_s = store.clock.now().0 / 1_000_000;
    assert_eq!(id_token["auth_time"], now_s - 5);
}

async fn people_are_asked_once_but_public_clients_every_time(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    browser.authorize(&request(&app.0, "&scope=openid")).await;
    let silent = async |browser: &mut Browser, more: &str| {
        let seen = browser
            .get(&request(&app.0, &format!("&prompt=none{more}")))
            .await;
        seen.location.contains("code=")
    };
    assert!(silent(&mut browser, "&scope=openid").await);
    assert!(!silent(&mut browser, "").await, "predict is more");
    browser.authorize(&request(&app.0, "&scope=predict")).await;
    assert!(
        silent(&mut browser, "").await,
        "one after the other, they agreed to both"
    );
    let again = browser.get(&request(&app.0, "&prompt=consent")).await;
    assert!(again.text.contains("value=\"allow\""));

    let (public, _) = register(&identity, json!({"public": true})).await;
    for _ in 0..2 {
        let page = browser.get(&request(&public, "")).await;
        assert!(
            page.text.contains("cannot prove who it is"),
            "{}",
            page.text
        );
        assert_eq!(browser.allow(&page).await.status, 303);
    }
    let seen = browser.get(&request(&public, "&prompt=none")).await;
    assert_eq!(seen.parameter("error"), "consent_required");
}

async fn a_page_can_be_used_for_half_an_hour(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    let page = browser.get(&request(&app.0, "")).await;
    store.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(browser.log_in(&page).await.status, 403);
    let page = browser.get(&request(&app.0, "")).await;
    // Any process takes the form.
    browser.identity = store.identity().await;
    store.clock.advance(Duration::from_secs(30 * 60 - 1));
    assert_eq!(browser.log_in(&page).await.status, 303);
    let page = browser.get(&request(&app.0, "")).await;
    store.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(browser.allow(&page).await.status, 403);
}

async fn nothing_becomes_younger_when_the_clock_is_set_back(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let (start, hour) = (store.clock.now(), Duration::from_hours(1));
    let away = [
        start + 240 * hour,
        start + hour,
        start - hour,
        start - 240 * hour,
    ];
    for now in away {
        store.clock.step(start);
        let mut browser = Browser::new(&identity);
        let code = browser.authorize(&request(&app.0, "")).await;
        let page = Browser::new(&identity).get(&request(&app.0, "")).await;
        store.clock.step(now);
        let refused = redeem(&identity, &app, &code, CALLBACK, VERIFIER).await;
        assert_eq!(refused.status, 400, "a code");
        let again = browser.get(&request(&app.0, "")).await;
        let is_ended = now < start || now > start + 12 * hour;
        assert_eq!(again.asks_for_password(), is_ended, "a session");
        let mut late = Browser::new(&identity);
        late.cookies = page.cookies.iter().map(|line| pair(line)).collect();
        assert_eq!(late.log_in(&page).await.status, 403, "a page");
        store.clock.step(start + Duration::from_secs(59));
        assert_eq!(
            late.log_in(&page).await.status,
            303,
            "the same page in time"
        );
        let taken = redeem(&identity, &app, &code, CALLBACK, VERIFIER).await;
        assert_eq!(taken.status, 200, "{}", taken.text);
    }
}

async fn an_id_token_is_a_hint_after_it_has_expired(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    let code = browser.authorize(&request(&app.0, "")).await;
    let tokens = redeem(&identity, &app, &code, CALLBACK, VERIFIER)
        .await
        .json();
    let id_token = tokens["id_token"].as_str().unwrap();
    store.clock.advance(Duration::from_hours(1));
    let silent = format!("&prompt=none&id_token_hint={id_token}");
    let seen = browser.get(&request(&app.0, &silent)).await;
    assert!(!seen.parameter("code").is_empty(), "{}", seen.location);
}

async fn cookies_belong_to_this_host_and_to_https(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    let page = browser.get(&request(&app.0, "")).await;
    let before = page.cookies.join("\n");
    assert!(before.starts_with("__Host-auspex_login_"), "{before}");
    let answer = browser.log_in(&page).await;
    let [step, session] = &answer.cookies[..] else {
        panic!("{:?}", answer.cookies)
    };
    assert!(step.starts_with("__Host-auspex_continue_"), "{step}");
    assert!(session.starts_with("__Host-auspex_session_"), "{session}");
    assert!(session.contains("; Max-Age=43200"), "{session}");
    for cookie in [&before, step, session] {
        for rule in ["; Path=/", "; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(cookie.contains(rule), "{cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
    }
}

async fn no_secret_is_stored(store: &Store) {
    let identity = store.identity().await;
    ann(&identity).await;
    let app = register(&identity, json!({})).await;
    let mut browser = Browser::new(&identity);
    let code = browser.authorize(&request(&app.0, "")).await;
    let is_session = |(name, _): &(&String, _)| name.starts_with("__Host-auspex_session_");
    let (_, session) = browser.cookies.iter().find(is_session).unwrap();
    let session = session.clone();
    let Some(folder) = &store.folder else { return };
    let mut bytes = 0;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        for secret in [&app.1, &code, &session, PASSWORD] {
            let mut windows = content.windows(secret.len());
            assert!(!windows.any(|window| window == secret.as_bytes()));
        }
    }
    assert!(bytes > 0);
}
