//! Ensembles of trees, on the forest.
//!
//! The forest asks `x ≤ threshold`. The other comparisons become that one: `<` with the next smaller threshold, `>` and `≥`
//! with the sides changed. What asks for equality or membership is a column of its own, computed before the trees.

mod read;
mod sums;

use super::classes::{Transform, greatest, required_labels};
use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor};
use read::numbers;
use sums::Sums;

/// Features that a row may have, computed columns among them.
const FEATURES_MAX: usize = 65_536;

/// A node of a tree.
#[derive(Debug, Clone)]
enum Grown {
    Branch(Branch),
    /// What it adds to each sum.
    Leaf(Vec<(usize, f64)>),
}

#[derive(Debug, Clone)]
struct Branch {
    feature: u32,
    test: Test,
    /// Whether a missing value goes the way of those that pass.
    missing_passes: bool,
    /// Places of the nodes for values that pass, and for others.
    children: [usize; 2],
}

#[derive(Debug, Clone, PartialEq)]
enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Unequal(f64),
    Among(Vec<f64>),
}

/// All nodes, and where each tree begins.
#[derive(Debug, Default)]
struct Ensemble {
    nodes: Vec<Grown>,
    roots: Vec<usize>,
}

impl Ensemble {
    fn leaf(&self, node: usize) -> Option<&[(usize, f64)]> {
        match &self.nodes[node] {
            Grown::Leaf(weights) => Some(weights),
            Grown::Branch(_) => None,
        }
    }

    /// How many nodes and numbers of leaves there are.
    fn size(&self) -> usize {
        let leaves = (0..self.nodes.len()).filter_map(|node| self.leaf(node));
        self.nodes.len() + leaves.map(<[_]>::len).sum::<usize>()
    }
}

/// How many sums there are, and what they start from.
fn bases(node: &Node<'_>, sums: usize) -> Result<Vec<f64>, Fault> {
    let bases = numbers(node, "base_values")?;
    match bases.len() {
        0 => Ok(Vec::new()),
        count if count == sums || count == 1 => Ok(bases),
        count => Err(Fault(format!(
            "`base_values`: {count} numbers for {sums} sums"
        ))),
    }
}

fn is_mean(node: &Node<'_>) -> Result<bool, Fault> {
    match node.text("aggregate_function")? {
        None | Some("SUM") => Ok(false),
        Some("AVERAGE") => Ok(true),
        Some(_) => Err(Fault::new(
            "is supported with sums and averages of trees only (`aggregate_function`)",
        )),
    }
}

pub(super) fn regressor(node: &Node<'_>) -> Result<Run, Fault> {
    let targets = node
        .integer("n_targets")
        .and_then(|count| usize::try_from(count).ok());
    let targets = targets.filter(|count| (1..=FEATURES_MAX).contains(count));
    let targets =
        targets.ok_or_else(|| Fault::new("`n_targets` is missing or no number of sums"))?;
    let sums = Sums::new(read::older(node, "target")?, targets)?;
    let (bases, transform, is_mean) = (
        bases(node, targets)?,
        Transform::read(node)?,
        is_mean(node)?,
    );
    Ok(Box::new(move |inputs, context| {
        let (rows, mut made) = sums.of(input(inputs, 0)?, context)?;
        if is_mean {
            made.iter_mut().for_each(|sum| *sum /= sums.trees as f64);
        }
        add(&mut made, &bases, targets);
        let mut made: Vec<f32> = made.into_iter().map(|sum| sum as f32).collect();
        // A single sum is changed by no other function.
        if targets > 1 || transform == Transform::Probit {
            made.chunks_exact_mut(targets)
                .for_each(|row| transform.apply(row));
        }
        Ok(vec![Tensor::floats(vec![rows, targets], made)])
    }))
}

fn add(sums: &mut [f64], bases: &[f64], width: usize) {
    if bases.len() == width {
        for row in sums.chunks_exact_mut(width) {
            row.iter_mut()
                .zip(bases)
                .for_each(|(sum, base)| *sum += base);
        }
    }
}

