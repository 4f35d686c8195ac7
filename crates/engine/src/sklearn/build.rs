//! From fitted estimators to steps.

use std::collections::HashMap;
use std::iter::repeat_n;

use super::steps::{Chain, Piped, Predictor, Transform};
use super::version::Version;
use super::zeros::Zeros;
use super::{
    NONE, UNKNOWN, adaboost, bayes, bins, boosters, cluster, compose, curves, discriminant, donors,
    encode, ensemble, impute, isolation, linear, neighbors, network, polynomials, process, reduce,
    scale, select, splines, stack, svm, text, trees,
};
use crate::LoadOptions;
use crate::document::{Fault, named};
use crate::pickle::{Array, View};

/// Whose estimators are known.
const LIBRARIES: [&str; 4] = ["sklearn.", "xgboost.", "lightgbm.", "catboost."];
/// How deeply estimators may hold others.
const DEPTH_MAX: usize = 24;
/// How many estimators a model may have, trees apart.
const ESTIMATORS_MAX: usize = 4096;
/// How many columns all estimators may get together.
const COLUMNS_MAX: usize = 1 << 22;
/// How many values a row may have anywhere.
pub(super) const WIDTH_MAX: usize = 1 << 20;

/// Texts that the steps of a model know, and the number of each.
#[derive(Debug, Default)]
pub(super) struct Words(HashMap<Box<str>, u32>);

impl Words {
    /// The number of a text, which is new if it is not there.
    fn add(&mut self, text: &str) -> f64 {
        if let Some(word) = self.0.get(text) {
            return f64::from(*word);
        }
        let word = self.0.len() as u32;
        self.0.insert(text.into(), word);
        f64::from(word)
    }

    /// The text of a number.
    pub(super) fn text(&self, number: f64) -> Option<&str> {
        let mut all = self.0.iter();
        let found = all.find(|(_, word)| f64::from(**word) == number);
        found.map(|(text, _)| &**text)
    }

    /// The number of a text.
    pub(super) fn get(&self, text: &str) -> f64 {
        self.0.get(text).map_or(UNKNOWN, |word| f64::from(*word))
    }
}

/// What the steps take an input for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Number,
    Boolean,
    Text,
    /// A text whose terms count.
    Document,
}

/// What is known of an input.
#[derive(Debug, Default)]
pub(super) struct InputUse {
    pub(super) kind: Option<Use>,
    /// All texts that it may have, where others are an error.
    pub(super) categories: Option<Vec<String>>,
    /// A value that it may have.
    pub(super) sample: Option<f64>,
    /// Whether `None` was among what a step was fitted to.
    pub(super) has_none: bool,
    /// Its mean, its median or its most frequent value, as a step has kept it from what it was fitted to.
    pub(super) typical: Option<f64>,
}

impl InputUse {
    /// What a missing value is.
    pub(super) fn null(&self) -> f64 {
        match self.has_none {
            true => NONE,
            false => f64::NAN,
        }
    }
}

/// What a column between two steps comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// It is this input.
    Input(usize),
    /// It is computed from this input alone.
    Of(usize),
    /// It is computed from several, or not known to be from one.
    Mixed,
}

impl Column {
    /// The input that it is.
    pub(super) fn input(self) -> Option<usize> {
        match self {
            Self::Input(input) => Some(input),
            _ => None,
        }
    }

    /// The input that it comes from.
    fn source(self) -> Option<usize> {
        match self {
            Self::Input(input) | Self::Of(input) => Some(input),
            Self::Mixed => None,
        }
    }

    /// What is computed from it alone.
    pub(super) fn changed(self) -> Self {
        self.source().map_or(Self::Mixed, Self::Of)
    }
}

/// The columns between two steps.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub(super) list: Vec<Column>,
    pub(super) zeros: Zeros,
}

impl Columns {
    /// Columns of a dense matrix.
    pub(super) fn new(list: Vec<Column>) -> Self {
        Self {
            list,
            zeros: Zeros::Written,
        }
    }

    /// The inputs themselves.
    pub(super) fn inputs(count: usize) -> Self {
        Self::new((0..count).map(Column::Input).collect())
    }

    /// As many columns, each computed from the one at its place.
    pub(super) fn changed(&self) -> Self {
        Self::new(self.list.iter().map(|column| column.changed()).collect())
    }

    /// So many columns that are computed from all of these.
    pub(super) fn mixed(&self, count: usize) -> Self {
        let all = self.list.iter().map(|column| column.changed());
        let one = all.reduce(|one, other| if one == other { one } else { Column::Mixed });
        Self::new(vec![one.unwrap_or(Column::Mixed); count])
    }

