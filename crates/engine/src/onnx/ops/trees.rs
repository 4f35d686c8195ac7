//! Ensembles of trees, on the forest.
//!
//! The forest asks `x ≤ threshold`. The other comparisons become that one: `<` with the next smaller threshold, `>` and `≥`
//! with the sides changed. What asks for equality or membership is a column of its own, computed before the trees.

use std::collections::HashMap;

use super::classes::{Transform, greatest, required_labels};
use super::{Context, Run, input};
use crate::Rows;
use crate::document::Fault;
use crate::forest::{Forest, Node as Split, Rules, Tree};
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, bounded};
use crate::signature::Precision;

/// Nodes of all trees together, counted once for each output.
const NODES_MAX: usize = 1 << 26;

/// Features that a row may have, computed columns among them.
const FEATURES_MAX: usize = 65_536;

/// A node of a tree.
#[derive(Debug, Clone)]
pub(super) enum Grown {
    Branch(Branch),
    /// What it adds to each sum.
    Leaf(Vec<(usize, f64)>),
}

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) feature: u32,
    pub(super) test: Test,
    /// Whether a missing value goes the way of those that pass.
    pub(super) missing_passes: bool,
    /// Places of the nodes for values that pass, and for others.
    pub(super) children: [usize; 2],
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Unequal(f64),
    Among(Vec<f64>),
}

/// All nodes, and where each tree begins.
#[derive(Debug, Default)]
pub(super) struct Ensemble {
    pub(super) nodes: Vec<Grown>,
    pub(super) roots: Vec<usize>,
}

/// Trees of one precision, compiled.
#[derive(Debug)]
enum Compiled {
    Floats(Box<Forest<f32>>),
    Doubles(Box<Forest<f64>>),
}

/// What an ensemble adds to the sums of a row.
#[derive(Debug)]
pub(super) struct Sums {
    floats: Compiled,
    doubles: Compiled,
    width: usize,
    outputs: usize,
    trees: usize,
    nodes: usize,
    /// A column for each feature and the values among which it is.
    columns: Vec<(u32, Vec<f64>)>,
    takes_missing: bool,
}

impl Sums {
    pub(super) fn new(ensemble: &Ensemble, outputs: usize) -> Result<Self, Fault> {
        let branches = ensemble.nodes.iter().filter_map(|node| match node {
            Grown::Branch(branch) => Some(branch),
            Grown::Leaf(_) => None,
        });
        let mut sums = Self {
            floats: Compiled::Floats(Box::new(Forest::new(&[], rules(1, Precision::F32))?)),
            doubles: Compiled::Doubles(Box::new(Forest::new(&[], rules(1, Precision::F64))?)),
            width: branches
                .clone()
                .map(|branch| branch.feature as usize + 1)
                .max()
                .unwrap_or(1),
            outputs,
            trees: ensemble.roots.len(),
            nodes: 0,
            columns: Vec::new(),
            takes_missing: branches.clone().any(|branch| branch.missing_passes),
        };
        if sums.width > FEATURES_MAX {
            return Err(Fault(format!("a feature beyond {FEATURES_MAX}")));
        }
        let mut numbers = HashMap::new();
        for branch in branches {
            let Some(values) = branch.test.values() else {
                continue;
            };
            let bits: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
            let next = sums.columns.len();
            let place = *numbers.entry((branch.feature, bits)).or_insert(next);
            if place == next {
                sums.columns.push((branch.feature, values));
            }
        }
        let places = numbers;
        if sums.width + sums.columns.len() > FEATURES_MAX {
            return Err(Fault(format!(
                "more than {FEATURES_MAX} features and values that are compared"
            )));
        }
        for precision in [Precision::F32, Precision::F64] {
            let trees = sums.trees(ensemble, precision, &places)?;
            let rules = rules(sums.width + sums.columns.len(), precision);
            match precision {
                Precision::F32 => {
                    sums.floats = Compiled::Floats(Box::new(Forest::new(&trees, rules)?))
                }
                Precision::F64 => {
                    sums.doubles = Compiled::Doubles(Box::new(Forest::new(&trees, rules)?))
                }
            }
        }
        Ok(sums)
    }

