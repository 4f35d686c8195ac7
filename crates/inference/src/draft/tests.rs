//! Drafts load, pass their own check, and say what is wrong with a sample.

use std::fs;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Kind;

/// A package without a manifest: the golden model of five features, with other names for them, or
/// none.
fn package(names: Option<[&str; 5]>) -> tempfile::TempDir {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../engine/tests/golden/3.2/binary-logistic.json");
    let text = fs::read_to_string(golden).expect("the golden model");
    let mut model: Value = serde_json::from_str(&text).expect("JSON");
    model["learner"]["feature_names"] = names.map_or(json!([]), |names| json!(names));
    model["learner"]["feature_types"] = names.map_or(json!([]), |_| json!(vec!["float"; 5]));
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("model.json"), model.to_string()).expect("written");
    folder
}

const NAMES: [&str; 5] = ["age", "income", "owner", "town", "kids"];

/// A draft of a sample: a header and rows of cells.
fn drafted(folder: &Path, header: &[&str], rows: &[&[&str]]) -> Result<Written, String> {
    let mut draft = Draft::new(folder).map_err(|error| error.reason().to_owned())?;
    draft.begin_sample("sample.csv");
    draft.add_header(header.iter().copied())?;
    for (line, row) in rows.iter().enumerate() {
        draft.add_cells(line as u64 + 2, row.iter().copied())?;
    }
    draft.write().map_err(|error| error.reason().to_owned())
}

fn manifest(folder: &Path) -> String {
    fs::read_to_string(folder.join(MANIFEST)).expect("written")
}

#[test]
fn a_sample_tells_types_ranges_categories_and_an_example() {
    let folder = package(Some(NAMES));
    let header = ["id", "town", "age", "income", "owner", "kids"];
    let rows: [&[&str]; 3] = [
        &["1", "Vigo", "52", "10.5", "True", "NaN"],
        &["2", "A Coruña", "18", "-3e2", "False", "2"],
        &["3", "Vigo", "", "7", "True", "0"],
    ];
    let written = drafted(folder.path(), &header, &rows).expect("a good sample");
    assert_eq!(
        (written.features, written.rows, written.example),
        (5, 3, Some(2))
    );
    assert!(
        written
            .notes
            .iter()
            .any(|note| note.contains("the codes of \"town\""))
    );
    let loaded = Package::load(folder.path()).expect("it loads");
    assert_eq!(loaded.check_examples().expect("it is reproduced"), 1);
    let fields = &loaded.schema().features;
    let [age, income, owner, town, kids] = &fields[..] else {
        panic!("{fields:?}")
    };
    assert!(matches!(age.kind, Kind::Integer));
    assert_eq!(
        (age.min, age.max, age.optional),
        (Some(18.0), Some(52.0), true)
    );
    assert!(matches!(income.kind, Kind::Number));
    assert_eq!(
        (income.min, income.max, income.optional),
        (Some(-300.0), Some(10.5), false)
    );
    assert!(matches!(owner.kind, Kind::Boolean));
    assert!(
        matches!(&town.kind, Kind::Category(values) if values.values() == ["A Coruña", "Vigo"])
    );
    assert!(matches!(kids.kind, Kind::Integer));
    let text = manifest(folder.path());
    assert!(text.contains("# unused = [\"id\"]"), "{text}");
    assert!(
        text.contains("kids = nan\n"),
        "a missing value in the example: {text}"
    );
    let example: toml::Table = text.parse().expect("TOML");
    let example = &example["examples"][0];
    assert_eq!(example["input"]["town"].as_str(), Some("Vigo"));
    let (mut answer, record) = (
        Vec::new(),
        json!({"age": 52, "income": 10.5, "owner": true,
        "town": "Vigo", "kids": null}),
    );
    loaded
        .predict_line(&record.to_string(), &mut answer)
        .expect("a good record");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let given = example["output"][1].as_float().expect("a number");
    let computed = answer["probabilities"][1].as_f64().expect("a number");
    assert!((given - computed).abs() < 1e-6, "{given} {computed}");
}

