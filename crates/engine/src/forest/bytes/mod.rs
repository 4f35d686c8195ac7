//! Forests whose ranks are bytes, so that a register compares as many trees as it has bytes.
//!
//! The thresholds of a feature are cut into **chunks** of at most 255, and each chunk has a slot of
//! its own (two, where nodes do not agree on missing values): the rank of a value within a chunk,
//! less 128, is a signed byte. A row has at most [`SLOTS_MAX`] of them, few enough for byte shuffles
//! to look them up in registers.
//!
//! Trees are walked in groups of [`LANES`]. The first levels are **vertical**: for each place in a
//! tree the nodes of all trees of the group stand side by side, are read in order, and one
//! comparison decides for a whole register of trees. What follows is **horizontal**: a subtree of
//! two or three levels takes one [`Line`] of the cache with its nodes and its exits. A few lines are
//! compared at once, and the bits of a line choose the exit: a leaf, or the line that continues
//! the walk. So a row reads the vertical nodes, and of most trees one line.
//!
//! Leaves are added in the order of the trees, as everywhere.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod compile;
#[cfg(target_arch = "aarch64")]
mod neon;
mod walk;

pub(super) use compile::compile;

use super::kernel::Sum;
use super::rank::Ranker;
use std::fmt::Debug;

/// Trees that a group has room for: three registers of 32, in which whole rounds of most numbers of
/// outputs leave little room.
const LANES: usize = 96;

/// More than the lanes of a group, and a power of two, so that an index needs no check.
const ROOM: usize = 128;

/// The leaves of a group by lane; what is behind the last lane does not count.
type Leaves<S> = [S; ROOM];

/// Slots that a row may have.
pub(super) const SLOTS_MAX: usize = 128;

/// The ranks of a row, less 128, by slot.
pub(super) type RowRanks = [i8; SLOTS_MAX];

/// How a node names its slot: in the lower seven bits, and bit 4 once more in bit 7, which makes
/// the byte shuffle of x86 give zero.
fn code(slot: u32) -> u8 {
    debug_assert!((slot as usize) < SLOTS_MAX);
    let slot = slot as u8;
    slot | (slot & 0x10) << 3
}

/// The threshold that no rank exceeds: that of places where a tree has no node.
const NEVER: i8 = i8::MAX;

/// A place in the vertical levels of a group.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Place {
    thresholds: [i8; LANES],
    codes: [u8; LANES],
}

/// A subtree of up to three levels.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    /// Thresholds of up to seven nodes, level by level, then [`NEVER`].
    thresholds: [i8; 8],
    /// Codes of their slots; the last says with a bit for each exit if it continues in a line.
    codes: [u8; 8],
    unused: [u8; 16],
    /// Leaves, or offsets of lines.
    exits: [u32; EXITS],
}

impl Line {
    const BYTES: usize = size_of::<Self>();

    const EMPTY: Self = Self {
        thresholds: [NEVER; 8],
        codes: [0; 8],
        unused: [0; 16],
        exits: [0; EXITS],
    };

    /// Whether the walk goes on in another line after this exit.
    #[inline]
    fn continues(&self, exit: Exit) -> bool {
        self.codes[7] >> exit as u8 & 1 != 0
    }
}

/// Where lines are, in bytes, by lane. Aligned, so that registers are not stored across two lines of
/// the cache.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Offsets([u32; LANES]);

/// Exits of a line.
pub(super) const EXITS: usize = 8;

/// One of them; a type of its own, so that indices need no check.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Exit {
    E0,
    E1,
    E2,
    E3,
    E4,
    E5,
    E6,
    E7,
}

impl Exit {
    const ALL: [Self; EXITS] = [
        Self::E0,
        Self::E1,
        Self::E2,
        Self::E3,
        Self::E4,
        Self::E5,
        Self::E6,
        Self::E7,
    ];

