//! Two replicas on one PostgreSQL and one Redis, which is stopped, frozen and started under load.

#[path = "../../../kernel/tests/it/redis/server.rs"]
mod redis_server;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::db::{Db, DbError};
use sea_orm_migration::sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::client::{Answer, Connection};
use crate::predict::REQUEST;
use crate::server::{Server, eventually};
use crate::tokens::text;
use redis_server::RedisServer;

const SECOND: Duration = Duration::from_secs(1);

struct Replicas {
    redis: RedisServer,
    both: [Server; 2],
    schema: Schema,
}

/// A schema of the test's own, which goes with this.
pub(crate) struct Schema {
    url: String,
    name: String,
}

impl Schema {
    pub(crate) fn create(url: String, test: &str) -> Self {
        let name = format!("replicas_{}_{test}", std::process::id());
        let schema = Self { url, name };
        schema.execute(&format!("CREATE SCHEMA {}", schema.name));
        schema
    }

    pub(crate) fn url(&self) -> String {
        let sign = if self.url.contains('?') { '&' } else { '?' };
        let Self { url, name } = self;
        format!("{url}{sign}options=-c%20search_path%3D{name}")
    }

    /// Removes it with all that is in it.
    pub(crate) fn remove(&self) {
        self.execute(&format!("DROP SCHEMA {} CASCADE", self.name));
    }

    fn execute(&self, sql: &str) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let db = Db::open(&self.url).await.expect("opens");
            let done = db.write(async |transaction| -> Result<_, DbError> {
                Ok(transaction.execute_unprepared(sql).await?)
            });
            done.await.expect("executed");
        });
    }
}

impl Replicas {
    /// `None` where PostgreSQL or Redis is missing.
    fn start(test: &str, settings: &[(&str, &str)]) -> Option<Self> {
        let url = std::env::var("AUSPEX_TEST_POSTGRES_URL").ok()?;
        let redis = RedisServer::start()?;
        let schema = Schema::create(url, test);
        let (storage, redis_url) = (schema.url(), redis.url());
        let mut all = vec![
            ("AUSPEX__STORAGE__URL", storage.as_str()),
            ("AUSPEX__REDIS__URL", redis_url.as_str()),
        ];
        all.extend(settings);
        let one = Server::start_with(&all);
        let folder = tempfile::tempdir().expect("a folder");
        for file in ["admin.key", "dialogues.key"] {
            std::fs::copy(one.folder.path().join(file), folder.path().join(file)).expect("copied");
        }
        let two = Server::start_in(folder, &all);
        Some(Self {
            redis,
            both: [one, two],
            schema,
        })
    }

    /// Stops both, whose logs these are.
    fn stop(self) -> [String; 2] {
        let logs = self.both.map(Server::stop);
        self.schema.remove();
        logs
    }

    /// Makes a key at the first one.
    fn make_key(&self, scopes: &[&str]) -> (String, String) {
        let body = json!({"name": "shared", "scopes": scopes}).to_string();
        let made = self.both[0].post("/v1/api-keys", body);
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        (text(&made, "id"), text(&made, "key"))
    }
}

fn predict(connection: &mut Connection, key: &str) -> Answer {
    let headers = [("X-API-Key", key), ("Content-Type", "application/json")];
    connection.send("POST", "/predict", &headers, REQUEST.as_bytes())
}

#[test]
fn a_limit_holds_over_both_and_what_one_revokes_the_other_refuses() {
    let settings = [("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000")];
    let Some(replicas) = Replicas::start("limit", &settings) else {
        return;
    };
    let (id, key) = replicas.make_key(&["predict"]);
    let mut passed = 0;
    let [one, two] = &replicas.both;
    eventually(SECOND, "the other one knows the key", || {
        predict(&mut two.connect(), &key).status == 200
    });
    passed += 1;
    std::thread::scope(|scope| {
        let client = |server: &Server| {
            let (mut connection, key) = (server.connect(), key.clone());
            scope.spawn(move || {
                let answers = (0..300).map(|_| predict(&mut connection, &key).status);
                answers.filter(|status| *status == 200).count()
            })
        };
        let clients: Vec<_> = [one, two, one, two].map(client).into();
        for client in clients {
            passed += client.join().expect("answered");
        }
    });
    assert!((980..=1000).contains(&passed), "{passed} passed");
    // Permits that one gave back at the end pass yet.
    let mut refused = predict(&mut one.connect(), &key);
    while refused.status == 200 {
        passed += 1;
        assert!(passed <= 1000, "{passed} passed");
        refused = predict(&mut one.connect(), &key);
    }
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));

    let (id_of_other, other) = replicas.make_key(&["predict"]);
    eventually(SECOND, "the other one knows the key", || {
        predict(&mut two.connect(), &other).status == 200
    });
    let headers = [("X-API-Key", one.key.as_str())];
    for id in [&id, &id_of_other] {
        let path = format!("/v1/api-keys/{id}");
        let revoked = one.connect().send("DELETE", &path, &headers, b"");
        assert_eq!(revoked.status, 204, "{}", revoked.text());
    }
    eventually(SECOND, "the key is revoked there too", || {
        predict(&mut two.connect(), &other).status == 401
    });
    replicas.stop();
}

