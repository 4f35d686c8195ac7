//! The text of a first manifest: one line for each thing, each fit to be edited.

use auspex_engine::{ClassLabel, FeatureKind, Output};
use auspex_kernel::error::shown;
use serde_json::{Map, Value};

use super::column::{Cell, Column, Guess};
use super::{Draft, OTHERS_NAMED};
use crate::package::Package;
use crate::schema::Schema;
use crate::table;

/// How a guess begins that its author should look at.
const CHECK: &str = "# CHECK: ";
/// How long a line of comments is at most.
const COMMENT_WIDTH: usize = 100;

/// Lists of more values than these are not repeated from the model file.
const VALUES_SHOWN: usize = 100;

impl Draft {
    /// All but the example, and what its author should look at.
    pub(super) fn text(&self) -> Result<(String, Vec<String>), String> {
        let mut notes = Vec::new();
        let mut text = self.top();
        if self.names_are_guessed {
            notes.push(
                "the names of the features: the model has none, and these are the columns of the sample \
                 in their order; records that call them f0, f1 and so on are refused from now on"
                    .into(),
            );
            text.push_str("\n# CHECK: the model has no names, these are the columns of the sample in their order.\n");
        }
        if self.rows > 0 {
            text.push_str("\n# min and max are those of the sample and not in force; to refuse what is beyond them, widen them to all\n# that may come and remove the sign of comments.\n");
        }
        for column in &self.columns {
            let guess = column.guess();
            let guess = guess
                .map_err(|what| format!("the sample: column \"{}\" {what}", shown(&column.name)))?;
            if matches!(guess, Guess::Codes(_)) {
                notes.push(format!(
                    "the codes of \"{}\", which the model takes as numbers: they are those of training, and no \
                     sample tells them",
                    shown(&column.name)
                ));
            }
            if let Guess::Dates(date) = &guess {
                notes.push(format!(
                    "\"{}\": the sample has dates such as {}, and the model takes the number that training made of them",
                    shown(&column.name),
                    shown(date)
                ));
            }
            if guess == Guess::Boolean && column.kind != FeatureKind::Boolean {
                notes.push(format!(
                    "\"{}\": from now on it takes true, false, 1 and 0, and no other number",
                    shown(&column.name)
                ));
            }
            let section = feature(column, &guess, self.rows);
            if section.contains("\nnullable = false\n") {
                notes.push(format!(
                    "\"{}\": from now on null is refused",
                    shown(&column.name)
                ));
            }
            text.push_str(&section);
        }
        let marked = text.lines().filter(|line| line.starts_with(CHECK)).count();
        if marked > 0 {
            notes.push(format!("what is marked CHECK in the file, {marked} in all"));
        }
        Ok((text, notes))
    }

    fn top(&self) -> String {
        let from = match &self.source {
            Some(source) => format!("{} and {} rows of {source}", shown(&self.file), self.rows),
            None => shown(&self.file).into_owned(),
        };
        let mut text = format!(
            "# What the model file does not say, made from {from}.\n\
             # Edit it, then run `auspex models check` on this folder. Every key is optional.\n\n\
             title = {}\n\
             # description = \"what it predicts, and for whom\"\n\
             # default = true         # this model answers POST /predict\n\
             # unknown = \"missing\"    # a category that is not listed counts as missing, not as an error\n",
            quoted(&self.model)
        );
        if let Some(missing) = self.signature.missing {
            text.push_str(&format!(
                "missing = {}    # in training this number stood for a missing value\n",
                number(missing)
            ));
        }
        let caution = self.engine.as_ref().and_then(|engine| engine.caution());
        if let Some(caution) = caution {
            text.push_str(&check(&format!("{caution}.")));
            text.push_str("# iteration_range = [0, 0]\n");
        }
        if !self.others.is_empty() {
            let names: Vec<String> = self
                .others
                .iter()
                .take(OTHERS_NAMED)
                .map(|n| quoted(n))
                .collect();
            text.push_str(&format!(
                "# unused = [{}]    # columns of the sample that are no features; to accept and ignore them\n",
                names.join(", ")
            ));
        }
        let output = self.signature.output;
        let (kind, labels) = match output {
            Output::Binary => ("binary", 2),
            Output::Multiclass { classes } => ("multiclass", classes),
            Output::Class { classes } => ("class", classes),
            Output::Numbers { count } => ("numbers", count),
        };
        text.push_str(&format!("\n[output]\nkind = \"{kind}\"\n"));
        let is_short = labels <= VALUES_SHOWN && output != Output::Numbers { count: 1 };
        if is_short {
            let (labels, note): (Vec<String>, _) = match &self.signature.class_labels[..] {
                [] => (
                    (0..labels)
                        .map(|label| format!("\"name of {label}\""))
                        .collect(),
                    "",
                ),
                names => (
                    names.iter().map(written).collect(),
                    "    # those of the model",
                ),
            };
            text.push_str(&format!("# labels = [{}]{note}\n", labels.join(", ")));
        }
        text
    }

