//! The forest, with its columns, gives the sums of the library's own walk over any trees.

use super::columns::Collector;
use super::tree::{Missing, Set, Split, Test, Tree};
use crate::Rows;
use crate::forest::{Forest, Rules};
use crate::signature::Precision;
use proptest::prelude::*;

const WIDTH: usize = 3;
const OUTPUTS: usize = 2;

/// Values around everything that splits tell apart.
const VALUES: [f64; 17] = [
    f64::NAN,
    0.0,
    -0.0,
    1e-36,
    -1e-36,
    1.000_000_018_002_509_5e-35,
    -1.000_000_018_002_509_5e-35,
    2e-35,
    -2e-35,
    -0.5,
    0.5,
    1.0,
    31.9,
    32.0,
    70.0,
    3e9,
    f64::INFINITY,
];

fn test() -> impl Strategy<Value = Test> {
    let missing = prop::sample::select(vec![Missing::Nothing, Missing::Zero, Missing::Nan]);
    let threshold = (prop::sample::select(&VALUES[1..]), missing, any::<bool>());
    let threshold = threshold.prop_map(|(threshold, missing, default_left)| Test::Threshold {
        threshold: super::tree::beside_zero(threshold),
        missing,
        default_left,
    });
    let words = prop::collection::vec(any::<u32>(), 0..3);
    prop_oneof![
        threshold,
        words.prop_map(|words| Test::Set(Set::new(&words)))
    ]
}

/// A tree that grows by splitting one leaf after the other.
fn tree() -> impl Strategy<Value = Tree> {
    let split = (any::<prop::sample::Index>(), 0..WIDTH as u32, test());
    prop::collection::vec(split, 0..12).prop_map(|added| {
        let count = added.len() as u32;
        let mut splits: Vec<Split> = Vec::new();
        for (node, (place, feature, test)) in (0..).zip(added) {
            // Leaves are counted behind all splits; a new split takes the place of one of them.
            let leaf = count + place.index(node as usize + 1) as u32;
            for split in &mut splits {
                for child in &mut split.children {
                    if *child == leaf {
                        *child = node;
                    }
                }
            }
            splits.push(Split {
                feature,
                children: [leaf, count + node + 1],
                test,
            });
        }
        let leaves = (0..=count).map(|leaf| 0.1 + f64::from(leaf)).collect();
        Tree {
            splits,
            leaves,
            linear: None,
        }
    })
}

proptest! {
    #[test]
    fn the_forest_gives_the_sums_of_the_walk(
        trees in prop::collection::vec(tree(), 1..6),
        rows in prop::collection::vec(prop::sample::select(&VALUES[..]), 20 * WIDTH),
    ) {
        let mut collector = Collector::new(WIDTH);
        let outputs = (0..OUTPUTS as u32).cycle();
        let converted: Vec<_> = trees
            .iter()
            .zip(outputs)
            .map(|(tree, output)| collector.convert(tree, output))
            .collect();
        let columns = collector.finish();
        let width = WIDTH + columns.len();
        let rules = Rules { width, inputs: Precision::F64, equal_goes_left: true };
        let forest: Forest<f64> = Forest::new(&converted, rules).unwrap();
        let mut wide = Vec::new();
        columns.widen(Rows::new(&rows, WIDTH), &mut wide);
        let mut sums = vec![0.0; 20 * OUTPUTS];
        forest.add(Rows::new(&wide, width), &mut sums, OUTPUTS);
        for (row, sums) in rows.chunks(WIDTH).zip(sums.chunks(OUTPUTS)) {
            let mut walked = [0.0; OUTPUTS];
            for (index, tree) in trees.iter().enumerate() {
                walked[index % OUTPUTS] += tree.value(row);
            }
            prop_assert_eq!(sums, walked, "{:?}", row);
        }
    }
}
