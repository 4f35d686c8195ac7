//! Results as CSV, made of their lines of JSON. The same lines always give the same bytes: ranges count on that.

use std::borrow::Cow;
use std::io;

use auspex_kernel::http::csv_cell;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The header.
pub(crate) const HEADER: &[u8] = b"row,prediction,probability,probabilities,outputs,error\r\n";

/// A line of a result.
#[derive(Deserialize)]
struct Line<'l> {
    #[serde(borrow, default)]
    prediction: Option<&'l RawValue>,
    #[serde(borrow, default)]
    probability: Option<&'l RawValue>,
    #[serde(borrow, default)]
    probabilities: Option<&'l RawValue>,
    #[serde(borrow, default)]
    outputs: Option<&'l RawValue>,
    #[serde(default)]
    error: Vec<Wrong>,
}

/// What is wrong with a field.
#[derive(Deserialize)]
struct Wrong {
    field: String,
    message: String,
}

/// The rows of CSV for lines of JSON, of which the first is row `first`.
pub(crate) fn rows(lines: &[u8], first: u64) -> Vec<u8> {
    let mut rows = Vec::with_capacity(lines.len());
    write(lines, first, &mut rows);
    rows
}

/// How many bytes these rows have.
pub(crate) fn rows_bytes(lines: &[u8], first: u64) -> u64 {
    let mut counted = Counted(0);
    write(lines, first, &mut counted);
    counted.0
}

/// Counts what is written.
struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(lines: &[u8], first: u64, to: impl io::Write) {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(to);
    let lines = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    for (number, line) in (first..).zip(lines) {
        // Only our own lines come here.
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            continue;
        };
        let errors = line
            .error
            .iter()
            .map(|error| format!("{} {}", error.field, error.message));
        let errors = errors.collect::<Vec<_>>().join("; ");
        let cells = [
            Cow::Owned(number.to_string()),
            cell(line.prediction),
            cell(line.probability),
            cell(line.probabilities),
            cell(line.outputs),
            csv_cell(&errors),
        ];
        // It goes to memory, or is counted.
        let _ = writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
    }
    let _ = writer.flush();
}

/// A number or a list as it stands, a text without its quotation marks.
fn cell(value: Option<&RawValue>) -> Cow<'_, str> {
    let value = value.map_or("", RawValue::get);
    match value.as_bytes().first() {
        Some(b'"') => {
            let text = serde_json::from_str::<String>(value).unwrap_or_default();
            Cow::Owned(csv_cell(&text).into_owned())
        }
        _ if value == "null" => Cow::Borrowed(""),
        _ => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_as_they_are_texts_are_bare_and_errors_stand_in_their_row() {
        let lines = br#"{"prediction":-0.50,"probability":null}
{"prediction":"=yes, no","probability":0.6341356,"probabilities":[0.3658644,0.6341356]}
{"error":[{"field":"age","message":"is required"},{"field":"sex","message":"must be one of H, V"}]}
"#;
        let text = String::from_utf8(rows(lines, 7)).unwrap();
        assert_eq!(rows_bytes(lines, 7), text.len() as u64);
        assert_eq!(
            text,
            "7,-0.50,,,,\r\n8,\"'=yes, no\",0.6341356,\"[0.3658644,0.6341356]\",,\r\n\
             9,,,,,\"age is required; sex must be one of H, V\"\r\n"
        );
    }
}
