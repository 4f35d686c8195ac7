//! Which format a file has, judged by its content.
//!
//! File names do not count: a model may be called anything, and a file called `model.json` may be a
//! pickle. A format that is recognised but not supported is named in the error, with advice.

mod others;
mod packed;

use crate::document::Fault;
use crate::{Engine, LoadOptions, catboost, lightgbm, onnx, sklearn, xgboost};

pub use others::name_other;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A format that is read.
struct Format {
    /// Whether a file that begins like this is one.
    recognizes: fn(bytes: &[u8]) -> bool,
    load: Loader,
}

type Loader = fn(&[u8], &LoadOptions) -> Result<Box<dyn Engine>, Fault>;

/// The first that recognises a file decides.
const FORMATS: &[Format] = &[
    Format {
        recognizes: lightgbm::recognizes,
        load: lightgbm::load,
    },
    Format {
        recognizes: catboost::is_binary,
        load: catboost::load_binary,
    },
    Format {
        recognizes: others::is_catboost_json,
        load: catboost::load_json,
    },
    Format {
        recognizes: others::is_pickle,
        load: sklearn::load,
    },
    Format {
        recognizes: others::is_skops,
        load: sklearn::load_skops,
    },
    Format {
        recognizes: others::is_onnx,
        load: onnx::load,
    },
    Format {
        recognizes: |bytes| bytes.trim_ascii_start().starts_with(b"{"),
        load: xgboost::load,
    },
];

/// Whether a file begins as one of ONNX does, whatever is in its graph.
pub fn is_onnx(bytes: &[u8]) -> bool {
    others::is_onnx(bytes)
}

/// Loads a file in the format its content shows.
pub(crate) fn load(bytes: &[u8], options: &LoadOptions) -> Result<Box<dyn Engine>, Fault> {
    // Editors put it before JSON, where it says nothing.
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if bytes.trim_ascii_start().is_empty() {
        return Err(Fault::new("the file is empty"));
    }
    if let Some(pickle) = packed::unpack(bytes) {
        return sklearn::load_unpacked(&pickle?, bytes.len(), options);
    }
    match name_other(bytes) {
        // Reading it tells what in it is none.
        Some(others::PICKLE) => {
            return sklearn::load(bytes, options)
                .map_err(|fault| fault.inside("this is a Python pickle"));
        }
        Some(other) => return Err(Fault(format!("this is {other}"))),
        None => {}
    }
    match FORMATS.iter().find(|format| (format.recognizes)(bytes)) {
        Some(format) => (format.load)(bytes, options),
        None => Err(Fault::new(
            "not a model file of a known format; XGBoost's UBJSON and JSON, LightGBM's text, CatBoost's own format \
             and JSON, pickles and files of skops with models of scikit-learn, and ONNX are read",
        )),
    }
}
