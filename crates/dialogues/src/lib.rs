//! Texts of customers, kept only with their consent: pending until the customer decides, encrypted
//! and readable after a yes, gone after a no, a withdrawal or an erasure.
//!
//! No text, customer id or dialogue id ever reaches a log, a metric, an error or the audit record.
//! Those name customers and dialogues by their pseudonyms.

mod config;
mod ids;
#[expect(dead_code, reason = "the database of the keys comes next")]
mod keys;
mod language;
mod migration;
mod pending;
mod service;

pub use config::{
    Config, ConsentConfig, Hidden, LABEL_BYTES_MAX, PendingConfig, RetentionRule, StatisticsConfig,
    is_label,
};
pub use ids::{CustomerId, CustomerRef, DialogId, DialogueRef, ID_BYTES_MAX, NotAnId, Pseudonyms};
pub use language::{Language, NoLanguage};
pub use pending::{
    Before, Dialogue, Dropped, Held, Limits, Look, Mark, Marks, Memory, NewText, Outcome, Pending,
    PushError, Pushed, Size, State, Taken, Text,
};
pub use service::DialoguesService;
