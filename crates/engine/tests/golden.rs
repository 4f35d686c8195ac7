//! Predictions of many small models agree, bit for bit, with those of the XGBoost that trained
//! them. `scripts/golden/make.py` makes the files.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{Engine, FeatureKind, LoadOptions, Output, Rows, load, load_bytes, load_with};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn numbers(path: &Path) -> Vec<Vec<f64>> {
    let rows: Vec<Vec<Option<f64>>> =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let filled = |row: Vec<Option<f64>>| row.into_iter().map(|v| v.unwrap_or(f64::NAN)).collect();
    rows.into_iter().map(filled).collect()
}

fn predict(model: &dyn Engine, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let outputs = model.signature().outputs();
    let flat = rows.concat();
    let mut out = vec![f64::NAN; rows.len() * outputs];
    model
        .predict(Rows::new(&flat, rows[0].len()), &mut out)
        .unwrap();
    out.chunks(outputs).map(<[f64]>::to_vec).collect()
}

/// A model file, inputs, and what the library predicts for them.
struct Case {
    path: PathBuf,
    rows: Vec<Vec<f64>>,
    expected: Vec<Vec<f64>>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for version in [
        "1.4",
        "1.5",
        "1.6",
        "1.7",
        "2.1",
        "3.2",
        "3.4",
        "categories-1.6",
        "categories-1.7",
        "categories-2.1",
        "categories-3.2",
        "categories-3.4",
    ] {
        let folder = golden().join(version);
        let rows = numbers(&folder.join("rows.json"));
        for path in files(&folder) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name == "rows.json" || name.ends_with(".expected.json") {
                continue;
            }
            let expected = numbers(&path.with_extension("expected.json"));
            cases.push(Case {
                path,
                rows: rows.clone(),
                expected,
            });
        }
    }
    cases
}

#[test]
fn predictions_agree_with_the_library_bit_for_bit() {
    let cases = cases();
    assert!(cases.len() > 100, "only {} models", cases.len());
    for Case {
        path,
        rows,
        expected,
    } in &cases
    {
        let model = load(path).unwrap();
        assert_eq!(predict(&*model, rows), *expected, "{}", path.display());
    }
}

#[test]
fn one_row_gets_what_it_gets_among_others() {
    for Case {
        path,
        rows,
        expected,
    } in &cases()
    {
        let model = load(path).unwrap();
        for (row, expected) in rows.iter().zip(expected) {
            assert_eq!(
                predict(&*model, std::slice::from_ref(row))[0],
                *expected,
                "{}",
                path.display()
            );
        }
    }
}

/// Early stopping of releases before 1.4 is clear only where no other number of trees per iteration
/// fits.
#[test]
fn files_that_leave_it_open_which_trees_count_are_refused() {
    for version in ["1.0", "1.2"] {
        let folder = golden().join(version);
        let rows = numbers(&folder.join("rows.json"));
        for (name, trees) in [
            ("forest", None),
            ("stopped", None),
            ("logitraw-base", None),
            ("parallel-stopped", Some((18, 12))),
            ("native-parallel-stopped", Some((18, 12))),
            ("classes-parallel-stopped", Some((12, 6))),
        ] {
            let path = folder.join(format!("{name}.json"));
            let expected = numbers(&folder.join(format!("{name}.expected.json")));
            let mut options = LoadOptions::default();
            if let Some((all, used)) = trees {
                let error = load(&path).unwrap_err().message;
                let advice = format!("iteration_range = [0, {all}] for all");
                assert!(error.contains(&advice), "{error}");
                options.iteration_range = Some((0, used));
            }
            let model = load_with(&path, &options).unwrap();
            assert_eq!(predict(&*model, &rows), expected, "{version} {name}");
        }
    }
}

#[test]
fn the_description_says_which_iterations_count() {
    let model = load(&golden().join("1.5/parallel-stopped.json")).unwrap();
    let description = model.description();
    let parts = ["gbtree, 12 trees, ", ", 4 of 6 iterations (best_iteration)"];
    assert!(
        parts.iter().all(|part| description.contains(part)),
        "{description}"
    );
    let model = load(&golden().join("1.5/forest.json")).unwrap();
    assert!(!model.description().contains("iterations"));
}

