//! Answers written as JSON, straight from the numbers a model gave.
//!
//! Numbers are the shortest decimals that read back to the same value in the model's precision.

use auspex_engine::{ClassLabel, Output, Precision, Signature};
use serde::{Deserialize, Serialize};

use crate::explain::Explained;

/// The name of a class or of an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged, expecting = "a label must be a string or an integer")]
pub enum Label {
    /// A class number.
    Number(i64),
    /// A name.
    Text(String),
}

/// What is answered.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    /// The numbers that the model gave, row by row.
    pub(crate) values: &'a [f64],
    /// Where explanations are asked for.
    pub(crate) explained: Option<&'a Explained<'a>>,
}

impl<'a> From<&'a [f64]> for Answer<'a> {
    fn from(values: &'a [f64]) -> Self {
        Self {
            values,
            explained: None,
        }
    }
}

/// Writes the answers of one model version.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Numbers in an output row.
    width: usize,
    main: Part,
    /// Key and part of each other output: `"size":`.
    more: Vec<(Vec<u8>, Part)>,
    precision: Precision,
    /// `{"model":"m","model_version":"1"`
    head: Vec<u8>,
}

/// One output of a model.
#[derive(Debug)]
struct Part {
    output: Output,
    /// The list of labels, or `null`.
    labels_json: Vec<u8>,
    /// Each label.
    label_json: Vec<Vec<u8>>,
}

impl Part {
    fn new(output: Output, labels: Option<&[Label]>) -> Self {
        Self {
            output,
            labels_json: labels.map_or_else(|| b"null".to_vec(), json),
            label_json: labels.into_iter().flatten().map(json).collect(),
        }
    }
}

impl Writer {
    /// `labels` has one entry per class of the first output, or is `None` for plain numbers.
    pub(crate) fn new(
        model: &str,
        version: &str,
        signature: &Signature,
        labels: Option<&[Label]>,
    ) -> Self {
        let mut head = b"{\"model\":".to_vec();
        head.extend(json(model));
        head.extend(b",\"model_version\":");
        head.extend(json(version));
        let more = signature.more_outputs.iter().map(|more| {
            let mut key = json(&more.name);
            key.push(b':');
            let labels = class_numbers(more.output);
            (key, Part::new(more.output, labels.as_deref()))
        });
        Self {
            width: signature.outputs(),
            main: Part::new(signature.output, labels),
            more: more.collect(),
            precision: signature.precision,
            head,
        }
    }

    /// `{"predictions":[[…],…]}`: every number of every row, and `"explanations":[…]` where they are
    /// asked for.
    pub(crate) fn all_numbers(&self, answer: &Answer<'_>, out: &mut Vec<u8>) {
        let values = answer.values;
        out.reserve(20 + values.len() * 14);
        out.extend(b"{\"predictions\":[");
        for (index, row) in values.chunks_exact(self.width).enumerate() {
            out.extend(if index == 0 { "[" } else { ",[" }.as_bytes());
            let mut rest = self.part_numbers(&self.main, row, out);
            for (_, part) in &self.more {
                out.push(b',');
                rest = self.part_numbers(part, rest, out);
            }
            out.push(b']');
        }
        out.push(b']');
        if let Some(explained) = answer.explained {
            out.extend(b",\"explanations\":[");
            for row in 0..values.len() / self.width {
                out.extend(if row == 0 { "" } else { "," }.as_bytes());
                explained.write(row, out);
            }
            out.push(b']');
        }
        out.push(b'}');
    }

