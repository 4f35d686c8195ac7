//! What whoever looks at the gateway is told.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::{Backend, Then};
use super::{OK, refusal, start};
use crate::client::Connection;
use crate::server::{Server, eventually};

const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

/// A backend that is broken while the switch says so, and a server in front of it whose circuits open after
/// three failures for a second.
fn switched() -> (Backend, Arc<AtomicBool>, Server) {
    let is_broken = Arc::new(AtomicBool::new(false));
    let switch = is_broken.clone();
    let backend = Backend::start(move |_, stream| {
        let answer = match switch.load(Ordering::SeqCst) {
            true => BROKEN,
            false => OK,
        };
        stream.write_all(answer.as_bytes()).expect("sent");
        Then::Keep
    });
    let server = start(&format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\nretry = {{ retries_max = 0 }}\n\
         circuit_breaker = {{ failure_threshold = 3, recovery_timeout_s = 1 }}\n\
         [gateway.services.idle]\nendpoints = [\"http://127.0.0.1:1\"]\n\
         [[gateway.routes]]\npath = \"/orders/{{*rest}}\"\nservice = \"orders\"\npublic = true\n",
        backend.address
    ));
    (backend, is_broken, server)
}

fn orders(server: &Server) -> Value {
    let gateway = server.get("/v1/gateway");
    assert_eq!(gateway.status, 200, "{}", gateway.text());
    let services = gateway.json()["services"].clone();
    let names: Vec<&Value> = services
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["idle", "orders"]);
    services[1].clone()
}

