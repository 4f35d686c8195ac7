//! Which file of a folder is the model, and what is said where none is.

use super::*;
use crate::package::Package;

#[test]
fn a_file_called_model_that_is_none_is_left_aside() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["model.log", "model.tmp", "model.bak"] {
        fs::write(folder.path().join(name), "").expect("written");
    }
    let message = Package::load(folder.path()).expect_err("none").to_string();
    assert!(
        message.contains("there is no model file in it"),
        "{message}"
    );
}

#[test]
fn a_folder_has_exactly_one_model_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("model.toml"), "").expect("written");
    let message = Package::load(folder.path()).expect_err("none").to_string();
    assert!(
        message.contains("there is no model file in it; put one there as model.ubj"),
        "{message}"
    );
    fs::write(
        folder.path().join("model.onnx"),
        b"\x08\x09\x12\x08skl2onnx",
    )
    .expect("written");
    let message = Package::load(folder.path())
        .expect_err("not a model that is read")
        .to_string();
    assert!(message.contains("model.onnx: no graph"), "{message}");
    for name in ["model.json", "model.ubj", "README.txt"] {
        fs::write(folder.path().join(name), "").expect("written");
    }
    let message = Package::load(folder.path()).expect_err("two").to_string();
    assert!(
        message.contains("more than one model file in it (model.json and model.ubj)"),
        "{message}"
    );
}

#[test]
fn what_was_put_in_place_of_a_model_is_named_whatever_it_is_called() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    let refusal = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, source) in files {
            let place = folder.path().join(name);
            fs::create_dir_all(place.parent().expect("a folder")).expect("made");
            fs::copy(golden.join("others").join(source), place).expect("copied");
        }
        let error = Package::load(folder.path()).expect_err("no model that is read");
        error.reason().to_owned()
    };
    for (name, source, words) in [
        (
            "model.pkl",
            "dict.pkl",
            "model.pkl: this is a Python pickle of a dict with an XGBoost model",
        ),
        (
            "churn.joblib",
            "lz4.joblib",
            "churn.joblib: this is compressed with LZ4",
        ),
        (
            "model.json.gz",
            "model.json.gz",
            "model.json.gz: this is compressed with gzip",
        ),
        ("keras.H5", "model.h5", "keras.H5: this is an HDF5 file"),
        (
            "net.keras",
            "model.keras",
            "net.keras: this is a Keras model",
        ),
        (
            "model.txt",
            "lightgbm.json",
            "model.txt: this is a dump of a LightGBM model",
        ),
        (
            "x.safetensors",
            "model.safetensors",
            "this is a safetensors file",
        ),
        ("all.zip", "model.zip", "all.zip: this is a zip archive"),
        (
            "model.parquet",
            "table.parquet",
            "model.parquet: this is a Parquet table",
        ),
        (
            "saved/net.keras",
            "model.keras",
            "no model file in it, and saved/net.keras is a Keras model",
        ),
        (
            "df.parquet",
            "table.parquet",
            "no model file in it, only df.parquet; df.parquet is a Parquet table, which is data",
        ),
        (
            "trees.txt",
            "dump.txt",
            "no model file in it, only trees.txt; trees.txt is a dump of XGBoost's trees",
        ),
        (
            "train.csv",
            "table.csv",
            "no model file in it, only train.csv; train.csv is a table such as CSV, which is data",
        ),
    ] {
        let reason = refusal(&[(name, source)]);
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let reason = refusal(&[("data.zip", "model.zip"), ("model.pkl", "dict.pkl")]);
    assert!(reason.starts_with("model.pkl: "), "{reason}");
    let tables = ["a.csv", "b.csv", "c.csv", "d.csv"].map(|name| (name, "table.csv"));
    let reason = refusal(&tables);
    assert!(
        reason.contains("only a.csv, b.csv, c.csv and more; a.csv is a table"),
        "{reason}"
    );
    // The content decides.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = golden.join("3.2/binary-logistic.json");
    fs::copy(&model, folder.path().join("churn.bst")).expect("copied");
    let package = Package::load(folder.path()).expect("a model");
    assert!(
        package
            .file()
            .is_some_and(|file| file.ends_with("churn.bst"))
    );
    fs::create_dir(folder.path().join("1")).expect("made");
    fs::rename(
        folder.path().join("churn.bst"),
        folder.path().join("1/model.json"),
    )
    .expect("moved");
    let reason = |path: &Path| Package::load(path).expect_err("no package").to_string();
    let below = reason(folder.path());
    assert!(
        below.contains("but 1/model.json below it; name "),
        "{below}"
    );
    let named = below.split_once("; name ").expect("a path").1;
    let named = named
        .split_once(" instead, or move the file")
        .expect("its end")
        .0;
    Package::load(Path::new(named)).expect("the path that is named");
    let models = folder.path().with_extension("models");
    fs::create_dir(&models).expect("made");
    fs::rename(folder.path(), models.join("churn")).expect("moved");
    let all = reason(&models);
    let named = all.split_once("folder of models; name a package in it, such as ");
    Package::load(Path::new(named.expect(&all).1)).expect("the path that is named");
    fs::rename(models.join("churn"), folder.path()).expect("moved back");
    fs::remove_dir(models).expect("removed");
}

