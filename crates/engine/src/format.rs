//! Which format a file has, judged by its content.
//!
//! File names do not count: a model may be called anything, and a file called `model.json` may be a
//! pickle. A format that is recognised but not supported is named in the error, with advice.

use crate::document::Fault;
use crate::{Engine, LoadOptions, xgboost};

/// How much of a file is examined, in bytes.
const HEAD_BYTES: usize = 4096;

/// A kind of file that may be found where a model is expected.
struct Format {
    /// Whether a file that begins like this is one.
    recognizes: fn(head: &[u8]) -> bool,
    reading: Reading,
}

type Loader = fn(&[u8], &LoadOptions) -> Result<Box<dyn Engine>, Fault>;

enum Reading {
    Load(Loader),
    /// What it is, and what to do.
    Refuse(&'static str),
}

/// The first that recognises a file decides.
const FORMATS: &[Format] = &[
    Format {
        recognizes: |head| head.starts_with(b"version https://git-lfs.github.com/spec/"),
        reading: Reading::Refuse(
            "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`",
        ),
    },
    Format {
        recognizes: is_pickle,
        reading: Reading::Refuse(
            "a Python pickle, which can run any code when it is read; load it in Python and save \
             the model in its own format, for XGBoost with `save_model(\"model.ubj\")`",
        ),
    },
    Format {
        recognizes: |head| head.starts_with(b"PK\x03\x04"),
        reading: Reading::Refuse(
            "a zip archive (PyTorch, Keras and NumPy save such files); unpack it if the model is \
             inside, else save the model in XGBoost's UBJSON or JSON",
        ),
    },
    Format {
        recognizes: |head| head.starts_with(&[0x1F, 0x8B]) || head.starts_with(b"BZh"),
        reading: Reading::Refuse("compressed; decompress it first"),
    },
    Format {
        recognizes: |head| head.starts_with(b"binf") || head.starts_with(b"bs64"),
        reading: Reading::Refuse(
            "XGBoost's old binary format; load it with XGBoost 1.0 to 3.0 and save it with \
             `save_model(\"model.ubj\")`",
        ),
    },
    Format {
        recognizes: is_xgboost_dump,
        reading: Reading::Refuse(
            "a dump of XGBoost's trees for people (`dump_model`), which lacks what predictions \
             need; save the model with `save_model(\"model.ubj\")`",
        ),
    },
    Format {
        recognizes: |head| head.starts_with(b"tree\n") || head.starts_with(b"tree\r\n"),
        reading: Reading::Refuse(
            "a LightGBM model, which is not supported yet; only XGBoost models are",
        ),
    },
    Format {
        recognizes: |head| {
            has_key(head, "num_tree_per_iteration") && has_key(head, "max_feature_idx")
        },
        reading: Reading::Refuse(
            "a dump of a LightGBM model, which is not supported; only XGBoost models are",
        ),
    },
    Format {
        recognizes: is_catboost,
        reading: Reading::Refuse(
            "a CatBoost model, which is not supported yet; only XGBoost models are",
        ),
    },
    Format {
        recognizes: is_onnx,
        reading: Reading::Refuse(
            "an ONNX model, which is not supported yet; only XGBoost models are",
        ),
    },
    Format {
        recognizes: |head| head.trim_ascii_start().starts_with(b"{"),
        reading: Reading::Load(xgboost::load),
    },
];

/// Loads a file in the format its content shows.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    if bytes.trim_ascii_start().is_empty() {
        return Err(Fault::new("the file is empty"));
    }
    match FORMATS.iter().find(|format| (format.recognizes)(head)) {
        Some(format) => match format.reading {
            Reading::Load(load) => load(bytes, options),
            Reading::Refuse(reason) => Err(Fault(format!("this is {reason}"))),
        },
        None => Err(Fault::new(
            "not a model file of a known format; XGBoost's UBJSON and JSON are read",
        )),
    }
}

/// Protocols 2 to 5 announce themselves; older ones begin with the name of a class.
fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
        || ["ccopy_reg\n", "ccopyreg\n", "cxgboost", "csklearn"]
            .iter()
            .any(|start| head.starts_with(start.as_bytes()))
}

/// As text `booster[0]:` or `0:[f0<1] yes=1`, as JSON a list of nodes, with `dot` a graph.
fn is_xgboost_dump(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    text.starts_with(b"booster[")
        || text.starts_with(b"0:[")
        || text.starts_with(b"digraph")
        || text.starts_with(b"[") && has_key(text, "nodeid")
}

fn is_catboost(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    let is_json = text.starts_with(b"{")
        && ["oblivious_trees", "features_info", "ctr_data"]
            .iter()
            .any(|key| has_key(text, key));
    head.starts_with(b"CBM1") || is_json
}

/// A protocol buffer whose first field is a small `ir_version`, and whose second one is the
/// producer's name, the operator sets or the graph.
fn is_onnx(head: &[u8]) -> bool {
    matches!(head, [0x08, 1..=32, 0x12 | 0x1A | 0x3A | 0x42, ..])
}

/// Whether a JSON key of that name is in the text, and not only a string in a list.
fn has_key(text: &[u8], name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    let found = text.windows(quoted.len()).enumerate();
    found
        .filter(|(_, window)| *window == quoted.as_bytes())
        .any(|(at, _)| {
            text[at + quoted.len()..]
                .trim_ascii_start()
                .starts_with(b":")
        })
}
