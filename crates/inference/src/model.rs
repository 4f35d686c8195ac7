//! Models with their versions, as they are served.

use std::sync::Arc;

use auspex_kernel::clock::Timestamp;
use prometheus_client::metrics::counter::Counter;

use crate::names::LATEST;
use crate::package::Package;

/// All models as they were at one moment. It never changes: another one takes its place.
#[derive(Debug, Default)]
pub struct Models {
    all: Vec<Arc<Model>>,
    /// Where the default model is among them, if it answers.
    default: Option<usize>,
    default_name: Option<String>,
}

impl Models {
    /// Models sorted by name, and the name of the default, which may be away.
    pub(crate) fn new(all: Vec<Arc<Model>>, default_name: Option<String>) -> Self {
        let is_default = |model: &Arc<Model>| {
            default_name.as_deref() == Some(model.name()) && model.latest().is_some()
        };
        Self {
            default: all.iter().position(is_default),
            all,
            default_name,
        }
    }

    /// All of them by name, also those of which no version could be loaded.
    pub fn all(&self) -> &[Arc<Model>] {
        &self.all
    }

    /// Those that answer.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.all.iter().filter(|model| model.latest().is_some())
    }

    /// The packages that cannot be loaded as they are on disk, with their models.
    pub(crate) fn failed(&self) -> impl Iterator<Item = (&Model, &PackageStatus)> {
        let packages = self.all.iter().flat_map(|model| {
            let packages = model.packages.iter();
            packages.map(|package| (&**model, package))
        });
        packages.filter(|(_, package)| package.state == State::Failed)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&Arc<Model>> {
        let index = self.all.binary_search_by(|model| model.name().cmp(name));
        index.ok().map(|index| &self.all[index])
    }

    /// The name of the model behind `POST /predict`, also while it does not answer.
    pub fn default_name(&self) -> Option<&str> {
        self.default_name.as_deref()
    }

    /// The model behind `POST /predict`, if it answers.
    pub fn default_model(&self) -> Option<&Arc<Model>> {
        self.default.map(|index| &self.all[index])
    }
}

/// A model with its versions.
#[derive(Debug)]
pub struct Model {
    name: String,
    versions: Vec<Arc<Version>>,
    packages: Vec<PackageStatus>,
}

/// What became of one of a model's packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackageStatus {
    pub(crate) version: String,
    pub(crate) state: State,
    /// Why it failed.
    pub(crate) reason: Option<String>,
    /// When what is served of it was loaded; `None` where nothing is.
    pub(crate) loaded_at: Option<Timestamp>,
}

/// How far a package on disk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is served as it is on disk.
    Ready,
    /// It is new or has changed and is not loaded yet.
    Loading,
    /// It could not be loaded as it is on disk.
    Failed,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Loading => "loading",
            Self::Failed => "failed",
        }
    }
}

/// One version of a model, ready to predict.
#[derive(Debug)]
pub struct Version {
    package: Package,
    /// Rows predicted.
    pub(crate) predictions: Counter,
    pub(crate) loaded_at: Timestamp,
}

impl Model {
    /// A model with the versions that answer and all its packages, the latest last.
    pub(crate) fn new(
        name: String,
        versions: Vec<Arc<Version>>,
        packages: Vec<PackageStatus>,
    ) -> Self {
        Self {
            name,
            versions,
            packages,
        }
    }

    /// What became of each of its packages, the latest version last.
    pub(crate) fn packages(&self) -> &[PackageStatus] {
        &self.packages
    }

    /// `Ready` if it answers.
    pub(crate) fn state(&self) -> State {
        let is_loading = |package: &PackageStatus| package.state == State::Loading;
        match self.latest() {
            Some(_) => State::Ready,
            None if self.packages.iter().any(is_loading) => State::Loading,
            None => State::Failed,
        }
    }

    /// Whether its latest version says that it is the default model.
    pub(crate) fn claims_default(&self) -> bool {
        let latest = self.latest();
        latest.is_some_and(|version| version.package().wants_default())
    }

    /// Its name in paths.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The versions that answer, the latest last.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// The version that `latest` means, if any could be loaded.
    pub fn latest(&self) -> Option<&Arc<Version>> {
        self.versions.last()
    }

    /// The version of that name; `latest` is one too.
    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.position(name).map(|index| &self.versions[index])
    }

    /// Whether there is a package of that version, be it one that could not be loaded; `latest` is
    /// a version of every model.
    pub(crate) fn has_package(&self, version: &str) -> bool {
        let is_it = |package: &PackageStatus| package.version == version;
        version == LATEST || self.packages.iter().any(is_it)
    }

    /// Which of its versions has that name.
    fn position(&self, name: &str) -> Option<usize> {
        if name == LATEST {
            return self.versions.len().checked_sub(1);
        }
        self.versions
            .iter()
            .position(|version| version.package.version() == name)
    }
}

impl Version {
    pub(crate) fn new(package: Package, predictions: Counter, loaded_at: Timestamp) -> Self {
        Self {
            package,
            predictions,
            loaded_at,
        }
    }

    /// What is served.
    pub fn package(&self) -> &Package {
        &self.package
    }
}

/// The model and version of a request. It keeps the model for as long as the request lasts, even if
/// it is replaced or removed in the meantime.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    model: Arc<Model>,
    /// Place among the model's versions.
    version: usize,
    /// Whether the caller has named the version already, outside the body.
    pinned: bool,
}

impl Target {
    /// The latest version, unless the body names another; `None` if no version answers.
    pub(crate) fn latest(model: Arc<Model>) -> Option<Self> {
        Some(Self {
            version: model.versions.len().checked_sub(1)?,
            model,
            pinned: false,
        })
    }

    /// The version of that name and no other; gives the model back if no such version answers.
    pub(crate) fn pinned(model: Arc<Model>, version: &str) -> Result<Self, Arc<Model>> {
        match model.position(version) {
            Some(version) => Ok(Self {
                model,
                version,
                pinned: true,
            }),
            None => Err(model),
        }
    }

    /// The model's name.
    pub(crate) fn model(&self) -> &str {
        self.model.name()
    }

    pub(crate) fn version(&self) -> &Version {
        &self.model.versions[self.version]
    }

    /// Turns to the version of that name, if the body may choose; says whether that is another.
    pub(crate) fn turn_to(&mut self, name: &str) -> bool {
        match self.model.position(name).filter(|_| !self.pinned) {
            Some(other) => std::mem::replace(&mut self.version, other) != other,
            None => false,
        }
    }

    /// Whether the body may choose that version, and it exists but could not be loaded.
    pub(crate) fn is_waiting_for(&self, name: &str) -> bool {
        !self.pinned && self.model.position(name).is_none() && self.model.has_package(name)
    }

    /// Whether that name means the version that is asked.
    pub(crate) fn is_asked(&self, name: &str) -> bool {
        self.model.position(name) == Some(self.version)
    }

    /// The names that a body may give for a version.
    pub(crate) fn names(&self) -> Vec<&str> {
        let last = self.model.versions.len() - 1;
        let allowed = match self.pinned {
            true => self.version..=self.version,
            false => 0..=last,
        };
        let versions = self.model.versions[allowed].iter();
        let mut names: Vec<&str> = versions.map(|v| v.package.version()).collect();
        if !self.pinned || self.version == last {
            names.push(LATEST);
        }
        names
    }
}
