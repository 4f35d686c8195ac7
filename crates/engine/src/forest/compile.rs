//! From trees as loaders give them to blocks of packed nodes.

use super::kernel::{Block, LANES, NodeWord, Sum, TOP, Trees, VALUE_OFFSET, ValueWord};
use super::rank::Ranker;
use super::{Node, Tree};
use std::collections::VecDeque;

/// Whether the fields of a node word are wide enough for these trees.
fn fits<S, N: ValueWord<S>>(ranker: &Ranker, trees: &[Tree]) -> bool {
    ranker.rank_max() <= N::RANK_MAX
        && ranker.slots() <= N::SLOTS_MAX
        && trees
            .iter()
            .all(|tree| words(tree, N::VALUE_WORDS) <= N::WORDS_MAX)
}

/// Length of a cache line on every machine that matters here.
const LINE_BYTES: usize = 64;

/// Levels that [`Block::top`] holds.
const TOP_LEVELS: u32 = TOP.ilog2() + 1;

/// Packs trees, if they fit.
pub(super) fn compile<S: Sum, N: ValueWord<S>>(
    ranker: &Ranker,
    trees: &[Tree],
) -> Option<Trees<N>> {
    if !fits::<S, N>(ranker, trees) {
        return None;
    }
    let per_line = LINE_BYTES / N::BYTES;
    let total: usize = trees
        .iter()
        .map(|tree| words(tree, N::VALUE_WORDS).next_multiple_of(per_line))
        .sum();
    i32::try_from(total).ok()?;
    let mut compiled: Trees<N> = Trees {
        words: Vec::with_capacity(per_line + total),
        blocks: Vec::with_capacity(trees.len().div_ceil(LANES)),
        value_words: N::VALUE_WORDS,
    };
    // Roots start cache lines; an allocation need not start at one.
    let first = compiled
        .words
        .as_ptr()
        .align_offset(LINE_BYTES)
        .min(per_line);
    compiled.words.resize(first, N::leaf(0));
    for chunk in trees.chunks(LANES) {
        let mut block = Block {
            top: [[N::leaf(0); LANES]; TOP],
            roots: [0; LANES],
            outputs: [0; LANES],
            count: 0,
            steps: 0,
        };
        for (lane, tree) in chunk.iter().enumerate() {
            let filled = (compiled.words.len() - first).next_multiple_of(per_line);
            compiled.words.resize(first + filled, N::leaf(0));
            let (root, depth) = append::<S, N>(&mut compiled.words, ranker, tree);
            block.roots[lane..].fill(root);
            block.outputs[lane..].fill(tree.output);
            block.count = lane + 1;
            block.steps = block.steps.max(depth.saturating_sub(TOP_LEVELS));
        }
        for lane in 0..LANES {
            let top = copy_top(&compiled.words[block.roots[lane] as usize..]);
            block
                .top
                .iter_mut()
                .zip(top)
                .for_each(|(words, word)| words[lane] = word);
        }
        compiled.blocks.push(block);
    }
    Some(compiled)
}

/// The first levels of a tree that begins `nodes`; a leaf takes the places of its descendants.
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

/// The pair of children of a split, unless the node is a leaf.
fn children(tree: &Tree, source: u32) -> Option<[u32; 2]> {
    match tree.nodes[source as usize] {
        Node::Leaf(_) => None,
        Node::Split { left, right, .. } => Some([left, right]),
    }
}

/// Words that a pair of siblings takes: two nodes, and two values if one of them is a leaf.
fn pair_words(tree: &Tree, pair: [u32; 2], value_words: usize) -> usize {
    let has_leaf = pair.iter().any(|&node| children(tree, node).is_none());
    if has_leaf { 2 + 2 * value_words } else { 2 }
}

/// Words that a tree takes, or somewhat more if it has nodes that cannot be reached.
fn words(tree: &Tree, value_words: usize) -> usize {
    let pairs = (0..tree.nodes.len() as u32).filter_map(|node| children(tree, node));
    let in_pairs = pairs.map(|pair| pair_words(tree, pair, value_words));
    1 + VALUE_OFFSET * value_words + in_pairs.sum::<usize>()
}

/// Appends a tree, siblings side by side; returns the place of its root and its depth. Nodes that
/// cannot be reached (pruned ones) are left out.
///
/// A walk costs as much as the cache lines it touches. The root starts a line, and nodes are
/// placed in clusters of a line's size: a pair of siblings, then its descendants level by level
/// until the line is full; the pairs left over begin clusters of their own.
fn append<S: Sum, N: ValueWord<S>>(words: &mut Vec<N>, ranker: &Ranker, tree: &Tree) -> (u32, u32) {
    let per_line = LINE_BYTES / N::BYTES;
    let root = words.len();
    let alone = children(tree, 0).is_none();
    let value = if alone {
        VALUE_OFFSET * N::VALUE_WORDS
    } else {
        0
    };
    words.resize(root + 1 + value, N::leaf(0));
    let mut layout = Layout {
        words,
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
    let mut room = per_line - 1;
    while let Some(start) = starts.pop_front() {
        let mut queue = VecDeque::from([start]);
        while let Some(placed) = queue.pop_front() {
            deepest = deepest.max(placed.depth);
            let needed = children(tree, placed.source)
                .map_or(0, |pair| pair_words(tree, pair, N::VALUE_WORDS));
            if needed > room {
                starts.push_back(placed);
            } else {
                room -= needed;
                queue.extend(layout.write::<S>(placed).into_iter().flatten());
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
    words: &'a mut Vec<N>,
    ranker: &'a Ranker,
    tree: &'a Tree,
    root: usize,
}

impl<N: NodeWord> Layout<'_, N> {
    /// Writes a node to its place; the children of a split get theirs at the end.
    fn write<S: Sum>(&mut self, node: Placed) -> Option<[Placed; 2]>
    where
        N: ValueWord<S>,
    {
        let at = self.root + node.place as usize;
        match self.tree.nodes[node.source as usize] {
            Node::Leaf(value) => {
                self.words[at] = N::leaf(node.place);
                N::write_value(self.words, at, S::nearest(value));
                None
            }
            Node::Split {
                feature,
                threshold,
                default_left,
                left,
                right,
            } => {
                let child = (self.words.len() - self.root) as u32;
                let (slot, rank) = self.ranker.locate(feature, threshold, default_left);
                self.words[at] = N::split(rank, slot, child);
                let added = pair_words(self.tree, [left, right], N::VALUE_WORDS);
                self.words.resize(self.words.len() + added, N::leaf(child));
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
