//! Explanations agree with those of the libraries that trained the models, and add up to the margins.
//! `scripts/golden/contributions.py` makes the files.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{
    Engine, Explain, FeatureKind, LoadOptions, Output, RowBuffer, Rows, Unexplained, load,
    load_bytes, load_with,
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

fn contributions(model: &dyn Explain, rows: Rows<'_>, margin: usize) -> Vec<Vec<f64>> {
    let width = rows.width();
    let mut out = vec![f64::NAN; rows.len() * (width + 1)];
    model.contributions(rows, margin, &mut out).unwrap();
    out.chunks(width + 1).map(<[f64]>::to_vec).collect()
}

/// The rows that CatBoost was asked about, where categories are texts or whole numbers.
fn asked_of_catboost(engine: &dyn Engine, rows: &Value) -> RowBuffer {
    let mut buffer = RowBuffer::default();
    for row in rows.as_array().unwrap() {
        let features = &engine.signature().features;
        for (feature, value) in features.iter().zip(row.as_array().unwrap()) {
            let value = match (feature.kind.is_text(), value) {
                (true, Value::String(text)) => buffer.texts.push(text),
                (true, value) => buffer.texts.push(&value.to_string()),
                (false, Value::String(text)) => text.parse().unwrap(),
                (false, value) => value.as_f64().unwrap_or(f64::NAN),
            };
            buffer.values.push(value);
        }
    }
    buffer
}

#[test]
fn contributions_are_those_that_catboost_gives() {
    let folder = golden().join("catboost");
    let expected = json(&golden().join("contributions/catboost.json"));
    let expected = expected.as_object().unwrap();
    assert!(expected.len() > 30, "only {} models", expected.len());
    for (file, expected) in expected {
        let name = file.strip_suffix(".cbm").unwrap();
        let asked = json(&folder.join(format!("{name}.expected.json")));
        // Models of several targets with CTRs are not whole in JSON.
        let extensions: &[&str] = match name.starts_with("categories-multi-") {
            true => &["cbm"],
            false => &["cbm", "json"],
        };
        for extension in extensions {
            let engine = explained(&folder.join(format!("{name}.{extension}")));
            let buffer = asked_of_catboost(&*engine, &asked["rows"]);
            let rows = buffer.rows(engine.signature().features.len());
            compare(name, engine.explain().unwrap(), rows, expected);
        }
    }
}

/// What the library says of these does not add up.
#[test]
fn contributions_to_every_model_of_catboost_add_up() {
    let folder = golden().join("catboost");
    let mut models = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = path.to_str().unwrap();
        let Some(name) = text.strip_suffix(".expected.json") else {
            continue;
        };
        models += 1;
        let engine = explained(Path::new(&format!("{name}.cbm")));
        let asked = json(&path);
        let buffer = asked_of_catboost(&*engine, &asked["rows"]);
        let rows = buffer.rows(engine.signature().features.len());
        let model = engine.explain().unwrap();
        for margin in 0..model.margins() {
            let all = contributions(model, rows, margin);
            for (got, raw) in all.iter().zip(asked["raw"].as_array().unwrap()) {
                let (sum, margin) = (got.iter().sum::<f64>(), raw[margin].as_f64().unwrap());
                assert!((sum - margin).abs() <= 1e-5, "{name}: {sum} {margin}");
            }
        }
    }
    assert!(models > 35, "only {models} models");
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

/// Compares what a model says of each margin with `[row][margin][feature]`.
fn compare(name: &str, model: &dyn Explain, rows: Rows<'_>, expected: &Value) {
    // Of a mean and its uncertainty CatBoost explains the mean.
    let margins = match name {
        "uncertainty" => 1,
        _ => model.margins(),
    };
    assert_eq!(margins, expected[0].as_array().unwrap().len(), "{name}");
    for margin in 0..margins {
        let all = contributions(model, rows, margin);
        for (index, got) in all.iter().enumerate() {
            let expected = row(&expected[index][margin]);
            assert_eq!(got.len(), expected.len(), "{name}");
            for (got, expected) in got.iter().zip(&expected) {
                let is_close = (got - expected).abs() <= 1e-4 * expected.abs().max(1.0);
                let is_infinite = expected.is_nan() && got.is_infinite();
                assert!(
                    is_close || is_infinite,
                    "{name}, row {index}, margin {margin}: {got} {expected}"
                );
            }
            // What the library says adds up to its margin, which its script has checked.
            let [sum, expected_sum] = [got, &expected].map(|all| all.iter().sum::<f64>());
            let is_close = (sum - expected_sum).abs() <= 1e-5 * expected_sum.abs().max(1.0);
            assert!(
                is_close || expected_sum.is_nan(),
                "{name}, row {index}, margin {margin}: the sum {sum} {expected_sum}"
            );
            // A row is explained alone as it is among others.
            let alone = contributions(model, rows.slice(index..index + 1), margin);
            for (got, alone) in got.iter().zip(&alone[0]) {
                assert!((got - alone).abs() <= 1e-12 * got.abs().max(1.0) || got == alone);
            }
        }
    }
}

/// Rows of the first features.
fn read_rows(path: &Path, width: usize) -> Vec<f64> {
    let rows = json(path);
    let rows = rows.as_array().unwrap().iter();
    rows.flat_map(|values| row(values)[..width].to_vec())
        .collect()
}

