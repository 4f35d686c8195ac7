//! The error answers in the OpenAPI document: one table for every service.

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::error::Envelope;

/// The error answers of an operation that shows one thing.
#[derive(Debug)]
pub struct ReadErrors;
/// The error answers of a list.
#[derive(Debug)]
pub struct ListErrors;
/// The error answers of an operation that creates something.
#[derive(Debug)]
pub struct CreateErrors;
/// The error answers of an operation that changes or removes something.
#[derive(Debug)]
pub struct ChangeErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[304, 401, 403, 404, 429, 500, 503])
    }
}

impl IntoResponses for ListErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[304, 400, 401, 403, 404, 422, 429, 500, 503])
    }
}

impl IntoResponses for CreateErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503])
    }
}

impl IntoResponses for ChangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        error_responses(&[
            400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 429, 500, 503,
        ])
    }
}

/// The answers of these statuses, for operations that have a set of their own.
///
/// # Panics
/// For a status that the table does not have.
pub fn error_responses(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let error = |status: &u16| (status.to_string(), error_response(*status));
    statuses.iter().map(error).collect()
}

fn error_response(status: u16) -> RefOr<Response> {
    let (code, description) = match status {
        304 => return Response::new("The copy named by If-None-Match is current").into(),
        400 => ("MALFORMED_REQUEST", "The request cannot be read"),
        401 => ("UNAUTHENTICATED", "No valid credential"),
        403 => (
            "FORBIDDEN",
            "The credential lacks the scope, or a right that the request would grant or take away",
        ),
        404 => (
            "NOT_FOUND",
            "It does not exist, or the caller may not see it",
        ),
        408 => ("REQUEST_TIMEOUT", "The body did not arrive in time"),
        409 => ("CONFLICT", "It conflicts with something that exists"),
        412 => ("PRECONDITION_FAILED", "It has changed since it was read"),
        413 => ("PAYLOAD_TOO_LARGE", "The body is too long"),
        415 => ("UNSUPPORTED_MEDIA_TYPE", "The body is not plain JSON"),
        422 => (
            "VALIDATION_ERROR",
            "Some fields are wrong; each one is named",
        ),
        429 => (
            "RATE_LIMITED",
            "Too many requests, or too many wrong passwords",
        ),
        500 => ("INTERNAL", "Something failed inside the server"),
        503 => (
            "UNAVAILABLE",
            "Too much work is waiting already, the database is away, or the server is stopping",
        ),
        _ => panic!("the table of error answers lacks {status}"),
    };
    let (message, details) = match status {
        422 => (
            "1 field is invalid",
            json!([{"field": "age", "message": "must be an integer between 0 and 130"}]),
        ),
        _ => (description, json!([])),
    };
    let error = json!({
        "code": code, "message": message, "details": details, "request_id": "req_01JD3V9K2Q4W",
    });
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Envelope::name())))
        .example(Some(json!({"error": error})));
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content.build());
    response.build().into()
}

/// Adds the schemas that the error answers refer to.
pub fn add_error_schemas(document: &mut OpenApi) {
    let mut found = vec![(Envelope::name().into_owned(), Envelope::schema())];
    Envelope::schemas(&mut found);
    let components = document.components.get_or_insert_default();
    components.schemas.extend(found);
}
