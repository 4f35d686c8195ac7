//! Byte ranks with AVX2: 32 trees in a register, four lines in a comparison.

#![expect(
    unsafe_code,
    reason = "the processor must have the instructions, and lines are loaded through pointers"
)]

use super::super::rank::Ranker;
use super::walk::{self, Node, Ranks};
use super::{ByteTrees, ByteWalk, LANES, Leaf, Line, Offsets, Place, RowRanks};
use std::arch::x86_64::*;

/// Walks with AVX2. It exists only if the processor has it.
#[derive(Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// The kernel, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        static KERNEL: Avx2 = Avx2(());
        let able = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
        able.then_some(&KERNEL)
    }
}

impl<S: Leaf> ByteWalk<S> for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn rank(&self, ranker: &Ranker, row: &[f64], ranks: &mut RowRanks) {
        // SAFETY: `detect` is the only maker of `self` and has found the features.
        unsafe { rank(ranker, row, ranks) }
    }

    fn add(&self, trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
        // SAFETY: `detect` is the only maker of `self` and has found the feature.
        unsafe {
            match trees.slots {
                ..=32 => add::<S, 1>(trees, rows, sums),
                33..=64 => add::<S, 2>(trees, rows, sums),
                _ => add::<S, 4>(trees, rows, sums),
            }
        }
    }
}

#[target_feature(enable = "avx2,popcnt")]
fn rank(ranker: &Ranker, row: &[f64], ranks: &mut RowRanks) {
    ranker.rank_bytes(row, ranks);
}

#[target_feature(enable = "avx2")]
fn add<S: Leaf, const PAIRS: usize>(trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
    // SAFETY: this function has the feature.
    unsafe { walk::add::<InPairs<PAIRS>, S>(trees, rows, sums) }
}

/// Ranks by their slots: each 16 in both halves of a register, two registers a pair.
#[derive(Clone, Copy)]
struct InPairs<const PAIRS: usize>([[__m256i; 2]; PAIRS]);

impl<const PAIRS: usize> InPairs<PAIRS> {
    /// The ranks of the slots that codes name.
    #[inline(always)]
    fn look_up(self, codes: __m256i) -> __m256i {
        // SAFETY: `self` exists only where there is AVX2.
        unsafe {
            // A shuffle takes the lower four bits, or gives zero if the highest bit is set.
            let odd = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
            let of_pair = |index: usize| {
                let [even_ranks, odd_ranks] = self.0[index];
                _mm256_or_si256(
                    _mm256_shuffle_epi8(even_ranks, codes),
                    _mm256_shuffle_epi8(odd_ranks, odd),
                )
            };
            if PAIRS == 1 {
                return of_pair(0);
            }
            // Bit 5 of a slot chooses the pair, bit 6 the half of the pairs; a blend asks the highest.
            let bit_5 = _mm256_slli_epi16::<2>(codes);
            let low = _mm256_blendv_epi8(of_pair(0), of_pair(1), bit_5);
            if PAIRS == 2 {
                return low;
            }
            let bit_6 = _mm256_slli_epi16::<1>(codes);
            let high = _mm256_blendv_epi8(of_pair(2), of_pair(3), bit_5);
            _mm256_blendv_epi8(low, high, bit_6)
        }
    }
}

impl<const PAIRS: usize> Ranks for InPairs<PAIRS> {
    type Bytes = __m256i;
    type Mask = __m256i;
    const WIDTH: usize = 32;

    #[inline(always)]
    unsafe fn new(ranks: &RowRanks) -> Self {
        let (sixteens, _) = ranks.as_chunks::<16>();
        // SAFETY: the caller promises AVX2; a chunk is 16 bytes, and the load asks for no alignment.
        let load = |index: usize| unsafe {
            let sixteen = _mm_loadu_si128(sixteens[index].as_ptr().cast());
            _mm256_broadcastsi128_si256(sixteen)
        };
        Self(std::array::from_fn(|pair| {
            [load(2 * pair), load(2 * pair + 1)]
        }))
    }

