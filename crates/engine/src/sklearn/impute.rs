//! Missing values that are filled in.

use super::build::{Builder, Built, Columns, Use};
use super::steps::Transform;
use super::{NONE, is_none};
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// What stands in for missing values, column by column, and whether there was one.
#[derive(Debug)]
struct Imputer {
    /// What counts as missing in each column; NaN where NaN does.
    missing: Vec<f64>,
    /// Whether the library gets Python's objects, and does not turn `None` into NaN.
    tells_none: bool,
    /// Which columns remain, and with what.
    fills: Vec<(u32, f64)>,
    indicated: Vec<u32>,
}

impl Imputer {
    fn is_missing(&self, column: usize, value: f64) -> bool {
        let missing = self.missing[column];
        let is_same = !self.tells_none || is_none(value) == is_none(missing);
        value == missing || value.is_nan() && missing.is_nan() && is_same
    }

    /// Whether the library refuses a value: NaN where another stands for missing ones.
    fn is_refused(&self, column: usize, value: f64) -> bool {
        let is_passed = self.tells_none && is_none(value);
        value.is_nan() && !is_passed && !self.is_missing(column, value)
    }
}

impl Transform for Imputer {
    fn width(&self) -> usize {
        self.fills.len() + self.indicated.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        for index in 0..rows.len() {
            let row = rows.row(index);
            let mut values = row.iter().enumerate();
            if values.any(|(column, value)| self.is_refused(column, *value)) {
                return Err(RowRefusal {
                    row: index,
                    reason: "has a missing value where another value stands for those".into(),
                });
            }
            out.extend(self.fills.iter().map(|(column, fill)| {
                let column = *column as usize;
                if self.is_missing(column, row[column]) {
                    *fill
                } else {
                    row[column]
                }
            }));
            out.extend(self.indicated.iter().map(|column| {
                let column = *column as usize;
                f64::from(u8::from(self.is_missing(column, row[column])))
            }));
        }
        Ok(())
    }
}

pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let statistics = view.array("statistics_")?;
    if statistics.len() != columns.len() {
        return Err(Fault(format!(
            "`statistics_`: {} for {} columns",
            statistics.len(),
            columns.len()
        )));
    }
    let stands_for_missing = view.required("missing_values")?;
    let keeps_empty = view.get("keep_empty_features").and_then(View::as_bool) == Some(true);
    let mut step = Imputer {
        missing: Vec::with_capacity(columns.len()),
        tells_none: statistics.is_of_objects(),
        fills: Vec::with_capacity(columns.len()),
        indicated: Vec::new(),
    };
    let mut after = Vec::new();
    for (index, column) in columns.list.iter().enumerate() {
        let (fill, kind) = match (statistics.text(index), statistics.number(index)) {
            (Some(text), _) => (builder.word(&text), Some(Use::Text)),
            (_, Some(number)) => (number, Some(Use::Number)),
            _ if let Some(flag) = statistics.boolean(index) => {
                (f64::from(u8::from(flag)), Some(Use::Boolean))
            }
            // The most frequent value, which does not tell what others there are.
            _ if statistics.is_none(index) => {
                builder.take_none(*column);
                (NONE, None)
            }
            _ => {
                return Err(Fault(format!(
                    "`statistics_`: column {index} has neither a number nor a text"
                )));
            }
        };
        let missing = match (stands_for_missing.as_text(), stands_for_missing.as_number()) {
            (Some(text), _) if kind == Some(Use::Text) => builder.word(text),
            (None, Some(number)) => number,
            (None, None) if stands_for_missing.is_none() => {
                builder.take_none(*column);
                NONE
            }
            _ => {
                return Err(stands_for_missing.expected("a number, or NaN"))
                    .map_err(named("missing_values"));
            }
        };
        if let Some(kind) = kind {
            builder.take(*column, kind)?;
        }
        // A constant that fills gaps need not be like any value.
        if view.get("strategy").and_then(View::as_text) != Some("constant") {
            builder.typify(*column, fill);
        }
        step.missing.push(missing);
        if !fill.is_nan() || is_none(fill) || keeps_empty {
            step.fills.push((index as u32, fill));
            after.push(*column);
        }
    }
    if view.boolean("add_indicator")? {
        step.indicated = indicated(view.required("indicator_")?, columns.len())?;
        let indicated = columns.at(&step.indicated).changed();
        after.extend(indicated.list);
    }
    Ok((Box::new(step), Columns::new(after)))
}

/// The columns of which is told whether a value was missing.
pub(super) fn indicated(indicator: View<'_, '_>, width: usize) -> Result<Vec<u32>, Fault> {
    let features = Array::read(indicator.required("features_")?).map_err(named("features_"))?;
    let feature = |index: i64| {
        let feature = u32::try_from(index)
            .ok()
            .filter(|index| (*index as usize) < width);
        feature.ok_or_else(|| Fault(format!("`features_`: {index} is outside 0..{width}")))
    };
    features.integers()?.into_iter().map(feature).collect()
}
