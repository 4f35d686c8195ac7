//! Numbers that become the ranges they are in.

use super::build::{Builder, Built, Columns};
use super::steps::{Transform, refuse_missing};
use super::version::Version;
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// The first version in which a value just below an edge is below it.
const EDGES_ARE_SHARP: Version = Version(1, 1);

/// The place of the range that each value is in.
#[derive(Debug)]
struct Bins {
    /// The edges between the ranges of each column.
    columns: Vec<Vec<f64>>,
    /// Whether there is a column for each range.
    is_one_hot: bool,
    is_sharp: bool,
}

impl Transform for Bins {
    fn width(&self) -> usize {
        match self.is_one_hot {
            true => self.columns.iter().map(|edges| edges.len() + 1).sum(),
            false => self.columns.len(),
        }
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        for index in 0..rows.len() {
            for (edges, value) in self.columns.iter().zip(rows.row(index)) {
                let value = match self.is_sharp {
                    true => *value,
                    false => value + (1e-8 + 1e-5 * value.abs()),
                };
                let place = edges.partition_point(|edge| *edge <= value);
                if !self.is_one_hot {
                    out.push(place as f64);
                    continue;
                }
                let first = out.len();
                out.resize(first + edges.len() + 1, 0.0);
                out[first + place] = 1.0;
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
    if name != "KBinsDiscretizer" {
        return Ok(None);
    }
    let dtype = view.required("dtype")?;
    if !dtype.is_none() && dtype.as_name() != Some("numpy.float64") {
        return Err(dtype.expected("float64")).map_err(named("dtype"));
    }
    let is_one_hot = match view.text("encode")? {
        "ordinal" => false,
        "onehot" | "onehot-dense" => true,
        _ => return Err(Fault::new("`encode` is unknown")),
    };
    let edges = view.array("bin_edges_")?;
    let edges = edges.objects().map_err(named("bin_edges_"))?;
    if edges.len() != columns.len() {
        return Err(Fault(format!(
            "`bin_edges_`: {} for {} columns",
            edges.len(),
            columns.len()
        )));
    }
    let mut inner = |view: View<'_, '_>| {
        let all = Array::read(view)?.numbers()?;
        builder.spend(all.len())?;
        match &all[..] {
            [_, inner @ .., _] if inner.is_sorted() && !inner.iter().any(|edge| edge.is_nan()) => {
                Ok(inner.to_vec())
            }
            _ => Err(Fault::new(
                "fewer than two edges, or some that do not ascend",
            )),
        }
    };
    let inner: Result<Vec<_>, Fault> = edges.into_iter().map(&mut inner).collect();
    builder.take_numbers(columns)?;
    let step = Bins {
        columns: inner.map_err(named("bin_edges_"))?,
        is_one_hot,
        is_sharp: builder.version >= EDGES_ARE_SHARP,
    };
    let counts = step.columns.iter();
    let counts = counts.map(|edges| if is_one_hot { edges.len() + 1 } else { 1 });
    let after = columns.repeated(counts);
    Ok(Some((Box::new(step), after)))
}
