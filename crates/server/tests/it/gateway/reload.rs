//! Settings of the gateway that change while requests run.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::backend::Backend;
use super::{OK, refusal, start_from};
use crate::client::Answer;
use crate::server::{Server, auspex, eventually};

const SOON: Duration = Duration::from_secs(20);
/// They ask often whether something has changed.
const MANY: [(&str, &str); 2] = [
    ("AUSPEX__SERVER__RATE_LIMIT__MAX", "1000000"),
    ("AUSPEX__SERVER__ADDRESS_LIMIT__MAX", "1000000"),
];
const OTHER: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother";

/// Passes `/orders` on to a backend, for everybody; `more` are further lines of the route.
fn settings(backend: &Backend, more: &str) -> String {
    format!(
        "[gateway.services.orders]\nendpoints = [\"http://{}\"]\n\
         circuit_breaker = {{ failure_threshold = 3, recovery_timeout_s = 3600 }}\n\
         [[gateway.routes]]\npath = \"/orders\"\nservice = \"orders\"\npublic = true\n{more}\n",
        backend.address
    )
}

/// Writes beside it and moves it there.
fn replace(file: &Path, text: &str) {
    let other = file.with_extension("new");
    std::fs::write(&other, text).expect("written");
    std::fs::rename(&other, file).expect("moved");
}

/// A server and its file of settings.
fn serve(text: &str) -> (Server, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("auspex.toml");
    std::fs::write(&file, text).expect("written");
    (start_from(folder, &file, &MANY), file)
}

fn until_it_says(server: &Server, body: &str) {
    eventually(SOON, body, || server.get("/orders").body == body.as_bytes());
}

fn warnings(server: &Server) -> String {
    server.get("/v1/server").json()["warnings"].to_string()
}

#[test]
fn a_changed_file_is_in_force_without_a_restart() {
    let (one, two) = (Backend::saying(OK), Backend::saying(OTHER));
    let (server, file) = serve("");
    assert_eq!(server.get("/orders").status, 404);
    replace(&file, &settings(&one, ""));
    until_it_says(&server, "ok");
    // In place.
    std::fs::write(&file, settings(&two, "")).expect("written");
    until_it_says(&server, "other");
    // And without looking twice.
    replace(&file, &settings(&one, ""));
    server.signal("HUP");
    until_it_says(&server, "ok");
    // As a full disk leaves it.
    replace(&file, "");
    eventually(SOON, "an empty file", || {
        warnings(&server).contains("is empty")
    });
    assert_eq!(server.get("/orders").status, 200);
    replace(&file, "# no routes\n");
    eventually(SOON, "the route is gone", || {
        server.get("/orders").status == 404
    });
    let log = server.stop();
    assert_eq!(log.matches("is in force").count(), 4, "{log}");
}

#[test]
fn a_config_map_is_followed() {
    let (one, two) = (Backend::saying(OK), Backend::saying(OTHER));
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (name, backend) in [("first", &one), ("second", &two)] {
        std::fs::create_dir(at(name)).expect("made");
        std::fs::write(at(name).join("auspex.toml"), settings(backend, "")).expect("written");
    }
    // As Kubernetes mounts one: the file leads to a folder, and that link is swapped.
    symlink("first", at("..data")).expect("linked");
    symlink("..data/auspex.toml", at("auspex.toml")).expect("linked");
    let file = at("auspex.toml");
    let second = at("..data_tmp");
    symlink("second", &second).expect("linked");
    let data = at("..data");
    let server = start_from(folder, &file, &MANY);
    until_it_says(&server, "ok");
    std::fs::rename(second, data).expect("swapped");
    until_it_says(&server, "other");
}

