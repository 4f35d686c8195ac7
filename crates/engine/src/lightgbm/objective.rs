//! Objectives: how sums of leaves become predictions.
//!
//! The arithmetic is that of `ConvertOutput` in LightGBM's `src/objective`, in `f64`.

use super::text::number;
use crate::document::{Fault, named, shorten};
use crate::signature::Output;

/// From sums to predictions.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Identity,
    /// The label's square root was learned.
    Square,
    Exponential,
    /// Logistic of the sum times a factor, each for itself.
    Logistic(f64),
    Softmax,
    /// `ln(1 + e^x)`.
    Softplus,
}

/// What of an objective prediction needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Objective {
    link: Link,
    output: Output,
}

impl Objective {
    /// The objective that a file states as `text`, for a model of so many sums per row; without one the
    /// sums themselves are what the model gives.
    pub(super) fn new(text: Option<&str>, sums: usize) -> Result<Self, Fault> {
        let mut words = text.unwrap_or("custom").split_ascii_whitespace();
        let name = words.next().unwrap_or("custom");
        let arguments: Vec<&str> = words.collect();
        let argument = |name: &str| {
            let values = arguments.iter().filter_map(|word| word.split_once(':'));
            let value = values
                .filter(|(key, _)| *key == name)
                .map(|(_, v)| v)
                .next();
            value.map(number::<f64>).transpose().map_err(named(name))
        };
        let logistic = || match argument("sigmoid")?.unwrap_or(1.0) {
            factor if factor > 0.0 && factor.is_finite() => Ok(Link::Logistic(factor)),
            factor => Err(Fault(format!("`sigmoid`: {factor} is not above 0"))),
        };
        let link = match name {
            "regression" | "regression_l1" | "fair" | "quantile" | "mape"
                if arguments.contains(&"sqrt") =>
            {
                Link::Square
            }
            "regression" | "regression_l1" | "huber" | "fair" | "quantile" | "mape"
            | "lambdarank" | "rank_xendcg" | "custom" | "none" => Link::Identity,
            "poisson" | "gamma" | "tweedie" => Link::Exponential,
            "binary" | "multiclassova" => logistic()?,
            "multiclass" => Link::Softmax,
            "cross_entropy" | "xentropy" => Link::Logistic(1.0),
            "cross_entropy_lambda" | "xentlambda" => Link::Softplus,
            other => {
                return Err(Fault(format!(
                    "the objective `{}` is not supported",
                    shorten(other)
                )));
            }
        };
        let output = match name {
            "binary" if sums == 1 => Output::Binary,
            "multiclass" | "multiclassova" if sums > 1 => Output::Multiclass { classes: sums },
            "custom" | "none" => Output::Numbers { count: sums },
            _ if sums == 1 && !name.starts_with("multiclass") => Output::Numbers { count: 1 },
            _ => {
                return Err(Fault(format!(
                    "{sums} trees in an iteration do not go with the objective `{name}`"
                )));
            }
        };
        let classes = argument("num_class")?;
        match classes.filter(|classes| *classes != sums as f64) {
            Some(classes) => Err(Fault(format!(
                "`num_class`: {classes} classes, but {sums} trees in an iteration"
            ))),
            None => Ok(Self { link, output }),
        }
    }

    /// Meaning of an output row.
    pub(super) fn output(self) -> Output {
        self.output
    }

    /// Turns a row's sums into its prediction.
    pub(super) fn transform(self, row: &mut [f64]) {
        match self.link {
            Link::Identity => {}
            Link::Square => row.iter_mut().for_each(|x| *x *= x.abs()),
            Link::Exponential => row.iter_mut().for_each(|x| *x = x.exp()),
            Link::Logistic(factor) => row
                .iter_mut()
                .for_each(|x| *x = 1.0 / (1.0 + (-factor * *x).exp())),
            Link::Softmax => softmax(row),
            Link::Softplus => row.iter_mut().for_each(|x| *x = x.exp().ln_1p()),
        }
    }
}

/// Numbers to shares of their exponentials.
pub(crate) fn softmax(row: &mut [f64]) {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for value in &mut *row {
        *value = (*value - greatest).exp();
        sum += *value;
    }
    for value in row {
        *value /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_must_fit_their_number_of_sums() {
        for (text, sums) in [
            ("binary sigmoid:1", 2),
            ("multiclass num_class:3", 1),
            ("multiclass num_class:3", 2),
            ("multiclassova num_class:1 sigmoid:1", 1),
            ("regression", 3),
            ("binary sigmoid:0", 1),
            ("binary sigmoid:NaN", 1),
            ("binary sigmoid:much", 1),
            ("regression_l7", 1),
        ] {
            assert!(Objective::new(Some(text), sums).is_err(), "{text}, {sums}");
        }
        let custom = Objective::new(None, 3).unwrap();
        assert_eq!(custom.output(), Output::Numbers { count: 3 });
    }

    #[test]
    fn probabilities_stay_finite_at_extreme_sums() {
        let predict = |text: &str, mut row: Vec<f64>| {
            let objective = Objective::new(Some(text), row.len()).unwrap();
            objective.transform(&mut row);
            row
        };
        assert_eq!(predict("binary sigmoid:2", vec![-1e300]), [0.0]);
        assert_eq!(predict("cross_entropy", vec![1e300]), [1.0]);
        let row = predict("multiclass num_class:3", vec![1e300, 0.0, 1e300]);
        assert_eq!(row, [0.5, 0.0, 0.5]);
        assert_eq!(predict("regression sqrt", vec![-3.0]), [-9.0]);
    }
}
