//! Endpoints that are checked beside requests.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::{Backend, Then};
use super::{OK, refusal, start_from};
use crate::server::{Server, eventually};

const SOON: Duration = Duration::from_secs(20);
const MANY: [(&str, &str); 2] = [
    ("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000000"),
    ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "1000000"),
];
const QUICK: &str =
    "health = { path = \"/up?deep=1\", interval_ms = 100, unhealthy_after = 2, healthy_after = 2 }";

/// A server that answers its checks with this status, and all else with 200.
fn checked() -> (Backend, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(204));
    let says = status.clone();
    let backend = Backend::start(move |seen, stream| {
        let answer = match seen.request_line().starts_with("GET /up?deep=1 ") {
            true => format!(
                "HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n",
                says.load(Ordering::SeqCst)
            ),
            false => OK.to_owned(),
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    });
    (backend, status)
}

fn passed_on(backend: &Backend) -> usize {
    let seen = backend.seen();
    seen.iter()
        .filter(|seen| seen.request_line().contains("/orders"))
        .count()
}

fn settings(endpoints: &[&Backend], health: &str) -> String {
    let urls: Vec<String> = endpoints
        .iter()
        .map(|one| format!("\"http://{}\"", one.address))
        .collect();
    format!(
        "[gateway.services.orders]\nendpoints = [{}]\n{health}\n\
         [[gateway.routes]]\npath = \"/orders\"\nservice = \"orders\"\npublic = true\n",
        urls.join(", ")
    )
}

fn serve(settings: &str) -> (Server, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, settings).expect("written");
    (start_from(folder, &file, &MANY), file)
}

fn endpoint(server: &Server, index: usize) -> Value {
    let shown = server.get("/v1/services/orders").json();
    shown["servers"][index].clone()
}

#[test]
fn an_endpoint_whose_checks_fail_gets_nothing_until_they_succeed() {
    let ((one, one_says), (two, two_says)) = (checked(), checked());
    let (server, file) = serve(&settings(&[&one, &two], QUICK));
    eventually(SOON, "both were checked", || {
        (0..2).all(|index| endpoint(&server, index)["check"]["at"].is_string())
    });
    assert_eq!(server.get("/orders").status, 200);

    one_says.store(500, Ordering::SeqCst);
    eventually(SOON, "it is found out", || {
        endpoint(&server, 0)["health"] == "unhealthy"
    });
    let before = passed_on(&one);
    (0..50).for_each(|_| assert_eq!(server.get("/orders").status, 200));
    assert_eq!(passed_on(&one), before);
    let shown = endpoint(&server, 0);
    assert_eq!(shown["check"]["is_healthy"], false);
    assert_eq!(shown["check"]["failure"], "500");
    assert_eq!(shown["circuit"], "closed", "no request failed");
    let change = &shown["changes"][0];
    let states = (&change["kind"], &change["from"], &change["to"]);
    assert_eq!(
        states,
        (&json!("health"), &json!("healthy"), &json!("unhealthy"))
    );
    assert_eq!(change["cause"], "2 checks in a row failed, the last: 500");
    let gateway = server.get("/v1/gateway").json();
    assert_eq!(gateway["services"][0]["status"], "degraded");
    assert_eq!(
        gateway["services"][0]["endpoints"][0]["health"],
        "unhealthy"
    );
    assert_eq!(server.get("/health").json()["status"], "healthy");
    let metrics = server.get("/metrics");
    for (backend, value) in [(&one, 0), (&two, 1)] {
        let line = format!(
            "auspex_gateway_endpoint_healthy{{service=\"orders\",endpoint=\"{}\"}} {value}",
            backend.address
        );
        assert!(metrics.text().contains(&line), "{}", metrics.text());
    }

    two_says.store(302, Ordering::SeqCst);
    eventually(SOON, "there is none", || {
        server.get("/orders").status == 503
    });
    let answer = server.get("/orders");
    assert_eq!(refusal(&answer).2, "unhealthy");
    assert!(answer.text().contains("health checks"), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), Some("1"));
    eventually(SOON, "a report that is kept has ended", || {
        server.get("/health").json()["status"] == "degraded"
    });
    let health = server.get("/health").json();
    assert_eq!(health["services"]["gateway"], "degraded");
    assert_eq!(health["reasons"]["gateway"], "1 of 1 services are away");
    assert!(!health.to_string().contains("orders"), "{health}");

    // Whatever else changes, what is known stays.
    let added = "[[gateway.routes]]\npath = \"/more\"\nservice = \"orders\"\npublic = true\n";
    std::fs::write(&file, settings(&[&one, &two], QUICK) + added).expect("written");
    eventually(SOON, "there is another route", || {
        server.get("/more").status == 503
    });
    assert_eq!(refusal(&server.get("/more")).2, "unhealthy");

    one_says.store(200, Ordering::SeqCst);
    eventually(SOON, "one is back", || server.get("/orders").status == 200);
    assert_eq!(endpoint(&server, 0)["check"]["failure"], Value::Null);
    let check = one.seen().remove(0);
    assert_eq!(check.request_line(), "GET /up?deep=1 HTTP/1.1");
    assert_eq!(check.header("host"), Some(&*one.address.to_string()));
    let sent: Vec<&str> = check
        .head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| Some(line.split_once(':')?.0))
        .collect();
    assert_eq!(sent.len(), 3, "no credentials: {sent:?}");
    let log = server.stop();
    assert!(
        log.contains("endpoint is unhealthy") && log.contains("endpoint is healthy again"),
        "{log}"
    );
}

