//! Predictions from the nearest of the rows that a model has kept.
//!
//! All of them are compared, also where the library would have looked them up in a tree. Of rows that are as far
//! away, those that were fitted first are nearer.

use std::collections::BinaryHeap;

use super::build::{class_count, table};
use super::link::of_classes;
use super::steps::{Predictor, refuse_missing};
use super::vectors::{Given, Vectors, is_sparse};
use crate::document::{Fault, named, shorten};
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

#[derive(Debug)]
struct Neighbors {
    kept: Vectors,
    metric: Metric,
    /// How many count.
    count: usize,
    weighing: Weighing,
    targets: Targets,
}

#[derive(Clone, Copy, Debug)]
enum Metric {
    Manhattan,
    Euclidean,
    Chebyshev,
    Minkowski(f64),
    Cosine,
}

/// How much each neighbor counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Weighing {
    Same,
    /// The less, the farther away; those at the very place alone, if there are any.
    ByDistance,
}

impl Weighing {
    pub(super) fn read(view: View<'_, '_>) -> Result<Self, Fault> {
        let weights = view.required("weights")?;
        match weights.as_text() {
            Some("uniform") => Ok(Self::Same),
            Some("distance") => Ok(Self::ByDistance),
            None if weights.is_none() => Ok(Self::Same),
            _ => Err(weights.expected("\"uniform\" or \"distance\"")).map_err(named("weights")),
        }
    }

    /// The weight of each distance.
    pub(super) fn weights(self, distances: &[f64]) -> Vec<f64> {
        if self == Self::Same {
            return vec![1.0; distances.len()];
        }
        let weights = distances.iter().map(|distance| 1.0 / distance);
        let weights: Vec<f64> = weights.collect();
        match weights.iter().any(|weight| weight.is_infinite()) {
            true => {
                let is_there = |weight: &f64| f64::from(u8::from(weight.is_infinite()));
                weights.iter().map(is_there).collect()
            }
            false => weights,
        }
    }
}

/// What the kept rows have.
#[derive(Debug)]
enum Targets {
    /// The class of each.
    Classes(Vec<u32>, usize),
    /// So many numbers each.
    Numbers(Vec<f64>, usize),
}

/// Numbers that are compared together with the greatest of the least.
const GROUP: usize = 16;

/// The places of so many of the least numbers; of equal ones, the first.
pub(super) fn least(numbers: &[f64], count: usize) -> Vec<usize> {
    /// A whole number in the order of `total_cmp`.
    fn ordered(number: f64) -> i64 {
        let bits = number.to_bits() as i64;
        bits ^ ((bits >> 63) as u64 >> 1) as i64
    }
    let first = numbers.iter().zip(0..).take(count);
    let first = first.map(|(number, place)| (ordered(*number), place));
    let mut least: BinaryHeap<(i64, usize)> = first.collect();
    let mut bound = least.peek().map_or(i64::MIN, |greatest| greatest.0);
    let mut place = least.len();
    for group in numbers[place..].chunks(GROUP) {
        // Most have none that is nearer; all are asked at once.
        let nearer = group.iter().filter(|number| ordered(**number) < bound);
        if nearer.count() > 0 {
            for (number, place) in group.iter().zip(place..) {
                if let Some(mut greatest) = least.peek_mut()
                    && (ordered(*number), place) < *greatest
                {
                    *greatest = (ordered(*number), place);
                }
            }
            bound = least.peek().map_or(i64::MIN, |greatest| greatest.0);
        }
        place += group.len();
    }
    let places = least.into_sorted_vec().into_iter();
    places.map(|(_, place)| place).collect()
}

impl Neighbors {
    /// For each kept row something that is the greater, the farther away it is.
    fn comparable(&self, given: &Given<'_>) -> Vec<f64> {
        match self.metric {
            Metric::Manhattan => self.kept.fold(given, |sum, x, y| sum + (x - y).abs()),
            Metric::Euclidean => self.kept.fold(given, |sum, x, y| sum + (x - y) * (x - y)),
            Metric::Chebyshev => self.kept.fold(given, |most, x, y| most.max((x - y).abs())),
            Metric::Minkowski(p) => {
                let step = |sum: f64, x: f64, y: f64| sum + (x - y).abs().powf(p);
                self.kept.fold(given, step)
            }
            Metric::Cosine => {
                let length = |square: &f64| if *square == 0.0 { 1.0 } else { square.sqrt() };
                let products = self.kept.products(given);
                let x = self.kept.fold(given, |sum, x, _| sum + x * x);
                let y = self.kept.fold(given, |sum, _, y| sum + y * y);
                let lengths = x.iter().zip(&y).map(|(x, y)| length(x) * length(y));
                let cosines = products.iter().zip(lengths);
                cosines
                    .map(|(product, length)| (1.0 - product / length).clamp(0.0, 2.0))
                    .collect()
            }
        }
    }

    fn distance(&self, comparable: f64) -> f64 {
        match self.metric {
            Metric::Euclidean => comparable.sqrt(),
            Metric::Minkowski(p) => comparable.powf(1.0 / p),
            Metric::Manhattan | Metric::Chebyshev | Metric::Cosine => comparable,
        }
    }

    /// The nearest rows and their weights.
    fn nearest(&self, row: &[f64]) -> Vec<(usize, f64)> {
        let given = self.kept.given(row);
        let all = self.comparable(&given);
        let places = least(&all, self.count);
        let distances: Vec<f64> = places
            .iter()
            .map(|place| self.distance(all[*place]))
            .collect();
        places
            .into_iter()
            .zip(self.weighing.weights(&distances))
            .collect()
    }
}

