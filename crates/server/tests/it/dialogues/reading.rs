//! Lists and streams of texts that may be read.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Bot, texts};
use crate::server::eventually;

fn push(bot: &Bot, customer: &str, dialogue: &str, language: &str, text: &str) {
    let body = json!({"text": text, "language": language}).to_string();
    let pushed = bot
        .server
        .post(&format!("/data/{customer}/{dialogue}"), body);
    assert_eq!(pushed.status, 200, "{}", pushed.text());
}

#[test]
fn filters_are_combined() {
    let bot = Bot::start();
    push(&bot, "c1", "d1", "pt-BR", "um");
    push(&bot, "c1", "d1", "pt", "dois");
    push(&bot, "c2", "d2", "PT-pt", "tres");
    push(&bot, "c2", "d2", "en", "four");
    for dialogue in ["d1", "d2"] {
        bot.decide(dialogue, true);
    }
    assert_eq!(bot.texts("/data/"), ["four", "tres", "dois", "um"]);
    assert_eq!(bot.texts("/data/?language=pt"), ["tres", "dois", "um"]);
    assert_eq!(bot.texts("/data/?language=POR"), ["tres", "dois", "um"]);
    assert_eq!(bot.texts("/data/?language=pt-br"), ["um"]);
    assert_eq!(bot.texts("/data/?language=pt&customerId=c2"), ["tres"]);
    assert_eq!(bot.texts("/data/?dialogId=d2"), ["four", "tres"]);
    assert_eq!(bot.texts("/data/?from=2100-01-01T00:00:00Z"), [""; 0]);
    let list = bot.server.get("/data/").json();
    let third = list["data"][1]["received_at"]
        .as_str()
        .expect("a time")
        .to_owned();
    assert_eq!(bot.texts(&format!("/data/?to={third}")), ["dois", "um"]);
    assert_eq!(bot.texts(&format!("/data/?from={third}")), ["four", "tres"]);
    for wrong in [
        "language=xx",
        "language=",
        "customerId=",
        "from=yesterday",
        "limit=0",
        "limit=1001",
        "colour=red",
        "customerId=a&customer_id=a",
        "format=xml",
        "page=1&cursor=x",
    ] {
        assert_eq!(
            bot.server.get(&format!("/data/?{wrong}")).status,
            422,
            "{wrong}"
        );
    }
    for wrong in ["cursor=x", "cursor=AAAA", "cursor=%00"] {
        assert_eq!(
            bot.server.get(&format!("/data/?{wrong}")).status,
            400,
            "{wrong}"
        );
    }
}

