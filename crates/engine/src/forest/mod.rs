//! Sums of decision trees, evaluated exactly as the training library does and as fast as memory
//! allows.
//!
//! A tree asks `x < threshold` again and again, about few features. All thresholds of a feature
//! are sorted once; the **rank** of a value is `#{t ≤ x}`, and `x < t_i ⇔ rank ≤ i`. Where a
//! library compares with `≤`, the rank is `#{t < x}`, and `x ≤ t_i ⇔ rank ≤ i`; nothing else
//! differs. So a row is ranked once, by one binary search per feature, and the trees compare small
//! integers: a node fits into two to four bytes and the whole model into the second-level cache. Ranks
//! lose nothing, so the leaves reached are those of the floating-point comparison, and they are
//! added in the order of the trees, in the library's precision, so sums are bit-identical too.
//!
//! A missing value follows each node's default direction. A feature whose nodes do not agree on
//! it takes two **slots**, one per direction: a missing value has rank 0 in the one (below every
//! threshold: left) and the highest rank in the other (right), a present value the same in both.
//!
//! Compiled trees have one of three forms. Where the processor shuffles bytes, [`bytes`] serves all but
//! models of very many features or thresholds; node words of four or eight bytes serve the rest, and
//! every other processor.
//!
//! This module knows no file format; loaders give it [`Tree`]s.

#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod blocks;
mod bytes;
mod compile;
mod kernel;
mod rank;
mod scalar;
#[cfg(test)]
mod tests;
pub(crate) mod widest;

use crate::Rows;
use crate::signature::Precision;
use bytes::{ByteTrees, ByteWalk, Leaf, RowRanks};
pub(crate) use kernel::Sum;
use kernel::{Narrow, NodeWord, Trees, ValueWord, Walk, Wide};
use rank::Ranker;
use std::cell::{Cell, RefCell};

/// Rows that are ranked together; their ranks and sums stay in the first-level cache.
const ROWS_PER_BLOCK: usize = 64;

/// Blocks of trees that a block of rows goes through before the next ones: about 32 KB of nodes.
const BLOCKS_PER_PASS: usize = 4;

/// A node of a binary decision tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Node {
    /// Adds its value, which is exact in the precision of the sums.
    Leaf(f64),
    /// Values below the threshold go left, `NaN` to the default side. The threshold is exact in
    /// the precision of the inputs.
    Split {
        feature: u32,
        threshold: f64,
        default_left: bool,
        left: u32,
        right: u32,
    },
}

/// A decision tree whose root is node 0. Children are nodes of the same tree, no node is reached
/// twice, thresholds and leaves are not `NaN`: the loader has checked it.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    /// Which sum of a row the leaves add to.
    pub(crate) output: u32,
}

/// How a library evaluates its trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Features in a row.
    pub(crate) width: usize,
    /// What a value is rounded to before it is compared.
    pub(crate) inputs: Precision,
    /// Whether a value that equals the threshold goes left (`≤`) or right (`<`).
    pub(crate) equal_goes_left: bool,
}

