//! What every target asserts: bytes become an error or a model that predicts, and explains if it can.
//!
//! `cargo +nightly fuzz run xgboost_json fuzz/corpus/xgboost_json crates/engine/tests/golden/3.2`
//! starts from the golden models; the first folder receives what is found.

use auspex_engine::{LoadOptions, RowBuffer, load_bytes};

/// Loads the bytes, and predicts and explains two rows, one of them with nothing but missing values.
pub fn load_and_predict(bytes: &[u8]) {
    let options = LoadOptions {
        explanation_bytes_max: 16 << 20,
        ..LoadOptions::default()
    };
    let Ok(model) = load_bytes("fuzzed", bytes, &options) else {
        return;
    };
    let (width, outputs) = (
        model.signature().features.len(),
        model.signature().outputs(),
    );
    // Two rows of that many outputs are slow, not wrong.
    if width * outputs > 1 << 24 {
        return;
    }
    let mut rows = RowBuffer::default();
    rows.values.resize(width, f64::NAN);
    for (index, feature) in model.signature().features.iter().enumerate() {
        rows.values.push(match feature.kind.is_text() {
            true => rows.texts.push("a"),
            false => index as f64 - 1.0,
        });
    }
    let mut out = vec![0.0; 2 * outputs];
    let _ = model.predict(rows.rows(width), &mut out);
    assert!(!model.description().is_empty());
    if let Ok(explained) = model.explain() {
        let mut out = vec![0.0; 2 * (width + 1)];
        let _ = explained.contributions(rows.rows(width), explained.margins() - 1, &mut out);
    }
}
