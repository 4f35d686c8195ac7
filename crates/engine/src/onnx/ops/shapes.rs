//! Operators that take values from elsewhere and compute nothing.

use super::{Context, Run, input, integers};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{AXES_MAX, Tensor, axis_of, bounded, places, strides};

/// The same values in another shape.
fn shaped(given: &Tensor, shape: Vec<usize>) -> Result<Vec<Tensor>, Fault> {
    if bounded(&shape)? != given.data.len() {
        return Err(Fault(format!(
            "the shape {shape:?} for values of the shape {:?}",
            given.shape
        )));
    }
    Ok(vec![Tensor::new(shape, given.data.clone())])
}

pub(super) fn concat(node: &Node<'_>) -> Result<Run, Fault> {
    let axis = node
        .integer("axis")
        .ok_or_else(|| Fault::new("`axis` is missing"))?;
    Ok(Box::new(move |inputs, context| {
        let first = input(inputs, 0)?;
        let axis = first.axis(axis)?;
        let tensors: Result<Vec<&Tensor>, Fault> = (0..inputs.len())
            .map(|index| input(inputs, index))
            .collect();
        let tensors = tensors?;
        let mut shape = first.shape.clone();
        shape[axis] = 0;
        for tensor in &tensors {
            let is_like = tensor.shape.len() == shape.len()
                && (0..shape.len())
                    .all(|other| other == axis || tensor.shape[other] == shape[other]);
            if !is_like {
                return Err(Fault(format!(
                    "shapes that do not match: {:?} and {:?}",
                    first.shape, tensor.shape
                )));
            }
            shape[axis] += tensor.shape[axis];
        }
        context.spend(bounded(&shape)?)?;
        let mut data = first.data.empty_like();
        let before: usize = shape[..axis].iter().product();
        for line in 0..before {
            for tensor in &tensors {
                let size: usize = tensor.shape[axis..].iter().product();
                data.extend(&tensor.data, line * size..(line + 1) * size)?;
            }
        }
        Ok(vec![Tensor::new(shape, data)])
    }))
}

/// Parts of an axis, of the sizes that are given or else all alike.
pub(super) fn split(node: &Node<'_>) -> Run {
    let (own, axis) = (
        node.integers("split").to_vec(),
        node.integer("axis").unwrap_or(0),
    );
    let count = node.outputs.len();
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let axis = given.axis(axis)?;
        let size = given.shape[axis];
        let sizes = match integers(&own, inputs, 1)? {
            Some(sizes) => sizes.into_iter().map(usize::try_from).collect(),
            None => {
                let each = size.div_ceil(count.max(1));
                let part = |index: usize| Ok(size.saturating_sub(index * each).min(each));
                (0..count).map(part).collect::<Result<Vec<usize>, _>>()
            }
        };
        let sizes = sizes.map_err(|_| Fault::new("a size below 0"))?;
        if sizes.len() != count
            || sizes
                .iter()
                .try_fold(0usize, |all, own| all.checked_add(*own))
                != Some(size)
        {
            return Err(Fault(format!("{} parts of an axis of {size}", sizes.len())));
        }
        let before: usize = given.shape[..axis].iter().product();
        let after: usize = given.shape[axis + 1..].iter().product();
        let (mut first, mut made) = (0, Vec::with_capacity(count));
        for own in sizes {
            let line = |line: usize| {
                let start = (line * size + first) * after;
                start..start + own * after
            };
            let data = given.data.pick((0..before).flat_map(line));
            let mut shape = given.shape.clone();
            shape[axis] = own;
            made.push(Tensor::new(shape, data));
            first += own;
        }
        Ok(made)
    })
}

pub(super) fn reshape(node: &Node<'_>) -> Run {
    let own = node.integers("shape").to_vec();
    let zero_is_zero = node.integer("allowzero").unwrap_or(0) != 0;
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let wanted = integers(&own, inputs, 1)?.unwrap_or_default();
        let mut shape = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, size) in wanted.iter().enumerate() {
            shape.push(match size {
                0 if !zero_is_zero => *given
                    .shape
                    .get(axis)
                    .ok_or_else(|| Fault::new("a dimension of 0 that stands for none"))?,
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                size => {
                    usize::try_from(*size).map_err(|_| Fault(format!("the shape {wanted:?}")))?
                }
            });
        }
        if let Some(open) = open {
            let others = bounded(&shape)?;
            shape[open] = given.data.len().checked_div(others).unwrap_or(0);
        }
        shaped(given, shape)
    })
}

pub(super) fn flatten(node: &Node<'_>) -> Run {
    let axis = node.integer("axis").unwrap_or(1);
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let rank = given.shape.len();
        let axis = if axis == rank as i64 {
            rank
        } else {
            axis_of(axis, rank)?
        };
        let (before, after) = given.shape.split_at(axis);
        shaped(given, vec![before.iter().product(), after.iter().product()])
    })
}

