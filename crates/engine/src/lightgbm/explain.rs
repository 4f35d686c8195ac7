//! Explanations of trees, over rows that are widened by the columns of their splits.

use std::cell::RefCell;

use super::columns::{Collector, Columns};
use super::tree::Tree;
use crate::explain::{Explainer, Players, Sources, Unexplained};
use crate::forest::Rules;
use crate::signature::Precision;
use crate::{Rows, row};

/// Trees as they are explained. The columns are their own: predictions may have none, because to walk the
/// trees as they are is quicker where there are very many.
#[derive(Debug)]
pub(super) struct Explained {
    columns: Columns,
    explainer: Explainer,
}

impl Explained {
    /// Keeps what explanations need of trees that add to `sums` numbers in turn, in at most `bytes_max`.
    pub(super) fn new(
        trees: &[Tree],
        covers: &[Vec<f32>],
        width: usize,
        sums: usize,
        bytes_max: usize,
    ) -> Result<Self, Unexplained> {
        if bytes_max == 0 {
            return Err(Unexplained::NotAsked);
        }
        if trees.iter().any(|tree| tree.linear.is_some()) {
            return Err(Unexplained::LinearTrees);
        }
        let mut collector = Collector::new(width);
        let outputs = (0..sums as u32).cycle();
        let trees = trees.iter().zip(outputs);
        let converted: Vec<_> = trees
            .map(|(tree, output)| collector.convert(tree, output))
            .collect();
        let columns = collector.finish();
        let sources = Sources {
            trees: &converted,
            covers,
            rules: Rules {
                width: width + columns.len(),
                inputs: Precision::F64,
                equal_goes_left: true,
            },
            outputs: sums,
            players: Players::alone(columns.owners(width), width),
            beside: columns.bytes(),
        };
        Ok(Self {
            explainer: Explainer::new(sources, bytes_max)?,
            columns,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.explainer.bytes()
    }

    /// Writes what each feature of each row added to a sum, and then the base value.
    pub(super) fn contributions(&self, rows: Rows<'_>, sum: usize, out: &mut [f64]) {
        thread_local! {
            static WIDE: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
        }
        if self.columns.len() == 0 {
            return self.explainer.contributions(rows, sum, out);
        }
        let numbers = rows.width() + 1;
        let width = rows.width() + self.columns.len();
        let pass = row::rows_per_pass(width);
        WIDE.with_borrow_mut(|wide| {
            for (index, out) in out.chunks_mut(pass * numbers).enumerate() {
                let first = index * pass;
                let rows = rows.slice(first..first + out.len() / numbers);
                self.columns.widen(rows, wide);
                self.explainer
                    .contributions(Rows::new(wide, width), sum, out);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Set, Split, Test};
    use super::*;

    /// A chain of splits by sets, which each has a column of its own: more than are computed for predictions.
    #[test]
    fn trees_of_any_number_of_sets_are_explained() {
        let sets = 20;
        let split = |place: u32| Split {
            feature: 0,
            children: match place + 1 < sets {
                true => [sets + place, place + 1],
                false => [sets + place, 2 * sets],
            },
            test: Test::Set(Set::new(&[1 << place])),
        };
        let tree = Tree {
            splits: (0..sets).map(split).collect(),
            leaves: (0..=sets).map(f64::from).collect(),
            linear: None,
        };
        let below = (0..sets).map(|place| (sets + 1 - place) as f32);
        let covers = vec![below.chain((0..=sets).map(|_| 1.0)).collect()];
        let trees = [tree];
        let explained = Explained::new(&trees, &covers, 1, 1, 1 << 20).unwrap();
        assert!(explained.bytes() > explained.columns.bytes());
        let values = [0.0, 3.0, 19.0, 25.0, f64::NAN];
        let mut out = [0.0; 10];
        explained.contributions(Rows::new(&values, 1), 0, &mut out);
        for (value, out) in values.iter().zip(out.chunks(2)) {
            let margin = trees[0].value(&[*value]);
            assert!((out[0] + out[1] - margin).abs() < 1e-5, "{out:?} {margin}");
            assert!((out[1] - 10.0).abs() < 1e-5, "{out:?}");
        }
    }
}
