//! What one record of a model looks like, and which number each of its values becomes.
//!
//! The fast and the slow reader both ask [`Field`] what a value is worth, so that they cannot
//! disagree.

mod categories;

use auspex_engine::{RowBuffer, Rows, Texts};
use serde_json::{Map, Value, json};

pub use categories::Categories;

/// The largest magnitude that is finite as an IEEE 754 binary32.
pub(crate) const F32_BOUND: f64 = 3.402_823_5e38;
/// Integers up to here are exact as an IEEE 754 binary64.
const EXACT_MAX: u64 = 1 << 53;

/// The inputs of a model.
#[derive(Clone, Debug)]
pub struct Schema {
    /// In the model's order.
    pub features: Vec<Field>,
    /// Accepted and ignored.
    pub unused: Vec<Unused>,
}

/// One input.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its key in a record.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// The least number allowed.
    pub min: Option<f64>,
    /// The greatest number allowed.
    pub max: Option<f64>,
    /// Whether it may be null, which the model sees as "missing".
    pub nullable: bool,
    /// Whether it may be left out, as if it were null.
    pub optional: bool,
    /// The number that means "missing", as the model sees numbers.
    pub(crate) missing: Option<f64>,
    /// The value used when it is left out, as the model sees it.
    pub default: Option<f64>,
    /// For display.
    pub description: Option<String>,
    /// Whether a category not in the list counts as missing instead of as an error.
    pub unknown_is_missing: bool,
    /// Whether a whole number is the text that it is written as, and a boolean that of 1 or 0.
    pub(crate) integers_are_texts: bool,
    /// Whether a cell such as `True` is a boolean, as pandas reads it, and not a text.
    pub(crate) booleans_are_integers: bool,
    /// Numbers beyond this magnitude are not finite to the model.
    pub(crate) bound: f64,
}

/// The type of an input.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Any finite number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`, or 1 or 0.
    Boolean,
    /// One of some strings, coded by position.
    Category(Categories),
    /// Any string.
    Text,
    /// A string, a number, true or false: the model makes nothing of it.
    Any,
}

/// A field that is accepted and ignored.
#[derive(Clone, Debug)]
pub struct Unused {
    /// Its key in a record.
    pub name: String,
    /// A typical value.
    pub example: Option<Value>,
    /// For display.
    pub description: Option<String>,
}

impl Field {
    /// A field with no rule but its type.
    pub(crate) fn new(name: impl Into<String>, kind: Kind) -> Self {
        Self {
            name: name.into(),
            kind,
            min: None,
            max: None,
            nullable: false,
            optional: false,
            missing: None,
            default: None,
            description: None,
            unknown_is_missing: false,
            integers_are_texts: false,
            booleans_are_integers: false,
            bound: f64::MAX,
        }
    }

    /// Whether a record must have it.
    pub fn required(&self) -> bool {
        !self.optional && self.default.is_none()
    }

    /// What a number with a fraction or an exponent is worth, if it is allowed here.
    #[inline]
    pub(crate) fn number(&self, value: f64) -> Option<f64> {
        self.allowed(value, value)
    }

    /// What a number without them is worth, if it is allowed here. A column of integers is rounded to
    /// `f32` once in training; one of numbers was `f64` before, so that it is rounded twice.
    #[inline]
    pub(crate) fn integer(&self, size: u64, is_negative: bool, texts: &mut Texts) -> Option<f64> {
        if self.integers_are_texts {
            // To the slow reader `-0` is a number with a fraction.
            let is_integer = size > 0 || !is_negative;
            return is_integer.then(|| texts.push_integer(size, is_negative));
        }
        let signed = |size: f64| if is_negative { -size } else { size };
        let value = signed(size as f64);
        let is_rounded = size > EXACT_MAX && self.bound == F32_BOUND;
        match self.kind {
            Kind::Integer if is_rounded => self.allowed(value, signed(f64::from(size as f32))),
            _ => self.allowed(value, value),
        }
    }

    /// What a number is worth that the model takes as `worth`.
    #[inline]
    fn allowed(&self, value: f64, worth: f64) -> Option<f64> {
        if matches!(self.kind, Kind::Any) {
            return Some(f64::NAN);
        }
        let seen = self.seen(worth);
        (seen.is_nan() || self.fits(value)).then_some(seen)
    }

