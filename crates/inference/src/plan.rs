//! The fast reader: JSON text straight into a row of numbers.
//!
//! It guesses that fields come in the same order as the last time, allocates nothing per field, and
//! gives up at the first thing it did not expect, without saying why: the slow reader in `validate`
//! does that. It must accept what that one accepts, with the same numbers. Records in their plainest
//! form never reach the JSON library: `scan` takes those.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use auspex_engine::{RowBuffer, Texts};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::schema::{Field, Schema};

mod positional;
mod scan;

use positional::Features;

/// The key of the positional form.
pub(crate) const FEATURES: &str = "features";
/// The key that chooses a version in the positional form.
pub(crate) const MODEL_VERSION: &str = "model_version";

/// What a body held, apart from its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One record.
    Record,
    /// A list of records, even of one.
    Records,
    /// One list of values by position.
    Values,
    /// A list of such lists, even of one.
    ValueLists,
}

/// Memory that is reused from request to request.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) rows: RowBuffer,
    seen: Vec<u64>,
}

/// A schema made ready for reading.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Features first, then unused fields.
    names: Box<[Box<str>]>,
    /// The names as they stand in JSON text.
    quoted: Box<[Box<[u8]>]>,
    fields: Box<[Field]>,
    by_name: HashMap<Box<str>, u32>,
    /// Bits of the fields a record must have.
    required: Box<[u64]>,
    /// A row before any field has been read.
    template: Box<[f64]>,
    /// Which field came after each one the last time; the last entry is for the first field.
    next: Box<[AtomicU32]>,
}

impl Plan {
    pub(crate) fn new(schema: &Schema) -> Self {
        let features = schema.features.iter().map(|field| &field.name);
        let names: Box<[Box<str>]> = features
            .chain(schema.unused.iter().map(|unused| &unused.name))
            .map(|name| name.as_str().into())
            .collect();
        let mut required = vec![0; names.len().div_ceil(64)];
        for (index, field) in schema.features.iter().enumerate() {
            if field.required() {
                required[index / 64] |= 1 << (index % 64);
            }
        }
        let successor = |index: usize| AtomicU32::new(((index + 1) % (names.len() + 1)) as u32);
        let mut next: Box<[AtomicU32]> = (0..=names.len()).map(successor).collect();
        *next[names.len()].get_mut() = 0;
        *next[names.len() - 1].get_mut() = 0;
        Self {
            quoted: names.iter().map(|name| quoted(name)).collect(),
            by_name: names.iter().cloned().zip(0..).collect(),
            template: schema
                .features
                .iter()
                .map(|field| field.absent().unwrap_or(f64::NAN))
                .collect(),
            fields: schema.features.clone().into(),
            required: required.into(),
            next,
            names,
        }
    }

    /// The name of a feature as it stands in JSON text.
    pub(crate) fn quoted(&self, feature: usize) -> &[u8] {
        &self.quoted[feature]
    }

    /// Features in a row.
    pub(crate) fn width(&self) -> usize {
        self.fields.len()
    }

    /// Reads a whole request body into `scratch.rows`, at most `rows_max` of them. `is_version`
    /// says whether a `model_version` in it means the model of this plan.
    pub(crate) fn read(
        &self,
        text: &str,
        rows_max: usize,
        is_version: &dyn Fn(&str) -> bool,
        scratch: &mut Scratch,
    ) -> Option<Shape> {
        scratch.seen.resize(self.required.len(), 0);
        scratch.rows.clear();
        if let Some(shape) = scan::scan(self, text, rows_max, scratch) {
            return Some(shape);
        }
        scratch.rows.clear();
        let mut json = serde_json::Deserializer::from_str(text);
        let body = Body {
            plan: self,
            rows_max,
            is_version,
            scratch,
        };
        let shape = json.deserialize_any(body).ok()?;
        json.end().ok()?;
        Some(shape)
    }

    /// The field of that name, guessing that it follows field `at`.
    #[inline]
    fn find(&self, name: &str, at: usize) -> Option<usize> {
        let guess = self.next[at].load(Ordering::Relaxed) as usize;
        if *self.names[guess] == *name {
            return Some(guess);
        }
        let found = *self.by_name.get(name)?;
        self.next[at].store(found, Ordering::Relaxed);
        Some(found as usize)
    }

    /// Reads the rest of a record whose first key is known already, and adds its row.
    fn record<'de, A: MapAccess<'de>>(
        &self,
        first: Option<usize>,
        mut map: A,
        scratch: &mut Scratch,
    ) -> Result<(), A::Error> {
        let RowBuffer { values, texts } = &mut scratch.rows;
        let begin = values.len();
        values.extend_from_slice(&self.template);
        let row = &mut values[begin..];
        let seen = &mut scratch.seen[..self.required.len()];
        seen.fill(0);
        let mut at = first;
        while let Some(index) = at {
            let bit = 1 << (index % 64);
            if seen[index / 64] & bit != 0 {
                return Err(abandon());
            }
            seen[index / 64] |= bit;
            match self.fields.get(index) {
                Some(field) => row[index] = map.next_value_seed(Cell { field, texts })?,
                None => map.next_value_seed(Scalar)?,
            }
            at = map.next_key_seed(Key {
                plan: self,
                at: index,
            })?;
        }
        let complete = seen
            .iter()
            .zip(&self.required)
            .all(|(seen, all)| seen & all == *all);
        complete.then_some(()).ok_or_else(abandon)
    }

