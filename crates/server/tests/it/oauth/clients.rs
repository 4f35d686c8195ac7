//! Clients that change: their addresses, their scopes, their secret.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CALLBACK, World, error_of, submit_consent, text};
use crate::browser::location;
use crate::client::Answer;
use crate::server::eventually;

impl World {
    fn patch(&self, key: &str, body: &Value, more: &[(&str, &str)]) -> Answer {
        let own = [("X-API-Key", key), ("Content-Type", "application/json")];
        let path = format!("/v1/oauth-clients/{}", self.app.0);
        let headers = [&own[..], more].concat();
        self.server
            .connect()
            .send("PATCH", &path, &headers, body.to_string().as_bytes())
    }

    fn rotate(&self, body: &Value) -> Answer {
        let path = format!("/v1/oauth-clients/{}/secret-rotations", self.app.0);
        self.server.post(&path, body.to_string())
    }

    /// Whether the client proves by this secret who it is.
    fn takes(&self, secret: &str) -> bool {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", self.app.0.as_str()),
            ("client_secret", secret),
        ];
        self.browser().post("/oauth2/token", &fields).status == 200
    }
}

#[test]
fn a_client_is_changed_and_goes_on_with_what_it_kept() {
    let world = World::start();
    let key = world.server.key.clone();
    let (access, refresh) = world.tokens();
    let elsewhere = "https://new.example.org/cb";
    let changed = world.patch(
        &key,
        &json!({"name": "New", "redirect_uris": [elsewhere]}),
        &[],
    );
    assert_eq!(changed.status, 200, "{}", changed.text());
    let path = format!("/v1/oauth-clients/{}", world.app.0);
    assert_eq!(changed.json(), world.server.get(&path).json());
    assert_eq!(changed.json()["name"], "New");
    assert_eq!(changed.json()["scopes"].as_array().map(Vec::len), Some(5));
    // The old address is none any more; logins go on.
    assert_eq!(world.browser().get(&world.request(&[])).status, 400);
    let mut browser = world.browser();
    let request = world.request(&[("redirect_uri", elsewhere), ("prompt", "consent")]);
    let consent = world.log_in(&mut browser, &request);
    assert_eq!(
        location(&submit_consent(&mut browser, &consent, "allow")).0,
        elsewhere
    );
    assert_eq!(world.status_with(&access), 200);
    let next = world.refresh(&refresh, "").json();
    // A client that loses a scope loses the logins that have it.
    let fewer = world.patch(&key, &json!({"scopes": ["openid"]}), &[]);
    assert_eq!(fewer.json()["scopes"], json!(["openid"]));
    assert_eq!(world.status_with(&text(&next["access_token"])), 401);
    let refused = world.refresh(&text(&next["refresh_token"]), "");
    assert_eq!(error_of(&refused), "invalid_grant");
    let too_much = world.request(&[("redirect_uri", elsewhere)]);
    let back = location(&world.browser().get(&too_much)).1;
    assert_eq!(back["error"], "invalid_scope");
}

#[test]
fn a_change_is_refused_for_what_is_wrong_with_it() {
    let world = World::start();
    let key = world.server.key.clone();
    let path = format!("/v1/oauth-clients/{}", world.app.0);
    let before = world.server.get(&path);
    for (body, field) in [
        (
            json!({"redirect_uris": ["https://app.example.org/*"]}),
            "redirect_uris[0]",
        ),
        (
            json!({"redirect_uris": ["https://app.example.org/?state=x"]}),
            "redirect_uris[0]",
        ),
        (json!({"redirect_uris": []}), "redirect_uris"),
        (
            json!({"post_logout_redirect_uris": ["http://app.example.org/"]}),
            "post_logout_redirect_uris[0]",
        ),
        (json!({"scopes": []}), "scopes"),
        (json!({"name": null}), "name"),
        (json!({"name": "x".repeat(101)}), "name"),
        (json!({"public": true}), "public"),
    ] {
        let refused = world.patch(&key, &body, &[]);
        assert_eq!(refused.status, 422, "{body}: {}", refused.text());
        assert_eq!(refused.wrong_fields(), [field], "{body}");
    }
    // Who may register clients, but has not what this one has, could send its codes anywhere.
    let few = world.server.run(&[
        "keys",
        "create",
        "--name",
        "few",
        "--scope",
        "clients:write",
        "--scope",
        "predict",
    ]);
    let stolen = json!({"redirect_uris": ["https://evil.example/cb"]});
    eventually(Duration::from_secs(5), "the refusal", || {
        world.patch(few.trim(), &stolen, &[]).status == 403
    });
    let few = [("X-API-Key", few.trim())];
    let removed = world.server.connect().send("DELETE", &path, &few, b"");
    assert_eq!(removed.status, 403, "{}", removed.text());
    let stale = [("If-Match", "\"stale\"")];
    assert_eq!(
        world.patch(&key, &json!({"name": "New"}), &stale).status,
        412
    );
    assert_eq!(world.server.get(&path).json(), before.json());
    let tag = before.header("etag").expect("a tag");
    let seen = [("If-Match", tag)];
    assert_eq!(
        world.patch(&key, &json!({"name": "New"}), &seen).status,
        200
    );
    assert_eq!(
        world.patch(&key, &json!({"name": "Newer"}), &seen).status,
        412
    );
}

