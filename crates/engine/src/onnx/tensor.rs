//! Tensors, and the shapes of what is made of several.

use std::sync::Arc;

use super::narrow::Narrow;
use crate::document::Fault;

/// Values that one tensor may have.
const VALUES_MAX: usize = 1 << 24;

/// Axes that one tensor may have.
pub(super) const AXES_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
    /// Set where the values are of a type of fewer bits than those of `data`.
    pub(super) narrow: Option<Narrow>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Float(Vec<f32>),
    Double(Vec<f64>),
    Long(Vec<i64>),
    Int(Vec<i32>),
    Bool(Vec<bool>),
    Text(Vec<Arc<str>>),
}

/// How many values a shape has, if they are not too many, those beside an axis of 0 included.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    let beside = shape
        .iter()
        .try_fold(1usize, |all, size| all.checked_mul((*size).max(1)));
    let beside = beside.filter(|count| *count <= VALUES_MAX && shape.len() <= AXES_MAX)?;
    Some(if shape.contains(&0) { 0 } else { beside })
}

/// The same as [`count`], refused where there are too many.
pub(super) fn bounded(shape: &[usize]) -> Result<usize, Fault> {
    count(shape).ok_or_else(|| {
        Fault(format!(
            "a tensor of {} axes, the first {:?}; {AXES_MAX} and {VALUES_MAX} values are supported",
            shape.len(),
            &shape[..shape.len().min(AXES_MAX)]
        ))
    })
}

impl Data {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Long(values) => values.len(),
            Self::Int(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::Text(values) => values.len(),
        }
    }

    /// The type, as ONNX calls it.
    pub(super) fn element(&self) -> &'static str {
        match self {
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Long(_) => "int64",
            Self::Int(_) => "int32",
            Self::Bool(_) => "bool",
            Self::Text(_) => "string",
        }
    }

    /// The values at these places.
    pub(super) fn pick(&self, places: impl Iterator<Item = usize>) -> Self {
        match self {
            Self::Float(values) => Self::Float(places.map(|place| values[place]).collect()),
            Self::Double(values) => Self::Double(places.map(|place| values[place]).collect()),
            Self::Long(values) => Self::Long(places.map(|place| values[place]).collect()),
            Self::Int(values) => Self::Int(places.map(|place| values[place]).collect()),
            Self::Bool(values) => Self::Bool(places.map(|place| values[place]).collect()),
            Self::Text(values) => Self::Text(places.map(|place| values[place].clone()).collect()),
        }
    }

    pub(super) fn empty_like(&self) -> Self {
        match self {
            Self::Float(_) => Self::Float(Vec::new()),
            Self::Double(_) => Self::Double(Vec::new()),
            Self::Long(_) => Self::Long(Vec::new()),
            Self::Int(_) => Self::Int(Vec::new()),
            Self::Bool(_) => Self::Bool(Vec::new()),
            Self::Text(_) => Self::Text(Vec::new()),
        }
    }

    /// Adds what another has, which is of the same type.
    pub(super) fn extend(
        &mut self,
        other: &Self,
        range: std::ops::Range<usize>,
    ) -> Result<(), Fault> {
        match (self, other) {
            (Self::Float(own), Self::Float(other)) => own.extend_from_slice(&other[range]),
            (Self::Double(own), Self::Double(other)) => own.extend_from_slice(&other[range]),
            (Self::Long(own), Self::Long(other)) => own.extend_from_slice(&other[range]),
            (Self::Int(own), Self::Int(other)) => own.extend_from_slice(&other[range]),
            (Self::Bool(own), Self::Bool(other)) => own.extend_from_slice(&other[range]),
            (Self::Text(own), Self::Text(other)) => own.extend_from_slice(&other[range]),
            (own, other) => {
                return Err(Fault(format!(
                    "{} and {} together",
                    own.element(),
                    other.element()
                )));
            }
        }
        Ok(())
    }
}

impl Tensor {
    pub(super) fn new(shape: Vec<usize>, data: Data) -> Self {
        debug_assert_eq!(count(&shape), Some(data.len()));
        Self {
            shape,
            data,
            narrow: None,
        }
    }

