//! Results as CSV, made of their lines of JSON. The same lines always give the same bytes: ranges count on that.

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
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::with_capacity(lines.len()));
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
            number.to_string(),
            cell(line.prediction),
            cell(line.probability),
            cell(line.probabilities),
            cell(line.outputs),
            csv_cell(&errors).into_owned(),
        ];
        // It goes to memory.
        let _ = writer.write_record(cells);
    }
    writer.into_inner().unwrap_or_default()
}

/// A number or a list as it stands, a text without its quotation marks.
fn cell(value: Option<&RawValue>) -> String {
    let Some(value) = value.map(RawValue::get).filter(|value| *value != "null") else {
        return String::new();
    };
    match serde_json::from_str::<String>(value) {
        Ok(text) => csv_cell(&text).into_owned(),
        Err(_) => value.to_owned(),
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
        assert_eq!(
            text,
            "7,-0.50,,,,\r\n8,\"'=yes, no\",0.6341356,\"[0.3658644,0.6341356]\",,\r\n\
             9,,,,,\"age is required; sex must be one of H, V\"\r\n"
        );
    }
}