#[test]
fn contributions_are_those_that_xgboost_gives() {
    let mut models = 0;
    for folder in [
        "1.7",
        "3.2",
        "3.4",
        "categories-1.7",
        "categories-3.2",
        "categories-3.4",
    ] {
        let expected = json(&golden().join(format!("contributions/{folder}.json")));
        for (file, expected) in expected.as_object().unwrap() {
            models += 1;
            let engine = explained(&golden().join(folder).join(file));
            let width = engine.signature().features.len();
            let rows = read_rows(&golden().join(folder).join("rows.json"), width);
            compare(
                file,
                engine.explain().unwrap(),
                Rows::new(&rows, width),
                expected,
            );
        }
    }
    assert!(models > 60, "only {models} models");
}

#[test]
fn contributions_are_those_that_lightgbm_gives() {
    let mut models = 0;
    for folder in ["lightgbm-3.3", "lightgbm-4.7"] {
        let expected = json(&golden().join(format!("contributions/{folder}.json")));
        for (file, expected) in expected.as_object().unwrap() {
            models += 1;
            let engine = explained(&golden().join(folder).join(file));
            let width = engine.signature().features.len();
            let file_of_rows = match file.starts_with("category") {
                true => "codes.json",
                false => "rows.json",
            };
            let rows = read_rows(&golden().join(folder).join(file_of_rows), width);
            compare(
                file,
                engine.explain().unwrap(),
                Rows::new(&rows, width),
                expected,
            );
        }
    }
    assert!(models > 40, "only {models} models");
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
                    contributions(model, Rows::new(&values, values.len()), margin)[0]
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
            let got = &contributions(model, Rows::new(&values, values.len()), margin)[0];
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

/// Why a file is not explained, if so.
fn reason_of(name: &str, bytes: &[u8]) -> Option<Unexplained> {
    let options = LoadOptions {
        explanation_bytes_max: 1 << 20,
        ..LoadOptions::default()
    };
    let model = load_bytes(name, bytes, &options).unwrap();
    model.explain().err()
}

#[test]
fn a_file_without_covers_is_loaded_and_not_explained() {
    let text = read_to_string(golden().join("3.2/multi-softprob.json")).unwrap();
    let explain = |text: &str| reason_of("file", text.as_bytes());
    assert_eq!(explain(&text), None);
    let without = text.replace("\"sum_hessian\"", "\"other\"");
    assert_eq!(explain(&without), Some(Unexplained::NoCovers));
    for damaged in ["[]", "[1]", "[-1E0,1,1,1,1,1,1]"] {
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let trees = &mut document["learner"]["gradient_booster"]["model"]["trees"];
        trees[4]["sum_hessian"] = serde_json::from_str(damaged).unwrap();
        assert_eq!(
            explain(&document.to_string()),
            Some(Unexplained::NoCovers),
            "{damaged}"
        );
    }
}

#[test]
fn every_library_may_have_left_out_the_covers() {
    for (file, name) in [
        ("lightgbm-4.7/binary.txt", "leaf_count="),
        ("lightgbm-4.7/binary.txt", "internal_count="),
        ("catboost/multiclass.json", "\"leaf_weights\""),
        ("catboost/depthwise-binary.json", "\"weight\""),
    ] {
        let text = read_to_string(golden().join(file)).unwrap();
        assert_eq!(reason_of(file, text.as_bytes()), None, "{file}");
        let without = text.replace(name, &name.replace('w', "v").replace("count", "number"));
        assert_ne!(text, without);
        let reason = reason_of(file, without.as_bytes());
        assert_eq!(reason, Some(Unexplained::NoCovers), "{file}");
    }
    // Some of them.
    let text = read_to_string(golden().join("catboost/depthwise-binary.json")).unwrap();
    let without = text.replacen("\"weight\"", "\"other\"", 1);
    let reason = reason_of("file", without.as_bytes());
    assert_eq!(reason, Some(Unexplained::NoCovers));
}

#[test]
fn linear_trees_are_not_explained_as_in_their_library() {
    for file in ["linear.txt", "category-sets-linear.txt"] {
        let bytes = std::fs::read(golden().join("lightgbm-4.7").join(file)).unwrap();
        let reason = reason_of(file, &bytes);
        assert_eq!(reason, Some(Unexplained::LinearTrees), "{file}");
    }
}

/// Some of the iterations: what a random forest divides by, and which leaves of CatBoost have which weights.
#[test]
fn contributions_are_those_of_the_iterations_that_count() {
    for file in [
        "lightgbm-4.7/rf-regression.txt",
        "lightgbm-4.7/custom-classes.txt",
        "catboost/rmse.cbm",
        "catboost/missing-max-lossguide.cbm",
    ] {
        for range in [(0, 2), (1, 3)] {
            let options = LoadOptions {
                explanation_bytes_max: 1 << 20,
                iteration_range: Some(range),
            };
            let engine = load_with(&golden().join(file), &options).unwrap();
            let width = engine.signature().features.len();
            let rows = read_rows(&golden().join("lightgbm-4.7/rows.json"), width);
            let rows = Rows::new(&rows, width).slice(0..16);
            let model = engine.explain().unwrap();
            let outputs = engine.signature().outputs();
            let mut predicted = vec![0.0; rows.len() * outputs];
            engine.predict(rows, &mut predicted).unwrap();
            for margin in 0..model.margins() {
                let all = contributions(model, rows, margin);
                for (got, predicted) in all.iter().zip(predicted.chunks(outputs)) {
                    let sum = got.iter().sum::<f64>();
                    assert!((sum - predicted[margin]).abs() <= 1e-9, "{file} {range:?}");
                }
            }
        }
    }
}