    pub(super) fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self::new(shape, Data::Float(values))
    }

    /// The type, as ONNX calls it.
    pub(super) fn element(&self) -> &'static str {
        match self.narrow {
            Some(narrow) => narrow.element(),
            None => self.data.element(),
        }
    }

    pub(super) fn wrong_type(&self) -> Fault {
        Fault(format!(
            "values of the type {} are not supported here",
            self.element()
        ))
    }

    /// Numbers as `f32`.
    pub(super) fn to_floats(&self) -> Result<Vec<f32>, Fault> {
        Ok(match &self.data {
            Data::Float(values) => values.clone(),
            Data::Double(values) => values.iter().map(|value| *value as f32).collect(),
            Data::Long(values) => values.iter().map(|value| *value as f32).collect(),
            Data::Int(values) => values.iter().map(|value| *value as f32).collect(),
            Data::Bool(_) | Data::Text(_) => return Err(self.wrong_type()),
        })
    }

    /// Numbers as `f64`.
    pub(super) fn to_doubles(&self) -> Result<Vec<f64>, Fault> {
        Ok(match &self.data {
            Data::Float(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Data::Double(values) => values.clone(),
            Data::Long(values) => values.iter().map(|value| *value as f64).collect(),
            Data::Int(values) => values.iter().map(|value| f64::from(*value)).collect(),
            Data::Bool(values) => values
                .iter()
                .map(|value| f64::from(u8::from(*value)))
                .collect(),
            Data::Text(_) => return Err(self.wrong_type()),
        })
    }

    pub(super) fn to_integers(&self) -> Result<Vec<i64>, Fault> {
        match &self.data {
            Data::Long(values) => Ok(values.clone()),
            Data::Int(values) => Ok(values.iter().map(|value| i64::from(*value)).collect()),
            _ => Err(Fault(format!(
                "expected whole numbers, found {}",
                self.data.element()
            ))),
        }
    }

    pub(super) fn as_texts(&self) -> Result<&[Arc<str>], Fault> {
        match &self.data {
            Data::Text(values) => Ok(values),
            other => Err(Fault(format!("expected string, found {}", other.element()))),
        }
    }

    /// Rows and columns, as the operators of `ai.onnx.ml` see it: one dimension is one row.
    pub(super) fn as_rows(&self) -> Result<(usize, usize), Fault> {
        match self.shape[..] {
            [columns] => Ok((1, columns)),
            [rows, columns] => Ok((rows, columns)),
            _ => Err(Fault(format!(
                "expected rows and columns, found the shape {:?}",
                self.shape
            ))),
        }
    }

    /// An axis counted from 0; from the end if it is below.
    pub(super) fn axis(&self, axis: i64) -> Result<usize, Fault> {
        axis_of(axis, self.shape.len())
    }
}

/// An axis of so many; those below 0 count from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, Fault> {
    let from_end = if axis < 0 { axis + rank as i64 } else { axis };
    let axis_in = usize::try_from(from_end).ok().filter(|axis| *axis < rank);
    axis_in.ok_or_else(|| Fault(format!("the axis {axis} of {rank}")))
}

/// The shape of what is computed value by value from tensors of these shapes.
pub(super) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, Fault> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut all = vec![1; rank];
    for shape in shapes {
        for (own, size) in all[rank - shape.len()..].iter_mut().zip(*shape) {
            match (*own, *size) {
                (own, size) if own == size => {}
                (1, size) => *own = size,
                (_, 1) => {}
                _ => return Err(Fault(format!("shapes that do not match: {shapes:?}"))),
            }
        }
    }
    bounded(&all)?;
    Ok(all)
}

/// How far apart neighbours on each axis are.
pub(super) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// Where the values for each place of `shape` are, with a stride for each of its axes.
pub(super) fn places(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut places = vec![0];
    for (size, stride) in shape.iter().zip(strides) {
        let longer = places
            .iter()
            .flat_map(|place| (0..*size).map(move |index| place + index * stride));
        places = longer.collect();
    }
    places
}

/// Where the values of a tensor of `own` shape are that is spread to `shape`; none if that changes nothing.
pub(super) fn spread(own: &[usize], shape: &[usize]) -> Option<Vec<usize>> {
    if own == shape {
        return None;
    }
    let mut wide = vec![0; shape.len()];
    let before = shape.len() - own.len();
    for (axis, stride) in strides(own).into_iter().enumerate() {
        wide[before + axis] = if own[axis] == 1 { 0 } else { stride };
    }
    Some(places(shape, &wide))
}
