//! Centers of clusters: which is the nearest, and how far each is.

use super::build::{Builder, Built, Columns, table};
use super::factors::Factors;
use super::steps::{Predictor, Transform, refuse_missing};
use crate::document::Fault;
use crate::pickle::View;
use crate::signature::{ClassLabel, Output};
use crate::{RowRefusal, Rows};

/// The estimators that have centers.
pub(super) const NAMES: [&str; 2] = ["KMeans", "MiniBatchKMeans"];

#[derive(Debug)]
struct Centers {
    width: usize,
    /// A row for each, and the same as factors.
    centers: Vec<f64>,
    factors: Factors,
    /// The squared length of each.
    squares: Vec<f64>,
    labels: Vec<ClassLabel>,
}

impl Transform for Centers {
    fn width(&self) -> usize {
        self.squares.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        for index in 0..rows.len() {
            let row = rows.row(index);
            out.extend(self.centers.chunks_exact(self.width).map(|center| {
                let parts = row.iter().zip(center);
                parts.map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
            }));
        }
        Ok(())
    }
}

impl Predictor for Centers {
    fn output(&self) -> Output {
        Output::Class {
            classes: self.squares.len(),
        }
    }

    /// The squared distance without the row's own square, which the library compares.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut made = vec![0.0; self.squares.len()];
        for (index, out) in out.iter_mut().enumerate() {
            self.factors.write(rows.row(index), &mut made);
            let (mut best, mut least) = (0, f64::INFINITY);
            for (place, (made, square)) in made.iter().zip(&self.squares).enumerate() {
                let distance = square - 2.0 * made;
                if distance < least {
                    (best, least) = (place, distance);
                }
            }
            *out = best as f64;
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[ClassLabel]> {
        Some(&self.labels)
    }
}

fn read(view: View<'_, '_>, width: usize) -> Result<Centers, Fault> {
    let count = match *view.array("cluster_centers_")?.shape() {
        [count, _] if count > 0 => count,
        _ => {
            return Err(Fault::new(
                "`cluster_centers_`: expected an array of two dimensions",
            ));
        }
    };
    let centers = table(view, "cluster_centers_", &[count, width])?;
    let square = |center: &[f64]| center.iter().map(|value| value * value).sum();
    Ok(Centers {
        width,
        squares: centers.chunks_exact(width).map(square).collect(),
        factors: Factors::by_sum(&centers, count),
        centers,
        labels: (0..count as i64).map(ClassLabel::Number).collect(),
    })
}

/// The nearest center of a row.
pub(super) fn nearest(view: View<'_, '_>, width: usize) -> Result<Box<dyn Predictor>, Fault> {
    let centers = read(view, width)?;
    match centers.squares.len() {
        1 => Err(Fault::new(
            "`cluster_centers_`: one cluster, which tells nothing",
        )),
        _ => Ok(Box::new(centers)),
    }
}

/// The distance of a row from each center.
pub(super) fn distances(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Built, Fault> {
    builder.take_numbers(columns)?;
    let centers = read(view, columns.len())?;
    let after = columns.mixed(centers.squares.len());
    Ok((Box::new(centers), after))
}
