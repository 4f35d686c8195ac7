//! The forest, with its columns, gives the sums of the library's own walk over any trees.

use super::Trees;
use super::answers::Answers;
use super::head::{COLUMNS_PER_TREE_MAX, with_columns};
use super::tree::{Linear, Missing, Set, Split, Test, Tree};
use crate::Rows;
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
    // Each may need a column of its own.
    let splits = prop::collection::vec(split, 0..=COLUMNS_PER_TREE_MAX);
    (splits, 0..3u32).prop_map(|(added, terms)| {
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
        let term = |term: u32| (term % WIDTH as u32, 0.3 + f64::from(term));
        let function = |leaf: u32| Linear {
            constant: 0.7 * f64::from(leaf),
            terms: (0..terms).map(|other| term(leaf + other)).collect(),
        };
        Tree {
            splits,
            leaves,
            linear: (terms > 0).then(|| (0..=count).map(function).collect()),
        }
    })
}

proptest! {
    #[test]
    fn the_forest_gives_the_sums_of_the_walk(
        trees in prop::collection::vec(tree(), 1..6),
        rows in prop::collection::vec(prop::sample::select(&VALUES[..]), 20 * WIDTH),
    ) {
        let rows = Rows::new(&rows, WIDTH);
        let walked = Trees::Walked(trees);
        let mut expected = vec![0.0; rows.len() * OUTPUTS];
        walked.add(rows, &mut expected, OUTPUTS);
        let Trees::Walked(trees) = walked else { unreachable!() };
        let compiled = with_columns(&trees, WIDTH, OUTPUTS, COLUMNS_PER_TREE_MAX).unwrap();
        let mut sums = vec![0.0; rows.len() * OUTPUTS];
        compiled.add(rows, &mut sums, OUTPUTS);
        let bits = |sums: &[f64]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&sums), bits(&expected));
    }

    #[test]
    fn answers_give_the_sums_of_the_walk(
        mut trees in prop::collection::vec(tree(), 1..80),
        rows in prop::collection::vec(prop::sample::select(&VALUES[..]), 20 * WIDTH),
    ) {
        trees.iter_mut().for_each(|tree| tree.linear = None);
        let rows = Rows::new(&rows, WIDTH);
        let answers = Answers::new(&trees, |_, value| value).unwrap();
        let mut expected = vec![0.0; rows.len() * OUTPUTS];
        Trees::Walked(trees).add(rows, &mut expected, OUTPUTS);
        let mut sums = vec![0.0; rows.len() * OUTPUTS];
        answers.add(rows, &mut sums, OUTPUTS);
        let bits = |sums: &[f64]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&sums), bits(&expected));
    }

    #[test]
    fn answers_find_the_leaves_of_linear_trees(
        trees in prop::collection::vec(tree(), 1..80),
        rows in prop::collection::vec(prop::sample::select(&VALUES[..]), 20 * WIDTH),
    ) {
        let rows = Rows::new(&rows, WIDTH);
        let linear = super::linear::Linear::answered(&trees).unwrap();
        let mut expected = vec![0.0; rows.len() * OUTPUTS];
        Trees::Walked(trees).add(rows, &mut expected, OUTPUTS);
        let mut sums = vec![0.0; rows.len() * OUTPUTS];
        Trees::Linear(linear).add(rows, &mut sums, OUTPUTS);
        let bits = |sums: &[f64]| sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&sums), bits(&expected));
    }
}
