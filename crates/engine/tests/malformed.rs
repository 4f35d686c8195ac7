//! Damaged and hostile files are refused with the place named: never a panic, never a prediction.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{Engine, LoadError, LoadOptions, RowBuffer, load};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/3.2")
        .join(name)
}

fn load_bytes(bytes: &[u8]) -> Result<Box<dyn Engine>, LoadError> {
    auspex_engine::load_bytes("model", bytes, &LoadOptions::default())
}

/// The fault of a good model after a change to it.
fn fault_in(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut model = serde_json::from_slice(&fs::read(golden(name)).unwrap()).unwrap();
    change(&mut model);
    match load_bytes(model.to_string().as_bytes()) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.message,
    }
}

fn fault(change: impl FnOnce(&mut Value)) -> String {
    fault_in("binary-logistic.json", change)
}

/// The fault after a change to the second tree, which has seven nodes.
fn tree_fault(change: impl FnOnce(&mut Value)) -> String {
    fault(|model| change(&mut model["learner"]["gradient_booster"]["model"]["trees"][1]))
}

const TREE: &str = "`learner`: `gradient_booster`: tree 1: ";

#[test]
fn damaged_trees_are_refused_with_tree_and_node() {
    let cases: [(&str, Value, &str); 9] = [
        (
            "left_children",
            json!([1, 99, 5, -1, -1, -1, -1]),
            "node 1: left child 99 is outside 0..7",
        ),
        (
            "right_children",
            json!([2, 4, -7, -1, -1, -1, -1]),
            "node 2: right child -7 is outside 0..7",
        ),
        (
            "left_children",
            json!([1, 0, 5, -1, -1, -1, -1]),
            "node 1: child 0 is reached twice",
        ),
        (
            "left_children",
            json!([1, 5, 5, -1, -1, -1, -1]),
            "child 5 is reached twice",
        ),
        (
            "split_indices",
            json!([0, 5, 0, 0, 0, 0, 0]),
            "node 1: feature 5 is outside 0..5",
        ),
        (
            "split_indices",
            json!([0, -1, 0, 0, 0, 0, 0]),
            "node 1: feature -1 is outside 0..5",
        ),
        (
            "split_conditions",
            json!([0.5, 1.0]),
            "`split_conditions`: 2 values for 7 nodes",
        ),
        (
            "left_children",
            json!([]),
            "`left_children`: a tree without nodes",
        ),
        (
            "default_left",
            json!("left"),
            "`default_left`: expected whole numbers, found text",
        ),
    ];
    for (name, value, reason) in cases {
        let message = tree_fault(|tree| tree[name] = value);
        assert!(
            message.starts_with(TREE) && message.contains(reason),
            "{message}"
        );
    }
    let message = tree_fault(|tree| drop(tree.as_object_mut().unwrap().remove("default_left")));
    assert_eq!(message, format!("{TREE}`default_left` is missing"));
    let message = tree_fault(|tree| tree["tree_param"]["num_nodes"] = json!("8"));
    assert_eq!(message, format!("{TREE}`num_nodes`: 8 announced, 7 there"));
    let message = tree_fault(|tree| tree["split_type"][2] = json!(1));
    assert_eq!(
        message,
        format!("{TREE}`split_type`: node 2 is categorical without categories")
    );
    let sets = |[of, starts, sizes, codes]: [Value; 4]| {
        tree_fault(|tree| {
            tree["categories_nodes"] = of;
            tree["categories_segments"] = starts;
            tree["categories_sizes"] = sizes;
            tree["categories"] = codes;
        })
    };
    let one = || json!([0]);
    let zero_one = || json!([0, 1]);
    for (fields, reason) in [
        ([one(), one(), json!([]), one()], "differ in length"),
        ([json!([7]), one(), json!([1]), one()], "those of node 7"),
        ([json!([-1]), one(), json!([1]), one()], "those of node -1"),
        ([one(), json!([1]), json!([1]), one()], "those of node 0"),
        (
            [one(), json!([i64::MAX]), json!([1]), one()],
            "those of node 0",
        ),
        (
            [json!([0, 0]), zero_one(), json!([1, 1]), zero_one()],
            "node 0 is there twice",
        ),
        (
            [zero_one(), json!([0, 0]), json!([2, 2]), zero_one()],
            "node 1 is there twice",
        ),
        ([one(), one(), json!([1]), json!([-3])], "-3 is no category"),
        (
            [one(), one(), json!([1]), json!([1 << 24])],
            "16777216 is no category",
        ),
    ] {
        let message = sets(fields);
        assert!(
            message.starts_with(TREE) && message.contains(reason),
            "{message}"
        );
    }
    let message = tree_fault(|tree| tree["id"] = json!(7));
    assert_eq!(message, format!("{TREE}`id`: 7 in place 1"));
}

