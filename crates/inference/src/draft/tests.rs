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
fn a_sample_tells_types_ranges_and_an_example() {
    let folder = package(Some(NAMES));
    let header = ["id", "town", "age", "income", "owner", "kids"];
    let rows: [&[&str]; 3] = [
        &["1", "3", "52", "10.5", "True", "NaN"],
        &["2", "1", "18", "-3e2", "False", "2"],
        &["3", "3", "", "7", "True", "0"],
    ];
    let written = drafted(folder.path(), &header, &rows).expect("a good sample");
    assert_eq!(
        (written.features, written.rows, written.example),
        (5, 3, Some(2))
    );
    let loaded = Package::load(folder.path()).expect("it loads");
    assert_eq!(loaded.check_examples().expect("it is reproduced"), 1);
    let fields = &loaded.schema().features;
    let [age, income, owner, town, kids] = &fields[..] else {
        panic!("{fields:?}")
    };
    for field in [age, income, town, kids] {
        assert!(matches!(field.kind, Kind::Number), "{field:?}");
        assert_eq!((field.min, field.max), (None, None), "{field:?}");
    }
    assert!(matches!(owner.kind, Kind::Boolean));
    assert_eq!((age.optional, income.optional), (true, false));
    let text = manifest(folder.path());
    for (feature, range) in [
        ("age", "min = 18 max = 52"),
        ("income", "min = -300 max = 10.5"),
    ] {
        let comments = checks(&text, feature);
        assert!(comments.contains(range), "{comments}");
    }
    assert!(text.contains("# unused = [\"id\"]"), "{text}");
    assert!(
        text.contains("kids = nan\n"),
        "a missing value in the example: {text}"
    );
    let example: toml::Table = text.parse().expect("TOML");
    let example = &example["examples"][0];
    assert_eq!(example["input"]["town"].as_integer(), Some(3));
    let record = json!({"age": 52, "income": 10.5, "owner": true, "town": 3, "kids": null});
    let answer = predicted(&loaded, &record);
    let given = example["output"][1].as_float().expect("a number");
    let computed = answer["probabilities"][1].as_f64().expect("a number");
    assert!((given - computed).abs() < 1e-6, "{given} {computed}");
}

#[test]
fn an_unedited_draft_takes_what_the_model_takes_without_it() {
    let rows: [&[&str]; 3] = [
        &["30", "-999", "1", "1", "0"],
        &["31", "2.5", "0", "2", "1"],
        &["", "3", "1", "3", "NaN"],
    ];
    let (with, without) = (package(Some(NAMES)), package(Some(NAMES)));
    drafted(with.path(), &NAMES, &rows).expect("a good sample");
    let [with, without] =
        [with, without].map(|folder| Package::load(folder.path()).expect("it loads"));
    for values in [
        json!([1e30, -1e30, 7, -0.5, 2]),
        json!([null, null, null, null, null]),
        json!([30.5, -999, 0.25, 1.75, 3.5]),
    ] {
        let record: Map<String, Value> = NAMES
            .iter()
            .zip(values.as_array().expect("a list"))
            .map(|(n, v)| ((*n).to_owned(), v.clone()))
            .collect();
        let record = Value::Object(record);
        assert_eq!(
            predicted(&with, &record),
            predicted(&without, &record),
            "{record}"
        );
    }
}

#[test]
fn what_a_draft_refuses_from_now_on_is_said() {
    let rows: [&[&str]; 2] = [&["True", "Vigo"], &["False", ""]];
    let folder = package(Some(NAMES));
    let written = drafted(folder.path(), &["owner", "town"], &rows).expect("a good sample");
    let notes = written.notes.join("\n");
    for words in [
        "\"owner\": from now on it takes true, false, 1 and 0, and no other number",
        "\"town\": from now on null is refused",
    ] {
        assert!(notes.contains(words), "{notes}");
    }
    let folder = package(None);
    let row: &[&str] = &["1", "2", "3", "4", "5"];
    let written = drafted(folder.path(), &NAMES, &[row]).expect("five");
    let notes = written.notes.join("\n");
    assert!(
        notes.contains("f0, f1 and so on are refused from now on"),
        "{notes}"
    );
}

