//! `model.toml`: what the author of a model adds to what its file says.

mod error;

use std::collections::HashMap;
use std::io;
use std::path::Path;

use auspex_engine::{Feature, FeatureKind, Output, Precision, Signature, Texts};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::Label;
use crate::checksums::Checksums;
use crate::reads::read_file;
use crate::schema::{Categories, F32_BOUND, Field, Kind, Schema, Unused};

/// The file as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Manifest {
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) default: bool,
    pub(crate) unknown: Unknown,
    pub(crate) iteration_range: Option<(u32, u32)>,
    /// For every feature that does not say it itself.
    nullable: Option<bool>,
    missing: Option<f64>,
    pub(crate) output: OutputSection,
    pub(crate) unused: Vec<UnusedSection>,
    pub(crate) features: Vec<FeatureSection>,
    pub(crate) examples: Vec<Example>,
    pub(crate) sha256: Checksums,
}

/// What a category that is not in the list means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unknown {
    #[default]
    Error,
    Missing,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a section that begins with [output]"
)]
pub(crate) struct OutputSection {
    kind: Option<OutputKind>,
    labels: Option<Vec<Label>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OutputKind {
    Binary,
    Multiclass,
    Class,
    Numbers,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "an unused field must be a name, or a table with name, example and description"
)]
pub(crate) enum UnusedSection {
    Name(String),
    Full(UnusedTable),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UnusedTable {
    name: String,
    example: Option<toml::Value>,
    description: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a section that begins with [[features]]"
)]
pub(crate) struct FeatureSection {
    name: String,
    #[serde(rename = "type")]
    kind: Option<FeatureType>,
    values: Option<Vec<String>>,
    min: Option<f64>,
    max: Option<f64>,
    nullable: Option<bool>,
    missing: Option<f64>,
    default: Option<toml::Value>,
    description: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FeatureType {
    Number,
    Integer,
    Boolean,
    Category,
    String,
}

/// An input and what the training library answered to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a section that begins with [[examples]]"
)]
pub(crate) struct Example {
    input: toml::Value,
    pub(crate) output: Outputs,
    pub(crate) tolerance: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "output must be a number or a list of numbers")]
pub(crate) enum Outputs {
    One(f64),
    Many(Vec<f64>),
}

impl Outputs {
    pub(crate) fn as_slice(&self) -> &[f64] {
        match self {
            Outputs::One(value) => std::slice::from_ref(value),
            Outputs::Many(values) => values,
        }
    }
}

impl Example {
    /// How far an output may be from the expected one: if the example does not say it, by no more
    /// than single precision explains.
    pub(crate) fn tolerance_of(&self, expected: f64) -> f64 {
        const USUAL: f64 = 1e-6;
        self.tolerance.unwrap_or(USUAL * expected.abs().max(1.0))
    }

    /// The input as JSON.
    pub(crate) fn input(&self) -> Value {
        json_of(&self.input)
    }
}

