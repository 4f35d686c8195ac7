//! Missing values that are filled in from the nearest rows that have them.

use super::build::{Builder, Built, Columns, Use};
use super::impute::indicated;
use super::neighbors::{Weighing, least, neighbors};
use super::steps::Transform;
use super::version::Version;
use crate::document::{Fault, named};
use crate::pickle::View;
use crate::{RowRefusal, Rows};

/// The first version in which rows without a distance never count.
const DISTANCES_ARE_NEEDED: Version = Version(1, 6);

/// The columns that remain are filled in; then follows in which others a value was missing.
#[derive(Debug)]
struct Donors {
    width: usize,
    /// What stands for a missing value; NaN where NaN does.
    missing: f64,
    /// The rows that were fitted, in which NaN is a missing value.
    kept: Vec<f64>,
    count: usize,
    weighing: Weighing,
    needs_distances: bool,
    /// Which columns remain, and with what mean; those without one are 0.
    columns: Vec<(usize, f64)>,
    indicated: Vec<u32>,
}

impl Donors {
    /// How far away each kept row is, by the columns that both have; NaN without one.
    fn distances(&self, row: &[f64]) -> Vec<f64> {
        let distance = |kept: &[f64]| {
            let (mut sum, mut count) = (0.0, 0.0);
            for (x, y) in row.iter().zip(kept) {
                if !x.is_nan() && !y.is_nan() {
                    sum += (x - y) * (x - y);
                    count += 1.0;
                }
            }
            (sum / count * self.width as f64).sqrt()
        };
        self.kept.chunks_exact(self.width).map(distance).collect()
    }

    /// What a column has in the nearest rows.
    fn fill(&self, column: usize, mean: f64, distances: &[f64]) -> f64 {
        let of = |index: usize| self.kept[index * self.width + column];
        let donors = (0..distances.len()).filter(|index| !of(*index).is_nan());
        let donors: Vec<usize> = donors.collect();
        // NaN is greater than any distance, whatever its sign.
        let far: Vec<f64> = donors.iter().map(|index| distances[*index].abs()).collect();
        if far.iter().all(|distance| distance.is_nan()) {
            return mean;
        }
        let nearest = least(&far, self.count);
        let distances: Vec<f64> = nearest.iter().map(|place| far[*place]).collect();
        let (mut sum, mut all) = (0.0, 0.0);
        let weights = self.weighing.weights(&distances).into_iter();
        for ((place, distance), weight) in nearest.iter().zip(&distances).zip(weights) {
            let is_out = weight.is_nan() || self.needs_distances && distance.is_nan();
            if !is_out {
                sum += of(donors[*place]) * weight;
                all += weight;
            }
        }
        sum / all
    }
}

impl Transform for Donors {
    fn width(&self) -> usize {
        self.columns.len() + self.indicated.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        for index in 0..rows.len() {
            let row = rows.row(index);
            if !self.missing.is_nan() && row.iter().any(|value| value.is_nan()) {
                return Err(RowRefusal {
                    row: index,
                    reason: "has a missing value where another value stands for those".into(),
                });
            }
            let known = |value: &f64| {
                if *value == self.missing {
                    f64::NAN
                } else {
                    *value
                }
            };
            let row: Vec<f64> = row.iter().map(known).collect();
            let lacks = |(column, mean): &(usize, f64)| row[*column].is_nan() && !mean.is_nan();
            let distances = match self.columns.iter().any(lacks) {
                true => self.distances(&row),
                false => Vec::new(),
            };
            out.extend(self.columns.iter().map(|(column, mean)| {
                match row[*column] {
                    // Without a single value in training, it is nothing.
                    _ if mean.is_nan() => 0.0,
                    value if value.is_nan() => self.fill(*column, *mean, &distances),
                    value => value,
                }
            }));
            out.extend(
                self.indicated
                    .iter()
                    .map(|column| f64::from(u8::from(row[*column as usize].is_nan()))),
            );
        }
        Ok(())
    }
}

pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    let width = columns.len();
    if view.text("metric")? != "nan_euclidean" {
        return Err(Fault::new(
            "`metric` other than \"nan_euclidean\" is not supported",
        ));
    }
    let missing = view.number("missing_values")?;
    let fitted = view.array("_fit_X")?;
    match *fitted.shape() {
        [count, of] if count > 0 && of == width => {}
        ref shape => {
            return Err(Fault(format!(
                "`_fit_X`: an array of the shape {shape:?} for {width} columns"
            )));
        }
    }
    let mut kept = fitted.numbers().map_err(named("_fit_X"))?;
    for value in kept.iter_mut().filter(|value| **value == missing) {
        *value = f64::NAN;
    }
    let keeps_empty = view.get("keep_empty_features").and_then(View::as_bool) == Some(true);
    let (mut remaining, mut after) = (Vec::new(), Vec::new());
    for (column, input) in columns.list.iter().enumerate() {
        builder.take(*input, Use::Number)?;
        let values = kept
            .iter()
            .skip(column)
            .step_by(width)
            .filter(|value| !value.is_nan());
        let (sum, count) =
            values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
        if count > 0.0 || keeps_empty {
            remaining.push((column, sum / count));
            after.push(if count > 0.0 { *input } else { input.changed() });
        }
    }
    let indicated = match view.boolean("add_indicator")? {
        true => indicated(view.required("indicator_")?, width)?,
        false => Vec::new(),
    };
    after.extend(columns.at(&indicated).changed().list);
    let step = Donors {
        width,
        missing,
        kept,
        count: neighbors(view)?,
        weighing: Weighing::read(view)?,
        needs_distances: builder.version >= DISTANCES_ARE_NEEDED,
        columns: remaining,
        indicated,
    };
    Ok((Box::new(step), Columns::new(after)))
}
