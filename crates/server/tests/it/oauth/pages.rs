//! What a browser is shown and where it is sent.

use super::{CALLBACK, LOOPBACK, PASSWORD, STATE, World, submit_consent, submit_login};
use crate::browser::{Browser, encode, hidden, led_to, location};
use crate::client::Answer;

#[test]
fn nobody_is_sent_where_no_client_registered() {
    let world = World::start();
    let shown = |request: &str| {
        let answer = world.browser().get(request);
        assert_eq!(answer.status, 400, "{request}");
        assert_eq!(answer.header("location"), None, "{request}");
        assert!(
            answer.text().contains("role=\"alert\""),
            "{}",
            answer.text()
        );
    };
    for uri in [
        "",
        "https://app.example.org/CB",
        "https://app.example.org/cb/",
        "https://app.example.org/cb?x=1",
        "https://app.example.org/cb#x",
        "https://app.example.org/%63b",
        "https://app.example.org/a/../cb",
        "https://app.example.org:8443/cb",
        "https://user@app.example.org/cb",
        "https://app.example.org@evil.example/cb",
        "https://evil.app.example.org/cb",
        "https://app.example.org.evil.example/cb",
        "http://app.example.org/cb",
        "//app.example.org/cb",
        "https://evil.example/cb",
        "javascript:alert(1)",
        "https://app.example.org/cb\r\nX-Evil: 1",
        LOOPBACK,
    ] {
        shown(&world.request(&[("redirect_uri", uri)]));
    }
    for id in [
        "",
        "nobody",
        &world.app.0.to_lowercase(),
        &world.notebook,
        "\u{1}'--",
    ] {
        shown(&world.request(&[("client_id", id)]));
    }
    shown(&format!(
        "{}&redirect_uri=https://evil.example/cb",
        world.request(&[])
    ));
    shown(&format!(
        "{}&client_id={}",
        world.request(&[]),
        world.notebook
    ));
    shown(&format!("{}&x=%ff", world.request(&[])));
    shown(&format!("{}&x={}", world.request(&[]), "x".repeat(9_000)));

    let loopback = |uri: &str| {
        let changes = [("client_id", &*world.notebook), ("redirect_uri", uri)];
        world.request(&changes)
    };
    for uri in ["http://127.0.0.1/cb", "http://127.0.0.1:51004/cb"] {
        assert_eq!(world.browser().get(&loopback(uri)).status, 200, "{uri}");
    }
    for uri in [
        "http://127.0.0.1:51004/cb/",
        "http://127.0.0.1:51004/other",
        "http://127.0.0.1:51004@evil.example/cb",
        "http://127.0.0.1:0/cb",
        "http://localhost:51004/cb",
        "http://127.0.0.2:51004/cb",
        "http://127.0.0.1.evil.example/cb",
        "https://127.0.0.1:51004/cb",
    ] {
        shown(&loopback(uri));
    }
}

#[test]
fn the_client_is_told_of_every_other_error_with_state_and_issuer() {
    let world = World::start();
    for (name, wrong, error) in [
        ("response_type", "", "invalid_request"),
        ("response_type", "token", "unsupported_response_type"),
        (
            "response_type",
            "code id_token",
            "unsupported_response_type",
        ),
        ("response_mode", "fragment", "invalid_request"),
        ("request", "eyJ", "request_not_supported"),
        (
            "request_uri",
            "https://evil.example/",
            "request_uri_not_supported",
        ),
        ("scope", "openid everything", "invalid_scope"),
        ("scope", "openid audit:read", "invalid_scope"),
        ("prompt", "none", "login_required"),
        ("prompt", "none login", "invalid_request"),
        ("prompt", "<script>", "invalid_request"),
        ("max_age", "-1", "invalid_request"),
    ] {
        let answer = world.browser().get(&world.request(&[(name, wrong)]));
        let (place, back) = location(&answer);
        assert_eq!(
            (answer.status, place.as_str()),
            (303, CALLBACK),
            "{name}={wrong}"
        );
        assert_eq!(back["error"], error, "{name}={wrong}");
        assert_eq!(
            (back["state"].as_str(), back["iss"].clone()),
            (STATE, world.issuer())
        );
        assert_eq!(answer.header("set-cookie"), None);
    }
    let twice = format!("{}&state=other", world.request(&[]));
    let back = location(&world.browser().get(&twice)).1;
    assert_eq!(back["error"], "invalid_request");
    assert!(
        !back.contains_key("state"),
        "of two states neither is the client's"
    );

    let mut browser = world.browser();
    let page = world.log_in(&mut browser, &world.request(&[]));
    let back = location(&submit_consent(&mut browser, &page, "deny")).1;
    assert_eq!(
        (back["error"].as_str(), back["state"].as_str()),
        ("access_denied", STATE)
    );
    // The user did not agree, so nothing was agreed to.
    let silent = location(&browser.get(&world.request(&[("prompt", "none")]))).1;
    assert_eq!(silent["error"], "consent_required");
}

