//! Values that were missing in training are missing here: models of XGBoost, with what the process
//! that trained them predicted.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use std::path::Path;

use auspex_inference::Package;

fn data(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(file)
}

fn predict(package: &Package, line: &str) -> f64 {
    let mut out = Vec::new();
    let row = package.parse_line(line).unwrap();
    package.predict(&row, &mut out).unwrap();
    out[0]
}

/// `XGBRegressor(missing=-999)` of 1.7.6.
#[test]
fn a_number_that_stood_for_missing_values_still_does() {
    let error = Package::load(&data("missing-999.json")).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("write `missing = -999`"), "{error}");
    assert!(
        !error.contains("model.toml:"),
        "there is none that could be wrong: {error}"
    );

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data("missing-999.json"), folder.path().join("model.json")).unwrap();
    std::fs::write(folder.path().join("model.toml"), "missing = -999").unwrap();
    let package = Package::load(folder.path()).unwrap();
    for (line, trained) in [
        ("[-999, 0.5, 0.5]", 1.537_605_6_f32),
        ("[0.9, -999, 0.1]", 2.187_337),
        ("[0.9, null, 0.1]", 2.187_337),
    ] {
        assert_eq!(predict(&package, line) as f32, trained, "{line}");
    }
}

#[test]
fn null_needs_no_manifest() {
    let package = Package::load(&data("nan.ubj")).unwrap();
    let line = "[0.8690497571674405, null, 0.6219083159380683, null, 0.20042518633558049]";
    assert_eq!(predict(&package, line) as f32, 3.492_34);
    assert!(package.parse_line("[0.8, 0.1]").is_err());
}
