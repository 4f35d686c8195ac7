//! Predictions of small models agree with those of the CatBoost that trained them.
//! `scripts/golden/catboost_models.py` makes the files.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{
    ClassLabel, Engine, FeatureKind, LoadOptions, Output, RowBuffer, load, load_bytes, load_with,
};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/catboost")
        .join(name)
}

/// Several targets divide into classes in several ways, and in JSON the library leaves out what was counted by which.
const UNCLEAR_IN_JSON: [&str; 2] = ["categories-multi-logloss", "categories-multi-rmse"];

/// What the library was asked and what it said.
struct Case {
    name: String,
    rows: Vec<Vec<Value>>,
    /// Sums of leaves, with scale and bias.
    raw: Vec<Vec<f64>>,
    answer: Vec<Vec<f64>>,
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Null => f64::NAN,
        Value::String(text) => text.parse().unwrap(),
        value => value.as_f64().unwrap(),
    }
}

fn numbers(rows: &Value) -> Vec<Vec<f64>> {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row.as_array().unwrap().iter().map(number).collect())
        .collect()
}

fn cases() -> Vec<Case> {
    let files = fs::read_dir(golden("")).unwrap();
    let names = files.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        Some(name.strip_suffix(".expected.json")?.to_owned())
    });
    let mut cases: Vec<Case> = names
        .map(|name| {
            let text = fs::read_to_string(golden(&format!("{name}.expected.json"))).unwrap();
            let expected: Value = serde_json::from_str(&text).unwrap();
            Case {
                name,
                rows: serde_json::from_value(expected["rows"].clone()).unwrap(),
                raw: numbers(&expected["raw"]),
                answer: numbers(&expected["answer"]),
            }
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

fn predict(model: &dyn Engine, rows: &[Vec<Value>]) -> Vec<Vec<f64>> {
    let features = &model.signature().features;
    let mut buffer = RowBuffer::default();
    for row in rows {
        for (feature, value) in features.iter().zip(row) {
            let value = match (feature.kind.is_text(), value) {
                (true, Value::String(text)) => buffer.texts.push(text),
                (true, Value::Number(number)) => buffer.texts.push(&number.to_string()),
                (_, value) => number(value),
            };
            buffer.values.push(value);
        }
    }
    let outputs = model.signature().outputs();
    let mut out = vec![f64::NAN; rows.len() * outputs];
    let rows = buffer.rows(features.len());
    model.predict(rows, &mut out).unwrap();
    out.chunks(outputs).map(<[f64]>::to_vec).collect()
}

fn with_range(name: &str, range: (u32, u32)) -> Box<dyn Engine> {
    let options = LoadOptions {
        iteration_range: Some(range),
        ..LoadOptions::default()
    };
    load_with(&golden(name), &options).unwrap()
}

/// The model with nothing done to its sums.
fn without_link(name: &str) -> Box<dyn Engine> {
    let text = fs::read_to_string(golden(&format!("{name}.json"))).unwrap();
    let mut model: Value = serde_json::from_str(&text).unwrap();
    model["model_info"]["params"]["loss_function"]["type"] = "RMSE".into();
    load_bytes(name, model.to_string().as_bytes(), &LoadOptions::default()).unwrap()
}

#[test]
fn predictions_agree_with_the_library() {
    let cases = cases();
    assert!(cases.len() > 20, "only {} models", cases.len());
    for case in &cases {
        let is_unclear = UNCLEAR_IN_JSON.contains(&&*case.name);
        for extension in ["cbm", "json"] {
            if extension == "json" && is_unclear {
                continue;
            }
            let name = format!("{}.{extension}", case.name);
            let model = load(&golden(&name)).unwrap();
            let binary = model.signature().output == Output::Binary;
            let all = predict(&*model, &case.rows);
            for (index, (row, expected)) in all.iter().zip(&case.answer).enumerate() {
                // The library gives the probabilities of both classes.
                let expected = if binary {
                    &expected[1..]
                } else {
                    &expected[..]
                };
                assert_eq!(row.len(), expected.len(), "{name}");
                for (value, expected) in row.iter().zip(expected) {
                    // Its exponential is an approximation of its own.
                    let allowed = 1e-14 * expected.abs();
                    assert!(
                        (value - expected).abs() <= allowed,
                        "{name} {index}: {value} {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn sums_agree_with_the_library_bit_for_bit() {
    let mut cases = cases();
    cases.retain(|case| !UNCLEAR_IN_JSON.contains(&&*case.name));
    for case in &cases {
        let model = without_link(&case.name);
        assert_eq!(predict(&*model, &case.rows), case.raw, "{}", case.name);
    }
}

#[test]
fn counts_of_an_unclear_division_are_refused() {
    for name in UNCLEAR_IN_JSON {
        let path = golden(&format!("{name}.json"));
        let message = load(&path).unwrap_err().message;
        assert!(
            message.contains("which division of the target"),
            "{message}"
        );
        assert!(message.contains("save_model(\"model.cbm\")"), "{message}");
        // Nor is it clear where the loss is not there, as in a sum of models.
        let text = fs::read_to_string(&path).unwrap();
        let mut model: Value = serde_json::from_str(&text).unwrap();
        model["model_info"]["params"] = Value::Null;
        let unnamed = load_bytes(name, model.to_string().as_bytes(), &LoadOptions::default());
        assert_eq!(unnamed.unwrap_err().message, message);
    }
}

#[test]
fn one_row_gets_what_it_gets_among_others() {
    for case in &cases() {
        let model = load(&golden(&format!("{}.cbm", case.name))).unwrap();
        let many: Vec<_> = case.rows.iter().cycle().take(200).cloned().collect();
        let all = predict(&*model, &many);
        for (row, expected) in many.iter().zip(&all) {
            let alone = predict(&*model, std::slice::from_ref(row));
            assert_eq!(alone[0], *expected, "{}", case.name);
        }
    }
}

#[test]
fn trees_count_when_they_are_asked_for() {
    let text = fs::read_to_string(golden("rmse.ranges.json")).unwrap();
    let ranges: Value = serde_json::from_str(&text).unwrap();
    let case = cases()
        .into_iter()
        .find(|case| case.name == "rmse")
        .unwrap();
    for extension in ["cbm", "json"] {
        let name = format!("rmse.{extension}");
        for (range, expected) in ranges.as_object().unwrap() {
            let (start, end) = range.split_once('-').unwrap();
            let model = with_range(&name, (start.parse().unwrap(), end.parse().unwrap()));
            assert_eq!(
                predict(&*model, &case.rows),
                numbers(expected),
                "{name} {range}"
            );
        }
        assert_eq!(
            predict(&*with_range(&name, (0, 0)), &case.rows),
            case.answer
        );
    }
    let options = LoadOptions {
        iteration_range: Some((0, 5)),
        ..LoadOptions::default()
    };
    let message = load_with(&golden("rmse.cbm"), &options)
        .unwrap_err()
        .message;
    assert_eq!(message, "iterations 0..5 are asked for, the model has 4");
    let description = with_range("lossguide-binary.cbm", (1, 3)).description();
    assert!(description.contains(", 2 of 4 iterations"), "{description}");
}

#[test]
fn outputs_say_what_they_are() {
    for (name, output) in [
        ("logloss", Output::Binary),
        ("cross-entropy", Output::Binary),
        ("multiclass", Output::Multiclass { classes: 3 }),
        ("one-vs-all", Output::Multiclass { classes: 3 }),
        ("multi-logloss", Output::Numbers { count: 3 }),
        ("rmse", Output::Numbers { count: 1 }),
        ("uncertainty", Output::Numbers { count: 2 }),
        ("ranking", Output::Numbers { count: 1 }),
        ("sum", Output::Numbers { count: 1 }),
    ] {
        for extension in ["cbm", "json"] {
            let model = load(&golden(&format!("{name}.{extension}"))).unwrap();
            assert_eq!(model.signature().output, output, "{name}");
        }
    }
}

#[test]
fn texts_that_look_like_booleans_are_told_from_booleans() {
    for name in ["categories-booleans", "categories-booleans-counted"] {
        for extension in ["cbm", "json"] {
            let model = load(&golden(&format!("{name}.{extension}"))).unwrap();
            let features = model.signature().features.iter();
            let has_boolean_texts = features.filter_map(|feature| match feature.kind {
                FeatureKind::TextOrInteger { has_boolean_texts } => Some(has_boolean_texts),
                _ => None,
            });
            assert_eq!(
                has_boolean_texts.collect::<Vec<_>>(),
                [false, true],
                "{name}"
            );
        }
    }
}

#[test]
fn names_and_classes_come_from_the_file() {
    let text = |text: &str| ClassLabel::Text(text.into());
    for extension in ["cbm", "json"] {
        let model = |name: &str| load(&golden(&format!("{name}.{extension}"))).unwrap();
        let names = |name: &str| {
            let model = model(name);
            let names = model.signature().features.iter();
            let names: Vec<String> = names.map(|feature| feature.name.clone()).collect();
            (names, model.signature().named)
        };
        let given = ["a", "größe", "c d", "quo\"te", "e"].map(str::to_owned);
        assert_eq!(names("named"), (given.to_vec(), true));
        let made = ["f0", "f1", "f2", "f3", "f4"].map(str::to_owned);
        assert_eq!(names("rmse"), (made.to_vec(), false));
        let labels = |name: &str| model(name).signature().class_labels.clone();
        assert_eq!(labels("logloss"), [text("no"), text("yes")]);
        assert_eq!(labels("multiclass"), [5, 6, 7].map(ClassLabel::Number));
        let sorted = ["high", "low", "middle"].map(text);
        assert_eq!(labels("one-vs-all"), sorted);
        // Those are the values of each label, not names of the labels.
        assert_eq!(labels("multi-logloss"), []);
        assert_eq!(labels("rmse"), []);
    }
}

#[test]
fn a_threshold_that_the_file_sets_is_cautioned_about() {
    for extension in ["cbm", "json"] {
        let caution = |name: &str| {
            load(&golden(&format!("{name}.{extension}")))
                .unwrap()
                .caution()
        };
        let threshold = caution("threshold").unwrap();
        assert!(
            threshold.contains("a probability threshold of 0.3"),
            "{threshold}"
        );
        assert_eq!(caution("logloss"), None);
    }
}
