//! Values of one type as those of another.

use std::sync::Arc;

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::narrow::Narrow;
use crate::onnx::proto::{Node, unknown_element};
use crate::onnx::tensor::{Data, Tensor};

/// The type of the number `to`.
pub(super) fn cast(node: &Node<'_>) -> Result<Run, Fault> {
    let to = node.integer("to").unwrap_or_default();
    if !matches!(to, 1 | 6 | 7 | 8 | 9 | 11) && Narrow::of(to).is_none() {
        return Err(unknown_element(to));
    }
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        Ok(vec![made(given, to)?])
    }))
}

/// The type of the second input.
pub(super) fn cast_like() -> Run {
    Box::new(move |inputs, context| {
        let (given, like) = (input(inputs, 0)?, input(inputs, 1)?);
        context.spend(given.data.len())?;
        let to = match (like.narrow, &like.data) {
            (Some(narrow), _) => narrow.number(),
            (None, Data::Float(_)) => 1,
            (None, Data::Int(_)) => 6,
            (None, Data::Long(_)) => 7,
            (None, Data::Text(_)) => 8,
            (None, Data::Bool(_)) => 9,
            (None, Data::Double(_)) => 11,
        };
        Ok(vec![made(given, to)?])
    })
}

/// The values of a tensor in the type of that number.
fn made(given: &Tensor, to: i64) -> Result<Tensor, Fault> {
    let narrow = Narrow::of(to);
    let wide = match narrow {
        Some(Narrow::Half) => 1,
        Some(_) => 7,
        None => to,
    };
    let mut data = match (&given.data, wide) {
        (Data::Text(texts), 8) => Data::Text(texts.clone()),
        (Data::Text(texts), _) => from_texts(texts, wide)?,
        (_, 8) => Data::Text(to_texts(&given.data)),
        (Data::Long(values), 7) => Data::Long(values.clone()),
        (Data::Long(values), 6) => Data::Int(values.iter().map(|x| *x as i32).collect()),
        (Data::Long(values), 1) => Data::Float(values.iter().map(|x| *x as f32).collect()),
        (_, wide) => from_doubles(given.to_doubles()?, wide),
    };
    if let Some(narrow) = narrow {
        if let Data::Long(numbers) = data {
            data = Data::Int(narrow.cut(numbers.into_iter()));
        }
        narrow.fit(&mut data)?;
    }
    Ok(Tensor {
        narrow,
        ..Tensor::new(given.shape.clone(), data)
    })
}

fn from_doubles(values: Vec<f64>, to: i64) -> Data {
    let values = values.into_iter();
    match to {
        1 => Data::Float(values.map(|x| x as f32).collect()),
        6 => Data::Int(values.map(|x| x as i32).collect()),
        7 => Data::Long(values.map(|x| x as i64).collect()),
        9 => Data::Bool(values.map(|x| x != 0.0).collect()),
        _ => Data::Double(values.collect()),
    }
}

fn from_texts(texts: &[Arc<str>], to: i64) -> Result<Data, Fault> {
    let number = |text: &Arc<str>| text.trim().parse::<f64>().ok();
    let whole = |text: &Arc<str>| text.trim().parse::<i64>().ok();
    let made = match to {
        1 => texts
            .iter()
            .map(|text| text.trim().parse().ok())
            .collect::<Option<_>>()
            .map(Data::Float),
        7 => texts
            .iter()
            .map(whole)
            .collect::<Option<_>>()
            .map(Data::Long),
        6 => texts
            .iter()
            .map(|text| whole(text)?.try_into().ok())
            .collect::<Option<_>>()
            .map(Data::Int),
        11 => texts
            .iter()
            .map(number)
            .collect::<Option<_>>()
            .map(Data::Double),
        _ => return Err(Fault::new("texts are not made into truth values")),
    };
    made.ok_or_else(|| Fault::new("a text that is no number"))
}

fn to_texts(data: &Data) -> Vec<Arc<str>> {
    match data {
        Data::Float(values) => values
            .iter()
            .map(|x| number_text(f64::from(*x), x.to_string()))
            .collect(),
        Data::Double(values) => values
            .iter()
            .map(|x| number_text(*x, x.to_string()))
            .collect(),
        Data::Long(values) => values.iter().map(|x| x.to_string().into()).collect(),
        Data::Int(values) => values.iter().map(|x| x.to_string().into()).collect(),
        Data::Bool(values) => values
            .iter()
            .map(|x| if *x { "1" } else { "0" }.into())
            .collect(),
        Data::Text(texts) => texts.clone(),
    }
}

/// ONNX writes what is not finite as `NaN`, `INF` and `-INF`.
fn number_text(number: f64, finite: String) -> Arc<str> {
    match number {
        number if number.is_nan() => "NaN".into(),
        f64::INFINITY => "INF".into(),
        f64::NEG_INFINITY => "-INF".into(),
        _ => finite.into(),
    }
}
