//! Explanations of a pipeline of scikit-learn, whose rows are compared with the examples of its package.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use std::fs;
use std::path::Path;

use auspex_inference::{Package, Top};
use serde_json::{Value, json};

const BYTES_MAX: usize = 1 << 20;

/// A package of a model that has no row to compare others with, with or without an example.
fn package(folder: &Path, has_example: bool) -> Package {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/explained");
    fs::copy(models.join("logistic.pkl"), folder.join("model.pkl")).unwrap();
    if has_example {
        let package = Package::load(folder).unwrap();
        let input =
            json!({"age": 30, "fare": 20, "relatives": 0, "sex": "male", "port": "Queenstown"});
        let mut out = Vec::new();
        package
            .predict(&package.parse_line(&input.to_string()).unwrap(), &mut out)
            .unwrap();
        let example = format!(
            "[[examples]]\noutput = {:?}\n[examples.input]\nage = 30\nfare = 20\nrelatives = 0\nsex = \"male\"\nport = \"Queenstown\"\n",
            out[0]
        );
        fs::write(folder.join("model.toml"), example).unwrap();
    }
    Package::load_to_explain(folder, BYTES_MAX).unwrap()
}

fn explained(package: &Package, line: &Value) -> Result<Value, String> {
    let mut out = Vec::new();
    let explained = package.explain_line(&line.to_string(), Top::ALL, &mut out);
    explained.map_err(|errors| format!("{} {}", errors[0].field, errors[0].message))?;
    Ok(serde_json::from_slice(&out).unwrap())
}

#[test]
fn rows_are_compared_with_the_examples() {
    let folder = tempfile::tempdir().unwrap();
    let usual = json!({"age": 30, "fare": 20, "relatives": 0, "sex": "male", "port": "Queenstown"});
    let other = json!({"name": "Ann", "age": 40, "fare": 20, "relatives": 0, "sex": "female", "port": "Queenstown"});

    let refused = explained(&package(folder.path(), false), &other).unwrap_err();
    assert!(
        refused.contains("add [[examples]] to model.toml"),
        "{refused}"
    );

    let package = package(folder.path(), true);
    let nothing = explained(&package, &usual).unwrap()["explanation"].take();
    assert_eq!(nothing["base"], nothing["margin"]);
    let explanation = explained(&package, &other).unwrap()["explanation"].take();
    assert_eq!(explanation["base"], nothing["base"]);
    let contributions = explanation["contributions"].as_array().unwrap();
    let of = |name: &str| {
        let mut all = contributions.iter();
        let own = all.find(|own| own["feature"] == name).unwrap();
        own["contribution"].as_f64().unwrap()
    };
    assert!(of("sex") > 0.0 && of("age") < 0.0, "{explanation}");
    let same = ["name", "fare", "relatives", "port"];
    assert!(same.iter().all(|name| of(name) == 0.0), "{explanation}");
    let number = |key: &str| explanation[key].as_f64().unwrap();
    assert!((number("base") + of("sex") + of("age") - number("margin")).abs() < 1e-12);
}

#[test]
fn no_answer_asks_a_model_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let package = package(folder.path(), true);
    let row = json!({"age": 40, "fare": 20, "relatives": 0, "sex": "female", "port": "Queenstown"});
    assert!(explained(&package, &vec![row.clone(); 64].into()).is_ok());
    let refused = explained(&package, &vec![row; 65].into()).unwrap_err();
    assert!(refused.contains("at most 64 at once"), "{refused}");
}
