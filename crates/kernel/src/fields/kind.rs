//! What the value of a field may be. Each kind says in one place how a value is read and how the
//! OpenAPI document describes it.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use crate::caller::{Scope, ScopeSet};
use crate::clock::Timestamp;
use crate::error::{is_printable, is_shown_name};

/// What a value must be, as the client is told.
pub type Wrong = Cow<'static, str>;

/// RFC 5321 §4.5.3.1.3: a path has 256 octets, two of them its brackets.
const EMAIL_CHARS_MAX: usize = 254;

/// A kind of value.
pub trait Kind {
    /// What a value becomes.
    type Value;

    /// Reads a value.
    ///
    /// # Errors
    /// What it must be; never what it was.
    fn read(&self, value: &Value) -> Result<Self::Value, Wrong>;

    /// The JSON Schema of what [`Kind::read`] accepts.
    fn schema(&self) -> Value;

    /// The JSON value of a text in a query.
    fn of_text(&self, text: &str) -> Value {
        text.into()
    }

    /// The same with an example in the document.
    fn example(self, example: impl Into<Value>) -> Annotated<Self>
    where
        Self: Sized,
    {
        Annotated {
            kind: self,
            keyword: "example",
            value: example.into(),
        }
    }

    /// The same with, in the document, the value that applies when the field is left out.
    fn by_default(self, default: impl Into<Value>) -> Annotated<Self>
    where
        Self: Sized,
    {
        Annotated {
            kind: self,
            keyword: "default",
            value: default.into(),
        }
    }
}

/// A kind with one more keyword in its schema.
#[derive(Debug)]
pub struct Annotated<K> {
    kind: K,
    keyword: &'static str,
    value: Value,
}

impl<K: Kind> Kind for Annotated<K> {
    type Value = K::Value;

    fn read(&self, value: &Value) -> Result<K::Value, Wrong> {
        self.kind.read(value)
    }

    fn schema(&self) -> Value {
        let mut schema = self.kind.schema();
        schema[self.keyword] = self.value.clone();
        schema
    }

    fn of_text(&self, text: &str) -> Value {
        self.kind.of_text(text)
    }
}

/// Text of this many printable characters. Blank text, and blanks at its ends, are accepted only where
/// empty text is.
pub fn text(chars: RangeInclusive<usize>) -> Text {
    Text {
        chars,
        may_have_colon: true,
    }
}

/// See [`text`].
#[derive(Debug)]
pub struct Text {
    chars: RangeInclusive<usize>,
    may_have_colon: bool,
}

impl Text {
    /// The same without a colon.
    pub fn without_colon(self) -> Self {
        Self {
            may_have_colon: false,
            ..self
        }
    }
}

impl Kind for Text {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Wrong> {
        let (low, high) = (self.chars.start(), self.chars.end());
        let fits = |text: &&str| {
            self.chars.contains(&text.chars().count())
                && text.chars().all(is_printable)
                && (*low == 0 || is_shown_name(text))
                && (self.may_have_colon || !text.contains(':'))
        };
        let text = value.as_str().filter(fits).map(str::to_owned);
        text.ok_or_else(|| {
            let colon = if self.may_have_colon {
                ""
            } else {
                " without a colon"
            };
            match low {
                0 => format!("must be text of at most {high} printable characters{colon}").into(),
                _ => format!(
                    "must be text of {low} to {high} printable characters{colon}, without blanks at its ends"
                )
                .into(),
            }
        })
    }

    fn schema(&self) -> Value {
        let mut schema = json!({"type": "string", "maxLength": self.chars.end()});
        if *self.chars.start() > 0 {
            schema["minLength"] = json!(self.chars.start());
        }
        if !self.may_have_colon {
            schema["pattern"] = json!("^[^:]*$");
        }
        schema
    }
}

/// Any text of at most this many characters, such as a password or token to be compared.
pub fn opaque(chars_max: usize) -> Opaque {
    Opaque {
        chars_max,
        is_password: false,
    }
}

/// See [`opaque`].
#[derive(Debug)]
pub struct Opaque {
    chars_max: usize,
    is_password: bool,
}

impl Opaque {
    /// The same for a password, which forms do not show.
    pub fn password(self) -> Self {
        Self {
            is_password: true,
            ..self
        }
    }
}

impl Kind for Opaque {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Wrong> {
        match value.as_str() {
            Some(text) if text.chars().count() <= self.chars_max => Ok(text.to_owned()),
            Some(_) => Err("is too long".into()),
            None => Err("must be a string".into()),
        }
    }

    fn schema(&self) -> Value {
        let mut schema = json!({"type": "string"});
        if self.is_password {
            schema["format"] = json!("password");
        }
        schema["maxLength"] = json!(self.chars_max);
        schema
    }
}

/// An e-mail address, as far as its form shows: only a message sent there proves it.
pub fn email() -> Email {
    Email
}

/// See [`email`].
#[derive(Debug)]
pub struct Email;

impl Kind for Email {
    type Value = String;

    fn read(&self, value: &Value) -> Result<String, Wrong> {
        let is_address = |text: &&str| {
            let Some((name, host)) = text.split_once('@') else {
                return false;
            };
            text.chars().count() <= EMAIL_CHARS_MAX
                && text.chars().all(|c| is_printable(c) && !c.is_whitespace())
                && !name.is_empty()
                && !host.contains('@')
                && host.contains('.')
                && host.split('.').all(|label| !label.is_empty())
        };
        let text = value.as_str().filter(is_address).map(str::to_owned);
        text.ok_or("must be an e-mail address, such as name@example.org".into())
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "format": "email", "maxLength": EMAIL_CHARS_MAX})
    }
}

