//! Operators that make one value of many.

use super::{Run, input, integers};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, axis_of, bounded, places, strides};

pub(super) fn build(node: &Node<'_>) -> Result<Option<Run>, Fault> {
    let of: fn(&[f64]) -> f64 = match node.operator {
        "ReduceSum" => |x| x.iter().sum(),
        "ReduceMean" => |x| x.iter().sum::<f64>() / x.len() as f64,
        "ReduceProd" => |x| x.iter().product(),
        "ReduceMax" => |x| x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "ReduceMin" => |x| x.iter().copied().fold(f64::INFINITY, f64::min),
        "ReduceSumSquare" => |x| x.iter().map(|x| x * x).sum(),
        "ReduceL1" => |x| x.iter().map(|x| x.abs()).sum(),
        "ReduceL2" => |x| x.iter().map(|x| x * x).sum::<f64>().sqrt(),
        "ReduceLogSum" => |x| x.iter().sum::<f64>().ln(),
        "ReduceLogSumExp" => log_sum_exp,
        _ => return Ok(None),
    };
    Ok(Some(reduce(node, of)))
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let greatest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    match greatest.is_finite() {
        true => {
            values
                .iter()
                .map(|x| (x - greatest).exp())
                .sum::<f64>()
                .ln()
                + greatest
        }
        false => greatest,
    }
}

/// Numbers of the type that another tensor has.
fn like(other: &Tensor, values: Vec<f64>) -> Result<Data, Fault> {
    Ok(match other.data {
        Data::Float(_) => Data::Float(values.into_iter().map(|x| x as f32).collect()),
        Data::Double(_) => Data::Double(values),
        Data::Long(_) => Data::Long(values.into_iter().map(|x| x as i64).collect()),
        Data::Int(_) => Data::Int(values.into_iter().map(|x| x as i32).collect()),
        Data::Bool(_) | Data::Text(_) => return Err(other.wrong_type()),
    })
}

fn reduce(node: &Node<'_>, of: fn(&[f64]) -> f64) -> Run {
    let own = node.integers("axes").to_vec();
    let keeps = node.integer("keepdims").unwrap_or(1) != 0;
    let none_changes_nothing = node.integer("noop_with_empty_axes").unwrap_or(0) != 0;
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let rank = given.shape.len();
        let axes = integers(&own, inputs, 1)?.filter(|axes| !axes.is_empty());
        if axes.is_none() && none_changes_nothing {
            return Ok(vec![given.clone()]);
        }
        let mut goes = vec![axes.is_none(); rank];
        for axis in axes.unwrap_or_default() {
            goes[axis_of(axis, rank)?] = true;
        }
        let all = strides(&given.shape);
        let part = |is_gone: bool| {
            let axes = (0..rank).filter(|axis| goes[*axis] == is_gone);
            let (sizes, strides): (Vec<_>, Vec<_>) =
                axes.map(|axis| (given.shape[axis], all[axis])).unzip();
            (places(&sizes, &strides), sizes)
        };
        let ((starts, kept), (offsets, _)) = (part(false), part(true));
        let values = given.to_doubles()?;
        let mut group = Vec::with_capacity(offsets.len());
        let made = starts.iter().map(|start| {
            group.clear();
            group.extend(offsets.iter().map(|offset| values[start + offset]));
            of(&group)
        });
        let made = made.collect();
        let shape = match keeps {
            true => (0..rank)
                .map(|axis| if goes[axis] { 1 } else { given.shape[axis] })
                .collect(),
            false => kept,
        };
        Ok(vec![Tensor::new(shape, like(given, made)?)])
    })
}

/// A tensor as lines along one axis: how many places are before it, on it, and after it.
fn along(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (
        shape[..axis].iter().product(),
        shape[axis],
        shape[axis + 1..].iter().product(),
    )
}

pub(super) fn arg(node: &Node<'_>) -> Run {
    let is_max = node.operator == "ArgMax";
    let axis = node.integer("axis").unwrap_or(0);
    let keeps = node.integer("keepdims").unwrap_or(1) != 0;
    let takes_last = node.integer("select_last_index").unwrap_or(0) != 0;
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let axis = given.axis(axis)?;
        let (before, size, after) = along(&given.shape, axis);
        if size == 0 {
            return Err(Fault::new("no values to choose from"));
        }
        let values = given.to_doubles()?;
        let mut made = Vec::with_capacity(before * after);
        for line in 0..before * after {
            let start = line / after * size * after + line % after;
            let mut best = 0;
            for index in 1..size {
                let (value, other) = (values[start + index * after], values[start + best * after]);
                let is_better = if is_max { value > other } else { value < other };
                if is_better || takes_last && value == other {
                    best = index;
                }
            }
            made.push(best as i64);
        }
        let mut shape = given.shape.clone();
        if keeps {
            shape[axis] = 1;
        } else {
            shape.remove(axis);
        }
        Ok(vec![Tensor::new(shape, Data::Long(made))])
    })
}

