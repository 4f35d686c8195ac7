//! Models of scikit-learn from pickles and files of skops against what the library predicts (`scripts/golden/make_sklearn.py`).

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

mod rows;

use auspex_engine::{
    ClassLabel, Engine, FeatureKind, LoadOptions, Output, RowBuffer, Signature, load, load_bytes,
};
use rows::rows;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 2] = ["sklearn-1.2", "sklearn-1.9"];
/// Pipelines as people fit them (`scripts/golden/make_pipelines.py`).
const PIPELINES: &str = "pipelines";
/// Where steps meet boosters, `None` and large numbers (`scripts/golden/make_details.py`).
const DETAILS: &str = "details";

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder)
}

/// The models of a folder.
fn models(folder: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(golden(folder)).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind != "json" && kind != "onnx")
        })
        .collect();
    paths.sort();
    paths
}

fn all_models() -> impl Iterator<Item = PathBuf> {
    let folders = FOLDERS.into_iter().chain([PIPELINES, DETAILS]);
    folders.flat_map(models)
}

fn expected(model: &Path) -> Value {
    serde_json::from_slice(&fs::read(model.with_extension("expected.json")).unwrap()).unwrap()
}

/// What the library gives for a row, as an engine would.
fn wanted(model: &dyn Engine, prediction: &Value) -> Vec<f64> {
    let numbers = || match prediction {
        Value::Array(numbers) => numbers
            .iter()
            .map(|number| number.as_f64().unwrap())
            .collect(),
        number => vec![number.as_f64().unwrap()],
    };
    match model.signature().output {
        Output::Binary => numbers()[1..].to_vec(),
        Output::Class { .. } => {
            let (class, more) = match prediction {
                Value::Array(numbers) => (&numbers[0], &numbers[1..]),
                class => (class, &[][..]),
            };
            let label = match class {
                Value::String(text) => ClassLabel::Text(text.clone()),
                number => ClassLabel::Number(number.as_f64().unwrap() as i64),
            };
            let mut known = model.signature().class_labels.iter();
            let class = known.position(|known| *known == label).unwrap() as f64;
            let more = more.iter().map(|number| number.as_f64().unwrap());
            std::iter::once(class).chain(more).collect()
        }
        _ => numbers(),
    }
}

