//! XGBoost models as the library saves them since 1.0, in JSON and in UBJSON.
//!
//! What is read follows the library's own loader (`src/learner.cc`, `src/gbm`, `src/tree` of
//! dmlc/xgboost) and its published schema (`doc/model.schema`). A file is checked as a whole before
//! anything is computed from it. What cannot be computed exactly is refused, never approximated.

mod categories;
mod iterations;
mod learner;
mod linear;
mod objective;
#[cfg(test)]
mod tests;
mod training;
mod tree;

use crate::document::{self, Fault};
use crate::explain::{Explain, Explainer, Unexplained};
use crate::forest::Forest;
use crate::{Engine, LoadOptions, RowRefusal, Rows, Signature, row};
use categories::Sets;
use iterations::Selection;
use linear::Linear;
use objective::Objective;
use std::cell::RefCell;

thread_local! {
    /// Rows with the columns of sets.
    static WIDE: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// A loaded XGBoost model.
#[derive(Debug)]
struct Model {
    signature: Signature,
    booster: Booster,
    objective: Objective,
    /// What the sums of a row start from, one per output, on the scale of the margins.
    base_margins: Vec<f32>,
}

#[derive(Debug)]
enum Booster {
    Trees {
        name: &'static str,
        selection: Selection,
        sets: Sets,
        /// Whether the intercept is added to the sum of the trees, and not the trees to it.
        base_last: bool,
        forest: Box<Forest<f32>>,
        explainer: Result<Box<Explainer>, Unexplained>,
    },
    Linear(Linear),
}

impl Booster {
    /// Whether it was boosted at all.
    fn is_fitted(&self) -> bool {
        match self {
            Self::Trees { selection, .. } => selection.all > 0,
            Self::Linear(linear) => linear.is_fitted,
        }
    }
}

/// Loads a JSON or UBJSON model; the byte after the opening brace tells which it is.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    Ok(Box::new(learner::read(&parse(bytes)?, options)?))
}

fn parse(bytes: &[u8]) -> Result<document::Value<'_>, Fault> {
    // UBJSON continues with the length of a key, JSON with white space, a quote or the end.
    let packed = matches!(bytes, [b'{', b'i' | b'U' | b'I' | b'l' | b'L', ..]);
    match packed {
        true => document::parse_ubjson(bytes),
        false => document::parse_json(bytes),
    }
}

/// Loads what a pickle of the library has: a JSON or UBJSON model beside the settings of its training.
pub(crate) fn load_serialized(
    bytes: &[u8],
    options: &LoadOptions,
) -> Result<Box<dyn Engine>, Fault> {
    if !bytes.starts_with(b"{") {
        return Err(Fault::new(
            "the library's old binary format is in the pickle; save it from XGBoost 1.6 to 3.0 with \
             `save_model(\"model.ubj\")`",
        ));
    }
    let document = parse(bytes)?;
    let model = document.as_object()?.get("Model").unwrap_or(&document);
    Ok(Box::new(learner::read(model, options)?))
}

impl Engine for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        match &self.booster {
            Booster::Trees {
                name,
                selection,
                forest,
                ..
            } => {
                let description = format!("xgboost {name}, {}", forest.description());
                match selection.description() {
                    Some(part) => format!("{description}, {part}"),
                    None => description,
                }
            }
            Booster::Linear(linear) => format!("xgboost gblinear, {} weights", linear.weights()),
        }
    }

    fn caution(&self) -> Option<String> {
        match &self.booster {
            Booster::Trees { selection, .. } => selection.caution(),
            Booster::Linear(_) => None,
        }
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match &self.booster {
            Booster::Trees {
                explainer: Err(reason),
                ..
            } => Err(*reason),
            Booster::Trees { .. } | Booster::Linear(_) => Ok(self),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        thread_local! {
            static SUMS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let width = self.signature.features.len();
        assert!(
            rows.is_empty() || rows.width() == width,
            "rows of {} values for a model of {width} features",
            rows.width(),
        );
        assert_eq!(
            out.len(),
            rows.len() * self.signature.outputs(),
            "output of another length"
        );
        SUMS.with_borrow_mut(|sums| {
            let outputs = self.signature.outputs();
            let pass = self.rows_per_pass();
            for (index, out) in out.chunks_mut(pass * outputs).enumerate() {
                let first = index * pass;
                self.predict_pass(rows.slice(first..first + out.len() / outputs), sums, out);
            }
        });
        Ok(())
    }
}

impl Explain for Model {
    fn margins(&self) -> usize {
        self.base_margins.len()
    }

    fn bytes(&self) -> usize {
        match &self.booster {
            Booster::Trees { explainer, .. } => explainer.as_ref().map_or(0, |own| own.bytes()),
            Booster::Linear(_) => 0,
        }
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let width = self.signature.features.len() + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        let pass = self.rows_per_pass();
        for (index, out) in out.chunks_mut(pass * width).enumerate() {
            let first = index * pass;
            let rows = rows.slice(first..first + out.len() / width);
            match &self.booster {
                Booster::Trees {
                    explainer, sets, ..
                } => {
                    let explainer = explainer
                        .as_ref()
                        .expect("`explain` has said that it is there");
                    self.with_sets(sets, rows, |rows| {
                        explainer.contributions(rows, margin, out)
                    });
                }
                Booster::Linear(linear) => {
                    linear.contributions(rows, margin, self.base_margins.len(), out);
                }
            }
            for row in out.chunks_exact_mut(width) {
                row[width - 1] += f64::from(self.base_margins[margin]);
            }
        }
        Ok(())
    }
}

impl Model {
    /// Rows that are computed together: with many sets of categories few, since each is a column.
    fn rows_per_pass(&self) -> usize {
        let sets = match &self.booster {
            Booster::Trees { sets, .. } => sets.len(),
            Booster::Linear(_) => 0,
        };
        match sets {
            // The rows are taken as they are.
            0 => row::rows_per_pass(0),
            sets => row::rows_per_pass(self.signature.features.len() + sets),
        }
    }

    /// Predicts some rows; the memory of the sums is used again for the next ones.
    fn predict_pass(&self, rows: Rows<'_>, sums: &mut Vec<f32>, out: &mut [f64]) {
        let groups = self.base_margins.len();
        sums.clear();
        match self.booster {
            Booster::Trees {
                base_last: true, ..
            } => sums.resize(rows.len() * groups, 0.0),
            _ => (0..rows.len()).for_each(|_| sums.extend_from_slice(&self.base_margins)),
        }
        match &self.booster {
            Booster::Trees {
                forest,
                sets,
                base_last,
                ..
            } => {
                self.with_sets(sets, rows, |rows| forest.add(rows, sums, groups));
                if *base_last {
                    for sums in sums.chunks_exact_mut(groups) {
                        let bases = sums.iter_mut().zip(&self.base_margins);
                        bases.for_each(|(sum, base)| *sum += base);
                    }
                }
            }
            Booster::Linear(linear) => linear.add(rows, sums, groups),
        }
        let out = out.chunks_exact_mut(self.signature.outputs());
        for (sums, out) in sums.chunks_exact_mut(groups).zip(out) {
            self.objective.transform(sums, out);
        }
    }

    /// Calls with rows that have the columns of the sets too.
    fn with_sets(&self, sets: &Sets, rows: Rows<'_>, call: impl FnOnce(Rows<'_>)) {
        if sets.len() == 0 {
            return call(rows);
        }
        WIDE.with_borrow_mut(|wide| {
            sets.widen(rows, wide);
            let width = self.signature.features.len() + sets.len();
            call(Rows::new(wide, width));
        });
    }
}