#[test]
fn dates_are_no_categories() {
    let many: Vec<String> = (0..1500)
        .map(|n| format!("{}-{:02}-{:02}", 1900 + n / 12, n % 12 + 1, n % 28 + 1))
        .collect();
    let many: Vec<[&str; 1]> = many.iter().map(|date| [date.as_str()]).collect();
    let many: Vec<&[&str]> = many.iter().map(|row| &row[..]).collect();
    for rows in [&many[..3], &many] {
        let folder = package(Some(NAMES));
        let written = drafted(folder.path(), &["town"], rows).expect("a good sample");
        let text = manifest(folder.path());
        let words = checks(&text, "town");
        assert!(words.contains("dates here, such as 1900-01-01"), "{words}");
        assert!(
            words.contains("send the number that your training made of them"),
            "{words}"
        );
        assert!(!text.contains("values"), "{text}");
        let is_said =
            |note: &String| note.contains("\"town\": the sample has dates such as 1900-01-01");
        assert!(written.notes.iter().any(is_said), "{:?}", written.notes);
        Package::load(folder.path()).expect("it loads");
    }
    let mixed: [&[&str]; 2] = [&["2024-01-31"], &["Vigo"]];
    let folder = package(Some(NAMES));
    drafted(folder.path(), &["town"], &mixed).expect("categories");
    let words = checks(&manifest(folder.path()), "town");
    assert!(
        words.contains("values = [\"2024-01-31\", \"Vigo\"]"),
        "{words}"
    );
}

#[test]
fn a_number_declared_as_missing_later_leaves_the_example_as_it_is() {
    let rows: [&[&str]; 3] = [
        &["-999", "1", "1", "1", "0"],
        &["30", "2", "0", "2", "1"],
        &["31", "3", "1", "3", "2"],
    ];
    let declare = |folder: &Path| {
        let text = manifest(folder);
        let declared = text.replacen("name = \"age\"\n", "name = \"age\"\nmissing = -999\n", 1);
        let ranged = declared
            .replace("# min = ", "min = ")
            .replace("# max = ", "max = ");
        fs::write(folder.join(MANIFEST), ranged).expect("written");
        Package::load(folder).map_err(|error| error.reason().to_owned())
    };
    let folder = package(Some(NAMES));
    let written = drafted(folder.path(), &NAMES, &rows).expect("a good sample");
    assert_eq!(written.example, Some(3));
    let words = checks(&manifest(folder.path()), "age");
    assert!(
        words.contains("does -999 stand for a missing value?"),
        "{words}"
    );
    let age = declare(folder.path())
        .expect("the advice is taken")
        .schema()
        .features[0]
        .clone();
    assert_eq!(
        (age.min, age.max, age.missing),
        (Some(30.0), Some(31.0), Some(-999.0))
    );
    // Where every row that is kept has one, the draft says what it does to the example.
    let suspect: &[&str] = &["30", "-999", "0", "2", "1"];
    let rows = [vec![suspect; ROWS_KEPT], vec![&["31", "6", "0", "2", "1"]]].concat();
    let folder = package(Some(NAMES));
    let written = drafted(folder.path(), &NAMES, &rows).expect("a good sample");
    assert_eq!(written.example, Some(2));
    let text = manifest(folder.path()).replace("\n# ", " ");
    assert!(
        text.contains("It is another one once -999 stands for a missing value."),
        "{text}"
    );
}

