//! Files that are found where a model is expected and are not read: what each is, and what to do.
//!
//! Only the first and last bytes are looked at, and nothing is decoded: a file is named, never read.
//! The beginnings are those that the formats' own documents state, or that their libraries write.

/// The line that saves what Python has pickled; joblib reads what `pickle` and joblib have written.
macro_rules! from_python {
    () => {
        "`import joblib; joblib.load(\"FILE\").save_model(\"model.ubj\")`"
    };
}

/// A model of a library whose models are not read.
macro_rules! unsupported {
    ($what:literal) => {
        concat!(
            $what,
            ", which is not supported; only XGBoost, LightGBM, CatBoost, scikit-learn and ONNX models are"
        )
    };
}

mod pickles;

pub(super) use pickles::PICKLE;
use pickles::PICKLES;

/// How much of a file's beginning, and of its end, is examined, in bytes.
const EXAMINED_BYTES: usize = 4096;

/// The two ends of a file; they overlap where it is short.
#[derive(Clone, Copy)]
struct Ends<'f> {
    head: &'f [u8],
    tail: &'f [u8],
}

/// A kind of file that is not read.
struct Other {
    is_it: fn(Ends<'_>) -> bool,
    /// What it is, and what to do.
    name: &'static str,
}

/// The first that recognises a file decides, so what is more specific stands before the rest of its
/// kind.
const OTHERS: &[&[Other]] = &[
    POINTERS, PICKLES, ZIPS, PACKED, XGBOOST, LIBRARIES, TEXTS, DATA,
];

/// What a file is and what to do with it, if it is of a kind that is recognised and not read: the end
/// of "this is …". Its two ends will do in place of all of it.
pub fn name_other(bytes: &[u8]) -> Option<&'static str> {
    let ends = Ends::of(bytes);
    let mut others = OTHERS.iter().copied().flatten();
    let other = others.find(|other| (other.is_it)(ends))?;
    Some(other.name)
}

macro_rules! compressed {
    ($with:literal, $command:literal) => {
        concat!(
            "compressed with ",
            $with,
            "; decompress it with `",
            $command,
            " FILE > model.json`, or if joblib has written it, save the model from Python: ",
            from_python!()
        )
    };
}

const POINTERS: &[Other] = &[Other {
    is_it: |ends| ends.starts_with(b"version https://git-lfs.github.com/spec/"),
    name: "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`",
}];

const ZIPS: &[Other] = &[
    Other {
        is_it: |ends| zipped(ends, &["/constants.pkl"]),
        name: unsupported!("a TorchScript model (PyTorch)"),
    },
    Other {
        is_it: |ends| zipped(ends, &["/data.pkl"]),
        name: unsupported!("a PyTorch file"),
    },
    Other {
        is_it: |ends| zipped(ends, &["model.weights.h5"]),
        name: unsupported!("a Keras model"),
    },
    Other {
        is_it: |ends| zipped(ends, &["saved_model.pb"]),
        name: unsupported!("a zip archive of a TensorFlow SavedModel"),
    },
    Other {
        is_it: |ends| zipped(ends, &[".npy"]) && !is_skops_file(ends),
        name: "a file of NumPy arrays, which is data and no model; put the model file here",
    },
    Other {
        is_it: |ends| zipped(ends, &["xl/workbook.xml"]),
        name: "an Excel workbook, which is data and no model; put the model file here",
    },
    Other {
        is_it: |ends| zipped(ends, &[]) && !is_skops_file(ends),
        name: "a zip archive; unpack it with `unzip FILE` and put the model file here",
    },
];

