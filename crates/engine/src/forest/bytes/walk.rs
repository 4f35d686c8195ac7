//! The walk, for registers of any width.

#![expect(
    unsafe_code,
    reason = "lines are read where the compiled trees say, without a check"
)]

use super::{
    ByteTrees, EXITS, Exit, Group, LANES, Leaf, Leaves, Line, Offsets, Place, ROOM, RowRanks,
};

/// The ranks of a row in registers, and what a processor does with them.
///
/// A value exists only where the processor has the instructions, which is what makes the methods safe.
/// They are inlined into the kernel, which is compiled for these instructions.
pub(super) trait Ranks: Copy {
    /// Bytes of a register.
    type Bytes: Copy;
    /// What a comparison of two registers gives.
    type Mask: Copy;

    /// How many bytes a register has, and so how many trees are walked vertically at once.
    const WIDTH: usize;
    /// How many lines are compared at once.
    const LINES: usize = Self::WIDTH / 8;

    /// Loads the ranks of a row.
    ///
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn new(ranks: &RowRanks) -> Self;

    /// Thresholds and codes of the trees from `lane` on.
    fn load(self, place: &Place, lane: usize) -> Node<Self>;
    /// Whether the row goes right, for each tree.
    fn goes_right(self, node: Node<Self>) -> Self::Mask;
    /// Takes from `right` what the mask says, else from `left`.
    fn choose(self, mask: Self::Mask, left: Node<Self>, right: Node<Self>) -> Node<Self>;
    /// The paths before any step.
    fn start(self) -> Self::Bytes;
    /// Adds a step to each path: twice the path, and one if it goes right.
    fn step(self, paths: Self::Bytes, right: Self::Mask) -> Self::Bytes;
    /// Writes the offsets of the lines that the paths of the lanes from `lane` on lead to.
    fn follow(self, paths: Self::Bytes, bases: &Offsets, lane: usize, lines: &mut Offsets);
    /// Where the row goes right in [`Ranks::LINES`] lines, eight bits each, the first in the lowest.
    fn compare<'a>(self, line: impl Fn(usize) -> &'a Line) -> u64;
    /// Asks for a line to be fetched.
    fn prefetch(self, line: &Line);
}

/// Thresholds and codes of one place in as many trees as a register has bytes.
#[derive(Clone, Copy)]
pub(super) struct Node<V: Ranks> {
    pub(super) thresholds: V::Bytes,
    pub(super) codes: V::Bytes,
}

/// [`super::ByteWalk::add`] with the instructions of `V`.
///
/// # Safety
/// The processor must have them.
#[inline(always)]
pub(super) unsafe fn add<V: Ranks, S: Leaf>(
    trees: &ByteTrees<S>,
    rows: &[RowRanks],
    sums: &mut [S],
) {
    if let [row] = rows {
        // SAFETY: the caller promises it.
        return add_one(unsafe { V::new(row) }, trees, sums);
    }
    let outputs = sums.len() / rows.len().max(1);
    let mut lines = Offsets([0; LANES]);
    let mut leaves = [S::default(); ROOM];
    for group in &trees.groups {
        for (row, sums) in rows.iter().zip(sums.chunks_exact_mut(outputs.max(1))) {
            // SAFETY: the caller promises it.
            let ranks = unsafe { V::new(row) };
            vertical(ranks, trees, group, &mut lines);
            horizontal(ranks, trees, group, &lines, &mut leaves, |_| {});
            trees.outputs.add(group, &leaves, sums);
        }
    }
}

