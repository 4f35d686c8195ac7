//! The library's own format (`.cbm`): a mark, then FlatBuffers, each after its length.
//!
//! Field numbers follow `catboost/libs/model/flatbuffers` of the library's repository.

use super::ctr::{self, Base, Combination, Counts, Ctr, Formula, Kind};
use super::flat::{Buffer, Field, Table};
use super::objective;
use super::parts::{
    self, AsymmetricTree, Branch, FEATURES_MAX, FloatFeature, Info, MissingValues, OneHotFeature,
    Parts, Position, SplitNode, Trees, check_borders,
};
use crate::document::{self, Fault, named, shorten};

pub(super) const MARK: &[u8] = b"CBM1";

const VERSION: &str = "FlabuffersModel_v1";

/// The part with the tables of counts.
const STATIC_CTRS: &str = "static_provider_v1";

/// How many columns may be computed from counts.
const CTRS_MAX: usize = 1 << 20;

/// Entries of information about training.
const ENTRIES_MAX: usize = 10_000;

mod core {
    use super::Field;
    pub(super) const FORMAT_VERSION: Field = (0, "FormatVersion");
    pub(super) const MODEL_TREES: Field = (1, "ModelTrees");
    pub(super) const INFO_MAP: Field = (2, "InfoMap");
    pub(super) const MODEL_PART_IDS: Field = (3, "ModelPartIds");
    pub(super) const KEY: Field = (0, "Key");
    pub(super) const VALUE: Field = (1, "Value");
}

mod trees {
    use super::Field;
    pub(super) const APPROX_DIMENSION: Field = (0, "ApproxDimension");
    pub(super) const TREE_SPLITS: Field = (1, "TreeSplits");
    pub(super) const TREE_SIZES: Field = (2, "TreeSizes");
    pub(super) const CAT_FEATURES: Field = (4, "CatFeatures");
    pub(super) const FLOAT_FEATURES: Field = (5, "FloatFeatures");
    pub(super) const ONE_HOT_FEATURES: Field = (6, "OneHotFeatures");
    pub(super) const CTR_FEATURES: Field = (7, "CtrFeatures");
    pub(super) const LEAF_VALUES: Field = (8, "LeafValues");
    pub(super) const LEAF_WEIGHTS: Field = (9, "LeafWeights");
    pub(super) const STEP_NODES: Field = (10, "NonSymmetricStepNodes");
    pub(super) const LEAF_IDS: Field = (11, "NonSymmetricNodeIdToLeafId");
    pub(super) const TEXT_FEATURES: Field = (12, "TextFeatures");
    pub(super) const ESTIMATED_FEATURES: Field = (13, "EstimatedFeatures");
    pub(super) const SCALE: Field = (14, "Scale");
    pub(super) const BIAS: Field = (15, "Bias");
    pub(super) const MULTI_BIAS: Field = (16, "MultiBias");
    pub(super) const EMBEDDING_FEATURES: Field = (18, "EmbeddingFeatures");
}

mod feature {
    use super::Field;
    pub(super) const HAS_NANS: Field = (0, "HasNans");
    pub(super) const INDEX: Field = (1, "Index");
    pub(super) const FLAT_INDEX: Field = (2, "FlatIndex");
    pub(super) const BORDERS: Field = (3, "Borders");
    pub(super) const FEATURE_ID: Field = (4, "FeatureId");
    pub(super) const NAN_VALUE_TREATMENT: Field = (5, "NanValueTreatment");
}

mod category {
    use super::Field;
    pub(super) const INDEX: Field = (0, "Index");
    pub(super) const FLAT_INDEX: Field = (1, "FlatIndex");
    pub(super) const FEATURE_ID: Field = (2, "FeatureId");
}

mod one_hot {
    use super::Field;
    pub(super) const INDEX: Field = (0, "Index");
    pub(super) const VALUES: Field = (1, "Values");
}

mod ctr_feature {
    use super::Field;
    pub(super) const CTR: Field = (0, "Ctr");
    pub(super) const BORDERS: Field = (1, "Borders");
    pub(super) const BASE: Field = (0, "Base");
    pub(super) const TARGET_BORDER_IDX: Field = (1, "TargetBorderIdx");
    pub(super) const PRIOR_NUM: Field = (2, "PriorNum");
    pub(super) const PRIOR_DENOM: Field = (3, "PriorDenom");
    pub(super) const SHIFT: Field = (4, "Shift");
    pub(super) const SCALE: Field = (5, "Scale");
}

