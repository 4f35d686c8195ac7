//! From the first text to the decision.

use serde_json::json;

use super::Bot;

#[test]
fn texts_wait_until_their_customer_agrees() {
    let bot = Bot::start();
    let pushed = bot.push("c1", "d1", "first");
    assert_eq!(pushed.status, 200, "{}", pushed.text());
    let answer = pushed.json();
    assert_eq!(answer["status"], "pending");
    assert!(answer["expires_at"].as_str().is_some());
    assert_eq!(answer.as_object().map(|members| members.len()), Some(2));
    // The same under its other paths.
    let body = json!({"text": "second", "language": "EN-gb"}).to_string();
    let path = "/v1/customers/c1/dialogues/d1/messages";
    assert_eq!(bot.server.post(path, &body).status, 200);
    assert_eq!(bot.server.post("/v1/data/c1/d1", &body).status, 200);
    let standing = bot.status("d1").json();
    assert_eq!(
        (&standing["status"], &standing["texts"]),
        (&json!("pending"), &json!(3))
    );
    assert!(bot.texts("/data/").is_empty());
    let decided = bot.server.post("/v1/dialogues/d1/consent", "true");
    assert_eq!(
        decided.json(),
        json!({"dialog_id": "d1", "consent": true, "texts": 3})
    );
    assert_eq!(bot.texts("/data/"), ["second", "second", "first"]);
    for path in ["/consents/d1", "/v1/consents/d1"] {
        let again = bot.server.post(path, "true");
        assert_eq!((again.status, &again.json()["texts"]), (200, &json!(3)));
    }
    let standing = bot.status("d1").json();
    assert_eq!(
        (&standing["status"], &standing["texts"]),
        (&json!("consented"), &json!(3))
    );
    assert!(standing["decided_at"].is_string() && standing["expires_at"].is_null());
    assert_eq!(bot.push("c1", "d1", "late").error_code(), "CONFLICT");
}

#[test]
fn a_no_drops_them_and_there_is_no_way_back() {
    let bot = Bot::start();
    bot.push("c1", "d1", "first");
    let refused = bot.decide("d1", false);
    assert_eq!(
        refused.json(),
        json!({"dialog_id": "d1", "consent": false, "texts": 1})
    );
    assert_eq!(bot.decide("d1", false).json()["texts"], 1);
    assert_eq!(bot.decide("d1", true).error_code(), "CONFLICT");
    assert_eq!(bot.push("c1", "d1", "late").error_code(), "CONFLICT");
    assert_eq!(bot.status("d1").json()["status"], "refused");
    bot.keep("c1", "d2", &["kept", "too"]);
    let withdrawn = bot.decide("d2", false);
    assert_eq!(
        (withdrawn.status, &withdrawn.json()["texts"]),
        (200, &json!(2))
    );
    assert_eq!(bot.status("d2").json()["status"], "withdrawn");
    assert_eq!(bot.decide("d2", true).error_code(), "CONFLICT");
    assert!(bot.texts("/data/").is_empty());
    let listed = bot.server.get("/v1/withdrawals").json();
    let listed = listed["data"].as_array().expect("a list");
    assert_eq!(
        (listed.len(), &listed[0]["reason"]),
        (1, &json!("withdrawn"))
    );
}

#[test]
fn what_is_unknown_is_not_found() {
    let bot = Bot::start();
    assert_eq!(bot.decide("d1", true).error_code(), "NOT_FOUND");
    assert_eq!(bot.decide("d1", false).error_code(), "NOT_FOUND");
    assert_eq!(bot.status("d1").error_code(), "NOT_FOUND");
    assert_eq!(bot.decide(&"x".repeat(129), true).error_code(), "NOT_FOUND");
    assert_eq!(bot.decide("%ff", true).error_code(), "NOT_FOUND");
}

#[test]
fn a_dialogue_belongs_to_one_customer() {
    let bot = Bot::start();
    bot.push("c1", "d1", "mine");
    assert_eq!(bot.push("c2", "d1", "not mine").error_code(), "CONFLICT");
    bot.decide("d1", true);
    assert_eq!(bot.push("c2", "d1", "not mine").error_code(), "CONFLICT");
    assert_eq!(bot.texts("/data/"), ["mine"]);
}

#[test]
fn an_idempotency_key_makes_a_text_count_once() {
    let bot = Bot::start();
    let push = |key: &str, text: &str| {
        let headers = [
            ("X-API-Key", bot.server.key.as_str()),
            ("Content-Type", "application/json"),
            ("Idempotency-Key", key),
        ];
        let body = json!({"text": text, "language": "en"}).to_string();
        let mut connection = bot.server.connect();
        connection.send("POST", "/data/c1/d1", &headers, body.as_bytes())
    };
    let first = push("k1", "one");
    let again = push("k1", "one");
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.json(), again.json());
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(push("k1", "two").wrong_fields(), ["Idempotency-Key"]);
    assert_eq!(push("two words", "two").wrong_fields(), ["Idempotency-Key"]);
    assert_eq!(push("k2", "one").status, 200);
    assert_eq!(bot.decide("d1", true).json()["texts"], 2);
}

#[test]
fn what_waits_in_memory_ends_with_the_server_and_what_was_agreed_does_not() {
    let bot = Bot::start();
    bot.keep("c1", "d1", &["kept"]);
    bot.push("c1", "d2", "waits");
    bot.server.signal("KILL");
    let server = bot.server.start_again(&[]);
    let bot = Bot { server };
    assert_eq!(bot.texts("/data/"), ["kept"]);
    assert_eq!(bot.status("d1").json()["status"], "consented");
    assert_eq!(bot.status("d2").error_code(), "NOT_FOUND");
    assert_eq!(bot.push("c1", "d1", "late").error_code(), "CONFLICT");
    assert_eq!(bot.decide("d1", false).json()["texts"], 1);
    bot.keep("c1", "d2", &["begun again"]);
}

#[test]
fn bounds_are_told_and_keep_what_is_there() {
    let bot = Bot::start_with(&[
        ("AUSPEX__DIALOGUES__PENDING__TEXTS_MAX", "2"),
        ("AUSPEX__DIALOGUES__PENDING__TEXT_BYTES_MAX", "500"),
        ("AUSPEX__DIALOGUES__PENDING__BYTES_MAX", "3000"),
    ]);
    assert_eq!(bot.push("c1", "d1", &"é".repeat(250)).status, 200);
    let long = bot.push("c1", "d1", &"é".repeat(251));
    assert_eq!(
        (long.status, long.wrong_fields()),
        (422, vec!["text".to_owned()])
    );
    // As long as it may be, all of it escapes.
    let escaped = format!(
        r#"{{"text": "{}", "language": "en"}}"#,
        "\\u0041".repeat(500)
    );
    assert_eq!(bot.server.post("/data/c1/d1", escaped).status, 200);
    let third = bot.push("c1", "d1", "one too many");
    assert_eq!(third.error_code(), "CONFLICT");
    let longer = format!(r#"{{"text": "{}", "language": "en"}}"#, "x".repeat(5_000));
    assert_eq!(bot.server.post("/data/c1/d9", longer).status, 413);
    let mut refused = None;
    for number in 2..9 {
        let pushed = bot.push("c1", &format!("d{number}"), &"x".repeat(400));
        if pushed.status != 200 {
            refused = Some(pushed);
            break;
        }
    }
    let refused = refused.expect("the buffer is full");
    assert_eq!(refused.error_code(), "UNAVAILABLE");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(bot.decide("d1", true).json()["texts"], 2);
}
