//! Quadratic discriminant analysis.

use super::build::{class_count, table};
use super::factors::Factors;
use super::link::{of_classes, probabilities};
use super::steps::{Predictor, Transform, refuse_missing};
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::signature::Output;
use crate::{RowRefusal, Rows};

#[derive(Debug)]
struct Quadratic {
    classes: Vec<Class>,
}

/// A normal distribution.
#[derive(Debug)]
struct Class {
    mean: Vec<f64>,
    /// A sum for each axis, in which the distribution has the same spread everywhere.
    axes: Factors,
    logarithms: f64,
    prior: f64,
}

impl Quadratic {
    /// The logarithm of what each class has at a row, up to the same constant.
    fn sums(&self, row: &[f64]) -> Vec<f64> {
        let sum = |class: &Class| {
            let rest: Vec<f64> = row
                .iter()
                .zip(&class.mean)
                .map(|(x, mean)| x - mean)
                .collect();
            let along = class.axes.of(&rest);
            let square: f64 = along.iter().map(|value| value * value).sum();
            -0.5 * (square + class.logarithms) + class.prior
        };
        self.classes.iter().map(sum).collect()
    }
}

impl Predictor for Quadratic {
    fn output(&self) -> Output {
        of_classes(self.classes.len())
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let width = self.output().width();
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            probabilities(&mut self.sums(rows.row(index)), out);
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        Some(self)
    }
}

/// The decision: of two classes the difference.
impl Transform for Quadratic {
    fn width(&self) -> usize {
        match self.classes.len() {
            2 => 1,
            classes => classes,
        }
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        for index in 0..rows.len() {
            match self.sums(rows.row(index))[..] {
                [first, second] => out.push(second - first),
                ref sums => out.extend(sums),
            }
        }
        Ok(())
    }
}

/// Reads this estimator; none if it is another.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    if name != "QuadraticDiscriminantAnalysis" {
        return Ok(None);
    }
    let count = class_count(view)?;
    let means = table(view, "means_", &[count, width])?;
    let priors = table(view, "priors_", &[count])?;
    let (rotations, spreads) = (view.list("rotations_")?, view.list("scalings_")?);
    if rotations.len() != count || spreads.len() != count {
        return Err(Fault(format!(
            "`rotations_` or `scalings_`: not one for each of {count} classes"
        )));
    }
    let mut classes = Vec::with_capacity(count);
    let parts = rotations
        .into_iter()
        .zip(spreads)
        .zip(means.chunks_exact(width).zip(priors));
    for ((rotation, spread), (mean, prior)) in parts {
        let rotation = Array::read(rotation).map_err(named("rotations_"))?;
        let spread = Array::read(spread).and_then(|spread| spread.numbers());
        let spread = spread.map_err(named("scalings_"))?;
        if *rotation.shape() != [width, spread.len()] {
            return Err(Fault(format!(
                "`rotations_`: an array of the shape {:?}",
                rotation.shape()
            )));
        }
        let (factors, axes) = (rotation.numbers()?, spread.len());
        let axis = |(axis, spread): (usize, &f64)| {
            let factor = spread.powf(-0.5);
            let factors = factors.iter().skip(axis).step_by(axes);
            factors.map(move |value| value * factor)
        };
        classes.push(Class {
            mean: mean.to_vec(),
            axes: Factors::by_sum(
                &spread.iter().enumerate().flat_map(axis).collect::<Vec<_>>(),
                axes,
            ),
            logarithms: spread.iter().map(|spread| spread.ln()).sum(),
            prior: prior.ln(),
        });
    }
    Ok(Some(Box::new(Quadratic { classes })))
}
