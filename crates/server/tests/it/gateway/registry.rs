//! Servers that register with the gateway, and leave it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::backend::Backend;
use super::{OK, refusal, start_from};
use crate::client::Answer;
use crate::server::{Server, auspex, eventually};

const SETTINGS: &str = "[gateway.services.orders]\n[[gateway.routes]]\npath = \"/orders\"\n\
    service = \"orders\"\npublic = true\n[gateway.services.fixed]\n\
    endpoints = [\"http://127.0.0.1:9\"]\n";
const MANY: [(&str, &str); 2] = [
    ("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000000"),
    ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "1000000"),
];
const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother";
const SOON: Duration = Duration::from_secs(20);

fn serve() -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, SETTINGS).expect("written");
    start_from(folder, &file, &MANY)
}

fn send(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [
        ("X-API-Key", server.key.as_str()),
        ("Content-Type", "application/json"),
    ];
    let body = body.to_string();
    server
        .connect()
        .send(method, path, &headers, body.as_bytes())
}

fn register(server: &Server, instance: &str, address: SocketAddr, ttl_s: u64) -> u16 {
    let path = format!("/v1/services/orders/instances/{instance}");
    let body = json!({"address": format!("http://{address}"), "ttl_s": ttl_s});
    send(server, "PUT", &path, &body).status
}

fn servers(server: &Server) -> Value {
    server.get("/v1/services/orders").json()["servers"].clone()
}

#[test]
fn an_instance_gets_traffic_at_once_and_leaves_when_it_is_removed() {
    let (one, two) = (Backend::saying(OK), Backend::saying(OTHER));
    let server = serve();
    let none = server.get("/orders");
    assert_eq!(refusal(&none).2, "no_endpoint");
    assert!(none.header("retry-after").is_some());
    assert_eq!(register(&server, "one", one.address, 60), 201);
    assert_eq!(server.get("/orders").body, b"ok");
    assert_eq!(
        register(&server, "one", one.address, 60),
        200,
        "a heartbeat"
    );
    assert_eq!(register(&server, "two", two.address, 60), 201);
    eventually(SOON, "both get some", || {
        server.get("/orders").body == b"other"
    });
    let shown = servers(&server);
    assert_eq!(shown.as_array().expect("a list").len(), 2);
    assert_eq!(shown[0]["health"], "healthy");
    let ids: Vec<_> = (0..2)
        .map(|n| shown[n]["instances"][0]["id"].clone())
        .collect();
    assert!(
        ids.contains(&json!("one")) && ids.contains(&json!("two")),
        "{shown}"
    );
    let list = server.get("/v1/services").json();
    let row = json!({"name": "orders", "source": "registry", "instances": 2, "healthy": 2});
    assert_eq!(list["data"][1], row);

    let path = "/v1/services/orders/instances/one";
    assert_eq!(send(&server, "DELETE", path, &json!({})).status, 204);
    assert_eq!(send(&server, "DELETE", path, &json!({})).status, 404);
    (0..50).for_each(|_| assert_eq!(server.get("/orders").body, b"other"));
    let audit = server.get("/v1/audit?action=instance.register").json();
    assert_eq!(
        audit["data"].as_array().expect("a list").len(),
        2,
        "no heartbeats"
    );
    let audit = server.get("/v1/audit?action=instance.remove").json();
    assert_eq!(audit["data"][0]["target"], "instance:orders/one");
}

#[test]
fn one_that_misses_its_time_leaves_and_no_client_notices() {
    let (one, two) = (Backend::saying(OK), Backend::saying(OTHER));
    let server = serve();
    assert_eq!(register(&server, "one", one.address, 60), 201);
    assert_eq!(register(&server, "two", two.address, 1), 201);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                assert_eq!(server.get("/orders").status, 200);
            }
        });
        eventually(SOON, "it has left", || {
            servers(&server).as_array().map(Vec::len) == Some(1)
        });
        is_over.store(true, Ordering::SeqCst);
    });
    (0..50).for_each(|_| assert_eq!(server.get("/orders").body, b"ok"));
    // Of one that dies without a word nothing is seen either: its connections are refused, and another is asked.
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound")
    };
    assert_eq!(register(&server, "dead", dead, 60), 201);
    (0..50).for_each(|_| assert_eq!(server.get("/orders").status, 200));
}