    /// The section of an example with its line in the sample, made of the first row that the package
    /// accepts; if none is, why the first is not. Rows with a number that may stand for a missing value come
    /// last: once it does, their answers are others.
    pub(super) fn example(&self, package: &Package) -> Result<(u64, String), Option<String>> {
        let mut refusal = None;
        let suspected = |row: &[Cell]| {
            let mut cells = self.columns.iter().zip(row);
            cells.find_map(|(column, cell)| column.suspected(cell))
        };
        let mut rows: Vec<_> = self
            .kept
            .iter()
            .map(|(line, row)| (line, row, suspected(row)))
            .collect();
        rows.sort_by_key(|(_, _, suspected)| suspected.is_some());
        for (line, row, suspected) in rows {
            let record = record(&self.columns, row, package.schema());
            match package.answer(&record) {
                Ok(output) => {
                    let suspicion = suspected.map_or_else(String::new, |suspected| {
                        format!(
                            " It is another one once {} stands for a missing value.",
                            number(suspected)
                        )
                    });
                    let mut text = format!(
                        "\n{}[[examples]]\noutput = {}\n[examples.input]\n",
                        check(&format!(
                            "line {line} of the sample. The output is what this program computes; compare it \
                             with what the model gives in Python.{suspicion}"
                        )),
                        outputs(&output)
                    );
                    for (name, value) in &record {
                        text.push_str(&format!("{} = {}\n", key(name), toml(value)));
                    }
                    return Ok((*line, text));
                }
                Err(reason) => refusal = refusal.or(Some(format!("line {line}: {reason}"))),
            }
        }
        Err(refusal)
    }
}

/// The section of a feature in a draft of so many rows.
fn feature(column: &Column, guess: &Guess, rows: u64) -> String {
    let mut text = format!("\n[[features]]\nname = {}\n", quoted(&column.name));
    match guess {
        Guess::Number => text.push_str("type = \"number\"\n"),
        Guess::Integer if column.kind == FeatureKind::Integer => {
            text.push_str("type = \"integer\"\n");
        }
        Guess::Integer => {
            text.push_str(&check(
                "the sample has only whole numbers; write \"integer\" if training had integers here: fractions \
                 are refused then.",
            ));
            text.push_str("type = \"number\"\n");
        }
        Guess::Dates(date) => {
            text.push_str(&check(&format!(
                "the sample has dates here, such as {}, and the model takes a number: send the number that \
                 your training made of them, such as days since a first day. Which one it was is nowhere in the \
                 model file.",
                shown(date)
            )));
            text.push_str("type = \"number\"\n");
        }
        Guess::Boolean => {
            if column.kind != FeatureKind::Boolean {
                text.push_str(&check("true is 1 to the model and false is 0."));
            }
            text.push_str("type = \"boolean\"\n");
        }
        Guess::Text => text.push_str("type = \"string\"\n"),
        Guess::Any => text.push_str("# of any type, or left out: no prediction depends on it\n"),
        Guess::Category => text.push_str(&known_category(column)),
        Guess::Codes(values) => text.push_str(&unknown_codes(column, values)),
    }
    if matches!(guess, Guess::Number | Guess::Integer) {
        text.push_str(&range(column));
    }
    text.push_str(&missing(column, guess, rows));
    text.push_str("# description = \"\"\n");
    text
}