mod ctr_base {
    use super::Field;
    pub(super) const FEATURE_COMBINATION: Field = (0, "FeatureCombination");
    pub(super) const CTR_TYPE: Field = (1, "CtrType");
    pub(super) const CLASSIFIER_IDX: Field = (2, "TargetBorderClassifierIdx");
    pub(super) const CAT_FEATURES: Field = (0, "CatFeatures");
    pub(super) const FLOAT_SPLITS: Field = (1, "FloatSplits");
    pub(super) const ONE_HOT_SPLITS: Field = (2, "OneHotSplits");
}

mod ctr_table {
    use super::Field;
    pub(super) const MODEL_CTR_BASE: Field = (0, "ModelCtrBase");
    pub(super) const INDEX_HASH_RAW: Field = (1, "IndexHashRaw");
    pub(super) const CTR_BLOB: Field = (2, "CTRBlob");
    pub(super) const COUNTER_DENOMINATOR: Field = (3, "CounterDenominator");
    pub(super) const TARGET_CLASSES_COUNT: Field = (4, "TargetClassesCount");
}

/// Why a model with parts of another kind is refused. Their names have a version.
fn refused_part(part: &str) -> Fault {
    match part {
        part if part.starts_with("text_process") => parts::refused("text features"),
        part if part.starts_with("embed_process") => parts::refused("embedding features"),
        part => Fault(format!(
            "the part `{}` of a model is not supported",
            shorten(part)
        )),
    }
}

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Parts, Fault> {
    let mut rest = bytes.strip_prefix(MARK).unwrap_or(bytes);
    let core = take_sized(&mut rest).map_err(|fault| fault.inside("the first part"))?;
    let buffer = Buffer::new(core);
    let root = buffer.root()?;
    match root.text(core::FORMAT_VERSION)? {
        Some(VERSION) => {}
        version => {
            let version: String = version.unwrap_or_default().chars().take(40).collect();
            return Err(Fault(format!(
                "the version `{version}` of the format is unknown"
            )));
        }
    }
    let mut tables = Vec::new();
    for part in root.texts(core::MODEL_PART_IDS)? {
        if part != STATIC_CTRS {
            return Err(refused_part(part));
        }
        tables = read_tables(&mut rest).map_err(named(STATIC_CTRS))?;
    }
    if !rest.is_empty() {
        return Err(Fault::new("something follows the end of the model"));
    }
    let model = root.table(core::MODEL_TREES)?;
    let model = model.ok_or_else(|| Fault::new("`ModelTrees` is missing"))?;
    let info = read_info(&root).map_err(named("InfoMap"))?;
    read_model(&model, info, tables).map_err(named("ModelTrees"))
}

fn cut_off() -> Fault {
    Fault::new("the file is cut off here; copy or save it again")
}

/// Takes a part with its length before it.
fn take_sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Fault> {
    let length = usize::try_from(take_length(rest)?).map_err(|_| cut_off())?;
    let (part, after) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    *rest = after;
    Ok(part)
}

/// Takes a length: 32 bits, or where those are all set, the 64 after them.
fn take_length(rest: &mut &[u8]) -> Result<u64, Fault> {
    let (short, after) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let (length, after) = match u32::from_le_bytes(*short) {
        u32::MAX => {
            let (long, after) = after.split_first_chunk().ok_or_else(cut_off)?;
            (u64::from_le_bytes(*long), after)
        }
        short => (u64::from(short), after),
    };
    *rest = after;
    Ok(length)
}

