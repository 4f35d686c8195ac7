//! Outliers: rows that random trees part from others early.

use super::build::{Builder, Columns};
use super::ensemble::on_parts;
use super::steps::{Predictor, refuse_missing};
use super::trees::{Grown, Reader};
use super::version::Version;
use crate::document::Fault;
use crate::forest::{Forest, Node, Tree};
use crate::pickle::View;
use crate::signature::{ClassLabel, NamedOutput, Output, Precision};
use crate::{RowRefusal, Rows};

/// The first version that lets rows have missing values.
const TAKES_MISSING: Version = Version(1, 6);

#[derive(Debug)]
struct Isolation {
    /// Whose sums are the depths of a row in all trees.
    forest: Box<Forest<f64>>,
    /// What the depths are divided by.
    divisor: f64,
    offset: f64,
    takes_missing: bool,
    labels: [ClassLabel; 2],
    more: [NamedOutput; 1],
}

impl Predictor for Isolation {
    fn output(&self) -> Output {
        Output::Class { classes: 2 }
    }

    fn more(&self) -> &[NamedOutput] {
        &self.more
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        if !self.takes_missing {
            refuse_missing(rows, f64::from(f32::MAX))?;
        }
        let mut depths = vec![0.0; rows.len()];
        self.forest.add(rows, &mut depths, 1);
        for (depth, out) in depths.into_iter().zip(out.chunks_exact_mut(2)) {
            let depth = if self.divisor == 0.0 {
                1.0
            } else {
                depth / self.divisor
            };
            let decision = -(-depth).exp2() - self.offset;
            out[0] = f64::from(u8::from(decision >= 0.0));
            out[1] = decision;
        }
        Ok(())
    }

    fn labels(&self) -> Option<&[ClassLabel]> {
        Some(&self.labels)
    }

    fn detail(&self) -> Option<String> {
        Some(self.forest.description())
    }
}

/// Reads this estimator; none if it is another.
pub(super) fn read(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    if name != "IsolationForest" {
        return Ok(None);
    }
    builder.take_numbers(columns)?;
    let (version, width) = (builder.version, columns.len());
    let estimators = on_parts(view, width)?;
    if estimators.is_empty() {
        return Err(Fault::new("`estimators_`: there are none"));
    }
    let mut trees = Vec::with_capacity(estimators.len());
    for (index, (estimator, places)) in estimators.iter().enumerate() {
        let tree = tree(*estimator, places, version);
        trees.push(tree.map_err(|fault| fault.inside(format_args!("tree {index}")))?);
    }
    let samples = match view.get("_max_samples") {
        Some(_) => view.number("_max_samples")?,
        None => view.number("max_samples_")?,
    };
    let rules = Reader::new(view, width, version, 0).rules(Precision::F32, 0);
    Ok(Some(Box::new(Isolation {
        forest: Box::new(Forest::new(&trees, rules)?),
        divisor: estimators.len() as f64 * mean_depth(samples),
        offset: view.number("offset_")?,
        takes_missing: version >= TAKES_MISSING,
        labels: [ClassLabel::Number(-1), ClassLabel::Number(1)],
        more: [NamedOutput {
            name: "decision_function".into(),
            output: Output::Numbers { count: 1 },
        }],
    })))
}

/// How deep a tree of so many rows is on average, if it parts all of them (Liu, Ting and Zhou, 2008).
fn mean_depth(rows: f64) -> f64 {
    /// The Euler–Mascheroni constant.
    const GAMMA: f64 = 0.577_215_664_901_532_9;
    match rows {
        rows if rows <= 1.0 => 0.0,
        2.0 => 1.0,
        rows => 2.0 * ((rows - 1.0).ln() + GAMMA) - 2.0 * (rows - 1.0) / rows,
    }
}

/// A tree over some of the columns, whose leaves tell how deep a row is in them.
fn tree(view: View<'_, '_>, places: &[u32], version: Version) -> Result<Tree, Fault> {
    let mut grown: Grown = Reader::new(view, places.len(), version, 0).grown(view, 1)?;
    let rows = view
        .required("tree_")?
        .array("nodes")?
        .field("n_node_samples")?;
    let rows = rows
        .ok_or_else(|| Fault::new("`nodes` have no `n_node_samples`"))?
        .numbers()?;
    let mut depths = vec![1.0; grown.nodes.len()];
    let mut open = vec![0usize];
    while let Some(node) = open.pop() {
        match &mut grown.nodes[node] {
            Node::Split {
                feature,
                left,
                right,
                ..
            } => {
                *feature = places[*feature as usize];
                for child in [*left as usize, *right as usize] {
                    depths[child] = depths[node] + 1.0;
                    open.push(child);
                }
            }
            Node::Leaf(depth) => *depth = depths[node] + mean_depth(rows[node]) - 1.0,
        }
    }
    Ok(Tree {
        nodes: grown.nodes,
        output: 0,
    })
}
