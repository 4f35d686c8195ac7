//! What the outputs of a graph mean, and how they become an output row.

use std::borrow::Cow;

use super::ops::{self, Labels};
use super::program::{Names, Program};
use super::proto::{Graph, Model, Node};
use super::tensor::{Data, Tensor};
use crate::document::{Fault, shorten};
use crate::signature::{ClassLabel, NamedOutput, Output, Precision};

/// How deeply names of classes are looked for.
const DEPTH_MAX: usize = 24;

/// How far from 1 probabilities may add up.
const NEAR: f64 = 1e-3;

/// Columns of an output.
const WIDTH_MAX: usize = 1 << 16;

/// One value of a graph that is shown.
#[derive(Debug)]
struct Shown {
    number: usize,
    name: String,
    output: Output,
    /// Names of the classes, where the value is such names.
    labels: Option<Labels>,
}

/// All that is shown; the first is what the model is for.
#[derive(Debug)]
pub(super) struct Outputs {
    shown: Vec<Shown>,
    pub(super) class_labels: Vec<ClassLabel>,
    pub(super) precision: Precision,
}

/// Where the names of classes come from.
enum Source {
    Labels(Labels),
    /// They are the numbers of the classes.
    Places,
}

/// Values of a graph for some rows that are made up.
pub(super) type Trials<'p> = Vec<Vec<Option<Cow<'p, Tensor>>>>;

impl Outputs {
    pub(super) fn read(
        model: &Model<'_>,
        program: &Program,
        names: &Names<'_>,
        trials: &Trials<'_>,
    ) -> Result<Self, Fault> {
        let graph = &model.graph;
        let mut outputs = Self {
            shown: Vec::new(),
            class_labels: Vec::new(),
            precision: Precision::F32,
        };
        let mut source = None;
        let mut labels_shown = None;
        for value in &graph.outputs {
            let number = names.get(value.name)?;
            let tensor = made(&trials[0], number)?;
            let width = width(tensor, 1)
                .map_err(|fault| fault.inside(format_args!("output `{}`", shorten(value.name))))?;
            outputs.precision = match tensor.data {
                Data::Float(_) => outputs.precision,
                _ => Precision::F64,
            };
            let mapped = producer(graph, value.name).filter(|node| node.operator == "ZipMap");
            if let Some(labels) = mapped.map(ops::labels).transpose()?.flatten() {
                source = Some(Source::Labels(labels));
            } else if width == 1
                && labels_shown.is_none()
                && !matches!(tensor.data, Data::Float(_) | Data::Double(_))
            {
                labels_shown = Some(outputs.shown.len());
                if let (Some(found), None) = (trace(graph, program, names, value.name)?, &source) {
                    source = Some(found);
                }
            }
            outputs.shown.push(Shown {
                number,
                name: value.name.to_owned(),
                output: Output::Numbers { count: width },
                labels: None,
            });
        }
        outputs.classify(source, labels_shown, trials)?;
        for shown in &outputs.shown {
            if shown.labels.is_none()
                && matches!(made(&trials[0], shown.number)?.data, Data::Text(_))
            {
                return Err(Fault(format!(
                    "the output `{}` is of texts that the file does not tell; leave it out",
                    shorten(&shown.name)
                )));
            }
        }
        match outputs.shown.is_empty() {
            true => Err(Fault::new("a graph without outputs")),
            false => Ok(outputs),
        }
    }

    /// Finds out whether the model tells classes, and how.
    fn classify(
        &mut self,
        source: Option<Source>,
        label: Option<usize>,
        trials: &Trials<'_>,
    ) -> Result<(), Fault> {
        let Some(label) = label else { return Ok(()) };
        let is_wide =
            |shown: &Shown, classes: usize| shown.output.width() == classes && classes > 1;
        let widths = self
            .shown
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != label);
        let widest = widths
            .map(|(_, shown)| shown.output.width())
            .max()
            .unwrap_or(0);
        let Some(source) = source else { return Ok(()) };
        let classes = match &source {
            Source::Labels(labels) => labels.len(),
            Source::Places => widest,
        };
        if classes < 2 {
            return Ok(());
        }
        let scores = (0..self.shown.len())
            .find(|place| *place != label && is_wide(&self.shown[*place], classes));
        let probabilities = match scores {
            Some(place) if are_probabilities(trials, self.shown[place].number)? => Some(place),
            _ => None,
        };
        if let Source::Labels(labels) = &source {
            self.class_labels = match labels {
                Labels::Texts(texts) => texts
                    .iter()
                    .map(|text| ClassLabel::Text(text.to_string()))
                    .collect(),
                Labels::Numbers(numbers) => {
                    numbers.iter().copied().map(ClassLabel::Number).collect()
                }
            };
        }
        let Some(place) = probabilities else {
            let shown = &mut self.shown[label];
            shown.output = Output::Class { classes };
            shown.labels = Some(match source {
                Source::Labels(labels) => labels,
                Source::Places => Labels::Numbers((0..classes as i64).collect()),
            });
            self.shown.swap(0, label);
            return Ok(());
        };
        self.shown[place].output = match classes {
            2 => Output::Binary,
            classes => Output::Multiclass { classes },
        };
        self.shown.swap(0, place);
        // The label is that of the greatest probability.
        let number = if label == 0 { place } else { label };
        self.shown.remove(number);
        Ok(())
    }

    pub(super) fn first(&self) -> Output {
        self.shown[0].output
    }

    pub(super) fn more(&self) -> Vec<NamedOutput> {
        let more = self.shown[1..].iter().map(|shown| NamedOutput {
            name: shown.name.clone(),
            output: shown.output,
        });
        more.collect()
    }

    /// Writes rows of all that is shown.
    pub(super) fn write(
        &self,
        values: &[Option<Cow<'_, Tensor>>],
        rows: usize,
        out: &mut [f64],
    ) -> Result<(), Fault> {
        let all = out.len() / rows.max(1);
        let mut first = 0;
        for shown in &self.shown {
            let own = shown.output.width();
            let tensor = made(values, shown.number)?;
            let is_binary = shown.output == Output::Binary;
            let columns = width(tensor, rows)?;
            if columns != if is_binary { 2 } else { own } {
                return Err(Fault(format!(
                    "the output `{}` is of another width than before",
                    shorten(&shown.name)
                )));
            }
            let numbers = match &shown.labels {
                Some(labels) => places(labels, tensor)?,
                None => tensor.to_doubles()?,
            };
            for row in 0..rows {
                let from = &numbers[row * columns..][..columns];
                out[row * all + first..][..own].copy_from_slice(&from[columns - own..]);
            }
            first += own;
        }
        Ok(())
    }
}

