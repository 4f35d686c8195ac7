//! What a model file says, whichever of the two formats it has: features, trees, leaves, information.

use std::collections::HashSet;
use std::ops::Range;

use super::ctr::{Ctr, Table};
use super::objective::Loss;
use crate::document::Fault;
use crate::signature::{ClassLabel, Feature, FeatureKind};

/// How many features a model may have.
pub(super) const FEATURES_MAX: usize = 1 << 18;

/// How many numbers a leaf may hold.
pub(super) const OUTPUTS_MAX: usize = 1 << 16;

/// A model as its file tells it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) info: Info,
    pub(super) floats: Vec<FloatFeature>,
    pub(super) categories: Vec<Position>,
    pub(super) one_hots: Vec<OneHotFeature>,
    pub(super) ctrs: Vec<Ctr>,
    /// The counts that they are computed from.
    pub(super) tables: Vec<Table>,
    pub(super) outputs: usize,
    pub(super) trees: Trees,
    /// The numbers of all leaves, those of one leaf together.
    pub(super) leaves: Vec<f64>,
    /// How many training rows, or how much of their weight, came to each leaf. Of another length where the
    /// file does not say.
    pub(super) weights: Vec<f64>,
    pub(super) scale: f64,
    /// One for each output.
    pub(super) biases: Vec<f64>,
}

/// What training noted.
#[derive(Debug, Default)]
pub(super) struct Info {
    pub(super) loss: Option<Loss>,
    pub(super) labels: Vec<ClassLabel>,
    /// The probability from which on the library's `predict` says the second of two classes.
    pub(super) threshold: Option<f64>,
}

/// Why features that are neither numbers nor categories are refused, with what to do.
pub(super) fn refused(what: &str) -> Fault {
    Fault(format!(
        "{what} are not supported; train without `text_features` and `embedding_features`, on numbers and categories \
         that you make of them before training and before each prediction"
    ))
}

/// Where a feature stands and what it is called.
#[derive(Debug)]
pub(super) struct Position {
    /// Among the features of its kind.
    pub(super) index: i32,
    /// In a row.
    pub(super) flat: usize,
    /// Empty if nobody named it.
    pub(super) name: String,
}

impl Position {
    pub(super) fn new(index: i32, flat: i32, name: &str) -> Result<Self, Fault> {
        match usize::try_from(flat) {
            Ok(flat) if flat < FEATURES_MAX => Ok(Self {
                index,
                flat,
                name: name.to_owned(),
            }),
            _ => Err(Fault(format!(
                "feature {flat} is outside 0..{FEATURES_MAX}"
            ))),
        }
    }
}

/// A numeric feature.
#[derive(Debug)]
pub(super) struct FloatFeature {
    pub(super) position: Position,
    /// Ascending.
    pub(super) borders: Vec<f32>,
    /// Whether a missing value is above all borders; otherwise it is below them.
    pub(super) missing_is_above: bool,
}

impl FloatFeature {
    /// `treatment` counts only if training saw missing values: otherwise a missing one is compared as
    /// it is, and so above nothing.
    pub(super) fn new(
        position: Position,
        borders: Vec<f32>,
        has_missing: bool,
        treatment: MissingValues,
    ) -> Result<Self, Fault> {
        check_borders(&borders)?;
        Ok(Self {
            position,
            borders,
            missing_is_above: has_missing && treatment == MissingValues::Above,
        })
    }
}

/// Categories of a feature that trees ask for one by one.
#[derive(Debug)]
pub(super) struct OneHotFeature {
    /// Index among the categorical features.
    pub(super) category: i32,
    /// No two the same.
    pub(super) hashes: Vec<i32>,
}

impl OneHotFeature {
    pub(super) fn new(category: i32, hashes: Vec<i32>) -> Result<Self, Fault> {
        let distinct: HashSet<i32> = hashes.iter().copied().collect();
        match distinct.len() == hashes.len() {
            true => Ok(Self { category, hashes }),
            false => Err(Fault::new("a category is there twice")),
        }
    }
}

/// How the library compares a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingValues {
    Below,
    Above,
}

/// Borders divide the numbers only if they ascend.
pub(super) fn check_borders(borders: &[f32]) -> Result<(), Fault> {
    let ascends = borders.array_windows().all(|[a, b]| a < b);
    match ascends && !borders.iter().any(|border| border.is_nan()) {
        true => Ok(()),
        false => Err(Fault::new("the borders do not ascend")),
    }
}