#[test]
fn checks_that_hang_hold_up_no_others() {
    let hanging: Vec<Backend> = (0..20)
        .map(|_| {
            Backend::start(|_, _| {
                std::thread::sleep(Duration::from_secs(3600));
                Then::Close
            })
        })
        .collect();
    let (quick, says) = checked();
    let mut all: Vec<&Backend> = hanging.iter().collect();
    all.push(&quick);
    let health = "health = { path = \"/up?deep=1\", interval_ms = 1000, timeout_ms = 1000, \
        unhealthy_after = 1000 }";
    let other = format!(
        "[gateway.services.other]\nendpoints = [\"http://{}\"]\n{QUICK}\n",
        quick.address
    );
    let (server, _) = serve(&(other + &settings(&all, health)));
    let answered = |path: &str| {
        let shown = server.get(path).json();
        let all = shown["servers"].as_array().cloned().expect("a list");
        all.last().expect("one")["check"].clone()
    };
    for path in ["/v1/services/orders", "/v1/services/other"] {
        eventually(SOON, path, || answered(path)["at"].is_string());
        assert_eq!(answered(path)["failure"], Value::Null);
    }
    says.store(503, Ordering::SeqCst);
    eventually(SOON, "it is found out", || {
        answered("/v1/services/other")["is_healthy"] == false
    });
    let shown = endpoint(&server, 0);
    eventually(SOON, "those that hang fail", || {
        endpoint(&server, 0)["check"]["failure"] == "timeout"
    });
    assert_eq!(shown["health"], "healthy", "not often enough");
}

#[test]
fn servers_that_register_are_checked_too() {
    let (backend, says) = checked();
    let text = format!(
        "[gateway.services.orders]\n{QUICK}\n[[gateway.routes]]\npath = \"/orders\"\n\
         service = \"orders\"\npublic = true\n"
    );
    let (server, _) = serve(&text);
    let body = json!({"address": format!("http://{}", backend.address)}).to_string();
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
    ];
    let path = "/v1/services/orders/instances/one";
    let answer = server
        .connect()
        .send("PUT", path, &headers, body.as_bytes());
    assert_eq!(answer.status, 201);
    assert_eq!(server.get("/orders").status, 200, "healthy until found not");
    says.store(500, Ordering::SeqCst);
    eventually(SOON, "it is found out", || {
        server.get("/orders").status == 503
    });
    assert_eq!(refusal(&server.get("/orders")).2, "unhealthy");
    let list = server.get("/v1/services").json();
    let row = json!({"name": "orders", "source": "registry", "instances": 1, "healthy": 0});
    assert_eq!(list["data"][0], row);
}
