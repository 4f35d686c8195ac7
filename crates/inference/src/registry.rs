//! Which packages exist: the folder `<models>/<model>/<version>/` and the names in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::files::{file_name, is_dangling, is_package, is_passed_over, names};
use crate::model::Model;
use crate::names::{self, compare_versions};
use crate::reads::Reads;
use crate::strays;

/// How long the file system may take to say what is in a folder.
pub(crate) const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// What is said of what does not answer.
pub(crate) const SILENT: &str = "the file system does not answer";
/// How many packages a folder may hold; each has metrics of its own.
const PACKAGES_MAX: usize = 1000;
/// Why the models could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The folder does not exist.
    #[error(
        "there is no models folder at {0}; make it, with a model as {0}/<model>/<version>/model.ubj, \
         or name another with --models"
    )]
    NoFolder(String),
    /// The folder cannot be read.
    #[error("the models folder {0} cannot be read: {1}")]
    Unreadable(String, std::io::Error),
    /// The folder holds more packages than are managed.
    #[error("the models folder {0} holds more than {PACKAGES_MAX} packages; remove old versions")]
    TooMany(String),
    /// The folder holds nothing, although models of it are served.
    #[error(
        "the models folder {0} holds no package any more; POST /v1/models/reload withdraws them all"
    )]
    Vanished(String),
    /// The library of ONNX Runtime cannot be loaded.
    #[error("inference.onnxruntime: {0}")]
    OnnxRuntime(String),
    /// The start is to be strict.
    #[error(
        "not all of the models folder {folder} can be served:{}\nmend it, or start without --strict \
         (inference.strict)", lines(.wrong)
    )]
    Strict {
        /// The folder.
        folder: String,
        /// What is not served, and why.
        wrong: Vec<String>,
    },
    /// The one package that was named cannot be used.
    #[error("no model can be served; {}", .0.join("; "))]
    NothingGood(Vec<String>),
}

/// Each on a line of its own, and no more than anybody reads.
fn lines(wrong: &[String]) -> String {
    const LINES_MAX: usize = 20;
    let mut text = String::new();
    for line in wrong.iter().take(LINES_MAX) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if let Some(more) = wrong.len().checked_sub(LINES_MAX + 1) {
        text.push_str(&format!(
            "\n  and {} more, see `auspex models check`",
            more + 1
        ));
    }
    text
}

/// What the models path is. It is decided at start, so that a stray file in a folder of models does
/// not turn it into a package later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `<model>/<version>/`, as many as there are.
    Folder,
    /// One package, or one model file.
    Package,
}

impl Layout {
    pub(crate) fn of(path: &Path) -> Self {
        match is_package(path) {
            true => Self::Package,
            false => Self::Folder,
        }
    }
}

/// A package on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) path: PathBuf,
    /// What is wrong with its name.
    pub(crate) problem: Option<String>,
}

/// What a models folder holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The packages. Those of one model stand together, oldest version first.
    pub(crate) places: Vec<Place>,
    /// Models whose folder cannot be read at the moment.
    pub(crate) unreadable: Vec<String>,
    /// What is skipped, and what to do about it.
    pub(crate) problems: Vec<String>,
}

/// Looks at the models path. Only its own errors count: a model whose folder cannot be read is
/// skipped, and one that has just gone is not there.
pub(crate) fn scan(path: &Path, layout: Layout, reads: &Reads) -> Result<Contents, InferenceError> {
    let shown = || path.display().to_string();
    let exists = reads.one(path, LOOK_TIMEOUT, Path::exists);
    match exists.ok_or_else(silence) {
        Ok(true) => {}
        Ok(false) => return Err(InferenceError::NoFolder(shown())),
        Err(error) => return Err(InferenceError::Unreadable(shown(), error)),
    }
    let mut contents = Contents::default();
    if layout == Layout::Package {
        let (model, version) = names(path);
        contents.places.push(Place {
            model,
            version,
            path: path.to_owned(),
            problem: None,
        });
        return Ok(contents);
    }
    let top = reads
        .one(path, LOOK_TIMEOUT, names_in)
        .unwrap_or_else(no_answer);
    let top = top.map_err(|error| InferenceError::Unreadable(shown(), error))?;
    let (names, paths): (Vec<String>, Vec<PathBuf>) = top.into_iter().unzip();
    for (name, found) in names
        .into_iter()
        .zip(reads.each(&paths, LOOK_TIMEOUT, list))
    {
        match found.unwrap_or_else(no_answer) {
            Ok(Found::Folder(listing)) => contents.add(&name, listing),
            Ok(Found::Stray(problem)) => contents.problems.push(problem),
            Ok(Found::Nothing) => {}
            Ok(Found::Dangling) => {
                contents.problems.push(strays::dangling(&name));
                contents.unreadable.push(name);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                contents.problems.push(strays::unreadable(&name, &error));
                contents.unreadable.push(name);
            }
        }
    }
    contents.problems = strays::bounded(contents.problems);
    if contents.places.len() > PACKAGES_MAX {
        return Err(InferenceError::TooMany(shown()));
    }
    Ok(contents)
}