#[test]
fn thresholds_and_leaves_must_be_numbers() {
    let text = fs::read_to_string(golden("binary-logistic.json")).unwrap();
    let list = text.find("\"split_conditions\":[").unwrap() + "\"split_conditions\":[".len();
    let end = list + text[list..].find(']').unwrap();
    let with = |conditions: &str| {
        let text = format!("{}{conditions}{}", &text[..list], &text[end..]);
        load_bytes(text.as_bytes()).unwrap_err().message
    };
    let message = with("1,NaN,1,1,1,1,1");
    assert!(
        message.contains("tree 0: node 1: the threshold is not a number"),
        "{message}"
    );
    let message = with("1,1,1,1,NaN,1,1");
    assert!(
        message.contains("tree 0: node 4: the leaf's value is NaN"),
        "{message}"
    );
    let message = with("1,1,1,-Infinity,1,1,1");
    assert!(
        message.contains("tree 0: node 3: the leaf's value is -inf"),
        "{message}"
    );
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let parameter = |name: &'static str, value: &'static str| {
        fault(move |model| model["learner"]["learner_model_param"][name] = json!(value))
    };
    for (name, value, reason) in [
        (
            "num_feature",
            "-3",
            "`num_feature`: -3 is outside 1..=262144",
        ),
        (
            "num_feature",
            "4000000000",
            "`num_feature`: 4000000000 is outside 1..=262144",
        ),
        (
            "num_feature",
            "many",
            "`num_feature`: `many` is not a whole number",
        ),
        (
            "num_target",
            "999999",
            "`num_target`: 999999 is outside 1..=65536",
        ),
        (
            "base_score",
            "half",
            "`base_score`: `half` is not a number or a list of them",
        ),
        (
            "base_score",
            "[5E-1,5E-1]",
            "`base_score`: 2 of them for 1 outputs",
        ),
        (
            "base_score",
            "2",
            "`base_score`: 2 has no margin under this objective",
        ),
    ] {
        let message = parameter(name, value);
        assert!(message.contains(reason), "{message}");
    }
    let message = fault(|model| model["learner"]["objective"]["name"] = json!("reg:other"));
    assert_eq!(
        message,
        "`learner`: the objective `reg:other` is not supported"
    );
    let message = fault(|model| model["learner"]["gradient_booster"]["name"] = json!("gbforest"));
    assert!(
        message.contains("the booster `gbforest` is not supported"),
        "{message}"
    );
    let message = fault(|model| model["learner"]["feature_names"] = json!(["a", "b"]));
    assert!(
        message.contains("`feature_names`: 2 of them for 5 features"),
        "{message}"
    );
    let message = fault(|model| model["learner"]["attributes"] = json!({"best_iteration": "9"}));
    assert!(
        message.contains("iterations 0..10 are asked for, the model has 3"),
        "{message}"
    );
}

