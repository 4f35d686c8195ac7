//! Reading and checking everything around the trees: parameters, features, booster, range.

use super::categories::{self, Collector};
use super::linear::Linear;
use super::objective::Objective;
use super::training::Training;
use super::tree::Target;
use super::{Booster, Model, iterations, tree};
use crate::document::{Fault, Object, Value, named};
use crate::explain::{Explainer, Players, Sources};
use crate::forest::{Forest, Rules, Tree};
use crate::signature::{Feature, FeatureKind, Precision, Signature};
use crate::{LoadOptions, Unexplained};
use std::iter::repeat_n;

/// Major, minor and patch version of the library.
pub(super) type Version = [i64; 3];

/// How many features a model may have.
const FEATURES_MAX: usize = 1 << 18;

/// How many margins a row may have.
const GROUPS_MAX: usize = 1 << 16;

/// The library estimates an intercept that nobody set when it boosts the first time. Since this version
/// it takes the one of a model that was never boosted, 0.5, for a margin, and not for a prediction.
const UNFITTED_SCORE_IS_MARGIN: Version = [3, 1, 0];

/// Before this version the sum of the trees was added to the intercept, since then each tree by itself.
const TREES_ARE_ADDED_TO_BASE: Version = [1, 3, 0];

/// Reads a whole document.
pub(super) fn read(document: &Value<'_>, options: &LoadOptions) -> Result<Model, Fault> {
    let document = document.as_object()?;
    let Some(learner) = document.get("learner") else {
        return Err(Fault::new("`learner` is missing: this is no XGBoost model"));
    };
    let version = read_version(document)?;
    read_learner(learner.as_object()?, version, options).map_err(named("learner"))
}

/// The version of the library that wrote the file; before 1.0 files had none.
fn read_version(document: &Object<'_>) -> Result<Version, Fault> {
    let Some(version) = document.get("version") else {
        return Ok([1, 0, 0]);
    };
    match version.to_integers().map_err(named("version"))?[..] {
        [major, minor, patch, ..] => Ok([major, minor, patch]),
        _ => Err(Fault::new("`version`: expected major, minor, patch")),
    }
}

fn read_learner(
    learner: &Object<'_>,
    version: Version,
    options: &LoadOptions,
) -> Result<Model, Fault> {
    let parameters = learner.object("learner_model_param")?;
    let shape = Shape::read(parameters).map_err(named("learner_model_param"))?;
    let objective = learner
        .object("objective")?
        .text("name")
        .map_err(named("objective"))?;
    let objective = Objective::new(objective, version)?;
    let output = objective.output(shape.groups, shape.classes)?;
    let base_scores = read_base_scores(parameters, &shape)?;
    let training = Training::read(learner)?;
    let gradient_booster = learner.object("gradient_booster")?;
    let name = gradient_booster
        .text("name")
        .map_err(self::named("gradient_booster"))?;
    let model = trees_of(gradient_booster, name).map_err(self::named("gradient_booster"))?;
    let categories = categories::read_names(model, shape.features);
    let categories = categories.map_err(self::named("gradient_booster"))?;
    let (mut features, named) = read_features(learner, shape.features, categories)?;
    let booster = match name {
        "gbtree" | "dart" => {
            read_trees(gradient_booster, name, version, &shape, &training, options)
        }
        "gblinear" => {
            Linear::read(gradient_booster, shape.features, shape.groups).map(Booster::Linear)
        }
        other => Err(Fault(format!("the booster `{other}` is not supported"))),
    };
    let booster = booster.map_err(self::named("gradient_booster"))?;
    let is_margin = version >= UNFITTED_SCORE_IS_MARGIN
        && !booster.is_fitted()
        && parameters.parameter("boost_from_average")? == Some(1);
    let mut base_margins = match is_margin {
        true => base_scores,
        false => objective.margins(base_scores)?,
    };
    if matches!(booster, Booster::Linear(_)) {
        // The library takes the first intercept for every output of a linear model.
        let first = base_margins[0];
        base_margins.fill(first);
    }
    let takes_missing = matches!(booster, Booster::Trees { .. });
    for feature in &mut features {
        feature.takes_missing = takes_missing;
    }
    let signature = Signature {
        features,
        named,
        output,
        class_labels: Vec::new(),
        more_outputs: Vec::new(),
        precision: Precision::F32,
        missing: training.missing.map(f64::from),
    };
    Ok(Model {
        signature,
        booster,
        objective,
        base_margins,
    })
}

