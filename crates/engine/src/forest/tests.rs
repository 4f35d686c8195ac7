//! Every node size, kernel and arithmetic against a walk that follows the definition.

use super::kernel::{Narrow, Wide};
use super::*;
use proptest::prelude::*;

/// How a library compares and adds.
#[derive(Debug, Clone, Copy)]
struct Arithmetic {
    inputs: Precision,
    equal_goes_left: bool,
    sums: Precision,
}

const XGBOOST: Arithmetic = Arithmetic {
    inputs: Precision::F32,
    equal_goes_left: false,
    sums: Precision::F32,
};

const LIGHTGBM: Arithmetic = Arithmetic {
    inputs: Precision::F64,
    equal_goes_left: true,
    sums: Precision::F64,
};

/// CatBoost's trees.
const CATBOOST: Arithmetic = Arithmetic {
    inputs: Precision::F32,
    equal_goes_left: true,
    sums: Precision::F64,
};

/// Tree ensembles in ONNX files.
const ONNX: Arithmetic = Arithmetic {
    inputs: Precision::F32,
    equal_goes_left: true,
    sums: Precision::F32,
};

/// No library that we know of.
const DOUBLES_BELOW: Arithmetic = Arithmetic {
    inputs: Precision::F64,
    equal_goes_left: false,
    sums: Precision::F32,
};

impl Arithmetic {
    fn rules(self, width: usize) -> Rules {
        Rules {
            width,
            inputs: self.inputs,
            equal_goes_left: self.equal_goes_left,
        }
    }
}

fn rounded(value: f64, precision: Precision) -> f64 {
    match precision {
        Precision::F32 => f64::from(value as f32),
        Precision::F64 => value,
    }
}

/// A generator for forests, so that a failing case is one number.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // Vigna's splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    /// Mostly values that other draws hit or just miss.
    fn number(&mut self) -> f32 {
        let special = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE,
            -f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
            f32::MAX,
            f32::MIN,
        ];
        match self.below(4) {
            0 => special[self.below(special.len())],
            1 => (self.below(9) as f32 - 4.0).next_up(),
            2 => (self.below(9) as f32 - 4.0).next_down(),
            _ => self.below(9) as f32 - 4.0,
        }
    }

    /// A number of that precision; one of 64 bits is often next to one of 32.
    fn threshold(&mut self, precision: Precision) -> f64 {
        let number = f64::from(self.number());
        match (precision, self.below(3)) {
            (Precision::F64, 0) => number.next_up(),
            (Precision::F64, 1) => number.next_down(),
            _ => number,
        }
    }

    fn leaf(&mut self, sums: Precision) -> Node {
        Node::Leaf(rounded(self.below(1000) as f64 / 7.0 - 70.0, sums))
    }

    fn tree(&mut self, of: Arithmetic, width: usize, depth: usize, outputs: usize) -> Tree {
        let mut nodes = vec![self.leaf(of.sums)];
        let mut open = vec![(0, 0)];
        while let Some((place, level)) = open.pop() {
            if level == depth || self.below(5) == 0 {
                continue;
            }
            let left = nodes.len();
            nodes[place] = Node::Split {
                feature: self.below(width) as u32,
                threshold: self.threshold(of.inputs),
                default_left: self.below(2) == 0,
                left: left as u32,
                right: left as u32 + 1,
            };
            for child in [left, left + 1] {
                nodes.push(self.leaf(of.sums));
                open.push((child, level + 1));
            }
        }
        Tree {
            nodes,
            output: self.below(outputs) as u32,
        }
    }

    /// A tree as LightGBM grows them: the leaf that is split next may be anywhere.
    fn leaf_wise_tree(&mut self, of: Arithmetic, width: usize, depth: usize) -> Tree {
        let mut nodes = vec![self.leaf(of.sums)];
        let mut open = vec![(0, 0)];
        for _ in 0..self.below(60) {
            if open.is_empty() {
                break;
            }
            // The latest ones are the deepest.
            let latest = self.below(3).min(open.len() - 1);
            let (place, level) = open.swap_remove(open.len() - 1 - latest);
            let left = nodes.len();
            nodes[place] = Node::Split {
                feature: self.below(width) as u32,
                threshold: self.threshold(of.inputs),
                default_left: self.below(2) == 0,
                left: left as u32,
                right: left as u32 + 1,
            };
            for child in [left, left + 1] {
                nodes.push(self.leaf(of.sums));
                if level + 1 < depth {
                    open.push((child, level + 1));
                }
            }
        }
        Tree { nodes, output: 0 }
    }

    fn row(&mut self, width: usize) -> Vec<f64> {
        let values = (0..width).map(|_| match self.below(6) {
            0 => f64::NAN,
            1 => f64::from(self.number()) * (1.0 + f64::EPSILON),
            2 => self.threshold(Precision::F64),
            _ => f64::from(self.number()),
        });
        values.collect()
    }
}

