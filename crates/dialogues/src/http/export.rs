//! Everything that is held of a person as one JSON document, which is written while it is read.

use axum::body::Body;
use serde::Serialize;
use utoipa::ToSchema;

use super::customers::{ConsentRecordView, ErasureView};
use super::messages::{MessageView, WithdrawalView};
use super::stream::{self, break_off};
use crate::error::DialoguesError;
use crate::export::Export;
use crate::ids::CustomerRef;
use crate::pending::Dialogue;

/// Everything that is held of a customer.
#[derive(Serialize, ToSchema)]
pub(super) struct ExportView {
    /// The customer's pseudonym, under which decisions and receipts are kept
    customer: String,
    /// Whether a key is held, under which their texts are encrypted
    has_key: bool,
    /// Dialogues that were decided
    dialogues: Vec<ExportedDialogueView>,
    /// The record of decisions
    consents: Vec<ConsentRecordView>,
    /// Dialogues whose texts readers were told to delete
    withdrawals: Vec<WithdrawalView>,
    /// Receipts of erasures
    erasures: Vec<ErasureView>,
    /// Texts that wait for a decision
    pending: Vec<PendingDialogueView>,
    /// Texts that are kept, newest first
    messages: Vec<MessageView>,
}

/// A dialogue that was decided.
#[derive(Serialize, ToSchema)]
#[schema(as = ExportedDialogue)]
pub(super) struct ExportedDialogueView {
    /// The dialogue's pseudonym
    dialogue: String,
    /// The customer as the chatbot calls them, where that is held
    customer_id: Option<String>,
    /// The dialogue as the chatbot calls it, where that is held
    dialog_id: Option<String>,
    #[schema(pattern = "^(consented|refused|withdrawn)$")]
    status: &'static str,
    /// How many texts were kept or dropped
    texts: u64,
    #[schema(format = DateTime)]
    began_at: String,
    #[schema(format = DateTime)]
    decided_at: String,
}

/// A dialogue that waits for a decision.
#[derive(Serialize, ToSchema)]
#[schema(as = PendingDialogue)]
pub(super) struct PendingDialogueView {
    customer_id: String,
    dialog_id: String,
    #[schema(format = DateTime)]
    began_at: String,
    texts: Vec<PendingTextView>,
}

/// A text that waits for a decision.
#[derive(Serialize, ToSchema)]
#[schema(as = PendingText)]
pub(super) struct PendingTextView {
    text: String,
    language: String,
    #[schema(format = DateTime)]
    received_at: String,
}

impl From<&Dialogue> for PendingDialogueView {
    fn from(dialogue: &Dialogue) -> Self {
        let texts = dialogue.texts.iter().map(|text| PendingTextView {
            text: text.said().to_owned(),
            language: text.language().to_string(),
            received_at: text.received_at().to_rfc3339(),
        });
        Self {
            customer_id: dialogue.customer.expose().to_owned(),
            dialog_id: dialogue.id.expose().to_owned(),
            began_at: dialogue.began_at.to_rfc3339(),
            texts: texts.collect(),
        }
    }
}

/// The document. Texts that are kept may be many, so they are written last and in blocks.
///
/// # Errors
/// Where the first texts cannot be read.
pub(super) async fn body(customer: CustomerRef, export: Export) -> Result<Body, DialoguesError> {
    let Export {
        dialogues,
        consents,
        withdrawals,
        erasures,
        has_key,
        pending,
        counts: _,
        mut messages,
    } = export;
    let dialogues = dialogues.into_iter().map(|(decided, ids)| {
        let real = ids.as_ref();
        ExportedDialogueView {
            dialogue: decided.dialogue.to_string(),
            customer_id: real.map(|ids| ids.customer.expose().to_owned()),
            dialog_id: real.map(|ids| ids.dialogue.expose().to_owned()),
            status: decided.status.as_str(),
            texts: decided.texts,
            began_at: decided.began_at.to_rfc3339(),
            decided_at: decided.decided_at.to_rfc3339(),
        }
    });
    let head = ExportView {
        customer: customer.to_string(),
        has_key,
        dialogues: dialogues.collect(),
        consents: consents.into_iter().map(ConsentRecordView::from).collect(),
        withdrawals: withdrawals.into_iter().map(WithdrawalView::from).collect(),
        erasures: erasures.into_iter().map(ErasureView::from).collect(),
        pending: pending.iter().map(PendingDialogueView::from).collect(),
        messages: Vec::new(),
    };
    let mut written = serde_json::to_vec(&head).unwrap_or_default();
    // Without the end of the list, which follows its texts.
    written.truncate(written.len() - END.len());
    let mut next = messages.next().await?;
    let (blocks, body) = stream::body();
    tokio::spawn(async move {
        let mut is_first = true;
        while let Some(some) = next {
            for message in some {
                if !std::mem::replace(&mut is_first, false) {
                    written.push(b',');
                }
                // A view is text, and it goes to memory.
                let _ = serde_json::to_writer(&mut written, &MessageView::from(message));
            }
            if blocks
                .send(Ok(std::mem::take(&mut written).into()))
                .await
                .is_err()
            {
                return;
            }
            next = match messages.next().await {
                Ok(next) => next,
                Err(error) => return break_off(&blocks, error).await,
            };
        }
        written.extend_from_slice(END);
        let _ = blocks.send(Ok(written.into())).await;
    });
    Ok(body)
}

/// The end of the document: `messages` is its last member.
const END: &[u8] = b"]}";
