//! One tree: its splits in the order of their levels, and the walk that explains it.
//!
//! Let every feature take part with probability `p`, independently. The share of a row that a split
//! sends left is then `m = (1 - p)·r + p·h`, with `r` the share of the training rows that went left and
//! `h` 1 if the row itself goes left, else 0. With `c` the share that arrives at the split, and `d` the
//! expected value of its left side less that of its right side, the split's feature adds
//! `(h - r)·∫ c·d dp`. A pass down computes `m` and `c`, a pass up `d`, both at all points of the
//! quadrature at once.
//!
//! If the feature has been asked before on the path, whether it takes part is known in part. Let `z` be
//! the product of the training shares at its earlier splits along the path. If the row itself comes this
//! way, the feature takes part with probability `p / (p + (1 - p)·z)`, from which
//! `m = ((1 - p)·z·r + p·h) / (p + (1 - p)·z)` and an effect of `z·(h - r)·∫ c·d / (p + (1 - p)·z)² dp`
//! follow. If the row itself does not come this way, the feature does not take part: `m = r`, and no
//! effect that its earlier splits have not counted.

use super::points::Rule;
use super::{DEPTH_MAX, SPLITS_MAX, Unexplained};
use crate::forest::{Node, Rules, Tree};
use std::collections::VecDeque;

/// Marks a child that is a leaf.
const LEAF: u32 = 1 << 31;
/// Marks a column whose missing values go left here.
const MISSING_LEFT: u32 = 1 << 31;
/// No earlier split of the same feature.
const FIRST: u32 = u32::MAX;
/// Marks an earlier split whose right side this one is on.
const RIGHT: u32 = 1 << 31;
/// Marks an earlier split that has an earlier one itself.
const AGAIN: u32 = 1 << 30;
/// Memory for a walk that is kept for the next one, in numbers.
const SCRATCH_MAX: usize = 1 << 17;

#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    /// What is not from here on goes left, which is everything for NaN.
    threshold: f64,
    /// Share of the training rows that went left.
    ratio: f32,
    /// Product of the shares at earlier splits of the same feature.
    before_share: f32,
    /// Column, and [`MISSING_LEFT`].
    column: u32,
    /// The nearest earlier split of the same feature, with [`RIGHT`] and [`AGAIN`], or [`FIRST`].
    before: u32,
    /// Places in the tree of the splits, or of leaves with [`LEAF`].
    left: u32,
    right: u32,
}

/// A tree as its loader gives it.
pub(super) struct Source<'a> {
    pub(super) tree: &'a Tree,
    /// One for each node.
    pub(super) covers: &'a [f32],
    pub(super) rules: Rules,
    /// The feature behind each column.
    pub(super) owners: &'a [u32],
}

/// The split above and whether this is its right side, or `None` for the root.
type Above = Option<(u32, bool)>;

/// What is known of a split while its tree is appended.
struct Known {
    above: Above,
    depth: usize,
    /// Features asked so far on the path.
    features: usize,
}

impl Source<'_> {
    /// Appends the tree level by level; returns how many features the longest path asks.
    pub(super) fn append(
        &self,
        splits: &mut Vec<Split>,
        leaves: &mut Vec<f64>,
    ) -> Result<usize, Unexplained> {
        let (first_split, first_leaf) = (splits.len(), leaves.len());
        let mut known: Vec<Known> = Vec::new();
        let mut waiting: VecDeque<(u32, Above)> = VecDeque::from([(0, None)]);
        while let Some((node, above)) = waiting.pop_front() {
            let place = match self.tree.nodes[node as usize] {
                Node::Leaf(value) => {
                    leaves.push(value);
                    (leaves.len() - 1 - first_leaf) as u32 | LEAF
                }
                Node::Split { left, right, .. } => {
                    let place = known.len() as u32;
                    let split = self.split(node, above, &splits[first_split..], &known);
                    let up = above.map(|(up, _)| &known[up as usize]);
                    known.push(Known {
                        above,
                        depth: up.map_or(1, |up| up.depth + 1),
                        features: up.map_or(0, |up| up.features)
                            + usize::from(split.before == FIRST),
                    });
                    if known[place as usize].depth > DEPTH_MAX || known.len() > SPLITS_MAX {
                        return Err(Unexplained::LargeTree);
                    }
                    splits.push(split);
                    waiting.push_back((left, Some((place, false))));
                    waiting.push_back((right, Some((place, true))));
                    place
                }
            };
            match above {
                Some((up, false)) => splits[first_split + up as usize].left = place,
                Some((up, true)) => splits[first_split + up as usize].right = place,
                None => {}
            }
        }
        Ok(known.iter().map(|known| known.features).max().unwrap_or(0))
    }

    /// A split, without its children.
    fn split(&self, node: u32, above: Above, own: &[Split], known: &[Known]) -> Split {
        let Node::Split {
            feature,
            threshold,
            default_left,
            left,
            right,
        } = self.tree.nodes[node as usize]
        else {
            unreachable!("the caller has looked")
        };
        let (before, before_share) = self.earlier(feature, above, own, known);
        Split {
            threshold: match self.rules.equal_goes_left {
                // Nothing is above it.
                true if threshold == f64::INFINITY => f64::NAN,
                // `x <= t` is `x < u` for the number after `t`.
                true => threshold.next_up(),
                false => threshold,
            },
            ratio: ratio(self.covers[left as usize], self.covers[right as usize]),
            before_share,
            column: feature | if default_left { MISSING_LEFT } else { 0 },
            before,
            left: 0,
            right: 0,
        }
    }

    /// The nearest split of the same feature above, and the product of shares there and further up.
    fn earlier(&self, column: u32, mut above: Above, own: &[Split], known: &[Known]) -> (u32, f32) {
        let owner = self.owners[column as usize];
        while let Some((up, is_right)) = above {
            let split = &own[up as usize];
            if self.owners[split.column()] == owner {
                let again = if split.before == FIRST { 0 } else { AGAIN };
                let (side, share) = match is_right {
                    true => (RIGHT, 1.0 - split.ratio),
                    false => (0, split.ratio),
                };
                return (up | again | side, split.before_share * share);
            }
            above = known[up as usize].above;
        }
        (FIRST, 1.0)
    }
}

