//! An estimator of what others predict.

use super::build::{Builder, Column, Columns, classes, last_of};
use super::ensemble::{known_classes, member};
use super::steps::{Chain, Piped, Predictor, Transform};
use crate::document::{Fault, named, shorten};
use crate::pickle::View;
use crate::signature::Output;
use crate::{RowRefusal, Rows};

/// What the estimators make of a row, one after the other, and the row itself if it is passed.
#[derive(Debug)]
struct Predictions {
    parts: Vec<Part>,
    passed: usize,
}

#[derive(Debug)]
struct Part {
    predictor: Box<dyn Predictor>,
    method: Method,
}

#[derive(Debug)]
enum Method {
    /// Probabilities, of two classes that of the second; or numbers.
    Predict,
    Decide,
    /// The name of the class, which is a number.
    Choose(Vec<f64>),
}

impl Part {
    fn width(&self) -> usize {
        match &self.method {
            Method::Predict => self.predictor.output().width(),
            Method::Decide => self
                .predictor
                .decision()
                .map_or(0, |decision| decision.width()),
            Method::Choose(_) => 1,
        }
    }

    fn apply(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        let mut made = Vec::new();
        match (&self.method, self.predictor.decision()) {
            (Method::Decide, Some(decision)) => decision.apply(rows, &mut made)?,
            (Method::Choose(names), _) => {
                made.resize(rows.len(), 0.0);
                self.predictor.choose(rows, &mut made)?;
                made.iter_mut()
                    .for_each(|class| *class = names[*class as usize]);
            }
            _ => {
                made.resize(rows.len() * self.width(), 0.0);
                self.predictor.predict(rows, &mut made)?;
            }
        }
        Ok(made)
    }
}

impl Transform for Predictions {
    fn width(&self) -> usize {
        self.parts.iter().map(Part::width).sum::<usize>() + self.passed
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let made: Result<Vec<_>, _> = self.parts.iter().map(|part| part.apply(rows)).collect();
        let made = made?;
        for index in 0..rows.len() {
            for (part, made) in self.parts.iter().zip(&made) {
                let width = part.width();
                out.extend_from_slice(&made[index * width..][..width]);
            }
            if self.passed > 0 {
                out.extend_from_slice(rows.row(index));
            }
        }
        Ok(())
    }
}

/// The last estimator knows classes by their numbers, and not by their names.
#[derive(Debug)]
struct Stack(Piped);

impl Predictor for Stack {
    fn output(&self) -> Output {
        self.0.output()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        Predictor::predict(&self.0, rows, out)
    }

    fn choose(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        self.0.choose(rows, out)
    }

    fn decision(&self) -> Option<&dyn Transform> {
        self.0.decision()
    }
}

/// Reads one of these estimators; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    if !matches!(name, "StackingClassifier" | "StackingRegressor") {
        return Ok(None);
    }
    let (estimators, methods) = (view.list("estimators_")?, view.list("stack_method_")?);
    if estimators.len() != methods.len() {
        return Err(Fault::new("`stack_method_`: not one for each estimator"));
    }
    let mut parts = Vec::with_capacity(estimators.len());
    for (index, (estimator, method)) in estimators.into_iter().zip(methods).enumerate() {
        let part = part(builder, estimator, method, columns);
        parts.push(part.map_err(|fault| fault.inside(format_args!("estimator {index}")))?);
    }
    let is_passed = view.boolean("passthrough")?;
    let predictions = Predictions {
        parts,
        passed: if is_passed { columns.len() } else { 0 },
    };
    let width = Transform::width(&predictions);
    builder.widen(width)?;
    let mut after = Columns::new(vec![Column::Mixed; width]);
    let own = after.len() - predictions.passed;
    after.list[own..].clone_from_slice(&columns.list[..predictions.passed]);
    if is_passed {
        after.zeros = columns.zeros;
    }
    let last = member(builder, view.required("final_estimator_")?, &after);
    let last = last.map_err(named("final_estimator_"))?;
    let chain = Chain::new(vec![Box::new(predictions)], columns.len());
    Ok(Some(Box::new(Stack(Piped { chain, last }))))
}

fn part(
    builder: &mut Builder,
    view: View<'_, '_>,
    method: View<'_, '_>,
    columns: &Columns,
) -> Result<Part, Fault> {
    let predictor = member(builder, view, columns)?;
    let method = method
        .as_text()
        .ok_or_else(|| method.expected("the name of a method"))?;
    let has_shares = matches!(
        predictor.output(),
        Output::Binary | Output::Multiclass { .. }
    );
    let method = match (method, known_classes(predictor.as_ref())) {
        ("predict", None) => Method::Predict,
        ("predict_proba", Some(_)) if has_shares => Method::Predict,
        ("decision_function", Some(_)) if predictor.decision().is_some() => Method::Decide,
        ("predict", Some(_)) => Method::Choose(
            classes(last_of(view))?
                .numbers()
                .map_err(named("classes_"))?,
        ),
        (other, _) => return Err(Fault(format!("it has no `{}`", shorten(other)))),
    };
    if let Method::Choose(names) = &method
        && known_classes(predictor.as_ref()) != Some(names.len())
    {
        return Err(Fault(format!(
            "`classes_`: {} of another number",
            names.len()
        )));
    }
    Ok(Part { predictor, method })
}
