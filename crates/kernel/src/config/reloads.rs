//! What became of changes to the settings while the server runs, for whoever looks.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::Timestamp;

/// Told by the root, shown by anybody. Clones are one.
#[derive(Clone, Debug)]
pub struct Reloads(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    taken_at: Timestamp,
    refused: Option<Refused>,
    needs_restart: Vec<String>,
}

/// Settings that were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When they were read.
    pub at: Timestamp,
    /// What is wrong and where. It repeats no value.
    pub reason: String,
    /// Whether no others were taken since.
    pub is_current: bool,
}

impl Reloads {
    /// At the start, whose settings are in force.
    pub fn new(start: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(State {
            taken_at: start,
            refused: None,
            needs_restart: Vec::new(),
        })))
    }

    /// Settings are in force, except those sections that only a start reads.
    pub fn take(&self, at: Timestamp, needs_restart: Vec<String>) {
        let mut state = self.0.lock();
        state.taken_at = at;
        state.needs_restart = needs_restart;
        if let Some(refused) = &mut state.refused {
            refused.is_current = false;
        }
    }

    /// Settings are not in force; those from before are.
    pub fn refuse(&self, at: Timestamp, reason: String) {
        self.0.lock().refused = Some(Refused {
            at,
            reason,
            is_current: true,
        });
    }

    /// Since when the settings are in force that are.
    pub fn taken_at(&self) -> Timestamp {
        self.0.lock().taken_at
    }

    /// The last that were refused.
    pub fn refused(&self) -> Option<Refused> {
        self.0.lock().refused.clone()
    }

    /// Sections that have changed and wait for a restart.
    pub fn needs_restart(&self) -> Vec<String> {
        self.0.lock().needs_restart.clone()
    }
}
