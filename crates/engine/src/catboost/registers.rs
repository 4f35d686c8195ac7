//! The walk through symmetric trees, compiled for the widest registers that the processor has.
//!
//! A question to a block of rows is one comparison of bytes; what differs is how many of them are in a register.

use super::symmetric::{ROWS, Symmetric};

/// Adds the leaves that a block of ranked rows reaches.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "calls of functions for instructions that the processor was just found to have"
)]
pub(super) fn add(trees: &Symmetric, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") {
        // SAFETY: the processor has the instructions.
        unsafe { add_avx512(trees, ranks, sums) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        unsafe { add_avx2(trees, ranks, sums) }
    } else {
        trees.add_ranked(ranks, sums);
    }
}

/// Adds the leaves that a block of ranked rows reaches.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn add(trees: &Symmetric, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
    trees.add_ranked(ranks, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512bw,avx512vl")]
fn add_avx512(trees: &Symmetric, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
    trees.add_ranked(ranks, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn add_avx2(trees: &Symmetric, ranks: &[[u8; ROWS]], sums: &mut [f64]) {
    trees.add_ranked(ranks, sums);
}
