//! What a kernel walks: node words, blocks of trees, and the trait that kernels implement.
//!
//! A node word holds the rank of its threshold in its highest bits and, below, the slot of the
//! feature and the place of its left child in the tree; the right child is next to it. With a
//! value's rank in the same highest bits, `next = child + (rank > word)` is one comparison of
//! whole words, because the lower bits can only make the word greater. A leaf is its own child and
//! its rank field is all ones, which no rank exceeds: a walk that has reached it stays there.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Range};

/// Trees that are walked together.
pub(super) const LANES: usize = 16;

/// A packed node.
pub(crate) trait NodeWord: Copy + Debug + Send + Sync + 'static {
    /// A rank, shifted to where a node has its own.
    type Rank: Copy + Default + Debug + Ord;

    const BYTES: usize = size_of::<Self>();
    /// The highest rank a value may have.
    const RANK_MAX: u32;
    /// How many slots a node can distinguish.
    const SLOTS_MAX: usize;
    /// How many words a tree may take.
    const WORDS_MAX: usize;
    /// How many ranks a kernel may read, starting with the first of a row.
    const RANKS_MIN: usize;

    fn split(rank: u32, slot: u32, child: u32) -> Self;
    fn leaf(own: u32) -> Self;
    fn rank(rank: u32) -> Self::Rank;
    /// The ranks a node may ask for; where that is a fixed number, `next` needs no bounds check.
    fn view(ranks: &[Self::Rank]) -> &[Self::Rank];
    /// Place of the left child in the tree, or of the leaf itself.
    fn child(self) -> u32;
    /// Whether a row goes right.
    fn goes_right(self, ranks: &[Self::Rank]) -> bool;
    /// Place of the next node in the tree.
    #[inline]
    fn next(self, ranks: &[Self::Rank]) -> u32 {
        self.child() + u32::from(self.goes_right(ranks))
    }
}

/// Four bytes: rank 12 bits, slot 8, child 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Narrow(pub(super) u32);

impl NodeWord for Narrow {
    type Rank = u32;
    const RANK_MAX: u32 = 0xFFF;
    const SLOTS_MAX: usize = 1 << 8;
    const WORDS_MAX: usize = 1 << 12;
    const RANKS_MIN: usize = Self::SLOTS_MAX;

    fn split(rank: u32, slot: u32, child: u32) -> Self {
        debug_assert!(rank < Self::RANK_MAX && slot < 1 << 8 && child < 1 << 12);
        Self(rank << 20 | slot << 12 | child)
    }

    fn leaf(own: u32) -> Self {
        debug_assert!(own < 1 << 12);
        Self(Self::RANK_MAX << 20 | own)
    }

    fn rank(rank: u32) -> u32 {
        rank << 20
    }

    #[inline]
    fn view(ranks: &[u32]) -> &[u32] {
        &ranks[..Self::SLOTS_MAX]
    }

    #[inline]
    fn child(self) -> u32 {
        self.0 & 0xFFF
    }

    #[inline]
    fn goes_right(self, ranks: &[u32]) -> bool {
        ranks[(self.0 >> 12 & 0xFF) as usize] > self.0
    }
}

/// Eight bytes: rank 24 bits, slot 16, child 24.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wide(u64);

impl NodeWord for Wide {
    type Rank = u64;
    const RANK_MAX: u32 = 0xFF_FFFF;
    const SLOTS_MAX: usize = 1 << 16;
    const WORDS_MAX: usize = 1 << 24;
    const RANKS_MIN: usize = 1;

    fn split(rank: u32, slot: u32, child: u32) -> Self {
        debug_assert!(rank < Self::RANK_MAX && slot < 1 << 16 && child < 1 << 24);
        Self(u64::from(rank) << 40 | u64::from(slot) << 24 | u64::from(child))
    }

