//! Trees, and sums of them.

use super::build::{Builder, Columns, class_count, class_name};
use super::ensemble::member;
use super::link::{Link, of_classes};
use super::sets::Sets;
use super::steps::{Chain, Piped, Predictor, Transform, refuse_missing};
use super::version::Version;
use crate::document::{Fault, named};
use crate::explain::{Explain, Explainer, Players, Sources};
use crate::forest::{Forest, Node, Rules, Tree};
use crate::pickle::{Array, View};
use crate::shape;
use crate::signature::{Output, Precision};
use crate::{RowRefusal, Rows};

/// The first versions whose trees, random forests, and trees of random splits take missing values.
const TREES_TAKE_MISSING: Version = Version(1, 3);
const FORESTS_TAKE_MISSING: Version = Version(1, 4);
const RANDOM_TREES_TAKE_MISSING: Version = Version(1, 6);
/// The first version in which trees that are monotonic, or of absolute errors, do so too.
const ALL_TREES_TAKE_MISSING: Version = Version(1, 9);
/// The first version whose trees hold shares of the classes in place of counts.
const TREES_HOLD_SHARES: Version = Version(1, 3);

/// Trees whose leaves are added, and what becomes of the sums.
#[derive(Debug)]
pub(super) struct Trees {
    pub(super) forest: Box<Forest<f64>>,
    pub(super) explainer: Option<Box<Explainer>>,
    /// What stands behind the columns.
    pub(super) sets: Sets,
    pub(super) starts: Vec<f64>,
    pub(super) divisor: f64,
    pub(super) link: Link,
    pub(super) output: Output,
    pub(super) takes_missing: bool,
    /// The greatest number that the inputs' precision has.
    pub(super) greatest: f64,
}

impl Trees {
    fn sums(&self, rows: Rows<'_>) -> Result<Vec<f64>, RowRefusal> {
        let mut sums = self.starts.repeat(rows.len());
        self.with_rows(rows, |rows| {
            self.forest.add(rows, &mut sums, self.starts.len());
        })?;
        sums.iter_mut().for_each(|sum| *sum /= self.divisor);
        Ok(sums)
    }

    /// Calls with the rows as the forest takes them.
    fn with_rows(&self, rows: Rows<'_>, call: impl FnOnce(Rows<'_>)) -> Result<(), RowRefusal> {
        match self.takes_missing {
            true => refuse_beyond(rows, self.greatest)?,
            false => refuse_missing(rows, self.greatest)?,
        }
        match self.sets.len() {
            0 => call(rows),
            more => {
                let values = self.sets.behind(rows)?;
                call(rows.reshaped(&values, rows.width() + more));
            }
        }
        Ok(())
    }
}

/// The decision of boosting: the sums themselves.
impl Transform for Trees {
    fn width(&self) -> usize {
        self.starts.len()
    }

    fn apply(&self, rows: Rows<'_>, out: &mut Vec<f64>) -> Result<(), RowRefusal> {
        out.extend(self.sums(rows)?);
        Ok(())
    }
}

impl Predictor for Trees {
    fn output(&self) -> Output {
        self.output
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let mut sums = self.sums(rows)?;
        let count = self.starts.len();
        let width = self.output.width();
        for (sums, out) in sums
            .chunks_exact_mut(count)
            .zip(out.chunks_exact_mut(width))
        {
            self.link.apply(sums, out);
        }
        Ok(())
    }

    fn decision(&self) -> Option<&dyn Transform> {
        let is_boosted = matches!(self.link, Link::Logistic(_) | Link::Softmax);
        is_boosted.then_some(self)
    }

    fn detail(&self) -> Option<String> {
        Some(self.forest.description())
    }

    fn explain(&self) -> Option<&dyn Explain> {
        self.explainer.as_ref().map(|_| self as &dyn Explain)
    }
}

/// The sums before their link.
impl Explain for Trees {
    fn margins(&self) -> usize {
        self.starts.len()
    }

    fn bytes(&self) -> usize {
        self.explainer.as_ref().map_or(0, |own| own.bytes())
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let explainer = self.explainer.as_ref().expect("it explains");
        let width = rows.width() + 1;
        self.with_rows(rows, |rows| explainer.contributions(rows, margin, out))?;
        for row in out.chunks_exact_mut(width) {
            row.iter_mut().for_each(|number| *number /= self.divisor);
            row[width - 1] += self.starts[margin] / self.divisor;
        }
        Ok(())
    }
}

fn refuse_beyond(rows: Rows<'_>, greatest: f64) -> Result<(), RowRefusal> {
    let beyond = |row: &usize| rows.row(*row).iter().any(|value| value.abs() > greatest);
    match (0..rows.len()).find(beyond) {
        Some(row) => Err(RowRefusal {
            row,
            reason: "has a number that is too large for the model".into(),
        }),
        None => Ok(()),
    }
}

