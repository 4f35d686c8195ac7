//! How fast each kernel of the forest predicts: whole predictions of the example model and of
//! generated ones, and their ratio to the scalar kernel.
//!
//! `cargo bench -p auspex-engine --bench kernels`, with words after `--` to measure only models whose
//! name has one of them. The kernels take turns and the best turn counts, whatever else the machine does. Fails if kernels do not give the same bits.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and is printed, and fails by panicking"
)]

use std::fs::read_to_string;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use auspex_engine::{Engine, LoadOptions, Rows, load_bytes, with_kernel};
use serde_json::{Value, json};

/// How engines describe their kernels; the first is what the others are compared with.
const KERNELS: [&str; 5] = [
    "4-byte rank nodes, scalar",
    "4-byte rank nodes, avx-512",
    "byte ranks, neon",
    "byte ranks, avx2",
    "byte ranks, avx-512",
];
const TURNS: usize = 101;
/// Rows of a model; those of a turn that are predicted one by one, with hot and with cold caches; and those
/// of a batch.
const ROWS: usize = 201;
const HOT_ROWS: usize = 50;
const COLD_ROWS: usize = 3;
const BATCH_ROWS: usize = 256;
/// What is read to empty the caches of a core.
const SWEPT_BYTES: usize = 16 << 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    println!("µs a row, the best of {TURNS} turns, and the ratio to the first kernel\n");
    let is_asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(*word));
    if is_asked("santander") {
        measure(&santander());
    }
    for shape in SHAPES.iter().filter(|shape| is_asked(shape.name)) {
        measure(&shape.model());
    }
}

struct Model {
    name: String,
    file: Vec<u8>,
    rows: Vec<f64>,
}

fn santander() -> Model {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Model {
        name: "santander: 880 trees of depth 6, 22 outputs".into(),
        file: std::fs::read(here.join("../../models/santander/1/model.ubj")).unwrap(),
        rows: encoded(&here.join("tests/data/santander")),
    }
}

/// The records of the example model as its training coded them: texts by their place in the schema.
fn encoded(folder: &Path) -> Vec<f64> {
    let schema: Value = read_json(&folder.join("schema.json")).remove(0);
    let value = |record: &Value, feature: &Value| {
        let value = &record[feature["name"].as_str().unwrap()];
        match feature["values"].as_array() {
            Some(known) => known
                .iter()
                .position(|known| known == value)
                .map(|at| at as f64),
            None => value.as_f64(),
        }
        .unwrap_or(f64::NAN)
    };
    let features = schema["features"].as_array().unwrap();
    let records = read_json(&folder.join("records.jsonl"));
    let rows = records
        .iter()
        .flat_map(|record| features.iter().map(move |feature| value(record, feature)));
    rows.collect()
}

fn read_json(path: &Path) -> Vec<Value> {
    let text = read_to_string(path).unwrap();
    let values = serde_json::Deserializer::from_str(&text).into_iter();
    values.map(Result::unwrap).collect()
}

/// Whose file a generated model is.
#[derive(Debug, Clone, Copy)]
enum Library {
    /// Leaves and sums of four bytes.
    XGBoost,
    /// Of eight.
    LightGbm,
}
use Library::{LightGbm, XGBoost};

/// A generated model.
struct Shape {
    name: &'static str,
    library: Library,
    trees: usize,
    depth: usize,
    /// Splits of a tree; nodes are split in a random order until there are so many.
    splits: usize,
    features: usize,
    outputs: usize,
}

const fn shape(
    name: &'static str,
    library: Library,
    [trees, depth, splits, features, outputs]: [usize; 5],
) -> Shape {
    Shape {
        name,
        library,
        trees,
        depth,
        splits,
        features,
        outputs,
    }
}

const SHAPES: [Shape; 8] = [
    shape("deep", XGBoost, [1100, 8, 255, 20, 22]),
    shape("leaf-wise", XGBoost, [880, 19, 62, 20, 22]),
    shape("one-output", XGBoost, [880, 6, 63, 20, 1]),
    shape("small", XGBoost, [100, 4, 15, 12, 1]),
    shape("60-features", XGBoost, [880, 6, 63, 60, 22]),
    shape("120-features", XGBoost, [880, 6, 63, 120, 22]),
    shape("doubles", LightGbm, [880, 6, 63, 20, 22]),
    shape("doubles-leaf-wise", LightGbm, [880, 12, 30, 20, 1]),
];

