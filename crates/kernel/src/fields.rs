//! The fields of a control-plane body, read one by one and refused all at once.
//!
//! A handler asks for every field it knows, keeps what it gets, and calls [`Fields::finish`] before
//! it acts: missing, wrong and unknown fields are then one answer. No message repeats a value.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

use crate::caller::{Scope, ScopeSet};
use crate::clock::Timestamp;
use crate::error::{ApiError, FieldErrors, is_printable, shown};

/// What a value must be, said to who sent another one.
pub type Wrong = Cow<'static, str>;

/// RFC 5321 §4.5.3.1.3: a path has 256 octets, two of them its brackets.
const EMAIL_CHARS_MAX: usize = 254;
const WHOLE_BODY: &str = "(body)";

/// The members of a JSON object that nobody has asked for yet, and what was wrong so far.
pub struct Fields {
    members: Vec<(String, Value)>,
    known: Vec<&'static str>,
    errors: FieldErrors,
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
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
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
        for (name, value) in members {
            if fields.members.iter().any(|(known, _)| *known == name) {
                fields.errors.add(shown(&name), "is given more than once");
            } else {
                fields.members.push((name, value));
            }
        }
        Ok(fields)
    }

    /// A field that must be there and not null. `None` is noted as an error.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        match self.take(name) {
            None | Some(Value::Null) => {
                self.refuse(name, "is required");
                None
            }
            Some(value) => self.read(name, &value, read),
        }
    }

    /// A field that may be null or left out, which means the same.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        match self.take(name)? {
            Value::Null => None,
            value => self.read(name, &value, read),
        }
    }

    /// A field of a change: `None` leaves the thing as it is, `Some(None)` clears it.
    pub fn patch<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        match self.take(name)? {
            Value::Null => Some(None),
            value => self.read(name, &value, read).map(Some),
        }
    }

    /// Notes what is wrong between fields, or with one of them in the handler's eyes.
    pub fn refuse(&mut self, name: &str, message: impl fmt::Display) {
        self.errors.add(name, message);
    }

    /// Whether all is well, now that every known field was asked for.
    ///
    /// # Errors
    /// 422 with every field that is missing, wrong or unknown.
    pub fn finish(mut self) -> Result<(), ApiError> {
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

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        let place = self.members.iter().position(|(given, _)| given == name)?;
        Some(self.members.remove(place).1)
    }

    fn read<T>(
        &mut self,
        name: &str,
        value: &Value,
        read: impl Fn(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        let read = read(value);
        read.map_err(|message| self.refuse(name, message)).ok()
    }
}

/// Keeps the members of an object as they came, repeated ones too.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// Text of so many printable characters. Blank text is taken only where empty text is.
pub fn text(chars: RangeInclusive<usize>) -> impl Fn(&Value) -> Result<String, Wrong> {
    move |value| {
        let (low, high) = (chars.start(), chars.end());
        let fits = |text: &&str| {
            chars.contains(&text.chars().count())
                && text.chars().all(is_printable)
                && (*low == 0 || !text.trim().is_empty())
        };
        let text = value.as_str().filter(fits).map(str::to_owned);
        text.ok_or_else(|| match low {
            0 => format!("must be text of at most {high} printable characters").into(),
            _ => format!("must be text of {low} to {high} printable characters, not blank").into(),
        })
    }
}

/// An e-mail address, as far as its look tells: only a message sent there proves it.
pub fn email(value: &Value) -> Result<String, Wrong> {
    let is_address = |text: &&str| {
        text.chars().count() <= EMAIL_CHARS_MAX
            && text.contains('.')
            && text.chars().all(|c| is_printable(c) && !c.is_whitespace())
            && matches!(text.rsplit_once('@'), Some((name, host)) if !name.is_empty() && !host.is_empty())
    };
    let text = value.as_str().filter(is_address).map(str::to_owned);
    text.ok_or("must be an e-mail address, such as name@example.org".into())
}

/// An integer of 1 and up, written without fraction and exponent.
pub fn positive_integer(value: &Value) -> Result<i64, Wrong> {
    let number = value.as_i64().filter(|number| *number > 0);
    number.ok_or("must be a positive integer".into())
}

/// An integer within bounds, written without fraction and exponent.
pub fn integer(range: RangeInclusive<i64>) -> impl Fn(&Value) -> Result<i64, Wrong> {
    move |value| {
        let number = value.as_i64().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            format!("must be an integer between {low} and {high}").into()
        })
    }
}

/// `true` or `false`.
pub fn boolean(value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or("must be true or false".into())
}