    /// A tree for each sum that its leaves add to.
    fn trees(
        &mut self,
        ensemble: &Ensemble,
        precision: Precision,
        places: &HashMap<(u32, Vec<u64>), usize>,
    ) -> Result<Vec<Tree>, Fault> {
        let (mut trees, mut all) = (Vec::new(), 0usize);
        let mut seen = vec![false; ensemble.nodes.len()];
        for root in &ensemble.roots {
            let order = order(ensemble, *root, &mut seen)?;
            let mut outputs: Vec<usize> = order
                .iter()
                .filter_map(|(node, _)| match &ensemble.nodes[*node] {
                    Grown::Leaf(weights) => Some(weights.iter().map(|(output, _)| *output)),
                    Grown::Branch(_) => None,
                })
                .flatten()
                .collect();
            outputs.sort_unstable();
            outputs.dedup();
            if outputs.last().is_some_and(|output| *output >= self.outputs) {
                return Err(Fault(format!(
                    "a leaf of the sum {:?} of {}",
                    outputs.last(),
                    self.outputs
                )));
            }
            for output in outputs {
                all += order.len();
                if all > NODES_MAX {
                    return Err(Fault(format!("more than {NODES_MAX} nodes of trees")));
                }
                let nodes = order
                    .iter()
                    .map(|(node, children)| match &ensemble.nodes[*node] {
                        Grown::Leaf(weights) => {
                            let own = weights.iter().filter(|(other, _)| *other == output);
                            Split::Leaf(own.map(|(_, weight)| weight).sum())
                        }
                        Grown::Branch(branch) => self.split(branch, *children, precision, places),
                    });
                trees.push(Tree {
                    nodes: nodes.collect(),
                    output: output as u32,
                });
            }
        }
        self.nodes = all;
        Ok(trees)
    }

