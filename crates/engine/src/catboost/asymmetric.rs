//! Trees whose nodes ask what they like: those of the forest, one for each number of a leaf.

use super::parts::{AsymmetricTree, Branch};
use super::splits::Splits;
use crate::document::Fault;
use crate::forest::{Forest, Node, Rules, Tree};
use crate::signature::Precision;

/// Compiles trees over rows of `width` columns.
pub(super) fn compile(
    trees: &[AsymmetricTree],
    splits: &Splits,
    leaves: &[f64],
    outputs: usize,
    width: usize,
) -> Result<Forest<f64>, Fault> {
    let reached: usize = trees.iter().map(|tree| tree.nodes.len() + 1).sum();
    // Each leaf has its own numbers, so that a small file cannot become large.
    if reached.saturating_mul(outputs) > leaves.len() {
        return Err(Fault(format!(
            "{} leaf values for {reached} leaves of {outputs}",
            leaves.len()
        )));
    }
    let mut compiled = Vec::with_capacity(trees.len() * outputs);
    for (index, tree) in trees.iter().enumerate() {
        for output in 0..outputs {
            let nodes = nodes_of(tree, splits, leaves, output, outputs);
            compiled.push(Tree {
                nodes: nodes.map_err(|fault| fault.inside(format_args!("tree {index}")))?,
                output: output as u32,
            });
        }
    }
    let rules = Rules {
        width,
        inputs: Precision::F32,
        equal_goes_left: true,
    };
    Ok(Forest::new(&compiled, rules)?)
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
        nodes.push(Node::Split {
            feature: split.column,
            threshold: f64::from(split.border),
            default_left: !split.missing_is_above,
            left: left?,
            right: right?,
        });
    }
    nodes.append(&mut ends);
    Ok(nodes)
}
