//! Who may do what: jobs hand in and never read, readers read and never see who it was.

use serde_json::json;

use super::Bot;

#[test]
fn jobs_cannot_read_and_readers_cannot_write() {
    let bot = Bot::start();
    let (job, reader) = (bot.key(&["data:write"]), bot.key(&["data:read"]));
    let officer = bot.key(&["data:erase"]);
    let text = json!({"text": "hello", "language": "en"}).to_string();
    assert_eq!(bot.ask(&job, "POST", "/data/c1/d1", &text).status, 200);
    assert_eq!(bot.ask(&job, "GET", "/v1/dialogues/d1", "").status, 200);
    assert_eq!(bot.ask(&job, "POST", "/consents/d1", "true").status, 200);
    assert_eq!(bot.ask(&reader, "GET", "/data/", "").status, 200);
    assert_eq!(bot.ask(&officer, "GET", "/v1/customers/c1", "").status, 200);
    let only = |key: &str, method: &str, path: &str, body: &str| {
        for other in [&job, &reader, &officer] {
            let answer = bot.ask(other, method, path, body);
            match other == key {
                true => assert!(answer.status < 300, "{method} {path}: {}", answer.text()),
                false => assert_eq!(answer.error_code(), "FORBIDDEN", "{method} {path}"),
            }
        }
    };
    only(
        &job,
        "POST",
        "/v1/customers/c1/dialogues/d2/messages",
        &text,
    );
    only(&job, "GET", "/v1/dialogues/d1", "");
    only(&job, "POST", "/v1/dialogues/d2/consent", "true");
    for path in [
        "/v1/messages",
        "/v1/messages/statistics",
        "/v1/withdrawals",
        "/data?format=csv",
    ] {
        only(&reader, "GET", path, "");
    }
    for path in [
        "/v1/customers/c1",
        "/v1/customers/c1/consents",
        "/v1/customers/c1/export",
        "/v1/erasures",
    ] {
        only(&officer, "GET", path, "");
    }
    only(&officer, "POST", "/v1/customers/c1/consents", "false");
    only(&officer, "DELETE", "/v1/customers/c1", "");
}

/// They call for every customer, and readers for themselves.
#[test]
fn jobs_are_counted_apart_on_each_of_their_routes() {
    let bot = Bot::start_with(&[("AUSPEX__DIALOGUES__RATE_LIMIT__MAX", "3")]);
    let text = json!({"text": "hello", "language": "en"}).to_string();
    let job = bot.key(&["data:write", "data:read"]);
    for (method, path, body) in [
        ("POST", "/data/c1/d1", text.as_str()),
        ("POST", "/v1/data/c1/d1", &text),
        ("POST", "/v1/customers/c1/dialogues/d1/messages", &text),
        ("GET", "/v1/dialogues/d1", ""),
        ("POST", "/consents/d1", "true"),
        ("POST", "/v1/consents/d1", "true"),
        ("POST", "/v1/dialogues/d1/consent", "true"),
    ] {
        for left in ["2", "1", "0"] {
            let answer = bot.ask(&job, method, path, body);
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
            assert_eq!(answer.header("x-ratelimit-limit"), Some("3"), "{path}");
            assert_eq!(answer.header("x-ratelimit-remaining"), Some(left), "{path}");
        }
        let refused = bot.ask(&job, method, path, body);
        assert_eq!(refused.error_code(), "RATE_LIMITED", "{method} {path}");
    }
    let read = bot.ask(&job, "GET", "/data/", "");
    assert_eq!(read.header("x-ratelimit-limit"), Some("1000000"));
}

#[test]
fn readers_see_pseudonyms_unless_they_may_identify() {
    let bot = Bot::start();
    bot.keep("ann@example.org", "call-17", &["hello"]);
    let reader = bot.key(&["data:read"]);
    let identifier = bot.key(&["data:read", "data:identify"]);
    let row = |key: &str, query: &str| {
        let list = bot.ask(key, "GET", &format!("/data/{query}"), "");
        assert_eq!(list.status, 200, "{}", list.text());
        list.json()["data"][0].clone()
    };
    let shown = row(&reader, "");
    let pseudonym = shown["customer"].as_str().expect("a pseudonym").to_owned();
    assert!(
        pseudonym.starts_with("c_") && pseudonym.len() == 28,
        "{pseudonym}"
    );
    assert_eq!(
        (&shown["customer_id"], &shown["dialog_id"]),
        (&shown["customer"], &shown["dialogue"])
    );
    let identified = row(&identifier, "?customerId=ann@example.org&dialogId=call-17");
    assert_eq!(identified["customer_id"], "ann@example.org");
    assert_eq!(identified["dialog_id"], "call-17");
    assert_eq!(identified["customer"], shown["customer"]);
    assert_eq!(row(&reader, &format!("?customerId={pseudonym}")), shown);
    for query in [
        "?customerId=ann@example.org",
        "?dialog_id=call-17&format=csv",
    ] {
        let refused = bot.ask(&reader, "GET", &format!("/data/{query}"), "");
        assert_eq!(refused.error_code(), "FORBIDDEN");
        assert!(refused.text().contains("data:identify") && !refused.text().contains("ann@"));
    }
    let csv = bot.ask(&reader, "GET", "/data/?format=csv", "");
    assert!(
        !csv.text().contains("ann@") && !csv.text().contains("call-17"),
        "{}",
        csv.text()
    );
}

#[test]
fn without_pseudonyms_every_reader_sees_the_ids() {
    let bot = Bot::start_with(&[("AUSPEX__DIALOGUES__PSEUDONYMS", "false")]);
    bot.keep("7", "d1", &["hello"]);
    let reader = bot.key(&["data:read"]);
    let list = bot.ask(&reader, "GET", "/data/?customerId=7", "").json();
    assert_eq!(
        (
            &list["data"][0]["customer_id"],
            &list["data"][0]["dialog_id"]
        ),
        (&json!("7"), &json!("d1"))
    );
}