    /// Writes the numbers of one output; returns those that follow.
    fn part_numbers<'r>(&self, part: &Part, row: &'r [f64], out: &mut Vec<u8>) -> &'r [f64] {
        let (own, rest) = row.split_at(part.output.width());
        if part.output == Output::Binary {
            self.number(self.complement(own[0]), out);
            out.push(b',');
        }
        for (index, value) in own.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            match part.output {
                Output::Class { .. } => out.extend((*value as i64).to_string().as_bytes()),
                _ => self.number(*value, out),
            }
        }
        rest
    }

    /// The answer for a single instance.
    pub(crate) fn single(&self, answer: &Answer<'_>, request_id: &str, out: &mut Vec<u8>) {
        let values = answer.values;
        out.reserve(self.head.len() + self.main.labels_json.len() + values.len() * 14 + 160);
        out.extend(&self.head);
        out.push(b',');
        self.prediction(answer, 0, out);
        out.extend(b",\"labels\":");
        out.extend(&self.main.labels_json);
        self.tail(request_id, out);
    }

    /// The answer for a list of instances.
    pub(crate) fn list(&self, answer: &Answer<'_>, request_id: &str, out: &mut Vec<u8>) {
        let values = answer.values;
        let rows = values.len() / self.width;
        let labels = &self.main.labels_json;
        out.reserve(self.head.len() + labels.len() + values.len() * 14 + rows * 80 + 80);
        out.extend(&self.head);
        out.extend(b",\"labels\":");
        out.extend(labels);
        out.extend(b",\"predictions\":[");
        for row in 0..rows {
            out.extend(if row == 0 { "{" } else { ",{" }.as_bytes());
            self.prediction(answer, row, out);
            out.push(b'}');
        }
        out.push(b']');
        self.tail(request_id, out);
    }

    /// One line of output of the command line, with its line feed.
    pub(crate) fn line(&self, answer: &Answer<'_>, out: &mut Vec<u8>) {
        out.push(b'{');
        self.prediction(answer, 0, out);
        out.extend(b"}\n");
    }

    /// [`Writer::line`] for several rows: a list.
    pub(crate) fn lines(&self, answer: &Answer<'_>, out: &mut Vec<u8>) {
        for row in 0..answer.values.len() / self.width {
            out.extend(if row == 0 { b"[{" } else { b",{" });
            self.prediction(answer, row, out);
            out.push(b'}');
        }
        out.extend(b"]\n");
    }

    /// The row as `/predict` answers it.
    pub(crate) fn answer_row(&self, mut row: &[f64]) -> Vec<f64> {
        let mut answer = Vec::new();
        for part in std::iter::once(&self.main).chain(self.more.iter().map(|(_, part)| part)) {
            let (own, rest) = row.split_at(part.output.width());
            if part.output == Output::Binary {
                answer.push(self.complement(own[0]));
            }
            answer.extend(own);
            row = rest;
        }
        answer
    }

    /// `"prediction":…,"probability":…,"probabilities":…`, `"outputs":{…}` of a model that gives more
    /// than one, and `"explanation":…` where it is asked for.
    fn prediction(&self, answer: &Answer<'_>, row: usize, out: &mut Vec<u8>) {
        let rest = self.part(
            &self.main,
            &answer.values[row * self.width..][..self.width],
            out,
        );
        if !self.more.is_empty() {
            self.more_parts(rest, out);
        }
        if let Some(explained) = answer.explained {
            out.extend(b",\"explanation\":");
            explained.write(row, out);
        }
    }

    fn more_parts(&self, mut rest: &[f64], out: &mut Vec<u8>) {
        out.extend(b",\"outputs\":{");
        for (index, (key, part)) in self.more.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend(key);
            out.push(b'{');
            rest = self.part(part, rest, out);
            out.extend(b",\"labels\":");
            out.extend(&part.labels_json);
            out.push(b'}');
        }
        out.push(b'}');
    }

    /// Writes what one output says about a row; returns the numbers that follow its own.
    fn part<'r>(&self, part: &Part, row: &'r [f64], out: &mut Vec<u8>) -> &'r [f64] {
        let (row, rest) = row.split_at(part.output.width());
        out.extend(b"\"prediction\":");
        match part.output {
            Output::Binary => {
                let complement = self.complement(row[0]);
                let second = row[0] > 0.5;
                part.label(usize::from(second), out);
                let probability = if second { row[0] } else { complement };
                self.probabilities(probability, &[complement, row[0]], out);
            }
            Output::Multiclass { .. } => {
                let best = first_largest(row);
                part.label(best, out);
                self.probabilities(row[best], row, out);
            }
            Output::Class { .. } => {
                part.label(row[0] as usize, out);
                out.extend(b",\"probability\":null,\"probabilities\":null");
            }
            Output::Numbers { count } => {
                if count == 1 {
                    self.number(row[0], out);
                } else {
                    self.numbers(row, out);
                }
                out.extend(b",\"probability\":null,\"probabilities\":null");
            }
        }
        rest
    }

    fn probabilities(&self, probability: f64, all: &[f64], out: &mut Vec<u8>) {
        out.extend(b",\"probability\":");
        self.number(probability, out);
        out.extend(b",\"probabilities\":");
        self.numbers(all, out);
    }

    fn numbers(&self, values: &[f64], out: &mut Vec<u8>) {
        for (index, value) in values.iter().enumerate() {
            out.push(if index == 0 { b'[' } else { b',' });
            self.number(*value, out);
        }
        out.push(b']');
    }

    /// Writes the label of a class of the first output, `null` for plain numbers.
    pub(crate) fn label(&self, class: usize, out: &mut Vec<u8>) {
        self.main.label(class, out);
    }

    /// JSON has no numbers that are not finite: they become `null`.
    pub(crate) fn number(&self, value: f64, out: &mut Vec<u8>) {
        let mut buffer = zmij::Buffer::new();
        let text = match self.precision {
            _ if !value.is_finite() => "null",
            Precision::F32 => buffer.format_finite(value as f32),
            Precision::F64 => buffer.format_finite(value),
        };
        out.extend(text.as_bytes());
    }

    /// The probability of the first of two classes, rounded as the model would.
    fn complement(&self, second: f64) -> f64 {
        match self.precision {
            Precision::F32 => f64::from(1.0 - second as f32),
            Precision::F64 => 1.0 - second,
        }
    }

    fn tail(&self, request_id: &str, out: &mut Vec<u8>) {
        out.extend(b",\"request_id\":\"");
        out.extend(request_id.as_bytes());
        out.extend(b"\"}");
    }
}

