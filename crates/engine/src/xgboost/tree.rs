//! Reading and checking one tree.

use super::categories::{self, Collector};
use crate::document::{Fault, Object, named};
use crate::forest::{Node, Tree};
use crate::shape;

/// Where the leaves of a tree add to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    /// Margins of a row.
    pub(super) outputs: usize,
    /// Which of them, unless the leaves are vectors: those add to all.
    pub(super) output: u32,
    /// What the leaves are multiplied by.
    pub(super) weight: f32,
}

/// Reads a tree over rows of `width` features: as one, or where the leaves are vectors as one for each output.
/// What it asks of categories is added to `sets`.
pub(super) fn read(
    tree: &Object<'_>,
    width: usize,
    target: Target,
    sets: &mut Collector,
) -> Result<Vec<Tree>, Fault> {
    let columns = Columns::read(tree)?;
    let count = columns.left.len();
    let vectors = Vectors::read(tree, &columns, target)?;
    let mut categories = categories::OfTree::read(tree, count)?;
    let mut nodes = Vec::with_capacity(count);
    for node in 0..count {
        let read = match columns.left[node] {
            -1 if vectors.is_some() => Ok(Node::Leaf(0.0)),
            -1 => leaf(columns.condition[node], target.weight),
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
    let output = target.output;
    match vectors {
        None => Ok(vec![Tree { nodes, output }]),
        Some(vectors) => vectors.part(&nodes),
    }
}

/// Leaves that hold a number for each output.
struct Vectors {
    /// Where the numbers of each node begin, if it is a leaf.
    starts: Vec<Option<usize>>,
    numbers: Vec<f32>,
    target: Target,
}

impl Vectors {
    /// None where leaves are numbers.
    fn read(tree: &Object<'_>, columns: &Columns, target: Target) -> Result<Option<Self>, Fault> {
        let parameters = tree.object("tree_param")?;
        let size = parameters
            .parameter("size_leaf_vector")
            .map_err(named("tree_param"))?;
        let outputs = target.outputs;
        match size {
            None | Some(..=1) => return Ok(None),
            Some(size) if usize::try_from(size) == Ok(outputs) => {}
            Some(size) => {
                return Err(Fault(format!(
                    "`size_leaf_vector`: {size} for {outputs} outputs"
                )));
            }
        }
        let count = columns.left.len();
        // The numbers of leaves are apart, and the right child of a leaf tells which are its own. In older files every
        // node has some.
        let (name, is_apart) = match tree.get("leaf_weights") {
            Some(_) => ("leaf_weights", true),
            None => ("base_weights", false),
        };
        let numbers = tree.floats(name)?;
        // There are fewer splits than leaves, so that a small file cannot become large.
        if count.saturating_mul(outputs) > 2 * numbers.len() {
            return Err(Fault(format!(
                "`{name}`: {} numbers for {count} nodes of {outputs} outputs",
                numbers.len()
            )));
        }
        let start = |node: usize| {
            let place = match is_apart {
                true => usize::try_from(columns.right[node]).ok(),
                false => Some(node),
            };
            let start = place.and_then(|place| place.checked_mul(outputs));
            let is_there = |start: &usize| {
                let end = start.checked_add(outputs);
                end.is_some_and(|end| end <= numbers.len())
            };
            start
                .filter(is_there)
                .ok_or_else(|| Fault(format!("node {node}: its numbers are not in `{name}`")))
        };
        let starts = (0..count).map(|node| match columns.left[node] {
            -1 => start(node).map(Some),
            _ => Ok(None),
        });
        Ok(Some(Self {
            starts: starts.collect::<Result<_, _>>()?,
            numbers,
            target,
        }))
    }

    /// A tree for each output.
    fn part(&self, nodes: &[Node]) -> Result<Vec<Tree>, Fault> {
        let tree = |output: usize| {
            let nodes = nodes.iter().zip(&self.starts).enumerate();
            let nodes = nodes.map(|(index, (node, start))| match start {
                None => Ok(*node),
                Some(start) => leaf(self.numbers[start + output], self.target.weight)
                    .map_err(|fault| fault.inside(format!("node {index}"))),
            });
            Ok(Tree {
                nodes: nodes.collect::<Result<_, Fault>>()?,
                output: output as u32,
            })
        };
        (0..self.target.outputs).map(tree).collect()
    }
}

/// A leaf of a number in the file.
fn leaf(number: f32, weight: f32) -> Result<Node, Fault> {
    let value = number * weight;
    match value.is_finite() {
        true => Ok(Node::Leaf(f64::from(value))),
        false => Err(Fault(format!("the leaf's value is {number}"))),
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
