//! The slow reader: reports everything that is wrong with a body, at once and without repeating values.
//!
//! It runs only after the fast reader of `plan` gave up. It asks the same [`Field`]s, so it accepts
//! what that one accepts.

use std::fmt::{self, Display};

use auspex_engine::{RowBuffer, Texts};
use auspex_kernel::error::shown;
use auspex_kernel::{FieldError, FieldErrors};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::explain::{EXPLAIN, Top};
use crate::plan::{FEATURES, MODEL_VERSION, Shape};
use crate::schema::{Field, Kind, Schema};

/// The place of an error that belongs to no field.
pub(crate) const WHOLE_BODY: &str = "(body)";
/// What is said of a field that there is not.
pub(crate) const UNKNOWN: &str = "is not a field of this model";
/// As deep as the JSON library itself reads.
const DEPTH_MAX: usize = 128;
/// If there are more names than this, the intended one is not searched for: that would cost more than
/// everything else.
const COMPARISONS_MAX: usize = 1024;

/// Where other servers expect the rows: TensorFlow Serving, KServe, MLflow, and what people write.
const ENVELOPES: [&str; 8] = [
    "instances",
    "inputs",
    "data",
    "records",
    "rows",
    "dataframe_records",
    "dataframe_split",
    "ndarray",
];

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read at all.
    Malformed(String),
    /// It can be read, and these fields are wrong.
    Invalid(Vec<FieldError>),
}

/// What a body holds and asks for, apart from its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) shape: Shape,
    pub(crate) explain: Option<Top>,
}

impl From<Shape> for Asked {
    fn from(shape: Shape) -> Self {
        Self {
            shape,
            explain: None,
        }
    }
}

/// What the slow reader needs to know.
#[derive(Debug)]
pub(crate) struct Reader<'s> {
    pub(crate) schema: &'s Schema,
    pub(crate) rows_max: usize,
    /// The versions a `model_version` may name; the first is that of `schema`.
    pub(crate) versions: &'s [&'s str],
}

