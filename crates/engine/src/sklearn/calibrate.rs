//! Probabilities that were learned from those of another classifier, or from its decisions.

use super::build::{Builder, Columns, table};
use super::ensemble::{known_classes, member, shares};
use super::link::{logistic, of_classes, probabilities, share};
use super::steps::Predictor;
use crate::document::{Fault, shorten};
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// What the library adds to probabilities before it takes logarithms.
const LEAST: f64 = 1e-12;

#[derive(Debug)]
struct Calibrated {
    base: Box<dyn Predictor>,
    classes: usize,
    calibration: Calibration,
}

#[derive(Debug)]
enum Calibration {
    /// Each class by itself; of two, the second.
    Each(Vec<Curve>),
    /// All sums times a factor.
    Temperature(f64),
}

#[derive(Debug)]
enum Curve {
    Sigmoid(f64, f64),
    /// Straight lines between points.
    Steps(Vec<f64>, Vec<f64>),
}

impl Curve {
    fn at(&self, value: f64) -> f64 {
        match self {
            Self::Sigmoid(slope, place) => logistic(-(slope * value + place)),
            Self::Steps(xs, ys) => {
                let after = xs.partition_point(|x| *x <= value);
                match (after.checked_sub(1), xs.get(after)) {
                    (None, _) => ys[0],
                    (Some(before), None) => ys[before],
                    (Some(before), Some(next)) => {
                        let slope = (ys[after] - ys[before]) / (next - xs[before]);
                        slope * (value - xs[before]) + ys[before]
                    }
                }
            }
        }
    }
}

impl Calibrated {
    /// What is calibrated: decisions, of two classes one number, or else the shares of all.
    fn given(&self, rows: Rows<'_>) -> Result<(Vec<f64>, usize), RowRefusal> {
        match self.base.decision() {
            Some(decision) => {
                let mut made = Vec::new();
                decision.apply(rows, &mut made)?;
                Ok((made, decision.width()))
            }
            None => Ok((
                shares(self.base.as_ref(), rows, self.classes)?,
                self.classes,
            )),
        }
    }
}

impl Predictor for Calibrated {
    fn output(&self) -> Output {
        of_classes(self.classes)
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let (given, width) = self.given(rows)?;
        let own = self.output().width();
        for (given, out) in given.chunks_exact(width).zip(out.chunks_exact_mut(own)) {
            match &self.calibration {
                Calibration::Each(curves) => {
                    let last = &given[width - own..];
                    for ((curve, value), out) in curves.iter().zip(last).zip(&mut *out) {
                        *out = curve.at(*value);
                    }
                    share(out);
                }
                Calibration::Temperature(factor) => {
                    let mut sums = match given {
                        [sum] => vec![-factor * sum, factor * sum],
                        _ if self.base.decision().is_some() => {
                            given.iter().map(|sum| factor * sum).collect()
                        }
                        _ => given
                            .iter()
                            .map(|share| factor * (share + LEAST).ln())
                            .collect(),
                    };
                    probabilities(&mut sums, out);
                }
            }
        }
        Ok(())
    }
}

/// Reads a classifier of so many classes and its calibration.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    classes: usize,
) -> Result<Box<dyn Predictor>, Fault> {
    // 1.1 and older call it by another name.
    let estimator = match view.get("estimator") {
        Some(estimator) => estimator,
        None => view.required("base_estimator")?,
    };
    let base = member(builder, estimator, columns)?;
    if known_classes(base.as_ref()) != Some(classes) {
        return Err(Fault(format!(
            "it does not know all of the {classes} classes"
        )));
    }
    let fits = match base.decision() {
        Some(decision) => decision.width() == if classes == 2 { 1 } else { classes },
        None => !matches!(base.output(), Output::Class { .. }),
    };
    if !fits {
        return Err(Fault::new(
            "it has neither a decision for each class nor probabilities",
        ));
    }
    let calibrators = view.list("calibrators")?;
    let calibration = match view.text("method")? {
        "sigmoid" | "isotonic" => {
            let curves = calibrators
                .into_iter()
                .map(curve)
                .collect::<Result<Vec<_>, _>>()?;
            if curves.len() != if classes == 2 { 1 } else { classes } {
                return Err(Fault(format!(
                    "`calibrators`: {} for {classes} classes",
                    curves.len()
                )));
            }
            Calibration::Each(curves)
        }
        "temperature" => match calibrators[..] {
            [calibrator] => Calibration::Temperature(calibrator.number("beta_")?),
            _ => return Err(Fault::new("`calibrators`: expected one")),
        },
        other => {
            return Err(Fault(format!(
                "the method `{}` is not supported",
                shorten(other)
            )));
        }
    };
    Ok(Box::new(Calibrated {
        base,
        classes,
        calibration,
    }))
}

fn curve(view: View<'_, '_>) -> Result<Curve, Fault> {
    if view.get("a_").is_some() {
        return Ok(Curve::Sigmoid(view.number("a_")?, view.number("b_")?));
    }
    let count = view.array("X_thresholds_")?.len();
    let xs = table(view, "X_thresholds_", &[count])?;
    let ys = table(view, "y_thresholds_", &[count])?;
    let ascend = xs.windows(2).all(|pair| pair[0] < pair[1]);
    match count > 0 && ascend && view.text("out_of_bounds")? == "clip" {
        true => Ok(Curve::Steps(xs, ys)),
        false => Err(Fault::new(
            "an isotonic regression that is not one of a calibration",
        )),
    }
}
