//! Records as people keep them, JSON Lines or CSV with a header, read line by line.
//!
//! It knows no model: what a record means is for its reader.

use std::io::{self, BufRead};

/// A longer line cannot be a record.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a line begins that stands for one that could not be kept; why is the rest of it. Text never begins so.
const UNREADABLE: &[u8] = b"\xff\xff";

const UNCLOSED: &str = "has a quote that is never closed";
const TOO_LONG: &str = "is too long; a quote may not be closed";

/// How files begin that hold no text in UTF-8, what they are, and what makes CSV of them.
const NO_TEXT: [(&[u8], &str, &str); 12] = [
    (b"PAR1", "a Parquet table", "pandas.read_parquet(\"FILE\")"),
    (
        b"ARROW1",
        "an Arrow or Feather table",
        "pandas.read_feather(\"FILE\")",
    ),
    (b"FEA1", "a Feather table", "pandas.read_feather(\"FILE\")"),
    (
        b"PK\x03\x04",
        "an Excel workbook or another zip archive",
        "pandas.read_excel(\"FILE\")",
    ),
    (
        b"\xd0\xcf\x11\xe0",
        "an Excel workbook",
        "pandas.read_excel(\"FILE\")",
    ),
    (b"\x89HDF", "an HDF5 file", "pandas.read_hdf(\"FILE\")"),
    (b"\x80\x04", "a pickle", "pandas.read_pickle(\"FILE\")"),
    (b"\x80\x05", "a pickle", "pandas.read_pickle(\"FILE\")"),
    (
        b"\x93NUMPY",
        "a NumPy array",
        "pandas.DataFrame(numpy.load(\"FILE\"))",
    ),
    (
        b"\x1f\x8b",
        "compressed with gzip",
        "pandas.read_csv(\"FILE\", compression=\"gzip\")",
    ),
    (
        b"\xff\xfe",
        "text in UTF-16",
        "pandas.read_csv(\"FILE\", encoding=\"utf-16\")",
    ),
    (
        b"\xfe\xff",
        "text in UTF-16",
        "pandas.read_csv(\"FILE\", encoding=\"utf-16\")",
    ),
];

/// A reader of records. CSV begins with anything but `{` or `[`, and with its header.
#[derive(Debug)]
pub struct Input<R> {
    reader: R,
    header: Option<csv::StringRecord>,
    /// The line at which the last row began, and how many it had.
    line: u64,
    lines: u64,
    text: Vec<u8>,
    ends: RecordEnds,
}

/// What stands in a line.
#[derive(Debug)]
pub enum Row<'t> {
    /// Nothing.
    Blank,
    /// A record, or what else is said in JSON.
    Json(&'t str),
    /// As many cells as the header has.
    Cells(csv::StringRecord),
    /// What is wrong with the line.
    Broken(String),
}

impl<R: BufRead> Input<R> {
    /// Begins to read, and reads the header if it is CSV.
    ///
    /// # Errors
    /// If it cannot be read, or the header is none.
    pub fn open(mut reader: R) -> io::Result<Self> {
        let head = reader.fill_buf()?;
        check_text(head)?;
        let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
        let is_json = matches!(head.trim_ascii_start().first(), None | Some(b'{' | b'['));
        if is_json {
            check_lines(head)?;
        }
        let mut input = Self::lines(reader);
        if !is_json {
            input.header = input.read_header()?;
        }
        Ok(input)
    }

    /// Reads JSON Lines, whatever they begin with.
    pub fn lines(reader: R) -> Self {
        Self {
            reader,
            header: None,
            line: 0,
            lines: 1,
            text: Vec::new(),
            ends: RecordEnds::default(),
        }
    }

    /// Reads the rows of CSV whose header was read before.
    pub fn table(reader: R, header: csv::StringRecord) -> Self {
        Self {
            header: Some(header),
            ..Self::lines(reader)
        }
    }

    /// That of CSV.
    pub fn header(&self) -> Option<&csv::StringRecord> {
        self.header.as_ref()
    }

