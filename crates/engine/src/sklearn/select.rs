//! Steps that keep some of the columns.

use super::build::{Builder, Built, Columns};
use super::importance::{importances, mean, median};
use super::steps::{Transform, refuse_missing};
use super::version::Version;
use crate::document::{Fault, named, shorten};
use crate::pickle::{Array, View};
use crate::{RowRefusal, Rows};

/// The columns that are kept, in their order.
#[derive(Debug)]
struct Kept {
    columns: Vec<u32>,
    takes_missing: bool,
}

impl Transform for Kept {
    fn width(&self) -> usize {
        self.columns.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        if !self.takes_missing {
            refuse_missing(rows, f64::MAX)?;
        }
        for index in 0..rows.len() {
            let row = rows.row(index);
            out.extend(self.columns.iter().map(|column| row[*column as usize]));
        }
        Ok(())
    }
}

/// A step that keeps these columns.
pub(super) fn kept(columns: Vec<u32>) -> Box<dyn Transform> {
    Box::new(Kept {
        columns,
        takes_missing: true,
    })
}

/// Reads one of these steps; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Built>, Fault> {
    let mask = match name {
        "GenericUnivariateSelect" => {
            let mode = view.text("mode")?;
            by_score(view, mode, view.required("param")?)?
        }
        "SelectPercentile" => by_score(view, "percentile", view.required("percentile")?)?,
        "SelectKBest" => by_score(view, "k_best", view.required("k")?)?,
        "SelectFpr" => by_score(view, "fpr", view.required("alpha")?)?,
        "SelectFdr" => by_score(view, "fdr", view.required("alpha")?)?,
        "SelectFwe" => by_score(view, "fwe", view.required("alpha")?)?,
        "VarianceThreshold" => {
            let threshold = view.number("threshold")?;
            let variances = view.numbers("variances_")?;
            variances
                .iter()
                .map(|variance| *variance > threshold)
                .collect()
        }
        "SelectFromModel" => by_importance(view, builder.version)?,
        "RFE" | "RFECV" | "SequentialFeatureSelector" => {
            let support = view.array("support_")?;
            let mask: Option<_> = (0..support.len()).map(|at| support.boolean(at)).collect();
            mask.ok_or_else(|| Fault::new("`support_`: expected booleans"))?
        }
        _ => return Ok(None),
    };
    if mask.len() != columns.len() {
        return Err(Fault(format!(
            "it judges {} columns, and gets {}",
            mask.len(),
            columns.len()
        )));
    }
    builder.take_numbers(columns)?;
    let kept: Vec<u32> = (0..mask.len() as u32)
        .filter(|at| mask[*at as usize])
        .collect();
    let after = columns.at(&kept);
    let step = Kept {
        columns: kept,
        takes_missing: name == "VarianceThreshold",
    };
    Ok(Some((Box::new(step), after)))
}

/// Which columns are kept by the scores or the p-values of a test.
fn by_score(view: View<'_, '_>, mode: &str, parameter: View<'_, '_>) -> Result<Vec<bool>, Fault> {
    let scores = || view.numbers("scores_");
    let chances = || view.numbers("pvalues_");
    if mode == "k_best" && parameter.as_text() == Some("all") {
        return Ok(vec![true; scores()?.len()]);
    }
    let number = parameter
        .as_number()
        .ok_or_else(|| parameter.expected("a number"))?;
    Ok(match mode {
        "percentile" => percentile(scores()?, number),
        "k_best" => greatest(&cleaned(scores()?), number),
        "fpr" => chances()?.iter().map(|chance| *chance < number).collect(),
        "fdr" => {
            let chances = chances()?;
            let (share, mut sorted) = (number / chances.len() as f64, chances.clone());
            sorted.sort_by(f64::total_cmp);
            let ranked = sorted.iter().zip(1..);
            let passed = ranked.filter(|(chance, rank)| **chance <= share * f64::from(*rank));
            match passed.last() {
                Some((bound, _)) => chances.iter().map(|chance| chance <= bound).collect(),
                None => vec![false; chances.len()],
            }
        }
        "fwe" => {
            let chances = chances()?;
            let bound = number / chances.len() as f64;
            chances.iter().map(|chance| *chance < bound).collect()
        }
        _ => {
            return Err(Fault(format!(
                "the mode `{}` is not supported",
                shorten(mode)
            )));
        }
    })
}

/// Scores of which one that is not a number is the least.
fn cleaned(mut scores: Vec<f64>) -> Vec<f64> {
    let unknown = scores.iter_mut().filter(|score| score.is_nan());
    unknown.for_each(|score| *score = f64::MIN);
    scores
}

/// So many columns of the greatest scores; of equal ones the last.
fn greatest(scores: &[f64], count: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut mask = vec![false; scores.len()];
    let kept = order.iter().rev().take(count.max(0.0) as usize);
    kept.for_each(|place| mask[*place] = true);
    mask
}