fn naive<S: Sum>(trees: &[Tree], of: Arithmetic, row: &[f64], outputs: usize) -> Vec<S> {
    let mut sums = vec![S::nearest(0.5); outputs];
    for tree in trees {
        let mut at = 0;
        let value = loop {
            match tree.nodes[at as usize] {
                Node::Leaf(value) => break value,
                Node::Split {
                    feature,
                    threshold,
                    default_left,
                    left,
                    right,
                } => {
                    let value = rounded(row[feature as usize], of.inputs);
                    let goes_left = if value.is_nan() {
                        default_left
                    } else {
                        value < threshold || of.equal_goes_left && value == threshold
                    };
                    at = if goes_left { left } else { right };
                }
            }
        };
        sums[tree.output as usize] += S::nearest(value);
    }
    sums
}

/// The same trees in every form they fit and for every kernel this machine has.
fn forests<S: Leaf>(trees: &[Tree], rules: Rules) -> Vec<Forest<S>>
where
    Narrow: ValueWord<S>,
    Wide: ValueWord<S>,
{
    let ranker = Ranker::new(trees, rules).unwrap();
    let forests = bodies(&ranker, trees).map(|body| Forest {
        ranker: Ranker::new(trees, rules).unwrap(),
        body,
        trees: trees.len(),
    });
    forests.collect()
}

fn assert_sums(of: Arithmetic, trees: &[Tree], rows: &[Vec<f64>], outputs: usize) {
    match of.sums {
        Precision::F32 => assert_sums_of(of, trees, rows, outputs, |sum: f32| f64::from(sum)),
        Precision::F64 => assert_sums_of(of, trees, rows, outputs, |sum: f64| sum),
    }
}

