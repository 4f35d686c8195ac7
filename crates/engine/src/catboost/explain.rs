//! What explanations need: the trees with the weights of their training, and whose columns they ask about.
//!
//! To the library the columns that are computed from the same categorical features are one player of the game,
//! and what a combination of several has added is shared by them in equal parts.

use std::collections::HashMap;

use super::asymmetric;
use super::parts::{Parts, Trees};
use super::splits::Splits;
use super::tables::Tables;
use crate::document::Fault;
use crate::explain::{Explainer, Players, Sources, Unexplained, check_bytes};
use crate::forest::{Node, Tree};

/// Deeper symmetric trees have too many splits.
const LEVELS_MAX: usize = 17;

/// How a model is explained.
#[derive(Debug)]
pub(super) enum Explained {
    /// By what its leaves say.
    Leaves(Tables),
    /// By walks through its trees.
    Trees(Box<Explainer>),
}

impl Explained {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Leaves(tables) => tables.bytes(),
            Self::Trees(explainer) => explainer.bytes(),
        }
    }
}

/// Keeps what explanations of rows of `width` features need, in at most `bytes_max`.
pub(super) fn explainer(
    parts: &Parts,
    splits: &Splits,
    width: usize,
    bytes_max: usize,
) -> Result<Explained, Unexplained> {
    if bytes_max == 0 {
        return Err(Unexplained::NotAsked);
    }
    if parts.weights.len().checked_mul(parts.outputs) != Some(parts.leaves.len()) {
        return Err(Unexplained::NoCovers);
    }
    let players = players(parts, width).ok_or(Unexplained::Kind)?;
    if let Trees::Symmetric(trees) = &parts.trees
        && let Some(tables) = Tables::new(trees, parts, splits, &players, bytes_max)
    {
        return Ok(Explained::Leaves(tables));
    }
    let walked = by_walks(parts, splits, players, bytes_max)?;
    Ok(Explained::Trees(Box::new(walked)))
}

fn by_walks(
    parts: &Parts,
    splits: &Splits,
    players: Players,
    bytes_max: usize,
) -> Result<Explainer, Unexplained> {
    let (trees, covers) = match &parts.trees {
        Trees::Symmetric(trees) => {
            if trees.iter().any(|tree| tree.len() > LEVELS_MAX) {
                return Err(Unexplained::LargeTree);
            }
            // They take more memory than what is made of them.
            let leaves: usize = trees.iter().map(|tree| 1 << tree.len()).sum();
            let leaves = leaves * parts.outputs;
            let count = trees.len() * parts.outputs;
            check_bytes(leaves - count, leaves, count, 0, bytes_max)?;
            symmetric(trees, parts, splits)
        }
        Trees::Asymmetric(trees) => {
            let converted = asymmetric::convert(trees, splits, &parts.leaves, parts.outputs);
            let covers = trees.iter().flat_map(|tree| {
                let covers = asymmetric::covers(tree, &parts.weights, parts.outputs);
                std::iter::repeat_n(covers, parts.outputs)
            });
            converted.map(|converted| (converted, covers.collect()))
        }
    }
    // The same has been compiled.
    .map_err(|_| Unexplained::Kind)?;
    let columns = players.owners.len();
    let sources = Sources {
        trees: &trees,
        covers: &covers,
        rules: asymmetric::rules(columns),
        outputs: parts.outputs,
        players,
        beside: 0,
    };
    Explainer::new(sources, bytes_max)
}

/// Who plays; none if a column is computed from no feature at all.
fn players(parts: &Parts, width: usize) -> Option<Players> {
    let flat: HashMap<i32, u32> = parts
        .categories
        .iter()
        .map(|category| (category.index, category.flat as u32))
        .collect();
    let mut owners: Vec<u32> = (0..width as u32).collect();
    for one in &parts.one_hots {
        let owner = *flat.get(&one.category)?;
        owners.extend(std::iter::repeat_n(owner, one.hashes.len()));
    }
    let mut combinations: HashMap<Box<[u32]>, u32> = HashMap::new();
    for ctr in &parts.ctrs {
        // Borders and single categories inside of a combination share in nothing.
        let own = ctr.base.combination.categories.iter();
        let own = own.map(|index| flat.get(index).copied());
        let mut own: Vec<u32> = own.collect::<Option<_>>()?;
        own.sort_unstable();
        own.dedup();
        owners.push(match own[..] {
            [] => return None,
            [owner] => owner,
            _ => {
                let next = (width + combinations.len()) as u32;
                *combinations.entry(own.into()).or_insert(next)
            }
        });
    }
    let mut together: Vec<(Box<[u32]>, u32)> = combinations.into_iter().collect();
    together.sort_unstable_by_key(|(_, player)| *player);
    Some(Players {
        owners: owners.into(),
        features: width,
        together: together.into_iter().map(|(features, _)| features).collect(),
    })
}

