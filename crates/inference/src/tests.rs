//! The routes as a client sees them.

use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use auspex_engine::Output;
use auspex_kernel::db::Db;
use auspex_kernel::service::Publisher;
use auspex_kernel::{ApiError, Caller, CursorKey, Peer, Random, RequestId, ScopeSet, Subject};

use super::*;
use crate::fixture::{kitchen, signature, town, try_package};
use crate::http::{Tools, handlers};

mod default;
mod document;
mod explain;
mod folder;
mod models;
mod predict;
mod refusals;
mod reload;
mod settling;

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
        town(),
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
    Inference::from_packages(packages(), &config(default_model))
}

async fn router(default_model: &str) -> Router {
    let (publisher, _) = Publisher::new();
    route(&service(default_model), publisher).await
}

/// The routes of a service, with a database that has gone: models need none.
async fn route(service: &Arc<Inference>, publisher: Publisher) -> Router {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("gone.db").display());
    let router = Arc::clone(service).router(Tools {
        cursors: CursorKey([7; 32]),
        publisher,
        db: Db::open(&url).await.expect("opens"),
        random: Random::system(),
    });
    let operations = serde_json::to_value(Inference::operations()).expect("JSON");
    let paths = operations["paths"].as_object().expect("paths");
    handlers(service)
        .into_iter()
        .fold(router, |router, (operation, handler)| {
            let path = paths
                .iter()
                .find(|(_, item)| item["post"]["operationId"] == operation);
            let (path, _) = path.expect("an operation");
            let answer = move |request| handler.clone().handle(request);
            router.route(path, axum::routing::post(answer))
        })
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
    let caller = Caller {
        subject: Subject::Operator,
        scopes: ScopeSet::all(),
        quota_key: 0,
        expires_at: None,
        user_id: None,
        session_id: None,
        client_id: None,
    };
    let builder = Request::builder().method(method).uri(path).extension(id);
    builder
        .extension(Arc::new(caller))
        .extension(Peer(Ipv4Addr::LOCALHOST.into()))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("a request")
}

async fn post(path: &str, body: impl Into<Body>) -> Reply {
    send(&router("kitchen").await, request("POST", path, body)).await
}

async fn get(path: &str) -> Reply {
    send(
        &router("kitchen").await,
        request("GET", path, Body::empty()),
    )
    .await
}

const RECORD: &str = r#"{"age":0,"sexo":"H","income":0,"active":false,"weight":0}"#;
