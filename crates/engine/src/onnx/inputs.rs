//! Columns of rows as the inputs of a graph.

use std::borrow::Cow;
use std::collections::HashSet;

use super::narrow::Narrow;
use super::program::Names;
use super::proto::{Model, Value, unknown_element};
use super::tensor::{Data, Tensor};
use crate::document::{Fault, shorten};
use crate::{Feature, FeatureKind, Rows};

/// Columns of all inputs together.
const COLUMNS_MAX: usize = 1 << 16;

/// An input of a graph: some columns of the rows.
#[derive(Debug)]
pub(super) struct Input {
    number: usize,
    element: i64,
    first: usize,
    columns: usize,
    /// Whether it has rows and columns, or the values of one column only.
    is_matrix: bool,
    /// Whether it takes one row only.
    is_single: bool,
    /// Whether what is missing counts as 0: it is a map, in which it is not there.
    missing_is_zero: bool,
}

/// All inputs of a graph.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    list: Vec<Input>,
    pub(super) features: Vec<Feature>,
    /// Whether the features have names of their own.
    pub(super) named: bool,
}

impl Inputs {
    pub(super) fn read(model: &Model<'_>, names: &Names<'_>) -> Result<Self, Fault> {
        let constants: HashSet<&str> = model
            .graph
            .constants
            .iter()
            .map(|(name, _)| *name)
            .collect();
        let given: Vec<_> = model
            .graph
            .inputs
            .iter()
            .filter(|input| !constants.contains(input.name))
            .collect();
        let mut inputs = Self::default();
        let is_alone = given.len() == 1;
        for value in given {
            let pushed = match value.is_map {
                true => inputs.push_map(value, model, names),
                false => inputs.push(value, names, is_alone),
            };
            pushed
                .map_err(|fault| fault.inside(format_args!("input `{}`", shorten(value.name))))?;
        }
        if inputs.features.is_empty() {
            return Err(Fault::new("a graph without inputs"));
        }
        let mut seen = HashSet::new();
        match inputs
            .features
            .iter()
            .find(|feature| !seen.insert(&feature.name))
        {
            Some(twice) => Err(Fault(format!(
                "two inputs have the name `{}`",
                shorten(&twice.name)
            ))),
            None => Ok(inputs),
        }
    }

    fn push(&mut self, value: &Value<'_>, names: &Names<'_>, is_alone: bool) -> Result<(), Fault> {
        let element = value
            .element
            .ok_or_else(|| Fault::new("neither a tensor nor a map; sequences are not supported"))?;
        let kind = match element {
            1 | 10 | 11 => FeatureKind::Number,
            2..=7 => FeatureKind::Integer,
            8 => FeatureKind::Text,
            9 => FeatureKind::Boolean,
            other => return Err(unknown_element(other)),
        };
        let open = || {
            Fault::new(
                "the file does not tell how many columns it has; convert the model with the number, such as \
                 `FloatTensorType([None, 4])`",
            )
        };
        let shape = value.shape.as_deref().ok_or_else(open)?;
        let (rows, columns, is_matrix) = match shape {
            [rows] => (*rows, 1, false),
            [rows, columns] => (*rows, columns.ok_or_else(open)?, true),
            _ => {
                return Err(Fault(format!(
                    "{} dimensions, where rows and columns are expected",
                    shape.len()
                )));
            }
        };
        let columns = usize::try_from(columns).unwrap_or(usize::MAX);
        let first = self.place_for(columns)?;
        if rows.is_some_and(|rows| rows != 1) {
            return Err(Fault(format!(
                "takes exactly {} rows; convert the model with an open number, such as `[None, {columns}]`",
                rows.unwrap_or_default()
            )));
        }
        self.named = !is_alone || columns == 1;
        for index in 0..columns {
            self.features.push(Feature {
                name: match (columns, is_alone) {
                    (1, _) => value.name.to_owned(),
                    (_, true) => format!("f{index}"),
                    (_, false) => format!("{}_{index}", value.name),
                },
                kind: kind.clone(),
                takes_missing: false,
            });
        }
        self.list.push(Input {
            number: names.get(value.name)?,
            element,
            first,
            columns,
            is_matrix,
            is_single: rows.is_some(),
            missing_is_zero: false,
        });
        Ok(())
    }