/// Symmetric trees for the forest, one for each number of a leaf, and their covers.
fn symmetric(
    trees: &[Vec<u32>],
    parts: &Parts,
    splits: &Splits,
) -> Result<(Vec<Tree>, Vec<Vec<f32>>), Fault> {
    let (mut converted, mut covers) = (Vec::new(), Vec::new());
    let mut first = 0;
    for levels in trees {
        let count = 1 << levels.len();
        let own = cover_all(&parts.weights[first..first + count]);
        let leaves = &parts.leaves[first * parts.outputs..][..count * parts.outputs];
        // The library asks the last level first, which is the highest bit of the number of a leaf.
        let mut inner = Vec::with_capacity(count - 1);
        for (depth, level) in levels.iter().rev().enumerate() {
            let split = splits.get(*level)?;
            inner.extend((0..1 << depth).map(|_| split));
        }
        for output in 0..parts.outputs {
            let nodes = inner.iter().zip((1..).step_by(2));
            let nodes = nodes.map(|(split, left)| split.node(left, left + 1));
            let leaves = leaves[output..].iter().step_by(parts.outputs);
            converted.push(Tree {
                nodes: nodes.chain(leaves.map(|leaf| Node::Leaf(*leaf))).collect(),
                output: output as u32,
            });
            covers.push(own.clone());
        }
        first += count;
    }
    Ok((converted, covers))
}

/// The weights of all nodes of a tree, level by level, from those of its leaves.
pub(super) fn cover_all(leaves: &[f64]) -> Vec<f32> {
    let mut all = vec![0.0; leaves.len() - 1];
    all.extend_from_slice(leaves);
    for node in (0..leaves.len() - 1).rev() {
        all[node] = all[2 * node + 1] + all[2 * node + 2];
    }
    all.iter().map(|weight| *weight as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{json, symmetric::Symmetric};
    use super::*;
    use crate::Rows;
    use crate::document::parse_json;

    #[test]
    fn leaves_say_what_walks_say() {
        for name in [
            "rmse",
            "multiclass",
            "depth-10",
            "categories-combinations",
            "categories-multiclass",
            "stumps",
        ] {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/catboost");
            let bytes = std::fs::read(format!("{folder}/{name}.json")).unwrap();
            let parts = json::read(&parse_json(&bytes).unwrap()).unwrap();
            let width = parts.features().unwrap().0.len();
            let splits = Splits::of(&parts, width);
            let Trees::Symmetric(trees) = &parts.trees else {
                panic!("{name} has other trees");
            };
            let compiled = Symmetric::new(trees, &splits, parts.leaves.clone(), parts.outputs);
            let compiled = compiled.unwrap();
            let players = players(&parts, width).unwrap();
            let columns = players.owners.len();
            let tables = Tables::new(trees, &parts, &splits, &players, 16 << 20).unwrap();
            assert!(Tables::new(trees, &parts, &splits, &players, tables.bytes() / 2).is_none());
            let walked = by_walks(&parts, &splits, players, 16 << 20).unwrap();
            // Whole blocks of rows, a few and one.
            let values: Vec<f64> = (0..columns * 72)
                .map(|place| (place * 7919 % 1009) as f64 / 200.0 - 2.5)
                .collect();
            for rows in [0..72, 3..7, 9..10] {
                let rows = Rows::new(&values, columns).slice(rows);
                for output in 0..parts.outputs {
                    let mut by_leaf = vec![f64::NAN; rows.len() * (width + 1)];
                    let mut by_walk = by_leaf.clone();
                    tables.contributions(&compiled, rows, output, &mut by_leaf);
                    walked.contributions(rows, output, &mut by_walk);
                    for (leaf, walk) in by_leaf.iter().zip(&by_walk) {
                        assert!((leaf - walk).abs() < 1e-9, "{name}: {leaf} {walk}");
                    }
                }
            }
        }
    }
}
