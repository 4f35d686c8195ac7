//! How jobs of other origins write their requests, and garbage.

use serde_json::json;

use super::Bot;
use crate::client::Answer;

fn send(bot: &Bot, path: &str, kind: Option<&str>, body: &str) -> Answer {
    let mut headers = vec![("X-API-Key", bot.server.key.as_str())];
    headers.extend(kind.map(|kind| ("Content-Type", kind)));
    let mut connection = bot.server.connect();
    connection.send("POST", path, &headers, body.as_bytes())
}

const FORM: Option<&str> = Some("application/x-www-form-urlencoded; charset=UTF-8");
const JSON: Option<&str> = Some("application/json; charset=utf-8");

#[test]
fn plain_clients_are_understood() {
    let bot = Bot::start();
    for (number, (kind, text, consent)) in [
        (JSON, r#"{"text": "hola", "language": "ES"}"#, "true"),
        (None, r#"{"language": "ES", "text": "hola"}"#, " true "),
        (FORM, "text=hola&language=ES", "true"),
        (FORM, "text=hola&language=ES", "consent=true"),
        (
            JSON,
            r#"{"text": "hola", "language": "spa"}"#,
            r#"{"value": true}"#,
        ),
        (
            JSON,
            r#"{"text": "hola", "language": "es"}"#,
            r#"{"is_accepted": true, "channel": "app"}"#,
        ),
        (
            JSON,
            r#"{"text": "hola", "language": "es"}"#,
            r#"{"has_given_consent": true}"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let pushed = send(&bot, &format!("/data/7/{number}"), kind, text);
        assert_eq!(pushed.status, 200, "{text}: {}", pushed.text());
        let decided = send(&bot, &format!("/consents/{number}"), kind, consent);
        assert_eq!(decided.status, 200, "{consent}: {}", decided.text());
        assert_eq!(decided.json()["consent"], true);
    }
    assert_eq!(bot.texts("/data/?language=es&customerId=7").len(), 7);
    assert_eq!(bot.texts("/data?customer_id=7&dialogId=0").len(), 1);
    assert_eq!(bot.texts("/v1/data/?customerId=8").len(), 0);
}

#[test]
fn nothing_else_is_ever_read_as_a_yes() {
    let bot = Bot::start();
    bot.push("c1", "d1", "waits");
    for (kind, body) in [
        (JSON, ""),
        (JSON, "True"),
        (JSON, "1"),
        (JSON, "\"true\""),
        (JSON, "\"yes\""),
        (JSON, "[true]"),
        (JSON, "null"),
        (JSON, "{}"),
        (JSON, r#"{"consent": "true"}"#),
        (JSON, r#"{"consent": 1}"#),
        (JSON, r#"{"consent": true, "value": false}"#),
        (JSON, r#"{"consent": false, "consent": true}"#),
        (FORM, "True"),
        (FORM, "consent=1"),
        (FORM, "consent=on"),
        (FORM, "true=true"),
        (Some("text/plain"), "yes"),
    ] {
        let answer = send(&bot, "/consents/d1", kind, body);
        assert_eq!(answer.error_code(), "MALFORMED_REQUEST", "{body}");
    }
    let xml = send(&bot, "/consents/d1", Some("application/xml"), "<true/>");
    assert_eq!(xml.status, 415);
    assert_eq!(bot.status("d1").json()["status"], "pending");
    assert!(bot.texts("/data/").is_empty());
}

#[test]
fn wrong_texts_are_refused_for_all_that_is_wrong() {
    let bot = Bot::start();
    for (kind, body, status, fields) in [
        (JSON, "", 400, vec![]),
        (JSON, "hello", 400, vec![]),
        (JSON, "[1]", 400, vec![]),
        (JSON, "{}", 422, vec!["text", "language"]),
        (
            JSON,
            r#"{"text": 7, "language": "english"}"#,
            422,
            vec!["text", "language"],
        ),
        (JSON, r#"{"text": "", "language": "en"}"#, 422, vec!["text"]),
        (
            JSON,
            r#"{"text": "a", "language": null}"#,
            422,
            vec!["language"],
        ),
        (
            JSON,
            r#"{"text": "a", "language": "en_GB"}"#,
            422,
            vec!["language"],
        ),
        (
            JSON,
            r#"{"text": "a", "language": "en", "user": 1}"#,
            422,
            vec!["(body)"],
        ),
        (FORM, "text=a", 422, vec!["language"]),
        (FORM, "text=%ff&language=en", 400, vec![]),
        (Some("text/plain"), "hello", 415, vec![]),
        (
            Some("multipart/form-data; boundary=x"),
            "--x--",
            415,
            vec![],
        ),
    ] {
        let answer = send(&bot, "/data/c1/d1", kind, body);
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
        if status == 422 {
            assert_eq!(answer.wrong_fields(), fields, "{body}");
        }
    }
    let headers = [
        ("X-API-Key", bot.server.key.as_str()),
        ("Content-Encoding", "gzip"),
    ];
    let packed = bot
        .server
        .connect()
        .send("POST", "/data/c1/d1", &headers, b"x");
    assert_eq!(packed.status, 415);
    assert_eq!(bot.status("d1").status, 404);
}

#[test]
fn ids_are_opaque_texts() {
    let bot = Bot::start();
    let longest = "x".repeat(128);
    for (written, id) in [
        ("a%2Fb", "a/b"),
        ("%F0%9F%99%82", "🙂"),
        ("a%20b+c", "a b+c"),
        ("..%2F..", "../.."),
        ("%27%3B--", "';--"),
        (longest.as_str(), longest.as_str()),
    ] {
        let pushed = bot.push(written, &format!("d-{written}"), "x");
        match id.len() {
            128 => assert_eq!(pushed.wrong_fields(), ["dialogId"]),
            _ => {
                assert_eq!(pushed.status, 200, "{written}: {}", pushed.text());
                let decided = bot.decide(&format!("d-{written}"), true);
                assert_eq!(decided.json()["dialog_id"], format!("d-{id}"));
            }
        }
    }
    let found = bot.server.get("/data/?customerId=a%2Fb").json();
    assert_eq!(found["data"][0]["customer_id"], "a/b");
    assert_eq!(bot.push(&longest, "d", "x").status, 200);
    let long = "x".repeat(129);
    for (customer, dialogue, fields) in [
        ("%00", "d", vec!["customerId"]),
        ("c%0A", "d%7F", vec!["customerId", "dialogId"]),
        ("c", long.as_str(), vec!["dialogId"]),
        ("c", "%ff", vec!["(path)"]),
    ] {
        let refused = bot.push(customer, dialogue, "x");
        assert_eq!(refused.wrong_fields(), fields, "{customer} {dialogue}");
    }
    assert_eq!(bot.push("", "d", "x").wrong_fields(), ["customerId"]);
}

#[test]
fn decisions_state_where_by_which_text_and_what_for() {
    let bot = Bot::start_with(&[("AUSPEX__DIALOGUES__CONSENT__CHANNEL", "web")]);
    for dialogue in ["d1", "d2", "d3"] {
        bot.push("c1", dialogue, "x");
    }
    bot.decide("d1", true);
    let body = json!({"consent": true, "channel": "app", "purpose": "support"});
    bot.server.post("/consents/d2", body.to_string());
    let headers = [
        ("X-API-Key", bot.server.key.as_str()),
        ("X-Consent-Policy-Version", "2026-03"),
    ];
    bot.server
        .connect()
        .send("POST", "/consents/d3", &headers, b"false");
    let wrong = [headers[0], ("X-Consent-Purpose", "é")];
    let wrong = bot
        .server
        .connect()
        .send("POST", "/consents/d3", &wrong, b"true");
    assert_eq!(wrong.wrong_fields(), ["X-Consent-Purpose"]);
    let record = bot.server.get("/v1/customers/c1/consents").json();
    let lines: Vec<_> = record["data"].as_array().expect("a list").iter().collect();
    let told = |line: usize, name: &str| lines[line][name].as_str().expect("text").to_owned();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        [told(0, "channel"), told(1, "channel"), told(2, "channel")],
        ["web", "app", "web"]
    );
    assert_eq!(told(1, "purpose"), "support");
    assert_eq!(
        (told(0, "policy_version"), told(2, "policy_version")),
        ("1".into(), "2026-03".into())
    );
    assert_eq!(
        [told(0, "decision"), told(2, "decision")],
        ["granted", "refused"]
    );
    assert_eq!(bot.texts("/data/").len(), 2);
}
