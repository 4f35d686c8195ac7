//! What each feature added to a margin: Shapley values of sums of trees, exact for the
//! path-dependent game of TreeSHAP (Lundberg et al., "From local explanations to global
//! understanding with explainable AI for trees", 2020).
//!
//! In that game a feature that takes part sends a row down its own side of a split; one that does not
//! sends it down both sides, by the share of training rows (the **cover**) that went there. The
//! contribution of a feature is its mean effect over all orders in which features may join. It is the
//! integral over `p` of its effect if every other feature takes part with probability `p`
//! (Owen, "Multilinear extensions of games", 1972), and inside a tree that is a polynomial of `p`,
//! so that a few Gauss–Legendre points give the exact integral, as in Quadrature-TreeSHAP
//! (arXiv:2605.04497). `tree.rs` says how a tree is walked once for all its splits.
//!
//! This module knows no file format. A loader gives it the trees that it compiles, and their covers
//! beside them.

mod points;
mod sampled;
#[cfg(test)]
mod tests;
mod tree;

use crate::forest::{Node, Rules, Tree};
use crate::signature::Precision;
use crate::{RowRefusal, Rows};
use points::POINTS;
pub(crate) use sampled::{Asked, Background, Compared, predicted};
use std::cell::RefCell;
use std::ops::Range;
use tree::{Scratch, Split};

/// Rows that are walked together.
const LANES: usize = 8;

/// Below this many rows each is walked alone.
const ROWS_TOGETHER_MIN: usize = 3;

/// The largest number of splits in a tree, because the memory for a walk grows with it: to 34 MB.
const SPLITS_MAX: usize = 1 << 17;

/// Rows are walked together if no tree has more splits, for the same reason.
const SPLITS_TOGETHER_MAX: usize = 1 << 14;

/// The deepest tree.
const DEPTH_MAX: usize = 256;

/// A model that can say what each feature added to a prediction.
pub trait Explain {
    /// Margins of a row: the sums that predictions are made from, such as log-odds. One for each
    /// class of a classifier of three or more, one for two classes, else one for each number.
    fn margins(&self) -> usize;

    /// Memory kept for explanations, in bytes.
    fn bytes(&self) -> usize;

    /// How often the model itself is asked to explain one row, at most; 0 where it need not be.
    fn asks(&self) -> usize {
        0
    }

    /// Writes for each row what each feature added to that margin, in the order of the signature, and
    /// then the base value, which is the mean margin of the training rows or of those that rows are compared
    /// with: `features + 1` numbers.
    /// The sum of them is the margin.
    ///
    /// # Errors
    /// If the model has no prediction for a row of valid values. The content of `out` is then
    /// unspecified.
    ///
    /// # Panics
    /// If there is no such margin, or the widths do not match, which is a bug of the caller.
    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal>;
}

/// Why a model does not explain its predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    /// There is no method for this kind of model.
    #[error("there are no explanations for models of this kind")]
    Kind,
    /// [`crate::LoadOptions::explanation_bytes_max`] is 0.
    #[error("the model was loaded without what explanations need")]
    NotAsked,
    /// The file does not have what is needed.
    #[error("the model file does not say how many training rows took each branch of its trees")]
    NoCovers,
    /// The file does not have a typical value of each input, and no rows were given in their place.
    #[error(
        "the model file does not say what to compare rows with: not each input has a typical value in it"
    )]
    NoBackground,
    /// There are more inputs than can be tried.
    #[error(
        "explanations that ask the model take models of at most {} inputs",
        sampled::INPUTS_MAX
    )]
    ManyInputs,
    /// The leaves of LightGBM's linear trees are functions of the features.
    #[error("there are no explanations for linear trees, in LightGBM itself neither")]
    LinearTrees,
    /// It needs more memory than was allowed.
    #[error("its explanations need {needed} bytes of memory, and {allowed} are allowed")]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// A tree is too deep, or has too many splits.
    #[error(
        "explanations take trees of at most {DEPTH_MAX} levels and {SPLITS_MAX} splits, and the model \
         has a larger one"
    )]
    LargeTree,
}

/// Trees in the form they are explained in.
#[derive(Debug)]
pub(crate) struct Explainer {
    /// Trees by output; those of output `i` are `trees[starts[i]..starts[i + 1]]`.
    trees: Vec<Compiled>,
    starts: Vec<usize>,
    splits: Vec<Split>,
    leaves: Vec<f64>,
    players: Players,
    /// Mean margin of each output, without what the loader adds to every row.
    bases: Vec<f64>,
    inputs: Precision,
    /// Memory that the loader keeps.
    beside: usize,
}

