//! The kernel that runs everywhere: sixteen trees in turn, so that their cache misses overlap.

use super::kernel::{LANES, NodeWord, Trees, Walk};
use std::ops::Range;

/// Walks in plain Rust.
#[derive(Debug)]
pub(super) struct Scalar;

impl<N: NodeWord> Walk<N> for Scalar {
    fn name(&self) -> &'static str {
        "scalar"
    }

    fn add(&self, trees: &Trees<N>, blocks: Range<usize>, ranks: &[N::Rank], sums: &mut [f32]) {
        let ranks = N::view(ranks);
        let nodes = trees.nodes.as_slice();
        for block in &trees.blocks[blocks] {
            let mut at = [0; LANES];
            for lane in 0..LANES {
                let mut path = 0;
                for _ in 0..2 {
                    path = 2 * path + 1 + usize::from(block.top[path][lane].goes_right(ranks));
                }
                at[lane] = block.roots[lane] + block.top[path][lane].next(ranks);
            }
            for _ in 0..block.steps {
                for lane in 0..LANES {
                    at[lane] = block.roots[lane] + nodes[at[lane] as usize].next(ranks);
                }
            }
            for lane in 0..block.count {
                sums[block.outputs[lane] as usize] += trees.values[at[lane] as usize];
            }
        }
    }
}
