//! Records as people keep them, JSON Lines or CSV with a header, read line by line.
//!
//! It knows no model: what a record means is for its reader.

use std::io::{self, BufRead};

/// A longer line cannot be a record.
pub const LINE_BYTES_MAX: u64 = 16 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
            match read_record(&mut self.reader, &mut self.text)? {
                Record::Whole(lines) => self.lines = lines,
                Record::End => return Ok(None),
                Record::Broken { why, .. } => {
                    return Err(io::Error::other(format!("the header {why}")));
                }
            }
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
        let row = match read_record(&mut self.reader, &mut self.text)? {
            Record::End => return Ok(None),
            Record::Broken { why, lines } => {
                self.lines = lines;
                Row::Broken(why.into())
            }
            Record::Whole(lines) => {
                self.lines = lines;
                // In a table of one column it is an empty cell.
                match cells(&self.text) {
                    _ if self.text.trim_ascii().is_empty() && columns > 1 => Row::Blank,
                    None => Row::Broken("is not UTF-8".into()),
                    Some(row) if row.len() != columns => {
                        Row::Broken(format!("has {} cells, the header {columns}", row.len()))
                    }
                    Some(row) => Row::Cells(row),
                }
            }
        };
        Ok(Some((self.line, row)))
    }
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
fn check_lines(head: &[u8]) -> io::Result<()> {
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

/// What was read of a table.
enum Record {
    /// A record of so many lines.
    Whole(u64),
    Broken {
        why: &'static str,
        lines: u64,
    },
    End,
}

/// Reads the next record of CSV (RFC 4180) into `text`: lines up to one that no quote holds open. The
/// reader of the cells would skip blank lines, and take a quote that is never closed for the rest of
/// the input.
fn read_record(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Record> {
    text.clear();
    let mut lines = 0;
    loop {
        let room = LINE_BYTES_MAX + 1 - text.len() as u64;
        let read = io::Read::take(&mut *input, room).read_until(b'\n', text)?;
        if read == 0 {
            let why = "has a quote that is never closed";
            return Ok(match lines {
                0 => Record::End,
                _ => Record::Broken { why, lines },
            });
        }
        lines += 1;
        if text.len() as u64 > LINE_BYTES_MAX {
            if !text.ends_with(b"\n") {
                input.skip_until(b'\n')?;
            }
            let why = "is too long; a quote may not be closed";
            return Ok(Record::Broken { why, lines });
        }
        if text.iter().filter(|byte| **byte == b'"').count() % 2 == 0 {
            return Ok(Record::Whole(lines));
        }
    }
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