#[test]
fn boosters_that_do_not_fit_together_are_refused() {
    let model = |name: &'static str, value: Value| {
        fault(move |model| model["learner"]["gradient_booster"]["model"][name] = value)
    };
    for (name, value, reason) in [
        ("tree_info", json!([0, 0]), "`tree_info`: 2 for 3 trees"),
        (
            "tree_info",
            json!([0, 1, 0]),
            "tree 1: `tree_info`: output 1 is outside 0..1",
        ),
        (
            "iteration_indptr",
            json!([0, 2, 1, 3]),
            "does not ascend from 0 to 3 trees",
        ),
        (
            "iteration_indptr",
            json!([]),
            "does not ascend from 0 to 3 trees",
        ),
        (
            "weight_drop",
            json!([1, 1, 1, 1]),
            "`weight_drop`: 4 for 3 trees",
        ),
        (
            "trees",
            json!([1, 2, 3]),
            "`trees`: expected a list, found numbers",
        ),
    ] {
        let message = model(name, value);
        assert!(message.contains(reason), "{message}");
    }
    let message = fault_in("linear-binary.json", |model| {
        model["learner"]["gradient_booster"]["model"]["weights"] = json!([1, 2, 3]);
    });
    assert!(
        message.contains("`weights`: 3 of them where 5 features and 1 outputs need 6"),
        "{message}"
    );
}

#[test]
fn files_that_are_no_models_are_refused() {
    for (bytes, reason) in [
        (b"".as_slice(), "the file is empty"),
        (b"  \n", "the file is empty"),
        (b"{}", "`learner` is missing: this is no XGBoost model"),
        (b"{i\x01a", "byte 4"),
    ] {
        let message = load_bytes(bytes).unwrap_err().message;
        assert!(message.contains(reason), "{message}");
    }
    let error = load(Path::new("/nowhere/model.ubj")).unwrap_err();
    assert_eq!(error.file, "/nowhere/model.ubj");
    assert!(load(Path::new(env!("CARGO_MANIFEST_DIR"))).is_err());
}

#[test]
fn truncated_models_are_refused() {
    for name in ["binary-logistic.json", "binary-logistic.ubj"] {
        let bytes = fs::read(golden(name)).unwrap();
        for end in (0..bytes.len()).step_by(37) {
            assert!(
                load_bytes(&bytes[..end]).is_err(),
                "first {end} bytes of {name}"
            );
        }
        assert!(
            load_bytes(&[&bytes[..], b"x"].concat()).is_err(),
            "{name} and a byte more"
        );
    }
}

fn lightgbm(name: &str) -> String {
    fs::read_to_string(golden("../lightgbm-4.7").join(name)).unwrap()
}

/// The fault of a LightGBM model after the value of one line was replaced, the first of that name.
fn line_fault(file: &str, name: &str, value: &str) -> String {
    let text = lightgbm(file);
    let start = text.find(&format!("\n{name}=")).unwrap() + name.len() + 2;
    let end = start + text[start..].find('\n').unwrap();
    let text = format!("{}{value}{}", &text[..start], &text[end..]);
    match load_bytes(text.as_bytes()) {
        Ok(_) => panic!("accepted: {name}={value}"),
        Err(error) => error.message,
    }
}

#[test]
fn damaged_lightgbm_models_are_refused_with_the_place() {
    for (name, value, reason) in [
        ("version", "v2", "`version`: v2 is not read, only v3 and v4"),
        (
            "max_feature_idx",
            "-1",
            "`max_feature_idx`: -1 is outside 0..=262143",
        ),
        (
            "max_feature_idx",
            "4000000000",
            "4000000000 is outside 0..=262143",
        ),
        ("max_feature_idx", "7", "`feature_names`: 5 for 8 features"),
        ("num_tree_per_iteration", "0", "0 is outside 1..=65536"),
        (
            "num_tree_per_iteration",
            "2",
            "`objective`: 2 trees in an iteration do not go with",
        ),
        (
            "objective",
            "quadratic",
            "the objective `quadratic` is not supported",
        ),
        (
            "objective",
            "binary sigmoid:-1",
            "`objective`: `sigmoid`: -1 is not above 0",
        ),
        (
            "feature_infos",
            "none none",
            "`feature_infos`: 2 for 5 features",
        ),
        ("tree_sizes", "1 2", "`tree_sizes`: 2 for 3 trees"),
        (
            "tree_sizes",
            "1 2 x",
            "`tree_sizes`: `x` is not a number of its kind",
        ),
    ] {
        let message = line_fault("binary.txt", name, value);
        assert!(message.contains(reason), "{message}");
    }
    let three = line_fault("custom.txt", "num_tree_per_iteration", "2");
    assert!(
        three.contains("3 trees are not whole iterations of 2"),
        "{three}"
    );
}