#[test]
fn json_beside_a_model_of_another_name_is_none() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    let model = fs::read(golden.join("3.2/binary-logistic.json")).expect("a model");
    let folder = |files: &[(&str, &[u8])]| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("written");
        }
        folder
    };
    let metrics: &[u8] = br#"{"auc": 0.91, "columns": ["a", "b"]}"#;
    let rows: &[u8] = b"{\"a\": 1}\n{\"a\": 2}\n";
    let list: &[u8] = b"[1, 2, 3]";
    for name in [
        "model.xgb",
        "model.bst",
        "model_final.json",
        "churn.xgb",
        "best.UBJ",
    ] {
        let folder = folder(&[
            (name, &model),
            ("metrics.json", metrics),
            ("rows.json", rows),
            ("input_example.json", list),
        ]);
        let package = Package::load(folder.path()).expect(name);
        assert!(
            package.file().is_some_and(|file| file.ends_with(name)),
            "{name}"
        );
    }
    let reason = |files: &[(&str, &[u8])]| {
        let error = Package::load(folder(files).path()).expect_err("no model");
        error.reason().to_owned()
    };
    let two = reason(&[
        ("a.json", &model),
        ("b.json", &model),
        ("metrics.json", metrics),
    ]);
    assert!(two.contains("(a.json and b.json); keep one, or"), "{two}");
    assert!(
        two.ends_with("call the one that counts model.ubj, model.json or model.txt"),
        "{two}"
    );
    let alone = reason(&[("metrics.json", metrics), ("mymodel", &model)]);
    assert!(alone.starts_with("metrics.json: "), "{alone}");
    assert!(
        alone.ends_with("call that one model.ubj, model.json or model.txt"),
        "{alone}"
    );
    let none = reason(&[("metrics.json", metrics), ("params.json", list)]);
    assert!(
        none.contains("only metrics.json, params.json; put one there as model.ubj"),
        "{none}"
    );
}

#[test]
fn texts_beside_a_model_in_text_are_none() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    let model = golden.join("lightgbm-4.7/binary.txt");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text);
    put("requirements.txt", "lightgbm\n").expect("written");
    put("notes.txt", "trees, of a learner\n").expect("written");
    assert!(!is_package(folder.path()));
    for name in ["churn.txt", "model.txt"] {
        let path = folder.path().join(name);
        fs::copy(&model, &path).expect("copied");
        assert!(is_package(folder.path()) && is_part(&path));
        let package = Package::load(folder.path()).expect(name);
        assert!(package.file().is_some_and(|file| file.ends_with(name)));
        fs::remove_file(path).expect("removed");
    }
    assert!(!is_part(&folder.path().join("notes.txt")));
}

#[test]
fn names_come_from_the_folders() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("churn/2.1");
    fs::create_dir_all(&path).expect("a folder");
    assert_eq!(names(&path), ("churn".into(), "2.1".into()));
    fs::write(path.join("churn-v2.ubj"), "").expect("written");
    assert_eq!(
        names(&path.join("churn-v2.ubj")),
        ("churn-v2".into(), "1".into())
    );
    assert_eq!(
        names(path.parent().expect("its parent")),
        ("churn".into(), "1".into())
    );
}

#[test]
fn links_in_a_circle_end_somewhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["a", "b", "c"] {
        std::os::unix::fs::symlink(".", folder.path().join(name)).expect("a link");
    }
    assert!(!is_package(folder.path()));
    let reason = model_file(folder.path()).expect_err("there is none");
    assert!(
        reason.contains("there is no model file in it; put one there"),
        "{reason}"
    );
}