    /// The exit for the places where a row goes right, the root in the lowest bit.
    #[inline(always)]
    fn of(right: u8) -> Self {
        static BY_PLACES: [Exit; 256] = {
            let mut exits = [Exit::E0; 256];
            let mut bits = 0;
            while bits < exits.len() {
                let mut place = 0;
                while place < EXITS - 1 {
                    place = 2 * place + 1 + (bits >> place & 1);
                }
                exits[bits] = Exit::ALL[place - (EXITS - 1)];
                bits += 1;
            }
            exits
        };
        BY_PLACES[usize::from(right)]
    }
}

/// Up to [`LANES`] consecutive trees.
#[derive(Debug)]
struct Group {
    /// Vertical levels, at most [`VERTICAL_MAX`].
    levels: u32,
    /// The first of its `2^levels - 1` places.
    place: usize,
    /// Where the lines of each tree begin; lanes beyond the last tree have an empty line.
    bases: Offsets,
    first_tree: usize,
    trees: usize,
    /// If trees add to outputs in turn: the first tree's, and whether all outputs have the same number
    /// of trees.
    first_output: usize,
    is_whole: bool,
    /// Whether an exit of a line may be another line.
    is_deep: bool,
}

/// The most vertical levels that a kernel must know.
const VERTICAL_MAX: u32 = 5;

/// Compiled trees, whose leaves are of type `S`.
///
/// Invariant: a tree's base plus any of the `2^levels` paths that its vertical nodes allow, and the
/// offset of every exit that continues, is the offset of a line inside `lines`, and no walk goes from
/// line to line forever. Kernels rely on it; only `compile` makes this type.
#[derive(Debug)]
pub(crate) struct ByteTrees<S> {
    places: Vec<Place>,
    lines: Vec<Line>,
    groups: Vec<Group>,
    outputs: Outputs,
    slots: usize,
    leaves: std::marker::PhantomData<S>,
}

impl<S> ByteTrees<S> {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.places[..]) + size_of_val(&self.lines[..]) + size_of_val(&self.groups[..])
    }

    /// The line at an offset.
    ///
    /// # Safety
    /// The offset must be one that the invariant speaks of.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a check would cost as much as the walk itself")]
    unsafe fn line(&self, offset: u32) -> &Line {
        debug_assert!((offset as usize) < size_of_val(&self.lines[..]));
        // SAFETY: it is the offset of one of the lines, by the invariant.
        unsafe { &*self.lines.as_ptr().byte_add(offset as usize) }
    }
}

/// Which sum each tree adds to.
#[derive(Debug)]
enum Outputs {
    /// Tree `i` adds to sum `i` modulo this number.
    Cycle(usize),
    /// An entry a tree.
    Any(Vec<u32>),
}

impl Outputs {
    /// How many trees a group has: whole rounds, if they nearly fill it.
    fn trees_per_group(&self) -> usize {
        match self {
            Self::Cycle(length) if LANES % length <= LANES / 4 => LANES - LANES % length,
            _ => LANES,
        }
    }

    /// Adds the leaves of a group, whose first tree has the given number, to the sums of a row.
    #[inline(always)]
    fn add<S: Sum>(&self, group: &Group, leaves: &Leaves<S>, sums: &mut [S]) {
        let leaves = &leaves[..group.trees];
        match self {
            Self::Cycle(1) => sums[0] = leaves.iter().fold(sums[0], |sum, leaf| sum + *leaf),
            Self::Cycle(length) if group.is_whole => {
                let sums = &mut sums[..*length];
                let (rest, first) = add_rounds::<S, 8>(sums, leaves, *length, 0);
                let (rest, first) = add_rounds::<S, 4>(rest, leaves, *length, first);
                add_rounds::<S, 1>(rest, leaves, *length, first);
            }
            Self::Cycle(length) => {
                let mut output = group.first_output;
                for leaf in leaves {
                    sums[output] += *leaf;
                    output = if output + 1 == *length { 0 } else { output + 1 };
                }
            }
            Self::Any(outputs) => {
                for (output, leaf) in outputs[group.first_tree..].iter().zip(leaves) {
                    sums[*output as usize] += *leaf;
                }
            }
        }
    }
}

