//! A first `model.toml`: what the model's file says, what a sample of its inputs shows, and an example.
//!
//! A draft loads and passes its own check before it is written, and never replaces a manifest. What
//! cannot be known, such as the codes of a category, is guessed and marked for its author to check.

mod column;
mod date;
mod text;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use auspex_engine::{Engine, LoadOptions, Signature};
use auspex_kernel::error::shown;
use serde_json::{Map, Value};

use crate::files::{
    MANIFEST, file_name, if_not_the_model, is_dangling, misnamed_manifest, model_file, names,
};
use crate::graph;
use crate::manifest::Manifest;
use crate::package::{Package, PackageError};
use crate::reads::read_file;
use crate::table;
use column::{Cell, Column};

/// How many rows of a sample are kept to make an example of.
const ROWS_KEPT: usize = 20;
/// How many columns that are no features are named.
const OTHERS_NAMED: usize = 20;

/// A manifest that is being made.
#[derive(Debug)]
pub struct Draft {
    folder: PathBuf,
    model: String,
    version: String,
    file: String,
    signature: Signature,
    engine: Option<Box<dyn Engine>>,
    columns: Vec<Column>,
    /// For each column of the sample the feature that it is.
    features: Vec<Option<usize>>,
    /// Whether names are those of the sample, since the model has none.
    names_are_guessed: bool,
    others: Vec<String>,
    source: Option<String>,
    rows: u64,
    /// The first rows by feature, each with its line.
    kept: Vec<(u64, Vec<Cell>)>,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The manifest.
    pub path: PathBuf,
    /// How many features it has.
    pub features: usize,
    /// How many rows of the sample were read.
    pub rows: u64,
    /// The line of the sample of which an example was made.
    pub example: Option<u64>,
    /// What its author should look at.
    pub notes: Vec<String>,
}

impl Draft {
    /// Loads the model of a package without a manifest.
    ///
    /// # Errors
    /// If there is a manifest, or no model that can be loaded.
    pub fn new(folder: &Path) -> Result<Self, PackageError> {
        let refuse = |message: String| PackageError::new(folder, message);
        if folder.is_file() {
            let message = "a model file alone has no model.toml; name the folder it is in";
            return Err(refuse(message.into()));
        }
        let manifest = folder.join(MANIFEST);
        if manifest.exists() || is_dangling(&manifest) {
            let message = format!("there is a {MANIFEST} already; edit it, or move it away first");
            return Err(refuse(message));
        }
        if let Some(other) = misnamed_manifest(folder) {
            let message =
                format!("the manifest is called {MANIFEST}; rename {other}, or remove it");
            return Err(refuse(message));
        }
        let path = model_file(folder).map_err(refuse)?;
        let file = file_name(&path);
        let named = |message: String| refuse(format!("{file}: {message}"));
        let bytes = read_file(&path).map_err(|error| named(error.to_string()))?;
        let engine = graph::load(&file, &bytes, &LoadOptions::default());
        let engine = engine.map_err(|message| named(message + if_not_the_model(&path)))?;
        let columns = engine.signature().features.iter();
        let columns = columns.map(Column::new).collect();
        let (model, version) = names(folder);
        Ok(Self {
            folder: folder.to_owned(),
            model,
            version,
            file,
            signature: engine.signature().clone(),
            engine: Some(engine),
            columns,
            features: Vec::new(),
            names_are_guessed: false,
            others: Vec::new(),
            source: None,
            rows: 0,
            kept: Vec::new(),
        })
    }

    /// Takes the name of the sample that rows are from.
    pub fn begin_sample(&mut self, name: &str) {
        self.source = Some(shown(name).into_owned());
    }

