//! Pickles: of which library, and what holds the model in them.

use super::{Ends, Other, find};

/// Libraries whose models are read in pickles.
const LIBRARIES: [&str; 4] = ["xgboost.", "sklearn.", "lightgbm.", "catboost."];

/// What a pickle is of which nothing more is known.
pub(in crate::format) const PICKLE: &str = "a Python pickle, and it begins with no class of scikit-learn, XGBoost, LightGBM or CatBoost; put the model \
     itself here";

pub(super) const PICKLES: &[Other] = &[
    Other {
        // The magic number in torch/serialization.py, before PyTorch 1.6.
        is_it: |ends| {
            ends.starts_with(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.")
        },
        name: unsupported!("a PyTorch file"),
    },
    Other {
        is_it: |ends| is_in_dict(ends.head) && pickled(ends, &["xgboost."]),
        name: "a Python pickle of a dict with an XGBoost model in it, and a pickle can run any code when it is \
               read; save the model in its own format from Python, with its key for KEY: `import joblib; \
               joblib.load(\"FILE\")[\"KEY\"].save_model(\"model.ubj\")`",
    },
    Other {
        is_it: |ends| is_in_list(ends) && pickled(ends, &["xgboost."]),
        name: "a Python pickle of a list or tuple with an XGBoost model in it, and a pickle can run any code \
               when it is read; save the model in its own format from Python, with its place for 0: `import \
               joblib; joblib.load(\"FILE\")[0].save_model(\"model.ubj\")`",
    },
    Other {
        is_it: |ends| is_pickle(ends.head) && !pickled(ends, &LIBRARIES),
        name: PICKLE,
    },
];

/// Whether it is a pickle, and the first that it names of the modules of libraries begins so: that is
/// the module of what was pickled, and of what it holds if it is a list or the like.
fn pickled(ends: Ends<'_>, modules: &[&str]) -> bool {
    let place = |name: &str| find(ends.head, name.as_bytes());
    let first = LIBRARIES.iter().filter_map(|name| place(name)).min();
    is_pickle(ends.head)
        && first.is_some_and(|first| {
            let rest = &ends.head[first..];
            modules.iter().any(|name| rest.starts_with(name.as_bytes()))
        })
}

/// What a pickle makes first: since protocol 2 behind its number, since 4 behind the length of a frame.
fn first_opcode(head: &[u8]) -> Option<u8> {
    let after_protocol = match head {
        [0x80, 4 | 5, 0x95, rest @ ..] => rest.get(8..)?,
        [0x80, _, rest @ ..] => rest,
        [b'(', kind, b'p', ..] => return Some(*kind),
        _ => head,
    };
    after_protocol.first().copied()
}

fn is_in_dict(head: &[u8]) -> bool {
    matches!(first_opcode(head), Some(b'}' | b'd'))
}

/// A tuple of up to three begins with its first value, and ends with its size and the end of the pickle.
fn is_in_list(ends: Ends<'_>) -> bool {
    matches!(first_opcode(ends.head), Some(b']' | b'l' | b'('))
        || matches!(
            ends.tail,
            [.., 0x85..=0x87, 0x94, b'.'] | [.., 0x85..=0x87, b'q', _, b'.']
        )
}

/// Protocols 2 to 5 announce themselves; older ones begin with the name of a class, or with a
/// container that is remembered.
pub(super) fn is_pickle(head: &[u8]) -> bool {
    matches!(head, [0x80, 2..=5, ..])
        || [
            "ccopy_reg\n",
            "ccopyreg\n",
            "cxgboost.",
            "csklearn.",
            "clightgbm.",
            "ccatboost.",
            "(dp0\n",
            "(lp0\n",
        ]
        .iter()
        .any(|start| head.starts_with(start.as_bytes()))
}
