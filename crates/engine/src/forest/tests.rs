//! Every node size and kernel against a walk that follows the definition.

use super::kernel::{Narrow, Wide};
use super::*;
use proptest::prelude::*;

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

    fn tree(&mut self, width: usize, depth: usize, outputs: usize) -> Tree {
        let mut nodes = vec![Node::Leaf(self.below(1000) as f32 / 7.0 - 70.0)];
        let mut open = vec![(0, 0)];
        while let Some((place, level)) = open.pop() {
            if level == depth || self.below(5) == 0 {
                continue;
            }
            let left = nodes.len();
            nodes[place] = Node::Split {
                feature: self.below(width) as u32,
                threshold: self.number(),
                default_left: self.below(2) == 0,
                left: left as u32,
                right: left as u32 + 1,
            };
            for child in [left, left + 1] {
                nodes.push(Node::Leaf(self.below(1000) as f32 / 7.0 - 70.0));
                open.push((child, level + 1));
            }
        }
        Tree {
            nodes,
            output: self.below(outputs) as u32,
        }
    }

    fn row(&mut self, width: usize) -> Vec<f64> {
        let values = (0..width).map(|_| match self.below(6) {
            0 => f64::NAN,
            1 => f64::from(self.number()) * (1.0 + f64::EPSILON),
            _ => f64::from(self.number()),
        });
        values.collect()
    }
}

fn naive(trees: &[Tree], row: &[f64], outputs: usize) -> Vec<f32> {
    let mut sums = vec![0.5f32; outputs];
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
                    let value = row[feature as usize] as f32;
                    let goes_left = if value.is_nan() {
                        default_left
                    } else {
                        value < threshold
                    };
                    at = if goes_left { left } else { right };
                }
            }
        };
        sums[tree.output as usize] += value;
    }
    sums
}

/// The same trees for every node size they fit and every kernel this machine has.
fn bodies(trees: &[Tree], width: usize) -> Vec<Forest> {
    let with = |body| Forest {
        ranker: Ranker::new(trees, width).unwrap(),
        body,
        trees: trees.len(),
    };
    let ranker = Ranker::new(trees, width).unwrap();
    let narrow = || compile::compile::<Narrow>(&ranker, trees).unwrap();
    let mut bodies = vec![
        Forest::new(trees, width).unwrap(),
        with(Body::Wide(
            compile::compile::<Wide>(&ranker, trees).unwrap(),
            &scalar::Scalar,
        )),
    ];
    if compile::fits::<Narrow>(&ranker, trees) {
        bodies.push(with(Body::Narrow(narrow(), &scalar::Scalar)));
        #[cfg(target_arch = "x86_64")]
        if ranker.slots() <= avx512::SLOTS_MAX
            && let Some(kernel) = avx512::Avx512::detect()
        {
            bodies.push(with(Body::Narrow(narrow(), kernel)));
        }
    }
    bodies
}

fn assert_sums(trees: &[Tree], rows: &[Vec<f64>], outputs: usize) {
    let width = rows[0].len();
    let expected: Vec<u32> = rows
        .iter()
        .flat_map(|row| naive(trees, row, outputs))
        .map(f32::to_bits)
        .collect();
    let flat = rows.concat();
    for forest in bodies(trees, width) {
        let mut sums = vec![0.5f32; rows.len() * outputs];
        forest.add(Rows::new(&flat, width), &mut sums, outputs);
        let sums: Vec<u32> = sums.into_iter().map(f32::to_bits).collect();
        assert_eq!(sums, expected, "{}", forest.description());
    }
}

proptest! {
    #[test]
    fn sums_are_those_of_the_naive_walk(
        seed in any::<u64>(),
        trees in 0..150usize,
        depth in 0..9usize,
        width in 1..40usize,
        outputs in 1..5usize,
        rows in prop::sample::select(vec![1, 2, 63, 64, 65, 130]),
    ) {
        let mut random = Random(seed);
        let trees: Vec<Tree> = (0..trees).map(|_| random.tree(width, depth, outputs)).collect();
        let rows: Vec<Vec<f64>> = (0..rows).map(|_| random.row(width)).collect();
        assert_sums(&trees, &rows, outputs);
    }
}

/// A tree that asks about one feature again and again: right until the last threshold.
fn ladder(thresholds: usize) -> Tree {
    let mut nodes = Vec::new();
    for index in 0..thresholds as u32 {
        nodes.push(Node::Split {
            feature: 0,
            threshold: index as f32,
            default_left: index % 2 == 0,
            left: 2 * index + 1,
            right: 2 * index + 2,
        });
        nodes.push(Node::Leaf(index as f32));
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
    for (thresholds, bytes) in [(1023, "4-byte"), (1024, "8-byte")] {
        let trees = [ladder(thresholds)];
        assert!(
            Forest::new(&trees, 1)
                .unwrap()
                .description()
                .contains(bytes)
        );
        assert_sums(&trees, &rows_around(thresholds), 1);
    }
}

#[test]
fn a_feature_may_have_as_many_thresholds_as_a_narrow_rank_can_count() {
    let stump = |index: u32| Tree {
        nodes: vec![
            Node::Split {
                feature: 0,
                threshold: index as f32,
                default_left: true,
                left: 1,
                right: 2,
            },
            Node::Leaf(1.0),
            Node::Leaf(-1.0),
        ],
        output: 0,
    };
    for (thresholds, bytes) in [(4095, "4-byte"), (4096, "8-byte")] {
        let trees: Vec<Tree> = (0..thresholds).map(stump).collect();
        assert!(
            Forest::new(&trees, 1)
                .unwrap()
                .description()
                .contains(bytes)
        );
        assert_sums(&trees, &rows_around(thresholds as usize), 1);
    }
}

#[test]
fn models_with_more_slots_than_a_register_or_a_narrow_node_has_are_exact() {
    for (width, bytes) in [(40, "4-byte"), (120, "4-byte"), (400, "8-byte")] {
        let mut random = Random(width as u64);
        let trees: Vec<Tree> = (0..200).map(|_| random.tree(width, 6, 2)).collect();
        assert!(
            Forest::new(&trees, width)
                .unwrap()
                .description()
                .contains(bytes)
        );
        let rows: Vec<Vec<f64>> = (0..70).map(|_| random.row(width)).collect();
        assert_sums(&trees, &rows, 2);
    }
}

#[test]
fn a_forest_without_trees_adds_nothing() {
    assert_sums(&[], &[vec![1.0], vec![2.0]], 2);
}

#[test]
fn a_compiled_node_takes_about_eight_bytes() {
    let mut random = Random(1);
    let trees: Vec<Tree> = (0..100).map(|_| random.tree(10, 8, 1)).collect();
    let nodes: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
    let bytes = Forest::new(&trees, 10).unwrap().bytes();
    assert!(bytes < nodes * 12, "{bytes} bytes for {nodes} nodes");
}
