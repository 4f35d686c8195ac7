//! The JSON that `save_model(…, format="json")` writes.

use super::ctr::{Base, Combination, Counts, Ctr, Formula, Kind, Table};
use super::objective::{self, Loss};
use super::parts::{
    self, AsymmetricTree, Branch, FEATURES_MAX, FloatFeature, Info, MissingValues, OneHotFeature,
    Parts, Position, SplitNode, Trees, check_borders,
};
use crate::document::{self, Fault, Object, Value, named};

/// Reads a whole document.
pub(super) fn read(document: &Value<'_>) -> Result<Parts, Fault> {
    let document = document.as_object()?;
    let info = match document.get("model_info") {
        Some(info) => info
            .as_object()
            .and_then(read_info)
            .map_err(named("model_info"))?,
        None => Info::default(),
    };
    let features = document.object("features_info")?;
    let in_features = || named("features_info");
    let floats = read_floats(features).map_err(in_features())?;
    let categorical = "categorical_features";
    let categories = read_list(features, categorical, read_position).map_err(in_features())?;
    let one_hots = read_list(features, categorical, read_one_hot).map_err(in_features())?;
    let ctrs = read_list(features, "ctrs", read_ctr).map_err(in_features())?;
    let mut leaves = Leaves::default();
    let trees = match document.get("oblivious_trees") {
        Some(trees) => read_symmetric(trees, &mut leaves).map_err(named("oblivious_trees"))?,
        None => {
            read_asymmetric(document.required("trees")?, &mut leaves).map_err(named("trees"))?
        }
    };
    let (scale, biases) = read_scale_and_bias(document).map_err(named("scale_and_bias"))?;
    let outputs = leaves.each.unwrap_or(biases.len().max(1));
    let several_targets = info.loss.map_or(outputs > 1, Loss::has_several_targets);
    check_divisions(&ctrs, several_targets).map_err(in_features())?;
    Ok(Parts {
        info,
        floats,
        categories,
        one_hots: one_hots.into_iter().flatten().collect(),
        ctrs,
        tables: read_tables(document)?,
        outputs,
        trees,
        leaves: leaves.values,
        weights: leaves.weights,
        scale,
        // Older files have none, or one for the only output.
        biases: match biases.is_empty() {
            true => vec![0.0; outputs],
            false => biases,
        },
    })
}

fn read_info(info: &Object<'_>) -> Result<Info, Fault> {
    let loss = match info.get("params") {
        Some(Value::Object(parameters)) => {
            objective::read_loss(parameters).map_err(named("params"))?
        }
        _ => None,
    };
    let classes = info.get("class_params").or(info.get("multiclass_params"));
    let labels = match classes {
        Some(Value::Object(classes)) => {
            objective::read_labels(classes).map_err(named("class_params"))?
        }
        _ => Vec::new(),
    };
    let threshold = match info.get("binclass_probability_threshold") {
        // The library writes a text.
        Some(Value::Text(text)) => text.parse().ok(),
        Some(value) => value.as_double().ok(),
        None => None,
    };
    Ok(Info {
        loss,
        labels,
        threshold,
    })
}

fn read_floats(features: &Object<'_>) -> Result<Vec<FloatFeature>, Fault> {
    for (name, what) in [
        ("text_features", "text features"),
        ("embedding_features", "embedding features"),
    ] {
        if !read_list(features, name, |_| Ok(()))?.is_empty() {
            return Err(parts::refused(what));
        }
    }
    read_list(features, "float_features", read_float)
}

/// Reads the objects of a list, which may not be there at all.
fn read_list<T>(
    features: &Object<'_>,
    name: &str,
    read: impl Fn(&Object<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let list = match features.get(name) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(list) => list.as_list().map_err(named(name))?,
    };
    if list.len() > FEATURES_MAX {
        return Err(Fault(format!(
            "`{name}`: {} of them are too many",
            list.len()
        )));
    }
    let items = list.iter().enumerate().map(|(index, item)| {
        let item = item.as_object().and_then(&read);
        item.map_err(|fault| fault.inside(format_args!("`{name}`: {index}")))
    });
    items.collect()
}