/// An integer within bounds. `5.0` is one, as in JSON Schema.
pub fn integer(range: RangeInclusive<i64>) -> Integer {
    Integer { range }
}

/// See [`integer`].
#[derive(Debug)]
pub struct Integer {
    range: RangeInclusive<i64>,
}

impl Kind for Integer {
    type Value = i64;

    fn read(&self, value: &Value) -> Result<i64, Wrong> {
        let number = whole(value).filter(|number| self.range.contains(number));
        number.ok_or_else(|| {
            let (low, high) = (self.range.start(), self.range.end());
            format!("must be an integer between {low} and {high}").into()
        })
    }

    fn schema(&self) -> Value {
        json!({"type": "integer", "minimum": self.range.start(), "maximum": self.range.end()})
    }
}

/// The number, if it is an integer by JSON Schema: one without a fraction, however it is written.
pub fn whole(value: &Value) -> Option<i64> {
    /// Up to here every integer has a floating-point number of its own.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= EXACT_MAX;
    let written_as_float = || value.as_f64().filter(exact).map(|number| number as i64);
    value.as_i64().or_else(written_as_float)
}

/// `true` or `false`.
pub fn boolean() -> Boolean {
    Boolean
}

/// See [`boolean`].
#[derive(Debug)]
pub struct Boolean;

impl Kind for Boolean {
    type Value = bool;

    fn read(&self, value: &Value) -> Result<bool, Wrong> {
        value.as_bool().ok_or("must be true or false".into())
    }

    fn schema(&self) -> Value {
        json!({"type": "boolean"})
    }

    fn of_text(&self, text: &str) -> Value {
        match text {
            "true" => true.into(),
            "false" => false.into(),
            _ => text.into(),
        }
    }
}

/// A time of RFC 3339.
pub fn timestamp() -> Time {
    Time
}

/// See [`timestamp`].
#[derive(Debug)]
pub struct Time;

impl Kind for Time {
    type Value = Timestamp;

    fn read(&self, value: &Value) -> Result<Timestamp, Wrong> {
        let time = value.as_str().and_then(Timestamp::parse_rfc3339);
        time.ok_or("must be a time of RFC 3339, such as 2026-01-25T10:00:00Z".into())
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "format": "date-time"})
    }
}

/// One of several values, each written as the word that `word` gives.
pub fn one_of<T: Copy + 'static>(all: &'static [T], word: fn(T) -> &'static str) -> OneOf<T> {
    OneOf { all, word }
}

/// See [`one_of`].
#[derive(Debug)]
pub struct OneOf<T: 'static> {
    all: &'static [T],
    word: fn(T) -> &'static str,
}

impl<T: Copy> OneOf<T> {
    fn words(&self) -> Vec<&'static str> {
        self.all.iter().map(|value| (self.word)(*value)).collect()
    }
}

impl<T: Copy> Kind for OneOf<T> {
    type Value = T;

    fn read(&self, value: &Value) -> Result<T, Wrong> {
        let text = value.as_str();
        let mut all = self.all.iter().copied();
        let found = all.find(|value| Some((self.word)(*value)) == text);
        found.ok_or_else(|| format!("must be one of {}", self.words().join(", ")).into())
    }

    fn schema(&self) -> Value {
        json!({"type": "string", "enum": self.words()})
    }
}

/// A list of this many values of one kind.
pub fn list<K: Kind>(count: RangeInclusive<usize>, item: K) -> List<K> {
    List { count, item }
}

/// See [`list`].
#[derive(Debug)]
pub struct List<K> {
    count: RangeInclusive<usize>,
    item: K,
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, value: &Value) -> Result<Vec<K::Value>, Wrong> {
        let (low, high) = (self.count.start(), self.count.end());
        let items = value
            .as_array()
            .filter(|items| self.count.contains(&items.len()));
        let items = items.ok_or_else(|| format!("must be a list of {low} to {high} entries"))?;
        let read = |value| {
            let item = self.item.read(value);
            item.map_err(|wrong| format!("each entry {wrong}").into())
        };
        items.iter().map(read).collect()
    }

    fn schema(&self) -> Value {
        let mut schema = json!({
            "type": "array", "items": self.item.schema(), "maxItems": self.count.end(),
        });
        if *self.count.start() > 0 {
            schema["minItems"] = json!(self.count.start());
        }
        schema
    }
}

/// A list of scopes, with at least one.
pub fn scopes() -> Scopes {
    Scopes
}

/// See [`scopes`].
#[derive(Debug)]
pub struct Scopes;

impl Kind for Scopes {
    type Value = ScopeSet;

    fn read(&self, value: &Value) -> Result<ScopeSet, Wrong> {
        let scope = |value: &Value| value.as_str()?.parse().ok();
        let set: Option<ScopeSet> = value
            .as_array()
            .and_then(|scopes| scopes.iter().map(scope).collect());
        match set {
            Some(set) if set.is_empty() => Err("must hold at least one".into()),
            Some(set) => Ok(set),
            None => {
                let known: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
                let known = known.join(", ");
                Err(format!("must be a list of scopes; known scopes: {known}").into())
            }
        }
    }

    fn schema(&self) -> Value {
        let known: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        let scope = json!({"type": "string", "enum": known});
        json!({"type": "array", "items": scope, "minItems": 1})
    }
}