fn made<'v>(values: &'v [Option<Cow<'_, Tensor>>], number: usize) -> Result<&'v Tensor, Fault> {
    values[number]
        .as_deref()
        .ok_or_else(|| Fault::new("an output is not made"))
}

/// Values that an output has for each row.
fn width(tensor: &Tensor, rows: usize) -> Result<usize, Fault> {
    match tensor.shape.split_first() {
        Some((own, rest)) if *own == rows && rest.iter().product::<usize>() <= WIDTH_MAX => {
            Ok(rest.iter().product())
        }
        _ => Err(Fault(format!(
            "{rows} rows give the shape {:?}; one row for each is expected",
            tensor.shape
        ))),
    }
}

/// The place of each label among the names.
fn places(labels: &Labels, tensor: &Tensor) -> Result<Vec<f64>, Fault> {
    let found: Option<Vec<usize>> = match (labels, &tensor.data) {
        (Labels::Texts(names), Data::Text(texts)) => texts
            .iter()
            .map(|text| names.iter().position(|name| name == text))
            .collect(),
        (Labels::Texts(names), Data::Long(numbers)) => {
            let find = |number: &i64| names.iter().position(|name| **name == *number.to_string());
            numbers.iter().map(find).collect()
        }
        (Labels::Numbers(names), Data::Text(texts)) => {
            let find = |text: &std::sync::Arc<str>| {
                names.iter().position(|name| **text == *name.to_string())
            };
            texts.iter().map(find).collect()
        }
        (Labels::Numbers(names), _) => {
            let numbers = tensor.to_integers()?.into_iter();
            numbers
                .map(|number| names.iter().position(|name| *name == number))
                .collect()
        }
        (Labels::Texts(_), _) => return Err(tensor.wrong_type()),
    };
    let found = found.ok_or_else(|| Fault::new("a class that the file does not name"))?;
    Ok(found.into_iter().map(|place| place as f64).collect())
}

fn are_probabilities(trials: &Trials<'_>, number: usize) -> Result<bool, Fault> {
    for values in trials {
        let numbers = made(values, number)?.to_doubles()?;
        let sum: f64 = numbers.iter().sum();
        let are_inside = numbers
            .iter()
            .all(|number| (-NEAR..=1.0 + NEAR).contains(number));
        if !are_inside || (sum - 1.0).abs() > NEAR {
            return Ok(false);
        }
    }
    Ok(true)
}

fn producer<'g, 'a>(graph: &'g Graph<'a>, name: &str) -> Option<&'g Node<'a>> {
    graph.nodes.iter().find(|node| node.outputs.contains(&name))
}

/// Follows labels to where their names are.
fn trace(
    graph: &Graph<'_>,
    program: &Program,
    names: &Names<'_>,
    name: &str,
) -> Result<Option<Source>, Fault> {
    let mut name = name;
    for _ in 0..DEPTH_MAX {
        let Some(node) = producer(graph, name) else {
            return Ok(None);
        };
        let first = node.inputs.first().copied().unwrap_or_default();
        match node.operator {
            "Cast" | "Identity" | "Reshape" | "Squeeze" | "Flatten" | "Unsqueeze" => name = first,
            "ArgMax" | "ArgMin" => return Ok(Some(Source::Places)),
            "ArrayFeatureExtractor" | "Gather" => {
                let constant = program
                    .constant(names.get(first)?)
                    .map(|tensor| &tensor.data);
                let labels = match constant {
                    Some(Data::Text(texts)) => Labels::Texts(texts.clone()),
                    Some(Data::Long(numbers)) => Labels::Numbers(numbers.clone()),
                    Some(Data::Int(numbers)) => {
                        Labels::Numbers(numbers.iter().map(|number| i64::from(*number)).collect())
                    }
                    _ => return Ok(None),
                };
                return Ok(Some(Source::Labels(labels)));
            }
            _ => return Ok(ops::labels(node)?.map(Source::Labels)),
        }
    }
    Ok(None)
}
