//! The message that a request is: its body, with what its query and its path say put in.

use std::fmt::Display;

use auspex_kernel::ApiError;
use auspex_kernel::error::{FieldErrors, shown};
use auspex_kernel::http::pairs;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::de::DeserializeSeed as _;
use serde_json::value::RawValue;

use super::api::{Binding, BodyOf, HTTP_BODY, field_named};

/// Values in a body. A message in memory takes many times the bytes that it takes in JSON.
const VALUES_MAX: usize = 100_000;
/// Lists and objects within each other in a body: the length of a message is found anew at each level.
const NESTING_MAX: usize = 32;
/// Fields within fields that a query may name.
const DEPTH_MAX: usize = 16;

/// Reads a request.
///
/// # Errors
/// 400 for a body that is no JSON or nested too deep, 413 for too many values, 422 naming every wrong field else.
pub(super) fn message(
    binding: &Binding,
    values: &[(&str, String)],
    query: &str,
    body: Bytes,
    content_type: &str,
) -> Result<DynamicMessage, ApiError> {
    let input = &binding.call.input;
    let mut message = match &binding.body {
        BodyOf::All => body_of(input, body, content_type, "")?,
        BodyOf::Nothing => DynamicMessage::new(input.clone()),
        BodyOf::Field(field) => {
            let mut message = DynamicMessage::new(input.clone());
            if !body.is_empty() {
                message.set_field(field, field_body(field, body, content_type)?);
            }
            message
        }
    };
    let mut errors = FieldErrors::default();
    for (name, value) in pairs(query)? {
        let is_taken = match &binding.body {
            BodyOf::All => true,
            BodyOf::Nothing => false,
            BodyOf::Field(field) => is_within(&name, field),
        };
        let is_in_path = values.iter().any(|(field, _)| *field == name);
        let put = match is_taken || is_in_path {
            true => Err("is given by the body or the path; leave it out of the query".to_owned()),
            false => put(&mut message, &name, &value, Given::Once),
        };
        if let Err(why) = put {
            errors.add(shown(&name), why);
        }
    }
    for (name, value) in values {
        // The path wins over the body.
        if let Err(why) = put(&mut message, name, value, Given::Anew) {
            errors.add(name, why);
        }
    }
    match errors.count() {
        0 => Ok(message),
        _ => Err(ApiError::validation(errors.into_list("(query)"))),
    }
}

fn is_within(name: &str, field: &FieldDescriptor) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    first == field.name() || first == field.json_name()
}

/// The message that is the body.
fn body_of(
    message: &MessageDescriptor,
    body: Bytes,
    content_type: &str,
    at: &str,
) -> Result<DynamicMessage, ApiError> {
    if message.full_name() == HTTP_BODY {
        let mut raw = DynamicMessage::new(message.clone());
        raw.set_field_by_name("content_type", Value::String(content_type.to_owned()));
        raw.set_field_by_name("data", Value::Bytes(body));
        return Ok(raw);
    }
    if body.is_empty() {
        return Ok(DynamicMessage::new(message.clone()));
    }
    parse(&body, at, message.full_name(), message.clone())
}

/// The field that is the body, which may be a list, a map or one value.
fn field_body(field: &FieldDescriptor, body: Bytes, content_type: &str) -> Result<Value, ApiError> {
    if let (Kind::Message(message), false) = (field.kind(), field.is_list() || field.is_map()) {
        return body_of(&message, body, content_type, field.json_name()).map(Value::Message);
    }
    // As the only field of its message, for the reader knows only messages. What is not one value could bring other fields.
    let _: &RawValue = serde_json::from_slice(&body).map_err(|error| malformed(&error))?;
    let name = serde_json::to_string(field.json_name()).unwrap_or_default();
    let whole = [b"{", name.as_bytes(), b":", &body, b"}"].concat();
    let parent = field.parent_message();
    let mut parsed = parse(&whole, "", parent.full_name(), parent.clone())?;
    let taken = parsed.take_field(field);
    Ok(taken.unwrap_or_else(|| Value::default_value_for_field(field)))
}

