//! The walk with AVX-512: sixteen trees in a register, four registers in flight.
//!
//! Node words are gathered; ranks are not: up to 64 of them, shortened to 16 bits, stay in two
//! registers, and a permutation looks sixteen of them up at once (`vpermt2w`).

#![expect(
    unsafe_code,
    reason = "gathers read through pointers, and the processor must be able to"
)]

use super::kernel::{
    Block, LANES, Narrow, Sum, TOP, Trees, VALUE_OFFSET, ValueWord, Walk, add_leaves,
};
use std::arch::x86_64::*;
use std::ops::Range;

/// Ranks that two registers hold.
pub(super) const SLOTS_MAX: usize = 64;

/// Blocks that are walked at the same time, so that their gathers overlap.
const IN_FLIGHT: usize = 4;

/// Blocks whose leaves are collected before they are added, 1 or 2 KB of them.
const COLLECTED: usize = 16;

/// Walks with AVX-512. It exists only if the processor has it.
#[derive(Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The kernel, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        static KERNEL: Avx512 = Avx512(());
        let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        able.then_some(&KERNEL)
    }
}

impl<S: Leaf> Walk<Narrow, S> for Avx512
where
    Narrow: ValueWord<S>,
{
    fn name(&self) -> &'static str {
        "avx-512"
    }

    fn add(&self, trees: &Trees<Narrow>, blocks: Range<usize>, ranks: &[u32], sums: &mut [S]) {
        // SAFETY: `detect` is the only maker of `self` and has found both features.
        unsafe { add(trees, &trees.blocks[blocks], ranks, sums) }
    }
}

/// A type of leaves that can be fetched for all lanes at once.
pub(super) trait Leaf: Sum {
    /// Fetches the values of the leaves at `at`.
    ///
    /// # Safety
    /// The processor must have AVX-512F, and `at` must be places of leaves whose values, of this
    /// type, are inside `words`.
    unsafe fn fetch(words: *const i32, at: __m512i, leaves: &mut [Self; LANES]);
}

impl Leaf for f32 {
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn fetch(words: *const i32, at: __m512i, leaves: &mut [Self; LANES]) {
        let at = _mm512_add_epi32(at, _mm512_set1_epi32(VALUE_OFFSET as i32));
        // SAFETY: the caller promises that the values are inside `words`; the array is 64 bytes, and
        // the store asks for no alignment.
        unsafe {
            let values = _mm512_i32gather_epi32::<4>(at, words);
            _mm512_storeu_si512(leaves.as_mut_ptr().cast(), values);
        }
    }
}

impl Leaf for f64 {
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn fetch(words: *const i32, at: __m512i, leaves: &mut [Self; LANES]) {
        let offset = _mm512_set1_epi32(VALUE_OFFSET as i32);
        let low = _mm512_add_epi32(at, offset);
        // SAFETY: the caller promises that both words of the values are inside `words`.
        let (low, high) = unsafe {
            (
                _mm512_i32gather_epi32::<4>(low, words),
                _mm512_i32gather_epi32::<4>(_mm512_add_epi32(low, offset), words),
            )
        };
        let join = |low, high| {
            let high = _mm512_slli_epi64::<32>(_mm512_cvtepu32_epi64(high));
            _mm512_or_si512(_mm512_cvtepu32_epi64(low), high)
        };
        let first = join(_mm512_castsi512_si256(low), _mm512_castsi512_si256(high));
        let second = join(
            _mm512_extracti64x4_epi64::<1>(low),
            _mm512_extracti64x4_epi64::<1>(high),
        );
        let (halves, _) = leaves.as_chunks_mut::<{ LANES / 2 }>();
        // SAFETY: each half is 64 bytes, and the store asks for no alignment.
        unsafe {
            _mm512_storeu_si512(halves[0].as_mut_ptr().cast(), first);
            _mm512_storeu_si512(halves[1].as_mut_ptr().cast(), second);
        }
    }
}