#[test]
fn a_secret_is_replaced_with_an_overlap() {
    let mut world = World::start();
    let first = world.app.1.clone();
    let rotated = world.rotate(&json!({}));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    assert_eq!(
        rotated.header("location"),
        Some(&*format!("/v1/oauth-clients/{}", world.app.0))
    );
    let second = text(&rotated.json()["client_secret"]);
    assert!(world.takes(&first) && world.takes(&second) && !world.takes("axs_x"));
    // A third beside the two would end the first, which servers may still have.
    let early = world.rotate(&json!({}));
    assert_eq!(early.status, 409, "{}", early.text());
    assert!(early.text().contains("works until 20"), "{}", early.text());
    assert!(world.takes(&first) && world.takes(&second));
    // Without overlap all others end at once.
    let third = text(&world.rotate(&json!({"overlap_s": 0})).json()["client_secret"]);
    assert!(!world.takes(&first) && !world.takes(&second) && world.takes(&third));
    for wrong in [
        json!({"overlap_s": -1}),
        json!({"overlap_s": 604_801}),
        json!({"x": 1}),
    ] {
        assert_eq!(world.rotate(&wrong).status, 422, "{wrong}");
    }
    assert!(world.takes(&third));
    world.app.0.clone_from(&world.notebook);
    assert_eq!(
        world.rotate(&json!({})).status,
        409,
        "a public client has none"
    );
    world.app.0 = "0123456789ABCDEF".into();
    assert_eq!(world.rotate(&json!({})).status, 404);
}

#[test]
fn people_are_asked_again_when_a_client_is_no_longer_what_they_saw() {
    let world = World::start();
    let key = world.server.key.clone();
    let elsewhere = "https://new.example.org/cb";
    let all = json!(["openid", "email", "predict", "models:read", "users:write"]);
    let fewer = json!(["openid", "email", "models:read", "users:write"]);
    let is_asked = |uri: &str| {
        let page = world.log_in(
            &mut world.browser(),
            &world.request(&[("redirect_uri", uri)]),
        );
        page.status == 200
    };
    let agrees = || {
        let mut browser = world.browser();
        let page = world.log_in(&mut browser, &world.request(&[("prompt", "consent")]));
        assert_eq!(submit_consent(&mut browser, &page, "allow").status, 303);
    };
    agrees();
    assert!(!is_asked(CALLBACK));
    // Another path of the host that they were shown, or another name, is nothing new.
    let same = json!({"name": "New", "redirect_uris": [CALLBACK, "https://app.example.org/in"]});
    assert_eq!(world.patch(&key, &same, &[]).status, 200);
    assert!(!is_asked(CALLBACK) && !is_asked("https://app.example.org/in"));
    let moved = json!({"redirect_uris": [CALLBACK, elsewhere]});
    assert_eq!(world.patch(&key, &moved, &[]).status, 200);
    assert!(is_asked(elsewhere) && is_asked(CALLBACK));
    agrees();
    for scopes in [fewer, all] {
        let change = json!({"scopes": scopes});
        assert_eq!(world.patch(&key, &change, &[]).status, 200);
    }
    assert!(is_asked(CALLBACK), "the scope that came back");
}

#[test]
fn clients_that_cannot_work_are_not_registered() {
    let world = World::start();
    for (change, field) in [
        (
            json!({"redirect_uris": ["https://app.example.org:0/"]}),
            "redirect_uris[0]",
        ),
        (
            json!({"redirect_uris": ["https://app.example.org./"]}),
            "redirect_uris[0]",
        ),
        (json!({"name": " App"}), "name"),
        (json!({"name": "A\u{200b}pp"}), "name"),
        (
            json!({"grant_types": ["client_credentials"], "scopes": ["openid", "predict"]}),
            "scopes",
        ),
    ] {
        let mut client = json!({"name": "App", "redirect_uris": [CALLBACK],
            "grant_types": ["authorization_code"], "scopes": ["openid", "predict"]});
        for (name, value) in change.as_object().expect("an object") {
            client[name] = value.clone();
        }
        let answer = world.server.post("/v1/oauth-clients", client.to_string());
        assert_eq!(
            (answer.status, answer.wrong_fields()),
            (422, vec![field.into()])
        );
    }
}

#[test]
fn clients_are_changed_by_command() {
    let world = World::start();
    let id = world.app.0.as_str();
    let home = "https://app.example.org/bye";
    let shown = world.server.run(&[
        "clients",
        "update",
        id,
        "--name",
        "By hand",
        "--post-logout-redirect-uri",
        home,
    ]);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["name"], "By hand");
    assert_eq!(shown["post_logout_redirect_uris"], json!([home]));
    assert_eq!(shown["redirect_uris"], json!([CALLBACK]));
    let secret = world
        .server
        .run(&["clients", "rotate-secret", id, "--overlap-s", "0"]);
    assert!(world.takes(secret.trim()) && !world.takes(&world.app.1));
}
