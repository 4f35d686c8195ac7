//! Bodies as clients send them, and garbage.

use axum::http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const JSON: &str = "application/json; charset=utf-8";
const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

fn of_type(kind: &str) -> HeaderMap {
    let kind = HeaderValue::try_from(kind).expect("a value");
    HeaderMap::from_iter([(header::CONTENT_TYPE, kind)])
}

fn decision(kind: &str, body: &str) -> Result<bool, u16> {
    let sent = SentDecision::read(&of_type(kind), body.as_bytes());
    sent.map(|sent| sent.consent)
        .map_err(|error| error.status().as_u16())
}

fn text(kind: &str, body: &[u8]) -> Result<(String, String), u16> {
    let sent = SentText::read(&of_type(kind), body, 20);
    sent.map(|sent| (sent.text.to_string(), sent.language.to_string()))
        .map_err(|error| error.status().as_u16())
}

#[test]
fn a_decision_is_true_or_false_in_every_form() {
    for kind in [JSON, FORM, "text/plain;charset=UTF-8", "application/json"] {
        assert_eq!(decision(kind, "true"), Ok(true), "{kind}");
        assert_eq!(decision(kind, " false\r\n"), Ok(false), "{kind}");
    }
    let unstated = SentDecision::read(&HeaderMap::new(), b"true");
    assert!(unstated.expect("a decision").consent);
    for name in DECISIONS {
        assert_eq!(decision(JSON, &format!("{{\"{name}\": true}}")), Ok(true));
        assert_eq!(decision(JSON, &format!("{{\"{name}\": false}}")), Ok(false));
        assert_eq!(decision(FORM, &format!("{name}=true")), Ok(true));
        assert_eq!(
            decision(FORM, &format!("purpose=a+b&{name}=false")),
            Ok(false)
        );
    }
    assert_eq!(
        decision(JSON, r#"{"consent": true, "value": true}"#),
        Ok(true)
    );
}

#[test]
fn whatever_else_comes_is_refused() {
    for body in [
        "",
        " ",
        "True",
        "TRUE",
        "tRue",
        "1",
        "0",
        "yes",
        "y",
        "on",
        "ok",
        "null",
        "[true]",
        "[]",
        "{}",
        "\"true\"",
        "'true'",
        "true false",
        "truetrue",
        "true,",
        "true}",
        "{true}",
        "!false",
        "\u{feff}true",
        r#"{"consent": "true"}"#,
        r#"{"consent": 1}"#,
        r#"{"consent": null}"#,
        r#"{"consent": [true]}"#,
        r#"{"Consent": true, "consent": "x"}"#,
        r#"{"consent": true, "value": false}"#,
        r#"{"consent": true, "consent": false}"#,
        r#"{"consent": true, "consent": true}"#,
        r#"{"purpose": "x"}"#,
        r#"{"consent": true"#,
        r#"{"consent": true}}"#,
    ] {
        assert_eq!(decision(JSON, body), Err(400), "{body}");
    }
    for body in [
        "true=",
        "=true",
        "consent",
        "consent=",
        "consent=True",
        "consent=1",
        "consent=on",
        "consent=true&value=false",
        "consent=true&consent=false",
        "consent=true&consent=true",
        "consent=%ff",
        "consent=true%00",
        "consent=+true",
    ] {
        assert_eq!(decision(FORM, body), Err(400), "{body}");
    }
    assert_eq!(decision("text/plain", "yes"), Err(400));
    assert_eq!(decision("text/plain", r#"{"consent": true}"#), Err(400));
    assert_eq!(decision("application/xml", "<a/>"), Err(415));
    assert_eq!(decision("multipart/form-data; boundary=x", "--x"), Err(415));
    assert_eq!(
        decision(JSON, r#"{"consent": true, "surprise": 1}"#),
        Err(400)
    );
    assert_eq!(
        decision(JSON, r#"{"consent": true, "purpose": ""}"#),
        Err(422)
    );
}

#[test]
fn terms_come_from_the_body_before_the_headers() {
    let mut headers = of_type(JSON);
    for (name, value) in TERMS.iter().zip(["app", "2", "support"]) {
        let name = HeaderName::try_from(*name).expect("a name");
        headers.insert(name, HeaderValue::from_static(value));
    }
    let sent = SentDecision::read(&headers, br#"{"value": true, "purpose": "training"}"#);
    let sent = sent.expect("a decision");
    assert_eq!(sent.terms.channel.as_deref(), Some("app"));
    assert_eq!(sent.terms.policy_version.as_deref(), Some("2"));
    assert_eq!(sent.terms.purpose.as_deref(), Some("training"));
    headers.insert("x-consent-channel", HeaderValue::from_static(""));
    headers.append("x-consent-purpose", HeaderValue::from_static("another"));
    let error = SentDecision::read(&headers, b"true").expect_err("wrong headers");
    let fields: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["X-Consent-Channel", "X-Consent-Purpose"]);
}

#[test]
fn a_text_is_read_from_json_and_forms() {
    let found = |text: &str, language: &str| Ok((text.to_owned(), language.to_owned()));
    let json = r#"{"text": "¿Qué?\n", "language": "ES-mx"}"#;
    assert_eq!(text(JSON, json.as_bytes()), found("¿Qué?\n", "es-MX"));
    let form = b"text=a+b%26%C3%A9%22%0A&language=en";
    assert_eq!(text(FORM, form), found("a b&é\"\n", "en"));
    let longest = format!(r#"{{"text": "{}", "language": "en"}}"#, "é".repeat(10));
    assert_eq!(text(JSON, longest.as_bytes()), found(&"é".repeat(10), "en"));
    for (kind, body, status) in [
        (JSON, "", 400),
        (JSON, "\"hello\"", 400),
        (JSON, r#"{"text": "a", "language": "en""#, 400),
        (JSON, r#"{"text": "\ud800", "language": "en"}"#, 400),
        (JSON, r#"{"text": "a"}"#, 422),
        (JSON, r#"{"text": "", "language": "en"}"#, 422),
        (JSON, r#"{"text": 1, "language": "en"}"#, 422),
        (JSON, r#"{"text": "a", "language": "xx"}"#, 422),
        (
            JSON,
            r#"{"text": "a", "language": "en", "surprise": 1}"#,
            422,
        ),
        (JSON, r#"{"text": "a", "text": "b", "language": "en"}"#, 422),
        (JSON, r#"{"text": "ééééééééééa", "language": "en"}"#, 422),
        (FORM, "text=a&text=b&language=en", 422),
        (FORM, "text=%ff&language=en", 400),
        (FORM, "language=en", 422),
        ("text/plain", "hello", 415),
        ("application/xml", "<a/>", 415),
    ] {
        assert_eq!(text(kind, body.as_bytes()), Err(status), "{body}");
    }
}

#[test]
fn what_was_sent_is_not_repeated() {
    for (kind, body) in [
        (FORM, "My+secret+is+7"),
        (FORM, "text=a&language=en&My+secret+is+7=1"),
        (JSON, r#"{"text": "a", "language": "My secret is 7"}"#),
        (JSON, r#"{"My secret is 7": "a"}"#),
        (JSON, "My secret is 7"),
    ] {
        let error = SentText::read(&of_type(kind), body.as_bytes(), 20).err();
        let error = error.expect(body);
        let said = format!("{} {:?}", error.message(), error.details());
        assert!(!said.contains("secret"), "{said}");
        let error = SentDecision::read(&of_type(kind), body.as_bytes()).expect_err(body);
        let said = format!("{} {:?}", error.message(), error.details());
        assert!(!said.contains("secret"), "{said}");
    }
}

proptest! {
    #[test]
    fn garbage_is_no_decision(body in "\\PC{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        for body in [body.as_bytes(), &bytes] {
            for kind in [JSON, FORM, "text/plain"] {
                let sent = SentDecision::read(&of_type(kind), body);
                let is_bare = matches!(body.trim_ascii(), b"true" | b"false");
                prop_assert_eq!(sent.is_ok(), is_bare, "{:?}", body);
                let _ = SentText::read(&of_type(kind), body, 20);
            }
        }
    }

    #[test]
    fn a_text_survives_a_form(text in "\\PC{1,40}") {
        let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let form = format!("language=en&text={encoded}");
        let sent = SentText::read(&of_type(FORM), form.as_bytes(), 1_000);
        prop_assert_eq!(&*sent.expect("a text").text, &text);
    }
}