    /// The next row with the number of its line.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn next_row(&mut self) -> io::Result<Option<(u64, Row<'_>)>> {
        self.line += self.lines;
        match &self.header {
            None => self.next_json(),
            Some(header) => {
                let columns = header.len();
                self.next_cells(columns)
            }
        }
    }

    fn next_json(&mut self) -> io::Result<Option<(u64, Row<'_>)>> {
        self.text.clear();
        // One byte more, for the line feed.
        let mut limited = io::Read::take(&mut self.reader, LINE_BYTES_MAX + 1);
        let read = limited.read_until(b'\n', &mut self.text)?;
        if read == 0 {
            return Ok(None);
        }
        if read as u64 > LINE_BYTES_MAX && !self.text.ends_with(b"\n") {
            self.reader.skip_until(b'\n')?;
            let why = format!("is longer than {LINE_BYTES_MAX} bytes");
            return Ok(Some((self.line, Row::Broken(why))));
        }
        let text = self
            .text
            .strip_prefix(BYTE_ORDER_MARK)
            .unwrap_or(&self.text);
        if let Some(why) = text.strip_prefix(UNREADABLE) {
            let why = String::from_utf8_lossy(why.trim_ascii_end()).into_owned();
            return Ok(Some((self.line, Row::Broken(why))));
        }
        let row = match std::str::from_utf8(text).map(str::trim) {
            Ok("") => Row::Blank,
            Ok(text) => Row::Json(text),
            Err(_) => Row::Broken("is not UTF-8".into()),
        };
        Ok(Some((self.line, row)))
    }

    fn read_header(&mut self) -> io::Result<Option<csv::StringRecord>> {
        loop {
            self.line += self.lines;
            self.lines = match self.read_record()? {
                Record::Whole(lines) => lines,
                Record::End => return Ok(None),
                Record::Unclosed(_) => return Err(no_header(UNCLOSED)),
                Record::Begin(_) => return Err(no_header(TOO_LONG)),
            };
            if !self.text.trim_ascii().is_empty() {
                let text = self
                    .text
                    .strip_prefix(BYTE_ORDER_MARK)
                    .unwrap_or(&self.text);
                let header = cells(text);
                return match header {
                    Some(header) => Ok(Some(header)),
                    None => Err(io::Error::other("the header is not UTF-8")),
                };
            }
        }
    }

    fn next_cells(&mut self, columns: usize) -> io::Result<Option<(u64, Row<'_>)>> {
        let (row, lines) = match self.read_record()? {
            Record::End => return Ok(None),
            Record::Unclosed(lines) => (Row::Broken(UNCLOSED.into()), lines),
            Record::Begin(lines) => (Row::Broken(TOO_LONG.into()), lines + self.skip_rest()?),
            Record::Whole(lines) => (self.row(columns), lines),
        };
        self.lines = lines;
        Ok(Some((self.line, row)))
    }

    /// The record that was read.
    fn row(&self, columns: usize) -> Row<'static> {
        if let Some(why) = self.text.strip_prefix(UNREADABLE) {
            return Row::Broken(String::from_utf8_lossy(why.trim_ascii_end()).into_owned());
        }
        match cells(&self.text) {
            // In a table of one column it is an empty cell.
            _ if self.text.trim_ascii().is_empty() && columns > 1 => Row::Blank,
            None => Row::Broken("is not UTF-8".into()),
            Some(row) if row.len() != columns => {
                Row::Broken(format!("has {} cells, the header {columns}", row.len()))
            }
            Some(row) => Row::Cells(row),
        }
    }

    fn read_record(&mut self) -> io::Result<Record> {
        read_record(&mut self.reader, &mut self.text, &mut self.ends)
    }

    /// Reads the rest of a record that is too long: how many lines that are.
    fn skip_rest(&mut self) -> io::Result<u64> {
        let mut all = 0;
        loop {
            match self.read_record()? {
                Record::Begin(lines) => all += lines,
                Record::Whole(lines) | Record::Unclosed(lines) => return Ok(all + lines),
                Record::End => return Ok(all),
            }
        }
    }
}

fn no_header(why: &str) -> io::Error {
    io::Error::other(format!("the header {why}"))
}

/// Refuses what is not read line by line, with what to do.
fn check_text(head: &[u8]) -> io::Result<()> {
    let refuse = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
    if let Some((_, what, read)) = NO_TEXT.iter().find(|(start, ..)| head.starts_with(start)) {
        return refuse(format!(
            "it is {what}, and CSV or JSON Lines in UTF-8 are read; make CSV of it in Python: \
             `{read}.to_csv(\"rows.csv\", index=False)`"
        ));
    }
    let first_end = head.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let rest = first_end.map_or(head, |end| &head[end..]);
    if rest.starts_with(b"\r") && !rest.contains(&b'\n') && !rest.trim_ascii().is_empty() {
        return refuse(
            "its lines end with CR alone, as Excel writes CSV for Macintosh; end them with LF: \
             `tr '\\r' '\\n' < FILE > rows.csv`"
                .into(),
        );
    }
    Ok(())
}