    /// The number, or NaN where it stands for a missing value, codes of texts and booleans included:
    /// in training they were numbers like any other.
    #[inline]
    fn seen(&self, value: f64) -> f64 {
        match self.missing {
            Some(missing) if self.rounded(value) == missing => f64::NAN,
            _ => value,
        }
    }

    /// A number in the precision of the model.
    pub(crate) fn rounded(&self, value: f64) -> f64 {
        if self.bound == F32_BOUND {
            f64::from(value as f32)
        } else {
            value
        }
    }

    #[inline]
    fn fits(&self, value: f64) -> bool {
        let in_range = self.min.is_none_or(|min| value >= min)
            && self.max.is_none_or(|max| value <= max)
            && value.abs() <= self.bound;
        match self.kind {
            Kind::Number => in_range,
            Kind::Integer => in_range && value.trunc() == value,
            Kind::Boolean => value == 0.0 || value == 1.0,
            Kind::Category(_) | Kind::Text | Kind::Any => false,
        }
    }

    /// What a text is worth, if it is allowed here; one that the model itself reads is added to
    /// `texts`.
    #[inline]
    pub(crate) fn text(&self, text: &str, texts: &mut Texts) -> Option<f64> {
        match &self.kind {
            Kind::Any => Some(f64::NAN),
            Kind::Text => Some(texts.push(text)),
            Kind::Category(categories) => match categories.code(text) {
                Some(code) => Some(self.seen(code)),
                None => self.unknown_is_missing.then_some(f64::NAN),
            },
            _ => None,
        }
    }

    /// What `true` or `false` is worth, if it is allowed here.
    #[inline]
    pub(crate) fn boolean(&self, value: bool, texts: &mut Texts) -> Option<f64> {
        if self.integers_are_texts {
            // To CatBoost they are the integers.
            return Some(texts.push_integer(u64::from(value), false));
        }
        let code = f64::from(u8::from(value));
        match self.kind {
            Kind::Any => Some(f64::NAN),
            Kind::Boolean => Some(self.seen(code)),
            _ => None,
        }
    }

    /// What `null` is worth, if it is allowed here.
    #[inline]
    pub(crate) fn null(&self) -> Option<f64> {
        self.nullable.then_some(f64::NAN)
    }

    /// What the field is worth when it is left out, if that is allowed.
    pub(crate) fn absent(&self) -> Option<f64> {
        self.default.or(self.optional.then_some(f64::NAN))
    }

    /// What a value must be, as the end of "age must be …".
    pub fn expectation(&self) -> String {
        let mut text = match &self.kind {
            Kind::Number => ranged("a number", self.min, self.max),
            Kind::Integer => ranged("an integer", self.min, self.max),
            Kind::Boolean => "true or false".to_owned(),
            Kind::Text if self.integers_are_texts => {
                "a string, an integer, true or false".to_owned()
            }
            Kind::Text => "a string".to_owned(),
            Kind::Any => "a string, a number, true or false".to_owned(),
            Kind::Category(_) if self.unknown_is_missing => "a string".to_owned(),
            Kind::Category(categories) => categories.listed(),
        };
        if let Some(missing) = self.missing {
            text.push_str(&format!(", or {missing} for a missing value"));
        }
        if self.nullable {
            text.push_str(", or null");
        }
        text
    }

    /// The JSON Schema of its value.
    pub fn json_schema(&self) -> Value {
        let mut schema = self.type_schema();
        if let Some(missing) = self.missing.filter(|missing| !self.fits(*missing)) {
            let description = schema.remove("description");
            let stands_for = json!({
                "type": "number", "enum": [tidy(missing)], "description": "A missing value.",
            });
            schema = Map::from_iter([("anyOf".into(), json!([schema, stands_for]))]);
            schema.extend(description.map(|text| ("description".into(), text)));
        }
        if let Some(default) = self.default {
            schema.insert("default".into(), self.decode(default));
        }
        Value::Object(schema)
    }

