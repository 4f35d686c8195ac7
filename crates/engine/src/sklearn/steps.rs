//! What a pipeline consists of once it is read: steps that change rows, and one that predicts.

use std::fmt::Debug;

use super::link::greatest;
use super::sparse::SparseRows;
use crate::explain::Explain;
use crate::signature::{ClassLabel, NamedOutput, Output};
use crate::{RowRefusal, Rows};

/// A step that makes rows of others.
pub(super) trait Transform: Debug + Send + Sync {
    /// Values in a row that it makes, at least one.
    fn width(&self) -> usize;

    /// Appends to `out` what becomes of the rows.
    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal>;

    /// Whether most of what it makes is 0, so that [`Transform::apply_sparse`] is the quicker way.
    fn is_sparse(&self) -> bool {
        false
    }

    /// [`Transform::apply`] without the values that are 0.
    fn apply_sparse(&self, rows: Rows<'_>, out: &mut SparseRows) -> Result<(), RowRefusal> {
        apply_dense(self, rows, out)
    }

    /// The step as one that changes values that are there, if what is 0 stays 0.
    fn as_change(&self) -> Option<&dyn Change> {
        None
    }
}

/// A step that leaves alone what is 0.
pub(super) trait Change {
    fn change(&self, rows: &mut SparseRows) -> Result<(), RowRefusal>;
}

/// A step that predicts.
pub(super) trait Predictor: Debug + Send + Sync {
    /// What the numbers of its rows mean.
    fn output(&self) -> Output;

    /// Writes its rows to `out`.
    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal>;

    /// Whether it makes use of it that most values of rows are 0.
    fn takes_sparse(&self) -> bool {
        false
    }

    /// [`Predictor::predict`] of rows of so many values.
    fn predict_sparse(
        &self,
        rows: &SparseRows,
        width: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        predict_dense(self, rows, width, out)
    }

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
        let Some(decision) = self.decision() else {
            return choose_by_shares(self, rows, out);
        };
        let mut made = Vec::new();
        decision.apply(rows, &mut made)?;
        choose_above(0.0, &made, decision.width(), out);
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

    /// What each column that the last step gets adds, if that step can tell without being asked: to its decision, or
    /// where it has none, to what it predicts.
    fn explain(&self) -> Option<&dyn Explain> {
        None
    }
}

/// Writes the class of the greatest probability for each row.
pub(super) fn choose_by_shares<P: Predictor + ?Sized>(
    predictor: &P,
    rows: Rows<'_>,
    out: &mut [f64],
) -> Result<(), RowRefusal> {
    let width = predictor.output().width();
    let mut made = vec![0.0; rows.len() * width];
    predictor.predict(rows, &mut made)?;
    choose_above(0.5, &made, width, out);
    Ok(())
}

/// Writes the class of the greatest number; of two classes, the second where their one number is above the middle.
fn choose_above(middle: f64, made: &[f64], width: usize, out: &mut [f64]) {
    for (made, out) in made.chunks_exact(width).zip(out) {
        *out = match made {
            [one] => f64::from(u8::from(*one > middle)),
            many => greatest(many) as f64,
        };
    }
}

/// Makes all values of rows, and keeps those that are not 0.
fn apply_dense<T: Transform + ?Sized>(
    step: &T,
    rows: Rows<'_>,
    out: &mut SparseRows,
) -> Result<(), RowRefusal> {
    let mut values = Vec::with_capacity(rows.len() * step.width());
    step.apply(rows, &mut values)?;
    out.extend(rows.reshaped(&values, step.width()));
    Ok(())
}

/// Predicts from all values of rows.
pub(super) fn predict_dense<P: Predictor + ?Sized>(
    predictor: &P,
    rows: &SparseRows,
    width: usize,
    out: &mut [f64],
) -> Result<(), RowRefusal> {
    let mut values = Vec::with_capacity(rows.len() * width);
    rows.append_to(&mut values, width);
    predictor.predict(Rows::new(&values, width), out)
}

/// Steps one after the other; without any, rows stay as they are.
#[derive(Debug)]
pub(super) struct Chain {
    steps: Vec<Box<dyn Transform>>,
    width: usize,
    /// How many steps there are before one whose zeros all that follow leave alone.
    before_sparse: Option<usize>,
}

impl Chain {
    /// Steps for rows of `width` values.
    pub(super) fn new(steps: Vec<Box<dyn Transform>>, width: usize) -> Self {
        let width = steps.last().map_or(width, |step| step.width());
        let changes = steps.iter().rev();
        let changes = changes.take_while(|step| !step.is_sparse() && step.as_change().is_some());
        let before = steps.len().checked_sub(changes.count() + 1);
        Self {
            before_sparse: before.filter(|before| steps[*before].is_sparse()),
            steps,
            width,
        }
    }

