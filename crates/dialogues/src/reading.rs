//! Reading what customers allowed: pages for people and programs, and everything that matches in
//! short reads, none of which holds a snapshot of the database open.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use auspex_kernel::audit::Actor;
use auspex_kernel::page::{Found, Slice};
use tokio::task::JoinHandle;

use crate::Dialogues;
use crate::audit::{Action, Event};
use crate::core::{Core, Shared};
use crate::error::DialoguesError;
use crate::ids::{CustomerRef, DialogueRef};
use crate::keys::CustomerKey;
use crate::store;
use crate::store::messages::Row;
use crate::types::{Consent, Message, MessageFilter, RealIds, Status, position};

/// Rows of one read of a stream. The next ones are read while these are decrypted, and texts may be long.
const STREAMED_AT_ONCE: u64 = 1_000;
/// Dialogues asked for in one statement.
const ASKED_AT_ONCE: usize = 500;

/// How much is held of a customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldCounts {
    /// Dialogues whose texts are kept.
    pub consented: u64,
    /// Dialogues whose texts were refused.
    pub refused: u64,
    /// Dialogues whose texts were withdrawn.
    pub withdrawn: u64,
    /// Texts that are kept.
    pub texts: u64,
}

impl Dialogues {
    /// Texts that match, newest first. With `identify` they come with the ids that the chatbot
    /// sent. What is read is recorded before.
    ///
    /// # Errors
    /// [`DialoguesError::Keys`], [`DialoguesError::Database`].
    pub async fn messages(
        &self,
        actor: &Actor,
        filter: &MessageFilter,
        slice: Slice,
        identify: bool,
    ) -> Result<Found<Message>, DialoguesError> {
        let event = reading(Action::MessagesRead, filter, identify);
        self.core.record(actor, event).await?;
        self.core.page(filter, slice, identify).await
    }

    /// Everything that matches, newest first, block by block. It is recorded first.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn stream(
        &self,
        actor: &Actor,
        filter: MessageFilter,
        identify: bool,
    ) -> Result<MessageStream, DialoguesError> {
        let event = reading(Action::MessagesExport, &filter, identify);
        self.core.record(actor, event).await?;
        Ok(self.stream_unrecorded(filter, identify))
    }

    pub(crate) fn stream_unrecorded(&self, filter: MessageFilter, identify: bool) -> MessageStream {
        MessageStream {
            core: Shared::clone(&self.core),
            filter,
            identify,
            next: Next::First,
            ahead: None,
        }
    }

    /// How much is held of a customer.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn held(
        &self,
        actor: &Actor,
        customer: CustomerRef,
    ) -> Result<HeldCounts, DialoguesError> {
        let event = Event::new(Action::CustomerRead, format!("customer:{customer}"));
        self.core.record(actor, event).await?;
        let read = self.core.db.read(async |connection| {
            let count = async |status| store::dialogues::count(connection, customer, status).await;
            Ok::<_, DialoguesError>(HeldCounts {
                consented: count(Status::Consented).await?,
                refused: count(Status::Refused).await?,
                withdrawn: count(Status::Withdrawn).await?,
                texts: store::messages::count(connection, customer).await?,
            })
        });
        read.await
    }

    /// The decisions of a customer, the oldest first. A line's id is its position.
    ///
    /// # Errors
    /// [`DialoguesError::Database`].
    pub async fn consents(
        &self,
        actor: &Actor,
        customer: CustomerRef,
        slice: Slice,
    ) -> Result<Found<Consent>, DialoguesError> {
        let event = Event::new(Action::CustomerRead, format!("customer:{customer}"));
        self.core.record(actor, event).await?;
        let read = self
            .core
            .db
            .read(async |connection| store::consents::page(connection, customer, slice).await);
        Ok(read.await?)
    }
}

fn reading(action: Action, filter: &MessageFilter, identify: bool) -> Event {
    let target = match (filter.customer, filter.dialogue) {
        (_, Some(dialogue)) => format!("dialogue:{dialogue}"),
        (Some(customer), None) => format!("customer:{customer}"),
        (None, None) => "messages".to_owned(),
    };
    let event = Event::new(action, target);
    match identify {
        true => event.with("identified"),
        false => event,
    }
}

/// All texts that match.
pub struct MessageStream {
    core: Shared,
    filter: MessageFilter,
    identify: bool,
    next: Next,
    /// The rows after those that were asked for last, on their way.
    ahead: Option<JoinHandle<Result<Vec<Row>, DialoguesError>>>,
}

enum Next {
    First,
    After(String),
    Nothing,
}

