//! Predicts rows of JSON with a model in any format that is read:
//!
//! `cargo run --release -p auspex-engine --example predict model.pkl < rows.jsonl > predictions.jsonl`
//!
//! A row is a list of values in the order of the model's features, with `null` for a missing one. Each prediction is a
//! list of numbers, as [`Engine::predict`] gives them.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::path::Path;

use auspex_engine::{Engine, FeatureKind, RowBuffer, load};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which model?")?;
    let model = load(Path::new(&path))?;
    let features = model.signature().features.len();
    let mut rows = RowBuffer::default();
    for line in io::stdin().lock().lines() {
        let values: Vec<Value> = serde_json::from_str(&line?)?;
        if values.len() != features {
            return Err(format!("{} values for {features} features", values.len()).into());
        }
        for (feature, value) in values.iter().enumerate() {
            let number = number(model.as_ref(), feature, value, &mut rows)?;
            rows.values.push(number);
        }
    }
    let outputs = model.signature().outputs();
    let mut out = vec![0.0; rows.values.len() / features * outputs];
    model.predict(rows.rows(features), &mut out)?;
    let mut stdout = io::stdout().lock();
    for row in out.chunks(outputs) {
        writeln!(stdout, "{}", serde_json::to_string(row)?)?;
    }
    Ok(())
}

/// The number that a value is to the model.
fn number(
    model: &dyn Engine,
    feature: usize,
    value: &Value,
    rows: &mut RowBuffer,
) -> Result<f64, Box<dyn Error>> {
    let feature = &model.signature().features[feature];
    let wrong = || format!("`{}`: {value} is not one of its values", feature.name);
    if value.is_null() {
        return Ok(f64::NAN);
    }
    Ok(match (&feature.kind, value) {
        (FeatureKind::Unused, _) => f64::NAN,
        (FeatureKind::Category(known), Value::String(text)) => {
            let place = known.iter().position(|known| known == text);
            place.ok_or_else(wrong)? as f64
        }
        (kind, Value::String(text)) if kind.is_text() => rows.texts.push(text),
        (FeatureKind::TextOrInteger { .. }, Value::Number(number)) if number.is_i64() => {
            rows.texts.push(&number.to_string())
        }
        (kind, Value::Number(number)) if !kind.is_text() => number.as_f64().ok_or_else(wrong)?,
        (_, Value::Bool(flag)) => f64::from(u8::from(*flag)),
        _ => return Err(wrong().into()),
    })
}
