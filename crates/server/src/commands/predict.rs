//! `auspex predict`: JSON Lines or CSV in, predictions out, one line for each, in order and on all cores.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use auspex_inference::{Columns, Package, Top, why_unexplained};
use auspex_kernel::FieldError;
use auspex_kernel::clock::monotonic;
use auspex_kernel::records::{Input, Row};
use csv::StringRecord;
use serde_json::json;

use super::{Failure, Outcome};

const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Lines that are held at once, shared out among the cores.
const LINES_AT_ONCE: usize = 2_048;
/// After so many bytes fewer lines are.
const BYTES_AT_ONCE: usize = 4 << 20;

pub(super) fn run(path: &Path, explain: Option<Top>) -> Outcome {
    let package = match explain {
        Some(_) => Package::load_to_explain(path, usize::MAX)?,
        None => Package::load(path)?,
    };
    if let (Some(_), Err(unexplained)) = (explain, package.engine().explain()) {
        let (path, reason) = (path.display(), why_unexplained(unexplained));
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
    let work = Work {
        package,
        explain,
        columns,
    };
    let mut answers = Answers {
        output,
        progress,
        number: 0,
        count: Count::default(),
    };
    loop {
        let (lines, end) = next_lines(&mut input);
        if lines.is_empty() {
            end?;
            break;
        }
        for (number, answer) in work.answer_all(&lines) {
            answers.write(number, answer)?;
        }
        end?;
    }
    answers.progress.finish(answers.number);
    answers.output.flush()?;
    Ok(answers.count)
}

/// What stands in a line, apart from the input.
enum Line {
    Blank,
    Json(String),
    Cells(StringRecord),
    Broken(String),
}

impl Line {
    fn bytes(&self) -> usize {
        match self {
            Self::Blank => 0,
            Self::Json(text) | Self::Broken(text) => text.len(),
            Self::Cells(row) => row.as_slice().len(),
        }
    }
}

/// The next lines with their numbers, none at the end, and whether the input can be read further.
fn next_lines(input: &mut Input<impl BufRead>) -> (Vec<(u64, Line)>, io::Result<()>) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while lines.len() < LINES_AT_ONCE && bytes < BYTES_AT_ONCE {
        let (number, row) = match input.next_row() {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(error) => return (lines, Err(error)),
        };
        let line = match row {
            Row::Blank => Line::Blank,
            Row::Json(text) => Line::Json(text.to_owned()),
            Row::Cells(row) => Line::Cells(row),
            Row::Broken(why) => Line::Broken(why),
        };
        bytes += line.bytes();
        lines.push((number, line));
    }
    (lines, Ok(()))
}

/// What is written for a line that is not blank.
type Answer = Result<Vec<u8>, Vec<FieldError>>;

struct Work<'a> {
    package: &'a Package,
    explain: Option<Top>,
    columns: Columns<'a>,
}

impl Work<'_> {
    /// In the order of the lines.
    fn answer_all(&self, lines: &[(u64, Line)]) -> Vec<(u64, Option<Answer>)> {
        let answers_of = |some: &[(u64, Line)]| -> Vec<_> {
            let answer = |(number, line): &(u64, Line)| (*number, self.answer(line));
            some.iter().map(answer).collect()
        };
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| {
            let shares = lines.chunks(lines.len().div_ceil(cores).max(1));
            let working: Vec<_> = shares
                .map(|some| scope.spawn(move || answers_of(some)))
                .collect();
            let done = working.into_iter().flat_map(|one| {
                one.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            done.collect()
        })
    }

    fn answer(&self, line: &Line) -> Option<Answer> {
        match line {
            Line::Blank => None,
            Line::Json(text) => Some(self.predict(text)),
            Line::Cells(row) => Some(self.predict(&self.columns.record(row).to_string())),
            Line::Broken(why) => Some(Err(vec![FieldError {
                field: "(line)".into(),
                message: why.clone(),
            }])),
        }
    }

    fn predict(&self, text: &str) -> Answer {
        let mut line = Vec::new();
        match self.explain {
            Some(top) => self.package.explain_line(text, top, &mut line),
            None => self.package.predict_line(text, &mut line),
        }?;
        Ok(line)
    }
}

struct Answers<'a, W> {
    output: W,
    progress: &'a mut Progress,
    /// The line of input.
    number: u64,
    count: Count,
}

impl<W: Write> Answers<'_, W> {
    fn write(&mut self, number: u64, answer: Option<Answer>) -> io::Result<()> {
        self.number = number;
        self.count.rows += u64::from(answer.is_some());
        match answer {
            None => self.output.write_all(b"\n"),
            Some(Ok(line)) => {
                self.progress.show(number);
                self.output.write_all(&line)
            }
            Some(Err(errors)) => self.refuse(&errors),
        }
    }

    fn refuse(&mut self, errors: &[FieldError]) -> io::Result<()> {
        self.count.bad += 1;
        for error in errors {
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
    fn many_lines_are_answered_in_their_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mean-score/1");
        let package = Package::load(&folder).expect("the shipped model");
        let line = |n: usize| match n % 7 {
            0 => String::new(),
            1 => "[1]".to_owned(),
            _ => format!("[{n}, 0.5, -{n}, 0.25]"),
        };
        let lines = 3 * LINES_AT_ONCE + 5;
        let input: String = (0..lines).map(|n| line(n) + "\n").collect();
        let mut output = Vec::new();
        let mut progress = Progress::new();
        let count = predict(&package, None, input.as_bytes(), &mut output, &mut progress);
        let filled = (0..lines).filter(|n| n % 7 != 0).count() as u64;
        let bad = (0..lines).filter(|n| n % 7 == 1).count() as u64;
        assert_eq!(count.expect("memory"), Count { rows: filled, bad });
        let output = String::from_utf8(output).expect("JSON");
        assert_eq!(output.lines().count(), lines);
        for (n, answer) in output.lines().enumerate() {
            let mut alone = Vec::new();
            match n % 7 {
                0 => assert_eq!(answer, ""),
                1 => assert!(answer.starts_with("{\"error\""), "{answer}"),
                _ => {
                    package
                        .predict_line(&line(n), &mut alone)
                        .expect("it is good");
                    assert_eq!(answer.as_bytes(), alone.trim_ascii_end(), "line {n}");
                }
            }
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