#[test]
fn records_and_lists_are_samples_too() {
    for (lines, integer) in [
        (
            r#"{"age":1,"income":2.5,"owner":true,"town":3,"other":[1]}"#,
            "age",
        ),
        (r#"[1, 2.5, true, 3, null]"#, "age"),
        (r#"[{"kids":1,"income":2},{"kids":2.0}]"#, "income"),
        (r#"[[1,2,3,4,5],[1,2,3,4,6]]"#, "kids"),
    ] {
        let folder = package(Some(NAMES));
        let mut draft = Draft::new(folder.path()).expect("a model");
        draft.add_json(1, lines).expect(lines);
        let written = draft.write().expect(lines);
        assert_eq!(written.example, Some(1), "{lines}: {:?}", written.notes);
        let package = Package::load(folder.path()).expect(lines);
        let field = package
            .schema()
            .features
            .iter()
            .find(|field| field.name == integer);
        assert!(
            matches!(field.expect("there").kind, Kind::Integer),
            "{lines}"
        );
    }
}

#[test]
fn a_draft_without_a_sample_is_a_manifest_to_fill_in() {
    for names in [Some(NAMES), None] {
        let folder = package(names);
        let written = Draft::new(folder.path())
            .expect("a model")
            .write()
            .expect("written");
        assert_eq!((written.rows, written.example), (0, None));
        Package::load(folder.path()).expect("it loads");
        let text = manifest(folder.path());
        // Whoever removes the signs of comments has a manifest too.
        let filled: String = text
            .lines()
            .filter(|line| {
                !line.starts_with("# An example")
                    && !line.starts_with("# What")
                    && !line.starts_with("# Edit")
            })
            .map(|line| format!("{}\n", line.trim_start_matches("# ")))
            .collect();
        let filled = filled.replace("output = 0.5 ", "tolerance = 1\noutput = 0.5 ");
        let error = Manifest::parse(&filled).err();
        assert_eq!(error, None, "{filled}");
        fs::write(folder.path().join(MANIFEST), filled).expect("written");
        Package::load(folder.path()).expect("a single output stands for the model's own");
    }
}

#[test]
fn a_manifest_is_never_replaced() {
    let folder = package(None);
    for name in ["model.toml", "Model.toml", "model.yaml"] {
        let path = folder.path().join(name);
        fs::write(&path, "mine").expect("written");
        let error = Draft::new(folder.path())
            .expect_err("there is one")
            .to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
        fs::remove_file(path).expect("removed");
    }
    let draft = Draft::new(folder.path()).expect("none yet");
    fs::write(folder.path().join(MANIFEST), "mine").expect("written");
    let error = draft.write().expect_err("made in the meantime").to_string();
    assert!(error.contains("model.toml: File exists"), "{error}");
    assert_eq!(manifest(folder.path()), "mine");
}

#[test]
fn columns_name_the_features_of_a_model_without_names() {
    let folder = package(None);
    let row: &[&str] = &["1", "2", "3", "4", "5"];
    let error = drafted(folder.path(), &["id", "a", "b", "c", "d", "e"], &[]).expect_err("six");
    assert!(
        error.contains("6 columns, the model 5 features without names"),
        "{error}"
    );
    let error = drafted(folder.path(), &["", "a", "b", "c", "d"], &[row]).expect_err("an index");
    assert!(error.contains("index=False"), "{error}");
    let written = drafted(folder.path(), &NAMES, &[row]).expect("five");
    assert!(
        written.notes[0].contains("the names of the features"),
        "{:?}",
        written.notes
    );
    let package = Package::load(folder.path()).expect("it loads");
    let names: Vec<&str> = package.schema().features.iter().map(|f| &*f.name).collect();
    assert_eq!(names, NAMES);
}

#[test]
fn what_is_wrong_with_a_sample_is_said() {
    let many: Vec<String> = (0..1001).map(|number| format!("text {number}")).collect();
    let many: Vec<[&str; 1]> = many.iter().map(|text| [text.as_str()]).collect();
    let many: Vec<&[&str]> = many.iter().map(|row| &row[..]).collect();
    type Rows<'r> = &'r [&'r [&'r str]];
    let cases: [(&[&str], Rows<'_>, &str); 8] = [
        (&["age;income;owner"], &[], "separate them by commas"),
        (
            &["x", "y"],
            &[],
            "no column of it is a feature of the model; those are age, income",
        ),
        (&["age", "age"], &[], "two columns are called \"age\""),
        (
            &["age"],
            &[&["1"], &["2"], &["old"]],
            "column \"age\" has texts among its numbers",
        ),
        (
            &["age"],
            &[&["inf"]],
            "a number in a form that JSON has not",
        ),
        (&["age"], &[&[".5"]], "a number in a form that JSON has not"),
        (
            &["owner"],
            &[&["true"], &["2"]],
            "numbers beside true and false",
        ),
        (&["town"], &many, "more than 1000 different texts"),
    ];
    for (header, rows, words) in cases {
        let folder = package(Some(NAMES));
        let error = drafted(folder.path(), header, rows).expect_err(words);
        assert!(error.contains(words), "{error}");
        assert!(!folder.path().join(MANIFEST).exists());
    }
    for (line, words) in [
        ("{", "is no JSON record"),
        ("7", "is no JSON record"),
        ("[1, 2]", "has 2 values, the model 5 features"),
        ("[[1,2,3,4,5], 6]", "mixes records and values"),
        (
            r#"{"age": [1]}"#,
            "column \"age\" has a list or an object in it",
        ),
    ] {
        let folder = package(Some(NAMES));
        let mut draft = Draft::new(folder.path()).expect("a model");
        let error = draft.add_json(1, line).expect_err(line);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_number_that_stood_for_missing_values_does_so_in_the_draft() {
    let folder = package(Some(NAMES));
    let path = folder.path().join("model.json");
    let mut model: Value = serde_json::from_slice(&fs::read(&path).expect("there")).expect("JSON");
    model["learner"]["attributes"] = json!({"scikit_learn": r#"{"missing": -999.0}"#});
    fs::write(&path, model.to_string()).expect("written");
    let rows: [&[&str]; 2] = [&["-999", "1"], &["30", "2"]];
    drafted(folder.path(), &["age", "income"], &rows).expect("a good sample");
    assert!(manifest(folder.path()).contains("\nmissing = -999 "));
    let package = Package::load(folder.path()).expect("it loads");
    let age = &package.schema().features[0];
    assert_eq!(
        (age.min, age.max, age.missing),
        (Some(30.0), Some(30.0), Some(-999.0))
    );
}

/// Names and texts that a careless writer of TOML would trip over.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a-z\"'\\\\#\\[\\]=\n\r\t\u{0}\u{1b}\u{7f}\u{85}\u{2028}]{1,12}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_names_and_texts_are_the_draft_loads(
        names in prop::collection::hash_set(any_text().prop_filter("named", |n| !n.is_empty()), 5),
        texts in prop::collection::vec(any_text(), 1..5),
        numbers in prop::collection::vec(-1e30f64..1e30, 1..5),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let names: [&str; 5] = names.try_into().expect("five");
        let folder = package(Some(names));
        let mut draft = Draft::new(folder.path()).expect("a model");
        draft.begin_sample(&texts[0]);
        for (text, number) in texts.iter().zip(&numbers) {
            let record = json!({names[0]: text, names[1]: number, names[2]: true, &texts[0]: 1});
            // A text may be the name of a feature, and so two things at once.
            if draft.add_json(1, &record.to_string()).is_err() {
                return Ok(());
            }
        }
        match draft.write() {
            Ok(written) => {
                prop_assert_eq!(written.example, Some(1), "{:?}", written.notes);
                let package = Package::load(folder.path()).expect("it loads");
                let found: Vec<&str> = package.schema().features.iter().map(|f| &*f.name).collect();
                prop_assert_eq!(found, names);
            }
            Err(error) => {
                let is_mixed = names[..2].contains(&texts[0].as_str());
                prop_assert!(is_mixed, "{}", error);
            }
        }
    }
}