#[test]
fn predictions_are_those_of_the_library() {
    let mut faults = Vec::new();
    for path in all_models() {
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
        let predictions = expected["predictions"].as_array().unwrap();
        let mut out = vec![0.0; predictions.len() * outputs];
        if let Err(refusal) = model.predict(rows.rows(model.signature().features.len()), &mut out) {
            faults.push(format!("{}: {refusal}", path.display()));
            continue;
        }
        for (row, prediction) in out.chunks(outputs).zip(predictions) {
            let wanted = wanted(model.as_ref(), prediction);
            let is_near = |(got, wanted): (&f64, &f64)| (got - wanted).abs() <= 1e-9 * wanted.abs();
            if row.len() != wanted.len() || !row.iter().zip(&wanted).all(is_near) {
                faults.push(format!("{}: {row:?} is not {wanted:?}", path.display()));
                break;
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A pipeline gives the same as what skl2onnx made of it, as near as `f32` is.
#[test]
fn pipelines_agree_with_their_graphs() {
    let pipelines = models(PIPELINES);
    let (mut agree, mut faults) = (0, Vec::new());
    for path in &pipelines {
        let graph = path.with_extension("onnx");
        if !graph.exists() {
            continue;
        }
        let model = load(path).unwrap();
        let graph = match load(&graph) {
            Ok(graph) => graph,
            Err(error) => {
                faults.push(error.message);
                continue;
            }
        };
        let asked = expected(path)["rows"].take();
        // A graph has only the columns that count.
        let place = |name: &str| {
            let mut names = model.signature().features.iter();
            names.position(|feature| feature.name == name).unwrap()
        };
        let features = graph.signature().features.iter();
        let places: Vec<usize> = features.map(|feature| place(&feature.name)).collect();
        let row = |row: &Value| places.iter().map(|place| row[*place].clone()).collect();
        let kept: Vec<Value> = asked.as_array().unwrap().iter().map(row).collect();
        let predict = |model: &dyn Engine, asked: &Value| {
            let rows = rows(model, asked);
            let width = model.signature().features.len();
            let outputs = model.signature().outputs();
            let mut out = vec![0.0; rows.values.len() / width * outputs];
            model.predict(rows.rows(width), &mut out).unwrap();
            out
        };
        let (wanted, made) = (
            predict(model.as_ref(), &asked),
            predict(graph.as_ref(), &kept.into()),
        );
        let is_near =
            |(wanted, made): (&f64, &f64)| (wanted - made).abs() <= 1e-4 * wanted.abs().max(1.0);
        let outputs = (model.signature().output, graph.signature().output);
        match outputs.0 == outputs.1
            && wanted.len() == made.len()
            && wanted.iter().zip(&made).all(is_near)
        {
            true => agree += 1,
            false => faults.push(format!(
                "{}: {outputs:?}, {wanted:?} and {made:?}",
                path.display()
            )),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(pipelines.len(), 38);
    assert!(agree >= 18, "{agree} graphs");
}

/// Zeros that a sparse matrix leaves out are missing values to explanations of XGBoost too.
#[test]
fn explanations_behind_sparse_matrices_are_those_of_the_library() {
    let path = golden(DETAILS).join("sparse-columns.pkl");
    let options = LoadOptions {
        explanation_bytes_max: 1 << 20,
        ..LoadOptions::default()
    };
    let model = load_bytes("model", &fs::read(&path).unwrap(), &options).unwrap();
    let explain = model.explain().unwrap();
    assert_eq!(explain.asks(), 0);
    let wanted = fs::read(path.with_extension("contributions.json")).unwrap();
    let wanted: Vec<Vec<f64>> = serde_json::from_slice(&wanted).unwrap();
    let wanted = wanted.concat();
    let rows = rows(model.as_ref(), &expected(&path)["rows"]);
    let mut found = vec![0.0; wanted.len()];
    explain.contributions(rows.rows(4), 0, &mut found).unwrap();
    let mut pairs = found.iter().zip(&wanted);
    assert!(
        pairs.all(|(found, wanted)| (found - wanted).abs() < 1e-5),
        "{found:?} is not {wanted:?}"
    );
}

/// What cannot be told from the file is refused, with what to do.
#[test]
fn models_that_cannot_be_predicted_are_refused() {
    for (name, words) in [
        (
            "sparse-hashed",
            "set `alternate_sign=False` of a HashingVectorizer",
        ),
        (
            "sparse-splines",
            "`sparse_output=False` of encoders and splines",
        ),
    ] {
        let error = load(&golden("details-refused").join(format!("{name}.pkl"))).err();
        let message = error.unwrap().message;
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn what_would_fill_the_memory_from_a_small_file_is_refused() {
    for (name, reason) in [
        ("shared-boosters", "stand in too many places"),
        ("shared-steps", "more than 4096 of them"),
        (
            "shared-terms",
            "columns, categories, terms and edges together",
        ),
    ] {
        let path = golden("hostile").join(format!("{name}.pkl"));
        assert!(fs::metadata(&path).unwrap().len() < 50_000);
        let error = load(&path).unwrap_err().message;
        assert!(error.contains(reason), "{name}: {error}");
    }
    let part = |first: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(first).unwrap();
        encoder.write_all(&vec![b']'; 1 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    let bytes = [part(b"\x80\x04"), part(b"").repeat(128)].concat();
    assert!(bytes.len() < 1 << 20);
    let error = load_bytes("model", &bytes, &LoadOptions::default()).err();
    let message = error.unwrap().message;
    let words = "larger than 134217728 bytes, and no more than 128 times its own size is read";
    assert!(message.contains(words), "{message}");
}

/// Sums of trees are those of the library to the last bit.
#[test]
fn trees_agree_in_every_bit() {
    for folder in FOLDERS {
        for name in [
            "tree-3",
            "tree-regressor",
            "forest-3",
            "forest-regressor",
            "histogram-regressor",
            "histogram-codes-regressor",
            "bagging-3",
            "ada-regressor",
        ] {
            let path = golden(folder).join(format!("{name}.pkl"));
            let (model, expected) = (load(&path).unwrap(), expected(&path));
            let rows = rows(model.as_ref(), &expected["rows"]);
            let outputs = model.signature().outputs();
            let width = model.signature().features.len();
            let mut out = vec![0.0; rows.values.len() / width * outputs];
            model.predict(rows.rows(width), &mut out).unwrap();
            for (row, prediction) in out
                .chunks(outputs)
                .zip(expected["predictions"].as_array().unwrap())
            {
                assert_eq!(row, wanted(model.as_ref(), prediction), "{folder}/{name}");
            }
        }
    }
}

#[test]
fn names_classes_categories_and_versions_come_from_the_file() {
    for (folder, version) in [("sklearn-1.2", "1.2"), ("sklearn-1.9", "1.9")] {
        let model = load(&golden(folder).join("titanic-3.pkl")).unwrap();
        let signature = model.signature();
        let features: Vec<_> = signature
            .features
            .iter()
            .map(|f| (f.name.as_str(), &f.kind, f.takes_missing))
            .collect();
        assert_eq!(
            features,
            [
                ("age", &FeatureKind::Number, true),
                ("fare", &FeatureKind::Number, true),
                ("rooms", &FeatureKind::Number, false),
                ("sex", &FeatureKind::Text, true),
                ("port", &FeatureKind::Text, true),
            ]
        );
        let labels = ["high", "low", "middle"].map(|text| ClassLabel::Text(text.into()));
        assert_eq!(signature.class_labels, labels);
        let start = format!("scikit-learn {version} Pipeline");
        assert!(
            model.description().starts_with(&start),
            "{}",
            model.description()
        );
        for name in ["vote-steps", "stack-steps"] {
            let model = load(&golden(folder).join(format!("{name}.pkl"))).unwrap();
            assert_eq!(model.signature().class_labels, labels, "{name}");
            assert_eq!(
                model.signature().features[4].kind,
                FeatureKind::Text,
                "{name}"
            );
        }
        let model = load(&golden(folder).join("isolation.pkl")).unwrap();
        let sides = [-1, 1].map(ClassLabel::Number);
        assert_eq!(model.signature().class_labels, sides);
        assert_eq!(model.signature().more_outputs[0].name, "decision_function");
        let model = load(&golden(folder).join("one-hot.pkl")).unwrap();
        let sexes = FeatureKind::Category(vec!["female".into(), "male".into()]);
        assert_eq!(model.signature().features[0].kind, sexes);
        assert!(!model.signature().features[0].takes_missing);
    }
}

/// Names of columns that only a booster within knows.
#[test]
fn names_come_from_boosters_too() {
    let paths = models(DETAILS).into_iter();
    let is_about_names = |path: &PathBuf| path.to_str().unwrap().contains("/names-");
    let mut count = 0;
    for path in paths.filter(is_about_names) {
        let model = load(&path).unwrap();
        let Signature {
            features, named, ..
        } = model.signature();
        let names: Vec<_> = features.iter().map(|feature| &feature.name).collect();
        assert_eq!(names, ["size", "stock"], "{}", path.display());
        assert!(named, "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn rows_that_the_library_refuses_are_refused() {
    for folder in FOLDERS {
        let refusal = |name: &str, values: &[f64]| {
            let model = load(&golden(folder).join(format!("{name}.pkl"))).unwrap();
            let mut rows = RowBuffer::default();
            rows.values.extend(values);
            let mut out = vec![0.0; model.signature().outputs()];
            model
                .predict(rows.rows(values.len()), &mut out)
                .unwrap_err()
                .reason
        };
        let missing = "has a missing value where the model takes none";
        assert_eq!(refusal("ridge", &[1.0, f64::NAN, 1.0]), missing);
        assert_eq!(refusal("boosting", &[1.0, f64::NAN, 1.0]), missing);
        let large = "has a number that is too large for the model";
        assert_eq!(refusal("forest", &[1.0, 1e39, 1.0]), large);
        let unknown = "has a category that the model does not know";
        assert_eq!(refusal("one-hot-numbers", &[77.0]), unknown);
        let code = "has a category above 255, which the model does not take";
        match folder {
            // Since 1.4 it has its own encoder, which knows no such category.
            "sklearn-1.9" => {}
            _ => assert_eq!(refusal("histogram-codes", &[1.0, 1.0, 1.0, 300.0]), code),
        }
    }
}

/// What is not known of an estimator is refused by its name and place.
#[test]
fn what_is_not_known_of_an_estimator_is_named() {
    for folder in FOLDERS {
        for (name, known, other, words) in [
            (
                "svc-2",
                "rbf",
                "abc",
                "SVC: the kernel `abc` is not supported",
            ),
            (
                "network-2",
                "relu",
                "abcd",
                "MLPClassifier: `activation`: `abcd` is not known",
            ),
            (
                "nearest-cosine-2",
                "cosine",
                "abcdef",
                "KNeighborsClassifier: the metric `abcdef` is not supported",
            ),
            (
                "calibrated-2",
                "sigmoid",
                "abcdefg",
                "CalibratedClassifierCV: classifier 0: the method `abcdefg` is not supported",
            ),
            (
                "vote-steps",
                "DecisionTreeClassifier",
                "DecisionTreeClassifies",
                "estimator 1: Pipeline: step `decisiontreeclassifier`: DecisionTreeClassifies: this estimator is not supported",
            ),
            (
                "stack-steps",
                "predict_proba",
                "predict_probe",
                "StackingClassifier: estimator 0: it has no `predict_probe`",
            ),
            (
                "best-generic",
                "k_best",
                "k_bust",
                "GenericUnivariateSelect: the mode `k_bust` is not supported",
            ),
            (
                "from-boosting",
                "median",
                "modian",
                "SelectFromModel: `threshold`: `modian` is not known",
            ),
        ] {
            let mut bytes = fs::read(golden(folder).join(format!("{name}.pkl"))).unwrap();
            let places: Vec<usize> = (0..bytes.len() - known.len())
                .filter(|at| bytes[*at..].starts_with(known.as_bytes()))
                .collect();
            for place in places {
                bytes[place..][..known.len()].copy_from_slice(other.as_bytes());
            }
            let error = load_bytes("model", &bytes, &LoadOptions::default()).err();
            let message = error.unwrap().message;
            assert!(message.contains(words), "{folder}/{name}: {message}");
        }
    }
}

/// A file of skops with this in place of its model, and these entries beside.
fn skops(schema: &str, entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut archive = rawzip::ZipArchiveWriter::new(&mut bytes);
    let schema = [("schema.json", schema.as_bytes())];
    for (name, content) in entries.iter().chain(&schema) {
        let method = rawzip::CompressionMethod::DEFLATE;
        let entry = archive.new_file(*name).compression_method(method);
        let (mut entry, config) = entry.start().unwrap();
        let encoder = flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::fast());
        let mut writer = config.wrap(encoder);
        writer.write_all(content).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    bytes
}

fn refusal_of(schema: &str, entries: &[(&str, &[u8])]) -> String {
    let bytes = skops(schema, entries);
    let error = load_bytes("model", &bytes, &LoadOptions::default()).err();
    error.unwrap().message
}

/// What skops would make only if its list were told to trust it, and what its files may not be.
#[test]
fn what_a_file_of_skops_may_not_have_is_named() {
    let value = |class: &str, module: &str, loader: &str, more: &str| {
        format!(
            r#"{{"__class__": "{class}", "__module__": "{module}", "__loader__": "{loader}"{more}}}"#
        )
    };
    let texts = value("str", "builtins", "TypeNode", "");
    let dict = |content: &str, count: usize| {
        let kinds = vec![texts.as_str(); count].join(", ");
        let kinds = value(
            "list",
            "builtins",
            "ListNode",
            &format!(r#", "content": [{kinds}]"#),
        );
        value(
            "dict",
            "builtins",
            "DictNode",
            &format!(r#", "key_types": {kinds}, "content": {{{content}}}"#),
        )
    };
    let version = value("str", "builtins", "JsonNode", r#", "content": "\"1.9.1\"""#);
    let ridge = |name: &str, attribute: &str| {
        let state = dict(
            &format!(r#""{name}": {attribute}, "_sklearn_version": {version}"#),
            2,
        );
        let state = format!(r#", "protocol": 2, "content": {state}"#);
        value("Ridge", "sklearn.linear_model._ridge", "ObjectNode", &state)
    };
    let file = |name: &str| {
        value(
            "ndarray",
            "numpy",
            "NdArrayNode",
            &format!(r#", "type": "numpy", "file": "{name}""#),
        )
    };
    let nested = |depth: usize| {
        let open = r#"{"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": ["#;
        format!("{}{}", open.repeat(depth), "]}".repeat(depth))
    };
    for (schema, words) in [
        (
            ridge("a", &value("system", "os", "FunctionNode", "")),
            "`a`: `os.system` is no data of scikit-learn",
        ),
        (
            ridge("a", &value("eval", "builtins", "TypeNode", "")),
            "`a`: `builtins.eval` is no data",
        ),
        (
            ridge("a", &value("Mine", "__main__", "ObjectNode", "")),
            "`__main__.Mine` is a class or function of the program",
        ),
        (
            ridge(
                "a",
                &value(
                    "methodcaller",
                    "operator",
                    "OperatorFuncNode",
                    r#", "attrs": {}"#,
                ),
            ),
            "`operator.methodcaller` is no data",
        ),
        (
            ridge(
                "a",
                &value(
                    "Ridge",
                    "sklearn.linear_model._ridge",
                    "MethodNode",
                    r#", "content": {"func": "fit"}"#,
                ),
            ),
            "by the loader `MethodNode`, which is not read",
        ),
        (
            ridge("a", &file("none.npy")),
            "`a`: `none.npy`: the archive has no such entry",
        ),
        (
            ridge("a", &file("text.npy")),
            "`text.npy`: this is no array of NumPy",
        ),
        (
            ridge("a", &file("long.npy")),
            "`long.npy`: the file is cut off here",
        ),
        (
            ridge("feature_names_in_", &file("far.npy")),
            "an array of the shape [4611686018427387904, 4] has other elements",
        ),
        (
            ridge("a", &dict("", 1)),
            "a dict with other keys than types of keys",
        ),
        (ridge("a", &nested(40)), "nested deeper than 64"),
        (
            value(
                "Ridge",
                "sklearn.linear_model._ridge",
                "ObjectNode",
                r#", "protocol": 3"#,
            ),
            "protocol 3 of skops is not known",
        ),
        ("[]".into(), "`schema.json`: expected an object"),
    ] {
        let header =
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4), }";
        let start = [b"\x93NUMPY\x01\x00", &[header.len() as u8, 0][..]].concat();
        let far = [&start, header.as_bytes()].concat();
        let message = refusal_of(
            &schema,
            &[
                ("text.npy", b"text"),
                ("long.npy", b"\x93NUMPY\x01\x00\xff\xff{"),
                ("far.npy", &far),
            ],
        );
        assert!(message.contains(words), "{message}");
    }
    let twice = ridge("a", "null");
    let message = refusal_of(&twice, &[("schema.json", b"{}")]);
    assert!(
        message.contains("the archive has the entry `schema.json` twice"),
        "{message}"
    );
}

/// Whatever bytes come, there is an error, or a model that answers.
fn load_and_predict(bytes: &[u8]) {
    let Ok(model) = load_bytes("model", bytes, &LoadOptions::default()) else {
        return;
    };
    let width = model.signature().features.len();
    let mut rows = RowBuffer::default();
    for feature in &model.signature().features {
        rows.values.push(match feature.kind.is_text() {
            true => rows.texts.push("male"),
            false => 0.0,
        });
    }
    rows.values.resize(2 * width, f64::NAN);
    let mut out = vec![0.0; 2 * model.signature().outputs()];
    let _ = model.predict(rows.rows(width), &mut out);
}

#[test]
fn files_that_are_cut_off_are_refused() {
    for path in all_models() {
        let bytes = fs::read(&path).unwrap();
        for end in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            let loaded = load_bytes("model", &bytes[..end], &LoadOptions::default());
            assert!(loaded.is_err(), "{} is read to byte {end}", path.display());
        }
    }
}

#[test]
fn files_with_changed_bytes_never_panic() {
    for path in all_models() {
        let bytes = fs::read(&path).unwrap();
        for place in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
            for value in [b'h', 0xFF, bytes[place].wrapping_add(1)] {
                let mut changed = bytes.clone();
                changed[place] = value;
                load_and_predict(&changed);
            }
        }
    }
}

#[test]
fn a_code_of_no_category_is_a_missing_value() {
    let mut tried = 0;
    for path in models("sklearn-1.9") {
        let Ok(model) = load(&path) else { continue };
        let features = &model.signature().features;
        let is_category = |kind: &FeatureKind| matches!(kind, FeatureKind::Category(_));
        if !features.iter().any(|feature| is_category(&feature.kind)) {
            continue;
        }
        tried += 1;
        let outcome = |code: f64| {
            let mut buffer = RowBuffer::default();
            for feature in features {
                let value = match &feature.kind {
                    kind if kind.is_text() => buffer.texts.push("a"),
                    kind if is_category(kind) => code,
                    _ => 1.0,
                };
                buffer.values.push(value);
            }
            let mut out = vec![0.0; model.signature().outputs()];
            let refusal = model.predict(buffer.rows(features.len()), &mut out).err();
            let bits: Vec<u64> = out.into_iter().map(f64::to_bits).collect();
            (refusal.map(|refusal| refusal.reason), bits)
        };
        let missing = outcome(f64::NAN);
        for code in [1e6, -1.0] {
            let (reason, out) = outcome(code);
            assert_eq!(reason, missing.0, "{}", path.display());
            assert!(reason.is_some() || out == missing.1, "{}", path.display());
        }
    }
    assert!(tried > 0);
}
