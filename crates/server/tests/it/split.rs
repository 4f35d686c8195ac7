//! Roles in processes of their own: what a client does gives the same in one process and behind a gateway that passes it on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Answer;
use crate::jobs::{NDJSON, ended, id, submit};
use crate::predict::REQUEST;
use crate::replicas::Schema;
use crate::server::{Server, eventually};
use crate::tokens::{PASSWORD, by_token, log_in};
use crate::users::ask;

const SECOND: Duration = Duration::from_secs(1);
const SECRET: &str = "a-secret-of-all-processes-of-this-test";

/// A server in several processes: of these the first is the one that clients talk to.
struct Split {
    front: Server,
    others: Vec<Server>,
    schemas: Vec<Schema>,
}

/// Where tables are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// All in one database.
    Together,
    /// Those of services that may have one of their own, each in its own, which only the process that serves it knows.
    Apart,
}

/// Ports that are free now.
fn addresses<const N: usize>() -> [SocketAddr; N] {
    let bound = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    bound.map(|one| one.local_addr().expect("bound"))
}

impl Split {
    /// `None` without PostgreSQL, which all of them share.
    fn start(test: &str, more: &[(&str, &str)]) -> Option<Self> {
        Self::start_with(test, Tables::Together, more)
    }

    fn start_with(test: &str, tables: Tables, more: &[(&str, &str)]) -> Option<Self> {
        let url = std::env::var("AUSPEX_TEST_POSTGRES_URL").ok()?;
        let schema = Schema::create(url.clone(), test);
        let storage = schema.url();
        let mut schemas = vec![schema];
        let mut own = Vec::new();
        if tables == Tables::Apart {
            for service in ["dialogues", "gateway", "jobs"] {
                let schema = Schema::create(url.clone(), &format!("{test}_{service}"));
                let name = format!("AUSPEX__STORAGE__SERVICES__{}", service.to_uppercase());
                own.push((service, name, schema.url()));
                schemas.push(schema);
            }
        }
        let [front, inference, identity, dialogues, jobs] = addresses();
        let endpoints = |address| format!("[\"http://{address}\"]");
        let public_url = format!("http://{front}");
        let there = [inference, identity, dialogues, jobs].map(endpoints);
        let mut settings = vec![
            ("AUSPEX__STORAGE__URL", storage.as_str()),
            ("AUSPEX__SERVER__PUBLIC_URL", &public_url),
            ("AUSPEX__CLUSTER__SECRET", SECRET),
            ("AUSPEX__CLUSTER__SERVICES__INFERENCE__ENDPOINTS", &there[0]),
            ("AUSPEX__CLUSTER__SERVICES__IDENTITY__ENDPOINTS", &there[1]),
            ("AUSPEX__CLUSTER__SERVICES__DIALOGUES__ENDPOINTS", &there[2]),
            ("AUSPEX__CLUSTER__SERVICES__JOBS__ENDPOINTS", &there[3]),
        ];
        settings.extend(more);
        let start = |roles: &str, address, key: &str| {
            // It needs no models.
            let nowhere = ("AUSPEX__INFERENCE__MODELS", "/nowhere");
            let nowhere = (roles == "gateway").then_some(nowhere);
            let own = own.iter().filter(|(service, ..)| *service == roles);
            let own = own.map(|(_, name, url)| (name.as_str(), url.as_str()));
            let settings: Vec<_> = settings.iter().copied().chain(own).chain(nowhere).collect();
            Server::start_roles(roles, address, key, &settings)
        };
        // Whoever comes first makes the first key.
        let first = start("identity", identity, "");
        let key = std::fs::read_to_string(first.folder.path().join("admin.key"));
        let key = key.expect("a key").trim().to_owned();
        let others = [
            ("inference", inference),
            ("dialogues", dialogues),
            ("jobs", jobs),
        ];
        let others = others.map(|(role, at)| start(role, at, &key));
        Some(Self {
            others: others.into_iter().chain([first]).collect(),
            front: start("gateway", front, &key),
            schemas,
        })
    }

