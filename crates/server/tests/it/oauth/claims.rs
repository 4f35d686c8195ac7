//! What a client learns of its user is decided by what was granted, wherever it asks.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{CALLBACK, VERIFIER, World, made, submit_consent, text};
use crate::browser::location;
use crate::client::Answer;

const ALL: &str = "openid profile email roles predict";

/// A world in whose application everything may be asked for.
fn world() -> World {
    let mut world = World::start();
    let app = json!({"name": "Curious", "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "scopes": ALL.split(' ').collect::<Vec<_>>()});
    let app = made(&world.server, "/v1/oauth-clients", &app);
    world.app = (text(&app["client_id"]), text(&app["client_secret"]));
    world
}

fn payload(token: &Value) -> Value {
    let part = text(token);
    let part = part.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn get(world: &World, path: &str, token: &Value) -> Answer {
    let bearer = format!("Bearer {}", text(token));
    let headers = [("Authorization", bearer.as_str())];
    world.server.connect().send("GET", path, &headers, b"")
}

fn tokens(world: &World, scope: &str) -> Value {
    let mut browser = world.browser();
    let consent = world.log_in(
        &mut browser,
        &world.request(&[("scope", scope), ("prompt", "consent")]),
    );
    let back = location(&submit_consent(&mut browser, &consent, "allow")).1;
    let tokens = world.redeem(&back["code"], VERIFIER);
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    tokens.json()
}

/// What of an answer is about the user.
fn personal(claims: &Value) -> BTreeMap<String, Value> {
    let about = |name: &str| {
        let technical = [
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "nbf",
            "jti",
            "scope",
            "client_id",
            "sid",
        ];
        let of_login = ["auth_time", "nonce", "at_hash"];
        !technical.contains(&name) && !of_login.contains(&name)
    };
    let claims = claims.as_object().expect("an object").iter();
    let personal = claims.filter(|(name, _)| about(name));
    personal
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[test]
fn what_was_granted_decides_alike_in_every_place() {
    let world = world();
    let path = format!("/v1/users/{}", world.user);
    let key = [("X-API-Key", world.server.key.as_str())];
    let user = world.server.connect().send("GET", &path, &key, b"").json();
    for (scope, known) in [
        ("openid", &[][..]),
        ("openid predict", &[]),
        (
            "openid profile",
            &["name", "preferred_username", "updated_at"],
        ),
        ("openid email", &["email", "email_verified"]),
        ("openid roles", &["roles"]),
        (
            ALL,
            &[
                "email",
                "email_verified",
                "name",
                "preferred_username",
                "roles",
                "updated_at",
            ],
        ),
    ] {
        let tokens = tokens(&world, scope);
        let access = &tokens["access_token"];
        let info = get(&world, "/oauth2/userinfo", access).json();
        assert_eq!(info["sub"], *world.user, "{scope}");
        let told = personal(&info);
        assert_eq!(told.keys().collect::<Vec<_>>(), known, "{scope}");
        assert_eq!(personal(&payload(access)), told, "access token, {scope}");
        assert_eq!(
            personal(&payload(&tokens["id_token"])),
            told,
            "ID token, {scope}"
        );
        let refreshed = world.refresh(&text(&tokens["refresh_token"]), "").json();
        assert_eq!(
            personal(&payload(&refreshed["id_token"])),
            told,
            "refreshed, {scope}"
        );
        let me = get(&world, "/v1/me", access).json();
        assert_eq!(me["id"], *world.user);
        for (here, there) in [
            ("name", "name"),
            ("username", "preferred_username"),
            ("email", "email"),
            ("email_verified", "email_verified"),
            ("roles", "roles"),
        ] {
            let value = told.get(there).cloned().unwrap_or_default();
            assert_eq!(me[here], value, "/v1/me, {scope}: {here}");
            assert!(value.is_null() || value == user[here], "{scope}: {here}");
        }
        assert_eq!(me["updated_at"].is_null(), !known.contains(&"updated_at"));
        for of_the_user_alone in ["age", "has_password", "created_at", "login_count"] {
            assert!(
                me[of_the_user_alone].is_null(),
                "{scope}: {of_the_user_alone}"
            );
        }
    }
}

#[test]
fn an_address_is_verified_where_an_administrator_says_so() {
    let world = world();
    let access = tokens(&world, "openid email")["access_token"].clone();
    let verified = || get(&world, "/oauth2/userinfo", &access).json()["email_verified"].clone();
    let patch = |body: Value| {
        let path = format!("/v1/users/{}", world.user);
        let key = [
            ("X-API-Key", &*world.server.key),
            ("Content-Type", "application/json"),
        ];
        let body = body.to_string();
        world
            .server
            .connect()
            .send("PATCH", &path, &key, body.as_bytes())
    };
    assert_eq!(verified(), false);
    let changed = patch(json!({"email_verified": true}));
    assert_eq!(changed.json()["email_verified"], true);
    assert_eq!(verified(), true);
    assert_eq!(patch(json!({"name": "Ann"})).json()["email_verified"], true);
    for (body, expected) in [
        (json!({"email": "ann@example.net"}), false),
        (
            json!({"email": "ann@example.com", "email_verified": true}),
            true,
        ),
        (json!({"email_verified": false}), false),
    ] {
        assert_eq!(patch(body.clone()).status, 200);
        assert_eq!(verified(), expected, "{body}");
    }
    for wrong in [
        json!({"email_verified": null}),
        json!({"email_verified": "yes"}),
    ] {
        let refused = patch(wrong);
        assert_eq!(
            (refused.status, refused.wrong_fields()),
            (422, vec!["email_verified".into()])
        );
    }
}
