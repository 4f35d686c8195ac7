//! What a customer may ask for.

use serde_json::json;

use super::Bot;

#[test]
fn everything_that_is_held_can_be_exported_and_erased() {
    let bot = Bot::start();
    bot.keep("ann", "kept", &["one", "two"]);
    bot.push("ann", "refused", "three");
    bot.decide("refused", false);
    bot.push("ann", "waits", "four");
    bot.keep("bob", "other", &["five"]);
    let held = bot.server.get("/v1/customers/ann").json();
    for (name, count) in [
        ("pending_dialogues", 1),
        ("pending_texts", 1),
        ("consented_dialogues", 1),
        ("refused_dialogues", 1),
        ("texts", 2),
    ] {
        assert_eq!(held[name], count, "{name}");
    }
    let export = bot.server.get("/v1/customers/ann/export").json();
    assert_eq!(export["customer"], held["customer"]);
    assert_eq!(export["has_key"], true);
    assert_eq!(export["messages"].as_array().expect("a list").len(), 2);
    assert_eq!(export["messages"][0]["customer_id"], "ann");
    assert_eq!(export["pending"][0]["texts"][0]["text"], "four");
    assert_eq!(export["dialogues"].as_array().expect("a list").len(), 2);
    assert_eq!(export["consents"].as_array().expect("a list").len(), 2);
    let receipt = bot.ask(&bot.server.key, "DELETE", "/v1/customers/ann", "");
    assert_eq!(receipt.status, 200, "{}", receipt.text());
    let receipt = receipt.json();
    assert_eq!(
        (&receipt["texts"], &receipt["pending_texts"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(receipt["log_truncated"], true);
    assert!(receipt["completed_at"].is_string());
    assert_eq!(bot.texts("/data/"), ["five"]);
    assert_eq!(bot.decide("waits", true).error_code(), "NOT_FOUND");
    assert_eq!(bot.status("kept").error_code(), "NOT_FOUND");
    let export = bot.server.get("/v1/customers/ann/export").json();
    assert_eq!(export["messages"], json!([]));
    assert_eq!(export["pending"], json!([]));
    assert_eq!(export["has_key"], false);
    assert_eq!(export["erasures"][0]["id"], receipt["id"]);
    let receipts = bot.server.get("/v1/erasures").json();
    assert_eq!(receipts["data"][0], receipt);
    let withdrawals = bot.server.get("/v1/withdrawals").json();
    let erased = withdrawals["data"].as_array().expect("a list").iter();
    assert!(erased.clone().count() >= 1 && erased.clone().all(|row| row["reason"] == "erased"));
    bot.keep("ann", "kept", &["begun anew"]);
    assert_eq!(bot.texts("/data/"), ["begun anew", "five"]);
}

#[test]
fn every_consent_of_a_customer_is_withdrawn_at_once() {
    let bot = Bot::start();
    bot.keep("ann", "d1", &["one"]);
    bot.keep("ann", "d2", &["two", "three"]);
    bot.push("ann", "d3", "four");
    bot.keep("bob", "d4", &["five"]);
    let path = "/v1/customers/ann/consents";
    assert_eq!(
        bot.server.post(path, "true").error_code(),
        "MALFORMED_REQUEST"
    );
    let withdrawn = bot.server.post(path, "");
    assert_eq!(withdrawn.status, 200, "{}", withdrawn.text());
    let withdrawn = withdrawn.json();
    assert_eq!(
        (&withdrawn["dialogues"], &withdrawn["texts"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(withdrawn["pending_texts"], 1);
    assert_eq!(bot.texts("/data/"), ["five"]);
    assert_eq!(bot.decide("d3", true).error_code(), "NOT_FOUND");
    assert_eq!(bot.server.post(path, "false").json()["dialogues"], 0);
    let record = bot.server.get(path).json();
    let decisions: Vec<_> = record["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| &line["decision"])
        .collect();
    assert_eq!(decisions, ["granted", "granted", "withdrawn", "withdrawn"]);
    let first = bot.server.get("/v1/withdrawals?limit=1").json();
    let cursor = first["pagination"]["next_cursor"].as_str();
    let cursor = cursor.expect("there is another page");
    let second = format!("/v1/withdrawals?limit=1&cursor={cursor}");
    let second = bot.server.get(&second).json();
    assert_eq!(second["data"].as_array().map(Vec::len), Some(1), "{second}");
    assert_ne!(first["data"], second["data"]);
    let since = "/v1/withdrawals?since=2100-01-01T00:00:00Z";
    assert_eq!(bot.server.get(since).json()["data"], json!([]));
    assert_eq!(
        bot.server.get("/v1/withdrawals").json()["data"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}

#[test]
fn a_customer_nobody_knows_has_nothing() {
    let bot = Bot::start();
    let held = bot.server.get("/v1/customers/nobody");
    assert_eq!((held.status, &held.json()["texts"]), (200, &json!(0)));
    let receipt = bot.ask(&bot.server.key, "DELETE", "/v1/customers/nobody", "");
    assert_eq!((receipt.status, &receipt.json()["texts"]), (200, &json!(0)));
    assert_eq!(
        bot.server.get("/v1/customers/%00").wrong_fields(),
        ["customer_id"]
    );
    assert_eq!(
        bot.server
            .get("/v1/erasures?customer=nobody")
            .wrong_fields(),
        ["customer"]
    );
}