/// Trees over the splits of the model, which are numbered: the borders of all numeric features come
/// first, in the order of the file, then the categories that are asked for one by one, then the borders of
/// what is computed from counts.
#[derive(Debug)]
pub(super) enum Trees {
    /// All nodes of one level ask the same.
    Symmetric(Vec<Vec<u32>>),
    Asymmetric(Vec<AsymmetricTree>),
}

impl Trees {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Symmetric(trees) => trees.len(),
            Self::Asymmetric(trees) => trees.len(),
        }
    }

    /// Leaves only the trees of a range, and of symmetric ones their leaves.
    pub(super) fn keep(
        &mut self,
        range: Range<usize>,
        leaves: &mut Vec<f64>,
        weights: &mut Vec<f64>,
        outputs: usize,
    ) {
        match self {
            Self::Symmetric(trees) => {
                let count = |trees: &[Vec<u32>]| -> usize {
                    trees.iter().map(|tree| 1 << tree.len()).sum()
                };
                let first = count(&trees[..range.start]);
                let end = first + count(&trees[range.clone()]);
                leaves.truncate(end * outputs);
                leaves.drain(..first * outputs);
                weights.truncate(end);
                weights.drain(..first.min(weights.len()));
                trees.truncate(range.end);
                trees.drain(..range.start);
            }
            Self::Asymmetric(trees) => {
                trees.truncate(range.end);
                trees.drain(..range.start);
            }
        }
    }
}

/// A tree whose nodes ask what they like.
#[derive(Debug)]
pub(super) struct AsymmetricTree {
    /// Each is reached once at most, so that there is no cycle.
    pub(super) nodes: Vec<SplitNode>,
    pub(super) root: Branch,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct SplitNode {
    pub(super) split: u32,
    pub(super) left: Branch,
    pub(super) right: Branch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    Node(u32),
    /// Where its numbers begin among those of all leaves.
    Leaf(u32),
}

impl Parts {
    /// The features in the order of a row, and whether the file names them. Those that the file leaves
    /// out, because no tree asks for them, are numbers.
    pub(super) fn features(&self) -> Result<(Vec<Feature>, bool), Fault> {
        let positions = || {
            let floats = self
                .floats
                .iter()
                .map(|float| (&float.position, FeatureKind::Number));
            let categories = self.categories.iter();
            let kind = FeatureKind::TextOrInteger {
                has_boolean_texts: false,
            };
            floats.chain(categories.map(move |category| (category, kind.clone())))
        };
        let width = positions().map(|(position, _)| position.flat + 1).max();
        let mut features = vec![None; width.unwrap_or(0)];
        let named = positions().any(|(position, _)| !position.name.is_empty());
        for (position, kind) in positions() {
            let name = match position.name.as_str() {
                "" => format!("f{}", position.flat),
                name => name.to_owned(),
            };
            let place = &mut features[position.flat];
            let feature = Feature {
                name,
                // A category that is missing is none of the texts there are.
                takes_missing: !kind.is_text(),
                kind,
            };
            if place.replace(feature).is_some() {
                return Err(Fault(format!("feature {} is there twice", position.flat)));
            }
        }
        let left_out = |index| Feature {
            name: format!("f{index}"),
            kind: FeatureKind::Number,
            takes_missing: true,
        };
        let features = features.into_iter().enumerate();
        let features = features.map(|(index, feature)| feature.unwrap_or_else(|| left_out(index)));
        Ok((features.collect(), named))
    }

    /// Refuses what does not fit together.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let outputs = self.outputs;
        if !(1..=OUTPUTS_MAX).contains(&outputs) {
            return Err(Fault(format!(
                "{outputs} numbers a leaf are outside 1..={OUTPUTS_MAX}"
            )));
        }
        if self.biases.len() != outputs {
            return Err(Fault(format!(
                "{} biases for {outputs} outputs",
                self.biases.len()
            )));
        }
        let is_finite = self.scale.is_finite() && self.biases.iter().all(|bias| bias.is_finite());
        if !is_finite || !self.leaves.iter().all(|leaf| leaf.is_finite()) {
            return Err(Fault::new("a leaf, the scale or a bias is not a number"));
        }
        Ok(())
    }
}