fn parse(
    json: &[u8],
    at: &str,
    name: &str,
    message: MessageDescriptor,
) -> Result<DynamicMessage, ApiError> {
    let (values, nesting) = measured(json);
    if nesting > NESTING_MAX {
        let message = format!(
            "the body has more than {NESTING_MAX} lists and objects within each other; send it flatter"
        );
        return Err(ApiError::malformed(message));
    }
    if values > VALUES_MAX {
        let message = format!("the body has more than {VALUES_MAX} values; send fewer at once");
        return Err(ApiError::payload_too_large(message));
    }
    let text = std::str::from_utf8(json)
        .map_err(|_| ApiError::malformed("the body must be JSON in UTF-8"))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut reader, &mut track);
    let parsed = message.deserialize(tracked);
    let parsed = parsed.and_then(|parsed| reader.end().map(|()| parsed));
    parsed.map_err(|error| {
        if !error.is_data() {
            return malformed(&error);
        }
        let path = track.path().to_string();
        // The reader is still in the object that has it.
        let path = match (unknown_field(&error), path.as_str()) {
            (None, path) => path.to_owned(),
            (Some(name), "." | "") => name,
            (Some(name), path) => format!("{path}.{name}"),
        };
        let field = match (at, path.as_str()) {
            ("", "." | "") => "(body)".to_owned(),
            ("", path) => path.to_owned(),
            (at, "." | "") => at.to_owned(),
            (at, path) => format!("{at}.{path}"),
        };
        let mut errors = FieldErrors::default();
        errors.add(shown(&field), wanted(&error, name));
        ApiError::validation(errors.into_list("(body)"))
    })
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let message = format!("the body is not valid JSON at line {line}, column {column}");
    ApiError::malformed(message)
}

/// How many values JSON has at most, and how many lists and objects within each other.
fn measured(json: &[u8]) -> (usize, usize) {
    let (mut values, mut depth, mut deepest) = (1, 0_usize, 0);
    let (mut is_quoted, mut is_escaped) = (false, false);
    for byte in json {
        let escaped = std::mem::replace(&mut is_escaped, false);
        match byte {
            b'\\' => is_escaped = is_quoted && !escaped,
            b'"' if !escaped => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'[' | b'{' => {
                values += 1;
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
    }
    (values, deepest)
}

/// The name of a field that there is not, of what the reader says.
fn unknown_field(error: &impl Display) -> Option<String> {
    let text = error.to_string();
    let rest = text.strip_prefix("unrecognized field name '")?;
    Some(rest.split('\'').next()?.to_owned())
}

/// What a value must be, of what the reader says. It never repeats what it was.
fn wanted(error: &impl Display, message: &str) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    if text.starts_with("unrecognized field") {
        return format!("is no field of {message}");
    }
    if text.contains("oneof") {
        return "has two fields of which it may have one".to_owned();
    }
    match text.rsplit_once("expected ") {
        Some((_, expected)) => format!("must be {expected}"),
        None => "has a value that its field cannot hold".to_owned(),
    }
}

/// Whether a field may have a value already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Once,
    Anew,
}

