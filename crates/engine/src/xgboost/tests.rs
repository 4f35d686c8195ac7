//! What a file may make the engine keep.

use super::WIDE;
use crate::{LoadOptions, Rows, load_bytes};
use serde_json::json;

/// A tree that asks for so many sets of categories, one after the other: what is not in a set is at the end.
fn chain(sets: usize) -> Vec<u8> {
    let count = 2 * sets + 1;
    let split = |node: usize| node.is_multiple_of(2) && node + 1 < count;
    let children = |step: usize| -> Vec<i64> {
        let child = |node| {
            if split(node) {
                (node + step) as i64
            } else {
                -1
            }
        };
        (0..count).map(child).collect()
    };
    let asking: Vec<usize> = (0..count).filter(|node| split(*node)).collect();
    let model = json!({"version": [3, 2, 0], "learner": {
        "learner_model_param": {"num_feature": "1", "num_class": "0", "base_score": "0"},
        "objective": {"name": "reg:squarederror"},
        "gradient_booster": {"name": "gbtree", "model": {"tree_info": [0], "iteration_indptr": [0, 1], "trees": [{
            "tree_param": {}, "left_children": children(2), "right_children": children(1),
            "split_indices": vec![0; count], "default_left": vec![0; count],
            "split_conditions": (0..count).map(|node| node as f64).collect::<Vec<_>>(),
            "split_type": (0..count).map(|node| i32::from(split(node))).collect::<Vec<_>>(),
            "sum_hessian": (0..count).map(|node| if split(node) { count - node } else { 1 }).collect::<Vec<_>>(),
            "categories_nodes": asking, "categories_sizes": vec![1; sets],
            "categories": (0..sets).collect::<Vec<_>>(),
            "categories_segments": (0..sets).collect::<Vec<_>>(),
        }]}},
    }});
    model.to_string().into_bytes()
}

#[test]
fn many_sets_of_categories_take_no_more_memory_for_many_rows() {
    let sets = 2_000;
    let options = LoadOptions {
        explanation_bytes_max: 1 << 20,
        ..LoadOptions::default()
    };
    let model = load_bytes("chain", &chain(sets), &options).unwrap();
    let codes: Vec<f64> = (0..300).map(f64::from).collect();
    let mut predicted = vec![0.0; codes.len()];
    model.predict(Rows::new(&codes, 1), &mut predicted).unwrap();
    // The leaf beside the split that asks for the code.
    for (code, predicted) in predicted.iter().enumerate() {
        assert_eq!(*predicted, 2.0 * code as f64 + 1.0);
    }
    // It is too deep to be explained.
    assert!(model.explain().is_err());
    // It grows by doubling.
    assert!(WIDE.with_borrow(Vec::capacity) <= 2 << 16);
    let model = load_bytes("chain", &chain(250), &options).unwrap();
    let mut contributions = vec![0.0; 2 * codes.len()];
    let explained = model.explain().unwrap();
    let rows = Rows::new(&codes, 1);
    explained
        .contributions(rows, 0, &mut contributions)
        .unwrap();
    let at_7 = contributions[14] + contributions[15];
    assert!((at_7 - 15.0).abs() < 1e-3, "{at_7}");
    // It grows by doubling.
    assert!(WIDE.with_borrow(Vec::capacity) <= 2 << 16);
}
