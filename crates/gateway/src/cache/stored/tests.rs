use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const TTL: Duration = Duration::from_secs(7);

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, value.parse().expect("a value"));
    }
    headers
}

fn date(offset: i64) -> String {
    let seconds = NOW.unix_seconds() + offset;
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()))
}

fn asking(headers: &HeaderMap) -> Asking<'_> {
    Asking {
        headers,
        has_caller: false,
        has_forwarded: false,
        ttl: TTL,
    }
}

/// An answer with these headers to a request with those.
pub(crate) fn stored(headers: &[(&str, &str)], asked: &[(&str, &str)]) -> Stored {
    let asked = map(asked);
    let law = Law {
        lifetime: TTL,
        stale_if_error: Duration::ZERO,
        is_shared: true,
        is_public: false,
    };
    let head = (StatusCode::OK, map(headers));
    let came = (Steady(0), NOW);
    Stored::new(
        law,
        head,
        Bytes::from_static(b"x"),
        &asking(&asked),
        Steady(0),
        came,
    )
}

fn law(status: u16, headers: &[(&str, &str)]) -> Option<Law> {
    let status = StatusCode::from_u16(status).expect("a status");
    Law::of(&asking(&HeaderMap::new()), status, &map(headers), NOW)
}

fn lifetime(headers: &[(&str, &str)]) -> Option<u64> {
    law(200, headers).map(|law| law.lifetime.as_secs())
}

#[test]
fn what_an_answer_states_comes_before_the_settings() {
    let expires = date(30);
    let dated = date(-10);
    let cases: &[(&[(&str, &str)], u64)] = &[
        (&[], 7),
        (&[("cache-control", "max-age=3")], 3),
        (&[("cache-control", "max-age=3, s-maxage=5")], 5),
        (&[("cache-control", "max-age=3"), ("expires", &expires)], 3),
        (&[("expires", &expires)], 30),
        (&[("expires", &expires), ("date", &dated)], 40),
        (&[("etag", "\"a\""), ("expires", "0")], 0),
        (&[("etag", "\"a\""), ("cache-control", "max-age=0")], 0),
        (
            &[("etag", "\"a\""), ("cache-control", "no-cache, max-age=9")],
            0,
        ),
        (
            &[("last-modified", &dated), ("cache-control", "max-age=x")],
            0,
        ),
    ];
    for (headers, expected) in cases {
        assert_eq!(lifetime(headers), Some(*expected), "{headers:?}");
    }
}

#[test]
fn what_is_not_for_all_is_not_kept() {
    let cases: &[&[(&str, &str)]] = &[
        &[("cache-control", "no-store, max-age=9")],
        &[("cache-control", "private, max-age=9")],
        &[("cache-control", "private=\"x\", max-age=9")],
        &[
            ("set-cookie", "a=b"),
            ("cache-control", "public, max-age=9"),
        ],
        &[("vary", "*")],
        &[("vary", "accept, *")],
        &[("vary", "X-Forwarded-For")],
        &[("vary", "not a name")],
        &[("content-range", "bytes 0-1/2")],
        &[("content-type", "Text/Event-Stream; charset=utf-8")],
        // Of no use: never fresh, and nothing to ask by.
        &[("cache-control", "max-age=0")],
        &[("cache-control", "no-cache")],
        &[("expires", "0")],
    ];
    for headers in cases {
        assert_eq!(law(200, headers), None, "{headers:?}");
    }
    for status in [
        100, 101, 206, 304, 400, 401, 403, 416, 429, 500, 502, 503, 504,
    ] {
        assert_eq!(
            law(status, &[("cache-control", "public, max-age=9")]),
            None,
            "{status}"
        );
    }
    // Those that do not last by themselves only if it is stated.
    for status in [204, 302, 404, 410] {
        assert_eq!(law(status, &[]), None, "{status}");
        assert!(
            law(status, &[("cache-control", "max-age=9")]).is_some(),
            "{status}"
        );
    }
}

#[test]
fn what_a_credential_was_asked_with_is_its_callers() {
    let none = HeaderMap::new();
    let kept = |asking: &Asking<'_>, headers: &[(&str, &str)]| {
        let law = Law::of(asking, StatusCode::OK, &map(headers), NOW);
        law.map(|law| law.is_shared)
    };
    let public = [("cache-control", "public, max-age=9")];
    let shared = [("cache-control", "s-maxage=9")];
    let mut asking = asking(&none);
    assert_eq!(kept(&asking, &[]), Some(true));
    asking.has_caller = true;
    assert_eq!(kept(&asking, &[]), Some(false));
    assert_eq!(
        kept(&asking, &[("cache-control", "max-age=9, must-revalidate")]),
        Some(false)
    );
    assert_eq!(kept(&asking, &public), Some(true));
    assert_eq!(kept(&asking, &shared), Some(true));
    for vary in ["Authorization", "accept, cookie"] {
        assert_eq!(
            kept(&asking, &[public[0], ("vary", vary)]),
            Some(false),
            "{vary}"
        );
    }
    asking.has_forwarded = true;
    assert_eq!(kept(&asking, &[]), None);
    assert_eq!(kept(&asking, &public), Some(true));
}

