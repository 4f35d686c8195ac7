//! From feature values to ranks.

use super::kernel::NodeWord;
use super::{Node, Tree};
use crate::document::Fault;

/// The distinct thresholds of every feature that trees ask about, and where its rank goes.
#[derive(Debug)]
pub(super) struct Ranker {
    features: Vec<RankedFeature>,
    thresholds: Vec<f32>,
    slots: usize,
}

/// A feature some node asks about.
#[derive(Debug)]
struct RankedFeature {
    feature: u32,
    /// Its thresholds are `thresholds[start..end]`, ascending.
    start: u32,
    end: u32,
    /// Slot of the nodes that send a missing value left; equal to `right` if all do or none does.
    left: u32,
    /// Slot of the nodes that send a missing value right.
    right: u32,
    /// Rank of a missing value in slot `left`; in another slot `right` it is the highest.
    missing: u32,
}

impl RankedFeature {
    fn thresholds(&self) -> u32 {
        self.end - self.start
    }
}

impl Ranker {
    pub(super) fn new(trees: &[Tree], width: usize) -> Result<Self, Fault> {
        let mut splits: Vec<(u32, f32, bool)> = Vec::new();
        for node in trees.iter().flat_map(|tree| &tree.nodes) {
            if let Node::Split {
                feature,
                threshold,
                default_left,
                ..
            } = *node
            {
                debug_assert!((feature as usize) < width && !threshold.is_nan());
                splits.push((feature, threshold, default_left));
            }
        }
        if u32::try_from(splits.len()).is_err() {
            return Err(Fault::new(
                "the model is too large: more than 4 billion splits",
            ));
        }
        splits.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut ranker = Self {
            features: Vec::new(),
            thresholds: Vec::new(),
            slots: 0,
        };
        for group in splits.chunk_by(|a, b| a.0 == b.0) {
            ranker.push(group);
        }
        Ok(ranker)
    }

    /// Adds a feature from its splits, ascending by threshold.
    fn push(&mut self, splits: &[(u32, f32, bool)]) {
        let start = self.thresholds.len() as u32;
        self.thresholds.extend(splits.iter().map(|split| split.1));
        // -0.0 and 0.0 stand side by side and are the same threshold.
        let mut kept = start as usize;
        for index in start as usize..self.thresholds.len() {
            if index == start as usize || self.thresholds[index] != self.thresholds[kept - 1] {
                self.thresholds[kept] = self.thresholds[index];
                kept += 1;
            }
        }
        self.thresholds.truncate(kept);
        let end = kept as u32;
        let any_left = splits.iter().any(|split| split.2);
        let any_right = splits.iter().any(|split| !split.2);
        let left = self.slots as u32;
        let right = left + u32::from(any_left && any_right);
        let missing = if any_left { 0 } else { end - start };
        self.features.push(RankedFeature {
            feature: splits[0].0,
            start,
            end,
            left,
            right,
            missing,
        });
        self.slots = right as usize + 1;
    }

    /// Ranks a row has.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// The highest rank of any feature.
    pub(super) fn rank_max(&self) -> u32 {
        self.features
            .iter()
            .map(RankedFeature::thresholds)
            .max()
            .unwrap_or(0)
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.features[..]) + size_of_val(&self.thresholds[..])
    }

    /// Slot and rank of a split's threshold.
    pub(super) fn locate(&self, feature: u32, threshold: f32, default_left: bool) -> (u32, u32) {
        let index = self
            .features
            .partition_point(|ranked| ranked.feature < feature);
        let ranked = &self.features[index];
        let slot = if default_left {
            ranked.left
        } else {
            ranked.right
        };
        let thresholds = &self.thresholds[ranked.start as usize..ranked.end as usize];
        (slot, count(thresholds, |t| t < threshold))
    }

    /// Writes the ranks of a row's values, one a slot.
    pub(super) fn rank<N: NodeWord>(&self, row: &[f64], ranks: &mut [N::Rank]) {
        for ranked in &self.features {
            let value = row[ranked.feature as usize] as f32;
            let (left, right) = if value.is_nan() {
                (ranked.missing, ranked.thresholds())
            } else {
                let thresholds = &self.thresholds[ranked.start as usize..ranked.end as usize];
                let rank = count(thresholds, |t| t <= value);
                (rank, rank)
            };
            // In this order, for `left` decides where the two are one slot.
            ranks[ranked.right as usize] = N::rank(right);
            ranks[ranked.left as usize] = N::rank(left);
        }
    }
}

/// How many of the ascending thresholds satisfy a condition that the first ones do.
fn count(thresholds: &[f32], condition: impl Fn(f32) -> bool) -> u32 {
    thresholds.partition_point(|t| condition(*t)) as u32
}
