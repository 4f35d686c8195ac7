//! `auspex predict`: JSON Lines in, predictions out, in the order of the lines.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use auspex_inference::Package;
use auspex_kernel::clock::monotonic;

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

/// Returns how many lines were bad; each is reported with its number and leaves no output line.
fn predict(
    package: &Package,
    mut input: impl BufRead,
    mut output: impl Write,
    progress: &mut Progress,
) -> io::Result<u64> {
    let mut values = Vec::new();
    let mut line = Vec::new();
    let mut answer = Vec::new();
    let (mut number, mut bad) = (0u64, 0u64);
    loop {
        line.clear();
        // One byte more, for the line feed.
        let read = io::Read::take(&mut input, LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        number += 1;
        if read as u64 > LINE_BYTES_MAX && !line.ends_with(b"\n") {
            input.skip_until(b'\n')?;
            bad += 1;
            eprintln!("line {number}: is longer than {LINE_BYTES_MAX} bytes");
            continue;
        }
        let Ok(text) = std::str::from_utf8(&line) else {
            bad += 1;
            eprintln!("line {number}: is not UTF-8");
            continue;
        };
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        match package.parse_line(text) {
            Ok(row) => match package.predict(&row, &mut values) {
                Ok(()) => {
                    answer.clear();
                    package.write_prediction_line(&mut answer, &values);
                    output.write_all(&answer)?;
                }
                Err(refusal) => {
                    bad += 1;
                    eprintln!("line {number}: {}", refusal.reason);
                }
            },
            Err(errors) => {
                bad += 1;
                for error in errors {
                    eprintln!("line {number}: {} {}", error.field, error.message);
                }
            }
        }
        progress.show(number);
    }
    progress.finish(number);
    output.flush()?;
    Ok(bad)
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
            assert_eq!(output.lines().count(), good, "{length}");
        }
    }
}
