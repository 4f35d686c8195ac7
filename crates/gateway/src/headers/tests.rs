use super::*;

fn told(host: &HeaderValue) -> Told<'_> {
    Told {
        version: Version::HTTP_11,
        client: "203.0.113.7".parse().expect("an address"),
        via: None,
        id: None,
        host: Some(host),
        target_host: None,
        prefix: "",
        with_credentials: false,
        secret: None,
        length: Some(0),
        has_body: false,
        is_secured: false,
        switches: false,
        is_http2: false,
    }
}

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    headers
}

/// As a service reads it.
fn sent_to(headers: &HeaderMap, told: &Told<'_>) -> HeaderMap {
    for_service(headers, told).into_iter().collect()
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let mut shown: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .map(|line| line.replace(&*via::PSEUDONYM, "us"))
        .collect();
    shown.sort();
    shown
}

#[test]
fn a_service_is_told_what_is_true() {
    let host = HeaderValue::from_static("127.0.0.1:9001");
    let sent = map(&[
        ("host", "api.example.org"),
        ("x-api-key", "k"),
        ("authorization", "Bearer k"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-user", "admin"),
        ("x-auspex-caller", "admin"),
        ("x_auspex_caller", "admin"),
        ("x-real-ip", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        (
            "connection",
            "close, x-forwarded-for, x-hop, host, content-length, via",
        ),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("accept", "a"),
        ("accept", "b"),
        ("traceparent", "00-1"),
        ("via", "1.0 other"),
    ]);
    let mut told = told(&host);
    told.prefix = "/orders";
    assert_eq!(
        shown(&sent_to(&sent, &told)),
        [
            "accept: a",
            "accept: b",
            "host: 127.0.0.1:9001",
            "traceparent: 00-1",
            "via: 1.0 other",
            "via: 1.1 us",
            "x-forwarded-for: 203.0.113.7",
            "x-forwarded-host: api.example.org",
            "x-forwarded-prefix: /orders",
            "x-forwarded-proto: http",
            "x-real-ip: 203.0.113.7",
        ]
    );
    told.with_credentials = true;
    told.host = None;
    let with = shown(&sent_to(&sent, &told));
    for kept in [
        "authorization: Bearer k",
        "cookie: a=b",
        "host: api.example.org",
    ] {
        assert!(
            with.iter().any(|line| line == kept),
            "{kept} is not in {with:?}"
        );
    }
}

#[test]
fn of_what_a_trusted_proxy_was_sent_nothing_passes() {
    let host = HeaderValue::from_static("a");
    let mut told = told(&host);
    told.via = Some(Via("10.0.0.1".parse().expect("an address")));
    let chain = [
        ("host", "api.example.org"),
        ("x-forwarded-for", "9.9.9.9, 203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example.org"),
        ("x-forwarded-user", "admin"),
    ];
    let sent = shown(&sent_to(&map(&chain), &told));
    assert_eq!(
        sent,
        [
            "host: a",
            "via: 1.1 us",
            "x-forwarded-for: 203.0.113.7, 10.0.0.1",
            "x-forwarded-host: api.example.org",
            "x-forwarded-proto: https",
            "x-real-ip: 203.0.113.7",
        ]
    );
    for (said, expected) in [("https, http", "http"), ("ftp", "http"), ("http", "http")] {
        let sent = sent_to(&map(&[("x-forwarded-proto", said)]), &told);
        assert_eq!(sent["x-forwarded-proto"], expected, "{said}");
    }
    told.is_secured = true;
    let sent = sent_to(&map(&[("x-forwarded-proto", "http")]), &told);
    assert_eq!(sent["x-forwarded-proto"], "http", "the proxy knows");
    assert_eq!(sent_to(&map(&[]), &told)["x-forwarded-proto"], "https");
    // A check by the proxy itself.
    told.client = "10.0.0.1".parse().expect("an address");
    let sent = sent_to(&map(&[]), &told);
    assert_eq!(sent["x-forwarded-for"], "10.0.0.1");
}

#[test]
fn the_host_of_the_target_wins() {
    let host = HeaderValue::from_static("a");
    let target = HeaderValue::from_static("shop.example");
    let mut told = told(&host);
    told.target_host = Some(&target);
    for headers in [map(&[]), map(&[("host", "other.example")])] {
        let sent = sent_to(&headers, &told);
        assert_eq!(sent["x-forwarded-host"], "shop.example");
        assert_eq!(sent["host"], "a");
    }
    told.host = None;
    let sent = sent_to(&map(&[("host", "other.example")]), &told);
    assert_eq!(sent["host"], "shop.example");
}

#[test]
fn a_request_is_cut_by_what_its_connection_names() {
    let is_cut = |connection: &str| {
        let headers = [
            ("connection", connection),
            ("x-tenant", "acme"),
            ("te", "trailers"),
            ("upgrade", "a"),
        ];
        super::is_cut(&map(&headers))
    };
    for connection in ["close, X-Tenant", "x-tenant"] {
        assert!(is_cut(connection), "{connection}");
    }
    for connection in ["close", "keep-alive", "Upgrade, TE", "x-other", "", ",="] {
        assert!(!is_cut(connection), "{connection}");
    }
}

#[test]
fn cookies_that_come_apart_arrive_as_one() {
    let host = HeaderValue::from_static("a");
    let mut told = told(&host);
    told.with_credentials = true;
    let apart = map(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let sent = sent_to(&apart, &told);
    let cookies: Vec<_> = sent.get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2; c=3"]);
    let one = sent_to(&map(&[("cookie", "a=1")]), &told);
    assert_eq!(one[header::COOKIE], "a=1");
}

#[test]
fn one_length_is_told_whatever_was_said() {
    let host = HeaderValue::from_static("a");
    let mut told = told(&host);
    let both = map(&[
        ("content-length", "5"),
        ("content-length", "5"),
        ("te", "x"),
    ]);
    let sent = |told: &Told<'_>| {
        let sent = sent_to(&both, told);
        let length = sent.get_all(header::CONTENT_LENGTH).iter().count();
        (length, sent.contains_key(header::TRANSFER_ENCODING))
    };
    assert_eq!(sent(&told), (0, false));
    told.has_body = true;
    assert_eq!(sent(&told), (1, false));
    told.length = None;
    assert_eq!(sent(&told), (0, true));
}

#[test]
fn answers_lose_what_is_of_their_connection_and_get_their_prefix_back() {
    let mut answer = map(&[
        ("connection", "keep-alive, x-hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("content-length", "3"),
        ("set-cookie", "a=b"),
    ]);
    for_client(StatusCode::OK, &mut answer);
    assert_eq!(shown(&answer), ["content-length: 3", "set-cookie: a=b"]);
    // What says for whom an answer is stays.
    for name in FOR_ALL {
        let mut answer = map(&[("connection", name.as_str()), (name.as_str(), "1")]);
        for_client(StatusCode::OK, &mut answer);
        assert_eq!(shown(&answer), [format!("{name}: 1")]);
    }
    for (location, restored) in [
        ("/1", "/orders/1"),
        ("http://127.0.0.1:9001/1?a", "/orders/1?a"),
        ("https://127.0.0.1:9001/1", "/orders/1"),
        ("http://127.0.0.1:9001", "/orders"),
        ("http://127.0.0.1:90012/1", "http://127.0.0.1:90012/1"),
        ("https://other.example/1", "https://other.example/1"),
        ("//other.example/1", "//other.example/1"),
        ("1", "1"),
    ] {
        let mut answer = map(&[("location", location)]);
        restore_prefix(
            &mut answer,
            "/orders",
            &["127.0.0.1:9001", "shop.example.org"],
        );
        assert_eq!(answer[header::LOCATION], restored, "{location}");
    }
}

#[test]
fn trailers_bring_nothing_that_belongs_to_a_head() {
    let mut trailers = map(&[
        ("grpc-status", "0"),
        ("x-checksum", "1"),
        ("te", "gzip"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("content-length", "9"),
        ("host", "evil"),
        ("authorization", "Bearer k"),
        ("x-api-key", "k"),
        ("cookie", "a=b"),
        ("x-auspex-cluster", "k"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x_auspex_cluster", "k"),
    ]);
    clean_trailers(&mut trailers);
    assert_eq!(shown(&trailers), ["grpc-status: 0", "x-checksum: 1"]);
}

#[test]
fn an_answer_has_the_length_that_it_came_with() {
    let cleaned = |status: StatusCode, pairs: &[(&str, &str)]| {
        let mut answer = map(pairs);
        for_client(status, &mut answer);
        shown(&answer)
    };
    let length = ("content-length", "1");
    let chunked = ("transfer-encoding", "chunked");
    assert_eq!(cleaned(StatusCode::OK, &[length]), ["content-length: 1"]);
    assert!(cleaned(StatusCode::OK, &[length, chunked]).is_empty());
    assert!(cleaned(StatusCode::NO_CONTENT, &[length]).is_empty());
    let coded = |value| is_plainly_coded(&map(&[("transfer-encoding", value)]));
    assert!(
        coded("chunked") && coded("Chunked") && coded("identity") && is_plainly_coded(&map(&[]))
    );
    assert!(!coded("gzip, chunked") && !coded("gzip") && !coded("chunked, chunked"));
    assert!(!is_plainly_coded(&map(&[chunked, chunked])));
}

#[test]
fn a_key_that_repeats_a_request_reaches_its_service() {
    let host = HeaderValue::from_static("a");
    let sent = map(&[("connection", "idempotency-key"), ("idempotency-key", "k")]);
    let sent = shown(&sent_to(&sent, &told(&host)));
    assert!(sent.contains(&"idempotency-key: k".to_owned()), "{sent:?}");
}

#[test]
fn cookies_and_locations_of_a_service_lead_behind_the_prefix() {
    let names = ["127.0.0.1:9001", "shop.example.org"];
    let restored = |name: &str, value: &str| {
        let mut answer = map(&[(name, value)]);
        restore_prefix(&mut answer, "/p", &names);
        answer[name].to_str().expect("text").to_owned()
    };
    for (sent, wanted) in [
        ("/x", "/p/x"),
        ("/p/x", "/p/x"),
        ("/p?q", "/p?q"),
        ("/px", "/p/px"),
        ("http://127.0.0.1:9001/p/x", "/p/x"),
        ("http://127.0.0.1:9001/x", "/p/x"),
        ("HTTPS://Shop.example.org?q=1", "/p?q=1"),
        ("//other.example.org/x", "//other.example.org/x"),
        (
            "https://shop.example.org.evil/x",
            "https://shop.example.org.evil/x",
        ),
        ("ftp://shop.example.org/x", "ftp://shop.example.org/x"),
    ] {
        assert_eq!(restored("location", sent), wanted);
    }
    for (sent, wanted) in [
        ("a=1; Path=/; Secure", "a=1; Path=/p/; Secure"),
        ("a=1; Path=/p/; Secure", "a=1; Path=/p/; Secure"),
        ("__Host-a=1; Path=/; Secure", "__Host-a=1; Path=/; Secure"),
        ("path=/x; path = /y", "path=/x; Path=/p/y"),
        ("a=1; Secure", "a=1; Secure"),
    ] {
        assert_eq!(restored("set-cookie", sent), wanted);
    }
}
