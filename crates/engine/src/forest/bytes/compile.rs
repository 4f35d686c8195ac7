//! From trees as loaders give them to vertical nodes and lines.

use super::super::rank::Ranker;
use super::super::{Node, Tree};
use super::{
    ByteTrees, EXITS, Group, LANES, Leaf, Line, NEVER, Offsets, Outputs, Place, SLOTS_MAX,
    VERTICAL_MAX, code,
};
use std::collections::VecDeque;
use std::marker::PhantomData;

/// Vertical levels of groups with trees that do not end after [`VERTICAL_MAX`] and a line.
const VERTICAL_OF_DEEP: u32 = 4;

/// Packs trees, unless they have too many slots or lines.
pub(in super::super) fn compile<S: Leaf>(ranker: &Ranker, trees: &[Tree]) -> Option<ByteTrees<S>> {
    if ranker.byte_slots() > SLOTS_MAX {
        return None;
    }
    let mut packer = Packer::<S> {
        ranker,
        places: Vec::new(),
        // The one of the lanes without a tree.
        lines: vec![Line::EMPTY],
        room: Room { start: 1, used: 0 },
        leaves: PhantomData,
    };
    let outputs = outputs(trees);
    let mut groups: Vec<Group> = Vec::new();
    for trees in trees.chunks(outputs.trees_per_group()) {
        let mut group = packer.group(trees)?;
        group.first_tree = groups.last().map_or(0, |last| last.first_tree + last.trees);
        if let Outputs::Cycle(length) = outputs {
            group.first_output = group.first_tree % length;
            group.is_whole = group.first_output == 0 && group.trees.is_multiple_of(length);
        }
        groups.push(group);
    }
    Some(ByteTrees {
        places: packer.places,
        lines: packer.lines,
        groups,
        outputs,
        slots: ranker.byte_slots(),
        leaves: PhantomData,
    })
}

fn outputs(trees: &[Tree]) -> Outputs {
    let length = trees.iter().map(|tree| tree.output as usize + 1).max();
    let length = length.unwrap_or(1);
    let mut outputs = trees.iter().map(|tree| tree.output);
    if outputs
        .clone()
        .enumerate()
        .all(|(tree, output)| tree % length == output as usize)
    {
        return Outputs::Cycle(length);
    }
    Outputs::Any(outputs.by_ref().collect())
}

/// The children of a node, unless it is a leaf.
fn children(tree: &Tree, node: u32) -> Option<[u32; 2]> {
    match tree.nodes[node as usize] {
        Node::Leaf(_) => None,
        Node::Split { left, right, .. } => Some([left, right]),
    }
}

/// Levels of splits.
fn depth(tree: &Tree) -> u32 {
    let mut deepest = 0;
    let mut open = vec![(0, 0)];
    while let Some((node, depth)) = open.pop() {
        deepest = deepest.max(depth);
        let below = children(tree, node).into_iter().flatten();
        open.extend(below.map(|child| (child, depth + 1)));
    }
    deepest
}

/// The nodes below and with `root`, level by level, and the exits of the last level. A leaf before
/// that goes on to the left; what is on its right cannot be reached and is `None`.
fn expand(tree: &Tree, root: u32, levels: u32) -> (Vec<Option<u32>>, Vec<Option<u32>>) {
    let nodes = (1 << levels) - 1;
    let mut places = vec![None; 2 * nodes + 1];
    places[0] = Some(root);
    for place in 0..nodes {
        let Some(node) = places[place] else { continue };
        match children(tree, node) {
            Some([left, right]) => {
                places[2 * place + 1] = Some(left);
                places[2 * place + 2] = Some(right);
            }
            None => places[2 * place + 1] = Some(node),
        }
    }
    let exits = places.split_off(nodes);
    (places, exits)
}

struct Packer<'a, S> {
    ranker: &'a Ranker,
    places: Vec<Place>,
    lines: Vec<Line>,
    room: Room,
    leaves: PhantomData<S>,
}

