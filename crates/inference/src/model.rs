//! Models with their versions, as they are served.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;

use crate::package::Package;
use crate::registry::LATEST;

/// A model with its versions.
#[derive(Debug)]
pub struct Model {
    name: String,
    versions: Vec<Arc<Version>>,
}

/// One version of a model, ready to predict.
#[derive(Debug)]
pub struct Version {
    package: Package,
    /// Rows predicted.
    pub(crate) predictions: Counter,
}

impl Model {
    /// A model from its versions, of which there is at least one, the latest last.
    pub(crate) fn new(name: String, versions: Vec<Arc<Version>>) -> Self {
        Self { name, versions }
    }

    /// Its name in paths.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its versions, the latest last.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// The version that `latest` means.
    pub fn latest(&self) -> &Arc<Version> {
        self.versions
            .last()
            .expect("a model is made from its first version")
    }

    /// The version of that name; `latest` is one too.
    pub fn version(&self, name: &str) -> Option<&Arc<Version>> {
        self.position(name).map(|index| &self.versions[index])
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
    pub(crate) fn new(package: Package, predictions: Counter) -> Self {
        Self {
            package,
            predictions,
        }
    }

    /// What is served.
    pub fn package(&self) -> &Package {
        &self.package
    }
}

/// What a request asks. It keeps the model for as long as the request lasts, whatever is loaded
/// or removed meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    model: Arc<Model>,
    /// Place among the model's versions.
    version: usize,
    /// Whether the caller has named the version already, outside the body.
    pinned: bool,
}

impl Target {
    /// The latest version, unless the body names another.
    pub(crate) fn latest(model: Arc<Model>) -> Self {
        Self {
            version: model.versions.len() - 1,
            model,
            pinned: false,
        }
    }

    /// The version of that name and no other, if there is one.
    pub(crate) fn pinned(model: Arc<Model>, version: &str) -> Option<Self> {
        let version = model.position(version)?;
        Some(Self {
            model,
            version,
            pinned: true,
        })
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