#[test]
fn integers_stay_integers_in_the_example() {
    for (number, written) in [
        ("9007199791611905", "9007199791611905"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("18446744073709551615", "1.8446744073709552e19"),
    ] {
        let folder = package(Some(NAMES));
        let row: &[&str] = &[number, "2", "3", "4", "5"];
        let made = drafted(folder.path(), &NAMES, &[row]).expect("a good sample");
        assert_eq!(made.example, Some(2), "{:?}", made.notes);
        let text = manifest(folder.path());
        assert!(text.contains(&format!("\nage = {written}\n")), "{text}");
        Package::load(folder.path()).expect("it loads");
    }
}

#[test]
fn numbers_where_the_model_has_texts_are_marked() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/homes-3.2.json");
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(golden, folder.path().join("model.json")).expect("copied");
    let mut draft = Draft::new(folder.path()).expect("a model");
    draft
        .add_json(1, r#"{"town": 15001, "rooms": 3}"#)
        .expect("a record");
    draft.write().expect("written");
    let words = checks(&manifest(folder.path()), "town");
    assert!(
        words.contains("numbers where the model has texts, such as \"Lugo\""),
        "{words}"
    );
}

fn predicted(package: &Package, record: &Value) -> Value {
    let mut answer = Vec::new();
    let line = package.predict_line(&record.to_string(), &mut answer);
    line.expect("a good record");
    serde_json::from_slice(&answer).expect("JSON")
}

/// The comment of a feature's section that is marked, in one line.
fn checks(text: &str, feature: &str) -> String {
    let (_, section) = text
        .split_once(&format!("\nname = \"{feature}\"\n"))
        .expect("its section");
    let section = section.split("\n\n").next().expect("the rest of it");
    let comments = section.lines().filter(|line| line.starts_with('#'));
    let words: Vec<&str> = comments
        .map(|line| line.trim_start_matches(['#', ' ']))
        .collect();
    words.join(" ")
}

#[test]
fn codes_of_texts_are_left_to_the_author() {
    let folder = package(Some(NAMES));
    let rows: [&[&str]; 3] = [
        &["1", "2", "1", "Vigo", "0"],
        &["1", "2", "0", "", "0"],
        &["1", "2", "1", "A Coruña", "0"],
    ];
    let written = drafted(folder.path(), &NAMES, &rows).expect("a good sample");
    assert_eq!(written.example, None, "nobody knows what to predict from");
    let is_said = |note: &String| note.contains("the codes of \"town\"");
    assert!(written.notes.iter().any(is_said), "{:?}", written.notes);
    let text = manifest(folder.path());
    let words = checks(&text, "town");
    for part in [
        "list(df[\"town\"].cat.categories)",
        "values = [\"A Coruña\", \"Vigo\"]",
        "1 of 3 rows of the sample have no value",
        "-1 in .cat.codes",
    ] {
        assert!(words.contains(part), "{words}");
    }
    let record = json!({"age": 1, "income": 2, "owner": 1, "town": "Vigo", "kids": 0});
    let draft = Package::load(folder.path()).expect("it loads");
    let refused = draft.predict_line(&record.to_string(), &mut Vec::new());
    assert!(refused.is_err(), "a text has no code yet");
    let known = text
        .replace("# type = \"category\"", "type = \"category\"")
        .replace("# values = [", "values = [\"Lugo\", ");
    fs::write(folder.path().join(MANIFEST), known).expect("written");
    let known = Package::load(folder.path()).expect("it loads");
    let other = package(Some(NAMES));
    let plain = Package::load(other.path()).expect("it loads");
    let coded = json!({"age": 1, "income": 2, "owner": 1, "town": 2, "kids": 0});
    assert_eq!(predicted(&known, &record), predicted(&plain, &coded));
    let null = json!({"age": 1, "income": 2, "owner": 1, "town": null, "kids": 0});
    let refused = known.predict_line(&null.to_string(), &mut Vec::new());
    assert!(refused.is_err(), "its code may have been -1");
}

#[test]
fn a_model_of_lightgbm_tells_names_and_categories() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/lightgbm-4.7");
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(
        golden.join("category-sets.txt"),
        folder.path().join("model.txt"),
    )
    .expect("copied");
    // The first rows of codes.json, as pandas has them.
    let header = ["town", "age", "level", "new", "share"];
    let rows: [&[&str]; 3] = [
        &["Ourense", "0.0012301533574825742", "10", "False", "0.5"],
        &["Vigo", "-0.9916465549964624", "10", "True", "0.5"],
        &["", "0.4898420501851982", "10", "True", "2.0"],
    ];
    let written = drafted(folder.path(), &header, &rows).expect("a good sample");
    assert_eq!((written.features, written.example), (5, Some(2)));
    let package = Package::load(folder.path()).expect("it loads");
    assert_eq!(package.check_examples().expect("it is reproduced"), 1);
    let [town, _, level, new, _] = &package.schema().features[..] else {
        panic!("five features")
    };
    assert!(matches!(&town.kind, Kind::Category(c) if c.values()[3] == "A Coruña"));
    assert!(matches!(&level.kind, Kind::Category(c) if c.values() == ["30", "10", "20"]));
    assert!(matches!(new.kind, Kind::Boolean) && town.optional);
    let expected = fs::read_to_string(golden.join("category-sets.expected.json")).expect("there");
    let expected: Vec<Vec<f64>> = serde_json::from_str(&expected).expect("JSON");
    for (row, expected) in rows.iter().zip(expected) {
        let town = if row[0].is_empty() {
            json!(null)
        } else {
            json!(row[0])
        };
        let (age, new): (f64, bool) = (row[1].parse().expect("a number"), row[3] == "True");
        let record =
            json!({"town": town, "age": age, "level": row[2], "new": new, "share": row[4]});
        assert_eq!(predicted(&package, &record)["prediction"], expected[0]);
    }
    let stranger = json!({"town": "Tui", "age": 1, "level": "10", "new": true, "share": "2.0"});
    let refused = package.predict_line(&stranger.to_string(), &mut Vec::new());
    assert_eq!(refused.expect_err("no category")[0].field, "town");
}