    /// Reads a list of values, of which the first may be known already, and adds its row.
    fn positional<'de, A: SeqAccess<'de>>(
        &self,
        first: Option<f64>,
        mut seq: A,
        rows: &mut RowBuffer,
    ) -> Result<(), A::Error> {
        let RowBuffer { values, texts } = rows;
        values.extend(first);
        for field in &self.fields[usize::from(first.is_some())..] {
            let value = seq.next_element_seed(Cell { field, texts })?;
            values.push(value.ok_or_else(abandon)?);
        }
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(abandon()),
        }
    }
}

/// A name between quotation marks, with escapes where it needs them.
fn quoted(name: &str) -> Box<[u8]> {
    serde_json::to_vec(name)
        .expect("any text is a JSON string")
        .into()
}

/// An empty error: nobody will see it.
#[cold]
fn abandon<E: Error>() -> E {
    E::custom("")
}

struct Body<'p> {
    plan: &'p Plan,
    rows_max: usize,
    is_version: &'p dyn Fn(&str) -> bool,
    scratch: &'p mut Scratch,
}

impl<'de> Visitor<'de> for Body<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record or a list of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let Some(mut key) = map.next_key_seed(TopKey { plan: self.plan })? else {
            self.plan.record(None, map, self.scratch)?;
            return Ok(Shape::Record);
        };
        let (mut shape, mut versions) = (None, 0);
        loop {
            match key {
                Top::Field(index) if shape.is_none() && versions == 0 => {
                    self.plan.record(Some(index), map, self.scratch)?;
                    return Ok(Shape::Record);
                }
                Top::Features if shape.is_none() => {
                    let list = Features {
                        plan: self.plan,
                        rows_max: self.rows_max,
                        rows: &mut self.scratch.rows,
                    };
                    shape = Some(map.next_value_seed(list)?);
                }
                Top::Version if versions == 0 => {
                    map.next_value_seed(VersionIs(self.is_version))?;
                    versions += 1;
                }
                _ => return Err(abandon()),
            }
            match map.next_key_seed(TopKey { plan: self.plan })? {
                Some(next) => key = next,
                None => return shape.ok_or_else(abandon),
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let mut count = 0;
        while seq
            .next_element_seed(Record {
                plan: self.plan,
                scratch: self.scratch,
            })?
            .is_some()
        {
            count += 1;
            if count > self.rows_max {
                return Err(abandon());
            }
        }
        (count > 0).then_some(Shape::Records).ok_or_else(abandon)
    }
}

/// The first key of an object decides what it is.
enum Top {
    Field(usize),
    Features,
    Version,
}

struct TopKey<'p> {
    plan: &'p Plan,
}

impl<'de> DeserializeSeed<'de> for TopKey<'_> {
    type Value = Top;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Top, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for TopKey<'_> {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Top, E> {
        match self.plan.find(name, self.plan.names.len()) {
            Some(index) => Ok(Top::Field(index)),
            None if name == FEATURES => Ok(Top::Features),
            None if name == MODEL_VERSION => Ok(Top::Version),
            None => Err(abandon()),
        }
    }
}

struct Key<'p> {
    plan: &'p Plan,
    at: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<usize, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    #[inline]
    fn visit_str<E: Error>(self, name: &str) -> Result<usize, E> {
        self.plan.find(name, self.at).ok_or_else(abandon)
    }
}

struct Record<'p> {
    plan: &'p Plan,
    scratch: &'p mut Scratch,
}

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let first = map.next_key_seed(Key {
            plan: self.plan,
            at: self.plan.names.len(),
        })?;
        self.plan.record(first, map, self.scratch)
    }
}

/// One value of a row.
struct Cell<'p> {
    field: &'p Field,
    /// Where texts go.
    texts: &'p mut Texts,
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = f64;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<f64, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Cell<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    #[inline]
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        self.field
            .integer(value, false, self.texts)
            .ok_or_else(abandon)
    }

    #[inline]
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        let worth = self
            .field
            .integer(value.unsigned_abs(), value < 0, self.texts);
        worth.ok_or_else(abandon)
    }

    #[inline]
    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        self.field.number(value).ok_or_else(abandon)
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        self.field.text(text, self.texts).ok_or_else(abandon)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<f64, E> {
        self.field.boolean(value, self.texts).ok_or_else(abandon)
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        self.field.null().ok_or_else(abandon)
    }
}

/// A value that is not used, but must still be a single one.
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Scalar {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

struct VersionIs<'p>(&'p dyn Fn(&str) -> bool);

impl<'de> DeserializeSeed<'de> for VersionIs<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for VersionIs<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a version")
    }

    fn visit_str<E: Error>(self, version: &str) -> Result<(), E> {
        (self.0)(version).then_some(()).ok_or_else(abandon)
    }
}

#[cfg(test)]
mod tests;