#[test]
fn the_gateway_tells_how_its_services_are_and_how_they_came_there() {
    let (backend, is_broken, server) = switched();
    let fresh = orders(&server);
    let url = format!("http://{}", backend.address);
    assert_eq!(
        (&fresh["status"], &fresh["requests"]),
        (&json!("healthy"), &json!(0))
    );
    assert_eq!(fresh["latency_p50_ms"], Value::Null);
    let endpoint = json!({"url": url, "health": "healthy", "check": null, "circuit": "closed",
        "open_until": null, "in_hand": 0, "requests": 0, "failures": 0, "expected_latency_ms": 0.0,
        "changes": []});
    assert_eq!(fresh["endpoints"], json!([endpoint]));

    assert_eq!(server.get("/orders/1").status, 200);
    is_broken.store(true, Ordering::SeqCst);
    (0..3).for_each(|_| assert_eq!(server.get("/orders/1").status, 500));
    assert_eq!(refusal(&server.get("/orders/1")).2, "circuit_open");
    let broken = orders(&server);
    assert_eq!(broken["status"], "unavailable");
    assert_eq!(
        (&broken["requests"], &broken["errors"]),
        (&json!(5), &json!(4))
    );
    assert!(
        broken["latency_p50_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{broken}"
    );
    let endpoint = &broken["endpoints"][0];
    assert_eq!(
        (&endpoint["circuit"], &endpoint["in_hand"]),
        (&json!("open"), &json!(0))
    );
    let change = &endpoint["changes"][0];
    assert_eq!(change["cause"], "3 failures in a row, the last: 500");
    assert_eq!(
        (&change["from"], &change["to"]),
        (&json!("closed"), &json!("open"))
    );
    assert_eq!(change["open_until"], endpoint["open_until"]);
    let (at, until) = (change["at"].as_str(), change["open_until"].as_str());
    assert!(
        at < until && at.is_some_and(|at| at.starts_with("20") && at.ends_with('Z')),
        "{change}"
    );

    let health = server.get("/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["services"]["gateway"], "degraded");
    assert_eq!(health["reasons"]["gateway"], "1 of 2 services are away");
    assert!(!health.to_string().contains("orders"), "{health}");
    assert_eq!(server.get("/health/ready").status, 200);
    let metrics = server.get("/metrics");
    for line in [
        r#"auspex_gateway_requests_total{service="orders",outcome="2xx"} 1"#,
        r#"auspex_gateway_requests_total{service="orders",outcome="5xx"} 3"#,
        r#"auspex_gateway_requests_total{service="orders",outcome="circuit_open"} 1"#,
        r#"auspex_gateway_retries_total{service="orders"} 0"#,
        r#"auspex_gateway_retries_refused_total{service="orders"} 0"#,
        r#"auspex_gateway_request_duration_seconds_count{service="orders"} 5"#,
        &format!(
            r#"auspex_gateway_circuit_state{{service="orders",endpoint="{}"}} 2"#,
            backend.address
        ),
        r#"auspex_gateway_circuit_state{service="idle",endpoint="127.0.0.1:1"} 0"#,
    ] {
        assert!(
            metrics.text().lines().any(|l| l == line),
            "{line}: {}",
            metrics.text()
        );
    }

    is_broken.store(false, Ordering::SeqCst);
    eventually(Duration::from_secs(10), "the service is back", || {
        server.get("/orders/1").status == 200
    });
    let back = orders(&server);
    assert_eq!(back["status"], "healthy");
    let changes = back["endpoints"][0]["changes"].as_array().expect("a list");
    let states: Vec<&Value> = changes.iter().map(|change| &change["to"]).collect();
    assert_eq!(states, ["closed", "half_open", "open"], "newest first");
}

/// Reads events until one has this name, and returns its data.
fn event(client: &mut Connection, read: &mut String, name: &str) -> Value {
    let begin = format!("event: {name}\ndata: ");
    loop {
        if let Some((_, rest)) = read.split_once(&begin)
            && let Some((data, rest)) = rest.split_once("\n\n")
        {
            let data = serde_json::from_str(data).expect("JSON");
            *read = rest.to_owned();
            return data;
        }
        let mut piece = [0; 4096];
        let length = client.read(&mut piece).expect("more");
        assert!(length > 0, "it ended: {read}");
        read.push_str(std::str::from_utf8(&piece[..length]).expect("ASCII"));
    }
}

#[test]
fn changes_of_circuits_can_be_watched_until_the_key_is_revoked() {
    let (backend, is_broken, server) = switched();
    let made = json!({"name": "watcher", "scopes": ["gateway:read"]}).to_string();
    let made = server.post("/v1/api-keys", made).json();
    let key = made["key"].as_str().expect("a key");
    let mut client = server.connect();
    let head = format!("GET /v1/gateway/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n");
    client.raw(head.as_bytes());
    let mut read = String::new();
    let gateway = event(&mut client, &mut read, "gateway");
    assert_eq!(gateway["services"][1]["name"], "orders");

    is_broken.store(true, Ordering::SeqCst);
    (0..3).for_each(|_| assert_eq!(server.get("/orders/1").status, 500));
    let opened = event(&mut client, &mut read, "circuit");
    assert_eq!(
        (&opened["service"], &opened["to"]),
        (&json!("orders"), &json!("open"))
    );
    assert_eq!(opened["endpoint"], format!("http://{}", backend.address));
    is_broken.store(false, Ordering::SeqCst);
    eventually(Duration::from_secs(10), "the service is back", || {
        server.get("/orders/1").status == 200
    });
    for to in ["half_open", "closed"] {
        assert_eq!(event(&mut client, &mut read, "circuit")["to"], to);
    }

    let id = made["id"].as_str().expect("an id");
    let admin = [("X-API-Key", server.key.as_str())];
    let revoked = server
        .connect()
        .send("DELETE", &format!("/v1/api-keys/{id}"), &admin, b"");
    assert_eq!(revoked.status, 204);
    let end = "\r\n0\r\n\r\n";
    while !read.ends_with(end) {
        let mut piece = [0; 4096];
        let length = client.read(&mut piece).expect("the stream ends");
        read.push_str(std::str::from_utf8(&piece[..length]).expect("ASCII"));
    }
}
