//! The keys of one issuer in memory, and when to fetch them anew.
//!
//! They are fresh for five minutes. Afterwards they are fetched again, and if that fails they do for
//! a day more, because an identity provider that is down should not take this service with it. A
//! token whose key is unknown leads to a fetch as well (the issuer may have a new key), but between
//! two fetches half a minute passes, whatever tokens strangers invent.

use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::{Clock, Steady};
use parking_lot::Mutex;

use super::IssuerConfig;
use super::download::{Download, DownloadError};
use super::key_set::{Ignored, KeySet};
use crate::jwt::{KeyRefusal, Unverified, VerifyingKey};

const FRESH_FOR: Duration = Duration::from_mins(5);
const USABLE_FOR: Duration = Duration::from_hours(24);
const COOL_DOWN: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct KeySource(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    issuer: String,
    download: Download,
    clock: Clock,
    state: Mutex<State>,
    /// Held during a fetch: those who come meanwhile wait for its result.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    cached: Option<Cached>,
    attempted_at: Option<Steady>,
}

impl State {
    /// Whether the pause after the last attempt is over.
    fn may_fetch(&self, now: Steady) -> bool {
        self.attempted_at.is_none_or(|at| now >= at + COOL_DOWN)
    }
}

#[derive(Debug)]
struct Cached {
    keys: KeySet,
    fetched_at: Steady,
}

/// Whether there is a key for a token.
pub(super) enum Lookup {
    /// There is.
    Found(Arc<VerifyingKey>),
    /// A fetch may bring it.
    Fetch,
    /// There are no keys at all, and it is too early to try again.
    Unavailable,
    /// There are keys, not this one, and it is too early to try again.
    Unknown,
}

impl KeySource {
    pub(super) fn new(config: &IssuerConfig, clock: Clock) -> Result<Self, String> {
        Ok(Self(Arc::new(Inner {
            issuer: config.issuer.clone(),
            download: Download::new(config, TIMEOUT)?,
            clock,
            state: Mutex::default(),
            fetching: Arc::default(),
        })))
    }

    pub(super) fn look_up(&self, token: &Unverified<'_>) -> Lookup {
        let now = self.0.clock.steady();
        let state = self.0.state.lock();
        let may_fetch = state.may_fetch(now);
        let under_way = self.0.fetching.try_lock().is_err();
        let usable = |cached: &&Cached| now < cached.fetched_at + USABLE_FOR;
        let Some(cached) = state.cached.as_ref().filter(usable) else {
            return if may_fetch || under_way {
                Lookup::Fetch
            } else {
                Lookup::Unavailable
            };
        };
        let fresh = now < cached.fetched_at + FRESH_FOR;
        if !fresh && may_fetch && !under_way {
            return Lookup::Fetch;
        }
        match cached.keys.find(token) {
            Some(key) => Lookup::Found(Arc::clone(key)),
            None if may_fetch || under_way => Lookup::Fetch,
            None => Lookup::Unknown,
        }
    }

    /// Fetches, unless somebody has just done so: of those who wait at once, only the first does.
    /// Runs on a task of its own, so that a caller who leaves neither stops it nor leaves the next
    /// one without the pause between fetches.
    pub(super) async fn fetch(&self) {
        let guard = Arc::clone(&self.0.fetching).lock_owned().await;
        if !self.0.state.lock().may_fetch(self.0.clock.steady()) {
            return;
        }
        let inner = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            inner.attempt().await;
            drop(guard);
        });
        // It fails only if the runtime ends or it panics; then there are no new keys.
        let _ = task.await;
    }
}

impl Inner {
    async fn attempt(&self) {
        let result = self.download().await;
        let now = self.clock.steady();
        let mut state = self.state.lock();
        state.attempted_at = Some(now);
        match result {
            Ok(keys) => {
                self.report(&keys);
                let fetched_at = now;
                state.cached = Some(Cached { keys, fetched_at });
            }
            Err(error) => tracing::warn!(
                issuer = self.issuer,
                %error,
                "an issuer's keys cannot be fetched; those fetched before do for a day"
            ),
        }
    }

    async fn download(&self) -> Result<KeySet, DownloadError> {
        Ok(KeySet::parse(&self.download.get().await?)?)
    }

    /// Keys for encryption or of other algorithms are in many sets. None usable, or a published
    /// private key, is something an operator must know.
    fn report(&self, keys: &KeySet) {
        let issuer = &self.issuer;
        for reason in keys.ignored() {
            if *reason == Ignored::Unusable(KeyRefusal::Private) {
                tracing::warn!(issuer, %reason, "an issuer's key is not used");
            } else {
                tracing::debug!(issuer, %reason, "an issuer's key is not used");
            }
        }
        if keys.is_empty() {
            tracing::warn!(issuer, "an issuer publishes no key that can be used");
        }
    }
}
