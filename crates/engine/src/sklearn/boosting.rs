//! Gradient boosting, with and without histograms.

use super::build::class_count;
use super::link::Link;
use super::sets::{MIDDLE, Sets, of_tree};
use super::trees::{Grove, Grown, Reader, Table, Trees};
use super::version::Version;
use crate::document::{Fault, named, shorten};
use crate::forest::Node;
use crate::pickle::{Array, View};
use crate::signature::Precision;

/// The first version in which what several classes begin with adds up to 0, which decisions show.
const STARTS_ARE_CENTERED: Version = Version(1, 4);

impl Reader<'_, '_> {
    /// Trees of gradient boosting, added to a constant model.
    pub(super) fn boosted(&self, is_classifier: bool) -> Result<Trees, Fault> {
        let view = self.view;
        let estimators = view.array("estimators_")?;
        let [_, sums] = *estimators.shape() else {
            return Err(Fault::new(
                "`estimators_`: expected an array of two dimensions",
            ));
        };
        let expected = match is_classifier {
            true if class_count(self.view)? == 2 => 1,
            true => class_count(self.view)?,
            false => 1,
        };
        if sums != expected {
            return Err(Fault(format!(
                "`estimators_`: {sums} trees in a stage, where {expected} are needed"
            )));
        }
        let rate = view.number("learning_rate")?;
        let mut grove = Grove::default();
        for (index, estimator) in estimators.objects()?.into_iter().enumerate() {
            let grown = self.grown(estimator, 1);
            let pushed = grown
                .and_then(|grown| grove.push(&grown, index % sums, |numbers| rate * numbers[0]));
            pushed.map_err(|fault| fault.inside(format_args!("tree {index}")))?;
        }
        let loss = view.text("loss")?;
        let link = match (is_classifier, loss) {
            (false, _) => Link::Identity,
            (true, "exponential") => Link::Logistic(2.0),
            (true, "log_loss" | "deviance") if sums == 1 => Link::Logistic(1.0),
            (true, "log_loss" | "deviance") => Link::Softmax,
            _ => {
                return Err(Fault(format!(
                    "the loss `{}` is not supported",
                    shorten(loss)
                )));
            }
        };
        let starts = self.starts(link, sums).map_err(named("init_"))?;
        Ok(Trees {
            link,
            output: link.output(sums),
            ..self.compile(&grove, Precision::F32, Sets::default(), starts)?
        })
    }

    /// What the trees of boosting are added to: what a constant model gives.
    fn starts(&self, link: Link, sums: usize) -> Result<Vec<f64>, Fault> {
        let init = self.view.required("init_")?;
        if init.as_text() == Some("zero") {
            return Ok(vec![0.0; sums]);
        }
        let class = init.class().and_then(|class| class.rsplit('.').next());
        if link == Link::Identity {
            return match class {
                Some("DummyRegressor") => match init.numbers("constant_")?[..] {
                    [constant] if constant.is_finite() => Ok(vec![constant]),
                    _ => Err(Fault::new("`constant_`: expected one number")),
                },
                _ => Err(init.expected("the default, or \"zero\"; other models are not supported")),
            };
        }
        let is_prior = init.get("strategy").and_then(View::as_text) == Some("prior");
        if class != Some("DummyClassifier") || !is_prior {
            return Err(init.expected("the default, or \"zero\"; other models are not supported"));
        }
        let priors = init.numbers("class_prior_")?;
        // Versions cut at different places what is nearly 0 or 1.
        let margin = f64::from(f32::EPSILON);
        if priors.len() != sums.max(2)
            || !priors.iter().all(|p| (margin..=1.0 - margin).contains(p))
        {
            return Err(Fault::new(
                "`class_prior_`: not the shares of the classes, or one that is nearly 0 or 1",
            ));
        }
        Ok(match (link, &priors[..]) {
            (Link::Logistic(factor), [_, prior]) => vec![(prior / (1.0 - prior)).ln() / factor],
            _ => {
                let logarithms: Vec<f64> = priors.iter().map(|prior| prior.ln()).collect();
                let mean = match self.version < STARTS_ARE_CENTERED {
                    true => 0.0,
                    false => logarithms.iter().sum::<f64>() / logarithms.len() as f64,
                };
                logarithms
                    .iter()
                    .map(|logarithm| logarithm - mean)
                    .collect()
            }
        })
    }

