//! The example of categories in the documentation, from end to end: what its Python makes is in `data/`, by
//! `scripts/golden/make.py`.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use std::fs;
use std::path::Path;

use auspex_inference::Package;
use serde_json::{Value, json};

/// What the documentation has between marks of this kind, in its section on categories.
fn documented(kind: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/OPERATIONS.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n### Categories\n").unwrap();
    let (_, block) = section.split_once(&format!("```{kind}\n")).unwrap();
    block.split_once("```").unwrap().0.to_owned()
}

fn data(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn package(version: &str, manifest: Option<&str>) -> (tempfile::TempDir, Package) {
    let folder = tempfile::tempdir().unwrap();
    let model = data(&format!("homes-{version}.json"));
    fs::write(folder.path().join("model.json"), model).unwrap();
    if let Some(manifest) = manifest {
        fs::write(folder.path().join("model.toml"), manifest).unwrap();
    }
    let package = Package::load(folder.path()).unwrap();
    (folder, package)
}

fn predict(package: &Package, record: &Value) -> f32 {
    let mut out = Vec::new();
    let line = package.predict_line(&record.to_string(), &mut out);
    line.unwrap_or_else(|errors| panic!("{record}: {errors:?}"));
    let answer: Value = serde_json::from_slice(&out).unwrap();
    answer["prediction"].as_f64().unwrap() as f32
}

#[test]
fn the_documented_manifest_gives_what_python_gave() {
    let manifest = documented("toml");
    for (version, manifest) in [
        ("1.7", Some(&*manifest)),
        ("2.1", Some(&*manifest)),
        ("3.2", Some(&*manifest)),
        ("3.2", None),
        ("3.4", Some(&*manifest)),
        ("3.4", None),
    ] {
        let (_folder, package) = package(version, manifest);
        let rows: Vec<Value> =
            serde_json::from_str(&data(&format!("homes-{version}.rows.json"))).unwrap();
        for row in &rows {
            let record = json!({"town": row["town"], "rooms": row["rooms"]});
            let expected = row["expected"].as_f64().unwrap() as f32;
            assert_eq!(predict(&package, &record), expected, "{version} {record}");
        }
        let stranger = json!({"town": "Tui", "rooms": 1}).to_string();
        let errors = package
            .predict_line(&stranger, &mut Vec::new())
            .unwrap_err();
        assert_eq!(errors[0].field, "town");
        assert!(errors[0].message.contains("one of Lugo, Ourense, Vigo"));
    }
}

#[test]
fn codes_are_taken_only_where_the_author_says_so() {
    let bare = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/homes-2.1.json");
    let error = Package::load(&bare).unwrap_err().to_string();
    assert!(
        error.contains("feature \"town\": it is categorical"),
        "{error}"
    );
    let integer = "[[features]]\nname = \"town\"\ntype = \"integer\"\nmax = 2";
    let (_folder, package) = package("2.1", Some(integer));
    let rows: Vec<Value> = serde_json::from_str(&data("homes-2.1.rows.json")).unwrap();
    for row in &rows {
        let code = match row["town"].as_str() {
            Some("Lugo") => json!(0),
            Some("Ourense") => json!(1),
            Some("Vigo") => json!(2),
            _ => Value::Null,
        };
        let record = json!({"town": code, "rooms": row["rooms"]});
        let expected = row["expected"].as_f64().unwrap() as f32;
        assert_eq!(predict(&package, &record), expected, "{record}");
    }
}