/// Why trees cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the model is too large: {0}")]
pub(crate) struct TooLarge(pub(crate) &'static str);

/// Trees in the form they are evaluated in; leaves and sums are of type `S`.
#[derive(Debug)]
pub(crate) struct Forest<S: Sum> {
    ranker: Ranker,
    body: Body<S>,
    trees: usize,
}

#[derive(Debug)]
enum Body<S: Sum> {
    Bytes(ByteTrees<S>, &'static dyn ByteWalk<S>),
    Narrow(Trees<Narrow>, &'static dyn Walk<Narrow, S>),
    Wide(Trees<Wide>, &'static dyn Walk<Wide, S>),
}

impl<S: Sum> Body<S> {
    /// What holds the trees, and the kernel that walks them.
    fn description(&self) -> String {
        match self {
            Self::Bytes(_, kernel) => format!("byte ranks, {}", kernel.name()),
            Self::Narrow(_, kernel) => node_description(Narrow::BYTES, kernel.name()),
            Self::Wide(_, kernel) => node_description(Wide::BYTES, kernel.name()),
        }
    }
}

fn node_description(bytes: usize, kernel: &str) -> String {
    format!("{bytes}-byte rank nodes, {kernel}")
}

thread_local! {
    static FORCED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Loads models whose forests are walked by a kernel that the caller chooses, for tests and
/// measurements. `kernel` is the end of an engine's description, such as `4-byte rank nodes, scalar`. A
/// forest that cannot be walked so gets the kernel it always gets; its description tells.
#[doc(hidden)]
pub fn with_kernel<R>(kernel: &'static str, load: impl FnOnce() -> R) -> R {
    let before = FORCED.replace(Some(kernel));
    let loaded = load();
    FORCED.set(before);
    loaded
}

impl<S: Leaf> Forest<S>
where
    Narrow: ValueWord<S>,
    Wide: ValueWord<S>,
{
    /// Compiles trees, choosing their form and kernel.
    pub(crate) fn new(trees: &[Tree], rules: Rules) -> Result<Self, TooLarge> {
        let ranker = Ranker::new(trees, rules)?;
        let forced = FORCED.get().and_then(|kernel| {
            let mut bodies = bodies(&ranker, trees);
            bodies.find(|body| body.description() == kernel)
        });
        let body = forced.or_else(|| bodies(&ranker, trees).next());
        let body = body.ok_or(TooLarge(
            "more than 65,536 features, 16 million thresholds of a feature, 16 million nodes and \
             leaves of a tree, or 2 billion of all trees",
        ))?;
        Ok(Self {
            ranker,
            body,
            trees: trees.len(),
        })
    }

    /// What was chosen, for display.
    pub(crate) fn description(&self) -> String {
        format!("{} trees, {}", self.trees, self.body.description())
    }

    /// Memory of the compiled trees and thresholds, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.ranker.bytes()
            + match &self.body {
                Body::Bytes(trees, _) => trees.bytes(),
                Body::Narrow(trees, _) => trees.bytes(),
                Body::Wide(trees, _) => trees.bytes(),
            }
    }

    /// Adds the leaves every row reaches to `sums`, `outputs` values per row, in the order of the
    /// trees.
    ///
    /// # Panics
    /// If `sums` is not `rows.len() × outputs` long, or a tree adds to an output beyond them.
    pub(crate) fn add(&self, rows: Rows<'_>, sums: &mut [S], outputs: usize) {
        thread_local! {
            static BYTES: RefCell<Vec<RowRanks>> = const { RefCell::new(Vec::new()) };
            static NARROW: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
            static WIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        }
        assert_eq!(
            sums.len(),
            rows.len() * outputs,
            "sums do not match the rows"
        );
        match &self.body {
            Body::Bytes(trees, kernel) => BYTES.with_borrow_mut(|ranks| {
                add_bytes(&self.ranker, trees, *kernel, rows, sums, outputs, ranks);
            }),
            Body::Narrow(trees, kernel) => NARROW.with_borrow_mut(|ranks| {
                add_blocks(&self.ranker, trees, *kernel, rows, sums, outputs, ranks);
            }),
            Body::Wide(trees, kernel) => WIDE.with_borrow_mut(|ranks| {
                add_blocks(&self.ranker, trees, *kernel, rows, sums, outputs, ranks);
            }),
        }
    }
}

/// Every form and kernel that this machine has for trees, the fastest first.
fn bodies<'a, S: Leaf>(ranker: &'a Ranker, trees: &'a [Tree]) -> impl Iterator<Item = Body<S>> + 'a
where
    Narrow: ValueWord<S>,
    Wide: ValueWord<S>,
{
    let bytes = bytes::kernels().into_iter().filter_map(|kernel| {
        let compiled = bytes::compile(ranker, trees)?;
        Some(Body::Bytes(compiled, kernel))
    });
    let narrow = S::narrow_kernels(ranker.slots()).into_iter();
    let narrow = narrow.filter_map(|kernel| {
        let compiled = compile::compile::<S, Narrow>(ranker, trees)?;
        Some(Body::Narrow(compiled, kernel))
    });
    let wide = std::iter::once(&scalar::Scalar as &dyn Walk<Wide, S>).filter_map(|kernel| {
        let compiled = compile::compile::<S, Wide>(ranker, trees)?;
        Some(Body::Wide(compiled, kernel))
    });
    bytes.chain(narrow).chain(wide)
}

/// Passes rows through the trees, a block of them at a time.
fn add_bytes<S>(
    ranker: &Ranker,
    trees: &ByteTrees<S>,
    kernel: &dyn ByteWalk<S>,
    rows: Rows<'_>,
    sums: &mut [S],
    outputs: usize,
    ranks: &mut Vec<RowRanks>,
) {
    ranks.resize(ROWS_PER_BLOCK.min(rows.len()), [0; bytes::SLOTS_MAX]);
    let blocks = sums.chunks_mut(ROWS_PER_BLOCK * outputs);
    for (sums, first) in blocks.zip((0..).step_by(ROWS_PER_BLOCK)) {
        let ranks = &mut ranks[..sums.len() / outputs];
        for (index, ranks) in ranks.iter_mut().enumerate() {
            kernel.rank(ranker, rows.row(first + index), ranks);
        }
        kernel.add(trees, ranks, sums);
    }
}

/// Passes blocks of rows through blocks of trees, so that the trees are read from the cache.
fn add_blocks<N: NodeWord, S>(
    ranker: &Ranker,
    trees: &Trees<N>,
    kernel: &dyn Walk<N, S>,
    rows: Rows<'_>,
    sums: &mut [S],
    outputs: usize,
    ranks: &mut Vec<N::Rank>,
) {
    let slots = ranker.slots();
    let rows_per_block = ROWS_PER_BLOCK.min(rows.len());
    ranks.resize(rows_per_block * slots + N::RANKS_MIN, N::Rank::default());
    for (block, sums) in sums.chunks_mut(rows_per_block.max(1) * outputs).enumerate() {
        let first = block * rows_per_block;
        let count = sums.len() / outputs;
        for index in 0..count {
            ranker.rank::<N>(
                rows.row(first + index),
                &mut ranks[index * slots..][..slots],
            );
        }
        // A single row has nothing to share a pass with.
        let pass = if count == 1 {
            trees.blocks.len().max(1)
        } else {
            BLOCKS_PER_PASS
        };
        for start in (0..trees.blocks.len()).step_by(pass) {
            let end = (start + pass).min(trees.blocks.len());
            for (index, sums) in sums.chunks_exact_mut(outputs).enumerate() {
                kernel.add(trees, start..end, &ranks[index * slots..], sums);
            }
        }
    }
}
