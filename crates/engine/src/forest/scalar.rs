//! The kernel that runs everywhere: sixteen trees in turn, so that their cache misses overlap.

use super::kernel::{Block, LANES, NodeWord, Sum, Trees, ValueWord, Walk, add_leaves};
use std::ops::Range;

/// Walks in plain Rust.
#[derive(Debug)]
pub(super) struct Scalar;

impl<S: Sum, N: ValueWord<S>> Walk<N, S> for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn add(&self, trees: &Trees<N>, blocks: Range<usize>, ranks: &[N::Rank], sums: &mut [S]) {
        let ranks = N::view(ranks);
        let words = trees.words.as_slice();
        for block in &trees.blocks[blocks] {
            let mut at = block.roots;
            for (lane, at) in at.iter_mut().enumerate() {
                *at += walk_top(block, lane, ranks).next(ranks);
            }
            for _ in 0..block.steps {
                for lane in 0..LANES {
                    at[lane] = block.roots[lane] + words[at[lane] as usize].next(ranks);
                }
            }
            add_leaves(block, &at.map(|at| N::read_value(words, at as usize)), sums);
        }
    }
}

/// The node of the third level that a row meets in one of the trees.
#[inline]
fn walk_top<N: NodeWord>(block: &Block<N>, lane: usize, ranks: &[N::Rank]) -> N {
    let first = usize::from(block.top[0][lane].goes_right(ranks));
    let second = usize::from(block.top[1 + first][lane].goes_right(ranks));
    block.top[3 + 2 * first + second][lane]
}
