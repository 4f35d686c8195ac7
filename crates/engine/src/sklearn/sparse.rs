//! Rows whose values are mostly 0, such as counts of words: of each only the others are kept.

use crate::{RowRefusal, Rows};

/// Values that are not 0 and their columns, in ascending order, one row after the other.
#[derive(Debug, Default)]
pub(super) struct SparseRows {
    pub(super) entries: Vec<(u32, f64)>,
    /// Where each row ends in the entries.
    ends: Vec<usize>,
}

impl SparseRows {
    /// Ends the row that the entries behind the last one make up.
    pub(super) fn end_row(&mut self) {
        self.ends.push(self.entries.len());
    }

    /// The entries of the row that has not ended yet.
    pub(super) fn open_row(&mut self) -> &mut [(u32, f64)] {
        let start = self.ends.last().copied().unwrap_or(0);
        &mut self.entries[start..]
    }

    /// Adds what is not 0 of some rows.
    pub(super) fn extend(&mut self, rows: Rows<'_>) {
        for index in 0..rows.len() {
            let values = rows.row(index).iter().zip(0..);
            let present = values.filter(|(value, _)| **value != 0.0);
            self.entries
                .extend(present.map(|(value, column)| (column, *value)));
            self.end_row();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn row(&self, index: usize) -> &[(u32, f64)] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start..self.ends[index]]
    }

    pub(super) fn row_mut(&mut self, index: usize) -> &mut [(u32, f64)] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &mut self.entries[start..self.ends[index]]
    }

    /// Appends all values of all rows.
    pub(super) fn append_to(&self, out: &mut Vec<f64>, width: usize) {
        for index in 0..self.len() {
            let start = out.len();
            out.resize(start + width, 0.0);
            for (column, value) in self.row(index) {
                out[start + *column as usize] = *value;
            }
        }
    }

    /// Refuses rows with missing values, and numbers that are not finite.
    pub(super) fn refuse_missing(&self) -> Result<(), RowRefusal> {
        for row in 0..self.len() {
            let mut values = self.row(row).iter().map(|(_, value)| *value);
            if let Some(reason) = values.find_map(super::steps::missing_or_beyond(f64::MAX)) {
                return Err(RowRefusal {
                    row,
                    reason: reason.into(),
                });
            }
        }
        Ok(())
    }
}