impl Split {
    fn column(&self) -> usize {
        (self.column & !MISSING_LEFT) as usize
    }
}

/// Share of the left side. Where no training row came at all, both sides are as good.
fn ratio(left: f32, right: f32) -> f32 {
    let all = f64::from(left) + f64::from(right);
    if all > 0.0 {
        (f64::from(left) / all) as f32
    } else {
        0.5
    }
}

/// The mean of a tree over its training rows.
pub(super) fn mean(splits: &[Split], leaves: &[f64]) -> f64 {
    let mut means = vec![0.0; splits.len()];
    let value = |child: u32, means: &[f64]| match child & LEAF {
        0 => means[child as usize],
        _ => leaves[(child & !LEAF) as usize],
    };
    for (place, split) in splits.iter().enumerate().rev() {
        let (left, right) = (value(split.left, &means), value(split.right, &means));
        means[place] = right + f64::from(split.ratio) * (left - right);
    }
    means.first().copied().unwrap_or_else(|| leaves[0])
}

/// Memory that is used again for the next tree and row.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Values of the rows by column.
    pub(super) values: Vec<f64>,
    /// Contributions by feature.
    pub(super) sums: Vec<f64>,
    arriving: Vec<f64>,
    lefts: Vec<f64>,
    hots: Vec<f64>,
    ons: Vec<f64>,
}

impl Scratch {
    /// Gives back what an unusually large tree needed.
    pub(super) fn shrink(&mut self) {
        let Self {
            values,
            sums,
            arriving,
            lefts,
            hots,
            ons,
        } = self;
        for buffer in [values, sums, arriving, lefts, hots, ons] {
            if buffer.capacity() > SCRATCH_MAX {
                *buffer = Vec::new();
            }
        }
    }
}

/// A tree and the rows that are explained.
pub(super) struct Walk<'a, const L: usize> {
    pub(super) splits: &'a [Split],
    pub(super) leaves: &'a [f64],
    pub(super) owners: &'a [u32],
    pub(super) values: &'a [[f64; L]],
}

/// A number for each point and row.
type Block<const N: usize, const L: usize> = [[f64; L]; N];

/// The first lanes of a buffer.
fn lanes<const L: usize>(buffer: &mut Vec<f64>, count: usize) -> &mut [[f64; L]] {
    if buffer.len() < count * L {
        buffer.resize(count * L, 0.0);
    }
    buffer[..count * L].as_chunks_mut().0
}

/// What a walk knows of each split.
struct Memory<'s, const N: usize, const L: usize> {
    /// On the way down what arrives, times the weight of the point; on the way up the expected value.
    arriving: &'s mut [Block<N, L>],
    /// Share that goes left.
    lefts: &'s mut [Block<N, L>],
    /// 1 where the row itself goes left, else 0.
    hots: &'s mut [[f64; L]],
    /// 1 where the row itself came this way at the earlier splits of the feature, else 0. Only for splits
    /// that have an earlier one.
    ons: &'s mut [[f64; L]],
}

