//! Models of scikit-learn from pickles and files of skops, of 1.0 to 1.9, without Python.
//!
//! A fitted pipeline is read into steps of our own, which compute what those of the library compute, in `f64` and in
//! its order. Each reader takes the attributes that its estimator has after `fit`, checks how they fit together, and
//! refuses whatever it does not know: a model is computed as the library does it, or not at all.
//!
//! Between steps there are rows of numbers. A text is the number of a word among those that the model's own encoders
//! and imputers know; the first thing that happens to a row is that its texts become such numbers.

mod adaboost;
mod bayes;
mod bins;
mod boosters;
mod boosting;
mod build;
mod calibrate;
mod cluster;
mod compose;
mod curves;
mod decay;
mod discriminant;
mod donors;
mod encode;
mod ensemble;
mod factors;
mod importance;
mod impute;
mod isolation;
mod linear;
mod link;
mod neighbors;
mod network;
mod polynomials;
mod process;
mod reduce;
mod scale;
mod select;
mod sets;
mod sparse;
mod splines;
mod stack;
mod steps;
mod svm;
mod text;
mod tokens;
mod trees;
mod vectors;
mod version;
mod zeros;

use std::collections::HashSet;

use crate::document::Fault;
use crate::explain::{self, Asked, Background, Compared, Explain, Unexplained};
use crate::pickle::{self, Archive, Array, Pickle, View};
use crate::signature::{ClassLabel, Output, Precision};
use crate::{Engine, Feature, FeatureKind, LoadOptions, RowBuffer, RowRefusal, Rows, Signature};
use build::{Builder, Columns, Explained, InputUse, Use, WIDTH_MAX, Words};
use steps::{Predictor, Transform};
use version::Version;

/// Rows that go through all steps together, and how many values they have at most.
const ROWS_PER_PASS: usize = 128;
const VALUES_PER_PASS: usize = 1 << 20;

/// The word that stands for all that the model does not know.
const UNKNOWN: f64 = -1.0;

/// Python's `None` where the library tells it from NaN: a NaN of bits of its own, which is NaN to all that computes.
const NONE: f64 = f64::from_bits(0x7FF8_0000_0000_0001);

fn is_none(value: f64) -> bool {
    value.to_bits() == NONE.to_bits()
}

/// Up to how many inputs each is tried without a value; of more, all together.
const TRIED_MAX: usize = 1024;

/// How deeply the estimator may be that has the names of the inputs, or the classes.
const DEPTH_MAX: usize = 24;

/// A loaded model.
#[derive(Debug)]
struct Model {
    signature: Signature,
    version: Version,
    name: String,
    inputs: Vec<Input>,
    words: Words,
    predictor: Box<dyn Predictor>,
    rows_per_pass: usize,
    /// The input that each column of the last step comes from, where that step explains itself.
    sources: Option<Box<[u32]>>,
    /// What its other explanations compare rows with, as the first step takes them.
    compared: Compared,
}

/// How a value of a row becomes a number for the first step.
#[derive(Debug)]
struct Input {
    form: Form,
    /// What a missing value is.
    null: f64,
}

#[derive(Debug)]
enum Form {
    AsItIs,
    /// The word of each category.
    Category(Vec<f64>),
    /// A text, whose word is looked up.
    Text,
    /// A text whose terms count; it stays in the table of the rows.
    Document,
}

/// Loads a model from a pickle that is not compressed.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    load_unpacked(bytes, bytes.len(), options)
}

/// Loads a model from the pickle in a compressed file of so many bytes.
pub(crate) fn load_unpacked(
    bytes: &[u8],
    file_bytes: usize,
    options: &LoadOptions,
) -> Result<Box<dyn Engine>, Fault> {
    load_values(&pickle::read(bytes, file_bytes)?, options)
}

/// Loads a model from a file of skops.
pub(crate) fn load_skops(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let archive = Archive::open(bytes)?;
    load_values(&pickle::read_skops(&archive)?, options)
}