    fn stop(self) {
        self.front.stop();
        self.others.into_iter().for_each(|one| drop(one.stop()));
        self.schemas.iter().for_each(Schema::remove);
    }
}

/// What a client does and gets: (what, status, what matters of the answer).
fn scenario(server: &Server) -> Vec<(&'static str, u16, Value)> {
    let mut seen = Vec::new();
    let mut note = |what, answer: Answer, fields: &[&str]| {
        let body = match answer.text().is_empty() {
            true => Value::Null,
            false => answer.json(),
        };
        let fields = fields.iter().map(|field| body[*field].clone()).collect();
        seen.push((what, answer.status, fields));
        body
    };
    let key = server.key.clone();
    let ann = json!({"name": "Ann", "email": "ann@example.org", "username": "ann",
        "password": PASSWORD, "roles": ["data-scientist"]});
    note(
        "a user",
        ask(server, &key, "POST", "/v1/users", &ann),
        &["name", "roles"],
    );
    let tokens = log_in(server);
    let token = tokens["access_token"].as_str().expect("a token").to_owned();
    eventually(SECOND, "the token is known", || {
        by_token(server, &token) == 200
    });
    note(
        "predict",
        server.post("/predict", REQUEST),
        &["prediction", "probability"],
    );
    note(
        "wrong",
        server.post("/predict", "{\"features\": {}}"),
        &["error"],
    );
    let explain = server.post(
        "/v1/models/mean-score/explain",
        r#"{"features": [1, 2, 3, 4]}"#,
    );
    note("explain", explain, &[]);
    note("models", server.get("/v1/models"), &["data"]);
    let text = |text: &str| json!({"text": text, "language": "en"}).to_string();
    note("text", server.post("/data/ann/d1", text("first")), &[]);
    note("text", server.post("/data/ann/d1", text("second")), &[]);
    note("consent", server.post("/consents/d1", "true"), &[]);
    let read = note("texts", server.get("/data/"), &[]);
    let texts = read["data"].as_array().expect("a list").iter();
    let mut texts: Vec<_> = texts.map(|one| one["text"].clone()).collect();
    texts.sort_by_key(Value::to_string);
    let rows = "{\"f0\":1,\"f1\":1,\"f2\":2.5,\"f3\":0}\n".repeat(3);
    let job = id(&submit(server, "?model=mean-score", NDJSON, &rows));
    let ended = ended(server, &job);
    note("result", server.get("/v1/jobs/none"), &["error"]);
    let outcome = server.get(&format!("/v1/jobs/{job}/result"));
    let lines = outcome
        .text()
        .lines()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    note("nowhere", server.get("/v1/nowhere"), &[]);
    let anonymous = server.connect().send("GET", "/v1/users", &[], b"");
    note("anonymous", anonymous, &[]);
    note(
        "metadata",
        server.get("/.well-known/oauth-authorization-server"),
        &["scopes_supported"],
    );
    let events = server.get(&format!("/v1/jobs/{job}/events"));
    let tells_the_end = events.text().contains("succeeded");
    seen.push(("events", events.status, json!(tells_the_end)));
    seen.push(("the rest", 0, json!([texts, ended["status"], lines])));
    // Ids of requests differ.
    let text = serde_json::to_string(&seen.iter().map(|one| &one.2).collect::<Vec<_>>());
    assert!(!text.expect("JSON").contains(SECRET));
    seen.iter_mut()
        .for_each(|(_, _, fields)| forget_ids(fields));
    seen
}

fn forget_ids(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| {
                !["request_id", "loaded_at", "created_at"].contains(&name.as_str())
            });
            map.values_mut().for_each(forget_ids);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_ids),
        _ => {}
    }
}

#[test]
fn the_same_is_answered_in_one_process_and_in_five() {
    let Some(split) = Split::start("split", &[]) else {
        return;
    };
    answers_as_one_process(split);
}

