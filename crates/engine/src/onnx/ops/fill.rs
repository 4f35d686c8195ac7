//! Operators that make tensors of shapes and numbers.

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::{Node, unknown_element};
use crate::onnx::tensor::{Data, Tensor, bounded, broadcast, spread};

pub(super) fn shape(node: &Node<'_>) -> Run {
    let (start, end) = (node.integer("start").unwrap_or(0), node.integer("end"));
    Box::new(move |inputs, _| {
        let given = input(inputs, 0)?;
        let rank = given.shape.len() as i64;
        let place = |axis: i64| {
            let from_end = if axis < 0 {
                axis.saturating_add(rank)
            } else {
                axis
            };
            from_end.clamp(0, rank) as usize
        };
        let (start, end) = (place(start), place(end.unwrap_or(rank)));
        let sizes = given.shape[start..end.max(start)].iter();
        let sizes: Vec<i64> = sizes.map(|size| *size as i64).collect();
        Ok(vec![Tensor::new(vec![sizes.len()], Data::Long(sizes))])
    })
}

pub(super) fn size() -> Run {
    Box::new(|inputs, _| {
        let count = input(inputs, 0)?.data.len() as i64;
        Ok(vec![Tensor::new(Vec::new(), Data::Long(vec![count]))])
    })
}

fn wanted(shape: &Tensor) -> Result<Vec<usize>, Fault> {
    let sizes: Result<Vec<usize>, _> = shape
        .to_integers()?
        .into_iter()
        .map(usize::try_from)
        .collect();
    sizes.map_err(|_| Fault::new("a dimension below 0"))
}

pub(super) fn expand() -> Run {
    Box::new(|inputs, context| {
        let (given, shape) = (input(inputs, 0)?, wanted(input(inputs, 1)?)?);
        let shape = broadcast(&[&given.shape, &shape])?;
        context.spend(bounded(&shape)?)?;
        let data = match spread(&given.shape, &shape) {
            Some(places) => given.data.pick(places.into_iter()),
            None => given.data.clone(),
        };
        Ok(vec![Tensor::new(shape, data)])
    })
}

pub(super) fn constant_of_shape(node: &Node<'_>) -> Result<Run, Fault> {
    let value = match node.tensor("value") {
        Some(value) if value.data.len() == 1 => value.clone(),
        Some(_) => return Err(Fault::new("`value`: not one value")),
        None => Tensor::floats(vec![1], vec![0.0]),
    };
    Ok(Box::new(move |inputs, context| {
        let shape = wanted(input(inputs, 0)?)?;
        let count = bounded(&shape)?;
        context.spend(count)?;
        let data = value.data.pick(std::iter::repeat_n(0, count));
        Ok(vec![Tensor {
            narrow: value.narrow,
            ..Tensor::new(shape, data)
        }])
    }))
}

/// A tensor beside itself, so many times on each axis.
pub(super) fn tile() -> Run {
    Box::new(|inputs, context| {
        let (given, repeats) = (input(inputs, 0)?, wanted(input(inputs, 1)?)?);
        if repeats.len() != given.shape.len() {
            return Err(Fault(format!(
                "{} repeats for the shape {:?}",
                repeats.len(),
                given.shape
            )));
        }
        // As if each axis were two, of which the first is spread.
        let (mut shape, mut own, mut wide) = (Vec::new(), Vec::new(), Vec::new());
        for (size, times) in given.shape.iter().zip(&repeats) {
            shape.push(size.saturating_mul(*times));
            own.extend([1, *size]);
            wide.extend([*times, *size]);
        }
        context.spend(bounded(&shape)?)?;
        let data = match spread(&own, &wide) {
            Some(places) => given.data.pick(places.into_iter()),
            None => given.data.clone(),
        };
        Ok(vec![Tensor::new(shape, data)])
    })
}

/// A matrix of 0 with 1 on a diagonal.
pub(super) fn eye_like(node: &Node<'_>) -> Result<Run, Fault> {
    let (offset, to) = (node.integer("k").unwrap_or(0), node.integer("dtype"));
    if !matches!(to, None | Some(1 | 6 | 7 | 11)) {
        return Err(unknown_element(to.unwrap_or_default()));
    }
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let [rows, columns] = given.shape[..] else {
            return Err(Fault(format!("a matrix of the shape {:?}", given.shape)));
        };
        context.spend(given.data.len())?;
        let diagonal = |row: usize| (row as i64).saturating_add(offset);
        let one = |at: usize| i32::from(diagonal(at / columns) == (at % columns) as i64);
        let ones = (0..rows * columns).map(one);
        let data = match (to, &given.data) {
            (Some(1), _) | (None, Data::Float(_)) => Data::Float(ones.map(|x| x as f32).collect()),
            (Some(11), _) | (None, Data::Double(_)) => Data::Double(ones.map(f64::from).collect()),
            (Some(6), _) | (None, Data::Int(_)) => Data::Int(ones.collect()),
            (Some(_), _) | (None, Data::Long(_)) => Data::Long(ones.map(i64::from).collect()),
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    }))
}

/// Numbers from the first input to before the second, in steps of the third.
pub(super) fn range() -> Run {
    Box::new(|inputs, context| {
        let [start, end, step] = [input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?];
        let number = |tensor: &Tensor| match tensor.to_doubles()?[..] {
            [number] => Ok(number),
            _ => Err(Fault::new("not one number")),
        };
        let (from, to, by) = (number(start)?, number(end)?, number(step)?);
        // What is no number becomes 0.
        let count = ((to - from) / by).ceil().max(0.0) as usize;
        context.spend(bounded(&[count])?)?;
        let numbers = (0..count).map(|index| from + index as f64 * by);
        let data = match &start.data {
            Data::Float(_) => Data::Float(numbers.map(|x| x as f32).collect()),
            Data::Double(_) => Data::Double(numbers.collect()),
            Data::Int(_) => Data::Int(numbers.map(|x| x as i32).collect()),
            Data::Long(_) => Data::Long(numbers.map(|x| x as i64).collect()),
            _ => return Err(start.wrong_type()),
        };
        Ok(vec![Tensor::new(vec![count], data)])
    })
}
