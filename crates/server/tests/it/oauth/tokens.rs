//! What clients get for codes, and what they do not.

use std::sync::Barrier;

use serde_json::{Value, json};

use super::{
    CALLBACK, CHALLENGE, STATE, VERIFIER, World, error_of, made, submit_consent, text, value,
};
use crate::browser::{Browser, location};
use crate::server::Server;

#[test]
fn a_code_becomes_tokens_once_and_its_replay_ends_them() {
    let world = World::start();
    let back = world.authorize(&mut world.browser(), &world.request(&[("nonce", "n-1")]));
    assert_eq!(value(&back, "state"), Some(STATE), "byte for byte");
    assert_eq!(value(&back, "iss"), Some(world.issuer().as_str()));
    let code = value(&back, "code").expect("a code");
    let answer = world.redeem(code, VERIFIER);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    let tokens = answer.json();
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["scope"], "openid predict");
    assert!(tokens["id_token"].is_string());
    let access = text(&tokens["access_token"]);
    assert_eq!(world.status_with(&access), 200);

    let again = world.redeem(code, VERIFIER);
    assert_eq!(
        (again.status, error_of(&again)),
        (400, "invalid_grant".into())
    );
    assert_eq!(world.status_with(&access), 401);
    let refreshed = world.refresh(&text(&tokens["refresh_token"]), "");
    assert_eq!(error_of(&refreshed), "invalid_grant");
    let audit = world.server.get("/v1/audit?action=code.reuse");
    assert!(audit.text().contains("code.reuse"), "{}", audit.text());
}

#[test]
fn of_ten_redemptions_at_once_one_wins() {
    let world = World::start();
    let (code, start) = (world.code(), Barrier::new(10));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let redeem = || {
            start.wait();
            world.redeem(&code, VERIFIER).status
        };
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(redeem)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("ends"))
            .collect()
    });
    assert_eq!(
        statuses.iter().filter(|status| **status == 200).count(),
        1,
        "{statuses:?}"
    );
    assert_eq!(
        statuses.iter().filter(|status| **status == 400).count(),
        9,
        "{statuses:?}"
    );
}

#[test]
fn the_challenge_cannot_be_left_out_or_weakened() {
    let world = World::start();
    for changes in [
        &[("code_challenge", ""), ("code_challenge_method", "")][..],
        &[("code_challenge", "")],
        &[("code_challenge_method", "")],
        &[("code_challenge_method", "plain")],
        &[("code_challenge_method", "s256")],
        &[("code_challenge", "short")],
        &[(
            "code_challenge",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
        )],
    ] {
        let answer = world.browser().get(&world.request(changes));
        let (place, back) = location(&answer);
        assert_eq!(
            (answer.status, place.as_str()),
            (303, CALLBACK),
            "{changes:?}"
        );
        assert_eq!(back["error"], "invalid_request", "{changes:?}");
        assert!(!back.contains_key("code"));
    }
    let code = world.code();
    for wrong in [
        "",
        CHALLENGE,
        "short",
        &VERIFIER.to_lowercase(),
        &VERIFIER.repeat(4),
    ] {
        let answer = world.redeem(&code, wrong);
        let expected = if wrong.is_empty() {
            "invalid_request"
        } else {
            "invalid_grant"
        };
        assert_eq!(
            (answer.status, error_of(&answer).as_str()),
            (400, expected),
            "{wrong}"
        );
    }
    assert_eq!(world.redeem(&code, VERIFIER).status, 200);
}