fn load_values(values: &Pickle<'_>, options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let root = chosen(values.root())?;
    if let Some(booster) = boosters::read(root, options)? {
        return Ok(Box::new(booster));
    }
    let version = Version::of(root)?;
    let (names, named) = input_names(root)?;
    let explained = Explained {
        step: build::last_of(root).identity(),
        bytes_max: options.explanation_bytes_max,
    };
    let mut builder = Builder::new(names.len(), version, explained);
    let predictor = builder.predictor(root, &Columns::inputs(names.len()))?;
    let labels = match predictor.labels() {
        Some(labels) => labels.to_vec(),
        None => labels(root, predictor.output())?,
    };
    let widest = builder.widest().max(predictor.output().width());
    let rows_per_pass = (VALUES_PER_PASS / widest).clamp(1, ROWS_PER_PASS);
    let sources = builder.take_sources();
    let sources = sources.filter(|_| predictor.explain().is_some());
    let (words, uses) = builder.finish();
    let missing = take_missing(predictor.as_ref(), &uses);
    let features = names.into_iter().zip(&uses).zip(missing);
    let features = features.map(|((name, used), takes_missing)| Feature {
        name,
        kind: kind_of(used),
        takes_missing,
    });
    let features: Vec<Feature> = features.collect();
    let background = background(predictor.as_ref(), &uses, &words, &features, options);
    let signature = Signature {
        features,
        named,
        output: predictor.output(),
        class_labels: labels,
        more_outputs: predictor.more().to_vec(),
        precision: Precision::F64,
        missing: None,
    };
    Ok(Box::new(Model {
        signature,
        version,
        name: build::class_name(root)?.to_owned(),
        inputs: uses.iter().map(|used| Input::of(used, &words)).collect(),
        words,
        predictor,
        rows_per_pass,
        sources,
        compared: Compared(background),
    }))
}

/// The estimator that predicts: of a search over parameters, the best one.
fn chosen<'p, 'a>(root: View<'p, 'a>) -> Result<View<'p, 'a>, Fault> {
    let name = build::class_name(root)
        .map_err(|fault| Fault(format!("{}; save the fitted estimator itself", fault.0)))?;
    match name.ends_with("SearchCV") {
        true => root
            .required("best_estimator_")
            .map_err(|fault| fault.inside(name)),
        false => Ok(root),
    }
}

impl Input {
    fn of(used: &InputUse, words: &Words) -> Self {
        let form = match (&used.kind, &used.categories) {
            (Some(Use::Text), Some(categories)) => {
                Form::Category(categories.iter().map(|text| words.get(text)).collect())
            }
            (Some(Use::Text), None) => Form::Text,
            (Some(Use::Document), _) => Form::Document,
            _ => Form::AsItIs,
        };
        let null = used.null();
        Self { form, null }
    }

    /// Whether the values of rows are taken as they are.
    fn is_plain(&self) -> bool {
        matches!(self.form, Form::AsItIs | Form::Document) && !is_none(self.null)
    }
}

fn kind_of(used: &InputUse) -> FeatureKind {
    match (&used.kind, &used.categories) {
        (Some(Use::Text), Some(categories)) => FeatureKind::Category(categories.clone()),
        (Some(Use::Text), None) | (Some(Use::Document), _) => FeatureKind::Text,
        (Some(Use::Boolean), _) => FeatureKind::Boolean,
        (Some(Use::Number), _) => FeatureKind::Number,
        (None, _) => FeatureKind::Unused,
    }
}

/// Which inputs may be missing: those without which a row still has a prediction.
fn take_missing(predictor: &dyn Predictor, uses: &[InputUse]) -> Vec<bool> {
    let mut table = RowBuffer::default();
    let document = table.texts.push("");
    table.values.push(document);
    let typical = |used: &InputUse| match used.kind {
        Some(Use::Text) => used.sample.unwrap_or(UNKNOWN),
        Some(Use::Document) => document,
        _ => used.sample.unwrap_or(0.0),
    };
    let mut row: Vec<f64> = uses.iter().map(typical).collect();
    let nulls: Vec<f64> = uses.iter().map(InputUse::null).collect();
    let more = predictor.more().iter().map(|more| more.output.width());
    let mut out = vec![0.0; predictor.output().width() + more.sum::<usize>()];
    let mut predicts = |row: &[f64]| {
        predictor
            .predict(table.rows(1).reshaped(row, row.len()), &mut out)
            .is_ok()
    };
    if uses.len() > TRIED_MAX {
        return vec![predicts(&nulls); uses.len()];
    }
    let mut tried = Vec::with_capacity(uses.len());
    for index in 0..row.len() {
        let value = std::mem::replace(&mut row[index], nulls[index]);
        tried.push(predicts(&row));
        row[index] = value;
    }
    tried
}