pub(super) fn squeeze(node: &Node<'_>) -> Run {
    let own = node.integers("axes").to_vec();
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let rank = given.shape.len();
        let mut goes: Vec<bool> = given.shape.iter().map(|size| *size == 1).collect();
        if let Some(axes) = integers(&own, inputs, 1)? {
            goes = vec![false; rank];
            for axis in axes {
                goes[axis_of(axis, rank)?] = true;
            }
        }
        let shape = (0..rank)
            .filter(|axis| !goes[*axis])
            .map(|axis| given.shape[axis]);
        shaped(given, shape.collect())
    })
}

pub(super) fn unsqueeze(node: &Node<'_>) -> Run {
    let own = node.integers("axes").to_vec();
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let axes = integers(&own, inputs, 1)?.unwrap_or_default();
        let rank = given.shape.len() + axes.len();
        if rank > AXES_MAX {
            return Err(Fault(format!(
                "{rank} axes, where {AXES_MAX} are supported"
            )));
        }
        let axes: Result<Vec<usize>, Fault> =
            axes.into_iter().map(|axis| axis_of(axis, rank)).collect();
        let axes = axes?;
        let mut sizes = given.shape.iter();
        let size = |axis: usize| match axes.contains(&axis) {
            true => 1,
            false => sizes.next().copied().unwrap_or(1),
        };
        shaped(given, (0..rank).map(size).collect())
    })
}

pub(super) fn transpose(node: &Node<'_>) -> Run {
    let own = node.integers("perm").to_vec();
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let rank = given.shape.len();
        let order: Vec<usize> = match own.is_empty() {
            true => (0..rank).rev().collect(),
            false => own
                .iter()
                .map(|axis| axis_of(*axis, rank))
                .collect::<Result<_, _>>()?,
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..rank) {
            return Err(Fault(format!("the order {own:?} of {rank} axes")));
        }
        let all = strides(&given.shape);
        let (shape, strides): (Vec<_>, Vec<_>) = order
            .iter()
            .map(|axis| (given.shape[*axis], all[*axis]))
            .unzip();
        let data = given.data.pick(places(&shape, &strides).into_iter());
        Ok(vec![Tensor::new(shape, data)])
    })
}

/// What each axis of a slice takes.
pub(super) fn slice(node: &Node<'_>) -> Run {
    let own = ["starts", "ends", "axes"].map(|name| node.integers(name).to_vec());
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let rank = given.shape.len();
        let list =
            |index: usize| integers(own.get(index).map_or(&[], |own| own), inputs, index + 1);
        let starts = list(0)?.unwrap_or_default();
        let ends = list(1)?.unwrap_or_default();
        let axes = list(2)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(3)?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
            return Err(Fault::new("lists of different lengths"));
        }
        let mut taken: Vec<Vec<usize>> = given
            .shape
            .iter()
            .map(|size| (0..*size).collect())
            .collect();
        for (index, axis) in axes.iter().enumerate() {
            let axis = axis_of(*axis, rank)?;
            taken[axis] = steps_of(
                given.shape[axis] as i64,
                starts[index],
                ends[index],
                steps[index],
            )?;
        }
        let shape: Vec<usize> = taken.iter().map(Vec::len).collect();
        context.spend(bounded(&shape)?)?;
        let mut at = vec![0];
        for (taken, stride) in taken.iter().zip(strides(&given.shape)) {
            at = at
                .iter()
                .flat_map(|place| taken.iter().map(move |index| place + index * stride))
                .collect();
        }
        Ok(vec![Tensor::new(shape, given.data.pick(at.into_iter()))])
    })
}

fn steps_of(size: i64, start: i64, end: i64, step: i64) -> Result<Vec<usize>, Fault> {
    let from_end = |place: i64| {
        if place < 0 {
            place.saturating_add(size)
        } else {
            place
        }
    };
    let (least, most) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let start = from_end(start).clamp(if step > 0 { 0 } else { -1 }, most);
    let end = from_end(end).clamp(least, most);
    let step_size = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    match step {
        0 => Err(Fault::new("a step of 0")),
        1.. => Ok((start..end)
            .step_by(step_size)
            .map(|place| place as usize)
            .collect()),
        _ => Ok((end + 1..=start)
            .rev()
            .step_by(step_size)
            .map(|place| place as usize)
            .collect()),
    }
}

/// An index into so many; below 0 it counts from the end. Values that are made up may lead to one that is not there.
fn place(index: i64, size: usize, context: &Context) -> Result<usize, Fault> {
    match axis_of(index, size) {
        Err(_) if context.is_trial && size > 0 => Ok(0),
        found => found.map_err(|_| Fault(format!("the index {index} of {size}"))),
    }
}

