//! Files that are no models that are read: each is named for what it is, with what to do.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{LoadOptions, load_bytes};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn message(bytes: &[u8]) -> String {
    match load_bytes("model", bytes, &LoadOptions::default()) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.message,
    }
}

const SAVE: &str = "`import joblib; joblib.load(\"FILE\").save_model(\"model.ubj\")`";

/// Files that their own libraries have written, what each is, and the words that say what to do.
const REAL_FILES: [(&str, &str, &str); 33] = [
    (
        "dict.pkl",
        "a Python pickle of a dict with an XGBoost model in it",
        "joblib.load(\"FILE\")[\"KEY\"].save_model(\"model.ubj\")`",
    ),
    (
        "dict.joblib",
        "a Python pickle of a dict with an XGBoost model in it",
        "[\"KEY\"].save_model",
    ),
    (
        "list.pkl",
        "a Python pickle of a list or tuple with an XGBoost model",
        "joblib.load(\"FILE\")[0].save_model(\"model.ubj\")`",
    ),
    (
        "tuple.pkl",
        "a Python pickle of a list or tuple with an XGBoost model",
        "[0].save_model",
    ),
    ("model.json.bz2", "compressed with bzip2", SAVE),
    ("model.json.xz", "compressed with xz", SAVE),
    ("model.json.lzma", "compressed with xz", SAVE),
    ("lz4.joblib", "compressed with LZ4", SAVE),
    (
        "model.json.gz",
        "compressed with gzip",
        "`gzip -dc FILE > model.json`",
    ),
    (
        "model.json.zst",
        "compressed with Zstandard",
        "`zstd -dc FILE > model.json`",
    ),
    ("model.zip", "a zip archive", "`unzip FILE`"),
    ("model.tar", "a tar archive", "`tar -xf FILE`"),
    ("model.7z", "a 7-Zip archive", "`7z x FILE`"),
    (
        "xgboost-0.90.model",
        "XGBoost's old binary format",
        "save_model(\"model.ubj\")",
    ),
    (
        "dump.txt",
        "a dump of XGBoost's trees",
        "save_model(\"model.ubj\")",
    ),
    (
        "dump.json",
        "a dump of XGBoost's trees",
        "save_model(\"model.ubj\")",
    ),
    (
        "dump.dot",
        "a dump of XGBoost's trees",
        "save_model(\"model.ubj\")",
    ),
    (
        "config.json",
        "the settings of an XGBoost model",
        "save_model(\"model.ubj\")",
    ),
    (
        "lightgbm.json",
        "a dump of a LightGBM model",
        "save_model(\"model.txt\")",
    ),
    (
        "catboost.py",
        "a CatBoost model as source code",
        "save_model(\"model.cbm\")",
    ),
    (
        "catboost.cpp",
        "a CatBoost model as source code",
        "save_model(\"model.cbm\")",
    ),
    ("catboost.mlmodel", "a Core ML model", "only XGBoost"),
    ("catboost.pmml", "a PMML model", "only XGBoost"),
    ("model.keras", "a Keras model", "only XGBoost"),
    (
        "model.h5",
        "an HDF5 file, as Keras saves models",
        "only XGBoost",
    ),
    ("model.safetensors", "a safetensors file", "only XGBoost"),
    (
        "table.csv",
        "a table such as CSV",
        "put the model file here",
    ),
    (
        "table.tsv",
        "a table such as CSV",
        "put the model file here",
    ),
    (
        "table.jsonl",
        "records as JSON Lines",
        "put the model file here",
    ),
    (
        "table.parquet",
        "a Parquet table",
        "put the model file here",
    ),
    (
        "table.feather",
        "an Arrow or Feather table",
        "put the model file here",
    ),
    ("array.npy", "a NumPy array", "put the model file here"),
    (
        "arrays.npz",
        "a file of NumPy arrays",
        "put the model file here",
    ),
];

/// Files of other programs with models in them, which are read.
const READ_FILES: [&str; 19] = [
    "booster-0.pkl",
    "booster-2.pkl",
    "booster-5.pkl",
    "wrapper.pkl",
    "wrapper-cloud.pkl",
    "wrapper.joblib",
    "lightgbm.pkl",
    "zlib.joblib",
    "gzip.joblib",
    "bz2.joblib",
    "xz.joblib",
    "lzma.joblib",
    "zstd.joblib",
    "sklearn.joblib",
    "sklearn.skops",
    "histogram-1.5.pkl",
    "pipeline.joblib",
    "process.joblib",
    "search.joblib",
];

