//! The keys in force, in memory, laid out to be asked on every request: one look-up, no lock, no
//! allocation. A snapshot never changes; a newer one takes its place.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use auspex_kernel::{Caller, Timestamp};

use crate::api_key::{Digest, read_scopes};
use crate::store::LiveKey;

/// The keys in force at one generation of the database.
#[derive(Default)]
pub(crate) struct Snapshot {
    generation: i64,
    by_prefix: HashMap<u64, Entry, BuildHasherDefault<AlreadyRandom>>,
    /// Keys whose digest begins like another's: in practice none, yet each must work.
    colliding: Vec<Entry>,
    ignored: BTreeSet<String>,
}

struct Entry {
    digest: Digest,
    caller: Arc<Caller>,
}

impl Snapshot {
    /// Lays out `keys`, which were read after `generation` was.
    pub(crate) fn new(generation: i64, keys: Vec<LiveKey>) -> Self {
        let mut snapshot = Self {
            generation,
            ..Self::default()
        };
        snapshot.by_prefix.reserve(keys.len());
        for key in keys {
            snapshot.add(key);
        }
        snapshot
    }

    fn add(&mut self, key: LiveKey) {
        let ignored = &mut self.ignored;
        let Some(digest) = Digest::from_stored(&key.digest) else {
            ignored.insert(format!("the key {}: its hash is damaged", key.id));
            return;
        };
        let scopes = read_scopes(&key.scopes, |scope| {
            ignored.insert(format!("the unknown scope {scope:?}"));
        });
        let caller = Arc::new(Caller {
            subject: format!("key:{}", key.id),
            scopes,
            quota_key: key.id.quota_key(),
            expires_at: key.expires_at,
        });
        let entry = Entry { digest, caller };
        if let Some(displaced) = self.by_prefix.insert(digest.prefix(), entry) {
            self.colliding.push(displaced);
        }
    }

    /// The caller whose key has this digest, unless it has expired.
    pub(crate) fn caller(&self, digest: &Digest, now: Timestamp) -> Option<&Arc<Caller>> {
        let first = self.by_prefix.get(&digest.prefix())?;
        let entry = std::iter::once(first)
            .chain(&self.colliding)
            .find(|entry| entry.digest.matches(digest))?;
        let expired = entry.caller.expires_at.is_some_and(|at| at <= now);
        (!expired).then_some(&entry.caller)
    }

    /// Which state of the database it shows.
    pub(crate) fn generation(&self) -> i64 {
        self.generation
    }

    /// What could not be understood in this state and could in `older`, or was not there.
    pub(crate) fn newly_ignored<'s>(&'s self, older: &'s Self) -> impl Iterator<Item = &'s String> {
        self.ignored.difference(&older.ignored)
    }
}

/// Passes the first bytes of a digest on as their own hash: they are as random as any hash, and
/// nobody can choose them.
#[derive(Default)]
struct AlreadyRandom(u64);

impl Hasher for AlreadyRandom {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, prefix: u64) {
        self.0 = prefix;
    }
}

#[cfg(test)]
mod tests {
    use auspex_kernel::Scope;

    use super::*;
    use crate::api_key::KeyId;

    fn key(id: &str, digest: Vec<u8>, scopes: &str) -> LiveKey {
        LiveKey {
            id: KeyId(id.into()),
            digest,
            scopes: scopes.into(),
            expires_at: None,
        }
    }

    fn digest(last: u8) -> Digest {
        let mut bytes = [7; 32];
        bytes[31] = last;
        Digest::from_stored(&bytes).unwrap()
    }

    #[test]
    fn keys_whose_digests_begin_alike_are_told_apart() {
        let keys = (1..=3).map(|n| key(&format!("K{n}"), digest(n).as_bytes().into(), "predict"));
        let snapshot = Snapshot::new(1, keys.collect());
        for n in 1..=3 {
            let caller = snapshot.caller(&digest(n), Timestamp(0)).unwrap();
            assert_eq!(caller.subject, format!("key:K{n}"));
        }
        assert!(snapshot.caller(&digest(4), Timestamp(0)).is_none());
    }

    #[test]
    fn odd_rows_cost_only_themselves_and_are_told_once() {
        let rows = || {
            vec![
                key("A", digest(1).as_bytes().into(), "moon:land predict"),
                key("B", vec![1, 2, 3], "predict"),
                key("C", digest(3).as_bytes().into(), "moon:land"),
            ]
        };
        let snapshot = Snapshot::new(1, rows());
        let caller = snapshot.caller(&digest(1), Timestamp(0)).unwrap();
        assert_eq!(caller.scopes.iter().collect::<Vec<_>>(), [Scope::Predict]);
        assert!(snapshot.caller(&digest(3), Timestamp(0)).is_some());
        assert_eq!(snapshot.newly_ignored(&Snapshot::default()).count(), 2);
        assert_eq!(Snapshot::new(2, rows()).newly_ignored(&snapshot).count(), 0);
    }
}
