//! Reading and checking a whole file: what is before the trees, the trees, and what follows them.

use super::answers::Answers;
use super::columns::Collector;
use super::explain::Explained;
use super::linear::Linear;
use super::objective::Objective;
use super::text::{Reader, Section, number};
use super::tree::{self, Tree};
use super::{Body, Model, Trees, categories};
use crate::document::{Fault, named, shorten};
use crate::forest::{Forest, Rules};
use crate::signature::{Feature, FeatureKind, Precision, Signature};
use crate::{LoadOptions, iterations};

/// Versions of the format that are read.
const VERSIONS: [&str; 2] = ["v3", "v4"];

/// How many features a model may have.
const FEATURES_MAX: usize = 1 << 18;

/// How many sums a row may have.
const SUMS_MAX: usize = 1 << 16;

/// How many columns beside its features a compiled model has for each of its trees, at most. All columns are computed
/// for every row, while a walk meets a few: from the first number on [`Answers`] are quicker, and beyond the second
/// one a walk through the trees as they are.
const COLUMNS_PER_TREE: usize = 1;
pub(super) const COLUMNS_PER_TREE_MAX: usize = 8;

/// Reads a file.
pub(super) fn read(text: &str, options: &LoadOptions) -> Result<Model, Fault> {
    let (head, mut reader) = Reader::new(text)?;
    check_version(&head)?;
    let width = head.count("max_feature_idx", 0, FEATURES_MAX - 1)? + 1;
    let sums = head.count("num_tree_per_iteration", 1, SUMS_MAX)?;
    let objective = Objective::new(head.get("objective"), sums).map_err(named("objective"))?;
    let names = words(&head, "feature_names", width)?;
    let infos = words(&head, "feature_infos", width)?;

    let mut trees = Vec::new();
    let mut covers = Vec::new();
    while let Some(section) = reader.tree(trees.len()) {
        let inside = |fault: Fault| fault.inside(format_args!("tree {}", trees.len()));
        let section = section.map_err(inside)?;
        let tree = Tree::read(&section, width).map_err(inside)?;
        if options.explanation_bytes_max > 0 {
            covers.push(tree::covers(&section));
        }
        trees.push(tree);
    }
    check_count(&head, trees.len(), sums)?;
    let rest = reader.rest()?;
    let kinds = categories::kinds(&infos, &rest)?;

    let all = trees.len() / sums;
    let range = iterations::resolve(options.iteration_range.unwrap_or_default(), all)?;
    let used = range.len();
    trees.truncate(range.end * sums);
    trees.drain(..range.start * sums);
    covers.truncate(range.end * sums);
    covers.drain(..covers.len().min(range.start * sums));
    let mut numbered = names.iter().enumerate();
    let is_named = !numbered.all(|(index, name)| is_unnamed(index, name));
    let is_average = head.get("average_output").is_some();
    if is_average && used == 0 {
        return Err(Fault::new(
            "`average_output`: there are no trees to average",
        ));
    }
    let explained = Explained::new(&trees, &covers, width, sums, options.explanation_bytes_max);
    Ok(Model {
        signature: Signature {
            features: features(&names, is_named, kinds),
            named: is_named,
            output: objective.output(),
            class_labels: Vec::new(),
            more_outputs: Vec::new(),
            precision: Precision::F64,
            missing: None,
        },
        boosting: shorten(match rest.boosting {
            "" => "gbdt",
            boosting => boosting,
        }),
        trees: compile(trees, width, sums),
        explained: explained.map(Box::new),
        objective,
        used,
        all,
        is_average,
    })
}

fn check_version(head: &Section<'_>) -> Result<(), Fault> {
    let version = head.required("version")?;
    match VERSIONS.contains(&version) {
        true => Ok(()),
        false => Err(Fault(format!(
            "`version`: {} is not read, only {}; load the model with LightGBM 4 and save it again",
            shorten(version),
            VERSIONS.join(" and ")
        ))),
    }
}

/// One word for each feature. Only a space ends one: the library writes those in names as `_`, but no tabs.
fn words<'a>(head: &Section<'a>, name: &str, width: usize) -> Result<Vec<&'a str>, Fault> {
    let words = head.required(name)?.split(' ');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    match words.len() == width {
        true => Ok(words),
        false => Err(Fault(format!(
            "`{name}`: {} for {width} features",
            words.len()
        ))),
    }
}

/// Checks that no tree is lost.
fn check_count(head: &Section<'_>, trees: usize, sums: usize) -> Result<(), Fault> {
    if let Some(sizes) = head.get("tree_sizes") {
        let sizes: Vec<u64> = sizes
            .split_ascii_whitespace()
            .map(number)
            .collect::<Result<_, _>>()
            .map_err(named("tree_sizes"))?;
        if sizes.len() != trees {
            return Err(Fault(format!(
                "`tree_sizes`: {} for {trees} trees",
                sizes.len()
            )));
        }
    }
    match trees.is_multiple_of(sums) {
        true => Ok(()),
        false => Err(Fault(format!(
            "`num_tree_per_iteration`: {trees} trees are not whole iterations of {sums}"
        ))),
    }
}

/// Whether the library has made up the name.
fn is_unnamed(index: usize, name: &str) -> bool {
    name.strip_prefix("Column_")
        .and_then(|number| number.parse().ok())
        == Some(index)
}

/// Without names of its own a feature is called as in all files without names.
fn features(names: &[&str], is_named: bool, kinds: Vec<FeatureKind>) -> Vec<Feature> {
    let feature = |(index, kind): (usize, FeatureKind)| Feature {
        name: match is_named {
            true => names[index].to_owned(),
            false => format!("f{index}"),
        },
        kind,
        takes_missing: true,
    };
    kinds.into_iter().enumerate().map(feature).collect()
}

/// Compiles trees into the quickest form that they have.
fn compile(trees: Vec<Tree>, width: usize, sums: usize) -> Trees {
    let with_columns = |per_tree| with_columns(&trees, width, sums, per_tree);
    let answered = || match trees.iter().any(|tree| tree.linear.is_some()) {
        true => Linear::answered(&trees).map(Trees::Linear),
        false => Answers::new(&trees, |_, value| value).map(Trees::Answered),
    };
    with_columns(COLUMNS_PER_TREE)
        .or_else(answered)
        .or_else(|| with_columns(COLUMNS_PER_TREE_MAX))
        .unwrap_or(Trees::Walked(trees))
}

/// Trees as a forest, if they do not need more columns than that and are not too large.
pub(super) fn with_columns(
    trees: &[Tree],
    width: usize,
    sums: usize,
    columns_per_tree: usize,
) -> Option<Trees> {
    let mut collector = Collector::new(width);
    let mut converted = Vec::with_capacity(trees.len());
    for (tree, output) in trees.iter().zip((0..sums as u32).cycle()) {
        converted.push(collector.convert(tree, output));
        if collector.len() > columns_per_tree * trees.len() {
            return None;
        }
    }
    let columns = collector.finish();
    let rules = Rules {
        width: width + columns.len(),
        inputs: Precision::F64,
        equal_goes_left: true,
    };
    let body = match trees.iter().any(|tree| tree.linear.is_some()) {
        true => Body::Linear(Linear::new(trees, converted, rules).ok()?),
        false => Body::Plain(Box::new(Forest::new(&converted, rules).ok()?)),
    };
    Some(Trees::Compiled { columns, body })
}
