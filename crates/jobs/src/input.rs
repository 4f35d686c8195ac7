//! Cuts what a client sends into chunks of whole rows, as it comes.

use auspex_kernel::records::{RecordEnds, cells, check_lines, unreadable};
use csv::StringRecord;
use memchr::memchr;

use crate::types::{Chunk, Form};

/// A header has a line of this length at most.
const HEADER_BYTES_MAX: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first line shows that no others can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRows {
    /// The header cannot be one.
    #[error("the first line must be the header, in UTF-8 and of at most {HEADER_BYTES_MAX} bytes")]
    Header,
    /// A quote is open at the end, so that all from a row on would be one.
    #[error(
        "row {0} begins a cell with a quote that is never closed, so that all rows after it would belong to it; close it, or \
         double each quote that is part of a text and put the whole text in quotes"
    )]
    OpenQuote(u64),
    /// It is JSON, but no lines.
    #[error("{0}")]
    Document(String),
}

/// Cuts NDJSON or CSV into chunks. Of what has come it holds no more than a chunk, and a row that is not complete.
#[derive(Debug)]
pub struct Lines {
    form: Form,
    rows_max: u64,
    bytes_max: usize,
    header: Option<StringRecord>,
    /// Rows that are complete.
    chunk: Chunk,
    /// How many are in the chunks before.
    rows_before: u64,
    /// The row that is not.
    row: Vec<u8>,
    /// Whether it has become too long, and the rest of it is thrown away.
    is_too_long: bool,
    /// Where rows of CSV end.
    ends: RecordEnds,
    is_first: bool,
}

impl Lines {
    /// Chunks of so many rows and bytes at most; a row of more bytes is wrong, and none the less a row.
    pub fn new(form: Form, rows_max: usize, bytes_max: usize) -> Self {
        Self {
            form,
            rows_max: rows_max as u64,
            bytes_max,
            header: None,
            chunk: Chunk::default(),
            rows_before: 0,
            row: Vec::new(),
            is_too_long: false,
            ends: RecordEnds::default(),
            is_first: true,
        }
    }

    /// That of CSV, once it has come.
    pub fn header(&self) -> Option<&StringRecord> {
        self.header.as_ref()
    }

    /// Takes a piece of the input. Chunks that are full go to `full`.
    ///
    /// # Errors
    /// [`NoRows`].
    pub fn push(&mut self, mut piece: &[u8], full: &mut Vec<Chunk>) -> Result<(), NoRows> {
        while !piece.is_empty() {
            let end = match self.form {
                Form::Csv => self.ends.find(piece),
                Form::Ndjson => memchr(b'\n', piece).map(|at| at + 1),
            };
            let (own, rest) = piece.split_at(end.unwrap_or(piece.len()));
            self.take(own);
            if end.is_some() {
                self.end_row(full)?;
            }
            piece = rest;
        }
        Ok(())
    }

    /// The input is complete: the last chunk, if there are rows that were in none.
    ///
    /// # Errors
    /// [`NoRows`].
    pub fn finish(&mut self, full: &mut Vec<Chunk>) -> Result<(), NoRows> {
        if self.header.is_some() && self.ends.is_in_quotes() {
            return Err(NoRows::OpenQuote(self.rows_before + self.chunk.rows + 1));
        }
        if !self.row.is_empty() || self.is_too_long {
            self.end_row(full)?;
        }
        if self.chunk.rows > 0 {
            self.end_chunk(full);
        }
        Ok(())
    }

    fn end_chunk(&mut self, full: &mut Vec<Chunk>) {
        self.rows_before += self.chunk.rows;
        // The next one will be about as long.
        let next = Chunk {
            rows: 0,
            text: Vec::with_capacity(self.chunk.text.len()),
        };
        full.push(std::mem::replace(&mut self.chunk, next));
    }

    /// Takes what has come of the row, unless that is too long.
    fn take(&mut self, bytes: &[u8]) {
        self.is_too_long |= self.row.len() + bytes.len() > self.bytes_max;
        if self.is_too_long {
            self.row.clear();
        } else {
            self.row.extend_from_slice(bytes);
        }
    }