    /// Without what stands beside the type: a number for a missing value, a default. An `enum` never
    /// has values of two types, for which languages with enumerations have no name.
    fn type_schema(&self) -> Map<String, Value> {
        let mut schema = match &self.kind {
            Kind::Number => json!({"type": "number"}),
            Kind::Integer => json!({"type": "integer"}),
            Kind::Boolean => json!({"anyOf": [
                {"type": "boolean"},
                {"type": "integer", "minimum": 0, "maximum": 1},
            ]}),
            Kind::Category(categories) if !self.unknown_is_missing => {
                json!({"type": "string", "enum": categories.values()})
            }
            Kind::Text if self.integers_are_texts => {
                json!({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]})
            }
            Kind::Category(_) | Kind::Text => json!({"type": "string"}),
            Kind::Any => {
                json!({"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}]})
            }
        };
        if matches!(self.kind, Kind::Number | Kind::Integer) {
            let low = self.min.unwrap_or(f64::MIN).max(-self.bound);
            let high = self.max.unwrap_or(f64::MAX).min(self.bound);
            if low > f64::MIN {
                schema["minimum"] = tidy(low);
            }
            if high < f64::MAX {
                schema["maximum"] = tidy(high);
            }
        }
        if self.nullable {
            schema = or_null(schema);
        }
        let described = self.description.iter();
        let described = described.map(|text| ("description".to_owned(), json!(text)));
        described
            .chain(schema.as_object().cloned().unwrap_or_default())
            .collect()
    }

    /// A number of the model's row as a record would have it; `Null` for a text, which is not in
    /// the number.
    pub(crate) fn decode(&self, value: f64) -> Value {
        match &self.kind {
            _ if value.is_nan() => Value::Null,
            Kind::Text | Kind::Any => Value::Null,
            Kind::Number | Kind::Integer => tidy(value),
            Kind::Boolean => json!(value != 0.0),
            Kind::Category(categories) => categories
                .values()
                .get(value as usize)
                .map_or(Value::Null, |value| json!(value)),
        }
    }

    /// A valid value, for made-up examples.
    fn sample(&self, texts: &mut Texts) -> f64 {
        if let Some(default) = self.default {
            return default;
        }
        match &self.kind {
            Kind::Boolean | Kind::Category(_) => 0.0,
            Kind::Text => texts.push("text"),
            Kind::Any => f64::NAN,
            Kind::Number | Kind::Integer => match (self.min, self.max) {
                (Some(min), Some(max)) => ((min + max) / 2.0).trunc().clamp(min, max),
                (Some(min), None) => min,
                (None, Some(max)) => max,
                (None, None) => 0.0,
            },
        }
    }
}

impl Schema {
    /// The JSON Schema of one record, without `$schema` and title.
    pub fn json_schema(&self, example: &Value) -> Value {
        let mut properties = Map::new();
        for field in &self.features {
            properties.insert(field.name.clone(), field.json_schema());
        }
        for unused in &self.unused {
            let mut schema = json!({
                "type": ["string", "number", "boolean", "null"],
                "description": unused.description.as_deref().unwrap_or("Accepted and not used."),
            });
            if let Some(example) = &unused.example {
                schema["examples"] = json!([example]);
            }
            properties.insert(unused.name.clone(), schema);
        }
        let required: Vec<&str> = self
            .features
            .iter()
            .filter(|field| field.required())
            .map(|field| field.name.as_str())
            .collect();
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
            "examples": [example],
        });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        schema
    }

    /// A valid row, for made-up examples.
    pub(crate) fn sample(&self) -> RowBuffer {
        let mut row = RowBuffer::default();
        for field in &self.features {
            let value = field.sample(&mut row.texts);
            row.values.push(value);
        }
        row
    }

    /// Copies the first of some rows.
    pub(crate) fn append(&self, to: &mut RowBuffer, rows: Rows<'_>) {
        for (field, value) in self.features.iter().zip(rows.row(0)) {
            let value = match field.kind {
                Kind::Text => rows
                    .text(*value)
                    .map_or(f64::NAN, |text| to.texts.push(text)),
                _ => *value,
            };
            to.values.push(value);
        }
    }

    /// The first of some rows as the record it would come from.
    pub(crate) fn record_of(&self, rows: Rows<'_>) -> Value {
        let used = self.features.iter().zip(rows.row(0));
        let mut record: Map<String, Value> = used
            .map(|(field, value)| {
                let value = match field.kind {
                    Kind::Text => json!(rows.text(*value)),
                    _ => field.decode(*value),
                };
                (field.name.clone(), value)
            })
            .collect();
        for unused in &self.unused {
            if let Some(example) = &unused.example {
                record.insert(unused.name.clone(), example.clone());
            }
        }
        Value::Object(record)
    }
}