    fn leaf(own: u32) -> Self {
        debug_assert!(own < 1 << 24);
        Self(u64::from(Self::RANK_MAX) << 40 | u64::from(own))
    }

    fn rank(rank: u32) -> u64 {
        u64::from(rank) << 40
    }

    #[inline]
    fn view(ranks: &[u64]) -> &[u64] {
        ranks
    }

    #[inline]
    fn child(self) -> u32 {
        (self.0 & 0xFF_FFFF) as u32
    }

    #[inline]
    fn goes_right(self, ranks: &[u64]) -> bool {
        ranks[(self.0 >> 24 & 0xFFFF) as usize] > self.0
    }
}

/// How far behind a leaf its value is: a pair of siblings of which one is a leaf is followed by
/// their two values, so that these are in the cache by the time a walk reaches the leaf. The second
/// word of a value that takes two is the same distance behind its first.
pub(super) const VALUE_OFFSET: usize = 2;

/// The type of leaves and of their sums.
pub(crate) trait Sum:
    Copy + Default + Debug + Add<Output = Self> + AddAssign + Send + Sync + 'static
{
    /// The nearest number of this type.
    fn nearest(value: f64) -> Self;
    /// The kernels for four-byte nodes that this machine has, the fastest first.
    fn narrow_kernels(slots: usize) -> Vec<&'static dyn Walk<Narrow, Self>>;
}

impl Sum for f32 {
    fn nearest(value: f64) -> Self {
        value as Self
    }

    fn narrow_kernels(slots: usize) -> Vec<&'static dyn Walk<Narrow, Self>> {
        narrow_kernels(slots)
    }
}

impl Sum for f64 {
    fn nearest(value: f64) -> Self {
        value
    }

    fn narrow_kernels(slots: usize) -> Vec<&'static dyn Walk<Narrow, Self>> {
        narrow_kernels(slots)
    }
}

#[cfg(target_arch = "x86_64")]
fn narrow_kernels<S: super::avx512::Leaf>(slots: usize) -> Vec<&'static dyn Walk<Narrow, S>>
where
    Narrow: ValueWord<S>,
{
    let mut kernels: Vec<&dyn Walk<Narrow, S>> = vec![&super::scalar::Scalar];
    if let Some(kernel) = super::avx512::Avx512::detect()
        && slots <= super::avx512::SLOTS_MAX
    {
        kernels.insert(0, kernel);
    }
    kernels
}

#[cfg(not(target_arch = "x86_64"))]
fn narrow_kernels<S: Sum>(_: usize) -> Vec<&'static dyn Walk<Narrow, S>>
where
    Narrow: ValueWord<S>,
{
    vec![&super::scalar::Scalar]
}

/// Words that also hold the values of leaves, of type `S`.
pub(crate) trait ValueWord<S>: NodeWord {
    /// Words a value takes.
    const VALUE_WORDS: usize;

    /// Writes the value of the leaf at `leaf`.
    fn write_value(words: &mut [Self], leaf: usize, value: S);
    /// Reads the value of the leaf at `leaf`.
    fn read_value(words: &[Self], leaf: usize) -> S;
}

impl ValueWord<f32> for Narrow {
    const VALUE_WORDS: usize = 1;

    fn write_value(words: &mut [Self], leaf: usize, value: f32) {
        words[leaf + VALUE_OFFSET] = Self(value.to_bits());
    }

    #[inline]
    fn read_value(words: &[Self], leaf: usize) -> f32 {
        f32::from_bits(words[leaf + VALUE_OFFSET].0)
    }
}

impl ValueWord<f64> for Narrow {
    const VALUE_WORDS: usize = 2;

    fn write_value(words: &mut [Self], leaf: usize, value: f64) {
        let bits = value.to_bits();
        words[leaf + VALUE_OFFSET] = Self(bits as u32);
        words[leaf + 2 * VALUE_OFFSET] = Self((bits >> 32) as u32);
    }