#[test]
fn a_request_may_come_as_a_form() {
    let world = World::start();
    let mut browser = world.browser();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    // A form of the client's own site: no cookie comes with it, and no token of ours.
    let post = |changes: &[(&str, &str)], more: &str, kind: (&str, &str)| {
        let request = world.request(changes);
        let (path, query) = request.split_once('?').expect("a query");
        let headers = [kind, ("Origin", "https://app.example.org")];
        let body = format!("{query}{more}");
        world.browser().send("POST", path, &headers, &body)
    };
    let answer = post(&[], "", form);
    assert_eq!(answer.status, 303, "{}", answer.text());
    let next = answer.header("location").expect("a place");
    let consent = world.log_in(&mut browser, next);
    let back = location(&submit_consent(&mut browser, &consent, "allow")).1;
    assert_eq!(back["state"], STATE);
    assert!(back.contains_key("code"));

    let (place, back) = location(&post(&[("scope", "everything")], "", form));
    assert_eq!(place, CALLBACK);
    assert_eq!(
        (back["error"].as_str(), back["state"].as_str()),
        ("invalid_scope", STATE)
    );
    let json = ("Content-Type", "application/json");
    let long = format!("&x={}", "x".repeat(9_000));
    for refused in [
        post(&[("client_id", "nobody")], "", form),
        post(&[("redirect_uri", "https://evil.example/cb")], "", form),
        post(&[], "&state=other", form),
        post(&[], "&x=%ff", form),
        post(&[], &long, form),
        post(&[], "", json),
    ] {
        assert_eq!(
            (refused.status, refused.header("location")),
            (400, None),
            "{}",
            refused.text()
        );
    }
}

#[test]
fn of_two_tabs_opened_at_once_both_get_on() {
    let world = World::start();
    let request = world.request(&[]);
    // Neither request has a cookie yet; the browser keeps that of the later answer.
    let loser = world.browser().get(&request);
    let mut browser = world.browser();
    let winner = browser.get(&request);
    let refused = submit_login(&mut browser, &loser, "ann", PASSWORD);
    assert_eq!(refused.status, 403);
    let text = refused.text();
    let (_, link) = text.split_once("<a href=\"").expect("a link");
    let link = link
        .split('"')
        .next()
        .expect("an end")
        .replace("&#38;", "&");
    assert_eq!(link, request);
    let consent = world.log_in(&mut browser, &link);
    assert_eq!(submit_consent(&mut browser, &consent, "allow").status, 303);
    assert_eq!(
        submit_login(&mut browser, &winner, "ann", PASSWORD).status,
        303
    );
}