#[test]
fn the_mean_score_model_is_the_logistic_of_a_mean() {
    let model = load(&golden().join("mean-score/model.ubj")).unwrap();
    assert_eq!(model.signature().output, Output::Binary);
    assert!(!model.signature().named);
    let names: Vec<_> = model
        .signature()
        .features
        .iter()
        .map(|f| f.name.as_str())
        .collect();
    assert_eq!(names, ["f0", "f1", "f2", "f3"]);
    let rows = [
        [0.5, 1.2, -0.3, 0.8],
        [-1.0, -0.5, -2.0, -1.5],
        [2.0, 1.5, 3.0, 2.5],
    ];
    let predicted = predict(&*model, &rows.map(|row| row.to_vec())).concat();
    for (predicted, expected) in predicted.iter().zip([0.6341, 0.2227, 0.9047]) {
        assert!(
            (predicted - expected).abs() < 5e-5,
            "{predicted} instead of {expected}"
        );
    }
}

#[test]
fn names_and_types_come_from_the_file() {
    for name in ["named.json", "named.ubj"] {
        let model = load(&golden().join("3.2").join(name)).unwrap();
        assert!(model.signature().named);
        let features: Vec<_> = model
            .signature()
            .features
            .iter()
            .map(|feature| (feature.name.as_str(), feature.kind.clone()))
            .collect();
        let expected = [
            ("a", FeatureKind::Number),
            ("größe", FeatureKind::Integer),
            ("c d", FeatureKind::Number),
            ("quo\"te", FeatureKind::Number),
            ("e", FeatureKind::Boolean),
        ];
        assert_eq!(features, expected);
    }
}

#[test]
fn outputs_say_what_they_are() {
    let cases = [
        ("binary-logistic.json", Output::Binary),
        ("binary-hinge.json", Output::Class { classes: 2 }),
        ("binary-logitraw.json", Output::Numbers { count: 1 }),
        ("binary-multi-label.json", Output::Numbers { count: 2 }),
        ("multi-softprob.ubj", Output::Multiclass { classes: 3 }),
        ("multi-softmax.ubj", Output::Class { classes: 3 }),
        ("reg-quantileerror.json", Output::Numbers { count: 3 }),
        ("rank-ndcg.json", Output::Numbers { count: 1 }),
        ("expectiles.ubj", Output::Numbers { count: 3 }),
    ];
    for (name, output) in cases {
        let model = load(&golden().join("3.4").join(name)).unwrap();
        assert_eq!(model.signature().output, output, "{name}");
    }
}

#[test]
fn iterations_beyond_the_best_one_count_only_when_asked_for() {
    for version in ["1.7", "2.1", "3.2", "3.4"] {
        let folder = golden().join(version);
        let path = folder.join("best-iteration.json");
        let rows = numbers(&folder.join("rows.json"));
        let with = |range| {
            load_with(
                &path,
                &LoadOptions {
                    iteration_range: range,
                    ..LoadOptions::default()
                },
            )
            .map(|model| predict(&*model, &rows))
        };
        let best = with(None).unwrap();
        let trees = |range| {
            let options = LoadOptions {
                iteration_range: range,
                ..LoadOptions::default()
            };
            let description = load_with(&path, &options).unwrap().description();
            let (_, rest) = description.split_once(", ").unwrap();
            rest.split_once(" trees").unwrap().0.parse::<u32>().unwrap()
        };
        let (best_end, all) = (trees(None), trees(Some((0, 0))));
        assert!(0 < best_end && best_end < all, "{best_end} of {all}");
        assert_eq!(with(Some((0, best_end))).unwrap(), best);
        assert_ne!(with(Some((0, 0))).unwrap(), best);
        assert_eq!(with(Some((0, 0))).unwrap(), with(Some((0, all))).unwrap());
        assert_eq!(trees(Some((1, 3))), 2);
        for outside in [(0, all + 1), (2, 1)] {
            let message = with(Some(outside)).unwrap_err().message;
            assert!(message.contains("are asked for"), "{message}");
        }
    }
}

