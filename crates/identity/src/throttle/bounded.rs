//! A table of bounded size for what strangers bring about.

use std::collections::HashMap;

use auspex_kernel::clock::Steady;

/// A table that forgets, when it is full, first what has lost its meaning, then what loses it next.
#[derive(Debug)]
pub(super) struct Bounded<V> {
    pub(super) entries: HashMap<u64, (V, Steady)>,
    max: usize,
}

impl<V> Bounded<V> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            max: max.max(1),
        }
    }

    pub(super) fn get(&self, key: u64) -> Option<&V> {
        self.entries.get(&key).map(|(value, _)| value)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|(value, _)| value)
    }

    pub(super) fn get_or_insert(
        &mut self,
        key: u64,
        now: Steady,
        new: impl FnOnce() -> V,
    ) -> &mut V {
        if self.entries.len() >= self.max && !self.entries.contains_key(&key) {
            self.forget(now);
        }
        &mut self.entries.entry(key).or_insert_with(|| (new(), now)).0
    }

    /// Says until when the entry means anything.
    pub(super) fn keep_until(&mut self, key: u64, until: Steady) {
        if let Some((_, kept_until)) = self.entries.get_mut(&key) {
            *kept_until = until;
        }
    }

    /// At least an eighth at once, so that looking through all is seldom needed.
    fn forget(&mut self, now: Steady) {
        let mut ends: Vec<Steady> = self.entries.values().map(|(_, until)| *until).collect();
        let eighth = self.max / 8;
        let (_, latest_forgotten, _) = ends.select_nth_unstable(eighth);
        let limit = now.max(*latest_forgotten);
        self.entries.retain(|_, (_, until)| *until > limit);
    }
}