const PACKED: &[Other] = &[
    Other {
        is_it: |ends| ends.starts_with(b"\x1f\x8b"),
        name: concat!(
            compressed!("gzip", "gzip -dc"),
            "; if it is a tar.gz archive, unpack it with `tar -xzf FILE`"
        ),
    },
    Other {
        is_it: |ends| ends.starts_with(b"BZh"),
        name: compressed!("bzip2", "bzip2 -dc"),
    },
    Other {
        is_it: |ends| ends.starts_with(b"\xfd7zXZ\0") || is_lzma(ends.head),
        name: compressed!("xz", "xz -dc"),
    },
    Other {
        is_it: |ends| ends.starts_with(b"\x04\x22\x4d\x18"),
        name: compressed!("LZ4", "lz4 -dc"),
    },
    Other {
        is_it: |ends| is_zlib(ends.head),
        name: concat!(
            "compressed with zlib, as joblib writes it; save the model from Python: ",
            from_python!()
        ),
    },
    Other {
        is_it: |ends| ends.starts_with(b"\x28\xb5\x2f\xfd"),
        name: "compressed with Zstandard; decompress it with `zstd -dc FILE > model.json`",
    },
    Other {
        is_it: |ends| ends.head.get(257..262) == Some(b"ustar"),
        name: "a tar archive; unpack it with `tar -xf FILE` and put the model file here",
    },
    Other {
        is_it: |ends| ends.starts_with(b"7z\xbc\xaf\x27\x1c"),
        name: "a 7-Zip archive; unpack it with `7z x FILE` and put the model file here",
    },
    Other {
        is_it: |ends| ends.starts_with(b"Rar!\x1a\x07"),
        name: "a RAR archive; unpack it and put the model file here",
    },
];

const XGBOOST: &[Other] = &[
    Other {
        is_it: |ends| is_old_xgboost(ends.head),
        name: "XGBoost's old binary format; load it with XGBoost 1.0 to 3.0 and save it with \
               `save_model(\"model.ubj\")`",
    },
    Other {
        is_it: |ends| is_xgboost_dump(ends.head),
        name: "a dump of XGBoost's trees for people (`dump_model`), which lacks what predictions need; \
               save the model with `save_model(\"model.ubj\")`",
    },
    Other {
        is_it: |ends| ends.is_object() && has_key(ends.head, "generic_param"),
        name: "the settings of an XGBoost model (`save_config`), without its trees; save the model with \
               `save_model(\"model.ubj\")`",
    },
];

const LIBRARIES: &[Other] = &[
    Other {
        is_it: |ends| {
            has_key(ends.head, "num_tree_per_iteration") && has_key(ends.head, "max_feature_idx")
        },
        name: "a dump of a LightGBM model (`dump_model`), which rounds some numbers; save the model with `save_model(\"model.txt\")`",
    },
    Other {
        is_it: |ends| {
            contains(ends.head, b"catboost_model") || contains(ends.head, b"CatboostModel")
        },
        name: "a CatBoost model as source code, which is not supported; save the model with \
               `save_model(\"model.cbm\")`",
    },
    Other {
        is_it: |ends| is_saved_model(ends.head),
        name: unsupported!("a TensorFlow SavedModel"),
    },
    Other {
        is_it: |ends| matches!(ends.head, [0x08, 1..=32, 0x12, ..]) && !is_onnx(ends.head),
        name: unsupported!("a Core ML model"),
    },
    Other {
        is_it: |ends| ends.head.get(4..8) == Some(b"TFL3"),
        name: unsupported!("a TensorFlow Lite model"),
    },
    Other {
        is_it: |ends| ends.starts_with(b"\x89HDF\r\n\x1a\n"),
        name: unsupported!("an HDF5 file, as Keras saves models in .h5"),
    },
    Other {
        is_it: |ends| is_safetensors(ends.head),
        name: unsupported!("a safetensors file"),
    },
    Other {
        is_it: |ends| ends.starts_with(b"GGUF"),
        name: unsupported!("a GGUF model"),
    },
];

