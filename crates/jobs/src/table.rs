//! Results as CSV, made of their lines of JSON. The same lines always give the same bytes: ranges count on that.

use std::borrow::Cow;
use std::io;

use auspex_kernel::http::csv_cell;
use memchr::{memchr2, memchr3};
use serde::Deserialize;

/// The header.
pub(crate) const HEADER: &[u8] = b"row,prediction,probability,probabilities,outputs,error\r\n";

/// The members of a line that have a column, each as it is written.
#[derive(Default)]
struct Line<'l> {
    prediction: &'l str,
    probability: &'l str,
    probabilities: &'l str,
    outputs: &'l str,
    error: &'l str,
}

impl<'l> Line<'l> {
    /// Reads what this server has written: a correct object without blanks. serde would look at every digit again, and
    /// results are long.
    fn read(line: &'l str) -> Self {
        let mut read = Self::default();
        let mut rest = line.strip_prefix('{').unwrap_or_default();
        while let Some((key, value)) = rest
            .strip_prefix('"')
            .and_then(|rest| rest.split_once("\":"))
        {
            let (value, after) = value.split_at(value_length(value.as_bytes()));
            match key {
                "prediction" => read.prediction = value,
                "probability" => read.probability = value,
                "probabilities" => read.probabilities = value,
                "outputs" => read.outputs = value,
                "error" => read.error = value,
                _ => {}
            }
            rest = after.strip_prefix(',').unwrap_or_default();
        }
        read
    }

    fn errors(&self) -> String {
        let errors: Vec<Wrong> = serde_json::from_str(self.error).unwrap_or_default();
        let errors = errors
            .iter()
            .map(|error| format!("{} {}", error.field, error.message));
        errors.collect::<Vec<_>>().join("; ")
    }
}

/// How many bytes the value takes that `text` begins with.
fn value_length(text: &[u8]) -> usize {
    let length = match text.first() {
        Some(b'"') => text_length(text),
        Some(b'[') => nested_length(text, b'[', b']'),
        Some(b'{') => nested_length(text, b'{', b'}'),
        _ => memchr3(b',', b']', b'}', text),
    };
    length.unwrap_or(text.len())
}

/// That of a text, with its quotation marks.
fn text_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// That of a list or an object. Brackets of the other kind are in pairs by themselves.
fn nested_length(text: &[u8], open: u8, close: u8) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    loop {
        at += memchr3(open, close, b'"', text.get(at..)?)?;
        match text[at] {
            b'"' => {
                at += text_length(&text[at..])?;
                continue;
            }
            byte if byte == open => depth += 1,
            _ => depth -= 1,
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
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
    // Only our own lines come here.
    let lines = std::str::from_utf8(lines).unwrap_or_default().lines();
    for (number, line) in (first..).zip(lines.filter(|line| !line.is_empty())) {
        let line = Line::read(line);
        let errors = match line.error {
            "" => String::new(),
            _ => line.errors(),
        };
        let number = number.to_string();
        let cells = [
            Cow::Borrowed(number.as_str()),
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
fn cell(value: &str) -> Cow<'_, str> {
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
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_text_holds_the_columns_stay_apart(text: String, more in "[\"\\\\\\[\\]{},:a]{0,20}") {
            let outputs = json!({"a": [more, {"b": text}], "prediction": text});
            let line = json!({"prediction": text, "probability": 0.5, "other": more, "outputs": outputs});
            let written = rows(format!("{line}\n").as_bytes(), 1);
            prop_assert_eq!(rows_bytes(format!("{line}\n").as_bytes(), 1), written.len() as u64);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&*written);
            let cells = reader.records().next().unwrap().unwrap();
            let outputs = outputs.to_string();
            let text = csv_cell(&text);
            prop_assert_eq!(cells, vec!["1", &text, "0.5", "", &outputs, ""]);
        }
    }

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
