//! The fields of a control-plane body, read one by one and refused all at once.
//!
//! A body is declared by [`request_body!`](crate::request_body), the filters of a list by
//! [`query_filters!`](crate::query_filters): reader and OpenAPI document come from the declaration.
//! Missing, wrong and unknown fields are one answer. No message repeats a value.

mod body;
mod kind;

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use zeroize::Zeroize as _;

pub use body::{
    Body, Change, ChangeOrClear, Filters, Member, Optional, Required, change, change_or_clear,
    optional, required,
};
#[doc(hidden)]
pub use body::{Property, body_schema, filter, filter_parameter, property};
pub(crate) use body::{optional_parameter, query_parameter};
pub use kind::{
    Annotated, Boolean, Email, Integer, Kind, List, OneOf, Opaque, Scopes, Text, Time, Wrong,
    boolean, email, integer, list, one_of, opaque, scopes, text, timestamp, whole,
};

use crate::error::{ApiError, FieldErrors, shown};

const WHOLE_BODY: &str = "(body)";

/// The members of a JSON object that have not been asked for yet, and what is wrong so far.
pub struct Fields {
    members: Vec<(String, Sent)>,
    known: Vec<&'static str>,
    errors: FieldErrors,
}

/// A value as it was sent. It may be a password, and so is overwritten in the end.
struct Sent(Value);

impl Drop for Sent {
    fn drop(&mut self) {
        if let Value::String(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

/// Shows no member: one may be a password.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields").finish_non_exhaustive()
    }
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    /// 400 for what is not a JSON object.
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        if body.trim_ascii().is_empty() {
            return Err(ApiError::malformed("the body is empty; send a JSON object"));
        }
        let mut reader = serde_json::Deserializer::from_slice(body);
        let read = reader.deserialize_map(Members);
        let members = read.and_then(|members| reader.end().map(|()| members));
        let members = members.map_err(|error| match error.classify() {
            Category::Data => ApiError::malformed("the body must be a JSON object"),
            _ => ApiError::malformed(format!("the body is not valid JSON: {error}")),
        })?;
        let mut fields = Self {
            members: Vec::with_capacity(members.len()),
            known: Vec::new(),
            errors: FieldErrors::default(),
        };
        let mut seen = HashSet::new();
        for (name, value) in members {
            if seen.insert(name.clone()) {
                fields.members.push((name, value));
            } else {
                fields.errors.add(shown(&name), "is given more than once");
            }
        }
        Ok(fields)
    }

    /// A field that must be there and not null. `None` is noted as an error.
    fn required<K: Kind>(&mut self, name: &'static str, kind: &K) -> Option<K::Value> {
        match self.take(name) {
            Some(sent) if !sent.0.is_null() => self.read(name, &sent.0, kind),
            _ => {
                self.refuse(name, "is required");
                None
            }
        }
    }

    /// A field that may be null or left out, which means the same.
    fn optional<K: Kind>(&mut self, name: &'static str, kind: &K) -> Option<K::Value> {
        let sent = self.take(name).filter(|sent| !sent.0.is_null())?;
        self.read(name, &sent.0, kind)
    }

    /// A field of a change: `None` where it is left out, `Some(None)` where it is null.
    fn patch<K: Kind>(&mut self, name: &'static str, kind: &K) -> Option<Option<K::Value>> {
        let sent = self.take(name)?;
        match sent.0.is_null() {
            true => Some(None),
            false => self.read(name, &sent.0, kind).map(Some),
        }
    }

    /// Notes what is wrong between fields, or what only the handler can find wrong with one.
    pub fn refuse(&mut self, name: &str, message: impl fmt::Display) {
        self.errors.add(name, message);
    }

    /// Whether the body is right, now that every known field has been asked for.
    ///
    /// # Errors
    /// 422 with every field that is missing, wrong or unknown.
    fn finish(mut self) -> Result<(), ApiError> {
        for (name, _) in &self.members {
            let known = self.known.join(", ");
            let message = format_args!("is not a field of this request; it takes {known}");
            self.errors.add(shown(name), message);
        }
        if self.errors.count() == 0 {
            return Ok(());
        }
        Err(ApiError::validation(self.errors.into_list(WHOLE_BODY)))
    }

    fn take(&mut self, name: &'static str) -> Option<Sent> {
        self.known.push(name);
        let place = self.members.iter().position(|(given, _)| given == name)?;
        Some(self.members.remove(place).1)
    }

    fn read<K: Kind>(&mut self, name: &str, value: &Value, kind: &K) -> Option<K::Value> {
        let read = kind.read(value);
        read.map_err(|wrong| self.refuse(name, wrong)).ok()
    }
}

/// Keeps the members of an object as they came, repeated ones too.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Sent)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry()? {
            members.push((name, Sent(value)));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests;
