//! Objectives: how the stored intercept becomes a margin and how margins become predictions.
//!
//! The arithmetic is that of XGBoost's `src/common/math.h` and `src/objective`, in `f32`.

use super::learner::Version;
use crate::document::Fault;
use crate::signature::Output;

/// Where XGBoost keeps a probability away from 0 and 1 before it takes the logit.
const PROBABILITY_MARGIN: f32 = 1e-6;

/// What XGBoost keeps between two expectiles of a row at least.
const EXPECTILES_APART: f32 = 1e-6;

/// From margins to predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Identity,
    /// Identity, ascending: since 3.4 quantiles of one row do not cross.
    Sorted,
    /// The first margin, and from each expectile to the next the softplus of its margin.
    Expectiles,
    Logistic,
    Exponential,
    /// Computed in `f64`.
    ExactExponential,
    /// 1 where the margin is positive, else 0.
    Step,
    Softmax,
    /// Number of the first of the greatest margins.
    ArgMax,
}

/// From the stored intercept to the margin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BaseLink {
    Identity,
    Logit,
    Log,
    Expectiles,
}

/// The parts of an objective that prediction needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Objective {
    link: Link,
    base: BaseLink,
    binary: bool,
}

impl Objective {
    /// The objective of that name in a file that this version of the library wrote.
    pub(super) fn new(name: &str, version: Version) -> Result<Self, Fault> {
        use {BaseLink as Base, Link as L};
        let (link, base) = match name {
            "binary:logistic" | "reg:logistic" => (L::Logistic, Base::Logit),
            "binary:hinge" => (L::Step, Base::Identity),
            "multi:softprob" => (L::Softmax, Base::Identity),
            "multi:softmax" => (L::ArgMax, Base::Identity),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" => {
                (L::Exponential, Base::Log)
            }
            "survival:aft" => (L::ExactExponential, Base::Log),
            "reg:quantileerror" if version >= [3, 4, 0] => (L::Sorted, Base::Identity),
            "reg:expectileerror" => (L::Expectiles, Base::Expectiles),
            // Later its intercept was a margin.
            "binary:logitraw" if version < [1, 3, 1] => (L::Identity, Base::Logit),
            "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "binary:logitraw"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => (L::Identity, Base::Identity),
            other => return Err(Fault(format!("the objective `{other}` is not supported"))),
        };
        Ok(Self {
            link,
            base,
            binary: name == "binary:logistic",
        })
    }

    /// Meaning of an output row, given the number of margins per row and the classes in the file.
    pub(super) fn output(self, groups: usize, classes: usize) -> Result<Output, Fault> {
        match self.link {
            Link::Softmax | Link::ArgMax if classes < 2 => Err(Fault(format!(
                "`num_class`: a classifier of {classes} classes"
            ))),
            Link::Softmax => Ok(Output::Multiclass { classes }),
            Link::ArgMax => Ok(Output::Class { classes }),
            Link::Step if groups == 1 => Ok(Output::Class { classes: 2 }),
            Link::Logistic if self.binary && groups == 1 => Ok(Output::Binary),
            _ => Ok(Output::Numbers { count: groups }),
        }
    }

    /// The margins that the stored intercepts of all outputs stand for.
    pub(super) fn margins(self, mut base_scores: Vec<f32>) -> Result<Vec<f32>, Fault> {
        if self.base == BaseLink::Expectiles {
            for place in (1..base_scores.len()).rev() {
                let step = base_scores[place] - base_scores[place - 1] - EXPECTILES_APART;
                base_scores[place] = softplus_inverse(step);
            }
        }
        base_scores
            .into_iter()
            .map(|score| self.margin(score))
            .collect()
    }

    /// The margin that a stored intercept stands for by itself.
    fn margin(self, base_score: f32) -> Result<f32, Fault> {
        let margin = match self.base {
            BaseLink::Identity | BaseLink::Expectiles => base_score,
            BaseLink::Log => base_score.ln(),
            BaseLink::Logit if (0.0..=1.0).contains(&base_score) => {
                let inside = base_score.clamp(PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN);
                -(1.0 / inside - 1.0).ln()
            }
            BaseLink::Logit => f32::NAN,
        };
        // A model of nothing but zeros has the intercept 0, and predicts the exponential of -inf.
        if margin.is_finite() || (self.base == BaseLink::Log && base_score == 0.0) {
            return Ok(margin);
        }
        Err(Fault(format!(
            "`base_score`: {base_score} has no margin under this objective"
        )))
    }

    /// Writes the prediction for a row's margins, which it overwrites.
    pub(super) fn transform(self, margins: &mut [f32], out: &mut [f64]) {
        match self.link {
            Link::Identity => {}
            Link::Sorted => margins.sort_unstable_by(f32::total_cmp),
            Link::Expectiles => {
                for place in 1..margins.len() {
                    let step = EXPECTILES_APART + softplus(margins[place]);
                    margins[place] = margins[place - 1] + step;
                }
            }
            Link::Logistic => margins
                .iter_mut()
                .for_each(|margin| *margin = sigmoid(*margin)),
            Link::Exponential => margins.iter_mut().for_each(|margin| *margin = margin.exp()),
            Link::ExactExponential => margins
                .iter_mut()
                .for_each(|margin| *margin = f64::from(*margin).exp() as f32),
            Link::Step => {
                margins
                    .iter_mut()
                    .for_each(|margin| *margin = f32::from(*margin > 0.0));
            }
            Link::Softmax => softmax(margins),
            Link::ArgMax => {
                out[0] = arg_max(margins);
                return;
            }
        }
        for (out, margin) in out.iter_mut().zip(margins) {
            *out = f64::from(*margin);
        }
    }
}

