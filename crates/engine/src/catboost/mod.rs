//! CatBoost models as the library saves them: `.cbm`, its own format, and JSON.
//!
//! What is read follows the library's loaders (`catboost/libs/model` of catboost/catboost) and the schemas beside
//! them; predictions follow `predict_proba` of its classifier and `predict` of its regressor. Leaves are added in
//! `f64` in the order of the trees, as there. What cannot be computed exactly is refused, never approximated.

mod asymmetric;
mod binary;
mod categories;
mod city;
mod ctr;
mod explain;
mod flat;
mod json;
mod objective;
mod parts;
mod splits;
mod symmetric;
mod tables;

use std::cell::RefCell;
use std::ops::Range;

use crate::document::{self, Fault};
use crate::explain::{Explain, Unexplained};
use crate::forest::Forest;
use crate::iterations;
use crate::signature::{FeatureKind, Output, Precision};
use crate::{Engine, LoadOptions, RowRefusal, Rows, Signature, row};
use categories::Categories;
use explain::Explained;
use objective::Loss;
use parts::{Parts, Trees};
use splits::Splits;
use symmetric::Symmetric;

/// What pandas reads as a boolean.
const BOOLEAN_TEXTS: [&str; 6] = ["True", "TRUE", "true", "False", "FALSE", "false"];

/// A loaded CatBoost model.
#[derive(Debug)]
struct Model {
    signature: Signature,
    loss: Loss,
    categories: Option<Categories>,
    booster: Booster,
    explained: Result<Explained, Unexplained>,
    /// How many trees the file has, and which of them count.
    selection: (usize, Range<usize>),
    scale: f64,
    /// One for each output.
    biases: Vec<f64>,
    /// From which probability on the library's `predict` says the second of two classes, if that is set.
    threshold: Option<f64>,
}

#[derive(Debug)]
enum Booster {
    Symmetric(Symmetric),
    Asymmetric(Box<Forest<f64>>),
}

/// Whether a file that begins like this is one in the library's own format.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    bytes.starts_with(binary::MARK)
}

/// Loads a model in the library's own format.
pub(crate) fn load_binary(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    build(binary::read(bytes)?, options)
}

/// Loads a model in JSON.
pub(crate) fn load_json(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let document = document::parse_json(bytes)?;
    build(json::read(&document)?, options)
}

fn build(mut parts: Parts, options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    parts.check()?;
    let (mut features, named) = parts.features()?;
    if features.is_empty() {
        return Err(Fault::new("a model without features"));
    }
    let width = features.len();
    let loss = parts.info.loss.unwrap_or(Loss::NONE);
    let output = loss.output(parts.outputs)?;
    let all = parts.trees.len();
    // By default all, since the library cuts those after the best iteration when it saves.
    let chosen = match options.iteration_range {
        Some(range) => iterations::resolve(range, all)?,
        None => 0..all,
    };
    let names: Vec<String> = features
        .iter()
        .map(|feature| feature.name.clone())
        .collect();
    let categories = Categories::of(&mut parts, &names)?;
    if let Some(categories) = &categories {
        for (feature, known) in features.iter_mut().enumerate() {
            if let FeatureKind::TextOrInteger { has_boolean_texts } = &mut known.kind {
                *has_boolean_texts = BOOLEAN_TEXTS
                    .iter()
                    .any(|text| categories.has_met(feature, text));
            }
        }
    }
    let columns = categories.as_ref().map_or(width, Categories::columns);
    let splits = Splits::of(&parts, width);
    // All are compiled, so that a broken tree is found even if it is not used.
    let compile = |parts: &Parts| match &parts.trees {
        Trees::Symmetric(trees) => {
            let leaves = parts.leaves.clone();
            Symmetric::new(trees, &splits, leaves, parts.outputs).map(Booster::Symmetric)
        }
        Trees::Asymmetric(trees) => {
            let trees = asymmetric::convert(trees, &splits, &parts.leaves, parts.outputs)?;
            let forest = Forest::new(&trees, asymmetric::rules(columns))?;
            Ok(Booster::Asymmetric(Box::new(forest)))
        }
    };
    let mut booster = compile(&parts)?;
    if chosen != (0..all) {
        parts.trees.keep(
            chosen.clone(),
            &mut parts.leaves,
            &mut parts.weights,
            parts.outputs,
        );
        booster = compile(&parts)?;
    }
    let explained = explain::explainer(&parts, &splits, width, options.explanation_bytes_max);
    // The library adds the bias to what begins with the first tree.
    if chosen.start > 0 {
        parts.biases.fill(0.0);
    }
    let is_of_classes = matches!(output, Output::Binary | Output::Multiclass { .. });
    let classes = match output {
        Output::Binary => 2,
        output => output.width(),
    };
    let (labels, threshold) = (parts.info.labels, parts.info.threshold);
    let signature = Signature {
        features,
        named,
        output,
        more_outputs: Vec::new(),
        class_labels: match is_of_classes && labels.len() == classes {
            true => labels,
            false => Vec::new(),
        },
        precision: Precision::F64,
        missing: None,
    };
    Ok(Box::new(Model {
        signature,
        loss,
        categories,
        booster,
        explained,
        selection: (all, chosen),
        scale: parts.scale,
        biases: parts.biases,
        threshold,
    }))
}

