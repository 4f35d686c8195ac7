//! Operators that compute value by value.

use std::sync::Arc;

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::{Node, unknown_element};
use crate::onnx::tensor::{Data, Tensor, bounded, broadcast, spread};

pub(super) fn identity() -> Run {
    Box::new(|inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        Ok(vec![given.clone()])
    })
}

pub(super) fn build(node: &Node<'_>, opset: i64) -> Result<Option<Run>, Fault> {
    let run = match node.operator {
        "Identity" => identity(),
        "Constant" => constant(node)?,
        "Cast" => cast(node)?,
        "Clip" => clip(node),
        "Where" => choose(),
        "Not" => logic(|a, _| !a, 1),
        "And" => logic(|a, b| a && b, 2),
        "Or" => logic(|a, b| a || b, 2),
        "Xor" => logic(|a, b| a != b, 2),
        "IsNaN" => is_nan(),
        "Equal" => equal(),
        "Less" => compare(|a, b| a < b, |a, b| a < b),
        "LessOrEqual" => compare(|a, b| a <= b, |a, b| a <= b),
        "Greater" => compare(|a, b| a > b, |a, b| a > b),
        "GreaterOrEqual" => compare(|a, b| a >= b, |a, b| a >= b),
        "Add" | "Sub" | "Mul" | "Div" if opset < 7 => {
            return Err(Fault(format!(
                "is of the old version {opset}; save the model with opset 9 or newer"
            )));
        }
        "Add" | "Sum" => arithmetic(|a, b| a + b, |a, b| a + b, i64::checked_add),
        "Sub" => arithmetic(|a, b| a - b, |a, b| a - b, i64::checked_sub),
        "Mul" => arithmetic(|a, b| a * b, |a, b| a * b, i64::checked_mul),
        "Div" => arithmetic(|a, b| a / b, |a, b| a / b, i64::checked_div),
        "Min" => arithmetic(
            |a, b| if b < a || b.is_nan() { b } else { a },
            |a, b| if b < a || b.is_nan() { b } else { a },
            |a, b| Some(a.min(b)),
        ),
        "Max" => arithmetic(
            |a, b| if b > a || b.is_nan() { b } else { a },
            |a, b| if b > a || b.is_nan() { b } else { a },
            |a, b| Some(a.max(b)),
        ),
        "Pow" => pow(),
        _ => return Ok(one(node)),
    };
    Ok(Some(run))
}

/// Functions of one number.
fn one(node: &Node<'_>) -> Option<Run> {
    Some(match node.operator {
        "Abs" => each(f32::abs, f64::abs, Some(i64::checked_abs)),
        "Neg" => each(|x| -x, |x| -x, Some(i64::checked_neg)),
        "Exp" => each(f32::exp, f64::exp, None),
        "Log" => each(f32::ln, f64::ln, None),
        "Sqrt" => each(f32::sqrt, f64::sqrt, None),
        "Reciprocal" => each(f32::recip, f64::recip, None),
        "Floor" => each(f32::floor, f64::floor, None),
        "Ceil" => each(f32::ceil, f64::ceil, None),
        "Round" => each(f32::round_ties_even, f64::round_ties_even, None),
        "Sin" => each(f32::sin, f64::sin, None),
        "Cos" => each(f32::cos, f64::cos, None),
        "Tanh" => each(f32::tanh, f64::tanh, None),
        "Sigmoid" => each(
            |x| 1.0 / (1.0 + (-x).exp()),
            |x| 1.0 / (1.0 + (-x).exp()),
            None,
        ),
        "Softplus" => each(|x| x.exp().ln_1p(), |x| x.exp().ln_1p(), None),
        "Relu" => each(
            |x| if x < 0.0 { 0.0 } else { x },
            |x| if x < 0.0 { 0.0 } else { x },
            Some(|x| Some(x.max(0))),
        ),
        "Sign" => each(
            |x| if x == 0.0 { 0.0 } else { x.signum() },
            |x| if x == 0.0 { 0.0 } else { x.signum() },
            Some(|x| Some(x.signum())),
        ),
        _ => return None,
    })
}

fn overflow() -> Fault {
    Fault::new("a whole number that does not fit its type, or a division by 0")
}

