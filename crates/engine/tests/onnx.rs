//! Models in ONNX against what ONNX Runtime predicts (`scripts/golden/make_onnx.py`).

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod rows;

use auspex_engine::{
    ClassLabel, Engine, FeatureKind, LoadOptions, Output, RowBuffer, Rows, Unexplained, load,
    load_bytes, load_with,
};
use rows::rows;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// How near predictions are to the runtime's, which adds in another order: relative, and beside 0.
const NEAR: (f64, f64) = (2e-5, 2e-6);

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx")
}

fn models() -> Vec<PathBuf> {
    let files = fs::read_dir(golden()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().unwrap() == "onnx")
        .collect();
    paths.sort();
    paths
}

fn expected(model: &Path) -> Value {
    serde_json::from_slice(&fs::read(model.with_extension("expected.json")).unwrap()).unwrap()
}

/// What the runtime gives for each row, as an engine would: the first of its outputs that fits.
fn wanted(model: &dyn Engine, outputs: &Value) -> Option<Vec<Vec<f64>>> {
    let outputs: Vec<&Vec<Value>> = outputs
        .as_object()
        .unwrap()
        .values()
        .map(|rows| rows.as_array().unwrap())
        .collect();
    let signature = model.signature();
    let width = match signature.output {
        Output::Binary => 2,
        output => output.width(),
    };
    let is_class = matches!(signature.output, Output::Class { .. });
    let fits = |rows: &&&Vec<Value>| {
        let row = rows[0].as_array().unwrap();
        let is_first = !signature.more_outputs.is_empty();
        row.len() == width
            && (is_class || is_first || width > 1 || row[0].is_f64() || outputs.len() == 1)
    };
    let rows = outputs.iter().find(fits)?;
    let label = |value: &Value| {
        let place = signature.class_labels.iter().position(|label| match label {
            ClassLabel::Text(text) => value.as_str() == Some(text),
            ClassLabel::Number(number) => value.as_i64() == Some(*number),
        });
        place.map_or_else(|| value.as_f64().unwrap(), |place| place as f64)
    };
    let of_row = |row: &Value| {
        let row = row.as_array().unwrap();
        match signature.output {
            Output::Class { .. } => vec![label(&row[0])],
            Output::Binary => vec![row[1].as_f64().unwrap()],
            _ => row
                .iter()
                .map(|number| number.as_f64().unwrap_or(f64::NAN))
                .collect(),
        }
    };
    Some(rows.iter().map(of_row).collect())
}

