//! What is kept, in memory that is bounded by bytes, and who is fetching what at this moment.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use auspex_kernel::clock::Steady;
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::stored::Stored;

/// What nobody has asked for in this time is forgotten.
const IDLE_MAX: Duration = Duration::from_hours(1);
/// Answers to one request that differ by what they vary by.
const VARIANTS_MAX: usize = 16;
/// How long the answers to a request are taken for such as cannot be kept, after one that could not.
const PASSING: Duration = Duration::from_secs(10);
/// Changes are remembered by so many slots, each for many paths. One that another path's change empties costs a fetch.
const SLOTS: usize = 4096;

/// What a key takes beside its text, roughly.
const OVERHEAD_BYTES: usize = 256;

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of all.
    pub(crate) bytes_max: u64,
    /// Of the body of one answer.
    pub(crate) entry_bytes_max: usize,
}

/// Answers of all routes.
pub(crate) struct Store {
    pub(crate) limits: Limits,
    known: moka::sync::Cache<String, Known>,
    changes: Arc<Changes>,
    fetches: Mutex<HashMap<String, watch::Receiver<Option<Fetched>>>>,
}

/// When something at a place was changed by a request. What was asked for before is not shown any more.
struct Changes {
    /// In microseconds.
    slots: Box<[AtomicI64]>,
    hasher: RandomState,
}

/// What is known of a request.
#[derive(Clone)]
pub(super) enum Known {
    /// Its answers, the last one at the end. All vary by the same headers, as far as the service is of one mind.
    Variants(Arc<Vec<Arc<Stored>>>),
    /// Its answers cannot be kept, as one could not lately: there is no use in waiting for another's.
    Passing(Steady),
}

/// What came of a fetch that others wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    Kept,
    NotKept,
    /// The service failed.
    Failed,
}

/// Who fetches.
pub(super) enum Turn {
    /// Whoever asks.
    Own(Fetch),
    /// Another, who is waited for.
    Others(watch::Receiver<Option<Fetched>>),
}

/// A fetch that others may wait for. If it is dropped without a word, one of them begins anew.
pub(super) struct Fetch {
    store: Arc<Store>,
    key: String,
    tell: watch::Sender<Option<Fetched>>,
    came: Option<Fetched>,
}

impl Store {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let changes = Changes {
            slots: (0..SLOTS).map(|_| AtomicI64::new(i64::MIN)).collect(),
            hasher: RandomState::new(),
        };
        Self::with(limits, Arc::new(changes))
    }

    /// An empty one with other limits. It knows what requests change that began before it.
    pub(crate) fn with_limits(&self, limits: Limits) -> Arc<Self> {
        Self::with(limits, self.changes.clone())
    }

    fn with(limits: Limits, changes: Arc<Changes>) -> Arc<Self> {
        let weight = |key: &String, known: &Known| {
            let bytes: usize = match known {
                Known::Variants(variants) => variants.iter().map(|one| one.bytes()).sum(),
                Known::Passing(_) => 0,
            };
            u32::try_from(OVERHEAD_BYTES + key.len() + bytes).unwrap_or(u32::MAX)
        };
        let known = moka::sync::Cache::builder()
            .max_capacity(limits.bytes_max)
            .weigher(weight)
            .time_to_idle(IDLE_MAX)
            .build();
        Arc::new(Self {
            limits,
            known,
            changes,
            fetches: Mutex::default(),
        })
    }

    /// How many bytes it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.known.weighted_size()
    }

    pub(super) fn known(&self, key: &str) -> Option<Known> {
        self.known.get(key)
    }

    /// Keeps an answer, in place of one that fits the same requests.
    pub(super) fn keep(&self, key: &str, stored: Stored) -> Arc<Stored> {
        let stored = Arc::new(stored);
        let mut variants = match self.known.get(key) {
            Some(Known::Variants(variants)) => variants.to_vec(),
            _ => Vec::new(),
        };
        let names = |one: &Stored| -> Vec<HeaderName> {
            let names = one.varying.iter().map(|(name, _)| name.clone());
            names.collect()
        };
        // What varies by other headers is of another time.
        variants.retain(|one| one.varying != stored.varying && names(one) == names(&stored));
        if variants.len() >= VARIANTS_MAX {
            variants.remove(0);
        }
        variants.push(stored.clone());
        let known = Known::Variants(Arc::new(variants));
        self.known.insert(key.to_owned(), known);
        stored
    }

    /// The answers to this request cannot be kept. Those that are kept already stay.
    pub(super) fn pass(&self, key: &str, now: Steady) {
        if !matches!(self.known.get(key), Some(Known::Variants(_))) {
            let known = Known::Passing(now + PASSING);
            self.known.insert(key.to_owned(), known);
        }
    }

    /// What is at this place was changed.
    pub(super) fn change(&self, place: &str, now: Steady) {
        self.changes.slot(place).fetch_max(now.0, Ordering::Relaxed);
    }

    /// Whether nothing has changed there since an answer was asked for.
    pub(super) fn is_valid(&self, place: &str, stored: &Stored) -> bool {
        self.changes.slot(place).load(Ordering::Relaxed) < stored.asked_at.0
    }

    /// Whose turn it is to fetch the answer to a request.
    pub(super) fn turn(self: &Arc<Self>, key: String) -> Turn {
        let mut fetches = self.fetches.lock();
        if let Some(fetch) = fetches.get(&key) {
            return Turn::Others(fetch.clone());
        }
        let (tell, told) = watch::channel(None);
        fetches.insert(key.clone(), told);
        let store = self.clone();
        Turn::Own(Fetch {
            store,
            key,
            tell,
            came: None,
        })
    }
}

