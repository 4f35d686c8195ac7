//! The front page, and the server as an operator sees it.

use crate::server::Server;

#[test]
fn a_browser_gets_a_page_and_others_the_same_links() {
    let server = Server::start();
    let ask = |accept: &str| {
        server
            .connect()
            .send("GET", "/", &[("Accept", accept)], b"")
    };
    let page = ask("text/html,application/xhtml+xml,*/*;q=0.8");
    assert_eq!(page.status, 200);
    let is = |name: &str, value: &str| {
        page.header(name)
            .is_some_and(|header| header.contains(value))
    };
    assert!(is("content-type", "text/html"));
    assert!(is("content-security-policy", "default-src 'none'"));
    assert!(is("vary", "Accept"));
    let answer = ask("*/*");
    let links = answer.json()["links"].clone();
    for name in ["docs", "health", "login"] {
        let path = links[name].as_str().expect(name);
        assert!(page.text().contains(&format!("href=\"{path}\"")), "{name}");
        let status = server.connect().send("GET", path, &[], b"").status;
        assert!(status < 400, "{name} leads to {status}");
    }
}

#[test]
fn the_server_tells_what_runs_and_what_to_look_at() {
    let server = Server::start_with(&[("AUSPEX__SERVER__RATE_LIMIT__MAX", "77")]);
    server.get("/v1/models");
    server.get("/nowhere");
    let view = server.get("/v1/server").json();
    assert_eq!(view["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(view["state"], "serving");
    assert_eq!(view["limits"]["rate_limit"]["max"], 77);
    assert_eq!(view["services"][0]["name"], "inference");
    assert_eq!(view["services"][0]["status"], "healthy");
    assert_eq!(view["traffic"]["requests"], 2);
    assert_eq!(view["traffic"]["client_errors"], 1);
    assert!(view["traffic"]["connections"].as_i64() >= Some(1), "{view}");
    assert!(view["traffic"]["latency_p99_ms"].is_number(), "{view}");
    let has_key_file = |view: &serde_json::Value| view.to_string().contains("ADMIN_KEY_FILE");
    assert!(has_key_file(&view), "{view}");
    std::fs::remove_file(server.folder.path().join("admin.key")).expect("removed");
    let later = server.get("/v1/server").json();
    assert!(!has_key_file(&later), "{later}");
    assert_eq!(later["instance_id"], view["instance_id"]);
}

#[test]
fn an_algorithm_that_does_not_sign_yet_is_a_warning() {
    let pending = |server: &Server| {
        let view = server.get("/v1/server").json();
        let warnings = view["warnings"].as_array().expect("a list").clone();
        let found = warnings
            .into_iter()
            .find(|one| one["code"] == "SIGNING_ALGORITHM_PENDING");
        found.map(|one| one["message"].as_str().expect("a text").to_owned())
    };
    let server = Server::start();
    assert_eq!(pending(&server), None);
    server.signal("TERM");
    let server = server.start_again(&[("AUSPEX__IDENTITY__TOKENS__ALGORITHM", "ES256")]);
    let said = pending(&server).expect("a warning");
    assert!(
        said.contains("with EdDSA until 20") && said.contains("with ES256"),
        "{said}"
    );
    let log = server.stop();
    assert!(log.contains("with EdDSA until 20"), "{log}");
    let first = Server::start_with(&[("AUSPEX__IDENTITY__TOKENS__ALGORITHM", "ES256")]);
    assert_eq!(pending(&first), None, "the first key signs at once");
}
