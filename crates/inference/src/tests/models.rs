//! Which models there are, as the API shows them.

use super::*;
use crate::fixture::{kitchen, signature, try_package};

#[tokio::test]
async fn models_are_listed_in_pages() {
    let reply = get("/v1/models?limit=3").await;
    let list = reply.json();
    let names: Vec<&str> = list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|m| m["name"].as_str())
        .collect();
    assert_eq!(names, ["kitchen", "mean", "pair"]);
    assert_eq!(
        (&list["data"][1]["latest"], &list["data"][1]["versions"]),
        (&json!("2"), &json!(["1", "2"]))
    );
    let next = list["pagination"]["links"]["next"]
        .as_str()
        .expect("a next page");
    assert!(
        reply.headers[header::LINK]
            .to_str()
            .expect("ASCII")
            .contains(next)
    );
    let rest = get(next).await.json();
    assert_eq!(
        (&rest["data"][0]["name"], &rest["data"][1]["name"]),
        (&json!("three"), &json!("town"))
    );
    assert_eq!(rest["pagination"]["next_cursor"], Value::Null);
    assert_eq!(
        get("/v1/models?cursor=zzz").await.status,
        StatusCode::BAD_REQUEST
    );
    let refused = get("/v1/models?limit=0&sort=name").await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused.fields(),
        [
            "limit: must be an integer between 1 and 1000",
            "sort: is not a parameter of this list"
        ]
    );
    let second = get("/v1/models?page=2&per_page=1").await;
    assert_eq!(second.json()["data"][0]["name"], json!("mean"));
    let links = second.headers[header::LINK].to_str().expect("ASCII");
    assert!(
        links.contains("</v1/models?page=1&per_page=1>; rel=\"prev\", <"),
        "{links}"
    );
    assert_eq!(
        get("/v1/models?offset=1&limit=1").await.json()["data"],
        second.json()["data"]
    );
}

#[tokio::test]
async fn what_can_be_cached_is_revalidated() {
    let router = router("kitchen").await;
    for path in [
        "/v1/models",
        "/v1/models/kitchen",
        "/v1/models/kitchen/schema",
        "/v1/models/kitchen/versions/latest",
        "/v1/models/kitchen/versions/1/schema",
    ] {
        let first = send(&router, request("GET", path, Body::empty())).await;
        assert_eq!(first.status, StatusCode::OK, "{path}");
        assert!(first.headers.contains_key(header::CACHE_CONTROL));
        let mut again = request("GET", path, Body::empty());
        again
            .headers_mut()
            .insert(header::IF_NONE_MATCH, first.headers[header::ETAG].clone());
        let second = send(&router, again).await;
        assert_eq!(
            (second.status, second.body.len()),
            (StatusCode::NOT_MODIFIED, 0),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_schema_route_states_the_record() {
    let reply = get("/v1/models/kitchen/schema").await;
    assert_eq!(
        reply.headers[header::CONTENT_TYPE],
        "application/schema+json"
    );
    let schema = reply.json();
    assert_eq!(
        schema["$schema"],
        json!("https://json-schema.org/draft/2020-12/schema")
    );
    assert_eq!(schema["required"], json!(["age", "sexo", "active"]));
    assert_eq!(schema["properties"]["province"]["enum"][3], Value::Null);
    assert_eq!(schema["additionalProperties"], json!(false));
    assert_eq!(schema["examples"][0]["sexo"], json!("H"));
}

#[test]
fn the_default_model_is_configured_or_claimed_or_the_only_one() {
    let name = |packages, default: &str| {
        let loaded = Inference::from_packages(packages, &config(default));
        let models = loaded.models();
        models.default_model().map(|model| model.name().to_owned())
    };
    let claiming = |model: &str| {
        try_package(model, "1", signature(2, Output::Binary), "default = true").expect("a package")
    };
    assert_eq!(name(vec![kitchen()], ""), Some("kitchen".into()));
    assert_eq!(name(packages(), ""), None);
    assert_eq!(name(packages(), "pair"), Some("pair".into()));
    assert_eq!(name(packages(), "nobody"), None);
    assert_eq!(name(vec![claiming("a"), kitchen()], ""), Some("a".into()));
}
