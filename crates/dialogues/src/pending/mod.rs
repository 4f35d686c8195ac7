//! Texts before consent: the one place that holds what nobody has allowed to be kept.
//!
//! [`Pending`] is the seam, [`Memory`] keeps everything in the memory of this process, [`Shared`] in a Redis that
//! replicas share; `contract.rs` says what either kind must do. A dialogue is here from its first text to its decision or its
//! expiry, and nothing of it is written anywhere. Every race ends here too: who decides a dialogue
//! takes it first, and until it is settled nobody else adds to it or decides it.
//!
//! ```text
//!            first text           take                settle
//!  (unknown) ──────────► open ───────────► deciding ──────────► decided, remembered for a minute
//!      ▲                  ▲ │ expiry                │
//!      └──────────────────┼─┘                       ├─► open again: nothing was recorded
//!                         └─────────────────────────┤
//!                                                   ├─► unsure: only the database knows
//!                                                   ├─► refused: the texts are gone, the record is to come
//!                                                   └─► (unknown): the customer was erased
//! ```
//!
//! Unsure and refused dialogues can be taken again, and expire like open ones.

#[cfg(test)]
mod contract;
mod either;
mod head;
mod mark;
mod memory;
#[cfg(test)]
mod model;
mod shared;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use auspex_kernel::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ids::{CustomerId, CustomerRef, DialogId};
use crate::language::Language;

pub use either::Buffer;
pub use mark::{Mark, Marks};
pub use memory::Memory;
pub use shared::Shared;

/// Where texts wait for consent.
pub trait Pending: Send + Sync + 'static {
    /// A dialogue that is being decided.
    type Held: Held;

    /// Adds a text. `begin` allows it to be the first one of its dialogue: the caller has asked the
    /// database whether the dialogue is decided.
    fn push(
        &self,
        new: NewText<'_>,
        begin: Option<CustomerRef>,
    ) -> impl Future<Output = Result<Pushed, PushError>> + Send;

    /// How a dialogue is; `None` where the database must be asked.
    fn look(&self, dialogue: &DialogId) -> impl Future<Output = Result<Option<Look>, Away>> + Send;

    /// Takes a dialogue in order to decide it. Waits a little for another decision to be settled.
    fn take(&self, dialogue: &DialogId) -> impl Future<Output = Taken<Self::Held>> + Send;

    /// Everything that is held of a customer, those being decided included.
    fn of_customer(
        &self,
        customer: CustomerRef,
    ) -> impl Future<Output = Result<Vec<Dialogue>, Away>> + Send;

    /// Forgets everything of a customer that began until then. A dialogue that is being decided does not come back, and is
    /// not counted: its decision says what became of its texts.
    fn drop_customer(
        &self,
        customer: CustomerRef,
        until: Timestamp,
    ) -> impl Future<Output = Result<Dropped, Away>> + Send;

    /// Forgets what has expired.
    fn expire(&self) -> impl Future<Output = Result<Dropped, Away>> + Send;

    /// How much is held.
    fn size(&self) -> impl Future<Output = Size> + Send;
}

/// The buffer cannot be reached; nobody knows whether what was asked of it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the texts that wait for consent cannot be reached at the moment; ask again")]
pub struct Away;

impl From<auspex_kernel::redis::Away> for Away {
    fn from(_: auspex_kernel::redis::Away) -> Self {
        Self
    }
}

impl From<Away> for PushError {
    fn from(_: Away) -> Self {
        Self::Away
    }
}

/// A dialogue that is being decided. Dropped without being settled it is as [`Outcome::Unsure`], or
/// as [`Outcome::Refused`] once its texts are dropped.
pub trait Held: Send {
    /// What it holds.
    fn dialogue(&self) -> &Dialogue;

    /// How it was before it was taken.
    fn before(&self) -> Before;

    /// Forgets the texts, here and in the buffer.
    fn drop_texts(&mut self) -> impl Future<Output = Result<(), Away>> + Send;

    /// Ends the decision.
    fn settle(self, outcome: Outcome) -> impl Future<Output = ()> + Send;
}

/// Bounds of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most texts of one dialogue.
    pub texts_max: usize,
    /// The most bytes that all dialogues take together, by a count that knows what texts cost beside
    /// themselves.
    pub bytes_max: usize,
    /// How long a dialogue waits for its next text or its decision.
    pub expiry: Duration,
}

/// A text to add.
#[derive(Clone, Copy)]
pub struct NewText<'t> {
    /// Whose it is.
    pub customer: &'t CustomerId,
    /// The dialogue that it belongs to.
    pub dialogue: &'t DialogId,
    /// What was said.
    pub text: &'t str,
    /// Its language.
    pub language: Language,
    /// Of the request's `Idempotency-Key`, if it has one.
    pub mark: Option<Mark>,
}

/// A text was added, or had been before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// When the dialogue expires if nothing follows.
    pub expires_at: Timestamp,
    /// Whether an equal request with the same `Idempotency-Key` had added it already.
    pub is_repeated: bool,
}