/// Where a tree's splits and leaves are, and how many features its longest path asks.
#[derive(Debug)]
struct Compiled {
    splits: Range<usize>,
    leaves: Range<usize>,
    features: usize,
}

/// What an explainer is made from.
pub(crate) struct Sources<'a> {
    pub(crate) trees: &'a [Tree],
    /// For each node of each tree how many training rows, or how much of their weight, came there.
    pub(crate) covers: &'a [Vec<f32>],
    pub(crate) rules: Rules,
    /// How many outputs the trees add to.
    pub(crate) outputs: usize,
    pub(crate) players: Players,
    /// Memory that the loader keeps for explanations alone, in bytes.
    pub(crate) beside: usize,
}

/// Who plays the game: the features of the model, and combinations of them that only take part together.
#[derive(Debug)]
pub(crate) struct Players {
    /// The player behind each column of a row: the model's features, and then the columns that the
    /// loader adds to a row because a split asks something else than a threshold.
    pub(crate) owners: Box<[u32]>,
    /// Features of the model: the first players, and those that get contributions.
    pub(crate) features: usize,
    /// The features of each combination, which share in equal parts what it has added.
    pub(crate) together: Box<[Box<[u32]>]>,
}

impl Players {
    /// Features alone.
    pub(crate) fn alone(owners: Box<[u32]>, features: usize) -> Self {
        Self {
            owners,
            features,
            together: Box::default(),
        }
    }

    fn count(&self) -> usize {
        self.features + self.together.len()
    }

    fn bytes(&self) -> usize {
        let members = self
            .together
            .iter()
            .map(|features| size_of_val(&**features));
        size_of_val(&*self.owners) + size_of_val(&*self.together) + members.sum::<usize>()
    }
}

/// Refuses trees that need more than `bytes_max` with what is kept beside them.
pub(crate) fn check_bytes(
    splits: usize,
    leaves: usize,
    trees: usize,
    beside: usize,
    bytes_max: usize,
) -> Result<(), Unexplained> {
    let needed = splits * size_of::<Split>()
        + leaves * size_of::<f64>()
        + trees * size_of::<Compiled>()
        + beside;
    match needed <= bytes_max {
        true => Ok(()),
        false => Err(Unexplained::TooLarge {
            needed,
            allowed: bytes_max,
        }),
    }
}

impl Explainer {
    /// Keeps what explanations need, in at most `bytes_max`.
    pub(crate) fn new(sources: Sources<'_>, bytes_max: usize) -> Result<Self, Unexplained> {
        if bytes_max == 0 {
            return Err(Unexplained::NotAsked);
        }
        let Sources { trees, covers, .. } = sources;
        assert_eq!(trees.len(), covers.len(), "each tree has its covers");
        let is_cover = |cover: &f32| cover.is_finite() && *cover >= 0.0;
        let is_complete = |(tree, covers): (&Tree, &Vec<f32>)| {
            tree.nodes.len() == covers.len() && covers.iter().all(is_cover)
        };
        if !trees.iter().zip(covers).all(is_complete) {
            return Err(Unexplained::NoCovers);
        }
        let mut order: Vec<usize> = (0..trees.len()).collect();
        order.sort_by_key(|&tree| trees[tree].output);
        let starts = (0..=sources.outputs)
            .map(|output| order.partition_point(|&tree| (trees[tree].output as usize) < output));
        let mut explainer = Self {
            starts: starts.collect(),
            trees: Vec::with_capacity(trees.len()),
            splits: Vec::new(),
            leaves: Vec::new(),
            bases: vec![0.0; sources.outputs],
            inputs: sources.rules.inputs,
            players: sources.players,
            beside: sources.beside,
        };
        explainer.reserve(trees, bytes_max)?;
        for tree in order {
            explainer.push(&trees[tree], &covers[tree], sources.rules)?;
        }
        Ok(explainer)
    }

    /// Takes the memory for all trees at once, if that is allowed.
    fn reserve(&mut self, trees: &[Tree], bytes_max: usize) -> Result<(), Unexplained> {
        let mut splits = 0;
        let mut leaves = 0;
        for tree in trees {
            // Nodes that are not reached are counted too: they are few, or pruning left them.
            let own = tree.nodes.iter().filter(|n| matches!(n, Node::Leaf(_)));
            let own = own.count();
            leaves += own;
            splits += tree.nodes.len() - own;
        }
        let beside = self.players.bytes() + self.beside;
        check_bytes(splits, leaves, trees.len(), beside, bytes_max)?;
        self.splits.reserve_exact(splits);
        self.leaves.reserve_exact(leaves);
        Ok(())
    }