    fn end_row(&mut self, full: &mut Vec<Chunk>) -> Result<(), NoRows> {
        let mut row = std::mem::take(&mut self.row);
        let ended = self.add(&mut row, full);
        row.clear();
        self.row = row;
        ended
    }

    /// Adds a row that is complete.
    fn add(&mut self, row: &mut Vec<u8>, full: &mut Vec<Chunk>) -> Result<(), NoRows> {
        let is_too_long = std::mem::take(&mut self.is_too_long);
        if std::mem::take(&mut self.is_first) {
            if row.starts_with(BYTE_ORDER_MARK) {
                row.drain(..BYTE_ORDER_MARK.len());
            }
            if self.form == Form::Ndjson {
                check_lines(row).map_err(|why| NoRows::Document(why.to_string()))?;
            }
        }
        let is_header = self.form == Form::Csv && self.header.is_none();
        // In a table of one column it is an empty cell.
        let is_cell = self.header.as_ref().is_some_and(|header| header.len() == 1);
        if row.trim_ascii().is_empty() && !is_too_long && !is_cell {
            return Ok(());
        }
        if is_header {
            let fits = !is_too_long && row.len() <= HEADER_BYTES_MAX;
            self.header = Some(fits.then(|| cells(row)).flatten().ok_or(NoRows::Header)?);
            return Ok(());
        }
        if is_too_long {
            let hint = match self.form {
                Form::Csv => "; a quote may be closed too late",
                Form::Ndjson => "",
            };
            row.append(&mut unreadable(&format!(
                "is longer than {} bytes, the most that jobs.chunk_bytes_max allows for a row{hint}",
                self.bytes_max
            )));
        } else if !row.ends_with(b"\n") {
            row.push(b'\n');
        }
        if self.chunk.rows > 0 && self.chunk.text.len() + row.len() > self.bytes_max {
            self.end_chunk(full);
        }
        self.chunk.text.append(row);
        self.chunk.rows += 1;
        if self.chunk.rows >= self.rows_max {
            self.end_chunk(full);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use auspex_kernel::records::{Input, Row};
    use proptest::prelude::*;

    use super::*;

    type Cut = Result<(Vec<Chunk>, Option<StringRecord>), NoRows>;

    fn cut(form: Form, input: &[u8], pieces: usize) -> Cut {
        let (mut lines, mut full) = (Lines::new(form, 3, 64), Vec::new());
        for piece in input.chunks(pieces.max(1)) {
            lines.push(piece, &mut full)?;
        }
        lines.finish(&mut full)?;
        Ok((full, lines.header))
    }

    fn text(chunks: &[Chunk]) -> String {
        let texts = chunks
            .iter()
            .map(|chunk| String::from_utf8_lossy(&chunk.text));
        texts.collect()
    }

    const TOO_LONG: &str =
        "is longer than 64 bytes, the most that jobs.chunk_bytes_max allows for a row";

    /// The rows as whoever predicts them reads them, each cell or record for itself.
    fn read(chunks: &[Chunk], header: Option<StringRecord>) -> Vec<String> {
        let mut rows = Vec::new();
        for chunk in chunks {
            let mut input = match &header {
                Some(header) => Input::table(&*chunk.text, header.clone()),
                None => Input::lines(&*chunk.text),
            };
            while let Some((_, row)) = input.next_row().unwrap() {
                rows.push(match row {
                    Row::Blank => String::new(),
                    Row::Json(text) => text.to_owned(),
                    Row::Cells(cells) => cells.iter().collect::<Vec<_>>().join("|"),
                    Row::Broken(why) => why,
                });
            }
        }
        rows
    }

    #[test]
    fn rows_are_whole_blank_lines_are_none_and_the_last_needs_no_end() {
        let (chunks, _) =
            cut(Form::Ndjson, b"\xef\xbb\xbf{}\n\n \r\n[1]\r\n{}\n{}\n{}", 1).unwrap();
        assert_eq!(text(&chunks), "{}\n[1]\r\n{}\n{}\n{}\n");
        let rows: Vec<u64> = chunks.iter().map(|chunk| chunk.rows).collect();
        assert_eq!(rows, [3, 2]);
    }

    #[test]
    fn quoted_cells_may_hold_ends_of_lines() {
        let input = b"a,b\n1,\"x\ny\"\n\n2,\"say \"\"hi\"\"\"\n";
        let (chunks, header) = cut(Form::Csv, input, 2).unwrap();
        assert_eq!(header, Some(StringRecord::from(vec!["a", "b"])));
        assert_eq!(text(&chunks), "1,\"x\ny\"\n2,\"say \"\"hi\"\"\"\n");
        assert_eq!(chunks[0].rows, 2);
        let (chunks, _) = cut(Form::Csv, b"a\n1\n\n2\n", 3).unwrap();
        assert_eq!(chunks[0].rows, 3, "an empty cell of one column is a row");
    }

    #[test]
    fn a_row_that_is_too_long_is_one_wrong_row() {
        let long = "x".repeat(65);
        let input = format!("{{}}\n{long}\n{{}}\n{long}");
        for pieces in [1, 7, 1000] {
            let (chunks, _) = cut(Form::Ndjson, input.as_bytes(), pieces).unwrap();
            assert_eq!(read(&chunks, None), ["{}", TOO_LONG, "{}", TOO_LONG]);
            assert_eq!(chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), 4);
        }
        for cell in ["x".repeat(65), format!("\"{}\"", "9\n".repeat(40))] {
            let input = format!("a\nbad\n{cell}\ngood\n");
            for pieces in [1, 7, 1000] {
                let (chunks, header) = cut(Form::Csv, input.as_bytes(), pieces).unwrap();
                let read = read(&chunks, header);
                assert_eq!((&*read[0], &*read[2], read.len()), ("bad", "good", 3));
                assert!(read[1].starts_with(TOO_LONG), "{}", read[1]);
            }
        }
        let mut lines = Lines::new(Form::Csv, 3, 64);
        let pushed = lines.push(format!("{long}\n1\n").as_bytes(), &mut Vec::new());
        assert_eq!(
            pushed,
            Err(NoRows::Header),
            "without a header there are no rows"
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_is_no_end_of_all_other_rows() {
        let long = "9\n".repeat(100);
        for (input, row) in [
            ("a,b\n\"1,2\n3,4\n".to_owned(), 1),
            ("a,b\n1,2\n3,4\n5,6\n7,\"8".to_owned(), 4),
            (format!("a,b\n1,2\n\"{long}"), 2),
        ] {
            for pieces in [1, 7, 1000] {
                let cut = cut(Form::Csv, input.as_bytes(), pieces);
                assert_eq!(cut, Err(NoRows::OpenQuote(row)), "{input}");
            }
        }
        let closed = cut(Form::Csv, b"a,b\n1,2\n3,\"4\"", 1);
        assert_eq!(closed.map(|(chunks, _)| chunks[0].rows), Ok(2));
        assert!(cut(Form::Ndjson, b"\"a\n", 1).is_ok());
    }

    proptest! {
        #[test]
        fn how_the_input_is_cut_in_transit_changes_nothing(
            input in "[a\", \r\n]{0,200}", pieces in 1_usize..20, is_csv: bool,
        ) {
            let form = if is_csv { Form::Csv } else { Form::Ndjson };
            let whole = cut(form, input.as_bytes(), usize::MAX);
            prop_assert_eq!(&cut(form, input.as_bytes(), pieces), &whole);
            let Ok((chunks, header)) = whole else {
                return Ok(());
            };
            for chunk in &chunks {
                prop_assert!(chunk.rows >= 1 && chunk.rows <= 3);
            }
            let rows: u64 = chunks.iter().map(|chunk| chunk.rows).sum();
            prop_assert_eq!(read(&chunks, header).len() as u64, rows);
        }
    }
}
