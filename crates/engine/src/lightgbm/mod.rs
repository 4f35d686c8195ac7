//! LightGBM models in the text that the library's `save_model` writes, versions 3 and 4.
//!
//! What is read follows the library's own loader (`src/boosting/gbdt_model_text.cpp`, `src/io/tree.cpp` of
//! microsoft/LightGBM). A file is checked as a whole before anything is computed from it.

mod answers;
mod categories;
mod columns;
mod explain;
mod head;
mod linear;
mod objective;
#[cfg(test)]
mod tests;
mod text;
mod tree;

pub(crate) use objective::softmax;

use std::cell::RefCell;

use crate::document::Fault;
use crate::explain::{Explain, Unexplained};
use crate::forest::Forest;
use crate::{Engine, LoadOptions, RowRefusal, Rows, Signature, row};
use answers::Answers;
use columns::Columns;
use explain::Explained;
use linear::Linear;
use objective::Objective;
use tree::Tree;

/// Rows that go through a tree together while it is in the cache, where trees are walked.
const ROWS_PER_WALK: usize = 64;

/// A loaded LightGBM model.
#[derive(Debug)]
pub(crate) struct Model {
    signature: Signature,
    boosting: String,
    trees: Trees,
    explained: Result<Box<Explained>, Unexplained>,
    objective: Objective,
    /// Iterations that count, and those in the file.
    used: usize,
    all: usize,
    /// Whether trees are averaged over the iterations, as in random forests.
    is_average: bool,
}

/// How the trees are evaluated.
#[derive(Debug)]
enum Trees {
    Compiled {
        columns: Columns,
        body: Body,
    },
    /// Where they ask for more sets of categories than columns are worth.
    Answered(Answers),
    /// The same, with leaves that are linear functions.
    Linear(Linear),
    /// As the library does it, tree by tree: what has no other form.
    Walked(Vec<Tree>),
}

/// Trees over rows that are widened by the columns.
#[derive(Debug)]
enum Body {
    Plain(Box<Forest<f64>>),
    Linear(Linear),
}

impl Body {
    fn description(&self) -> String {
        match self {
            Self::Plain(forest) => forest.description(),
            Self::Linear(linear) => linear.description(),
        }
    }

    fn add(&self, rows: Rows<'_>, sums: &mut [f64], outputs: usize) {
        match self {
            Self::Plain(forest) => forest.add(rows, sums, outputs),
            Self::Linear(linear) => linear.add(rows, sums, outputs),
        }
    }
}

/// Whether a file begins like a model.
pub(crate) fn recognizes(bytes: &[u8]) -> bool {
    bytes.starts_with(b"tree\n") || bytes.starts_with(b"tree\r\n")
}

/// Loads a model.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Fault(format!("byte {}: not UTF-8", error.valid_up_to())))?;
    Ok(Box::new(read(text, options)?))
}

/// Reads a model.
pub(crate) fn read(text: &str, options: &LoadOptions) -> Result<Model, Fault> {
    head::read(text, options)
}

impl Model {
    /// Writes the sums of leaves, which the library calls raw scores. It does not average them over the iterations.
    pub(crate) fn raw_scores(&self, rows: Rows<'_>, out: &mut [f64]) {
        let width = self.signature.features.len();
        assert!(
            rows.is_empty() || rows.width() == width,
            "rows of {} values for a model of {width} features",
            rows.width(),
        );
        let outputs = self.signature.outputs();
        assert_eq!(out.len(), rows.len() * outputs, "output of another length");
        out.fill(0.0);
        self.trees.add(rows, out, outputs);
    }
}

impl Engine for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        let trees = match &self.trees {
            Trees::Compiled { body, .. } => body.description(),
            Trees::Answered(answers) => answers.description(),
            Trees::Linear(linear) => linear.description(),
            Trees::Walked(trees) => format!("{} trees, as in the file", trees.len()),
        };
        let Self {
            boosting,
            used,
            all,
            ..
        } = self;
        match used < all {
            true => format!(
                "lightgbm {boosting}, {trees}, {used} of {all} iterations (iteration_range)"
            ),
            false => format!("lightgbm {boosting}, {trees}"),
        }
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match self.explained {
            Ok(_) => Ok(self),
            Err(reason) => Err(reason),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        self.raw_scores(rows, out);
        for row in out.chunks_exact_mut(self.signature.outputs()) {
            if self.is_average {
                row.iter_mut().for_each(|sum| *sum /= self.used as f64);
            }
            self.objective.transform(row);
        }
        Ok(())
    }
}

impl Explain for Model {
    fn margins(&self) -> usize {
        self.signature.outputs()
    }

    fn bytes(&self) -> usize {
        self.explained.as_ref().map_or(0, |own| own.bytes())
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let explained = self.explained.as_ref();
        let explained = explained.expect("`explain` has said that it is there");
        let width = self.signature.features.len() + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        explained.contributions(rows, margin, out);
        if self.is_average {
            out.iter_mut().for_each(|sum| *sum /= self.used as f64);
        }
        Ok(())
    }
}

impl Trees {
    /// Adds the trees' values for every row to its sums.
    fn add(&self, rows: Rows<'_>, sums: &mut [f64], outputs: usize) {
        thread_local! {
            static WIDE: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
        }
        match self {
            Self::Compiled { columns, body } if columns.len() == 0 => {
                body.add(rows, sums, outputs);
            }
            Self::Compiled { columns, body } => WIDE.with_borrow_mut(|wide| {
                let width = rows.width() + columns.len();
                let pass = row::rows_per_pass(width);
                for (index, sums) in sums.chunks_mut(pass * outputs).enumerate() {
                    let first = index * pass;
                    columns.widen(rows.slice(first..first + sums.len() / outputs), wide);
                    body.add(Rows::new(wide, width), sums, outputs);
                }
            }),
            Self::Answered(answers) => answers.add(rows, sums, outputs),
            Self::Linear(linear) => linear.add(rows, sums, outputs),
            Self::Walked(trees) => {
                for (block, sums) in sums.chunks_mut(ROWS_PER_WALK * outputs).enumerate() {
                    let first = block * ROWS_PER_WALK;
                    for (tree, output) in trees.iter().zip((0..outputs).cycle()) {
                        for (index, sums) in sums.chunks_exact_mut(outputs).enumerate() {
                            sums[output] += tree.value(rows.row(first + index));
                        }
                    }
                }
            }
        }
    }
}