/// One row, which has to wait for its lines: those of the next group are asked for while one group
/// is computed.
#[inline(always)]
fn add_one<V: Ranks, S: Leaf>(ranks: V, trees: &ByteTrees<S>, sums: &mut [S]) {
    let Some(first) = trees.groups.first() else {
        return;
    };
    let mut leaves = [S::default(); ROOM];
    let mut both = [Offsets([0; LANES]); 2];
    let [lines, next] = &mut both;
    vertical(ranks, trees, first, lines);
    let (mut lines, mut next) = (lines, next);
    for (index, group) in trees.groups.iter().enumerate() {
        if let Some(after) = trees.groups.get(index + 1) {
            vertical(ranks, trees, after, next);
        }
        horizontal(ranks, trees, group, lines, &mut leaves, |lane| {
            // SAFETY: `vertical` gives offsets of lines, and the first line is always there.
            ranks.prefetch(unsafe { trees.line(next.0[lane]) });
        });
        trees.outputs.add(group, &leaves, sums);
        std::mem::swap(&mut lines, &mut next);
    }
}

/// Walks the vertical levels; writes the offsets of the lines that follow.
#[inline(always)]
fn vertical<V: Ranks, S>(ranks: V, trees: &ByteTrees<S>, group: &Group, lines: &mut Offsets) {
    let places = &trees.places[group.place..];
    for register in 0..group.trees.div_ceil(V::WIDTH).min(LANES / V::WIDTH) {
        let lane = register * V::WIDTH;
        let lanes = Lanes {
            ranks,
            places,
            lane,
        };
        let paths = match group.levels {
            0 => ranks.start(),
            1 => lanes.walk::<1>(),
            2 => lanes.walk::<2>(),
            3 => lanes.walk::<3>(),
            4 => lanes.walk::<4>(),
            _ => lanes.walk::<5>(),
        };
        ranks.follow(paths, &group.bases, lane, lines);
    }
}

/// The vertical nodes of the trees of one register.
#[derive(Clone, Copy)]
struct Lanes<'a, V> {
    ranks: V,
    places: &'a [Place],
    lane: usize,
}

impl<V: Ranks> Lanes<'_, V> {
    #[inline(always)]
    fn walk<const LEVELS: usize>(self) -> V::Bytes {
        // One check for all loads.
        let places = &self.places[..(1 << LEVELS) - 1];
        let lanes = Lanes { places, ..self };
        let ranks = self.ranks;
        let mut paths = ranks.start();
        let first = ranks.goes_right(lanes.node(0));
        paths = ranks.step(paths, first);
        if LEVELS == 1 {
            return paths;
        }
        let second = ranks.goes_right(lanes.one([first], 0));
        paths = ranks.step(paths, second);
        if LEVELS == 2 {
            return paths;
        }
        let third = ranks.goes_right(lanes.two([first, second], 0));
        paths = ranks.step(paths, third);
        if LEVELS == 3 {
            return paths;
        }
        let fourth = ranks.goes_right(lanes.three([first, second, third], 0));
        paths = ranks.step(paths, fourth);
        if LEVELS == 4 {
            return paths;
        }
        let fifth = ranks.goes_right(lanes.four([first, second, third, fourth], 0));
        ranks.step(paths, fifth)
    }

    #[inline(always)]
    fn node(self, place: usize) -> Node<V> {
        self.ranks.load(&self.places[place], self.lane)
    }

    /// The nodes that the trees have met after one step from a place.
    #[inline(always)]
    fn one(self, [first]: [V::Mask; 1], place: usize) -> Node<V> {
        let [left, right] = below(place);
        self.ranks.choose(first, self.node(left), self.node(right))
    }

    /// After two steps.
    #[inline(always)]
    fn two(self, [first, rest @ ..]: [V::Mask; 2], place: usize) -> Node<V> {
        let [left, right] = below(place);
        let (left, right) = (self.one(rest, left), self.one(rest, right));
        self.ranks.choose(first, left, right)
    }

    /// After three steps.
    #[inline(always)]
    fn three(self, [first, rest @ ..]: [V::Mask; 3], place: usize) -> Node<V> {
        let [left, right] = below(place);
        let (left, right) = (self.two(rest, left), self.two(rest, right));
        self.ranks.choose(first, left, right)
    }

    /// After four steps.
    #[inline(always)]
    fn four(self, [first, rest @ ..]: [V::Mask; 4], place: usize) -> Node<V> {
        let [left, right] = below(place);
        let (left, right) = (self.three(rest, left), self.three(rest, right));
        self.ranks.choose(first, left, right)
    }
}

