//! The routes: parse, call, render.

mod bodies;
mod customers;
mod decisions;
mod export;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod messages;
mod stream;
mod texts;

use auspex_kernel::http::{add_error_schemas, rename_unversioned};
use auspex_kernel::{Control, CursorKey};
use axum::extract::Extension;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::Dialogues;
use crate::pending::Marks;
use crate::types::Statement;

pub(crate) use texts::{push_message, push_text};

pub(crate) const TAG: &str = "dialogues";

/// They answer from memory, on the thread of the connection.
pub(crate) const TEXTS: [&str; 2] = ["push_text", "push_text_unversioned"];
/// The same by another path.
pub(crate) const MESSAGES: [&str; 1] = ["push_message"];
/// What jobs ask beside them, for every customer.
pub(crate) const DECISIONS: [&str; 4] = [
    "record_decision",
    "record_decision_unversioned",
    "record_consent",
    "get_dialogue",
];
/// They may go on for long.
pub(crate) const STREAMS: [&str; 6] = [
    "list_messages",
    "list_texts",
    "list_texts_unversioned",
    "list_data",
    "list_data_unversioned",
    "export_customer",
];

/// The longest body with a text of so many bytes: each may be an escape of six, and there is more beside
/// the text.
pub(crate) fn body_bytes_max(text_bytes_max: usize) -> usize {
    text_bytes_max.saturating_mul(6).saturating_add(1 << 10)
}

/// What the routes call.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) dialogues: Dialogues,
    pub(crate) marks: Marks,
    pub(crate) control: Control,
    pub(crate) text_bytes_max: usize,
    /// Whether every reader sees the ids of customers and dialogues.
    pub(crate) shows_ids: bool,
}

impl Desk {
    /// What a decision is recorded with: what was sent, else what is set.
    fn statement(&self, sent: bodies::SentTerms) -> Statement {
        let usual = self.dialogues.usual_statement();
        Statement {
            channel: sent.channel.unwrap_or(usual.channel),
            policy_version: sent.policy_version.unwrap_or(usual.policy_version),
            purpose: sent.purpose.unwrap_or(usual.purpose),
        }
    }
}

fn routes() -> OpenApiRouter<Desk> {
    let both = || {
        OpenApiRouter::new()
            .merge(texts::routes())
            .merge(decisions::routes())
            .merge(messages::routes())
    };
    let versioned = both()
        .merge(texts::versioned_routes())
        .merge(decisions::versioned_routes())
        .merge(messages::versioned_routes())
        .merge(customers::versioned_routes());
    let mut unversioned = both();
    rename_unversioned(unversioned.get_openapi_mut());
    let mut router = OpenApiRouter::new()
        .nest("/v1", versioned)
        .merge(unversioned);
    add_error_schemas(router.get_openapi_mut());
    router
}

/// The part of the OpenAPI document that describes these routes.
pub(crate) fn document() -> OpenApi {
    routes().into_openapi()
}

/// Every route of this service. `cursors` signs the pages of its lists.
pub(crate) fn router(desk: Desk, cursors: CursorKey) -> axum::Router {
    axum::Router::from(routes().with_state(desk)).layer(Extension(cursors))
}
