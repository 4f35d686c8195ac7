//! Bodies and filters that are declared once: the reader and the OpenAPI document both come from
//! the declaration, so that they cannot differ.

use serde_json::{Map, Value, json};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{RefOr, Required as Requirement, Schema};

use super::{Fields, Kind};
use crate::error::{ApiError, FieldErrors};
use crate::page::{CursorKey, PageQuery};

const WHOLE_QUERY: &str = "(query)";

/// A field of a body: whether it must be given, and what it may be.
pub trait Member {
    /// What the field becomes.
    type Value;
    /// Whether it must be given.
    const IS_REQUIRED: bool;

    /// Takes the field from a body, and notes what is wrong with it.
    fn read(&self, fields: &mut Fields, name: &'static str) -> Self::Value;

    /// Its JSON Schema.
    fn schema(&self) -> Value;
}

/// A field that must be given and not be null.
pub fn required<K: Kind>(kind: K) -> Required<K> {
    Required(kind)
}

/// A field that may be null or left out, which means the same.
pub fn optional<K: Kind>(kind: K) -> Optional<K> {
    Optional(kind)
}

/// A field of a change that cannot be null. `None` leaves the value as it is.
pub fn change<K: Kind>(kind: K) -> Change<K> {
    Change(kind)
}

/// A field of a change. `None` leaves the value as it is, `Some(None)` clears it.
pub fn change_or_clear<K: Kind>(kind: K) -> ChangeOrClear<K> {
    ChangeOrClear(kind)
}

/// See [`required`].
#[derive(Debug)]
pub struct Required<K>(K);
/// See [`optional`].
#[derive(Debug)]
pub struct Optional<K>(K);
/// See [`change`].
#[derive(Debug)]
pub struct Change<K>(K);
/// See [`change_or_clear`].
#[derive(Debug)]
pub struct ChangeOrClear<K>(K);

impl<K: Kind<Value: Default>> Member for Required<K> {
    type Value = K::Value;
    const IS_REQUIRED: bool = true;

    fn read(&self, fields: &mut Fields, name: &'static str) -> K::Value {
        let value = fields.required(name, &self.0);
        // Where it is wrong the body is refused, and this is never used.
        value.unwrap_or_default()
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

impl<K: Kind> Member for Optional<K> {
    type Value = Option<K::Value>;
    const IS_REQUIRED: bool = false;

    fn read(&self, fields: &mut Fields, name: &'static str) -> Self::Value {
        fields.optional(name, &self.0)
    }

    fn schema(&self) -> Value {
        nullable(self.0.schema())
    }
}

impl<K: Kind> Member for Change<K> {
    type Value = Option<K::Value>;
    const IS_REQUIRED: bool = false;

    fn read(&self, fields: &mut Fields, name: &'static str) -> Self::Value {
        let value = fields.patch(name, &self.0);
        if let Some(None) = value {
            fields.refuse(name, "cannot be null; leave it out to keep it as it is");
        }
        value.flatten()
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}

impl<K: Kind> Member for ChangeOrClear<K> {
    type Value = Option<Option<K::Value>>;
    const IS_REQUIRED: bool = false;

    fn read(&self, fields: &mut Fields, name: &'static str) -> Self::Value {
        fields.patch(name, &self.0)
    }

    fn schema(&self) -> Value {
        nullable(self.0.schema())
    }
}

fn nullable(mut schema: Value) -> Value {
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
    schema
}

/// A body declared by [`request_body!`](crate::request_body).
pub trait Body: Sized {
    /// Takes every field, and notes in `fields` what is wrong. A required field that is missing or
    /// wrong has its default value.
    fn read(fields: &mut Fields) -> Self;

    /// Reads a body.
    ///
    /// # Errors
    /// 400 for what is not a JSON object; 422 with every field that is missing, wrong or unknown.
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        Self::parse_and_check(body, |_, _| {})
    }

    /// Reads a body. `check` notes what is wrong between fields, so that the client learns of it
    /// together with the rest; a field that is wrong by itself has its default value there.
    ///
    /// # Errors
    /// As for [`Body::parse`].
    fn parse_and_check(
        body: &[u8],
        check: impl FnOnce(&Self, &mut Fields),
    ) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let body = Self::read(&mut fields);
        check(&body, &mut fields);
        fields.finish()?;
        Ok(body)
    }
}

/// Filters of a list, declared by [`query_filters!`](crate::query_filters).
pub trait Filters: Sized {
    /// Their names.
    const NAMES: &'static [&'static str];

    /// Takes every filter, and notes in `errors` what is wrong.
    fn read(query: &PageQuery, errors: &mut FieldErrors) -> Self;