#[test]
fn a_removed_client_and_a_disabled_user_lose_everything_at_once() {
    let world = World::start();
    let mut browser = world.browser();
    let page = world.log_in(&mut browser, &world.request(&[]));
    let (access, refresh) = world.tokens();
    let code = world.code();
    let disable = |disabled: bool| {
        let path = format!("/v1/users/{}", world.user);
        let headers = [
            ("X-API-Key", &*world.server.key),
            ("Content-Type", "application/json"),
        ];
        let body = json!({"disabled": disabled}).to_string();
        world
            .server
            .connect()
            .send("PATCH", &path, &headers, body.as_bytes())
            .status
    };
    assert_eq!(world.status_with(&access), 200);
    assert_eq!(disable(true), 200);
    assert_eq!(world.status_with(&access), 401);
    assert_eq!(error_of(&world.refresh(&refresh, "")), "invalid_grant");
    assert_eq!(error_of(&world.redeem(&code, VERIFIER)), "invalid_grant");
    let asked_anew = submit_consent(&mut browser, &page, "allow");
    let place = asked_anew.header("location").expect("a place");
    assert!(place.starts_with("/oauth2/authorize?"), "{place}");
    assert!(browser.get(place).text().contains("<h1>Log in</h1>"));
    assert_eq!(disable(false), 200);

    let (access, refresh) = world.tokens();
    let code = world.code();
    let own = world
        .ask("/oauth2/token", &[("grant_type", "client_credentials")])
        .json();
    let own = text(&own["access_token"]);
    let path = format!("/v1/oauth-clients/{}", world.app.0);
    let key = [("X-API-Key", world.server.key.as_str())];
    assert_eq!(world.server.get(&path).json()["client_id"], *world.app.0);
    assert_eq!(
        world
            .server
            .connect()
            .send("DELETE", &path, &key, b"")
            .status,
        204
    );
    for token in [&access, &own] {
        assert_eq!(world.status_with(token), 401);
    }
    for answer in [world.refresh(&refresh, ""), world.redeem(&code, VERIFIER)] {
        assert_eq!(
            (answer.status, error_of(&answer)),
            (401, "invalid_client".into())
        );
    }
    assert_eq!(world.browser().get(&world.request(&[])).status, 400);
    assert_eq!(
        world
            .server
            .connect()
            .send("DELETE", &path, &key, b"")
            .status,
        404
    );
}

#[test]
fn a_client_proves_itself_in_one_way_and_learns_of_its_own_tokens_alone() {
    let world = World::start();
    let other =
        json!({"name": "Other", "grant_types": ["client_credentials"], "scopes": ["predict"]});
    let other = made(&world.server, "/v1/oauth-clients", &other);
    let (id, secret) = (text(&other["client_id"]), text(&other["client_secret"]));
    let as_other = |path: &str, token: &str| {
        let fields = [
            ("token", token),
            ("client_id", &*id),
            ("client_secret", &*secret),
        ];
        world.browser().post(path, &fields)
    };
    let (access, refresh) = world.tokens();
    for token in [&access, &refresh] {
        assert_eq!(
            world.ask("/oauth2/introspect", &[("token", token)]).json()["active"],
            true
        );
        let foreign = as_other("/oauth2/introspect", token);
        assert_eq!(
            (foreign.status, foreign.json()),
            (200, json!({"active": false}))
        );
        let foreign = as_other("/oauth2/revoke", token);
        assert_eq!(
            (foreign.status, foreign.json()["error"].clone()),
            (400, "invalid_grant".into())
        );
        assert_eq!(
            world.ask("/oauth2/introspect", &[("token", token)]).json()["active"],
            true
        );
    }
    for garbage in ["x", &world.server.key, "axr_06H0_1_x", "a.b.c", "\u{f1}"] {
        let answer = world.ask("/oauth2/introspect", &[("token", garbage)]);
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"active": false})),
            "{garbage}"
        );
        assert_eq!(
            world.ask("/oauth2/revoke", &[("token", garbage)]).status,
            200
        );
    }

    let token = ("token", access.as_str());
    let app = world.app.0.as_str();
    for fields in [
        &[token][..],
        &[token, ("client_id", app)],
        &[token, ("client_id", app), ("client_secret", "axs_wrong")],
        &[token, ("client_id", "nobody"), ("client_secret", "x")],
        &[token, ("client_id", &world.notebook)],
        &[
            token,
            ("client_id", &world.notebook),
            ("client_secret", "x"),
        ],
    ] {
        let answer = world.browser().post("/oauth2/introspect", fields);
        assert_eq!(
            (answer.status, error_of(&answer)),
            (401, "invalid_client".into())
        );
        let challenge = answer.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Basic"));
    }
    // client:secret, and both at once.
    let basic = ("Authorization", "Basic Y2xpZW50OnNlY3JldA==");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let send = |headers: &[_], body: &str| {
        let answer = world.browser().send("POST", "/oauth2/token", headers, body);
        (answer.status, error_of(&answer))
    };
    assert_eq!(
        send(&[basic, form], "grant_type=x"),
        (401, "invalid_client".into())
    );
    assert_eq!(
        send(&[basic, form], "client_secret=x"),
        (400, "invalid_request".into())
    );
    assert_eq!(
        send(&[form], "client_id=a&client_id=b"),
        (400, "invalid_request".into())
    );
    assert_eq!(send(&[("Content-Type", "application/json")], "{}").0, 400);
    // What the edge refuses has the same form.
    let long = "x".repeat(3 << 20);
    assert_eq!(send(&[form], &long), (413, "invalid_request".into()));

    // An access token ends alone, a refresh token with everything.
    assert_eq!(world.ask("/oauth2/revoke", &[token]).status, 200);
    assert_eq!(world.status_with(&access), 401);
    let refreshed = world.refresh(&refresh, "").json();
    let (access, refresh) = (
        text(&refreshed["access_token"]),
        text(&refreshed["refresh_token"]),
    );
    assert_eq!(world.status_with(&access), 200);
    assert_eq!(
        world.ask("/oauth2/revoke", &[("token", &refresh)]).status,
        200
    );
    assert_eq!(world.status_with(&access), 401);
    assert_eq!(error_of(&world.refresh(&refresh, "")), "invalid_grant");
}

