//! Every operation of the OpenAPI document, asked by everybody: anonymous, and one user of each
//! role. An operation without a decision fails here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::Server;

const PASSWORD: &str = "correct horse battery";

/// Who may do what: the roles of `docs/API.md`, written down once more, so that a change of one
/// side alone is noticed.
const ROLES: [(&str, &[&str]); 5] = [
    ("admin", &["*"]),
    (
        "data-scientist",
        &[
            "predict",
            "models:read",
            "models:write",
            "data:read",
            "jobs:read",
            "jobs:write",
            "metrics:read",
        ],
    ),
    (
        "operator",
        &[
            "models:read",
            "models:write",
            "jobs:read",
            "jobs:write",
            "jobs:operate",
            "gateway:read",
            "gateway:write",
            "metrics:read",
            "audit:read",
        ],
    ),
    (
        "service",
        &["predict", "data:write", "jobs:read", "jobs:write"],
    ),
    (
        "viewer",
        &["models:read", "jobs:read", "gateway:read", "metrics:read"],
    ),
];

/// Operations open to everybody. Each was decided on; the edge serves no other.
const PUBLIC: [&str; 26] = [
    "get /",
    "get /health",
    "get /health/live",
    "get /health/ready",
    "post /v1/auth/login",
    "post /v1/auth/refresh",
    "get /.well-known/jwks.json",
    "get /.well-known/openid-configuration",
    "get /.well-known/oauth-authorization-server",
    "get /oauth2/authorize",
    "post /oauth2/authorize",
    "get /oauth2/login",
    "post /oauth2/login",
    "post /oauth2/consent",
    "post /oauth2/logout",
    "get /oauth2/continue",
    "post /oauth2/account",
    "get /oauth2/end-session",
    "post /oauth2/end-session",
    "post /oauth2/device_authorization",
    "get /oauth2/device",
    "post /oauth2/device",
    "post /oauth2/token",
    "post /oauth2/introspect",
    "post /oauth2/revoke",
    "get /oauth2/assets/style.css",
];

/// Operations for everybody who is logged in, about themselves.
const ANYBODY: [&str; 14] = [
    "post /v1/auth/logout",
    "get /me",
    "get /v1/me",
    "put /v1/me/password",
    "get /v1/me/logins",
    "get /v1/me/sessions",
    "delete /v1/me/sessions/{session_id}",
    "get /v1/me/consents",
    "delete /v1/me/consents/{client_id}",
    "get /v1/me/api-keys",
    "get /v1/me/api-keys/{id}",
    "delete /v1/me/api-keys/{id}",
    "get /oauth2/userinfo",
    "post /oauth2/userinfo",
];

/// Their answers have no end.
const STREAMS: [&str; 1] = ["get /v1/gateway/events"];

/// What one operation declares.
#[derive(Debug, PartialEq)]
enum Rule {
    Public,
    Anybody,
    Scopes(Vec<String>),
}

fn rule(operation: &Value) -> Option<Rule> {
    let mut scopes: Vec<&Value> = Vec::new();
    for requirement in operation["security"].as_array()? {
        scopes.extend(requirement.as_object()?.values());
    }
    let Some(first) = scopes.first() else {
        return Some(Rule::Public);
    };
    assert!(scopes.iter().all(|other| other == first), "{operation}");
    match first.as_array()?.as_slice() {
        [] => Some(Rule::Anybody),
        scopes => {
            let scopes = scopes.iter().map(|scope| Some(scope.as_str()?.to_owned()));
            Some(Rule::Scopes(scopes.collect::<Option<_>>()?))
        }
    }
}

/// Every operation with its rule, but the typed one of each model, which is the general one.
fn operations(document: &Value) -> BTreeMap<String, Rule> {
    let mut rules = BTreeMap::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let name = format!("{method} {path}");
            let rule = rule(operation).unwrap_or_else(|| panic!("{name} declares nobody"));
            rules.insert(name, rule);
        }
    }
    rules
}

