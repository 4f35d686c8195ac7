//! What a sample shows of one feature.

use std::collections::BTreeSet;

use auspex_engine::{Feature, FeatureKind};
use serde_json::{Number, Value};

use super::date::is_date;
use crate::table::{self, MISSING};

/// More different texts than these are no category.
const TEXTS_MAX: usize = 1000;
/// How many texts that the model does not know are named.
const STRANGERS_MAX: usize = 5;

/// A value of a sample.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Absent,
    /// A cell of a table.
    Text(String),
    Json(Value),
}

impl Cell {
    /// Whether it is one of the signs for nothing that pandas reads as such; a category of that name
    /// is one all the same.
    pub(super) fn is_missing(&self, kind: &FeatureKind) -> bool {
        match self {
            Self::Absent | Self::Json(Value::Null) => true,
            Self::Json(_) => false,
            Self::Text(text) => {
                let is_known =
                    || matches!(kind, FeatureKind::Category(values) if values.contains(text));
                MISSING.contains(&text.as_str()) && !is_known()
            }
        }
    }
}

/// Numbers that people write for a missing value.
const SENTINELS: [f64; 11] = [
    -1.0, -9.0, -99.0, -999.0, -9999.0, -99999.0, 999.0, 9999.0, 99999.0, 999_999.0, -999_999.0,
];

/// A feature of the model, and what was seen of it.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: FeatureKind,
    /// Rows without it.
    pub(super) absent: u64,
    /// Rows in which it is null or a sign for nothing.
    pub(super) missing: u64,
    pub(super) numbers: u64,
    integers: u64,
    booleans: u64,
    texts: u64,
    /// How many of the texts are dates, and the first of these.
    dates: u64,
    date: Option<String>,
    is_table: bool,
    pub(super) min: f64,
    pub(super) max: f64,
    /// The least number above `min`, and the greatest below `max`.
    inner: (f64, f64),
    /// A number that is written like the code of something: with zeros before it.
    pub(super) padded: Option<String>,
    /// The different cells of a table, or texts of records, unless they are too many.
    different: Option<BTreeSet<String>>,
    /// Texts that are no category of the model.
    pub(super) strangers: BTreeSet<String>,
}

/// What a feature is taken for.
#[derive(Debug, PartialEq)]
pub(super) enum Guess {
    Number,
    Integer,
    Boolean,
    Text,
    /// Of any type: the model makes nothing of it.
    Any,
    /// Dates such as this one, of which the model takes some number.
    Dates(String),
    /// Of the values that the model file has.
    Category,
    /// Of these values, whose codes nobody knows.
    Codes(Vec<String>),
}

impl Column {
    pub(super) fn new(feature: &Feature) -> Self {
        Self {
            name: feature.name.clone(),
            kind: feature.kind.clone(),
            absent: 0,
            missing: 0,
            numbers: 0,
            integers: 0,
            booleans: 0,
            texts: 0,
            dates: 0,
            date: None,
            is_table: false,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            inner: (f64::INFINITY, f64::NEG_INFINITY),
            padded: None,
            different: Some(BTreeSet::new()),
            strangers: BTreeSet::new(),
        }
    }

    /// Takes a value; `missing` is the number that stands for none.
    pub(super) fn add(&mut self, cell: &Cell, missing: Option<f64>) -> Result<(), String> {
        if self.kind == FeatureKind::Unused {
            return Ok(());
        }
        if matches!(cell, Cell::Absent) {
            self.absent += 1;
            return Ok(());
        }
        if cell.is_missing(&self.kind) {
            self.missing += 1;
            return Ok(());
        }
        match cell {
            Cell::Absent | Cell::Json(Value::Null) => {}
            Cell::Json(Value::Bool(_)) => self.booleans += 1,
            Cell::Json(Value::Number(number))
                if matches!(self.kind, FeatureKind::TextOrInteger { .. }) =>
            {
                self.add_text(&number.to_string());
            }
            Cell::Json(Value::Number(number)) => {
                if self.kind == FeatureKind::Code {
                    self.remember(&number.to_string());
                }
                self.add_number(number, missing);
            }
            Cell::Json(Value::String(text)) => self.add_text(text),
            Cell::Json(Value::Array(_) | Value::Object(_)) => {
                return Err("has a list or an object in it, which is no value of a feature; pandas writes records with to_json(orient=\"records\", lines=True)".into());
            }
            Cell::Text(text) => {
                self.is_table = true;
                if matches!(self.kind, FeatureKind::Category(_)) || self.kind.is_text() {
                    self.add_text(text);
                } else if table::boolean(text).is_some() {
                    self.booleans += 1;
                    self.remember(text);
                } else if let Some(number) = table::number(text) {
                    if matches!(text.trim().as_bytes(), [b'0', b'0'..=b'9', ..]) {
                        self.padded.get_or_insert_with(|| text.trim().to_owned());
                    }
                    self.add_number(&number, missing);
                    self.remember(text);
                } else if text.trim().parse::<f64>().is_ok() {
                    return Err("has a number that is not finite, which JSON has not".into());
                } else {
                    self.add_text(text);
                }
            }
        }
        Ok(())
    }

