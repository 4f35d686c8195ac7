//! Sums of a row's values, each with its factor: what linear models, layers of networks and projections have in common.
//!
//! Each sum is added value by value in the order of the columns, however many rows and sums are made side by side.

use crate::forest::widest::{Work, run_widest};

/// Rows and sums that are made side by side, so that no addition has to wait for the one before it.
const ROWS: usize = 4;
const SUMS: usize = 8;

/// From how many columns on zeros are passed over where most values are 0, which rows of counts are, and how many of the
/// values may be something else.
const WIDE: usize = 64;
const FULL: usize = 4;

/// The factors of some sums.
#[derive(Debug)]
pub(super) struct Factors {
    /// For each column a factor for each sum.
    by_column: Vec<f64>,
    sums: usize,
    width: usize,
}

impl Factors {
    /// From a row of factors for each of some sums.
    pub(super) fn by_sum(factors: &[f64], sums: usize) -> Self {
        let width = factors.len() / sums.max(1);
        let of_column = |column: usize| factors.iter().skip(column).step_by(width).copied();
        Self {
            by_column: (0..width).flat_map(of_column).collect(),
            sums,
            width,
        }
    }

    /// From a row of factors for each column.
    pub(super) fn by_column(factors: Vec<f64>, sums: usize) -> Self {
        Self {
            width: factors.len() / sums.max(1),
            by_column: factors,
            sums,
        }
    }

    /// The sums of some rows, one after the other.
    pub(super) fn of(&self, rows: &[f64]) -> Vec<f64> {
        let mut made = vec![0.0; rows.len() / self.width.max(1) * self.sums];
        self.write(rows, &mut made);
        made
    }

    /// Writes the sums of some rows.
    pub(super) fn write(&self, rows: &[f64], made: &mut [f64]) {
        if self.sums == 0 || self.width == 0 {
            return;
        }
        let is_sparse = self.width > WIDE && {
            let first = &rows[..self.width.min(rows.len())];
            first.iter().filter(|value| **value != 0.0).count() * FULL < self.width
        };
        if !is_sparse {
            return run_widest(Dense {
                factors: self,
                rows,
                made,
            });
        }
        let parts = rows.chunks_exact(self.width);
        for (row, made) in parts.zip(made.chunks_exact_mut(self.sums)) {
            let values = row.iter().enumerate();
            self.add(values.filter(|(_, value)| **value != 0.0), made);
        }
    }

    /// Writes the sums of a row of which only some values are given; the others are 0.
    pub(super) fn write_sparse(&self, entries: &[(u32, f64)], made: &mut [f64]) {
        let entries = entries.iter();
        self.add(
            entries.map(|(column, value)| (*column as usize, value)),
            made,
        );
    }

    fn add<'v>(&self, values: impl Iterator<Item = (usize, &'v f64)>, made: &mut [f64]) {
        made.fill(0.0);
        for (column, value) in values {
            let factors = &self.by_column[column * self.sums..][..self.sums];
            for (sum, factor) in made.iter_mut().zip(factors) {
                *sum += factor * value;
            }
        }
    }
}

/// Rows of which most values are not 0.
struct Dense<'a> {
    factors: &'a Factors,
    rows: &'a [f64],
    made: &'a mut [f64],
}

impl Work for Dense<'_> {
    #[inline(always)]
    fn run(self) {
        let Factors { sums, width, .. } = *self.factors;
        let rows = self.rows.chunks(ROWS * width);
        for (rows, made) in rows.zip(self.made.chunks_mut(ROWS * sums)) {
            let whole = sums / SUMS * SUMS;
            for first in (0..whole).step_by(SUMS) {
                tiles::<SUMS>(self.factors, rows, made, first);
            }
            match sums - whole {
                1 => tiles::<1>(self.factors, rows, made, whole),
                2 => tiles::<2>(self.factors, rows, made, whole),
                3 => tiles::<3>(self.factors, rows, made, whole),
                4 => tiles::<4>(self.factors, rows, made, whole),
                5 => tiles::<5>(self.factors, rows, made, whole),
                6 => tiles::<6>(self.factors, rows, made, whole),
                7 => tiles::<7>(self.factors, rows, made, whole),
                _ => {}
            }
        }
    }
}

/// Some sums of up to `ROWS` rows.
#[inline(always)]
fn tiles<const N: usize>(factors: &Factors, rows: &[f64], made: &mut [f64], first: usize) {
    let width = factors.width;
    if rows.len() == ROWS * width {
        return tile::<ROWS, N>(factors, rows, made, first);
    }
    for (row, made) in rows
        .chunks_exact(width)
        .zip(made.chunks_exact_mut(factors.sums))
    {
        tile::<1, N>(factors, row, made, first);
    }
}

#[inline(always)]
fn tile<const R: usize, const N: usize>(
    factors: &Factors,
    rows: &[f64],
    made: &mut [f64],
    first: usize,
) {
    let Factors {
        by_column,
        sums,
        width,
    } = factors;
    let rows: [&[f64]; R] = std::array::from_fn(|row| &rows[row * width..][..*width]);
    let mut added = [[0.0; N]; R];
    for (column, factors) in by_column.chunks_exact(*sums).enumerate() {
        let Some(factors) = factors[first..].first_chunk::<N>() else {
            return;
        };
        for (row, added) in rows.iter().zip(&mut added) {
            let value = row[column];
            for (sum, factor) in added.iter_mut().zip(factors) {
                *sum += factor * value;
            }
        }
    }
    for (made, added) in made.chunks_exact_mut(*sums).zip(added) {
        made[first..first + N].copy_from_slice(&added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Added one after the other.
    fn naive(factors: &[f64], row: &[f64]) -> Vec<f64> {
        let sums = factors.chunks_exact(row.len());
        let products = sums.map(|factors| factors.iter().zip(row).map(|(f, x)| f * x));
        products
            .map(|products| products.fold(0.0, |sum, product| sum + product))
            .collect()
    }

    #[test]
    fn sums_are_added_in_the_order_of_the_columns() {
        let mut state = 1u64;
        let mut random = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        for width in [1, 3, 20, 64, 65, 200] {
            for sums in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 31] {
                let factors: Vec<f64> = (0..width * sums).map(|_| random()).collect();
                for count in [1, 3, 4, 9] {
                    for share in [1.0, 0.1] {
                        let mut value = || {
                            if random() + 0.5 < share {
                                random()
                            } else {
                                0.0
                            }
                        };
                        let rows: Vec<f64> = (0..count * width).map(|_| value()).collect();
                        let made = Factors::by_sum(&factors, sums).of(&rows);
                        let wanted = rows
                            .chunks_exact(width)
                            .flat_map(|row| naive(&factors, row));
                        assert_eq!(
                            made,
                            wanted.collect::<Vec<_>>(),
                            "{width} {sums} {count} {share}"
                        );
                    }
                }
            }
        }
    }
}