/// Vigna's splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A node of a generated tree: a split with its children and threshold, or a leaf with its value.
#[derive(Clone, Copy)]
struct Node {
    children: Option<[usize; 2]>,
    feature: usize,
    number: f64,
}

impl Shape {
    fn model(&self) -> Model {
        let mut random = Random(self.trees as u64 + self.depth as u64);
        let trees: Vec<Vec<Node>> = (0..self.trees).map(|_| self.tree(&mut random)).collect();
        let file = match self.library {
            XGBoost => self.xgboost(&trees),
            LightGbm => self.lightgbm(&trees),
        };
        let rows = (0..ROWS * self.features).map(|_| random.below(260) as f64 - 2.5);
        Model {
            name: format!(
                "{}: {} trees of depth {} and {} splits, {} features, {} outputs",
                self.name, self.trees, self.depth, self.splits, self.features, self.outputs
            ),
            rows: rows.collect(),
            file: file.into_bytes(),
        }
    }

    fn tree(&self, random: &mut Random) -> Vec<Node> {
        let leaf = |random: &mut Random| Node {
            children: None,
            feature: 0,
            number: random.below(1000) as f64 / 7000.0 - 0.07,
        };
        let mut nodes = vec![leaf(random)];
        let mut open = vec![(0, 0)];
        for _ in 0..self.splits {
            let (place, depth) = open.swap_remove(random.below(open.len()));
            let left = nodes.len();
            nodes[place] = Node {
                children: Some([left, left + 1]),
                feature: random.below(self.features),
                number: random.below(255) as f64,
            };
            for child in [left, left + 1] {
                nodes.push(leaf(random));
                if depth + 1 < self.depth {
                    open.push((child, depth + 1));
                }
            }
            if open.is_empty() {
                break;
            }
        }
        nodes
    }