/// A row of typical values, if the file has one of each input that is used.
fn background(
    predictor: &dyn Predictor,
    uses: &[InputUse],
    words: &Words,
    features: &[Feature],
    options: &LoadOptions,
) -> Result<Background, Unexplained> {
    if margins(predictor).is_none() {
        return Err(Unexplained::Kind);
    }
    if options.explanation_bytes_max == 0 {
        return Err(Unexplained::NotAsked);
    }
    let mut row = RowBuffer::default();
    for (used, feature) in uses.iter().zip(features) {
        let text = used.typical.and_then(|typical| words.text(typical));
        let typical = match (&feature.kind, &used.kind) {
            (_, None) => Some(f64::NAN),
            // What a text adds is told against one without words.
            (_, Some(Use::Document)) => Some(row.texts.push("")),
            (FeatureKind::Text, _) => text.map(|text| row.texts.push(text)),
            (FeatureKind::Category(all), _) => {
                let place = all.iter().position(|one| Some(one.as_str()) == text);
                place.map(|place| place as f64)
            }
            _ => used.typical,
        };
        row.values.push(typical.ok_or(Unexplained::NoBackground)?);
    }
    Background::new(row.rows(uses.len()), features, options)
}

/// How many numbers of a row are explained: the library's decision where there is one for each class, else what is predicted.
fn margins(predictor: &dyn Predictor) -> Option<usize> {
    if let Some(decision) = decision(predictor) {
        return Some(decision.width());
    }
    match predictor.output() {
        Output::Class { .. } => None,
        output => Some(output.width()),
    }
}

fn decision(predictor: &dyn Predictor) -> Option<&dyn Transform> {
    let wanted = match predictor.output() {
        Output::Binary | Output::Class { classes: 2 } => 1,
        Output::Multiclass { classes } | Output::Class { classes } => classes,
        Output::Numbers { .. } => return None,
    };
    let decision = predictor.decision();
    decision.filter(|decision| decision.width() == wanted)
}

/// This attribute of the first estimator that gets the inputs and has it.
fn first_with<'p, 'a>(root: View<'p, 'a>, name: &str) -> Option<View<'p, 'a>> {
    first(root, |view| view.get(name))
}

/// What is found at the first estimator that gets the inputs and has it.
fn first<'p, 'a>(
    root: View<'p, 'a>,
    find: impl Fn(View<'p, 'a>) -> Option<View<'p, 'a>>,
) -> Option<View<'p, 'a>> {
    let mut view = root;
    for _ in 0..DEPTH_MAX {
        if let Some(found) = find(view) {
            return Some(found);
        }
        let lists = ["calibrated_classifiers_", "estimators_"].iter();
        let members = lists.filter_map(|list| view.get(list)?.as_list()?.first().copied());
        let names = [
            "estimator_",
            "best_estimator_",
            "estimator",
            "base_estimator",
            "regressor_",
        ]
        .iter();
        let mut inner = members.chain(names.filter_map(|name| view.get(name)));
        if let Some(inner) = inner.find(|inner| inner.class().is_some()) {
            view = inner;
            continue;
        }
        let lists = ["steps", "transformer_list"].iter();
        let first = lists.filter_map(|list| view.get(list)?.as_list()).next()?;
        // A step that is passed has none.
        let mut estimators = first
            .iter()
            .filter_map(|step| step.as_list()?.get(1).copied());
        view = estimators.find(|step| step.class().is_some())?;
    }
    None
}

/// Whether the first estimator takes texts themselves, and not a table.
fn takes_texts(root: View<'_, '_>) -> bool {
    first_with(root, "ngram_range").is_some()
}

