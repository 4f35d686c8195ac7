//! JSON and UBJSON files as one tree of values, before anything is known about their meaning.
//!
//! Model files are mostly long runs of numbers. A run stays where it is in the file's bytes and is
//! converted when a loader says what it wants: that keeps a hostile file from growing in memory,
//! and it lets a JSON number become the nearest `f32` directly, which XGBoost does too. (Going
//! through `f64` would round twice, and a threshold off by one bit sends rows the wrong way.)

mod json;
mod numbers;
mod ubjson;

pub(crate) use json::parse as parse_json;
pub(crate) use numbers::{Numbers, shorten};
pub(crate) use ubjson::parse as parse_ubjson;

use crate::forest::TooLarge;
use std::borrow::Cow;
use std::fmt;

/// How deeply lists and objects may nest; model files need about ten levels.
const DEPTH_MAX: usize = 64;

/// How many values a file may hold, a run of numbers counting as one.
const VALUES_MAX: usize = 8_000_000;

/// What is said of a document that ends before its end.
pub(crate) const CUT_OFF: &str = "the file is cut off here; copy or save it again";

/// Why a document was refused: place and reason, without the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same fault, seen from further out.
    #[must_use]
    pub(crate) fn inside(self, place: impl fmt::Display) -> Self {
        Self(format!("{place}: {}", self.0))
    }
}

impl From<TooLarge> for Fault {
    fn from(error: TooLarge) -> Self {
        Self(error.to_string())
    }
}

/// A value of a document that borrows the file's bytes.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    /// A JSON number as it is written.
    Numeral(&'a str),
    Text(Cow<'a, str>),
    Numbers(Numbers<'a>),
    List(Vec<Value<'a>>),
    Object(Object<'a>),
}

impl<'a> Value<'a> {
    fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) | Self::Numeral(_) => "a number",
            Self::Text(_) => "text",
            Self::Numbers(_) => "numbers",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    pub(crate) fn expected(&self, what: &str) -> Fault {
        Fault(format!("expected {what}, found {}", self.describe()))
    }

    pub(crate) fn as_object(&self) -> Result<&Object<'a>, Fault> {
        match self {
            Self::Object(object) => Ok(object),
            other => Err(other.expected("an object")),
        }
    }

    pub(crate) fn as_list(&self) -> Result<&[Value<'a>], Fault> {
        match self {
            Self::List(items) => Ok(items),
            Self::Numbers(numbers) if numbers.is_empty() => Ok(&[]),
            other => Err(other.expected("a list")),
        }
    }

    pub(crate) fn as_text(&self) -> Result<&str, Fault> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(other.expected("text")),
        }
    }

    /// A whole number, or a boolean as 0 or 1.
    pub(crate) fn as_integer(&self) -> Result<i64, Fault> {
        match self {
            Self::Integer(value) => Ok(*value),
            Self::Bool(value) => Ok(i64::from(*value)),
            Self::Numeral(text) => numbers::parse_integer(text),
            other => Err(other.expected("a whole number")),
        }
    }

    /// A number as the nearest `f32`.
    pub(crate) fn as_float(&self) -> Result<f32, Fault> {
        match self {
            Self::Float(value) => Ok(*value as f32),
            Self::Integer(value) => Ok(*value as f32),
            Self::Numeral(text) => numbers::parse_float(text),
            other => Err(other.expected("a number")),
        }
    }

    /// A number as the nearest `f64`.
    pub(crate) fn as_double(&self) -> Result<f64, Fault> {
        match self {
            Self::Float(value) => Ok(*value),
            Self::Integer(value) => Ok(*value as f64),
            Self::Numeral(text) => numbers::parse_double(text),
            other => Err(other.expected("a number")),
        }
    }

    /// Numbers as the nearest `f64`.
    pub(crate) fn to_doubles(&self) -> Result<Vec<f64>, Fault> {
        match self {
            Self::Numbers(numbers) => numbers.to_doubles(),
            Self::List(items) => items.iter().map(Self::as_double).collect(),
            other => Err(other.expected("numbers")),
        }
    }

    /// Numbers as the nearest `f32`.
    pub(crate) fn to_floats(&self) -> Result<Vec<f32>, Fault> {
        match self {
            Self::Numbers(numbers) => numbers.to_floats(),
            Self::List(items) => items.iter().map(Self::as_float).collect(),
            other => Err(other.expected("numbers")),
        }
    }

    /// Whole numbers, booleans counting as 0 and 1.
    pub(crate) fn to_integers(&self) -> Result<Vec<i64>, Fault> {
        match self {
            Self::Numbers(numbers) => numbers.to_integers(),
            Self::List(items) => items.iter().map(Self::as_integer).collect(),
            other => Err(other.expected("whole numbers")),
        }
    }
}

/// Named values; names are unique, since two readers could pick different ones of a pair.
#[derive(Debug, Default)]
pub(crate) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    fn new(mut entries: Vec<(Cow<'a, str>, Value<'a>)>) -> Result<Self, Fault> {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        match entries.array_windows().find(|[a, b]| a.0 == b.0) {
            Some([twice, _]) => Err(Fault(format!("`{}` is there twice", twice.0))),
            None => Ok(Self(entries)),
        }
    }

    /// In the order of their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Value<'a>> {
        let index = self
            .0
            .binary_search_by(|(key, _)| key.as_ref().cmp(name))
            .ok()?;
        Some(&self.0[index].1)
    }

    pub(crate) fn required(&self, name: &str) -> Result<&Value<'a>, Fault> {
        self.get(name)
            .ok_or_else(|| Fault(format!("`{name}` is missing")))
    }

    pub(crate) fn object(&self, name: &str) -> Result<&Object<'a>, Fault> {
        self.required(name)?.as_object().map_err(named(name))
    }

    pub(crate) fn list(&self, name: &str) -> Result<&[Value<'a>], Fault> {
        self.required(name)?.as_list().map_err(named(name))
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, Fault> {
        self.required(name)?.as_text().map_err(named(name))
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>, Fault> {
        self.required(name)?.to_floats().map_err(named(name))
    }

    pub(crate) fn doubles(&self, name: &str) -> Result<Vec<f64>, Fault> {
        self.required(name)?.to_doubles().map_err(named(name))
    }

    pub(crate) fn integer(&self, name: &str) -> Result<i64, Fault> {
        self.required(name)?.as_integer().map_err(named(name))
    }

    pub(crate) fn integers(&self, name: &str) -> Result<Vec<i64>, Fault> {
        self.required(name)?.to_integers().map_err(named(name))
    }

    /// A whole number that is written as text, as XGBoost writes its parameters.
    pub(crate) fn parameter(&self, name: &str) -> Result<Option<i64>, Fault> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Text(text) => numbers::parse_integer(text.trim()),
            other => other.as_integer(),
        };
        number.map(Some).map_err(named(name))
    }
}

/// Adds the name of the value a fault was found in.
pub(crate) fn named(name: &str) -> impl FnOnce(Fault) -> Fault + '_ {
    move |fault| fault.inside(format_args!("`{name}`"))
}

/// Counts what a parser makes, so that a small file cannot become a huge tree.
#[derive(Debug, Default)]
struct Budget {
    values: usize,
    depth: usize,
}

impl Budget {
    fn value(&mut self) -> Result<(), Fault> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Fault(format!("more than {VALUES_MAX} values")));
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault(format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }
}
