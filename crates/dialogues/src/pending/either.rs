//! The buffer that a server has: in its memory, or shared with its replicas.

use auspex_kernel::Timestamp;

use super::{
    Away, Before, Dialogue, Dropped, Held as Hold, Look, Memory, NewText, Outcome, Pending,
    PushError, Pushed, Shared, Size, Taken, memory, shared,
};
use crate::ids::{CustomerRef, DialogId};

/// Either kind.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// In the memory of this process.
    Memory(Memory),
    /// In Redis.
    Shared(Shared),
}

/// A dialogue of either kind that is being decided.
#[derive(Debug)]
pub enum Held {
    /// In the memory of this process.
    Memory(memory::Held),
    /// In Redis.
    Shared(shared::Held),
}

impl Pending for Buffer {
    type Held = Held;

    async fn push(
        &self,
        new: NewText<'_>,
        begin: Option<CustomerRef>,
    ) -> Result<Pushed, PushError> {
        match self {
            Self::Memory(buffer) => buffer.push(new, begin).await,
            Self::Shared(buffer) => buffer.push(new, begin).await,
        }
    }

    async fn look(&self, dialogue: &DialogId) -> Result<Option<Look>, Away> {
        match self {
            Self::Memory(buffer) => buffer.look(dialogue).await,
            Self::Shared(buffer) => buffer.look(dialogue).await,
        }
    }

    async fn take(&self, dialogue: &DialogId) -> Taken<Held> {
        match self {
            Self::Memory(buffer) => buffer.take(dialogue).await.map(Held::Memory),
            Self::Shared(buffer) => buffer.take(dialogue).await.map(Held::Shared),
        }
    }

    async fn of_customer(&self, customer: CustomerRef) -> Result<Vec<Dialogue>, Away> {
        match self {
            Self::Memory(buffer) => buffer.of_customer(customer).await,
            Self::Shared(buffer) => buffer.of_customer(customer).await,
        }
    }

    async fn drop_customer(
        &self,
        customer: CustomerRef,
        until: Timestamp,
    ) -> Result<Dropped, Away> {
        match self {
            Self::Memory(buffer) => buffer.drop_customer(customer, until).await,
            Self::Shared(buffer) => buffer.drop_customer(customer, until).await,
        }
    }

    async fn expire(&self) -> Result<Dropped, Away> {
        match self {
            Self::Memory(buffer) => buffer.expire().await,
            Self::Shared(buffer) => buffer.expire().await,
        }
    }

    async fn size(&self) -> Size {
        match self {
            Self::Memory(buffer) => buffer.size().await,
            Self::Shared(buffer) => buffer.size().await,
        }
    }
}

impl Hold for Held {
    fn dialogue(&self) -> &Dialogue {
        match self {
            Self::Memory(held) => held.dialogue(),
            Self::Shared(held) => held.dialogue(),
        }
    }

    fn before(&self) -> Before {
        match self {
            Self::Memory(held) => held.before(),
            Self::Shared(held) => held.before(),
        }
    }

    async fn drop_texts(&mut self) -> Result<(), Away> {
        match self {
            Self::Memory(held) => held.drop_texts().await,
            Self::Shared(held) => held.drop_texts().await,
        }
    }

    async fn settle(self, outcome: Outcome) {
        match self {
            Self::Memory(held) => held.settle(outcome).await,
            Self::Shared(held) => held.settle(outcome).await,
        }
    }
}

impl<H> Taken<H> {
    fn map<G>(self, kind: impl FnOnce(H) -> G) -> Taken<G> {
        match self {
            Self::Held(held) => Taken::Held(kind(held)),
            Self::Busy => Taken::Busy,
            Self::Unknown => Taken::Unknown,
            Self::Away => Taken::Away,
        }
    }
}