/// Pickles of scikit-learn with something in them that is not read, and what is said of it.
const SKLEARN_FILES: [(&str, &str); 2] = [
    (
        "kernel-ridge.joblib",
        "Pipeline: step `kernelridge`: KernelRidge: this estimator is not supported",
    ),
    // The script that makes it leaves out who built the library, and what follows.
    ("catboost.pkl", "the file is cut off here"),
];

/// Models of CatBoost with features that are not read.
const CATBOOST_FILES: [(&str, &str); 2] = [
    ("catboost-texts.cbm", "text"),
    ("catboost-embeddings.cbm", "embedding"),
];

#[test]
fn models_of_other_libraries_in_pickles_are_read() {
    for name in READ_FILES {
        let bytes = fs::read(golden("others").join(name)).unwrap();
        let model = load_bytes("model", &bytes, &LoadOptions::default());
        let model = model.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!model.signature().features.is_empty(), "{name}");
    }
}

#[test]
fn texts_and_embeddings_of_catboost_are_refused_by_name() {
    for (name, kind) in CATBOOST_FILES {
        let message = message(&fs::read(golden("others").join(name)).unwrap());
        let words = format!("{kind} features are not supported; train without `text_features`");
        assert!(message.starts_with(&words), "{name}: {message}");
    }
}