impl<const L: usize> Walk<'_, L> {
    /// Adds what each feature adds to this tree's value.
    pub(super) fn add<const N: usize>(
        &self,
        rule: &Rule<N>,
        scratch: &mut Scratch,
        sums: &mut [[f64; L]],
    ) {
        let count = self.splits.len();
        let mut memory = Memory {
            arriving: lanes(&mut scratch.arriving, count * N).as_chunks_mut().0,
            lefts: lanes(&mut scratch.lefts, count * N).as_chunks_mut().0,
            hots: lanes(&mut scratch.hots, count),
            ons: lanes(&mut scratch.ons, count),
        };
        self.descend(rule, &mut memory);
        self.ascend(&mut memory, sums);
    }

    #[inline(always)]
    fn descend<const N: usize>(&self, rule: &Rule<N>, memory: &mut Memory<'_, N, L>) {
        memory.arriving[0] = rule.weights.map(|weight| [weight; L]);
        for (place, split) in self.splits.iter().enumerate() {
            let hot = self.goes_left(split);
            memory.hots[place] = hot;
            let arriving = memory.arriving[place];
            let ratio = f64::from(split.ratio);
            let mut left = [[0.0; L]; N];
            if split.before == FIRST {
                for (left, p) in left.iter_mut().zip(rule.points) {
                    *left = hot.map(|hot| (1.0 - p) * ratio + p * hot);
                }
            } else {
                let on = memory.came_this_way(split.before);
                memory.ons[place] = on;
                let z = f64::from(split.before_share);
                for (k, p) in rule.points.into_iter().enumerate() {
                    let q = 1.0 / (p + (1.0 - p) * z);
                    let (cold, warm) = ((1.0 - p) * z * ratio * q, p * q);
                    for lane in 0..L {
                        let asked = cold + warm * hot[lane];
                        left[k][lane] = if on[lane] == 1.0 { asked } else { ratio };
                        memory.arriving[place][k][lane] = arriving[k][lane] * q * q;
                    }
                }
            }
            memory.lefts[place] = left;
            let mut down = [[0.0; L]; N];
            for (down, (arriving, left)) in down.iter_mut().zip(arriving.iter().zip(&left)) {
                for lane in 0..L {
                    down[lane] = arriving[lane] * left[lane];
                }
            }
            if split.left & LEAF == 0 {
                memory.arriving[split.left as usize] = down;
            }
            if split.right & LEAF == 0 {
                for (down, arriving) in down.iter_mut().zip(&arriving) {
                    for lane in 0..L {
                        down[lane] = arriving[lane] - down[lane];
                    }
                }
                memory.arriving[split.right as usize] = down;
            }
        }
    }

    #[inline(always)]
    fn goes_left(&self, split: &Split) -> [f64; L] {
        let values = &self.values[split.column()];
        let missing_left = split.column & MISSING_LEFT != 0;
        values.map(|value| {
            #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "the threshold may be NaN")]
            let left = !(value >= split.threshold) & (missing_left | !value.is_nan());
            f64::from(u8::from(left))
        })
    }

    #[inline(always)]
    fn ascend<const N: usize>(&self, memory: &mut Memory<'_, N, L>, sums: &mut [[f64; L]]) {
        for (place, split) in self.splits.iter().enumerate().rev() {
            let left = self.expected(split.left, memory);
            let right = self.expected(split.right, memory);
            let arriving = &mut memory.arriving[place];
            let lefts = &memory.lefts[place];
            let mut effect = [0.0; L];
            for k in 0..N {
                for lane in 0..L {
                    let difference = left[k][lane] - right[k][lane];
                    effect[lane] += arriving[k][lane] * difference;
                    arriving[k][lane] = right[k][lane] + lefts[k][lane] * difference;
                }
            }
            let hot = memory.hots[place];
            let ratio = f64::from(split.ratio);
            let owner = self.owners[split.column()];
            let sums = &mut sums[owner as usize];
            if split.before == FIRST {
                for lane in 0..L {
                    sums[lane] += (hot[lane] - ratio) * effect[lane];
                }
            } else {
                let on = memory.ons[place];
                let z = f64::from(split.before_share);
                for lane in 0..L {
                    sums[lane] += on[lane] * z * (hot[lane] - ratio) * effect[lane];
                }
            }
        }
    }

    /// The expected value of a child.
    #[inline(always)]
    fn expected<const N: usize>(&self, child: u32, memory: &Memory<'_, N, L>) -> Block<N, L> {
        match child & LEAF {
            0 => memory.arriving[child as usize],
            _ => [[self.leaves[(child & !LEAF) as usize]; L]; N],
        }
    }
}

impl<const N: usize, const L: usize> Memory<'_, N, L> {
    /// 1 where the row itself came down an earlier split's side, and down those before it.
    #[inline(always)]
    fn came_this_way(&self, before: u32) -> [f64; L] {
        let place = (before & !(RIGHT | AGAIN)) as usize;
        let mut on = self.hots[place];
        if before & RIGHT != 0 {
            on = on.map(|hot| 1.0 - hot);
        }
        if before & AGAIN != 0 {
            for (on, earlier) in on.iter_mut().zip(self.ons[place]) {
                *on *= earlier;
            }
        }
        on
    }
}
