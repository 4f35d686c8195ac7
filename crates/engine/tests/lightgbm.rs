//! Predictions of many small models agree with those of the LightGBM that trained them: bit for bit where
//! the output is a sum of leaves, and to the last bits of an exponential where there is a link.
//! `scripts/golden/make_lightgbm.py` makes the files.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{
    Engine, FeatureKind, LoadOptions, Output, Precision, Rows, load, load_bytes, load_with,
};
use std::fs;
use std::path::{Path, PathBuf};

const VERSIONS: [&str; 2] = ["lightgbm-3.3", "lightgbm-4.7"];

fn folder(version: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join(version)
}

fn newest(name: &str) -> PathBuf {
    folder(VERSIONS[1]).join(name)
}

fn numbers(path: &Path) -> Vec<Vec<f64>> {
    let text = fs::read_to_string(path).unwrap();
    let rows: Vec<Vec<Option<f64>>> = serde_json::from_str(&text).unwrap();
    let filled = |row: Vec<Option<f64>>| row.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    rows.into_iter().map(filled).collect()
}

fn predict(model: &dyn Engine, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let width = model.signature().features.len();
    let flat: Vec<f64> = rows.iter().flat_map(|row| &row[..width]).copied().collect();
    let outputs = model.signature().outputs();
    let mut out = vec![f64::NAN; rows.len() * outputs];
    model.predict(Rows::new(&flat, width), &mut out).unwrap();
    out.chunks(outputs).map(<[f64]>::to_vec).collect()
}

/// A model file, inputs, what the library predicts for them, and from two of the iterations alone.
struct Case {
    path: PathBuf,
    rows: Vec<Vec<f64>>,
    expected: Vec<Vec<f64>>,
    part: Option<Vec<Vec<f64>>>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in VERSIONS {
        let folder = folder(version);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "txt") {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let rows = match name.starts_with("category-") {
                true => "codes.json",
                false => "rows.json",
            };
            let part = path.with_extension("part.json");
            cases.push(Case {
                rows: numbers(&folder.join(rows)),
                expected: numbers(&path.with_extension("expected.json")),
                part: part.exists().then(|| numbers(&part)),
                path,
            });
        }
    }
    assert!(cases.len() > 90, "only {} models", cases.len());
    cases
}

/// Exact, unless exponentials of other mathematics libraries may be in the numbers.
fn assert_agree(path: &Path, predicted: &[Vec<f64>], expected: &[Vec<f64>]) {
    let text = fs::read_to_string(path).unwrap();
    let objective = text
        .lines()
        .find_map(|line| line.strip_prefix("objective="));
    let linked = [
        "binary",
        "multiclass",
        "cross",
        "poisson",
        "gamma",
        "tweedie",
    ];
    let is_linked = objective.is_some_and(|name| linked.iter().any(|link| name.starts_with(link)));
    for (row, (predicted, expected)) in predicted.iter().zip(expected).enumerate() {
        for (got, wanted) in predicted.iter().zip(expected) {
            let is_near = is_linked && (got - wanted).abs() <= 4.0 * f64::EPSILON * wanted.abs();
            assert!(
                got == wanted || is_near,
                "{}, row {row}: {got} instead of {wanted}",
                path.display()
            );
        }
        assert_eq!(predicted.len(), expected.len());
    }
    assert_eq!(predicted.len(), expected.len());
}

#[test]
fn predictions_agree_with_the_library() {
    for case in cases() {
        let model = load(&case.path).unwrap();
        let together = predict(&*model, &case.rows);
        assert_agree(&case.path, &together, &case.expected);
        for (row, expected) in case.rows.iter().zip(together) {
            let alone = predict(&*model, std::slice::from_ref(row));
            assert_eq!(alone, [expected], "{}", case.path.display());
        }
    }
}

#[test]
fn iterations_that_are_asked_for_count_alone() {
    let mut parts = 0;
    for case in cases() {
        let Some(part) = case.part else { continue };
        let with = |range| {
            load_with(
                &case.path,
                &LoadOptions {
                    iteration_range: Some(range),
                    ..LoadOptions::default()
                },
            )
        };
        let model = with((1, 3)).unwrap();
        assert_agree(&case.path, &predict(&*model, &case.rows), &part);
        let message = with((1, 99)).unwrap_err().message;
        assert!(
            message.contains("iterations 1..99 are asked for"),
            "{message}"
        );
        parts += 1;
    }
    assert!(parts >= 12, "{parts}");
    // Early stopping is nothing a file tells: the library saves what counts.
    let all = load(&newest("best-iteration-all.txt")).unwrap();
    assert!(all.description().contains("gbdt, 11 trees"));
    let best = load(&newest("best-iteration.txt")).unwrap();
    assert!(best.description().contains("gbdt, 8 trees"));
    let forest = fs::read_to_string(newest("rf-regression.txt")).unwrap();
    let head = forest.split("Tree=0").next().unwrap();
    let head: String = head
        .lines()
        .filter(|line| !line.starts_with("tree_sizes"))
        .map(|line| format!("{line}\n"))
        .collect();
    let rest = forest.split_once("end of trees").unwrap().1;
    let empty = format!("{head}end of trees{rest}");
    let message = load_bytes("empty", empty.as_bytes(), &LoadOptions::default())
        .unwrap_err()
        .message;
    assert!(
        message.contains("there are no trees to average"),
        "{message}"
    );
}

