//! All that is held of a person, for that person.

use std::collections::HashMap;

use auspex_kernel::audit::Actor;
use auspex_kernel::page::Slice;

use crate::audit::{Action, Event};
use crate::error::DialoguesError;
use crate::ids::CustomerRef;
use crate::pending::{Dialogue, Pending as _};
use crate::types::{Consent, DecidedDialogue, MessageFilter, RealIds, Receipt, Withdrawal};
use crate::{Dialogues, MessageStream, store};

const READ_AT_ONCE: u64 = 1_000;

/// All that is held of a customer but their texts, which may be many and so are a stream.
pub struct Export {
    /// Dialogues that were decided, with the ids that the chatbot sent where they are held.
    pub dialogues: Vec<(DecidedDialogue, Option<RealIds>)>,
    /// The record of decisions.
    pub consents: Vec<Consent>,
    /// What readers were told to delete.
    pub withdrawals: Vec<Withdrawal>,
    /// Receipts of erasures.
    pub erasures: Vec<Receipt>,
    /// What is not in a list above.
    pub counts: ExportCounts,
    /// Whether a key is held.
    pub has_key: bool,
    /// Dialogues that wait for a decision, with their texts.
    pub pending: Vec<Dialogue>,
    /// Their texts, newest first.
    pub messages: MessageStream,
}

/// How many there are of what an export does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportCounts {
    /// Texts that are kept.
    pub texts: u64,
    /// Erasures and withdrawals that are noted, those with a receipt included.
    pub erasures: u64,
}

impl Dialogues {
    /// Everything that is held of a customer. It is recorded first.
    ///
    /// # Errors
    /// [`DialoguesError::Keys`], [`DialoguesError::Database`].
    pub async fn export(
        &self,
        actor: &Actor,
        customer: CustomerRef,
    ) -> Result<Export, DialoguesError> {
        let core = &*self.core;
        let event = Event::new(Action::CustomerExport, format!("customer:{customer}"));
        core.record(actor, event).await?;
        let keys = core.keys.get_all(std::iter::once(customer)).await?;
        let key = keys.get(&customer);
        let mut dialogues = Vec::new();
        let mut after = None;
        loop {
            let some = core.db.read(async |connection| {
                let count = READ_AT_ONCE;
                store::dialogues::of_customer(connection, customer, None, after, count).await
            });
            let some = some.await?;
            let Some(last) = some.last() else { break };
            after = Some(last.decided.dialogue);
            let all = some.iter().map(|row| row.decided.dialogue);
            let sealed = core
                .db
                .read(async |connection| store::dialogues::sealed_ids(connection, all).await);
            let mut sealed: HashMap<_, _> = sealed.await?.into_iter().collect();
            for row in some {
                let dialogue = row.decided.dialogue;
                let ids = key.zip(sealed.remove(&dialogue));
                let ids = ids.and_then(|(key, sealed)| core.open_ids(key, dialogue, sealed));
                dialogues.push((row.decided, ids));
            }
        }
        let filter = MessageFilter {
            customer: Some(customer),
            ..MessageFilter::default()
        };
        Ok(Export {
            dialogues,
            consents: self.all_consents(customer).await?,
            withdrawals: self.all_withdrawals(customer).await?,
            erasures: self.all_receipts(customer).await?,
            counts: ExportCounts {
                texts: self.count_texts(customer).await?,
                erasures: self.count_erasures(customer).await?,
            },
            has_key: key.is_some(),
            pending: self.pending.of_customer(customer).await?,
            messages: self.stream_unrecorded(filter, true),
        })
    }

    async fn all_consents(&self, customer: CustomerRef) -> Result<Vec<Consent>, DialoguesError> {
        let mut all: Vec<Consent> = Vec::new();
        loop {
            let slice = Slice::Seek {
                after: all.last().map(|consent| consent.id.0.to_string()),
                count: READ_AT_ONCE,
            };
            let read = self
                .core
                .db
                .read(async |connection| store::consents::page(connection, customer, slice).await);
            let (some, _) = read.await?;
            let is_last = (some.len() as u64) < READ_AT_ONCE;
            all.extend(some);
            if is_last {
                return Ok(all);
            }
        }
    }

    async fn all_withdrawals(
        &self,
        customer: CustomerRef,
    ) -> Result<Vec<Withdrawal>, DialoguesError> {
        let read = self
            .core
            .db
            .read(async |connection| store::withdrawals::of_customer(connection, customer).await);
        Ok(read.await?)
    }

    async fn count_texts(&self, customer: CustomerRef) -> Result<u64, DialoguesError> {
        let read = self
            .core
            .db
            .read(async |connection| store::messages::count(connection, customer).await);
        Ok(read.await?)
    }

    async fn count_erasures(&self, customer: CustomerRef) -> Result<u64, DialoguesError> {
        let read = self
            .core
            .keys
            .db
            .read(async |connection| store::keys::count_erasures(connection, customer).await);
        Ok(read.await?)
    }

    async fn all_receipts(&self, customer: CustomerRef) -> Result<Vec<Receipt>, DialoguesError> {
        let mut all: Vec<Receipt> = Vec::new();
        loop {
            let slice = Slice::Seek {
                after: all.last().map(Receipt::position),
                count: READ_AT_ONCE,
            };
            let (some, _) = self.receipts(Some(customer), slice).await?;
            let is_last = (some.len() as u64) < READ_AT_ONCE;
            all.extend(some);
            if is_last {
                return Ok(all);
            }
        }
    }
}