    /// Trees of histogram-based gradient boosting.
    pub(super) fn histograms(&self, is_classifier: bool) -> Result<Trees, Fault> {
        let view = self.view;
        let has_categories = view
            .get("is_categorical_")
            .is_some_and(|mask| !mask.is_none());
        let mut sets = match has_categories {
            true => Sets::read(view.required("_bin_mapper")?, self.width),
            false => Ok(Sets::default()),
        }
        .map_err(named("_bin_mapper"))?;
        let starts = match view.required("_baseline_prediction")? {
            number if number.as_number().is_some() => number.as_number().into_iter().collect(),
            array => Array::read(array)?
                .numbers()
                .map_err(named("_baseline_prediction"))?,
        };
        let link = self.histogram_link(is_classifier)?;
        let expected = match link {
            Link::Softmax => class_count(self.view)?,
            _ => 1,
        };
        if starts.len() != expected || !starts.iter().all(|start| start.is_finite()) {
            return Err(Fault(format!(
                "`_baseline_prediction`: expected {expected} numbers"
            )));
        }
        let mut grove = Grove::default();
        for (stage, predictors) in view.list("_predictors")?.into_iter().enumerate() {
            let predictors = predictors.as_list().unwrap_or_default();
            if predictors.len() != expected {
                return Err(Fault(format!(
                    "`_predictors`: stage {stage} has not {expected} trees"
                )));
            }
            for (output, predictor) in predictors.into_iter().enumerate() {
                let grown = self.histogram_tree(predictor, &mut sets);
                let pushed =
                    grown.and_then(|grown| grove.push(&grown, output, |numbers| numbers[0]));
                pushed
                    .map_err(|fault| fault.inside(format_args!("`_predictors`: stage {stage}")))?;
            }
        }
        Ok(Trees {
            link,
            output: link.output(expected),
            takes_missing: true,
            greatest: f64::INFINITY,
            ..self.compile(&grove, Precision::F64, sets, starts)?
        })
    }

    fn histogram_tree(&self, predictor: View<'_, '_>, sets: &mut Sets) -> Result<Grown, Fault> {
        let table = Table {
            records: predictor.array("nodes")?,
        };
        let mut nodes = self.nodes(
            &table,
            "left",
            "right",
            "feature_idx",
            "num_threshold",
            Precision::F64,
        )?;
        if let Some(categorical) = table.optional("is_categorical")?
            && categorical.iter().any(|is| *is != 0.0)
        {
            let (own, places) = (of_tree(predictor)?, table.integers("bitset_idx")?);
            for (node, place) in (0..)
                .zip(places)
                .filter(|(node, _)| categorical[*node] != 0.0)
            {
                let Node::Split {
                    feature, threshold, ..
                } = &mut nodes[node]
                else {
                    continue;
                };
                let set = usize::try_from(place).ok().and_then(|place| own.get(place));
                let set =
                    set.ok_or_else(|| Fault(format!("node {node}: there is no set {place}")))?;
                *feature = self.width as u32 + sets.place(*feature, *set)?;
                *threshold = MIDDLE;
            }
        }
        Ok(Grown {
            nodes,
            values: table.numbers("value")?,
            per_node: 1,
            covers: table.numbers("count")?,
        })
    }

    /// By the class of the loss, which 1.0 has under names of its own.
    fn histogram_link(&self, is_classifier: bool) -> Result<Link, Fault> {
        let loss = self.view.required("_loss")?;
        let name = loss.class().and_then(|class| class.rsplit('.').next());
        Ok(match name.unwrap_or_default() {
            "HalfBinomialLoss" | "BinaryCrossEntropy" if is_classifier => Link::Logistic(1.0),
            "HalfMultinomialLoss" | "CategoricalCrossEntropy" if is_classifier => Link::Softmax,
            "HalfSquaredError"
            | "AbsoluteError"
            | "PinballLoss"
            | "LeastSquares"
            | "LeastAbsoluteDeviation"
                if !is_classifier =>
            {
                Link::Identity
            }
            "HalfPoissonLoss" | "HalfGammaLoss" | "Poisson" if !is_classifier => Link::Exponential,
            _ => return Err(loss.expected("a loss that is known")),
        })
    }
}