fn assert_sums_of<S: Leaf>(
    of: Arithmetic,
    trees: &[Tree],
    rows: &[Vec<f64>],
    outputs: usize,
    widen: impl Fn(S) -> f64 + Copy,
) where
    Narrow: ValueWord<S>,
    Wide: ValueWord<S>,
{
    let width = rows[0].len();
    let bits = |sums: Vec<S>| -> Vec<u64> {
        let widened = sums.into_iter().map(widen);
        widened.map(f64::to_bits).collect()
    };
    let expected = rows.iter().flat_map(|row| naive(trees, of, row, outputs));
    let expected = bits(expected.collect());
    let flat = rows.concat();
    for forest in forests::<S>(trees, of.rules(width)) {
        let mut sums = vec![S::nearest(0.5); rows.len() * outputs];
        forest.add(Rows::new(&flat, width), &mut sums, outputs);
        assert_eq!(bits(sums), expected, "{of:?}: {}", forest.description());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn sums_are_those_of_the_naive_walk(
        seed in any::<u64>(),
        of in prop::sample::select(vec![XGBOOST, LIGHTGBM, CATBOOST, ONNX, DOUBLES_BELOW]),
        trees in 0..150usize,
        depth in 0..9usize,
        width in 1..40usize,
        outputs in 1..25usize,
        in_turn in any::<bool>(),
        rows in prop::sample::select(vec![1, 2, 63, 64, 65, 130]),
    ) {
        let mut random = Random(seed);
        let mut trees: Vec<Tree> =
            (0..trees).map(|_| random.tree(of, width, depth, outputs)).collect();
        if in_turn {
            (0..).zip(&mut trees).for_each(|(index, tree)| tree.output = index % outputs as u32);
        }
        let rows: Vec<Vec<f64>> = (0..rows).map(|_| random.row(width)).collect();
        assert_sums(of, &trees, &rows, outputs);
    }

    #[test]
    fn sums_of_deep_and_ragged_trees_are_those_of_the_naive_walk(
        seed in any::<u64>(),
        of in prop::sample::select(vec![XGBOOST, LIGHTGBM, CATBOOST]),
        trees in 1..100usize,
        depth in 1..=20usize,
        width in 1..60usize,
        rows in prop::sample::select(vec![1, 2, 65]),
    ) {
        let mut random = Random(seed);
        let trees: Vec<Tree> = (0..trees)
            .map(|_| {
                let depth = 1 + random.below(depth);
                random.leaf_wise_tree(of, width, depth)
            })
            .collect();
        let rows: Vec<Vec<f64>> = (0..rows).map(|_| random.row(width)).collect();
        assert_sums(of, &trees, &rows, 1);
    }

    #[test]
    fn features_with_more_thresholds_than_a_byte_counts_are_exact(
        seed in any::<u64>(),
        of in prop::sample::select(vec![XGBOOST, LIGHTGBM]),
        trees in 1..100usize,
        width in 1..12usize,
        thresholds in prop::sample::select(vec![255, 256, 510, 511, 1500]),
    ) {
        let mut random = Random(seed);
        let mut trees: Vec<Tree> =
            (0..trees).map(|_| random.tree(of, width, 7, 3)).collect();
        for tree in &mut trees {
            for node in &mut tree.nodes {
                if let Node::Split { threshold, .. } = node {
                    *threshold = random.below(thresholds) as f64;
                }
            }
        }
        // Every threshold is there, below and above the ends of chunks too.
        trees.extend((0..thresholds).map(|threshold| stump(threshold as f64)));
        let values = [
            f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.5, 0.0, 253.0, 253.5, 254.0, 254.5, 255.0,
            255.5, 509.0, 509.5, 510.0, 510.5, thresholds as f64 - 1.0, thresholds as f64 - 0.5,
        ];
        let mut rows: Vec<Vec<f64>> = values.iter().map(|value| vec![*value; width]).collect();
        rows.extend((0..20).map(|_| {
            let values = (0..width).map(|_| random.below(2 * thresholds + 2) as f64 / 2.0 - 1.0);
            values.collect()
        }));
        assert_sums(of, &trees, &rows, 3);
    }
}

fn compiled(trees: &[Tree], width: usize) -> Forest<f32> {
    Forest::new(trees, XGBOOST.rules(width)).unwrap()
}

fn stump(threshold: f64) -> Tree {
    Tree {
        nodes: vec![
            Node::Split {
                feature: 0,
                threshold,
                default_left: true,
                left: 1,
                right: 2,
            },
            Node::Leaf(1.0),
            Node::Leaf(-1.0),
        ],
        output: 0,
    }
}

#[test]
fn a_value_that_equals_the_threshold_goes_where_the_library_sends_it() {
    let value = 0.1f64;
    for (of, sum) in [
        (XGBOOST, -1.0),
        (ONNX, 1.0),
        (LIGHTGBM, 1.0),
        (DOUBLES_BELOW, -1.0),
    ] {
        let trees = [stump(rounded(value, of.inputs))];
        let naive = naive::<f64>(&trees, of, &[value], 1);
        assert_eq!(naive, [0.5 + sum], "{of:?}");
        assert_sums(of, &trees, &[vec![value]], 1);
    }
}

#[test]
fn sums_of_doubles_keep_what_single_precision_would_lose() {
    let leaf = |value: f64| Tree {
        nodes: vec![Node::Leaf(value)],
        output: 0,
    };
    let trees = [leaf(1.0), leaf(1e-12)];
    let forest: Forest<f64> = Forest::new(&trees, LIGHTGBM.rules(1)).unwrap();
    let mut sums = [0.0];
    forest.add(Rows::new(&[0.0], 1), &mut sums, 1);
    assert_eq!(sums, [1.0 + 1e-12]);
}

/// Whether the trees fit into a form, for XGBoost's arithmetic.
fn fits(trees: &[Tree], width: usize, form: &str) -> bool {
    let forests = forests::<f32>(trees, XGBOOST.rules(width));
    forests
        .iter()
        .any(|forest| forest.description().contains(form))
}

/// A tree that asks about one feature again and again: right until the last threshold.
fn ladder(thresholds: usize) -> Tree {
    let mut nodes = Vec::new();
    for index in 0..thresholds as u32 {
        nodes.push(Node::Split {
            feature: 0,
            threshold: f64::from(index),
            default_left: index % 2 == 0,
            left: 2 * index + 1,
            right: 2 * index + 2,
        });
        nodes.push(Node::Leaf(f64::from(index)));
    }
    nodes.push(Node::Leaf(-1.0));
    Tree { nodes, output: 0 }
}

fn rows_around(limit: usize) -> Vec<Vec<f64>> {
    let values = [
        -1.0,
        0.0,
        0.5,
        limit as f64 - 1.5,
        limit as f64 - 1.0,
        limit as f64,
        f64::NAN,
    ];
    values.iter().map(|value| vec![*value]).collect()
}

#[test]
fn models_at_and_beyond_the_limits_of_a_narrow_node_are_exact() {
    // Two nodes and two values a threshold fit into 4,096 words, and no more of them.
    for (thresholds, is_narrow) in [(1023, true), (1024, false)] {
        let trees = [ladder(thresholds)];
        assert_eq!(fits(&trees, 1, "4-byte"), is_narrow);
        assert_sums(XGBOOST, &trees, &rows_around(thresholds), 1);
        assert_sums(LIGHTGBM, &trees, &rows_around(thresholds), 1);
    }
}

#[test]
fn a_feature_may_have_as_many_thresholds_as_a_narrow_rank_can_count() {
    for (thresholds, is_narrow) in [(4095, true), (4096, false)] {
        let trees: Vec<Tree> = (0..thresholds).map(f64::from).map(stump).collect();
        assert_eq!(fits(&trees, 1, "4-byte"), is_narrow);
        assert_sums(XGBOOST, &trees, &rows_around(thresholds as usize), 1);
    }
}

#[test]
fn models_with_more_slots_than_a_register_or_a_narrow_node_has_are_exact() {
    for (width, is_narrow) in [(40, true), (120, true), (400, false)] {
        let mut random = Random(width as u64);
        let trees: Vec<Tree> = (0..200)
            .map(|_| random.tree(XGBOOST, width, 6, 2))
            .collect();
        assert_eq!(fits(&trees, width, "4-byte"), is_narrow);
        let rows: Vec<Vec<f64>> = (0..70).map(|_| random.row(width)).collect();
        assert_sums(XGBOOST, &trees, &rows, 2);
    }
}

#[test]
fn every_number_of_slots_is_exact_and_bytes_serve_up_to_128() {
    let has_bytes = !bytes::kernels::<f32>().is_empty();
    for slots in [
        15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 112, 127, 128, 129,
    ] {
        let mut random = Random(slots as u64);
        let mut trees: Vec<Tree> = (0..100)
            .map(|_| random.tree(XGBOOST, slots, 6, 1))
            .collect();
        trees.extend((0..slots).map(|feature| {
            let mut tree = stump(0.5);
            if let Node::Split { feature: own, .. } = &mut tree.nodes[0] {
                *own = feature as u32;
            }
            tree
        }));
        // One direction for missing values, so that each feature has one slot.
        for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if let Node::Split { default_left, .. } = node {
                *default_left = true;
            }
        }
        assert_eq!(fits(&trees, slots, "byte ranks"), has_bytes && slots <= 128);
        let rows: Vec<Vec<f64>> = (0..40).map(|_| random.row(slots)).collect();
        assert_sums(XGBOOST, &trees, &rows, 1);
    }
}

