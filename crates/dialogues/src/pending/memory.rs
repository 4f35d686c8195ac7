//! The buffer in the memory of this process. What it holds ends with the process.
//!
//! Dialogues are in shards, each behind a lock that is held for the time of one look-up and one append. A
//! dialogue that is being decided stays in its shard, so that everybody finds it; who decides it has a
//! [`Held`], and what the shard says counts. Deadlines are on the steady clock.

use std::collections::HashMap;
use std::collections::hash_map::{Entry as Place, OccupiedEntry};
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auspex_kernel::Timestamp;
use auspex_kernel::clock::{Clock, Steady};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Away, Before, Dialogue, Dropped, Held as Hold, Limits, Look, Mark, NewText, Outcome, Pending,
    PushError, Pushed, Size, State, Taken, Text,
};
use crate::ids::{CustomerId, CustomerRef, DialogId};
use crate::language::Language;

const SHARDS: usize = 64;
/// How long a decided dialogue is remembered: much longer than between the look into the database and
/// the first text that follows it.
const DECIDED_KEPT: Duration = Duration::from_mins(1);
/// How long a decision waits for another one on the same dialogue.
const DECISION_WAIT: Duration = Duration::from_secs(10);

// What things cost beside their own bytes. `tests/memory.rs` holds them against what the process takes.
const DIALOGUE_COST: usize = 384;
const TEXT_COST: usize = size_of::<Text>() + 16;
const MARK_COST: usize = size_of::<Mark>();
const DECIDED_COST: usize = 128;

/// The buffer in memory. Clones are one buffer.
#[derive(Clone)]
pub struct Memory(Arc<Buffer>);

struct Buffer {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    limits: Limits,
    clock: Clock,
    /// What all dialogues cost.
    bytes: AtomicUsize,
}

type Shard = HashMap<DialogId, Slot, RandomState>;

enum Slot {
    Here(Box<Entry>),
    /// Decided, and remembered for a while.
    Decided {
        until: Steady,
        customer_ref: CustomerRef,
    },
}

struct Entry {
    customer: CustomerId,
    customer_ref: CustomerRef,
    began_at: Timestamp,
    stage: Stage,
    expires: Steady,
    expires_at: Timestamp,
    /// Shared with who decides it.
    texts: Arc<Vec<Text>>,
    /// How many texts there are, or were before they were dropped.
    count: usize,
    /// Of the first text.
    language: Language,
    marks: Vec<Mark>,
    /// What it costs, together with its slot.
    bytes: usize,
}

enum Stage {
    Waiting(Before),
    Deciding {
        before: Before,
        /// Wakes those who wait for the decision.
        settled: Arc<Notify>,
        /// Whether the customer was dropped meanwhile.
        is_dropped: bool,
    },
}

impl Memory {
    /// An empty buffer.
    pub fn new(limits: Limits, clock: Clock) -> Self {
        let hasher = RandomState::new();
        let shard = || Mutex::new(HashMap::with_hasher(hasher.clone()));
        Self(Arc::new(Buffer {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher,
            limits,
            clock,
            bytes: AtomicUsize::new(0),
        }))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Memory").field(&self.0.size()).finish()
    }
}

impl Pending for Memory {
    type Held = Held;

    async fn push(
        &self,
        new: NewText<'_>,
        begin: Option<CustomerRef>,
    ) -> Result<Pushed, PushError> {
        self.0.push(&new, begin)
    }

    async fn look(&self, dialogue: &DialogId) -> Result<Option<Look>, Away> {
        Ok(self.0.look(dialogue))
    }

    async fn take(&self, dialogue: &DialogId) -> Taken<Held> {
        let waiting = async {
            loop {
                let settled = match self.0.take(dialogue) {
                    Take::Taken(dialogue, before) => {
                        return Taken::Held(Held::new(&self.0, dialogue, before));
                    }
                    Take::Unknown => return Taken::Unknown,
                    Take::Deciding(settled) => settled,
                };
                settled.await;
            }
        };
        let waited = tokio::time::timeout(DECISION_WAIT, waiting).await;
        waited.unwrap_or(Taken::Busy)
    }

    async fn of_customer(&self, customer: CustomerRef) -> Result<Vec<Dialogue>, Away> {
        Ok(self.0.of_customer(customer))
    }

