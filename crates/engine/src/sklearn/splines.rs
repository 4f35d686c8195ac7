//! Splines: each column becomes the values of basis functions that are polynomials between knots.

use super::build::{Builder, Built, Columns};
use super::steps::{Transform, missing_or_beyond};
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// The highest degree of a spline.
const DEGREE_MAX: usize = 32;

/// What becomes of values beyond the outer knots.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Beyond {
    Refused,
    /// As at the outer knot.
    Constant,
    /// Straight on from the outer knot.
    Straight,
    /// By the polynomial that ends there.
    Continued,
    /// As if the range were repeated.
    Periodic,
}

#[derive(Debug)]
struct Splines {
    columns: Vec<Spline>,
    beyond: Beyond,
    /// Whether a missing value makes zeros.
    takes_missing: bool,
    /// Basis functions of a column, and those that are kept.
    functions: usize,
    kept: usize,
}

/// The knots of a column.
#[derive(Debug)]
struct Spline {
    knots: Vec<f64>,
    degree: usize,
    /// The knots where the range of the column begins and ends, as the library counts them.
    ends: [f64; 2],
    /// Basis functions that go on beyond each end.
    outer: usize,
}

impl Spline {
    /// The interval that a value is in, or the nearest one: its first knot.
    fn interval(&self, x: f64) -> usize {
        let Self { knots, degree, .. } = self;
        let last = knots.len() - degree - 2;
        let after = knots[*degree..=last + 1].partition_point(|knot| *knot <= x);
        (degree + after.saturating_sub(1)).min(last)
    }

    /// The values, or the slopes, of the functions that are not 0 there, of which there is one more than the degree; the
    /// first of them is that of the interval less the degree (de Boor, "A Practical Guide to Splines", 1978).
    fn functions(&self, x: f64, is_slope: bool) -> (usize, [f64; DEGREE_MAX + 1]) {
        let Self { knots, degree, .. } = self;
        let interval = self.interval(x);
        let mut values = [0.0; DEGREE_MAX + 1];
        values[0] = 1.0;
        for order in 1..=*degree {
            let before = values;
            let is_last = is_slope && order == *degree;
            values[0] = 0.0;
            for place in 1..=order {
                let (right, left) = (knots[interval + place], knots[interval + place - order]);
                if right == left {
                    values[place] = 0.0;
                    continue;
                }
                let share = before[place - 1] / (right - left);
                if is_last {
                    let slope = order as f64 * share;
                    values[place - 1] -= slope;
                    values[place] = slope;
                } else {
                    values[place - 1] += share * (right - x);
                    values[place] = share * (x - left);
                }
            }
        }
        if is_slope && *degree == 0 {
            values[0] = 0.0;
        }
        (interval - degree, values)
    }

    /// The values or slopes of all functions. Of a periodic spline the last ones are the first ones again.
    fn write(&self, x: f64, is_slope: bool, out: &mut [f64]) {
        let (first, values) = self.functions(x, is_slope);
        let count = out.len();
        for (place, value) in values[..=self.degree].iter().enumerate() {
            out[(first + place) % count] += value;
        }
    }
}

impl Splines {
    fn write(&self, spline: &Spline, x: f64, out: &mut [f64]) -> Option<()> {
        let [low, high] = spline.ends;
        let is_below = x < low;
        match self.beyond {
            _ if x.is_nan() => {}
            Beyond::Continued => spline.write(x, false, out),
            Beyond::Periodic => {
                let period = high - low;
                let x = match period > 0.0 {
                    true => low + (x - low).rem_euclid(period),
                    false => 0.0,
                };
                spline.write(x, false, out);
            }
            _ if low <= x && x <= high => spline.write(x, false, out),
            Beyond::Refused => return None,
            beyond => {
                let end = if is_below { low } else { high };
                let mut all = vec![0.0; out.len()];
                spline.write(end, false, &mut all);
                if beyond == Beyond::Straight {
                    let mut slopes = vec![0.0; out.len()];
                    spline.write(end, true, &mut slopes);
                    let slopes = slopes.iter();
                    all.iter_mut()
                        .zip(slopes)
                        .for_each(|(value, slope)| *value += (x - end) * slope);
                }
                let outer = spline.outer.min(out.len());
                let range = if is_below {
                    0..outer
                } else {
                    out.len() - outer..out.len()
                };
                out[range.clone()].copy_from_slice(&all[range]);
            }
        }
        Some(())
    }
}