/// Names of the inputs, and whether they are those of the file.
fn input_names(root: View<'_, '_>) -> Result<(Vec<String>, bool), Fault> {
    if let Some(names) = first_with(root, "feature_names_in_") {
        let texts = Array::read(names)?.texts();
        let texts =
            texts.ok_or_else(|| Fault::new("`feature_names_in_`: a name that is no text"))?;
        let names: Vec<String> = texts.into_iter().map(|name| name.into_owned()).collect();
        let mut seen = HashSet::new();
        return match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(twice) => Err(Fault(format!(
                "`feature_names_in_`: `{}` is there twice",
                crate::document::shorten(twice)
            ))),
            None if names.is_empty() => Err(Fault::new("a model without features")),
            None => Ok((names, true)),
        };
    }
    if takes_texts(root) {
        return Ok((vec!["text".into()], false));
    }
    let count = first_with(root, "n_features_in_").and_then(View::as_integer);
    let mut count = count.and_then(|count| usize::try_from(count).ok());
    // What other libraries fit may know more than what is around it.
    let booster = first(root, |view| boosters::is_one(view).then_some(view));
    let booster = booster.map(|view| boosters::read(view, &LoadOptions::default()));
    if let Some(booster) = booster.transpose()?.flatten() {
        let Signature {
            features, named, ..
        } = booster.signature();
        let fits = *count.get_or_insert(features.len()) == features.len();
        if fits && *named {
            let names = features.iter().map(|feature| feature.name.clone());
            return Ok((names.collect(), true));
        }
    }
    let count = count.ok_or_else(|| {
        Fault::new(
            "`n_features_in_` is missing; the model is not fitted, or not one that is supported",
        )
    })?;
    if !(1..=WIDTH_MAX).contains(&count) {
        return Err(Fault(format!(
            "`n_features_in_`: {count} is outside 1..={WIDTH_MAX}"
        )));
    }
    Ok(((0..count).map(|index| format!("f{index}")).collect(), false))
}

/// What the file calls the classes.
fn labels(root: View<'_, '_>, output: Output) -> Result<Vec<ClassLabel>, Fault> {
    let count = match output {
        Output::Binary => 2,
        Output::Multiclass { classes } | Output::Class { classes } => classes,
        Output::Numbers { .. } => return Ok(Vec::new()),
    };
    labels_of(&build::classes(build::last_of(root))?, count)
}

fn labels_of(classes: &Array<'_, '_>, count: usize) -> Result<Vec<ClassLabel>, Fault> {
    if classes.shape() != [count] {
        return Err(Fault(format!(
            "`classes_`: an array of the shape {:?} for {count} classes",
            classes.shape()
        )));
    }
    let label = |index: usize| {
        if let Some(text) = classes.text(index) {
            return Some(ClassLabel::Text(text.into_owned()));
        }
        if let Some(flag) = classes.boolean(index) {
            return Some(ClassLabel::Text(if flag { "True" } else { "False" }.into()));
        }
        let whole = |number: f64| {
            (number.trunc() == number && number.abs() < 9e15).then_some(number as i64)
        };
        let number = classes.integer(index);
        let number = number.or_else(|| classes.number(index).and_then(whole));
        number.map(ClassLabel::Number)
    };
    let labels: Option<Vec<ClassLabel>> = (0..count).map(label).collect();
    labels.ok_or_else(|| Fault::new("`classes_`: one is neither a text nor a whole number"))
}

impl Model {
    /// Rows as the first step takes them.
    fn prepare(&self, rows: Rows<'_>, values: &mut Vec<f64>) {
        values.clear();
        for index in 0..rows.len() {
            let inputs = self.inputs.iter().zip(rows.row(index));
            values.extend(inputs.map(|(input, value)| {
                let known = match &input.form {
                    // A code of no category is a missing value.
                    Form::Category(words) if *value >= 0.0 => words.get(*value as usize).copied(),
                    Form::Category(_) => None,
                    Form::Text => rows.text(*value).map(|text| self.words.get(text)),
                    Form::AsItIs | Form::Document => Some(*value).filter(|value| !value.is_nan()),
                };
                known.unwrap_or(input.null)
            }));
        }
    }

    /// What the columns of the last step add, and the input that each comes from.
    fn by_columns(&self) -> Option<(&dyn Explain, &[u32])> {
        self.predictor.explain().zip(self.sources.as_deref())
    }