impl Reader<'_> {
    /// Reads a whole body into `rows`.
    pub(crate) fn read(&self, text: &str, rows: &mut RowBuffer) -> Result<Asked, Refusal> {
        rows.clear();
        check_syntax(text)?;
        let mut errors = FieldErrors::default();
        let body = text.trim_ascii_start();
        let asked = match body.as_bytes()[0] {
            b'{' => self.object(&pairs(body)?, rows, &mut errors),
            b'[' => {
                self.list(&items(body)?, rows, &mut errors);
                Shape::Records.into()
            }
            _ => {
                return Err(Refusal::Malformed(
                    "the body must be a JSON object or a list of objects".into(),
                ));
            }
        };
        refuse(errors).map(|()| asked)
    }

    /// Reads a line of a file, which may also be a list of values, or a list of such lists.
    pub(crate) fn read_line(&self, text: &str, rows: &mut RowBuffer) -> Result<Asked, Refusal> {
        let line = text.trim_ascii_start();
        let holds = line.strip_prefix('[').map(str::trim_ascii_start);
        if holds.is_none_or(|first| first.starts_with('{')) {
            return self.read(text, rows);
        }
        rows.clear();
        check_syntax(text)?;
        let mut errors = FieldErrors::default();
        let items = items(line)?;
        let shape = if holds.is_some_and(|first| first.starts_with('[')) {
            self.value_lists("", &items, rows, &mut errors);
            Shape::ValueLists
        } else {
            self.positional("", &items, rows, &mut errors);
            Shape::Values
        };
        refuse(errors).map(|()| shape.into())
    }

    fn object(&self, pairs: &Pairs<'_>, rows: &mut RowBuffer, errors: &mut FieldErrors) -> Asked {
        let is_field = |name| is_known(self.schema, name);
        let positional = pairs.iter().any(|(key, value)| {
            key == FEATURES && (!is_field(FEATURES) || value.get().starts_with('['))
        });
        if !positional {
            self.record("", pairs, rows, errors);
            return Shape::Record.into();
        }
        let (mut shape, mut versions, mut explain) = (None, 0, None);
        for (key, value) in pairs {
            match key.as_str() {
                FEATURES if shape.is_some() => errors.add(FEATURES, "is given more than once"),
                FEATURES => shape = Some(self.features(value, rows, errors)),
                MODEL_VERSION if versions > 0 => {
                    errors.add(MODEL_VERSION, "is given more than once")
                }
                MODEL_VERSION => {
                    versions += 1;
                    let version: Option<String> = serde_json::from_str(value.get()).ok();
                    if !version.is_some_and(|version| self.versions.contains(&version.as_str())) {
                        let known = self.versions.iter().map(|known| format!("\"{known}\""));
                        let known: Vec<String> = known.collect();
                        let known = known.join(", ");
                        errors.add(
                            MODEL_VERSION,
                            format_args!("must be one of the strings {known}"),
                        );
                    }
                }
                EXPLAIN if explain.is_some() => errors.add(EXPLAIN, "is given more than once"),
                EXPLAIN => {
                    let read = Top::read(value.get());
                    explain = Some(read.unwrap_or_else(|wrong| {
                        errors.add(EXPLAIN, wrong);
                        None
                    }));
                }
                other => errors.add(shown(other), "does not go together with features"),
            }
        }
        Asked {
            shape: shape.unwrap_or(Shape::Values),
            explain: explain.flatten(),
        }
    }

    /// A list of records.
    fn list(&self, items: &[&RawValue], rows: &mut RowBuffer, errors: &mut FieldErrors) {
        if !self.count_fits(WHOLE_BODY, items.len(), errors) {
            return;
        }
        for (index, item) in items.iter().enumerate() {
            match item.get().starts_with('{').then(|| pairs(item.get())) {
                Some(Ok(pairs)) => self.record(&format!("[{index}]."), &pairs, rows, errors),
                _ if item.get().starts_with('{') => errors.add(
                    format_args!("[{index}]"),
                    "must be an object with the model's fields",
                ),
                _ => {
                    let message = "must be an object with the model's fields; values by position \
                                   go into {\"features\": […]}";
                    errors.add(format_args!("[{index}]"), message);
                }
            }
        }
    }

    fn count_fits(&self, field: &str, count: usize, errors: &mut FieldErrors) -> bool {
        let max = self.rows_max;
        match count {
            0 => errors.add(field, "must hold at least one instance"),
            n if n > max && max == 1 => {
                errors.add(field, format_args!("must hold one instance, not {n}"));
            }
            n if n > max => {
                errors.add(
                    field,
                    format_args!(
                        "must hold at most {max} instances, not {n}; a job takes more, see POST /v1/jobs"
                    ),
                );
            }
            _ => return true,
        }
        false
    }

    /// The value of `features`: a list of values or a list of such lists.
    fn features(&self, value: &RawValue, rows: &mut RowBuffer, errors: &mut FieldErrors) -> Shape {
        let list = value.get().starts_with('[').then(|| items(value.get()));
        let is_record = |value: &RawValue| {
            let text = value.get().trim_start_matches(['[', ' ', '\t', '\r', '\n']);
            text.starts_with('{')
        };
        if is_record(value) || list.iter().flatten().flatten().any(|item| is_record(item)) {
            let message = "has values by position; a record by name is a body of its own, {…}, and so is a \
                           list of them, [{…}, …]";
            errors.add(FEATURES, message);
            return Shape::Values;
        }
        let Some(Ok(list)) = list else {
            errors.add(
                FEATURES,
                "must be a list of values, or a list of such lists",
            );
            return Shape::Values;
        };
        if !list
            .first()
            .is_some_and(|first| first.get().starts_with('['))
        {
            self.positional(FEATURES, &list, rows, errors);
            return Shape::Values;
        }
        self.value_lists(FEATURES, &list, rows, errors);
        Shape::ValueLists
    }

    /// Rows by position.
    fn value_lists(
        &self,
        path: &str,
        list: &[&RawValue],
        rows: &mut RowBuffer,
        errors: &mut FieldErrors,
    ) {
        if !self.count_fits(path, list.len(), errors) {
            return;
        }
        for (index, row) in list.iter().enumerate() {
            let path = format!("{path}[{index}]");
            match row.get().starts_with('[').then(|| items(row.get())) {
                Some(Ok(values)) => self.positional(&path, &values, rows, errors),
                _ => errors.add(path, "must be a list of values, as the first one is"),
            }
        }
    }

    /// One row by position.
    fn positional(
        &self,
        path: &str,
        values: &[&RawValue],
        rows: &mut RowBuffer,
        errors: &mut FieldErrors,
    ) {
        let width = self.schema.features.len();
        if values.len() != width {
            let plural = if width == 1 {
                "value"
            } else {
                "values, in the order of the model's schema"
            };
            let count = values.len();
            errors.add(
                path,
                format_args!("must have {width} {plural}, not {count}"),
            );
            return;
        }
        for (index, (field, value)) in self.schema.features.iter().zip(values).enumerate() {
            match code(field, value.get(), &mut rows.texts) {
                Ok(number) => rows.values.push(number),
                Err(wrong) => errors.add(format_args!("{path}[{index}]"), wrong),
            }
        }
    }

    /// One row by name. `prefix` goes before the names in paths.
    fn record(
        &self,
        prefix: &str,
        pairs: &Pairs<'_>,
        rows: &mut RowBuffer,
        errors: &mut FieldErrors,
    ) {
        let features = &self.schema.features;
        let mut row: Vec<Option<f64>> = vec![None; features.len()];
        let mut seen = vec![false; features.len() + self.schema.unused.len()];
        for (key, value) in pairs {
            let Some(index) = position(self.schema, key) else {
                let hints = errors.count() * features.len() < COMPARISONS_MAX;
                errors.add(path(prefix, key), unknown(self.schema, key, hints));
                continue;
            };
            if std::mem::replace(&mut seen[index], true) {
                errors.add(path(prefix, key), "is given more than once");
                continue;
            }
            let coded = match features.get(index) {
                Some(field) => code(field, value.get(), &mut rows.texts),
                None => scalar(value.get()).map(|_| 0.0),
            };
            match (coded, row.get_mut(index)) {
                (Ok(number), Some(cell)) => *cell = Some(number),
                (Ok(_), None) => {}
                (Err(wrong), _) => errors.add(path(prefix, key), wrong),
            }
        }
        for (index, field) in features.iter().enumerate() {
            if !seen[index] {
                match field.absent() {
                    Some(number) => row[index] = Some(number),
                    None => errors.add(path(prefix, &field.name), "is required"),
                }
            }
        }
        let row = row.iter().map(|value| value.unwrap_or(f64::NAN));
        rows.values.extend(row);
    }
}