    #[inline(always)]
    fn load(self, place: &Place, lane: usize) -> Node<Self> {
        let thresholds = &place.thresholds[lane..][..Self::WIDTH];
        let codes = &place.codes[lane..][..Self::WIDTH];
        // SAFETY: both slices are 32 bytes, and the loads ask for no alignment.
        unsafe {
            Node {
                thresholds: _mm256_loadu_si256(thresholds.as_ptr().cast()),
                codes: _mm256_loadu_si256(codes.as_ptr().cast()),
            }
        }
    }

    #[inline(always)]
    fn goes_right(self, node: Node<Self>) -> __m256i {
        // SAFETY: `self` exists only where there is AVX2.
        unsafe { _mm256_cmpgt_epi8(self.look_up(node.codes), node.thresholds) }
    }

    #[inline(always)]
    fn choose(self, mask: __m256i, left: Node<Self>, right: Node<Self>) -> Node<Self> {
        // SAFETY: `self` exists only where there is AVX2.
        unsafe {
            Node {
                thresholds: _mm256_blendv_epi8(left.thresholds, right.thresholds, mask),
                codes: _mm256_blendv_epi8(left.codes, right.codes, mask),
            }
        }
    }

    #[inline(always)]
    fn start(self) -> __m256i {
        // SAFETY: `self` exists only where there is AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn step(self, paths: __m256i, right: __m256i) -> __m256i {
        // SAFETY: `self` exists only where there is AVX2.
        unsafe { _mm256_sub_epi8(_mm256_add_epi8(paths, paths), right) }
    }

    #[inline(always)]
    fn follow(self, paths: __m256i, bases: &Offsets, lane: usize, lines: &mut Offsets) {
        let bases = bases.0[lane..][..Self::WIDTH].as_chunks::<8>().0;
        let lines = lines.0[lane..][..Self::WIDTH].as_chunks_mut::<8>().0;
        // SAFETY: `self` exists only where there is AVX2; chunks are 32 bytes, and loads and stores
        // ask for no alignment.
        unsafe {
            let low = _mm256_castsi256_si128(paths);
            let high = _mm256_extracti128_si256::<1>(paths);
            let eights = [
                low,
                _mm_srli_si128::<8>(low),
                high,
                _mm_srli_si128::<8>(high),
            ];
            for (index, eight) in eights.into_iter().enumerate() {
                let after = _mm256_slli_epi32::<LINE_SHIFT>(_mm256_cvtepu8_epi32(eight));
                let base = _mm256_loadu_si256(bases[index].as_ptr().cast());
                let sum = _mm256_add_epi32(base, after);
                _mm256_storeu_si256(lines[index].as_mut_ptr().cast(), sum);
            }
        }
    }

    #[inline(always)]
    fn compare<'a>(self, line: impl Fn(usize) -> &'a Line) -> u64 {
        // SAFETY: `self` exists only where there is AVX2; the first 16 bytes of a line are thresholds
        // and codes, and it is aligned.
        let right = unsafe {
            let nodes = |index| _mm_load_si128(std::ptr::from_ref(line(index)).cast());
            let even = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(nodes(0)), nodes(2));
            let odd = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(nodes(1)), nodes(3));
            _mm256_movemask_epi8(self.goes_right(Node {
                thresholds: _mm256_unpacklo_epi64(even, odd),
                codes: _mm256_unpackhi_epi64(even, odd),
            }))
        };
        u64::from(right as u32)
    }

    #[inline(always)]
    fn prefetch(self, line: &Line) {
        // SAFETY: every processor with AVX2 has SSE; a prefetch does not change anything.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
    }
}

/// From a number of lines to bytes.
const LINE_SHIFT: i32 = Line::BYTES.trailing_zeros() as i32;

const _: () = assert!(LANES.is_multiple_of(32));