/// Reads gradient boosting with histograms behind its own encoder of categories, if it has one.
pub(super) fn read_encoded(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
    name: &str,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let encoder = view
        .get("_preprocessor")
        .filter(|encoder| !encoder.is_none());
    let (true, Some(encoder)) = (name.starts_with("HistGradientBoosting"), encoder) else {
        return Ok(None);
    };
    let (step, encoded) = builder.transform(encoder, columns)?;
    builder.take_numbers(&encoded)?;
    let chain = Chain::new(vec![step], columns.len());
    let bytes_max = builder.explanation_bytes(view, &encoded);
    let last = Reader::new(view, encoded.len(), builder.version, bytes_max).read(name)?;
    Ok(last.map(|last| Box::new(Piped { chain, last }) as Box<dyn Predictor>))
}

/// Reads a single tree of classes so that it gives the shares of all, also of two; another estimator as ever.
pub(super) fn read_all_shares(
    builder: &mut Builder,
    view: View<'_, '_>,
    columns: &Columns,
) -> Result<Box<dyn Predictor>, Fault> {
    let name = class_name(view)?;
    if !matches!(name, "DecisionTreeClassifier" | "ExtraTreeClassifier") {
        return member(builder, view, columns);
    }
    builder.spend(columns.len())?;
    builder.take_numbers(columns)?;
    let reader = Reader::new(view, columns.len(), builder.version, 0);
    let trees = reader
        .shares(&[view], true)
        .map_err(|fault| fault.inside(name))?;
    Ok(Box::new(trees))
}

/// Reads estimators of trees over so many columns.
pub(super) struct Reader<'p, 'a> {
    pub(super) view: View<'p, 'a>,
    pub(super) width: usize,
    pub(super) version: Version,
    /// Whether the library gets a sparse matrix, in which its trees take no missing values.
    pub(super) is_sparse: bool,
    /// What explanations may take; 0 for none.
    pub(super) explanation_bytes_max: usize,
}

/// A tree as the file has it, and the numbers of its nodes, `per_node` of them each.
pub(super) struct Grown {
    pub(super) nodes: Vec<Node>,
    pub(super) values: Vec<f64>,
    pub(super) per_node: usize,
    /// How much of the training rows came to each node.
    pub(super) covers: Vec<f64>,
}

/// Trees that are added up, and the covers of each.
#[derive(Default)]
pub(super) struct Grove {
    trees: Vec<Tree>,
    covers: Vec<Vec<f32>>,
}

impl Grove {
    pub(super) fn push(
        &mut self,
        grown: &Grown,
        output: usize,
        value: impl Fn(&[f64]) -> f64,
    ) -> Result<(), Fault> {
        self.trees.push(grown.tree(output as u32, value)?);
        let covers = grown.covers.iter().map(|cover| *cover as f32);
        self.covers.push(covers.collect());
        Ok(())
    }
}

impl Grown {
    /// The tree whose leaves have one of their numbers, as `value` makes it of all.
    pub(super) fn tree(&self, output: u32, value: impl Fn(&[f64]) -> f64) -> Result<Tree, Fault> {
        let mut nodes = self.nodes.clone();
        let numbers = self.values.chunks_exact(self.per_node);
        for (node, numbers) in nodes.iter_mut().zip(numbers) {
            if let Node::Leaf(leaf) = node {
                *leaf = value(numbers);
                if !leaf.is_finite() {
                    return Err(Fault::new("a leaf whose value is not finite"));
                }
            }
        }
        Ok(Tree { nodes, output })
    }
}

/// The greatest `f32` that is not above a threshold: with it the same values of `f32` go left.
fn rounded_down(threshold: f64) -> f64 {
    let nearest = threshold as f32;
    match f64::from(nearest) > threshold {
        true => f64::from(nearest.next_down()),
        false => f64::from(nearest),
    }
}

impl<'p, 'a> Reader<'p, 'a> {
    pub(super) fn new(
        view: View<'p, 'a>,
        width: usize,
        version: Version,
        explanation_bytes_max: usize,
    ) -> Self {
        Self {
            view,
            width,
            version,
            is_sparse: false,
            explanation_bytes_max,
        }
    }

