//! AdaBoost.

use super::build::{Builder, Columns, class_count};
use super::ensemble::{known_classes, member, shares};
use super::link::{of_classes, probabilities};
use super::steps::{Predictor, Transform};
use super::trees;
use super::version::Version;
use crate::document::Fault;
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// The first version in which a vote for one class is one against all others.
const VOTES_ARE_BALANCED: Version = Version(1, 3);
/// The first version that has one algorithm only.
const ONE_ALGORITHM: Version = Version(1, 6);

#[derive(Debug)]
struct Classifier {
    members: Vec<(Box<dyn Predictor>, f64)>,
    /// What all weights add up to.
    weights: f64,
    classes: usize,
    rule: Rule,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// What a class gets that is not voted for, as a share of the weight.
    Votes(f64),
    /// Logarithms of probabilities, in SAMME.R.
    Logarithms,
}

impl Classifier {
    /// The sum of each class.
    fn sums(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        let count = self.classes;
        let mut sums = vec![0.0; rows.len() * count];
        let mut chosen = vec![0.0; rows.len()];
        for (member, weight) in &self.members {
            match self.rule {
                Rule::Votes(others) => {
                    member.choose(rows, &mut chosen)?;
                    for (sums, chosen) in sums.chunks_exact_mut(count).zip(&chosen) {
                        for (class, sum) in sums.iter_mut().enumerate() {
                            let is_it = class == *chosen as usize;
                            *sum += if is_it { *weight } else { others * weight };
                        }
                    }
                }
                Rule::Logarithms => {
                    let mut made = shares(member.as_ref(), rows, count)?;
                    for (sums, made) in sums
                        .chunks_exact_mut(count)
                        .zip(made.chunks_exact_mut(count))
                    {
                        made.iter_mut()
                            .for_each(|share| *share = share.max(f64::EPSILON).ln());
                        let mean = made.iter().sum::<f64>() / count as f64;
                        let parts = sums.iter_mut().zip(made);
                        parts.for_each(|(sum, made)| *sum += (count - 1) as f64 * (*made - mean));
                    }
                }
            }
        }
        sums.iter_mut().for_each(|sum| *sum /= self.weights);
        Ok(sums)
    }
}

impl Predictor for Classifier {
    fn output(&self) -> Output {
        of_classes(self.classes)
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let mut decisions = Vec::new();
        self.apply(rows, &mut decisions)?;
        let width = self.output().width();
        let decisions = decisions.chunks_exact(Transform::width(self));
        for (decision, out) in decisions.zip(out.chunks_exact_mut(width)) {
            let mut sums = match decision {
                [sum] => vec![-sum / 2.0, sum / 2.0],
                sums => sums
                    .iter()
                    .map(|sum| sum / (self.classes - 1) as f64)
                    .collect(),
            };
            probabilities(&mut sums, out);
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        Some(self)
    }
}

/// The decision: of two classes the difference.
impl Transform for Classifier {
    fn width(&self) -> usize {
        match self.classes {
            2 => 1,
            classes => classes,
        }
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let sums = self.sums(rows)?;
        match self.classes {
            2 => out.extend(sums.chunks_exact(2).map(|pair| pair[1] - pair[0])),
            _ => out.extend(sums),
        }
        Ok(())
    }
}

/// The weighted median of numbers.
#[derive(Debug)]
struct Median {
    members: Vec<(Box<dyn Predictor>, f64)>,
}

impl Predictor for Median {
    fn output(&self) -> Output {
        Output::Numbers { count: 1 }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let mut made = Vec::with_capacity(self.members.len());
        for (member, weight) in &self.members {
            let mut numbers = vec![0.0; rows.len()];
            member.predict(rows, &mut numbers)?;
            made.push((numbers, *weight));
        }
        for (index, out) in out.iter_mut().enumerate() {
            let parts = made
                .iter()
                .map(|(numbers, weight)| (numbers[index], *weight));
            let mut parts: Vec<(f64, f64)> = parts.collect();
            parts.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let sums = parts.iter().scan(0.0, |sum, (_, weight)| {
                *sum += weight;
                Some(*sum)
            });
            let sums: Vec<f64> = sums.collect();
            let half = sums.last().map_or(0.0, |all| 0.5 * all);
            let place = sums.iter().position(|sum| *sum >= half).unwrap_or(0);
            *out = parts[place].0;
        }
        Ok(())
    }
}

/// Reads one of these estimators; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let classes = match name {
        "AdaBoostClassifier" => Some(class_count(view)?),
        "AdaBoostRegressor" => None,
        _ => return Ok(None),
    };
    let has_logarithms = classes.is_some()
        && builder.version < ONE_ALGORITHM
        && view.text("algorithm")? == "SAMME.R";
    let estimators = view.list("estimators_")?;
    let weights = view.numbers("estimator_weights_")?;
    if estimators.is_empty() || weights.len() < estimators.len() {
        return Err(Fault::new(
            "`estimator_weights_`: not one for each estimator",
        ));
    }
    let all: f64 = weights.iter().sum();
    let mut members = Vec::with_capacity(estimators.len());
    for (index, (estimator, weight)) in estimators.into_iter().zip(weights).enumerate() {
        let member = match classes {
            Some(_) => trees::read_all_shares(builder, estimator, columns),
            None => member(builder, estimator, columns),
        };
        let member = member.and_then(|member| {
            let fits = match (classes, member.output()) {
                // Of two classes that have but one share, the other's logarithm is not exact.
                (Some(_), Output::Binary | Output::Class { .. }) if has_logarithms => {
                    return Err(Fault::new("SAMME.R is supported with single trees only"));
                }
                (Some(_), _) => known_classes(member.as_ref()) == classes,
                (None, output) => output == Output::Numbers { count: 1 },
            };
            match fits {
                true => Ok(member),
                false => Err(Fault::new("it predicts something else than the whole")),
            }
        });
        let member = member.map_err(|fault| fault.inside(format_args!("estimator {index}")))?;
        members.push((member, weight));
    }
    let Some(classes) = classes else {
        return Ok(Some(Box::new(Median { members })));
    };
    let rule = match has_logarithms {
        true => Rule::Logarithms,
        false if builder.version < VOTES_ARE_BALANCED => Rule::Votes(0.0),
        false => Rule::Votes(-1.0 / (classes - 1) as f64),
    };
    Ok(Some(Box::new(Classifier {
        members,
        weights: all,
        classes,
        rule,
    })))
}