#[test]
fn a_bad_file_is_refused_and_the_last_good_one_stays() {
    let backend = Backend::saying(OK);
    let good = settings(&backend, "");
    let (server, file) = serve(&good);
    let bad = [
        (
            good.replace("public = true", "public = maybe"),
            "auspex.toml:",
        ),
        (
            good.replace("\"orders\"\npublic", "\"none\"\npublic"),
            "gateway.routes[0].service",
        ),
        (
            good.replace("/orders\"\nservice", "/v1/models\"\nservice"),
            "gateway.routes[0].path",
        ),
        (
            format!(
                "{good}[[gateway.routes]]\npath = \"/orders\"\nservice = \"orders\"\npublic = true\n"
            ),
            "gateway.routes[1].path",
        ),
        (
            format!("{good}[server]\nworkers = 100000\n"),
            "server.workers",
        ),
        (format!("{good}[gatewy]\n"), "gatewy"),
    ];
    for (text, key) in &bad {
        replace(&file, text);
        eventually(SOON, key, || warnings(&server).contains(key));
        assert!(warnings(&server).contains("CONFIG_REFUSED"));
        let configuration = server.get("/v1/gateway").json()["configuration"].clone();
        let refused = &configuration["refused"];
        assert!(
            refused["is_current"] == true && refused["reason"].is_string(),
            "{refused}"
        );
        assert!(
            configuration["taken_at"].as_str() < refused["at"].as_str(),
            "{configuration}"
        );
        assert_eq!(server.get("/orders").status, 200, "{key}");
    }
    // The same that are refused by `config check`, which says the same.
    for (text, key) in &bad {
        replace(&file, text);
        let checked = auspex()
            .arg("--config")
            .arg(&file)
            .args(["config", "check"])
            .output();
        let checked = checked.expect("runs");
        assert_eq!(checked.status.code(), Some(2));
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(said.contains(key), "{said}");
    }
    std::fs::remove_file(&file).expect("removed");
    eventually(SOON, "its absence is noticed", || {
        warnings(&server).contains("cannot read")
    });
    assert_eq!(server.get("/orders").status, 200);
    replace(&file, &good);
    eventually(SOON, "all is well", || {
        !warnings(&server).contains("CONFIG")
    });
    let log = server.stop();
    let refused = log.matches("is refused").count();
    assert!(refused > bad.len(), "{log}");
    assert_eq!(
        log.matches("gateway.routes[0].service").count(),
        1,
        "once: {log}"
    );
}

#[test]
fn what_needs_a_restart_is_named_once_and_does_not_keep_the_rest_waiting() {
    let (one, two) = (Backend::saying(OK), Backend::saying(OTHER));
    let (server, file) = serve(&settings(&one, ""));
    let other = "[server]\nworkers = 3\n[telemetry]\naccess_log = \"all\"\n";
    replace(&file, &format!("{}{other}", settings(&two, "")));
    until_it_says(&server, "other");
    assert!(warnings(&server).contains("server, telemetry"));
    replace(&file, &format!("{}{other}", settings(&one, "")));
    until_it_says(&server, "ok");
    replace(&file, &settings(&one, ""));
    eventually(SOON, "nothing is pending", || {
        !warnings(&server).contains("RESTART_NEEDED")
    });
    let log = server.stop();
    assert_eq!(log.matches("after a restart").count(), 2, "{log}");
}

