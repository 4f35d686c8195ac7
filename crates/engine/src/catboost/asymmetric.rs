//! Trees whose nodes ask what they like: those of the forest, one for each number of a leaf.

use super::parts::{AsymmetricTree, Branch};
use super::splits::Splits;
use crate::document::Fault;
use crate::forest::{Node, Rules, Tree};
use crate::signature::Precision;

/// Trees for the forest, one for each number of a leaf.
pub(super) fn convert(
    trees: &[AsymmetricTree],
    splits: &Splits,
    leaves: &[f64],
    outputs: usize,
) -> Result<Vec<Tree>, Fault> {
    let reached: usize = trees.iter().map(|tree| tree.nodes.len() + 1).sum();
    // Each leaf has its own numbers, so that a small file cannot become large.
    if reached.saturating_mul(outputs) > leaves.len() {
        return Err(Fault(format!(
            "{} leaf values for {reached} leaves of {outputs}",
            leaves.len()
        )));
    }
    let mut converted = Vec::with_capacity(trees.len() * outputs);
    for (index, tree) in trees.iter().enumerate() {
        for output in 0..outputs {
            let nodes = nodes_of(tree, splits, leaves, output, outputs);
            converted.push(Tree {
                nodes: nodes.map_err(|fault| fault.inside(format_args!("tree {index}")))?,
                output: output as u32,
            });
        }
    }
    Ok(converted)
}

/// How much of the training came to each node of a converted tree; empty if a leaf has no weight.
pub(super) fn covers(tree: &AsymmetricTree, weights: &[f64], outputs: usize) -> Vec<f32> {
    let weight = |start: u32| weights.get(start as usize / outputs).copied();
    if let Branch::Leaf(start) = tree.root {
        return Vec::from_iter(weight(start).map(|weight| weight as f32));
    }
    let branches = tree.nodes.iter().flat_map(|node| [node.left, node.right]);
    let ends = branches.filter_map(|branch| match branch {
        Branch::Leaf(start) => Some(weight(start)),
        Branch::Node(_) => None,
    });
    let Some(ends) = ends.collect::<Option<Vec<f64>>>() else {
        return Vec::new();
    };
    let mut sums = vec![0.0; tree.nodes.len()];
    // Children come after their parents, and leaves in the order of the nodes they belong to.
    let mut unused = ends.iter().rev();
    for (index, node) in tree.nodes.iter().enumerate().rev() {
        for branch in [node.right, node.left] {
            sums[index] += match branch {
                Branch::Node(child) => sums[child as usize],
                Branch::Leaf(_) => *unused.next().expect("each leaf has been met"),
            };
        }
    }
    sums.iter()
        .chain(&ends)
        .map(|cover| *cover as f32)
        .collect()
}

/// How trees are compared, over rows of `width` columns.
pub(super) fn rules(width: usize) -> Rules {
    Rules {
        width,
        inputs: Precision::F32,
        equal_goes_left: true,
    }
}

/// The splits first, in their order, then the leaves.
fn nodes_of(
    tree: &AsymmetricTree,
    splits: &Splits,
    leaves: &[f64],
    output: usize,
    outputs: usize,
) -> Result<Vec<Node>, Fault> {
    let leaf = |start: u32| {
        let start = start as usize;
        let end = start
            .checked_add(outputs)
            .filter(|end| *end <= leaves.len());
        let value = end.map(|_| Node::Leaf(leaves[start + output]));
        value.ok_or_else(|| Fault(format!("leaf value {start} is outside 0..{}", leaves.len())))
    };
    if let Branch::Leaf(start) = tree.root {
        return Ok(vec![leaf(start)?]);
    }
    let mut nodes = Vec::with_capacity(2 * tree.nodes.len() + 1);
    let mut ends = Vec::with_capacity(tree.nodes.len() + 1);
    for node in &tree.nodes {
        let split = splits.get(node.split)?;
        let [left, right]: [Result<_, Fault>; 2] =
            [node.left, node.right].map(|branch| match branch {
                Branch::Node(child) => Ok(child),
                Branch::Leaf(start) => {
                    ends.push(leaf(start)?);
                    Ok((tree.nodes.len() + ends.len() - 1) as u32)
                }
            });
        nodes.push(split.node(left?, right?));
    }
    nodes.append(&mut ends);
    Ok(nodes)
}