/// Refuses a body for its wrong fields, if there are any.
pub(crate) fn refuse(errors: FieldErrors) -> Result<(), Refusal> {
    if errors.count() == 0 {
        return Ok(());
    }
    Err(Refusal::Invalid(errors.into_list(WHOLE_BODY)))
}

/// The version a body asks for, if that much can be read.
pub(crate) fn version_asked(text: &str) -> Option<String> {
    let body = text.trim_ascii_start();
    let pairs = pairs(body.starts_with('{').then_some(body)?).ok()?;
    let (_, version) = pairs.iter().find(|(key, _)| key == MODEL_VERSION)?;
    serde_json::from_str(version.get()).ok()
}

/// Refuses what is not JSON, says where, and hints at the usual reasons.
pub(crate) fn check_syntax(text: &str) -> Result<(), Refusal> {
    let malformed = |message: String| Err(Refusal::Malformed(message));
    if text.trim_ascii().is_empty() {
        return malformed("the body is empty; send a JSON object or a list of objects".into());
    }
    if depth(text) > DEPTH_MAX {
        return malformed(format!("the body is nested deeper than {DEPTH_MAX} levels"));
    }
    let Err(error) = serde_json::from_str::<&RawValue>(text) else {
        return Ok(());
    };
    let hint = if is_literal_at(text, error.line(), error.column()) {
        "; JSON has no NaN and no Infinity: send null where a value is missing and may be"
    } else {
        ""
    };
    malformed(format!("the body is not valid JSON: {error}{hint}"))
}

/// Whether there is a number that JSON does not have just before or at that place.
fn is_literal_at(text: &str, line: usize, column: usize) -> bool {
    let Some(line) = text.lines().nth(line.saturating_sub(1)) else {
        return false;
    };
    (0..3).any(|back| {
        let at = column.saturating_sub(back);
        line.get(at..).is_some_and(|rest| {
            ["NaN", "nan", "Infinity", "inf"]
                .iter()
                .any(|word| rest.starts_with(word))
        })
    })
}

/// How deeply lists and objects nest, ignoring strings.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

type Pairs<'t> = [(String, &'t RawValue)];

