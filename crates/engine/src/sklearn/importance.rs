//! What the columns matter to a model, as the library finds it.

use super::trees::Table;
use crate::document::{Fault, named};
use crate::pickle::View;

/// How many numbers NumPy adds in one run.
const RUN: usize = 128;

/// NumPy's sum: long arrays in halves, runs in eight sums side by side.
fn sum(numbers: &[f64]) -> f64 {
    if numbers.len() > RUN {
        let half = numbers.len() / 2;
        let (first, second) = numbers.split_at(half - half % 8);
        return sum(first) + sum(second);
    }
    let (eights, rest) = numbers.as_chunks::<8>();
    let Some((first, eights)) = eights.split_first() else {
        return rest.iter().fold(0.0, |sum, number| sum + number);
    };
    let mut s = *first;
    for eight in eights {
        s.iter_mut()
            .zip(eight)
            .for_each(|(sum, number)| *sum += number);
    }
    let all = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    rest.iter().fold(all, |sum, number| sum + number)
}

pub(super) fn mean(numbers: &[f64]) -> f64 {
    sum(numbers) / numbers.len() as f64
}

pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.get(half) {
        Some(middle) if sorted.len() % 2 == 1 => *middle,
        Some(middle) => (sorted[half - 1] + middle) / 2.0,
        None => f64::NAN,
    }
}

/// What each column matters to a fitted estimator: the size of its factors, or what its trees gained by it.
pub(super) fn importances(
    estimator: View<'_, '_>,
    getter: &str,
    order: f64,
) -> Result<Vec<f64>, Fault> {
    match getter {
        "auto" if estimator.get("coef_").is_some() => factors(estimator, order),
        "coef_" => factors(estimator, order),
        "auto" | "feature_importances_" => gains(estimator),
        _ => Err(Fault::new(
            "`importance_getter` other than \"auto\" is not supported",
        )),
    }
}

fn factors(estimator: View<'_, '_>, order: f64) -> Result<Vec<f64>, Fault> {
    let array = estimator.array("coef_")?;
    let factors = array.numbers().map_err(named("coef_"))?;
    let width = match *array.shape() {
        [_] => return Ok(factors.iter().map(|factor| factor.abs()).collect()),
        [_, width] if width > 0 => width,
        _ => {
            return Err(Fault::new(
                "`coef_`: expected an array of one or two dimensions",
            ));
        }
    };
    let column = |place: usize| factors.iter().skip(place).step_by(width);
    let size = |place: usize| match order {
        1.0 => Ok(column(place).map(|factor| factor.abs()).sum()),
        2.0 => Ok(column(place)
            .map(|factor| factor * factor)
            .sum::<f64>()
            .sqrt()),
        f64::INFINITY => Ok(column(place).fold(0.0, |most, factor| factor.abs().max(most))),
        _ => Err(Fault::new("`norm_order` is none of 1, 2 and infinity")),
    };
    (0..width).map(size).collect()
}

fn gains(estimator: View<'_, '_>) -> Result<Vec<f64>, Fault> {
    let class = estimator.class().unwrap_or_default();
    match class.rsplit('.').next().unwrap_or(class) {
        "DecisionTreeClassifier"
        | "DecisionTreeRegressor"
        | "ExtraTreeClassifier"
        | "ExtraTreeRegressor" => Ok(tree_gains(estimator)?.map_or_else(
            || width(estimator).map(|width| vec![0.0; width]),
            |gains| Ok(shares(gains)),
        )?),
        "RandomForestClassifier"
        | "RandomForestRegressor"
        | "ExtraTreesClassifier"
        | "ExtraTreesRegressor" => mean_gains(estimator, estimator.list("estimators_")?, shares),
        "GradientBoostingClassifier" | "GradientBoostingRegressor" => mean_gains(
            estimator,
            estimator.array("estimators_")?.objects()?,
            |gains| gains,
        ),
        name => Err(Fault(format!(
            "the importances of `{name}` are not supported"
        ))),
    }
}

/// The mean of all trees that have a split, as shares of 1.
fn mean_gains(
    estimator: View<'_, '_>,
    trees: Vec<View<'_, '_>>,
    each: impl Fn(Vec<f64>) -> Vec<f64>,
) -> Result<Vec<f64>, Fault> {
    let width = width(estimator)?;
    let (mut sums, mut count) = (vec![0.0; width], 0.0);
    for tree in trees {
        let Some(gains) = tree_gains(tree)? else {
            continue;
        };
        if gains.len() != width {
            return Err(Fault::new("trees of another number of columns"));
        }
        sums.iter_mut()
            .zip(each(gains))
            .for_each(|(sum, gain)| *sum += gain);
        count += 1.0;
    }
    if count == 0.0 {
        return Ok(sums);
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / count).collect();
    let all = sum(&means);
    Ok(means.iter().map(|mean| mean / all).collect())
}

fn width(tree: View<'_, '_>) -> Result<usize, Fault> {
    let width = tree.required("n_features_in_")?.as_integer();
    let width = width.and_then(|width| usize::try_from(width).ok());
    let width = width.filter(|width| *width <= super::build::WIDTH_MAX);
    width.ok_or_else(|| Fault::new("`n_features_in_` is no number of columns"))
}

fn shares(gains: Vec<f64>) -> Vec<f64> {
    let all = sum(&gains);
    match all > 0.0 {
        true => gains.iter().map(|gain| gain / all).collect(),
        false => gains,
    }
}

/// How much less impure a tree's splits by each column make; none of a tree without splits.
fn tree_gains(tree: View<'_, '_>) -> Result<Option<Vec<f64>>, Fault> {
    let width = width(tree)?;
    let table = Table {
        records: tree
            .required("tree_")?
            .array("nodes")
            .map_err(named("tree_"))?,
    };
    let (lefts, rights) = (
        table.integers("left_child")?,
        table.integers("right_child")?,
    );
    let features = table.integers("feature")?;
    let (impurities, weights) = (
        table.numbers("impurity")?,
        table.numbers("weighted_n_node_samples")?,
    );
    if lefts.len() <= 1 {
        return Ok(None);
    }
    let impure = |node: i64| {
        let node = usize::try_from(node).ok()?;
        Some(weights.get(node)? * impurities.get(node)?)
    };
    let mut gains = vec![0.0; width];
    for (node, feature) in (0..)
        .zip(&features)
        .filter(|(node, _)| lefts[*node as usize] != -1)
    {
        let place = usize::try_from(*feature).ok();
        let gain = place.and_then(|place| gains.get_mut(place));
        let at = node as usize;
        let parts = (impure(node), impure(lefts[at]), impure(rights[at]), gain);
        let (Some(parent), Some(left), Some(right), Some(gain)) = parts else {
            return Err(Fault(format!(
                "node {node}: a child or feature that is not there"
            )));
        };
        *gain += parent - left - right;
    }
    gains.iter_mut().for_each(|gain| *gain /= weights[0]);
    Ok(Some(gains))
}
