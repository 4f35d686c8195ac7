//! Loss functions: what the sums of a row mean, as `predict_proba` of the library's classifier and
//! `predict` of its regressor take them.

use crate::document::{Fault, Object, Value, named};
use crate::signature::{ClassLabel, Output};

/// From the sums of a row to its predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Identity,
    Logistic,
    Softmax,
    Exponential,
    /// The second of two is the logarithm of a standard deviation, and comes out as the variance.
    Uncertainty,
}

/// A loss function by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    link: Link,
    meaning: Meaning,
    several_targets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A probability, or one of each class.
    Classes,
    Numbers,
}

/// Losses whose predictions are the sums themselves.
const IDENTITIES: &[&str] = &[
    "CoxPartialLogLikelihood",
    "Cox",
    "Expectile",
    "GroupQuantile",
    "Huber",
    "LambdaMart",
    "LogCosh",
    "LogLinQuantile",
    "Lq",
    "MAE",
    "MAPE",
    "MultiQuantile",
    "MultiRMSE",
    "MultiRMSEWithMissingValues",
    "NumErrors",
    "PairLogit",
    "PairLogitPairwise",
    "PythonUserDefinedMultiTarget",
    "PythonUserDefinedPerObject",
    "Quantile",
    "QueryCrossEntropy",
    "QueryRMSE",
    "QuerySoftMax",
    "RMSE",
    "RMSPE",
    "SMAPE",
    "StochasticFilter",
    "StochasticRank",
    "SurvivalAft",
    "UserPerObjMetric",
    "UserQuerywiseMetric",
    "YetiRank",
    "YetiRankPairwise",
];

impl Loss {
    /// Without a loss, as in a sum of models, the sums are all there is.
    pub(super) const NONE: Self = Self {
        link: Link::Identity,
        meaning: Meaning::Numbers,
        several_targets: false,
    };

    pub(super) fn new(name: &str) -> Result<Self, Fault> {
        let (link, meaning) = match name {
            "Logloss" | "CrossEntropy" | "Focal" | "MultiClassOneVsAll" => {
                (Link::Logistic, Meaning::Classes)
            }
            "MultiClass" => (Link::Softmax, Meaning::Classes),
            "MultiLogloss" | "MultiCrossEntropy" => (Link::Logistic, Meaning::Numbers),
            "Poisson" | "Tweedie" => (Link::Exponential, Meaning::Numbers),
            "RMSEWithUncertainty" => (Link::Uncertainty, Meaning::Numbers),
            name if IDENTITIES.contains(&name) => (Link::Identity, Meaning::Numbers),
            other => {
                let other: String = other.chars().take(40).collect();
                return Err(Fault(format!(
                    "the loss function `{other}` is not supported"
                )));
            }
        };
        let several_targets = matches!(
            name,
            "MultiLogloss"
                | "MultiCrossEntropy"
                | "MultiRMSE"
                | "MultiRMSEWithMissingValues"
                | "SurvivalAft"
        );
        Ok(Self {
            link,
            meaning,
            several_targets,
        })
    }

    /// Whether a training row has several labels.
    pub(super) fn has_several_targets(self) -> bool {
        self.several_targets
    }

    /// Meaning of an output row of that many numbers.
    pub(super) fn output(self, outputs: usize) -> Result<Output, Fault> {
        match (self.meaning, outputs) {
            (Meaning::Classes, 1) if self.link == Link::Logistic => Ok(Output::Binary),
            (Meaning::Classes, 1) => Err(Fault::new("a classifier of one class")),
            (Meaning::Classes, classes) => Ok(Output::Multiclass { classes }),
            (Meaning::Numbers, count) if self.link == Link::Uncertainty && count != 2 => {
                Err(Fault(format!("RMSEWithUncertainty with {count} outputs")))
            }
            (Meaning::Numbers, count) => Ok(Output::Numbers { count }),
        }
    }

    /// Turns the sums of a row into its predictions.
    pub(super) fn transform(self, row: &mut [f64]) {
        match self.link {
            Link::Identity => {}
            Link::Logistic => row
                .iter_mut()
                .for_each(|sum| *sum = 1.0 / (1.0 + (-*sum).exp())),
            Link::Exponential => row.iter_mut().for_each(|sum| *sum = sum.exp()),
            Link::Uncertainty => row[1] = (2.0 * row[1]).exp(),
            Link::Softmax => softmax(row),
        }
    }
}

fn softmax(row: &mut [f64]) {
    let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut()
        .for_each(|sum| *sum = (*sum - greatest).exp());
    let total: f64 = row.iter().sum();
    row.iter_mut().for_each(|sum| *sum /= total);
}

/// The loss in the parameters of training, which the binary format has as JSON inside a text.
pub(super) fn read_loss(parameters: &Object<'_>) -> Result<Option<Loss>, Fault> {
    let Some(loss) = parameters.get("loss_function") else {
        return Ok(None);
    };
    let name = loss.as_object().and_then(|loss| loss.text("type"));
    let loss = name.and_then(Loss::new);
    loss.map(Some).map_err(named("loss_function"))
}

/// What the classes are called: `class_params`, which older versions call `multiclass_params`.
pub(super) fn read_labels(classes: &Object<'_>) -> Result<Vec<ClassLabel>, Fault> {
    for list in ["class_names", "class_to_label"] {
        let names = match classes.get(list) {
            Some(Value::List(names)) => names.iter().map(label).collect(),
            Some(Value::Numbers(numbers)) => match numbers.to_integers() {
                Ok(whole) => Ok(whole.into_iter().map(ClassLabel::Number).collect()),
                Err(_) => numbers.to_doubles().map(|numbers| {
                    numbers
                        .iter()
                        .map(|number| ClassLabel::Text(number.to_string()))
                        .collect()
                }),
            },
            _ => continue,
        };
        let names: Vec<ClassLabel> = names.map_err(named(list))?;
        if !names.is_empty() {
            return Ok(names);
        }
    }
    Ok(Vec::new())
}

fn label(name: &Value<'_>) -> Result<ClassLabel, Fault> {
    match name {
        Value::Text(text) => Ok(ClassLabel::Text(text.clone().into_owned())),
        // As Python writes them.
        Value::Bool(true) => Ok(ClassLabel::Text("True".into())),
        Value::Bool(false) => Ok(ClassLabel::Text("False".into())),
        other => other.as_integer().map(ClassLabel::Number),
    }
}