impl Manifest {
    /// Reads the file if it exists.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let bytes = match read_file(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error.to_string()),
        };
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text")?;
        Self::parse(&text)
    }

    /// Reads its text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let toml = toml::Deserializer::parse(text);
        let toml = toml.map_err(|error| error::of_syntax(text, &error))?;
        serde_path_to_error::deserialize(toml).map_err(|error| error::of_content(text, &error))
    }

    /// The schema of the model: from this file if it says something, else from the model's.
    pub(crate) fn schema(&self, signature: &Signature) -> Result<Schema, String> {
        if signature.features.is_empty() {
            return Err("the model has no features".into());
        }
        self.check_missing(signature)?;
        let sections = self.sections(signature)?;
        let features = signature.features.iter().zip(sections);
        let features = features
            .map(|(theirs, mine)| self.field(theirs, mine, signature))
            .collect::<Result<_, _>>()?;
        let schema = Schema {
            features,
            unused: self.unused.iter().map(Unused::from).collect(),
        };
        check_names(&schema)?;
        Ok(schema)
    }

    /// A model that was trained with a number for missing values gives wrong answers if nobody says
    /// what that number is to mean now.
    fn check_missing(&self, signature: &Signature) -> Result<(), String> {
        match (signature.missing, self.missing) {
            (Some(missing), None) => Err(format!(
                "in training {missing} stood for a missing value; write `missing = {missing}` at \
                 the top of model.toml in the model's folder so that it does here, or `missing = nan` to have \
                 it taken as a number"
            )),
            _ => Ok(()),
        }
    }

    /// What this file says about each feature: by name where the model has names or the names here
    /// are those it goes by, else by position.
    fn sections(&self, signature: &Signature) -> Result<Vec<Option<&FeatureSection>>, String> {
        let (here, there) = (self.features.len(), signature.features.len());
        let mut index_of = HashMap::new();
        for (index, feature) in signature.features.iter().enumerate() {
            index_of.entry(feature.name.as_str()).or_insert(index);
        }
        let is_stranger = |section: &&FeatureSection| !index_of.contains_key(&*section.name);
        let stranger = self.features.iter().find(is_stranger);
        match stranger {
            Some(stranger) if signature.named => {
                return Err(format!(
                    "feature \"{}\" is not one of the model's: {}",
                    stranger.name,
                    listed(signature.features.iter().map(|feature| &*feature.name))
                ));
            }
            Some(_) if here != there => {
                return Err(format!(
                    "[[features]] lists {here} features, the model has {there} and no names for \
                     them; list all, in the model's order, or call them f0, f1 and so on"
                ));
            }
            Some(_) => return Ok(self.features.iter().map(Some).collect()),
            None => {}
        }
        let mut sections = vec![None; there];
        for section in &self.features {
            let index = index_of[section.name.as_str()];
            if sections[index].replace(section).is_some() {
                return Err(format!("feature \"{}\" is listed twice", section.name));
            }
        }
        Ok(sections)
    }

    /// A feature by what the model's file and this one say of it.
    fn field(
        &self,
        theirs: &Feature,
        mine: Option<&FeatureSection>,
        signature: &Signature,
    ) -> Result<Field, String> {
        let mut field = from_file(theirs);
        field.unknown_is_missing = self.unknown == Unknown::Missing;
        if signature.precision == Precision::F32 {
            field.bound = F32_BOUND;
        }
        let nullable = mine.and_then(|mine| mine.nullable).or(self.nullable);
        field.nullable = nullable.unwrap_or(theirs.takes_missing);
        field.optional = nullable == Some(true) || theirs.kind == FeatureKind::Unused;
        let missing = mine.and_then(|mine| mine.missing).or(self.missing);
        let missing = missing.filter(|missing| !missing.is_nan());
        field.missing = missing.map(|missing| field.rounded(missing));
        match mine {
            Some(mine) => mine
                .describe(field, theirs)
                .map_err(|message| format!("feature \"{}\": {message}", mine.name)),
            None if theirs.kind == FeatureKind::Code => {
                Err(format!("feature \"{}\": {CODES_UNKNOWN}", theirs.name))
            }
            None => Ok(field),
        }
    }

    /// The labels of the answer, checked against the model's output.
    pub(crate) fn labels(&self, signature: &Signature) -> Result<Option<Vec<Label>>, String> {
        let (kind, count) = match signature.output {
            Output::Binary => (OutputKind::Binary, 2),
            Output::Multiclass { classes } => (OutputKind::Multiclass, classes),
            Output::Class { classes } => (OutputKind::Class, classes),
            Output::Numbers { count } => (OutputKind::Numbers, count),
        };
        if self.output.kind.is_some_and(|stated| stated != kind) {
            let kind = format!("{kind:?}").to_lowercase();
            return Err(format!("[output] kind: the model's output is \"{kind}\""));
        }
        let Some(labels) = &self.output.labels else {
            return Ok(crate::answer::own_labels(signature));
        };
        if labels.len() != count {
            let given = labels.len();
            return Err(format!(
                "[output] labels: {given} given, the model has {count} outputs"
            ));
        }
        let distinct: std::collections::HashSet<_> = labels.iter().collect();
        if distinct.len() != count {
            return Err("[output] labels: two are the same".into());
        }
        Ok(Some(labels.clone()))
    }
}

impl FeatureSection {
    /// The field with what this section says of it.
    fn describe(&self, field: Field, theirs: &Feature) -> Result<Field, String> {
        let kind = self.kind(theirs)?;
        let is_numeric = matches!(kind, Kind::Number | Kind::Integer);
        let is_integer = matches!(kind, Kind::Integer);
        for (key, bound) in [("min", self.min), ("max", self.max)] {
            match bound {
                Some(_) if !is_numeric => return Err(format!("{key} is for numbers and integers")),
                Some(value) if !value.is_finite() => return Err(format!("{key} must be finite")),
                Some(value) if is_integer && value.trunc() != value => {
                    return Err(format!("{key} of an integer must be an integer"));
                }
                _ => {}
            }
        }
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            return Err("min is greater than max".into());
        }
        let mut field = Field {
            name: self.name.clone(),
            kind,
            min: self.min,
            max: self.max,
            description: self.description.clone(),
            ..field
        };
        field.default = self
            .default
            .as_ref()
            .map(|value| default(&field, value))
            .transpose()?;
        Ok(field)
    }

    fn kind(&self, theirs: &Feature) -> Result<Kind, String> {
        let from_file = from_file(theirs).kind;
        let Some(stated) = self.kind else {
            return match self.values {
                Some(_) => self.categories(&theirs.kind),
                None if theirs.kind == FeatureKind::Code => Err(CODES_UNKNOWN.into()),
                None => Ok(from_file),
            };
        };
        if stated != FeatureType::Category {
            if self.values.is_some() {
                return Err("values are for type = \"category\"".into());
            }
            let is_code = theirs.kind == FeatureKind::Code && stated == FeatureType::Number;
            if is_code || matches!(theirs.kind, FeatureKind::Category(_)) {
                return Err("the model has it as a category".into());
            }
        }
        if stated != FeatureType::String && theirs.kind.is_text() {
            return Err("the model has it as a string".into());
        }
        match stated {
            FeatureType::String if theirs.kind.is_text() => Ok(Kind::Text),
            FeatureType::String if theirs.kind == FeatureKind::Unused => Ok(Kind::Text),
            FeatureType::Number => Ok(Kind::Number),
            FeatureType::Integer => Ok(Kind::Integer),
            FeatureType::Boolean => Ok(Kind::Boolean),
            FeatureType::Category => self.categories(&theirs.kind),
            FeatureType::String => Err("type = \"string\" has no meaning for this kind of model; \
                                        write type = \"category\" and its values in the order of \
                                        their codes"
                .into()),
        }
    }

    fn categories(&self, theirs: &FeatureKind) -> Result<Kind, String> {
        let values = match (&self.values, theirs) {
            (_, theirs) if theirs.is_text() => return Err("values are for categories".into()),
            (Some(mine), FeatureKind::Category(theirs)) if mine != theirs => {
                return Err("values differ from the model's; leave them out to use those".into());
            }
            (Some(values), _) => values,
            (None, FeatureKind::Category(values)) => values,
            (None, _) => {
                return Err("a category needs its values, in the order of their codes".into());
            }
        };
        let distinct: std::collections::HashSet<_> = values.iter().collect();
        if values.is_empty() || distinct.len() != values.len() {
            return Err("values must be at least one, and no two the same".into());
        }
        Ok(Kind::Category(Categories::new(values.clone())))
    }
}

