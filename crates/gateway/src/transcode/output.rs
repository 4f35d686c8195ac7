//! What a message of an answer is in HTTP.

use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    SerializeOptions, Value,
};

use super::api::{HTTP_BODY, Shape};

/// What a client gets of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Json(Vec<u8>),
    /// A message that says itself what it is.
    Raw {
        content_type: String,
        data: Bytes,
    },
}

/// The bytes are no such message.
pub(super) struct Unreadable;

/// Reads a message of an answer.
///
/// # Errors
/// The bytes are no such message.
pub(super) fn read(shape: &Shape, bytes: Bytes) -> Result<Shown, Unreadable> {
    let message = DynamicMessage::decode(shape.message.clone(), bytes).map_err(|_| Unreadable)?;
    match &shape.field {
        None => whole(&message),
        Some(field) => match message.get_field(field).as_ref() {
            Value::Message(inner) if !is_many(field) => whole(inner),
            value => Ok(Shown::Json(field_json(&shape.message, field, value)?)),
        },
    }
}

fn is_many(field: &FieldDescriptor) -> bool {
    field.is_list() || field.is_map()
}

fn whole(message: &DynamicMessage) -> Result<Shown, Unreadable> {
    if message.descriptor().full_name() == HTTP_BODY {
        let text =
            |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let content_type = message.get_field_by_name("content_type");
        let data = message.get_field_by_name("data");
        return Ok(Shown::Raw {
            content_type: text(content_type.as_deref()),
            data: data
                .as_deref()
                .and_then(Value::as_bytes)
                .cloned()
                .unwrap_or_default(),
        });
    }
    serde_json::to_vec(message)
        .map(Shown::Json)
        .map_err(|_| Unreadable)
}

/// One field, as it would stand in its message.
fn field_json(
    message: &MessageDescriptor,
    field: &FieldDescriptor,
    value: &Value,
) -> Result<Vec<u8>, Unreadable> {
    let mut only = DynamicMessage::new(message.clone());
    only.set_field(field, value.clone());
    let to_json = |options: &SerializeOptions| {
        only.serialize_with_options(serde_json::value::Serializer, options)
    };
    let mut json = to_json(&SerializeOptions::new()).map_err(|_| Unreadable)?;
    let found = json.get_mut(field.json_name()).map(serde_json::Value::take);
    let json = match found {
        Some(json) => json,
        // The value that fields have if nobody says another.
        None => {
            let options = SerializeOptions::new().skip_default_fields(false);
            let mut json = to_json(&options).map_err(|_| Unreadable)?;
            let found = json.get_mut(field.json_name()).map(serde_json::Value::take);
            found.unwrap_or(serde_json::Value::Null)
        }
    };
    serde_json::to_vec(&json).map_err(|_| Unreadable)
}

impl Shape {
    /// Whether the answers say themselves what they are.
    pub(super) fn is_raw(&self) -> bool {
        match &self.field {
            None => self.message.full_name() == HTTP_BODY,
            Some(field) => match field.kind() {
                Kind::Message(message) => !is_many(field) && message.full_name() == HTTP_BODY,
                _ => false,
            },
        }
    }
}
