//! A models folder as a command looks at it: all that is in it, without serving anything.

use std::path::{Path, PathBuf};

use crate::files::{file_name, folders_in, holds_packages, is_package};
use crate::names::is_version;
use crate::package::Package;
use crate::reads::Reads;
use crate::registry::{Contents, InferenceError, Layout, scan};
use crate::reload::load_place;
use crate::strays;

/// The packages of a models folder, and what is in it that is not served.
#[derive(Debug)]
pub struct ModelsFolder {
    contents: Contents,
    /// The models folder, where only the folder of one model was looked at.
    above: Option<PathBuf>,
}

impl ModelsFolder {
    /// Looks at a folder of models, or at that of one model; `None` if the path is itself a package, or
    /// is meant to be one.
    ///
    /// # Errors
    /// If there is no such folder, or it cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>, InferenceError> {
        if Layout::of(path) == Layout::Package {
            return Ok(None);
        }
        let reads = Reads::default();
        if let Some((models, model)) = folder_of_model(path) {
            let mut contents = scan(&models, Layout::Folder, &reads)?;
            let inside = format!("{model}/");
            contents.places.retain(|place| place.model == model);
            contents.problems.retain(|text| text.starts_with(&inside));
            let above = Some(models);
            return Ok(Some(Self { contents, above }));
        }
        let contents = scan(path, Layout::Folder, &reads)?;
        if contents.places.is_empty() && (strays::are_in(path) || folders_in(path).is_empty()) {
            return Ok(None);
        }
        let above = None;
        Ok(Some(Self { contents, above }))
    }

    /// Loads the packages one after the other: model, version, and the package or why it is refused.
    pub fn packages(
        &self,
        explanation_bytes_max: usize,
    ) -> impl Iterator<Item = (&str, &str, Result<Package, String>)> {
        let places = self.contents.places.iter();
        let load = move |place| load_place(place, explanation_bytes_max);
        places.map(move |place| (&*place.model, &*place.version, load(place)))
    }

    /// What is in it that is not served, each with what to do.
    pub fn problems(&self) -> &[String] {
        &self.contents.problems
    }

    /// The folder to serve, where it is the one above: the folder of one model is none of models.
    pub fn above(&self) -> Option<&Path> {
        self.above.as_deref()
    }
}

/// The models folder and the name of the model, if a path is the folder of one model.
fn folder_of_model(path: &Path) -> Option<(PathBuf, String)> {
    let is_version_here = |folder: &PathBuf| is_version(&file_name(folder)) && is_package(folder);
    if holds_packages(path) || !folders_in(path).iter().any(is_version_here) {
        return None;
    }
    let path = std::fs::canonicalize(path).ok()?;
    Some((path.parent()?.to_owned(), file_name(&path)))
}