/// Logistic function with XGBoost's guards against overflow.
fn sigmoid(margin: f32) -> f32 {
    // What is no number stays none.
    let exponent = if 88.7 < -margin { 88.7 } else { -margin };
    1.0 / (exponent.exp() + 1.0 + 1e-16)
}

/// Softmax in place: exponentials in `f32`, their sum in `f64`.
fn softmax(margins: &mut [f32]) {
    let greatest = margins.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for margin in &mut *margins {
        *margin = (*margin - greatest).exp();
        sum += f64::from(*margin);
    }
    for margin in margins {
        *margin /= sum as f32;
    }
}

/// `ln(1 + e^x)`.
fn softplus(x: f32) -> f32 {
    match x > 0.0 {
        true => x + (-x).exp().ln_1p(),
        false => x.exp().ln_1p(),
    }
}

fn softplus_inverse(y: f32) -> f32 {
    let y = y.max(EXPECTILES_APART);
    y + (-(-y).exp_m1()).ln()
}

fn arg_max(margins: &[f32]) -> f64 {
    let mut best = 0;
    for (class, margin) in margins.iter().enumerate() {
        if *margin > margins[best] {
            best = class;
        }
    }
    best as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_stay_finite_at_extreme_margins() {
        assert_eq!(sigmoid(0.0), 0.5);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(-1e30) > 0.0 && sigmoid(-1e30) < 1e-38);
        assert!(sigmoid(f32::NAN).is_nan());
        let mut margins = [1000.0, 0.0, 1000.0];
        softmax(&mut margins);
        assert_eq!(margins, [0.5, 0.0, 0.5]);
    }

    #[test]
    fn an_intercept_outside_the_link_is_refused() {
        let logistic = Objective::new("binary:logistic", [3, 2, 0]).unwrap();
        assert!(logistic.margin(1.5).is_err() && logistic.margin(f32::NAN).is_err());
        assert_eq!(logistic.margin(0.5).unwrap(), 0.0);
        let poisson = Objective::new("count:poisson", [3, 2, 0]).unwrap();
        assert!(poisson.margin(f32::INFINITY).is_err() && poisson.margin(-1.0).is_err());
        assert_eq!(poisson.margin(0.0).unwrap(), f32::NEG_INFINITY);
    }

    #[test]
    fn quantiles_do_not_cross_since_the_version_that_sorts_them() {
        for (version, expected) in [([3, 3, 0], [2.0, 1.0]), ([3, 4, 0], [1.0, 2.0])] {
            let mut out = [0.0; 2];
            let objective = Objective::new("reg:quantileerror", version).unwrap();
            objective.transform(&mut [2.0, 1.0], &mut out);
            assert_eq!(out, expected);
        }
    }

    /// What XGBoost 3.2 predicts from this margin.
    #[test]
    fn survival_times_are_exponentials_of_64_bits() {
        let mut out = [0.0];
        let objective = Objective::new("survival:aft", [3, 2, 0]).unwrap();
        objective.transform(&mut [-0.535_888], &mut out);
        assert_eq!(out, [f64::from(0.585_149_4_f32)]);
    }

    #[test]
    fn the_first_of_equal_classes_wins() {
        assert_eq!(arg_max(&[0.0, 2.0, 2.0]), 1.0);
    }
}
