//! Services are told who calls, by tokens that are for them alone.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::backend::Backend;
use super::{OK, start_from};
use crate::server::Server;

const OURS: &str = "https://models.example.org";

fn serve(backend: &Backend) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    let service = |name: &str, more: &str| {
        format!(
            "[gateway.services.{name}]\nendpoints = [\"http://{}\"]\n{more}\n",
            backend.address
        )
    };
    let route = |name: &str, more: &str| {
        format!("[[gateway.routes]]\npath = \"/{name}\"\nservice = \"{name}\"\n{more}\n")
    };
    let settings = [
        format!("[identity.tokens]\naudience = \"{OURS}\"\n"),
        service("orders", ""),
        service("named", "audience = \"https://named.example\""),
        service("untold", "identity_token = false"),
        service("ours", &format!("audience = \"{OURS}\"")),
        route("orders", "scopes = []"),
        route("named", "scopes = [\"predict\"]"),
        route("untold", "scopes = []"),
        route("ours", "scopes = []"),
        "[[gateway.routes]]\npath = \"/public\"\nservice = \"orders\"\npublic = true\n".into(),
        "[[gateway.routes]]\npath = \"/forward\"\nservice = \"orders\"\nscopes = []\n\
         forward_credentials = true\n"
            .into(),
    ];
    std::fs::write(&file, settings.concat()).expect("written");
    start_from(folder, &file, &[])
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The token that the service was shown last, if it was shown one.
fn shown(backend: &Backend) -> Option<String> {
    let seen = backend.seen().pop().expect("a request");
    let value = seen.header("authorization")?;
    Some(value.strip_prefix("Bearer ")?.to_owned())
}

/// The claims of a token whose signature is that of a published key.
fn verified(server: &Server, token: &str) -> Value {
    let keys = server.get("/.well-known/jwks.json").json();
    let (header, all) = (part(token, 0), keys["keys"].as_array().cloned());
    assert_eq!(header["typ"], "identity+jwt");
    let all = all.expect("keys");
    let key = all.iter().find(|key| key["kid"] == header["kid"]);
    let public = key.expect("published")["x"].as_str().expect("text");
    let public = URL_SAFE_NO_PAD.decode(public).expect("base64");
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(signed.as_bytes(), &signature).expect("signed");
    part(token, 1)
}

#[test]
fn a_service_is_told_who_calls() {
    let backend = Backend::saying(OK);
    let server = serve(&backend);
    assert_eq!(server.get("/orders").status, 200);
    let token = shown(&backend).expect("one");
    let claims = verified(&server, &token);
    let named = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(named("iss"), format!("http://{}", server.address));
    assert_eq!(named("aud"), "orders");
    assert!(named("caller").starts_with("key:"), "{claims}");
    assert_eq!(named("sub"), named("caller"), "nobody stands behind it");
    assert!(named("scope").contains("gateway:read") && !named("jti").is_empty());
    let lives = claims["exp"].as_i64().zip(claims["iat"].as_i64());
    assert!(lives.is_some_and(|(exp, iat)| (58..=60).contains(&(exp - iat))));
    let sent = backend.seen().pop().expect("a request");
    assert_eq!(sent.header("x-api-key"), None);

    // The same for a while; another for another service, and for another caller.
    assert_eq!(server.get("/orders").status, 200);
    assert_eq!(shown(&backend).as_ref(), Some(&token));
    assert_eq!(server.get("/named").status, 200);
    let other = verified(&server, &shown(&backend).expect("one"));
    assert_eq!(other["aud"], "https://named.example");
    let made = json!({"name": "less", "scopes": ["predict"]}).to_string();
    let made = server.post("/v1/api-keys", made).json();
    let less = made["key"].as_str().expect("a key");
    let mut connection = server.connect();
    for path in ["/orders", "/orders"] {
        let bearer = format!("Bearer {less}");
        let headers = [
            ("Authorization", bearer.as_str()),
            ("X-Auspex-Caller", "admin"),
        ];
        assert_eq!(connection.send("GET", path, &headers, b"").status, 200);
        let claims = verified(&server, &shown(&backend).expect("one"));
        assert_eq!(claims["scope"], "predict");
        let id = made["id"].as_str().expect("an id");
        assert_eq!(claims["caller"], format!("key:{id}"));
        let sent = backend.seen().pop().expect("a request");
        assert_eq!(sent.header("x-auspex-caller"), None);
    }

    // It is good for nothing here.
    let bearer = format!("Bearer {token}");
    for path in ["/v1/me", "/orders", "/v1/models"] {
        let headers = [("Authorization", bearer.as_str())];
        let answer = server.connect().send("GET", path, &headers, b"");
        assert_eq!(answer.status, 401, "{path}");
    }
}

#[test]
fn nobody_else_is_told_and_nobody_can_be_told_in_our_name() {
    let backend = Backend::saying(OK);
    let server = serve(&backend);
    for path in ["/public", "/untold"] {
        assert_eq!(server.get(path).status, 200);
        assert_eq!(shown(&backend), None, "{path}");
    }
    let bearer = format!("Bearer {}", server.key);
    let headers = [("Authorization", bearer.as_str())];
    let answer = server.connect().send("GET", "/forward", &headers, b"");
    assert_eq!(answer.status, 200);
    assert_eq!(
        shown(&backend).as_ref(),
        Some(&server.key),
        "as it was sent"
    );
    let before = backend.seen().len();
    let answer = server.get("/ours");
    assert_eq!(super::refusal(&answer).2, "identity_token");
    assert_eq!(backend.seen().len(), before);
    let log = server.stop();
    assert!(log.contains("audience"), "{log}");
}