/// Adds rounds of leaves to sums, of which the first is output `first`, `N` sums at a time; gives
/// those that are left.
#[inline(always)]
fn add_rounds<'a, S: Sum, const N: usize>(
    sums: &'a mut [S],
    leaves: &[S],
    length: usize,
    mut first: usize,
) -> (&'a mut [S], usize) {
    let (chunks, rest) = sums.as_chunks_mut::<N>();
    for chunk in chunks {
        // In registers, from which they are not loaded again for each round.
        let mut own = *chunk;
        for round in leaves.chunks_exact(length) {
            let leaves = &round[first..][..N];
            for lane in 0..N {
                own[lane] += leaves[lane];
            }
        }
        *chunk = own;
        first += N;
    }
    (rest, first)
}

/// A type of leaves.
pub(crate) trait Leaf: Sum {
    /// Levels of a line whose leaves are of this type.
    const LINE_LEVELS: u32;

    /// Writes a leaf to an exit.
    fn write(self, exits: &mut [u32; EXITS], exit: usize);
    /// The leaf of an exit, which may be any as far as the line knows.
    fn read(exits: &[u32; EXITS], exit: Exit) -> Self;
}

impl Leaf for f32 {
    const LINE_LEVELS: u32 = 3;

    fn write(self, exits: &mut [u32; EXITS], exit: usize) {
        exits[exit] = self.to_bits();
    }

    #[inline(always)]
    fn read(exits: &[u32; EXITS], exit: Exit) -> Self {
        Self::from_bits(exits[exit as usize])
    }
}

impl Leaf for f64 {
    /// A line has room for four leaves; they take every other exit.
    const LINE_LEVELS: u32 = 2;

    fn write(self, exits: &mut [u32; EXITS], exit: usize) {
        let bits = self.to_bits();
        exits[exit] = bits as u32;
        exits[exit + 1] = (bits >> 32) as u32;
    }

    #[inline(always)]
    fn read(exits: &[u32; EXITS], exit: Exit) -> Self {
        let [low, high] = [exits[exit as usize & !1], exits[exit as usize | 1]];
        Self::from_bits(u64::from(high) << 32 | u64::from(low))
    }
}

/// A way to walk byte ranks.
pub(crate) trait ByteWalk<S>: Debug + Send + Sync {
    /// Name for display.
    fn name(&self) -> &'static str;

    /// [`Ranker::rank_bytes`], with what the processor has for it.
    fn rank(&self, ranker: &Ranker, row: &[f64], ranks: &mut RowRanks);

    /// Adds the leaves that rows reach to their sums, each row's in the order of the trees.
    fn add(&self, trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]);
}

/// The kernels that this machine has. AVX-512's wider registers would pay for deep trees alone, and there by less than a tenth;
/// they cost up to half where trees are few or small (tried on an Intel Xeon).
#[cfg(target_arch = "x86_64")]
pub(super) fn kernels<S: Leaf>() -> Vec<&'static dyn ByteWalk<S>> {
    let avx2 = avx2::Avx2::detect().map(|kernel| kernel as &dyn ByteWalk<S>);
    avx2.into_iter().collect()
}

/// The kernels that this machine has.
#[cfg(target_arch = "aarch64")]
pub(super) fn kernels<S: Leaf>() -> Vec<&'static dyn ByteWalk<S>> {
    let neon = neon::Neon::detect().map(|kernel| kernel as &dyn ByteWalk<S>);
    neon.into_iter().collect()
}

/// The kernels that this machine has.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn kernels<S: Leaf>() -> Vec<&'static dyn ByteWalk<S>> {
    Vec::new()
}