#[test]
fn every_operation_was_decided_on() {
    let server = Server::start();
    let document = server.get("/openapi.json").json();
    let scopes: Vec<&str> = ROLES
        .iter()
        .flat_map(|(_, scopes)| *scopes)
        .copied()
        .collect();
    let admin_only = [
        "users:read",
        "users:write",
        "keys:write",
        "clients:write",
        "data:identify",
        "data:erase",
    ];
    for (name, rule) in operations(&document) {
        let decided = match &rule {
            Rule::Public => PUBLIC.contains(&name.as_str()),
            Rule::Anybody => ANYBODY.contains(&name.as_str()),
            Rule::Scopes(needed) => needed.iter().all(|scope| {
                scopes.contains(&scope.as_str()) || admin_only.contains(&scope.as_str())
            }),
        };
        assert!(decided, "nobody decided on {name}: {rule:?}");
    }
}

#[test]
fn everybody_gets_what_was_decided_and_nothing_else() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "100000")]);
    let document = server.get("/openapi.json").json();
    let operations = operations(&document);
    let callers: Vec<(&str, &[&str], String)> = ROLES
        .iter()
        .map(|(role, scopes)| {
            let name = format!("{role}@example.org");
            let user = json!({"name": role, "email": name, "roles": [role], "password": PASSWORD});
            assert_eq!(
                server.post("/v1/users", user.to_string()).status,
                201,
                "{role}"
            );
            let basic = STANDARD.encode(format!("{name}:{PASSWORD}"));
            (*role, *scopes, format!("Basic {basic}"))
        })
        .collect();
    assert!(operations.len() > 30, "the document was read");
    for (name, rule) in &operations {
        let (method, path) = name.split_once(' ').expect("two words");
        let path = filled(path);
        let ask = |authorization: Option<&str>| {
            let mut headers = vec![("Content-Type", "application/json")];
            headers.extend(authorization.map(|value| ("Authorization", value)));
            let method = method.to_uppercase();
            let mut client = server.connect();
            if STREAMS.contains(&name.as_str()) {
                let authorization = authorization.unwrap_or_default();
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n"
                );
                client.raw(head.as_bytes());
                return client.receive(true).expect("a head").status;
            }
            client.send(&method, &path, &headers, b"{}").status
        };
        if *rule == Rule::Public {
            continue;
        }
        assert_eq!(ask(None), 401, "{name} by nobody");
        for (role, scopes, authorization) in &callers {
            let may = match rule {
                Rule::Scopes(needed) => {
                    let has = |scope: &String| scopes.contains(&scope.as_str());
                    scopes.contains(&"*") || needed.iter().all(has)
                }
                Rule::Anybody | Rule::Public => true,
            };
            let status = ask(Some(authorization));
            match may {
                // It wants a token with the scope `openid`, which is no right of a role.
                true if path == "/oauth2/userinfo" => assert_eq!(status, 403, "{name} by {role}"),
                true => assert!(![401, 403].contains(&status), "{name} by {role}: {status}"),
                false => assert_eq!(status, 403, "{name} by {role}"),
            }
        }
    }
}

/// Who reaches one thing: `Shared` things have no owner and the scope alone decides; `Owned` ones are
/// reached by their owner and by callers that may change users; `Own` ones by their user alone, and by no
/// key, as `oauth/own.rs` shows; `Callers` ones by whoever made them and by operators, as `jobs.rs` shows.
enum Reach {
    Shared,
    Callers,
    Owned,
    Own,
}