#[test]
fn what_is_not_read_in_a_pipeline_is_named() {
    for (name, words) in SKLEARN_FILES {
        let message = message(&fs::read(golden("others").join(name)).unwrap());
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn files_of_other_libraries_are_named_with_what_to_do() {
    for (name, what, fix) in REAL_FILES {
        let message = message(&fs::read(golden("others").join(name)).unwrap());
        assert!(message.starts_with("this is "), "{name}: {message}");
        assert!(
            message.contains(what) && message.contains(fix),
            "{name}: {message}"
        );
    }
    let files = fs::read_dir(golden("others")).unwrap();
    let lines = REAL_FILES.len() + READ_FILES.len() + SKLEARN_FILES.len() + CATBOOST_FILES.len();
    assert_eq!(files.count(), lines, "each file has a line here");
}

#[test]
fn whatever_is_cut_off_is_refused() {
    for (name, ..) in REAL_FILES {
        let bytes = fs::read(golden("others").join(name)).unwrap();
        for end in 0..bytes.len().min(400) {
            message(&bytes[..end]);
        }
    }
}

/// An archive of stored entries, as `torch.save`, Keras and Excel write them: the headers of the
/// entries, and the list of them at the end (APPNOTE.TXT, 4.3.7 and 4.3.12).
fn zip(names: &[&str], padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut list = Vec::new();
    for name in names {
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        list.extend(
            [
                b"PK\x01\x02".as_slice(),
                &[0; 24],
                &length,
                &[0; 16],
                name.as_bytes(),
            ]
            .concat(),
        );
        bytes.extend(
            [
                b"PK\x03\x04".as_slice(),
                &[0; 22],
                &length,
                &[0; 2],
                name.as_bytes(),
            ]
            .concat(),
        );
        bytes.resize(bytes.len() + padding, 0);
    }
    [bytes, list, b"PK\x05\x06".to_vec(), vec![0; 18]].concat()
}

#[test]
fn archives_are_named_for_the_entries_they_have() {
    // Names of entries: caffe2/serialize/inline_container.cc, torch/jit/_serialization.py.
    for (names, words) in [
        (&["model/data.pkl", "model/version"][..], "a PyTorch file"),
        (
            &["model/data.pkl", "model/code/x.py", "model/constants.pkl"],
            "a TorchScript model",
        ),
        (
            &["saved_model.pb", "variables/variables.index"],
            "a TensorFlow SavedModel",
        ),
        (
            &["[Content_Types].xml", "xl/workbook.xml"],
            "an Excel workbook",
        ),
        (&["model.ubj"], "a zip archive; unpack it with `unzip FILE`"),
    ] {
        for padding in [0, 10_000] {
            let message = message(&zip(names, padding));
            assert!(message.contains(words), "{message}");
        }
    }
}

/// The first bytes of files that are not models, and the words that help.
const OTHER_FILES: [(&[u8], &str); 29] = [
    (b"\xff\xfe{\0\"\0", "text in UTF-16"),
    (
        b"\x1f\x8b\x08\0",
        "if it is a tar.gz archive, unpack it with `tar -xzf FILE`",
    ),
    (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 132\n",
        "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`",
    ),
    (
        b"\x80\x04\x95\xe8I\0\0\0\0\0\0\x8c\x0cxgboost.core",
        "the file is cut off here",
    ),
    (b"ccopy_reg\n_reconstructor\n", "the file is cut off here"),
    (b"PK\x03\x04\x14\0", "a zip archive"),
    (
        b"\x1f\x8b\x08\0",
        "compressed with gzip; decompress it with",
    ),
    // torch/serialization.py: MAGIC_NUMBER 0x1950a86a20f9469cfc6c, pickled.
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        "a PyTorch file",
    ),
    (b"ccatboost.core\nCatBoost\n", "the file is cut off here"),
    (
        b"clightgbm.sklearn\nLGBMClassifier\n",
        "the file is cut off here",
    ),
    (
        b"(dp0\nVmodel\np1\ncxgboost.sklearn\n",
        "a Python pickle of a dict with an XGBoost model in it",
    ),
    // tensorflow/core/protobuf/saved_model.proto and meta_graph.proto.
    (
        b"\x08\x01\x12\xc8\x1a\x0a\xa4\x0f\x12\x85\x06\x0a.\x0a\x03Add",
        "a TensorFlow SavedModel",
    ),
    // tensorflow/lite/schema/schema.fbs: file_identifier.
    (b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
    (b"GGUF\x03\0\0\0", "a GGUF model"),
    (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    (b"SQLite format 3\0\x10", "a SQLite database"),
    (b"\n<HTML><head>", "an HTML page"),
    (b"\xef\xbb\xbf<!-- x --><html>", "an HTML page"),
    (
        b"<?xml version=\"1.0\"?>\n<Error><Code>AccessDenied</Code>",
        "an XML or HTML file",
    ),
    (b"a;b\r\n1;2\r\n", "a table such as CSV"),
    (b"binf\0\0\0\x3f\x05\0\0\0", "XGBoost's old binary format"),
    (
        b"[\n  { \"nodeid\": 0, \"depth\": 0, \"split\": \"f0\"",
        "a dump of XGBoost's trees for people (`dump_model`)",
    ),
    (
        b"booster[0]:\n0:[f0<1] yes=1,no=2",
        "a dump of XGBoost's trees",
    ),
    (b"0:[f0<1] yes=1,no=2", "a dump of XGBoost's trees"),
    (
        b"{\"name\":\"tree\",\"version\":\"v4\",\"num_tree_per_iteration\":1,\"max_feature_idx\":3",
        "a dump of a LightGBM model",
    ),
    (b"<!DOCTYPE html>", "an XML or HTML file"),
    (
        b"<!doctype html>\n<html lang=\"en\">",
        "curl -fL -o model.ubj URL",
    ),
    (b"[1, 2]", "not a model file of a known format"),
    (b"x^2 and so on", "not a model file of a known format"),
];

#[test]
fn files_of_other_formats_are_named_whatever_they_are_called() {
    for (bytes, words) in OTHER_FILES {
        let message = message(bytes);
        assert!(message.contains(words), "{message}");
    }
}

/// Each by a program that decompresses files whatever they are called, as downloads often are.
#[test]
fn advice_on_compressed_files_can_be_followed() {
    let folder = std::env::temp_dir().join(format!("auspex-advice-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for name in ["model.json.gz", "model.json.bz2", "model.json.xz"] {
        let bytes = fs::read(golden("others").join(name)).unwrap();
        fs::write(folder.join("FILE"), &bytes).unwrap();
        let message = message(&bytes);
        let command = message.split('`').nth(1).unwrap();
        let mut shell = std::process::Command::new("sh");
        let ran = shell.args(["-c", command]).current_dir(&folder).output();
        let ran = ran.unwrap();
        assert!(ran.status.success(), "{command}: {ran:?}");
        assert!(fs::metadata(folder.join("model.json")).unwrap().len() > 0);
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_byte_order_mark_before_json_says_nothing() {
    let model = fs::read(golden("3.2/binary-logistic.json")).unwrap();
    let marked = [b"\xef\xbb\xbf".as_slice(), &model].concat();
    assert!(load_bytes("model", &marked, &LoadOptions::default()).is_ok());
}

#[test]
fn a_feature_may_be_called_like_a_key_of_another_format() {
    let mut model: Value =
        serde_json::from_slice(&fs::read(golden("3.2/binary-logistic.json")).unwrap()).unwrap();
    model["learner"]["feature_names"] = json!([
        "ctr_data",
        "oblivious_trees",
        "features_info",
        "tree_info",
        "nodeid"
    ]);
    let bytes = model.to_string().into_bytes();
    assert!(load_bytes("model", &bytes, &LoadOptions::default()).is_ok());
}
