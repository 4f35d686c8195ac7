//! Reading and checking one tree.

use super::categories::{self, Collector};
use crate::document::{Fault, Object, named};
use crate::forest::{Node, Tree};
use crate::shape;

/// Reads a tree over rows of `width` features; its leaves add to `output`, scaled by `weight`. What it asks
/// of categories is added to `sets`.
pub(super) fn read(
    tree: &Object<'_>,
    width: usize,
    output: u32,
    weight: f32,
    sets: &mut Collector,
) -> Result<Tree, Fault> {
    refuse_vectors(tree)?;
    let columns = Columns::read(tree)?;
    let count = columns.left.len();
    let mut categories = categories::OfTree::read(tree, count)?;
    let mut nodes = Vec::with_capacity(count);
    for node in 0..count {
        let read = match columns.left[node] {
            -1 => columns.leaf(node, weight),
            _ => columns.split(node, width, |feature| {
                categories.split(node, feature, width, sets)
            }),
        };
        nodes.push(read.map_err(|fault| fault.inside(format!("node {node}")))?);
    }
    shape::check(count, |node| match nodes[node as usize] {
        Node::Split { left, right, .. } => Some([left, right]),
        Node::Leaf(_) => None,
    })?;
    Ok(Tree { nodes, output })
}

fn refuse_vectors(tree: &Object<'_>) -> Result<(), Fault> {
    let parameters = tree.object("tree_param")?;
    let targets = parameters
        .parameter("size_leaf_vector")
        .map_err(named("tree_param"))?;
    match targets {
        Some(2..) => Err(Fault::new(
            "`size_leaf_vector`: leaves that are vectors are not supported; train with \
             multi_strategy=\"one_output_per_tree\"",
        )),
        _ => Ok(()),
    }
}

/// A tree as stored in the file: one column per property, one entry per node.
struct Columns {
    left: Vec<i64>,
    right: Vec<i64>,
    feature: Vec<i64>,
    /// Threshold of a split, value of a leaf.
    condition: Vec<f32>,
    default_left: Vec<i64>,
}

impl Columns {
    fn read(tree: &Object<'_>) -> Result<Self, Fault> {
        let columns = Self {
            left: tree.integers("left_children")?,
            right: tree.integers("right_children")?,
            feature: tree.integers("split_indices")?,
            condition: tree.floats("split_conditions")?,
            default_left: tree.integers("default_left")?,
        };
        let count = columns.left.len();
        if count == 0 {
            return Err(Fault::new("`left_children`: a tree without nodes"));
        }
        let lengths = [
            ("right_children", columns.right.len()),
            ("split_indices", columns.feature.len()),
            ("split_conditions", columns.condition.len()),
            ("default_left", columns.default_left.len()),
        ];
        for (name, length) in lengths {
            if length != count {
                return Err(Fault(format!(
                    "`{name}`: {length} values for {count} nodes"
                )));
            }
        }
        let parameters = tree.object("tree_param")?;
        let announced = parameters
            .parameter("num_nodes")
            .map_err(named("tree_param"))?;
        match announced {
            Some(announced) if i64::try_from(count) != Ok(announced) => Err(Fault(format!(
                "`num_nodes`: {announced} announced, {count} there"
            ))),
            _ => Ok(columns),
        }
    }

    fn leaf(&self, node: usize, weight: f32) -> Result<Node, Fault> {
        let condition = self.condition[node];
        let value = condition * weight;
        match value.is_finite() {
            true => Ok(Node::Leaf(f64::from(value))),
            false => Err(Fault(format!("the leaf's value is {condition}"))),
        }
    }

    /// `column_of` gives the column of a split that asks for a set of the feature's categories.
    fn split(
        &self,
        node: usize,
        width: usize,
        column_of: impl FnOnce(u32) -> Option<u32>,
    ) -> Result<Node, Fault> {
        let feature = self.feature[node];
        let Some(feature) = u32::try_from(feature)
            .ok()
            .filter(|&f| (f as usize) < width)
        else {
            return Err(Fault(format!("feature {feature} is outside 0..{width}")));
        };
        let (feature, threshold) = match column_of(feature) {
            Some(column) => (column, categories::IN_SET),
            None => (feature, f64::from(self.condition[node])),
        };
        if threshold.is_nan() {
            return Err(Fault::new("the threshold is not a number"));
        }
        Ok(Node::Split {
            feature,
            threshold,
            default_left: self.default_left[node] != 0,
            left: self.child("left", self.left[node])?,
            right: self.child("right", self.right[node])?,
        })
    }

    fn child(&self, side: &str, child: i64) -> Result<u32, Fault> {
        let count = self.left.len();
        match u32::try_from(child) {
            Ok(child) if (child as usize) < count => Ok(child),
            _ => Err(Fault(format!("{side} child {child} is outside 0..{count}"))),
        }
    }
}

/// How many training rows, by the weight of their second derivatives, came to each node. Empty where the
/// file does not say.
pub(super) fn covers(tree: &Object<'_>) -> Result<Vec<f32>, Fault> {
    match tree.get("sum_hessian") {
        Some(covers) => covers.to_floats().map_err(named("sum_hessian")),
        None => Ok(Vec::new()),
    }
}
