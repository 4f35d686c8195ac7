//! What was verified lately, so that neither a signature nor a password is checked per request.
//!
//! An entry is found by a keyed SHA-256 of the whole credential: a reader of this memory finds no
//! token and no password in it. It holds what was proven; whether that still counts is the
//! directory's to say, and it is asked again whenever anything there has changed.

use std::collections::HashMap;
use std::sync::Arc;

use auspex_kernel::{Caller, Credential, Random, Timestamp};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::directory::{Directory, Proof};

const SHARDS: usize = 64;

/// The name of a credential here.
pub(crate) type Mark = [u8; 32];

/// A bounded memory of verified credentials.
pub(crate) struct Remembered {
    key: [u8; 32],
    shards: Box<[Mutex<HashMap<Mark, Entry>>]>,
    shard_max: usize,
}

struct Entry {
    proof: Proof,
    since: Timestamp,
    /// From when on it must be verified again.
    until: Timestamp,
    /// The state of the directory in which `caller` is right.
    epoch: u64,
    caller: Arc<Caller>,
}

impl Remembered {
    /// # Errors
    /// Without random bytes.
    pub(crate) fn new(entries_max: usize, random: &Random) -> Result<Self, getrandom::Error> {
        Ok(Self {
            key: random.bytes()?,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: entries_max.div_ceil(SHARDS),
        })
    }

    /// The name under which a credential is kept: what was shown in one way is not known in another.
    pub(crate) fn mark(&self, credential: Credential<'_>) -> Mark {
        let (kind, text) = match credential {
            Credential::Token(text) => (b"T", text),
            Credential::Basic(text) => (b"B", text),
        };
        let hash = Sha256::new().chain_update(self.key).chain_update(kind);
        hash.chain_update(text).finalize().into()
    }

    /// Who calls by a credential that was verified and still counts.
    pub(crate) fn caller(
        &self,
        mark: &Mark,
        directory: &Directory,
        now: Timestamp,
    ) -> Option<Arc<Caller>> {
        let mut shard = self.shard(mark).lock();
        let entry = shard.get_mut(mark)?;
        let epoch = directory.epoch();
        let counts = now.is_during(entry.since, entry.until);
        if counts && entry.epoch == epoch {
            return Some(Arc::clone(&entry.caller));
        }
        // Once refused, a credential is verified anew: a user who was disabled may come back.
        let caller = directory.caller(&entry.proof).filter(|_| counts);
        match &caller {
            Some(caller) => {
                entry.caller = Arc::clone(caller);
                entry.epoch = epoch;
            }
            None => {
                shard.remove(mark);
            }
        }
        caller
    }

    /// Keeps what was proven, and says who calls by it now.
    pub(crate) fn keep(
        &self,
        mark: Mark,
        proof: Proof,
        until: Timestamp,
        directory: &Directory,
        now: Timestamp,
    ) -> Option<Arc<Caller>> {
        // The number first: a change in between makes the entry be looked at again.
        let epoch = directory.epoch();
        let caller = directory.caller(&proof)?;
        let entry = Entry {
            proof,
            since: now,
            until,
            epoch,
            caller: Arc::clone(&caller),
        };
        let mut shard = self.shard(&mark).lock();
        if shard.len() >= self.shard_max {
            make_room(&mut shard, &mark, now);
        }
        shard.insert(mark, entry);
        Some(caller)
    }

    fn shard(&self, mark: &Mark) -> &Mutex<HashMap<Mark, Entry>> {
        &self.shards[usize::from(mark[0]) % SHARDS]
    }
}

/// Removes what has ended; if that is nothing, one entry in eight, by chance: those still in use
/// come back by one verification. The mark that is to come in is the die.
fn make_room(shard: &mut HashMap<Mark, Entry>, coming: &Mark, now: Timestamp) {
    let before = shard.len();
    shard.retain(|_, entry| entry.until > now);
    if shard.len() == before {
        shard.retain(|mark, _| mark[1] % 8 != coming[1] % 8);
    }
    if shard.len() == before {
        shard.clear();
    }
}

#[cfg(test)]
mod tests {
    use auspex_kernel::id::UserId;

    use super::*;
    use crate::types::role::Role;
    use crate::types::user::ActiveUser;

    const NOW: Timestamp = Timestamp(1_000_000);
    const LATER: Timestamp = Timestamp(2_000_000);

    fn directory(role: Role) -> Directory {
        let directory = Directory::default();
        set(&directory, Some(role));
        directory
    }

    fn set(directory: &Directory, role: Option<Role>) {
        let user = role.map(|role| ActiveUser {
            roles: [role].into_iter().collect(),
            password_mark: 7,
        });
        directory.set_user(UserId::from_stored("U"), user);
        directory.changed();
    }

    fn proof() -> Proof {
        Proof::Password {
            user_id: UserId::from_stored("U"),
            mark: 7,
        }
    }

    #[test]
    fn what_was_verified_counts_until_it_ends_or_something_changes() {
        let directory = directory(Role::Admin);
        let memory = Remembered::new(1_000, &Random::system()).unwrap();
        let mark = memory.mark(Credential::Token(b"secret"));
        assert!(memory.caller(&mark, &directory, NOW).is_none());
        memory.keep(mark, proof(), LATER, &directory, NOW).unwrap();
        let scopes = |now| {
            let caller = memory.caller(&mark, &directory, now);
            caller.map(|caller| caller.scopes)
        };
        assert_eq!(scopes(NOW), Some(Role::Admin.scopes()));
        set(&directory, Some(Role::Viewer));
        assert_eq!(scopes(NOW), Some(Role::Viewer.scopes()), "demoted at once");
        assert_eq!(scopes(LATER), None, "ended");
        memory.keep(mark, proof(), LATER, &directory, NOW).unwrap();
        set(&directory, None);
        assert_eq!(scopes(NOW), None, "disabled at once");
        set(&directory, Some(Role::Viewer));
        assert_eq!(scopes(NOW), None, "verified anew after that");
    }

    #[test]
    fn memory_is_bounded() {
        let directory = directory(Role::Viewer);
        let memory = Remembered::new(640, &Random::system()).unwrap();
        for n in 0..10_000_u32 {
            let mark = memory.mark(Credential::Token(&n.to_be_bytes()));
            memory.keep(mark, proof(), LATER, &directory, NOW).unwrap();
            assert!(
                memory.caller(&mark, &directory, NOW).is_some(),
                "the newest is kept"
            );
        }
        let kept: usize = memory.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= 640, "{kept}");
    }

    #[test]
    fn a_full_memory_stays_nearly_full() {
        let directory = directory(Role::Viewer);
        let memory = Remembered::new(64 * 1_000, &Random::system()).unwrap();
        let kept = || -> usize { memory.shards.iter().map(|shard| shard.lock().len()).sum() };
        let mut least = usize::MAX;
        for n in 0..200_000_u32 {
            let mark = memory.mark(Credential::Token(&n.to_be_bytes()));
            memory.keep(mark, proof(), LATER, &directory, NOW).unwrap();
            if n > 80_000 && n % 100 == 0 {
                least = least.min(kept());
            }
        }
        assert!(least > 64 * 800, "{least} of {}", 64 * 1_000);
    }

    #[test]
    fn marks_of_two_processes_differ() {
        let mark = || {
            Remembered::new(1, &Random::system())
                .unwrap()
                .mark(Credential::Token(b"x"))
        };
        assert_ne!(mark(), mark());
    }
}