#[test]
fn both_kinds_of_pages_have_every_text_once() {
    let bot = Bot::start();
    let all: Vec<String> = (0..25).map(|number| format!("text {number}")).collect();
    bot.keep(
        "c1",
        "d1",
        &all.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let newest: Vec<String> = all.into_iter().rev().collect();
    for first in [
        "/data/?limit=10",
        "/v1/messages?page=1&per_page=10",
        "/v1/data?offset=0&limit=10",
    ] {
        let (mut found, mut next) = (Vec::new(), Some(first.to_owned()));
        while let Some(path) = next {
            let list = bot.server.get(&path);
            assert!(list.header("link").is_some());
            assert_eq!(list.header("cache-control"), Some("no-store"));
            let list = list.json();
            found.extend(texts(&list));
            next = list["pagination"]["links"]["next"]
                .as_str()
                .map(str::to_owned);
        }
        assert_eq!(found, newest, "{first}");
    }
    let cursor = bot.server.get("/data/?limit=10").json();
    let cursor = cursor["pagination"]["next_cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let elsewhere = bot
        .server
        .get(&format!("/data/?language=en&limit=10&cursor={cursor}"));
    assert_eq!(elsewhere.status, 400, "a cursor belongs to its list");
}

#[test]
fn csv_and_ndjson_have_everything() {
    let bot = Bot::start();
    let said = ["=1+1", "a,\"b\"\nc", "@x", "-1", "\ttab", "🙂", "'quoted"];
    bot.keep("c1", "d1", &said);
    let many: Vec<String> = (0..900).map(|number| format!("{number}")).collect();
    for dialogue in ["d2", "d3", "d4"] {
        bot.keep(
            "c2",
            dialogue,
            &many.iter().map(String::as_str).collect::<Vec<_>>(),
        );
    }
    let ask = |path: &str, accept: &str| {
        let headers = [("X-API-Key", bot.server.key.as_str()), ("Accept", accept)];
        bot.server.connect().send("GET", path, &headers, b"")
    };
    let lines = ask("/data/", "application/x-ndjson");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let rows: Vec<Value> = lines
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(rows.len(), 2_707);
    let exact: Vec<&str> = rows[2_700..]
        .iter()
        .rev()
        .filter_map(|row| row["text"].as_str())
        .collect();
    assert_eq!(exact, said);
    let table = ask("/v1/messages?dialogId=d1", "text/csv");
    assert_eq!(
        table.header("content-type"),
        Some("text/csv; charset=utf-8; header=present")
    );
    let mut reader = csv::Reader::from_reader(table.body.as_slice());
    assert_eq!(reader.headers().expect("a header").get(8), Some("text"));
    let mut cells: Vec<String> = reader
        .records()
        .map(|row| row.expect("a row")[8].to_owned())
        .collect();
    cells.reverse();
    assert_eq!(
        cells,
        [
            "'=1+1",
            "a,\"b\"\nc",
            "'@x",
            "'-1",
            "'\ttab",
            "🙂",
            "'quoted"
        ]
    );
    let nothing = ask("/data/?customerId=nobody&format=csv", "*/*");
    assert_eq!(nothing.text().lines().count(), 1, "the header alone");
    assert_eq!(
        ask("/data/?customerId=nobody&format=ndjson", "*/*").text(),
        ""
    );
    let head = bot.server.connect().send(
        "HEAD",
        "/data/?format=ndjson",
        &[("X-API-Key", &bot.server.key)],
        b"",
    );
    assert_eq!(head.status, 200);
}

/// What is erased meanwhile goes from the log of the database all the same.
#[test]
fn a_reader_that_stops_reading_delays_nobody_and_is_cut_off() {
    let bot = Bot::start_with(&[
        ("AUSPEX__DIALOGUES__PENDING__TEXT_BYTES_MAX", "400000"),
        ("AUSPEX__SERVER__BODY_TIMEOUT_MS", "2000"),
        ("AUSPEX__SERVER__REQUEST_TIMEOUT_MS", "10000"),
    ]);
    let long = "x".repeat(300_000);
    for dialogue in ["long", "longer", "longest"] {
        bot.keep("c1", dialogue, &[long.as_str(); 10]);
    }
    bot.keep("c2", "short", &["hello"]);
    let server = &bot.server;
    let mut stalled = server.connect();
    let head = format!(
        "GET /data/?format=ndjson HTTP/1.1\r\nHost: {}\r\nX-API-Key: {}\r\n\r\n",
        server.address, server.key
    );
    stalled.raw(head.as_bytes());
    let connections = || {
        let metrics = server.get("/metrics");
        let mut lines = metrics.text().lines();
        let count = lines.find_map(|line| line.strip_prefix("auspex_http_connections "));
        count.expect("the gauge").to_owned()
    };
    assert_eq!(connections(), "2");
    let receipt = bot.ask(&server.key, "DELETE", "/v1/customers/c2", "");
    assert_eq!(receipt.json()["log_truncated"], true, "{}", receipt.text());
    eventually(Duration::from_secs(60), "it is cut off", || {
        connections() == "1"
    });
    assert!(stalled.is_closed_within(Duration::from_secs(5)));
}

#[test]
fn counts_are_shown_where_nobody_is_recognised_in_them() {
    let bot = Bot::start();
    for number in 0..6 {
        bot.keep("c1", &format!("d{number}"), &["x"]);
    }
    push(&bot, "c2", "e", "de", "x");
    bot.decide("e", false);
    let list = bot.server.get("/v1/messages/statistics").json();
    let rows = list["data"].as_array().expect("a list");
    let of = |language: &str| {
        rows.iter()
            .find(|row| row["language"] == language)
            .expect("a row")
    };
    assert_eq!(
        (&of("en")["granted"], &of("en")["texts"]),
        (&json!(6), &json!(6))
    );
    assert_eq!(of("de")["refused"], Value::Null, "one is too few");
    let long = "/v1/messages/statistics?from=2020-01-01T00:00:00Z";
    assert_eq!(bot.server.get(long).wrong_fields(), ["from"]);
}
