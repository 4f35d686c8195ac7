//! The files of a package: which they are, and what its folders call the model.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::names::is_name;

/// The file next to the model.
pub(crate) const MANIFEST: &str = "model.toml";
/// Extensions of files that may be models.
const EXTENSIONS: [&str; 3] = ["ubj", "json", "cbm"];
/// That of LightGBM's models, and of much else: only the content tells.
const TEXT_EXTENSION: &str = "txt";
/// Extensions that models have elsewhere. Some hold a model that is read, since the content decides;
/// of the rest loading says what they are.
const OTHER_EXTENSIONS: [&str; 25] = [
    "bin",
    "bst",
    "ckpt",
    "dill",
    "h5",
    "hdf5",
    "joblib",
    "keras",
    "lgb",
    "mlmodel",
    "model",
    "onnx",
    "pb",
    "pickle",
    "pkl",
    "pmml",
    "pt",
    "pth",
    "rds",
    "safetensors",
    "sav",
    "skops",
    "tflite",
    "xgb",
    "xgboost",
];
/// Extensions of what a model may be packed into.
const PACKED_EXTENSIONS: [&str; 13] = [
    "7z", "bz2", "gz", "lz4", "lzma", "rar", "tar", "tgz", "xz", "z", "zip", "zlib", "zst",
];
/// Extensions of files that are no models although they are called `model`.
const NOT_MODELS: [&str; 8] = ["bak", "log", "md", "old", "part", "partial", "swp", "tmp"];
/// Folders that systems and tools make by themselves.
const SYSTEM_FOLDERS: [&str; 6] = [
    "lost+found",
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "$RECYCLE.BIN",
    "System Volume Information",
];
/// How much is read of an end of a file to tell what it is.
const END_BYTES: u64 = 4096;
/// How many names of files a message has.
const NAMES_SHOWN: usize = 3;

/// Whether a name in the models folder is nobody's model: hidden, or made by a system or a tool.
pub(crate) fn is_passed_over(name: &str) -> bool {
    name.starts_with('.') || SYSTEM_FOLDERS.contains(&name)
}

/// Whether a folder is a package itself rather than a folder of packages.
pub(crate) fn is_package(path: &Path) -> bool {
    path.is_file() || may_be_package(path) && !holds_packages(path)
}

/// Whether a folder has a model or a manifest in it.
fn may_be_package(path: &Path) -> bool {
    let model = || model_among(&paths_in(path).ok()?).ok()?;
    let is_named = |file: PathBuf| has_model_extension(&file) || is_called_model(&file);
    path.join(MANIFEST).is_file() || model().is_some_and(is_named)
}

/// The packages two levels below, where a folder of models has them.
fn packages_in(path: &Path) -> impl Iterator<Item = PathBuf> {
    let models = folders_in(path).into_iter();
    let versions = models.flat_map(|model| folders_in(&model));
    versions.filter(|path| may_be_package(path))
}

/// Whether a folder is one of models.
pub(crate) fn holds_packages(path: &Path) -> bool {
    packages_in(path).next().is_some()
}

/// The folders in a folder that are not passed over.
pub(crate) fn folders_in(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_folder = |path: &PathBuf| !is_passed_over(&file_name(path)) && path.is_dir();
    let mut folders: Vec<PathBuf> = paths.filter(is_folder).collect();
    folders.sort();
    folders
}

/// A file that is meant to be the manifest, in a folder without one.
pub(crate) fn misnamed_manifest(folder: &Path) -> Option<String> {
    if folder.join(MANIFEST).exists() {
        return None;
    }
    let entries = fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| Some(file_name(&entry.ok()?.path())));
    names.filter(|name| is_manifest_name(name)).min()
}

/// Whether a file is called like a manifest, if not quite.
pub(crate) fn is_manifest_name(name: &str) -> bool {
    let lower = name.to_lowercase();
    let (stem, extension) = lower.rsplit_once('.').unwrap_or_default();
    matches!(stem, "model" | "models" | "manifest") && matches!(extension, "toml" | "yaml" | "yml")
}

