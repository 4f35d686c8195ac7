//! Means of other estimators: votes, bagging, and what is calibrated in parts.

use super::build::{Builder, Columns, class_count, classes, last_of};
use super::calibrate;
use super::compose::steps_of;
use super::link::{greatest, of_classes};
use super::select::kept;
use super::steps::{Chain, Piped, Predictor, Transform};
use crate::document::{Fault, named};
use crate::pickle::{Array, View};
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// Estimators whose predictions are averaged.
#[derive(Debug)]
struct Averaged {
    members: Vec<Member>,
    /// What the weights add up to.
    weights: f64,
    rule: Rule,
    /// Whether the library averages decisions too.
    decides: bool,
}

#[derive(Debug)]
struct Member {
    predictor: Box<dyn Predictor>,
    weight: f64,
    /// Which class each of its own is, if it does not know all.
    classes: Option<Vec<u32>>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Probabilities of so many classes.
    Shares(usize),
    /// The class that most are for.
    Votes(usize),
    /// Numbers, so many for a row.
    Numbers(usize),
}

/// Of how many classes an estimator knows one.
pub(super) fn known_classes(predictor: &dyn Predictor) -> Option<usize> {
    match predictor.output() {
        Output::Binary => Some(2),
        Output::Multiclass { classes } | Output::Class { classes } => Some(classes),
        Output::Numbers { .. } => None,
    }
}

/// The share of each class, all of one that is predicted without a probability.
pub(super) fn shares(
    predictor: &dyn Predictor,
    rows: Rows<'_>,
    classes: usize,
) -> Result<Vec<f64>, RowRefusal> {
    let output = predictor.output();
    let mut made = vec![0.0; rows.len() * output.width()];
    predictor.predict(rows, &mut made)?;
    Ok(match output {
        Output::Binary => made
            .iter()
            .flat_map(|share| [1.0 - share, *share])
            .collect(),
        Output::Class { .. } => {
            let mut shares = vec![0.0; rows.len() * classes];
            for (shares, class) in shares.chunks_exact_mut(classes).zip(made) {
                shares[class as usize] = 1.0;
            }
            shares
        }
        Output::Multiclass { .. } | Output::Numbers { .. } => made,
    })
}

impl Averaged {
    /// The weighted sums of all members, for each row and class or number.
    fn sums(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        let (Rule::Shares(width) | Rule::Votes(width) | Rule::Numbers(width)) = self.rule;
        let mut sums = vec![0.0; rows.len() * width];
        for member in &self.members {
            let own = member.classes.as_ref().map_or(width, Vec::len);
            let made = match self.rule {
                Rule::Shares(_) => shares(member.predictor.as_ref(), rows, own)?,
                Rule::Votes(_) => {
                    let mut chosen = vec![0.0; rows.len()];
                    member.predictor.choose(rows, &mut chosen)?;
                    let mut votes = vec![0.0; rows.len() * own];
                    for (votes, class) in votes.chunks_exact_mut(own).zip(chosen) {
                        votes[class as usize] = 1.0;
                    }
                    votes
                }
                Rule::Numbers(_) => {
                    let mut made = vec![0.0; rows.len() * own];
                    member.predictor.predict(rows, &mut made)?;
                    made
                }
            };
            for (sums, made) in sums.chunks_exact_mut(width).zip(made.chunks_exact(own)) {
                for (place, made) in made.iter().enumerate() {
                    let place = member
                        .classes
                        .as_ref()
                        .map_or(place, |all| all[place] as usize);
                    sums[place] += made * member.weight;
                }
            }
        }
        Ok(sums)
    }
}

