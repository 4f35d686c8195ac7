//! The routes as a client sees them.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use auspex_engine::Output;
use auspex_kernel::{ApiError, CursorKey, RequestId};

use super::*;
use crate::fixture::{kitchen, signature, try_package};

const CURSORS: CursorKey = CursorKey([7; 32]);

fn packages() -> Vec<Package> {
    let make = |model: &str, version: &str, width, output| {
        try_package(model, version, signature(width, output), "").expect("a package")
    };
    vec![
        kitchen(),
        make("mean", "1", 2, Output::Numbers { count: 1 }),
        make("mean", "2", 4, Output::Binary),
        make("pair", "1", 2, Output::Numbers { count: 2 }),
        make("three", "1", 2, Output::Multiclass { classes: 3 }),
    ]
}

fn config(default_model: &str) -> Config {
    Config {
        default_model: default_model.into(),
        inline_rows_max: 4,
        instances_max: 50,
        ..Config::default()
    }
}

fn service(default_model: &str) -> Arc<Inference> {
    Arc::new(Inference::from_packages(packages(), &config(default_model)).expect("models"))
}

fn router(default_model: &str) -> Router {
    service(default_model).router(CURSORS).split_for_parts().0
}

struct Reply {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Vec<u8>,
    error: Option<ApiError>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON answer")
    }

    /// The wrong fields as `field: message`.
    fn fields(&self) -> Vec<String> {
        let error = self.error.as_ref().expect("an error");
        error
            .details()
            .iter()
            .map(|e| format!("{}: {}", e.field, e.message))
            .collect()
    }

    fn message(&self) -> &str {
        self.error.as_ref().expect("an error").message()
    }
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router
        .clone()
        .oneshot(request)
        .await
        .expect("no transport to fail");
    let (mut parts, body) = response.into_parts();
    Reply {
        status: parts.status,
        error: parts.extensions.remove(),
        headers: parts.headers,
        body: body.collect().await.expect("a body").to_bytes().to_vec(),
    }
}

fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let id = RequestId::from_client(&"req_test".parse().expect("ASCII")).expect("well-formed");
    let builder = Request::builder().method(method).uri(path).extension(id);
    builder
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("a request")
}

async fn post(path: &str, body: impl Into<Body>) -> Reply {
    send(&router("kitchen"), request("POST", path, body)).await
}

async fn get(path: &str) -> Reply {
    send(&router("kitchen"), request("GET", path, Body::empty())).await
}

const RECORD: &str = r#"{"age":0,"sexo":"H","income":0,"active":false,"weight":0}"#;

#[tokio::test]
async fn the_default_model_answers_all_numbers() {
    let reply = post("/predict", RECORD).await;
    assert_eq!(
        (reply.status, reply.json()),
        (StatusCode::OK, json!({"predictions": [[0.5, 0.5]]}))
    );
    let reply = post("/predict", format!("[{RECORD},{RECORD}]")).await;
    assert_eq!(
        reply.json(),
        json!({"predictions": [[0.5, 0.5], [0.5, 0.5]]})
    );
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/json");
}

#[tokio::test]
async fn a_named_model_answers_labels() {
    let reply = post("/v1/models/kitchen/predict", RECORD).await;
    assert_eq!(
        String::from_utf8(reply.body).expect("UTF-8"),
        r#"{"model":"kitchen","model_version":"1","prediction":"no","probability":0.5,"probabilities":[0.5,0.5],"labels":["no","yes"],"request_id":"req_test"}"#
    );
    let reply = post("/v1/models/kitchen/predict", format!("[{RECORD}]")).await;
    let row = json!({"prediction": "no", "probability": 0.5, "probabilities": [0.5, 0.5]});
    let expected = json!({"model": "kitchen", "model_version": "1", "labels": ["no", "yes"],
        "predictions": [row], "request_id": "req_test"});
    assert_eq!(reply.json(), expected);
}

