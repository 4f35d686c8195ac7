//! Tells services behind this server who calls, by short-lived tokens that they verify with the published keys.
//!
//! A token is for one service: its audience is that service, and its type is no access token's, so that nobody who
//! gets one can use it here or elsewhere. It is made once in a while and remembered, for a signature takes longer than
//! most requests.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::caller::{Vouch, Vouching};
use auspex_kernel::id::{ClientId, UserId};
use auspex_kernel::{ApiError, Caller, Clock, Control, ScopeSet, Subject, Timestamp};
use http::HeaderValue;
use parking_lot::Mutex;

use crate::core::Core;
use crate::directory::Directory;
use crate::tokens::Tokens;

/// How long a token is handed out. It is valid for longer, so that a service has time.
const HANDED_OUT: Duration = Duration::from_secs(30);
const SHARDS: usize = 64;
const SHARD_MAX: usize = 1_024;

/// Makes tokens for services, and remembers them.
pub(crate) struct Voucher {
    tokens: Arc<Tokens>,
    directory: Arc<Directory>,
    clock: Clock,
    control: Control,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<u64, Entry>>]>,
}

/// Of whom and for whom a token is.
#[derive(PartialEq)]
struct Whom {
    subject: Subject,
    user_id: Option<UserId>,
    client_id: Option<ClientId>,
    scopes: ScopeSet,
    audience: Arc<str>,
}

struct Entry {
    whom: Whom,
    /// As `Authorization` has it.
    value: HeaderValue,
    /// The key that signed it.
    kid: String,
    since: Timestamp,
    expires_at: Timestamp,
}

impl Whom {
    fn is(&self, caller: &Caller, audience: &str) -> bool {
        self.scopes == caller.scopes
            && *self.audience == *audience
            && self.subject == caller.subject
            && self.user_id == caller.user_id
            && self.client_id == caller.client_id
    }
}

impl Voucher {
    pub(crate) fn new(core: &Core, tokens: Arc<Tokens>) -> Self {
        Self {
            tokens,
            directory: Arc::clone(&core.directory),
            clock: core.clock.clone(),
            control: core.db.control().clone(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Two that have the same are told apart by their entries.
    fn place(&self, caller: &Caller, audience: &str) -> u64 {
        self.hasher
            .hash_one((caller.quota_key, caller.scopes, audience))
    }

    fn shard(&self, place: u64) -> &Mutex<HashMap<u64, Entry>> {
        &self.shards[place as usize % SHARDS]
    }

    fn make(&self, caller: &Caller, audience: Arc<str>) -> Result<HeaderValue, ApiError> {
        let now = self.clock.now();
        // Others may have asked for the same.
        if let Some(value) = self.remembered(caller, &audience, now) {
            return Ok(value);
        }
        let made = self.tokens.identity_token(caller, &audience, now)?;
        let mut value =
            HeaderValue::try_from(format!("Bearer {}", made.token)).map_err(ApiError::internal)?;
        value.set_sensitive(true);
        let place = self.place(caller, &audience);
        let entry = Entry {
            whom: Whom {
                subject: caller.subject.clone(),
                user_id: caller.user_id.clone(),
                client_id: caller.client_id.clone(),
                scopes: caller.scopes,
                audience,
            },
            value: value.clone(),
            kid: made.kid,
            since: now,
            expires_at: made.expires_at,
        };
        let mut shard = self.shard(place).lock();
        if shard.len() >= SHARD_MAX {
            shard.retain(|_, entry| entry.is_handed_out(now));
            if shard.len() >= SHARD_MAX {
                shard.clear();
            }
        }
        shard.insert(place, entry);
        Ok(value)
    }
}

impl Entry {
    fn is_handed_out(&self, now: Timestamp) -> bool {
        let until = (self.since + HANDED_OUT).min(self.expires_at);
        now.is_during(self.since, until)
    }
}

impl Vouch for Voucher {
    fn remembered(&self, caller: &Caller, audience: &str, now: Timestamp) -> Option<HeaderValue> {
        let place = self.place(caller, audience);
        let shard = self.shard(place).lock();
        let entry = shard.get(&place)?;
        let is_in_time =
            entry.is_handed_out(now) && caller.expires_at.is_none_or(|at| entry.expires_at <= at);
        let is_it = is_in_time && entry.whom.is(caller, audience);
        // One whose key was dropped is refused by those who have heard of it.
        let counts = is_it
            && self
                .directory
                .signing_keys()
                .verifying(&entry.kid)
                .is_some();
        counts.then(|| entry.value.clone())
    }

    fn vouch(self: Arc<Self>, caller: Arc<Caller>, audience: Arc<str>) -> Vouching {
        let control = self.control.clone();
        Box::pin(async move {
            control
                .run(async move { self.make(&caller, audience) })
                .await?
        })
    }
}