#[test]
fn a_dialogue_begins_on_one_and_ends_on_the_other_and_no_text_is_lost_to_an_outage() {
    let Some(mut replicas) = Replicas::start("dialogues", &[]) else {
        return;
    };
    let Replicas { redis, both, .. } = &mut replicas;
    let [one, two] = both;
    let push = |server: &Server, dialogue: &str, text: &str| {
        let body = json!({"text": text, "language": "en"}).to_string();
        server.post(&format!("/data/ann/{dialogue}"), body).status
    };
    assert_eq!(push(one, "d1", "first"), 200);
    assert_eq!(push(two, "d1", "second"), 200);
    let consent = two.post("/consents/d1", "true");
    assert_eq!(consent.status, 200, "{}", consent.text());
    let read = one.get("/data/").json();
    let texts = read["data"].as_array().expect("texts").iter();
    let mut texts: Vec<_> = texts.filter_map(|text| text["text"].as_str()).collect();
    texts.sort_unstable();
    assert_eq!(texts, ["first", "second"]);
    assert_eq!(push(one, "d1", "late"), 409);

    assert_eq!(push(one, "d2", "kept"), 200);
    redis.freeze();
    assert_eq!(push(two, "d2", "not accepted"), 503);
    assert_eq!(one.post("/consents/d2", "true").status, 503);
    redis.thaw();
    eventually(2 * SECOND, "it is back", || {
        one.get("/v1/dialogues/d2").json()["texts"] == json!(1)
    });
    replicas.stop();
}

/// What the first replica of a newer version does while those of this one serve.
#[test]
fn a_newer_version_brings_the_tables_further_while_these_serve_and_start() {
    let Some(replicas) = Replicas::start("newer", &[]) else {
        return;
    };
    let one = &replicas.both[0];
    replicas.make_key(&["predict"]);
    assert_eq!(one.get("/v1/api-keys").status, 200);
    let name = &replicas.schema.name;
    // Statements that are prepared go on: none asks for all columns.
    for sql in [
        format!("ALTER TABLE {name}.identity_api_keys ADD COLUMN from_tomorrow TEXT"),
        format!("INSERT INTO {name}.identity_migrations VALUES ('m9999_from_tomorrow', 0)"),
    ] {
        replicas.schema.execute(&sql);
    }
    for _ in 0..20 {
        replicas.make_key(&["predict"]);
        assert_eq!(one.get("/v1/api-keys").status, 200);
    }
    let (storage, redis) = (replicas.schema.url(), replicas.redis.url());
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["admin.key", "dialogues.key"] {
        std::fs::copy(one.folder.path().join(file), folder.path().join(file)).expect("copied");
    }
    let settings = [
        ("AUSPEX__STORAGE__URL", storage.as_str()),
        ("AUSPEX__REDIS__URL", redis.as_str()),
    ];
    let third = Server::start_in(folder, &settings);
    assert_eq!(third.get("/v1/api-keys").status, 200);
    assert!(third.stop().contains("a newer version"));
    replicas.stop();
}

fn health_of_redis(server: &Server) -> (Value, Value) {
    let health = server.get("/health").json();
    (health["status"].clone(), health["reasons"]["redis"].clone())
}

#[test]
fn without_redis_all_is_answered_and_told_and_its_return_is_noticed() {
    let settings = [("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000000")];
    let Some(mut replicas) = Replicas::start("outage", &settings) else {
        return;
    };
    let is_over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let Replicas { redis, both, .. } = &mut replicas;
    std::thread::scope(|scope| {
        for server in &*both {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(predict(&mut connection, &server.key).status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let becomes = |status: &str, reason: Value| {
            for server in &*both {
                // The report is kept for a second.
                eventually(3 * SECOND, "health tells it", || {
                    health_of_redis(server) == (json!(status), reason.clone())
                });
            }
        };
        let check = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            becomes("healthy", Value::Null);
            redis.kill();
            becomes("degraded", json!("cannot be reached"));
            assert_eq!(both[0].get("/health/ready").status, 200);
            redis.start_again();
            becomes("healthy", Value::Null);
            redis.freeze();
            becomes("degraded", json!("no answer in time"));
            let before = answered.load(Ordering::Relaxed);
            eventually(2 * SECOND, "requests go on", || {
                answered.load(Ordering::Relaxed) > before + 100
            });
            redis.thaw();
            redis.say("SCRIPT FLUSH");
            becomes("healthy", Value::Null);
        }));
        is_over.store(true, Ordering::Relaxed);
        if let Err(panic) = check {
            std::panic::resume_unwind(panic);
        }
    });
    let metrics = both[0].get("/metrics");
    assert!(metrics.text().contains("auspex_redis_up 1\n"));
    let alone = metrics.text().lines();
    let mut alone = alone.filter_map(|line| line.strip_prefix("auspex_rate_limit_alone_total "));
    assert_ne!(alone.next(), Some("0"));
    for log in replicas.stop() {
        let told = log.matches("Redis does not serve").count();
        assert!((2..10).contains(&told), "{log}");
    }
}