impl Predictor for Averaged {
    fn output(&self) -> Output {
        match self.rule {
            Rule::Shares(classes) => of_classes(classes),
            Rule::Votes(classes) => Output::Class { classes },
            Rule::Numbers(count) => Output::Numbers { count },
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let sums = self.sums(rows)?;
        let width = self.output().width();
        let own = sums.len() / rows.len().max(1);
        for (out, sums) in out
            .chunks_exact_mut(width)
            .zip(sums.chunks_exact(own.max(1)))
        {
            match self.rule {
                Rule::Votes(_) => out[0] = greatest(sums) as f64,
                _ => {
                    let means = sums[own - width..].iter().map(|sum| sum / self.weights);
                    out.iter_mut()
                        .zip(means)
                        .for_each(|(out, mean)| *out = mean);
                }
            }
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        self.decides.then_some(self)
    }
}

/// The mean of the decisions.
impl Transform for Averaged {
    fn width(&self) -> usize {
        let first = self
            .members
            .first()
            .and_then(|member| member.predictor.decision());
        first.map_or(0, |decision| decision.width())
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let start = out.len();
        out.resize(start + rows.len() * Transform::width(self), 0.0);
        for decision in self
            .members
            .iter()
            .filter_map(|member| member.predictor.decision())
        {
            let mut made = Vec::new();
            decision.apply(rows, &mut made)?;
            out[start..]
                .iter_mut()
                .zip(made)
                .for_each(|(sum, made)| *sum += made);
        }
        out[start..].iter_mut().for_each(|sum| *sum /= self.weights);
        Ok(())
    }
}

/// Reads an estimator within another.
pub(super) fn member(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Box<dyn Predictor>, Fault> {
    let predictor = builder.predictor(view, columns)?;
    match predictor.more().is_empty() {
        true => Ok(predictor),
        false => Err(Fault::new(
            "an estimator of outliers is not supported within another",
        )),
    }
}

/// Reads one of these estimators; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let averaged = match name {
        "VotingClassifier" | "VotingRegressor" => voting(builder, view, columns, name)?,
        "BaggingClassifier" => bagging(builder, view, columns, true)?,
        "BaggingRegressor" => bagging(builder, view, columns, false)?,
        "CalibratedClassifierCV" => calibrated(builder, view, columns)?,
        _ => return Ok(None),
    };
    Ok(Some(Box::new(averaged)))
}

fn averaged(members: Vec<Member>, rule: Rule) -> Result<Averaged, Fault> {
    let weights: f64 = members.iter().map(|member| member.weight).sum();
    match members.is_empty() || !weights.is_finite() || weights == 0.0 {
        true => Err(Fault::new("no estimators, or weights that have no mean")),
        false => Ok(Averaged {
            members,
            weights,
            rule,
            decides: false,
        }),
    }
}

/// How many numbers all members give.
fn numbers(members: &[Member]) -> Result<Rule, Fault> {
    let count = |member: &Member| match member.predictor.output() {
        Output::Numbers { count } => Some(count),
        _ => None,
    };
    let first = members.first().and_then(count);
    match first.filter(|_| members.iter().all(|member| count(member) == first)) {
        Some(count) => Ok(Rule::Numbers(count)),
        None => Err(Fault::new("`estimators_`: not all give as many numbers")),
    }
}

fn voting(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Averaged, Fault> {
    let weights = weights(view)?;
    let estimators = view.list("estimators_")?;
    if weights
        .as_ref()
        .is_some_and(|weights| weights.len() != estimators.len())
    {
        return Err(Fault::new("`weights`: not one for each estimator"));
    }
    let mut members = Vec::with_capacity(estimators.len());
    for (index, estimator) in estimators.into_iter().enumerate() {
        let predictor = member(builder, estimator, columns);
        members.push(Member {
            predictor: predictor
                .map_err(|fault| fault.inside(format_args!("estimator {index}")))?,
            weight: weights.as_ref().map_or(1.0, |weights| weights[index]),
            classes: None,
        });
    }
    if name == "VotingRegressor" {
        let rule = numbers(&members)?;
        return averaged(members, rule);
    }
    let count = class_count(view)?;
    let is_soft = view.text("voting")? == "soft";
    for (index, member) in members.iter().enumerate() {
        let output = member.predictor.output();
        let has_shares = matches!(output, Output::Binary | Output::Multiclass { .. });
        if known_classes(member.predictor.as_ref()) != Some(count) || is_soft && !has_shares {
            return Err(Fault(format!(
                "estimator {index}: it does not give what is asked of {count} classes"
            )));
        }
    }
    averaged(
        members,
        if is_soft {
            Rule::Shares(count)
        } else {
            Rule::Votes(count)
        },
    )
}

/// The weights of the estimators that are not dropped.
fn weights(view: View<'_, '_>) -> Result<Option<Vec<f64>>, Fault> {
    let weights = view.required("weights")?;
    if weights.is_none() {
        return Ok(None);
    }
    let given = match weights.as_list() {
        Some(list) => list.iter().map(|weight| weight.as_number()).collect(),
        None => Some(Array::read(weights)?.numbers().map_err(named("weights"))?),
    };
    let given = given
        .ok_or_else(|| weights.expected("numbers"))
        .map_err(named("weights"))?;
    let steps = steps_of(view, "estimators")?;
    if steps.len() != given.len() {
        return Err(Fault::new("`weights`: not one for each of `estimators`"));
    }
    let present = steps
        .iter()
        .zip(given)
        .filter(|(step, _)| step.estimator.as_text() != Some("drop"));
    Ok(Some(present.map(|(_, weight)| weight).collect()))
}

fn bagging(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    is_classifier: bool,
) -> Result<Averaged, Fault> {
    let count = if is_classifier { class_count(view)? } else { 0 };
    let parts = on_parts(view, columns.len())?;
    let mut members = Vec::with_capacity(parts.len());
    for (index, (estimator, places)) in parts.into_iter().enumerate() {
        let member = bagged(builder, estimator, places, columns, count);
        members.push(member.map_err(|fault| fault.inside(format_args!("estimator {index}")))?);
    }
    let rule = match is_classifier {
        true => Rule::Shares(count),
        false => numbers(&members)?,
    };
    // Those that know fewer classes decide about others.
    let decides = is_classifier
        && members
            .iter()
            .all(|member| member.classes.is_none() && member.predictor.decision().is_some());
    Ok(Averaged {
        decides,
        ..averaged(members, rule)?
    })
}

/// The estimators of one that gives each some of the columns, and which.
pub(super) fn on_parts<'p, 'a>(
    view: View<'p, 'a>,
    width: usize,
) -> Result<Vec<(View<'p, 'a>, Vec<u32>)>, Fault> {
    const NAME: &str = "estimators_features_";
    let (estimators, features) = (view.list("estimators_")?, view.list(NAME)?);
    if estimators.len() != features.len() {
        return Err(Fault(format!("`{NAME}`: not one for each estimator")));
    }
    let place = |place: i64| {
        let place = u32::try_from(place).ok();
        place.filter(|place| (*place as usize) < width)
    };
    let places = features.into_iter().map(|features| {
        let places = Array::read(features)?.integers()?.into_iter().map(place);
        let places: Option<Vec<u32>> = places.collect();
        let places = places.filter(|places| !places.is_empty());
        places.ok_or_else(|| Fault::new("a column that is not there"))
    });
    let places: Vec<Vec<u32>> = places.collect::<Result<_, _>>().map_err(named(NAME))?;
    Ok(estimators.into_iter().zip(places).collect())
}

/// One that gets some of the columns and may know some of the classes, whose numbers it has for their names.
fn bagged(
    builder: &mut Builder,
    view: View<'_, '_>,
    places: Vec<u32>,
    columns: &Columns,
    count: usize,
) -> Result<Member, Fault> {
    let is_all = places.iter().copied().eq(0..columns.len() as u32);
    let mut predictor = member(builder, view, &columns.at(&places))?;
    if !is_all {
        let chain = Chain::new(vec![kept(places)], columns.len());
        predictor = Box::new(Piped {
            chain,
            last: predictor,
        });
    }
    let mut own = None;
    if count > 0 {
        let known = known_classes(predictor.as_ref());
        let known = known.ok_or_else(|| Fault::new("it gives numbers and no classes"))?;
        if known != count {
            let places = classes(last_of(view))?.integers()?;
            let place = |place: i64| {
                u32::try_from(place)
                    .ok()
                    .filter(|place| (*place as usize) < count)
            };
            let places: Option<Vec<u32>> = places.into_iter().map(place).collect();
            let places = places.filter(|places| places.len() == known);
            own =
                Some(places.ok_or_else(|| Fault(format!("`classes_`: others than the {count}")))?);
        }
    }
    Ok(Member {
        predictor,
        weight: 1.0,
        classes: own,
    })
}

fn calibrated(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Averaged, Fault> {
    let count = class_count(view)?;
    let mut members = Vec::new();
    for (index, part) in view
        .list("calibrated_classifiers_")?
        .into_iter()
        .enumerate()
    {
        let predictor = calibrate::read(builder, part, columns, count);
        members.push(Member {
            predictor: predictor
                .map_err(|fault| fault.inside(format_args!("classifier {index}")))?,
            weight: 1.0,
            classes: None,
        });
    }
    averaged(members, Rule::Shares(count))
}
