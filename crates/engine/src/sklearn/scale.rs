//! Steps that compute with numbers column by column or row by row.

use super::build::{Builder, Built, Columns, per_column};
use super::steps::{Transform, refuse_missing};
use crate::document::Fault;
use crate::pickle::View;
use crate::{RowRefusal, Rows};

/// Operations on each value, one after the other, with a number for each column.
#[derive(Debug)]
struct Arithmetic {
    width: usize,
    takes_missing: bool,
    operations: Vec<Operation>,
}

#[derive(Debug)]
enum Operation {
    Subtract(Vec<f64>),
    Add(Vec<f64>),
    Multiply(Vec<f64>),
    Divide(Vec<f64>),
    Clip(f64, f64),
    /// 1 above the threshold, else 0.
    Above(f64),
}

impl Operation {
    fn apply(&self, column: usize, value: f64) -> f64 {
        match self {
            Self::Subtract(numbers) => value - numbers[column],
            Self::Add(numbers) => value + numbers[column],
            Self::Multiply(numbers) => value * numbers[column],
            Self::Divide(numbers) => value / numbers[column],
            // Not `clamp`, which panics where the bounds of a damaged file do not ascend.
            Self::Clip(low, _) if value < *low => *low,
            Self::Clip(_, high) if value > *high => *high,
            Self::Clip(..) => value,
            Self::Above(threshold) => f64::from(u8::from(value > *threshold)),
        }
    }
}

impl Transform for Arithmetic {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        if !self.takes_missing {
            refuse_missing(rows, f64::MAX)?;
        }
        for index in 0..rows.len() {
            let values = rows.row(index).iter().enumerate();
            out.extend(values.map(|(column, value)| {
                let operations = self.operations.iter();
                operations.fold(*value, |value, operation| operation.apply(column, value))
            }));
        }
        Ok(())
    }
}

/// Rows divided by their own size.
#[derive(Debug)]
struct Normalizer {
    width: usize,
    norm: Norm,
}

#[derive(Debug)]
enum Norm {
    Sum,
    Euclidean,
    Greatest,
}

impl Transform for Normalizer {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        for index in 0..rows.len() {
            let row = rows.row(index);
            let sizes = row.iter().map(|value| value.abs());
            let norm = match self.norm {
                Norm::Sum => sizes.sum(),
                Norm::Euclidean => row.iter().map(|value| value * value).sum::<f64>().sqrt(),
                Norm::Greatest => sizes.fold(0.0, f64::max),
            };
            let norm = if norm == 0.0 { 1.0 } else { norm };
            out.extend(row.iter().map(|value| value / norm));
        }
        Ok(())
    }
}

/// Reads one of these steps; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    let numbers = |name: &str| per_column(view, name, columns);
    let has = |name: &str| Ok::<_, Fault>(view.get(name).is_some_and(|value| !value.is_none()));
    let mut operations = Vec::new();
    match name {
        "StandardScaler" => {
            if view.boolean("with_mean")? {
                operations.push(Operation::Subtract(numbers("mean_")?));
            }
            if view.boolean("with_std")? {
                operations.push(Operation::Divide(numbers("scale_")?));
            }
        }
        "MinMaxScaler" => {
            operations.push(Operation::Multiply(numbers("scale_")?));
            operations.push(Operation::Add(numbers("min_")?));
            if has("clip")? && view.boolean("clip")? {
                let range = view.list("feature_range")?;
                let bounds: Vec<f64> = range.iter().filter_map(|bound| bound.as_number()).collect();
                let [low, high] = bounds[..] else {
                    return Err(Fault::new("`feature_range`: expected two numbers"));
                };
                operations.push(Operation::Clip(low, high));
            }
        }
        "MaxAbsScaler" => {
            operations.push(Operation::Divide(numbers("scale_")?));
            if has("clip")? && view.boolean("clip")? {
                operations.push(Operation::Clip(-1.0, 1.0));
            }
        }
        "RobustScaler" => {
            if view.boolean("with_centering")? {
                operations.push(Operation::Subtract(numbers("center_")?));
            }
            if view.boolean("with_scaling")? {
                operations.push(Operation::Divide(numbers("scale_")?));
            }
        }
        "Binarizer" => operations.push(Operation::Above(view.number("threshold")?)),
        "Normalizer" => {
            builder.take_numbers(columns)?;
            let norm = match view.text("norm")? {
                "l1" => Norm::Sum,
                "l2" => Norm::Euclidean,
                "max" => Norm::Greatest,
                _ => return Err(Fault::new("`norm` is unknown")),
            };
            let width = columns.len();
            let after = columns.mixed(width);
            return Ok(Some((Box::new(Normalizer { width, norm }), after)));
        }
        _ => return Ok(None),
    }
    builder.take_numbers(columns)?;
    let middles = match name {
        "StandardScaler" if has("mean_")? => numbers("mean_")?,
        "RobustScaler" if has("center_")? => numbers("center_")?,
        _ => Vec::new(),
    };
    for (column, middle) in columns.list.iter().zip(middles) {
        builder.typify(*column, middle);
    }
    let width = columns.len();
    let step = Arithmetic {
        width,
        takes_missing: name != "Binarizer",
        operations,
    };
    Ok(Some((Box::new(step), columns.changed())))
}
