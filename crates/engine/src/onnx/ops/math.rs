//! Operators that compute value by value.

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::proto::Node;
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
        "IsInf" => is_infinite(node),
        "Mean" => mean(),
        "Mod" => modulo(node),
        "PRelu" => rectify(),
        _ => return Ok(None),
    };
    Ok(Some(run))
}

pub(super) fn overflow() -> Fault {
    Fault::new("a whole number that does not fit its type, or a division by 0")
}

pub(super) fn narrow(number: i64) -> Option<i32> {
    i32::try_from(number).ok()
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

/// The mean of several tensors.
fn mean() -> Run {
    let sum = arithmetic(|a, b| a + b, |a, b| a + b, |_, _| None);
    Box::new(move |inputs, context| {
        let mut made = sum(inputs, context)?;
        let count = inputs.len();
        match &mut made[0].data {
            Data::Float(values) => values.iter_mut().for_each(|x| *x /= count as f32),
            Data::Double(values) => values.iter_mut().for_each(|x| *x /= count as f64),
            _ => return Err(made[0].wrong_type()),
        }
        Ok(made)
    })
}

/// What a division leaves: with the sign of the divisor, or where `fmod` is set of what is divided.
fn modulo(node: &Node<'_>) -> Run {
    if node.integer("fmod").unwrap_or(0) != 0 {
        return arithmetic(|a, b| a % b, |a, b| a % b, i64::checked_rem);
    }
    arithmetic(
        |_, _| f32::NAN,
        |_, _| f64::NAN,
        |a, b| {
            let left = a.checked_rem(b)?;
            Some(if left != 0 && (left < 0) != (b < 0) {
                left + b
            } else {
                left
            })
        },
    )
}

/// Numbers below 0 by a factor.
fn rectify() -> Run {
    arithmetic(
        |x, slope| if x < 0.0 { x * slope } else { x },
        |x, slope| if x < 0.0 { x * slope } else { x },
        |x, slope| if x < 0 { x.checked_mul(slope) } else { Some(x) },
    )
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
            Data::Long(_) | Data::Int(_) => {
                let values = base.to_doubles()?;
                let values = Spread::new(&values, &base.shape, &shape);
                let powers = (0..count).map(|at| values.get(at).powf(exponents.get(at)));
                match &base.data {
                    Data::Long(_) => Data::Long(powers.map(|x| x as i64).collect()),
                    _ => Data::Int(powers.map(|x| x as i32).collect()),
                }
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

fn is_infinite(node: &Node<'_>) -> Run {
    let counts = |name: &str| node.integer(name).unwrap_or(1) != 0;
    let (negative, positive) = (counts("detect_negative"), counts("detect_positive"));
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let (Data::Float(_) | Data::Double(_)) = given.data else {
            return Err(given.wrong_type());
        };
        let values = given.to_doubles()?.into_iter();
        let made =
            values.map(|x| x == f64::INFINITY && positive || x == f64::NEG_INFINITY && negative);
        Ok(vec![Tensor::new(
            given.shape.clone(),
            Data::Bool(made.collect()),
        )])
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
            Data::Int(values) => Data::Int(
                values
                    .iter()
                    .map(|x| (*x).max(least as i32).min(most as i32))
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