#[test]
fn a_forest_without_trees_adds_nothing() {
    assert_sums(XGBOOST, &[], &[vec![1.0], vec![2.0]], 2);
}

/// A full tree of six levels whose features have 255 thresholds each, as trained on histograms.
fn full_tree(random: &mut Random) -> Tree {
    let split = |node: u32, random: &mut Random| Node::Split {
        feature: random.below(20) as u32,
        threshold: random.below(255) as f64,
        default_left: true,
        left: 2 * node + 1,
        right: 2 * node + 2,
    };
    let splits = (0..63).map(|node| split(node, random));
    let mut nodes: Vec<Node> = splits.collect();
    nodes.extend((0..64).map(|leaf| Node::Leaf(f64::from(leaf))));
    Tree { nodes, output: 0 }
}

/// Splits and leaves are nodes; thresholds, which all trees share, are counted too.
#[test]
fn a_node_takes_at_most_eight_bytes_and_twelve_with_leaves_of_64_bits() {
    let mut random = Random(1);
    let trees: Vec<Tree> = (0..880).map(|_| full_tree(&mut random)).collect();
    let nodes: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
    let kernels = ["byte ranks", "4-byte rank nodes, scalar"];
    for kernel in kernels {
        let (floats, doubles) = with_kernel(kernel, || {
            let doubles = Forest::<f64>::new(&trees, XGBOOST.rules(20)).unwrap();
            (compiled(&trees, 20).bytes(), doubles.bytes())
        });
        let [floats, doubles] = [floats, doubles].map(|bytes| bytes as f64 / nodes as f64);
        assert!(
            floats <= 8.0 && doubles <= 12.0,
            "{kernel}: {floats} and {doubles}"
        );
    }
}
