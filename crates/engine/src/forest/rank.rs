//! From feature values to ranks.

use super::blocks::{Blocks, Place};
use super::kernel::NodeWord;
use super::{Node, Rules, TooLarge, Tree};
use crate::signature::Precision;

/// The most thresholds whose ranks, from none to all of them, are a byte.
const CHUNK: u32 = 255;

/// The rank of a value in one chunk of its feature's thresholds, less 128, from that in all.
#[inline]
fn byte_of_rank(rank: u32, chunk: u32) -> i8 {
    let inside = rank.saturating_sub(chunk * CHUNK).min(CHUNK);
    (inside as u8 ^ 0x80) as i8
}

/// The distinct thresholds of every feature that trees ask about, and where its rank goes.
#[derive(Debug)]
pub(super) struct Ranker {
    features: Vec<RankedFeature>,
    thresholds: Thresholds,
    /// Whether a value that equals a threshold goes left.
    equal_goes_left: bool,
    slots: usize,
    byte_slots: usize,
}

/// The thresholds of all features, each in a list of its own, in the precision they are compared in.
#[derive(Debug)]
enum Thresholds {
    F32(Blocks<f32>),
    F64(Blocks<f64>),
}

/// A feature some node asks about.
#[derive(Debug)]
struct RankedFeature {
    feature: u32,
    /// Its thresholds, ascending.
    place: Place,
    thresholds: u32,
    /// Pieces of them that a byte counts; each has a slot for bytes.
    chunks: u32,
    /// Slot of the nodes that send a missing value left; the same as `right` if all or none do.
    left: u32,
    /// Slot of the nodes that send a missing value right.
    right: u32,
    /// Rank of a missing value in slot `left`; in another slot `right` it is the highest.
    missing: u32,
    /// The first slots for bytes that replace `left` and `right`.
    byte_left: u32,
    byte_right: u32,
}