impl Engine for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn caution(&self) -> Option<String> {
        let is_binary = matches!(self.signature.output, Output::Binary);
        let threshold = self.threshold.filter(|threshold| *threshold != 0.5);
        threshold.filter(|_| is_binary).map(|threshold| {
            format!(
                "the file sets a probability threshold of {threshold}, by which CatBoostClassifier.predict \
                 chooses the class; the probabilities here are those of predict_proba, and the label is that \
                 of the likelier class"
            )
        })
    }

    fn description(&self) -> String {
        let trees = match &self.booster {
            Booster::Symmetric(trees) => trees.description(),
            Booster::Asymmetric(forest) => forest.description(),
        };
        let (all, chosen) = &self.selection;
        match *chosen == (0..*all) {
            true => format!("catboost, {trees}"),
            false => format!("catboost, {trees}, {} of {all} iterations", chosen.len()),
        }
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match self.explained {
            Ok(_) => Ok(self),
            Err(reason) => Err(reason),
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let width = self.signature.features.len();
        assert!(
            rows.is_empty() || rows.width() == width,
            "rows of {} values for a model of {width} features",
            rows.width(),
        );
        let outputs = self.signature.outputs();
        assert_eq!(out.len(), rows.len() * outputs, "output of another length");
        out.fill(0.0);
        self.with_columns(rows, |rows, range| {
            self.add(rows, &mut out[range.start * outputs..range.end * outputs]);
        })?;
        for row in out.chunks_exact_mut(outputs) {
            for (sum, bias) in row.iter_mut().zip(&self.biases) {
                *sum = self.scale * *sum + bias;
            }
            self.loss.transform(row);
        }
        Ok(())
    }
}

impl Model {
    fn add(&self, rows: Rows<'_>, sums: &mut [f64]) {
        match &self.booster {
            Booster::Symmetric(trees) => trees.add(rows, sums),
            Booster::Asymmetric(forest) => forest.add(rows, sums, self.signature.outputs()),
        }
    }

    /// Calls with some rows after others that have the columns too which are computed from categories, and with
    /// which they are.
    fn with_columns(
        &self,
        rows: Rows<'_>,
        mut call: impl FnMut(Rows<'_>, Range<usize>),
    ) -> Result<(), RowRefusal> {
        thread_local! {
            static WIDE: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
        }
        let Some(categories) = &self.categories else {
            call(rows, 0..rows.len());
            return Ok(());
        };
        let columns = categories.columns();
        let pass = row::rows_per_pass(columns);
        WIDE.with_borrow_mut(|wide| {
            for first in (0..rows.len()).step_by(pass) {
                let range = first..rows.len().min(first + pass);
                categories.widen(rows.slice(range.clone()), first, wide)?;
                call(Rows::new(wide, columns), range);
            }
            Ok(())
        })
    }
}

impl Explain for Model {
    fn margins(&self) -> usize {
        self.biases.len()
    }

    fn bytes(&self) -> usize {
        self.explained.as_ref().map_or(0, |own| own.bytes())
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let explained = self.explained.as_ref();
        let explained = explained.expect("`explain` has said that it is there");
        let width = self.signature.features.len() + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        self.with_columns(rows, |rows, range| {
            let out = &mut out[range.start * width..range.end * width];
            match (explained, &self.booster) {
                (Explained::Leaves(tables), Booster::Symmetric(trees)) => {
                    tables.contributions(trees, rows, margin, out);
                }
                (Explained::Trees(explainer), _) => explainer.contributions(rows, margin, out),
                (Explained::Leaves(_), Booster::Asymmetric(_)) => {
                    unreachable!("leaves are those of symmetric trees")
                }
            }
        })?;
        for row in out.chunks_exact_mut(width) {
            row.iter_mut().for_each(|value| *value *= self.scale);
            row[width - 1] += self.biases[margin];
        }
        Ok(())
    }
}