    async fn drop_customer(
        &self,
        customer: CustomerRef,
        until: Timestamp,
    ) -> Result<Dropped, Away> {
        Ok(self.0.drop_customer(customer, until))
    }

    async fn expire(&self) -> Result<Dropped, Away> {
        Ok(self.0.expire())
    }

    async fn size(&self) -> Size {
        self.0.size()
    }
}

/// What [`Buffer::take`] found.
enum Take<N> {
    Taken(Dialogue, Before),
    Deciding(N),
    Unknown,
}

impl Buffer {
    fn size(&self) -> Size {
        Size {
            dialogues: self.shards.iter().map(|shard| shard.lock().len()).sum(),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn shard(&self, dialogue: &DialogId) -> &Mutex<Shard> {
        // Not the bits by which the map of the shard finds its places.
        let place = (self.hasher.hash_one(dialogue) >> 40) as usize % SHARDS;
        &self.shards[place]
    }

    fn push(&self, new: &NewText<'_>, begin: Option<CustomerRef>) -> Result<Pushed, PushError> {
        let (now, today) = (self.clock.steady(), self.clock.now());
        let mut shard = self.shard(new.dialogue).lock();
        if let Some(slot) = shard.get_mut(new.dialogue) {
            match slot {
                Slot::Decided { until, .. } if now < *until => return Err(PushError::Decided),
                Slot::Here(entry) if !entry.has_expired(now) => {
                    return self.add(entry, new, now, today);
                }
                Slot::Decided { .. } | Slot::Here(_) => {
                    if let Some(slot) = shard.remove(new.dialogue) {
                        self.release(cost(new.dialogue, &slot));
                    }
                }
            }
        }
        let customer_ref = begin.ok_or(PushError::Unknown)?;
        let bytes = DIALOGUE_COST + new.dialogue.expose().len() + new.customer.expose().len();
        self.reserve(bytes)?;
        let mut entry = Box::new(Entry {
            customer: new.customer.clone(),
            customer_ref,
            began_at: today,
            stage: Stage::Waiting(Before::Open),
            expires: now,
            expires_at: today,
            texts: Arc::default(),
            count: 0,
            language: new.language,
            marks: Vec::new(),
            bytes,
        });
        match self.add(&mut entry, new, now, today) {
            Ok(pushed) => {
                shard.insert(new.dialogue.clone(), Slot::Here(entry));
                Ok(pushed)
            }
            Err(error) => {
                self.release(bytes);
                Err(error)
            }
        }
    }

    fn add(
        &self,
        entry: &mut Entry,
        new: &NewText<'_>,
        now: Steady,
        today: Timestamp,
    ) -> Result<Pushed, PushError> {
        if entry.customer != *new.customer {
            return Err(PushError::OtherCustomer);
        }
        match entry.stage {
            Stage::Waiting(Before::Open) => {}
            Stage::Waiting(Before::Unsure) => return Err(PushError::Unsure),
            Stage::Waiting(Before::Refused) => return Err(PushError::Decided),
            Stage::Deciding { .. } => return Err(PushError::Deciding),
        }
        if let Some(mark) = new.mark
            && let Some(known) = entry.marks.iter().find(|known| known.key == mark.key)
        {
            return match *known == mark {
                true => Ok(Pushed {
                    expires_at: entry.expires_at,
                    is_repeated: true,
                }),
                false => Err(PushError::KeyReused),
            };
        }
        if entry.count >= self.limits.texts_max {
            return Err(PushError::TooManyTexts(self.limits.texts_max));
        }
        let after = entry
            .texts
            .last()
            .map(|last| Timestamp(last.received_at().0 + 1));
        let received_at = after.map_or(today, |after| today.max(after));
        let text = Text::new(new.text, new.language, received_at);
        let bytes = TEXT_COST + text.bytes() + new.mark.map_or(0, |_| MARK_COST);
        self.reserve(bytes)?;
        entry.bytes += bytes;
        entry.count += 1;
        entry.marks.extend(new.mark);
        let texts = Arc::make_mut(&mut entry.texts);
        if texts.len() == texts.capacity() {
            // By half, since doubling would leave more room than dialogues of a few texts need.
            texts.reserve_exact(texts.len() / 2 + 2);
        }
        texts.push(text);
        entry.expires = now + self.limits.expiry;
        entry.expires_at = today + self.limits.expiry;
        Ok(Pushed {
            expires_at: entry.expires_at,
            is_repeated: false,
        })
    }

    fn look(&self, dialogue: &DialogId) -> Option<Look> {
        let now = self.clock.steady();
        let shard = self.shard(dialogue).lock();
        let Slot::Here(entry) = shard.get(dialogue)? else {
            return None;
        };
        let look = Look {
            state: match entry.stage {
                Stage::Deciding { .. } => State::Deciding,
                Stage::Waiting(Before::Open) => State::Open,
                Stage::Waiting(Before::Unsure) => State::Unsure,
                Stage::Waiting(Before::Refused) => State::Refused,
            },
            texts: entry.count,
            expires_at: entry.expires_at,
        };
        (!entry.has_expired(now)).then_some(look)
    }

    fn take(&self, dialogue: &DialogId) -> Take<impl Future<Output = ()> + use<>> {
        let now = self.clock.steady();
        let mut shard = self.shard(dialogue).lock();
        let Some(Slot::Here(entry)) = shard.get_mut(dialogue) else {
            return Take::Unknown;
        };
        if entry.has_expired(now) {
            return Take::Unknown;
        }
        let before = match &entry.stage {
            Stage::Waiting(before) => *before,
            // Made under the lock, so that it does not miss the wake-up.
            Stage::Deciding { settled, .. } => {
                return Take::Deciding(settled.clone().notified_owned());
            }
        };
        entry.stage = Stage::Deciding {
            before,
            settled: Arc::default(),
            is_dropped: false,
        };
        Take::Taken(entry.dialogue(dialogue), before)
    }

    fn settle(&self, dialogue: &DialogId, outcome: Outcome) {
        let now = self.clock.steady();
        let mut shard = self.shard(dialogue).lock();
        let Place::Occupied(mut place) = shard.entry(dialogue.clone()) else {
            return;
        };
        let Slot::Here(entry) = place.get_mut() else {
            return;
        };
        let Stage::Deciding {
            before,
            settled,
            is_dropped,
        } = &entry.stage
        else {
            return;
        };
        let (before, is_dropped) = (*before, *is_dropped);
        settled.notify_waiters();
        let after = match outcome {
            Outcome::Decided => {
                let decided = Slot::Decided {
                    until: now + DECIDED_KEPT,
                    customer_ref: entry.customer_ref,
                };
                return self.remember(place, decided);
            }
            Outcome::Gone => None,
            _ if is_dropped => None,
            // What has lost its texts can only be refused.
            _ if entry.texts.len() < entry.count => Some(Before::Refused),
            Outcome::Back => Some(before),
            Outcome::Unsure => Some(Before::Unsure),
            Outcome::Refused => Some(Before::Refused),
        };
        match after {
            Some(after) => {
                entry.stage = Stage::Waiting(after);
                if after == Before::Refused {
                    self.empty(entry);
                }
            }
            None => self.release(cost(dialogue, &place.remove())),
        }
    }

    fn remember(&self, mut place: OccupiedEntry<'_, DialogId, Slot>, decided: Slot) {
        let kept = cost(place.key(), &decided);
        let slot = std::mem::replace(place.get_mut(), decided);
        // A dialogue costs more than the memory of it.
        self.release(cost(place.key(), &slot) - kept);
    }

    fn drop_texts(&self, dialogue: &DialogId) {
        let mut shard = self.shard(dialogue).lock();
        if let Some(Slot::Here(entry)) = shard.get_mut(dialogue) {
            self.empty(entry);
        }
    }

    fn of_customer(&self, customer: CustomerRef) -> Vec<Dialogue> {
        let now = self.clock.steady();
        let mut found = Vec::new();
        for shard in &self.shards {
            for (id, slot) in &*shard.lock() {
                if let Slot::Here(entry) = slot
                    && entry.customer_ref == customer
                    && !entry.has_expired(now)
                {
                    found.push(entry.copy(id));
                }
            }
        }
        found
    }

    fn drop_customer(&self, customer: CustomerRef, until: Timestamp) -> Dropped {
        self.forget_decided(|_, whose| whose == customer);
        self.drop_where(|entry| entry.customer_ref == customer && entry.began_at <= until)
    }

    fn expire(&self) -> Dropped {
        let now = self.clock.steady();
        self.forget_decided(|until, _| until <= now);
        self.drop_where(|entry| entry.has_expired(now))
    }

    fn forget_decided(&self, is_meant: impl Fn(Steady, CustomerRef) -> bool) {
        for shard in &self.shards {
            shard.lock().retain(|id, slot| match slot {
                Slot::Decided {
                    until,
                    customer_ref,
                } if is_meant(*until, *customer_ref) => {
                    self.release(cost(id, slot));
                    false
                }
                _ => true,
            });
        }
    }

    fn drop_where(&self, is_meant: impl Fn(&Entry) -> bool) -> Dropped {
        let mut dropped = Dropped::default();
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|id, slot| {
                let entry = match slot {
                    Slot::Here(entry) if is_meant(entry) => entry,
                    _ => return true,
                };
                if let Stage::Deciding {
                    is_dropped: true, ..
                } = entry.stage
                {
                    return true;
                }
                if let Stage::Deciding { is_dropped, .. } = &mut entry.stage {
                    *is_dropped = true;
                    self.empty(entry);
                    return true;
                }
                dropped.dialogues += 1;
                dropped.texts += entry.texts.len();
                self.release(cost(id, slot));
                false
            });
            if shard.len() < shard.capacity() / 4 {
                shard.shrink_to_fit();
            }
        }
        dropped
    }

