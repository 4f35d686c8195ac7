//! Functions of one number.

use super::math::{narrow, overflow};
use super::{Run, input};
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor};

/// The same function of both types of numbers.
macro_rules! both {
    (|$x:ident| $made:expr) => {
        each(|$x: f32| $made, |$x: f64| $made, None)
    };
}

pub(super) fn build(node: &Node<'_>) -> Option<Run> {
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
        "Sigmoid" => both!(|x| 1.0 / (1.0 + (-x).exp())),
        "Softplus" => both!(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
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
        "Acos" => each(f32::acos, f64::acos, None),
        "Acosh" => each(f32::acosh, f64::acosh, None),
        "Asin" => each(f32::asin, f64::asin, None),
        "Asinh" => each(f32::asinh, f64::asinh, None),
        "Atan" => each(f32::atan, f64::atan, None),
        "Atanh" => each(f32::atanh, f64::atanh, None),
        "Cosh" => each(f32::cosh, f64::cosh, None),
        "Erf" => each(|x| erf(f64::from(x)) as f32, erf, None),
        "HardSwish" => both!(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Sinh" => each(f32::sinh, f64::sinh, None),
        "Softsign" => both!(|x| x / (1.0 + x.abs())),
        "Tan" => each(f32::tan, f64::tan, None),
        _ => return with_numbers(node),
    })
}

/// Functions with numbers of their own.
fn with_numbers(node: &Node<'_>) -> Option<Run> {
    let number = |name: &str, none: f32| node.float(name).unwrap_or(none);
    Some(match node.operator {
        "Celu" => {
            let alpha = number("alpha", 1.0);
            floats(move |x| x.max(0.0) + (alpha * ((x / alpha).exp() - 1.0)).min(0.0))
        }
        "Elu" => {
            let alpha = number("alpha", 1.0);
            floats(move |x| if x < 0.0 { alpha * (x.exp() - 1.0) } else { x })
        }
        "HardSigmoid" => {
            let (alpha, beta) = (number("alpha", 0.2), number("beta", 0.5));
            floats(move |x| (alpha * x + beta).clamp(0.0, 1.0))
        }
        "LeakyRelu" => {
            let alpha = number("alpha", 0.01);
            floats(move |x| if x < 0.0 { alpha * x } else { x })
        }
        "Selu" => {
            let (alpha, gamma) = (number("alpha", 1.673_263_2), number("gamma", 1.050_701));
            floats(move |x| gamma * if x > 0.0 { x } else { alpha * (x.exp() - 1.0) })
        }
        "ThresholdedRelu" => {
            let alpha = number("alpha", 1.0);
            floats(move |x| if x > alpha { x } else { 0.0 })
        }
        _ => return None,
    })
}

/// A function of numbers of 32 bits alone.
fn floats(of: impl Fn(f32) -> f32 + Send + Sync + 'static) -> Run {
    Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let Data::Float(values) = &given.data else {
            return Err(given.wrong_type());
        };
        let made = values.iter().map(|x| of(*x)).collect();
        Ok(vec![Tensor::floats(given.shape.clone(), made)])
    })
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

/// The error function, by a series whose terms are all of one sign (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    // It is 1 to the last digit.
    if x.is_nan() || x.abs() > 6.0 {
        return x.clamp(-1.0, 1.0);
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > f64::EPSILON / 4.0 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}
