//! Reading and checking one tree.

use crate::document::{Fault, Object, named};
use crate::forest::{Node, Tree};

/// Reads a tree over rows of `width` features; its leaves add to `output`, scaled by `weight`.
pub(super) fn read(
    tree: &Object<'_>,
    width: usize,
    output: u32,
    weight: f32,
) -> Result<Tree, Fault> {
    refuse_unsupported(tree)?;
    let columns = Columns::read(tree)?;
    let nodes = (0..columns.left.len())
        .map(|node| {
            columns
                .node(node, width, weight)
                .map_err(|fault| fault.inside(format!("node {node}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    check_shape(&nodes)?;
    Ok(Tree { nodes, output })
}

fn refuse_unsupported(tree: &Object<'_>) -> Result<(), Fault> {
    let parameters = tree.object("tree_param")?;
    let targets = parameters
        .parameter("size_leaf_vector")
        .map_err(named("tree_param"))?;
    if targets.is_some_and(|targets| targets > 1) {
        return Err(Fault::new(
            "`size_leaf_vector`: leaves that are vectors are not supported; train with \
             multi_strategy=\"one_output_per_tree\"",
        ));
    }
    for name in ["split_type", "categories", "categories_nodes"] {
        let Some(values) = tree.get(name) else {
            continue;
        };
        let categorical = match name {
            "split_type" => values
                .to_integers()
                .map_err(named(name))?
                .iter()
                .any(|&v| v != 0),
            _ => !values.to_integers().map_err(named(name))?.is_empty(),
        };
        if categorical {
            return Err(Fault(format!(
                "`{name}`: categorical splits are not supported"
            )));
        }
    }
    Ok(())
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

    fn node(&self, node: usize, width: usize, weight: f32) -> Result<Node, Fault> {
        let condition = self.condition[node];
        if self.left[node] == -1 {
            let value = condition * weight;
            return match value.is_finite() {
                true => Ok(Node::Leaf(f64::from(value))),
                false => Err(Fault(format!("the leaf's value is {condition}"))),
            };
        }
        if condition.is_nan() {
            return Err(Fault::new("the threshold is not a number"));
        }
        let feature = self.feature[node];
        let Some(feature) = u32::try_from(feature)
            .ok()
            .filter(|&f| (f as usize) < width)
        else {
            return Err(Fault(format!("feature {feature} is outside 0..{width}")));
        };
        Ok(Node::Split {
            feature,
            threshold: f64::from(condition),
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

/// Refuses nodes that are reached twice, which excludes cycles. Nodes that are not reached at all
/// are what pruning leaves behind.
fn check_shape(nodes: &[Node]) -> Result<(), Fault> {
    let mut reached = vec![false; nodes.len()];
    reached[0] = true;
    let mut open = vec![0u32];
    while let Some(node) = open.pop() {
        let Node::Split { left, right, .. } = nodes[node as usize] else {
            continue;
        };
        for child in [left, right] {
            if std::mem::replace(&mut reached[child as usize], true) {
                return Err(Fault(format!(
                    "node {node}: child {child} is reached twice"
                )));
            }
            open.push(child);
        }
    }
    Ok(())
}
