//! `auspex predict`: JSON Lines or CSV in, predictions out, one line for each.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use auspex_inference::{Columns, Package};
use auspex_kernel::FieldError;
use auspex_kernel::clock::monotonic;
use serde_json::json;

use super::{Failure, Outcome};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// A longer line cannot be a record.
const LINE_BYTES_MAX: u64 = 16 << 20;

pub(super) fn run(path: &Path) -> Outcome {
    let package = Package::load(path)?;
    let input = io::stdin().lock();
    let output = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut progress = Progress::new();
    match predict(&package, input, output, &mut progress) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(bad) => Err(Failure::from(format!(
            "lines that could not be predicted: {bad}"
        ))),
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::from(format!("cannot go on: {error}"))),
    }
}

/// Returns how many lines were bad. Each line of input has one of output, in its place.
fn predict(
    package: &Package,
    mut input: impl BufRead,
    output: impl Write,
    progress: &mut Progress,
) -> io::Result<u64> {
    let mut answers = Answers {
        package,
        output,
        progress,
        number: 0,
        bad: 0,
        line: Vec::new(),
    };
    let head = input.fill_buf()?;
    let head = head.strip_prefix(BYTE_ORDER_MARK).unwrap_or(head);
    match head.trim_ascii_start().first() {
        None | Some(b'{' | b'[') => answers.json_lines(input)?,
        Some(_) => answers.csv(input)?,
    }
    answers.progress.finish(answers.number);
    answers.output.flush()?;
    Ok(answers.bad)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

struct Answers<'a, W> {
    package: &'a Package,
    output: W,
    progress: &'a mut Progress,
    /// The line of input.
    number: u64,
    bad: u64,
    line: Vec<u8>,
}

impl<W: Write> Answers<'_, W> {
    fn json_lines(&mut self, mut input: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            // One byte more, for the line feed.
            let read =
                io::Read::take(&mut input, LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            self.number += 1;
            if read as u64 > LINE_BYTES_MAX && !line.ends_with(b"\n") {
                input.skip_until(b'\n')?;
                self.refuse(format!("is longer than {LINE_BYTES_MAX} bytes"))?;
                continue;
            }
            let text = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line);
            match std::str::from_utf8(text).map(str::trim) {
                Ok("") => self.output.write_all(b"\n")?,
                Ok(text) => self.answer(text)?,
                Err(_) => self.refuse("is not UTF-8")?,
            }
        }
    }

    fn csv(&mut self, mut input: impl BufRead) -> io::Result<()> {
        let mut text = Vec::new();
        let header = loop {
            self.number += 1;
            match read_record(&mut input, &mut text)? {
                Record::Whole(lines) if !text.trim_ascii().is_empty() => {
                    self.number += lines - 1;
                    break cells(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text));
                }
                Record::Whole(_) => {}
                Record::End => return Ok(()),
                Record::Broken { why, .. } => {
                    return Err(io::Error::other(format!("the header {why}")));
                }
            }
        };
        let header = header.ok_or_else(|| io::Error::other("the header is not UTF-8"))?;
        let columns = Columns::new(self.package.schema(), header.iter()).map_err(|message| {
            io::Error::other(format!(
                "the input begins with neither {{ nor [, so it is read as CSV with a header; {message}"
            ))
        })?;
        loop {
            self.number += 1;
            let lines = match read_record(&mut input, &mut text)? {
                Record::End => return Ok(()),
                Record::Broken { why, lines } => {
                    self.refuse(why)?;
                    self.number += lines - 1;
                    continue;
                }
                // In a table of one column it is an empty cell.
                Record::Whole(_) if text.trim_ascii().is_empty() && header.len() > 1 => {
                    self.output.write_all(b"\n")?;
                    continue;
                }
                Record::Whole(lines) => lines,
            };
            match cells(&text) {
                None => self.refuse("is not UTF-8")?,
                Some(row) if row.len() != header.len() => {
                    let (cells, names) = (row.len(), header.len());
                    self.refuse(format!("has {cells} cells, the header {names}"))?;
                }
                Some(row) => self.answer(&columns.record(&row).to_string())?,
            }
            self.number += lines - 1;
        }
    }

    fn answer(&mut self, text: &str) -> io::Result<()> {
        self.line.clear();
        if let Err(errors) = self.package.predict_line(text, &mut self.line) {
            return self.refuse_for(errors);
        }
        self.progress.show(self.number);
        self.output.write_all(&self.line)
    }

    fn refuse(&mut self, message: impl Into<String>) -> io::Result<()> {
        self.refuse_for(vec![FieldError {
            field: "(line)".into(),
            message: message.into(),
        }])
    }

    fn refuse_for(&mut self, errors: Vec<FieldError>) -> io::Result<()> {
        self.bad += 1;
        for error in &errors {
            eprintln!("line {}: {} {}", self.number, error.field, error.message);
        }
        serde_json::to_writer(&mut self.output, &json!({"error": errors}))?;
        self.output.write_all(b"\n")
    }
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
fn cells(record: &[u8]) -> Option<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).from_reader(record);
    match reader.records().next() {
        None => Some(csv::StringRecord::from(vec![""])),
        Some(record) => record.ok(),
    }
}

/// A count on standard error while a person watches.
struct Progress {
    shown: bool,
    last: Instant,
}

impl Progress {
    fn new() -> Self {
        let watched = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self {
            shown: watched,
            last: monotonic(),
        }
    }

    fn show(&mut self, lines: u64) {
        if self.shown && lines.is_multiple_of(256) && self.last.elapsed() >= PROGRESS_EVERY {
            eprint!("\r{lines} lines");
            self.last = monotonic();
        }
    }

    fn finish(&self, lines: u64) {
        if self.shown {
            eprintln!("\r{lines} lines");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_one_bad_line() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/santander/1");
        let package = Package::load(&folder).expect("the shipped model");
        let record = package.example_record().to_string();
        let max = usize::try_from(LINE_BYTES_MAX).expect("it fits");
        let lines = |length: usize| {
            let padded = record.clone() + &" ".repeat(length - record.len());
            format!("{padded}\n{record}\n\n{padded}")
        };
        for (length, good, bad) in [(max, 3, 0), (max + 1, 1, 2), (2 * max + 9, 1, 2)] {
            let mut output = Vec::new();
            let found = predict(
                &package,
                lines(length).as_bytes(),
                &mut output,
                &mut Progress::new(),
            );
            assert_eq!(found.expect("memory"), bad, "{length}");
            let output = String::from_utf8(output).expect("JSON");
            let lines: Vec<&str> = output.lines().collect();
            assert_eq!((lines.len(), lines[2]), (4, ""), "one answer in each place");
            let answers = lines
                .iter()
                .filter(|line| line.starts_with("{\"prediction\""));
            assert_eq!(answers.count(), good, "{length}");
        }
    }
}
