//! The document, from outside.

use serde_json::{Value, json};

use crate::server::{Server, auspex};

#[test]
fn the_document_has_a_typed_operation_for_each_model() {
    let server = Server::start();
    let answer = server.get("/openapi.json");
    let document = answer.json();
    assert_eq!(document["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
    for model in ["santander", "mean-score"] {
        let operation = &document["paths"][format!("/v1/models/{model}/predict")]["post"];
        assert!(operation["requestBody"].is_object(), "{model}: {operation}");
    }
    let text = document.to_string();
    for part in [
        "\"ind_empleado\"",
        "\"02 - PARTICULARES\"",
        "\"maximum\":130",
    ] {
        assert!(text.contains(part), "{part}");
    }
}

#[test]
fn every_response_has_a_description_and_every_operation_a_rule_and_an_id() {
    let document = printed();
    let mut ids = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            assert!(operation["security"].is_array(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let text = response["description"].as_str().unwrap_or_default();
                assert!(
                    !text.is_empty(),
                    "{method} {path} {status} has no description"
                );
            }
        }
    }
}

#[test]
fn the_page_comes_from_inside_the_binary() {
    let server = Server::start();
    let page = server.connect().send("GET", "/docs/", &[], b"");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("swagger-ui"), "{}", page.text());
    for asset in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-initializer.js",
    ] {
        let answer = server
            .connect()
            .send("GET", &format!("/docs/{asset}"), &[], b"");
        assert_eq!(answer.status, 200, "{asset}");
    }
    let start = server
        .connect()
        .send("GET", "/docs/swagger-initializer.js", &[], b"");
    assert!(start.text().contains("/openapi.json"), "{}", start.text());
    assert!(
        !page.text().contains("https://"),
        "the page loads from elsewhere: {}",
        page.text()
    );
    assert!(matches!(
        server.connect().send("GET", "/docs", &[], b"").status,
        200 | 301..=308
    ));
}

#[test]
fn docs_can_be_closed() {
    let server = Server::start_with(&[("AUSPEX__SERVER__DOCS", "false")]);
    for path in ["/docs", "/docs/", "/openapi.json"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn the_document_is_cached_by_its_tag() {
    let server = Server::start();
    let tag = server
        .get("/openapi.json")
        .header("etag")
        .expect("a tag")
        .to_owned();
    let headers = [("If-None-Match", tag.as_str())];
    assert_eq!(
        server
            .connect()
            .send("GET", "/openapi.json", &headers, b"")
            .status,
        304
    );
}

/// The whole surface, so that a change of it is seen in review.
#[test]
fn the_surface_is_as_reviewed() {
    let document = printed();
    let mut lines = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let statuses: Vec<&String> = operation["responses"]
                .as_object()
                .expect("r")
                .keys()
                .collect();
            let rule = operation["security"][0]
                .as_object()
                .and_then(|r| r.values().next())
                .cloned();
            let rule = rule.unwrap_or(json!("public"));
            lines.push(format!(
                "{} {path} {rule} {statuses:?}",
                method.to_uppercase()
            ));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

fn printed() -> Value {
    let output = auspex().arg("openapi").output().expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}
