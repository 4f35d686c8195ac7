//! Operators that scale numbers.

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor};

/// One number for each column, or one for all.
fn of_column<T: Copy>(
    numbers: &[T],
    columns: usize,
    name: &str,
) -> Result<impl Fn(usize) -> T, Fault> {
    let count = numbers.len();
    if count != 1 && count != columns {
        return Err(Fault(format!(
            "`{name}`: {count} numbers for {columns} columns"
        )));
    }
    Ok(move |index: usize| numbers[if count == 1 { 0 } else { index % columns }])
}

pub(super) fn scaler(node: &Node<'_>) -> Result<Run, Fault> {
    let [offsets, factors] =
        [("offset", 0.0), ("scale", 1.0)].map(|(name, none)| match node.floats(name) {
            [] => vec![none],
            own => own.to_vec(),
        });
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let (_, columns) = given.as_rows()?;
        let offset = of_column(&offsets, columns, "offset")?;
        let factor = of_column(&factors, columns, "scale")?;
        let scaled = given.to_floats()?.into_iter().enumerate();
        let scaled = scaled.map(|(index, value)| (value - offset(index)) * factor(index));
        Ok(vec![Tensor::floats(given.shape.clone(), scaled.collect())])
    }))
}

pub(super) fn binarizer(node: &Node<'_>) -> Run {
    let threshold = node.float("threshold").unwrap_or(0.0);
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let data = match &given.data {
            Data::Float(values) => {
                Data::Float(values.iter().map(|x| f32::from(*x > threshold)).collect())
            }
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    })
}

pub(super) fn normalizer(node: &Node<'_>) -> Result<Run, Fault> {
    let norm: fn(&[f32]) -> f32 = match node.text("norm")? {
        None | Some("MAX") => |row| row.iter().copied().fold(f32::MIN, f32::max),
        Some("L1") => |row| row.iter().map(|x| x.abs()).sum(),
        Some("L2") => |row| row.iter().map(|x| x * x).sum::<f32>().sqrt(),
        Some(_) => return Err(Fault::new("`norm` is none that is known")),
    };
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let (_, columns) = given.as_rows()?;
        let mut values = given.to_floats()?;
        for row in values.chunks_exact_mut(columns.max(1)) {
            let norm = norm(row);
            if norm != 0.0 {
                row.iter_mut().for_each(|value| *value /= norm);
            }
        }
        Ok(vec![Tensor::floats(given.shape.clone(), values)])
    }))
}

pub(super) fn imputer(node: &Node<'_>) -> Result<Run, Fault> {
    let floats = node.floats("imputed_value_floats").to_vec();
    let integers = node.integers("imputed_value_int64s").to_vec();
    let missing = node.float("replaced_value_float").unwrap_or(0.0);
    let missing_integer = node.integer("replaced_value_int64").unwrap_or(0);
    if floats.is_empty() == integers.is_empty() {
        return Err(Fault::new(
            "needs either `imputed_value_floats` or `imputed_value_int64s`",
        ));
    }
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let (_, columns) = given.as_rows()?;
        let data = match &given.data {
            Data::Float(values) if !floats.is_empty() => {
                let own = of_column(&floats, columns, "imputed_value_floats")?;
                let is_missing =
                    |value: f32| value == missing || value.is_nan() && missing.is_nan();
                let values = values.iter().enumerate();
                let made =
                    values.map(|(at, value)| if is_missing(*value) { own(at) } else { *value });
                Data::Float(made.collect())
            }
            Data::Long(values) if !integers.is_empty() => {
                let own = of_column(&integers, columns, "imputed_value_int64s")?;
                let values = values.iter().enumerate();
                let made = values.map(|(at, value)| {
                    if *value == missing_integer {
                        own(at)
                    } else {
                        *value
                    }
                });
                Data::Long(made.collect())
            }
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    }))
}

/// With the mean and the variance of the training, for each place of the second axis.
pub(super) fn batch_normalization(node: &Node<'_>, opset: i64) -> Result<Run, Fault> {
    let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
    if node.integer("training_mode").unwrap_or(0) != 0 || node.outputs.len() > 1 || opset < 9 {
        return Err(Fault::new(
            "is not supported in training, or before opset 9",
        ));
    }
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let columns = given.shape.get(1).copied().unwrap_or(1);
        let after: usize = given.shape.iter().skip(2).product();
        let mut lists = Vec::with_capacity(4);
        for index in 1..5 {
            lists.push(input(inputs, index)?.to_doubles()?);
        }
        if lists.iter().any(|list| list.len() != columns) {
            return Err(Fault(format!(
                "other numbers than one for each of {columns}"
            )));
        }
        let mut values = given.to_doubles()?;
        for (at, value) in values.iter_mut().enumerate() {
            let [scale, start, mean, variance] =
                [0, 1, 2, 3].map(|list| lists[list][at / after % columns]);
            *value = (*value - mean) / (variance + epsilon).sqrt() * scale + start;
        }
        let data = match &given.data {
            Data::Float(_) => Data::Float(values.into_iter().map(|x| x as f32).collect()),
            Data::Double(_) => Data::Double(values),
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    }))
}
