//! Every operation of the OpenAPI document, asked by everybody: anonymous, and one user of each
//! role. An operation that nobody decided about fails here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::server::{Server, add_user};

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
        ],
    ),
    (
        "operator",
        &[
            "models:read",
            "models:write",
            "gateway:read",
            "gateway:write",
            "metrics:read",
            "audit:read",
        ],
    ),
    ("service", &["predict", "data:write", "jobs:read", "jobs:write"]),
    (
        "viewer",
        &["models:read", "jobs:read", "gateway:read", "metrics:read"],
    ),
];

/// Operations open to everybody. Each was decided on; the edge serves no other.
const PUBLIC: [&str; 19] = [
    "get /health",
    "get /health/live",
    "get /health/ready",
    "post /v1/auth/login",
    "post /v1/auth/refresh",
    "get /.well-known/jwks.json",
    "get /.well-known/openid-configuration",
    "get /.well-known/oauth-authorization-server",
    "get /oauth2/authorize",
    "get /oauth2/login",
    "post /oauth2/login",
    "post /oauth2/consent",
    "post /oauth2/logout",
    "post /oauth2/token",
    "post /oauth2/introspect",
    "post /oauth2/revoke",
    "get /oauth2/assets/style.css",
    "get /oauth2/userinfo",
    "post /oauth2/userinfo",
];

/// Operations for whoever is logged in, about himself.
const ANYBODY: [&str; 6] = [
    "post /v1/auth/logout",
    "get /me",
    "get /v1/me",
    "put /v1/me/password",
    "put /me/password",
    "get /v1/me/logins",
];

/// What one operation declares.
#[derive(Debug, PartialEq)]
enum Rule {
    Public,
    Anybody,
    Scope(String),
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
        [scope] => Some(Rule::Scope(scope.as_str()?.to_owned())),
        _ => None,
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
    let scopes: Vec<&str> = ROLES.iter().flat_map(|(_, scopes)| *scopes).copied().collect();
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
            Rule::Scope(scope) => {
                scopes.contains(&scope.as_str()) || admin_only.contains(&scope.as_str())
            }
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
            add_user(&server, role, &name, &[role], PASSWORD);
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
            server.connect().send(&method, &path, &headers, b"{}").status
        };
        if *rule == Rule::Public {
            continue;
        }
        assert_eq!(ask(None), 401, "{name} by nobody");
        for (role, scopes, authorization) in &callers {
            let may = match rule {
                Rule::Scope(scope) => scopes.contains(&"*") || scopes.contains(&scope.as_str()),
                Rule::Anybody | Rule::Public => true,
            };
            let status = ask(Some(authorization));
            match may {
                true => assert!(![401, 403].contains(&status), "{name} by {role}: {status}"),
                false => assert_eq!(status, 403, "{name} by {role}"),
            }
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
    ] {
        filled = filled.replace(parameter, value);
    }
    assert!(!filled.contains('{'), "{path} has a parameter that this test does not know");
    filled
}