#[test]
fn what_is_guessed_is_marked() {
    let folder = package(Some(NAMES));
    let header = [" age ", "income", "owner", "town", ""];
    let rows: [&[&str]; 4] = [
        &["30", "-999", "True", "01", "0"],
        &["31", " 2.5", "False", "02", "1"],
        &["", "+3", "True", "03", "2"],
        &["33", ".5", "True", "04", "3"],
    ];
    drafted(folder.path(), &header, &rows).expect("a good sample");
    let text = manifest(folder.path());
    for (feature, words) in [
        ("age", "CHECK: the sample has only whole numbers"),
        ("age", "CHECK: 1 of 4 rows of the sample have no value"),
        ("income", "CHECK: does -999 stand for a missing value?"),
        ("owner", "CHECK: true is 1 to the model and false is 0"),
        ("town", "CHECK: cells such as 01 are taken for numbers"),
        ("kids", "CHECK: the sample has no such column"),
    ] {
        let checks = checks(&text, feature);
        assert!(checks.contains(words), "{feature}: {checks}");
    }
    assert!(!text.contains("unused"), "a column without a name: {text}");
    let package = Package::load(folder.path()).expect("it loads");
    let optional = package.schema().features.iter().map(|field| field.optional);
    let optional: Vec<bool> = optional.collect();
    assert_eq!(optional, [true, false, false, false, false]);
}

#[test]
fn numbers_that_are_categories_are_not_taken_for_their_codes() {
    let homes = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/homes-2.1.json");
    let cases: [&[&[&str]]; 2] = [&[&["15001", "1"], &["36201", "2"]], &[]];
    for rows in cases {
        let folder = tempfile::tempdir().expect("a folder");
        fs::copy(&homes, folder.path().join("model.json")).expect("copied");
        if rows.is_empty() {
            let draft = Draft::new(folder.path()).expect("a model");
            draft.write().expect("written");
        } else {
            drafted(folder.path(), &["town", "rooms"], rows).expect("a good sample");
            let words = checks(&manifest(folder.path()), "town");
            assert!(words.contains("values = [\"15001\", \"36201\"]"), "{words}");
        }
        let package = Package::load(folder.path()).expect("it loads");
        let record = json!({"town": 15001, "rooms": 1}).to_string();
        let refused = package.predict_line(&record, &mut Vec::new());
        assert_eq!(refused.expect_err("no code")[0].field, "town");
    }
}

#[test]
fn early_stopping_is_marked_with_what_takes_all() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../engine/tests/golden/3.2/best-iteration.json");
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(golden, folder.path().join("model.json")).expect("copied");
    let draft = Draft::new(folder.path()).expect("a model");
    draft.write().expect("written");
    let text = manifest(folder.path());
    assert!(text.contains("# CHECK: of "), "{text}");
    let caution = |folder: &Path| {
        let package = Package::load(folder).expect("it loads");
        package.engine().caution()
    };
    let found = caution(folder.path()).expect("the two interfaces differ");
    assert!(found.contains("Booster.predict(data) takes all"), "{found}");
    let all = text.replace("# iteration_range = [0, 0]", "iteration_range = [0, 0]");
    fs::write(folder.path().join(MANIFEST), all).expect("written");
    assert_eq!(caution(folder.path()), None);
}

#[test]
fn records_and_lists_are_samples_too() {
    for (lines, whole) in [
        (
            r#"{"age":1,"income":2.5,"owner":true,"town":3,"kids":0,"other":[1]}"#,
            "age",
        ),
        (r#"[1, 2.5, true, 3, null]"#, "age"),
        (
            r#"[{"age":1,"income":2,"owner":0,"town":3,"kids":1},{"age":1,"owner":0,"town":3,"kids":2.0}]"#,
            "income",
        ),
        (r#"[[1,2,3,4,5],[1,2,3,4,6]]"#, "kids"),
    ] {
        let folder = package(Some(NAMES));
        let mut draft = Draft::new(folder.path()).expect("a model");
        draft.add_json(1, lines).expect(lines);
        let written = draft.write().expect(lines);
        assert_eq!(written.example, Some(1), "{lines}: {:?}", written.notes);
        Package::load(folder.path()).expect(lines);
        let comments = checks(&manifest(folder.path()), whole);
        assert!(
            comments.contains("only whole numbers"),
            "{lines}: {comments}"
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
        (&["age"], &[&["inf"]], "has a number that is not finite"),
        (
            &["1", "2.5", "True", "", "7"],
            &[],
            "its first line has only values, so it is a row and no header",
        ),
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
    assert_eq!(package.schema().features[0].missing, Some(-999.0));
    let comments = checks(&manifest(folder.path()), "age");
    assert!(comments.contains("min = 30 max = 30"), "{comments}");
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
            let record = json!({
                names[0]: text, names[1]: number, names[2]: true, names[3]: 1, names[4]: 2.5, &texts[0]: 1,
            });
            // A text may be the name of a feature, and so two things at once.
            if draft.add_json(1, &record.to_string()).is_err() {
                return Ok(());
            }
        }
        match draft.write() {
            Ok(written) => {
                // The first feature is a text, unless the text is its name.
                let is_number = texts[0] == names[0];
                prop_assert_eq!(written.example.is_some(), is_number, "{:?}", written.notes);
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
