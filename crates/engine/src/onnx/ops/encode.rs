//! Operators of `ai.onnx.ml` that look values up.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Run, input};
use crate::document::Fault;
use crate::onnx::narrow::Narrow;
use crate::onnx::proto::Node;
use crate::onnx::tensor::{Data, Tensor, bounded};

/// Refuses categories that others would be taken for: numbers come as `f64`, which has not all whole ones from 2^53 on.
fn check_exact(categories: &[i64]) -> Result<(), Fault> {
    let is_exact = |category: &i64| category.unsigned_abs() < 1 << 53;
    match categories.iter().all(is_exact) {
        true => Ok(()),
        false => Err(Fault::new(
            "a category is a whole number of 2^53 or more, which other numbers would be taken for; make texts of them in \
             the data, and fit the model again",
        )),
    }
}

pub(super) fn one_hot(node: &Node<'_>) -> Result<Run, Fault> {
    let texts = node.texts("cats_strings")?;
    let integers = node.integers("cats_int64s");
    let count = texts.len().max(integers.len());
    if count == 0 || texts.is_empty() == integers.is_empty() {
        return Err(Fault::new("needs either `cats_strings` or `cats_int64s`"));
    }
    check_exact(integers)?;
    let texts: HashMap<Arc<str>, usize> = texts.into_iter().zip(0..).collect();
    let integers: HashMap<i64, usize> = integers.iter().copied().zip(0..).collect();
    let knows_others = node.integer("zeros").unwrap_or(1) != 0;
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        let mut shape = given.shape.clone();
        shape.push(count);
        context.spend(bounded(&shape)?)?;
        let whole = |value: f64| integers.get(&(value as i64)).copied();
        let found: Vec<Option<usize>> = match &given.data {
            Data::Text(values) => values.iter().map(|text| texts.get(text).copied()).collect(),
            Data::Long(values) => values
                .iter()
                .map(|value| integers.get(value).copied())
                .collect(),
            Data::Bool(_) => return Err(given.wrong_type()),
            _ => given.to_doubles()?.into_iter().map(whole).collect(),
        };
        if matches!(given.data, Data::Text(_)) == texts.is_empty() {
            return Err(given.wrong_type());
        }
        let mut made = vec![0.0; found.len() * count];
        for (place, found) in found.into_iter().enumerate() {
            match found {
                Some(category) => made[place * count + category] = 1.0,
                None if knows_others || context.is_trial => {}
                None => return Err(Fault::new("a category that the model does not know")),
            }
        }
        Ok(vec![Tensor::floats(shape, made)])
    }))
}

/// Keys and values of a table are each of one type.
#[derive(Debug)]
enum Key {
    Texts(HashMap<Arc<str>, usize>),
    Integers(HashMap<i64, usize>),
    Floats(HashMap<u64, usize>),
}

impl Key {
    /// The place of each value; none where it is not there.
    fn find(&self, given: &Tensor) -> Result<Vec<Option<usize>>, Fault> {
        Ok(match (self, &given.data) {
            (Self::Texts(places), Data::Text(texts)) => {
                texts.iter().map(|text| places.get(text).copied()).collect()
            }
            (Self::Integers(places), Data::Long(values)) => values
                .iter()
                .map(|value| places.get(value).copied())
                .collect(),
            (Self::Floats(places), Data::Float(_) | Data::Double(_)) => {
                let values = given.to_doubles()?.into_iter();
                values
                    .map(|value| places.get(&bits(value)).copied())
                    .collect()
            }
            _ => return Err(given.wrong_type()),
        })
    }
}

/// Equal numbers have equal bits, and a missing value is equal to another.
fn bits(number: f64) -> u64 {
    if number.is_nan() {
        f64::NAN
    } else {
        number + 0.0
    }
    .to_bits()
}

/// The first of a key's values counts.
fn first<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    let mut places = HashMap::new();
    for (place, key) in keys.enumerate() {
        places.entry(key).or_insert(place);
    }
    places
}

