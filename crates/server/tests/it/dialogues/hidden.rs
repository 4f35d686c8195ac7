//! No text and no id reaches a log, a metric, an error or the audit record.

use serde_json::json;

use super::Bot;

const CUSTOMER: &str = "canary-customer";
const DIALOGUE: &str = "canary-dialogue";
const TEXT: &str = "canary-text";

#[test]
fn texts_and_ids_stay_out_of_logs_metrics_errors_and_the_audit_record() {
    let bot = Bot::start_with(&[
        ("AUSPEX__TELEMETRY__LOG_LEVEL", "trace"),
        ("AUSPEX__TELEMETRY__ACCESS_LOG", "all"),
    ]);
    let reader = bot.key(&["data:read"]);
    bot.keep(CUSTOMER, DIALOGUE, &[TEXT, TEXT]);
    let data = format!("/data/{CUSTOMER}/{DIALOGUE}");
    let consent = format!("/consents/{DIALOGUE}");
    let customer = format!("/v1/customers/{CUSTOMER}");
    let mut errors = Vec::new();
    let mut wrong = |method: &str, path: &str, kind: &str, body: &str| {
        let headers = [
            ("X-API-Key", bot.server.key.as_str()),
            ("Content-Type", kind),
        ];
        let answer = bot
            .server
            .connect()
            .send(method, path, &headers, body.as_bytes());
        assert!(
            answer.status >= 400,
            "{method} {path} {body}: {}",
            answer.text()
        );
        errors.push(answer.text().to_owned());
    };
    let json = "application/json";
    let form = "application/x-www-form-urlencoded";
    wrong(
        "POST",
        &data,
        json,
        &json!({"text": TEXT, "language": "en"}).to_string(),
    );
    wrong(
        "POST",
        &data,
        json,
        &json!({"text": TEXT, "language": TEXT}).to_string(),
    );
    wrong(
        "POST",
        &data,
        json,
        &json!({"text": [TEXT], TEXT: TEXT}).to_string(),
    );
    wrong("POST", &data, json, TEXT);
    wrong("POST", &data, form, TEXT);
    wrong("POST", &data, TEXT, TEXT);
    wrong("POST", &format!("{data}%00"), json, "{}");
    wrong(
        "POST",
        &format!("/data/other/{DIALOGUE}"),
        json,
        &json!({"text": TEXT, "language": "en"}).to_string(),
    );
    wrong("POST", &consent, json, TEXT);
    wrong("POST", &consent, form, TEXT);
    wrong("POST", &format!("{consent}-unknown"), json, "true");
    wrong("PUT", &data, json, TEXT);
    wrong(
        "GET",
        &format!("/v1/dialogues/{DIALOGUE}-unknown"),
        json,
        "",
    );
    wrong("GET", &format!("/data/?language={TEXT}"), json, "");
    wrong(
        "GET",
        &format!("/data/?from={TEXT}&customerId={CUSTOMER}"),
        json,
        "",
    );
    wrong(
        "GET",
        &format!("/v1/erasures?customer={CUSTOMER}"),
        json,
        "",
    );
    let refused = bot.ask(&reader, "GET", &format!("/data/?customerId={CUSTOMER}"), "");
    errors.push(refused.text().to_owned());
    let nobody = bot
        .server
        .connect()
        .send("POST", &data, &[], TEXT.as_bytes());
    errors.push(nobody.text().to_owned());
    assert_eq!(
        bot.texts(&format!("/data/?customerId={CUSTOMER}")),
        [TEXT, TEXT]
    );
    bot.server
        .get(&format!("/data/?format=csv&dialogId={DIALOGUE}"));
    bot.server.get(&format!("{customer}/export"));
    bot.server.get(&customer);
    bot.decide(DIALOGUE, false);
    bot.ask(&bot.server.key, "DELETE", &customer, "");
    for error in errors {
        assert!(!error.contains("canary"), "{error}");
    }
    for path in [
        "/metrics",
        "/v1/audit?limit=1000",
        "/v1/server",
        "/v1/erasures",
        "/v1/withdrawals",
    ] {
        let answer = bot.server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !answer.text().contains("canary"),
            "{path}: {}",
            answer.text()
        );
    }
    let audit = bot.server.get("/v1/audit?limit=1000").json();
    let actions: Vec<_> = audit["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|line| line["action"].as_str())
        .collect();
    for action in [
        "messages.read",
        "messages.export",
        "customer.read",
        "customer.export",
        "customer.erase",
    ] {
        assert!(
            actions.contains(&action),
            "{action} is recorded: {actions:?}"
        );
    }
    let log = bot.server.stop();
    assert!(
        log.contains("/data/{customerId}/{dialogId}"),
        "requests are logged"
    );
    let shown = log.lines().find(|line| line.contains("canary"));
    assert_eq!(shown, None);
}