    fn add_number(&mut self, number: &Number, missing: Option<f64>) {
        let value = number.as_f64().unwrap_or(f64::NAN);
        if missing.is_some_and(|missing| value as f32 == missing as f32) {
            self.missing += 1;
            return;
        }
        self.numbers += 1;
        self.integers += u64::from(!number.is_f64());
        let (min, max) = (self.min.min(value), self.max.max(value));
        for seen in [value, self.min, self.max]
            .into_iter()
            .filter(|seen| seen.is_finite())
        {
            if seen > min {
                self.inner.0 = self.inner.0.min(seen);
            }
            if seen < max {
                self.inner.1 = self.inner.1.max(seen);
            }
        }
        (self.min, self.max) = (min, max);
    }

    /// A number that may stand for a missing value, since it is far from all others.
    pub(super) fn sentinel(&self) -> Option<f64> {
        match self.sentinels() {
            (true, _) => Some(self.min),
            (_, true) => Some(self.max),
            _ => None,
        }
    }

    /// Whether the least number may stand for a missing value, or the greatest.
    fn sentinels(&self) -> (bool, bool) {
        let is_far = |end: f64, next: f64| {
            SENTINELS.contains(&end) && next.is_finite() && (end - next).abs() > end.abs() / 2.0
        };
        (
            self.min < 0.0 && is_far(self.min, self.inner.0),
            self.max > 0.0 && is_far(self.max, self.inner.1),
        )
    }

    /// The least and the greatest number, without one that may stand for a missing value.
    pub(super) fn range(&self) -> (f64, f64) {
        match self.sentinels() {
            (true, _) => (self.inner.0, self.max),
            (_, true) => (self.min, self.inner.1),
            _ => (self.min, self.max),
        }
    }

    /// The number that may stand for a missing value, if a cell has it.
    pub(super) fn suspected(&self, cell: &Cell) -> Option<f64> {
        let number = match cell {
            Cell::Absent => None,
            Cell::Text(text) => table::number(text),
            Cell::Json(value) => value.as_number().cloned(),
        };
        let number = number?.as_f64();
        self.sentinel().filter(|sentinel| number == Some(*sentinel))
    }

    fn add_text(&mut self, text: &str) {
        self.texts += 1;
        match &self.kind {
            FeatureKind::Category(values) => {
                if self.strangers.len() < STRANGERS_MAX && !values.iter().any(|known| known == text)
                {
                    self.strangers.insert(text.to_owned());
                }
            }
            FeatureKind::Number | FeatureKind::Integer | FeatureKind::Boolean if is_date(text) => {
                self.dates += 1;
                self.date.get_or_insert_with(|| text.to_owned());
                self.remember(text);
            }
            _ => self.remember(text),
        }
    }

    fn remember(&mut self, text: &str) {
        let Some(different) = &mut self.different else {
            return;
        };
        if !different.contains(text) {
            different.insert(text.to_owned());
        }
        if different.len() > TEXTS_MAX {
            self.different = None;
        }
    }

    /// What it is taken for.
    pub(super) fn guess(&self) -> Result<Guess, String> {
        match &self.kind {
            FeatureKind::Category(_) => return Ok(Guess::Category),
            FeatureKind::Unused => return Ok(Guess::Any),
            kind if kind.is_text() => return Ok(Guess::Text),
            FeatureKind::Code => {
                let seen = self.different.iter().flatten();
                return Ok(Guess::Codes(seen.cloned().collect()));
            }
            _ => {}
        }
        let others = self.numbers + self.booleans;
        if self.texts > 0 {
            if let (0, Some(date)) = (others, &self.date)
                && self.dates == self.texts
            {
                return Ok(Guess::Dates(date.clone()));
            }
            // A text among numbers is more likely a mistake than a category.
            if others > 0 && (!self.is_table || others > self.texts) {
                return Err("has texts among its numbers".into());
            }
            return match &self.different {
                Some(values) => Ok(Guess::Codes(values.iter().cloned().collect())),
                None => Err(format!(
                    "has more than {TEXTS_MAX} different texts, and the model takes a number there"
                )),
            };
        }
        let is_flag = self.numbers == 0 || self.min >= 0.0 && self.max <= 1.0;
        let is_whole = self.integers == self.numbers;
        if self.booleans > 0 {
            return match is_flag && is_whole {
                true => Ok(Guess::Boolean),
                false => Err("has numbers beside true and false".into()),
            };
        }
        Ok(match self.kind {
            FeatureKind::Boolean if is_flag && is_whole => Guess::Boolean,
            FeatureKind::Integer | FeatureKind::Boolean if is_whole => Guess::Integer,
            _ if self.numbers > 0 && is_whole => Guess::Integer,
            _ => Guess::Number,
        })
    }
}