    /// Has something done with what the first steps, so many, make of the rows.
    fn after<T>(
        &self,
        count: usize,
        rows: Rows<'_>,
        finish: impl FnOnce(Rows<'_>) -> Result<T, RowRefusal>,
    ) -> Result<T, RowRefusal> {
        let (mut values, mut width) = (Vec::new(), rows.width());
        for (index, step) in self.steps[..count].iter().enumerate() {
            let mut made = Vec::with_capacity(rows.len() * step.width());
            let given = if index == 0 {
                rows
            } else {
                rows.reshaped(&values, width)
            };
            step.apply(given, &mut made)?;
            (values, width) = (made, step.width());
        }
        finish(if count == 0 {
            rows
        } else {
            rows.reshaped(&values, width)
        })
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
        self.after(before.len(), rows, |rows| last.apply(rows, out))
    }

    fn is_sparse(&self) -> bool {
        self.before_sparse.is_some()
    }

    fn apply_sparse(&self, rows: Rows<'_>, out: &mut SparseRows) -> Result<(), RowRefusal> {
        let Some(before) = self.before_sparse else {
            return apply_dense(self, rows, out);
        };
        self.after(before, rows, |rows| {
            self.steps[before].apply_sparse(rows, out)
        })?;
        let mut changes = self.steps[before + 1..].iter();
        changes.try_for_each(|step| step.as_change().map_or(Ok(()), |step| step.change(out)))
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
        if self.chain.is_sparse() && self.last.takes_sparse() {
            let mut made = SparseRows::default();
            self.chain.apply_sparse(rows, &mut made)?;
            return self.last.predict_sparse(&made, self.chain.width(), out);
        }
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

    fn explain(&self) -> Option<&dyn Explain> {
        self.last.explain().map(|_| self as &dyn Explain)
    }
}

impl Explain for Piped {
    fn margins(&self) -> usize {
        self.last.explain().map_or(0, Explain::margins)
    }

    fn bytes(&self) -> usize {
        self.last.explain().map_or(0, Explain::bytes)
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let mut values = Vec::with_capacity(rows.len() * self.chain.width());
        self.chain.apply(rows, &mut values)?;
        let rows = rows.reshaped(&values, self.chain.width());
        self.last
            .explain()
            .expect("it explains")
            .contributions(rows, margin, out)
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
    let is_fine = |value: &f64| value.abs() <= greatest;
    if rows.values().iter().all(is_fine) {
        return Ok(());
    }
    for row in 0..rows.len() {
        let mut values = rows.row(row).iter().copied();
        if let Some(reason) = values.find_map(missing_or_beyond(greatest)) {
            return Err(RowRefusal {
                row,
                reason: reason.into(),
            });
        }
    }
    Ok(())
}

/// Why a step does not take a value, if it does not.
pub(super) fn missing_or_beyond(greatest: f64) -> impl Fn(f64) -> Option<&'static str> {
    move |value| match value {
        value if value.is_nan() => Some("has a missing value where the model takes none"),
        value if value.abs() > greatest => Some("has a number that is too large for the model"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Moves each value one column on, and so leaves the first at 0; or adds 1 to those that are there; or to all.
    #[derive(Debug)]
    enum Step {
        Spread,
        AddToPresent,
        AddToAll,
    }

    impl Transform for Step {
        fn width(&self) -> usize {
            3
        }

        fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
            for index in 0..rows.len() {
                match (self, rows.row(index)) {
                    (Self::Spread, [first, second, _]) => out.extend([0.0, *first, *second]),
                    (Self::AddToPresent, row) => {
                        let added = |value: &f64| if *value == 0.0 { 0.0 } else { value + 1.0 };
                        out.extend(row.iter().map(added));
                    }
                    (_, row) => out.extend(row.iter().map(|value| value + 1.0)),
                }
            }
            Ok(())
        }

        fn is_sparse(&self) -> bool {
            matches!(self, Self::Spread)
        }

        fn as_change(&self) -> Option<&dyn Change> {
            matches!(self, Self::AddToPresent).then_some(self)
        }
    }

    impl Change for Step {
        fn change(&self, rows: &mut SparseRows) -> Result<(), RowRefusal> {
            for index in 0..rows.len() {
                let row = rows.row_mut(index).iter_mut();
                row.for_each(|(_, value)| *value += 1.0);
            }
            Ok(())
        }
    }

    #[test]
    fn chains_make_the_same_of_rows_that_are_mostly_0() {
        use Step::{AddToAll, AddToPresent, Spread};
        for (steps, is_sparse) in [
            (vec![], false),
            (vec![AddToAll], false),
            (vec![AddToPresent], false),
            (vec![Spread], true),
            (vec![AddToAll, Spread], true),
            (vec![AddToAll, Spread, AddToPresent, AddToPresent], true),
            (vec![Spread, AddToAll, AddToPresent], false),
            (vec![Spread, AddToAll, Spread, AddToPresent], true),
        ] {
            let name = format!("{steps:?}");
            let steps = steps.into_iter();
            let chain = Chain::new(steps.map(|step| Box::new(step) as _).collect(), 3);
            assert_eq!(chain.is_sparse(), is_sparse, "{name}");
            let values = [0.0, 2.0, 0.0, 5.0, 0.0, 7.0];
            let (mut dense, mut sparse, mut found) =
                (Vec::new(), SparseRows::default(), Vec::new());
            chain.apply(Rows::new(&values, 3), &mut dense).unwrap();
            chain
                .apply_sparse(Rows::new(&values, 3), &mut sparse)
                .unwrap();
            sparse.append_to(&mut found, 3);
            assert_eq!(found, dense, "{name}");
        }
    }
}
