//! What a pipeline consists of once it is read: steps that change rows, and one that predicts.

use std::fmt::Debug;

use super::link::greatest;
use crate::signature::{ClassLabel, NamedOutput, Output};
use crate::{RowRefusal, Rows};

/// A step that makes rows of others.
pub(super) trait Transform: Debug + Send + Sync {
    /// Values in a row that it makes, at least one.
    fn width(&self) -> usize;

    /// Appends to `out` what becomes of the rows.
    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal>;
}

/// A step that predicts.
pub(super) trait Predictor: Debug + Send + Sync {
    /// What the numbers of its rows mean.
    fn output(&self) -> Output;

    /// Writes its rows to `out`.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal>;

    /// What follows in each row.
    fn more(&self) -> &[NamedOutput] {
        &[]
    }

    /// What gives the numbers of the library's `decision_function`, if there are any.
    fn decision(&self) -> Option<&dyn Transform> {
        None
    }

    /// Writes the class that the library's `predict` gives for each row.
    fn choose(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let output = self.output();
        if let Output::Class { .. } = output {
            return self.predict(rows, out);
        }
        let (mut made, mut width) = (Vec::new(), output.width());
        let middle = match self.decision() {
            Some(decision) => {
                width = decision.width();
                decision.apply(rows, &mut made)?;
                0.0
            }
            None => {
                made.resize(rows.len() * width, 0.0);
                self.predict(rows, &mut made)?;
                0.5
            }
        };
        for (made, out) in made.chunks_exact(width).zip(out) {
            *out = match made {
                [one] => f64::from(u8::from(*one > middle)),
                many => greatest(many) as f64,
            };
        }
        Ok(())
    }

    /// What the classes are called, if the step itself knows it.
    fn labels(&self) -> Option<&[ClassLabel]> {
        None
    }

    /// More than its name, for people.
    fn detail(&self) -> Option<String> {
        None
    }
}

/// Steps one after the other; without any, rows stay as they are.
#[derive(Debug)]
pub(super) struct Chain {
    steps: Vec<Box<dyn Transform>>,
    width: usize,
}

impl Chain {
    /// Steps for rows of `width` values.
    pub(super) fn new(steps: Vec<Box<dyn Transform>>, width: usize) -> Self {
        let width = steps.last().map_or(width, |step| step.width());
        Self { steps, width }
    }
}

impl Transform for Chain {
    fn width(&self) -> usize {
        self.width
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let Some((last, before)) = self.steps.split_last() else {
            for index in 0..rows.len() {
                out.extend_from_slice(rows.row(index));
            }
            return Ok(());
        };
        let (mut values, mut width) = (Vec::new(), rows.width());
        for (index, step) in before.iter().enumerate() {
            let mut made = Vec::with_capacity(rows.len() * step.width());
            let given = if index == 0 {
                rows
            } else {
                rows.reshaped(&values, width)
            };
            step.apply(given, &mut made)?;
            (values, width) = (made, step.width());
        }
        let given = if before.is_empty() {
            rows
        } else {
            rows.reshaped(&values, width)
        };
        last.apply(given, out)
    }
}

/// A prediction from what steps have made of the rows.
#[derive(Debug)]
pub(super) struct Piped {
    pub(super) chain: Chain,
    pub(super) last: Box<dyn Predictor>,
}

impl Predictor for Piped {
    fn output(&self) -> Output {
        self.last.output()
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let mut values = Vec::with_capacity(rows.len() * self.chain.width());
        self.chain.apply(rows, &mut values)?;
        self.last
            .predict(rows.reshaped(&values, self.chain.width()), out)
    }

    fn more(&self) -> &[NamedOutput] {
        self.last.more()
    }

    fn decision(&self) -> Option<&dyn Transform> {
        self.last.decision().map(|_| self as &dyn Transform)
    }

    fn choose(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let mut values = Vec::with_capacity(rows.len() * self.chain.width());
        self.chain.apply(rows, &mut values)?;
        self.last
            .choose(rows.reshaped(&values, self.chain.width()), out)
    }

    fn labels(&self) -> Option<&[ClassLabel]> {
        self.last.labels()
    }

    fn detail(&self) -> Option<String> {
        self.last.detail()
    }
}

/// The decision of the last step.
impl Transform for Piped {
    fn width(&self) -> usize {
        self.last.decision().map_or(0, |decision| decision.width())
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        let mut values = Vec::with_capacity(rows.len() * self.chain.width());
        self.chain.apply(rows, &mut values)?;
        let rows = rows.reshaped(&values, self.chain.width());
        self.last
            .decision()
            .map_or(Ok(()), |decision| decision.apply(rows, out))
    }
}

/// Refuses rows with missing values for a step that the library lets have none, and numbers that its
/// precision does not hold.
pub(super) fn refuse_missing(rows: Rows<'_>, greatest: f64) -> Result<(), RowRefusal> {
    for row in 0..rows.len() {
        for value in rows.row(row) {
            let reason = match value {
                value if value.is_nan() => "has a missing value where the model takes none",
                value if value.abs() > greatest => "has a number that is too large for the model",
                _ => continue,
            };
            return Err(RowRefusal {
                row,
                reason: reason.into(),
            });
        }
    }
    Ok(())
}
