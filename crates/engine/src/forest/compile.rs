//! From trees as loaders give them to blocks of packed nodes.

use super::kernel::{Block, LANES, NodeWord, TOP, Trees};
use super::rank::Ranker;
use super::{Node, Tree};
use crate::document::Fault;
use std::collections::VecDeque;

/// Whether the fields of a node word are wide enough for these trees.
pub(super) fn fits<N: NodeWord>(ranker: &Ranker, trees: &[Tree]) -> bool {
    ranker.rank_max() <= N::RANK_MAX
        && ranker.slots() <= N::SLOTS_MAX
        && trees.iter().all(|tree| tree.nodes.len() <= N::NODES_MAX)
}

/// Length of a cache line on every machine that matters here.
const LINE_BYTES: usize = 64;

/// Levels that [`Block::top`] holds.
const TOP_LEVELS: u32 = TOP.ilog2() + 1;

/// Packs trees that fit.
pub(super) fn compile<N: NodeWord>(ranker: &Ranker, trees: &[Tree]) -> Result<Trees<N>, Fault> {
    let per_line = LINE_BYTES / N::BYTES;
    let total: usize = trees
        .iter()
        .map(|tree| tree.nodes.len().next_multiple_of(per_line))
        .sum();
    if u32::try_from(total).is_err() {
        return Err(Fault::new(
            "the model is too large: more than 4 billion nodes",
        ));
    }
    let mut compiled = Trees {
        nodes: Vec::with_capacity(total),
        values: Vec::with_capacity(total),
        blocks: Vec::with_capacity(trees.len().div_ceil(LANES)),
    };
    for chunk in trees.chunks(LANES) {
        let mut block = Block {
            top: [[N::leaf(0); LANES]; TOP],
            roots: [0; LANES],
            outputs: [0; LANES],
            count: 0,
            steps: 0,
        };
        for (lane, tree) in chunk.iter().enumerate() {
            let (root, depth) = append(&mut compiled, ranker, tree);
            block.roots[lane..].fill(root);
            block.outputs[lane..].fill(tree.output);
            block.count = lane + 1;
            block.steps = block.steps.max(depth.saturating_sub(TOP_LEVELS));
        }
        for lane in 0..LANES {
            let top = copy_top(&compiled.nodes[block.roots[lane] as usize..]);
            block
                .top
                .iter_mut()
                .zip(top)
                .for_each(|(words, word)| words[lane] = word);
        }
        compiled.blocks.push(block);
    }
    Ok(compiled)
}

/// The first levels of a tree that begins `nodes`, a leaf taking the places of its descendants.
fn copy_top<N: NodeWord>(nodes: &[N]) -> [N; TOP] {
    let mut places = [0; TOP];
    for index in 1..TOP {
        let parent = places[(index - 1) / 2];
        let child = nodes[parent].child() as usize;
        let is_leaf = child == parent;
        places[index] = child + usize::from(!is_leaf && index % 2 == 0);
    }
    places.map(|place| nodes[place])
}

/// Appends a tree, siblings side by side; returns the place of its root and its depth. Nodes that
/// cannot be reached (pruned ones) are left out.
///
/// A walk costs as much as the cache lines it touches. So the root starts a line, and nodes are
/// placed in clusters of a line's size: a pair of siblings, then its descendants level by level
/// until the line is full; the pairs left over begin clusters of their own.
fn append<N: NodeWord>(compiled: &mut Trees<N>, ranker: &Ranker, tree: &Tree) -> (u32, u32) {
    let per_line = LINE_BYTES / N::BYTES;
    let root = compiled.nodes.len().next_multiple_of(per_line);
    compiled.nodes.resize(root, N::leaf(0));
    compiled.values.resize(root, 0.0);
    let mut layout = Layout {
        compiled,
        ranker,
        tree,
        root,
    };
    let mut deepest = 0;
    let mut starts = VecDeque::from([Placed {
        source: 0,
        place: 0,
        depth: 0,
    }]);
    layout.compiled.nodes.push(N::leaf(0));
    layout.compiled.values.push(0.0);
    let mut room = per_line - 1;
    while let Some(start) = starts.pop_front() {
        let mut queue = VecDeque::from([start]);
        while let Some(placed) = queue.pop_front() {
            deepest = deepest.max(placed.depth);
            if room < 2 && matches!(tree.nodes[placed.source as usize], Node::Split { .. }) {
                starts.push_back(placed);
            } else if let Some(children) = layout.write(placed) {
                room -= 2;
                queue.extend(children);
            }
        }
        room = per_line;
    }
    (root as u32, deepest)
}

/// A node that has its place in the compiled tree but is not yet written there.
struct Placed {
    source: u32,
    place: u32,
    depth: u32,
}

/// A tree that is being appended.
struct Layout<'a, N> {
    compiled: &'a mut Trees<N>,
    ranker: &'a Ranker,
    tree: &'a Tree,
    root: usize,
}

impl<N: NodeWord> Layout<'_, N> {
    /// Writes a node to its place; the children of a split get the next two.
    fn write(&mut self, node: Placed) -> Option<[Placed; 2]> {
        let at = self.root + node.place as usize;
        match self.tree.nodes[node.source as usize] {
            Node::Leaf(value) => {
                self.compiled.nodes[at] = N::leaf(node.place);
                self.compiled.values[at] = value;
                None
            }
            Node::Split {
                feature,
                threshold,
                default_left,
                left,
                right,
            } => {
                let child = (self.compiled.nodes.len() - self.root) as u32;
                let (slot, rank) = self.ranker.locate(feature, threshold, default_left);
                self.compiled.nodes[at] = N::split(rank, slot, child);
                self.compiled
                    .nodes
                    .extend([N::leaf(child), N::leaf(child + 1)]);
                self.compiled.values.extend([0.0, 0.0]);
                let depth = node.depth + 1;
                Some([
                    Placed {
                        source: left,
                        place: child,
                        depth,
                    },
                    Placed {
                        source: right,
                        place: child + 1,
                        depth,
                    },
                ])
            }
        }
    }
}
