//! Trees as forests, and the sums of their leaves.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Branch, Ensemble, FEATURES_MAX, Grown, Test};
use crate::Rows;
use crate::document::Fault;
use crate::forest::{Forest, Node as Split, Rules, Tree};
use crate::onnx::ops::Context;
use crate::onnx::tensor::{Data, Tensor, bounded};
use crate::signature::Precision;

/// Nodes of all trees together, counted once for each output.
const NODES_MAX: usize = 1 << 26;

/// Nodes that are made for each node and each number of a leaf, at most: as many as trees of three or more sums are deep.
const COPIES_MAX: usize = 64;

/// Trees of one precision, compiled.
#[derive(Debug)]
enum Compiled {
    Floats(Box<Forest<f32>>),
    Doubles(Box<Forest<f64>>),
}

/// Which column is computed for the values that a feature is compared with.
type Columns = HashMap<(u32, Vec<u64>), usize>;

/// What an ensemble adds to the sums of a row.
#[derive(Debug)]
pub(super) struct Sums {
    /// The trees, until the first values tell in which precision they are added.
    grown: Mutex<Option<(Ensemble, Columns)>>,
    forest: OnceLock<Result<Compiled, Fault>>,
    width: usize,
    outputs: usize,
    pub(super) trees: usize,
    /// A column for each feature and the values among which it is.
    columns: Vec<(u32, Vec<f64>)>,
    takes_missing: bool,
}

impl Sums {
    pub(super) fn new(ensemble: Ensemble, outputs: usize) -> Result<Self, Fault> {
        let branches = ensemble.nodes.iter().filter_map(|node| match node {
            Grown::Branch(branch) => Some(branch),
            Grown::Leaf(_) => None,
        });
        let features = branches.clone().map(|branch| branch.feature as usize + 1);
        let width = features.max().unwrap_or(1);
        let takes_missing = branches.clone().any(|branch| branch.missing_passes);
        let (mut columns, mut places) = (Vec::new(), Columns::new());
        for branch in branches {
            let Some(values) = branch.test.values() else {
                continue;
            };
            let next = columns.len();
            let place = *places.entry((branch.feature, bits(values))).or_insert(next);
            if place == next {
                columns.push((branch.feature, values.to_vec()));
            }
        }
        if width + columns.len() > FEATURES_MAX {
            return Err(Fault(format!(
                "more than {FEATURES_MAX} features and values that are compared"
            )));
        }
        Ok(Self {
            width,
            outputs,
            trees: ensemble.roots.len(),
            columns,
            takes_missing,
            grown: Mutex::new(Some((ensemble, places))),
            forest: OnceLock::new(),
        })
    }

    /// The trees in the precision of the first values, which is that of all.
    fn forest(&self, precision: Precision) -> Result<&Compiled, Fault> {
        let forest = self.forest.get_or_init(|| {
            let grown = self
                .grown
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let (ensemble, places) = grown.expect("it is compiled once");
            let trees = self.compiled(&ensemble, precision, &places)?;
            let rules = Rules {
                width: self.width + self.columns.len(),
                inputs: precision,
                equal_goes_left: true,
            };
            Ok(match precision {
                Precision::F32 => Compiled::Floats(Box::new(Forest::new(&trees, rules)?)),
                Precision::F64 => Compiled::Doubles(Box::new(Forest::new(&trees, rules)?)),
            })
        });
        match (forest, precision) {
            (Err(fault), _) => Err(fault.clone()),
            (Ok(forest @ Compiled::Floats(_)), Precision::F32)
            | (Ok(forest @ Compiled::Doubles(_)), Precision::F64) => Ok(forest),
            _ => Err(Fault::new("values of another type than before")),
        }
    }

    /// A tree for each sum that its leaves add to.
    fn compiled(
        &self,
        ensemble: &Ensemble,
        precision: Precision,
        places: &Columns,
    ) -> Result<Vec<Tree>, Fault> {
        let (mut trees, mut looked_at, mut kept) = (Vec::new(), 0usize, 0usize);
        let kept_max = ensemble.size().saturating_mul(COPIES_MAX);
        let mut seen = vec![false; ensemble.nodes.len()];
        for root in &ensemble.roots {
            let order = order(ensemble, *root, &mut seen)?;
            let leaves = order.iter().filter_map(|(node, _)| ensemble.leaf(*node));
            let mut outputs: Vec<usize> = leaves.flatten().map(|(output, _)| *output).collect();
            outputs.sort_unstable();
            outputs.dedup();
            if let Some(last) = outputs.last().filter(|last| **last >= self.outputs) {
                return Err(Fault(format!(
                    "a leaf of the sum {last} of {}",
                    self.outputs
                )));
            }
            for output in outputs {
                looked_at += order.len();
                let nodes = self.tree_of(output, &order, ensemble, precision, places);
                kept += nodes.len();
                if looked_at > NODES_MAX || kept > kept_max {
                    return Err(Fault::new(
                        "trees that are too large for the number of sums they add to",
                    ));
                }
                trees.push(Tree {
                    nodes,
                    output: output as u32,
                });
            }
        }
        Ok(trees)
    }

