//! The trees against what they mean, one question after the other.

use super::*;
use proptest::prelude::*;

/// What the trees mean, one question after the other.
fn walk(trees: &[Vec<Split>], leaves: &[f64], outputs: usize, row: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0; outputs];
    let mut first = 0;
    for tree in trees {
        let mut leaf = 0;
        for (level, split) in tree.iter().enumerate() {
            let value = row[split.column as usize] as f32;
            let is_above = match value.is_nan() {
                true => split.missing_is_above,
                false => value > split.border,
            };
            leaf |= usize::from(is_above) << level;
        }
        for (output, sum) in sums.iter_mut().enumerate() {
            *sum += leaves[first + leaf * outputs + output];
        }
        first += outputs << tree.len();
    }
    sums
}

/// Columns 0 to 3.
fn split() -> impl Strategy<Value = Split> {
    let border = prop_oneof![
        (0..600i16).prop_map(f32::from),
        Just(-0.0),
        Just(f32::INFINITY)
    ];
    (0..4u32, border).prop_map(|(column, border)| Split {
        column,
        border,
        missing_is_above: column % 2 == 1,
    })
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        (-2..604i16).prop_map(f64::from),
        (-2.0..604.0f64),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(-0.0),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn trees_give_what_a_walk_gives(
        trees in prop::collection::vec(prop::collection::vec(split(), 0..11), 0..30),
        outputs in 1..4usize,
        rows in prop::collection::vec(prop::collection::vec(value(), 4), 1..300),
    ) {
        // More borders of one column than a byte counts.
        let stump = |border: u16| vec![Split {
            column: 0,
            border: f32::from(border),
            missing_is_above: false,
        }];
        let trees: Vec<Vec<Split>> = (0..600).map(stump).chain(trees).collect();
        let total: usize = trees.iter().map(|tree| outputs << tree.len()).sum();
        let leaves: Vec<f64> = (0..total).map(|leaf| 0.1 + (leaf * 7919 % 1009) as f64 / 3.0).collect();
        let splits: Vec<Split> = trees.concat();
        let mut next = 0..;
        let numbered: Vec<Vec<u32>> = trees.iter().map(|tree| next.by_ref().take(tree.len()).collect()).collect();
        let compiled = Symmetric::new(&numbered, &Splits::from(splits), leaves.clone(), outputs).unwrap();
        let flat = rows.concat();
        let mut sums = vec![0.0; rows.len() * outputs];
        compiled.add(Rows::new(&flat, 4), &mut sums);
        for (row, sums) in rows.iter().zip(sums.chunks(outputs)) {
            prop_assert_eq!(sums, &walk(&trees, &leaves, outputs, row)[..]);
        }
    }
}