impl<S: Leaf> Packer<'_, S> {
    fn group(&mut self, trees: &[Tree]) -> Option<Group> {
        let deepest = trees.iter().map(depth).max().unwrap_or(0);
        let is_deep = deepest > VERTICAL_MAX + S::LINE_LEVELS;
        let levels = if is_deep {
            VERTICAL_OF_DEEP
        } else {
            deepest.saturating_sub(S::LINE_LEVELS)
        };
        let mut group = Group {
            levels,
            place: self.places.len(),
            bases: Offsets([0; LANES]),
            first_tree: 0,
            trees: trees.len(),
            first_output: 0,
            is_whole: false,
            is_deep,
        };
        let empty = Place {
            thresholds: [NEVER; LANES],
            codes: [0; LANES],
        };
        self.places.resize(group.place + (1 << levels) - 1, empty);
        for (lane, tree) in trees.iter().enumerate() {
            let (nodes, exits) = expand(tree, 0, levels);
            for (place, node) in self.places[group.place..].iter_mut().zip(nodes) {
                (place.thresholds[lane], place.codes[lane]) = node_bytes(self.ranker, tree, node);
            }
            group.bases.0[lane] = self.lines(tree, &exits)?;
        }
        Some(group)
    }

    /// Packs the subtrees behind the vertical nodes of a tree; gives the offset of the first.
    fn lines(&mut self, tree: &Tree, exits: &[Option<u32>]) -> Option<u32> {
        let base = self.room.take(exits.iter().map(Option::is_some));
        let mut open: VecDeque<(usize, u32)> = VecDeque::new();
        let reached = exits.iter().enumerate();
        open.extend(reached.filter_map(|(exit, node)| Some((base + exit, (*node)?))));
        while let Some((at, root)) = open.pop_front() {
            let line = self.line(tree, root, &mut open)?;
            if self.lines.len() <= at {
                self.lines.resize(at + 1, Line::EMPTY);
            }
            self.lines[at] = line;
        }
        offset(base)
    }

    /// The line of the subtree at `root`; the subtrees that follow it get their places in `open`.
    fn line(&mut self, tree: &Tree, root: u32, open: &mut VecDeque<(usize, u32)>) -> Option<Line> {
        let mut line = Line::EMPTY;
        let (nodes, exits) = expand(tree, root, S::LINE_LEVELS);
        for (place, node) in nodes.into_iter().enumerate() {
            (line.thresholds[place], line.codes[place]) = node_bytes(self.ranker, tree, node);
        }
        let exits_per_leaf = EXITS >> S::LINE_LEVELS;
        for (index, node) in exits.into_iter().enumerate() {
            let exit = index * exits_per_leaf;
            match node.map(|node| (node, tree.nodes[node as usize])) {
                None => {}
                Some((_, Node::Leaf(value))) => S::nearest(value).write(&mut line.exits, exit),
                Some((node, Node::Split { .. })) => {
                    let next = self.room.take([true]);
                    open.push_back((next, node));
                    line.codes[7] |= 1 << exit;
                    line.exits[exit] = offset(next)?;
                }
            }
        }
        Some(line)
    }
}

/// Threshold and code of a node; those of a leaf, or of no node, send every row left.
fn node_bytes(ranker: &Ranker, tree: &Tree, node: Option<u32>) -> (i8, u8) {
    match node.map(|node| tree.nodes[node as usize]) {
        Some(Node::Split {
            feature,
            threshold,
            default_left,
            ..
        }) => {
            let (slot, threshold) = ranker.locate_byte(feature, threshold, default_left);
            (threshold, code(slot))
        }
        _ => (NEVER, 0),
    }
}

/// Where a line is, in bytes. Kernels may take offsets for signed numbers.
fn offset(line: usize) -> Option<u32> {
    let bytes = i32::try_from(line.checked_mul(Line::BYTES)?).ok()?;
    u32::try_from(bytes).ok()
}

/// Which lines are taken. Trees with holes, where a leaf is near the root, share their lines: one
/// tree's fill the holes of others.
struct Room {
    /// Lines before this one are not given away any more.
    start: usize,
    /// Bit `i` is line `start + i`; the upper half is free.
    used: u128,
}

impl Room {
    /// Takes the lines whose place in the pattern, of up to 32, is `true`; gives the first place.
    fn take(&mut self, pattern: impl IntoIterator<Item = bool>) -> usize {
        let bits = pattern.into_iter().enumerate();
        let pattern = bits.fold(0u128, |bits, (place, is_taken)| {
            bits | u128::from(is_taken) << place
        });
        let at = (0..64).find(|at| self.used >> at & pattern == 0);
        let at = at.unwrap_or(64);
        let line = self.start + at;
        self.used |= pattern << at;
        let shift = (128 - self.used.leading_zeros()).saturating_sub(64);
        self.start += shift as usize;
        self.used >>= shift;
        line
    }
}