    /// A map, of which `DictVectorizer` names the keys that count: each is a feature.
    fn push_map(
        &mut self,
        value: &Value<'_>,
        model: &Model<'_>,
        names: &Names<'_>,
    ) -> Result<(), Fault> {
        let nodes = model.graph.nodes.iter();
        let mut keys: Vec<Vec<String>> = Vec::new();
        for node in nodes.filter(|node| node.inputs.contains(&value.name)) {
            if node.operator != "DictVectorizer" {
                return Err(Fault::new("a map is read by `DictVectorizer` alone"));
            }
            let texts = node.texts("string_vocabulary")?;
            let numbers = node.integers("int64_vocabulary").iter();
            let texts = texts.iter().map(|text| text.to_string());
            keys.push(texts.chain(numbers.map(i64::to_string)).collect());
        }
        keys.dedup();
        let (Ok([keys]), Some(element @ (1 | 7 | 11))) =
            (<[Vec<String>; 1]>::try_from(keys), value.element)
        else {
            return Err(Fault::new(
                "a map is supported with one vocabulary and numbers as values",
            ));
        };
        let columns = keys.len();
        let first = self.place_for(columns)?;
        self.named = true;
        self.features.extend(keys.into_iter().map(|name| Feature {
            name,
            kind: match element {
                7 => FeatureKind::Integer,
                _ => FeatureKind::Number,
            },
            takes_missing: false,
        }));
        self.list.push(Input {
            number: names.get(value.name)?,
            element,
            first,
            columns,
            is_matrix: true,
            is_single: false,
            missing_is_zero: true,
        });
        Ok(())
    }

    /// The first column of an input that has so many.
    fn place_for(&self, columns: usize) -> Result<usize, Fault> {
        let first = self.features.len();
        match columns > 0 && first.saturating_add(columns) <= COLUMNS_MAX {
            true => Ok(first),
            false => Err(Fault(format!(
                "{columns} columns; {COLUMNS_MAX} are supported"
            ))),
        }
    }

    /// Whether the graph takes one row at a time.
    pub(super) fn are_single(&self) -> bool {
        self.list.iter().any(|input| input.is_single)
    }

    /// The inputs of some rows, by their numbers.
    pub(super) fn of(&self, rows: Rows<'_>) -> Result<Vec<(usize, Cow<'static, Tensor>)>, Fault> {
        self.list
            .iter()
            .map(|input| Ok((input.number, Cow::Owned(input.of(rows)?))))
            .collect()
    }
}

impl Input {
    fn of(&self, rows: Rows<'_>) -> Result<Tensor, Fault> {
        let given =
            (0..rows.len()).flat_map(|row| &rows.row(row)[self.first..self.first + self.columns]);
        let values = given.map(|value| match self.missing_is_zero && value.is_nan() {
            true => &0.0,
            false => value,
        });
        let is_missing = |value: &f64| value.is_nan() && !matches!(self.element, 1 | 10 | 11);
        if values.clone().any(is_missing) {
            return Err(Fault::new("has a missing value where the model takes none"));
        }
        let mut data = match self.element {
            1 | 10 => Data::Float(values.map(|value| *value as f32).collect()),
            11 => Data::Double(values.copied().collect()),
            7 => Data::Long(values.map(|value| *value as i64).collect()),
            2..=6 => Data::Int(values.map(|value| *value as i32).collect()),
            9 => Data::Bool(values.map(|value| *value != 0.0).collect()),
            _ => Data::Text(
                values
                    .map(|value| rows.text(*value).unwrap_or_default().into())
                    .collect(),
            ),
        };
        let shape = match self.is_matrix {
            true => vec![rows.len(), self.columns],
            false => vec![rows.len()],
        };
        let narrow = Narrow::of(self.element);
        if let Some(narrow) = narrow {
            narrow.fit(&mut data)?;
        }
        Ok(Tensor {
            narrow,
            ..Tensor::new(shape, data)
        })
    }
}
