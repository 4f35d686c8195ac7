use super::*;
use proptest::prelude::*;

/// The last columns belong to features before them, as those of sets of categories do.
const OWNERS: [u32; 9] = [0, 1, 2, 3, 4, 5, 6, 0, 3];
const FEATURES: usize = 7;

#[derive(Debug, Clone)]
struct Grown {
    tree: Tree,
    covers: Vec<f32>,
    equal_goes_left: bool,
}

/// A random tree: each number makes a node a split or a leaf.
fn grow(seeds: &[(u8, u32, f64, bool, f32)], output: u32, equal_goes_left: bool) -> Grown {
    let mut nodes = vec![Node::Leaf(0.5)];
    let mut open = vec![0usize];
    let mut shares = vec![1.0f32];
    for &(kind, column, number, default_left, share) in seeds {
        if open.is_empty() {
            break;
        }
        let node = open.remove(kind as usize % open.len());
        let left = nodes.len() as u32;
        nodes[node] = Node::Split {
            feature: column % OWNERS.len() as u32,
            threshold: match kind {
                // As in files that nobody trained.
                0..8 => f64::INFINITY,
                8..16 => f64::NEG_INFINITY,
                _ => number,
            },
            default_left,
            left,
            right: left + 1,
        };
        nodes.push(Node::Leaf(number * 1.5 + f64::from(share)));
        nodes.push(Node::Leaf(-number + f64::from(column % 3)));
        shares.push(shares[node] * share);
        shares.push(shares[node] * (1.0 - share));
        open.extend([left as usize, left as usize + 1]);
    }
    let covers = shares.iter().map(|share| share * 1000.0).collect();
    Grown {
        tree: Tree { nodes, output },
        covers,
        equal_goes_left,
    }
}

/// The value of a game in which only some features take part.
fn value(grown: &Grown, row: &[f64], takes_part: &dyn Fn(u32) -> bool, node: u32) -> f64 {
    match grown.tree.nodes[node as usize] {
        Node::Leaf(value) => value,
        Node::Split {
            feature,
            threshold,
            default_left,
            left,
            right,
        } => {
            let x = row[feature as usize];
            let goes_left = match x.partial_cmp(&threshold) {
                None => default_left,
                Some(order) => order.is_lt() || (grown.equal_goes_left && order.is_eq()),
            };
            if takes_part(OWNERS[feature as usize]) {
                return value(grown, row, takes_part, if goes_left { left } else { right });
            }
            let covers = [left, right].map(|child| f64::from(grown.covers[child as usize]));
            let [left, right] = [left, right].map(|child| value(grown, row, takes_part, child));
            match covers[0] + covers[1] {
                0.0 => (left + right) / 2.0,
                all => (covers[0] * left + covers[1] * right) / all,
            }
        }
    }
}

/// Shapley values by their definition, and the value without any feature.
fn by_definition(forest: &[Grown], output: u32, row: &[f64]) -> Vec<f64> {
    let value = |set: usize| -> f64 {
        let takes_part = |feature: u32| set >> feature & 1 == 1;
        let own = forest.iter().filter(|grown| grown.tree.output == output);
        own.map(|grown| value(grown, row, &takes_part, 0)).sum()
    };
    let factorial = |n: usize| (1..=n).product::<usize>() as f64;
    let mut contributions: Vec<f64> = (0..FEATURES)
        .map(|feature| {
            let sets = (0..1usize << FEATURES).filter(|set| set >> feature & 1 == 0);
            sets.map(|set| {
                let size = set.count_ones() as usize;
                let weight = factorial(size) * factorial(FEATURES - size - 1) / factorial(FEATURES);
                weight * (value(set | 1 << feature) - value(set))
            })
            .sum()
        })
        .collect();
    contributions.push(value(0));
    contributions
}

fn explainer(forest: &[Grown]) -> Result<Explainer, Unexplained> {
    let trees: Vec<Tree> = forest.iter().map(|grown| grown.tree.clone()).collect();
    let covers: Vec<Vec<f32>> = forest.iter().map(|grown| grown.covers.clone()).collect();
    let sources = Sources {
        trees: &trees,
        covers: &covers,
        rules: Rules {
            width: OWNERS.len(),
            inputs: Precision::F64,
            equal_goes_left: forest[0].equal_goes_left,
        },
        outputs: 2,
        players: Players::alone(OWNERS.into(), FEATURES),
        beside: 0,
    };
    Explainer::new(sources, 1 << 20)
}

/// Few numbers, so that values often equal thresholds.
fn number() -> impl Strategy<Value = f64> {
    (-8..8i32).prop_map(|quarters| f64::from(quarters) / 4.0)
}

