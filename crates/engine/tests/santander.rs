//! The example model: predictions agree with those XGBoost made from the same records.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{Engine, Output, Rows, load, with_kernel};
use serde_json::Value;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn model() -> Box<dyn Engine> {
    load(&here().join("../../models/santander/1/model.ubj")).unwrap()
}

fn json_lines(name: &str) -> Vec<Value> {
    let text = read_to_string(here().join("tests/data/santander").join(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A record as the model's training coded it: strings by their position in the schema.
fn encode(record: &Value, schema: &Value) -> Vec<f64> {
    let features = schema["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| {
            let value = record
                .get(feature["name"].as_str().unwrap())
                .unwrap_or(&Value::Null);
            match feature["values"].as_array() {
                Some(values) if !value.is_null() => {
                    values.iter().position(|known| known == value).unwrap() as f64
                }
                _ => value.as_f64().unwrap_or(f64::NAN),
            }
        });
    features.collect()
}

fn rows() -> Vec<Vec<f64>> {
    let schema = read_to_string(here().join("tests/data/santander/schema.json")).unwrap();
    let schema = serde_json::from_str(&schema).unwrap();
    json_lines("records.jsonl")
        .iter()
        .map(|record| encode(record, &schema))
        .collect()
}

#[test]
fn every_record_gets_the_probabilities_that_xgboost_gives() {
    let model = model();
    assert_eq!(model.signature().output, Output::Multiclass { classes: 22 });
    assert!(model.signature().named);
    let (rows, expected) = (rows(), json_lines("expected.jsonl"));
    assert_eq!((rows.len(), expected.len()), (201, 201));
    let mut worst = 0.0f64;
    for (row, expected) in rows.iter().zip(&expected) {
        let mut out = [0.0; 22];
        model.predict(Rows::new(row, row.len()), &mut out).unwrap();
        for (out, expected) in out.iter().zip(expected.as_array().unwrap()) {
            worst = worst.max((out - expected.as_f64().unwrap()).abs());
        }
    }
    // The expected numbers are printed to nine digits.
    println!("worst {worst:e}");
    assert!(worst <= 1e-7, "off by {worst:e}");
}

#[test]
fn a_batch_gets_what_its_rows_get_alone() {
    let model = model();
    let rows = rows();
    let flat: Vec<f64> = rows.iter().flatten().copied().collect();
    let mut batch = vec![0.0; rows.len() * 22];
    model
        .predict(Rows::new(&flat, rows[0].len()), &mut batch)
        .unwrap();
    for (row, batch) in rows.iter().zip(batch.chunks(22)) {
        let mut alone = [0.0; 22];
        model
            .predict(Rows::new(row, row.len()), &mut alone)
            .unwrap();
        assert_eq!(alone, *batch);
    }
}

#[test]
fn every_kernel_of_this_machine_gives_the_same_bits() {
    let rows = rows();
    let (flat, width) = (rows.concat(), rows[0].len());
    let predicted = |kernel| {
        let model = with_kernel(kernel, model);
        let mut batch = vec![0.0; rows.len() * 22];
        model.predict(Rows::new(&flat, width), &mut batch).unwrap();
        let mut alone = vec![0.0; rows.len() * 22];
        for (row, out) in rows.iter().zip(alone.chunks_mut(22)) {
            model.predict(Rows::new(row, width), out).unwrap();
        }
        assert_eq!(batch, alone, "{}", model.description());
        (batch, model.description())
    };
    let (expected, description) = predicted("4-byte rank nodes, scalar");
    assert!(
        description.ends_with("4-byte rank nodes, scalar"),
        "{description}"
    );
    for kernel in [
        "8-byte rank nodes, scalar",
        "4-byte rank nodes, avx-512",
        "byte ranks, avx2",
        "byte ranks, avx-512",
        "byte ranks, neon",
    ] {
        // One that this machine does not have is another one, which gives the same bits too.
        assert_eq!(predicted(kernel).0, expected, "{kernel}");
    }
}
