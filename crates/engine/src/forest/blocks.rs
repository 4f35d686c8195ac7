//! Ascending numbers, laid out so that a search reads few lines of the cache and hardly ever jumps.
//!
//! Numbers are in blocks of 16. The last number of each block but the last one is a **pivot**, and
//! pivots are in blocks too. A search counts within one block of pivots, which names the block of
//! numbers, and within that: two lines for up to 256 numbers, and each count is a few vector
//! comparisons. Only where there are more blocks of pivots, one of them is found by halving.

/// Numbers of a block; one cache line if they have four bytes.
const LENGTH: usize = 16;

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Block<T>([T; LENGTH]);

/// Several lists of numbers.
#[derive(Debug)]
pub(crate) struct Blocks<T>(Vec<Block<T>>);

/// Where a list is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    start: u32,
    /// Blocks of pivots, behind which the blocks of numbers are.
    pivots: u32,
    blocks: u32,
}

impl<T: Copy> Blocks<T> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a list of at least one number. `nothing` satisfies no condition that a search asks.
    pub(crate) fn push(&mut self, numbers: &[T], nothing: T) -> Place {
        let start = self.0.len();
        let blocks = numbers.len().div_ceil(LENGTH);
        let pivots: Vec<T> = numbers
            .chunks_exact(LENGTH)
            .map(|block| block[LENGTH - 1])
            .collect();
        let pivots = &pivots[..blocks - 1];
        for block in pivots.chunks(LENGTH).chain(numbers.chunks(LENGTH)) {
            let mut filled = Block([nothing; LENGTH]);
            filled.0[..block.len()].copy_from_slice(block);
            self.0.push(filled);
        }
        Place {
            start: start as u32,
            pivots: pivots.len().div_ceil(LENGTH) as u32,
            blocks: blocks as u32,
        }
    }

    /// How many numbers of a list satisfy a condition that the first ones do.
    #[inline(always)]
    pub(crate) fn count(&self, place: Place, condition: impl Fn(T) -> bool) -> u32 {
        let (start, pivots) = (place.start as usize, place.pivots as usize);
        let (pivots, numbers) = self.0[start..][..pivots + place.blocks as usize].split_at(pivots);
        let block = match pivots {
            [] => 0,
            [.., _] => {
                let before = &pivots[..pivots.len() - 1];
                let full = before.partition_point(|block| condition(block.0[LENGTH - 1]));
                full * LENGTH + pivots[full].count(&condition)
            }
        };
        (block * LENGTH + numbers[block].count(&condition)) as u32
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }
}

impl<T: Copy> Block<T> {
    #[inline(always)]
    fn count(&self, condition: impl Fn(T) -> bool) -> usize {
        let ones = self.0.iter().map(|number| u32::from(condition(*number)));
        ones.sum::<u32>() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_a_search_in_one_list() {
        let mut blocks = Blocks::new();
        for length in [
            1, 2, 15, 16, 17, 31, 32, 255, 256, 257, 272, 273, 4096, 4097, 70_000,
        ] {
            let numbers: Vec<f32> = (0..length).map(|n| n as f32).collect();
            let place = blocks.push(&numbers, f32::NAN);
            let around = [
                0,
                1,
                14,
                15,
                16,
                255,
                256,
                257,
                4095,
                4096,
                length - 1,
                length,
            ];
            for x in around.into_iter().flat_map(|n| [n as f32 - 0.5, n as f32]) {
                let expected = numbers.partition_point(|n| *n <= x) as u32;
                assert_eq!(blocks.count(place, |n| n <= x), expected, "{x} in {length}");
                let expected = numbers.partition_point(|n| *n < x) as u32;
                assert_eq!(blocks.count(place, |n| n < x), expected, "{x} in {length}");
            }
            assert_eq!(blocks.count(place, |n| n <= f32::INFINITY), length as u32);
        }
    }
}