fn read_one_hot(feature: &Object<'_>) -> Result<Option<OneHotFeature>, Fault> {
    if feature.get("values").is_none() {
        return Ok(None);
    }
    let hashes = feature.integers("values")?.into_iter().map(whole);
    let hashes = hashes.collect::<Result<_, _>>().map_err(named("values"))?;
    OneHotFeature::new(whole(feature.integer("feature_index")?)?, hashes).map(Some)
}

fn whole(number: i64) -> Result<i32, Fault> {
    i32::try_from(number).map_err(|_| Fault(format!("{number} is outside of 32 bits")))
}

fn read_ctr(ctr: &Object<'_>) -> Result<Ctr, Fault> {
    let number = |name| {
        ctr.required(name)
            .and_then(Value::as_float)
            .map_err(named(name))
    };
    let borders = ctr.floats("borders")?;
    check_borders(&borders)?;
    Ok(Ctr {
        base: Base {
            combination: read_combination(ctr.required("elements")?).map_err(named("elements"))?,
            kind: Kind::from_name(ctr.text("ctr_type")?)?,
            // The format leaves it out.
            classifier: 0,
        },
        formula: Formula::new(
            ctr.integer("target_border_idx")?,
            [
                number("prior_numerator")?,
                number("prior_denomerator")?,
                number("shift")?,
                number("scale")?,
            ],
        )?,
        borders,
    })
}

/// Refuses CTRs that count by the divisions of several targets: the JSON has the counts of one of them, and does
/// not say of which.
fn check_divisions(ctrs: &[Ctr], several_targets: bool) -> Result<(), Fault> {
    match several_targets && ctrs.iter().any(|ctr| ctr.base.kind.counts_target()) {
        true => Err(Fault::new(
            "`ctrs`: JSON leaves out which division of the target a CTR counts by, and of several targets there are \
             several; save the model with `save_model(\"model.cbm\")`",
        )),
        false => Ok(()),
    }
}

fn read_combination(elements: &Value<'_>) -> Result<Combination, Fault> {
    let mut combination = Combination::default();
    for element in elements.as_list()? {
        let element = element.as_object()?;
        let index = |name| element.integer(name).and_then(whole);
        match element.text("combination_element")? {
            "cat_feature_value" => combination.categories.push(index("cat_feature_index")?),
            "float_feature" => {
                let border = element
                    .required("border")?
                    .as_float()
                    .map_err(named("border"))?;
                let split = (index("float_feature_index")?, border.to_bits());
                combination.floats.push(split);
            }
            "cat_feature_exact_value" => {
                let split = (index("cat_feature_index")?, index("value")?);
                combination.one_hots.push(split);
            }
            _ => return Err(Fault::new("`combination_element` is unknown")),
        }
    }
    Ok(combination)
}

/// Tables of counts, each under a key that is JSON itself.
fn read_tables(document: &Object<'_>) -> Result<Vec<Table>, Fault> {
    let tables = match document.get("ctr_data") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(tables) => tables.as_object().map_err(named("ctr_data"))?,
    };
    let tables = tables.entries().enumerate().map(|(index, (key, table))| {
        let table = document::parse_json(key.as_bytes()).and_then(|key| {
            let key = key.as_object()?;
            let base = Base {
                combination: read_combination(key.required("identifier")?)?,
                kind: Kind::from_name(key.text("type")?)?,
                classifier: 0,
            };
            read_table(base, table.as_object()?)
        });
        table.map_err(|fault| fault.inside(format_args!("`ctr_data`: {index}")))
    });
    tables.collect()
}