/// The one model file in a folder: `model.*`, or else the only file that looks like one. Where there is
/// none that is read, one of another kind, since loading it says what it is.
pub(crate) fn model_file(folder: &Path) -> Result<PathBuf, String> {
    let files = paths_in(folder).map_err(|error| error.to_string())?;
    model_among(&files)?.ok_or_else(|| nothing_in(folder, &files))
}

/// What is in a folder and not hidden, sorted.
fn paths_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| !file_name(path).starts_with('.'))
        .collect();
    paths.sort();
    Ok(paths)
}

fn model_among(paths: &[PathBuf]) -> Result<Option<PathBuf>, String> {
    let files = || paths.iter().filter(|path| path.is_file());
    let named: Vec<&PathBuf> = files().filter(|path| has_model_extension(path)).collect();
    let mut models = named.clone();
    models.retain(|path| has_stem_model(path));
    if models.is_empty() {
        // Beside a model of another name there are metrics, examples and settings in JSON.
        models = named.clone();
        models.retain(|path| looks_like_model(path));
    }
    match models[..] {
        [] => {}
        [model] => return Ok(Some(model.clone())),
        [first, second, ..] => {
            let way_out = match has_stem_model(first) {
                true => "",
                false => ", or call the one that counts model.ubj, model.json or model.txt",
            };
            return Err(format!(
                "there is more than one model file in it ({} and {}); keep one{way_out}",
                file_name(first),
                file_name(second)
            ));
        }
    }
    if let Some(link) = paths.iter().find(|p| may_be_model(p) && is_dangling(p)) {
        return Err(format!("{} is {DANGLING}", file_name(link)));
    }
    let kinds: [fn(&Path) -> bool; 3] = [is_called_model, is_other_model, is_packed];
    let other = kinds.iter().find_map(|is_it| files().find(|p| is_it(p)));
    // Loading a single one says what is wrong with it.
    let other = other.or(match named[..] {
        [only] => Some(only),
        _ => None,
    });
    Ok(other.cloned())
}

/// Whether a file begins as a model of the library does; what is wrong with it otherwise is told by loading.
fn looks_like_model(path: &Path) -> bool {
    const KEY: &[u8] = b"learner";
    is_text_model(path) || head_of(path).windows(KEY.len()).any(|part| part == KEY)
}

/// Whether a file begins as LightGBM's models do.
fn is_text_model(path: &Path) -> bool {
    let begins = || {
        matches!(
            head_of(path)[..],
            [b't', b'r', b'e', b'e', b'\n' | b'\r', ..]
        )
    };
    has_extension(path, &[TEXT_EXTENSION]) && begins()
}

/// The first bytes of a file, none if it cannot be read.
fn head_of(path: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let opened = fs::File::open(path);
    let read = opened.and_then(|file| file.take(END_BYTES).read_to_end(&mut head));
    read.map_or(Vec::new(), |_| head)
}

/// What to do where a file that was taken for the model is none.
pub(crate) fn if_not_the_model(file: &Path) -> &'static str {
    match has_stem_model(file) {
        true => "",
        false => "; if another file is the model, call that one model.ubj, model.json or model.txt",
    }
}