/// The columns whose scores are above that of so many percent, and those that equal it as far as there is room.
fn percentile(scores: Vec<f64>, percent: f64) -> Vec<bool> {
    if percent >= 100.0 || scores.is_empty() {
        return vec![true; scores.len()];
    }
    if percent <= 0.0 {
        return vec![false; scores.len()];
    }
    let scores = cleaned(scores);
    let mut sorted = scores.clone();
    sorted.sort_by(f64::total_cmp);
    let place = (scores.len() - 1) as f64 * ((100.0 - percent) / 100.0);
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(scores.len() - 1)]);
    let part = place - place.floor();
    // As NumPy rounds between two numbers.
    let bound = match part >= 0.5 {
        true => high - (high - low) * (1.0 - part),
        false => low + (high - low) * part,
    };
    let mut mask: Vec<bool> = scores.iter().map(|score| *score > bound).collect();
    let most = (scores.len() as f64 * percent / 100.0) as usize;
    let room = most.saturating_sub(mask.iter().filter(|kept| **kept).count());
    let equal = (0..scores.len()).filter(|place| scores[*place] == bound);
    equal.take(room).for_each(|place| mask[place] = true);
    mask
}

/// Which columns matter enough to another model.
fn by_importance(view: View<'_, '_>, version: Version) -> Result<Vec<bool>, Fault> {
    let estimator = match view.get("estimator_") {
        Some(estimator) => estimator,
        None => view.required("estimator")?,
    };
    let getter = view.required("importance_getter")?;
    let getter = getter.as_text().ok_or_else(|| getter.expected("text"));
    let order = view.number("norm_order")?;
    let scores = getter.and_then(|getter| importances(estimator, getter, order));
    let scores = scores.map_err(named("estimator_"))?;
    let threshold = threshold(view, estimator, &scores, version)?;
    let most = match view.get("max_features_") {
        Some(most) => most,
        None => view.required("max_features")?,
    };
    let mut mask = match most.as_integer() {
        Some(most) => {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            let mut mask = vec![false; scores.len()];
            let kept = order.iter().take(usize::try_from(most).unwrap_or_default());
            kept.for_each(|place| mask[*place] = true);
            mask
        }
        None if most.is_none() => vec![true; scores.len()],
        None => return Err(most.expected("a whole number")).map_err(named("max_features")),
    };
    for (kept, score) in mask.iter_mut().zip(&scores) {
        // Without a number there is nothing to be below.
        let is_less = *score < threshold;
        *kept &= !is_less;
    }
    Ok(mask)
}

/// The least importance of a column that is kept.
fn threshold(
    view: View<'_, '_>,
    estimator: View<'_, '_>,
    scores: &[f64],
    version: Version,
) -> Result<f64, Fault> {
    let given = view.required("threshold")?;
    if let Some(number) = given.as_number() {
        return Ok(number);
    }
    let text = match given.as_text() {
        Some(text) => text,
        None if given.is_none() && has_zeros(estimator, version)? => return Ok(1e-5),
        None if given.is_none() => "mean",
        None => return Err(given.expected("a number or text")).map_err(named("threshold")),
    };
    let (factor, reference) = match text.split_once('*') {
        Some((factor, reference)) => (factor.trim().parse().ok(), reference.trim()),
        None => (Some(1.0), text),
    };
    let reference = match reference {
        "mean" => Some(mean(scores)),
        "median" => Some(median(scores)),
        _ => None,
    };
    let product = factor
        .zip(reference)
        .map(|(factor, reference): (f64, f64)| factor * reference);
    product.ok_or_else(|| Fault(format!("`threshold`: `{}` is not known", shorten(text))))
}

/// Whether an estimator was fitted so that columns have no part at all.
fn has_zeros(estimator: View<'_, '_>, version: Version) -> Result<bool, Fault> {
    let class = estimator.class().unwrap_or_default();
    let name = class.rsplit('.').next().unwrap_or(class);
    let is_one = |number: &f64| (number - 1.0).abs() <= 1e-8 + 1e-5;
    let ratio = |name: &str| -> Result<bool, Fault> {
        let Some(value) = estimator.get(name).filter(|value| !value.is_none()) else {
            return Ok(false);
        };
        Ok(match value.as_number() {
            Some(number) => is_one(&number),
            None => Array::read(value)?.numbers()?.iter().all(is_one),
        })
    };
    // Since 1.8 the share says what the penalty did.
    let by_ratio = version >= Version(1, 8);
    Ok(
        estimator.get("penalty").and_then(View::as_text) == Some("l1")
            || name.contains("Lasso")
            || match name {
                "ElasticNet" => ratio("l1_ratio")?,
                "ElasticNetCV" => ratio("l1_ratio_")?,
                "LogisticRegression" => by_ratio && ratio("l1_ratio")?,
                "LogisticRegressionCV" => by_ratio && ratio("l1_ratio_")?,
                _ => false,
            },
    )
}