impl Predictor for Neighbors {
    fn output(&self) -> Output {
        match self.targets {
            Targets::Classes(_, count) => of_classes(count),
            Targets::Numbers(_, count) => Output::Numbers { count },
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let width = self.output().width();
        for (index, out) in out.chunks_exact_mut(width).enumerate() {
            let nearest = self.nearest(rows.row(index));
            let all: f64 = nearest.iter().map(|(_, weight)| weight).sum();
            match &self.targets {
                Targets::Classes(classes, count) => {
                    let mut votes = vec![0.0; *count];
                    nearest
                        .iter()
                        .for_each(|(place, weight)| votes[classes[*place] as usize] += weight);
                    let shares = votes[count - width..].iter().map(|votes| votes / all);
                    out.iter_mut()
                        .zip(shares)
                        .for_each(|(out, share)| *out = share);
                }
                Targets::Numbers(numbers, count) => {
                    for (target, out) in out.iter_mut().enumerate() {
                        let parts = nearest.iter();
                        let parts =
                            parts.map(|(place, weight)| numbers[place * count + target] * weight);
                        *out = parts.sum::<f64>() / all;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads one of these estimators; none if it is another.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let is_classifier = match name {
        "KNeighborsClassifier" => true,
        "KNeighborsRegressor" => false,
        _ => return Ok(None),
    };
    let kept = Vectors::read(view, "_fit_X", width)?;
    let targets = match is_classifier {
        true => classes(view, kept.len())?,
        false => numbers(view, kept.len())?,
    };
    let count = neighbors(view)?;
    if count > kept.len() {
        return Err(Fault(format!(
            "`n_neighbors`: {count} of {} rows that were fitted",
            kept.len()
        )));
    }
    let metric = metric(view)?;
    // What the library finds by the others depends on the order in which a sparse row has its values.
    if is_sparse(view.required("_fit_X")?) && !matches!(metric, Metric::Euclidean | Metric::Cosine)
    {
        return Err(Fault::new(
            "of sparse rows only the metrics \"euclidean\" and \"cosine\" are supported",
        ));
    }
    Ok(Some(Box::new(Neighbors {
        metric,
        kept,
        count,
        weighing: Weighing::read(view)?,
        targets,
    })))
}

/// How many neighbors count.
pub(super) fn neighbors(view: View<'_, '_>) -> Result<usize, Fault> {
    let count = view.required("n_neighbors")?;
    let whole = count
        .as_integer()
        .and_then(|count| usize::try_from(count).ok());
    let whole = whole.filter(|count| *count > 0);
    whole.ok_or_else(|| count.expected("a number of neighbors"))
}

fn classes(view: View<'_, '_>, count: usize) -> Result<Targets, Fault> {
    if view.boolean("outputs_2d_")? {
        return Err(Fault::new("a model of several outputs is not supported"));
    }
    let classes = class_count(view)?;
    let places = view.array("_y")?.integers().map_err(named("_y"))?;
    let place = |place: i64| {
        u32::try_from(place)
            .ok()
            .filter(|place| (*place as usize) < classes)
    };
    let places: Option<Vec<u32>> = places.into_iter().map(place).collect();
    match places {
        Some(places) if places.len() == count => Ok(Targets::Classes(places, classes)),
        _ => Err(Fault(format!(
            "`_y`: not one of {classes} classes for each of {count} rows"
        ))),
    }
}

fn numbers(view: View<'_, '_>, count: usize) -> Result<Targets, Fault> {
    let array = view.array("_y")?;
    let targets = match *array.shape() {
        [rows] if rows == count => 1,
        [rows, targets] if rows == count && targets > 0 => targets,
        _ => {
            return Err(Fault(format!(
                "`_y`: an array of the shape {:?} for {count} rows",
                array.shape()
            )));
        }
    };
    Ok(Targets::Numbers(table(view, "_y", array.shape())?, targets))
}

fn metric(view: View<'_, '_>) -> Result<Metric, Fault> {
    let metric = view.required("effective_metric_")?;
    let parameter = |name: &str| {
        let parameters = view.get("effective_metric_params_")?.as_dict()?;
        let mut found = parameters
            .iter()
            .filter(|[key, _]| key.as_text() == Some(name));
        found
            .next()
            .map(|[_, value]| *value)
            .filter(|value| !value.is_none())
    };
    if parameter("w").is_some() {
        return Err(Fault::new(
            "`metric_params`: weights of the columns are not supported",
        ));
    }
    Ok(match metric.as_text() {
        Some("manhattan" | "cityblock" | "l1") => Metric::Manhattan,
        Some("euclidean" | "l2") => Metric::Euclidean,
        Some("chebyshev" | "infinity") => Metric::Chebyshev,
        Some("cosine") => Metric::Cosine,
        Some("minkowski" | "p") => match parameter("p").and_then(View::as_number) {
            Some(1.0) => Metric::Manhattan,
            None | Some(2.0) => Metric::Euclidean,
            Some(f64::INFINITY) => Metric::Chebyshev,
            Some(p) if p > 0.0 => Metric::Minkowski(p),
            Some(_) => return Err(Fault::new("`p` is not above 0")),
        },
        Some(other) => {
            return Err(Fault(format!(
                "the metric `{}` is not supported",
                shorten(other)
            )));
        }
        None => return Err(metric.expected("the name of a metric")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_numbers_the_first_are_least() {
        let numbers = [2.0, 1.0, f64::NAN, 1.0, 0.5, 1.0];
        assert_eq!(least(&numbers, 3), [4, 1, 3]);
        assert_eq!(least(&numbers, 9), [4, 1, 3, 5, 0, 2]);
    }
}
