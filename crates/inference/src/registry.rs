//! Which models there are: the folder `MODELS_DIR/<model>/<version>/` and the names in it.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use crate::package::{Package, PackageError, is_package};

/// The name that means the highest version.
pub(crate) const LATEST: &str = "latest";

/// Why the models could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The folder is not there.
    #[error(
        "there is no models folder at {0}; make it, with a model as {0}/<model>/<version>/model.ubj, \
         or name another with --models"
    )]
    NoFolder(String),
    /// The folder holds no model.
    #[error(
        "the models folder {0} holds no model; put one there as {0}/<model>/<version>/model.ubj"
    )]
    Empty(String),
    /// The folder cannot be read.
    #[error("the models folder {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// A folder has a name that cannot be part of a path.
    #[error(
        "{0}: a model's or version's name is 1 to 64 letters, digits, '.', '_' and '-', does not \
         begin with '.', and is not \"latest\""
    )]
    BadName(String),
    /// A package cannot be used.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Two packages claim the same place.
    #[error(
        "the models {0} and {1} both say default = true; remove one, or set [inference] \
         default_model"
    )]
    TwoDefaults(String, String),
    /// The configured default is not among the models.
    #[error("[inference] default_model is \"{0}\", which is not among the models: {1}")]
    UnknownDefault(String, String),
}

/// Whether a text can be a model's or a version's name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && !name.starts_with('.')
        && name != LATEST
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Versions order by their numbers (`2` before `10`, `1.9` before `1.10`), then by name.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.strip_prefix('v')
            .unwrap_or(text)
            .split('.')
            .map(|part| part.parse().ok())
            .collect()
    };
    match (numbers(a), numbers(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.cmp(b)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Loads everything under a models folder; or the one package it is itself. Packages of one model
/// stand together, oldest version first.
pub(crate) fn load_all(folder: &Path) -> Result<Vec<Package>, InferenceError> {
    let shown = || folder.display().to_string();
    if !folder.exists() {
        return Err(InferenceError::NoFolder(shown()));
    }
    if is_package(folder) {
        return Ok(vec![Package::load(folder)?]);
    }
    let mut packages = Vec::new();
    for (model, path) in subfolders(folder)? {
        let mut versions = subfolders(&path)?;
        versions.sort_by(|(a, _), (b, _)| compare_versions(a, b));
        for (version, path) in versions {
            packages.push(Package::load_as(&path, &model, &version)?);
        }
    }
    if packages.is_empty() {
        return Err(InferenceError::Empty(shown()));
    }
    Ok(packages)
}

/// Packages that stand together by their model, as groups.
pub(crate) fn by_model(packages: Vec<Package>) -> Vec<Vec<Package>> {
    let mut groups: Vec<Vec<Package>> = Vec::new();
    for package in packages {
        match groups.last_mut() {
            Some(group) if group[0].model() == package.model() => group.push(package),
            _ => groups.push(vec![package]),
        }
    }
    groups
}

/// The folders in a folder, sorted by name; hidden ones do not count.
fn subfolders(folder: &Path) -> Result<Vec<(String, PathBuf)>, InferenceError> {
    let unreadable = |error| InferenceError::Unreadable(folder.display().to_string(), error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !entry.path().is_dir() {
            continue;
        }
        if !is_name(&name) {
            return Err(InferenceError::BadName(entry.path().display().to_string()));
        }
        found.push((name, entry.path()));
    }
    found.sort();
    Ok(found)
}

/// Which model `POST /predict` asks: the configured one, else the one that wants it, else the only
/// one, else none.
pub(crate) fn default_model(
    packages: &[Package],
    configured: &str,
) -> Result<Option<String>, InferenceError> {
    let mut names: Vec<&str> = packages.iter().map(Package::model).collect();
    names.dedup();
    if !configured.is_empty() {
        return match names.contains(&configured) {
            true => Ok(Some(configured.to_owned())),
            false => Err(InferenceError::UnknownDefault(
                configured.to_owned(),
                names.join(", "),
            )),
        };
    }
    let mut wanting: Vec<&str> = packages
        .iter()
        .filter(|package| package.wants_default())
        .map(Package::model)
        .collect();
    wanting.dedup();
    match (wanting.as_slice(), names.as_slice()) {
        ([one], _) | ([], [one]) => Ok(Some((*one).to_owned())),
        ([first, second, ..], _) => Err(InferenceError::TwoDefaults(
            (*first).to_owned(),
            (*second).to_owned(),
        )),
        ([], _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number_then_by_name() {
        let mut versions = ["beta", "10", "2", "1.10", "1.9", "v3", "alpha"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["1.9", "1.10", "2", "v3", "10", "alpha", "beta"]);
    }

    #[test]
    fn names_fit_into_paths() {
        for good in ["santander", "1", "a.b_c-D", &"x".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".hidden", "latest", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn missing_and_empty_folders_say_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let error = load_all(folder.path())
            .expect_err("nothing there")
            .to_string();
        assert!(error.contains("holds no model; put one there"), "{error}");
        let error = load_all(&folder.path().join("gone"))
            .expect_err("not there")
            .to_string();
        assert!(error.contains("make it"), "{error}");
    }

    #[test]
    fn a_folder_with_a_bad_name_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("m/latest")).expect("a folder");
        fs::create_dir_all(folder.path().join(".git/objects")).expect("a folder");
        let error = load_all(folder.path()).expect_err("a bad name").to_string();
        assert!(
            error.contains("latest: a model's or version's name"),
            "{error}"
        );
    }
}