fn narrow(number: i64) -> Option<i32> {
    i32::try_from(number).ok()
}

fn each(
    of_float: fn(f32) -> f32,
    of_double: fn(f64) -> f64,
    of_integer: Option<fn(i64) -> Option<i64>>,
) -> Run {
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let data = match (&given.data, of_integer) {
            (Data::Float(values), _) => Data::Float(values.iter().map(|x| of_float(*x)).collect()),
            (Data::Double(values), _) => {
                Data::Double(values.iter().map(|x| of_double(*x)).collect())
            }
            (Data::Long(values), Some(of)) => {
                let made: Option<_> = values.iter().map(|x| of(*x)).collect();
                Data::Long(made.ok_or_else(overflow)?)
            }
            (Data::Int(values), Some(of)) => {
                let made: Option<_> = values.iter().map(|x| narrow(of(i64::from(*x))?)).collect();
                Data::Int(made.ok_or_else(overflow)?)
            }
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    })
}

/// Values of a tensor, spread to another shape.
struct Spread<'t, T> {
    values: &'t [T],
    places: Option<Vec<usize>>,
}

impl<'t, T: Clone> Spread<'t, T> {
    fn new(values: &'t [T], own: &[usize], shape: &[usize]) -> Self {
        Self {
            values,
            places: spread(own, shape),
        }
    }

    fn get(&self, index: usize) -> T {
        match &self.places {
            Some(places) => self.values[places[index]].clone(),
            None => self.values[index].clone(),
        }
    }
}

/// What is computed from pairs of two tensors.
fn pairs<T: Clone, U>(
    (a, of_a): (&[T], &[usize]),
    (b, of_b): (&[T], &[usize]),
    shape: &[usize],
    mut of: impl FnMut(T, T) -> U,
) -> Vec<U> {
    let count: usize = shape.iter().product();
    let (a, b) = (Spread::new(a, of_a, shape), Spread::new(b, of_b, shape));
    (0..count)
        .map(|index| of(a.get(index), b.get(index)))
        .collect()
}

fn different(a: &Tensor, b: &Tensor) -> Fault {
    Fault(format!(
        "values of the types {} and {} are not taken together",
        a.data.element(),
        b.data.element()
    ))
}

/// From two tensors, or one after the other from more.
fn arithmetic(
    of_float: fn(f32, f32) -> f32,
    of_double: fn(f64, f64) -> f64,
    of_integer: fn(i64, i64) -> Option<i64>,
) -> Run {
    Box::new(move |inputs, context| {
        let mut sum = input(inputs, 0)?.clone();
        for index in 1..inputs.len() {
            let other = input(inputs, index)?;
            let shape = broadcast(&[&sum.shape, &other.shape])?;
            context.spend(bounded(&shape)?)?;
            let (of_a, of_b) = (&sum.shape[..], &other.shape[..]);
            let data = match (&sum.data, &other.data) {
                (Data::Float(a), Data::Float(b)) => {
                    Data::Float(pairs((a, of_a), (b, of_b), &shape, of_float))
                }
                (Data::Double(a), Data::Double(b)) => {
                    Data::Double(pairs((a, of_a), (b, of_b), &shape, of_double))
                }
                (Data::Long(a), Data::Long(b)) => {
                    let made = pairs((a, of_a), (b, of_b), &shape, of_integer);
                    Data::Long(
                        made.into_iter()
                            .collect::<Option<_>>()
                            .ok_or_else(overflow)?,
                    )
                }
                (Data::Int(a), Data::Int(b)) => {
                    let of = |a, b| narrow(of_integer(i64::from(a), i64::from(b))?);
                    let made = pairs((a, of_a), (b, of_b), &shape, of);
                    Data::Int(
                        made.into_iter()
                            .collect::<Option<_>>()
                            .ok_or_else(overflow)?,
                    )
                }
                _ => return Err(different(&sum, other)),
            };
            sum = Tensor::new(shape, data);
        }
        Ok(vec![sum])
    })
}