fn read_info(root: &Table<'_, '_>) -> Result<Info, Fault> {
    let mut info = Info::default();
    for entry in root.tables(core::INFO_MAP, ENTRIES_MAX)? {
        let entry = entry?;
        let (Some(key), Some(value)) = (entry.bytes(core::KEY)?, entry.bytes(core::VALUE)?) else {
            continue;
        };
        match key {
            b"params" if !value.is_empty() => {
                let parameters = document::parse_json(value).map_err(named("params"))?;
                let loss = parameters.as_object().and_then(objective::read_loss);
                info.loss = loss.map_err(named("params"))?;
            }
            b"class_params" | b"multiclass_params" if !value.is_empty() => {
                let classes = document::parse_json(value).map_err(named("class_params"))?;
                let labels = classes.as_object().and_then(objective::read_labels);
                info.labels = labels.map_err(named("class_params"))?;
            }
            b"binclass_probability_threshold" => {
                let text = std::str::from_utf8(value).ok();
                info.threshold = text.and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }
    Ok(info)
}

fn read_model(model: &Table<'_, '_>, info: Info, tables: Vec<ctr::Table>) -> Result<Parts, Fault> {
    for (field, what) in [
        (trees::TEXT_FEATURES, "text features"),
        (trees::EMBEDDING_FEATURES, "embedding features"),
        (
            trees::ESTIMATED_FEATURES,
            "features estimated from texts or embeddings",
        ),
    ] {
        if model.tables(field, FEATURES_MAX)?.next().is_some() {
            return Err(parts::refused(what));
        }
    }
    let floats = model.tables(trees::FLOAT_FEATURES, FEATURES_MAX)?;
    let floats = floats.enumerate().map(|(index, feature)| {
        let feature = feature.and_then(|feature| read_float(&feature));
        feature.map_err(|fault| fault.inside(format_args!("`FloatFeatures`: {index}")))
    });
    let categories = model.tables(trees::CAT_FEATURES, FEATURES_MAX)?;
    let categories = categories.enumerate().map(|(index, feature)| {
        let feature = feature.and_then(|feature| read_category(&feature));
        feature.map_err(|fault| fault.inside(format_args!("`CatFeatures`: {index}")))
    });
    let one_hots = model.tables(trees::ONE_HOT_FEATURES, FEATURES_MAX)?;
    let one_hots = one_hots.enumerate().map(|(index, one)| {
        let one = one.and_then(|one| {
            let category = one.i32(one_hot::INDEX, -1)?;
            OneHotFeature::new(category, one.numbers(one_hot::VALUES, i32::from_le_bytes)?)
        });
        one.map_err(|fault| fault.inside(format_args!("`OneHotFeatures`: {index}")))
    });
    let ctrs = model.tables(trees::CTR_FEATURES, CTRS_MAX)?;
    let ctrs = ctrs.enumerate().map(|(index, ctr)| {
        let ctr = ctr.and_then(|ctr| read_ctr(&ctr));
        ctr.map_err(|fault| fault.inside(format_args!("`CtrFeatures`: {index}")))
    });
    let outputs = model.i32(trees::APPROX_DIMENSION, 0)?;
    let outputs = usize::try_from(outputs).unwrap_or(0);
    let mut biases = model.numbers(trees::MULTI_BIAS, f64::from_le_bytes)?;
    if biases.is_empty() {
        biases = vec![model.f64(trees::BIAS, 0.0)?];
        // Files from before models had a bias have none for any number of outputs.
        if biases[0] == 0.0 {
            biases.resize(outputs.min(super::parts::OUTPUTS_MAX), 0.0);
        }
    }
    let parts = Parts {
        info,
        floats: floats.collect::<Result<_, _>>()?,
        categories: categories.collect::<Result<_, _>>()?,
        one_hots: one_hots.collect::<Result<_, _>>()?,
        ctrs: ctrs.collect::<Result<_, _>>()?,
        tables,
        outputs,
        trees: read_trees(model)?,
        leaves: model.numbers(trees::LEAF_VALUES, f64::from_le_bytes)?,
        weights: model.numbers(trees::LEAF_WEIGHTS, f64::from_le_bytes)?,
        scale: model.f64(trees::SCALE, 1.0)?,
        biases,
    };
    Ok(parts)
}

fn read_float(feature: &Table<'_, '_>) -> Result<FloatFeature, Fault> {
    let position = Position::new(
        feature.i32(feature::INDEX, -1)?,
        feature.i32(feature::FLAT_INDEX, -1)?,
        feature.text(feature::FEATURE_ID)?.unwrap_or_default(),
    )?;
    let treatment = match feature.u8(feature::NAN_VALUE_TREATMENT, 0)? {
        0 | 1 => MissingValues::Below,
        2 => MissingValues::Above,
        other => return Err(Fault(format!("`NanValueTreatment`: {other} is unknown"))),
    };
    FloatFeature::new(
        position,
        feature.numbers(feature::BORDERS, f32::from_le_bytes)?,
        feature.u8(feature::HAS_NANS, 0)? != 0,
        treatment,
    )
}

fn read_category(feature: &Table<'_, '_>) -> Result<Position, Fault> {
    Position::new(
        feature.i32(category::INDEX, -1)?,
        feature.i32(category::FLAT_INDEX, -1)?,
        feature.text(category::FEATURE_ID)?.unwrap_or_default(),
    )
}

fn read_ctr(feature: &Table<'_, '_>) -> Result<Ctr, Fault> {
    let ctr = feature.required(ctr_feature::CTR)?;
    let target_border = ctr.i32(ctr_feature::TARGET_BORDER_IDX, 0)?;
    let borders = feature.numbers(ctr_feature::BORDERS, f32::from_le_bytes)?;
    check_borders(&borders)?;
    Ok(Ctr {
        base: read_base(&ctr.required(ctr_feature::BASE)?)?,
        formula: Formula::new(
            i64::from(target_border),
            [
                ctr.f32(ctr_feature::PRIOR_NUM, 0.0)?,
                ctr.f32(ctr_feature::PRIOR_DENOM, 1.0)?,
                ctr.f32(ctr_feature::SHIFT, 0.0)?,
                ctr.f32(ctr_feature::SCALE, 1.0)?,
            ],
        )?,
        borders,
    })
}

fn read_base(base: &Table<'_, '_>) -> Result<Base, Fault> {
    let combination = base.required(ctr_base::FEATURE_COMBINATION)?;
    let pair = |bytes: [u8; 8]| {
        let [a, b, c, d, e, f, g, h] = bytes;
        (
            i32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        )
    };
    Ok(Base {
        combination: Combination {
            categories: combination.numbers(ctr_base::CAT_FEATURES, i32::from_le_bytes)?,
            floats: combination.numbers(ctr_base::FLOAT_SPLITS, pair)?,
            one_hots: combination.numbers(ctr_base::ONE_HOT_SPLITS, |bytes| {
                let (category, hash) = pair(bytes);
                (category, hash as i32)
            })?,
        },
        kind: Kind::from_number(base.u8(ctr_base::CTR_TYPE, 0)?)?,
        classifier: base.i32(ctr_base::CLASSIFIER_IDX, 0)?,
    })
}

/// Tables of counts, which follow the model: how many, and each after its length.
fn read_tables(rest: &mut &[u8]) -> Result<Vec<ctr::Table>, Fault> {
    let count = take_length(rest)?;
    let mut tables = Vec::new();
    for index in 0..count {
        let table = take_sized(rest).and_then(|bytes| {
            let buffer = Buffer::new(bytes);
            read_table(&buffer.root()?)
        });
        tables.push(table.map_err(|fault| fault.inside(format_args!("table {index}")))?);
    }
    Ok(tables)
}

fn read_table(table: &Table<'_, '_>) -> Result<ctr::Table, Fault> {
    let base = read_base(&table.required(ctr_table::MODEL_CTR_BASE)?)?;
    let places = table.bytes(ctr_table::INDEX_HASH_RAW)?.unwrap_or_default();
    let places = places.as_chunks::<12>().0.iter().map(|place| {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *place;
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (hash, u32::from_le_bytes([i, j, k, l]))
    });
    let integers = || table.packed(ctr_table::CTR_BLOB, i32::from_le_bytes);
    let counts = match base.kind {
        Kind::Borders | Kind::Buckets => {
            let classes = table.i32(ctr_table::TARGET_CLASSES_COUNT, 0)?;
            Counts::Classes {
                classes: usize::try_from(classes).unwrap_or(0),
                counts: integers()?,
            }
        }
        Kind::BinarizedTargetMeanValue | Kind::FloatTargetMeanValue => {
            let mean = |bytes: [u8; 8]| {
                let [a, b, c, d, e, f, g, h] = bytes;
                (
                    f32::from_le_bytes([a, b, c, d]),
                    i32::from_le_bytes([e, f, g, h]),
                )
            };
            Counts::Means(table.packed(ctr_table::CTR_BLOB, mean)?)
        }
        Kind::Counter | Kind::FeatureFreq => Counts::Totals {
            denominator: table.i32(ctr_table::COUNTER_DENOMINATOR, 0)?,
            counts: integers()?,
        },
    };
    ctr::Table::new(base, places.into_iter(), counts)
}

fn read_trees(model: &Table<'_, '_>) -> Result<Trees, Fault> {
    let splits = model.numbers(trees::TREE_SPLITS, u32::from_le_bytes)?;
    let sizes = model.numbers(trees::TREE_SIZES, u32::from_le_bytes)?;
    let steps = model.numbers(trees::STEP_NODES, |step: [u8; 4]| {
        let [a, b, c, d] = step;
        [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])]
    })?;
    let leaf_ids = model.numbers(trees::LEAF_IDS, u32::from_le_bytes)?;
    let is_symmetric = steps.is_empty() && leaf_ids.is_empty();
    if !is_symmetric && (steps.len() != splits.len() || leaf_ids.len() != splits.len()) {
        return Err(Fault(format!(
            "{} steps and {} leaves for {} nodes",
            steps.len(),
            leaf_ids.len(),
            splits.len()
        )));
    }
    let mut start = 0usize;
    let ranges = sizes.iter().map(|&size| {
        let range = start..start.saturating_add(size as usize);
        start = range.end;
        match range.end <= splits.len() {
            true => Ok(range),
            false => Err(Fault::new("`TreeSizes`: more nodes than are there")),
        }
    });
    let ranges: Vec<_> = ranges.collect::<Result<_, _>>()?;
    if is_symmetric {
        let trees = ranges.into_iter().map(|range| splits[range].to_vec());
        return Ok(Trees::Symmetric(trees.collect()));
    }
    let trees = ranges.into_iter().enumerate().map(|(index, range)| {
        let nodes = Nodes {
            splits: &splits[range.clone()],
            steps: &steps[range.clone()],
            leaf_ids: &leaf_ids[range],
        };
        nodes
            .read()
            .map_err(|fault| fault.inside(format_args!("tree {index}")))
    });
    trees.collect::<Result<_, _>>().map(Trees::Asymmetric)
}