fn reach(name: &str) -> Option<Reach> {
    let (_, path) = name.split_once(' ')?;
    let shared = [
        "/v1/models/",
        "/v1/users/",
        "/users/",
        "/v1/oauth-clients/",
        "/v1/data/",
        "/data/",
        "/v1/consents/",
        "/consents/",
        "/v1/dialogues/",
        "/v1/customers/",
        "/v1/services/",
    ];
    if shared.iter().any(|prefix| path.starts_with(prefix)) {
        return Some(Reach::Shared);
    }
    if path.starts_with("/v1/jobs/") {
        return Some(Reach::Callers);
    }
    let own = ["/v1/me/sessions/", "/v1/me/consents/"];
    if own.iter().any(|prefix| path.starts_with(prefix)) {
        return Some(Reach::Own);
    }
    let owned = ["/v1/api-keys/", "/v1/me/api-keys/"];
    let is_owned = owned.iter().any(|prefix| path.starts_with(prefix));
    is_owned.then_some(Reach::Owned)
}

#[test]
fn foreign_things_are_not_found_and_own_ones_are() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "100000")]);
    let document = server.get("/openapi.json").json();
    let post = |authorization: &str, path: &str, body: Value| {
        let headers = [
            ("Authorization", authorization),
            ("Content-Type", "application/json"),
        ];
        let body = body.to_string();
        server
            .connect()
            .send("POST", path, &headers, body.as_bytes())
    };
    // Two administrators, each with a key that may manage keys, but not users.
    let callers: Vec<String> = ["one", "two"]
        .iter()
        .map(|name| {
            let email = format!("{name}@example.org");
            let user =
                json!({"name": name, "email": email, "roles": ["admin"], "password": PASSWORD});
            assert_eq!(server.post("/v1/users", user.to_string()).status, 201);
            let basic = STANDARD.encode(format!("{email}:{PASSWORD}"));
            let key = json!({"name": "manager", "scopes": ["keys:write", "predict"]});
            let made = post(&format!("Basic {basic}"), "/v1/api-keys", key);
            assert_eq!(made.status, 201, "{}", made.text());
            format!("Bearer {}", made.json()["key"].as_str().expect("a key"))
        })
        .collect();
    for (name, _) in operations(&document) {
        if !name.contains('{') {
            continue;
        }
        let Some(Reach::Owned) = reach(&name) else {
            assert!(
                reach(&name).is_some(),
                "nobody decided whose things {name} reaches"
            );
            continue;
        };
        let (method, template) = name.split_once(' ').expect("two words");
        for (caller, status_of) in [(&callers[1], "foreign"), (&callers[0], "own")] {
            let thing = post(
                &callers[0],
                "/v1/api-keys",
                json!({"name": "x", "scopes": ["predict"]}),
            );
            let id = thing.json()["id"].as_str().expect("an id").to_owned();
            let path = template.replace("{id}", &id);
            let headers = [
                ("Authorization", caller.as_str()),
                ("Content-Type", "application/json"),
            ];
            let method = method.to_uppercase();
            let answer = server.connect().send(&method, &path, &headers, b"{}");
            match status_of {
                "foreign" => assert_eq!(answer.status, 404, "{name}: {}", answer.text()),
                _ => assert!(answer.status < 300, "{name}: {}", answer.text()),
            }
            // A caller that manages users manages their keys.
            assert_eq!(server.get(&format!("/v1/api-keys/{id}")).status, 200);
        }
    }
}

/// The path with things in it that do not exist, so that nothing is changed.
fn filled(path: &str) -> String {
    let mut filled = path.to_owned();
    for (parameter, value) in [
        ("{model}", "santander"),
        ("{version}", "1"),
        ("{id}", "0123456789ABCDEF"),
        ("{client_id}", "0123456789ABCDEF"),
        ("{session_id}", "0123456789ABCDEF"),
        ("{customerId}", "nobody"),
        ("{dialogId}", "nothing"),
        ("{customer_id}", "nobody"),
        ("{dialog_id}", "nothing"),
        ("{service}", "orders"),
        ("{instance}", "one"),
    ] {
        filled = filled.replace(parameter, value);
    }
    assert!(
        !filled.contains('{'),
        "{path} has a parameter that this test does not know"
    );
    filled
}
