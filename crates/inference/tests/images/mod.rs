//! What the tests of the graph of images share (`scripts/golden/make_images.py`).

use std::path::{Path, PathBuf};

use auspex_engine::{Engine, RowBuffer};
use serde_json::Value;

pub(crate) fn data(name: &str) -> PathBuf {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    data.join(name)
}

pub(crate) fn numbers(rows: &Value) -> Vec<f64> {
    let rows = rows.as_array().unwrap().iter();
    let numbers = rows.flat_map(|row| row.as_array().unwrap());
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

pub(crate) fn predict(engine: &dyn Engine, values: &[f64]) -> Vec<f64> {
    let mut rows = RowBuffer::default();
    rows.values.extend(values);
    let rows = rows.rows(engine.signature().features.len());
    let mut out = vec![0.0; rows.len() * engine.signature().outputs()];
    engine.predict(rows, &mut out).unwrap();
    out
}

pub(crate) fn is_near(found: &[f64], wanted: &[f64]) -> bool {
    let mut pairs = found.iter().zip(wanted);
    found.len() == wanted.len() && pairs.all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0))
}