/// # Panics
/// If `ranks` is shorter than [`SLOTS_MAX`], a place does not fit the index of a gather, or the
/// leaves are of another type.
#[target_feature(enable = "avx512f,avx512bw")]
fn add<S: Leaf>(trees: &Trees<Narrow>, blocks: &[Block<Narrow>], ranks: &[u32], sums: &mut [S])
where
    Narrow: ValueWord<S>,
{
    assert!(
        i32::try_from(trees.words.len()).is_ok(),
        "too many words for a gather"
    );
    assert_eq!(
        trees.value_words,
        Narrow::VALUE_WORDS,
        "leaves of another type"
    );
    let ranks = pack(ranks);
    // Leaves are collected first: sums wait for each other and would leave no room in the
    // processor's queue for the walks that follow.
    let mut leaves = [[S::default(); LANES]; COLLECTED];
    for blocks in blocks.chunks(COLLECTED) {
        let (groups, rest) = blocks.as_chunks::<IN_FLIGHT>();
        let (leaf_groups, _) = leaves.as_chunks_mut::<IN_FLIGHT>();
        for (group, leaves) in groups.iter().zip(&mut *leaf_groups) {
            walk(trees, group, ranks, leaves);
        }
        let leaf_rest = leaf_groups[groups.len()..].as_flattened_mut();
        for (block, leaves) in rest.iter().zip(leaf_rest) {
            walk(
                trees,
                std::array::from_ref(block),
                ranks,
                std::array::from_mut(leaves),
            );
        }
        for (block, leaves) in blocks.iter().zip(&leaves) {
            add_leaves(block, leaves, sums);
        }
    }
}

/// Shortens 64 ranks to the 16 highest bits, of which they use twelve.
#[target_feature(enable = "avx512f,avx512bw")]
fn pack(ranks: &[u32]) -> [__m512i; 2] {
    let (chunks, _) = ranks[..SLOTS_MAX].as_chunks::<LANES>();
    // Masked, because a rank beyond the highest would lead a walk out of its leaf.
    let highest = _mm512_set1_epi32(0xFFF0);
    let half = |chunk: &[u32; LANES]| {
        _mm512_cvtepi32_epi16(_mm512_and_si512(
            _mm512_srli_epi32::<16>(load(chunk)),
            highest,
        ))
    };
    let pair = |a, b| _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(a)), half(b));
    [pair(&chunks[0], &chunks[1]), pair(&chunks[2], &chunks[3])]
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> __m512i {
    // SAFETY: the array is 64 bytes, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Walks some blocks at once and writes the values of the leaves.
#[target_feature(enable = "avx512f,avx512bw")]
fn walk<S: Leaf, const BLOCKS: usize>(
    trees: &Trees<Narrow>,
    blocks: &[Block<Narrow>; BLOCKS],
    ranks: [__m512i; 2],
    leaves: &mut [[S; LANES]; BLOCKS],
) {
    let words: *const i32 = trees.words.as_ptr().cast();
    let mut roots = [_mm512_setzero_si512(); BLOCKS];
    let mut at = roots;
    let mut steps = 0;
    for (index, block) in blocks.iter().enumerate() {
        roots[index] = load(&block.roots);
        at[index] = next(walk_top(&block.top, ranks), roots[index], ranks);
        steps = steps.max(block.steps);
    }
    for _ in 0..steps {
        for (at, root) in at.iter_mut().zip(&roots) {
            // SAFETY: `at` are places inside `words` by the invariant of `Trees`, `pack` having
            // limited the ranks, and `add` has checked that they fit.
            let nodes = unsafe { _mm512_i32gather_epi32::<4>(*at, words) };
            *at = next(nodes, *root, ranks);
        }
    }
    for (at, leaves) in at.iter().zip(leaves) {
        // SAFETY: `at` are leaves now, whose values are inside `words` by the same invariant, and of
        // type `S`, which `add` has checked.
        unsafe { S::fetch(words, *at, leaves) }
    }
}

/// The words of the third level that a row meets.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn walk_top(top: &[[Narrow; LANES]; TOP], ranks: [__m512i; 2]) -> __m512i {
    let words = |place: usize| load(&top[place].map(|word| word.0));
    let first = goes_right(words(0), ranks);
    let second = goes_right(_mm512_mask_blend_epi32(first, words(1), words(2)), ranks);
    let left = _mm512_mask_blend_epi32(second, words(3), words(4));
    let right = _mm512_mask_blend_epi32(second, words(5), words(6));
    _mm512_mask_blend_epi32(first, left, right)
}

/// Places of the next nodes in `nodes`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn next(words: __m512i, roots: __m512i, ranks: [__m512i; 2]) -> __m512i {
    let children = _mm512_add_epi32(_mm512_and_si512(words, _mm512_set1_epi32(0xFFF)), roots);
    let right = goes_right(words, ranks);
    _mm512_mask_add_epi32(children, right, children, _mm512_set1_epi32(1))
}

/// Where a row's rank is greater than the node's.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn goes_right(words: __m512i, [low, high]: [__m512i; 2]) -> __mmask16 {
    // Four bits up, the slot is where the permutation looks for the index of the upper halves;
    // what is above its six bits is ignored. The lower halves become zero.
    let slots = _mm512_slli_epi32::<4>(words);
    let ranks = _mm512_maskz_permutex2var_epi16(0xAAAA_AAAA, low, slots, high);
    _mm512_cmpgt_epu32_mask(ranks, words)
}