pub(super) fn gather(node: &Node<'_>) -> Run {
    let axis = node.integer("axis").unwrap_or(0);
    Box::new(move |inputs, context| {
        let (given, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        let axis = given.axis(axis)?;
        let (size, after) = (
            given.shape[axis],
            given.shape[axis + 1..].iter().product::<usize>(),
        );
        let chosen: Result<Vec<usize>, Fault> = indices
            .to_integers()?
            .into_iter()
            .map(|index| place(index, size, context))
            .collect();
        let chosen = chosen?;
        let mut shape = given.shape[..axis].to_vec();
        let before: usize = shape.iter().product();
        shape.extend(indices.shape.iter().chain(&given.shape[axis + 1..]));
        context.spend(bounded(&shape)?)?;
        let places = (0..before).flat_map(|line| {
            let chosen = chosen.iter();
            chosen
                .flat_map(move |index| (0..after).map(move |at| (line * size + index) * after + at))
        });
        Ok(vec![Tensor::new(shape, given.data.pick(places))])
    })
}

pub(super) fn gather_elements(node: &Node<'_>) -> Run {
    let axis = node.integer("axis").unwrap_or(0);
    Box::new(move |inputs, context| {
        let (given, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        let axis = given.axis(axis)?;
        let fits = indices.shape.len() == given.shape.len()
            && (0..given.shape.len())
                .all(|other| other == axis || indices.shape[other] <= given.shape[other]);
        if !fits {
            return Err(Fault(format!(
                "indices of the shape {:?} for {:?}",
                indices.shape, given.shape
            )));
        }
        context.spend(indices.data.len())?;
        let mut strides = strides(&given.shape);
        let stride = std::mem::replace(&mut strides[axis], 0);
        let starts = places(&indices.shape, &strides);
        let mut at = Vec::with_capacity(starts.len());
        for (start, index) in starts.into_iter().zip(indices.to_integers()?) {
            at.push(start + place(index, given.shape[axis], context)? * stride);
        }
        Ok(vec![Tensor::new(
            indices.shape.clone(),
            given.data.pick(at.into_iter()),
        )])
    })
}

/// Columns by their numbers.
pub(super) fn array_feature_extractor() -> Run {
    Box::new(|inputs, context| {
        let (given, indices) = (input(inputs, 0)?, input(inputs, 1)?);
        let Some(size) = given.shape.last().copied() else {
            return Err(Fault::new("a single value in place of columns"));
        };
        let chosen: Result<Vec<usize>, Fault> = indices
            .to_integers()?
            .into_iter()
            .map(|index| place(index, size, context))
            .collect();
        let chosen = chosen?;
        let mut shape = match given.shape.len() {
            1 => vec![1, size],
            _ => given.shape.clone(),
        };
        *shape.last_mut().expect("there is one") = chosen.len();
        context.spend(bounded(&shape)?)?;
        let lines = given.data.len().checked_div(size).unwrap_or(0);
        let places =
            (0..lines).flat_map(|line| chosen.iter().map(move |index| line * size + index));
        Ok(vec![Tensor::new(shape, given.data.pick(places))])
    })
}

/// Columns of several tensors beside each other, each cut or filled with 0 to the width it is said to have.
pub(super) fn feature_vectorizer(node: &Node<'_>) -> Result<Run, Fault> {
    let widths: Result<Vec<usize>, _> = node
        .integers("inputdimensions")
        .iter()
        .map(|width| usize::try_from(*width))
        .collect();
    let widths = widths.map_err(|_| Fault::new("`inputdimensions`: a width below 0"))?;
    Ok(Box::new(move |inputs, context| {
        if widths.len() != inputs.len() {
            return Err(Fault(format!(
                "`inputdimensions`: {} for {} inputs",
                widths.len(),
                inputs.len()
            )));
        }
        let (rows, _) = input(inputs, 0)?.as_rows()?;
        let width = widths
            .iter()
            .try_fold(0usize, |all, width| all.checked_add(*width));
        let width = width.ok_or_else(|| Fault::new("`inputdimensions`: too many columns"))?;
        context.spend(bounded(&[rows, width])?)?;
        let mut made = vec![0f32; rows * width];
        let mut first = 0;
        for (index, own) in widths.iter().enumerate() {
            let tensor = input(inputs, index)?;
            let (other, columns) = tensor.as_rows()?;
            if other != rows {
                return Err(Fault(format!("inputs of {rows} and {other} rows")));
            }
            let values = tensor.to_floats()?;
            let taken = columns.min(*own);
            for row in 0..rows {
                made[row * width + first..][..taken]
                    .copy_from_slice(&values[row * columns..][..taken]);
            }
            first += own;
        }
        Ok(vec![Tensor::floats(vec![rows, width], made)])
    }))
}
