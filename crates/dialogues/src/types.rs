//! What is stored of a dialogue, and what is told about it.

use std::fmt;

use auspex_kernel::Timestamp;
use zeroize::Zeroizing;

use crate::ids::{CustomerId, CustomerRef, DialogId, DialogueRef};

/// Crockford's base32, in the order of its ASCII codes.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// As stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            pub(crate) fn from_stored(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    )*};
}

words! {
    /// How a dialogue was decided.
    Status {
        /// Its texts are kept.
        Consented = "consented",
        /// Its texts were dropped.
        Refused = "refused",
        /// Its texts were deleted after a consent.
        Withdrawn = "withdrawn",
    }

    /// A line of the record of decisions.
    Decision {
        /// Texts may be kept.
        Granted = "granted",
        /// Texts may not be kept.
        Refused = "refused",
        /// Texts may not be kept any longer.
        Withdrawn = "withdrawn",
    }

    /// Why texts are gone.
    Reason {
        /// The customer withdrew their consent.
        Withdrawn = "withdrawn",
        /// The customer was erased.
        Erased = "erased",
        /// They had been kept as long as they may be.
        Expired = "expired",
    }
}

/// An id in the order in which things were made in this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub i64);

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |place: u32| char::from(ALPHABET[(self.0 >> (5 * place) & 31) as usize]);
        let text: String = (0..13).rev().map(digit).collect();
        f.pad(&text)
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a decision is recorded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Where the customer was asked.
    pub channel: String,
    /// Which text they agreed to.
    pub policy_version: String,
    /// What for.
    pub purpose: String,
}

/// A dialogue that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedDialogue {
    /// Its pseudonym.
    pub dialogue: DialogueRef,
    /// Whose it is.
    pub customer: CustomerRef,
    /// How it was decided.
    pub status: Status,
    /// How many texts were kept or dropped.
    pub texts: u64,
    /// When its first text came.
    pub began_at: Timestamp,
    /// When it was last decided.
    pub decided_at: Timestamp,
}

/// A line of the record of decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// In the order of time.
    pub id: RowId,
    /// Which dialogue.
    pub dialogue: DialogueRef,
    /// Whose it is.
    pub customer: CustomerRef,
    /// What was decided.
    pub decision: Decision,
    /// When.
    pub decided_at: Timestamp,
    /// Where, by which text, what for.
    pub statement: Statement,
}

/// A dialogue whose texts readers must delete from their copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// In the order of time.
    pub id: RowId,
    /// Which dialogue.
    pub dialogue: DialogueRef,
    /// Whose it was.
    pub customer: CustomerRef,
    /// Why.
    pub reason: Reason,
    /// When.
    pub at: Timestamp,
}

/// Which texts: those that meet every condition there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// A language tag in its canonical case, or a primary language for all of its tags.
    pub language: Option<String>,
    /// Of one customer.
    pub customer: Option<CustomerRef>,
    /// Of one dialogue.
    pub dialogue: Option<DialogueRef>,
    /// Received since, this moment included.
    pub from: Option<Timestamp>,
    /// Received before, this moment not included.
    pub to: Option<Timestamp>,
}

/// The ids as the chatbot sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealIds {
    /// Of the customer.
    pub customer: CustomerId,
    /// Of the dialogue.
    pub dialogue: DialogId,
}

/// A consented text.
#[derive(Clone)]
pub struct Message {
    /// In the order of receipt.
    pub id: RowId,
    /// Whose it is.
    pub customer: CustomerRef,
    /// Which dialogue it is part of.
    pub dialogue: DialogueRef,
    /// The ids, where they were asked for.
    pub ids: Option<RealIds>,
    /// Its language tag.
    pub language: String,
    /// What it was given for.
    pub purpose: String,
    /// What was said.
    pub text: Zeroizing<String>,
    /// When.
    pub received_at: Timestamp,
}

impl Message {
    /// How it is found again by the page after it.
    pub fn position(&self) -> String {
        position(self.received_at, self.id)
    }
}

/// Shows no text and no ids.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Withdrawal {
    /// How it is found again by the page after it.
    pub fn position(&self) -> String {
        position(self.at, self.id)
    }
}

/// The place of a row in a list by time.
pub(crate) fn position(at: Timestamp, id: RowId) -> String {
    format!("{}.{}", at.0, id.0)
}

/// Reads a place in a list by time.
pub(crate) fn parse_position(text: &str) -> Option<(Timestamp, RowId)> {
    let (at, id) = text.split_once('.')?;
    Some((Timestamp(at.parse().ok()?), RowId(id.parse().ok()?)))
}

/// What is known of an erasure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: [u8; 16],
    /// Who was erased.
    pub customer: CustomerRef,
    /// From when on nothing was readable.
    pub erased_at: Timestamp,
    /// When the rows were gone as well; `None` while that is going on.
    pub completed_at: Option<Timestamp>,
    /// Texts that were deleted.
    pub messages: u64,
    /// Dialogues that were deleted.
    pub dialogues: u64,
    /// Texts that were dropped before they were decided about.
    pub pending_texts: u64,
    /// Whether the logs of the databases were emptied before this was told.
    pub log_truncated: bool,
}

impl Receipt {
    /// The id as text.
    pub fn id_text(&self) -> String {
        self.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// How it is found again by the page after it.
    pub fn position(&self) -> String {
        format!("{}.{}", self.erased_at.0, self.id_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_ids_are_shown_in_their_order() {
        let ids = [0, 31, 32, 1 << 40, i64::MAX].map(RowId);
        let shown = ids.map(|id| id.to_string());
        assert!(shown.is_sorted(), "{shown:?}");
        assert!(shown.iter().all(|text| text.len() == 13));
    }

    #[test]
    fn positions_are_read_as_they_are_written() {
        let place = (Timestamp(-5), RowId(7));
        assert_eq!(parse_position(&position(place.0, place.1)), Some(place));
        assert_eq!(parse_position("5"), None);
        assert_eq!(parse_position("5.x"), None);
    }
}