#[test]
fn a_restart_of_the_registry_stops_no_traffic() {
    let backend = Backend::saying(OK);
    let server = serve();
    let metadata = json!({"zone": "a", "version": "7"});
    let path = "/v1/services/orders/instances/one";
    let body = json!({
        "address": format!("http://{}", backend.address), "ttl_s": 60, "metadata": metadata,
    });
    assert_eq!(send(&server, "PUT", path, &body).status, 201);
    let (folder, _) = server.stop_and_keep();
    let file = folder.path().join("auspex.toml");
    let server = start_from(folder, &file, &MANY);
    assert_eq!(server.get("/orders").body, b"ok", "without a heartbeat");
    assert_eq!(servers(&server)[0]["instances"][0]["metadata"], metadata);
    assert_eq!(send(&server, "PUT", path, &body).status, 200, "it is known");
}

#[test]
fn only_what_may_be_a_server_of_a_service_registers() {
    let server = serve();
    let put = |path: &str, body: &Value| send(&server, "PUT", path, body);
    let good = json!({"address": "http://127.0.0.1:9001"});
    let own = server.get("/v1/server").json()["services"].clone();
    for service in own.as_array().expect("a list") {
        let name = service["name"].as_str().expect("a name");
        let path = format!("/v1/services/{name}/instances/one");
        assert_eq!(put(&path, &good).status, 403, "{name}");
        // Neither can the settings say so.
        let file = server.folder.path().join("other.toml");
        let text = format!("[gateway.services.{name}]\n");
        std::fs::write(&file, text).expect("written");
        let checked = auspex()
            .arg("--config")
            .arg(&file)
            .args(["config", "check"])
            .status();
        assert_eq!(checked.expect("runs").code(), Some(2), "{name}");
    }
    assert_eq!(put("/v1/services/nothing/instances/one", &good).status, 404);
    assert_eq!(put("/v1/services/fixed/instances/one", &good).status, 409);
    let path = "/v1/services/orders/instances/one";
    for (address, is_taken) in [
        ("http://169.254.169.254", false),
        ("http://[::ffff:169.254.169.254]:80", false),
        ("http://0.0.0.0:80", false),
        ("http://93.184.215.14", false),
        ("http://localhost:80", false),
        ("http://127.0.0.1/admin", false),
        ("https://127.0.0.1", false),
        ("file:///etc/passwd", false),
        ("", false),
        ("http://192.168.7.7:80", true),
    ] {
        let answer = put(path, &json!({"address": address}));
        match is_taken {
            true => assert_eq!(answer.status, 201, "{address}"),
            false => {
                assert_eq!(answer.status, 422, "{address}");
                assert_eq!(answer.json()["error"]["details"][0]["field"], "address");
            }
        }
    }
    let many: Value = (0..17)
        .map(|n| (n.to_string(), json!("x")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for (field, value) in [
        ("ttl_s", json!(0)),
        ("ttl_s", json!(3601)),
        ("ttl_s", json!("60")),
        ("metadata", json!({"a": 1})),
        ("metadata", json!({"a": "x".repeat(257)})),
        ("metadata", json!(["a"])),
        ("metadata", many),
        ("more", json!(1)),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(put(path, &body).status, 422, "{body}");
    }
    for instance in ["a%20b", "a%2Fb", &"x".repeat(129)] {
        let path = format!("/v1/services/orders/instances/{instance}");
        assert!([404, 422].contains(&put(&path, &good).status), "{instance}");
    }
}

#[test]
fn there_is_a_bound_on_instances() {
    let server = serve();
    let address = |n: u16| SocketAddr::from(([10, 0, (n / 250) as u8, (n % 250) as u8 + 1], 80));
    let statuses: Vec<u16> = (0..201)
        .map(|n| register(&server, &format!("i{n}"), address(n), 60))
        .collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 201).count(),
        200
    );
    assert_eq!(statuses[200], 409);
    assert_eq!(
        register(&server, "i7", address(7), 60),
        200,
        "those there are heard of"
    );
}
