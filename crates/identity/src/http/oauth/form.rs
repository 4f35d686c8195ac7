//! Forms, declared once: the OpenAPI document describes exactly the parameters that their readers see,
//! in a body or in a query.

use auspex_kernel::{ApiError, body};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{RefOr, Required, Schema};

use crate::oauth::{Malformed, Parameters};

const BYTES_MAX: usize = 64 << 10;

/// A form declared by `form!`.
pub(super) trait Form {
    /// The names of its parameters.
    const NAMES: &'static [&'static str];

    /// What the document says of them.
    fn declared() -> Vec<Declared>;
}

/// A parameter as it is declared.
pub(super) struct Declared {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) about: &'static str,
    /// JSON Schema keywords.
    pub(super) keywords: Value,
}

impl Declared {
    fn schema(&self) -> Value {
        let mut schema = json!({"type": "string"});
        for (keyword, value) in self.keywords.as_object().into_iter().flatten() {
            schema[keyword] = value.clone();
        }
        schema
    }

    fn about(&self) -> Option<&str> {
        Some(self.about.trim()).filter(|about| !about.is_empty())
    }
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

            fn declared() -> Vec<$crate::http::oauth::form::Declared> {
                vec![$($crate::http::oauth::form::Declared {
                    name: stringify!($field),
                    is_required: stringify!($presence) == "required",
                    about: concat!($($doc),*),
                    keywords: serde_json::json!($keywords),
                }),*]
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::http::oauth::form::schema::<Self>(concat!($($about),*))
            }
        }

        impl utoipa::ToSchema for $name {}

        impl utoipa::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                $crate::http::oauth::form::in_query::<Self>()
            }
        }
    };
}
pub(super) use form;

/// The schema of a form.
pub(super) fn schema<F: Form>(about: &str) -> RefOr<Schema> {
    let declared = F::declared();
    let required = declared.iter().filter(|parameter| parameter.is_required);
    let required: Vec<&str> = required.map(|parameter| parameter.name).collect();
    let properties = declared.iter().map(|parameter| {
        let mut schema = parameter.schema();
        if let Some(about) = parameter.about() {
            schema["description"] = json!(about);
        }
        (parameter.name.to_owned(), schema)
    });
    schema_of(json!({
        "type": "object",
        "description": about.trim(),
        "required": required,
        "properties": Map::from_iter(properties),
    }))
}

/// The parameters of a form where they come in a query.
pub(super) fn in_query<F: Form>() -> Vec<Parameter> {
    let parameter = |declared: &Declared| {
        ParameterBuilder::new()
            .name(declared.name)
            .parameter_in(ParameterIn::Query)
            .required(match declared.is_required {
                true => Required::True,
                false => Required::False,
            })
            .description(declared.about())
            .schema(Some(schema_of(declared.schema())))
            .build()
    };
    F::declared().iter().map(parameter).collect()
}

fn schema_of(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).expect("a schema of texts and numbers")
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
        return Ok(Err(Malformed::MediaType));
    }
    let parameters = Parameters::parse(&bytes);
    Ok(
        parameters.and_then(|parameters| match parameters.has_repeated() {
            true => Err(Malformed::Repeated),
            false => Ok(parameters),
        }),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use utoipa::{IntoParams as _, PartialSchema as _};

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
        let query = serde_json::to_value(Letter::into_params(|| None)).expect("JSON");
        assert_eq!(
            query,
            json!([
                {
                    "name": "to", "in": "query", "description": "Who gets it", "required": true,
                    "schema": {"type": "string"},
                },
                {
                    "name": "text", "in": "query", "required": false,
                    "schema": {"type": "string", "maxLength": 100},
                },
            ])
        );
    }
}
