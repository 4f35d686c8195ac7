//! Requests with an `Idempotency-Key` and a server that is killed while it carries them out: repeated
//! with the same keys, each is carried out exactly once.
//!
//! `AUSPEX_TEST_KILLS` says how often the server is killed; `scripts/prove idempotency` does it at length.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::Random;
use auspex_kernel::db::{Db, DbError};
use sea_orm_migration::sea_orm::ConnectionTrait as _;
use serde_json::json;

use crate::client::{Answer, Connection};
use crate::server::Server;

const KILLS_USUAL: usize = 3;
const CLIENTS: usize = 8;
/// Keys that are there to be rotated, for each time the server is killed.
const ROTATED: usize = 12;

/// A request that makes one thing, found by its name.
#[derive(Clone, Debug)]
struct Wanted {
    path: String,
    name: String,
    body: String,
}

impl Wanted {
    fn numbered(number: usize, rotated: Option<&String>) -> Self {
        let name = format!("thing-{number}");
        let (path, body) = match (number % 4, rotated) {
            (0, Some(id)) => {
                let path = format!("/v1/api-keys/{id}/rotations");
                return Self {
                    path,
                    name: id.clone(),
                    body: "{}".into(),
                };
            }
            (0 | 1, _) => (
                "/v1/users",
                json!({"name": name, "email": format!("{name}@example.org")}),
            ),
            (2, _) => ("/v1/api-keys", json!({"name": name, "scopes": ["predict"]})),
            _ => (
                "/v1/oauth-clients",
                json!({"name": name, "redirect_uris": ["https://app.example.org/cb"],
                    "scopes": ["openid"], "grant_types": ["authorization_code"], "public": false}),
            ),
        };
        Self {
            path: path.into(),
            name,
            body: body.to_string(),
        }
    }

    /// `None` if the server ends before it answers.
    fn send(&self, connection: &mut Connection, server: &Server) -> Option<Answer> {
        let Self { path, name, body } = self;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\nIdempotency-Key: {name}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            server.address,
            server.key,
            body.len()
        );
        connection.raw(head.as_bytes());
        connection.receive(false)
    }
}

fn kills() -> usize {
    let set = std::env::var("AUSPEX_TEST_KILLS").ok();
    set.map_or(KILLS_USUAL, |text| text.parse().expect("a number"))
}

#[test]
fn killed_on_sqlite_each_request_is_carried_out_once() {
    check(&[]);
}

#[test]
fn killed_on_postgres_each_request_is_carried_out_once() {
    let Ok(url) = std::env::var("AUSPEX_TEST_POSTGRES_URL") else {
        return;
    };
    let schema = format!("server_{}_idempotency", std::process::id());
    let execute = |sql: String| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let db = Db::open(&url).await.expect("opens");
            let done = db.write(async |transaction| -> Result<_, DbError> {
                Ok(transaction.execute_unprepared(&sql).await?)
            });
            done.await.expect("executed");
        });
    };
    execute(format!("CREATE SCHEMA {schema}"));
    let sign = if url.contains('?') { '&' } else { '?' };
    let own = format!("{url}{sign}options=-c%20search_path%3D{schema}");
    check(&[("AUSPEX__STORAGE__URL", &own)]);
    execute(format!("DROP SCHEMA {schema} CASCADE"));
}

fn check(settings: &[(&str, &str)]) {
    let limits =
        ["RATE_LIMIT", "ADDRESS_LIMIT"].map(|limit| format!("AUSPEX__SERVER__{limit}__MAX"));
    let mut settings = settings.to_vec();
    settings.extend(limits.iter().map(|limit| (&**limit, "1000000")));

    let mut server = Server::start_with(&settings);
    let next = AtomicUsize::new(1);
    let (mut wanted, mut unanswered) = (Vec::new(), 0);
    for _ in 0..kills() {
        let sent = until_killed(&server, &next);
        unanswered += sent.iter().filter(|(_, is_answered)| !is_answered).count();
        wanted.extend(sent.into_iter().map(|(wanted, _)| wanted));
        server = server.start_again(&settings);
    }
    assert!(unanswered > 0, "the server was killed amid its work");

    let mut connection = server.connect();
    let mut locations = BTreeMap::new();
    for wanted in &wanted {
        let answer = wanted.send(&mut connection, &server).expect("an answer");
        assert!(
            [201, 409].contains(&answer.status),
            "{wanted:?}: {}",
            answer.text()
        );
        let location = answer.header("location").expect("where the thing is");
        assert_eq!(locations.insert(location.to_owned(), &wanted.name), None);
        assert_eq!(server.get(location).status, 200, "{location}");
    }
    let counts = counts(&server);
    for wanted in &wanted {
        let made = counts.get(&wanted.name).copied().unwrap_or_default();
        assert_eq!(made, 1, "{wanted:?}");
    }
}

/// Sends requests at once until the server is killed at a random moment; each request, and whether it
/// was answered.
fn until_killed(server: &Server, next: &AtomicUsize) -> Vec<(Wanted, bool)> {
    let old: Vec<String> = (0..ROTATED).map(|_| make_key(server)).collect();
    let (old, sent) = (Mutex::new(old), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let client = || {
            let Some(mut connection) = Connection::try_open(server.address) else {
                return;
            };
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let rotated = number
                    .is_multiple_of(4)
                    .then(|| old.lock().expect("whole").pop());
                let wanted = Wanted::numbered(number, rotated.flatten().as_ref());
                let answer = wanted.send(&mut connection, server);
                let is_answered = answer.is_some();
                sent.lock().expect("whole").push((wanted, is_answered));
                match answer {
                    Some(answer) => assert_eq!(answer.status, 201, "{}", answer.text()),
                    None => return,
                }
            }
        };
        for _ in 0..CLIENTS {
            scope.spawn(client);
        }
        let [low, high] = Random::system().bytes().expect("random bytes");
        let pause = 20 + u64::from(u16::from_le_bytes([low, high])) % 130;
        std::thread::sleep(Duration::from_millis(pause));
        server.signal("KILL");
    });
    sent.into_inner().expect("whole")
}

/// Its id.
fn make_key(server: &Server) -> String {
    let answer = server.post("/v1/api-keys", r#"{"name": "old", "scopes": ["predict"]}"#);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// How many things there are of each name, and how many keys took the place of each that was rotated.
fn counts(server: &Server) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for list in ["/v1/users", "/v1/api-keys", "/v1/oauth-clients"] {
        let mut next = Some(format!("{list}?limit=1000"));
        while let Some(path) = next {
            let page = server.get(&path).json();
            for row in page["data"].as_array().expect("rows") {
                let name = match row["replaced_by"].as_str() {
                    Some(_) => row["id"].as_str(),
                    None => row["name"].as_str(),
                };
                *counts.entry(name.expect("a text").to_owned()).or_default() += 1;
            }
            next = page["pagination"]["links"]["next"]
                .as_str()
                .map(str::to_owned);
        }
    }
    // Each was replaced by one of the same name, or not at all.
    let old = counts.get("old").copied().unwrap_or_default();
    assert_eq!(old, kills() * ROTATED);
    counts
}
