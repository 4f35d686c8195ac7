//! Tokens that nobody issued, against the running server (RFC 8725 names most of these tricks).

use std::net::TcpListener;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::server::Server;
use crate::tokens::{by_token, log_in, text, with_ann};

/// A good token, taken apart.
struct Good {
    header: Value,
    claims: Value,
    signature: String,
    /// Our public key, as published.
    jwk: Value,
}

impl Good {
    fn of(server: &Server, token: &str) -> Self {
        let parts: Vec<&str> = token.split('.').collect();
        let read = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url"));
        let keys = server
            .connect()
            .send("GET", "/.well-known/jwks.json", &[], b"")
            .json();
        Self {
            header: read(parts[0]).expect("JSON"),
            claims: read(parts[1]).expect("JSON"),
            signature: parts[2].to_owned(),
            jwk: keys["keys"][0].clone(),
        }
    }

    fn header(&self, change: Value) -> Value {
        merged(&self.header, change)
    }

    fn claims(&self, change: Value) -> Value {
        merged(&self.claims, change)
    }
}

fn merged(object: &Value, change: Value) -> Value {
    let mut object = object.clone();
    for (name, value) in change.as_object().expect("an object") {
        object[name] = value.clone();
    }
    object
}

fn signed_part(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn by_key(key: &Ed25519KeyPair, header: &Value, claims: &Value) -> String {
    let signed = signed_part(header, claims);
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn by_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = signed_part(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

/// All are refused with the same words, and the good one is still good.
fn refuses_all(server: &Server, good: &str, forged: impl IntoIterator<Item = String>) {
    let mut told = Vec::new();
    for token in forged {
        assert_ne!(token, good);
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        let answer = server.connect().send("GET", "/v1/models", &headers, b"");
        assert_eq!(answer.status, 401, "{token}");
        assert_eq!(answer.error_code(), "UNAUTHENTICATED");
        told.push(text(&answer.json()["error"], "message"));
    }
    told.dedup();
    assert!(told.len() == 1, "{told:?}");
    assert_eq!(by_token(server, good), 200);
}

#[test]
fn unsigned_tokens_are_refused() {
    let (server, _) = with_ann(&[]);
    let token = text(&log_in(&server), "access_token");
    let good = Good::of(&server, &token);
    let mut forged = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", "none ", ""] {
        let signed = signed_part(&good.header(json!({"alg": alg})), &good.claims);
        forged
            .extend(["", &good.signature, "AAAA"].map(|signature| format!("{signed}.{signature}")));
        forged.push(signed);
    }
    let (signed, _) = token.rsplit_once('.').expect("three parts");
    forged.extend([
        signed.to_owned(),
        format!("{signed}."),
        format!("{token}."),
        format!("{token}.x"),
    ]);
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    forged.push(format!("{signed}.{zeros}"));
    refuses_all(&server, &token, forged);
}

#[test]
fn a_public_key_is_no_secret() {
    for algorithm in ["EdDSA", "ES256", "RS256"] {
        let (server, _) = with_ann(&[("AUSPEX__IDENTITY__TOKENS__ALGORITHM", algorithm)]);
        let token = text(&log_in(&server), "access_token");
        let good = Good::of(&server, &token);
        assert_eq!(good.header["alg"], algorithm);
        let mut secrets = vec![
            Vec::new(),
            good.jwk.to_string().into_bytes(),
            json!({"keys": [good.jwk]}).to_string().into_bytes(),
        ];
        for member in ["x", "y", "n"] {
            if let Some(member) = good.jwk[member].as_str() {
                secrets.push(member.into());
                secrets.push(URL_SAFE_NO_PAD.decode(member).expect("base64url"));
            }
        }
        let mut forged = Vec::new();
        for secret in secrets {
            for alg in ["HS256", "hs256", "HS512", "EdDSA", "ES256", "RS256"] {
                forged.push(by_secret(
                    &secret,
                    &good.header(json!({"alg": alg})),
                    &good.claims,
                ));
            }
        }
        // The right key under the name of another algorithm.
        for alg in ["EdDSA", "ES256", "RS256", "PS256", "ES384", "Ed25519"] {
            let header = good.header(json!({"alg": alg}));
            if header != good.header {
                let signed = signed_part(&header, &good.claims);
                forged.push(format!("{signed}.{}", good.signature));
            }
        }
        refuses_all(&server, &token, forged);
    }
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let (server, _) = with_ann(&[]);
    let token = text(&log_in(&server), "access_token");
    let good = Good::of(&server, &token);
    let mine = Ed25519KeyPair::generate().expect("a key");
    let x = URL_SAFE_NO_PAD.encode(mine.public_key().as_ref());
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": good.header["kid"], "alg": "EdDSA"});
    let bait = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}/keys", bait.local_addr().expect("bound"));
    let traversal = "../../../../dev/null";
    let mut headers = vec![
        good.header.clone(),
        good.header(json!({"jwk": jwk})),
        good.header(json!({"jku": url})),
        good.header(json!({"x5u": url})),
        good.header(json!({"x5c": [STANDARD.encode(mine.public_key().as_ref())]})),
        good.header(json!({"crit": ["exp"]})),
        good.header(json!({"b64": false, "crit": ["b64"]})),
        good.header(json!({"zip": "DEF"})),
    ];
    let mut unnamed = good.header.clone();
    unnamed.as_object_mut().expect("an object").remove("kid");
    headers.push(unnamed);
    for kid in [
        json!("another"),
        json!(""),
        json!(null),
        json!(7),
        json!([]),
        json!(traversal),
        json!("' OR '1'='1"),
        json!(url),
        json!("k".repeat(5_000)),
        json!("a\u{0}b"),
    ] {
        headers.push(good.header(json!({"kid": kid})));
    }
    let forged = headers
        .iter()
        .map(|header| by_key(&mine, header, &good.claims));
    refuses_all(&server, &token, forged);
    // The right signature does not save what must not be there.
    let kept = headers.iter().skip(1).map(|header| {
        let signed = signed_part(header, &good.claims);
        format!("{signed}.{}", good.signature)
    });
    refuses_all(&server, &token, kept);
    bait.set_nonblocking(true).expect("set");
    assert!(bait.accept().is_err(), "the token's address was asked");
}

#[test]
fn no_character_of_a_token_can_be_changed() {
    let (server, id) = with_ann(&[]);
    let token = text(&log_in(&server), "access_token");
    let good = Good::of(&server, &token);
    let parts: Vec<&str> = token.split('.').collect();
    let mut forged = Vec::new();
    for change in [
        json!({"scope": "users:write"}),
        json!({"sub": "somebody else"}),
        json!({"exp": 9_999_999_999_u64}),
        json!({"aud": ["another", id]}),
    ] {
        let signed = signed_part(&good.header, &good.claims(change));
        forged.push(format!("{signed}.{}", good.signature));
    }
    for place in (0..token.len()).step_by(7) {
        let mut changed = token.clone().into_bytes();
        changed[place] = match changed[place] {
            b'.' => continue,
            b'A' => b'B',
            _ => b'A',
        };
        forged.push(String::from_utf8(changed).expect("ASCII"));
    }
    // The same bytes, written in another way.
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(parts[2]).expect("base64url"));
    forged.push(format!("{}.{}.{padded}", parts[0], parts[1]));
    let spaced = format!("{} ", good.claims);
    forged.push(format!(
        "{}.{}.{}",
        parts[0],
        URL_SAFE_NO_PAD.encode(spaced),
        parts[2]
    ));
    forged.push(format!("{}.{}.{}", parts[1], parts[0], parts[2]));
    forged.push(format!("{token}{}", "A".repeat(9_000)));
    forged.push(token.replacen('.', ".\t", 1));
    forged.push(token.to_uppercase());
    refuses_all(&server, &token, forged);
}