/// A time of RFC 3339.
pub fn timestamp(value: &Value) -> Result<Timestamp, Wrong> {
    let time = value.as_str().and_then(Timestamp::parse_rfc3339);
    time.ok_or("must be a time of RFC 3339, such as 2026-01-25T10:00:00Z".into())
}

/// One of some words, and what it stands for.
pub fn one_of<T: Clone>(words: &[(&'static str, T)]) -> impl Fn(&Value) -> Result<T, Wrong> {
    move |value| {
        let text = value.as_str();
        let found = words.iter().find(|(word, _)| Some(*word) == text);
        found.map(|(_, meaning)| meaning.clone()).ok_or_else(|| {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            format!("must be one of {}", words.join(", ")).into()
        })
    }
}

/// A list of so many texts, each read by `item`.
pub fn list<T>(
    count: RangeInclusive<usize>,
    item: impl Fn(&Value) -> Result<T, Wrong>,
) -> impl Fn(&Value) -> Result<Vec<T>, Wrong> {
    move |value| {
        let (low, high) = (count.start(), count.end());
        let items = value
            .as_array()
            .filter(|items| count.contains(&items.len()));
        let items = items.ok_or_else(|| format!("must be a list of {low} to {high} entries"))?;
        let read = |value| item(value).map_err(|wrong| format!("each entry {wrong}").into());
        items.iter().map(read).collect()
    }
}

/// A list of scopes.
pub fn scopes(value: &Value) -> Result<ScopeSet, Wrong> {
    let scope = |value: &Value| value.as_str()?.parse().ok();
    let set: Option<ScopeSet> = value
        .as_array()
        .and_then(|scopes| scopes.iter().map(scope).collect());
    set.ok_or_else(|| {
        let known: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!(
            "must be a list of scopes; known scopes: {}",
            known.join(", ")
        )
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestId;
    use proptest::prelude::*;
    use serde_json::json;

    /// The rules of a user to be made: a name, an address, and an age where it is told.
    fn validate_user(body: &Value) -> Result<(), ApiError> {
        let mut fields = Fields::parse(body.to_string().as_bytes())?;
        fields.required("name", text(1..=100));
        fields.required("email", email);
        fields.optional("age", positive_integer);
        fields.finish()
    }

    fn refused(body: &Value) -> Vec<(String, String)> {
        let error = validate_user(body).expect_err("refused");
        assert_eq!(
            (error.status().as_u16(), error.code()),
            (422, "VALIDATION_ERROR")
        );
        let details = error.details().iter();
        details
            .map(|e| (e.field.clone(), e.message.clone()))
            .collect()
    }

    #[test]
    fn users_are_valid_or_every_wrong_field_is_named() {
        let alice = json!({"name": "Alice", "email": "alice@example.com"});
        assert!(validate_user(&alice).is_ok());
        let name = "must be text of 1 to 100 printable characters, not blank";
        let email = "must be an e-mail address, such as name@example.org";
        let age = "must be a positive integer";
        let pair = |field: &str, message: &str| (field.to_owned(), message.to_owned());
        assert_eq!(
            refused(&json!({"name": "", "email": "invalid"})),
            [pair("name", name), pair("email", email)]
        );
        let bob = json!({"name": "Bob", "email": "bob@test.com", "age": -5});
        assert_eq!(refused(&bob), [pair("age", age)]);
        assert_eq!(
            refused(&json!({"name": "  ", "age": 1.5, "admin": true})),
            [
                pair("name", name),
                pair("email", "is required"),
                pair("age", age),
                pair(
                    "admin",
                    "is not a field of this request; it takes name, email, age"
                ),
            ]
        );
    }

    #[tokio::test]
    async fn errors_have_the_shape_of_every_other() {
        let error = validate_user(&json!({"name": "", "email": "invalid"})).expect_err("refused");
        let id = RequestId::from_client(&http::HeaderValue::from_static("req_abc123"));
        let response = error.render(&id.expect("harmless"));
        assert_eq!(response.status(), 422);
        let body = crate::body::read(response.into_body())
            .await
            .expect("a body");
        let name = "must be text of 1 to 100 printable characters, not blank";
        let email = "must be an e-mail address, such as name@example.org";
        assert_eq!(
            serde_json::from_slice::<Value>(&body).expect("JSON"),
            json!({"error": {
                "code": "VALIDATION_ERROR",
                "message": "2 fields are invalid",
                "details": [
                    {"field": "name", "message": name},
                    {"field": "email", "message": email},
                ],
                "request_id": "req_abc123",
            }})
        );
    }

    #[test]
    fn what_is_no_object_is_malformed() {
        for body in [
            "",
            " ",
            "null",
            "3",
            "\"hunter2\"",
            "[]",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":hunter2}",
            "{\"a\":1,}",
            "{\"\\ud800\":1}",
            "{\"a\":\"\u{0}\"}",
        ] {
            let error = Fields::parse(body.as_bytes()).map(|_| ()).expect_err(body);
            assert_eq!(
                (error.status().as_u16(), error.code()),
                (400, "MALFORMED_REQUEST")
            );
            assert!(!error.message().contains("hunter2"), "{}", error.message());
        }
        assert!(Fields::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(Fields::parse("[".repeat(100_000).as_bytes()).is_err());
        assert!(Fields::parse(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).is_err());
    }

    #[test]
    fn repeated_and_unknown_fields_are_named_and_their_values_are_not() {
        let body = format!(
            "{{\"a\": 1, \"a\": \"hunter2\", \"x\\u202e{}\": \"hunter2\"}}",
            "y".repeat(100)
        );
        let mut fields = Fields::parse(body.as_bytes()).expect("an object");
        assert_eq!(fields.required("a", positive_integer), Some(1));
        let error = fields.finish().expect_err("refused");
        let named: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(named, ["a", &format!("x\u{fffd}{}", "y".repeat(62))]);
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_change_tells_absent_from_null() {
        let mut fields = Fields::parse(b"{\"a\": null, \"b\": true}").expect("an object");
        assert_eq!(fields.patch("a", boolean), Some(None));
        assert_eq!(fields.patch("b", boolean), Some(Some(true)));
        assert_eq!(fields.patch("c", boolean), None);
        assert!(fields.finish().is_ok());
        let mut fields = Fields::parse(b"{\"a\": null, \"b\": null, \"c\": 1}").expect("an object");
        assert_eq!(fields.optional("a", boolean), None);
        assert_eq!(fields.required("b", boolean), None);
        assert_eq!(fields.patch("c", boolean), None);
        let error = fields.finish().expect_err("refused");
        let named: Vec<&str> = error.details().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(named, ["b", "c"]);
    }

    #[test]
    fn readers_take_what_they_say() {
        assert_eq!(text(0..=3)(&json!("")), Ok(String::new()));
        assert_eq!(text(1..=3)(&json!("añb")), Ok("añb".into()));
        for wrong in [
            json!("abcd"),
            json!("a\n"),
            json!(1),
            json!(null),
            json!("\u{202e}"),
        ] {
            assert!(text(1..=3)(&wrong).is_err(), "{wrong}");
        }
        assert!(email(&json!("a@b.c")).is_ok());
        for wrong in ["@", ".@", "@.", "a.b", "a@b", "a @b.c", "a@b.c\n"] {
            assert!(email(&json!(wrong)).is_err(), "{wrong}");
        }
        assert!(email(&json!(format!("{}@b.c", "a".repeat(251)))).is_err());
        for wrong in [
            json!(0),
            json!(-1),
            json!(1.0),
            json!("1"),
            json!(true),
            json!(u64::MAX),
        ] {
            assert!(positive_integer(&wrong).is_err(), "{wrong}");
        }
        assert_eq!(integer(-1..=1)(&json!(-1)), Ok(-1));
        assert!(integer(-1..=1)(&json!(2)).is_err());
        assert!(boolean(&json!("true")).is_err() && boolean(&json!(0)).is_err());
        let time = timestamp(&json!("2026-01-25T10:00:00.5Z"));
        assert_eq!(time, Ok(Timestamp(1_769_335_200_500_000)));
        assert!(timestamp(&json!(1_769_335_200)).is_err());
        let size = one_of(&[("small", 1), ("large", 2)]);
        assert_eq!(size(&json!("large")), Ok(2));
        assert_eq!(
            size(&json!("LARGE")),
            Err("must be one of small, large".into())
        );
        let words = list(1..=2, text(1..=3));
        assert_eq!(words(&json!(["a", "b"])), Ok(vec!["a".into(), "b".into()]));
        for wrong in [
            json!([]),
            json!(["a", "b", "c"]),
            json!(["a", 1]),
            json!("a"),
        ] {
            assert!(words(&wrong).is_err(), "{wrong}");
        }
        let set = scopes(&json!(["models:read", "predict"])).map(|set| set.to_string());
        assert_eq!(set, Ok("predict models:read".into()));
        let wrong = scopes(&json!(["predict", "hunter2"])).expect_err("unknown");
        assert!(
            wrong.contains("predict") && !wrong.contains("hunter2"),
            "{wrong}"
        );
        assert!(scopes(&json!("predict")).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_refused_and_never_a_panic(body in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(mut fields) = Fields::parse(&body) {
                fields.optional("a", text(1..=9));
                let _ = fields.finish();
            }
        }
    }
}