#[test]
fn damaged_lightgbm_trees_are_refused_with_tree_and_split() {
    for (name, value, reason) in [
        ("num_leaves", "0", "`num_leaves`: 0 is outside 1..="),
        (
            "num_leaves",
            "1000000000",
            "`leaf_value`: 6 values for 1000000000 leaves",
        ),
        (
            "leaf_value",
            "1 2 3 nan 5 6",
            "`leaf_value`: that of leaf 3 is NaN",
        ),
        (
            "leaf_value",
            "1 2 3 4 5",
            "`leaf_value`: 5 values for 6 leaves",
        ),
        (
            "split_feature",
            "0 1 5 1 1",
            "split 2: feature 5 is outside 0..5",
        ),
        (
            "split_feature",
            "0 1 -1 1 1",
            "split 2: feature -1 is outside 0..5",
        ),
        (
            "split_feature",
            "0 1",
            "`split_feature`: 2 values for 5 splits",
        ),
        (
            "threshold",
            "1 2 3 nan 5",
            "split 3: the threshold is not a number",
        ),
        (
            "threshold",
            "1 2 3 four 5",
            "`threshold`: `four` is not a number",
        ),
        (
            "decision_type",
            "2 2 12 2 2",
            "split 2: `decision_type`: 12 is none",
        ),
        (
            "decision_type",
            "2 2 300 2 2",
            "`decision_type`: `300` is not a number of its kind",
        ),
        ("decision_type", "2 2 3 2 2", "split 2: there is no set"),
        (
            "left_child",
            "1 2 5 -1 -2",
            "split 2: left child 5 is outside -6..5",
        ),
        (
            "right_child",
            "1 2 -7 -1 -2",
            "split 2: right child -7 is outside -6..5",
        ),
        ("left_child", "1 0 -1 -2 -3", "is reached twice"),
        ("left_child", "-1 -1 -1 -1 -1", "is reached twice"),
        (
            "is_linear",
            "maybe",
            "`is_linear`: `maybe` is neither 0 nor 1",
        ),
        ("is_linear", "1", "`leaf_const` is missing"),
    ] {
        let message = line_fault("binary.txt", name, value);
        assert!(message.starts_with("tree 0: "), "{message}");
        assert!(message.contains(reason), "{message}");
    }
    for (name, value, reason) in [
        (
            "num_cat",
            "1000000000",
            "5 values for 1000000001 bounds of sets",
        ),
        (
            "cat_boundaries",
            "0 1 2 3 4000000000",
            "4 values for 4000000000 words of sets",
        ),
        (
            "cat_boundaries",
            "1 0 2 3 4",
            "`cat_boundaries`: they do not ascend from 0 to 4",
        ),
        (
            "cat_threshold",
            "1 2 3 4294967296",
            "`4294967296` is not a number of its kind",
        ),
    ] {
        let message = line_fault("category-sets.txt", name, value);
        assert!(message.contains(reason), "{message}");
    }
    for (name, value, reason) in [
        ("leaf_const", "1 2 3 4 5 inf", "a number that is not finite"),
        (
            "num_features",
            "4294967295 0 0 0 0 0",
            "values for 4294967295 terms",
        ),
    ] {
        let message = line_fault("linear.txt", name, value);
        assert!(message.contains(reason), "{message}");
    }
}

/// What stands in two places of a file would be a way to make it large.
#[test]
fn sets_of_categories_belong_to_one_split() {
    let text = lightgbm("category-sets.txt");
    let line = text
        .lines()
        .find(|line| line.starts_with("threshold="))
        .unwrap();
    let decisions = text
        .lines()
        .find(|line| line.starts_with("decision_type="))
        .unwrap();
    let decisions = decisions["decision_type=".len()..].split(' ');
    let places = line["threshold=".len()..].split(' ').zip(decisions);
    let twice = places.map(|(place, decision)| match decision {
        "1" => "0",
        _ => place,
    });
    let twice: Vec<&str> = twice.collect();
    let message = line_fault("category-sets.txt", "threshold", &twice.join(" "));
    assert!(
        message.contains("the set 0 of categories is that of another"),
        "{message}"
    );
}