impl Part {
    fn label(&self, index: usize, out: &mut Vec<u8>) {
        match self.label_json.get(index) {
            Some(label) => out.extend(label),
            None => out.extend(b"null"),
        }
    }
}

/// The labels of a model whose package names none: those in its file, else the numbers of its classes.
pub(crate) fn own_labels(signature: &Signature) -> Option<Vec<Label>> {
    if signature.class_labels.is_empty() {
        return class_numbers(signature.output);
    }
    let labels = signature.class_labels.iter().map(|label| match label {
        ClassLabel::Number(number) => Label::Number(*number),
        ClassLabel::Text(text) => Label::Text(text.clone()),
    });
    Some(labels.collect())
}

/// The numbers of the classes of an output.
pub(crate) fn class_numbers(output: Output) -> Option<Vec<Label>> {
    let classes = match output {
        Output::Binary => 2,
        Output::Multiclass { classes } | Output::Class { classes } => classes,
        Output::Numbers { .. } => return None,
    };
    Some((0..classes as i64).map(Label::Number).collect())
}

/// As numpy's `argmax`.
pub(crate) fn first_largest(row: &[f64]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

/// Text, lists and labels as JSON; none of them can fail.
fn json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and integers are always JSON")
}

#[cfg(test)]
mod tests {
    use auspex_engine::NamedOutput;

    use super::*;

    fn writer(output: Output, precision: Precision, labels: Option<&[Label]>) -> Writer {
        let signature = Signature {
            features: Vec::new(),
            named: false,
            output,
            more_outputs: Vec::new(),
            precision,
            class_labels: Vec::new(),
            missing: None,
        };
        Writer::new("m", "1", &signature, labels)
    }