    fn xgboost(&self, trees: &[Vec<Node>]) -> String {
        let tree = |nodes: &Vec<Node>| {
            let column = |of: fn(&Node) -> Value| nodes.iter().map(of).collect::<Value>();
            json!({
                "tree_param": {"num_nodes": nodes.len().to_string(), "size_leaf_vector": "0"},
                "left_children": column(|node| node.children.map_or(-1, |c| c[0] as i64).into()),
                "right_children": column(|node| node.children.map_or(-1, |c| c[1] as i64).into()),
                "split_indices": column(|node| node.feature.into()),
                "split_conditions": column(|node| node.number.into()),
                "default_left": column(|node| i32::from(node.feature % 2 == 0).into()),
            })
        };
        let outputs: Vec<usize> = (0..self.trees).map(|tree| tree % self.outputs).collect();
        let objective = match self.outputs {
            1 => json!({"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}),
            n => json!({
                "name": "multi:softprob", "softmax_multiclass_param": {"num_class": n.to_string()},
            }),
        };
        let classes = if self.outputs == 1 { 0 } else { self.outputs };
        let model = json!({
            "version": [2, 1, 0],
            "learner": {
                "attributes": {}, "feature_names": [], "feature_types": [],
                "gradient_booster": {"name": "gbtree", "model": {
                    "gbtree_model_param": {
                        "num_trees": self.trees.to_string(), "num_parallel_tree": "1",
                    },
                    "trees": trees.iter().map(tree).collect::<Value>(), "tree_info": outputs,
                }},
                "learner_model_param": {
                    "base_score": "5E-1", "boost_from_average": "1", "num_target": "1",
                    "num_class": classes.to_string(), "num_feature": self.features.to_string(),
                },
                "objective": objective,
            },
        });
        model.to_string()
    }

    fn lightgbm(&self, trees: &[Vec<Node>]) -> String {
        let objective = match self.outputs {
            1 => "regression".into(),
            n => format!("multiclass num_class:{n}"),
        };
        let names = join((0..self.features).map(|feature| format!("f{feature}")));
        let ranges = join((0..self.features).map(|_| "[0:255]".into()));
        let mut file = format!(
            "tree\nversion=v4\nnum_class={outputs}\nnum_tree_per_iteration={outputs}\n\
             label_index=0\nmax_feature_idx={last}\nobjective={objective}\n\
             feature_names={names}\nfeature_infos={ranges}\n\n",
            outputs = self.outputs,
            last = self.features - 1,
        );
        for (index, nodes) in trees.iter().enumerate() {
            // Splits and leaves are numbered apart; a leaf is the complement of its number.
            let mut counts = [0, 0];
            let numbers: Vec<i64> = nodes
                .iter()
                .map(|node| {
                    let count = &mut counts[usize::from(node.children.is_some())];
                    *count += 1;
                    if node.children.is_some() {
                        *count - 1
                    } else {
                        -*count
                    }
                })
                .collect();
            let splits = || nodes.iter().filter_map(|node| Some((node, node.children?)));
            let child = |side: usize| join(splits().map(|(_, c)| numbers[c[side]].to_string()));
            let leaves = nodes.iter().filter(|node| node.children.is_none());
            file += &format!(
                "Tree={index}\nnum_leaves={leaf_count}\nnum_cat=0\nsplit_feature={features}\n\
                 threshold={thresholds}\ndecision_type={kinds}\nleft_child={left}\n\
                 right_child={right}\nleaf_value={values}\nis_linear=0\nshrinkage=1\n\n\n",
                leaf_count = counts[0],
                features = join(splits().map(|(node, _)| node.feature.to_string())),
                thresholds = join(splits().map(|(node, _)| node.number.to_string())),
                // Missing values are NaN, and go left.
                kinds = join(splits().map(|_| "10".into())),
                left = child(0),
                right = child(1),
                values = join(leaves.map(|leaf| leaf.number.to_string())),
            );
        }
        file + "end of trees\n\nparameters:\n[boosting: gbdt]\nend of parameters\n"
    }
}

fn join(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(" ")
}

/// The times of a kernel, turn by turn, in µs a row.
struct Times {
    engine: Box<dyn Engine>,
    kernel: &'static str,
    hot: Vec<f64>,
    cold: Vec<f64>,
    batch: Vec<f64>,
}

fn measure(model: &Model) {
    let load = || load_bytes(&model.name, &model.file, &LoadOptions::default()).unwrap();
    let chosen = load().description();
    let mut kernels: Vec<Times> = Vec::new();
    for kernel in KERNELS {
        let engine = with_kernel(kernel, load);
        if engine.description().ends_with(kernel) {
            let [hot, cold, batch] = [(); 3].map(|()| Vec::with_capacity(TURNS));
            kernels.push(Times {
                engine,
                kernel,
                hot,
                cold,
                batch,
            });
        }
    }
    let signature = kernels[0].engine.signature();
    let (width, outputs) = (signature.features.len(), signature.outputs());
    let batch: Vec<f64> = model
        .rows
        .iter()
        .copied()
        .cycle()
        .take(BATCH_ROWS * width)
        .collect();
    let mut out = vec![0.0; BATCH_ROWS * outputs];
    let mut expected: Option<Vec<u64>> = None;
    let mut swept = vec![1u64; SWEPT_BYTES / 8];
    for _ in 0..TURNS {
        for times in &mut kernels {
            let mut one = |row: &[f64]| {
                let row = Rows::new(row, width);
                times
                    .engine
                    .predict(row, black_box(&mut out[..outputs]))
                    .unwrap();
            };
            let rows = || model.rows.chunks_exact(width).cycle();
            rows().take(10).for_each(&mut one);
            let began = Instant::now();
            rows().take(HOT_ROWS).for_each(&mut one);
            times.hot.push(micros(began) / HOT_ROWS as f64);
            let mut cold = 0.0;
            for row in rows().take(COLD_ROWS) {
                swept.iter_mut().step_by(8).for_each(|word| *word += 1);
                black_box(&swept);
                let began = Instant::now();
                one(row);
                cold += micros(began);
            }
            times.cold.push(cold / COLD_ROWS as f64);
            let began = Instant::now();
            times
                .engine
                .predict(Rows::new(&batch, width), black_box(&mut out))
                .unwrap();
            times.batch.push(micros(began) / BATCH_ROWS as f64);
            let bits: Vec<u64> = out.iter().copied().map(f64::to_bits).collect();
            assert_eq!(
                expected.get_or_insert_with(|| bits.clone()),
                &bits,
                "{}",
                times.kernel
            );
        }
    }
    println!("{}\n  {chosen}", model.name);
    println!("  {:<28} {:>14} {:>14} {:>14}", "", "hot", "cold", "batch");
    for times in &kernels {
        let cell = |of: fn(&Times) -> &Vec<f64>| {
            let [own, first] = [times, &kernels[0]]
                .map(|times| of(times).iter().copied().fold(f64::INFINITY, f64::min));
            format!("{own:>7.2} {:>6.2}", own / first)
        };
        let (hot, cold, batch) = (cell(|t| &t.hot), cell(|t| &t.cold), cell(|t| &t.batch));
        println!("  {:<28} {hot} {cold} {batch}", times.kernel);
    }
    println!();
}

fn micros(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e6
}