#[test]
fn what_did_not_change_lives_on() {
    let backend =
        Backend::saying("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    let limit = "rate_limit = { max = 6, window_s = 3600 }";
    let (server, file) = serve(&settings(&backend, limit));
    for _ in 0..3 {
        assert_eq!(server.get("/orders").status, 500);
    }
    assert_eq!(refusal(&server.get("/orders")).2, "circuit_open");
    let added = "[[gateway.routes]]\npath = \"/more\"\nservice = \"orders\"\npublic = true\n";
    replace(&file, &(settings(&backend, limit) + added));
    eventually(SOON, "there is another route", || {
        server.get("/more").status == 503
    });
    assert_eq!(refusal(&server.get("/orders")).2, "circuit_open");
    assert_eq!(server.get("/orders").status, 503);
    assert_eq!(server.get("/orders").status, 429, "it was counted on");
}

/// Of 1,000 reloads `scripts/prove` makes a test of its own.
#[test]
fn traffic_runs_through_reloads() {
    let backends = [(); 2].map(|()| Backend::saying(OK));
    let text = |round: usize| {
        let added = format!(
            "[[gateway.routes]]\npath = \"/more{}\"\nservice = \"orders\"\npublic = true\n",
            round % 2
        );
        settings(&backends[round / 2 % 2], "") + &added
    };
    let (server, file) = serve(&text(0));
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !is_over.load(Ordering::SeqCst) {
                    let answer: Answer = connection.send("GET", "/orders", &[], b"");
                    if answer.status != 200 {
                        is_over.store(true, Ordering::SeqCst);
                        panic!("{}", answer.text());
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=100 {
            replace(&file, &text(round));
            server.signal("HUP");
            let path = format!("/more{}", round % 2);
            eventually(SOON, "it is in force", || server.get(&path).status == 200);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(asked.load(Ordering::SeqCst) > 100);
}

/// As an editor writes in place, a piece at a time, with pauses in which the file is looked at.
#[test]
fn torn_files_and_swapped_links_stop_no_traffic() {
    let backends = [OK, OTHER].map(Backend::saying);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    for (name, backend) in [("first", &backends[0]), ("second", &backends[1])] {
        std::fs::create_dir(at(name)).expect("made");
        std::fs::write(at(name).join("auspex.toml"), settings(backend, "")).expect("written");
    }
    symlink("first", at("..data")).expect("linked");
    symlink("..data/auspex.toml", at("auspex.toml")).expect("linked");
    let (file, data, next) = (at("auspex.toml"), at("..data"), at("..data_tmp"));
    let server = start_from(folder, &file, &MANY);
    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut connection = server.connect();
                while !is_over.load(Ordering::SeqCst) {
                    let answer: Answer = connection.send("GET", "/orders", &[], b"");
                    if answer.status != 200 {
                        is_over.store(true, Ordering::SeqCst);
                        panic!("{}", answer.text());
                    }
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 0..6 {
            let (name, body) = [("second", "other"), ("first", "ok")][round % 2];
            symlink(name, &next).expect("linked");
            std::fs::rename(&next, &data).expect("swapped");
            until_it_says(&server, body);
        }
        // No piece alone is a valid file, but for the last one, which says the same.
        let whole = settings(&backends[1], "");
        for cut in [0, 1, 30, whole.len() / 2, whole.len() - 2] {
            std::fs::write(&file, &whole[..cut]).expect("written");
            if cut != 0 {
                std::thread::sleep(Duration::from_millis(700));
            }
            std::fs::write(&file, &whole).expect("written");
            std::thread::sleep(Duration::from_millis(1_500));
        }
        until_it_says(&server, "other");
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(asked.load(Ordering::SeqCst) > 100);
}

#[test]
fn what_is_removed_has_no_metrics_any_more() {
    let backend = Backend::saying(OK);
    let added = "[gateway.services.gone]\nendpoints = [\"http://127.0.0.1:9\"]\n\
        [[gateway.routes]]\npath = \"/gone\"\nservice = \"gone\"\npublic = true\n";
    let (server, file) = serve(&(settings(&backend, "") + added));
    assert_eq!(server.get("/gone").status, 502);
    let tag = |server: &Server| {
        let answer = server.get("/openapi.json");
        answer.header("etag").map(str::to_owned)
    };
    let (document, shown) = (tag(&server), server.get("/metrics").text().to_owned());
    for label in [
        "route=\"/gone\"",
        "service=\"gone\"",
        "endpoint=\"127.0.0.1:9\"",
    ] {
        assert!(shown.contains(label), "{label}");
    }
    replace(&file, &settings(&backend, ""));
    eventually(SOON, "the route is gone", || {
        server.get("/gone").status == 404
    });
    let shown = server.get("/metrics");
    for label in ["/gone", "\"gone\"", "127.0.0.1:9\""] {
        assert!(!shown.text().contains(label), "{label}");
    }
    assert!(shown.text().contains("route=\"/orders\"") && tag(&server) == document);
}