#[test]
fn outputs_say_what_they_are() {
    for (name, output) in [
        ("regression", Output::Numbers { count: 1 }),
        ("cross_entropy", Output::Numbers { count: 1 }),
        ("lambdarank", Output::Numbers { count: 1 }),
        ("custom-classes", Output::Numbers { count: 3 }),
        ("binary", Output::Binary),
        ("multiclass", Output::Multiclass { classes: 3 }),
        ("multiclassova", Output::Multiclass { classes: 3 }),
    ] {
        let model = load(&newest(&format!("{name}.txt"))).unwrap();
        let signature = model.signature();
        assert_eq!(signature.output, output, "{name}");
        assert_eq!(signature.precision, Precision::F64);
        assert!(!signature.named);
        assert!(
            signature
                .features
                .iter()
                .all(|feature| feature.takes_missing)
        );
    }
}

#[test]
fn names_come_from_the_file() {
    let model = load(&newest("named.txt")).unwrap();
    assert!(model.signature().named);
    let features = model.signature().features.iter();
    let names: Vec<_> = features.map(|feature| feature.name.as_str()).collect();
    assert_eq!(names, ["a", "größe", "c_d", "e'f", "Column_4"]);
    // Those that the library makes up are none.
    let model = load(&newest("binary.txt")).unwrap();
    assert_eq!(model.signature().features[4].name, "f4");
}

#[test]
fn categories_are_called_what_pandas_calls_them() {
    let texts = |names: &[&str]| {
        FeatureKind::Category(names.iter().map(|name| (*name).to_owned()).collect())
    };
    let towns = [
        "Vigo",
        "nowhere",
        "Lugo",
        "A Coruña",
        "Ferrol",
        "Ourense",
        "Tui \"x\"",
    ];
    let named = [
        texts(&towns),
        FeatureKind::Number,
        texts(&["30", "10", "20"]),
        FeatureKind::Boolean,
        texts(&["0.5", "2.0"]),
    ];
    for version in VERSIONS {
        let kinds = |name: &str| -> Vec<FeatureKind> {
            let model = load(&folder(version).join(name)).unwrap();
            let features = model.signature().features.iter();
            features.map(|feature| feature.kind.clone()).collect()
        };
        for name in ["sets", "one-hot", "sets-linear", "sets-binary"] {
            assert_eq!(kinds(&format!("category-{name}.txt")), named, "{name}");
        }
        let (code, number) = (FeatureKind::Code, FeatureKind::Number);
        // A column of numbers beside those of pandas.
        let some = kinds("category-some-named.txt");
        assert_eq!((&some[..5], &some[5]), (&named[..], &code));
        let codes = kinds("category-codes.txt");
        assert_eq!((&codes[0], &codes[1], &codes[5]), (&code, &number, &code));
    }
}

/// The library writes spaces in names as `_`, and other blanks as they are.
#[test]
fn names_may_have_blanks_other_than_spaces() {
    let text = fs::read_to_string(newest("named.txt")).unwrap();
    let text = text.replace("feature_names=a größe", "feature_names=a\tb\u{a0}c größe");
    let model = load_bytes("blank", text.as_bytes(), &LoadOptions::default()).unwrap();
    assert_eq!(model.signature().features[0].name, "a\tb\u{a0}c");
    assert_eq!(model.signature().features[1].name, "größe");
}

#[test]
fn the_description_says_how_the_model_was_boosted() {
    for (name, words) in [
        ("dart-binary.txt", "lightgbm dart, 6 trees, "),
        ("rf-multiclass.txt", "lightgbm rf, 9 trees, "),
        ("linear.txt", "lightgbm gbdt, linear, 3 trees, "),
    ] {
        let description = load(&newest(name)).unwrap().description();
        assert!(description.contains(words), "{description}");
    }
}
