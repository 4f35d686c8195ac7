//! JSON that can be read in one way only: an object, no member twice at any depth.
//!
//! `serde_json` would take the last of two members of one name, another reader the first.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

const DUPLICATE: &str = "a member occurs twice";

/// Why a text is not such an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStrict {
    /// A member occurs twice.
    Duplicate,
    /// Not JSON in UTF-8, nested more than 128 deep, or not an object.
    NotAnObject,
}

/// Reads a JSON object strictly. A whole number stays one (`1` is one, `1.0` and `1e0` are not).
///
/// # Errors
/// [`NotStrict`].
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>, NotStrict> {
    match serde_json::from_slice(text) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err(NotStrict::NotAnObject),
        Err(error) if error.to_string().starts_with(DUPLICATE) => Err(NotStrict::Duplicate),
        Err(_) => Err(NotStrict::NotAnObject),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a number"))?;
        Ok(number.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Strict(element)) = elements.next_element()? {
            array.push(element);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom(DUPLICATE));
            }
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for (text, expected) in [
            (r#"{"a":1,"a":1}"#, NotStrict::Duplicate),
            (r#"{"a":1,"\u0061":2}"#, NotStrict::Duplicate),
            (r#"{"a":{"b":[{"c":1,"c":2}]}}"#, NotStrict::Duplicate),
            (r#"{"a":1}{"#, NotStrict::NotAnObject),
            (r#"{"a":1} x"#, NotStrict::NotAnObject),
            (r#"{"a":NaN}"#, NotStrict::NotAnObject),
            (r#"{"a":1e999}"#, NotStrict::NotAnObject),
            (r#"{"a":"\ud800"}"#, NotStrict::NotAnObject),
            (r#"{'a':1}"#, NotStrict::NotAnObject),
            (r#"{"a":1,}"#, NotStrict::NotAnObject),
            ("\u{feff}{}", NotStrict::NotAnObject),
            ("[]", NotStrict::NotAnObject),
            ("null", NotStrict::NotAnObject),
            ("", NotStrict::NotAnObject),
        ] {
            assert_eq!(parse_object(text.as_bytes()), Err(expected), "{text}");
        }
        assert_eq!(
            parse_object(b"{\"a\":\"\xff\"}"),
            Err(NotStrict::NotAnObject)
        );
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse_object(deep.as_bytes()), Err(NotStrict::NotAnObject));
    }

    #[test]
    fn equal_names_in_different_objects_are_no_duplicates() {
        let text = r#" {"a":{"a":[{"a":1},{"a":2}]},"b":{"a":null}} "#;
        assert!(parse_object(text.as_bytes()).is_ok());
    }

    #[test]
    fn whole_numbers_stay_whole() {
        let object = parse_object(br#"{"a":1,"b":1.0,"c":1e0,"d":-1,"e":-0}"#).unwrap();
        let whole = |name: &str| object[name].is_u64();
        assert!(whole("a"));
        assert!(!["b", "c", "d", "e"].into_iter().any(whole));
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_on_what_has_no_duplicates(
            members in proptest::collection::btree_map(".{0,5}", any::<i64>(), 0..8),
        ) {
            let text = serde_json::to_vec(&members).unwrap();
            let expected: Map<String, Value> = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(parse_object(&text), Ok(expected));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_object(&bytes);
        }
    }
}