    fn line(writer: &Writer, values: &[f64]) -> String {
        let mut out = Vec::new();
        writer.line(&values.into(), &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn a_binary_answer_has_both_classes_in_single_precision() {
        let labels = class_numbers(Output::Binary);
        let writer = writer(Output::Binary, Precision::F32, labels.as_deref());
        let p = f64::from(0.634_135_6_f32);
        assert_eq!(
            line(&writer, &[p]),
            "{\"prediction\":1,\"probability\":0.6341356,\"probabilities\":[0.3658644,0.6341356]}\n"
        );
        assert!(line(&writer, &[0.5]).starts_with("{\"prediction\":0,\"probability\":0.5,"));
        let mut out = Vec::new();
        writer.all_numbers(&[p].as_slice().into(), &mut out);
        assert_eq!(out, b"{\"predictions\":[[0.3658644,0.6341356]]}");
    }

    #[test]
    fn the_first_of_the_most_probable_classes_wins() {
        let labels = ["a", "b", "c"].map(|label| Label::Text(label.into()));
        let writer = writer(
            Output::Multiclass { classes: 3 },
            Precision::F64,
            Some(&labels),
        );
        let mut out = Vec::new();
        writer.single(&[0.2, 0.4, 0.4].as_slice().into(), "req_1", &mut out);
        assert_eq!(
            String::from_utf8(out).expect("UTF-8"),
            r#"{"model":"m","model_version":"1","prediction":"b","probability":0.4,"probabilities":[0.2,0.4,0.4],"labels":["a","b","c"],"request_id":"req_1"}"#
        );
    }

    #[test]
    fn a_class_without_probability_is_a_label() {
        let labels = ["no", "yes"].map(|label| Label::Text(label.into()));
        let writer = writer(Output::Class { classes: 2 }, Precision::F32, Some(&labels));
        assert_eq!(
            line(&writer, &[1.0]),
            "{\"prediction\":\"yes\",\"probability\":null,\"probabilities\":null}\n"
        );
        let mut out = Vec::new();
        writer.all_numbers(&[1.0].as_slice().into(), &mut out);
        assert_eq!(out, b"{\"predictions\":[[1]]}");
    }

    #[test]
    fn outputs_beside_the_first_are_named() {
        let named = |name: &str, output| NamedOutput {
            name: name.into(),
            output,
        };
        let signature = Signature {
            features: Vec::new(),
            named: true,
            output: Output::Numbers { count: 1 },
            more_outputs: vec![
                named("risk", Output::Binary),
                named("class", Output::Class { classes: 3 }),
            ],
            precision: Precision::F64,
            class_labels: Vec::new(),
            missing: None,
        };
        let writer = Writer::new("m", "1", &signature, None);
        let row = [1.5, 0.75, 2.0];
        assert_eq!(
            line(&writer, &row),
            "{\"prediction\":1.5,\"probability\":null,\"probabilities\":null,\"outputs\":{\
             \"risk\":{\"prediction\":1,\"probability\":0.75,\"probabilities\":[0.25,0.75],\
             \"labels\":[0,1]},\
             \"class\":{\"prediction\":2,\"probability\":null,\"probabilities\":null,\
             \"labels\":[0,1,2]}}}\n"
        );
        let mut out = Vec::new();
        writer.all_numbers(&row.as_slice().into(), &mut out);
        assert_eq!(out, b"{\"predictions\":[[1.5,0.25,0.75,2]]}");
        assert_eq!(writer.answer_row(&row), [1.5, 0.25, 0.75, 2.0]);
    }

    #[test]
    fn regressions_answer_numbers_and_never_nan() {
        let one = writer(Output::Numbers { count: 1 }, Precision::F32, None);
        assert!(line(&one, &[f64::from(0.1f32)]).starts_with("{\"prediction\":0.1,"));
        assert!(line(&one, &[f64::NAN]).starts_with("{\"prediction\":null,"));
        let two = writer(Output::Numbers { count: 2 }, Precision::F64, None);
        assert!(line(&two, &[1.5, -2e300]).starts_with("{\"prediction\":[1.5,-2e+300],"));
        let mut out = Vec::new();
        two.list(&[1.0, 2.0, 3.0, 4.0].as_slice().into(), "r", &mut out);
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }
}
