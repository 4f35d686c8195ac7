//! Integers that a float does not hold are rounded as in training: `XGBRegressor` of 3.2 on one column with
//! 2⁵³ and 2⁵³ + 2³⁰, and what it predicts for a number that lies just above the middle of the two.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use std::path::Path;

use auspex_inference::Package;

/// The middle is 2⁵³ + 2²⁹; to `f64` this number is the middle.
const ABOVE_THE_MIDDLE: i64 = (1 << 53) + (1 << 29) + 1;

fn predict(package: &Package, line: &str) -> f64 {
    let mut out = Vec::new();
    let row = package.parse_line(line).unwrap();
    package.predict(&row, &mut out).unwrap();
    out[0]
}

#[test]
fn a_column_of_integers_is_rounded_once_and_one_of_floats_twice() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/integers.json");
    let number = ABOVE_THE_MIDDLE;
    let record = format!("{{\"a\": {number}}}");
    // `df["a"].dtype` was int64, which the file says.
    let integers = Package::load(&data).unwrap();
    for line in [&record, &format!("[{number}]")] {
        assert_eq!(predict(&integers, line), 1.0, "{line}");
    }
    // And float64 here, where the model is the same but for that.
    let model = std::fs::read_to_string(&data).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let model = model.replace(r#""feature_types":["int"]"#, r#""feature_types":["float"]"#);
    std::fs::write(folder.path().join("model.json"), model).unwrap();
    let floats = Package::load(folder.path()).unwrap();
    assert_eq!(predict(&floats, &record), 0.0);
    // A default is a value like those of records, and the manifest's type counts.
    let manifest = format!("[[features]]\nname = \"a\"\ntype = \"integer\"\ndefault = {number}");
    std::fs::write(folder.path().join("model.toml"), manifest).unwrap();
    let integers = Package::load(folder.path()).unwrap();
    for line in [&record, "{}"] {
        assert_eq!(predict(&integers, line), 1.0, "{line}");
    }
}
