//! What the leaves of symmetric trees say of the features: every row that reaches a leaf gives the same answers to the
//! tree's questions, so its contributions are the same too and are computed once, when the model is loaded.

use std::ops::Range;

use super::asymmetric;
use super::explain::cover_all;
use super::parts::Parts;
use super::splits::Splits;
use super::symmetric::Symmetric;
use crate::Rows;
use crate::explain::{Explainer, Players, Sources};
use crate::forest::{Node, Tree};

/// Pairs of leaves of the same tree; a walk for each leaf visits all others. It bounds the time for loading to
/// some tenths of a second.
const PAIRS_MAX: usize = 1 << 26;

/// The contributions of all leaves of all trees.
#[derive(Debug)]
pub(super) struct Tables {
    trees: Vec<Table>,
    /// The features of all trees, each tree's from the first to the last.
    features: Vec<u32>,
    /// What each adds: tree by tree, output by output, leaf by leaf.
    values: Vec<f64>,
    /// Mean of all trees for each output.
    bases: Vec<f64>,
}

#[derive(Debug)]
struct Table {
    features: Range<usize>,
    /// Where its values begin.
    first: usize,
    leaves: usize,
}

impl Tables {
    /// Those of trees that take at most `bytes_max` and not too much time; else none.
    pub(super) fn new(
        trees: &[Vec<u32>],
        parts: &Parts,
        splits: &Splits,
        players: &Players,
        bytes_max: usize,
    ) -> Option<Self> {
        let mut pairs = 0usize;
        for tree in trees {
            let of_tree = 1usize.checked_shl(2 * tree.len() as u32)?;
            pairs = pairs.checked_add(of_tree.checked_mul(parts.outputs)?)?;
        }
        if pairs > PAIRS_MAX {
            return None;
        }
        let mut tables = Self {
            trees: Vec::with_capacity(trees.len()),
            features: Vec::new(),
            values: Vec::new(),
            bases: vec![0.0; parts.outputs],
        };
        let mut leaf = 0;
        for levels in trees {
            let columns = levels.iter().map(|level| splits.get(*level));
            let columns = columns.map(|split| split.map(|split| split.column));
            let own = OwnPlayers::new(columns.collect::<Result<_, _>>().ok()?, players);
            let count = 1 << levels.len();
            tables.trees.push(Table {
                features: tables.features.len()..tables.features.len() + own.features.len(),
                first: tables.values.len(),
                leaves: count,
            });
            tables.features.extend(&own.features);
            // Before the values, so that what a file claims is not taken.
            let more = count * own.features.len() * parts.outputs;
            if tables.bytes() + more * size_of::<f64>() > bytes_max {
                return None;
            }
            tables.values.reserve(more);
            let weights = cover_all(&parts.weights[leaf..leaf + count]);
            let leaves = &parts.leaves[leaf * parts.outputs..][..count * parts.outputs];
            tables.push(&own, levels.len(), &weights, leaves)?;
            leaf += count;
        }
        tables.features.shrink_to_fit();
        tables.values.shrink_to_fit();
        Some(tables)
    }