#[test]
fn forms_of_other_pages_are_refused() {
    let world = World::start();
    let mut browser = world.browser();
    let login = browser.get(&world.request(&[]));
    let other_login = world.browser().get(&world.request(&[]));
    let (token, request) = (hidden(&login, "csrf_token"), hidden(&login, "request"));
    let foreign = hidden(&other_login, "csrf_token");
    let attempt = |browser: &mut Browser, token: &str, request: &str, header: (&str, &str)| {
        let fields = [
            ("csrf_token", token),
            ("request", request),
            ("username", "ann"),
            ("password", PASSWORD),
        ];
        let form = ("Content-Type", "application/x-www-form-urlencoded");
        browser
            .send("POST", "/oauth2/login", &[form, header], &encode(&fields))
            .status
    };
    let none = ("X-Nothing", "x");
    for (token, request, header) in [
        ("", &*request, none),
        (&*foreign, &*request, none),
        ("AAAA", &*request, none),
        (&*token, "", none),
        (&*token, &request.replacen('M', "N", 1), none),
        (&*token, &*request, ("Origin", "https://evil.example")),
        (&*token, &*request, ("Sec-Fetch-Site", "cross-site")),
        (&*token, &*request, ("Sec-Fetch-Site", "same-site")),
    ] {
        assert_eq!(
            attempt(&mut browser, token, request, header),
            403,
            "{token} {header:?}"
        );
    }
    assert_eq!(
        attempt(&mut world.browser(), &token, &request, none),
        403,
        "no cookie"
    );
    assert!(browser.cookie("session").is_none());
    let own = world.issuer();
    let consent = world.log_in(&mut browser, &world.request(&[]));
    assert_eq!(
        attempt(&mut browser, &token, &request, ("Origin", &own)),
        303
    );
    assert_eq!(
        attempt(&mut browser, &token, &request, ("Origin", "null")),
        303
    );

    let mut mallory = world.browser();
    let theirs = world.log_in(&mut mallory, &world.request(&[]));
    let carried = hidden(&consent, "request");
    for token in ["", &*hidden(&theirs, "csrf_token"), &*token, &*foreign] {
        let fields = [
            ("csrf_token", token),
            ("request", &*carried),
            ("decision", "allow"),
        ];
        for path in ["/oauth2/consent", "/oauth2/logout"] {
            let answer = browser.post(path, &fields);
            assert_eq!(
                (answer.status, answer.header("location")),
                (403, None),
                "{path}"
            );
        }
    }
    let page = browser.get(&world.request(&[]));
    let token = hidden(&page, "csrf_token");
    // A login's request is no consent's.
    for request in [&*request, ""] {
        let fields = [
            ("csrf_token", &*token),
            ("request", request),
            ("decision", "allow"),
        ];
        assert_eq!(browser.post("/oauth2/consent", &fields).status, 403);
    }
    let page = browser.get(&world.request(&[]));
    assert_eq!(submit_consent(&mut browser, &page, "perhaps").status, 400);
    assert_eq!(submit_consent(&mut browser, &page, "allow").status, 303);
}

/// Browsers send the cookies of a host to all of its ports.
#[test]
fn two_servers_on_one_host_log_nobody_out_of_the_other() {
    let (one, other) = (World::start(), World::start());
    let (mut at_one, mut at_other) = (one.browser(), other.browser());
    let is_in = |page: &Answer| page.text().contains("<h1>Allow");
    assert!(is_in(&one.log_in(&mut at_one, &one.request(&[]))));
    at_other.cookies = at_one.cookies.clone();
    assert!(is_in(&other.log_in(&mut at_other, &other.request(&[]))));
    at_one.cookies = at_other.cookies.clone();
    assert!(is_in(&at_one.get(&one.request(&[]))), "still logged in");
    assert_eq!(
        at_one
            .cookies
            .keys()
            .filter(|name| name.contains("session"))
            .count(),
        2
    );
}

