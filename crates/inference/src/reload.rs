//! Models that come and go while the server runs.
//!
//! A look at the models folder compares every package with how it was at the look before. One that
//! is new or changed, and of which no file has changed for a while, is loaded beside what is served,
//! checked with its examples, and swapped in. A package that cannot be loaded never goes live: its
//! last good version serves on, and the reason is in the log, in the list of models and in a
//! metric. Requests in flight keep the version they began with, which is dropped when the last of
//! them ends.
//!
//! Looking means polling, because file events do not cross network mounts and do not say when a
//! copy is complete. `POST /v1/models/reload` looks at once and only makes sure that nothing is being
//! written at this moment.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use auspex_kernel::service::{NotPublished, Publisher, StopSignal};

use crate::catalogue::{Catalogue, Entry};
use crate::fingerprint::Fingerprint;
use crate::model::{Model, Models, PackageStatus, State, Version};
use crate::names::compare_versions;
use crate::package::Package;
use crate::registry::{self, Contents, InferenceError, LOOK_TIMEOUT, Place, SILENT};
use crate::{Inference, version_labels};

/// How long a package must stay unchanged where someone says that it is complete. The setting for
/// all other cases may ask for less.
const MOMENT: Duration = Duration::from_millis(200);

/// What is required of a package before it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It must have been the same for a while, so that a copy in progress is left alone.
    Watching,
    /// The caller says that it is complete: it must stay the same for a moment. What failed is
    /// tried again.
    Now,
    /// Nothing: no version served would be replaced by it.
    Start,
}

/// What a look changed, and what is wrong after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) added: Vec<Name>,
    pub(crate) replaced: Vec<Name>,
    pub(crate) removed: Vec<Name>,
    /// Packages that look as if they were still being written.
    pub(crate) loading: Vec<Name>,
    /// Packages that could not be loaded, with the reason.
    pub(crate) failed: Vec<(Name, String)>,
}

/// What the last look found wrong with the models folder itself.
#[derive(Debug)]
pub(crate) struct FolderState {
    /// Whether it could be read, and held a package if one is served.
    pub(crate) is_readable: bool,
    /// Whether the folder of a model in it could not.
    pub(crate) has_unreadable: bool,
    /// What is skipped in it, and what to do about it.
    pub(crate) problems: Vec<String>,
}

/// A model and a version.
pub(crate) type Name = (String, String);

impl Changes {
    /// Whether what is served is the same as before.
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.replaced.is_empty() && self.removed.is_empty()
    }
}