    /// Forgets the texts of a dialogue and what tells its requests apart.
    fn empty(&self, entry: &mut Entry) {
        let texts: usize = entry
            .texts
            .iter()
            .map(|text| TEXT_COST + text.bytes())
            .sum();
        let bytes = texts + entry.marks.len() * MARK_COST;
        entry.texts = Arc::default();
        entry.marks = Vec::new();
        entry.bytes -= bytes;
        self.release(bytes);
    }

    fn reserve(&self, bytes: usize) -> Result<(), PushError> {
        let more = |held: usize| {
            let held = held.checked_add(bytes)?;
            (held <= self.limits.bytes_max).then_some(held)
        };
        let order = Ordering::Relaxed;
        let reserved = self.bytes.fetch_update(order, order, more);
        reserved.map(drop).map_err(|_| PushError::Full)
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn cost(dialogue: &DialogId, slot: &Slot) -> usize {
    match slot {
        Slot::Here(entry) => entry.bytes,
        Slot::Decided { .. } => DECIDED_COST + dialogue.expose().len(),
    }
}

impl Entry {
    /// A dialogue that is being decided waits for that.
    fn has_expired(&self, now: Steady) -> bool {
        matches!(self.stage, Stage::Waiting(_)) && self.expires <= now
    }

    fn dialogue(&self, id: &DialogId) -> Dialogue {
        Dialogue {
            id: id.clone(),
            customer: self.customer.clone(),
            customer_ref: self.customer_ref,
            began_at: self.began_at,
            texts: self.texts.clone(),
            count: self.count,
            language: self.language,
        }
    }

    /// The same with texts of its own, so that more can be added here meanwhile.
    fn copy(&self, id: &DialogId) -> Dialogue {
        Dialogue {
            texts: Arc::new(self.texts.to_vec()),
            ..self.dialogue(id)
        }
    }
}

/// A dialogue of [`Memory`] that is being decided.
pub struct Held {
    buffer: Arc<Buffer>,
    dialogue: Dialogue,
    before: Before,
    /// What becomes of it when it is dropped.
    outcome: Outcome,
}

impl Held {
    fn new(buffer: &Arc<Buffer>, dialogue: Dialogue, before: Before) -> Self {
        Self {
            buffer: buffer.clone(),
            dialogue,
            before,
            outcome: match before {
                Before::Refused => Outcome::Refused,
                Before::Open | Before::Unsure => Outcome::Unsure,
            },
        }
    }
}

impl Hold for Held {
    fn dialogue(&self) -> &Dialogue {
        &self.dialogue
    }

    fn before(&self) -> Before {
        self.before
    }

    async fn drop_texts(&mut self) -> Result<(), Away> {
        self.buffer.drop_texts(&self.dialogue.id);
        self.dialogue.texts = Arc::default();
        self.outcome = Outcome::Refused;
        Ok(())
    }

    async fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The shard's are the only ones again before anybody can add to them.
        self.dialogue.texts = Arc::default();
        self.buffer.settle(&self.dialogue.id, self.outcome);
    }
}
