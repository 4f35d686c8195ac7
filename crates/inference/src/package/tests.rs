//! Packages: what is loaded, and what is refused with which words.

use std::fs;
use std::time::Duration;

use auspex_engine::{Feature, FeatureKind, Output, Signature};
use auspex_kernel::clock::monotonic;

use super::*;
use crate::fixture::{REASON, REFUSED, kitchen, signature, town, try_package};

fn refusal(signature: Signature, manifest: &str) -> String {
    try_package("m", "1", signature, manifest)
        .expect_err(manifest)
        .to_string()
}

fn two() -> Signature {
    signature(2, Output::Binary)
}

fn named() -> Signature {
    let feature = |name: &str, kind| Feature {
        name: name.into(),
        kind,
        takes_missing: false,
    };
    let colours = vec!["red".into(), "green".into()];
    Signature {
        features: vec![
            feature("age", FeatureKind::Integer),
            feature("colour", FeatureKind::Category(colours)),
        ],
        named: true,
        ..two()
    }
}

const FEATURES: &str = "[[features]]\nname = \"a\"\n[[features]]\nname = \"b\"\n";

#[test]
fn a_manifest_that_does_not_fit_the_model_is_refused() {
    let one = "[[features]]\nname = \"a\"";
    assert!(refusal(two(), one).contains("[[features]] lists 1 features, the model has 2"));
    let stranger = refusal(named(), one);
    assert!(
        stranger.contains("feature \"a\" is not one of the model's: age, colour"),
        "{stranger}"
    );
    let twice = refusal(named(), &"[[features]]\nname = \"age\"\n".repeat(2));
    assert!(twice.contains("feature \"age\" is listed twice"), "{twice}");
    let labels = "[output]\nlabels = [\"only\"]";
    assert!(refusal(two(), labels).contains("[output] labels: 1 given, the model has 2 outputs"));
    assert!(
        refusal(two(), "[output]\nkind = \"numbers\"").contains("the model's output is \"binary\"")
    );
    let unused = format!("unused = [\"a\"]\n{FEATURES}");
    assert!(refusal(two(), &unused).contains("two fields are called \"a\""));
}

#[test]
fn features_that_make_no_sense_are_refused() {
    for (line, words) in [
        ("type = \"string\"", "type = \"string\" has no meaning"),
        ("type = \"category\"", "a category needs its values"),
        (
            "type = \"category\"\nvalues = [\"x\", \"x\"]",
            "no two the same",
        ),
        (
            "type = \"number\"\nvalues = [\"x\"]",
            "values are for type = \"category\"",
        ),
        (
            "type = \"number\"\nmin = 2\nmax = 1",
            "min is greater than max",
        ),
        ("type = \"number\"\nmin = nan", "min must be finite"),
        (
            "type = \"integer\"\nmin = 0.5",
            "min of an integer must be an integer",
        ),
        (
            "type = \"boolean\"\nmin = 0",
            "min is for numbers and integers",
        ),
        (
            "type = \"integer\"\nmax = 3\ndefault = 4",
            "default must be an integer of at most 3",
        ),
    ] {
        let manifest = format!("{FEATURES}{line}\n");
        let message = refusal(two(), &manifest);
        assert!(
            message.contains("feature \"b\"") && message.contains(words),
            "{message}"
        );
    }
}

/// What a line is worth to the model, with NaN as `None`.
fn row(package: &Package, line: &str) -> Result<Vec<Option<f64>>, String> {
    let row = package.parse_line(line);
    let row = row.map_err(|errors| format!("{} {}", errors[0].field, errors[0].message))?;
    let seen = |value: f64| (!value.is_nan()).then_some(value);
    Ok(row.values.into_iter().map(seen).collect())
}

fn tree(mut signature: Signature) -> Signature {
    for feature in &mut signature.features {
        feature.takes_missing = true;
    }
    signature
}