impl Contents {
    fn add(&mut self, model: &str, listing: Listing) {
        let mut versions = listing.folders;
        versions.sort_by(|(a, _), (b, _)| compare_versions(a, b));
        self.places
            .extend(versions.into_iter().map(|(version, path)| {
                let problem = names::problem(model, &version);
                Place {
                    model: model.to_owned(),
                    version,
                    path,
                    problem,
                }
            }));
        self.problems.extend(listing.problems);
    }
}

/// What is in the models folder under a name.
enum Found {
    /// The folder of a model.
    Folder(Listing),
    /// A file that should be elsewhere, as its problem.
    Stray(String),
    /// A link to nothing.
    Dangling,
    /// A file that is none of a model's.
    Nothing,
}

/// What the folder of a model holds.
#[derive(Default)]
struct Listing {
    folders: Vec<(String, PathBuf)>,
    problems: Vec<String>,
}

/// The names in a folder with their paths, sorted. Hidden ones are there too.
fn names_in(folder: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.push((name, entry.path()));
    }
    names.sort();
    Ok(names)
}

fn list(path: &Path) -> io::Result<Found> {
    let name = file_name(path);
    if is_passed_over(&name) {
        return Ok(Found::Nothing);
    }
    let is_stray = strays::is_stray(path, &name);
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => list_model(path, &name).map(Found::Folder),
        Ok(_) if is_stray => Ok(Found::Stray(strays::at_top(path, &name))),
        Ok(_) => Ok(Found::Nothing),
        Err(_) if is_dangling(path) && is_stray => Ok(Found::Stray(strays::at_top(path, &name))),
        Err(_) if is_dangling(path) => Ok(Found::Dangling),
        Err(error) => Err(error),
    }
}

fn list_model(path: &Path, model: &str) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let (mut files, mut is_prepared) = (Vec::new(), false);
    for (name, path) in names_in(path)? {
        let meta = fs::metadata(&path);
        if is_passed_over(&name) {
            is_prepared |= name.starts_with('.') && meta.is_ok_and(|meta| meta.is_dir());
            continue;
        }
        let is_file = match meta {
            Ok(meta) => !meta.is_dir(),
            Err(_) if is_dangling(&path) => strays::is_stray(&path, &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Reading it tells what is wrong with it.
            Err(_) => false,
        };
        match is_file {
            true => files.push((name, path)),
            false => listing.folders.push((name, path)),
        }
    }
    let numbers = listing
        .folders
        .iter()
        .filter_map(|(name, _)| name.parse::<u64>().ok());
    let next = numbers.max().unwrap_or_default().saturating_add(1);
    files.retain(|(name, path)| strays::is_stray(path, name));
    if files.is_empty() && listing.folders.is_empty() && !is_prepared {
        listing.problems.push(strays::without_version(model));
    }
    let problem =
        |(name, path): &(String, PathBuf)| strays::beside_versions(path, model, name, next);
    listing.problems.extend(files.iter().map(problem));
    Ok(listing)
}

/// The error of a read that does not return.
fn silence() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, SILENT)
}

fn no_answer<T>() -> io::Result<T> {
    Err(silence())
}

/// The name of the model that `POST /predict` asks, whether it answers at the moment or not: the
/// configured one, else the one whose latest version claims it, else the one that was it before,
/// else the only one, else none. Several claims count as none until all but one are withdrawn.
pub(crate) fn default_model(
    models: &[Arc<Model>],
    configured: &str,
    before: Option<&str>,
) -> Option<String> {
    if !configured.is_empty() {
        return Some(configured.to_owned());
    }
    let mut ready = models.iter().filter(|model| model.latest().is_some());
    let mut claiming = models.iter().filter(|model| model.claims_default());
    let default = match (claiming.next(), claiming.next(), before) {
        (Some(one), None, _) => Some(one.name()),
        (_, _, Some(before)) => Some(before),
        (Some(_), Some(_), None) => None,
        (None, ..) => match (ready.next(), ready.next()) {
            (Some(only), None) => Some(only.name()),
            _ => None,
        },
    };
    default.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let empty = scan(folder.path(), Layout::Folder, &Reads::default()).expect("there");
        assert!(empty.places.is_empty());
        let error = scan(
            &folder.path().join("gone"),
            Layout::Folder,
            &Reads::default(),
        )
        .expect_err("not there")
        .to_string();
        assert!(error.contains("make it"), "{error}");
    }

    #[test]
    fn names_that_cannot_be_part_of_a_path_are_problems() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for path in ["m/latest", "m/2", "reload/1", "a b/1", ".git/objects"] {
            fs::create_dir_all(folder.path().join(path)).expect("a folder");
        }
        let contents = scan(folder.path(), Layout::Folder, &Reads::default()).expect("readable");
        let found: Vec<(&str, &str, bool)> = contents
            .places
            .iter()
            .map(|p| (&*p.model, &*p.version, p.problem.is_some()))
            .collect();
        assert_eq!(
            found,
            [
                ("a b", "1", true),
                ("m", "latest", true),
                ("m", "2", false),
                ("reload", "1", true),
            ]
        );
    }
}