/// A power whose exponent may be of another type.
fn pow() -> Run {
    Box::new(|inputs, context| {
        let (base, exponent) = (input(inputs, 0)?, input(inputs, 1)?);
        let shape = broadcast(&[&base.shape, &exponent.shape])?;
        context.spend(bounded(&shape)?)?;
        let exponents = exponent.to_doubles()?;
        let exponents = Spread::new(&exponents, &exponent.shape, &shape);
        let count: usize = shape.iter().product();
        let data = match &base.data {
            Data::Float(values) => {
                let values = Spread::new(values, &base.shape, &shape);
                Data::Float(
                    (0..count)
                        .map(|at| values.get(at).powf(exponents.get(at) as f32))
                        .collect(),
                )
            }
            Data::Double(values) => {
                let values = Spread::new(values, &base.shape, &shape);
                Data::Double(
                    (0..count)
                        .map(|at| values.get(at).powf(exponents.get(at)))
                        .collect(),
                )
            }
            _ => return Err(base.wrong_type()),
        };
        Ok(vec![Tensor::new(shape, data)])
    })
}

fn compare(of_numbers: fn(f64, f64) -> bool, of_integers: fn(i64, i64) -> bool) -> Run {
    Box::new(move |inputs, context| {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let shape = broadcast(&[&a.shape, &b.shape])?;
        context.spend(bounded(&shape)?)?;
        let made = match (&a.data, &b.data) {
            (Data::Long(left), Data::Long(right)) => {
                pairs((left, &a.shape), (right, &b.shape), &shape, of_integers)
            }
            (Data::Float(_), Data::Float(_))
            | (Data::Double(_), Data::Double(_))
            | (Data::Int(_), Data::Int(_)) => {
                let (left, right) = (a.to_doubles()?, b.to_doubles()?);
                pairs((&left, &a.shape), (&right, &b.shape), &shape, of_numbers)
            }
            _ => return Err(different(a, b)),
        };
        Ok(vec![Tensor::new(shape, Data::Bool(made))])
    })
}

fn equal() -> Run {
    Box::new(|inputs, context| {
        let (a, b) = (input(inputs, 0)?, input(inputs, 1)?);
        let shape = broadcast(&[&a.shape, &b.shape])?;
        context.spend(bounded(&shape)?)?;
        let (of_a, of_b) = (&a.shape[..], &b.shape[..]);
        let made = match (&a.data, &b.data) {
            (Data::Float(a), Data::Float(b)) => pairs((a, of_a), (b, of_b), &shape, |a, b| a == b),
            (Data::Double(a), Data::Double(b)) => {
                pairs((a, of_a), (b, of_b), &shape, |a, b| a == b)
            }
            (Data::Long(a), Data::Long(b)) => pairs((a, of_a), (b, of_b), &shape, |a, b| a == b),
            (Data::Int(a), Data::Int(b)) => pairs((a, of_a), (b, of_b), &shape, |a, b| a == b),
            (Data::Bool(a), Data::Bool(b)) => pairs((a, of_a), (b, of_b), &shape, |a, b| a == b),
            (Data::Text(a), Data::Text(b)) => pairs((a, of_a), (b, of_b), &shape, |a, b| a == b),
            _ => return Err(different(a, b)),
        };
        Ok(vec![Tensor::new(shape, Data::Bool(made))])
    })
}

fn as_bools(tensor: &Tensor) -> Result<&[bool], Fault> {
    match &tensor.data {
        Data::Bool(values) => Ok(values),
        other => Err(Fault(format!("expected bool, found {}", other.element()))),
    }
}

fn logic(of: fn(bool, bool) -> bool, operands: usize) -> Run {
    Box::new(move |inputs, context| {
        let (a, b) = (input(inputs, 0)?, input(inputs, operands - 1)?);
        let shape = broadcast(&[&a.shape, &b.shape])?;
        context.spend(bounded(&shape)?)?;
        let made = pairs(
            (as_bools(a)?, &a.shape),
            (as_bools(b)?, &b.shape),
            &shape,
            of,
        );
        Ok(vec![Tensor::new(shape, Data::Bool(made))])
    })
}

fn is_nan() -> Run {
    Box::new(|inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let made = match &given.data {
            Data::Float(values) => values.iter().map(|x| x.is_nan()).collect(),
            Data::Double(values) => values.iter().map(|x| x.is_nan()).collect(),
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), Data::Bool(made))])
    })
}