impl Changes {
    fn slot(&self, place: &str) -> &AtomicI64 {
        let hash = self.hasher.hash_one(place) as usize;
        &self.slots[hash % SLOTS]
    }
}

/// Waits for another's fetch. `None`: whoever fetched has left.
pub(super) async fn outcome(mut told: watch::Receiver<Option<Fetched>>) -> Option<Fetched> {
    let told = told.wait_for(Option::is_some).await.ok()?;
    *told
}

impl Fetch {
    pub(super) fn end(mut self, fetched: Fetched) {
        self.came = Some(fetched);
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        // First, or whoever is told would find this one again.
        self.store.fetches.lock().remove(&self.key);
        if self.came.is_some() {
            self.tell.send_replace(self.came);
        }
    }
}

impl Known {
    /// The headers that answers vary by, and what this request has for them: what fits one of them fits the
    /// other.
    pub(super) fn sort_of(&self, headers: &HeaderMap) -> String {
        let Known::Variants(variants) = self else {
            return String::new();
        };
        let varying = variants.last().map(|one| one.varying.as_slice());
        let mut sort = String::new();
        for (name, _) in varying.unwrap_or_default() {
            for value in headers.get_all(name) {
                sort.push_str(&format!("\n{name}:{}", value.as_bytes().escape_ascii()));
            }
        }
        sort
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::stored::tests::stored;

    const LIMITS: Limits = Limits {
        bytes_max: 100_000,
        entry_bytes_max: 10_000,
    };

    fn count(store: &Store, key: &str) -> usize {
        match store.known(key) {
            Some(Known::Variants(variants)) => variants.len(),
            _ => 0,
        }
    }

    #[test]
    fn variants_replace_each_other_and_are_bounded() {
        let store = Store::new(LIMITS);
        for language in ["de", "en", "de"] {
            store.keep(
                "a",
                stored(
                    &[("vary", "accept-language")],
                    &[("accept-language", language)],
                ),
            );
        }
        assert_eq!(count(&store, "a"), 2);
        // Another kind of variance ends the one before.
        store.keep("a", stored(&[("vary", "accept")], &[]));
        assert_eq!(count(&store, "a"), 1);
        for number in 0..100 {
            let number = number.to_string();
            store.keep("a", stored(&[("vary", "accept")], &[("accept", &number)]));
        }
        assert_eq!(count(&store, "a"), VARIANTS_MAX);
    }

    #[test]
    fn memory_is_bounded_by_bytes() {
        let store = Store::new(LIMITS);
        for number in 0..1000 {
            store.keep(&number.to_string(), stored(&[], &[]));
        }
        store.known.run_pending_tasks();
        assert!(
            (1..=LIMITS.bytes_max).contains(&store.bytes()),
            "{}",
            store.bytes()
        );
        assert!(store.known.entry_count() < 1000);
        // A key alone takes some, too.
        let store = Store::new(LIMITS);
        for number in 0..1000 {
            store.pass(&number.to_string(), Steady(0));
        }
        store.known.run_pending_tasks();
        assert!(store.known.entry_count() * 256 <= LIMITS.bytes_max);
    }

    #[test]
    fn what_was_asked_for_before_a_change_is_over() {
        let store = Store::new(LIMITS);
        let mut one = stored(&[], &[]);
        one.asked_at = Steady(10);
        assert!(store.is_valid("place", &one));
        store.change("place", Steady(9));
        assert!(store.is_valid("place", &one));
        store.change("place", Steady(10));
        assert!(!store.is_valid("place", &one));
        store.change("place", Steady(5));
        assert!(!store.is_valid("place", &one));
        // A request that began before the limits changed.
        let next = store.with_limits(LIMITS);
        assert!(!next.is_valid("place", &one));
        store.change("other", Steady(10));
        assert!(!next.is_valid("other", &one));
    }

    #[test]
    fn what_is_kept_outlives_an_answer_that_is_not() {
        let store = Store::new(LIMITS);
        store.pass("a", Steady(0));
        assert!(matches!(store.known("a"), Some(Known::Passing(_))));
        store.keep("a", stored(&[], &[]));
        store.pass("a", Steady(0));
        assert_eq!(count(&store, "a"), 1);
    }

    #[tokio::test]
    async fn one_fetches_and_the_others_learn_of_it() {
        let store = Store::new(LIMITS);
        let Turn::Own(fetch) = store.turn("a".into()) else {
            panic!("the first")
        };
        let Turn::Others(told) = store.turn("a".into()) else {
            panic!("the second")
        };
        assert!(matches!(store.turn("b".into()), Turn::Own(_)));
        let late = told.clone();
        let waiting = tokio::spawn(outcome(told));
        fetch.end(Fetched::Kept);
        assert_eq!(waiting.await.expect("told"), Some(Fetched::Kept));
        assert_eq!(outcome(late).await, Some(Fetched::Kept));
        // One that leaves hands over.
        let Turn::Own(fetch) = store.turn("a".into()) else {
            panic!("over")
        };
        let Turn::Others(told) = store.turn("a".into()) else {
            panic!("the second")
        };
        let waiting = tokio::spawn(outcome(told));
        drop(fetch);
        assert_eq!(waiting.await.expect("told"), None);
        assert!(matches!(store.turn("a".into()), Turn::Own(_)));
        assert!(store.fetches.lock().is_empty());
    }
}