    /// Reads the estimator of this name; none if it is not one of trees.
    pub(super) fn read(&self, name: &str) -> Result<Option<Box<dyn Predictor>>, Fault> {
        let view = self.view;
        let trees = match name {
            "DecisionTreeClassifier" | "ExtraTreeClassifier" => self.shares(&[view], false)?,
            "DecisionTreeRegressor" | "ExtraTreeRegressor" => self.means(&[view])?,
            "RandomForestClassifier" | "ExtraTreesClassifier" => {
                self.shares(&view.list("estimators_")?, false)?
            }
            "RandomForestRegressor" | "ExtraTreesRegressor" => {
                self.means(&view.list("estimators_")?)?
            }
            "GradientBoostingClassifier" => self.boosted(true)?,
            "GradientBoostingRegressor" => self.boosted(false)?,
            "HistGradientBoostingClassifier" => self.histograms(true)?,
            "HistGradientBoostingRegressor" => self.histograms(false)?,
            _ => return Ok(None),
        };
        Ok(Some(Box::new(trees)))
    }

    /// How a forest over the columns and so many behind them asks.
    pub(super) fn rules(&self, inputs: Precision, behind: usize) -> Rules {
        Rules {
            width: self.width + behind,
            inputs,
            equal_goes_left: true,
        }
    }

    /// Trees that are added to what each sum starts with, before their link.
    pub(super) fn compile(
        &self,
        grove: &Grove,
        inputs: Precision,
        sets: Sets,
        starts: Vec<f64>,
    ) -> Result<Trees, Fault> {
        let rules = self.rules(inputs, sets.len());
        let Grove { trees, covers } = grove;
        let own = 0..self.width as u32;
        let sources = Sources {
            trees,
            covers,
            rules,
            outputs: starts.len(),
            players: Players::alone(own.chain(sets.features()).collect(), self.width),
            beside: 0,
        };
        // Trees that are too large, or say too little, are asked.
        let explainer = Explainer::new(sources, self.explanation_bytes_max).ok();
        Ok(Trees {
            forest: Box::new(Forest::new(trees, rules)?),
            explainer: explainer.map(Box::new),
            output: Output::Numbers {
                count: starts.len(),
            },
            starts,
            sets,
            divisor: 1.0,
            link: Link::Identity,
            takes_missing: false,
            greatest: f64::from(f32::MAX),
        })
    }

    /// Trees of classes: the mean of the shares that the classes have in the leaves.
    fn shares(&self, estimators: &[View<'_, '_>], is_all: bool) -> Result<Trees, Fault> {
        let classes = class_count(self.view)?;
        let outputs = if classes == 2 && !is_all {
            vec![1]
        } else {
            (0..classes).collect::<Vec<_>>()
        };
        let has_counts = self.version < TREES_HOLD_SHARES;
        let mut grove = Grove::default();
        for (index, estimator) in estimators.iter().enumerate() {
            let read = || {
                let grown = self.grown(*estimator, classes)?;
                for (output, class) in outputs.iter().enumerate() {
                    grove.push(&grown, output, |numbers| {
                        let all: f64 = numbers.iter().sum();
                        match has_counts && all != 0.0 {
                            true => numbers[*class] / all,
                            false => numbers[*class],
                        }
                    })?;
                }
                Ok(())
            };
            let mut read = read;
            read().map_err(|fault: Fault| fault.inside(format_args!("tree {index}")))?;
        }
        Ok(Trees {
            output: match is_all {
                true => Output::Multiclass { classes },
                false => of_classes(classes),
            },
            ..self.mean(&grove, estimators, outputs.len())?
        })
    }

    /// Trees of numbers: the mean of those in the leaves.
    fn means(&self, estimators: &[View<'_, '_>]) -> Result<Trees, Fault> {
        let mut grove = Grove::default();
        for (index, estimator) in estimators.iter().enumerate() {
            let grown = self.grown(*estimator, 1);
            let pushed = grown.and_then(|grown| grove.push(&grown, 0, |numbers| numbers[0]));
            pushed.map_err(|fault| fault.inside(format_args!("tree {index}")))?;
        }
        self.mean(&grove, estimators, 1)
    }

    fn mean(
        &self,
        grove: &Grove,
        estimators: &[View<'_, '_>],
        sums: usize,
    ) -> Result<Trees, Fault> {
        let [first, ..] = estimators else {
            return Err(Fault::new("`estimators_`: no trees"));
        };
        Ok(Trees {
            divisor: estimators.len() as f64,
            takes_missing: self.takes_missing(*first)?,
            ..self.compile(grove, Precision::F32, Sets::default(), vec![0.0; sums])?
        })
    }