#[test]
fn a_client_learns_of_its_user_what_he_let_it_know() {
    let world = World::start();
    let (access, _) = world.tokens();
    let bearer = format!("Bearer {access}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/json"),
    ];
    let send = |method: &str, path: &str, body: &str| {
        let mut connection = world.server.connect();
        connection.send(method, path, &headers, body.as_bytes())
    };
    for path in ["/me", "/v1/me"] {
        let me = send("GET", path, "").json();
        let known = json!({"subject": format!("user:{}", world.user), "scopes": ["predict"],
            "expires_at": me["expires_at"], "id": world.user});
        for (name, value) in me.as_object().expect("an object") {
            assert_eq!(*value, known[name], "{path} {name}");
        }
        assert!(me["expires_at"].is_string());
    }
    let password = json!({"current_password": super::PASSWORD, "new_password": "another secret"});
    for (method, path, body) in [
        ("GET", "/v1/me/logins", String::new()),
        ("PUT", "/v1/me/password", password.to_string()),
    ] {
        let refused = send(method, path, &body);
        assert_eq!(refused.status, 403, "{path}");
        let error = refused.json()["error"].clone();
        assert_eq!(error["code"], "FORBIDDEN", "{path}");
        assert!(text(&error["message"]).contains("application"), "{error}");
    }
    // The user's password is unchanged.
    world.code();
}

#[test]
fn scopes_never_grow() {
    let world = World::start();
    // The client may have users:write, and the user has not.
    let request = world.request(&[("scope", "predict users:write")]);
    let back = world.authorize(&mut world.browser(), &request);
    let answer = world
        .redeem(value(&back, "code").expect("a code"), VERIFIER)
        .json();
    assert_eq!(
        (&answer["scope"], &answer["id_token"]),
        (&json!("predict"), &Value::Null)
    );
    let access = text(&answer["access_token"]);
    assert_eq!(world.status_with(&access), 403, "userinfo needs openid");
    let refresh = text(&answer["refresh_token"]);
    for more in ["predict users:write", "openid", "models:read", "everything"] {
        let refused = world.refresh(&refresh, more);
        assert_eq!(
            (refused.status, error_of(&refused)),
            (400, "invalid_scope".into()),
            "{more}"
        );
    }
    assert_eq!(
        world.refresh(&refresh, "predict").json()["scope"],
        "predict"
    );

    let own = |scope: &str| {
        let fields = [("grant_type", "client_credentials"), ("scope", scope)];
        world.ask("/oauth2/token", &fields)
    };
    assert_eq!(own("").json()["scope"], "predict models:read users:write");
    assert_eq!(own("predict").json()["scope"], "predict");
    for more in ["audit:read", "predict audit:read", "openid", "everything"] {
        assert_eq!(error_of(&own(more)), "invalid_scope", "{more}");
    }
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &*world.notebook),
    ];
    let public = world.browser().post("/oauth2/token", &fields);
    assert_eq!(error_of(&public), "unauthorized_client");
    for (kind, error) in [
        ("password", "unsupported_grant_type"),
        ("implicit", "unsupported_grant_type"),
        (
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "unsupported_grant_type",
        ),
        (
            "urn:ietf:params:oauth:grant-type:device_code",
            "unauthorized_client",
        ),
    ] {
        let answer = world.ask("/oauth2/token", &[("grant_type", kind)]);
        assert_eq!(error_of(&answer), error, "{kind}");
    }

    let arguments = ["keys", "create", "--name", "c", "--scope", "clients:write"];
    let key = world.server.run(&arguments);
    let headers = [
        ("X-API-Key", key.trim()),
        ("Content-Type", "application/json"),
    ];
    let body = json!({"name": "x", "grant_types": ["client_credentials"], "scopes": ["predict"]});
    let body = body.to_string();
    let create = || {
        let mut connection = world.server.connect();
        connection
            .send("POST", "/v1/oauth-clients", &headers, body.as_bytes())
            .status
    };
    let limit = std::time::Duration::from_secs(2);
    crate::server::eventually(limit, "the key is known", || create() != 401);
    assert_eq!(create(), 403);
}