impl Ranker {
    pub(super) fn new(trees: &[Tree], rules: Rules) -> Result<Self, TooLarge> {
        let mut splits: Vec<(u32, f64, bool)> = Vec::new();
        for node in trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Split {
                feature,
                threshold,
                default_left,
                ..
            } = *node
            {
                debug_assert!((feature as usize) < rules.width && !threshold.is_nan());
                splits.push((feature, threshold, default_left));
            }
        }
        if u32::try_from(splits.len()).is_err() {
            return Err(TooLarge("more than 4 billion splits"));
        }
        splits.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut ranker = Self {
            features: Vec::new(),
            thresholds: match rules.inputs {
                Precision::F32 => Thresholds::F32(Blocks::new()),
                Precision::F64 => Thresholds::F64(Blocks::new()),
            },
            equal_goes_left: rules.equal_goes_left,
            slots: 0,
            byte_slots: 0,
        };
        for group in splits.chunk_by(|a, b| a.0 == b.0) {
            ranker.push(group);
        }
        Ok(ranker)
    }

    /// Adds a feature from its splits, ascending by threshold.
    fn push(&mut self, splits: &[(u32, f64, bool)]) {
        // -0.0 and 0.0 stand side by side and are the same threshold.
        let thresholds = splits.chunk_by(|a, b| a.1 == b.1).map(|group| group[0].1);
        let thresholds: Vec<f64> = thresholds.collect();
        // No value is below, above or equal to `NaN`.
        let place = match &mut self.thresholds {
            Thresholds::F32(blocks) => {
                let thresholds: Vec<f32> = thresholds.iter().map(|t| *t as f32).collect();
                blocks.push(&thresholds, f32::NAN)
            }
            Thresholds::F64(blocks) => blocks.push(&thresholds, f64::NAN),
        };
        let count = thresholds.len() as u32;
        let any_left = splits.iter().any(|split| split.2);
        let any_right = splits.iter().any(|split| !split.2);
        let left = self.slots as u32;
        let right = left + u32::from(any_left && any_right);
        let missing = if any_left { 0 } else { count };
        let chunks = count.div_ceil(CHUNK);
        let byte_left = self.byte_slots as u32;
        let byte_right = byte_left + (right - left) * chunks;
        self.features.push(RankedFeature {
            feature: splits[0].0,
            place,
            thresholds: count,
            chunks,
            left,
            right,
            missing,
            byte_left,
            byte_right,
        });
        self.slots = right as usize + 1;
        self.byte_slots = (byte_right + chunks) as usize;
    }

    /// Ranks a row has.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// Ranks a row has if they are bytes.
    pub(super) fn byte_slots(&self) -> usize {
        self.byte_slots
    }

    /// The highest rank of any feature.
    pub(super) fn rank_max(&self) -> u32 {
        self.features
            .iter()
            .map(|ranked| ranked.thresholds)
            .max()
            .unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let thresholds = match &self.thresholds {
            Thresholds::F32(blocks) => blocks.bytes(),
            Thresholds::F64(blocks) => blocks.bytes(),
        };
        size_of_val(&self.features[..]) + thresholds
    }

    /// Slot and rank of a split's threshold.
    pub(super) fn locate(&self, feature: u32, threshold: f64, default_left: bool) -> (u32, u32) {
        let (ranked, slot, rank) = self.find(feature, threshold, default_left);
        debug_assert!(rank < ranked.thresholds);
        (slot, rank)
    }

    /// The same for bytes: slot, and what a rank in it must exceed to go right.
    pub(super) fn locate_byte(
        &self,
        feature: u32,
        threshold: f64,
        default_left: bool,
    ) -> (u32, i8) {
        let (ranked, slot, rank) = self.find(feature, threshold, default_left);
        let chunk = rank / CHUNK;
        let first = if slot == ranked.left {
            ranked.byte_left
        } else {
            ranked.byte_right
        };
        (first + chunk, byte_of_rank(rank, chunk))
    }

    fn find(&self, feature: u32, threshold: f64, default_left: bool) -> (&RankedFeature, u32, u32) {
        let index = self
            .features
            .partition_point(|ranked| ranked.feature < feature);
        let ranked = &self.features[index];
        let slot = if default_left {
            ranked.left
        } else {
            ranked.right
        };
        let rank = match &self.thresholds {
            Thresholds::F32(blocks) => blocks.count(ranked.place, |t| f64::from(t) < threshold),
            Thresholds::F64(blocks) => blocks.count(ranked.place, |t| t < threshold),
        };
        (ranked, slot, rank)
    }

    /// Writes the ranks of a row's values, one per slot.
    pub(super) fn rank<N: NodeWord>(&self, row: &[f64], ranks: &mut [N::Rank]) {
        self.rank_each(row, |ranked, left, right| {
            // In this order, because `left` decides if the two are one slot.
            ranks[ranked.right as usize] = N::rank(right);
            ranks[ranked.left as usize] = N::rank(left);
        });
    }

    /// Writes the ranks of a row's values as bytes, one per slot for bytes.
    #[inline(always)]
    pub(super) fn rank_bytes(&self, row: &[f64], ranks: &mut [i8]) {
        self.rank_each(row, |ranked, left, right| {
            // In this order, as above.
            for (first, rank) in [(ranked.byte_right, right), (ranked.byte_left, left)] {
                ranks[first as usize] = byte_of_rank(rank, 0);
                for chunk in 1..ranked.chunks {
                    ranks[(first + chunk) as usize] = byte_of_rank(rank, chunk);
                }
            }
        });
    }

    /// Calls `write` with each feature and the ranks of its value in its slots `left` and `right`.
    #[inline(always)]
    fn rank_each(&self, row: &[f64], write: impl FnMut(&RankedFeature, u32, u32)) {
        match (&self.thresholds, self.equal_goes_left) {
            (Thresholds::F32(thresholds), false) => {
                self.rank_with(thresholds, row, write, |x| x as f32, |t, x| t <= x);
            }
            (Thresholds::F32(thresholds), true) => {
                self.rank_with(thresholds, row, write, |x| x as f32, |t, x| t < x);
            }
            (Thresholds::F64(thresholds), false) => {
                self.rank_with(thresholds, row, write, |x| x, |t, x| t <= x);
            }
            (Thresholds::F64(thresholds), true) => {
                self.rank_with(thresholds, row, write, |x| x, |t, x| t < x);
            }
        }
    }

    /// [`Ranker::rank_each`] in one precision; `is_passed` says whether a value goes right at a
    /// threshold.
    #[inline(always)]
    fn rank_with<T: Copy>(
        &self,
        thresholds: &Blocks<T>,
        row: &[f64],
        mut write: impl FnMut(&RankedFeature, u32, u32),
        round: impl Fn(f64) -> T,
        is_passed: impl Fn(T, T) -> bool,
    ) {
        for ranked in &self.features {
            let value = row[ranked.feature as usize];
            let (left, right) = if value.is_nan() {
                (ranked.missing, ranked.thresholds)
            } else {
                let value = round(value);
                let rank = thresholds.count(ranked.place, |t| is_passed(t, value));
                (rank, rank)
            };
            write(ranked, left, right);
        }
    }
}