impl MessageStream {
    /// The next texts; `None` after the last. Call it on the control runtime.
    ///
    /// # Errors
    /// [`DialoguesError::Keys`], [`DialoguesError::Database`]; the next call tries the same again.
    pub async fn next(&mut self) -> Result<Option<Vec<Message>>, DialoguesError> {
        loop {
            let ahead = match self.ahead.take() {
                Some(ahead) => ahead.await.ok(),
                None => None,
            };
            let rows = match (ahead, &self.next) {
                (Some(rows), _) => rows?,
                (None, Next::First) => self.read(None).await?,
                (None, Next::After(place)) => self.read(Some(place.clone())).await?,
                (None, Next::Nothing) => return Ok(None),
            };
            let last = rows
                .last()
                .filter(|_| rows.len() as u64 == STREAMED_AT_ONCE);
            let next = last.map(|row| position(row.received_at, row.id));
            let ahead = next
                .clone()
                .map(|place| tokio::spawn(self.read(Some(place))));
            let messages = self.core.open(rows, self.identify).await?;
            self.next = next.map_or(Next::Nothing, Next::After);
            self.ahead = ahead;
            if !messages.is_empty() {
                return Ok(Some(messages));
            }
        }
    }

    fn read(
        &self,
        after: Option<String>,
    ) -> impl Future<Output = Result<Vec<Row>, DialoguesError>> + Send + 'static {
        let (core, filter) = (Shared::clone(&self.core), self.filter.clone());
        let count = STREAMED_AT_ONCE;
        async move { Ok(core.rows(&filter, Slice::Seek { after, count }).await?.0) }
    }
}

impl Core {
    async fn rows(
        &self,
        filter: &MessageFilter,
        slice: Slice,
    ) -> Result<Found<Row>, DialoguesError> {
        let read = self
            .db
            .read(async |connection| store::messages::page(connection, filter, slice).await);
        Ok(read.await?)
    }

    /// A page, made good for rows that cannot be read: those are never more than an erasure leaves
    /// for a moment, or a restored backup until the erasures are replayed.
    async fn page(
        &self,
        filter: &MessageFilter,
        slice: Slice,
        identify: bool,
    ) -> Result<Found<Message>, DialoguesError> {
        let Slice::Seek { mut after, count } = slice else {
            let (rows, total) = self.rows(filter, slice).await?;
            return Ok((self.open(rows, identify).await?, total));
        };
        let mut messages = Vec::new();
        loop {
            let missing = count - messages.len() as u64;
            let slice = Slice::Seek {
                after,
                count: missing,
            };
            let (rows, _) = self.rows(filter, slice).await?;
            let is_last = (rows.len() as u64) < missing;
            after = rows.last().map(|row| position(row.received_at, row.id));
            messages.extend(self.open(rows, identify).await?);
            if is_last || messages.len() as u64 == count {
                return Ok((messages, 0));
            }
        }
    }

    /// Decrypts rows. Those whose key is gone are left out.
    async fn open(&self, rows: Vec<Row>, identify: bool) -> Result<Vec<Message>, DialoguesError> {
        let keys = self
            .keys
            .get_all(rows.iter().map(|row| row.customer))
            .await?;
        let ids = match identify {
            true => self.ids(&rows, &keys).await?,
            false => HashMap::new(),
        };
        let count = rows.len();
        let open = |row: Row| {
            let key = keys.get(&row.customer);
            let key = key.filter(|key| key.id[..] == row.key_id[..])?;
            Some(Message {
                id: row.id,
                customer: row.customer,
                dialogue: row.dialogue,
                ids: ids.get(&row.dialogue).cloned(),
                language: row.language,
                purpose: row.purpose,
                text: key.open_text(row.id, row.dialogue, row.sealed)?,
                received_at: row.received_at,
            })
        };
        let messages: Vec<Message> = rows.into_iter().filter_map(open).collect();
        self.note_unreadable(count - messages.len());
        Ok(messages)
    }

    /// The ids of the dialogues of some rows, those of each dialogue decrypted once.
    async fn ids(
        &self,
        rows: &[Row],
        keys: &HashMap<CustomerRef, Arc<CustomerKey>>,
    ) -> Result<HashMap<DialogueRef, RealIds>, DialoguesError> {
        let customers = rows.iter().map(|row| (row.dialogue, row.customer));
        let customers: BTreeMap<_, _> = customers.collect();
        let dialogues: Vec<_> = customers.keys().copied().collect();
        let mut ids = HashMap::new();
        for some in dialogues.chunks(ASKED_AT_ONCE) {
            let read = self.db.read(async |connection| {
                store::dialogues::sealed_ids(connection, some.iter().copied()).await
            });
            for (dialogue, sealed) in read.await? {
                let key = keys.get(&customers[&dialogue]);
                let opened = key.and_then(|key| self.open_ids(key, dialogue, sealed));
                ids.extend(opened.map(|opened| (dialogue, opened)));
            }
        }
        Ok(ids)
    }
}