/// Refuses JSON of which the first line only opens what later ones go on with: a document, not lines.
///
/// # Errors
/// What to do about it.
pub fn check_lines(head: &[u8]) -> io::Result<()> {
    let mut lines = head.trim_ascii_start().splitn(2, |byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default().trim_ascii();
    let is_opened = !first.is_empty() && first.iter().all(|byte| b"[{ \t".contains(byte));
    if is_opened && lines.next().is_some() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its JSON is spread over several lines, and JSON Lines are read, a record in each: make them with \
             `jq -c 'if type == \"array\" then .[] else . end' FILE`, or in Python with \
             `import json; [print(json.dumps(record)) for record in json.load(open(\"FILE\"))]`",
        ));
    }
    Ok(())
}

/// What was read of a table, with its lines.
enum Record {
    Whole(u64),
    /// A quote in it is open at the end of the input.
    Unclosed(u64),
    /// The begin of a record that is too long. The rest of it is what is read next.
    Begin(u64),
    End,
}

/// Reads the next record of CSV into `text`. The reader of the cells would skip blank lines, and take a quote that is
/// never closed for the rest of the input.
fn read_record(
    input: &mut impl BufRead,
    text: &mut Vec<u8>,
    ends: &mut RecordEnds,
) -> io::Result<Record> {
    text.clear();
    loop {
        let bytes = input.fill_buf()?;
        let is_all = bytes.is_empty();
        // One byte more, for the line feed.
        let room = LINE_BYTES_MAX as usize + 1 - text.len();
        let bytes = &bytes[..bytes.len().min(room)];
        let end = ends.find(bytes);
        let own = end.unwrap_or(bytes.len());
        text.extend_from_slice(&bytes[..own]);
        input.consume(own);
        let is_too_long = end.is_none() && own == room;
        if is_all || end.is_some() || is_too_long {
            let line_feeds = text.iter().filter(|byte| **byte == b'\n').count() as u64;
            let lines = line_feeds + u64::from(!text.ends_with(b"\n"));
            return Ok(match text.is_empty() {
                _ if is_too_long => Record::Begin(line_feeds),
                true if is_all => Record::End,
                false if is_all && ends.is_in_quotes() => Record::Unclosed(lines),
                _ => Record::Whole(lines),
            });
        }
    }
}

/// Finds where the records of CSV end (RFC 4180), as the reader of their cells sees it: a quote opens a cell at the begin
/// of it alone and is a sign like others elsewhere, and CR ends a record without LF too.
#[derive(Debug, Default)]
pub struct RecordEnds(Place);

/// Where in a record the next byte stands.
#[derive(Clone, Copy, Debug, Default)]
enum Place {
    /// At the begin of the input, or in its byte order mark.
    #[default]
    First,
    CellBegin,
    Cell,
    Quoted,
    /// Behind a quote in a quoted cell, which closes it or stands for itself with the next one.
    Quote,
    /// Behind CR.
    Return,
}

impl RecordEnds {
    /// How many of these bytes, which follow those before, still belong to a record that ends; `None`: all, and it goes
    /// on. That a record ended with CR is known at the next byte.
    pub fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            let place = match (self.0, byte) {
                (Place::Return, b'\n') => None,
                (Place::Return, _) => {
                    self.0 = Place::CellBegin;
                    return Some(at);
                }
                (Place::Quoted, b'"') => Some(Place::Quote),
                (Place::Quoted, _) => Some(Place::Quoted),
                (Place::First | Place::CellBegin | Place::Quote, b'"') => Some(Place::Quoted),
                (Place::First, byte) if BYTE_ORDER_MARK.contains(byte) => Some(Place::First),
                (_, b',') => Some(Place::CellBegin),
                (_, b'\n') => None,
                (_, b'\r') => Some(Place::Return),
                _ => Some(Place::Cell),
            };
            self.0 = place.unwrap_or(Place::CellBegin);
            if place.is_none() {
                return Some(at + 1);
            }
        }
        None
    }

    /// Whether a quote is open.
    pub fn is_in_quotes(&self) -> bool {
        matches!(self.0, Place::Quoted)
    }
}

