//! Explanations of models that are asked for them, against those of shap (`scripts/golden/make_explained.py`).

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod rows;

use auspex_engine::{
    Engine, Explain, FeatureKind, LoadOptions, RowBuffer, Unexplained, load_bytes,
};
use rows::rows;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/explained")
}

fn options() -> LoadOptions {
    LoadOptions {
        explanation_bytes_max: 1 << 20,
        ..LoadOptions::default()
    }
}

fn load(name: &str, options: &LoadOptions) -> Box<dyn Engine> {
    load_bytes(name, &fs::read(golden().join(name)).unwrap(), options).unwrap()
}

fn wanted(name: &str) -> Value {
    serde_json::from_slice(&fs::read(golden().join(name).with_extension("json")).unwrap()).unwrap()
}

/// `[margin][row][feature]`, the base value last.
fn numbers(nested: &Value) -> Vec<f64> {
    match nested {
        Value::Array(all) => all.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn contributions(model: &dyn Explain, rows: &RowBuffer, width: usize) -> Vec<f64> {
    let rows = rows.rows(width);
    let of_margin = |margin| {
        let mut out = vec![0.0; rows.len() * (width + 1)];
        model.contributions(rows, margin, &mut out).unwrap();
        out
    };
    (0..model.margins()).flat_map(of_margin).collect()
}

/// What a golden model's explanations are, and what they should be.
fn explained(name: &str) -> (Vec<f64>, Value, usize) {
    let (mut model, wanted) = (load(name, &options()), wanted(name));
    let width = model.signature().features.len();
    if name.ends_with(".onnx") || wanted["typical"] == json!(false) {
        assert_eq!(
            model.explain().err(),
            Some(Unexplained::NoBackground),
            "{name}"
        );
        let background = rows(model.as_ref(), &wanted["background"]);
        model.compare_with(background.rows(width), &options());
    }
    let rows = rows(model.as_ref(), &wanted["rows"]);
    let found = contributions(model.explain().unwrap(), &rows, width);
    (found, wanted, width + 1)
}

fn worst(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let differences = found.iter().zip(wanted);
    differences
        .map(|(found, wanted)| (found - wanted).abs() / wanted.abs().max(1.0))
        .fold(0.0, f64::max)
}

#[test]
fn few_inputs_are_explained_exactly() {
    for name in ["logistic", "machine", "poisson", "vote", "gaps"] {
        let (found, wanted, _) = explained(&format!("{name}.pkl"));
        let worst = worst(&found, &numbers(&wanted["exact"]));
        assert!(worst < 1e-9, "{name}: {worst}");
    }
}

/// Each column of the last step counts for the input that it comes from.
#[test]
fn trees_are_explained_by_their_covers() {
    for name in [
        "forest",
        "forest-2",
        "extra-trees",
        "tree",
        "boosting",
        "histogram",
        "words",
    ] {
        let file = format!("{name}.pkl");
        assert_eq!(load(&file, &options()).explain().unwrap().asks(), 0);
        let (found, wanted, _) = explained(&file);
        let worst = worst(&found, &numbers(&wanted["trees"]));
        assert!(worst < 1e-6, "{name}: {worst}");
        // What trees keep for it may be too much; then they are asked.
        let options = LoadOptions {
            explanation_bytes_max: 400,
            ..LoadOptions::default()
        };
        assert!(
            load(&file, &options)
                .explain()
                .map_or(1, |explain| explain.asks())
                > 0
        );
    }
}

/// As near to the exact ones as shap's own permutations are, or nearer; and their sums are the same.
#[test]
fn many_inputs_are_explained_by_sampled_orders() {
    for (name, same) in [
        ("neighbors.pkl", 1e-9),
        ("network.pkl", 1e-9),
        ("network.onnx", 1e-5),
    ] {
        let (found, wanted, width) = explained(name);
        let exact = numbers(&wanted["exact"]);
        let (ours, theirs) = (
            worst(&found, &exact),
            worst(&numbers(&wanted["by_order"]), &exact),
        );
        assert!(ours <= theirs.max(0.02), "{name}: {ours} and {theirs}");
        for (found, exact) in found.chunks(width).zip(exact.chunks(width)) {
            let sums = (found.iter().sum::<f64>(), exact.iter().sum::<f64>());
            assert!((sums.0 - sums.1).abs() < same, "{name}: {sums:?}");
        }
        let again = explained(name).0;
        assert_eq!(found, again, "{name}: not the same twice");
    }
}

#[test]
fn what_has_nothing_to_compare_with_says_so() {
    let kinds = |bytes_max| {
        let options = LoadOptions {
            explanation_bytes_max: bytes_max,
            ..LoadOptions::default()
        };
        let mut model = load("logistic.pkl", &options);
        let before = model.explain().err();
        let wanted = wanted("logistic.pkl");
        let background = rows(model.as_ref(), &wanted["background"]);
        model.compare_with(background.rows(6), &options);
        (before, model.explain().err())
    };
    let (none, not_asked) = (Some(Unexplained::NoBackground), Some(Unexplained::NotAsked));
    assert_eq!(kinds(0), (not_asked, not_asked));
    assert_eq!(kinds(1 << 20), (none, None));
    assert!(matches!(
        kinds(8),
        (_, Some(Unexplained::TooLarge { allowed: 8, .. }))
    ));
    // Rows are not taken where the file itself has what is typical.
    let mut gaps = load("gaps.pkl", &options());
    let rows = rows(gaps.as_ref(), &wanted("gaps.pkl")["rows"]);
    let before = contributions(gaps.explain().unwrap(), &rows, 6);
    gaps.compare_with(rows.rows(6), &options());
    assert_eq!(contributions(gaps.explain().unwrap(), &rows, 6), before);
}

#[test]
fn a_column_that_no_step_takes_is_of_any_type_and_adds_nothing() {
    for name in ["logistic", "forest", "gaps"] {
        let (found, _, width) = explained(&format!("{name}.pkl"));
        let model = load(&format!("{name}.pkl"), &options());
        let features = &model.signature().features;
        assert_eq!(
            (
                features[1].name.as_str(),
                &features[1].kind,
                features[1].takes_missing
            ),
            ("name", &FeatureKind::Unused, true)
        );
        assert!(
            features
                .iter()
                .filter(|feature| feature.kind == FeatureKind::Unused)
                .count()
                == 1
        );
        assert!(found.chunks(width).all(|row| row[1] == 0.0));
    }
}