#[test]
fn weights_of_dart_trees_count_wherever_the_file_has_them() {
    // A dart model is a gbtree with weights beside its model in 3.3, and within it since 3.4.
    let folder = golden().join("3.2");
    let text = fs::read_to_string(folder.join("dart-binary.json")).unwrap();
    for is_within in [false, true] {
        let mut model: Value = serde_json::from_str(&text).unwrap();
        let mut booster = model["learner"]["gradient_booster"].take();
        let mut gbtree = booster["gbtree"].take();
        let place = match is_within {
            true => &mut gbtree["model"],
            false => &mut gbtree,
        };
        place["weight_drop"] = booster["weight_drop"].take();
        model["learner"]["gradient_booster"] = gbtree;
        let text = model.to_string();
        let moved = load_bytes("moved", text.as_bytes(), &LoadOptions::default()).unwrap();
        let rows = numbers(&folder.join("rows.json"));
        assert_eq!(
            predict(&*moved, &rows),
            numbers(&folder.join("dart-binary.expected.json"))
        );
    }
}

/// Vectors of leaves of another size, numbers that are not there, and more leaves than numbers.
#[test]
fn leaves_that_are_vectors_must_have_their_numbers() {
    let path = golden().join("3.2/vector-regression.json");
    let text = fs::read_to_string(path).unwrap();
    let fault = |change: &dyn Fn(&mut Value)| {
        let mut model: Value = serde_json::from_str(&text).unwrap();
        change(&mut model["learner"]["gradient_booster"]["model"]["trees"][1]);
        let text = model.to_string();
        let error = load_bytes("file", text.as_bytes(), &LoadOptions::default()).unwrap_err();
        error.message
    };
    let message = fault(&|tree| tree["tree_param"]["size_leaf_vector"] = "2".into());
    assert!(
        message.contains("tree 1: `size_leaf_vector`: 2 for 3 outputs"),
        "{message}"
    );
    let leaf = |tree: &Value| {
        let children = tree["left_children"].as_array().unwrap();
        children.iter().position(|child| *child == -1).unwrap()
    };
    for place in [-1, i64::MAX] {
        let message = fault(&|tree| {
            let leaf = leaf(tree);
            tree["right_children"][leaf] = place.into();
        });
        assert!(
            message.contains("its numbers are not in `leaf_weights`"),
            "{message}"
        );
    }
    let message = fault(&|tree| tree["leaf_weights"] = serde_json::json!([1.5, 2.5, 3.5]));
    assert!(
        message.contains("`leaf_weights`: 3 numbers for"),
        "{message}"
    );
    let message = fault(&|tree| tree["leaf_weights"][0] = serde_json::json!(1e39));
    assert!(message.contains("the leaf's value is inf"), "{message}");
}

#[test]
fn categories_are_called_what_the_file_calls_them() {
    let texts = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned());
        FeatureKind::Category(names.collect())
    };
    let towns = [
        "Vigo", "nowhere", "Lugo", "Corunna", "Ferrol", "Ourense", "Tui",
    ];
    let levels = texts(&["30", "10", "20"]);
    // Up to 3.3 the library cut texts beyond ASCII in the wrong places: "A Coruña", and those after it.
    let damaged = [FeatureKind::Code, levels.clone()];
    let known = [texts(&towns), levels];
    let codes = [FeatureKind::Code, FeatureKind::Code];
    for (folder, stem, expected) in [
        ("categories-3.2", "ascii", known.clone()),
        ("categories-3.2", "sets", damaged.clone()),
        ("categories-3.4", "ascii", known),
        ("categories-3.4", "sets", damaged),
        ("categories-2.1", "sets", codes),
    ] {
        for extension in ["json", "ubj"] {
            let file = golden().join(folder).join(format!("{stem}.{extension}"));
            let model = load(&file).unwrap();
            let features = &model.signature().features;
            let kinds: Vec<FeatureKind> = features.iter().map(|f| f.kind.clone()).collect();
            assert_eq!(kinds[..2], expected, "{}", file.display());
            assert_eq!(kinds[2], FeatureKind::Number);
        }
    }
}

/// Codes that training did not have, numbers that are no codes, and codes with a fraction, as the
/// library's `Decision` in `src/common/categorical.h` takes them.
#[test]
fn numbers_that_are_no_category_are_in_no_set() {
    let model = load(&golden().join("categories-2.1/one-hot.json")).unwrap();
    let row = |town: f64| vec![town, 1.0, 0.5];
    let stranger = predict(&*model, &[row(50.0)]);
    for none in [-1.0, -0.5, 7.0, 1e9, f64::INFINITY] {
        assert_eq!(predict(&*model, &[row(none)]), stranger, "{none}");
    }
    assert_eq!(predict(&*model, &[row(2.9)]), predict(&*model, &[row(2.0)]));
    assert_ne!(predict(&*model, &[row(2.0)]), stranger);
}
