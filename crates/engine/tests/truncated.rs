//! Golden files of all formats that are cut off are refused, with words that say so.

#![expect(clippy::unwrap_used, reason = "a test without its data fails")]

use auspex_engine::{LoadOptions, load_bytes};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of models, and how many each has at least.
const FOLDERS: [(&str, usize); 18] = [
    ("1.0", 6),
    ("1.2", 6),
    ("1.4", 6),
    ("1.5", 6),
    ("1.6", 6),
    ("1.7", 50),
    ("2.1", 50),
    ("3.2", 50),
    ("3.4", 50),
    ("categories-1.6", 2),
    ("categories-1.7", 12),
    ("categories-2.1", 12),
    ("categories-3.2", 12),
    ("categories-3.4", 12),
    ("lightgbm-3.3", 45),
    ("lightgbm-4.7", 45),
    ("catboost", 60),
    ("mean-score", 1),
];

/// Between two places at which a file is cut.
const STEP: usize = 1000;

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(folder)
}

/// The files of a folder but for rows and what is expected for them.
fn models(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(golden(folder)).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_model = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let others = [".expected.", ".part.", ".ranges."];
        !others.iter().any(|other| name.contains(other))
            && name != "rows.json"
            && name != "codes.json"
    };
    let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
    paths.filter(is_model).map(read).collect()
}

/// Where LightGBM's text is whole although something is missing: what its command line writes has no names
/// of categories, and nobody needs the last line feed.
fn whole_from(bytes: &[u8]) -> usize {
    const END: &[u8] = b"\nend of parameters";
    if !bytes.starts_with(b"tree") {
        return bytes.len();
    }
    let mut parts = bytes.windows(END.len());
    parts.position(|part| part == END).unwrap() + END.len()
}

#[test]
fn every_golden_file_that_is_cut_off_is_refused() {
    let options = LoadOptions::default();
    for (folder, least) in FOLDERS {
        let models = models(folder);
        assert!(models.len() >= least, "{folder}: only {}", models.len());
        for (path, bytes) in models {
            let ends = (STEP..bytes.len()).step_by(STEP).chain([1, 4, 8, 40]);
            for end in ends
                .chain([bytes.len() - 2])
                .filter(|end| *end < whole_from(&bytes))
            {
                let Err(error) = load_bytes("model", &bytes[..end], &options) else {
                    panic!("first {end} bytes of {}", path.display());
                };
                let message = error.message;
                // Of so little nobody knows what it was going to be.
                let is_unknown = end <= 8 && message.starts_with("not a model file");
                assert!(
                    is_unknown || message.contains("cut off"),
                    "first {end} bytes of {}: {message}",
                    path.display()
                );
            }
        }
    }
}
