//! Operators against the tests that the package onnx has for them, and files that are no models.

use std::borrow::Cow;

use serde_json::Value;

use super::narrow::Narrow;
use super::ops::Context;
use super::program::Program;
use super::proto::Model;
use super::tensor::{Data, Tensor, count};
use super::{inline, load};
use crate::LoadOptions;
use crate::document::Fault;

/// `crates/engine/tests/golden/onnx/nodes.json` (`scripts/golden/make_onnx.py`).
const NODES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/onnx/nodes.json");

fn tensor(value: &Value) -> Tensor {
    let values = value["values"].as_array().unwrap();
    let number = |value: &Value| match value {
        Value::String(infinite) => infinite.parse().unwrap(),
        value => value.as_f64().unwrap_or(f64::NAN),
    };
    let kind = value["type"].as_str().unwrap();
    let narrow = (2..=10)
        .filter_map(Narrow::of)
        .find(|narrow| narrow.element() == kind);
    let data = match kind {
        "float32" | "float16" => {
            Data::Float(values.iter().map(|value| number(value) as f32).collect())
        }
        "float64" => Data::Double(values.iter().map(number).collect()),
        "int64" => Data::Long(values.iter().map(|value| value.as_i64().unwrap()).collect()),
        "bool" => Data::Bool(
            values
                .iter()
                .map(|value| value.as_bool().unwrap())
                .collect(),
        ),
        "object" => Data::Text(
            values
                .iter()
                .map(|value| value.as_str().unwrap().into())
                .collect(),
        ),
        _ => Data::Int(
            values
                .iter()
                .map(|value| value.as_i64().unwrap() as i32)
                .collect(),
        ),
    };
    let shape = value["shape"].as_array().unwrap();
    let shape = shape
        .iter()
        .map(|size| size.as_u64().unwrap() as usize)
        .collect();
    Tensor {
        narrow,
        ..Tensor::new(shape, data)
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().as_chunks::<2>().0.iter();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.map(byte).collect()
}

/// The outputs of a test, or why it is refused.
fn outputs(case: &Value) -> Result<Vec<Tensor>, Fault> {
    let bytes = bytes(case["model"].as_str().unwrap());
    let model = Model::read(&bytes)?;
    let names = inline::names(&model)?;
    let model = inline::inlined(model, &names)?;
    let (program, names) = Program::new(&model)?;
    let mut inputs = Vec::new();
    for (input, value) in model
        .graph
        .inputs
        .iter()
        .zip(case["input"].as_array().unwrap())
    {
        inputs.push((names.get(input.name)?, Cow::Owned(tensor(value))));
    }
    let values = program.run(inputs.into_iter(), &Context::default())?;
    let made = model.graph.outputs.iter().map(|output| {
        let value = values[names.get(output.name)?].clone();
        value
            .map(|value| value.into_owned())
            .ok_or_else(|| Fault::new("is not made"))
    });
    made.collect()
}

fn is_near(made: &Tensor, wanted: &Tensor) -> bool {
    if made.shape != wanted.shape || made.element() != wanted.element() {
        return false;
    }
    if matches!(wanted.data, Data::Text(_)) {
        return made == wanted;
    }
    let (made, wanted) = (made.to_doubles().unwrap(), wanted.to_doubles().unwrap());
    made.iter().zip(&wanted).all(|(made, wanted)| {
        made == wanted
            || made.is_nan() && wanted.is_nan()
            || (made - wanted).abs() <= 1e-7 + 1e-3 * wanted.abs()
    })
}

/// As near as the package itself asks for; what is not supported says so by its name.
#[test]
fn node_tests_of_onnx_pass_or_are_refused_by_name() {
    let text = std::fs::read_to_string(NODES).unwrap();
    let cases: Value = serde_json::from_str(&text).unwrap();
    let (mut passed, mut passed_ml, mut refused, mut faults) = (0, 0, Vec::new(), Vec::new());
    for (name, case) in cases.as_object().unwrap() {
        match outputs(case) {
            Ok(made) => {
                let wanted = case["output"].as_array().unwrap();
                let mut pairs = made.iter().zip(wanted);
                if made.len() == wanted.len()
                    && pairs.all(|(made, wanted)| is_near(made, &tensor(wanted)))
                {
                    passed += 1;
                    passed_ml += usize::from(name.starts_with("ai_onnx_ml"));
                } else {
                    faults.push(format!("{name}: {made:?} is not {wanted:?}"));
                }
            }
            Err(fault) => {
                if !fault.0.contains("not supported") || !fault.0.contains("the operator `") {
                    faults.push(format!("{name}: {}", fault.0));
                }
                refused.push(name.as_str());
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(
        (passed, passed_ml, refused.len()),
        (346, 8, 3),
        "refused: {refused:?}"
    );
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    for bytes in [
        &b"\x08\x09"[..],
        b"\x08\x09\x3a\xff\xff\xff\xff\x0f",
        b"\x08\x09\x3a\x00",
        b"\x08\x09\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x08\x09\x3a\x02\x0b\x0c",
    ] {
        assert!(load(bytes, &LoadOptions::default()).is_err());
    }
}

/// A field of a message that is bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut made = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        made.push(length as u8 | 0x80);
        length >>= 7;
    }
    made.push(length as u8);
    made.extend_from_slice(content);
    made
}

#[test]
fn graphs_too_deep_in_each_other_are_refused() {
    let mut graph = Vec::new();
    for _ in 0..2_000 {
        let attribute = field(5, &field(6, &graph));
        graph = field(1, &[field(4, b"If"), attribute].concat());
    }
    let fault = load(&field(7, &graph), &LoadOptions::default()).unwrap_err();
    assert!(fault.0.contains("8 graphs in each other"), "{}", fault.0);
}

#[test]
fn an_axis_of_nothing_does_not_hide_how_large_the_others_are() {
    assert_eq!(count(&[0, 1 << 12, 1 << 12]), Some(0));
    assert_eq!(count(&[0, 1 << 30, 1 << 30]), None);
    assert_eq!(count(&[1; 33]), None);
}