#[test]
fn a_catboost_file_tells_names_classes_and_which_inputs_are_texts() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/catboost");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model.cbm");
    fs::copy(golden.join("categories-default.cbm"), model).expect("the model");
    let package = Package::load(folder.path()).expect("a package without a manifest");
    let labels = ["no", "yes"].map(|label| Label::Text(label.into()));
    assert_eq!(package.labels(), Some(&labels[..]));
    let line = |town: &str, level: &str| {
        let rest = r#""age": null, "street": "7", "size": 0.5"#;
        row(
            &package,
            &format!(r#"{{"town": {town}, "level": {level}, {rest}}}"#),
        )
    };
    assert_eq!(line(r#""nowhere""#, "-1"), line(r#""nowhere""#, r#""-1""#));
    assert!(line("3", "1").is_ok());
    assert_eq!(line(r#""Vigo""#, "true"), line(r#""Vigo""#, "1"));
    assert_eq!(line("false", "1"), line(r#""0""#, "1"));
    let wanted = "must be a string, an integer, true or false";
    assert_eq!(line("null", "1"), Err(format!("town {wanted}")));
    assert_eq!(line(r#""Vigo""#, "1.5"), Err(format!("level {wanted}")));
}

#[test]
fn a_pipeline_of_scikit_learn_tells_columns_categories_and_what_may_be_missing() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/sklearn-1.9");
    let load = |file: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = folder.path().join("model.pkl");
        fs::copy(golden.join(file), model).expect("the model");
        Package::load(folder.path()).expect("a package without a manifest")
    };
    let package = load("titanic-3.pkl");
    let labels = ["high", "low", "middle"].map(|label| Label::Text(label.into()));
    assert_eq!(package.labels(), Some(&labels[..]));
    let line = |line: &str| {
        let mut answer = Vec::new();
        let predicted = package.predict_line(line, &mut answer);
        predicted.map_err(|errors| format!("{} {}", errors[0].field, errors[0].message))?;
        Ok::<Value, String>(serde_json::from_slice(&answer).expect("an answer in JSON"))
    };
    let answer = line(r#"{"age": null, "fare": 7.5, "rooms": 2, "sex": null, "port": "Nowhere"}"#);
    let shares = &answer.expect("a prediction")["probabilities"];
    let sum: f64 = shares
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .sum();
    assert!((sum - 1.0).abs() < 1e-12, "{shares}");
    let rooms = line(r#"{"age": 1, "fare": 7.5, "rooms": null, "sex": "male", "port": "Zürich"}"#);
    assert_eq!(rooms, Err("rooms must be a number".into()));
    let sex = line(r#"{"age": 1, "fare": 7.5, "rooms": 2, "sex": 1, "port": "Zürich"}"#);
    assert_eq!(sex, Err("sex must be a string, or null".into()));
    let package = load("one-hot.pkl");
    let wrong = row(&package, r#"{"sex": "other", "port": "Zürich"}"#);
    let listed = wrong.expect_err("it is none of the categories");
    assert!(
        listed.starts_with("sex must be") && listed.contains("female"),
        "{listed}"
    );
}

#[test]
fn a_manifest_of_very_many_features_is_read_at_once() {
    const FEATURES: usize = 100_000;
    let mut manifest = String::new();
    for feature in (0..FEATURES).rev() {
        manifest.push_str(&format!(
            "[[features]]\nname = \"f{feature}\"\nmin = {feature}\n"
        ));
    }
    let parsed = Manifest::parse(&manifest).expect("a manifest");
    let begun = monotonic();
    let schema = parsed.schema(&signature(FEATURES, Output::Binary));
    let fields = schema.expect("all are the model's").features;
    assert_eq!(fields[FEATURES - 1].min, Some(FEATURES as f64 - 1.0));
    // Comparing each name with every other one takes minutes.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_manifest_adds_to_the_file_in_any_order() {
    let manifest = "[[features]]\nname = \"colour\"\ndefault = \"red\"\n\
                    [[features]]\nname = \"age\"\nmax = 130";
    let package = try_package("m", "1", named(), manifest).expect("two sections");
    assert_eq!(
        row(&package, r#"{"age": 3}"#),
        Ok(vec![Some(3.0), Some(0.0)])
    );
    let error = row(&package, r#"{"age": 131}"#).unwrap_err();
    assert_eq!(error, "age must be an integer of at most 130");
    let one = "[[features]]\nname = \"colour\"\ndefault = \"green\"";
    let package = try_package("m", "1", named(), one).expect("one section");
    assert_eq!(
        row(&package, r#"{"age": 3}"#),
        Ok(vec![Some(3.0), Some(1.0)])
    );
    let by_number = "[[features]]\nname = \"f1\"\nmax = 1";
    let package = try_package("m", "1", two(), by_number).expect("the second of two");
    assert_eq!(
        row(&package, "[9, 2]").unwrap_err(),
        "[1] must be a number of at most 1"
    );
}

#[test]
fn null_is_missing_to_a_tree_and_an_absent_field_is_an_error() {
    let package = try_package("m", "1", tree(named()), "").expect("a package");
    let null = r#"{"age": null, "colour": null}"#;
    assert_eq!(row(&package, null), Ok(vec![None, None]));
    assert_eq!(
        row(&package, r#"{"age": 3}"#).unwrap_err(),
        "colour is required"
    );

    let strict = try_package("m", "1", tree(named()), "nullable = false").expect("a package");
    assert_eq!(row(&strict, null).unwrap_err(), "age must be an integer");
    let one = "nullable = false\n[[features]]\nname = \"age\"\nnullable = true";
    let package = try_package("m", "1", tree(named()), one).expect("a package");
    let without_age = r#"{"colour": "red"}"#;
    assert_eq!(row(&package, without_age), Ok(vec![None, Some(0.0)]));

    // A sum of weights has no way around a value that is missing.
    let linear = try_package("m", "1", named(), "").expect("a package");
    assert_eq!(row(&linear, null).unwrap_err(), "age must be an integer");
}

#[test]
fn a_number_may_stand_for_a_missing_value() {
    let manifest = "missing = -999\n[[features]]\nname = \"colour\"\nmissing = -1\n\
                    [[features]]\nname = \"age\"\nmin = 0";
    let package = try_package("m", "1", tree(named()), manifest).expect("a package");
    let codes = r#"{"age": -999, "colour": -1}"#;
    assert_eq!(row(&package, codes), Ok(vec![None, None]));
    assert_eq!(
        row(&package, r#"{"age": -998, "colour": -1}"#).unwrap_err(),
        "age must be an integer of at least 0, or -999 for a missing value, or null"
    );
    let schema = package.schema().json_schema(&serde_json::json!({}));
    let alternative = &schema["properties"]["colour"]["anyOf"][1];
    assert_eq!(alternative["enum"][0], -1, "{schema}");
    let age = schema["properties"]["age"]["anyOf"][1]["enum"][0].clone();
    assert_eq!(age, -999, "{schema}");
    crate::openapi::schema_of(schema);

    // What single precision does not tell apart is the same number.
    let decimal = try_package("m", "1", tree(two()), "missing = -9.9").expect("a package");
    assert_eq!(
        row(&decimal, "[-9.90000001, -9.91]"),
        Ok(vec![None, Some(-9.91)])
    );
}

#[test]
fn codes_of_texts_and_booleans_may_stand_for_missing_values_too() {
    let manifest = "missing = 0\n[[features]]\nname = \"age\"\ntype = \"boolean\"\ndefault = false";
    let package = try_package("m", "1", tree(named()), manifest).expect("a package");
    for (line, values) in [
        (r#"{"age": false, "colour": "red"}"#, [None, None]),
        (r#"{"age": 0, "colour": "green"}"#, [None, Some(1.0)]),
        (
            r#"{"age": true, "colour": "green"}"#,
            [Some(1.0), Some(1.0)],
        ),
        (r#"{"colour": "green"}"#, [None, Some(1.0)]),
    ] {
        assert_eq!(row(&package, line), Ok(values.to_vec()), "{line}");
    }
}

#[test]
fn a_model_trained_with_a_number_for_missing_values_needs_a_word_about_it() {
    let trained = || Signature {
        missing: Some(-999.0),
        ..tree(two())
    };
    let message = refusal(trained(), "");
    assert!(
        message.contains("write `missing = -999` at the top"),
        "{message}"
    );
    let agreed = try_package("m", "1", trained(), "missing = -999").expect("a package");
    assert_eq!(row(&agreed, "[-999, 1]"), Ok(vec![None, Some(1.0)]));
    let number = try_package("m", "1", trained(), "missing = nan").expect("a package");
    assert_eq!(row(&number, "[-999, 1]"), Ok(vec![Some(-999.0), Some(1.0)]));
}

#[test]
fn an_example_may_be_what_a_prediction_printed() {
    let one = signature(1, Output::Numbers { count: 1 });
    let example = |output: &str| format!("[[examples]]\ninput = [120585.89]\noutput = {output}");
    let printed = try_package("m", "1", one.clone(), "").expect("a package");
    let mut values = Vec::new();
    let row = printed.parse_line("[120585.89]").expect("a row");
    printed.predict(&row, &mut values).expect("a prediction");
    let single = values[0] as f32;
    try_package("m", "1", one.clone(), &example(&single.to_string())).expect("reproduced");
    let off = f64::from(single) * (1.0 + 3e-6);
    let message = refusal(one, &example(&off.to_string()));
    assert!(message.contains("output 1 is"), "{message}");
}

#[test]
fn categories_come_from_the_file_and_cannot_be_contradicted() {
    let package = try_package("m", "1", named(), "").expect("everything is in the file");
    assert_eq!(
        package
            .parse_line(r#"{"age": 3, "colour": "green"}"#)
            .map(|row| row.values),
        Ok(vec![3.0, 1.0])
    );
    let other = "[[features]]\nname = \"age\"\n[[features]]\nname = \"colour\"\nvalues = [\"green\", \"red\"]";
    assert!(refusal(named(), other).contains("values differ from the model's"));
}

#[test]
fn unknown_categories_are_missing_only_where_the_package_says_so() {
    let strict = try_package("m", "1", named(), "").expect("a package");
    assert!(
        strict
            .parse_line(r#"{"age": 3, "colour": "blue"}"#)
            .is_err()
    );
    let lenient = try_package("m", "1", named(), "unknown = \"missing\"").expect("a package");
    let row = lenient
        .parse_line(r#"{"age": 3, "colour": "blue"}"#)
        .expect("missing");
    assert!(row.values[1].is_nan());
}

#[test]
fn a_model_that_does_not_reproduce_its_examples_is_refused() {
    let good = "[[examples]]\ninput = [1, -1]\noutput = [0.5, 0.5]";
    let package = try_package("m", "1", two(), good).expect("sigmoid(0) is 0.5");
    assert_eq!(package.check_examples().expect("still"), 1);
    let wrong = "[[examples]]\ninput = [1, -1]\noutput = 0.6";
    let message = refusal(two(), wrong);
    assert!(
        message.contains("example 1: output 1 is 0.5, not 0.6 within 0.000001"),
        "{message}"
    );
    let invalid = "[[examples]]\ninput = { f0 = 1 }\noutput = 0.6";
    assert!(refusal(two(), invalid).contains("example 1: input: f1 is required"));
    let nan = "[[examples]]\ninput = [1, nan]\noutput = 0.6";
    assert!(refusal(two(), nan).contains("[1] must be a number"));
    for tolerance in ["-0.1", "nan", "inf"] {
        let lax = format!("{wrong}\ntolerance = {tolerance}");
        assert!(refusal(two(), &lax).contains("example 1: tolerance must be"));
    }
}

#[test]
fn a_model_that_reads_texts_says_so_and_gets_them() {
    let package = town();
    let row = package
        .parse_line(r#"{"town": "A Coru\u00f1a", "age": null}"#)
        .expect("valid");
    let rows = row.rows(2);
    assert_eq!(rows.text(rows.row(0)[1]), Some("A Coruña"));
    let schema = package.schema().json_schema(&package.example_record());
    assert_eq!(
        schema["properties"]["town"]["type"],
        serde_json::json!(["string", "null"])
    );
    assert_eq!(
        package.example_record(),
        serde_json::json!({"age": 2, "town": "Lugo"})
    );
    let errors = package
        .parse_line(r#"{"town": 3}"#)
        .expect_err("a number is no text");
    assert_eq!(errors[0].message, "must be a string, or null");
    for (line, words) in [
        ("type = \"number\"", "the model has it as a string"),
        ("values = [\"Lugo\"]", "values are for categories"),
        ("default = \"Lugo\"", "a string has no default"),
    ] {
        let signature = package.engine().signature().clone();
        let manifest =
            format!("[[features]]\nname = \"age\"\n[[features]]\nname = \"town\"\n{line}");
        let message = refusal(signature, &manifest);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_package_without_examples_makes_up_a_text() {
    let signature = town().engine().signature().clone();
    let package = try_package("m", "1", signature, "").expect("a package");
    assert_eq!(
        package.example_record(),
        serde_json::json!({"age": 0, "town": "text"})
    );
    assert!(package.bench().one_row_us > 0.0);
}

#[test]
fn an_example_that_the_model_refuses_is_named() {
    let signature = town().engine().signature().clone();
    let manifest = format!("[[examples]]\ninput = [1, \"{REFUSED}\"]\noutput = 1");
    assert!(refusal(signature, &manifest).contains(&format!("example 1: input: {REASON}")));
}

#[test]
fn the_manifest_is_named_with_the_key_that_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("model.toml"), "titel = \"x\"").expect("written");
    fs::write(folder.path().join("model.json"), "{}").expect("written");
    let message = Package::load(folder.path())
        .expect_err("a wrong key")
        .to_string();
    assert!(
        message.contains("model.toml: line 1: ") && message.contains("titel"),
        "{message}"
    );
}

#[test]
fn an_error_in_the_manifest_names_its_line_and_does_not_quote_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("model.json"), "{}").expect("written");
    for manifest in [
        "title = \"a\"\npassword = \"hunter2\"\n",
        "title = \"a\"\n[hunter2",
        "title = \"a\"\ndescription = [1, # hunter2",
    ] {
        fs::write(folder.path().join("model.toml"), manifest).expect("written");
        let message = Package::load(folder.path()).expect_err("wrong").to_string();
        assert!(message.contains("model.toml: line 2: "), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[test]
fn messages_about_a_manifest_speak_its_language() {
    for (manifest, words) in [
        (
            "[output]\nlabels = [0.5, 1]",
            "line 2: a label must be a string or an integer",
        ),
        ("unused = [1]", "line 1: an unused field must be a name"),
        (
            "[[examples]]\ninput = [1, 2]\noutput = \"1\"",
            "line 3: output must be a number or a list",
        ),
        (
            "[features]\nname = \"a\"",
            "line 1: features must be a list, not a table; write each of them as a section that begins \
             with [[features]]",
        ),
        (
            "features = [\"hunter2\"]",
            "line 1: features[0] must be a section that begins with [[features]], not a string",
        ),
        (
            "[[features]]\nname = \"a\"\nmin = \"hunter2\"",
            "line 3: features[0].min must be a number, not a string",
        ),
        ("[[features]]\nmin = 1", "line 1: features[0] has no name"),
        (
            "[[features]]\nname = \"a\"\ntype = \"hunter2\"",
            "line 3: features[0].type must be one of \"number\", \"integer\"",
        ),
        (
            "labels = [\"no\", \"yes\"]",
            "line 1: the key labels is in the wrong place; it belongs in [output]",
        ),
        (
            "[output]\nkind = \"binary\"\nnullable = false",
            "line 3: the key nullable is in the wrong place; it belongs at the top of the file",
        ),
        (
            "titel = 1",
            "line 1: there is no key titel; here may be title, description",
        ),
        (
            "output = 0.5",
            "output must be a section that begins with [output], not a number",
        ),
        (
            "default = \"yes\"",
            "line 1: default must be true or false, not a string",
        ),
        (
            "iteration_range = [0, -1]",
            "line 1: iteration_range[1] must be a whole number",
        ),
        (
            "iteration_range = [1]",
            "line 1: iteration_range must be a list of two numbers",
        ),
        (
            "[[features]]\nname = \"a\"\nmax = \"x, expected hunter2\"",
            "line 3: features[0].max must be a number, not a string",
        ),
        (
            "[sha256]\nx = 1",
            "line 2: sha256.x must be a string, not an integer",
        ),
        ("title = hunter2", "line 1: "),
    ] {
        let error = Manifest::parse(manifest).expect_err(manifest);
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        for word in ["f64", "struct", "map", "sequence", "u32", "variant"] {
            assert!(!error.contains(word), "a word of Rust: {error}");
        }
    }
}

#[test]
fn a_manifest_of_another_name_is_noticed() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mean-score/1");
    for name in ["Model.toml", "model.yaml", "models.toml"] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::copy(shipped.join("model.ubj"), folder.path().join("model.ubj")).expect("copied");
        fs::write(folder.path().join(name), "").expect("written");
        let error = Package::load(folder.path()).expect_err(name).to_string();
        assert!(
            error.contains(&format!("called model.toml; rename {name}")),
            "{error}"
        );
        fs::write(folder.path().join("model.toml"), "").expect("written");
        Package::load(folder.path()).expect("it has a manifest");
    }
}

#[test]
fn a_line_is_one_row_and_asks_for_nothing_else() {
    let package = try_package("m", "1", signature(1, Output::Numbers { count: 1 }), "");
    let package = package.expect("a package");
    let message = |line: &str| {
        let error = package.parse_line(line).expect_err(line).remove(0);
        format!("{}: {}", error.field, error.message)
    };
    let asks = message(r#"{"features": [1], "explain": true}"#);
    assert!(asks.starts_with("explain: is not answered here"), "{asks}");
    for two in ["[[1], [2]]", r#"{"features": [[1], [2]]}"#] {
        let message = message(two);
        assert!(
            message.ends_with("must hold one instance, not 2"),
            "{message}"
        );
    }
    let no = package.parse_line(r#"{"features": [1], "explain": false}"#);
    assert!(no.is_ok());
}

#[test]
fn lines_report_every_wrong_field() {
    let package = kitchen();
    let fields = |line: &str| -> Vec<String> {
        let errors = package.parse_line(line).expect_err(line);
        errors
            .iter()
            .map(|error| format!("{}: {}", error.field, error.message))
            .collect()
    };
    assert_eq!(
        fields(r#"{"age": 300, "sexo": "X", "active": true}"#),
        [
            "age: must be an integer between 0 and 130",
            "sexo: must be one of H, V",
        ]
    );
    assert_eq!(
        fields("[1, 2]"),
        ["(line): must have 6 values, in the order of the model's schema, not 2"]
    );
    assert!(fields("{")[0].starts_with("(line): the line is not valid JSON"));
    let target = r#"{"age": 3, "sexo": "H", "active": true, "target": 1}"#;
    assert_eq!(
        fields(target),
        [
            "target: is not a field of this model; leave it out, with pandas by df.drop(columns=[\"target\"]), or \
          have it accepted and not used by unused = [\"target\"] at the top of model.toml"
        ]
    );
    assert_eq!(
        fields("3"),
        ["(line): the line must be a JSON object or a list of objects"]
    );
}

#[test]
fn the_bench_measures_something() {
    // What else runs meanwhile may hit one of the two.
    let is_sound = (0..5).any(|_| {
        let report = kitchen().bench();
        report.one_row_us > 0.0 && report.request_us > report.json_us
    });
    assert!(is_sound);
}