    fn push(&mut self, tree: &Tree, covers: &[f32], rules: Rules) -> Result<(), Unexplained> {
        let (splits, leaves) = (self.splits.len(), self.leaves.len());
        let source = tree::Source {
            tree,
            covers,
            rules,
            owners: &self.players.owners,
        };
        let features = source.append(&mut self.splits, &mut self.leaves)?;
        let compiled = Compiled {
            splits: splits..self.splits.len(),
            leaves: leaves..self.leaves.len(),
            features,
        };
        let own = &self.splits[compiled.splits.clone()];
        self.bases[tree.output as usize] += tree::mean(own, &self.leaves[compiled.leaves.clone()]);
        self.trees.push(compiled);
        Ok(())
    }

    /// Memory that is kept, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.splits.capacity() * size_of::<Split>()
            + self.leaves.capacity() * size_of::<f64>()
            + self.trees.capacity() * size_of::<Compiled>()
            + self.players.bytes()
            + self.beside
    }

    /// Writes the contributions of each feature to an output, and after those of each row the base
    /// value. Rows have all columns.
    ///
    /// # Panics
    /// If `out` does not have `features + 1` numbers for each row, or there is no such output.
    pub(crate) fn contributions(&self, rows: Rows<'_>, output: usize, out: &mut [f64]) {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        let width = self.players.features + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        let largest = self.trees.iter().map(|tree| tree.splits.len()).max();
        let together_min = match largest {
            Some(SPLITS_TOGETHER_MAX..) => usize::MAX,
            _ => ROWS_TOGETHER_MIN,
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let mut next = 0;
            while next < rows.len() {
                let left = rows.len() - next;
                let count = if left < together_min {
                    1
                } else {
                    LANES.min(left)
                };
                let out = &mut out[next * width..][..count * width];
                let rows = rows.slice(next..next + count);
                match count {
                    1 => self.explain::<1>(rows, output, scratch, out),
                    _ => self.explain::<LANES>(rows, output, scratch, out),
                }
                next += count;
            }
            scratch.shrink();
        });
    }

    /// Explains at most `L` rows.
    fn explain<const L: usize>(
        &self,
        rows: Rows<'_>,
        output: usize,
        scratch: &mut Scratch,
        out: &mut [f64],
    ) {
        let Players {
            owners,
            features,
            together,
        } = &self.players;
        let mut values = std::mem::take(&mut scratch.values);
        let mut sums = std::mem::take(&mut scratch.sums);
        values.clear();
        for column in 0..owners.len() {
            // Lanes without a row repeat the last one.
            let lane = |lane: usize| rows.row(lane.min(rows.len() - 1))[column];
            values.extend((0..L).map(lane).map(|value| match self.inputs {
                Precision::F32 => f64::from(value as f32),
                Precision::F64 => value,
            }));
        }
        sums.clear();
        sums.resize(self.players.count() * L, 0.0);
        {
            let values = values.as_chunks::<L>().0;
            let sums = sums.as_chunks_mut::<L>().0;
            for tree in &self.trees[self.starts[output]..self.starts[output + 1]] {
                let walk = tree::Walk {
                    splits: &self.splits[tree.splits.clone()],
                    leaves: &self.leaves[tree.leaves.clone()],
                    owners,
                    values,
                };
                // Polynomials of degree `features - 1`; n points are exact up to degree 2n - 1.
                match tree.features {
                    0 => {}
                    1..=4 => walk.add(&POINTS.two, scratch, sums),
                    5..=6 => walk.add(&POINTS.three, scratch, sums),
                    7..=8 => walk.add(&POINTS.four, scratch, sums),
                    9..=16 => walk.add(&POINTS.eight, scratch, sums),
                    // Exact up to 32 features on a path, and beyond to more digits than are asked for.
                    _ => walk.add(&POINTS.sixteen, scratch, sums),
                }
            }
            for (lane, out) in out.chunks_exact_mut(features + 1).enumerate() {
                let (base, contributions) = out.split_last_mut().expect("a base value");
                *base = self.bases[output];
                for (contribution, sums) in contributions.iter_mut().zip(&*sums) {
                    *contribution = sums[lane];
                }
                for (own, sums) in together.iter().zip(&sums[*features..]) {
                    let share = sums[lane] / own.len() as f64;
                    own.iter()
                        .for_each(|feature| contributions[*feature as usize] += share);
                }
            }
        }
        (scratch.values, scratch.sums) = (values, sums);
    }
}