#[test]
fn the_same_is_answered_by_processes_with_a_database_of_their_own() {
    let Some(split) = Split::start_with("split_apart", Tables::Apart, &[]) else {
        return;
    };
    let front = &split.front;
    let job = id(&submit(front, "?model=mean-score", NDJSON, "{\"f0\":1}\n"));
    ended(front, &job);
    let path = format!("/v1/jobs/{job}");
    assert_eq!(
        ask(front, &front.key, "DELETE", &path, &Value::Null).status,
        204
    );
    front.get("/data/");
    for action in ["job.delete", "messages.read"] {
        eventually(SECOND * 30, "it is recorded with all else", || {
            let record = front.get(&format!("/v1/audit?action={action}"));
            !record.json()["data"].as_array().expect("a list").is_empty()
        });
    }
    answers_as_one_process(split);
}

fn answers_as_one_process(split: Split) {
    let whole = Server::start();
    let (one, five) = (scenario(&whole), scenario(&split.front));
    for (one, five) in one.iter().zip(&five) {
        assert_eq!(one, five);
    }
    assert_eq!(one.len(), five.len());
    let paths = |server: &Server| -> Vec<String> {
        let document = server.get("/openapi.json").json();
        let paths = document["paths"].as_object().expect("paths");
        let mut paths: Vec<String> = paths.keys().cloned().collect();
        paths.retain(|path| !path.contains("/santander/") && !path.contains("/mean-score/"));
        paths.sort_unstable();
        paths
    };
    assert_eq!(paths(&whole), paths(&split.front));
    whole.stop();
    split.stop();
}

#[test]
fn a_limit_is_counted_once_for_the_client_and_no_client_can_lie_about_its_address() {
    let settings = [
        ("AUSPEX__SERVER__RATE_LIMIT__MAX", "10"),
        ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "5"),
    ];
    let Some(split) = Split::start("split_limits", &settings) else {
        return;
    };
    let Split { front, others, .. } = &split;
    let predict = |server: &Server| server.post("/predict", REQUEST);
    let left = |answer: &Answer| answer.header("x-ratelimit-remaining").map(str::to_owned);
    for remaining in (0..10).rev() {
        let answer = predict(front);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(left(&answer), Some(remaining.to_string()));
    }
    assert_eq!(predict(front).status, 429);
    let from = |server: &Server, address: &str, secret: Option<&str>| {
        let mut headers = vec![("X-Real-IP", address), ("X-Forwarded-For", address)];
        headers.extend(secret.map(|secret| ("X-Auspex-Cluster", secret)));
        server
            .connect()
            .send("GET", "/v1/models", &headers, b"")
            .status
    };
    // Whoever shows the secret to the process itself is believed, and nobody else.
    for number in 0..20 {
        let address = format!("203.0.113.{number}");
        assert_eq!(from(&others[0], &address, Some(SECRET)), 401);
    }
    let lying = |server: &Server, secret| {
        let ask = |number| from(server, &format!("198.51.100.{number}"), secret);
        let statuses: Vec<u16> = (0..10).map(ask).collect();
        statuses.last().copied()
    };
    assert_eq!(lying(&others[0], Some("a guess")), Some(429));
    // Through the gateway the secret of a client is of no use.
    assert_eq!(lying(front, Some("a guess")), Some(429));
    split.stop();
}

#[test]
fn a_role_that_is_away_is_told_and_the_others_go_on() {
    let Some(mut split) = Split::start("split_away", &[]) else {
        return;
    };
    let inference = split.others.remove(0);
    inference.stop();
    let away = split.front.post("/predict", REQUEST);
    assert_eq!(
        (away.status, away.error_code().as_str()),
        (502, "BAD_GATEWAY")
    );
    eventually(SECOND, "its circuit opens", || {
        split.front.post("/predict", REQUEST).status == 503
    });
    assert_eq!(split.front.get("/v1/users").status, 200);
    assert_eq!(split.front.get("/health/ready").status, 200);
    // Whoever is answered by the gateway itself is answered as the role would.
    let mut connection = split.front.connect();
    let refused = connection.send("PUT", "/oauth2/login", &[], b"");
    assert_eq!(refused.status, 405);
    let kind = refused.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}");
    split.stop();
}