/// Whether the beginning of a file is one: as the library's command line writes it, without names of
/// categories, or without the last line feed.
fn is_whole_lightgbm(text: &str, end: usize) -> bool {
    const END: &str = "\nend of parameters";
    let complete = text.find(END).unwrap() + END.len();
    end + 1 >= text.len() || end >= complete && text[complete..end].trim().is_empty()
}

#[test]
fn lightgbm_models_that_are_cut_off_are_refused() {
    for name in ["binary.txt", "linear.txt", "category-sets.txt"] {
        let text = lightgbm(name);
        for end in 0..text.len() {
            let is_whole = is_whole_lightgbm(&text, end);
            let loaded = load_bytes(&text.as_bytes()[..end]);
            assert_eq!(loaded.is_ok(), is_whole, "first {end} bytes of {name}");
        }
        let more = load_bytes(format!("{text}x").as_bytes())
            .unwrap_err()
            .message;
        assert!(more.contains("`x` after `end of parameters`"), "{more}");
        let windows = load_bytes(text.replace('\n', "\r\n").as_bytes());
        assert!(windows.is_ok(), "{name} with the line ends of Windows");
    }
    let text = lightgbm("binary.txt");
    let cut = load_bytes(&text.as_bytes()[..text.find("threshold=").unwrap()]);
    let message = cut.unwrap_err().message;
    assert!(
        message.starts_with("tree 0: the file is cut off here"),
        "{message}"
    );
    let swapped = text.replacen("Tree=1\n", "Tree=2\n", 1);
    let message = load_bytes(swapped.as_bytes()).unwrap_err().message;
    assert!(
        message.contains("tree 1: `Tree=2` in its place"),
        "{message}"
    );
    let twice = text.replacen("num_cat=0\n", "num_cat=0\nnum_cat=0\n", 1);
    let message = load_bytes(twice.as_bytes()).unwrap_err().message;
    assert!(
        message.contains("tree 0: `num_cat` is there twice"),
        "{message}"
    );
    let message = load_bytes(b"tree\nversion=v4\n\xff").unwrap_err().message;
    assert!(message.contains("byte 16: not UTF-8"), "{message}");
}

#[test]
fn damaged_catboost_models_are_refused_with_the_place() {
    let fault = |name: &str, change: &dyn Fn(&mut Value)| {
        fault_in(&format!("../catboost/{name}.json"), change)
    };
    let tree = "`oblivious_trees`: tree 1: ";
    for (reason, change) in [
        (
            format!("{tree}`leaf_values`: 3 values for 8 leaves"),
            &(|model: &mut Value| model["oblivious_trees"][1]["leaf_values"] = json!([1, 2, 3]))
                as &dyn Fn(&mut Value),
        ),
        (
            format!("{tree}`leaf_values`: 16 values for 8 leaves"),
            &|model| model["oblivious_trees"][1]["leaf_values"] = json!(vec![1; 16]),
        ),
        (
            format!("{tree}`splits`: `split_index`: -1 is no index"),
            &|model| model["oblivious_trees"][1]["splits"][0]["split_index"] = json!(-1),
        ),
        ("tree 1: split 999 is outside 0..".into(), &|model| {
            model["oblivious_trees"][1]["splits"][0]["split_index"] = json!(999)
        }),
        (
            "`features_info`: `float_features`: 0: the borders do not ascend".into(),
            &|model| model["features_info"]["float_features"][0]["borders"] = json!([1.0, 1.0]),
        ),
        (
            "`features_info`: `float_features`: 0: feature 300000 is outside 0..262144".into(),
            &|model| {
                model["features_info"]["float_features"][0]["flat_feature_index"] = json!(300_000)
            },
        ),
        ("feature 1 is there twice".into(), &|model| {
            model["features_info"]["float_features"][0]["flat_feature_index"] = json!(1)
        }),
        (
            "`model_info`: `params`: `loss_function`: the loss function `Other` is not supported"
                .into(),
            &|model| model["model_info"]["params"]["loss_function"]["type"] = json!("Other"),
        ),
        ("3 biases for 1 outputs".into(), &|model| {
            model["scale_and_bias"] = json!([1.0, [0.0, 1.0, 2.0]])
        }),
        (
            "`features_info`: text features are not supported".into(),
            &|model| model["features_info"]["text_features"] = json!([{}]),
        ),
    ] {
        let message = fault("logloss", change);
        assert!(message.contains(&reason), "{message}");
    }
    let message = fault("lossguide-binary", &|model| {
        model["trees"][1]["left"] = json!({})
    });
    assert_eq!(message, "`trees`: tree 1: `split` is missing");
}

