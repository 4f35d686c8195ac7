//! Products of matrices, and the functions of whole rows that follow them.

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, bounded, broadcast, spread};

/// A product of two matrices, summed in the type of its numbers.
macro_rules! product {
    ($a:expr, $b:expr, $rows:expr, $inner:expr, $columns:expr) => {{
        let mut made = vec![Default::default(); $rows * $columns];
        for row in 0..$rows {
            for index in 0..$inner {
                let factor = $a[row * $inner + index];
                let own = &mut made[row * $columns..][..$columns];
                for (sum, value) in own.iter_mut().zip(&$b[index * $columns..][..$columns]) {
                    *sum += factor * value;
                }
            }
        }
        made
    }};
}

/// Two matrices' product.
fn multiply(a: &Tensor, b: &Tensor) -> Result<Tensor, Fault> {
    let ([rows, inner], [other, columns]) = (&a.shape[..], &b.shape[..]) else {
        return Err(Fault(format!(
            "matrices of the shapes {:?} and {:?}",
            a.shape, b.shape
        )));
    };
    if inner != other {
        return Err(Fault(format!(
            "shapes that do not match: {:?} and {:?}",
            a.shape, b.shape
        )));
    }
    let (rows, inner, columns) = (*rows, *inner, *columns);
    bounded(&[rows, columns])?;
    let data = match (&a.data, &b.data) {
        (Data::Float(a), Data::Float(b)) => Data::Float(product!(a, b, rows, inner, columns)),
        (Data::Double(a), Data::Double(b)) => Data::Double(product!(a, b, rows, inner, columns)),
        _ => {
            return Err(Fault(format!(
                "values of the types {} and {}",
                a.data.element(),
                b.data.element()
            )));
        }
    };
    Ok(Tensor::new(vec![rows, columns], data))
}

fn work(a: &Tensor, b: &Tensor) -> usize {
    a.data
        .len()
        .saturating_mul(b.shape.last().copied().unwrap_or(1))
}

/// A product of matrices, or of many of them beside each other.
pub(super) fn matmul() -> Run {
    Box::new(|inputs, context| {
        let (a, b) = (input(inputs, 0)?.clone(), input(inputs, 1)?.clone());
        if a.shape.is_empty() || b.shape.is_empty() {
            return Err(Fault::new("a single number in place of a matrix"));
        }
        let (is_row, is_column) = (a.shape.len() == 1, b.shape.len() == 1);
        let (mut a, mut b) = (a, b);
        if is_row {
            a.shape.insert(0, 1);
        }
        if is_column {
            b.shape.push(1);
        }
        let (of_a, of_b) = (a.shape.len() - 2, b.shape.len() - 2);
        let outer = broadcast(&[&a.shape[..of_a], &b.shape[..of_b]])?;
        let count = bounded(&outer)?;
        context.spend(work(&a, &b).saturating_mul(count))?;
        let (at_a, at_b) = (
            spread(&a.shape[..of_a], &outer),
            spread(&b.shape[..of_b], &outer),
        );
        let matrix = |tensor: &Tensor, places: &Option<Vec<usize>>, outer_rank, index: usize| {
            let at = places.as_ref().map_or(index, |places| places[index]);
            let shape: Vec<usize> = tensor.shape[outer_rank..].to_vec();
            let size = shape[0] * shape[1];
            Tensor::new(shape, tensor.data.pick(at * size..(at + 1) * size))
        };
        let mut made: Option<Tensor> = None;
        for index in 0..count {
            let product = multiply(
                &matrix(&a, &at_a, of_a, index),
                &matrix(&b, &at_b, of_b, index),
            )?;
            match &mut made {
                Some(made) => made.data.extend(&product.data, 0..product.data.len())?,
                None => made = Some(product),
            }
        }
        let made = made.ok_or_else(|| Fault::new("no matrices"))?;
        let mut shape = outer;
        shape.extend(made.shape.iter());
        bounded(&shape)?;
        if is_column {
            shape.pop();
        }
        if is_row {
            shape.remove(shape.len() - 1 - usize::from(!is_column));
        }
        Ok(vec![Tensor::new(shape, made.data)])
    })
}

fn transposed(tensor: &Tensor) -> Result<Tensor, Fault> {
    let [rows, columns] = tensor.shape[..] else {
        return Err(Fault(format!("a matrix of the shape {:?}", tensor.shape)));
    };
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    Ok(Tensor::new(vec![columns, rows], tensor.data.pick(places)))
}

pub(super) fn gemm(node: &Node<'_>) -> Run {
    let [alpha, beta] = ["alpha", "beta"].map(|name| node.float(name).unwrap_or(1.0));
    let [turns_a, turns_b] = ["transA", "transB"].map(|name| node.integer(name).unwrap_or(0) != 0);
    Box::new(move |inputs, context| {
        let turned = |index: usize, turns: bool| match (input(inputs, index)?, turns) {
            (tensor, true) => transposed(tensor),
            (tensor, false) => Ok(tensor.clone()),
        };
        let (a, b) = (turned(0, turns_a)?, turned(1, turns_b)?);
        context.spend(work(&a, &b))?;
        let mut made = multiply(&a, &b)?;
        let other = inputs.get(2).copied().flatten();
        let places = match other {
            Some(other) if broadcast(&[&other.shape, &made.shape])? == made.shape => {
                spread(&other.shape, &made.shape)
            }
            Some(_) => return Err(Fault::new("a third input that is larger than the product")),
            None => None,
        };
        let place = |index: usize| places.as_ref().map_or(index, |places| places[index]);
        match (&mut made.data, other.map(|other| &other.data)) {
            (Data::Float(sums), None) => sums.iter_mut().for_each(|sum| *sum *= alpha),
            (Data::Double(sums), None) => sums.iter_mut().for_each(|sum| *sum *= f64::from(alpha)),
            (Data::Float(sums), Some(Data::Float(other))) => {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = alpha * *sum + beta * other[place(index)];
                }
            }
            (Data::Double(sums), Some(Data::Double(other))) => {
                for (index, sum) in sums.iter_mut().enumerate() {
                    *sum = f64::from(alpha) * *sum + f64::from(beta) * other[place(index)];
                }
            }
            _ => return Err(Fault::new("a third input of another type")),
        }
        Ok(vec![made])
    })
}

/// Before version 13, all axes from the one named are one.
pub(super) fn softmax(node: &Node<'_>, opset: i64, is_log: bool) -> Run {
    let axis = node
        .integer("axis")
        .unwrap_or(if opset < 13 { 1 } else { -1 });
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let axis = given.axis(axis)?;
        let after: usize = if opset < 13 {
            1
        } else {
            given.shape[axis + 1..].iter().product()
        };
        let size: usize = match opset < 13 {
            true => given.shape[axis..].iter().product(),
            false => given.shape[axis],
        };
        let mut values = given.to_doubles()?;
        let lines = values.len().checked_div(size).unwrap_or(0);
        for line in 0..lines {
            let start = line / after * size * after + line % after;
            let at = |index: usize| start + index * after;
            let greatest = (0..size)
                .map(|index| values[at(index)])
                .fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = (0..size)
                .map(|index| (values[at(index)] - greatest).exp())
                .sum();
            for index in 0..size {
                let value = &mut values[at(index)];
                *value = match is_log {
                    true => *value - greatest - sum.ln(),
                    false => (*value - greatest).exp() / sum,
                };
            }
        }
        let data = match &given.data {
            Data::Float(_) => Data::Float(values.into_iter().map(|x| x as f32).collect()),
            Data::Double(_) => Data::Double(values),
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    })
}