/// Numbers of inputs and outputs.
struct Shape {
    features: usize,
    /// As stated in the file: 0 where the objective is not classification.
    classes: usize,
    /// Margins per row: one per class or target.
    groups: usize,
}

impl Shape {
    fn read(parameters: &Object<'_>) -> Result<Self, Fault> {
        let count = |name: &str, least: i64, most: usize| {
            let value = parameters.parameter(name)?.unwrap_or(least);
            let count = usize::try_from(value).ok().filter(|&count| count <= most);
            count
                .filter(|_| value >= least)
                .ok_or_else(|| Fault(format!("`{name}`: {value} is outside {least}..={most}")))
        };
        parameters.required("num_feature")?;
        let features = count("num_feature", 1, FEATURES_MAX)?;
        let classes = count("num_class", 0, GROUPS_MAX)?;
        let targets = count("num_target", 1, GROUPS_MAX)?;
        Ok(Self {
            features,
            classes,
            groups: classes.max(targets),
        })
    }
}

/// Intercepts, one per group. Up to 3.0 the file has a number in a string, since then a list.
fn read_base_scores(parameters: &Object<'_>, shape: &Shape) -> Result<Vec<f32>, Fault> {
    let text = parameters
        .text("base_score")
        .map_err(named("learner_model_param"))?;
    let malformed = || {
        Fault(format!(
            "`base_score`: `{}` is not a number or a list of them",
            text
        ))
    };
    let list = text
        .trim()
        .strip_prefix('[')
        .and_then(|list| list.strip_suffix(']'));
    let scores = list
        .unwrap_or(text)
        .split(',')
        .map(|score| score.trim().parse::<f32>().map_err(|_| malformed()))
        .collect::<Result<Vec<_>, _>>()?;
    match scores.len() {
        1 => Ok(vec![scores[0]; shape.groups]),
        count if count == shape.groups => Ok(scores),
        count => Err(Fault(format!(
            "`base_score`: {count} of them for {} outputs",
            shape.groups
        ))),
    }
}

/// Names and types; by default numbers called `f0`, `f1`, …, the library's own names.
fn read_features(
    learner: &Object<'_>,
    width: usize,
    categories: Vec<Option<Vec<String>>>,
) -> Result<(Vec<Feature>, bool), Fault> {
    let column = |name: &str| {
        let Some(values) = learner.get(name) else {
            return Ok(None);
        };
        let values = values.as_list().map_err(named(name))?;
        match values.len() {
            0 => Ok(None),
            count if count == width => Ok(Some(values)),
            count => Err(Fault(format!(
                "`{name}`: {count} of them for {width} features"
            ))),
        }
    };
    let names = column("feature_names")?;
    let types = column("feature_types")?;
    let features = categories
        .into_iter()
        .enumerate()
        .map(|(index, categories)| {
            let name = match names {
                Some(names) => names[index]
                    .as_text()
                    .map_err(named("feature_names"))?
                    .to_owned(),
                None => format!("f{index}"),
            };
            let kind = match types {
                Some(types) => types[index].as_text().map_err(named("feature_types"))?,
                None => "float",
            };
            let kind = match (kind, categories) {
                ("c", Some(categories)) => FeatureKind::Category(categories),
                ("c", None) => FeatureKind::Code,
                ("int", _) => FeatureKind::Integer,
                ("i", _) => FeatureKind::Boolean,
                _ => FeatureKind::Number,
            };
            Ok::<_, Fault>(Feature {
                name,
                kind,
                takes_missing: false,
            })
        });
    Ok((features.collect::<Result<_, _>>()?, names.is_some()))
}