/// The keys and values of an object, duplicates and all.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, &RawValue)>, Refusal> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::with_capacity(32);
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    serde_json::Deserializer::from_str(text)
        .deserialize_map(Object)
        .map_err(not_json)
}

/// The elements of a list.
pub(crate) fn items(text: &str) -> Result<Vec<&RawValue>, Refusal> {
    serde_json::from_str(text).map_err(not_json)
}

/// For what the syntax check accepts and is still not text: a lone surrogate in a key.
fn not_json(error: serde_json::Error) -> Refusal {
    Refusal::Malformed(format!("the body is not valid JSON: {error}"))
}

enum Scalar {
    Null,
    Boolean(bool),
    Number(Number),
    Text(String),
}

fn scalar(raw: &str) -> Result<Scalar, Wrong<'static>> {
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Scalar::Null),
        Some(b't') => Ok(Scalar::Boolean(true)),
        Some(b'f') => Ok(Scalar::Boolean(false)),
        Some(b'"') => serde_json::from_str(raw)
            .map(Scalar::Text)
            .map_err(|_| Wrong::Said("must be valid Unicode; it holds half of a surrogate pair")),
        Some(b'[' | b'{') => Err(Wrong::Said(
            "must be a single value, not a list or an object",
        )),
        _ => serde_json::from_str(raw)
            .map(Scalar::Number)
            .map_err(|_| Wrong::Said("must be a finite number")),
    }
}

/// What is wrong with a value.
enum Wrong<'f> {
    Said(&'static str),
    /// It is not what this field expects.
    Not(&'f Field),
}

impl Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(message) => f.write_str(message),
            Self::Not(field) => write!(f, "must be {}", field.expectation()),
        }
    }
}

/// What a value is worth to the model, or what it must be.
fn code<'f>(field: &'f Field, raw: &str, texts: &mut Texts) -> Result<f64, Wrong<'f>> {
    if raw.starts_with(['[', '{']) {
        return Err(Wrong::Not(field));
    }
    let value = scalar(raw)?;
    let coded = match &value {
        Scalar::Null => field.null(),
        Scalar::Boolean(value) => field.boolean(*value, texts),
        Scalar::Number(value) => number(field, value, texts),
        Scalar::Text(text) => field.text(text, texts),
    };
    coded.ok_or(match (&value, &field.kind) {
        (Scalar::Number(value), Kind::Number | Kind::Integer)
            if value.as_f64().is_none_or(|value| value.abs() > field.bound) =>
        {
            Wrong::Said("must be a finite number in the model's 32-bit precision")
        }
        _ => Wrong::Not(field),
    })
}

/// What a number is worth, if it is allowed there.
fn number(field: &Field, value: &Number, texts: &mut Texts) -> Option<f64> {
    match (value.as_u64(), value.as_i64()) {
        (Some(size), _) => field.integer(size, false, texts),
        (None, Some(value)) => field.integer(value.unsigned_abs(), value < 0, texts),
        (None, None) => field.number(value.as_f64()?),
    }
}

fn position(schema: &Schema, name: &str) -> Option<usize> {
    let features = schema.features.iter().map(|field| &field.name);
    features
        .chain(schema.unused.iter().map(|unused| &unused.name))
        .position(|known| known == name)
}

fn is_known(schema: &Schema, name: &str) -> bool {
    position(schema, name).is_some()
}

/// Says that there is no such field, and with `hints` which one may be meant.
pub(crate) fn unknown(schema: &Schema, name: &str, hints: bool) -> impl Display {
    fmt::from_fn(move |f| {
        f.write_str(UNKNOWN)?;
        if ENVELOPES.contains(&name) {
            return f.write_str(
                "; send a record, a list of records, or values by position as {\"features\": [[…]]}",
            );
        }
        let features = if hints { &*schema.features } else { &[] };
        let lower = name.to_lowercase();
        let near = features
            .iter()
            // A name more than twice as long is not a typing error.
            .filter(|field| name.len() <= 2 * field.name.len())
            .map(|field| {
                (
                    strsim::jaro_winkler(&lower, &field.name.to_lowercase()),
                    field,
                )
            })
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match near {
            Some((_, field)) => write!(f, "; did you mean {}?", field.name),
            None => Ok(()),
        }
    })
}

/// The path of a key in the body.
fn path(prefix: &str, name: &str) -> impl Display {
    fmt::from_fn(move |f| write!(f, "{prefix}{}", shown(name)))
}
