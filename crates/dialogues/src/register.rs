//! Every place that holds something of a customer: what an export shows of it, and what becomes of it
//! when they are erased. A test looks for tables that are missing here.

use crate::Export;

/// A place that holds something of a customer.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// The table, or `pending` for the buffer.
    pub place: &'static str,
    /// What stays there after an erasure, and why; `None` where nothing does.
    pub kept_because: Option<&'static str>,
    /// How much of it an export has.
    pub exported: fn(&Export) -> u64,
}

/// All of them. An export's texts are a stream; what it counts is told by [`Export::counts`].
pub const HOLDINGS: &[Holding] = &[
    Holding {
        place: "pending",
        kept_because: None,
        exported: |export| export.pending.len() as u64,
    },
    Holding {
        place: "dialogues_messages",
        kept_because: None,
        exported: |export| export.counts.texts,
    },
    Holding {
        place: "dialogues_dialogues",
        kept_because: None,
        exported: |export| export.dialogues.len() as u64,
    },
    Holding {
        place: "dialogues_keys",
        kept_because: None,
        exported: |export| u64::from(export.has_key),
    },
    Holding {
        place: "dialogues_consents",
        kept_because: Some(
            "that consent was asked for and given has to be shown; it holds no text, and the \
             customer's pseudonym alone",
        ),
        exported: |export| export.consents.len() as u64,
    },
    Holding {
        place: "dialogues_withdrawals",
        kept_because: Some(
            "readers learn by it what to delete from their copies; it holds pseudonyms alone",
        ),
        exported: |export| export.withdrawals.len() as u64,
    },
    Holding {
        place: "dialogues_erasures",
        kept_because: Some(
            "the receipt, by which a restored backup is cleansed; it holds pseudonyms alone",
        ),
        exported: |export| export.counts.erasures,
    },
];
