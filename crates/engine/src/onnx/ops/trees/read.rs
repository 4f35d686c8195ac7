//! What the operators say of their trees.

use std::collections::HashMap;

use super::{Branch, Ensemble, FEATURES_MAX, Grown, Test};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::Tensor;

impl Test {
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

/// Numbers that are an attribute, or a tensor for those of other types.
pub(super) fn numbers(node: &Node<'_>, name: &str) -> Result<Vec<f64>, Fault> {
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
pub(super) fn older(node: &Node<'_>, leaves: &str) -> Result<Ensemble, Fault> {
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

/// Reads `TreeEnsemble`, whose leaves are nodes of their own.
pub(super) fn newest(node: &Node<'_>) -> Result<Ensemble, Fault> {
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