fn list(node: &Node<'_>, kind: &str) -> Result<Option<Data>, Fault> {
    let name = |types: &str| format!("{kind}_{types}");
    let texts = node.texts(&name("strings"))?;
    if !texts.is_empty() {
        return Ok(Some(Data::Text(texts)));
    }
    let integers = node.integers(&name("int64s"));
    if !integers.is_empty() {
        return Ok(Some(Data::Long(integers.to_vec())));
    }
    let floats = node.floats(&name("floats"));
    if !floats.is_empty() {
        return Ok(Some(Data::Float(floats.to_vec())));
    }
    Ok(node
        .tensor(&name("tensor"))
        .map(|tensor| tensor.data.clone()))
}

/// What values that are not among the keys become.
fn default(node: &Node<'_>, values: &Data) -> Result<Data, Fault> {
    if let Some(tensor) = node.tensor("default_tensor") {
        return match tensor.data.len() {
            1 => Ok(tensor.data.clone()),
            _ => Err(Fault::new("`default_tensor`: not one value")),
        };
    }
    Ok(match values {
        Data::Text(_) => Data::Text(vec![
            node.text("default_string")?.unwrap_or("_Unused").into(),
        ]),
        Data::Long(_) => Data::Long(vec![node.integer("default_int64").unwrap_or(-1)]),
        Data::Float(_) => Data::Float(vec![node.float("default_float").unwrap_or(-0.0)]),
        // As a tensor of this type, which has no default of its own.
        Data::Double(_) => Data::Double(vec![-0.0]),
        Data::Int(_) => Data::Int(vec![-1]),
        Data::Bool(_) => return Err(Fault::new("values of the type bool are not supported")),
    })
}

pub(super) fn label_encoder(node: &Node<'_>) -> Result<Run, Fault> {
    if node.has("classes_strings") {
        return old_label_encoder(node);
    }
    let (keys, values) = (list(node, "keys")?, list(node, "values")?);
    let (Some(keys), Some(values)) = (keys, values) else {
        return Err(Fault::new("has no keys or no values"));
    };
    let narrow = node
        .tensor("values_tensor")
        .and_then(|tensor| tensor.narrow);
    table(keys, &values, &default(node, &values)?, narrow)
}

/// Each text has its place in a list; the other way around, too.
fn old_label_encoder(node: &Node<'_>) -> Result<Run, Fault> {
    let texts = node.texts("classes_strings")?;
    let numbers = (0..texts.len() as i64).collect();
    both_ways(node, Data::Text(texts), Data::Long(numbers))
}

pub(super) fn category_mapper(node: &Node<'_>) -> Result<Run, Fault> {
    let texts = node.texts("cats_strings")?;
    let numbers = node.integers("cats_int64s").to_vec();
    both_ways(node, Data::Text(texts), Data::Long(numbers))
}

fn both_ways(node: &Node<'_>, texts: Data, numbers: Data) -> Result<Run, Fault> {
    let from_text = table(texts.clone(), &numbers, &default(node, &numbers)?, None)?;
    let from_number = table(numbers, &texts, &default(node, &texts)?, None)?;
    Ok(Box::new(move |inputs, context| {
        match input(inputs, 0)?.data {
            Data::Text(_) => from_text(inputs, context),
            _ => from_number(inputs, context),
        }
    }))
}

fn table(keys: Data, values: &Data, default: &Data, narrow: Option<Narrow>) -> Result<Run, Fault> {
    let count = keys.len();
    if values.len() != count {
        return Err(Fault(format!("{count} keys for {} values", values.len())));
    }
    let key = match keys {
        Data::Text(keys) => Key::Texts(first(keys.into_iter())),
        Data::Long(keys) => {
            check_exact(&keys)?;
            Key::Integers(first(keys.into_iter()))
        }
        Data::Float(keys) => Key::Floats(first(keys.into_iter().map(|key| bits(f64::from(key))))),
        Data::Double(keys) => Key::Floats(first(keys.into_iter().map(bits))),
        Data::Int(_) | Data::Bool(_) => {
            return Err(Fault::new("keys of a type that is not supported"));
        }
    };
    // The last one is for all that is not a key.
    let mut values = values.clone();
    values.extend(default, 0..1)?;
    Ok(Box::new(move |inputs, context| {
        let given = input(inputs, 0)?;
        context.spend(given.data.len())?;
        let found = key.find(given)?;
        let data = values.pick(found.into_iter().map(|place| place.unwrap_or(count)));
        Ok(vec![Tensor {
            narrow,
            ..Tensor::new(given.shape.clone(), data)
        }])
    }))
}
