//! The files of a package: which they are, and what its folders call the model.

use std::fs;
use std::path::{Path, PathBuf};

use crate::names::is_name;

/// The file next to the model.
pub(crate) const MANIFEST: &str = "model.toml";
/// Extensions of files that may be models.
const EXTENSIONS: [&str; 2] = ["ubj", "json"];
/// Extensions of files that are no models although they are called `model`.
const NOT_MODELS: [&str; 8] = ["bak", "log", "md", "old", "part", "partial", "swp", "tmp"];

/// Whether a folder is a package itself rather than a folder of packages.
pub(crate) fn is_package(path: &Path) -> bool {
    path.is_file()
        || path.join(MANIFEST).is_file()
        || model_file(path).is_ok_and(|file| has_model_extension(&file))
}

/// A file that is meant to be the manifest, in a folder without one.
pub(crate) fn misnamed_manifest(folder: &Path) -> Option<String> {
    let is_meant = |name: &String| {
        let lower = name.to_lowercase();
        let (stem, extension) = lower.rsplit_once('.').unwrap_or_default();
        matches!(stem, "model" | "models" | "manifest")
            && matches!(extension, "toml" | "yaml" | "yml")
    };
    if folder.join(MANIFEST).exists() {
        return None;
    }
    let entries = fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| Some(file_name(&entry.ok()?.path())));
    names.filter(is_meant).min()
}

/// The one model file in a folder: `model.*`, or else the only file that may be one.
pub(crate) fn model_file(folder: &Path) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let all: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
    let mut files: Vec<PathBuf> = all
        .iter()
        .filter(|path| has_model_extension(path))
        .cloned()
        .collect();
    if files.is_empty() {
        // Loading it says what it is.
        files = all
            .into_iter()
            .filter(|path| is_other_model(path))
            .collect();
    }
    files.sort();
    let is_called_model = |path: &&PathBuf| path.file_stem().is_some_and(|stem| stem == "model");
    if files.iter().any(|path| is_called_model(&path)) {
        files.retain(|path| is_called_model(&path));
    }
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "there is no model file in it; put one there as model.{}",
            EXTENSIONS.join(" or model.")
        )),
        [first, second, ..] => Err(format!(
            "there is more than one model file in it ({} and {}); keep one",
            file_name(first),
            file_name(second)
        )),
    }
}

pub(crate) fn has_model_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let is_hidden = file_name(path).starts_with('.');
    !is_hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

/// Whether a file belongs to the package in its folder; others may come, go and grow.
pub(crate) fn is_part(path: &Path) -> bool {
    let is_manifest = file_name(path) == MANIFEST;
    (is_manifest || has_model_extension(path) || is_other_model(path)) && path.is_file()
}

/// Whether a file is called `model` and has another extension, such as `model.onnx`.
fn is_other_model(path: &Path) -> bool {
    let is_left_out = |extension: &str| extension == "toml" || NOT_MODELS.contains(&extension);
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.file_stem().is_some_and(|stem| stem == "model") && !is_left_out(&extension)
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
