//! Byte ranks with AVX-512: permutations of VBMI look ranks up, masks choose, as few instructions as
//! there can be. 32 trees in a register and four lines in a comparison, as with AVX2: registers of
//! 64 bytes took longer.

#![expect(
    unsafe_code,
    reason = "the processor must have the instructions, and lines are loaded through pointers"
)]

use super::super::rank::Ranker;
use super::walk::{self, Node, Ranks};
use super::{ByteTrees, ByteWalk, LANES, Leaf, Line, Offsets, Place, RowRanks};
use std::arch::x86_64::*;

/// Walks with AVX-512. It exists only if the processor has it.
#[derive(Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// The kernel, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        static KERNEL: Avx512 = Avx512(());
        let able = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("popcnt");
        able.then_some(&KERNEL)
    }
}

impl<S: Leaf> ByteWalk<S> for Avx512 {
    fn name(&self) -> &'static str {
        "avx-512"
    }

    fn rank(&self, ranker: &Ranker, row: &[f64], ranks: &mut RowRanks) {
        // SAFETY: `detect` is the only maker of `self` and has found the features.
        unsafe { rank(ranker, row, ranks) }
    }

    fn add(&self, trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
        // SAFETY: `detect` is the only maker of `self` and has found the features.
        unsafe {
            match trees.slots {
                ..=32 => add::<S, 1>(trees, rows, sums),
                33..=64 => add::<S, 2>(trees, rows, sums),
                _ => add::<S, 4>(trees, rows, sums),
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vbmi,popcnt")]
fn rank(ranker: &Ranker, row: &[f64], ranks: &mut RowRanks) {
    ranker.rank_bytes(row, ranks);
}

#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512vbmi")]
fn add<S: Leaf, const REGISTERS: usize>(trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
    // SAFETY: this function has the features.
    unsafe { walk::add::<InRegisters<REGISTERS>, S>(trees, rows, sums) }
}

/// Ranks by their slots, 32 to a register.
#[derive(Clone, Copy)]
struct InRegisters<const REGISTERS: usize>([__m256i; REGISTERS]);

impl<const REGISTERS: usize> Ranks for InRegisters<REGISTERS> {
    type Bytes = __m256i;
    type Mask = __mmask32;
    const WIDTH: usize = 32;

    #[inline(always)]
    unsafe fn new(ranks: &RowRanks) -> Self {
        let (registers, _) = ranks.as_chunks::<32>();
        // SAFETY: the caller promises AVX-512; a chunk is 32 bytes, and the load asks for no
        // alignment.
        Self(std::array::from_fn(|index| unsafe {
            _mm256_loadu_si256(registers[index].as_ptr().cast())
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
    fn goes_right(self, node: Node<Self>) -> __mmask32 {
        let (table, codes) = (self.0, node.codes);
        // SAFETY: `self` exists only where there is AVX-512 with these features. Permutations ignore
        // the higher bits of a code.
        unsafe {
            let ranks = match REGISTERS {
                1 => _mm256_permutexvar_epi8(codes, table[0]),
                2 => _mm256_permutex2var_epi8(table[0], codes, table[1]),
                _ => {
                    let low = _mm256_permutex2var_epi8(table[0], codes, table[1]);
                    let high = _mm256_permutex2var_epi8(table[2], codes, table[3]);
                    let is_high = _mm256_test_epi8_mask(codes, _mm256_set1_epi8(64));
                    _mm256_mask_blend_epi8(is_high, low, high)
                }
            };
            _mm256_cmpgt_epi8_mask(ranks, node.thresholds)
        }
    }

    #[inline(always)]
    fn choose(self, mask: __mmask32, left: Node<Self>, right: Node<Self>) -> Node<Self> {
        // SAFETY: `self` exists only where there is AVX-512 with these features.
        unsafe {
            Node {
                thresholds: _mm256_mask_blend_epi8(mask, left.thresholds, right.thresholds),
                codes: _mm256_mask_blend_epi8(mask, left.codes, right.codes),
            }
        }
    }

    #[inline(always)]
    fn start(self) -> __m256i {
        // SAFETY: `self` exists only where there is AVX-512 with these features.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn step(self, paths: __m256i, right: __mmask32) -> __m256i {
        // SAFETY: `self` exists only where there is AVX-512 with these features.
        unsafe {
            let paths = _mm256_add_epi8(paths, paths);
            _mm256_mask_add_epi8(paths, right, paths, _mm256_set1_epi8(1))
        }
    }

    #[inline(always)]
    fn follow(self, paths: __m256i, bases: &Offsets, lane: usize, lines: &mut Offsets) {
        let bases = bases.0[lane..][..Self::WIDTH].as_chunks::<8>().0;
        let lines = lines.0[lane..][..Self::WIDTH].as_chunks_mut::<8>().0;
        // SAFETY: `self` exists only where there is AVX-512 with these features; chunks are 32 bytes,
        // and loads and stores ask for no alignment.
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
        // SAFETY: `self` exists only where there is AVX-512 with these features; the first 16 bytes
        // of a line are thresholds and codes, and it is aligned.
        let right = unsafe {
            let nodes = |index| _mm_load_si128(std::ptr::from_ref(line(index)).cast());
            let even = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(nodes(0)), nodes(2));
            let odd = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(nodes(1)), nodes(3));
            self.goes_right(Node {
                thresholds: _mm256_unpacklo_epi64(even, odd),
                codes: _mm256_unpackhi_epi64(even, odd),
            })
        };
        u64::from(right)
    }

    #[inline(always)]
    fn prefetch(self, line: &Line) {
        // SAFETY: every processor with AVX-512 has SSE; a prefetch does not change anything.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast()) }
    }
}

/// From a number of lines to bytes.
const LINE_SHIFT: i32 = Line::BYTES.trailing_zeros() as i32;

const _: () = assert!(LANES.is_multiple_of(32));