fn read_trees(
    booster: &Object<'_>,
    name: &str,
    version: Version,
    shape: &Shape,
    training: &Training,
    options: &LoadOptions,
) -> Result<Booster, Fault> {
    let model = trees_of(booster, name)?;
    let weights = match (model.get("weight_drop"), booster.get("weight_drop")) {
        (_, Some(weights)) | (Some(weights), None) => {
            Some(weights.to_floats().map_err(named("weight_drop"))?)
        }
        (None, None) => None,
    };
    let trees = model.list("trees")?;
    let groups = model.integers("tree_info")?;
    if groups.len() != trees.len() {
        return Err(Fault(format!(
            "`tree_info`: {} for {} trees",
            groups.len(),
            trees.len()
        )));
    }
    let weights = weights.unwrap_or_default();
    if weights.len() > trees.len() {
        return Err(Fault(format!(
            "`weight_drop`: {} for {} trees",
            weights.len(),
            trees.len()
        )));
    }
    let name = if name == "dart" || !weights.is_empty() {
        "dart"
    } else {
        "gbtree"
    };

    let selection = iterations::select(model, &groups, training, options)?;
    let mut sets = Collector::new(version);
    let mut read = Vec::with_capacity(selection.trees.len());
    let mut covers = Vec::new();
    for (index, (tree, &group)) in trees.iter().zip(&groups).enumerate() {
        // All are read, so that a broken tree is found even if it is not used.
        let weight = weights.get(index).copied().unwrap_or(1.0);
        let inside = |fault: Fault| fault.inside(format_args!("tree {index}"));
        let own = read_tree(tree, index, group, weight, shape, &mut sets).map_err(inside)?;
        if !selection.trees.contains(&index) {
            continue;
        }
        if options.explanation_bytes_max > 0 {
            let own_covers = tree.as_object().and_then(tree::covers).map_err(inside)?;
            covers.extend(repeat_n(own_covers, own.len()));
        }
        read.extend(own);
    }
    let sets = sets.finish();
    let rules = Rules {
        width: shape.features + sets.len(),
        inputs: Precision::F32,
        equal_goes_left: false,
    };
    let explainer = match options.explanation_bytes_max {
        0 => Err(Unexplained::NotAsked),
        bytes_max => {
            let sources = Sources {
                trees: &read,
                covers: &covers,
                rules,
                outputs: shape.groups,
                players: Players::alone(sets.owners(shape.features), shape.features),
                beside: 0,
            };
            Explainer::new(sources, bytes_max)
        }
    };
    Ok(Booster::Trees {
        name,
        selection,
        sets,
        base_last: version < TREES_ARE_ADDED_TO_BASE,
        forest: Box::new(Forest::new(&read, rules)?),
        explainer: explainer.map(Box::new),
    })
}

/// Old files have a whole gbtree inside dart and the weights next to it; newer ones are a gbtree whose
/// model has weights.
fn trees_of<'a, 'f>(booster: &'a Object<'f>, name: &str) -> Result<&'a Object<'f>, Fault> {
    match name {
        "dart" => booster.object("gbtree")?.object("model"),
        _ => booster.object("model"),
    }
}

fn read_tree(
    tree: &Value<'_>,
    index: usize,
    group: i64,
    weight: f32,
    shape: &Shape,
    sets: &mut Collector,
) -> Result<Vec<Tree>, Fault> {
    let tree = tree.as_object()?;
    if let Some(id) = tree.parameter("id")?
        && usize::try_from(id) != Ok(index)
    {
        return Err(Fault(format!("`id`: {id} in place {index}")));
    }
    let Some(group) = u32::try_from(group)
        .ok()
        .filter(|&group| (group as usize) < shape.groups)
    else {
        return Err(Fault(format!(
            "`tree_info`: output {group} is outside 0..{}",
            shape.groups
        )));
    };
    let target = Target {
        outputs: shape.groups,
        output: group,
        weight,
    };
    tree::read(tree, shape.features, target, sets)
}