/// The places of a node's children.
#[inline(always)]
fn below(place: usize) -> [usize; 2] {
    [2 * place + 1, 2 * place + 2]
}

/// Walks from the lines at these offsets to the leaves. `before` is called for each lane, so that
/// what it does is spread over the walk.
#[inline(always)]
fn horizontal<V: Ranks, S: Leaf>(
    ranks: V,
    trees: &ByteTrees<S>,
    group: &Group,
    lines: &Offsets,
    leaves: &mut Leaves<S>,
    before: impl Fn(usize),
) {
    if group.is_deep {
        return walk_deep(ranks, trees, lines, leaves, before);
    }
    for chunk in 0..group.trees.div_ceil(V::LINES).min(LANES / V::LINES) {
        let first = chunk * V::LINES;
        // SAFETY: `vertical` gives offsets of lines.
        let line = |index: usize| unsafe { trees.line(lines.0[first + index]) };
        let right = ranks.compare(line);
        for index in 0..V::LINES {
            before(first + index);
            let exit = Exit::of((right >> (8 * index)) as u8);
            leaves[first + index] = S::read(&line(index).exits, exit);
        }
    }
}

/// [`horizontal`] where lines follow lines: walks that are not at their leaf yet are listed, and
/// make the next step together.
#[inline(always)]
fn walk_deep<V: Ranks, S: Leaf>(
    ranks: V,
    trees: &ByteTrees<S>,
    lines: &Offsets,
    leaves: &mut Leaves<S>,
    before: impl Fn(usize),
) {
    let (mut now, mut then) = (&mut Open::new(), &mut Open::new());
    for chunk in 0..LANES / V::LINES {
        let first = chunk * V::LINES;
        // SAFETY: `vertical` gives offsets of lines.
        let line = |index: usize| unsafe { trees.line(lines.0[first + index]) };
        let right = ranks.compare(line);
        for index in 0..V::LINES {
            before(first + index);
            let (line, exit) = (line(index), Exit::of((right >> (8 * index)) as u8));
            // What is no leaf is written over later.
            leaves[first + index] = S::read(&line.exits, exit);
            now.push((first + index) as u64, line, exit);
        }
    }
    while now.count > 0 {
        now.fill_up();
        for chunk in 0..now.count.div_ceil(V::LINES) {
            let walks = &now.walks[chunk * V::LINES..][..V::LINES];
            // SAFETY: the offset is one behind an exit that continues, or that of the empty line.
            let line = |index: usize| unsafe { trees.line(walks[index] as u32) };
            let right = ranks.compare(line);
            for (index, walk) in walks.iter().enumerate() {
                let (line, exit) = (line(index), Exit::of((right >> (8 * index)) as u8));
                let lane = walk >> 32;
                leaves[lane as usize % ROOM] = S::read(&line.exits, exit);
                then.push(lane, line, exit);
            }
        }
        now.count = 0;
        std::mem::swap(&mut now, &mut then);
    }
}

/// The walks of a group that are not at their leaf.
struct Open {
    /// The lane, and the offset of the next line in the lower half. There is more room than lanes,
    /// because what is behind the end is written too.
    walks: [u64; ROOM],
    count: usize,
}

impl Open {
    const fn new() -> Self {
        Self {
            walks: [0; ROOM],
            count: 0,
        }
    }

    /// Adds a walk if its exit leads to another line.
    #[inline(always)]
    fn push(&mut self, lane: u64, line: &Line, exit: Exit) {
        self.walks[self.count % ROOM] = lane << 32 | u64::from(line.exits[exit as usize]);
        self.count += usize::from(line.continues(exit));
    }

    /// Puts walks behind the list that begin and end at the empty line, in a lane that does not
    /// count, so that the list can be read in steps of any width.
    fn fill_up(&mut self) {
        self.walks[self.count..][..EXITS].fill((LANES as u64) << 32);
    }
}