fn from_file(feature: &Feature) -> Field {
    let kind = match &feature.kind {
        FeatureKind::Number => Kind::Number,
        FeatureKind::Integer | FeatureKind::Code => Kind::Integer,
        FeatureKind::Boolean => Kind::Boolean,
        FeatureKind::Category(values) => Kind::Category(Categories::new(values.clone())),
        FeatureKind::Text | FeatureKind::TextOrInteger { .. } => Kind::Text,
        FeatureKind::Unused => Kind::Any,
    };
    let has_boolean_texts = match feature.kind {
        FeatureKind::TextOrInteger { has_boolean_texts } => Some(has_boolean_texts),
        _ => None,
    };
    Field {
        integers_are_texts: has_boolean_texts.is_some(),
        booleans_are_integers: has_boolean_texts == Some(false),
        ..Field::new(&feature.name, kind)
    }
}

/// Numbers that are categories themselves, such as 15001, would be taken for codes and give wrong answers.
const CODES_UNKNOWN: &str = "it is categorical, and the model's file does not say which code each category has; describe it \
     in a section of [[features]] in model.toml, in the model's folder: type = \"category\" with values = [\u{2026}] as \
     list(df[\"NAME\"].cat.categories) prints them in training, or type = \"integer\" if records hold the codes";

/// Names for a message, which stays short.
fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    const SHOWN: usize = 20;
    let count = names.len();
    let shown: Vec<&str> = names.take(SHOWN).collect();
    let more = if count > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

fn default(field: &Field, value: &toml::Value) -> Result<f64, String> {
    if matches!(field.kind, Kind::Text) {
        return Err("a string has no default; make it nullable, or leave it required".into());
    }
    let coded = match value {
        toml::Value::Integer(value) => {
            field.integer(value.unsigned_abs(), *value < 0, &mut Texts::default())
        }
        toml::Value::Float(value) => field.number(*value),
        toml::Value::Boolean(value) => field.boolean(*value, &mut Texts::default()),
        toml::Value::String(text) => field.text(text, &mut Texts::default()),
        _ => None,
    };
    coded.ok_or_else(|| format!("default must be {}", field.expectation()))
}

fn check_names(schema: &Schema) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    let features = schema.features.iter().map(|field| &field.name);
    for name in features.chain(schema.unused.iter().map(|unused| &unused.name)) {
        if name.is_empty() {
            return Err("a field has an empty name".into());
        }
        if !seen.insert(name) {
            return Err(format!("two fields are called \"{name}\""));
        }
    }
    Ok(())
}

impl From<&UnusedSection> for Unused {
    fn from(section: &UnusedSection) -> Self {
        match section {
            UnusedSection::Name(name) => Unused {
                name: name.clone(),
                example: None,
                description: None,
            },
            UnusedSection::Full(table) => Unused {
                name: table.name.clone(),
                example: table.example.as_ref().map(json_of),
                description: table.description.clone(),
            },
        }
    }
}

/// TOML has no null: `nan` stands for a missing value.
fn json_of(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(value) => json!(value),
        toml::Value::Float(value) => json!(value),
        toml::Value::Boolean(value) => json!(value),
        toml::Value::Datetime(value) => json!(value.to_string()),
        toml::Value::Array(values) => values.iter().map(json_of).collect(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), json_of(value)))
            .collect(),
    }
}
