//! Issuers against a real HTTP server on the loopback address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::jwt::{Algorithm, SigningKey, read};

const NOW_S: i64 = 1_769_335_200;
const ISSUER: &str = "https://login.example.org/realms/main";

/// Serves one answer, which may be changed, and counts the requests.
struct Server {
    address: String,
    answer: Arc<Mutex<Vec<u8>>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            answer: Arc::default(),
            requests: Arc::default(),
        };
        let (answer, requests) = (Arc::clone(&server.answer), Arc::clone(&server.requests));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                requests.fetch_add(1, Ordering::SeqCst);
                let answer = answer.lock().clone();
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    if answer.is_empty() {
                        // Never answers.
                        std::future::pending::<()>().await;
                    }
                    let _ = stream.write_all(&answer).await;
                });
            }
        });
        server
    }

    fn answer(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
        *self.answer.lock() = format!("{head}{body}").into_bytes();
    }

    fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.public_jwk()).collect();
        self.answer("200 OK", "", &json!({ "keys": keys }).to_string());
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn config(&self) -> IssuerConfig {
        let url = format!("http://{}/jwks", self.address);
        config(json!({"jwks_url": url, "allow_private_addresses": true}))
    }
}

fn config(settings: Value) -> IssuerConfig {
    let mut config = json!({
        "issuer": ISSUER, "jwks_url": "https://login.example.org/jwks", "audience": "auspex",
    });
    for (name, value) in settings.as_object().unwrap() {
        config[name.as_str()] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn clock() -> Clock {
    Clock::manual(Timestamp(NOW_S * 1_000_000))
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Es256).unwrap()
}

fn claims() -> Value {
    json!({"sub": "ada", "iss": ISSUER, "aud": ["account", "auspex"], "exp": NOW_S + 1_000_000})
}

fn token(key: &SigningKey) -> String {
    key.sign("JWT", &claims()).unwrap()
}

/// One server, one issuer, one manual clock.
struct World {
    server: Server,
    clock: Clock,
    issuers: Issuers,
}

impl World {
    async fn with(configure: impl FnOnce(&mut IssuerConfig)) -> Self {
        let (server, clock) = (Server::start().await, clock());
        let mut config = server.config();
        configure(&mut config);
        let issuers = Issuers::new(vec![config], clock.clone()).unwrap();
        Self {
            server,
            clock,
            issuers,
        }
    }

    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn judge(&self, token: &str) -> Result<Accepted, Refusal> {
        let token = read(token.as_bytes()).unwrap();
        self.issuers.verify_or_fetch(&token, self.clock.now()).await
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn keys_are_fetched_once_and_kept() {
    let world = World::new().await;
    let key = key();
    world.server.publish(&[&key]);
    assert_eq!(
        world.server.requests(),
        0,
        "nothing is fetched before a token comes"
    );
    for _ in 0..3 {
        let accepted = world.judge(&token(&key)).await.unwrap();
        assert_eq!(accepted.claims.sub, "ada");
        world.pass(99);
    }
    assert_eq!(world.server.requests(), 1);
    world.pass(3);
    assert!(world.judge(&token(&key)).await.is_ok());
    assert_eq!(
        world.server.requests(),
        2,
        "after five minutes they are fetched anew"
    );
}

#[tokio::test]
async fn a_new_key_is_found_and_an_old_one_forgotten() {
    let world = World::new().await;
    let (old, new) = (key(), key());
    world.server.publish(&[&old]);
    assert!(world.judge(&token(&old)).await.is_ok());
    world.server.publish(&[&new]);
    world.pass(30);
    assert!(world.judge(&token(&new)).await.is_ok());
    assert_eq!(world.judge(&token(&old)).await, Err(Refusal::UnknownKey));
    assert_eq!(world.server.requests(), 2);
}

#[tokio::test]
async fn invented_keys_lead_to_one_fetch_in_half_a_minute() {
    let world = World::new().await;
    let key = key();
    world.server.publish(&[&key]);
    for _ in 0..5 {
        let stranger = token(&self::key());
        assert_eq!(world.judge(&stranger).await, Err(Refusal::UnknownKey));
        assert!(world.judge(&token(&key)).await.is_ok());
    }
    assert_eq!(world.server.requests(), 1);
    world.pass(29);
    assert!(world.judge(&token(&self::key())).await.is_err());
    assert_eq!(world.server.requests(), 1);
    world.pass(1);
    assert!(world.judge(&token(&self::key())).await.is_err());
    assert!(world.judge(&token(&self::key())).await.is_err());
    assert_eq!(world.server.requests(), 2);
}

#[tokio::test]
async fn all_who_wait_share_one_fetch() {
    let world = Arc::new(World::new().await);
    let key = key();
    world.server.publish(&[&key]);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let (world, token) = (Arc::clone(&world), token(&key));
            tokio::spawn(async move { world.judge(&token).await.is_ok() })
        })
        .collect();
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert_eq!(world.server.requests(), 1);
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_stop_the_fetch() {
    let world = World::new().await;
    let key = key();
    world.server.publish(&[&key]);
    let token = token(&key);
    let unverified = read(token.as_bytes()).unwrap();
    let IssuerVerdict::NeedsKeys(wanted) = world.issuers.verify(&unverified, world.clock.now())
    else {
        panic!("there are no keys yet")
    };
    let fetch = world.issuers.fetch(wanted);
    // Polled once, so that it begins, and dropped.
    let mut fetch = Box::pin(fetch);
    std::future::poll_fn(|context| {
        let _ = fetch.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(fetch);
    assert!(world.judge(&token).await.is_ok());
    assert_eq!(world.server.requests(), 1);
}

#[tokio::test]
async fn old_keys_do_for_a_day_while_the_issuer_is_down() {
    let world = World::new().await;
    let key = key();
    world.server.publish(&[&key]);
    assert!(world.judge(&token(&key)).await.is_ok());
    world.server.answer("503 Service Unavailable", "", "");
    for _ in 0..3 {
        world.pass(300);
        assert!(world.judge(&token(&key)).await.is_ok());
        assert!(world.judge(&token(&key)).await.is_ok());
    }
    assert_eq!(
        world.server.requests(),
        4,
        "each time one attempt, and then the pause"
    );
    world.pass(24 * 3600 - 901);
    assert!(world.judge(&token(&key)).await.is_ok());
    world.pass(1);
    assert_eq!(
        world.judge(&token(&key)).await,
        Err(Refusal::KeysUnavailable)
    );
    world.server.publish(&[&key]);
    world.pass(30);
    assert!(world.judge(&token(&key)).await.is_ok());
}

#[tokio::test]
async fn answers_that_are_no_key_set_are_refused() {
    let world = World::new().await;
    let key = key();
    let set = json!({"keys": [key.public_jwk()], "padding": ""}).to_string();
    let huge = set.replace("\"\"", &format!("\"{}\"", "x".repeat(256 * 1024)));
    let to_itself = format!("Location: http://{}/other\r\n", world.server.address);
    for (status, headers, body) in [
        ("302 Found", to_itself.as_str(), set.as_str()),
        (
            "301 Moved Permanently",
            "Location: https://example.org/\r\n",
            "",
        ),
        ("404 Not Found", "", &set),
        ("203 Non-Authoritative Information", "", &set),
        ("200 OK", "", &huge),
        ("200 OK", "", "<html>"),
        ("200 OK", "", ""),
    ] {
        world.server.answer(status, headers, body);
        let before = world.server.requests();
        let verdict = world.judge(&token(&key)).await;
        assert_eq!(verdict, Err(Refusal::KeysUnavailable), "{status}");
        assert_eq!(
            world.server.requests(),
            before + 1,
            "{status}: asked once, and nobody else"
        );
        world.pass(30);
    }
    world.server.answer("200 OK", "", &set);
    assert!(world.judge(&token(&key)).await.is_ok());
}

#[tokio::test]
async fn an_answer_without_an_end_and_one_that_never_comes_are_given_up() {
    let server = Server::start().await;
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(300 * 1024));
    *server.answer.lock() = endless.into_bytes();
    let download = download::Download::new(&server.config(), Duration::from_millis(200)).unwrap();
    let error = download.get().await.expect_err("too long").to_string();
    assert!(error.contains("256 KiB"), "{error}");

    server.answer.lock().clear();
    let error = download.get().await.expect_err("no answer").to_string();
    assert!(error.contains("timed out"), "{error}");
}

#[tokio::test]
async fn private_addresses_are_not_asked() {
    let server = Server::start().await;
    let port = server.address.rsplit(':').next().unwrap();
    let config = config(json!({"jwks_url": format!("https://localhost:{port}/jwks")}));
    let download = download::Download::new(&config, Duration::from_secs(5)).unwrap();
    let error = download.get().await.expect_err("refused").to_string();
    assert!(error.contains("allow_private_addresses"), "{error}");
    assert_eq!(server.requests(), 0);

    let issuers = Issuers::new(vec![config], clock()).unwrap();
    let token = token(&key());
    let token = read(token.as_bytes()).unwrap();
    let verdict = issuers.verify_or_fetch(&token, clock().now()).await;
    assert_eq!(verdict, Err(Refusal::KeysUnavailable));
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn only_access_tokens_for_us_are_taken() {
    let world = World::with(|config| config.algorithms = vec![Algorithm::Es256]).await;
    let (key, other) = (key(), SigningKey::generate(Algorithm::EdDsa).unwrap());
    world.server.publish(&[&key, &other]);
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        key.sign("JWT", &claims).unwrap()
    };
    for (token, refusal) in [
        (with("nonce", json!("n")), Refusal::IdToken),
        (with("at_hash", json!("h")), Refusal::IdToken),
        (with("c_hash", json!("h")), Refusal::IdToken),
        (with("typ", json!("ID")), Refusal::IdToken),
        (with("typ", json!("Refresh")), Refusal::IdToken),
        (with("token_use", json!("id")), Refusal::IdToken),
        (with("cnf", json!({"jkt": "x"})), Refusal::Bound),
        (with("aud", json!("account")), Refusal::Audience),
        (with("exp", json!(NOW_S)), Refusal::Expired),
        (
            with("iss", json!("https://other.example.org")),
            Refusal::Issuer,
        ),
        (with("iss", json!(1)), Refusal::ClaimMalformed("iss")),
        (key.sign("at+jwt", &claims()).unwrap(), Refusal::Type),
        (key.sign("logout+jwt", &claims()).unwrap(), Refusal::Type),
        (token(&other), Refusal::AlgorithmNotAllowed),
    ] {
        assert_eq!(world.judge(&token).await, Err(refusal));
    }
    assert!(world.judge(&with("typ", json!("Bearer"))).await.is_ok());
}

#[tokio::test]
async fn roles_and_scopes_are_what_the_operator_says() {
    let claims = json!({
        "sub": "ada", "iss": ISSUER, "aud": "auspex", "exp": NOW_S + 60, "scope": "admin email",
        "role": "boss", "scp": ["predict", "models:read"],
        "https://example.org/roles": ["boss"],
        "realm_access": {"roles": ["boss", "chief", "admin", 7, "analyst"]},
    });
    let table = [
        ("boss", "admin"),
        ("chief", "admin"),
        ("analyst", "data-scientist"),
    ];
    let table = table.map(|(theirs, ours)| (theirs.to_owned(), ours.to_owned()));
    for (path, expected) in [
        (Some("realm_access.roles"), vec!["admin", "data-scientist"]),
        (Some("https://example.org/roles"), vec!["admin"]),
        (Some("role"), vec!["admin"]),
        (Some("realm_access"), vec![]),
        (Some("realm_access.roles.0"), vec![]),
        (Some("missing.roles"), vec![]),
        (None, vec![]),
    ] {
        for (scope_claim, scope) in [
            (None, None),
            (Some("scope"), Some("admin email")),
            (Some("scp"), Some("predict models:read")),
            (Some("realm_access"), Some("")),
            (Some("missing"), None),
        ] {
            let world = World::with(|config| {
                config.roles_claim = path.map(Into::into);
                config.scope_claim = scope_claim.map(Into::into);
                if path.is_some() {
                    config.roles = table.clone().into();
                }
            })
            .await;
            let key = key();
            world.server.publish(&[&key]);
            let accepted = world
                .judge(&key.sign("JWT", &claims).unwrap())
                .await
                .unwrap();
            assert_eq!(accepted.roles, expected, "{path:?}");
            assert_eq!(accepted.claims.scope.as_deref(), scope, "{scope_claim:?}");
        }
    }
}

#[test]
fn wrong_settings_are_explained() {
    for (settings, part) in [
        (json!({"issuer": ""}), "\"issuer\""),
        (json!({"audience": ""}), "\"audience\""),
        (json!({"types": []}), "\"types\""),
        (json!({"algorithms": []}), "\"algorithms\""),
        (json!({"jwks_url": "jwks"}), "not a URL"),
        (
            json!({"jwks_url": "http://login.example.org/jwks"}),
            "must be https",
        ),
        (
            json!({"jwks_url": "file:///etc/passwd", "allow_private_addresses": true}),
            "must be https",
        ),
        (
            json!({"jwks_url": "https://user:hunter2@login.example.org/"}),
            "neither a user",
        ),
        (
            json!({"jwks_url": "https://127.0.0.1/jwks"}),
            "private network",
        ),
        (
            json!({"jwks_url": "https://[::ffff:10.0.0.1]/jwks"}),
            "private network",
        ),
        (
            json!({"jwks_url": "https://2130706433/jwks"}),
            "private network",
        ),
        (
            json!({"jwks_url": "https://0x7f.1/jwks"}),
            "private network",
        ),
        (json!({"roles": {"boss": "admin"}}), "needs \"roles_claim\""),
        (json!({"roles_claim": "roles"}), "needs \"roles\""),
        (
            json!({"roles_claim": "roles", "roles": {"boss": "amdin"}}),
            "must be one of admin,",
        ),
    ] {
        let error = Issuers::new(vec![config(settings)], clock()).expect_err(part);
        assert!(
            error.contains(part) && !error.contains("hunter2"),
            "{error}"
        );
    }
    let twice = vec![config(json!({})), config(json!({}))];
    let error = Issuers::new(twice, clock()).expect_err("twice");
    assert!(error.contains("configured twice"), "{error}");
    assert!(Issuers::new(vec![config(json!({}))], clock()).is_ok());

    for unknown in [
        json!({"issuer": "i", "jwks_url": "u"}),
        json!({"issuer": "i", "jwks_url": "u", "audience": "a", "aud": "b"}),
        json!({"issuer": "i", "jwks_url": "u", "audience": "a", "algorithms": ["HS256"]}),
    ] {
        assert!(serde_json::from_value::<IssuerConfig>(unknown).is_err());
    }
}