/// Why a folder is no package, with what there is in place of a model file.
fn nothing_in(folder: &Path, paths: &[PathBuf]) -> String {
    let below = folders_in(folder).into_iter().find_map(|below| {
        let paths = paths_in(&below).ok()?;
        model_among(&paths).ok()?
    });
    if let Some(file) = below {
        let name = file.strip_prefix(folder).unwrap_or(&file).display();
        return match what_is(&file) {
            Some(what) => format!("there is no model file in it, and {name} is {what}"),
            None => format!(
                "there is no model file in it, but {name} below it; name {} instead, or move the file, \
                 and what belongs to it, one folder up",
                file.parent().unwrap_or(folder).display()
            ),
        };
    }
    if let Some(package) = packages_in(folder).next() {
        let package = package.display();
        return format!("it is a folder of models; name a package in it, such as {package}");
    }
    let mut files: Vec<&PathBuf> = paths.iter().filter(|path| path.is_file()).collect();
    files.retain(|path| file_name(path) != MANIFEST);
    let more = if files.len() > NAMES_SHOWN {
        " and more"
    } else {
        ""
    };
    files.truncate(NAMES_SHOWN);
    let names: Vec<String> = files.iter().map(|path| file_name(path)).collect();
    let there = match names.as_slice() {
        [] => String::new(),
        names => format!(", only {}{more}", names.join(", ")),
    };
    let known = files.iter().find_map(|path| Some((path, what_is(path)?)));
    match known {
        Some((path, what)) => {
            format!(
                "there is no model file in it{there}; {} is {what}",
                file_name(path)
            )
        }
        None => format!(
            "there is no model file in it{there}; put one there as model.ubj, model.json or model.txt"
        ),
    }
}

/// What is said of a link that leads nowhere.
pub(crate) const DANGLING: &str =
    "a link to something that is not there; put back what it leads to, or remove it";

pub(crate) fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && path.try_exists().is_ok_and(|exists| !exists)
}

/// What a file is that holds no model that is read, and what to do with it; none where that cannot be
/// told. Only its two ends are read.
pub(crate) fn what_is(file: &Path) -> Option<&'static str> {
    if !file.is_file() {
        return None;
    }
    let mut opened = fs::File::open(file).ok()?;
    let mut bytes = Vec::new();
    (&opened).take(END_BYTES).read_to_end(&mut bytes).ok()?;
    let rest = opened.metadata().ok()?.len().saturating_sub(END_BYTES);
    if rest > 0 {
        let end = i64::try_from(rest.min(END_BYTES)).ok()?;
        opened.seek(SeekFrom::End(-end)).ok()?;
        opened.take(END_BYTES).read_to_end(&mut bytes).ok()?;
    }
    auspex_engine::name_other(&bytes)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_known = |extension: &str| known.iter().any(|k| extension.eq_ignore_ascii_case(k));
    !file_name(path).starts_with('.') && extension.is_some_and(is_known)
}

pub(crate) fn has_model_extension(path: &Path) -> bool {
    has_extension(path, &EXTENSIONS) || is_text_model(path)
}

/// Whether a file has an extension that models have elsewhere.
fn is_other_model(path: &Path) -> bool {
    has_extension(path, &OTHER_EXTENSIONS)
}

fn is_packed(path: &Path) -> bool {
    has_extension(path, &PACKED_EXTENSIONS)
}

/// Whether a file is meant to be a model, by its name.
pub(crate) fn may_be_model(path: &Path) -> bool {
    has_model_extension(path) || is_called_model(path) || is_other_model(path) || is_packed(path)
}

/// Whether a file belongs to the package in its folder; others may come, go and grow.
pub(crate) fn is_part(path: &Path) -> bool {
    let is_manifest = file_name(path) == MANIFEST;
    let is_model = has_model_extension(path) || is_called_model(path) || is_other_model(path);
    (is_manifest || is_model) && path.is_file()
}

fn has_stem_model(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "model")
}

/// Whether a file is called `model` and has another extension, such as `model.csv`.
fn is_called_model(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let is_left_out = NOT_MODELS.contains(&&*extension) || extension.ends_with('~');
    has_stem_model(path) && !is_left_out && !is_manifest_name(&file_name(path))
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// The model's name and version, from the folders that the package is in.
pub(crate) fn names(path: &Path) -> (String, String) {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let usable = |name: String| is_name(&name).then_some(name);
    if path.is_file() {
        let stem = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let model = stem.and_then(usable).unwrap_or_else(|| "model".into());
        return (model, "1".into());
    }
    let folder = usable(file_name(&path)).unwrap_or_else(|| "model".into());
    let is_version = folder
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    match path.parent().map(file_name).and_then(usable) {
        Some(parent) if is_version => (parent, folder),
        _ => (folder, "1".into()),
    }
}

#[cfg(test)]
mod tests;
