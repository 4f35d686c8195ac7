//! Columns of rows as the inputs of a graph.

use std::collections::HashSet;

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
            inputs
                .push(value, names, is_alone)
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
            .ok_or_else(|| Fault::new("not a tensor; sequences and maps are not supported"))?;
        let kind = match element {
            1 | 11 => FeatureKind::Number,
            6 | 7 => FeatureKind::Integer,
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
        let first = self.features.len();
        if columns == 0 || first.saturating_add(columns) > COLUMNS_MAX {
            return Err(Fault(format!(
                "{columns} columns; {COLUMNS_MAX} are supported"
            )));
        }
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
        });
        Ok(())
    }

    /// Whether the graph takes one row at a time.
    pub(super) fn are_single(&self) -> bool {
        self.list.iter().any(|input| input.is_single)
    }

    /// The inputs of some rows, by their numbers.
    pub(super) fn of(&self, rows: Rows<'_>) -> Result<Vec<(usize, Tensor)>, Fault> {
        self.list
            .iter()
            .map(|input| Ok((input.number, input.of(rows)?)))
            .collect()
    }
}

impl Input {
    fn of(&self, rows: Rows<'_>) -> Result<Tensor, Fault> {
        let values =
            (0..rows.len()).flat_map(|row| &rows.row(row)[self.first..self.first + self.columns]);
        let is_missing = |value: &f64| value.is_nan() && !matches!(self.element, 1 | 11);
        if values.clone().any(is_missing) {
            return Err(Fault::new("has a missing value where the model takes none"));
        }
        let data = match self.element {
            1 => Data::Float(values.map(|value| *value as f32).collect()),
            11 => Data::Double(values.copied().collect()),
            7 => Data::Long(values.map(|value| *value as i64).collect()),
            6 => Data::Int(values.map(|value| *value as i32).collect()),
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
        Ok(Tensor::new(shape, data))
    }
}