/// A line that stands for one that could not be kept. Its reader finds it broken, and this is why.
pub fn unreadable(why: &str) -> Vec<u8> {
    [UNREADABLE, why.as_bytes(), b"\n"].concat()
}

/// The cells of a record; none where it is not UTF-8. A blank record has one.
pub fn cells(record: &[u8]) -> Option<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).from_reader(record);
    match reader.records().next() {
        None => Some(csv::StringRecord::from(vec![""])),
        Some(record) => record.ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rows of a table that begins with its first row, read in pieces.
    fn rows(text: &[u8], piece: usize, columns: usize) -> Vec<(u64, String)> {
        let header = csv::StringRecord::from(vec!["x"; columns]);
        let mut input = Input::table(io::BufReader::with_capacity(piece, text), header);
        let mut rows = Vec::new();
        while let Some((line, row)) = input.next_row().unwrap() {
            let row = match row {
                Row::Cells(cells) => cells.iter().collect::<Vec<_>>().join("|"),
                Row::Blank => "blank".into(),
                Row::Json(text) => text.into(),
                Row::Broken(why) => why,
            };
            rows.push((line, row));
        }
        rows
    }

    fn expect(text: &str, columns: usize, expected: &[(u64, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(n, row)| (*n, row.to_string()))
            .collect();
        for piece in [1, 2, 3, 1000] {
            assert_eq!(
                rows(text.as_bytes(), piece, columns),
                expected,
                "{text:?} in {piece}"
            );
        }
    }

    #[test]
    fn a_quote_within_a_cell_holds_no_line_open() {
        expect(
            "5\" pipe,1\nplain,2\n6\" pipe,3\n",
            2,
            &[(1, "5\" pipe|1"), (2, "plain|2"), (3, "6\" pipe|3")],
        );
        expect(
            "\"a\nb\",1\n\"say \"\"x\"\"\",2\n",
            2,
            &[(1, "a\nb|1"), (3, "say \"x\"|2")],
        );
        expect("1,2\n\"3,4\n5,6\n", 2, &[(1, "1|2"), (2, UNCLOSED)]);
    }

    #[test]
    fn rows_end_with_cr_too() {
        expect(
            "1,1\r2,2\r\n3,3\r\r4,4\n",
            2,
            &[(1, "1|1"), (2, "2|2"), (3, "3|3"), (4, "blank"), (5, "4|4")],
        );
    }

    #[test]
    fn a_record_that_is_too_long_ends_where_it_ends() {
        let max = LINE_BYTES_MAX as usize;
        let cell = |length: usize| format!("\"{}\"", "9,\n".repeat(length / 3));
        for length in [max, 2 * max + 7] {
            let text = format!("1,2\n{},4\n5,6\n", cell(length));
            let line = 3 + length as u64 / 3;
            assert_eq!(
                rows(text.as_bytes(), 1 << 16, 2),
                [
                    (1, "1|2".into()),
                    (2, TOO_LONG.into()),
                    (line, "5|6".into())
                ]
            );
        }
    }

    #[test]
    fn a_line_that_could_not_be_kept_says_why() {
        let line = unreadable("is away");
        let text = [b"1\n".as_slice(), &line, b"2\n"].concat();
        let expected = [(1, "1".into()), (2, "is away".into()), (3, "2".into())];
        assert_eq!(rows(&text, 1000, 1), expected);
        let mut lines = Input::lines(&*line);
        assert!(matches!(lines.next_row(), Ok(Some((1, Row::Broken(why)))) if why == "is away"));
    }

    proptest! {
        #[test]
        fn records_are_those_that_the_reader_of_cells_finds(
            text in "[a\", \r\n]{0,60}", piece in 1_usize..9,
        ) {
            let mut reader = csv::ReaderBuilder::new();
            let mut reader = reader.has_headers(false).flexible(true).from_reader(text.as_bytes());
            let expected: Vec<_> = reader.records().map(Result::unwrap).collect();
            let mut found = Vec::new();
            let (mut input, mut record) = (io::BufReader::with_capacity(piece, text.as_bytes()), Vec::new());
            let mut ends = RecordEnds::default();
            while !matches!(read_record(&mut input, &mut record, &mut ends).unwrap(), Record::End) {
                if !record.iter().all(|byte| b"\r\n".contains(byte)) {
                    found.push(cells(&record).unwrap());
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