/// A table is one list: a hash as a text, then the counts that belong to it, and so on.
fn read_table(base: Base, table: &Object<'_>) -> Result<Table, Fault> {
    let stride = usize::try_from(table.integer("hash_stride")?).unwrap_or(0);
    let list = table.list("hash_map")?;
    if stride < 2 || !list.len().is_multiple_of(stride) {
        return Err(Fault(format!(
            "`hash_map`: {} values in steps of {stride}",
            list.len()
        )));
    }
    let hash = |entry: &[Value<'_>]| {
        let hash = entry[0].as_text()?.parse();
        hash.map_err(|_| Fault::new("`hash_map`: a hash is no number"))
    };
    let hashes: Vec<u64> = list.chunks(stride).map(hash).collect::<Result<_, _>>()?;
    let values = list.chunks(stride).flat_map(|entry| &entry[1..]);
    let integers = || {
        let values = values.clone().map(|value| whole(value.as_integer()?));
        values
            .collect::<Result<Vec<i32>, _>>()
            .map_err(named("hash_map"))
    };
    let counts = match base.kind {
        Kind::Borders | Kind::Buckets => Counts::Classes {
            classes: stride - 1,
            counts: integers()?,
        },
        Kind::BinarizedTargetMeanValue | Kind::FloatTargetMeanValue if stride == 3 => {
            let mean =
                |entry: &[Value<'_>]| Ok((entry[1].as_float()?, whole(entry[2].as_integer()?)?));
            let means = list.chunks(stride).map(mean).collect::<Result<_, Fault>>();
            Counts::Means(means.map_err(named("hash_map"))?)
        }
        Kind::Counter | Kind::FeatureFreq if stride == 2 => Counts::Totals {
            denominator: whole(table.integer("counter_denominator")?)?,
            counts: integers()?,
        },
        _ => {
            return Err(Fault(format!(
                "`hash_stride`: {stride} is another kind of table"
            )));
        }
    };
    Table::new(base, hashes.into_iter().zip(0..), counts)
}

fn read_float(feature: &Object<'_>) -> Result<FloatFeature, Fault> {
    let treatment = match feature.get("nan_value_treatment") {
        Some(treatment) => treatment.as_text().map_err(named("nan_value_treatment"))?,
        None => "AsIs",
    };
    let treatment = match treatment {
        "AsIs" | "AsFalse" => MissingValues::Below,
        "AsTrue" => MissingValues::Above,
        _ => return Err(Fault::new("`nan_value_treatment` is unknown")),
    };
    FloatFeature::new(
        read_position(feature)?,
        feature.floats("borders")?,
        feature.integer("has_nans")? != 0,
        treatment,
    )
}

fn read_position(feature: &Object<'_>) -> Result<Position, Fault> {
    let index = |name: &str| {
        let index = feature.integer(name)?;
        i32::try_from(index).map_err(|_| Fault(format!("`{name}`: {index} is no index")))
    };
    let id = feature.get("feature_id").map(Value::as_text).transpose();
    Position::new(
        index("feature_index")?,
        index("flat_feature_index")?,
        id.map_err(named("feature_id"))?.unwrap_or_default(),
    )
}

/// The leaves that are read, all with the same number of values.
#[derive(Default)]
struct Leaves {
    values: Vec<f64>,
    /// Of as many leaves as the file says them of.
    weights: Vec<f64>,
    each: Option<usize>,
}

impl Leaves {
    /// Adds a number of leaves.
    fn push(&mut self, values: &[f64], leaves: usize) -> Result<(), Fault> {
        let each = values.len() / leaves;
        if each * leaves != values.len() || *self.each.get_or_insert(each) != each {
            return Err(Fault(format!(
                "{} values for {leaves} leaves",
                values.len()
            )));
        }
        self.values.extend_from_slice(values);
        Ok(())
    }
}

/// Trees of one level have two leaves, and so on; more levels than this no file can hold.
const LEVELS_MAX: usize = 32;

fn read_symmetric(trees: &Value<'_>, leaves: &mut Leaves) -> Result<Trees, Fault> {
    let trees = trees.as_list()?.iter().enumerate().map(|(index, tree)| {
        let tree = tree.as_object().and_then(|tree| {
            let splits = match tree.required("splits")? {
                // A tree that asks nothing.
                Value::Null => &[],
                splits => splits.as_list().map_err(named("splits"))?,
            };
            if splits.len() > LEVELS_MAX {
                return Err(Fault(format!(
                    "`splits`: {} levels are too many",
                    splits.len()
                )));
            }
            let splits = splits
                .iter()
                .map(|split| split.as_object().and_then(read_split));
            let splits: Vec<u32> = splits.collect::<Result<_, _>>().map_err(named("splits"))?;
            let values = tree.doubles("leaf_values")?;
            leaves
                .push(&values, 1 << splits.len())
                .map_err(named("leaf_values"))?;
            if let Some(weights) = tree.get("leaf_weights") {
                let weights = weights.to_doubles();
                leaves
                    .weights
                    .extend(weights.map_err(named("leaf_weights"))?);
            }
            Ok(splits)
        });
        tree.map_err(|fault| fault.inside(format_args!("tree {index}")))
    });
    trees.collect::<Result<_, _>>().map(Trees::Symmetric)
}

/// The number of a split; what else the file says of it is written for people.
fn read_split(split: &Object<'_>) -> Result<u32, Fault> {
    let index = split.integer("split_index")?;
    u32::try_from(index).map_err(|_| Fault(format!("`split_index`: {index} is no index")))
}

fn read_asymmetric(trees: &Value<'_>, leaves: &mut Leaves) -> Result<Trees, Fault> {
    let trees = trees.as_list()?.iter().enumerate().map(|(index, root)| {
        let mut nodes = Vec::new();
        let root = root
            .as_object()
            .and_then(|root| read_branch(root, &mut nodes, leaves));
        let root = root.map_err(|fault| fault.inside(format_args!("tree {index}")))?;
        Ok(AsymmetricTree { nodes, root })
    });
    trees.collect::<Result<_, _>>().map(Trees::Asymmetric)
}

/// Reads a node with all below it; how deep that is, the document's parser has limited.
fn read_branch(
    node: &Object<'_>,
    nodes: &mut Vec<SplitNode>,
    leaves: &mut Leaves,
) -> Result<Branch, Fault> {
    if let Some(value) = node.get("value") {
        let start = leaves.values.len() as u32;
        let values = match value.as_double() {
            Ok(value) => vec![value],
            Err(_) => value.to_doubles().map_err(named("value"))?,
        };
        leaves.push(&values, 1).map_err(named("value"))?;
        if let Some(weight) = node.get("weight") {
            let weight = weight.as_double().map_err(named("weight"))?;
            leaves.weights.push(weight);
        }
        return Ok(Branch::Leaf(start));
    }
    let split = node.object("split")?;
    let at = nodes.len();
    let none = Branch::Leaf(0);
    nodes.push(SplitNode {
        split: read_split(split).map_err(named("split"))?,
        left: none,
        right: none,
    });
    let left = read_branch(node.object("left")?, nodes, leaves)?;
    let right = read_branch(node.object("right")?, nodes, leaves)?;
    nodes[at].left = left;
    nodes[at].right = right;
    Ok(Branch::Node(at as u32))
}

/// Scale and biases; versions without several outputs wrote the one bias as it is.
fn read_scale_and_bias(document: &Object<'_>) -> Result<(f64, Vec<f64>), Fault> {
    let Some(both) = document.get("scale_and_bias") else {
        return Ok((1.0, Vec::new()));
    };
    if let Ok(numbers) = both.to_doubles() {
        return match numbers[..] {
            [scale, bias] => Ok((scale, vec![bias])),
            _ => Err(Fault::new("expected a scale and biases")),
        };
    }
    match both.as_list()? {
        [scale, biases] => Ok((scale.as_double()?, biases.to_doubles()?)),
        _ => Err(Fault::new("expected a scale and biases")),
    }
}