    #[inline]
    fn read_value(words: &[Self], leaf: usize) -> f64 {
        let low = u64::from(words[leaf + VALUE_OFFSET].0);
        let high = u64::from(words[leaf + 2 * VALUE_OFFSET].0);
        f64::from_bits(high << 32 | low)
    }
}

impl ValueWord<f32> for Wide {
    const VALUE_WORDS: usize = 1;

    fn write_value(words: &mut [Self], leaf: usize, value: f32) {
        words[leaf + VALUE_OFFSET] = Self(u64::from(value.to_bits()));
    }

    #[inline]
    fn read_value(words: &[Self], leaf: usize) -> f32 {
        f32::from_bits(words[leaf + VALUE_OFFSET].0 as u32)
    }
}

impl ValueWord<f64> for Wide {
    const VALUE_WORDS: usize = 1;

    fn write_value(words: &mut [Self], leaf: usize, value: f64) {
        words[leaf + VALUE_OFFSET] = Self(value.to_bits());
    }

    #[inline]
    fn read_value(words: &[Self], leaf: usize) -> f64 {
        f64::from_bits(words[leaf + VALUE_OFFSET].0)
    }
}

/// Compiled trees.
///
/// Invariant: from every root of a block, any number of steps with ranks up to
/// [`NodeWord::RANK_MAX`] ends at a node inside `words`, and after a block's steps at a leaf whose
/// value is inside too. Kernels rely on it; only `compile` makes this type.
#[derive(Debug)]
pub(crate) struct Trees<N> {
    /// Nodes and values of leaves.
    pub(super) words: Vec<N>,
    pub(super) blocks: Vec<Block<N>>,
    /// Words that the value of a leaf takes.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(dead_code, reason = "only kernels that read without checks ask for it")
    )]
    pub(super) value_words: usize,
}

/// Nodes in the first three levels of a tree.
pub(super) const TOP: usize = 7;

/// Up to [`LANES`] consecutive trees.
#[derive(Debug)]
pub(crate) struct Block<N> {
    /// Copies of the first three levels, node by node: the children of `top[i]` are `top[2 i + 1]`
    /// and `top[2 i + 2]`, a leaf being its own. These levels are read for every row, and here the
    /// trees have them side by side.
    pub(super) top: [[N; LANES]; TOP],
    /// Place of each root in `words`; lanes beyond `count` repeat the last tree.
    pub(super) roots: [u32; LANES],
    /// Which sum each tree adds to.
    pub(super) outputs: [u32; LANES],
    /// How many lanes count.
    pub(super) count: usize,
    /// Steps after `top` until every walk has reached its leaf.
    pub(super) steps: u32,
}

impl<N> Trees<N> {
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.words[..]) + size_of_val(&self.blocks[..])
    }
}

/// A way to walk trees whose leaves are of type `S`.
pub(crate) trait Walk<N: NodeWord, S>: Debug + Send + Sync {
    /// Name for display.
    fn name(&self) -> &'static str;

    /// Adds the leaves that one row reaches in some blocks of trees to its sums, in the order of
    /// the trees. `ranks` begins with the row's ranks and has at least [`NodeWord::RANKS_MIN`]
    /// elements more than its slots need.
    fn add(&self, trees: &Trees<N>, blocks: Range<usize>, ranks: &[N::Rank], sums: &mut [S]);
}

/// Adds the leaves of a block's trees, in the order of the trees.
#[inline]
pub(super) fn add_leaves<N, S: Sum>(block: &Block<N>, leaves: &[S; LANES], sums: &mut [S]) {
    let leaves = leaves.iter().take(block.count);
    if let [sum] = sums {
        // A sum in a register does not have to wait for its last store.
        *sum = leaves.fold(*sum, |sum, leaf| sum + *leaf);
    } else {
        for (output, leaf) in block.outputs.iter().zip(leaves) {
            sums[*output as usize] += *leaf;
        }
    }
}