impl Transform for Splines {
    fn width(&self) -> usize {
        self.columns.len() * self.kept
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let refused = missing_or_beyond(f64::MAX);
        for index in 0..rows.len() {
            for (spline, x) in self.columns.iter().zip(rows.row(index)) {
                let reason = match x {
                    x if x.is_nan() && self.takes_missing => None,
                    x => refused(*x),
                };
                let first = out.len();
                out.resize(first + self.functions, 0.0);
                let outside =
                    "has a number beyond the knots of a spline, which the model does not take";
                let written = match reason {
                    Some(reason) => Err(reason),
                    None => self.write(spline, *x, &mut out[first..]).ok_or(outside),
                };
                written.map_err(|reason| RowRefusal {
                    row: index,
                    reason: reason.into(),
                })?;
                out.truncate(first + self.kept);
            }
        }
        Ok(())
    }
}

/// Reads such a step; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    if name != "SplineTransformer" {
        return Ok(None);
    }
    let degree = view.required("degree")?.as_integer();
    let degree = degree.and_then(|degree| usize::try_from(degree).ok());
    let degree = degree.filter(|degree| *degree <= DEGREE_MAX);
    let degree = degree.ok_or_else(|| Fault(format!("`degree` is none of 0 to {DEGREE_MAX}")))?;
    let beyond = match view.text("extrapolation")? {
        "error" => Beyond::Refused,
        "constant" => Beyond::Constant,
        "linear" => Beyond::Straight,
        "continue" => Beyond::Continued,
        "periodic" => Beyond::Periodic,
        _ => return Err(Fault::new("`extrapolation` is unknown")),
    };
    let is_sparse = view.get("sparse_output").and_then(View::as_bool) == Some(true);
    if degree == 0 && is_sparse {
        return Err(Fault::new(
            "splines of degree 0 in sparse form are not supported",
        ));
    }
    let splines = view.list("bsplines_")?;
    if splines.len() != columns.len() {
        return Err(Fault(format!(
            "`bsplines_`: {} for {} columns",
            splines.len(),
            columns.len()
        )));
    }
    // The library goes on straight over one function more than the degree if that is 0 or 1, and for the columns after
    // that takes the larger number for the degree.
    let mut counted = degree;
    let mut read = Vec::with_capacity(splines.len());
    for spline in splines {
        let knots = knots(spline, degree).map_err(named("bsplines_"))?;
        builder.spend(knots.len())?;
        let last = (knots.len() - 1).checked_sub(counted);
        let last = last.filter(|last| counted <= *last);
        let last = last.ok_or_else(|| Fault::new("`bsplines_`: too few knots"))?;
        let ends = [knots[counted], knots[last]];
        if beyond == Beyond::Straight && counted <= 1 {
            counted += 1;
        }
        read.push(Spline {
            knots,
            degree,
            ends,
            outer: counted,
        });
    }
    let count = read.first().map_or(0, |spline| spline.knots.len());
    if read.iter().any(|spline| spline.knots.len() != count) {
        return Err(Fault::new("`bsplines_`: not as many knots for each column"));
    }
    let functions = match beyond {
        Beyond::Periodic => (count - 1).checked_sub(2 * degree),
        _ => (count - 1).checked_sub(degree),
    };
    let functions = functions.filter(|functions| *functions > 0);
    let functions = functions.ok_or_else(|| Fault::new("`bsplines_`: too few knots"))?;
    builder.take_numbers(columns)?;
    let kept = functions - usize::from(!view.boolean("include_bias")?);
    let step = Splines {
        columns: read,
        beyond,
        takes_missing: view.get("handle_missing").and_then(View::as_text) == Some("zeros"),
        functions,
        kept,
    };
    builder.widen(step.width().max(functions))?;
    let after = columns.repeated(std::iter::repeat(kept));
    Ok(Some((Box::new(step), after)))
}

/// The knots of a spline of SciPy.
fn knots(spline: View<'_, '_>, degree: usize) -> Result<Vec<f64>, Fault> {
    // As newer versions call them, and older ones.
    let knots = spline.get("_t").or_else(|| spline.get("t"));
    let knots = knots.ok_or_else(|| spline.expected("a spline of SciPy"))?;
    let knots = Array::read(knots)?.numbers()?;
    let is_fine = knots.len() >= 2 * degree + 2
        && knots.is_sorted()
        && knots.iter().all(|knot| knot.is_finite());
    let of = spline.get("k").and_then(View::as_integer);
    match is_fine && of == Some(degree as i64) {
        true => Ok(knots),
        false => Err(Fault::new(
            "knots that do not ascend, too few of them, or of another degree",
        )),
    }
}
