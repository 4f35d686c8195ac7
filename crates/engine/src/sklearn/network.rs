//! Networks of layers.

use super::build::class_count;
use super::factors::Factors;
use super::link::Link;
use super::steps::{Predictor, refuse_missing};
use crate::document::{Fault, named, shorten};
use crate::pickle::{Array, View};
use crate::signature::Output;
use crate::{RowRefusal, Rows};

#[derive(Debug)]
struct Network {
    layers: Vec<Layer>,
    activation: Activation,
    link: Link,
}

#[derive(Debug)]
struct Layer {
    factors: Factors,
    constants: Vec<f64>,
}

/// What becomes of the values between two layers.
#[derive(Clone, Copy, Debug)]
enum Activation {
    Identity,
    Logistic,
    Tanh,
    Relu,
}

impl Activation {
    fn apply(self, values: &mut [f64]) {
        let each = |values: &mut [f64], change: fn(f64) -> f64| {
            values.iter_mut().for_each(|value| *value = change(*value));
        };
        match self {
            Self::Identity => {}
            Self::Logistic => each(values, |value| 1.0 / (1.0 + (-value).exp())),
            Self::Tanh => each(values, f64::tanh),
            Self::Relu => each(values, |value| value.max(0.0)),
        }
    }
}

impl Predictor for Network {
    fn output(&self) -> Output {
        let last = self.layers.last();
        self.link
            .output(last.map_or(1, |layer| layer.constants.len()))
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        refuse_missing(rows, f64::MAX)?;
        let width = self.output().width();
        let mut made = Vec::new();
        for (place, layer) in self.layers.iter().enumerate() {
            made = match place {
                0 => layer.factors.of(rows.values()),
                _ => layer.factors.of(&made),
            };
            let is_last = place + 1 == self.layers.len();
            for values in made.chunks_exact_mut(layer.constants.len()) {
                for (value, constant) in values.iter_mut().zip(&layer.constants) {
                    *value += constant;
                }
                if !is_last {
                    self.activation.apply(values);
                }
            }
        }
        let last = made.len() / rows.len().max(1);
        let made = made.chunks_exact_mut(last.max(1));
        for (made, out) in made.zip(out.chunks_exact_mut(width)) {
            self.link.apply(made, out);
        }
        Ok(())
    }
}

/// Reads a network; none if the estimator is none.
pub(super) fn read(
    view: View<'_, '_>,
    name: &str,
    width: usize,
) -> Result<Option<Box<dyn Predictor>>, Fault> {
    let expected = match name {
        "MLPClassifier" => match class_count(view)? {
            2 => Some(1),
            classes => Some(classes),
        },
        "MLPRegressor" => None,
        _ => return Ok(None),
    };
    let link = match (view.text("out_activation_")?, expected) {
        ("identity", None) => Link::Identity,
        ("exp", None) => Link::Exponential,
        ("logistic", Some(1)) => Link::Logistic(1.0),
        ("softmax", Some(2..)) => Link::Softmax,
        ("logistic", Some(_)) => {
            return Err(Fault::new("a model of several outputs is not supported"));
        }
        (other, _) => {
            return Err(Fault(format!(
                "`out_activation_`: `{}` is not known",
                shorten(other)
            )));
        }
    };
    let activation = match view.text("activation")? {
        "identity" => Activation::Identity,
        "logistic" => Activation::Logistic,
        "tanh" => Activation::Tanh,
        "relu" => Activation::Relu,
        other => {
            return Err(Fault(format!(
                "`activation`: `{}` is not known",
                shorten(other)
            )));
        }
    };
    let (tables, constants) = (view.list("coefs_")?, view.list("intercepts_")?);
    if tables.len() != constants.len() {
        return Err(Fault::new("`coefs_` and `intercepts_`: not as many layers"));
    }
    let (mut layers, mut given) = (Vec::new(), width);
    for (place, (table, constants)) in tables.into_iter().zip(constants).enumerate() {
        let layer = layer(table, constants, given);
        let layer = layer.map_err(|fault| fault.inside(format_args!("layer {place}")))?;
        given = layer.constants.len();
        layers.push(layer);
    }
    if layers.is_empty() || expected.is_some_and(|expected| expected != given) {
        return Err(Fault(format!(
            "`coefs_`: {given} values in the last of {} layers",
            layers.len()
        )));
    }
    Ok(Some(Box::new(Network {
        layers,
        activation,
        link,
    })))
}

/// A layer of so many values.
fn layer(table: View<'_, '_>, constants: View<'_, '_>, given: usize) -> Result<Layer, Fault> {
    let table = Array::read(table).map_err(named("coefs_"))?;
    let constants = Array::read(constants).and_then(|constants| constants.numbers());
    let constants = constants.map_err(named("intercepts_"))?;
    let made = constants.len();
    if *table.shape() != [given, made] || made == 0 {
        return Err(Fault(format!(
            "an array of the shape {:?} between {given} and {made} values",
            table.shape()
        )));
    }
    Ok(Layer {
        factors: Factors::by_column(table.numbers()?, made),
        constants,
    })
}