    /// Computes the values of a tree: a row for each leaf, with the bits of its number as the answers.
    fn push(
        &mut self,
        own: &OwnPlayers,
        depth: usize,
        weights: &[f32],
        leaves: &[f64],
    ) -> Option<()> {
        let outputs = self.bases.len();
        let count = 1usize << depth;
        // Rows of a tree without levels have a value too.
        let width = depth.max(1);
        let nodes = (0..depth).flat_map(|above| {
            let first = (1 << above) - 1;
            // The highest bit is asked first.
            (first..2 * first + 1).map(move |node: u32| Node::Split {
                feature: (depth - 1 - above) as u32,
                threshold: 0.5,
                default_left: false,
                left: 2 * node + 1,
                right: 2 * node + 2,
            })
        });
        let nodes: Vec<Node> = nodes.collect();
        let tree = |output: usize| {
            let leaves = leaves[output..].iter().step_by(outputs);
            let leaves = leaves.map(|leaf| Node::Leaf(*leaf));
            Tree {
                nodes: nodes.iter().cloned().chain(leaves).collect(),
                output: output as u32,
            }
        };
        let trees: Vec<Tree> = (0..outputs).map(tree).collect();
        let sources = Sources {
            trees: &trees,
            covers: &vec![weights.to_vec(); outputs],
            rules: asymmetric::rules(width),
            outputs,
            players: Players {
                owners: own.owners.clone().into(),
                features: own.features.len(),
                together: own.together.clone().into(),
            },
            beside: 0,
        };
        let explainer = Explainer::new(sources, usize::MAX).ok()?;
        let bits = (0..count).flat_map(|leaf| (0..width).map(move |level| leaf >> level & 1));
        let bits: Vec<f64> = bits.map(|bit| bit as f64).collect();
        let mut out = vec![0.0; count * (own.features.len() + 1)];
        for output in 0..outputs {
            explainer.contributions(Rows::new(&bits, width), output, &mut out);
            for row in out.chunks_exact(own.features.len() + 1) {
                self.values.extend(&row[..own.features.len()]);
            }
            self.bases[output] += out[own.features.len()];
        }
        Some(())
    }

    /// Memory that is kept, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.trees.capacity() * size_of::<Table>()
            + self.features.capacity() * size_of::<u32>()
            + self.values.capacity() * size_of::<f64>()
            + self.bases.capacity() * size_of::<f64>()
    }

    /// Writes for rows with all columns what each feature adds to an output, and then the base value; `trees` are
    /// those that the tables were made of.
    pub(super) fn contributions(
        &self,
        trees: &Symmetric,
        rows: Rows<'_>,
        output: usize,
        out: &mut [f64],
    ) {
        let Some(width) = out.len().checked_div(rows.len()) else {
            return;
        };
        for row in out.chunks_exact_mut(width) {
            let (base, contributions) = row.split_last_mut().expect("a base value");
            contributions.fill(0.0);
            *base = self.bases[output];
        }
        trees.for_each_leaf(rows, |tree, row, leaf| {
            let Table {
                features,
                first,
                leaves,
            } = &self.trees[tree];
            let features = &self.features[features.clone()];
            let place = first + (output * leaves + leaf) * features.len();
            let values = &self.values[place..place + features.len()];
            let row = &mut out[row * width..][..width];
            for (feature, value) in features.iter().zip(values) {
                row[*feature as usize] += value;
            }
        });
    }
}

/// Who plays for one tree, whose columns are its levels.
struct OwnPlayers {
    /// The features of the model that get something.
    features: Vec<u32>,
    /// As in [`Players`], with places in `features`.
    owners: Vec<u32>,
    together: Vec<Box<[u32]>>,
}

impl OwnPlayers {
    /// `columns` are those that the levels ask about.
    fn new(columns: Vec<u32>, all: &Players) -> Self {
        let mut players: Vec<usize> = columns
            .iter()
            .map(|column| all.owners[*column as usize] as usize)
            .collect();
        let of_level = players.clone();
        players.sort_unstable();
        players.dedup();
        let (alone, together) =
            players.split_at(players.partition_point(|player| *player < all.features));
        let members = together
            .iter()
            .map(|player| &*all.together[player - all.features]);
        let mut features: Vec<u32> = alone.iter().map(|player| *player as u32).collect();
        features.extend(members.clone().flatten());
        features.sort_unstable();
        features.dedup();
        let place = |feature: u32| features.partition_point(|own| *own < feature) as u32;
        let owner = |player: usize| match player < all.features {
            true => place(player as u32),
            false => {
                let place = together.partition_point(|own| *own < player);
                (features.len() + place) as u32
            }
        };
        Self {
            owners: of_level.into_iter().map(owner).collect(),
            together: members
                .map(|members| members.iter().map(|feature| place(*feature)).collect())
                .collect(),
            features,
        }
    }
}