fn ranged(what: &str, min: Option<f64>, max: Option<f64>) -> String {
    match (min, max) {
        (Some(min), Some(max)) if min == max => format!("{min}"),
        (Some(min), Some(max)) => format!("{what} between {min} and {max}"),
        (Some(min), None) => format!("{what} of at least {min}"),
        (None, Some(max)) => format!("{what} of at most {max}"),
        (None, None) => what.to_owned(),
    }
}

/// The schema with null allowed too.
fn or_null(mut schema: Value) -> Value {
    let nothing = json!({"type": "null"});
    if let Some(alternatives) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        alternatives.push(nothing);
    } else if schema.get("enum").is_some() {
        schema = json!({"anyOf": [schema, nothing]});
    } else {
        schema["type"] = json!([schema["type"], "null"]);
    }
    schema
}

/// Whole numbers without `.0`.
pub(crate) fn tidy(value: f64) -> Value {
    if value.trunc() == value && value.abs() < 9e15 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: Kind) -> Field {
        Field::new("x", kind)
    }

    #[test]
    fn whole_floats_are_integers_and_others_not() {
        let mut age = field(Kind::Integer);
        (age.min, age.max) = (Some(0.0), Some(130.0));
        assert_eq!(age.number(56.0), Some(56.0));
        assert_eq!(age.number(56.5), None);
        assert_eq!(age.number(131.0), None);
        assert_eq!(age.boolean(true, &mut Texts::default()), None);
        assert_eq!(age.expectation(), "an integer between 0 and 130");
    }

    #[test]
    fn whole_numbers_are_texts_where_the_model_takes_them_so() {
        let mut level = field(Kind::Text);
        let mut texts = Texts::default();
        assert_eq!(level.integer(3, false, &mut texts), None);
        assert_eq!(level.boolean(true, &mut texts), None);
        level.integers_are_texts = true;
        assert_eq!(level.integer(3, true, &mut texts), Some(0.0));
        assert_eq!(texts.get(0.0), Some("-3"));
        assert_eq!(level.number(3.5), None);
        for (value, text) in [(true, "1"), (false, "0")] {
            let number = level.boolean(value, &mut texts).expect("a text");
            assert_eq!(texts.get(number), Some(text));
        }
        assert_eq!(level.expectation(), "a string, an integer, true or false");
    }

    #[test]
    fn what_the_model_makes_nothing_of_is_of_any_type() {
        let name = field(Kind::Any);
        let mut texts = Texts::default();
        let worth = [
            name.text("Braund, Mr. Owen", &mut texts),
            name.integer(22, false, &mut texts),
            name.number(0.5),
            name.boolean(true, &mut texts),
        ];
        assert!(worth.iter().all(|worth| worth.is_some_and(f64::is_nan)));
        assert_eq!((texts, name.null()), (Texts::default(), None));
        assert_eq!(name.expectation(), "a string, a number, true or false");
        let types = json!([{"type": "string"}, {"type": "number"}, {"type": "boolean"}]);
        assert_eq!(name.json_schema(), json!({"anyOf": types}));
    }

    #[test]
    fn booleans_are_also_zero_and_one() {
        let flag = field(Kind::Boolean);
        let mut texts = Texts::default();
        assert_eq!(
            (flag.boolean(true, &mut texts), flag.number(1.0)),
            (Some(1.0), Some(1.0))
        );
        assert_eq!(
            (flag.number(2.0), flag.text("true", &mut texts)),
            (None, None)
        );
    }

    #[test]
    fn long_lists_of_categories_are_cut_in_messages() {
        let many = (0..30).map(|i| format!("c{i}")).collect();
        let text = field(Kind::Category(Categories::new(many))).expectation();
        assert!(text.ends_with("c18, c19 … (30 in all)"), "{text}");
    }

    #[test]
    fn json_schema_states_range_null_and_values() {
        let mut income = field(Kind::Number);
        (income.min, income.nullable, income.bound) = (Some(0.0), true, F32_BOUND);
        let expected = json!({"type": ["number", "null"], "minimum": 0, "maximum": F32_BOUND});
        assert_eq!(income.json_schema(), expected);
        let sex = field(Kind::Category(Categories::new(vec![
            "H".into(),
            "V".into(),
        ])));
        assert_eq!(
            sex.json_schema(),
            json!({"type": "string", "enum": ["H", "V"]})
        );
    }
}
