//! The buffer in Redis, which replicas share: a dialogue may begin on one and be decided on another.
//!
//! Redis holds of each dialogue a head and a list of texts, encrypted under a key that is in the
//! database and not in Redis, by names that are keyed hashes. A change reads the head, decides here what
//! becomes of it (`head.rs`), and replaces it only if nobody else did so meanwhile (`swap.lua`); otherwise
//! it begins anew. So every race ends in Redis, as it ends in a lock in memory.
//!
//! What Redis loses is lost, as with a process that ends; what it cannot be asked for is told as
//! [`Away`]. A change that may have been carried out is not repeated: a text may then be there although
//! its sender was told that Redis is away, and is told apart by its `Idempotency-Key`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::clock::{Clock, Steady};
use auspex_kernel::redis::{Redis, Script, pipe};
use auspex_kernel::{Random, Timestamp};
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::head::{After, Head, Holder, Now, Stage};
use super::{
    Away, Before, Dialogue, Dropped, Held as Hold, Limits, Look, Marks, NewText, Outcome, Pending,
    PushError, Pushed, Size, Taken, Text,
};
use crate::ids::{CustomerRef, DialogId};
use crate::keys::Key;

/// Attempts to change a dialogue that others change at the same time.
const ATTEMPTS: usize = 100;
/// How long a decision waits for another one on the same dialogue, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// How many are dropped at once of those that are due.
const DUE_AT_ONCE: usize = 100;
/// Beyond the expiry, what nobody has dropped goes by itself.
const KEPT_BEYOND: Duration = Duration::from_hours(1);

/// The buffer in Redis. Clones are one buffer.
#[derive(Clone)]
pub struct Shared(Arc<Buffer>);

struct Buffer {
    redis: Redis,
    read: Script,
    swap: Script,
    key: Key,
    names: Hmac<Sha256>,
    limits: Limits,
    clock: Clock,
    random: Random,
    /// Whether deadlines go by the clock of Redis, which replicas share, and not by this one.
    is_on_redis_time: bool,
    patience: Duration,
    /// What was held at the last look.
    size: Mutex<Size>,
}

/// What is read of a dialogue.
struct Read {
    /// Empty: it is not there.
    version: Vec<u8>,
    head: Option<Head>,
    now: Now,
    texts: Vec<Vec<u8>>,
}

/// What a change adds to the texts of a dialogue, or takes from them.
enum Texts<'t> {
    Stay,
    Go,
    Get(&'t Text),
}

/// How a change ended.
enum Swapped {
    Done,
    /// Somebody else changed it meanwhile.
    Anew,
    Full,
}

impl Shared {
    /// Whether Redis may drop keys to make room.
    pub(crate) fn may_be_dropped(&self) -> bool {
        self.0.redis.may_evict()
    }

    /// The buffer that all have who know the secret. Deadlines go by the clock of Redis.
    pub fn new(
        redis: Redis,
        secret: &[u8; 32],
        limits: Limits,
        clock: Clock,
        random: Random,
    ) -> Self {
        Self(Arc::new(Buffer {
            redis,
            read: Script::new(include_str!("read.lua")),
            swap: Script::new(include_str!("swap.lua")),
            key: Key::from_bytes(&derived(secret, "texts")[..]).expect("32 bytes"),
            names: keyed(&derived(secret, "names")),
            limits,
            clock,
            random,
            is_on_redis_time: true,
            patience: PATIENCE,
            size: Mutex::default(),
        }))
    }

    /// The same with deadlines by its clock alone, and with little patience.
    #[cfg(test)]
    pub(super) fn by_clock(mut self, patience: Duration) -> Self {
        let buffer = Arc::get_mut(&mut self.0).expect("alone");
        (buffer.is_on_redis_time, buffer.patience) = (false, patience);
        self
    }

