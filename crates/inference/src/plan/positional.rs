//! The positional form: `[0.5, 1.2]`, or a list of such lists.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::{Cell, Plan, Shape, abandon};

/// A list of values or a list of such lists.
pub(super) struct Features<'p> {
    pub(super) plan: &'p Plan,
    pub(super) rows_max: usize,
    pub(super) rows: &'p mut Vec<f64>,
}

impl<'de> DeserializeSeed<'de> for Features<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Shape, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Features<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
        let first = seq.next_element_seed(First {
            plan: self.plan,
            rows: self.rows,
        })?;
        match first.ok_or_else(abandon)? {
            Element::Value(value) => {
                self.plan.positional(Some(value), seq, self.rows)?;
                Ok(Shape::Single)
            }
            Element::Row => {
                let mut count = 1;
                while seq
                    .next_element_seed(Row {
                        plan: self.plan,
                        rows: self.rows,
                    })?
                    .is_some()
                {
                    count += 1;
                    if count > self.rows_max {
                        return Err(abandon());
                    }
                }
                Ok(Shape::List)
            }
        }
    }
}

/// What the first element of `features` turned out to be; a row is read already.
enum Element {
    Value(f64),
    Row,
}

struct First<'p> {
    plan: &'p Plan,
    rows: &'p mut Vec<f64>,
}

impl<'de> DeserializeSeed<'de> for First<'_> {
    type Value = Element;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Element, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for First<'_> {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Element, E> {
        Cell(&self.plan.fields[0])
            .visit_u64(value)
            .map(Element::Value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Element, E> {
        Cell(&self.plan.fields[0])
            .visit_i64(value)
            .map(Element::Value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Element, E> {
        Cell(&self.plan.fields[0])
            .visit_f64(value)
            .map(Element::Value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
        Cell(&self.plan.fields[0])
            .visit_str(text)
            .map(Element::Value)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Element, E> {
        Cell(&self.plan.fields[0])
            .visit_bool(value)
            .map(Element::Value)
    }

    fn visit_unit<E: Error>(self) -> Result<Element, E> {
        Cell(&self.plan.fields[0]).visit_unit().map(Element::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
        self.plan.positional(None, seq, self.rows)?;
        Ok(Element::Row)
    }
}

struct Row<'p> {
    plan: &'p Plan,
    rows: &'p mut Vec<f64>,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.plan.positional(None, seq, self.rows)
    }
}