/// Offsets in FlatBuffers may lead back and to the same place: neither may cost more than the file.
#[test]
fn numbers_of_catboost_files_are_checked_where_they_lead_out() {
    for name in ["logloss", "lossguide-multiclass", "multi-rmse"] {
        let bytes = fs::read(golden("../catboost").join(format!("{name}.cbm"))).unwrap();
        // Not those of texts.
        let is_text = |place: &usize| bytes[*place..*place + 4].iter().all(u8::is_ascii_graphic);
        let places = (8..bytes.len() - 4).step_by(4);
        for place in places.filter(|place| !is_text(place)) {
            for value in [0u32, 0x10, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFF0] {
                let mut changed = bytes.clone();
                changed[place..place + 4].copy_from_slice(&value.to_le_bytes());
                load_and_predict(&changed);
            }
        }
    }
}

/// A file that loads must predict: for any bytes the caller gets numbers or an error.
fn load_and_predict(bytes: &[u8]) {
    let Ok(model) = load_bytes(bytes) else { return };
    let features = &model.signature().features;
    let mut rows = RowBuffer::default();
    for index in 0..2 * features.len() {
        let value = match index.is_multiple_of(3) {
            _ if features[index % features.len()].kind.is_text() => rows.texts.push("b"),
            true => f64::NAN,
            false => index as f64,
        };
        rows.values.push(value);
    }
    let mut out = vec![0.0; 2 * model.signature().outputs()];
    model.predict(rows.rows(features.len()), &mut out).unwrap();
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        brace in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = bytes;
        if brace {
            bytes.splice(0..0, *b"{L\0\0\0\0\0\0\0\x07learner{");
        }
        load_and_predict(&bytes);
    }

    #[test]
    fn mutated_models_never_panic(
        file in prop::sample::select(vec![
            "binary-logistic.json", "binary-logistic.ubj", "dart-multi.ubj", "linear-multi.ubj",
            "named.ubj", "reg-multi-target.json", "../lightgbm-4.7/multiclass.txt",
            "../lightgbm-4.7/category-sets.txt", "../lightgbm-4.7/linear.txt",
            "../catboost/logloss.cbm", "../catboost/logloss.json",
            "../catboost/lossguide-multiclass.cbm", "../catboost/multi-rmse.cbm",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let mut bytes = fs::read(golden(file)).unwrap();
        for (place, byte, kind) in edits {
            let place = place.index(bytes.len());
            match kind {
                0 => bytes[place] = byte,
                1 => bytes[place] = bytes[place].wrapping_add(1),
                2 => drop(bytes.remove(place)),
                _ => bytes.insert(place, byte),
            }
        }
        load_and_predict(&bytes);
    }
}

#[test]
fn names_of_categories_must_be_texts() {
    let text = fs::read_to_string(golden("../categories-3.2/ascii.json")).unwrap();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut model: Value = serde_json::from_str(&text).unwrap();
        change(&mut model["learner"]["gradient_booster"]["model"]["cats"]["enc"]);
        load_bytes(model.to_string().as_bytes())
            .unwrap_err()
            .message
    };
    for (offsets, values) in [
        (json!([0, 4, 99]), json!([86, 105, 103, 111])),
        (json!([0, 3, 1, 4]), json!([86, 105, 103, 111])),
        (json!([-1, 2]), json!([86, 105, 103, 111])),
        (json!([0, 4]), json!([])),
    ] {
        let message = with(&|enc| enc[0] = json!({"offsets": offsets, "values": values}));
        assert!(message.contains("they do not part"), "{message}");
    }
    let message = with(&|enc| drop(enc.as_array_mut().unwrap().pop()));
    assert!(message.contains("`cats`: 2 for 3 features"), "{message}");
}
