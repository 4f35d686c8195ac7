//! Linear models.

use super::build::class_count;
use super::factors::Factors;
use super::link::Link;
use super::sparse::SparseRows;
use super::steps::{Predictor, Transform, refuse_missing};
use crate::document::Fault;
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// Sums of the inputs, each with its factor.
#[derive(Debug)]
struct Linear {
    factors: Factors,
    constants: Vec<f64>,
    link: Link,
}

impl Linear {
    fn add_constants(&self, sums: &mut [f64]) {
        let constants = sums.iter_mut().zip(&self.constants);
        constants.for_each(|(sum, constant)| *sum += constant);
    }

    fn sums(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let mut sums = self.factors.of(rows.values());
        for sums in sums.chunks_exact_mut(self.constants.len()) {
            self.add_constants(sums);
        }
        Ok(sums)
    }
}

impl Predictor for Linear {
    fn output(&self) -> Output {
        self.link.output(self.constants.len())
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let width = self.output().width();
        let mut sums = self.sums(rows)?;
        let sums = sums.chunks_exact_mut(self.constants.len());
        for (sums, out) in sums.zip(out.chunks_exact_mut(width)) {
            self.link.apply(sums, out);
        }
        Ok(())
    }

    fn takes_sparse(&self) -> bool {
        true
    }

    fn predict_sparse(
        &self,
        rows: &SparseRows,
        _width: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        rows.refuse_missing()?;
        let mut sums = vec![0.0; self.constants.len()];
        let width = self.output().width();
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            self.factors.write_sparse(rows.row(index), &mut sums);
            self.add_constants(&mut sums);
            self.link.apply(&mut sums, out);
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        let is_classifier = !matches!(self.link, Link::Identity | Link::Exponential);
        is_classifier.then_some(self)
    }
}

/// The decision: the sums themselves.
impl Transform for Linear {
    fn width(&self) -> usize {
        self.constants.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        out.extend(self.sums(rows)?);
        Ok(())
    }
}

/// Estimators whose `predict` is the sum itself.
const REGRESSORS: [&str; 26] = [
    "ARDRegression",
    "BayesianRidge",
    "ElasticNet",
    "ElasticNetCV",
    "HuberRegressor",
    "Lars",
    "LarsCV",
    "Lasso",
    "LassoCV",
    "LassoLars",
    "LassoLarsCV",
    "LassoLarsIC",
    "LinearRegression",
    "LinearSVR",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
    "OrthogonalMatchingPursuit",
    "OrthogonalMatchingPursuitCV",
    "PassiveAggressiveRegressor",
    "QuantileRegressor",
    "Ridge",
    "RidgeCV",
    "SGDRegressor",
    "TheilSenRegressor",
];

/// Reads a linear model; none if the estimator is none.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let link = match name {
        name if REGRESSORS.contains(&name) => Link::Identity,
        "PoissonRegressor" | "GammaRegressor" => Link::Exponential,
        "TweedieRegressor" => tweedie(view)?,
        "LogisticRegression" | "LogisticRegressionCV" => logistic(view)?,
        "LinearDiscriminantAnalysis" if class_count(view)? == 2 => Link::Logistic(1.0),
        "LinearDiscriminantAnalysis" => Link::Softmax,
        "SGDClassifier" => match view.text("loss")? {
            "log_loss" | "log" if class_count(view)? == 2 => Link::Logistic(1.0),
            "log_loss" | "log" => Link::OneVersusRest,
            "modified_huber" => Link::Huber,
            _ => Link::Greatest,
        },
        "LinearSVC"
        | "PassiveAggressiveClassifier"
        | "Perceptron"
        | "RidgeClassifier"
        | "RidgeClassifierCV" => Link::Greatest,
        _ => return Ok(None),
    };
    let factors = view.array("coef_")?;
    let sums = match factors.shape() {
        [inputs] if *inputs == width => 1,
        [sums, inputs] if *inputs == width && *sums > 0 => *sums,
        shape => {
            return Err(Fault(format!(
                "`coef_`: an array of the shape {shape:?} for {width} columns"
            )));
        }
    };
    let is_classifier = !matches!(link, Link::Identity | Link::Exponential);
    if is_classifier
        && sums
            != if class_count(view)? == 2 {
                1
            } else {
                class_count(view)?
            }
    {
        return Err(Fault(format!(
            "`coef_`: {sums} rows for {} classes",
            class_count(view)?
        )));
    }
    let constants = view.required("intercept_")?;
    let constants = match constants.as_number() {
        Some(constant) => vec![constant; sums],
        None => view.numbers("intercept_")?,
    };
    if constants.len() != sums {
        return Err(Fault(format!(
            "`intercept_`: {} numbers for {sums}",
            constants.len()
        )));
    }
    let factors = factors.numbers()?;
    if !factors
        .iter()
        .chain(&constants)
        .all(|number| number.is_finite())
    {
        return Err(Fault::new(
            "`coef_` or `intercept_`: a number that is not finite",
        ));
    }
    Ok(Some(Box::new(Linear {
        factors: Factors::by_sum(&factors, sums),
        constants,
        link,
    })))
}

/// Until 1.7 a parameter says whether classes are judged one by one; since then never more than two are.
fn logistic(view: View<'_, '_>) -> Result<Link, Fault> {
    let is_binary = class_count(view)? == 2;
    let stated = view.get("multi_class").and_then(View::as_text);
    let by_one = match stated {
        Some("ovr") => true,
        Some("multinomial") => false,
        None | Some("auto" | "deprecated" | "warn") => {
            is_binary || stated.is_some() && view.text("solver")? == "liblinear"
        }
        Some(_) => return Err(Fault::new("`multi_class` is none that is known")),
    };
    Ok(match (by_one, is_binary) {
        (true, true) => Link::Logistic(1.0),
        (true, false) => Link::OneVersusRest,
        // Of a sum and its negative.
        (false, true) => Link::Logistic(2.0),
        (false, false) => Link::Softmax,
    })
}

fn tweedie(view: View<'_, '_>) -> Result<Link, Fault> {
    match view.text("link")? {
        "identity" => Ok(Link::Identity),
        "log" => Ok(Link::Exponential),
        "auto" if view.number("power")? <= 0.0 => Ok(Link::Identity),
        "auto" => Ok(Link::Exponential),
        _ => Err(Fault::new("`link` is none that is known")),
    }
}
