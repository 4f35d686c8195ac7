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
    for model in models() {
        if words.is_empty() || words.iter().any(|word| model.name.contains(*word)) {
            measure(&model);
        }
    }
}

struct Model {
    name: String,
    file: Vec<u8>,
    rows: Vec<f64>,
}

fn models() -> Vec<Model> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::read(here.join("../../models/santander/1/model.ubj")).unwrap();
    let rows = encoded(&here.join("tests/data/santander"));
    let mut models = vec![Model {
        name: "santander: 880 trees of depth 6, 22 outputs".into(),
        file,
        rows,
    }];
    for shape in SHAPES {
        models.push(shape.model());
    }
    models
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

/// A generated model.
struct Shape {
    name: &'static str,
    trees: usize,
    depth: usize,
    /// Splits of a tree; nodes are split in a random order until there are so many.
    splits: usize,
    features: usize,
    outputs: usize,
}

const SHAPES: [Shape; 6] = [
    Shape {
        name: "deep",
        trees: 1100,
        depth: 8,
        splits: 255,
        features: 20,
        outputs: 22,
    },
    Shape {
        name: "leaf-wise",
        trees: 880,
        depth: 19,
        splits: 62,
        features: 20,
        outputs: 22,
    },
    Shape {
        name: "one-output",
        trees: 880,
        depth: 6,
        splits: 63,
        features: 20,
        outputs: 1,
    },
    Shape {
        name: "small",
        trees: 100,
        depth: 4,
        splits: 15,
        features: 12,
        outputs: 1,
    },
    Shape {
        name: "60-features",
        trees: 880,
        depth: 6,
        splits: 63,
        features: 60,
        outputs: 22,
    },
    Shape {
        name: "120-features",
        trees: 880,
        depth: 6,
        splits: 63,
        features: 120,
        outputs: 22,
    },
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

impl Shape {
    fn model(&self) -> Model {
        let mut random = Random(self.trees as u64 + self.depth as u64);
        let trees: Vec<Value> = (0..self.trees).map(|_| self.tree(&mut random)).collect();
        let outputs: Vec<usize> = (0..self.trees).map(|tree| tree % self.outputs).collect();
        let objective = match self.outputs {
            1 => json!({"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}}),
            n => {
                json!({"name": "multi:softprob", "softmax_multiclass_param": {"num_class": n.to_string()}})
            }
        };
        let classes = if self.outputs == 1 { 0 } else { self.outputs };
        let model = json!({
            "version": [2, 1, 0],
            "learner": {
                "attributes": {}, "feature_names": [], "feature_types": [],
                "gradient_booster": {"name": "gbtree", "model": {
                    "gbtree_model_param": {"num_trees": self.trees.to_string(), "num_parallel_tree": "1"},
                    "trees": trees, "tree_info": outputs,
                }},
                "learner_model_param": {
                    "base_score": "5E-1", "boost_from_average": "1", "num_target": "1",
                    "num_class": classes.to_string(), "num_feature": self.features.to_string(),
                },
                "objective": objective,
            },
        });
        let rows = (0..ROWS * self.features).map(|_| random.below(260) as f64 - 2.5);
        Model {
            name: format!(
                "{}: {} trees of depth {} and {} splits, {} features, {} outputs",
                self.name, self.trees, self.depth, self.splits, self.features, self.outputs
            ),
            rows: rows.collect(),
            file: model.to_string().into_bytes(),
        }
    }

    fn tree(&self, random: &mut Random) -> Value {
        let mut nodes = vec![(-1, -1, 0, 0.0)];
        let mut open = vec![(0, 0)];
        let mut splits = 0;
        while splits < self.splits && !open.is_empty() {
            let (place, depth) = open.swap_remove(random.below(open.len()));
            let left = nodes.len() as i64;
            nodes[place] = (
                left,
                left + 1,
                random.below(self.features),
                random.below(255) as f64,
            );
            splits += 1;
            for child in [left as usize, left as usize + 1] {
                nodes.push((-1, -1, 0, random.below(1000) as f64 / 7000.0 - 0.07));
                if depth + 1 < self.depth {
                    open.push((child, depth + 1));
                }
            }
        }
        let column =
            |of: fn(&(i64, i64, usize, f64)) -> Value| nodes.iter().map(of).collect::<Value>();
        json!({
            "tree_param": {"num_nodes": nodes.len().to_string(), "size_leaf_vector": "0"},
            "left_children": column(|node| node.0.into()),
            "right_children": column(|node| node.1.into()),
            "split_indices": column(|node| node.2.into()),
            "split_conditions": column(|node| node.3.into()),
            "default_left": column(|node| i32::from(node.2 % 2 == 0).into()),
        })
    }
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