/// Numbers that are compared, where the infinite ones are the last.
fn compared() -> impl Strategy<Value = f64> {
    prop_oneof![12 => number(), 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
}

fn forests() -> impl Strategy<Value = Vec<Grown>> {
    let share = prop_oneof![4 => 0.01f32..0.99, 1 => Just(0.0f32), 1 => Just(1.0f32)];
    let seed = (any::<u8>(), any::<u32>(), number(), any::<bool>(), share);
    let tree = (prop::collection::vec(seed, 0..60), 0u32..2);
    (prop::collection::vec(tree, 1..4), any::<bool>()).prop_map(|(trees, equal_goes_left)| {
        let trees = trees.into_iter();
        trees
            .map(|(seeds, output)| grow(&seeds, output, equal_goes_left))
            .collect()
    })
}

fn rows() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![4 => compared(), 1 => Just(f64::NAN)];
    prop::collection::vec(value, 10 * OWNERS.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Ten rows or fewer: those of a full block, of a part of one, and alone.
    #[test]
    fn contributions_are_the_shapley_values(forest in forests(), values in rows(), skip in 0usize..10) {
        let rows = Rows::new(&values, OWNERS.len()).slice(skip..10);
        let explainer = explainer(&forest).unwrap();
        for output in 0..2 {
            let mut out = vec![f64::NAN; rows.len() * (FEATURES + 1)];
            explainer.contributions(rows, output, &mut out);
            for (index, out) in out.chunks(FEATURES + 1).enumerate() {
                let expected = by_definition(&forest, output as u32, rows.row(index));
                for (got, expected) in out.iter().zip(&expected) {
                    prop_assert!((got - expected).abs() < 1e-6, "{out:?} instead of {expected:?}");
                }
                let own = forest.iter().filter(|grown| grown.tree.output == output as u32);
                let margin: f64 = own.map(|grown| value(grown, rows.row(index), &|_| true, 0)).sum();
                prop_assert!((out.iter().sum::<f64>() - margin).abs() < 1e-6);
            }
        }
    }
}

/// A path of splits that each send a share to the left, where the value is 1 only at its end.
fn path(shares: &[f32]) -> (Tree, Vec<f32>) {
    let mut nodes = Vec::new();
    let mut covers = vec![1.0f32];
    for (feature, share) in shares.iter().enumerate() {
        let next = 2 * feature as u32 + 1;
        let cover = covers[2 * feature];
        covers.extend([cover * (1.0 - share), cover * share]);
        if feature > 0 {
            nodes.push(Node::Leaf(0.0));
        }
        nodes.push(Node::Split {
            feature: feature as u32,
            threshold: 0.0,
            default_left: false,
            left: next + 1,
            right: next,
        });
    }
    nodes.extend([Node::Leaf(0.0), Node::Leaf(1.0)]);
    (Tree { nodes, output: 0 }, covers)
}

fn of_path(shares: &[f32]) -> Result<Explainer, Unexplained> {
    let (tree, covers) = path(shares);
    let sources = Sources {
        trees: &[tree],
        covers: &[covers],
        rules: Rules {
            width: shares.len(),
            inputs: Precision::F32,
            equal_goes_left: false,
        },
        outputs: 1,
        players: Players::alone((0..shares.len() as u32).collect(), shares.len()),
        beside: 0,
    };
    Explainer::new(sources, 1 << 20)
}

/// Effects of one feature by the number of others that take part: the others' shares multiplied out.
#[test]
fn long_paths_are_explained_as_exactly_as_short_ones() {
    for length in [1, 4, 6, 8, 9, 16, 17, 32, 60] {
        let shares: Vec<f32> = (0..length).map(|i| 0.5 + (i % 7) as f32 / 16.0).collect();
        let explainer = of_path(&shares).unwrap();
        // The row goes to the end, except at every fifth split.
        let row: Vec<f64> = (0..length)
            .map(|i| if i % 5 == 4 { 1.0 } else { -1.0 })
            .collect();
        let mut out = vec![0.0; length + 1];
        explainer.contributions(Rows::new(&row, length), 0, &mut out);
        for (feature, got) in out[..length].iter().enumerate() {
            let mut by_size = vec![1.0];
            for other in (0..length).filter(|other| *other != feature) {
                let goes = if row[other] < 0.0 { 1.0 } else { 0.0 };
                let mut next = vec![0.0; by_size.len() + 1];
                for (size, weight) in by_size.iter().enumerate() {
                    next[size] += weight * f64::from(shares[other]);
                    next[size + 1] += weight * goes;
                }
                by_size = next;
            }
            let mut orders = 1.0 / length as f64;
            let mut mean = 0.0;
            for (size, weight) in by_size.iter().enumerate() {
                mean += orders * weight;
                orders *= (size as f64 + 1.0) / (length - size - 1).max(1) as f64;
            }
            let goes = if row[feature] < 0.0 { 1.0 } else { 0.0 };
            let expected = mean * (goes - f64::from(shares[feature]));
            assert!(
                (got - expected).abs() < 1e-9,
                "{length}: {got} instead of {expected}"
            );
        }
    }
}

#[test]
fn trees_that_are_too_deep_are_not_explained() {
    assert!(of_path(&[0.5; DEPTH_MAX]).is_ok());
    assert_eq!(
        of_path(&[0.5; DEPTH_MAX + 1]).map(|_| ()),
        Err(Unexplained::LargeTree)
    );
}