fn choose() -> Run {
    Box::new(|inputs, context| {
        let (condition, yes, no) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let shape = broadcast(&[&condition.shape, &yes.shape, &no.shape])?;
        let count = bounded(&shape)?;
        context.spend(count)?;
        // Both beside each other, so that a place tells which of them.
        let mut both = yes.data.clone();
        both.extend(&no.data, 0..no.data.len())?;
        let conditions = Spread::new(as_bools(condition)?, &condition.shape, &shape);
        let (of_yes, of_no) = (spread(&yes.shape, &shape), spread(&no.shape, &shape));
        let first = yes.data.len();
        let place = |index: usize| match conditions.get(index) {
            true => of_yes.as_ref().map_or(index, |places| places[index]),
            false => first + of_no.as_ref().map_or(index, |places| places[index]),
        };
        let data = both.pick((0..count).map(place));
        Ok(vec![Tensor::new(shape, data)])
    })
}

fn clip(node: &Node<'_>) -> Run {
    let own = [node.float("min"), node.float("max")];
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let limit = |index: usize, none: f64| match inputs.get(index).copied().flatten() {
            Some(limit) => {
                let limit = limit.to_doubles()?;
                limit
                    .first()
                    .copied()
                    .ok_or_else(|| Fault::new("a limit without a value"))
            }
            None => Ok(own[index - 1].map_or(none, f64::from)),
        };
        let (least, most) = (limit(1, f64::NEG_INFINITY)?, limit(2, f64::INFINITY)?);
        let data = match &given.data {
            Data::Float(values) => Data::Float(
                values
                    .iter()
                    .map(|x| x.max(least as f32).min(most as f32))
                    .collect(),
            ),
            Data::Double(values) => {
                Data::Double(values.iter().map(|x| x.max(least).min(most)).collect())
            }
            Data::Long(values) => Data::Long(
                values
                    .iter()
                    .map(|x| (*x).max(least as i64).min(most as i64))
                    .collect(),
            ),
            _ => return Err(given.wrong_type()),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    })
}

fn constant(node: &Node<'_>) -> Result<Run, Fault> {
    let tensor = if let Some(tensor) = node.tensor("value") {
        tensor.clone()
    } else if let Some(number) = node.float("value_float") {
        Tensor::floats(Vec::new(), vec![number])
    } else if let Some(number) = node.integer("value_int") {
        Tensor::new(Vec::new(), Data::Long(vec![number]))
    } else if node.has("value_floats") {
        let values = node.floats("value_floats").to_vec();
        Tensor::floats(vec![values.len()], values)
    } else if node.has("value_ints") {
        let values = node.integers("value_ints").to_vec();
        Tensor::new(vec![values.len()], Data::Long(values))
    } else if let Some(text) = node.text("value_string")? {
        Tensor::new(Vec::new(), Data::Text(vec![text.into()]))
    } else if node.has("value_strings") {
        let values = node.texts("value_strings")?;
        Tensor::new(vec![values.len()], Data::Text(values))
    } else {
        return Err(Fault::new("has no value that is read"));
    };
    bounded(&tensor.shape)?;
    Ok(Box::new(move |_, context| {
        context.spend(tensor.data.len())?;
        Ok(vec![tensor.clone()])
    }))
}

fn cast(node: &Node<'_>) -> Result<Run, Fault> {
    let to = node.integer("to").unwrap_or_default();
    if !matches!(to, 1 | 6 | 7 | 8 | 9 | 11) {
        return Err(unknown_element(to));
    }
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let data = match (&given.data, to) {
            (Data::Text(texts), 8) => Data::Text(texts.clone()),
            (Data::Text(texts), _) => from_texts(texts, to)?,
            (_, 8) => Data::Text(to_texts(&given.data)),
            (Data::Long(values), 7) => Data::Long(values.clone()),
            (Data::Long(values), 6) => Data::Int(values.iter().map(|x| *x as i32).collect()),
            (Data::Long(values), 1) => Data::Float(values.iter().map(|x| *x as f32).collect()),
            (_, to) => from_doubles(given.to_doubles()?, to),
        };
        Ok(vec![Tensor::new(given.shape.clone(), data)])
    }))
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
            .map(|text| narrow(whole(text)?))
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
