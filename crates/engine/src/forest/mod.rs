//! Sums of decision trees, evaluated exactly as the training library does and as fast as memory
//! allows.
//!
//! A tree asks `x < threshold` again and again, about few features. All thresholds of a feature
//! are sorted once; the **rank** of a value is `#{t ≤ x}`, and `x < t_i ⇔ rank ≤ i`. Where a
//! library compares with `≤`, the rank is `#{t < x}`, and `x ≤ t_i ⇔ rank ≤ i`; nothing else
//! differs. So a row is ranked once, by one binary search per feature, and the trees compare small
//! integers: a node fits into four bytes and the whole model into the second-level cache. Ranks
//! lose nothing, so the leaves reached are those of the floating-point comparison, and they are
//! added in the order of the trees, in the library's precision, so sums are bit-identical too.
//!
//! A missing value follows each node's default direction. A feature whose nodes do not agree on
//! it takes two **slots**, one per direction: a missing value has rank 0 in the one (below every
//! threshold: left) and the highest rank in the other (right), a present value the same in both.
//!
//! This module knows no file format; loaders give it [`Tree`]s.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod compile;
mod kernel;
mod rank;
mod scalar;
#[cfg(test)]
mod tests;

use crate::Rows;
use crate::signature::Precision;
use kernel::{Narrow, NodeWord, Sum, Trees, ValueWord, Walk, Wide};
use rank::Ranker;
use std::cell::RefCell;

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
pub(crate) struct TooLarge(&'static str);

/// Trees in the form they are evaluated in; leaves and sums are of type `S`.
#[derive(Debug)]
pub(crate) struct Forest<S: Sum> {
    ranker: Ranker,
    body: Body<S>,
    trees: usize,
}

#[derive(Debug)]
enum Body<S: Sum> {
    Narrow(Trees<Narrow>, &'static dyn Walk<Narrow, S>),
    Wide(Trees<Wide>, &'static dyn Walk<Wide, S>),
}

impl<S: Sum> Forest<S>
where
    Narrow: ValueWord<S>,
    Wide: ValueWord<S>,
{
    /// Compiles trees, choosing node size and kernel.
    pub(crate) fn new(trees: &[Tree], rules: Rules) -> Result<Self, TooLarge> {
        let ranker = Ranker::new(trees, rules)?;
        let body = if compile::fits::<S, Narrow>(&ranker, trees) {
            let compiled = compile::compile(&ranker, trees)?;
            Body::Narrow(compiled, S::narrow_kernel(ranker.slots()))
        } else if compile::fits::<S, Wide>(&ranker, trees) {
            Body::Wide(compile::compile(&ranker, trees)?, &scalar::Scalar)
        } else {
            return Err(TooLarge(
                "more than 65,536 features, 16 million thresholds of a feature, or 16 million \
                 nodes and leaves of a tree",
            ));
        };
        Ok(Self {
            ranker,
            body,
            trees: trees.len(),
        })
    }

    /// What was chosen, for display.
    pub(crate) fn description(&self) -> String {
        let (node_bytes, kernel) = match &self.body {
            Body::Narrow(_, kernel) => (Narrow::BYTES, kernel.name()),
            Body::Wide(_, kernel) => (Wide::BYTES, kernel.name()),
        };
        format!(
            "{} trees, {node_bytes}-byte rank nodes, {kernel}",
            self.trees
        )
    }

    /// Memory of the compiled trees and thresholds, in bytes.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.ranker.bytes()
            + match &self.body {
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
            static NARROW: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
            static WIDE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
        }
        assert_eq!(
            sums.len(),
            rows.len() * outputs,
            "sums do not match the rows"
        );
        match &self.body {
            Body::Narrow(trees, kernel) => NARROW.with_borrow_mut(|ranks| {
                add_blocks(&self.ranker, trees, *kernel, rows, sums, outputs, ranks);
            }),
            Body::Wide(trees, kernel) => WIDE.with_borrow_mut(|ranks| {
                add_blocks(&self.ranker, trees, *kernel, rows, sums, outputs, ranks);
            }),
        }
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