/// A comment on a guess, over as many lines as it takes.
fn check(words: &str) -> String {
    let mut text = String::new();
    let mut line = CHECK.trim_end().to_owned();
    for word in words.split(' ') {
        if line.len() + word.len() >= COMMENT_WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    text + &line + "\n"
}

fn known_category(column: &Column) -> String {
    let mut text = "type = \"category\"\n".to_owned();
    if let FeatureKind::Category(values) = &column.kind {
        text.push_str(&match values.len() > VALUES_SHOWN {
            true => format!("# its {} values are in the model file\n", values.len()),
            false => format!("values = {}\n", list(values)),
        });
    }
    if let (FeatureKind::Category(values), true) = (&column.kind, column.numbers > 0) {
        text.push_str(&check(&format!(
            "the sample has numbers where the model has texts, such as {}; a record must have the text, between \
             quotation marks.",
            values.first().map_or_else(|| "\"1\"".into(), |value| quoted(value))
        )));
    }
    if !column.strangers.is_empty() {
        let strangers: Vec<String> = column.strangers.iter().cloned().collect();
        text.push_str(&check(&format!(
            "the sample has values that the model has not: {}",
            list(&strangers)
        )));
    }
    text
}

/// Categories that the model takes as numbers. Their codes are those of all categories of training: a sample
/// that lacks one would shift those after it, so that none is written in force. Where the file says that
/// they are codes, numbers that can be none are kept out.
fn unknown_codes(column: &Column, values: &[String]) -> String {
    let in_force = match column.kind {
        FeatureKind::Code => format!(
            "{}type = \"integer\"\nmin = 0\nmax = {}\n",
            check("until then a record has the code itself, and these lines go."),
            values.len().max(1) - 1
        ),
        _ => String::new(),
    };
    let words = format!(
        "the model takes numbers here, the codes that categories had in training, where there \
         may have been some that the sample lacks. Print all of them in the order of their codes, \
         with list(df[{}].cat.categories) for a categorical column of pandas or list(encoder.classes_) for a \
         LabelEncoder, put them in place of these, and remove the two signs of comments.",
        quoted(&column.name)
    );
    format!(
        "{}# type = \"category\"\n# values = {}\n{in_force}",
        check(&words),
        list(values)
    )
}

fn range(column: &Column) -> String {
    let mut text = String::new();
    if let Some(padded) = &column.padded {
        text.push_str(&check(&format!(
            "cells such as {padded} are taken for numbers, as pandas takes them without dtype=str."
        )));
    }
    if let Some(sentinel) = column.sentinel() {
        let sentinel = number(sentinel);
        text.push_str(&check(&format!(
            "does {sentinel} stand for a missing value? If it did so in training (missing={sentinel}), add \
             missing = {sentinel} here. The range is without it."
        )));
    }
    let (min, max) = match column.numbers {
        0 => (0.0, 100.0),
        _ => column.range(),
    };
    text + &format!("# min = {}\n# max = {}\n", number(min), number(max))
}

/// Whether it may be missing.
fn missing(column: &Column, guess: &Guess, rows: u64) -> String {
    let without = column.absent + column.missing;
    if column.absent == rows && rows > 0 {
        return check(
            "the sample has no such column. A record must have it, unless you write nullable = true.",
        );
    }
    if without == 0 {
        return String::new();
    }
    let found = format!("{without} of {rows} rows of the sample have no value");
    match guess {
        // The library itself makes NaN of a missing category where it knows that it is one.
        Guess::Codes(_) if column.kind != FeatureKind::Code => {
            check(&format!(
                "{found}, and no record may be without one. The code of a missing category is -1 in .cat.codes, \
                 which cannot be sent as null; if training had NaN in its place, write nullable = true."
            )) + "nullable = false\n"
        }
        _ => {
            check(&format!(
                "{found}; the model sees NaN in its place. If training had something else there, write \
                 nullable = false."
            )) + "nullable = true\n"
        }
    }
}

/// A row of the sample as a record of a request.
fn record(columns: &[Column], row: &[Cell], schema: &Schema) -> Map<String, Value> {
    let fields = columns.iter().zip(row).zip(&schema.features);
    let fields = fields.filter_map(|((column, cell), field)| {
        let value = match cell {
            Cell::Absent => return None,
            _ if cell.is_missing(&column.kind) => Value::Null,
            Cell::Json(value) => value.clone(),
            Cell::Text(text) => table::value(field, text),
        };
        // Integers of TOML end there.
        let value = match value.as_u64() {
            Some(whole) if whole > i64::MAX as u64 => Value::from(whole as f64),
            _ => value,
        };
        Some((field.name.clone(), value))
    });
    fields.collect()
}

/// An example as comments, for its author to fill in.
pub(super) fn example_to_fill_in(package: &Package) -> String {
    let mut text = "\n# An example is checked whenever the model is loaded, so that another one cannot go live \
                    in its place.\n# [[examples]]\n# output = 0.5    # what the model gives in Python\n\
                    # [examples.input]\n"
        .to_owned();
    for (name, value) in package.example_record().as_object().into_iter().flatten() {
        text.push_str(&format!("# {} = {}\n", key(name), toml(value)));
    }
    text
}

/// A basic string of TOML. It has the escapes of JSON, and one control character more that needs one.
fn written(label: &ClassLabel) -> String {
    match label {
        ClassLabel::Number(number) => number.to_string(),
        ClassLabel::Text(text) => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

fn key(name: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(is_bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "nan".into(),
        _ if value.trunc() == value && value.abs() < 9e15 => format!("{}", value as i64),
        _ => format!("{value:?}"),
    }
}

fn outputs(values: &[f64]) -> String {
    let numbers: Vec<String> = values.iter().map(|value| number(*value)).collect();
    match numbers.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", numbers.join(", ")),
    }
}

/// TOML has no null: `nan` stands for a missing value.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => match value.as_i64() {
            Some(whole) => whole.to_string(),
            None => number(value.as_f64().unwrap_or(f64::NAN)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => "nan".into(),
    }
}