    /// Whether the library lets these trees have missing values.
    fn takes_missing(&self, tree: View<'_, '_>) -> Result<bool, Fault> {
        let is_random = tree.text("splitter")? == "random";
        let is_extra = class_name(tree)?.starts_with("ExtraTree");
        let since = match (is_random, tree.identity() == self.view.identity()) {
            (true, _) => RANDOM_TREES_TAKE_MISSING,
            (false, true) => TREES_TAKE_MISSING,
            (false, false) => FORESTS_TAKE_MISSING,
        };
        let is_monotonic = tree.get("monotonic_cst").is_some_and(|cst| !cst.is_none());
        let is_special = is_monotonic || tree.text("criterion")? == "absolute_error";
        let since = match is_special {
            true => ALL_TREES_TAKE_MISSING,
            false => since,
        };
        let has_side = tree
            .required("tree_")?
            .array("nodes")?
            .field("missing_go_to_left")?;
        let is_known = has_side.is_some() && !self.is_sparse && (is_random || !is_extra);
        Ok(is_known && self.version >= since)
    }

    /// Reads the tree of a fitted estimator, whose nodes have so many numbers.
    pub(super) fn grown(&self, estimator: View<'_, '_>, per_node: usize) -> Result<Grown, Fault> {
        let tree = estimator.required("tree_")?;
        let table = Table {
            records: tree.array("nodes").map_err(named("tree_"))?,
        };
        let nodes = self.nodes(
            &table,
            "left_child",
            "right_child",
            "feature",
            "threshold",
            Precision::F32,
        )?;
        let values = tree.array("values")?;
        if *values.shape() != [nodes.len(), 1, per_node] {
            return Err(Fault(format!(
                "`values`: an array of the shape {:?} for {} nodes of {per_node} numbers; models of several outputs \
                 are not supported",
                values.shape(),
                nodes.len()
            )));
        }
        Ok(Grown {
            nodes,
            values: values.numbers()?,
            per_node,
            covers: table.numbers("weighted_n_node_samples")?,
        })
    }

    pub(super) fn nodes(
        &self,
        table: &Table<'_, '_>,
        left: &str,
        right: &str,
        feature: &str,
        threshold: &str,
        precision: Precision,
    ) -> Result<Vec<Node>, Fault> {
        let (lefts, rights) = (table.integers(left)?, table.integers(right)?);
        let (features, thresholds) = (table.integers(feature)?, table.numbers(threshold)?);
        let leaves = table.optional("is_leaf")?;
        let missing_left = table.optional("missing_go_to_left")?;
        let count = lefts.len();
        if count == 0 {
            return Err(Fault::new("a tree without nodes"));
        }
        let child = |node: usize, child: i64| {
            let known = u32::try_from(child)
                .ok()
                .filter(|child| (*child as usize) < count);
            known.ok_or_else(|| Fault(format!("node {node}: child {child} is outside 0..{count}")))
        };
        let mut nodes = Vec::with_capacity(count);
        for node in 0..count {
            let is_leaf = match &leaves {
                Some(leaves) => leaves[node] != 0.0,
                None => lefts[node] == -1,
            };
            if is_leaf {
                nodes.push(Node::Leaf(0.0));
                continue;
            }
            let feature = u32::try_from(features[node]).ok();
            let feature = feature.filter(|feature| (*feature as usize) < self.width);
            let threshold = match precision {
                Precision::F32 => rounded_down(thresholds[node]),
                Precision::F64 => thresholds[node],
            };
            if threshold.is_nan() {
                return Err(Fault(format!("node {node}: the threshold is not a number")));
            }
            nodes.push(Node::Split {
                feature: feature.ok_or_else(|| {
                    Fault(format!(
                        "node {node}: feature {} is outside 0..{}",
                        features[node], self.width
                    ))
                })?,
                threshold,
                default_left: missing_left.as_ref().is_some_and(|left| left[node] != 0.0),
                left: child(node, lefts[node])?,
                right: child(node, rights[node])?,
            });
        }
        shape::check(count, |node| match nodes[node as usize] {
            Node::Leaf(_) => None,
            Node::Split { left, right, .. } => Some([left, right]),
        })?;
        Ok(nodes)
    }
}

/// Records of nodes.
pub(super) struct Table<'p, 'a> {
    pub(super) records: Array<'p, 'a>,
}

impl Table<'_, '_> {
    fn field(&self, name: &str) -> Result<Array<'_, '_>, Fault> {
        let field = self.records.field(name)?;
        field.ok_or_else(|| Fault(format!("`nodes` have no `{name}`")))
    }

    pub(super) fn integers(&self, name: &str) -> Result<Vec<i64>, Fault> {
        self.field(name)?.integers().map_err(named(name))
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Vec<f64>, Fault> {
        self.field(name)?.numbers().map_err(named(name))
    }

    pub(super) fn optional(&self, name: &str) -> Result<Option<Vec<f64>>, Fault> {
        let field = self.records.field(name)?;
        field
            .map(|field| field.numbers().map_err(named(name)))
            .transpose()
    }
}