/// Why a text was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It would begin a dialogue, which the call did not allow.
    #[error("the dialogue is not in the buffer")]
    Unknown,
    /// The dialogue is another customer's.
    #[error("the dialogue belongs to another customer")]
    OtherCustomer,
    /// Somebody decides it at this moment.
    #[error("the dialogue is being decided")]
    Deciding,
    /// It is decided.
    #[error("the dialogue is decided")]
    Decided,
    /// It may be decided; the next decision finds out.
    #[error("whether the dialogue is decided is not known at the moment")]
    Unsure,
    /// It has as many texts as it may have.
    #[error("the dialogue has {0} texts already")]
    TooManyTexts(usize),
    /// There is no room for it; what is there stays.
    #[error("the buffer is full")]
    Full,
    /// The buffer cannot be reached.
    #[error("the buffer cannot be reached")]
    Away,
    /// The `Idempotency-Key` came with another body before.
    #[error("the Idempotency-Key was used with another body")]
    KeyReused,
}

/// How a dialogue is that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its state.
    pub state: State,
    /// How many texts it has, or had before it was refused.
    pub texts: usize,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// The state of a dialogue that is here. One that is decided is found in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Texts may be added.
    Open,
    /// A decision is being recorded.
    Deciding,
    /// A decision may have been recorded: the database knows.
    Unsure,
    /// It was refused and its texts are gone; the refusal is still to be recorded.
    Refused,
}

/// How a dialogue was before it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Before {
    /// Undecided.
    Open,
    /// A decision may have been recorded: ask the database before anything else.
    Unsure,
    /// It was refused, has no texts any more, and can only be recorded as such.
    Refused,
}

/// What came of taking a dialogue.
pub enum Taken<H> {
    /// It is the caller's until it is settled.
    Held(H),
    /// Another decision goes on for too long.
    Busy,
    /// It is not here: never was, has expired, or is decided as the database says.
    Unknown,
    /// The buffer cannot be reached.
    Away,
}

/// How a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is recorded.
    Decided,
    /// Nothing was recorded; all is as before.
    Back,
    /// Nobody knows whether it was recorded.
    Unsure,
    /// It was refused, and that is not recorded.
    Refused,
    /// It is to be forgotten.
    Gone,
}

/// What is held of a dialogue. `Debug` shows neither ids nor texts.
#[derive(Clone)]
pub struct Dialogue {
    /// Its id.
    pub id: DialogId,
    /// Whose it is.
    pub customer: CustomerId,
    /// The pseudonym of the customer.
    pub customer_ref: CustomerRef,
    /// When its first text came.
    pub began_at: Timestamp,
    /// The texts in the order in which they came; none once they are dropped.
    pub texts: Arc<Vec<Text>>,
    /// How many texts there are, or were before they were dropped.
    pub count: usize,
    /// The language of the first text.
    pub language: Language,
}

impl fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialogue").finish_non_exhaustive()
    }
}

/// One text. It is overwritten when it is dropped.
///
/// Its time, the length of its language, its language and what was said are one piece of memory, for
/// there may be a million of them.
#[derive(Clone)]
pub struct Text(Zeroizing<Box<[u8]>>);

const TIME_BYTES: usize = size_of::<i64>();

impl Text {
    /// What was said, in which language and when: later than those before it in its dialogue, whatever
    /// the wall clock did.
    pub fn new(said: &str, language: Language, received_at: Timestamp) -> Self {
        let (time, tag) = (received_at.0.to_le_bytes(), language.as_str());
        let length = [u8::try_from(tag.len()).expect("tags are short")];
        let parts = [&time[..], &length, tag.as_bytes(), said.as_bytes()];
        Self(Zeroizing::new(parts.concat().into_boxed_slice()))
    }

    /// From the bytes of another one; `None` if they are not that.
    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(TIME_BYTES..)?;
        let (length, rest) = rest.split_first()?;
        let (tag, said) = rest.split_at_checked(usize::from(*length))?;
        str::from_utf8(tag).ok()?;
        str::from_utf8(said).ok()?;
        Some(Self(Zeroizing::new(bytes.into())))
    }

    /// What was said.
    pub fn said(&self) -> &str {
        str::from_utf8(self.after_time().1).expect("made of a text")
    }

    /// Its language.
    pub fn language(&self) -> Language {
        let tag = str::from_utf8(self.after_time().0).expect("made of a tag");
        Language::canonical(tag)
    }

    /// When it came.
    pub fn received_at(&self) -> Timestamp {
        let time = self.0.first_chunk().expect("made with a time");
        Timestamp(i64::from_le_bytes(*time))
    }

    /// The bytes it takes, wherever it is kept.
    fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Its language and what was said.
    fn after_time(&self) -> (&[u8], &[u8]) {
        let length = usize::from(self.0[TIME_BYTES]);
        self.0[TIME_BYTES + 1..].split_at(length)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text").finish_non_exhaustive()
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Dialogues that were not decided.
    pub dialogues: usize,
    /// Their texts.
    pub texts: usize,
}

impl Dropped {
    fn plus(self, other: Self) -> Self {
        Self {
            dialogues: self.dialogues + other.dialogues,
            texts: self.texts + other.texts,
        }
    }
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Dialogues, those decided within the last minute included.
    pub dialogues: usize,
    /// What counts towards [`Limits::bytes_max`].
    pub bytes: usize,
}
