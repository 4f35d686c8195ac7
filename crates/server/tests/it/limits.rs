//! The limiter's law, over real connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::predict::REQUEST;
use crate::server::{Server, eventually};
use auspex_kernel::clock::monotonic;

const THREE_IN_TEN: [(&str, &str); 2] = [
    ("AUSPEX__SERVER__RATE_LIMIT__MAX", "3"),
    ("AUSPEX__SERVER__RATE_LIMIT__WINDOW_S", "10"),
];

#[test]
fn a_client_gets_three_requests_in_ten_seconds_and_another_client_its_own() {
    let server = Server::start_with(&THREE_IN_TEN);
    let other = server.run(&[
        "keys",
        "create",
        "--name",
        "client_2",
        "--scope",
        "models:read",
    ]);
    let other = other.trim();
    for remaining in ["2", "1", "0"] {
        let answer = server.get("/v1/models");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(remaining));
    }
    let refused = server.get("/v1/models");
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (429, "RATE_LIMITED")
    );
    let wait: u64 = refused
        .header("retry-after")
        .expect("a wait")
        .parse()
        .expect("seconds");
    assert!((1..=11).contains(&wait), "{wait}");
    #[expect(clippy::disallowed_methods, reason = "the clock of a client")]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    let reset: u64 = refused
        .header("x-ratelimit-reset")
        .expect("a time")
        .parse()
        .expect("Unix");
    assert!((now..=now + 12).contains(&reset), "{reset} {now}");
    let ask = |key: &str| {
        server
            .connect()
            .send("GET", "/v1/models", &[("X-API-Key", key)], b"")
            .status
    };
    eventually(Duration::from_secs(1), "client_2 is served", || {
        ask(other) == 200
    });
    assert_eq!(ask(&server.key), 429);
}

#[test]
fn concurrent_requests_get_exactly_the_limit() {
    let server = Server::start_with(&[("AUSPEX__SERVER__RATE_LIMIT__MAX", "200")]);
    let (allowed, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = server.connect();
                for _ in 0..100 {
                    let headers = [("X-API-Key", server.key.as_str())];
                    match connection.send("GET", "/v1/models", &headers, b"").status {
                        200 => allowed.fetch_add(1, Ordering::Relaxed),
                        429 => refused.fetch_add(1, Ordering::Relaxed),
                        other => panic!("{other}"),
                    };
                }
            });
        }
    });
    assert_eq!((allowed.into_inner(), refused.into_inner()), (200, 600));
}

#[test]
fn the_window_slides() {
    let server = Server::start_with(&[
        ("AUSPEX__SERVER__RATE_LIMIT__MAX", "5"),
        ("AUSPEX__SERVER__RATE_LIMIT__WINDOW_S", "1"),
    ]);
    let mut connection = server.connect();
    let mut allowed = Vec::new();
    let start = monotonic();
    while start.elapsed() < Duration::from_secs(3) {
        // Between these two moments the server counted the request.
        let before = start.elapsed();
        let headers = [("X-API-Key", server.key.as_str())];
        let status = connection.send("GET", "/v1/models", &headers, b"").status;
        if status == 200 {
            allowed.push((before, start.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(allowed.len() >= 10, "{allowed:?}");
    for six in allowed.windows(6) {
        let spread = six[5].1 - six[0].0;
        assert!(
            spread >= Duration::from_secs(1),
            "six requests within {spread:?}"
        );
    }
}

#[test]
fn wrong_keys_are_limited_by_address_and_good_ones_are_not_charged() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "10")]);
    for _ in 0..30 {
        assert_eq!(server.get("/v1/models").status, 200);
    }
    let refused = [
        ("X-API-Key", "x"),
        ("Authorization", "Basic YTpi"),
        ("Authorization", ""),
        ("X-Nothing", ""),
    ];
    let wrong = |i: usize| {
        server
            .connect()
            .send("GET", "/v1/models", &[refused[i % 4]], b"")
            .status
    };
    let answers: Vec<u16> = (0..12).map(wrong).collect();
    assert_eq!(answers.iter().filter(|status| **status == 401).count(), 10);
    assert_eq!(answers[10..], [429, 429]);
    // What others do at the same address takes nothing from who shows a good key.
    assert_eq!(server.get("/v1/models").status, 200);
    assert_eq!(wrong(0), 429);
}