    /// Marks that all replicas make alike.
    pub fn marks(secret: &[u8; 32]) -> Marks {
        Marks::with_key(&derived(secret, "marks"))
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// A key of its own for each use of the secret.
fn derived(secret: &[u8; 32], purpose: &str) -> Zeroizing<[u8; 32]> {
    let mut mac = keyed(secret);
    mac.update(b"pending ");
    mac.update(purpose.as_bytes());
    Zeroizing::new(mac.finalize().into_bytes().into())
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Pending for Shared {
    type Held = Held;

    async fn push(
        &self,
        new: NewText<'_>,
        begin: Option<CustomerRef>,
    ) -> Result<Pushed, PushError> {
        let name = self.0.name_of(new.dialogue);
        // It would have to be told apart from what was never there.
        if self.0.redis.may_evict() {
            return Err(PushError::Away);
        }
        for _ in 0..ATTEMPTS {
            let read = self.0.read(&name, false).await?;
            let now = read.now;
            let here = read.head.map_or(After::Gone, |head| head.by(now));
            let (mut head, is_new) = match here {
                After::Here(head) => (head, false),
                After::Gone => {
                    let customer = begin.ok_or(PushError::Unknown)?;
                    (Head::new(&new, customer, now), true)
                }
            };
            let (pushed, text) = head.add(&new, &self.0.limits, now)?;
            let Some(text) = text else {
                return Ok(pushed);
            };
            let mut version = read.version.as_slice();
            if is_new && !version.is_empty() {
                // One that has expired makes room.
                match self.0.remove(&name, version, &head).await? {
                    Swapped::Done => version = &[],
                    Swapped::Anew | Swapped::Full => continue,
                }
            }
            match self
                .0
                .swap(&name, version, &head, Texts::Get(&text))
                .await?
            {
                Swapped::Done => return Ok(pushed),
                Swapped::Full => return Err(PushError::Full),
                Swapped::Anew => {}
            }
        }
        Err(PushError::Away)
    }

    async fn look(&self, dialogue: &DialogId) -> Result<Option<Look>, Away> {
        let read = self.0.read(&self.0.name_of(dialogue), false).await?;
        let head = read.head.map_or(After::Gone, |head| head.by(read.now));
        Ok(match head {
            After::Here(head) => head.look(),
            After::Gone => None,
        })
    }

    async fn take(&self, dialogue: &DialogId) -> Taken<Held> {
        let name = self.0.name_of(dialogue);
        let waiting = async {
            loop {
                match self.0.take(&name).await {
                    Ok(Some(taken)) => return taken.map_or(Taken::Unknown, Taken::Held),
                    Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
                    Err(Away) => return Taken::Away,
                }
            }
        };
        let waited = tokio::time::timeout(self.0.patience, waiting).await;
        waited.unwrap_or(Taken::Busy)
    }

    async fn of_customer(&self, customer: CustomerRef) -> Result<Vec<Dialogue>, Away> {
        let mut found = Vec::new();
        for name in self.0.names_of(customer).await? {
            let Read {
                head, now, texts, ..
            } = self.0.read(&name, true).await?;
            if let After::Here(head) = head.map_or(After::Gone, |head| head.by(now))
                && !matches!(head.stage, Stage::Decided)
                && head.customer_ref() == customer
            {
                found.extend(self.0.dialogue(&name, &head, texts));
            }
        }
        Ok(found)
    }

    async fn drop_customer(
        &self,
        customer: CustomerRef,
        until: Timestamp,
    ) -> Result<Dropped, Away> {
        let mut dropped = Dropped::default();
        for name in self.0.names_of(customer).await? {
            let change = |head: Head, now: Now| match head.by(now) {
                After::Here(head)
                    if head.customer_ref() == customer && head.began_at <= until.0 =>
                {
                    let counts = match head.stage {
                        Stage::Deciding { .. } => Dropped::default(),
                        Stage::Waiting(_) | Stage::Decided => counts(&head),
                    };
                    Some((head.dropped()?, counts))
                }
                After::Here(_) => None,
                After::Gone => Some((After::Gone, Dropped::default())),
            };
            dropped = dropped.plus(self.0.change(&name, change).await?);
        }
        Ok(dropped)
    }

    async fn expire(&self) -> Result<Dropped, Away> {
        let mut dropped = Dropped::default();
        loop {
            let due = self.0.due().await?;
            for name in &due {
                let change = |head: Head, now: Now| {
                    let (counts, due) = (counts(&head), head.due());
                    match head.by(now) {
                        After::Gone => Some((After::Gone, counts)),
                        // A decision whose replica has ended.
                        After::Here(head) if head.due() != due => {
                            Some((After::Here(head), Dropped::default()))
                        }
                        After::Here(_) => None,
                    }
                };
                dropped = dropped.plus(self.0.change(name, change).await?);
            }
            if due.len() < DUE_AT_ONCE {
                return Ok(dropped);
            }
        }
    }

    async fn size(&self) -> Size {
        let mut asked = pipe();
        asked.cmd("ZCARD").arg(self.0.redis.key("pending:due"));
        asked.cmd("GET").arg(self.0.redis.key("pending:cost"));
        let told = self.0.redis.query(&asked).await;
        let told = told.map(|(dialogues, bytes): (usize, Option<usize>)| Size {
            dialogues,
            bytes: bytes.unwrap_or(0),
        });
        let mut size = self.0.size.lock();
        *size = told.unwrap_or(*size);
        *size
    }
}

/// What is forgotten with a dialogue that goes.
fn counts(head: &Head) -> Dropped {
    match head.stage {
        Stage::Decided
        | Stage::Deciding {
            is_dropped: true, ..
        } => Dropped::default(),
        Stage::Waiting(_) | Stage::Deciding { .. } => Dropped {
            dialogues: 1,
            texts: head.texts,
        },
    }
}

impl Buffer {
    fn name(&self, kind: &str, id: &[u8]) -> String {
        let mut mac = self.names.clone();
        mac.update(kind.as_bytes());
        mac.update(id);
        let mac = mac.finalize().into_bytes();
        mac[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn name_of(&self, dialogue: &DialogId) -> String {
        self.name("dialogue ", dialogue.expose().as_bytes())
    }

    /// The key of the set of a customer's dialogues.
    fn customer_key(&self, customer: CustomerRef) -> String {
        let name = self.name("customer ", customer.as_bytes());
        self.redis.key(&format!("pending:customer:{name}"))
    }

    fn keys_of(&self, name: &str) -> [String; 2] {
        ["head", "texts"].map(|part| self.redis.key(&format!("pending:{part}:{name}")))
    }

    async fn names_of(&self, customer: CustomerRef) -> Result<Vec<String>, Away> {
        let mut asked = pipe();
        asked.cmd("SMEMBERS").arg(self.customer_key(customer));
        let (names,): (Vec<String>,) = self.redis.query(&asked).await?;
        Ok(names)
    }

    /// Those about which something is to be done.
    async fn due(&self) -> Result<Vec<String>, Away> {
        // Any dialogue tells the time.
        let now = self.read("", false).await?.now.shared.0;
        let mut asked = pipe();
        asked
            .cmd("ZRANGEBYSCORE")
            .arg(self.redis.key("pending:due"))
            .arg("-inf")
            .arg(now)
            .arg("LIMIT")
            .arg(0)
            .arg(DUE_AT_ONCE);
        let (names,): (Vec<String>,) = self.redis.query(&asked).await?;
        Ok(names)
    }

    async fn read(&self, name: &str, with_texts: bool) -> Result<Read, Away> {
        let [head, texts] = self.keys_of(name);
        let mut script = self.read.key(head);
        script.key(texts).arg(u8::from(with_texts));
        let (version, head, time, texts): (Vec<u8>, Vec<u8>, i64, Vec<Vec<u8>>) =
            self.redis.run(&script).await?;
        let opened = self.key.open(name.as_bytes(), head);
        Ok(Read {
            version,
            head: opened.and_then(|plain| serde_json::from_slice(&plain).ok()),
            now: Now {
                shared: match self.is_on_redis_time {
                    true => Steady(time),
                    false => self.clock.steady(),
                },
                date: self.clock.now(),
            },
            texts,
        })
    }

    /// Replaces a dialogue that is as it was read.
    async fn swap(
        &self,
        name: &str,
        version: &[u8],
        head: &Head,
        texts: Texts<'_>,
    ) -> Result<Swapped, Away> {
        let plain = Zeroizing::new(serde_json::to_vec(head).expect("a head is JSON"));
        let sealed = self.key.seal(&self.random, name.as_bytes(), &plain);
        let sealed = sealed.map_err(|_| Away)?;
        let place = head.texts.saturating_sub(1);
        let text = match &texts {
            Texts::Get(text) => {
                let context = text_context(name, place);
                let sealed = self.key.seal(&self.random, &context, &text.0);
                sealed.map_err(|_| Away)?
            }
            Texts::Stay | Texts::Go => Vec::new(),
        };
        let texts_go = matches!(texts, Texts::Go);
        self.call_swap(
            name,
            version,
            Some((head, sealed)),
            texts_go,
            text,
            head.customer_ref(),
        )
        .await
    }

    /// Removes a dialogue that is as it was read.
    async fn remove(&self, name: &str, version: &[u8], head: &Head) -> Result<Swapped, Away> {
        let customer = head.customer_ref();
        self.call_swap(name, version, None, true, Vec::new(), customer)
            .await
    }

    async fn call_swap(
        &self,
        name: &str,
        version: &[u8],
        head: Option<(&Head, Vec<u8>)>,
        texts_go: bool,
        text: Vec<u8>,
        customer: CustomerRef,
    ) -> Result<Swapped, Away> {
        let [head_key, texts_key] = self.keys_of(name);
        let next: Holder = self.random.bytes().map_err(|_| Away)?;
        let (cost, due, sealed) = match head {
            Some((head, sealed)) => (head.cost, head.due(), sealed),
            None => (0, 0, Vec::new()),
        };
        let kept = self.limits.expiry.saturating_add(KEPT_BEYOND);
        let mut script = self.swap.key(head_key);
        script.key(texts_key);
        for shared in ["due", "costs", "cost"] {
            script.key(self.redis.key(&format!("pending:{shared}")));
        }
        script
            .key(self.customer_key(customer))
            .arg(name)
            .arg(version)
            .arg(&next[..])
            .arg(sealed)
            .arg(cost)
            .arg(self.limits.bytes_max)
            .arg(due)
            .arg(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX >> 12))
            .arg(u8::from(texts_go))
            .arg(text);
        let swapped: i64 = self.redis.run(&script).await?;
        Ok(match swapped {
            1 => Swapped::Done,
            -1 => Swapped::Full,
            _ => Swapped::Anew,
        })
    }

    /// Changes a dialogue, or leaves it as it is; what `decide` says of the change that was made.
    async fn change<T: Default>(
        &self,
        name: &str,
        decide: impl Fn(Head, Now) -> Option<(After, T)>,
    ) -> Result<T, Away> {
        for _ in 0..ATTEMPTS {
            let Read {
                version, head, now, ..
            } = self.read(name, false).await?;
            let Some(head) = head else {
                self.forget(name, &version).await?;
                return Ok(T::default());
            };
            let (old, before) = (head.clone(), head.texts);
            let Some((after, told)) = decide(head, now) else {
                return Ok(T::default());
            };
            let swapped = match after {
                After::Here(head) => {
                    let texts = match head.texts < before {
                        true => Texts::Go,
                        false => Texts::Stay,
                    };
                    self.swap(name, &version, &head, texts).await?
                }
                After::Gone => self.remove(name, &version, &old).await?,
            };
            if let Swapped::Done = swapped {
                return Ok(told);
            }
        }
        Err(Away)
    }

    /// Of what is not there any more, or cannot be read, nothing is left.
    async fn forget(&self, name: &str, version: &[u8]) -> Result<(), Away> {
        let nobody = CustomerRef::from_bytes(&[0; 16]).expect("16 bytes");
        let removing = self.call_swap(name, version, None, true, Vec::new(), nobody);
        removing.await.map(drop)
    }

    /// `None`: somebody else decides it, or changed it; `Some(None)`: it is not here.
    async fn take(self: &Arc<Self>, name: &str) -> Result<Option<Option<Held>>, Away> {
        let Read {
            version,
            head,
            now,
            texts,
        } = self.read(name, true).await?;
        let After::Here(head) = head.map_or(After::Gone, |head| head.by(now)) else {
            return Ok(Some(None));
        };
        let before = match head.stage {
            Stage::Waiting(before) => before,
            Stage::Deciding { .. } => return Ok(None),
            Stage::Decided => return Ok(Some(None)),
        };
        let Some(dialogue) = self.dialogue(name, &head, texts) else {
            return Ok(Some(None));
        };
        let holder: Holder = self.random.bytes().map_err(|_| Away)?;
        let head = head.held(before, holder, now);
        match self.swap(name, &version, &head, Texts::Stay).await? {
            Swapped::Done => {}
            Swapped::Anew | Swapped::Full => return Ok(None),
        }
        Ok(Some(Some(Held {
            buffer: self.clone(),
            name: name.to_owned(),
            holder,
            outcome: match before {
                Before::Refused => Outcome::Refused,
                Before::Open | Before::Unsure => Outcome::Unsure,
            },
            dialogue,
            before,
            is_settled: false,
        })))
    }

    /// `None` if it was changed by somebody without the key.
    fn dialogue(&self, name: &str, head: &Head, texts: Vec<Vec<u8>>) -> Option<Dialogue> {
        let (id, customer, language) = head.ids()?;
        let open = |(place, sealed): (usize, Vec<u8>)| {
            let plain = self.key.open(&text_context(name, place), sealed)?;
            Text::read(&plain)
        };
        // A list that is longer or shorter than it should be is another one.
        let texts: Vec<Text> = texts.into_iter().enumerate().map_while(open).collect();
        (texts.len() == head.texts).then(|| Dialogue {
            id,
            customer,
            customer_ref: head.customer_ref(),
            began_at: Timestamp(head.began_at),
            texts: Arc::new(texts),
            count: head.count,
            language,
        })
    }

    async fn settle(&self, name: &str, holder: Holder, outcome: Outcome) -> Result<(), Away> {
        let settled = |head: Head, now: Now| Some((head.settled(holder, outcome, now)?, ()));
        self.change(name, settled).await
    }
}

/// A text opens at its place in its dialogue alone.
fn text_context(name: &str, place: usize) -> Vec<u8> {
    format!("{name} {place}").into_bytes()
}

/// A dialogue of [`Shared`] that is being decided.
pub struct Held {
    buffer: Arc<Buffer>,
    name: String,
    holder: Holder,
    dialogue: Dialogue,
    before: Before,
    /// What becomes of it when it is dropped.
    outcome: Outcome,
    is_settled: bool,
}

impl Hold for Held {
    fn dialogue(&self) -> &Dialogue {
        &self.dialogue
    }

    fn before(&self) -> Before {
        self.before
    }

    async fn drop_texts(&mut self) -> Result<(), Away> {
        let holder = self.holder;
        let emptied = |mut head: Head, _: Now| {
            let is_held = head.is_held_by(holder);
            head.empty();
            is_held.then_some((After::Here(head), true))
        };
        let is_done = self.buffer.change(&self.name, emptied).await?;
        self.dialogue.texts = Arc::default();
        self.outcome = Outcome::Refused;
        // Otherwise somebody else decides by now, or it is gone, and its texts with it.
        match is_done || !self.buffer.is_here(&self.name).await? {
            true => Ok(()),
            false => Err(Away),
        }
    }

    async fn settle(mut self, outcome: Outcome) {
        self.outcome = outcome;
        self.is_settled = true;
        // What is not settled is settled by time.
        let _ = self.buffer.settle(&self.name, self.holder, outcome).await;
    }
}

impl Buffer {
    async fn is_here(&self, name: &str) -> Result<bool, Away> {
        Ok(self.read(name, false).await?.head.is_some())
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let (buffer, name) = (self.buffer.clone(), std::mem::take(&mut self.name));
        let (holder, outcome) = (self.holder, self.outcome);
        let control = buffer.redis.control().clone();
        control.spawn(async move {
            let _ = buffer.settle(&name, holder, outcome).await;
        });
    }
}