#[test]
fn only_a_login_makes_a_session_and_logging_out_ends_it() {
    let world = World::start();
    let mut browser = world.browser();
    let planted = "A".repeat(43);
    browser.get(&world.request(&[]));
    let name = format!("auspex_session_{}", browser.installation());
    browser.cookies.insert(name.clone(), planted.clone());
    let page = browser.get(&world.request(&[]));
    assert!(page.text().contains("<h1>Log in</h1>"), "{}", page.text());
    let before = browser.cookie("login").expect("set").clone();
    let consent = world.log_in(&mut browser, &world.request(&[]));
    let session = browser.cookie("session").expect("set").clone();
    assert!(session != planted && session != before);
    let worth = |session: &str| {
        let mut browser = world.browser();
        browser.cookies.insert(name.clone(), session.to_owned());
        browser
            .get(&world.request(&[]))
            .text()
            .contains("<h1>Allow")
    };
    assert!(worth(&session) && !worth(&planted) && !worth(&before));

    let again = browser.get(&world.request(&[("prompt", "login")]));
    assert_eq!(
        submit_login(&mut browser, &again, "ann", PASSWORD).status,
        303
    );
    let second = browser.cookie("session").expect("set").clone();
    assert!(
        worth(&second) && !worth(&session),
        "the older one has ended"
    );

    let page = browser.get(&world.request(&[]));
    let fields = [
        ("csrf_token", &*hidden(&page, "csrf_token")),
        ("request", &*hidden(&page, "request")),
    ];
    let out = browser.post("/oauth2/logout", &fields);
    assert_eq!(out.status, 303);
    assert!(!worth(&second) && browser.cookie("session").is_none());
    let login = browser.get(out.header("location").expect("a place"));
    assert!(login.text().contains("<h1>Log in</h1>"));
    let late = [
        ("csrf_token", &*hidden(&consent, "csrf_token")),
        ("decision", "allow"),
    ];
    assert_eq!(browser.post("/oauth2/consent", &late).status, 403);
}

#[test]
fn pages_cannot_be_framed_and_nothing_breaks_out_of_them() {
    let world = World::start();
    let mut browser = world.browser();
    let hint = "\"><script>alert(1)</script>";
    let login = browser.get(&world.request(&[("login_hint", hint), ("nonce", hint)]));
    let wrong = submit_login(&mut browser, &login, hint, "no");
    let consent = world.log_in(&mut browser, &world.request(&[("login_hint", hint)]));
    let refused = browser.get(&world.request(&[("redirect_uri", hint)]));
    let statuses = [200, 401, 200, 400];
    for (page, status) in [&login, &wrong, &consent, &refused]
        .into_iter()
        .zip(statuses)
    {
        assert_eq!(page.status, status);
        let header = |name| {
            page.header(name)
                .unwrap_or_else(|| panic!("no {name}"))
                .to_owned()
        };
        let policy = header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "style-src 'self'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        let text = page.text();
        for raw in ["<script", "<b>", "<i>", "alert(1)<", " onerror", "<iframe"] {
            assert!(!text.contains(raw), "{raw}: {text}");
        }
        assert!(text.contains("<html lang=\"en\">") && text.matches("<h1").count() == 1);
    }
    let said = "role=\"alert\" id=\"error\">Username or password is wrong.";
    assert!(wrong.text().contains(said), "{}", wrong.text());
    assert!(
        consent.text().contains("App &#60;b&#62;") && consent.text().contains("Ann &#60;i&#62;")
    );
    assert!(consent.text().contains("app.example.org"));
    let policy = consent.header("content-security-policy").expect("a policy");
    // Browsers apply it to all redirects that follow a form, those of the client's site too.
    assert!(policy.contains("form-action 'self';"), "{policy}");
    let back = submit_consent(&mut browser, &consent, "allow");
    let set: Vec<&str> = back.headers("set-cookie").collect();
    assert!(
        set.len() == 1 && set[0].starts_with("auspex_continue_"),
        "nothing came out of the state: {set:?}"
    );
    let style = browser.get("/oauth2/assets/style.css");
    assert_eq!(
        style.header("content-type"),
        Some("text/css; charset=utf-8")
    );
}