#[test]
fn clients_behind_a_trusted_proxy_are_told_apart() {
    let limits = [
        ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "30"),
        ("AUSPEX__SERVER__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]"),
    ];
    let server = Server::start_with(&limits);
    let body =
        json!({"name": "Owner", "email": "owner@example.org", "password": "correct horse battery"});
    assert_eq!(server.post("/v1/users", body.to_string()).status, 201);
    let log_in = |client: &str, password: &str| {
        let body = json!({"username": "owner@example.org", "password": password}).to_string();
        let headers = [
            ("X-Forwarded-For", client),
            ("Content-Type", "application/json"),
        ];
        let mut connection = server.connect();
        connection
            .send("POST", "/v1/auth/login", &headers, body.as_bytes())
            .status
    };
    let attacker = "6.6.6.6, 203.0.113.66";
    let guesses: Vec<u16> = (0..22).map(|_| log_in(attacker, "wrong")).collect();
    assert_eq!(guesses.iter().filter(|status| **status == 401).count(), 20);
    assert_eq!(guesses[21], 429);
    // The attacker writes the owner's address in front of their own: it counts for nothing.
    assert_eq!(log_in("198.51.100.1, 203.0.113.66", "wrong"), 429);
    assert_eq!(log_in("198.51.100.1", "correct horse battery"), 200);

    let anonymous = |client: &str| {
        let headers = [("X-Forwarded-For", client)];
        server
            .connect()
            .send("GET", "/v1/models", &headers, b"")
            .status
    };
    let more: Vec<u16> = (0..8).map(|_| anonymous(attacker)).collect();
    assert_eq!(more, [401, 401, 401, 401, 401, 401, 401, 429]);
    assert_eq!(anonymous("198.51.100.1"), 401);
}

#[test]
fn forwarded_addresses_count_for_nothing_without_trusted_proxies() {
    let server = Server::start_with(&[("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "10")]);
    let anonymous = |i: usize| {
        let address = format!("203.0.113.{i}");
        let headers = [
            ("X-Forwarded-For", address.as_str()),
            ("Forwarded", "for=1.1.1.1"),
        ];
        server
            .connect()
            .send("GET", "/v1/models", &headers, b"")
            .status
    };
    let answers: Vec<u16> = (0..12).map(anonymous).collect();
    assert_eq!(answers[9..], [401, 429, 429]);
}

#[test]
fn memory_for_long_bodies_is_bounded_and_given_back() {
    const BODY_BYTES: usize = 2_000_000;
    let server = Server::start_with(&[("AUSPEX__SERVER__BODIES_BYTES_MAX", "8000000")]);
    let record = REQUEST;
    let long = format!("[{}]", vec![record; 1000].join(","));
    let long = long.clone() + &" ".repeat(BODY_BYTES - long.len());
    for _ in 0..10 {
        assert_eq!(server.post("/predict", record).status, 200);
    }
    assert_eq!(server.post("/predict", &long).status, 200);
    let idle = server.memory_kb("VmRSS");
    let predicted = AtomicUsize::new(0);
    let client = || {
        for _ in 0..3 {
            match server.post("/predict", &long).status {
                200 => drop(predicted.fetch_add(1, Ordering::Relaxed)),
                status => assert_eq!(status, 503),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(client);
        }
    });
    assert!(predicted.into_inner() > 0);
    let peak = server.memory_kb("VmHWM");
    assert!(peak < idle + 96_000, "{peak} kB at most, {idle} kB before");
    eventually(Duration::from_secs(60), "memory is back", || {
        server.memory_kb("VmRSS") * 2 < idle * 3
    });
}