#[test]
fn clients_are_made_listed_and_removed_by_command() {
    let server = Server::start();
    let made = server.run(&[
        "clients",
        "create",
        "--name",
        "Report",
        "--grant-type",
        "client_credentials",
        "--scope",
        "predict",
    ]);
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let (id, secret) = (text(&made["client_id"]), text(&made["client_secret"]));
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", &*id),
        ("client_secret", &*secret),
    ];
    let mut browser = Browser::new(server.address);
    let token = || text(&browser.post("/oauth2/token", &fields).json()["access_token"]);
    let bearer = format!("Bearer {}", { token }());
    let status = || {
        let headers = [("Authorization", bearer.as_str())];
        server
            .connect()
            .send("GET", "/v1/models", &headers, b"")
            .status
    };
    let limit = std::time::Duration::from_secs(2);
    crate::server::eventually(limit, "the client is known", || status() == 403);
    let list = server.run(&["clients", "list"]);
    assert!(
        list.contains(&id) && list.contains("Report") && !list.contains(&secret),
        "{list}"
    );
    let list: Value =
        serde_json::from_str(&server.run(&["clients", "list", "--json"])).expect("JSON");
    assert_eq!(list[0]["grant_types"], json!(["client_credentials"]));
    server.run(&["clients", "delete", &id]);
    crate::server::eventually(limit, "its token is dead", || status() == 401);
}

#[test]
fn an_empty_secret_is_none() {
    let world = World::start();
    let basic = |id: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{id}:"));
        let authorization = format!("Basic {pair}");
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        let body = "grant_type=authorization_code&code=x&redirect_uri=x&code_verifier=x";
        error_of(
            &world
                .browser()
                .send("POST", "/oauth2/token", &headers, body),
        )
    };
    // A public client got past its authentication; one with a secret did not.
    assert_eq!(basic(&world.notebook), "invalid_grant");
    assert_eq!(basic(&world.app.0), "invalid_client");
}

#[test]
fn without_the_database_clients_are_told_to_come_again() {
    let world = World::start();
    let file = world.server.folder.path().join("auspex.db");
    std::fs::rename(&file, file.with_extension("away")).expect("moved");
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        let fields = [("grant_type", "client_credentials"), ("token", "axr_x")];
        let answer = world.ask(path, &fields);
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert_eq!(error_of(&answer), "temporarily_unavailable", "{path}");
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
}

#[test]
fn a_body_that_is_no_form_is_told_what_is_wrong_with_it() {
    let world = World::start();
    let form = "application/x-www-form-urlencoded";
    for (kind, body, said) in [
        ("application/json", "{}", "Content-Type"),
        (form, "grant_type=%zz", "decoded"),
        (form, "scope=a&scope=b", "more than once"),
    ] {
        let headers = [("Content-Type", kind)];
        let mut connection = world.server.connect();
        let answer = connection.send("POST", "/oauth2/token", &headers, body.as_bytes());
        assert_eq!(answer.status, 400);
        let json = answer.json();
        assert_eq!(json["error"], "invalid_request");
        assert!(text(&json["error_description"]).contains(said), "{json}");
    }
}
