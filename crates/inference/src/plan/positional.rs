//! The positional form: `[0.5, 1.2]`, or a list of such lists.

use std::fmt;

use auspex_engine::RowBuffer;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

use super::{Cell, Plan, Shape, abandon};

/// A list of values or a list of such lists.
pub(super) struct Features<'p> {
    pub(super) plan: &'p Plan,
    pub(super) rows_max: usize,
    pub(super) rows: &'p mut RowBuffer,
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
                Ok(Shape::Values)
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
                Ok(Shape::ValueLists)
            }
        }
    }
}

/// What the first element of `features` turned out to be; a row has already been read.
enum Element {
    Value(f64),
    Row,
}

struct First<'p> {
    plan: &'p Plan,
    rows: &'p mut RowBuffer,
}

impl First<'_> {
    fn cell(&mut self) -> Cell<'_> {
        Cell {
            field: &self.plan.fields[0],
            texts: &mut self.rows.texts,
        }
    }
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

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<Element, E> {
        self.cell().visit_u64(value).map(Element::Value)
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<Element, E> {
        self.cell().visit_i64(value).map(Element::Value)
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<Element, E> {
        self.cell().visit_f64(value).map(Element::Value)
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Element, E> {
        self.cell().visit_str(text).map(Element::Value)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<Element, E> {
        self.cell().visit_bool(value).map(Element::Value)
    }

    fn visit_unit<E: Error>(mut self) -> Result<Element, E> {
        self.cell().visit_unit().map(Element::Value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Element, A::Error> {
        self.plan.positional(None, seq, self.rows)?;
        Ok(Element::Row)
    }
}

struct Row<'p> {
    plan: &'p Plan,
    rows: &'p mut RowBuffer,
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