    /// So many columns for each of these, computed from it alone.
    pub(super) fn repeated(&self, counts: impl Iterator<Item = usize>) -> Self {
        let repeated = self.list.iter().zip(counts);
        let repeated = repeated.flat_map(|(column, count)| repeat_n(column.changed(), count));
        Self::new(repeated.collect())
    }

    /// The columns at these places.
    pub(super) fn at(&self, places: &[u32]) -> Self {
        let at = |place: &u32| self.list[*place as usize];
        Self {
            list: places.iter().map(at).collect(),
            zeros: self.zeros,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// The input that each comes from, if each comes from one.
    fn sources(&self) -> Option<Box<[u32]>> {
        let source = |column: &Column| column.source().map(|input| input as u32);
        self.list.iter().map(source).collect()
    }
}

/// What the last step of a model keeps so that it can be explained by what its columns add.
#[derive(Clone, Copy, Debug)]
pub(super) struct Explained {
    /// The identity of that step.
    pub(super) step: u32,
    pub(super) bytes_max: usize,
}

/// A step that is read, and the columns after it.
pub(super) type Built = (Box<dyn Transform>, Columns);

/// Reads estimators.
pub(super) struct Builder {
    words: Words,
    inputs: Vec<InputUse>,
    pub(super) version: Version,
    depth: usize,
    estimators: usize,
    /// Columns of the widest step.
    widest: usize,
    /// Columns that all estimators get together.
    columns: usize,
    explained: Explained,
    /// The inputs that the columns of the step that is explained come from.
    sources: Option<Box<[u32]>>,
}

impl Builder {
    pub(super) fn new(inputs: usize, version: Version, explained: Explained) -> Self {
        Self {
            words: Words::default(),
            inputs: (0..inputs).map(|_| InputUse::default()).collect(),
            version,
            depth: 0,
            estimators: 0,
            widest: inputs,
            columns: 0,
            explained,
            sources: None,
        }
    }

    /// How many bytes an estimator may keep to explain what each of its columns adds; 0 where nobody asks that.
    pub(super) fn explanation_bytes(&mut self, view: View<'_, '_>, columns: &Columns) -> usize {
        if view.identity() != self.explained.step {
            return 0;
        }
        self.sources = columns.sources();
        match self.sources {
            Some(_) => self.explained.bytes_max,
            None => 0,
        }
    }

    /// The input that each column of the explained step comes from, if each comes from one.
    pub(super) fn take_sources(&mut self) -> Option<Box<[u32]>> {
        self.sources.take()
    }

    /// Values that a row has at the widest place.
    pub(super) fn widest(&self) -> usize {
        self.widest.max(1)
    }

    pub(super) fn finish(self) -> (Words, Vec<InputUse>) {
        (self.words, self.inputs)
    }

    pub(super) fn word(&mut self, text: &str) -> f64 {
        self.words.add(text)
    }

    /// Notes what a step takes a column for.
    pub(super) fn take(&mut self, column: Column, kind: Use) -> Result<(), Fault> {
        let Some(input) = column.input() else {
            return match kind {
                Use::Text | Use::Document => Err(Fault::new(
                    "a text is expected where the step before makes numbers",
                )),
                _ => Ok(()),
            };
        };
        let known = &mut self.inputs[input].kind;
        match known {
            // A boolean is a number too, and whoever takes it for one decides.
            None => *known = Some(kind),
            Some(Use::Boolean) if kind == Use::Number => *known = Some(kind),
            Some(Use::Number) if kind == Use::Boolean => {}
            Some(known) if *known == kind => {}
            Some(_) => {
                return Err(Fault(format!(
                    "input {input} is a number, one of some texts, and a text of any words to different steps"
                )));
            }
        }
        Ok(())
    }

    /// Notes that all columns are numbers.
    pub(super) fn take_numbers(&mut self, columns: &Columns) -> Result<(), Fault> {
        let mut columns = columns.list.iter();
        columns.try_for_each(|column| self.take(*column, Use::Number))
    }

    /// Notes that a column must have one of some values: the texts, and the first as a number.
    pub(super) fn limit(&mut self, column: Column, texts: Vec<String>, first: Option<f64>) {
        let Some(input) = column.input().map(|input| &mut self.inputs[input]) else {
            return;
        };
        if input.categories.is_none() && !texts.is_empty() {
            input.categories = Some(texts);
        }
        input.sample = input.sample.or(first);
    }

    /// Notes that `None` was among what a step was fitted to.
    pub(super) fn take_none(&mut self, column: Column) {
        if let Some(input) = column.input() {
            self.inputs[input].has_none = true;
        }
    }

    /// Notes a typical value of a column.
    pub(super) fn typify(&mut self, column: Column, value: f64) {
        if let Some(input) = column.input().filter(|_| !value.is_nan()) {
            self.inputs[input].typical.get_or_insert(value);
        }
    }

    /// Notes that rows have so many values somewhere.
    pub(super) fn widen(&mut self, width: usize) -> Result<(), Fault> {
        self.widest = self.widest.max(width);
        match width > WIDTH_MAX {
            true => Err(Fault(format!("more than {WIDTH_MAX} columns"))),
            false => Ok(()),
        }
    }

    /// Counts columns that a step gets. A small file may name one step, and one list of columns, many times.
    pub(super) fn spend(&mut self, columns: usize) -> Result<(), Fault> {
        self.columns += columns;
        match self.columns > COLUMNS_MAX {
            true => Err(Fault(format!(
                "the steps have more than {COLUMNS_MAX} columns, categories, terms and edges together"
            ))),
            false => Ok(()),
        }
    }

    /// Counts an estimator and goes one deeper.
    pub(super) fn within<T>(
        &mut self,
        view: View<'_, '_>,
        read: impl FnOnce(&mut Self, &str) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.estimators += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX || self.estimators > ESTIMATORS_MAX {
            return Err(Fault(format!(
                "estimators within each other more than {DEPTH_MAX} deep, or more than {ESTIMATORS_MAX} of them"
            )));
        }
        let name = class_name(view)?;
        let read = read(self, name).map_err(|fault| fault.inside(name))?;
        self.depth -= 1;
        Ok(read)
    }

    /// Reads a step that makes rows of others.
    pub(super) fn transform(
        &mut self,
        view: View<'_, '_>,
        columns: &Columns,
    ) -> Result<Built, Fault> {
        self.spend(columns.len())?;
        let (step, mut after) = self.within(view, |builder, name| {
            check_width(view, columns)?;
            match name {
                "Pipeline" => compose::pipeline(builder, view, columns),
                "ColumnTransformer" => compose::column_transformer(builder, view, columns),
                "FeatureUnion" => compose::feature_union(builder, view, columns),
                "SimpleImputer" => impute::read(builder, view, columns),
                "KNNImputer" => donors::read(builder, view, columns),
                "OneHotEncoder" => encode::one_hot(builder, view, columns),
                "OrdinalEncoder" => encode::ordinal(builder, view, columns),
                "TargetEncoder" => encode::target(builder, view, columns),
                "TfidfTransformer" => text::weigher(builder, view, columns),
                name if text::VECTORIZERS.contains(&name) => {
                    text::vectorizer(builder, view, columns, name)
                }
                name if cluster::NAMES.contains(&name) => {
                    cluster::distances(builder, view, columns)
                }
                name => {
                    for read in [
                        scale::read,
                        curves::read,
                        bins::read,
                        splines::read,
                        polynomials::read,
                        reduce::read,
                        select::read,
                    ] {
                        if let Some(built) = read(builder, view, columns, name)? {
                            return Ok(built);
                        }
                    }
                    Err(Fault::new("this transformer is not supported"))
                }
            }
        })?;
        after.zeros = columns.zeros.after(class_name(view)?, view, after.zeros);
        self.widen(after.len())?;
        match after.len() {
            0 => Err(Fault::new("no column is left after this step")),
            _ => Ok((step, after)),
        }
    }

    /// Reads a step that predicts.
    pub(super) fn predictor(
        &mut self,
        view: View<'_, '_>,
        columns: &Columns,
    ) -> Result<Box<dyn Predictor>, Fault> {
        self.spend(columns.len())?;
        self.within(view, |builder, name| {
            check_width(view, columns)?;
            if name == "Pipeline" {
                let steps = compose::steps(view)?;
                let (last, before) = steps.split_last().ok_or_else(|| Fault::new("no steps"))?;
                let (chain, columns) = compose::chain(builder, before, columns)?;
                let predictor = builder.predictor(last.estimator, &columns);
                let last = predictor
                    .map_err(|fault| fault.inside(format_args!("step `{}`", last.name)))?;
                return Ok(Box::new(Piped { chain, last }) as Box<dyn Predictor>);
            }
            if let "RFE" | "RFECV" = name {
                let (step, kept) = builder.transform(view, columns)?;
                let last = builder.predictor(view.required("estimator_")?, &kept)?;
                let chain = Chain::new(vec![step], columns.len());
                return Ok(Box::new(Piped { chain, last }));
            }
            if let Some(inner) = inner(view) {
                return builder.predictor(inner, columns);
            }
            for read in [
                ensemble::read,
                stack::read,
                adaboost::read,
                isolation::read,
                trees::read_encoded,
                curves::retargeted,
            ] {
                if let Some(predictor) = read(builder, view, columns, name)? {
                    return Ok(predictor);
                }
            }
            builder.take_numbers(columns)?;
            let (version, width) = (builder.version, columns.len());
            let explanation_bytes_max = builder.explanation_bytes(view, columns);
            let options = LoadOptions {
                explanation_bytes_max,
                ..LoadOptions::default()
            };
            if let Some(booster) = boosters::read(view, &options)? {
                return Ok(Box::new(booster.step(columns)?));
            }
            if cluster::NAMES.contains(&name) {
                return cluster::nearest(view, width);
            }
            for read in [
                linear::read,
                bayes::read,
                svm::read,
                discriminant::read,
                network::read,
                neighbors::read,
                process::read,
            ] {
                if let Some(predictor) = read(view, name, width)? {
                    return Ok(predictor);
                }
            }
            let reader = trees::Reader {
                is_sparse: columns.zeros != Zeros::Written,
                ..trees::Reader::new(view, width, version, explanation_bytes_max)
            };
            let predictor = reader.read(name)?;
            predictor.ok_or_else(|| {
                Fault::new("this estimator is not supported; README.md lists those that are")
            })
        })
    }
}

/// The name of an estimator's class.
pub(super) fn class_name<'p>(view: View<'p, '_>) -> Result<&'p str, Fault> {
    let is_known = |class: &&str| LIBRARIES.iter().any(|library| class.starts_with(library));
    let class = view.class().filter(is_known);
    let class = class.ok_or_else(|| view.expected("an estimator of scikit-learn"))?;
    Ok(class.rsplit('.').next().unwrap_or(class))
}

/// What an estimator is only around: the best of a search, or one that is kept as it is.
fn inner<'p, 'a>(view: View<'p, 'a>) -> Option<View<'p, 'a>> {
    let class = view.class()?;
    match class.rsplit('.').next()? {
        "FrozenEstimator" => view.get("estimator"),
        name if name.ends_with("SearchCV") => view.get("best_estimator_"),
        _ => None,
    }
}

/// The estimator whose classes those of this one are: the last of a pipeline, what columns are chosen for.
pub(super) fn last_of<'p, 'a>(view: View<'p, 'a>) -> View<'p, 'a> {
    let mut view = view;
    for _ in 0..DEPTH_MAX {
        let steps = view.get("steps").and_then(View::as_list);
        let last = steps.and_then(|steps| steps.last()?.as_list()?.get(1).copied());
        let eliminated = view.get("support_").and(view.get("estimator_"));
        let Some(next) = last.or(eliminated).or_else(|| inner(view)) else {
            break;
        };
        view = next;
    }
    view
}

/// The classes of a classifier. Those of ridge regression keep them in what makes numbers of them.
pub(super) fn classes<'p, 'a>(view: View<'p, 'a>) -> Result<Array<'p, 'a>, Fault> {
    match (view.get("classes_"), view.get("_label_binarizer")) {
        (None, Some(binarizer)) => binarizer.array("classes_"),
        _ => view.array("classes_"),
    }
}

/// How many classes a classifier was fitted to.
pub(super) fn class_count(view: View<'_, '_>) -> Result<usize, Fault> {
    match classes(view)?.len() {
        count @ (0 | 1) => Err(Fault(format!(
            "`classes_`: {count} of them, where at least two are needed"
        ))),
        count => Ok(count),
    }
}

/// The number of columns that an estimator was fitted to is that which it gets.
fn check_width(view: View<'_, '_>, columns: &Columns) -> Result<(), Fault> {
    let fitted = view.get("n_features_in_").and_then(View::as_integer);
    match fitted {
        Some(fitted) if fitted != columns.len() as i64 => Err(Fault(format!(
            "it was fitted to {fitted} columns, and gets {}",
            columns.len()
        ))),
        _ => Ok(()),
    }
}

/// As many numbers as there are columns.
pub(super) fn per_column(
    view: View<'_, '_>,
    name: &str,
    columns: &Columns,
) -> Result<Vec<f64>, Fault> {
    let numbers = view.numbers(name)?;
    match numbers.len() == columns.len() {
        true => Ok(numbers),
        false => Err(Fault(format!(
            "`{name}`: {} numbers for {} columns",
            numbers.len(),
            columns.len()
        ))),
    }
}

/// The numbers of an array that has this shape, none of which is NaN.
pub(super) fn table(view: View<'_, '_>, name: &str, shape: &[usize]) -> Result<Vec<f64>, Fault> {
    let array = view.array(name)?;
    if array.shape() != shape {
        return Err(Fault(format!(
            "`{name}`: an array of the shape {:?} in place of {shape:?}",
            array.shape()
        )));
    }
    let numbers = array.numbers().map_err(named(name))?;
    match numbers.iter().any(|number| number.is_nan()) {
        true => Err(Fault(format!("`{name}`: one is not a number"))),
        false => Ok(numbers),
    }
}