    /// Reads the undecoded query of a request to `path`.
    ///
    /// # Errors
    /// As for [`PageQuery::parse`]; 422 with every filter that is wrong.
    fn parse(
        key: &CursorKey,
        path: &str,
        query: Option<&str>,
    ) -> Result<(PageQuery, Self), ApiError> {
        let query = PageQuery::parse(key, path, query, Self::NAMES)?;
        let mut errors = FieldErrors::default();
        let filters = Self::read(&query, &mut errors);
        match errors.count() {
            0 => Ok((query, filters)),
            _ => Err(ApiError::validation(errors.into_list(WHOLE_QUERY))),
        }
    }
}

/// Declares a request body: a struct, its reader ([`Body`]) and its schema in the OpenAPI document,
/// under the name given in quotes. The comments of the fields are their descriptions there.
///
/// ```
/// use auspex_kernel::fields::{Body as _, integer, optional, required, text};
///
/// auspex_kernel::request_body! {
///     /// A parcel to send.
///     struct Parcel as "ParcelCreate" {
///         /// Who gets it
///         to: String = required(text(1..=100)),
///         /// In grams
///         weight: Option<i64> = optional(integer(1..=30_000)),
///     }
/// }
///
/// let parcel = Parcel::parse(br#"{"to": "Ann"}"#).expect("a parcel");
/// assert_eq!((parcel.to.as_str(), parcel.weight), ("Ann", None));
/// assert!(Parcel::parse(br#"{"to": "Ann", "weight": 0}"#).is_err());
/// ```
#[macro_export]
macro_rules! request_body {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident as $schema:literal {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $member:expr),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        $vis struct $name {
            $($(#[doc = $doc])* $vis $field: $type,)*
        }

        impl $crate::fields::Body for $name {
            fn read(fields: &mut $crate::Fields) -> Self {
                Self {
                    $($field: $crate::fields::Member::read(&$member, fields, stringify!($field)),)*
                }
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::fields::body_schema(&[$($about),*], &[
                    $($crate::fields::property(stringify!($field), &[$($doc),*], &$member),)*
                ])
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                $schema.into()
            }
        }
    };
}

/// Declares the filters of a list: a struct with an `Option` for each, its reader ([`Filters`]) and
/// its parameters in the OpenAPI document. The comments of the fields are their descriptions there.
#[macro_export]
macro_rules! query_filters {
    (
        $(#[doc = $about:literal])*
        $vis:vis struct $name:ident {
            $($(#[doc = $doc:literal])* $field:ident: $type:ty = $kind:expr),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        $vis struct $name {
            $($(#[doc = $doc])* $vis $field: Option<$type>,)*
        }

        impl $crate::fields::Filters for $name {
            const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];

            fn read(
                query: &$crate::page::PageQuery,
                errors: &mut $crate::FieldErrors,
            ) -> Self {
                Self {
                    $($field: $crate::fields::filter(&$kind, query, stringify!($field), errors),)*
                }
            }
        }

        impl utoipa::IntoParams for $name {
            fn into_params(
                _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
            ) -> Vec<utoipa::openapi::path::Parameter> {
                vec![$($crate::fields::filter_parameter(
                    stringify!($field), &[$($doc),*], &$kind,
                )),*]
            }
        }
    };
}

/// A field in the schema of a body.
#[doc(hidden)]
#[derive(Debug)]
pub struct Property {
    name: &'static str,
    schema: Value,
    is_required: bool,
}

#[doc(hidden)]
pub fn property<M: Member>(name: &'static str, doc: &[&str], member: &M) -> Property {
    let mut schema = member.schema();
    if !doc.is_empty() {
        schema["description"] = description(doc).into();
    }
    Property {
        name,
        schema,
        is_required: M::IS_REQUIRED,
    }
}

#[doc(hidden)]
pub fn body_schema(about: &[&str], properties: &[Property]) -> RefOr<Schema> {
    let required = properties.iter().filter(|property| property.is_required);
    let required: Vec<&str> = required.map(|property| property.name).collect();
    let schemas = properties.iter();
    let schemas = schemas.map(|property| (property.name.to_owned(), property.schema.clone()));
    schema_of(json!({
        "type": "object",
        "description": description(about),
        "required": required,
        "properties": Map::from_iter(schemas),
        "additionalProperties": false,
    }))
}

#[doc(hidden)]
pub fn filter<K: Kind>(
    kind: &K,
    query: &PageQuery,
    name: &str,
    errors: &mut FieldErrors,
) -> Option<K::Value> {
    let value = kind.of_text(query.filter(name)?);
    let read = kind.read(&value);
    read.map_err(|wrong| errors.add(name, wrong)).ok()
}

#[doc(hidden)]
pub fn filter_parameter<K: Kind>(name: &str, doc: &[&str], kind: &K) -> Parameter {
    query_parameter(name, &description(doc), kind.schema())
}

/// An optional parameter of a query.
pub(crate) fn query_parameter(name: &str, about: &str, schema: Value) -> Parameter {
    optional_parameter(ParameterIn::Query, name, about, schema)
}

/// An optional parameter of a request.
pub(crate) fn optional_parameter(
    place: ParameterIn,
    name: &str,
    about: &str,
    schema: Value,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(Requirement::False)
        .description(Some(about))
        .schema(Some(schema_of(schema)))
        .build()
}

/// The lines of a comment as one text.
fn description(doc: &[&str]) -> String {
    let lines: Vec<&str> = doc.iter().map(|line| line.trim()).collect();
    lines.join("\n")
}

fn schema_of(schema: Value) -> RefOr<Schema> {
    serde_json::from_value(schema).expect("a schema of the kinds in this room")
}
