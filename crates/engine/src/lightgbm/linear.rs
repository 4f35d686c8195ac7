//! Trees whose leaves are linear functions: the forest finds the leaves, or for many sets of categories [`Answers`],
//! and their functions are computed here.
//!
//! To these each tree has an output of its own, and the value of a leaf is its number. What the leaves
//! compute is added in the order of the trees, and inside in the order of the file, as in the library.

use std::cell::RefCell;

use super::answers::Answers;
use super::tree::{self, Tree};
use crate::Rows;
use crate::forest::{self, Forest, Node, Rules, TooLarge};

/// How many leaves are looked up together, in all rows.
const LEAVES_PER_PASS: usize = 1 << 14;

/// Leaves of a tree that an `f32` counts.
const LEAVES_MAX: usize = 1 << 24;

/// Trees in the form they are evaluated in.
#[derive(Debug)]
pub(super) struct Linear {
    finder: Finder,
    /// The first leaf of each tree.
    trees: Vec<u32>,
    leaves: Vec<Leaf>,
    terms: Vec<(u32, f64)>,
}

/// What finds the leaves.
#[derive(Debug)]
enum Finder {
    Forest(Box<Forest<f32>>),
    Answers(Answers),
}

/// A constant, terms from `start` to `end`, and the value if something in them is missing.
#[derive(Debug)]
struct Leaf {
    constant: f64,
    otherwise: f64,
    start: u32,
    end: u32,
}

impl Linear {
    /// Compiles trees, which are also there as the forest knows them.
    pub(super) fn new(
        trees: &[Tree],
        mut converted: Vec<forest::Tree>,
        rules: Rules,
    ) -> Result<Self, TooLarge> {
        for (tree, (index, converted)) in trees.iter().zip((0..).zip(&mut converted)) {
            // Behind the splits are the leaves, in their order.
            let behind = converted.nodes.iter_mut().skip(tree.splits.len());
            for (leaf, node) in behind.enumerate() {
                *node = Node::Leaf(leaf as f64);
            }
            converted.output = index;
        }
        let forest = Forest::new(&converted, rules)?;
        Self::with(Finder::Forest(Box::new(forest)), trees)
    }

    /// Compiles trees that ask for many sets of categories, if they have such a form.
    pub(super) fn answered(trees: &[Tree]) -> Option<Self> {
        let answers = Answers::new(trees, |leaf, _| leaf as f64)?;
        Self::with(Finder::Answers(answers), trees).ok()
    }

    fn with(finder: Finder, trees: &[Tree]) -> Result<Self, TooLarge> {
        let (mut leaves, mut terms) = (Vec::new(), Vec::new());
        let mut firsts = Vec::with_capacity(trees.len());
        for tree in trees {
            if tree.leaves.len() > LEAVES_MAX {
                return Err(TooLarge("more than 16 million leaves of a linear tree"));
            }
            firsts.push(leaves.len() as u32);
            for (leaf, &value) in tree.leaves.iter().enumerate() {
                let start = terms.len() as u32;
                let constant = match &tree.linear {
                    None => value,
                    Some(linear) => {
                        terms.extend_from_slice(&linear[leaf].terms);
                        linear[leaf].constant
                    }
                };
                leaves.push(Leaf {
                    constant,
                    otherwise: value,
                    start,
                    end: terms.len() as u32,
                });
            }
        }
        if u32::try_from(leaves.len().max(terms.len())).is_err() {
            return Err(TooLarge("more than 4 billion terms of linear trees"));
        }
        Ok(Self {
            finder,
            trees: firsts,
            leaves,
            terms,
        })
    }

    pub(super) fn description(&self) -> String {
        let finder = match &self.finder {
            Finder::Forest(forest) => forest.description(),
            Finder::Answers(answers) => answers.description(),
        };
        format!("linear, {finder}")
    }

    /// Adds what the leaf of every row computes to `sums`, `outputs` values per row, to which trees add in turn.
    pub(super) fn add(&self, rows: Rows<'_>, sums: &mut [f64], outputs: usize) {
        thread_local! {
            static BUFFERS: RefCell<(Vec<f32>, Vec<f64>)> = const { RefCell::new((Vec::new(), Vec::new())) };
        }
        let trees = self.trees.len();
        let pass = (LEAVES_PER_PASS / trees.max(1)).max(1);
        BUFFERS.with_borrow_mut(|(reached, values)| {
            for (index, sums) in sums.chunks_mut(pass * outputs).enumerate() {
                let first = index * pass;
                let rows = rows.slice(first..first + sums.len() / outputs);
                reached.clear();
                reached.resize(rows.len() * trees, 0.0);
                match &self.finder {
                    Finder::Forest(forest) => forest.add(rows, reached, trees),
                    Finder::Answers(answers) => answers.add(rows, reached, trees),
                }
                for (index, sums) in sums.chunks_exact_mut(outputs).enumerate() {
                    let reached = &reached[index * trees..][..trees];
                    self.add_row(rows.row(index), reached, sums, values);
                }
            }
        });
    }

    fn add_row(&self, row: &[f64], reached: &[f32], sums: &mut [f64], values: &mut Vec<f64>) {
        let plain = |value: &f64| if tree::is_zero(*value) { 0.0 } else { *value };
        values.clear();
        values.extend(row.iter().map(plain));
        let is_complete = !values.iter().any(|value| value.is_nan());
        let leaves = self.trees.iter().zip(reached);
        let leaves = leaves.map(|(first, leaf)| &self.leaves[*first as usize + *leaf as usize]);
        for (leaf, output) in leaves.zip((0..sums.len()).cycle()) {
            let terms = &self.terms[leaf.start as usize..leaf.end as usize];
            let products = terms
                .iter()
                .map(|(feature, factor)| factor * values[*feature as usize]);
            let sum = products.fold(leaf.constant, |sum, product| sum + product);
            let is_missing = || {
                terms
                    .iter()
                    .any(|(feature, _)| values[*feature as usize].is_nan())
            };
            sums[output] += match is_complete || !is_missing() {
                true => sum,
                false => leaf.otherwise,
            };
        }
    }
}
