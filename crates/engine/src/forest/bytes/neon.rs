//! Byte ranks with NEON, which every 64-bit ARM has: 16 trees in a register, two lines in a comparison.

#![expect(
    unsafe_code,
    reason = "the processor must have the instructions, and lines are loaded through pointers"
)]

use super::super::rank::Ranker;
use super::walk::{self, Node, Ranks};
use super::{ByteTrees, ByteWalk, LANES, Leaf, Line, Offsets, Place, RowRanks};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

/// Walks with NEON. It exists only if the processor has it.
#[derive(Debug)]
pub(super) struct Neon(());

impl Neon {
    /// The kernel, if this processor can run it.
    pub(super) fn detect() -> Option<&'static Self> {
        static KERNEL: Neon = Neon(());
        is_aarch64_feature_detected!("neon").then_some(&KERNEL)
    }
}

impl<S: Leaf> ByteWalk<S> for Neon {
    fn name(&self) -> &'static str {
        "neon"
    }

    fn rank(&self, ranker: &Ranker, row: &[f64], ranks: &mut RowRanks) {
        ranker.rank_bytes(row, ranks);
    }

    fn add(&self, trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
        // SAFETY: `detect` is the only maker of `self` and has found the feature.
        unsafe {
            match trees.slots {
                ..=64 => add::<S, 1>(trees, rows, sums),
                _ => add::<S, 2>(trees, rows, sums),
            }
        }
    }
}

#[target_feature(enable = "neon")]
fn add<S: Leaf, const TABLES: usize>(trees: &ByteTrees<S>, rows: &[RowRanks], sums: &mut [S]) {
    // SAFETY: this function has the feature.
    unsafe { walk::add::<InTables<TABLES>, S>(trees, rows, sums) }
}

/// Ranks by their slots, 64 to a table of four registers.
#[derive(Clone, Copy)]
struct InTables<const TABLES: usize>([uint8x16x4_t; TABLES]);

impl<const TABLES: usize> Ranks for InTables<TABLES> {
    type Bytes = uint8x16_t;
    type Mask = uint8x16_t;
    const WIDTH: usize = 16;

    #[inline(always)]
    unsafe fn new(ranks: &RowRanks) -> Self {
        let (tables, _) = ranks.as_chunks::<64>();
        // SAFETY: the caller promises NEON; a table is 64 bytes, and the load asks for no alignment.
        Self(std::array::from_fn(|table| unsafe {
            vld1q_u8_x4(tables[table].as_ptr().cast())
        }))
    }

    #[inline(always)]
    fn load(self, place: &Place, lane: usize) -> Node<Self> {
        let thresholds = &place.thresholds[lane..][..Self::WIDTH];
        let codes = &place.codes[lane..][..Self::WIDTH];
        // SAFETY: both slices are 16 bytes, and the loads ask for no alignment.
        unsafe {
            Node {
                thresholds: vld1q_u8(thresholds.as_ptr().cast()),
                codes: vld1q_u8(codes.as_ptr()),
            }
        }
    }

    #[inline(always)]
    fn goes_right(self, node: Node<Self>) -> uint8x16_t {
        // SAFETY: `self` exists only where there is NEON.
        unsafe {
            // Without bit 7, which is for other processors. What is not in a table gives zero.
            let slots = vandq_u8(node.codes, vdupq_n_u8(0x7F));
            let mut ranks = vqtbl4q_u8(self.0[0], slots);
            if TABLES > 1 {
                // What is not in this table keeps the rank it has.
                ranks = vqtbx4q_u8(ranks, self.0[TABLES - 1], vsubq_u8(slots, vdupq_n_u8(64)));
            }
            let (ranks, thresholds) = (
                vreinterpretq_s8_u8(ranks),
                vreinterpretq_s8_u8(node.thresholds),
            );
            vcgtq_s8(ranks, thresholds)
        }
    }

    #[inline(always)]
    fn choose(self, mask: uint8x16_t, left: Node<Self>, right: Node<Self>) -> Node<Self> {
        // SAFETY: `self` exists only where there is NEON.
        unsafe {
            Node {
                thresholds: vbslq_u8(mask, right.thresholds, left.thresholds),
                codes: vbslq_u8(mask, right.codes, left.codes),
            }
        }
    }

    #[inline(always)]
    fn start(self) -> uint8x16_t {
        // SAFETY: `self` exists only where there is NEON.
        unsafe { vdupq_n_u8(0) }
    }

    #[inline(always)]
    fn step(self, paths: uint8x16_t, right: uint8x16_t) -> uint8x16_t {
        // SAFETY: `self` exists only where there is NEON.
        unsafe { vsubq_u8(vaddq_u8(paths, paths), right) }
    }

    #[inline(always)]
    fn follow(self, paths: uint8x16_t, bases: &Offsets, lane: usize, lines: &mut Offsets) {
        let bases = bases.0[lane..][..Self::WIDTH].as_chunks::<4>().0;
        let lines = lines.0[lane..][..Self::WIDTH].as_chunks_mut::<4>().0;
        // SAFETY: `self` exists only where there is NEON; chunks are 16 bytes, and loads and stores
        // ask for no alignment.
        unsafe {
            let low = vmovl_u8(vget_low_u8(paths));
            let high = vmovl_high_u8(paths);
            let fours = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_high_u16(low),
                vmovl_u16(vget_low_u16(high)),
                vmovl_high_u16(high),
            ];
            for (index, four) in fours.into_iter().enumerate() {
                let base = vld1q_u32(bases[index].as_ptr());
                let sum = vaddq_u32(base, vshlq_n_u32::<LINE_SHIFT>(four));
                vst1q_u32(lines[index].as_mut_ptr(), sum);
            }
        }
    }

    #[inline(always)]
    fn compare<'a>(self, line: impl Fn(usize) -> &'a Line) -> u64 {
        const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: `self` exists only where there is NEON; the first 16 bytes of a line are thresholds
        // and codes, and the array has 16 bytes.
        let bits = unsafe {
            let first = vld1q_u64(std::ptr::from_ref(line(0)).cast());
            let second = vld1q_u64(std::ptr::from_ref(line(1)).cast());
            let right = self.goes_right(Node {
                thresholds: vreinterpretq_u8_u64(vzip1q_u64(first, second)),
                codes: vreinterpretq_u8_u64(vzip2q_u64(first, second)),
            });
            // Each line's bits are added up to one byte.
            let bits = vandq_u8(right, vld1q_u8(BITS.as_ptr()));
            let bits = vpaddq_u8(bits, bits);
            let bits = vpaddq_u8(bits, bits);
            let bits = vpaddq_u8(bits, bits);
            vgetq_lane_u16::<0>(vreinterpretq_u16_u8(bits))
        };
        u64::from(bits)
    }

    #[inline(always)]
    fn prefetch(self, line: &Line) {
        // SAFETY: a prefetch changes nothing that a program sees.
        unsafe {
            asm!(
                "prfm pldl1keep, [{line}]",
                line = in(reg) std::ptr::from_ref(line),
                options(nostack, preserves_flags, readonly),
            );
        }
    }
}

/// From a number of lines to bytes.
const LINE_SHIFT: i32 = Line::BYTES.trailing_zeros() as i32;

const _: () = assert!(LANES.is_multiple_of(16));
