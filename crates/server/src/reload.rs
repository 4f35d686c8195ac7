//! Settings that change while the server runs.
//!
//! The file that the settings were read from is looked at once a second, by its text, so that it does not matter how it
//! was replaced: in place, by a rename, or by a symbolic link that leads elsewhere. A text is judged when it was the same
//! at two looks, for it may still be being written; SIGHUP says that it is complete, and that files which it names may
//! have changed. All layers are read again and the whole is checked. What is wrong is refused whole, logged once, and
//! what was in force stays.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::Duration;

use auspex_kernel::Clock;
use auspex_kernel::config::{ConfigError, Reloads};
use auspex_kernel::looks::Looks;
use auspex_kernel::service::StopSignal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::services::Services;
use crate::settings::{self, Loaded, Overrides};

const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// What a look at the file showed.
type Found = Result<Option<String>, ConfigError>;

/// Watches the settings.
pub(crate) struct Reload {
    overrides: Overrides,
    services: Services,
    reloads: Reloads,
    clock: Clock,
    looks: Looks<Found>,
    /// Whether there has been a file. One that was never there cannot be gone.
    had_file: bool,
    /// What is in force, by section.
    in_force: toml::Table,
    hangups: Option<Signal>,
}

/// SIGHUP, from now on. None where it says that a terminal was closed, which is the end of the program.
///
/// # Errors
/// What the operating system says.
pub(crate) fn hangups() -> std::io::Result<Option<Signal>> {
    match std::io::stdin().is_terminal() {
        true => Ok(None),
        false => signal(SignalKind::hangup()).map(Some),
    }
}

impl Reload {
    /// Of settings that are in force.
    pub(crate) fn new(
        loaded: &Loaded,
        overrides: Overrides,
        services: Services,
        reloads: Reloads,
        hangups: Option<Signal>,
    ) -> Self {
        Self {
            overrides,
            services,
            reloads,
            clock: Clock::system(),
            looks: Looks::new(Ok(loaded.text.clone())),
            had_file: loaded.text.is_some(),
            in_force: loaded.layers.sections().clone(),
            hangups,
        }
    }

    /// Looks until a stop is requested.
    pub(crate) async fn watch(mut self, mut stop: StopSignal) {
        let mut pause = tokio::time::interval(LOOK_PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_complete = tokio::select! {
                () = stop.stop_requested() => return,
                _ = pause.tick() => false,
                () = next(&mut self.hangups) => true,
            };
            let overrides = self.overrides.clone();
            let reading = tokio::task::spawn_blocking(move || overrides.read());
            let Ok(found) = reading.await else { return };
            if self.looks.is_due(&found, is_complete) || is_complete {
                self.judge(found, is_complete).await;
            }
        }
    }

    async fn judge(&mut self, found: Found, is_asked_for: bool) {
        let now = self.clock.now();
        match self.take(found, is_asked_for).await {
            Ok(needs_restart) => {
                let known: BTreeSet<String> = self.reloads.needs_restart().into_iter().collect();
                for section in needs_restart.iter().filter(|name| !known.contains(*name)) {
                    tracing::warn!(
                        section,
                        "a changed section of the configuration is in force after a restart"
                    );
                }
                self.reloads.take(now, needs_restart);
            }
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the changed configuration is refused; that from before stays in force"
                );
                self.reloads.refuse(now, reason);
            }
        }
    }

    /// Brings into force what can be: what has changed, and if it is asked for the rest too, for the sake of the files that it
    /// names. Returns the sections that wait for a restart.
    ///
    /// # Errors
    /// What is wrong, for people.
    async fn take(&mut self, found: Found, is_asked_for: bool) -> Result<Vec<String>, String> {
        let said = |error: ConfigError| error.to_string();
        let text = found.map_err(said)?;
        self.had_file |= text.is_some();
        match &text {
            None if self.had_file => return Err("the file of the configuration is gone".to_owned()),
            // What a full disk or a copy that broke off leaves behind.
            Some(text) if text.trim().is_empty() && !is_asked_for => {
                return Err(
                    "the file of the configuration is empty; if that is meant, send SIGHUP"
                        .to_owned(),
                );
            }
            _ => {}
        }
        let loaded = settings::load_text(text, &self.overrides, settings::environment);
        let loaded = loaded.map_err(said)?;
        let mut needs_restart = Vec::new();
        for (section, value) in loaded.layers.sections() {
            let has_changed = self.in_force.get(section) != Some(value);
            if !has_changed && !is_asked_for {
                continue;
            }
            let Some(reconfigure) = self.services.reconfigure(section) else {
                needs_restart.extend(has_changed.then(|| section.clone()));
                continue;
            };
            let taken = reconfigure(&loaded.config).await;
            taken.map_err(|error| error.to_string())?;
            self.in_force.insert(section.clone(), value.clone());
            tracing::info!(section, "the changed configuration is in force");
        }
        Ok(needs_restart)
    }
}

async fn next(hangups: &mut Option<Signal>) {
    match hangups {
        Some(hangups) => {
            hangups.recv().await;
        }
        None => std::future::pending().await,
    }
}