const TEXTS: &[Other] = &[
    Other {
        is_it: |ends| ends.starts_with(b"\xff\xfe") || ends.starts_with(b"\xfe\xff"),
        name: "text in UTF-16, as PowerShell's `>` and some editors write it, and models are in UTF-8; save the \
               model again from Python with `save_model(\"model.json\")`",
    },
    Other {
        is_it: |ends| ends.is_markup() && contains(ends.head, b"<PMML"),
        name: unsupported!("a PMML model"),
    },
    Other {
        is_it: |ends| ends.is_markup() && contains(&ends.head.to_ascii_lowercase(), b"<html"),
        name: "an HTML page, as a download gives that was refused or needs a login; look at it, and \
               fetch the model again (`curl -fL -o model.ubj URL`)",
    },
    Other {
        is_it: |ends| ends.is_markup(),
        name: "an XML or HTML file and no model, perhaps the error of a download; look at it, and fetch \
               the model again (`curl -fL -o model.ubj URL`)",
    },
];

const DATA: &[Other] = &[
    Other {
        is_it: |ends| ends.starts_with(b"PAR1"),
        name: "a Parquet table, which is data and no model; put the model file here",
    },
    Other {
        is_it: |ends| ends.starts_with(b"ARROW1"),
        name: "an Arrow or Feather table, which is data and no model; put the model file here",
    },
    Other {
        is_it: |ends| ends.starts_with(b"\x93NUMPY"),
        name: "a NumPy array, which is data and no model; put the model file here",
    },
    Other {
        is_it: |ends| ends.starts_with(b"SQLite format 3\0"),
        name: "a SQLite database, which is data and no model; put the model file here",
    },
    Other {
        // A record, a line feed and another record are never one JSON document.
        is_it: |ends| {
            ends.starts_with(b"{\"")
                && (contains(ends.head, b"}\n{\"") || contains(ends.head, b"}\r\n{\""))
        },
        name: "records as JSON Lines, which are data and no model; put the model file here",
    },
    Other {
        is_it: |ends| is_table(ends.head),
        name: "a table such as CSV, which is data and no model; put the model file here",
    },
];

/// Whether it is a pickle.
pub(super) fn is_pickle(bytes: &[u8]) -> bool {
    pickles::is_pickle(bytes)
}

/// Whether it is a file of skops.
pub(super) fn is_skops(bytes: &[u8]) -> bool {
    is_skops_file(Ends::of(bytes))
}

fn is_skops_file(ends: Ends<'_>) -> bool {
    zipped(ends, &["schema.json"])
}

impl<'f> Ends<'f> {
    fn of(bytes: &'f [u8]) -> Self {
        Self {
            head: &bytes[..bytes.len().min(EXAMINED_BYTES)],
            tail: &bytes[bytes.len().saturating_sub(EXAMINED_BYTES)..],
        }
    }
    fn starts_with(self, start: &[u8]) -> bool {
        self.head.starts_with(start)
    }

    fn is_object(self) -> bool {
        self.head.trim_ascii_start().starts_with(b"{")
    }

    /// Whether it is a text that begins with a tag, a declaration or a comment.
    fn is_markup(self) -> bool {
        let head = self.head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.head);
        let name = head.trim_ascii_start().strip_prefix(b"<");
        name.is_some_and(|name| matches!(name, [b'!' | b'?' | b'a'..=b'z' | b'A'..=b'Z', ..]))
    }
}

/// Whether it is a zip archive with entries whose names end so. An entry's name stands before its data
/// and in the list at the archive's end.
fn zipped(ends: Ends<'_>, names: &[&str]) -> bool {
    let has =
        |name: &&str| contains(ends.head, name.as_bytes()) || contains(ends.tail, name.as_bytes());
    ends.starts_with(b"PK\x03\x04") && names.iter().all(has)
}

/// The format before xz: properties, the size of the dictionary, and an unknown size of the data.
pub(super) fn is_lzma(head: &[u8]) -> bool {
    head.starts_with(&[0x5D, 0, 0]) && head.get(5..13) == Some(&[0xFF; 8])
}