/// The nodes of one tree, one column per property.
struct Nodes<'a> {
    splits: &'a [u32],
    /// How far the children are behind their parent; 0 stands for the node's own leaf.
    steps: &'a [[u16; 2]],
    leaf_ids: &'a [u32],
}

impl Nodes<'_> {
    fn read(&self) -> Result<AsymmetricTree, Fault> {
        if self.splits.is_empty() {
            return Err(Fault::new("a tree without nodes"));
        }
        // Which number each node has once leaves are left out; children come after their parents.
        let mut numbers = vec![None; self.splits.len()];
        let mut next = 0;
        let mut number = |node: usize| match self.steps[node] {
            [0, 0] => Ok(Branch::Leaf(self.leaf_ids[node])),
            _ if numbers[node].is_some() => Err(Fault(format!("node {node} is reached twice"))),
            _ => {
                numbers[node] = Some(next);
                next += 1;
                Ok(Branch::Node(next - 1))
            }
        };
        let root = number(0)?;
        let mut open = Vec::from_iter((root != Branch::Leaf(self.leaf_ids[0])).then_some(0));
        let mut nodes = Vec::new();
        let mut at = 0;
        while let Some(&node) = open.get(at) {
            at += 1;
            let [left, right] = self.steps[node].map(usize::from);
            let mut branch = |step: usize| match node + step {
                _ if step == 0 => Ok(Branch::Leaf(self.leaf_ids[node])),
                child if child < self.splits.len() => {
                    let branch = number(child)?;
                    open.extend(matches!(branch, Branch::Node(_)).then_some(child));
                    Ok(branch)
                }
                child => Err(Fault(format!(
                    "node {node}: child {child} is not in the tree"
                ))),
            };
            nodes.push(SplitNode {
                split: self.splits[node],
                left: branch(left)?,
                right: branch(right)?,
            });
        }
        Ok(AsymmetricTree { nodes, root })
    }
}
