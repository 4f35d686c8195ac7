//! `auspex predict`: JSON Lines or CSV in, predictions out, one line for each.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use auspex_inference::{Columns, Package, Top};
use auspex_kernel::FieldError;
use auspex_kernel::clock::monotonic;
use auspex_kernel::records::{Input, Row};
use serde_json::json;

use super::{Failure, Outcome};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);

pub(super) fn run(path: &Path, explain: Option<Top>) -> Outcome {
    let package = match explain {
        Some(_) => Package::load_to_explain(path, usize::MAX)?,
        None => Package::load(path)?,
    };
    if let (Some(_), Err(reason)) = (explain, package.engine().explain()) {
        let path = path.display();
        return Err(format!("{path}: predictions cannot be explained: {reason}").into());
    }
    let input = io::stdin().lock();
    let output = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut progress = Progress::new();
    match predict(&package, explain, input, output, &mut progress) {
        Ok(Count { rows: 0, .. }) => {
            eprintln!("auspex: there was nothing to predict: the input has no row");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Count { bad: 0, .. }) => Ok(ExitCode::SUCCESS),
        Ok(Count { bad, .. }) => Err(Failure::from(format!(
            "lines that could not be predicted: {bad}"
        ))),
        // The reader of our output has closed it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::from(format!("cannot go on: {error}"))),
    }
}

/// Lines that were read: all that are not blank, and those of them that could not be predicted.
#[derive(Debug, Default, PartialEq)]
struct Count {
    rows: u64,
    bad: u64,
}

/// Each line of input has one of output, in its place.
fn predict(
    package: &Package,
    explain: Option<Top>,
    input: impl BufRead,
    output: impl Write,
    progress: &mut Progress,
) -> io::Result<Count> {
    let mut input = Input::open(input)?;
    let header = input.header().cloned().unwrap_or_default();
    let columns = Columns::new(package.schema(), &header).map_err(|message| {
        io::Error::other(format!(
            "the input begins with neither {{ nor [, so it is read as CSV with a header; {message}"
        ))
    })?;
    let mut answers = Answers {
        package,
        explain,
        output,
        progress,
        number: 0,
        count: Count::default(),
        line: Vec::new(),
    };
    while let Some((number, row)) = input.next_row()? {
        answers.number = number;
        answers.count.rows += u64::from(!matches!(row, Row::Blank));
        match row {
            Row::Blank => answers.output.write_all(b"\n")?,
            Row::Json(text) => answers.answer(text)?,
            Row::Cells(row) => answers.answer(&columns.record(&row).to_string())?,
            Row::Broken(why) => answers.refuse(why)?,
        }
    }
    answers.progress.finish(answers.number);
    answers.output.flush()?;
    Ok(answers.count)
}

struct Answers<'a, W> {
    package: &'a Package,
    explain: Option<Top>,
    output: W,
    progress: &'a mut Progress,
    /// The line of input.
    number: u64,
    count: Count,
    line: Vec<u8>,
}

impl<W: Write> Answers<'_, W> {
    fn answer(&mut self, text: &str) -> io::Result<()> {
        self.line.clear();
        let line = &mut self.line;
        let answered = match self.explain {
            Some(top) => self.package.explain_line(text, top, line),
            None => self.package.predict_line(text, line),
        };
        if let Err(errors) = answered {
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
        self.count.bad += 1;
        for error in &errors {
            eprintln!("line {}: {} {}", self.number, error.field, error.message);
        }
        serde_json::to_writer(&mut self.output, &json!({"error": errors}))?;
        self.output.write_all(b"\n")
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
    use auspex_kernel::records::LINE_BYTES_MAX;

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
                None,
                lines(length).as_bytes(),
                &mut output,
                &mut Progress::new(),
            );
            assert_eq!(found.expect("memory"), Count { rows: 3, bad }, "{length}");
            let output = String::from_utf8(output).expect("JSON");
            let lines: Vec<&str> = output.lines().collect();
            assert_eq!((lines.len(), lines[2]), (4, ""), "one answer in each place");
            let answers = lines
                .iter()
                .filter(|line| line.starts_with("{\"prediction\""));
            assert_eq!(answers.count(), good, "{length}");
        }
    }
    #[test]
    fn input_without_rows_or_lines_is_told_from_good_input() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mean-score/1");
        let package = Package::load(&folder).expect("the shipped model");
        let run = |input: &[u8]| {
            let count = predict(&package, None, input, Vec::new(), &mut Progress::new());
            count.map_err(|error| error.to_string())
        };
        let names: Vec<&str> = package.schema().features.iter().map(|f| &*f.name).collect();
        let header = names.join(",");
        for empty in ["", "\n\n", &header, &format!("{header}\n")] {
            assert_eq!(run(empty.as_bytes()), Ok(Count::default()), "{empty:?}");
        }
        let blanks = format!(" {} \r\n1,+2, .5,04\r\n", names.join(" , "));
        let one = Count { rows: 1, bad: 0 };
        assert_eq!(run(blanks.as_bytes()), Ok(one), "as pandas reads it");
        let utf16: Vec<u8> = [b"\xff\xfe".as_slice(), b"a\0,\0"].concat();
        for (input, words) in [
            (
                format!("{header}\r1,2,3,4\r").as_bytes(),
                "lines end with CR alone",
            ),
            (b"[1,2,3,4]\r[1,2,3,4]", "lines end with CR alone"),
            (
                b"{\n  \"a\": 1\n}\n",
                "several lines, and JSON Lines are read",
            ),
            (b" \n[{\r\n\"a\": 1}]", "json.dumps"),
            (b"[\n [1,2,3,4]\n]", "jq -c"),
            (b"PAR1\x15\x04", "pandas.read_parquet(\"FILE\").to_csv("),
            (b"PK\x03\x04\x14\0", "pandas.read_excel"),
            (b"\x93NUMPY\x01", "pandas.DataFrame(numpy.load(\"FILE\"))"),
            (b"ARROW1\0\0", "pandas.read_feather"),
            (&utf16, "encoding=\"utf-16\""),
            (b"0.5,1,2,3\n1,2,3,4\n", "its first line has only values"),
        ] {
            let error = run(input).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