    /// Has rows computed, as many at once as fit, each of which makes `outputs` numbers.
    fn in_passes(
        &self,
        rows: Rows<'_>,
        out: &mut [f64],
        outputs: usize,
        mut compute: impl FnMut(Rows<'_>, &mut [f64]) -> Result<(), RowRefusal>,
    ) -> Result<(), RowRefusal> {
        let width = self.signature.features.len();
        assert!(
            rows.is_empty() || rows.width() == width,
            "rows of {} values for a model of {width} features",
            rows.width(),
        );
        let is_plain = self.inputs.iter().all(Input::is_plain);
        let mut values = Vec::new();
        for (pass, out) in out.chunks_mut(self.rows_per_pass * outputs).enumerate() {
            let first = pass * self.rows_per_pass;
            let mut rows = rows.slice(first..first + out.len() / outputs);
            if !is_plain {
                self.prepare(rows, &mut values);
                rows = rows.reshaped(&values, width);
            }
            compute(rows, out).map_err(|refusal| RowRefusal {
                row: first + refusal.row,
                ..refusal
            })?;
        }
        Ok(())
    }
}

impl Engine for Model {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn description(&self) -> String {
        let Self { version, name, .. } = self;
        match self.predictor.detail() {
            Some(detail) => format!("scikit-learn {version} {name}, {detail}"),
            None => format!("scikit-learn {version} {name}"),
        }
    }

    fn explain(&self) -> Result<&dyn Explain, Unexplained> {
        match self.sources {
            Some(_) => Ok(self),
            None => self.compared.explain(self),
        }
    }

    fn compare_with(&mut self, rows: Rows<'_>, options: &LoadOptions) {
        if self.sources.is_none() {
            self.compared
                .replace(rows, &self.signature.features, options);
        }
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let outputs = self.signature.outputs();
        assert_eq!(out.len(), rows.len() * outputs, "output of another length");
        self.in_passes(rows, out, outputs, |rows, out| {
            self.predictor.predict(rows, out)
        })
    }
}

/// By what the columns of the last step add, each to the input that it comes from; else by asking.
impl Explain for Model {
    fn margins(&self) -> usize {
        self.by_columns()
            .map_or_else(|| self.numbers(), |(last, _)| last.margins())
    }

    fn bytes(&self) -> usize {
        self.by_columns().map_or_else(
            || self.compared.bytes(),
            |(last, sources)| last.bytes() + size_of_val(sources),
        )
    }

    fn asks(&self) -> usize {
        self.by_columns().map_or(self.compared.asks(), |_| 0)
    }

    fn contributions(
        &self,
        rows: Rows<'_>,
        margin: usize,
        out: &mut [f64],
    ) -> Result<(), RowRefusal> {
        let Some((last, sources)) = self.by_columns() else {
            return self.compared.contributions(self, rows, margin, out);
        };
        let width = self.signature.features.len() + 1;
        assert_eq!(out.len(), rows.len() * width, "output of another length");
        let mut added = Vec::new();
        self.in_passes(rows, out, width, |rows, out| {
            added.clear();
            added.resize(rows.len() * (sources.len() + 1), 0.0);
            last.contributions(rows, margin, &mut added)?;
            out.fill(0.0);
            let added = added.chunks_exact(sources.len() + 1);
            for (out, added) in out.chunks_exact_mut(width).zip(added) {
                for (source, added) in sources.iter().zip(added) {
                    out[*source as usize] += added;
                }
                out[width - 1] = added[sources.len()];
            }
            Ok(())
        })
    }
}

impl Asked for Model {
    fn numbers(&self) -> usize {
        margins(self.predictor.as_ref()).unwrap_or_default()
    }

    fn ask(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), RowRefusal> {
        let Some(decision) = decision(self.predictor.as_ref()) else {
            return explain::predicted(self, rows, out);
        };
        self.in_passes(rows, out, decision.width(), |rows, out| {
            let mut made = Vec::with_capacity(out.len());
            decision.apply(rows, &mut made)?;
            out.copy_from_slice(&made);
            Ok(())
        })
    }
}
