//! A map that is asked on every request and seldom changed.
//!
//! It is cut into shards. A change copies one shard and puts the copy in its place, so that readers
//! never wait, and a change costs the same with a hundred thousand entries as with ten. Of two changes
//! at once one could be lost: they must come one after the other.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;

const SHARDS: usize = 256;

/// A map for many readers and one writer.
#[derive(Debug)]
pub(crate) struct Shards<K, V> {
    hasher: RandomState,
    shards: Box<[ArcSwap<HashMap<K, V>>]>,
}

impl<K: Hash + Eq + Clone, V: Clone> Default for Shards<K, V> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    fn place<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        self.hasher.hash_one(key) as usize % SHARDS
    }

    /// What `read` makes of the value there, if there is one.
    pub(crate) fn with<Q, T>(&self, key: &Q, read: impl FnOnce(&V) -> T) -> Option<T>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[self.place(key)].load().get(key).map(read)
    }

    /// Whether there is a value.
    pub(crate) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.with(key, |_| ()).is_some()
    }

    /// Puts a value in, or takes it out.
    pub(crate) fn set(&self, key: K, value: Option<V>) {
        let shard = &self.shards[self.place(&key)];
        let mut map = HashMap::clone(&shard.load());
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
        shard.store(Arc::new(map));
    }

    /// Replaces everything.
    pub(crate) fn fill(&self, entries: impl IntoIterator<Item = (K, V)>) {
        let mut maps: Vec<HashMap<K, V>> = (0..SHARDS).map(|_| HashMap::new()).collect();
        for (key, value) in entries {
            maps[self.place(&key)].insert(key, value);
        }
        for (shard, map) in self.shards.iter().zip(maps) {
            shard.store(Arc::new(map));
        }
    }

    /// Shows every entry.
    pub(crate) fn for_each(&self, mut read: impl FnMut(&K, &V)) {
        for shard in &self.shards {
            shard
                .load()
                .iter()
                .for_each(|(key, value)| read(key, value));
        }
    }

    /// Takes out every value that is not to be kept.
    pub(crate) fn retain(&self, keep: impl Fn(&V) -> bool) {
        for shard in &self.shards {
            let mut map = HashMap::clone(&shard.load());
            let before = map.len();
            map.retain(|_, value| keep(value));
            if map.len() < before {
                shard.store(Arc::new(map));
            }
        }
    }
}