#[test]
fn an_answer_was_as_old_as_it_or_its_date_says() {
    let second = |seconds: i64| Steady(seconds * 1_000_000);
    let dated = date(-20);
    let ahead = date(20);
    let cases: &[(&[(&str, &str)], u64)] = &[
        (&[], 2),
        (&[("age", "5")], 7),
        (&[("age", "-5")], 2),
        (&[("date", &dated)], 20),
        (&[("date", &dated), ("age", "30")], 32),
        (&[("date", &ahead)], 2),
    ];
    for (headers, expected) in cases {
        // Two seconds on its way.
        let born = birth(&map(headers), second(100), (second(102), NOW));
        assert_eq!(second(102).since(born).as_secs(), *expected, "{headers:?}");
    }
}

#[test]
fn freshness_ends_with_age_or_with_what_the_client_wants() {
    let second = |seconds: i64| Steady(seconds * 1_000_000);
    let one = stored(&[], &[]);
    let wants = |text: &str| Directives::of_request(&map(&[("cache-control", text)]));
    assert!(one.is_fresh_for(&wants(""), second(6)));
    assert!(!one.is_fresh_for(&wants(""), second(7)));
    assert!(one.is_fresh_for(&wants("max-age=6"), second(6)));
    for wanted in ["max-age=5", "min-fresh=1", "no-cache"] {
        assert!(!one.is_fresh_for(&wants(wanted), second(6)), "{wanted}");
    }
    assert_eq!((one.left(second(2)), one.left(second(9))), (5, -2));
    assert!(!one.stands_in(second(8)));
}

#[test]
fn an_answer_stands_in_for_errors_only_where_it_says_so() {
    let allowed =
        |text: &str| law(200, &[("cache-control", text)]).map(|law| law.stale_if_error.as_secs());
    assert_eq!(allowed("max-age=1, stale-if-error=60"), Some(60));
    for text in [
        "max-age=1",
        "max-age=1, stale-if-error=60, must-revalidate",
        "max-age=1, stale-if-error=60, proxy-revalidate",
        "s-maxage=1, stale-if-error=60",
    ] {
        assert_eq!(allowed(text), Some(0), "{text}");
    }
}

#[test]
fn an_answer_fits_requests_with_the_same_values() {
    let one = stored(
        &[("vary", "Accept, accept-language")],
        &[("accept", "a"), ("accept", "b")],
    );
    assert!(one.fits(&map(&[("accept", "a"), ("accept", "b"), ("x", "y")])));
    for other in [
        &[("accept", "a")][..],
        &[("accept", "b"), ("accept", "a")],
        &[("accept", "a"), ("accept", "b"), ("accept-language", "de")],
        &[],
    ] {
        assert!(!one.fits(&map(other)), "{other:?}");
    }
}

#[test]
fn a_confirmation_renews_the_head_and_not_the_body() {
    let one = stored(
        &[
            ("etag", "\"a\""),
            ("x-old", "1"),
            ("content-type", "a"),
            ("age", "3"),
        ],
        &[],
    );
    assert_eq!(one.headers["content-length"], "1");
    let with = map(&[
        ("etag", "\"b\""),
        ("x-new", "1"),
        ("x-new", "2"),
        ("content-type", "b"),
        ("content-length", "0"),
        ("set-cookie", "a=b"),
    ]);
    let headers = one.confirmed(&with);
    let text = |name: &str| headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!(text("etag"), Some("\"b\""));
    assert_eq!(
        (text("x-old"), headers.get_all("x-new").iter().count()),
        (Some("1"), 2)
    );
    assert_eq!(
        (text("content-type"), text("content-length")),
        (Some("a"), Some("1"))
    );
    assert_eq!(
        (text("set-cookie"), text("date"), text("age")),
        (None, None, None)
    );
}

#[test]
fn an_answer_holds_no_more_than_it_counts() {
    // A head, as it was read, and one value of it.
    let head = Bytes::from(vec![b'a'; 40_000]);
    let value = HeaderValue::from_maybe_shared(head.slice(..1)).expect("a value");
    let mut headers = map(&[("vary", "x-tenant")]);
    headers.insert("x-own", value.clone());
    headers.reserve(1000);
    let asked = HeaderMap::from_iter([(HeaderName::from_static("x-tenant"), value.clone())]);
    let law = stored(&[], &[]).law;
    let came = (Steady(0), NOW);
    let head_of = (StatusCode::OK, headers);
    let asking = asking(&asked);
    let one = Stored::new(law, head_of, Bytes::new(), &asking, Steady(0), came);
    assert!(one.fits(&asked));
    for kept in [&one.headers["x-own"], &one.varying[0].1[0]] {
        assert_eq!(kept, value);
        assert_ne!(kept.as_bytes().as_ptr(), value.as_bytes().as_ptr());
    }
    assert!(one.headers.capacity() < 100);
    // What it varies by counts too.
    let long = "x".repeat(10_000);
    let bytes = |value: &str| stored(&[("vary", "x-tenant")], &[("x-tenant", value)]).bytes();
    assert_eq!(bytes(&long) - bytes("x"), long.len() - 1);
    assert!(bytes("x") > stored(&[("vary", "x-tenant")], &[]).bytes());
}
