//! Explanations agree with those of the XGBoost that trained the models, and add up to the margins.
//! `scripts/golden/contributions.py` makes the files.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{
    Engine, Explain, FeatureKind, LoadOptions, Output, Rows, Unexplained, load, load_with,
};
use serde_json::Value;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&read_to_string(path).unwrap()).unwrap()
}

fn row(values: &Value) -> Vec<f64> {
    let values = values.as_array().unwrap().iter();
    values
        .map(|value| value.as_f64().unwrap_or(f64::NAN))
        .collect()
}

fn explained(path: &Path) -> Box<dyn Engine> {
    let options = LoadOptions {
        explanation_bytes_max: 64 << 20,
        ..LoadOptions::default()
    };
    load_with(path, &options).unwrap()
}

fn contributions(model: &dyn Explain, rows: &[Vec<f64>], margin: usize) -> Vec<Vec<f64>> {
    let width = rows[0].len();
    let mut out = vec![f64::NAN; rows.len() * (width + 1)];
    let flat = rows.concat();
    model
        .contributions(Rows::new(&flat, width), margin, &mut out)
        .unwrap();
    out.chunks(width + 1).map(<[f64]>::to_vec).collect()
}

/// The margins that predictions say they are made from, where they say it.
fn margins(output: Output, predicted: &[f64]) -> Option<Vec<f64>> {
    match output {
        Output::Binary => Some(vec![(predicted[0] / (1.0 - predicted[0])).ln()]),
        Output::Numbers { .. } => Some(predicted.to_vec()),
        // Up to a number that is the same for all classes.
        Output::Multiclass { .. } => Some(predicted.iter().map(|p| p.ln()).collect()),
        Output::Class { .. } => None,
    }
}

#[test]
fn contributions_are_those_that_the_library_gives() {
    let mut models = 0;
    for folder in ["1.7", "3.2", "categories-1.7", "categories-3.2"] {
        let rows = json(&golden().join(folder).join("rows.json"));
        let rows: Vec<Vec<f64>> = rows.as_array().unwrap().iter().map(row).collect();
        let expected = json(&golden().join(format!("contributions/{folder}.json")));
        for (file, expected) in expected.as_object().unwrap() {
            models += 1;
            let engine = explained(&golden().join(folder).join(file));
            let model = engine.explain().unwrap();
            assert_eq!(model.margins(), expected[0].as_array().unwrap().len());
            for margin in 0..model.margins() {
                let all = contributions(model, &rows, margin);
                for (index, got) in all.iter().enumerate() {
                    let expected = row(&expected[index][margin]);
                    for (got, expected) in got.iter().zip(&expected) {
                        let is_close = (got - expected).abs() <= 1e-4 * expected.abs().max(1.0);
                        let is_infinite = expected.is_nan() && got.is_infinite();
                        assert!(is_close || is_infinite, "{folder}/{file}: {got} {expected}");
                    }
                    // A row is explained alone as it is among others.
                    let alone = contributions(model, &rows[index..=index], margin);
                    for (got, alone) in got.iter().zip(&alone[0]) {
                        assert!((got - alone).abs() <= 1e-12 * got.abs().max(1.0) || got == alone);
                    }
                }
            }
        }
    }
    assert!(models > 60, "only {models} models");
}

#[test]
fn contributions_and_base_add_up_to_the_margin() {
    for file in [
        "binary-logistic.json",
        "multi-softprob.json",
        "dart-multi.ubj",
        "linear-multi.json",
        "lossguide.json",
        "reg-multi-target.json",
        "rank-map.json",
    ] {
        let engine = explained(&golden().join("3.2").join(file));
        let rows = json(&golden().join("3.2/rows.json"));
        for values in rows.as_array().unwrap().iter().map(row) {
            let mut predicted = vec![0.0; engine.signature().outputs()];
            engine
                .predict(Rows::new(&values, values.len()), &mut predicted)
                .unwrap();
            let expected = margins(engine.signature().output, &predicted).unwrap();
            let model = engine.explain().unwrap();
            let sums: Vec<f64> = (0..model.margins())
                .map(|margin| {
                    contributions(model, std::slice::from_ref(&values), margin)[0]
                        .iter()
                        .sum()
                })
                .collect();
            let shift = match engine.signature().output {
                Output::Multiclass { .. } => sums[0] - expected[0],
                _ => 0.0,
            };
            for (sum, expected) in sums.iter().zip(&expected) {
                let allowed = 1e-5 * expected.abs().max(1.0);
                assert!(
                    (sum - expected - shift).abs() <= allowed,
                    "{file}: {sum} {expected}"
                );
            }
        }
    }
}