#[test]
fn predictions_are_those_of_the_runtime() {
    let mut faults = Vec::new();
    let models = models();
    assert!(models.len() > 90, "{} models", models.len());
    for path in models {
        let expected = expected(&path);
        let model = match load(&path) {
            Ok(model) => model,
            Err(error) => {
                faults.push(error.to_string());
                continue;
            }
        };
        let rows = rows(model.as_ref(), &expected["rows"]);
        let outputs = model.signature().outputs();
        let Some(wanted) = wanted(model.as_ref(), &expected["outputs"]) else {
            faults.push(format!(
                "{}: no output is like {:?}",
                path.display(),
                model.signature()
            ));
            continue;
        };
        let mut out = vec![0.0; wanted.len() * outputs];
        if let Err(refusal) = model.predict(rows.rows(model.signature().features.len()), &mut out) {
            faults.push(format!("{}: {refusal}", path.display()));
            continue;
        }
        for (row, wanted) in out.chunks(outputs).zip(&wanted) {
            let is_near = |(got, wanted): (&f64, &f64)| {
                (got - wanted).abs() <= NEAR.0 * wanted.abs() + NEAR.1
                    || got.is_nan() && wanted.is_nan()
            };
            if row.len() < wanted.len() || !row.iter().zip(wanted).all(is_near) {
                let output = model.signature().output;
                faults.push(format!(
                    "{}: {row:?} is not {wanted:?} ({output:?})",
                    path.display()
                ));
                break;
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} of them:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn inputs_classes_and_missing_values_come_from_the_file() {
    let model = load(&golden().join("titanic.onnx")).unwrap();
    let signature = model.signature();
    let features: Vec<_> = signature
        .features
        .iter()
        .map(|feature| {
            (
                feature.name.as_str(),
                feature.kind.clone(),
                feature.takes_missing,
            )
        })
        .collect();
    use FeatureKind::{Integer, Number, Text};
    let wanted = [
        ("age", Number, true),
        ("fare", Number, true),
        ("sex", Text, false),
        ("port", Text, false),
        ("siblings", Integer, false),
    ];
    assert_eq!(features, wanted);
    assert!(signature.named);
    assert_eq!(signature.output, Output::Binary);
    assert_eq!(
        signature.class_labels,
        ["no", "yes"].map(|text| ClassLabel::Text(text.into()))
    );

    let unnamed = load(&golden().join("xgboost-3.onnx")).unwrap();
    assert!(!unnamed.signature().named);
    assert_eq!(unnamed.signature().features[3].name, "f3");
    assert!(
        unnamed
            .signature()
            .features
            .iter()
            .all(|feature| feature.takes_missing)
    );
    let forest = load(&golden().join("06-RandomForestClassifier-2.onnx")).unwrap();
    assert!(!forest.signature().features[0].takes_missing);
}

#[test]
fn a_category_that_the_model_does_not_know_is_refused_with_its_row() {
    let model = load(&golden().join("known-classes.onnx")).unwrap();
    let mut buffer = RowBuffer::default();
    for text in ["male", "S", "male", "elsewhere"] {
        let number = buffer.texts.push(text);
        buffer.values.push(number);
    }
    let refusal = model.predict(buffer.rows(2), &mut [0.0; 2]).unwrap_err();
    assert_eq!(refusal.row, 1);
    assert!(refusal.reason.contains("does not know"), "{refusal}");
}

#[test]
fn categories_that_others_would_be_taken_for_are_refused() {
    let file = golden().with_file_name("hostile").join("large-ids.onnx");
    let error = load(&file).unwrap_err().to_string();
    assert!(error.contains("2^53"), "{error}");
}

#[test]
fn graphs_tell_why_they_are_not_explained() {
    let options = LoadOptions {
        explanation_bytes_max: 1 << 20,
        ..LoadOptions::default()
    };
    for name in ["xgboost-3", "03-SVC-3"] {
        let mut model = load_with(&golden().join(format!("{name}.onnx")), &options).unwrap();
        assert_eq!(model.explain().err(), Some(Unexplained::NoBackground));
        let width = model.signature().features.len();
        model.compare_with(Rows::new(&vec![0.5; width], width), &options);
        assert_eq!(model.explain().unwrap().margins(), 3);
    }
}

#[test]
fn what_would_never_end_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hostile");
    for (name, reason) in [
        ("endless", "steps of computation"),
        ("itself", "16 deep"),
        ("doubling", "more than 65536 nodes"),
        ("nowhere", "is made nowhere"),
    ] {
        let error = load(&folder.join(format!("{name}.onnx"))).unwrap_err();
        assert!(error.message.contains(reason), "{name}: {error}");
    }
}

/// Each file cut off and changed in many places: an error or a model that predicts, and never more than that.
#[test]
fn damaged_files_are_refused_or_predict() {
    for name in [
        "titanic",
        "xgboost-3",
        "reviews",
        "03-SVC-3",
        "step-QuantileTransformer",
        "flow-rounds",
        "flow-calls",
    ] {
        let bytes = fs::read(golden().join(format!("{name}.onnx"))).unwrap();
        let check = |bytes: &[u8]| {
            if let Ok(model) = load_bytes("damaged", bytes, &LoadOptions::default()) {
                let width = model.signature().features.len();
                let mut buffer = RowBuffer::default();
                for feature in &model.signature().features {
                    let value = if feature.kind.is_text() {
                        buffer.texts.push("S")
                    } else {
                        1.0
                    };
                    buffer.values.push(value);
                }
                let _ = model.predict(
                    buffer.rows(width),
                    &mut vec![0.0; model.signature().outputs()],
                );
            }
        };
        let step = bytes.len() / 150 + 1;
        for at in (0..bytes.len()).step_by(step) {
            check(&bytes[..at]);
            for value in [0x00, 0xFF, bytes[at] ^ 0x01] {
                let mut changed = bytes.clone();
                changed[at] = value;
                check(&changed);
            }
        }
    }
}
