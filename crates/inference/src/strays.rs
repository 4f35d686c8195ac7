//! What lies in the models folder and is no package: what is said of it, and what to do.

use std::path::Path;

use auspex_kernel::error::shown;

use crate::files::{DANGLING, MANIFEST, is_dangling, is_manifest_name, may_be_model, what_is};
use crate::names::{is_name, is_version};

/// How many are named; whatever made more of them is seen in these.
const NAMED_MAX: usize = 50;

/// Whether a file is meant to be part of a package, by its name. Others are nobody's business here.
pub(crate) fn is_stray(path: &Path, name: &str) -> bool {
    may_be_model(path) || is_manifest_name(name)
}

/// Whether there is one in a folder.
pub(crate) fn are_in(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| {
        let path = entry.path();
        path.is_file() && is_stray(&path, &entry.file_name().to_string_lossy())
    })
}

/// A file in the models folder itself.
pub(crate) fn at_top(path: &Path, name: &str) -> String {
    let stem = name.split('.').next().unwrap_or_default();
    let model = match is_name(stem) && !is_manifest_name(name) && stem != "model" {
        true => format!("{stem}/1"),
        false => "<model>/<version>".to_owned(),
    };
    misplaced(path, &shown(name), &model, name)
}

/// A file in the folder of a model, beside its versions; `next` is a version that it has not.
pub(crate) fn beside_versions(path: &Path, model: &str, name: &str, next: u64) -> String {
    let text = misplaced(
        path,
        &format!("{}/{}", shown(model), shown(name)),
        &format!("{}/{next}", shown(model)),
        name,
    );
    match is_version(model) && !is_manifest_name(name) {
        true => format!("{text}; if the models folder is that of one model, name the one above it"),
        false => text,
    }
}

fn misplaced(path: &Path, place: &str, package: &str, name: &str) -> String {
    if is_dangling(path) {
        return format!("{place} is {DANGLING}");
    }
    if is_manifest_name(name) {
        return format!(
            "{place} is not in the folder of a version; move it to {package}/{MANIFEST}, beside its \
             model"
        );
    }
    match what_is(path) {
        Some(what) => format!("{place} is not in the folder of a version, and it is {what}"),
        None => format!(
            "{place} is not in the folder of a version; move it to {package}/{}, or \
             remove it",
            shown(name)
        ),
    }
}

/// The folder of a model without any version.
pub(crate) fn without_version(model: &str) -> String {
    let model = shown(model);
    format!("{model} holds no version; put a model there as {model}/1/model.ubj, or remove it")
}

/// A model that is a link to nothing.
pub(crate) fn dangling(model: &str) -> String {
    let model = shown(model);
    format!("{model} is {DANGLING}; what was loaded of it is served on")
}

/// A model whose folder cannot be read.
pub(crate) fn unreadable(model: &str, error: &std::io::Error) -> String {
    format!(
        "the folder of {:?} cannot be read: {error}; what was loaded of it is served on",
        shown(model)
    )
}

/// No more of them than anybody reads.
pub(crate) fn bounded(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > NAMED_MAX {
        problems.truncate(NAMED_MAX);
        problems.push("and more; `auspex models check` names them once these are gone".into());
    }
    problems
}