/// Why a look did not end with what is on disk being served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    /// The folder cannot be looked at. What was served still is.
    #[error(transparent)]
    Folder(#[from] InferenceError),
    /// The models are served, but the document does not show them yet.
    #[error(transparent)]
    Document(#[from] NotPublished),
}

impl Inference {
    /// Looks at the models folder and serves what is there now. Of several calls with
    /// [`Look::Now`] that wait for each other, one looks for all.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        look: Look,
        publisher: &Publisher,
    ) -> Result<Changes, RefreshError> {
        let before = self.looks.load(Ordering::SeqCst);
        let mut catalogue = Arc::clone(&self.catalogue).lock_owned().await;
        if look == Look::Now
            && let Some((number, changes)) = &catalogue.asked
            && *number > before
        {
            return Ok(changes.clone());
        }
        let inference = Arc::clone(self);
        let looking = tokio::task::spawn_blocking(move || {
            let changes = inference.look(&mut catalogue, look);
            (catalogue, changes)
        });
        let (mut catalogue, changes) = looking.await.expect("loaders that panic are caught");
        let changes = changes?;
        catalogue.is_unpublished |= !changes.is_empty();
        if catalogue.is_unpublished {
            publisher.publish().await?;
            catalogue.is_unpublished = false;
        }
        if look == Look::Now {
            catalogue.asked = Some((self.looks.load(Ordering::SeqCst), changes.clone()));
        }
        Ok(changes)
    }

    /// Looks again and again until a stop is requested.
    pub(crate) async fn watch(self: Arc<Self>, publisher: Publisher, mut stop: StopSignal) {
        let interval = Duration::from_millis(self.config.watch_interval_ms);
        if interval.is_zero() {
            return;
        }
        loop {
            tokio::select! {
                () = stop.stop_requested() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let error = self.refresh(Look::Watching, &publisher).await.err();
            let error = error.map(|error| error.to_string());
            let mut catalogue = self.catalogue.lock().await;
            if error != catalogue.last_error {
                match &error {
                    Some(error) => {
                        tracing::error!(%error, "models are not up to date; those loaded are served on")
                    }
                    None => tracing::info!("models are up to date again"),
                }
                catalogue.last_error = error;
            }
        }
    }

    /// One look: loads what is due and publishes a snapshot after each package, so that none waits
    /// for another. Blocks.
    pub(crate) fn look(
        &self,
        catalogue: &mut Catalogue,
        look: Look,
    ) -> Result<Changes, InferenceError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let contents = self.scan(catalogue, look)?;
        let mut changes = Changes::default();
        let before = self.models();
        let default = before.default_name();
        let due = self.compare(catalogue, contents, look, &mut changes);
        // Shows what is about to be loaded, and withdraws what has gone.
        self.publish(&catalogue.entries, default);
        if look == Look::Now && !due.is_empty() {
            // What changes in the meantime is noticed after it was loaded, and does not count.
            let quiet = Duration::from_millis(self.config.watch_quiet_ms);
            thread::sleep(MOMENT.min(quiet));
        }
        for index in 0..catalogue.entries.len() {
            if due.contains(&catalogue.entries[index].name()) {
                self.load_entry(catalogue, index, &mut changes);
                self.publish(&catalogue.entries, default);
            }
        }
        self.log_default(catalogue, default);
        for entry in &catalogue.entries {
            if entry.is_pending() {
                changes.loading.push(entry.name());
            } else if let Some(reason) = &entry.failure {
                changes.failed.push((entry.name(), reason.clone()));
            }
        }
        Ok(changes)
    }

    /// What the models folder holds. That nothing is left of what is served is more likely a
    /// mistake, such as a mount that is missing, than a wish.
    fn scan(&self, catalogue: &Catalogue, look: Look) -> Result<Contents, InferenceError> {
        let mut contents = registry::scan(&self.config.models, self.layout, &self.reads);
        let is_serving = catalogue.entries.iter().any(|entry| entry.served.is_some());
        if look == Look::Watching
            && is_serving
            && contents.as_ref().is_ok_and(|c| c.places.is_empty())
        {
            let folder = self.config.models.display().to_string();
            contents = Err(InferenceError::Vanished(folder));
        }
        let is_readable = contents.is_ok();
        self.metrics.folder_readable.set(is_readable.into());
        let before = self.folder.load();
        let problems = match &contents {
            Ok(contents) => contents.problems.clone(),
            Err(_) => before.problems.clone(),
        };
        for problem in &problems {
            if !before.problems.contains(problem) {
                tracing::warn!(problem, "part of the models folder is skipped");
            }
        }
        let has_unreadable = contents.as_ref().is_ok_and(|c| !c.unreadable.is_empty());
        self.folder.store(Arc::new(FolderState {
            is_readable,
            has_unreadable,
            problems,
        }));
        contents
    }

    /// Brings the entries in line with the packages on disk; returns those that are to be loaded.
    fn compare(
        &self,
        catalogue: &mut Catalogue,
        contents: Contents,
        look: Look,
        changes: &mut Changes,
    ) -> HashSet<Name> {
        let known = std::mem::take(&mut catalogue.entries);
        let mut known: HashMap<Name, Entry> = known
            .into_iter()
            .map(|entry| (entry.name(), entry))
            .collect();
        let quiet = Duration::from_millis(self.config.watch_quiet_ms);
        let now = self.clock.steady();
        let mut due = HashSet::new();
        let paths: Vec<_> = contents
            .places
            .iter()
            .map(|place| place.path.clone())
            .collect();
        let fingerprints = self.reads.each(&paths, LOOK_TIMEOUT, Fingerprint::of);
        for (place, fingerprint) in contents.places.into_iter().zip(fingerprints) {
            let name = (place.model.clone(), place.version.clone());
            let mut entry = match known.remove(&name) {
                Some(entry) => Entry { place, ..entry },
                None => Entry::new(place),
            };
            let Some(fingerprint) = fingerprint else {
                self.refuse(&mut entry, SILENT.into());
                catalogue.entries.push(entry);
                continue;
            };
            entry.forgive_silence();
            let unchanged = entry.observe(fingerprint, now);
            let is_due = match look {
                Look::Watching => entry.is_pending() && unchanged.is_some_and(|time| time >= quiet),
                Look::Now | Look::Start => entry.is_pending() || entry.failure.is_some(),
            };
            if is_due {
                due.insert(name);
            }
            catalogue.entries.push(entry);
        }
        for (name, mut entry) in known {
            if contents.unreadable.contains(&name.0) {
                catalogue.entries.push(entry);
                continue;
            }
            if look == Look::Watching && !entry.is_absent {
                // It may be on its way back under the same name.
                entry.is_absent = true;
                catalogue.entries.push(entry);
                continue;
            }
            self.forget_metrics(&name);
            if entry.served.is_some() {
                tracing::info!(model = name.0, version = name.1, "model removed");
                changes.removed.push(name);
            }
        }
        changes.removed.sort();
        catalogue.entries.sort_by(|a, b| {
            let by_model = a.place.model.cmp(&b.place.model);
            by_model.then_with(|| compare_versions(&a.place.version, &b.place.version))
        });
        due
    }

    /// Loads one package beside what is served, and serves it if it is good.
    fn load_entry(&self, catalogue: &mut Catalogue, index: usize, changes: &mut Changes) {
        let entry = &mut catalogue.entries[index];
        let (place, limit) = (entry.place.clone(), self.config.read_timeout_ms);
        let for_explanations = self.config.explanation_bytes_max;
        let read = move |path: &Path| (load_place(&place, for_explanations), Fingerprint::of(path));
        let path = entry.place.path.clone();
        let read = self.reads.one(&path, Duration::from_millis(limit), read);
        let Some((loaded, after)) = read else {
            self.refuse(entry, SILENT.into());
            return;
        };
        let name = entry.name();
        if entry.seen.as_ref() != Some(&after) {
            // It was written to while it was read: whatever was read is not it.
            catalogue.entries[index].observe(after, self.clock.steady());
            return;
        }
        let entry = &mut catalogue.entries[index];
        entry.tried = Some(after.parts());
        let labels = version_labels(&name.0, &name.1);
        match loaded {
            Ok(package) => {
                if let Some(caution) = package.engine().caution() {
                    tracing::warn!(model = name.0, version = name.1, "{caution}");
                }
                let counter = self.metrics.predictions.get_or_create_owned(&labels);
                let version = Version::new(package, counter, self.clock.now());
                self.metrics.failed.remove(&labels);
                self.metrics.loaded.inc();
                entry.failure = None;
                let list = match entry.served.replace(Arc::new(version)) {
                    Some(_) => &mut changes.replaced,
                    None => &mut changes.added,
                };
                tracing::info!(model = name.0, version = name.1, "model loaded");
                list.push(name);
            }
            Err(reason) => self.refuse(entry, reason),
        }
    }

    /// Records why a package cannot be loaded; its last good version serves on.
    fn refuse(&self, entry: &mut Entry, reason: String) {
        if entry.failure.as_deref() == Some(SILENT) && reason == SILENT {
            return;
        }
        let (model, version) = entry.name();
        let labels = version_labels(&model, &version);
        self.metrics.failed.get_or_create(&labels).set(1);
        self.metrics.refused.inc();
        let is_served = entry.served.is_some();
        tracing::error!(
            model,
            version,
            reason,
            is_served,
            "model package refused; fix or remove it"
        );
        entry.failure = Some(reason);
    }

    /// Logs which model is the default now, and whether it is unclear, when that has changed.
    fn log_default(&self, catalogue: &mut Catalogue, before: Option<&str>) {
        let models = self.models();
        let now = models.default_name();
        if now != before {
            tracing::info!(from = before, to = now, "default model changed");
        }
        let rivals = self.rivals(&models);
        if rivals != catalogue.rivals && !rivals.is_empty() {
            let models = rivals.join(", ");
            tracing::warn!(
                models,
                default = now,
                "several models say default = true; let one say it, or set [inference] default_model"
            );
        }
        catalogue.rivals = rivals;
    }

    /// The models that claim to be the default, if they are several and nothing is configured.
    pub(crate) fn rivals(&self, models: &Models) -> Vec<String> {
        let claiming = models.ready().filter(|model| model.claims_default());
        let rivals: Vec<String> = claiming.map(|model| model.name().to_owned()).collect();
        match rivals.len() > 1 && self.config.default_model.is_empty() {
            true => rivals,
            false => Vec::new(),
        }
    }

    fn forget_metrics(&self, (model, version): &Name) {
        let labels = version_labels(model, version);
        self.metrics.predictions.remove(&labels);
        self.metrics.failed.remove(&labels);
    }

    /// Serves what the entries have. `default` is the model behind `POST /predict` so far.
    pub(crate) fn publish(&self, entries: &[Entry], default: Option<&str>) {
        let groups = entries.chunk_by(|a, b| a.place.model == b.place.model);
        let models: Vec<Arc<Model>> = groups.map(model_of).map(Arc::new).collect();
        let default = registry::default_model(&models, &self.config.default_model, default);
        self.models.store(Arc::new(Models::new(models, default)));
    }
}

