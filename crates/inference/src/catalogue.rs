//! What is known of each package on disk, from one look at the models folder to the next.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::Steady;

use crate::fingerprint::{Fingerprint, Parts};
use crate::model::Version;
use crate::registry::{Place, SILENT};
use crate::reload::{Changes, Name};

/// All of them, in the order of models and versions.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) entries: Vec<Entry>,
    /// The last look that was asked for, by its number.
    pub(crate) asked: Option<(u64, Changes)>,
    /// Whether the document does not show yet what is served.
    pub(crate) is_unpublished: bool,
    /// What was wrong at the last look, so that it is logged once.
    pub(crate) last_error: Option<String>,
    /// The models that claimed to be the default at the last look, where they were several.
    pub(crate) rivals: Vec<String>,
}

/// A package on disk and what became of it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    /// How it looked at the last look.
    pub(crate) seen: Option<Fingerprint>,
    /// When it was first seen to look so.
    pub(crate) unchanged_since: Steady,
    /// What was last loaded, with or without success.
    pub(crate) tried: Option<Parts>,
    /// Its last good version.
    pub(crate) served: Option<Arc<Version>>,
    /// Why the last attempt to load it failed.
    pub(crate) failure: Option<String>,
    /// Whether it was not there at the last look.
    pub(crate) is_absent: bool,
}

impl Entry {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            seen: None,
            unchanged_since: Steady::default(),
            tried: None,
            served: None,
            failure: None,
            is_absent: false,
        }
    }

    /// An entry that is served already.
    #[cfg(test)]
    pub(crate) fn served(place: Place, version: Arc<Version>) -> Self {
        Self {
            served: Some(version),
            ..Self::new(place)
        }
    }

    /// Records how the package looks now; returns for how long it has looked so, if it is not for
    /// the first time.
    pub(crate) fn observe(&mut self, fingerprint: Fingerprint, now: Steady) -> Option<Duration> {
        self.is_absent = false;
        if self.seen.as_ref() == Some(&fingerprint) {
            return Some(now.since(self.unchanged_since));
        }
        self.seen = Some(fingerprint);
        self.unchanged_since = now;
        None
    }

    /// What did not answer and now does is loaded again.
    pub(crate) fn forgive_silence(&mut self) {
        if self.failure.as_deref() == Some(SILENT) {
            self.failure = None;
            self.tried = None;
        }
    }

    /// Whether it has changed since it was last loaded.
    pub(crate) fn is_pending(&self) -> bool {
        self.tried != self.seen.as_ref().map(Fingerprint::parts)
    }

    pub(crate) fn name(&self) -> Name {
        (self.place.model.clone(), self.place.version.clone())
    }
}