/// RFC 1950: a window of 32 KiB, and a check over both bytes, which are a letter and a sign too.
fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [0x78, 0x01 | 0x5E | 0x9C | 0xDA, ..]) && !is_text(head)
}

/// With a mark, or in files of the library before 1.0 without: 136 bytes of parameters, then the names
/// of objective and booster, each after its length.
fn is_old_xgboost(head: &[u8]) -> bool {
    const PARAMETERS: usize = 136;
    let length = head.get(PARAMETERS..PARAMETERS + 8);
    let is_name = |name: &[u8]| {
        ["reg:", "binary:", "multi:", "count:", "survival:", "rank:"]
            .iter()
            .any(|kind| name.starts_with(kind.as_bytes()))
    };
    head.starts_with(b"binf")
        || head.starts_with(b"bs64")
        || length.is_some_and(|length| matches!(length, [1..=64, 0, 0, 0, 0, 0, 0, 0]))
            && head.get(PARAMETERS + 8..).is_some_and(is_name)
}

/// As text `booster[0]:` or `0:[f0<1] yes=1`, as JSON a list of nodes, with `dot` a graph.
fn is_xgboost_dump(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    text.starts_with(b"booster[")
        || text.starts_with(b"0:[")
        || text.starts_with(b"digraph")
        || text.starts_with(b"[") && has_key(text, "nodeid")
}

/// A JSON object with the keys of a CatBoost model, in whatever order.
pub(super) fn is_catboost_json(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(EXAMINED_BYTES)];
    let keys = ["oblivious_trees", "features_info", "ctr_data"];
    head.trim_ascii_start().starts_with(b"{") && keys.iter().any(|key| has_key(head, key))
}

/// A protocol buffer whose first field is a small `ir_version`, and whose second one is the
/// producer's name, its version, the graph or the operator sets.
pub(super) fn is_onnx(head: &[u8]) -> bool {
    match head {
        [0x08, 1..=32, 0x12, _, first, ..] => first.is_ascii_alphanumeric(),
        [0x08, 1..=32, 0x1A | 0x3A | 0x42, ..] => true,
        _ => false,
    }
}

/// A protocol buffer of schema version 1, in it the first graph, in that its description, of which a
/// list of operators comes first. A Core ML model begins like it, up to that list.
fn is_saved_model(head: &[u8]) -> bool {
    let after_length = |bytes: &[u8]| {
        let end = bytes.iter().take(10).position(|byte| *byte < 0x80);
        end.map(|end| end + 1)
    };
    let Some(graph) = head.strip_prefix(&[0x08, 0x01, 0x12]) else {
        return false;
    };
    let description = after_length(graph).and_then(|at| graph[at..].strip_prefix(&[0x0A]));
    let Some(description) = description else {
        return false;
    };
    after_length(description).is_some_and(|at| description[at..].first() == Some(&0x12))
}

/// Eight bytes with the length of a JSON object, and the object.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk() else {
        return false;
    };
    (2..1 << 32).contains(&u64::from_le_bytes(*length)) && rest.starts_with(b"{\"")
}

/// Text whose first two lines have the same number of separators.
fn is_table(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    let (Some(header), Some(row)) = (lines.next(), lines.next()) else {
        return false;
    };
    let count = |line: &[u8], separator| line.iter().filter(|byte| **byte == separator).count();
    let separates = |separator: &u8| {
        let columns = count(header, *separator);
        columns > 0 && columns == count(row, *separator)
    };
    is_text(head)
        && !head.trim_ascii_start().starts_with(b"{")
        && [b',', b'\t', b';'].iter().any(separates)
}

/// Whether it has no control characters.
fn is_text(head: &[u8]) -> bool {
    head.iter()
        .all(|byte| matches!(byte, b'\t' | b'\r' | b'\n' | 0x20..=0x7E | 0x80..))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
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