#[test]
fn the_example_model_explains_every_class_as_its_library_does() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let engine = explained(&here.join("../../models/santander/1/model.ubj"));
    let data = here.join("tests/data/santander");
    let schema = json(&data.join("schema.json"));
    let expected = json(&data.join("contributions.json"));
    let records = read_to_string(data.join("records.jsonl")).unwrap();
    let model = engine.explain().unwrap();
    assert_eq!(model.margins(), 22);
    for (record, expected) in records.lines().zip(expected.as_array().unwrap()) {
        let record: Value = serde_json::from_str(record).unwrap();
        let values: Vec<f64> = schema["features"]
            .as_array()
            .unwrap()
            .iter()
            .map(|feature| {
                let value = &record[feature["name"].as_str().unwrap()];
                let position = |values: &Vec<Value>| values.iter().position(|known| known == value);
                let code = feature["values"].as_array().and_then(position);
                code.map(|code| code as f64)
                    .or(value.as_f64())
                    .unwrap_or(f64::NAN)
            })
            .collect();
        for margin in 0..22 {
            let got = &contributions(model, std::slice::from_ref(&values), margin)[0];
            for (got, expected) in got.iter().zip(row(&expected[margin])) {
                assert!(
                    (got - expected).abs() <= 1e-4,
                    "{got} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn a_model_says_why_it_does_not_explain() {
    let path = golden().join("3.2/multi-softprob.json");
    let reason = |bytes_max| {
        let options = LoadOptions {
            explanation_bytes_max: bytes_max,
            ..LoadOptions::default()
        };
        let model = load_with(&path, &options).unwrap();
        model.explain().map(Explain::bytes)
    };
    assert_eq!(reason(0), Err(Unexplained::NotAsked));
    assert_eq!(
        load(&path).unwrap().explain().map(Explain::bytes),
        Err(Unexplained::NotAsked)
    );
    let Err(Unexplained::TooLarge {
        needed,
        allowed: 100,
    }) = reason(100)
    else {
        panic!("{:?}", reason(100));
    };
    assert_eq!(reason(needed), Ok(needed), "what is told is what is kept");
    // Linear models need nothing for it.
    let linear = load(&golden().join("3.2/linear-binary.json")).unwrap();
    assert_eq!(linear.explain().map(Explain::bytes), Ok(0));
    let kinds = linear
        .signature()
        .features
        .iter()
        .map(|feature| &feature.kind);
    assert_eq!(
        kinds.filter(|kind| **kind == FeatureKind::Number).count(),
        5
    );
}

#[test]
fn a_file_without_covers_is_loaded_and_not_explained() {
    let text = read_to_string(golden().join("3.2/multi-softprob.json")).unwrap();
    let explain = |text: &str| {
        let options = LoadOptions {
            explanation_bytes_max: 1 << 20,
            ..LoadOptions::default()
        };
        let model = auspex_engine::load_bytes("file", text.as_bytes(), &options).unwrap();
        model.explain().map(Explain::margins)
    };
    assert_eq!(explain(&text), Ok(3));
    let without = text.replace("\"sum_hessian\"", "\"other\"");
    assert_eq!(explain(&without), Err(Unexplained::NoCovers));
    for damaged in ["[]", "[1]", "[-1E0,1,1,1,1,1,1]"] {
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let trees = &mut document["learner"]["gradient_booster"]["model"]["trees"];
        trees[4]["sum_hessian"] = serde_json::from_str(damaged).unwrap();
        assert_eq!(
            explain(&document.to_string()),
            Err(Unexplained::NoCovers),
            "{damaged}"
        );
    }
}
