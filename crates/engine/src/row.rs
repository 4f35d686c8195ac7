//! Rows of input values, some of which may be texts.
//!
//! A row consists of numbers. The number of a text feature is the index of its text in a table next
//! to the rows, so that models without texts pay nothing for those that have them.

use std::fmt::Write;
use std::ops::Range;

/// Numbers in the rows whose columns are computed together, so that no large memory stays behind.
const VALUES_PER_PASS: usize = 1 << 16;

/// Rows that go through a model together, so that a large batch does not leave large buffers behind.
const ROWS_PER_PASS: usize = 256;

/// How many rows of a width are computed together.
pub(crate) fn rows_per_pass(width: usize) -> usize {
    (VALUES_PER_PASS / width.max(1)).clamp(1, ROWS_PER_PASS)
}

/// Texts that rows refer to by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    buffer: String,
    /// Where each text ends in the buffer.
    ends: Vec<usize>,
}

impl Texts {
    const NONE: &'static Self = &Self {
        buffer: String::new(),
        ends: Vec::new(),
    };

    /// Adds a text; gives the number that stands for it in a row.
    pub fn push(&mut self, text: &str) -> f64 {
        self.buffer.push_str(text);
        self.ends.push(self.buffer.len());
        (self.ends.len() - 1) as f64
    }

    /// Adds what a whole number is written as; gives the number that stands for it in a row.
    pub fn push_integer(&mut self, size: u64, is_negative: bool) -> f64 {
        let sign = if is_negative { "-" } else { "" };
        // To a text nothing can fail to be written.
        let _ = write!(self.buffer, "{sign}{size}");
        self.ends.push(self.buffer.len());
        (self.ends.len() - 1) as f64
    }

    /// Memory in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len() + size_of_val(&*self.ends)
    }

    /// Forgets all texts and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.ends.clear();
    }

    /// The text that a row's number stands for, `None` for a missing one.
    ///
    /// # Panics
    /// If no text has that number, which is a bug of the caller.
    pub fn get(&self, number: f64) -> Option<&str> {
        if number.is_nan() {
            return None;
        }
        let index = number as usize;
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.buffer[begin..self.ends[index]])
    }
}

/// Rows that own their values, to be filled again and again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowBuffer {
    /// One row after the other.
    pub values: Vec<f64>,
    /// What the values of text features refer to.
    pub texts: Texts,
}

impl RowBuffer {
    /// Forgets all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.values.clear();
        self.texts.clear();
    }

    /// A view of the rows.
    ///
    /// # Panics
    /// As [`Rows::new`].
    pub fn rows(&self, width: usize) -> Rows<'_> {
        Rows {
            texts: &self.texts,
            ..Rows::new(&self.values, width)
        }
    }
}

/// A view of `n × width` input values, row-major. `NaN` means "missing".
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    values: &'a [f64],
    width: usize,
    texts: &'a Texts,
}

impl<'a> Rows<'a> {
    /// Rows without texts.
    ///
    /// # Panics
    /// If `values` is not a whole number of rows of `width` (at least one feature).
    pub fn new(values: &'a [f64], width: usize) -> Self {
        assert!(
            width > 0 && values.len().is_multiple_of(width),
            "ragged rows"
        );
        Self {
            values,
            width,
            texts: Texts::NONE,
        }
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The rows of a range.
    ///
    /// # Panics
    /// If there are not that many.
    #[must_use]
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let values = &self.values[rows.start * self.width..rows.end * self.width];
        Self { values, ..*self }
    }

    /// Other rows, whose texts are in the same table.
    ///
    /// # Panics
    /// As [`Rows::new`].
    #[must_use]
    pub fn with_values(&self, values: &'a [f64]) -> Self {
        Self {
            texts: self.texts,
            ..Rows::new(values, self.width)
        }
    }

    /// Other rows, of `width` values, whose texts are in the same table.
    pub(crate) fn reshaped<'b>(&self, values: &'b [f64], width: usize) -> Rows<'b>
    where
        'a: 'b,
    {
        Rows {
            texts: self.texts,
            ..Rows::new(values, width)
        }
    }

    /// All values, row after row.
    pub(crate) fn values(&self) -> &'a [f64] {
        self.values
    }

    /// Row `index`, one value per feature in the signature's order.
    pub fn row(&self, index: usize) -> &'a [f64] {
        &self.values[index * self.width..][..self.width]
    }

    /// The text that one of the row's values stands for, `None` for a missing one.
    ///
    /// # Panics
    /// If it stands for none: the feature is not a text.
    pub fn text(&self, value: f64) -> Option<&'a str> {
        self.texts.get(value)
    }

    /// [`Rows::text`] of a value that may be no text's.
    pub(crate) fn text_of(&self, value: f64, is_text: bool) -> Option<&'a str> {
        is_text.then(|| self.text(value)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_texts_in_every_slice() {
        let mut buffer = RowBuffer::default();
        for (number, text) in [(1.0, "one"), (2.0, ""), (3.0, "drei \u{fc}")] {
            let code = buffer.texts.push(text);
            buffer.values.extend([number, code]);
        }
        buffer.values.extend([4.0, f64::NAN]);
        let rows = buffer.rows(2);
        let text = |rows: Rows<'_>, index: usize| rows.text(rows.row(index)[1]).map(str::to_owned);
        assert_eq!(text(rows, 0).as_deref(), Some("one"));
        assert_eq!(text(rows, 1).as_deref(), Some(""));
        assert_eq!(text(rows.slice(2..4), 0).as_deref(), Some("drei \u{fc}"));
        assert_eq!(text(rows.slice(2..4), 1), None);
        buffer.clear();
        assert_eq!(buffer.texts.push("again"), 0.0);
        assert_eq!(buffer.texts.get(0.0), Some("again"));
        for (size, is_negative, text) in [
            (12, true, "-12"),
            (0, false, "0"),
            (u64::MAX, false, "18446744073709551615"),
        ] {
            let number = buffer.texts.push_integer(size, is_negative);
            assert_eq!(buffer.texts.get(number), Some(text));
        }
    }
}