#[tokio::test]
async fn a_regression_answers_a_number_and_nulls() {
    let reply = post(
        "/v1/models/mean/versions/1/predict",
        r#"{"features":[1, 2]}"#,
    )
    .await;
    let expected = json!({"model": "mean", "model_version": "1", "prediction": 1.5, "probability": null,
        "probabilities": null, "labels": null, "request_id": "req_test"});
    assert_eq!(reply.json(), expected);
    let reply = post("/v1/models/pair/predict", r#"{"features":[1, 2]}"#).await;
    assert_eq!(reply.json()["prediction"], json!([1.5, 2.5]));
    let reply = post("/v1/models/three/predict", r#"{"features":[1, 2]}"#).await;
    assert_eq!(
        (&reply.json()["prediction"], &reply.json()["labels"]),
        (&json!(2), &json!([0, 1, 2]))
    );
}

#[tokio::test]
async fn the_version_is_chosen_by_path_or_body() {
    let version = async |path: &str, body: &str| {
        let reply = post(path, body.to_owned()).await;
        match reply.status {
            StatusCode::OK => reply.json()["model_version"].as_str().map(str::to_owned),
            _ => reply.fields().first().cloned(),
        }
    };
    let four = r#"{"features":[1,2,3,4]}"#;
    assert_eq!(
        version("/v1/models/mean/predict", four).await.as_deref(),
        Some("2")
    );
    assert_eq!(
        version("/v1/models/mean/versions/latest/predict", four)
            .await
            .as_deref(),
        Some("2")
    );
    let old = r#"{"features":[1,2],"model_version":"1"}"#;
    assert_eq!(
        version("/v1/models/mean/predict", old).await.as_deref(),
        Some("1")
    );
    assert_eq!(
        version("/v1/models/mean/versions/1/predict", old)
            .await
            .as_deref(),
        Some("1")
    );
    let other = version("/v1/models/mean/versions/2/predict", old).await;
    assert_eq!(
        other.as_deref(),
        Some("features: must have 4 values, in the order of the model's schema, not 2")
    );
    let none = r#"{"features":[1,2,3,4],"model_version":"7"}"#;
    let none = version("/v1/models/mean/predict", none).await;
    assert_eq!(
        none.as_deref(),
        Some("model_version: must be one of 1, 2, latest")
    );
}

#[tokio::test]
async fn strangers_are_not_found() {
    for path in [
        "/v1/models/nobody/predict",
        "/v1/models/mean/versions/9/predict",
        "/v1/models/%ff/predict",
    ] {
        assert_eq!(
            post(path, RECORD).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let reply = send(&router(""), request("POST", "/predict", RECORD)).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert!(reply.message().contains("default_model"));
}

#[tokio::test]
async fn every_wrong_field_is_named_at_once() {
    let record =
        r#"{"age":300,"sexo":7,"income":"much","active":null,"stranger":1,"sex":1,"age":3}"#;
    let expected = [
        "age: must be an integer between 0 and 130",
        "sexo: must be one of H, V",
        "income: must be a number of at least 0, or null",
        "active: must be true or false",
        "stranger: is not a field of this model",
        "sex: is not a field of this model; did you mean sexo?",
        "age: is given more than once",
    ];
    let reply = post("/predict", record).await;
    assert_eq!(
        (reply.status, reply.fields()),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            expected.map(String::from).to_vec()
        )
    );
    let reply = post("/predict", format!("[{RECORD},{{\"age\":1}},3]")).await;
    assert_eq!(
        reply.fields(),
        [
            "[1].sexo: is required",
            "[1].active: is required",
            "[2]: must be an object with the model's fields",
        ]
    );
    let reply = post(
        "/predict",
        r#"{"features":[[1,"H",null,1,null,1],[1,"H",null,2,null,1e999]]}"#,
    )
    .await;
    assert_eq!(
        reply.fields(),
        [
            "features[1][3]: must be true or false",
            "features[1][5]: must be a finite number"
        ]
    );
}

#[tokio::test]
async fn too_many_errors_are_counted() {
    let list = vec!["{}"; 40].join(",");
    let reply = post("/predict", format!("[{list}]")).await;
    let fields = reply.fields();
    assert_eq!(fields.len(), 100);
    assert_eq!(
        fields[99],
        "(body): has 21 more invalid fields that are not listed"
    );
}

#[tokio::test]
async fn the_number_of_instances_is_bounded() {
    let reply = post("/predict", "[]").await;
    assert_eq!(reply.fields(), ["(body): must hold at least one instance"]);
    let list = vec![RECORD; 51].join(",");
    let reply = post("/predict", format!("[{list}]")).await;
    assert_eq!(
        reply.fields(),
        ["(body): must hold at most 50 instances, not 51"]
    );
}

#[tokio::test]
async fn unreadable_bodies_are_malformed() {
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    for (body, words) in [
        ("", "the body is empty"),
        ("{\"age\":", "line 1 column 7"),
        ("{\"income\": NaN}", "JSON has no NaN"),
        ("{\"income\":-Infinity}", "JSON has no NaN"),
        ("{\"age\":1}x", "trailing characters"),
        ("3", "must be a JSON object or a list"),
        (&deep, "nested deeper than 128"),
    ] {
        let reply = post("/predict", body.to_owned()).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{words}");
        assert!(reply.message().contains(words), "{}", reply.message());
    }
    let reply = post("/predict", vec![b'{', 0xff]).await;
    assert!(
        reply.message().contains("not valid UTF-8"),
        "{}",
        reply.message()
    );
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let router = router("kitchen");
    let with = async |name: header::HeaderName, value: &str| {
        let mut request = request("POST", "/predict", RECORD);
        request
            .headers_mut()
            .insert(name, value.parse().expect("a header value"));
        send(&router, request).await
    };
    for good in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.x+json",
    ] {
        assert_eq!(
            with(header::CONTENT_TYPE, good).await.status,
            StatusCode::OK,
            "{good}"
        );
    }
    for bad in ["text/plain", "application/jsonx", "", "json"] {
        let status = with(header::CONTENT_TYPE, bad).await.status;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{bad}");
    }
    let reply = with(header::CONTENT_ENCODING, "gzip").await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        !reply.message().contains("gzip"),
        "no value of the client's"
    );
    assert_eq!(
        with(header::CONTENT_ENCODING, "identity").await.status,
        StatusCode::OK
    );
    let mut bare = request("POST", "/predict", RECORD);
    bare.headers_mut().remove(header::CONTENT_TYPE);
    assert_eq!(send(&router, bare).await.status, StatusCode::OK);
}

#[tokio::test]
async fn long_lists_give_what_short_ones_give() {
    let padded = RECORD.replace('{', &format!("{{\"noted\":\"{}\",", "x".repeat(2000)));
    for record in [RECORD, &padded] {
        let list = vec![record; 40].join(",");
        let reply = post("/predict", format!("[{list}]")).await;
        assert_eq!(reply.json()["predictions"], json!(vec![[0.5, 0.5]; 40]));
    }
}

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
    assert_eq!(rest["data"][0]["name"], json!("three"));
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
    for path in [
        "/v1/models",
        "/v1/models/kitchen",
        "/v1/models/kitchen/schema",
        "/v1/models/kitchen/versions/latest",
        "/v1/models/kitchen/versions/1/schema",
    ] {
        let first = get(path).await;
        assert_eq!(first.status, StatusCode::OK, "{path}");
        assert!(first.headers.contains_key(header::CACHE_CONTROL));
        let mut again = request("GET", path, Body::empty());
        again
            .headers_mut()
            .insert(header::IF_NONE_MATCH, first.headers[header::ETAG].clone());
        let second = send(&router("kitchen"), again).await;
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

#[tokio::test]
async fn rows_are_counted() {
    let service = service("kitchen");
    let mut registry = Registry::default();
    service.register_metrics(&mut registry);
    let router = Arc::clone(&service).router(CURSORS).split_for_parts().0;
    let list = [RECORD; 7].join(",");
    send(&router, request("POST", "/predict", format!("[{list}]"))).await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(
        text.contains("predictions_total{model=\"kitchen\",version=\"1\"} 7"),
        "{text}"
    );
}

#[test]
fn the_default_model_is_configured_or_claimed_or_the_only_one() {
    let name = |packages, default: &str| {
        let loaded = Inference::from_packages(packages, &config(default));
        loaded
            .map(|all| all.default_model().map(|m| m.name().to_owned()))
            .map_err(|e| e.to_string())
    };
    let claiming = |model: &str| {
        try_package(model, "1", signature(2, Output::Binary), "default = true").expect("a package")
    };
    assert_eq!(name(vec![kitchen()], ""), Ok(Some("kitchen".into())));
    assert_eq!(name(packages(), ""), Ok(None));
    assert_eq!(name(packages(), "pair"), Ok(Some("pair".into())));
    assert_eq!(
        name(vec![claiming("a"), kitchen()], ""),
        Ok(Some("a".into()))
    );
    assert!(
        name(vec![claiming("a"), claiming("b")], "")
            .expect_err("two")
            .contains("a and b both")
    );
    assert!(
        name(packages(), "nobody")
            .expect_err("unknown")
            .contains("kitchen, mean, pair")
    );
}

#[test]
fn each_model_has_its_own_operation_in_the_document() {
    let service = service("kitchen");
    let (_, mut document) = Arc::clone(&service).router(CURSORS).split_for_parts();
    service.add_model_operations(&mut document);
    let document = serde_json::to_value(&document).expect("a document");
    let operation = &document["paths"]["/v1/models/kitchen/predict"]["post"];
    assert_eq!(operation["operationId"], json!("predict_kitchen"));
    assert_eq!(
        operation["security"],
        json!([{"api_key": ["predict"]}, {"bearer": ["predict"]}])
    );
    let schemas = &document["components"]["schemas"];
    let record = &schemas["kitchen_Record"];
    let package = kitchen();
    let expected = package.schema().json_schema(&package.example_record());
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(&record[key], value, "{key}");
    }
    let row = &schemas["kitchen_PredictBody"]["oneOf"][2]["properties"]["features"]["oneOf"][0];
    assert_eq!(row["prefixItems"][1], expected["properties"]["sexo"]);
    assert_eq!(
        (&row["items"], &row["minItems"]),
        (&json!(false), &json!(6))
    );
    assert_eq!(
        schemas["mean_PredictBody"]["oneOf"][2]["properties"]["model_version"]["enum"],
        json!(["latest", "1", "2"])
    );
    let default =
        &document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(
        default["schema"]["$ref"],
        json!("#/components/schemas/kitchen_PredictBody")
    );
    assert_eq!(default["example"]["age"], json!(56));
    let answer = &operation["responses"]["200"]["content"]["application/json"]["example"];
    assert_eq!(answer["prediction"], json!("yes"));
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_has_a_scope() {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| walk(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, found)),
            _ => {}
        }
    }
    let service = service("kitchen");
    let (_, mut document) = Arc::clone(&service).router(CURSORS).split_for_parts();
    service.add_model_operations(&mut document);
    let document = serde_json::to_value(&document).expect("a document");
    let mut references = Vec::new();
    walk(&document, &mut references);
    for reference in references {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 8 + 4);
    for (path, item) in paths {
        for operation in item.as_object().expect("operations").values() {
            assert!(operation["security"][0]["api_key"][0].is_string(), "{path}");
        }
    }
}