/// Browsers stop a chain of redirects from a form at the first place that its page does not name.
#[test]
fn a_form_leads_to_a_page_here_that_goes_on_once() {
    let world = World::start();
    let mut browser = world.browser();
    let consent = world.log_in(&mut browser, &world.request(&[]));
    let fields = [
        ("csrf_token", &*hidden(&consent, "csrf_token")),
        ("request", &*hidden(&consent, "request")),
        ("decision", "allow"),
    ];
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = browser.send("POST", "/oauth2/consent", &form, &encode(&fields));
    let step = answer.header("location").expect("a place").to_owned();
    assert_eq!(answer.status, 303);
    assert!(step.starts_with("/oauth2/continue?to="), "{step}");
    let shown = |browser: &mut Browser, path: &str| {
        let answer = browser.get(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(!answer.text().contains(CALLBACK), "{}", answer.text());
    };
    // It is of use to this browser alone, and as it was made.
    shown(&mut world.browser(), &step);
    let ticket = browser.cookie("continue").expect("set").clone();
    for path in [
        "/oauth2/continue",
        "/oauth2/continue?to=",
        "/oauth2/continue?to=%ff",
        &step.replacen('M', "N", 1),
        &format!("/oauth2/continue?to={}", hidden(&consent, "request")),
        &format!("/oauth2/continue?to={}", "x".repeat(9_000)),
    ] {
        shown(&mut browser, path);
    }
    assert_eq!(browser.cookie("continue"), Some(&ticket));
    let page = browser.get(&step);
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let to = led_to(&page);
    assert!(to.starts_with(CALLBACK) && to.contains("code="), "{to}");
    // Going back in the browser sends no code again.
    shown(&mut browser, &step);
}

#[test]
fn a_person_who_comes_without_an_application_logs_in_sees_who_they_are_and_logs_out() {
    let world = World::start();
    let mut browser = world.browser();
    let front = world.server.get("/").json();
    assert_eq!(front["links"]["login"], "/oauth2/login");
    let login = browser.get("/oauth2/login");
    assert_eq!(login.status, 200);
    let wrong = submit_login(&mut browser, &login, "ann", "wrong");
    assert_eq!(wrong.status, 401);
    assert!(!wrong.text().contains("To go on"), "{}", wrong.text());
    let answer = submit_login(&mut browser, &wrong, "ann", PASSWORD);
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, Some("/oauth2/login"))
    );
    let account = browser.get("/oauth2/login");
    let text = account.text();
    assert!(
        text.contains("Ann &#60;i&#62;") && text.contains("data-scientist"),
        "{text}"
    );
    let (token, request) = (hidden(&account, "csrf_token"), hidden(&account, "request"));
    let fields = [("csrf_token", &*token), ("request", &*request)];
    let foreign = world.browser().post("/oauth2/logout", &fields);
    assert_eq!(foreign.status, 403);
    let out = browser.post("/oauth2/logout", &fields);
    assert!(out.text().contains("You are logged out"), "{}", out.text());
    let again = browser.post("/oauth2/logout", &fields);
    assert_eq!(again.header("location"), Some("/oauth2/login"));
    assert!(
        browser
            .get("/oauth2/login")
            .text()
            .contains("<h1>Log in</h1>")
    );
}

#[test]
fn without_the_database_a_browser_is_shown_a_page() {
    let world = World::start();
    let mut browser = world.browser();
    let login = browser.get("/oauth2/login");
    assert_eq!(
        submit_login(&mut browser, &login, "ann", PASSWORD).status,
        303
    );
    let file = world.server.folder.path().join("auspex.db");
    std::fs::rename(&file, file.with_extension("away")).expect("moved");
    let paths = [
        "/oauth2/login".to_owned(),
        world.request(&[]),
        format!("/oauth2/end-session?client_id={}", world.app.0),
    ];
    for answer in paths.map(|path| browser.get(&path)) {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert!(answer.header("retry-after").is_some());
        assert!(
            answer.text().contains("role=\"alert\""),
            "{}",
            answer.text()
        );
    }
}

#[test]
fn the_login_page_is_for_whoever_comes_without_a_request() {
    let world = World::start();
    for path in ["/oauth2/login?utm_source=mail", "/oauth2/login?request="] {
        let page = world.browser().get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(page.text().contains("<h1>Log in</h1>"), "{}", page.text());
    }
    let old = world.browser().get("/oauth2/login?request=old");
    assert_eq!(old.status, 400);
    for way in ["application", "/oauth2/login"] {
        assert!(old.text().contains(way), "{}", old.text());
    }
}