/// Two classes may have one sum between them; what it means depends on the leaves, as in ONNX Runtime.
pub(super) fn classifier(node: &Node<'_>) -> Result<Run, Fault> {
    let labels = required_labels(node)?;
    let (classes, transform) = (labels.len(), Transform::read(node)?);
    if classes > FEATURES_MAX {
        return Err(Fault(format!("more than {FEATURES_MAX} classes")));
    }
    let ensemble = read::older(node, "class")?;
    let leaves = (0..ensemble.nodes.len()).filter_map(|node| ensemble.leaf(node));
    let weights: Vec<(usize, f64)> = leaves.flatten().copied().collect();
    let sums = Sums::new(ensemble, classes)?;
    let bases = bases(node, classes)?;
    let has_second = weights.iter().any(|(class, _)| *class == 1);
    let has_first = weights.iter().any(|(class, _)| *class == 0);
    let are_positive = weights.iter().all(|(_, weight)| *weight >= 0.0);
    let binary = Binary {
        has_second,
        is_single: has_first != has_second,
        are_positive,
        transform,
    };
    Ok(Box::new(move |inputs, context| {
        let (rows, mut made) = sums.of(input(inputs, 0)?, context)?;
        let mut chosen = Vec::with_capacity(rows);
        if classes > 2 {
            add(&mut made, &bases, classes);
        }
        let mut scores: Vec<f32> = made.into_iter().map(|sum| sum as f32).collect();
        for row in scores.chunks_exact_mut(classes) {
            match row {
                [first, second] => {
                    let (class, own) = binary.scores([*first, *second], &bases);
                    [*first, *second] = own;
                    chosen.push(class);
                }
                row => {
                    chosen.push(greatest(row));
                    transform.apply(row);
                }
            }
        }
        Ok(vec![
            labels.of(chosen),
            Tensor::floats(vec![rows, classes], scores),
        ])
    }))
}

/// How the scores of two classes are made.
#[derive(Debug, Clone, Copy)]
struct Binary {
    has_second: bool,
    /// Whether all leaves are of the same class.
    is_single: bool,
    are_positive: bool,
    transform: Transform,
}

impl Binary {
    /// The class, and what both get.
    fn scores(self, [mut first, mut second]: [f32; 2], bases: &[f64]) -> (usize, [f32; 2]) {
        let mut is_one = !self.has_second;
        match *bases {
            [_, base] if self.has_second => {
                second = base as f32 + first;
                first = -second;
            }
            [base, other] => {
                first += base as f32;
                second += other as f32;
                is_one = false;
            }
            [base] => first += base as f32,
            _ => {}
        }
        let positive = if self.has_second { second } else { first };
        let limit = if self.is_single && self.are_positive {
            0.5
        } else {
            0.0
        };
        let class = usize::from(positive > limit);
        if !is_one {
            let mut both = [first, second];
            self.transform.apply(&mut both);
            let class = if self.is_single {
                class
            } else {
                greatest(&both)
            };
            return (class, both);
        }
        let mut scores = [-first, first];
        match self.transform {
            Transform::Logistic => self.transform.apply(&mut scores),
            _ if self.are_positive => scores[0] = 1.0 - first,
            _ => {}
        }
        (class, scores)
    }
}

/// The operator of version 5, which has leaves of their own.
pub(super) fn ensemble(node: &Node<'_>) -> Result<Run, Fault> {
    let targets = usize::try_from(node.integer("n_targets").unwrap_or(1)).unwrap_or(0);
    if !(1..=FEATURES_MAX).contains(&targets) {
        return Err(Fault::new("`n_targets` is no number of sums"));
    }
    let transform = match node.integer("post_transform").unwrap_or(0) {
        0 => Transform::None,
        1 => Transform::Softmax,
        2 => Transform::Logistic,
        3 => Transform::SoftmaxZero,
        4 => Transform::Probit,
        _ => return Err(Fault::new("`post_transform` is none that is known")),
    };
    let is_mean = match node.integer("aggregate_function").unwrap_or(1) {
        0 => true,
        1 => false,
        _ => {
            return Err(Fault::new(
                "is supported with sums and averages of trees only (`aggregate_function`)",
            ));
        }
    };
    let sums = Sums::new(read::newest(node)?, targets)?;
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let (rows, mut made) = sums.of(given, context)?;
        if is_mean {
            made.iter_mut().for_each(|sum| *sum /= sums.trees as f64);
        }
        let shape = vec![rows, targets];
        if transform == Transform::None && matches!(given.data, Data::Double(_)) {
            return Ok(vec![Tensor::new(shape, Data::Double(made))]);
        }
        let mut floats: Vec<f32> = made.into_iter().map(|sum| sum as f32).collect();
        floats
            .chunks_exact_mut(targets)
            .for_each(|row| transform.apply(row));
        let data = match given.data {
            Data::Double(_) => Data::Double(floats.into_iter().map(f64::from).collect()),
            _ => Data::Float(floats),
        };
        Ok(vec![Tensor::new(shape, data)])
    }))
}