    /// Takes the names of the sample's columns, in their order.
    ///
    /// # Errors
    /// If they do not fit the model.
    pub fn add_header<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), String> {
        let names: Vec<&str> = names.into_iter().collect();
        let is_known = |name: &str| self.columns.iter().any(|column| column.name == name);
        if table::is_headerless(&names, is_known) {
            return Err(table::HEADERLESS.into());
        }
        let names = names.into_iter();
        let names: Vec<&str> = names.map(|name| table::trimmed(name, is_known)).collect();
        self.set_names(&names)
    }

    fn set_names(&mut self, names: &[&str]) -> Result<(), String> {
        let mut seen = std::collections::HashSet::new();
        if let Some(twice) = names.iter().find(|name| !seen.insert(**name)) {
            return Err(format!("two columns are called \"{}\"", shown(twice)));
        }
        let by_name: std::collections::HashMap<&str, usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| (column.name.as_str(), index))
            .collect();
        self.features = names
            .iter()
            .map(|name| by_name.get(name).copied())
            .collect();
        if self.features.iter().any(Option::is_some) {
            let others = names.iter().zip(&self.features);
            // A column without a name is the index of pandas.
            let others = others.filter(|(name, feature)| feature.is_none() && !name.is_empty());
            self.others = others.map(|(name, _)| (*name).to_owned()).collect();
            return Ok(());
        }
        if names.iter().any(|name| table::is_many_columns(name)) {
            return Err(table::MANY_COLUMNS.into());
        }
        let width = self.columns.len();
        if self.signature.named {
            let known: Vec<&str> = self.columns.iter().map(|c| &*c.name).take(5).collect();
            let more = if width > known.len() { ", …" } else { "" };
            return Err(format!(
                "no column of it is a feature of the model; those are {}{more}",
                shown(&known.join(", "))
            ));
        }
        if names.len() != width {
            return Err(format!(
                "it has {} columns, the model {width} features without names; leave only these, in \
                 the model's order",
                names.len()
            ));
        }
        if names.contains(&"") {
            return Err(
                "a column has no name; pandas writes its index so, unless index=False".into(),
            );
        }
        for (column, name) in self.columns.iter_mut().zip(names) {
            column.name = (*name).to_owned();
        }
        self.features = (0..width).map(Some).collect();
        self.names_are_guessed = true;
        Ok(())
    }

    /// Takes a row of a table that has the header's columns.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_cells<'c>(
        &mut self,
        line: u64,
        cells: impl IntoIterator<Item = &'c str>,
    ) -> Result<(), String> {
        let mut row = vec![Cell::Absent; self.columns.len()];
        for (feature, cell) in self.features.iter().zip(cells) {
            if let Some(feature) = feature {
                row[*feature] = Cell::Text(cell.to_owned());
            }
        }
        self.add_row(line, row)
    }

    /// Takes a line of JSON: a record, a list of values by position, or a list of either.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add_json(&mut self, line: u64, text: &str) -> Result<(), String> {
        match serde_json::from_str(text) {
            Ok(Value::Object(record)) => self.add_record(line, record),
            Ok(Value::Array(list)) => match list.first() {
                Some(Value::Object(_) | Value::Array(_)) => {
                    list.into_iter().try_for_each(|item| match item {
                        Value::Object(record) => self.add_record(line, record),
                        Value::Array(values) => self.add_values(line, values),
                        _ => Err("mixes records and values".into()),
                    })
                }
                _ => self.add_values(line, list),
            },
            _ => Err(
                "is no JSON record; each line must be one, as pandas writes them with \
                 to_json(orient=\"records\", lines=True)"
                    .into(),
            ),
        }
    }

    fn add_record(&mut self, line: u64, record: Map<String, Value>) -> Result<(), String> {
        if self.rows == 0 {
            self.set_names(&record.keys().map(String::as_str).collect::<Vec<_>>())?;
        }
        let mut row = vec![Cell::Absent; self.columns.len()];
        for (column, cell) in self.columns.iter().zip(&mut row) {
            if let Some(value) = record.get(&column.name) {
                *cell = Cell::Json(value.clone());
            }
        }
        self.add_row(line, row)
    }

    fn add_values(&mut self, line: u64, values: Vec<Value>) -> Result<(), String> {
        if values.len() != self.columns.len() {
            let (given, width) = (values.len(), self.columns.len());
            return Err(format!("has {given} values, the model {width} features"));
        }
        self.add_row(line, values.into_iter().map(Cell::Json).collect())
    }

    fn add_row(&mut self, line: u64, row: Vec<Cell>) -> Result<(), String> {
        let missing = self.signature.missing;
        for (column, cell) in self.columns.iter_mut().zip(&row) {
            let added = column.add(cell, missing);
            added.map_err(|what| format!("column \"{}\" {what}", shown(&column.name)))?;
        }
        self.rows += 1;
        if self.kept.len() < ROWS_KEPT {
            self.kept.push((line, row));
        }
        Ok(())
    }

    /// Makes the manifest, checks it, and writes it.
    ///
    /// # Errors
    /// If the sample does not fit the model, or the file cannot be written.
    pub fn write(mut self) -> Result<Written, PackageError> {
        let folder = self.folder.clone();
        let refuse = |message: String| PackageError::new(&folder, message);
        let parse = |text: &str| {
            Manifest::parse(text).map_err(|error| refuse(format!("{MANIFEST}: {error}")))
        };
        let (mut text, mut notes) = self.text().map_err(refuse)?;
        let (engine, manifest) = (self.engine.take(), parse(&text)?);
        let engine = engine.expect("it is taken once");
        let mut package = Package::assemble(&folder, &self.model, &self.version, manifest, engine)?;
        let example = self.example(&package);
        match &example {
            Ok((_, example)) => {
                text.push_str(example);
                notes.push("the output of the example: it is what this program computes".into());
            }
            Err(reason) => {
                text.push_str(&text::example_to_fill_in(&package));
                notes.extend(reason.as_ref().map(|reason| {
                    format!("examples: none of the first rows can be predicted; {reason}")
                }));
            }
        }
        // As it will be read.
        package.manifest = parse(&text)?;
        package.check_examples()?;
        let path = folder.join(MANIFEST);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| refuse(format!("{MANIFEST}: {error}")))?;
        Ok(Written {
            path,
            features: self.columns.len(),
            rows: self.rows,
            example: example.ok().map(|(line, _)| line),
            notes,
        })
    }
}

#[cfg(test)]
mod tests;