/// Puts a text into a field, such as `user.name`.
fn put(message: &mut DynamicMessage, path: &str, text: &str, given: Given) -> Result<(), String> {
    let names: Vec<&str> = path.split('.').collect();
    let Some((last, before)) = names.split_last().filter(|_| names.len() <= DEPTH_MAX) else {
        return Err("leads too deep".into());
    };
    let unknown = |message: &MessageDescriptor| format!("is no field of {}", message.full_name());
    let mut inner = message;
    for name in before {
        let field = field_named(&inner.descriptor(), name);
        let field = field.ok_or_else(|| unknown(&inner.descriptor()))?;
        let is_one = !field.is_list() && !field.is_map();
        inner = match inner.get_field_mut(&field) {
            Value::Message(message) if is_one => message,
            _ => return Err("leads into a field that has no fields".into()),
        };
    }
    let field = field_named(&inner.descriptor(), last);
    let field = field.ok_or_else(|| unknown(&inner.descriptor()))?;
    if field.is_map() {
        return Err("is a map, which can be sent in a body only".into());
    }
    let value = value_of(&field.kind(), text)?;
    if given == Given::Once && !field.is_list() {
        let oneof = field.containing_oneof();
        let others = oneof.iter().flat_map(|oneof| oneof.fields());
        if others
            .chain([field.clone()])
            .any(|one| inner.has_field(&one))
        {
            return Err("is given twice, or another one in its place".into());
        }
    }
    match field.is_list() {
        false => inner.set_field(&field, value),
        true => match inner.get_field_mut(&field) {
            Value::List(list) => list.push(value),
            _ => return Err("is no list".into()),
        },
    }
    Ok(())
}

/// Base64 as JSON of protocol buffers has it: of either alphabet, with padding or without.
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A number that is too large for its field is none; an infinite one is called so.
fn finite_or_named(text: &str, value: f64) -> Result<f64, String> {
    match value.is_finite() || matches!(text, "NaN" | "Infinity" | "-Infinity") {
        true => Ok(value),
        false => Err("must be a number that its field can hold".into()),
    }
}

/// A text as the value of a field.
fn value_of(kind: &Kind, text: &str) -> Result<Value, String> {
    fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("must be {what}"))
    }
    Ok(match kind {
        Kind::Double => Value::F64(finite_or_named(text, number(text, "a number")?)?),
        Kind::Float => {
            let value: f32 = number(text, "a number")?;
            finite_or_named(text, value.into())?;
            Value::F32(value)
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            Value::I32(number(text, "an integer of 32 bits")?)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            Value::I64(number(text, "an integer of 64 bits")?)
        }
        Kind::Uint32 | Kind::Fixed32 => {
            Value::U32(number(text, "an integer of 32 bits that is not negative")?)
        }
        Kind::Uint64 | Kind::Fixed64 => {
            Value::U64(number(text, "an integer of 64 bits that is not negative")?)
        }
        Kind::Bool => Value::Bool(number(text, "true or false")?),
        Kind::String => Value::String(text.to_owned()),
        Kind::Bytes => {
            let decoded = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
            Value::Bytes(decoded.map_err(|_| "must be base64")?.into())
        }
        Kind::Enum(kind) => {
            let number = text.parse().ok();
            let named = kind.get_value_by_name(text).map(|value| value.number());
            let known = named.or(number);
            Value::EnumNumber(
                known.ok_or_else(|| format!("must be a value of {}", kind.full_name()))?,
            )
        }
        Kind::Message(message) => Value::Message(well_known(message, text)?),
    })
}

/// Messages that are one value in JSON, such as `google.protobuf.Timestamp`.
fn well_known(message: &MessageDescriptor, text: &str) -> Result<DynamicMessage, String> {
    let name = message.full_name();
    let must = || format!("must be a {name}");
    if let ("google.protobuf.BoolValue", true) = (name, matches!(text, "true" | "false")) {
        let mut value = DynamicMessage::new(message.clone());
        value.set_field_by_name("value", Value::Bool(text == "true"));
        return Ok(value);
    }
    let is_one_value = matches!(
        name,
        "google.protobuf.Timestamp"
            | "google.protobuf.Duration"
            | "google.protobuf.FieldMask"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int64Value"
            | "google.protobuf.UInt64Value"
            | "google.protobuf.Int32Value"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.StringValue"
            | "google.protobuf.BytesValue"
    );
    if !is_one_value {
        return Err(format!(
            "is a {name}; name a field of it, or send it in a body"
        ));
    }
    let json = serde_json::Value::String(text.to_owned());
    DynamicMessage::deserialize(message.clone(), json).map_err(|_| must())
}

#[cfg(test)]
mod tests;
