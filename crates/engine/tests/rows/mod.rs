//! Rows of golden files as the server would make them.

use auspex_engine::{Engine, FeatureKind, RowBuffer};
use serde_json::Value;

/// The numbers that a list of rows is to a model.
pub(crate) fn rows(model: &dyn Engine, rows: &Value) -> RowBuffer {
    let features = &model.signature().features;
    let mut buffer = RowBuffer::default();
    for row in rows.as_array().unwrap() {
        let values = row.as_array().unwrap();
        assert_eq!(values.len(), features.len());
        for (value, feature) in values.iter().zip(features) {
            let number = match (&feature.kind, value) {
                (_, Value::Null) | (FeatureKind::Unused, _) => f64::NAN,
                (FeatureKind::Category(known), text) => {
                    known.iter().position(|known| text == known).unwrap() as f64
                }
                (kind, text) if kind.is_text() => buffer.texts.push(text.as_str().unwrap()),
                (_, Value::Bool(flag)) => f64::from(u8::from(*flag)),
                (_, number) => number.as_f64().unwrap(),
            };
            buffer.values.push(number);
        }
    }
    buffer
}
