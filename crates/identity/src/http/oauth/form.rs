//! Form bodies, declared once: the OpenAPI document describes exactly the parameters that their
//! readers see.

use auspex_kernel::{ApiError, body};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

use crate::oauth::{Malformed, Parameters};

const BYTES_MAX: usize = 64 << 10;

/// A form declared by `form!`.
pub(super) trait Form {
    /// The names of its parameters.
    const NAMES: &'static [&'static str];
}

/// Declares a form: its parameters, each `required` or `optional`, with comments and JSON Schema
/// keywords for the document.
macro_rules! form {
    (
        $(#[doc = $about:literal])*
        struct $name:ident {
            $($(#[doc = $doc:literal])* $field:ident: $presence:ident $keywords:tt),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        struct $name;

        impl $crate::http::oauth::form::Form for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::http::oauth::form::schema(concat!($($about),*), &[$((
                    stringify!($field),
                    stringify!($presence) == "required",
                    concat!($($doc),*),
                    serde_json::json!($keywords),
                )),*])
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}
pub(super) use form;

/// The schema of a form; each parameter has a name, whether it is required, a comment and keywords.
pub(super) fn schema(about: &str, parameters: &[(&str, bool, &str, Value)]) -> RefOr<Schema> {
    let required: Vec<&str> = parameters
        .iter()
        .filter_map(|(name, is_required, ..)| is_required.then_some(*name))
        .collect();
    let properties = parameters.iter().map(|(name, _, about, keywords)| {
        let mut schema = json!({"type": "string"});
        for (keyword, value) in keywords.as_object().into_iter().flatten() {
            schema[keyword] = value.clone();
        }
        if !about.is_empty() {
            schema["description"] = json!(about.trim());
        }
        ((*name).to_owned(), schema)
    });
    let schema = json!({
        "type": "object",
        "description": about.trim(),
        "required": required,
        "properties": Map::from_iter(properties),
    });
    serde_json::from_value(schema).expect("a schema of texts")
}

/// Reads a form, without the parameters that it does not declare (RFC 6749 §3.1 says to ignore
/// them). A body that is not a form, or has a parameter twice, is [`Malformed`].
///
/// # Errors
/// 413 for a body that is too long, 408 for one that is too slow.
pub(super) async fn read<F: Form>(
    headers: &HeaderMap,
    body: Body,
) -> Result<Result<Parameters, Malformed>, ApiError> {
    let parameters = read_any(headers, body).await?;
    Ok(parameters.map(|parameters| parameters.only(F::NAMES)))
}

/// The same with all parameters.
pub(super) async fn read_any(
    headers: &HeaderMap,
    body: Body,
) -> Result<Result<Parameters, Malformed>, ApiError> {
    let bytes = body::read(body).await?;
    if bytes.len() > BYTES_MAX {
        return Err(ApiError::payload_too_large(format!(
            "the form is longer than {BYTES_MAX} bytes"
        )));
    }
    let stated = headers.get(header::CONTENT_TYPE);
    let stated = stated
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Err(Malformed));
    }
    let parameters = Parameters::parse(&bytes);
    Ok(
        parameters.and_then(|parameters| match parameters.has_repeated() {
            true => Err(Malformed),
            false => Ok(parameters),
        }),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use utoipa::PartialSchema as _;

    use super::*;

    form! {
        /// A letter.
        struct Letter {
            /// Who gets it
            to: required {},
            text: optional {"maxLength": 100},
        }
    }

    #[tokio::test]
    async fn a_form_has_the_parameters_that_the_document_describes() {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
        let read = read::<Letter>(&headers, Body::from("to=Ann&secret=x&text=Hi")).await;
        let letter = read.ok().and_then(Result::ok).expect("a form");
        let given: Vec<_> = letter.iter().collect();
        assert_eq!(given, [("to", "Ann"), ("text", "Hi")]);
        assert_eq!(
            serde_json::to_value(Letter::schema()).expect("JSON"),
            json!({
                "type": "object",
                "description": "A letter.",
                "required": ["to"],
                "properties": {
                    "to": {"type": "string", "description": "Who gets it"},
                    "text": {"type": "string", "maxLength": 100},
                },
            })
        );
    }
}