/// The model of some entries, of which there is at least one.
fn model_of(entries: &[Entry]) -> Model {
    let status = |entry: &Entry| PackageStatus {
        version: entry.place.version.clone(),
        state: match &entry.failure {
            _ if entry.is_pending() => State::Loading,
            Some(_) => State::Failed,
            None => State::Ready,
        },
        reason: entry.failure.clone(),
        loaded_at: entry.served.as_ref().map(|version| version.loaded_at),
    };
    let versions = entries.iter().filter_map(|entry| entry.served.clone());
    let name = entries[0].place.model.clone();
    Model::new(
        name,
        versions.collect(),
        entries.iter().map(status).collect(),
    )
}

/// Loads a package with what explanations need, if that is not more memory than this; a loader that
/// panics refuses it.
pub(crate) fn load_place(place: &Place, explanation_bytes_max: usize) -> Result<Package, String> {
    if let Some(problem) = &place.problem {
        return Err(problem.clone());
    }
    let Place {
        path,
        model,
        version,
        ..
    } = place;
    let load = || Package::load_as(path, model, version, explanation_bytes_max);
    match catch_unwind(AssertUnwindSafe(load)) {
        Ok(loaded) => loaded.map_err(|error| error.reason().to_owned()),
        Err(_) => {
            Err("loading it failed inside the program, which is a bug; please report it".into())
        }
    }
}