    /// A tree with the leaves of one sum. Where none of it is left, nothing is asked any more.
    fn tree_of(
        &self,
        output: usize,
        order: &[(usize, [u32; 2])],
        ensemble: &Ensemble,
        precision: Precision,
        places: &Columns,
    ) -> Vec<Split> {
        let mut adds = vec![false; order.len()];
        for (place, (node, children)) in order.iter().enumerate().rev() {
            adds[place] = match ensemble.leaf(*node) {
                Some(leaf) => leaf.iter().any(|(other, _)| *other == output),
                None => children.iter().any(|child| adds[*child as usize]),
            };
        }
        let (mut kept, mut nodes) = (vec![0], Vec::new());
        while let Some(place) = kept.get(nodes.len()).copied() {
            let (node, children) = order[place];
            nodes.push(match &ensemble.nodes[node] {
                Grown::Branch(branch) if adds[place] => {
                    let first = kept.len() as u32;
                    kept.extend(children.map(|child| child as usize));
                    self.split(branch, [first, first + 1], precision, places)
                }
                Grown::Leaf(weights) => {
                    let own = weights.iter().filter(|(other, _)| *other == output);
                    Split::Leaf(own.map(|(_, weight)| weight).sum())
                }
                Grown::Branch(_) => Split::Leaf(0.0),
            });
        }
        nodes
    }

    fn split(
        &self,
        branch: &Branch,
        [pass, fail]: [u32; 2],
        precision: Precision,
        places: &Columns,
    ) -> Split {
        let below = |threshold: f64| match precision {
            Precision::F32 => f64::from((threshold as f32).next_down()),
            Precision::F64 => threshold.next_down(),
        };
        let column = |values: &[f64]| (self.width + places[&(branch.feature, bits(values))]) as u32;
        // Whether what is at most the threshold passes.
        let (feature, threshold, left_passes) = match &branch.test {
            Test::AtMost(threshold) => (branch.feature, *threshold, true),
            Test::Below(threshold) => (branch.feature, below(*threshold), true),
            Test::Above(threshold) => (branch.feature, *threshold, false),
            Test::AtLeast(threshold) => (branch.feature, below(*threshold), false),
            Test::Unequal(value) => (column(&[*value]), 0.5, true),
            Test::Among(values) => (column(values), 0.5, false),
        };
        let (left, right) = if left_passes {
            (pass, fail)
        } else {
            (fail, pass)
        };
        // `x != value` holds for what is no number.
        let missing_passes = branch.missing_passes || matches!(branch.test, Test::Unequal(_));
        Split::Split {
            feature,
            threshold,
            default_left: missing_passes == left_passes,
            left,
            right,
        }
    }

    /// Sums of each row, from 0; in the precision of the values.
    pub(super) fn of(&self, given: &Tensor, context: &Context) -> Result<(usize, Vec<f64>), Fault> {
        let (rows, columns) = given.as_rows()?;
        if columns < self.width {
            return Err(Fault(format!(
                "{columns} columns for trees that ask for {}",
                self.width
            )));
        }
        bounded(&[rows, self.outputs])?;
        let wide = self.width + self.columns.len();
        let compared: usize = self.columns.iter().map(|(_, among)| among.len()).sum();
        let per_row = self.trees.max(1).saturating_mul(8) + wide + compared;
        context.spend(rows.saturating_mul(per_row))?;
        let given_values = given.to_doubles()?;
        let mut values = Vec::with_capacity(rows * wide);
        for row in given_values.chunks_exact(columns) {
            values.extend_from_slice(&row[..self.width]);
            values.extend(self.columns.iter().map(|(feature, among)| {
                let value = row[*feature as usize];
                match value.is_nan() {
                    true => value,
                    false => f64::from(u8::from(among.contains(&value))),
                }
            }));
        }
        let forest = self.forest(match given.data {
            Data::Double(_) => Precision::F64,
            _ => Precision::F32,
        })?;
        let view = Rows::new(&values, wide);
        let mut sums = match forest {
            Compiled::Floats(forest) => {
                let mut sums = vec![0f32; rows * self.outputs];
                forest.add(view, &mut sums, self.outputs);
                sums.into_iter().map(f64::from).collect()
            }
            Compiled::Doubles(forest) => {
                let mut sums = vec![0f64; rows * self.outputs];
                forest.add(view, &mut sums, self.outputs);
                sums
            }
        };
        if context.missing_stays && !self.takes_missing && values.iter().any(|value| value.is_nan())
        {
            sums.fill(f64::NAN);
        }
        Ok((rows, sums))
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

impl Test {
    /// The values that are compared, where it is not with a threshold.
    fn values(&self) -> Option<&[f64]> {
        match self {
            Self::Unequal(value) => Some(std::slice::from_ref(value)),
            Self::Among(values) => Some(values),
            _ => None,
        }
    }
}

/// Nodes of a tree from its root on, and where the children of each are among them.
fn order(
    ensemble: &Ensemble,
    root: usize,
    seen: &mut [bool],
) -> Result<Vec<(usize, [u32; 2])>, Fault> {
    let mut order = vec![(root, [0; 2])];
    let mut next = 0;
    // A node may be of one tree only; so no walk is without end.
    let mut reached = Vec::new();
    while let Some((node, _)) = order.get(next).copied() {
        if let Grown::Branch(branch) = &ensemble.nodes[node] {
            if std::mem::replace(&mut seen[node], true) {
                return Err(Fault(format!("node {node} is reached twice")));
            }
            reached.push(node);
            let first = order.len() as u32;
            order[next].1 = [first, first + 1];
            order.extend(branch.children.map(|child| (child, [0; 2])));
        }
        next += 1;
    }
    for node in reached {
        seen[node] = false;
    }
    Ok(order)
}