    fn split(
        &self,
        branch: &Branch,
        [pass, fail]: [u32; 2],
        precision: Precision,
        places: &HashMap<(u32, Vec<u64>), usize>,
    ) -> Split {
        let below = |threshold: f64| match precision {
            Precision::F32 => f64::from((threshold as f32).next_down()),
            Precision::F64 => threshold.next_down(),
        };
        let column = |values: &[f64]| {
            let bits = values.iter().map(|value| value.to_bits()).collect();
            (self.width + places[&(branch.feature, bits)]) as u32
        };
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
        context
            .spend(rows.saturating_mul(self.trees.max(1).saturating_mul(8).saturating_add(wide)))?;
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
        let forest = match given.data {
            Data::Double(_) => &self.doubles,
            _ => &self.floats,
        };
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

fn rules(width: usize, inputs: Precision) -> Rules {
    Rules {
        width,
        inputs,
        equal_goes_left: true,
    }
}

impl Test {
    /// The values that are compared, where it is not with a threshold.
    fn values(&self) -> Option<Vec<f64>> {
        match self {
            Self::Unequal(value) => Some(vec![*value]),
            Self::Among(values) => Some(values.clone()),
            _ => None,
        }
    }

    /// The test of a mode and a number, as the older operators write them.
    fn read(mode: &str, value: f64) -> Result<Self, Fault> {
        if value.is_nan() {
            return Err(Fault::new("a threshold that is no number"));
        }
        Ok(match mode {
            "BRANCH_LEQ" => Self::AtMost(value),
            "BRANCH_LT" => Self::Below(value),
            "BRANCH_GTE" => Self::AtLeast(value),
            "BRANCH_GT" => Self::Above(value),
            "BRANCH_EQ" => Self::Among(vec![value]),
            "BRANCH_NEQ" => Self::Unequal(value),
            _ => return Err(Fault::new("`nodes_modes`: one that is unknown")),
        })
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

/// Numbers that are an attribute, or a tensor for those of other types.
fn numbers(node: &Node<'_>, name: &str) -> Result<Vec<f64>, Fault> {
    match node.tensor(&format!("{name}_as_tensor")) {
        Some(tensor) => tensor.to_doubles(),
        None => Ok(node
            .floats(name)
            .iter()
            .map(|number| f64::from(*number))
            .collect()),
    }
}

fn same_length(lengths: &[usize], names: &str) -> Result<(), Fault> {
    match lengths.windows(2).all(|pair| pair[0] == pair[1]) {
        true => Ok(()),
        false => Err(Fault(format!("`{names}…`: lists of different lengths"))),
    }
}

/// Reads what the operators before `TreeEnsemble` have, with leaves that are called `target` or `class`.
fn read(node: &Node<'_>, leaves: &str) -> Result<Ensemble, Fault> {
    let list = |name: &str| node.integers(&format!("nodes_{name}"));
    let (trees, ids, features) = (list("treeids"), list("nodeids"), list("featureids"));
    let (passes, fails) = (list("truenodeids"), list("falsenodeids"));
    let modes = node.texts("nodes_modes")?;
    let values = numbers(node, "nodes_values")?;
    let count = trees.len();
    let lengths = [
        ids.len(),
        features.len(),
        passes.len(),
        fails.len(),
        modes.len(),
        values.len(),
        count,
    ];
    same_length(&lengths, "nodes_")?;
    let missing = list("missing_value_tracks_true");
    let mut places = HashMap::new();
    for (place, key) in trees.iter().zip(ids).enumerate() {
        if places.insert(key, place).is_some() {
            return Err(Fault(format!(
                "the node {} of the tree {} is there twice",
                key.1, key.0
            )));
        }
    }
    let mut ensemble = Ensemble::default();
    let mut is_child = vec![false; count];
    for place in 0..count {
        if &*modes[place] == "LEAF" {
            ensemble.nodes.push(Grown::Leaf(Vec::new()));
            continue;
        }
        let mut child = |id: &i64| {
            let found = places.get(&(&trees[place], id)).copied();
            let found = found.ok_or_else(|| {
                Fault(format!(
                    "the node {id} of the tree {} is missing",
                    trees[place]
                ))
            })?;
            is_child[found] = true;
            Ok::<usize, Fault>(found)
        };
        ensemble.nodes.push(Grown::Branch(Branch {
            feature: feature(features[place])?,
            test: Test::read(&modes[place], values[place])?,
            missing_passes: missing.get(place).is_some_and(|tracks| *tracks != 0),
            children: [child(&passes[place])?, child(&fails[place])?],
        }));
    }
    let mut rooted = HashMap::new();
    for place in (0..count).filter(|place| !is_child[*place]) {
        if rooted.insert(trees[place], place).is_some() {
            return Err(Fault(format!("the tree {} has two roots", trees[place])));
        }
        ensemble.roots.push(place);
    }
    let list = |name: &str| node.integers(&format!("{leaves}_{name}"));
    let (trees, ids, outputs) = (list("treeids"), list("nodeids"), list("ids"));
    let weights = numbers(node, &format!("{leaves}_weights"))?;
    same_length(
        &[trees.len(), ids.len(), outputs.len(), weights.len()],
        leaves,
    )?;
    for (index, key) in trees.iter().zip(ids).enumerate() {
        let place = places.get(&key).copied();
        let output =
            usize::try_from(outputs[index]).map_err(|_| Fault::new("a leaf of a sum below 0"))?;
        // What a branch is said to add is never added.
        if let Some(Grown::Leaf(own)) = place.map(|place| &mut ensemble.nodes[place]) {
            own.push((output, finite(weights[index])?));
        }
    }
    Ok(ensemble)
}

fn feature(number: i64) -> Result<u32, Fault> {
    let feature = u32::try_from(number)
        .ok()
        .filter(|feature| (*feature as usize) < FEATURES_MAX);
    feature.ok_or_else(|| Fault(format!("the feature {number} is outside 0..{FEATURES_MAX}")))
}

fn finite(number: f64) -> Result<f64, Fault> {
    match number.is_finite() {
        true => Ok(number),
        false => Err(Fault::new("a leaf whose value is not finite")),
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
    let sums = Sums::new(&read(node, "target")?, targets)?;
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
    let ensemble = read(node, "class")?;
    let sums = Sums::new(&ensemble, classes)?;
    let bases = bases(node, classes)?;
    let leaves = ensemble.nodes.iter().filter_map(|node| match node {
        Grown::Leaf(weights) => Some(weights),
        Grown::Branch(_) => None,
    });
    let weights: Vec<(usize, f64)> = leaves.flatten().copied().collect();
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
        let scores = match self.transform {
            Transform::Probit => {
                let mut one = [first];
                self.transform.apply(&mut one);
                [1.0 - one[0], one[0]]
            }
            _ if self.are_positive && self.is_single => [1.0 - first, first],
            Transform::Logistic => {
                let mut both = [-first, first];
                self.transform.apply(&mut both);
                both
            }
            _ if class == 1 => [-first, first],
            _ => [first, -first],
        };
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
    let sums = Sums::new(&read_new(node)?, targets)?;
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

fn read_new(node: &Node<'_>) -> Result<Ensemble, Fault> {
    let list = |name: &str| node.integers(name);
    let tensor = |name: &str| match node.tensor(name) {
        Some(tensor) => tensor.to_doubles(),
        None => Err(Fault(format!("`{name}` is missing"))),
    };
    let (features, splits, modes) = (
        list("nodes_featureids"),
        tensor("nodes_splits")?,
        tensor("nodes_modes")?,
    );
    let (passes, fails) = (list("nodes_truenodeids"), list("nodes_falsenodeids"));
    let (pass_leaves, fail_leaves) = (list("nodes_trueleafs"), list("nodes_falseleafs"));
    let missing = list("nodes_missing_value_tracks_true");
    let count = features.len();
    let lengths = [
        splits.len(),
        modes.len(),
        passes.len(),
        fails.len(),
        pass_leaves.len(),
        fail_leaves.len(),
        count,
    ];
    same_length(&lengths, "nodes_")?;
    let (outputs, weights) = (list("leaf_targetids"), tensor("leaf_weights")?);
    same_length(&[outputs.len(), weights.len()], "leaf_")?;
    let members = node
        .tensor("membership_values")
        .map_or(Ok(Vec::new()), Tensor::to_doubles)?;
    let mut members = members.split(|value| value.is_nan());
    let child = |id: i64, is_leaf: i64| {
        let (first, all) = if is_leaf == 0 {
            (0, count)
        } else {
            (count, weights.len())
        };
        let id_in = usize::try_from(id).ok().filter(|id| *id < all);
        id_in
            .map(|id| first + id)
            .ok_or_else(|| Fault(format!("the child {id} is outside 0..{all}")))
    };
    let mut ensemble = Ensemble::default();
    for place in 0..count {
        const MODES: [&str; 6] = [
            "BRANCH_LEQ",
            "BRANCH_LT",
            "BRANCH_GTE",
            "BRANCH_GT",
            "BRANCH_EQ",
            "BRANCH_NEQ",
        ];
        let test = match MODES.get(modes[place] as usize) {
            Some(mode) => Test::read(mode, splits[place])?,
            None if modes[place] == 6.0 => {
                let members = members
                    .next()
                    .ok_or_else(|| Fault::new("`membership_values`: a set is missing"))?;
                Test::Among(members.to_vec())
            }
            None => return Err(Fault::new("`nodes_modes`: one that is unknown")),
        };
        ensemble.nodes.push(Grown::Branch(Branch {
            feature: feature(features[place])?,
            test,
            missing_passes: missing.get(place).is_some_and(|tracks| *tracks != 0),
            children: [
                child(passes[place], pass_leaves[place])?,
                child(fails[place], fail_leaves[place])?,
            ],
        }));
    }
    for (output, weight) in outputs.iter().zip(&weights) {
        let output = usize::try_from(*output).map_err(|_| Fault::new("a leaf of a sum below 0"))?;
        ensemble
            .nodes
            .push(Grown::Leaf(vec![(output, finite(*weight)?)]));
    }
    for root in list("tree_roots") {
        ensemble.roots.push(child(*root, 0)?);
    }
    Ok(ensemble)
}
