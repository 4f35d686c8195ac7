//! The error answers, as the document tells of them.

use std::collections::BTreeMap;

use auspex_kernel::error::Envelope;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

/// Of what shows one thing.
pub(super) struct ReadErrors;
/// Of lists.
pub(super) struct ListErrors;
/// Of what makes something.
pub(super) struct CreateErrors;
/// Of what changes or removes something.
pub(super) struct ChangeErrors;

impl IntoResponses for ReadErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[304, 401, 403, 404, 429, 500])
    }
}

impl IntoResponses for ListErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[304, 400, 401, 403, 404, 422, 429, 500])
    }
}

impl IntoResponses for CreateErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503])
    }
}

impl IntoResponses for ChangeErrors {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        errors(&[
            400, 401, 403, 404, 408, 409, 412, 413, 415, 422, 429, 500, 503,
        ])
    }
}

fn errors(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let error = |status: &u16| (status.to_string(), error(*status));
    statuses.iter().map(error).collect()
}

fn error(status: u16) -> RefOr<Response> {
    let description = match status {
        304 => "The copy named by If-None-Match is still right",
        400 => "The request cannot be read",
        401 => "No valid credential",
        403 => "The credential lacks the scope, or a right that it would give or take",
        404 => "There is no such thing, or it is not the caller's",
        408 => "The body did not arrive in time",
        409 => "It is in the way of something that there is",
        412 => "It has changed since it was read",
        413 => "The body is too long",
        415 => "The body is not plain JSON",
        422 => "Some fields are wrong; each one is named",
        429 => "Too many requests, or too many wrong passwords",
        500 => "Something failed inside the server",
        _ => "Too many passwords to check, or the server is stopping",
    };
    let mut response = ResponseBuilder::new().description(description);
    if status != 304 {
        let schema = Ref::from_schema_name(Envelope::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        response = response.content("application/json", content);
    }
    response.build().into()
}

/// Adds the schemas that the error answers refer to.
pub(super) fn add_schemas(document: &mut utoipa::openapi::OpenApi) {
    let mut found = vec![(Envelope::name().into_owned(), Envelope::schema())];
    Envelope::schemas(&mut found);
    let components = document.components.get_or_insert_default();
    components.schemas.extend(found);
}