/// Values divided by the norm of those beside them on an axis; zeros stay.
pub(super) fn normalization(node: &Node<'_>) -> Result<Run, Fault> {
    let axis = node.integer("axis").unwrap_or(-1);
    let norm: fn(f64, f64) -> f64 = match node.integer("p").unwrap_or(2) {
        1 => |sum, value| sum + value.abs(),
        2 => f64::hypot,
        _ => return Err(Fault::new("`p` is neither 1 nor 2")),
    };
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let (before, size, after) = along(&given.shape, given.axis(axis)?);
        let mut values = given.to_doubles()?;
        for line in 0..before * after {
            let start = line / after * size * after + line % after;
            let places = || (0..size).map(|index| start + index * after);
            let norm = places().fold(0.0, |sum, place| norm(sum, values[place]));
            if norm != 0.0 {
                places().for_each(|place| values[place] /= norm);
            }
        }
        Ok(vec![Tensor::new(given.shape.clone(), like(given, values)?)])
    }))
}

/// Each value with those before it on an axis.
pub(super) fn running_sum(node: &Node<'_>) -> Run {
    let [leaves_out_own, is_reverse] =
        ["exclusive", "reverse"].map(|name| node.integer(name).unwrap_or(0) != 0);
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let [axis] = input(inputs, 1)?.to_integers()?[..] else {
            return Err(Fault::new("not one axis"));
        };
        let (before, size, after) = along(&given.shape, given.axis(axis)?);
        let mut values = given.to_doubles()?;
        for line in 0..before * after {
            let start = line / after * size * after + line % after;
            let mut sum = 0.0;
            for index in 0..size {
                let index = if is_reverse { size - 1 - index } else { index };
                let value = &mut values[start + index * after];
                let with_own = sum + *value;
                *value = if leaves_out_own { sum } else { with_own };
                sum = with_own;
            }
        }
        Ok(vec![Tensor::new(given.shape.clone(), like(given, values)?)])
    })
}

pub(super) fn top_k(node: &Node<'_>, opset: i64) -> Run {
    let axis = node.integer("axis").unwrap_or(-1);
    let largest = node.integer("largest").unwrap_or(1) != 0;
    let own = node.integer("k").filter(|_| opset < 10);
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let axis = given.axis(axis)?;
        let (before, size, after) = along(&given.shape, axis);
        context.spend(given.data.len().saturating_mul(1 + size.ilog2_or_zero()))?;
        let k = match own {
            Some(k) => k,
            None => input(inputs, 1)?
                .to_integers()?
                .first()
                .copied()
                .unwrap_or(-1),
        };
        let k = usize::try_from(k).ok().filter(|k| *k <= size);
        let k = k.ok_or_else(|| {
            Fault(format!(
                "more or fewer values than the {size} that there are"
            ))
        })?;
        let mut shape = given.shape.clone();
        shape[axis] = k;
        let count = bounded(&shape)?;
        let values = given.to_doubles()?;
        let (mut from, mut indices) = (vec![0; count], vec![0i64; count]);
        for line in 0..before * after {
            let (row, column) = (line / after, line % after);
            let start = row * size * after + column;
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|a, b| {
                let (a, b) = (values[start + a * after], values[start + b * after]);
                let order = a
                    .partial_cmp(&b)
                    .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
                if largest { order.reverse() } else { order }
            });
            for (place, index) in order[..k].iter().enumerate() {
                let at = row * k * after + place * after + column;
                from[at] = start + index * after;
                indices[at] = *index as i64;
            }
        }
        let data = given.data.pick(from.into_iter());
        Ok(vec![
            Tensor::new(shape.clone(), data),
            Tensor::new(shape, Data::Long(indices)),
        ])
    })
}

trait Log {
    fn ilog2_or_zero(self) -> usize;
}

impl Log for usize {
    fn ilog2_or_zero(self) -> usize {
        self.checked_ilog2().unwrap_or(0) as usize
    }
}
