//! What customers may ask for: what is held of them, all of it, and that it is erased.

use auspex_kernel::fields::{Filters as _, text};
use auspex_kernel::http::{JSON, List, ListErrors, Requester, error_responses};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, FieldError, query_filters};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, OriginalUri, Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{ConsentBody, ConsentParams, DecisionBody, read_withdrawal};
use super::{Desk, TAG, export};
use crate::ids::{CustomerId, CustomerRef, NotAnId};
use crate::intake::Holdings;
use crate::types::{Consent, Receipt};

/// What is held of a customer.
#[derive(Serialize, ToSchema)]
pub(super) struct CustomerView {
    /// The customer's pseudonym
    customer: String,
    /// Dialogues that wait for a decision
    pending_dialogues: u64,
    /// Their texts
    pending_texts: u64,
    /// Dialogues whose texts are kept
    consented_dialogues: u64,
    /// Dialogues that were refused, of which the record has a line
    refused_dialogues: u64,
    /// Dialogues whose consent was withdrawn
    withdrawn_dialogues: u64,
    /// Texts that are kept
    texts: u64,
}

/// A line of the record of decisions, which holds no text.
#[derive(Serialize, ToSchema)]
pub(super) struct ConsentRecordView {
    id: String,
    /// The dialogue's pseudonym
    dialogue: String,
    /// The customer's pseudonym
    customer: String,
    #[schema(pattern = "^(granted|refused|withdrawn)$")]
    decision: &'static str,
    #[schema(format = DateTime)]
    decided_at: String,
    /// Where the customer was asked
    channel: String,
    /// The text that they agreed to
    policy_version: String,
    /// What for
    purpose: String,
}

impl From<Consent> for ConsentRecordView {
    fn from(consent: Consent) -> Self {
        Self {
            id: consent.id.to_string(),
            dialogue: consent.dialogue.to_string(),
            customer: consent.customer.to_string(),
            decision: consent.decision.as_str(),
            decided_at: consent.decided_at.to_rfc3339(),
            channel: consent.statement.channel,
            policy_version: consent.statement.policy_version,
            purpose: consent.statement.purpose,
        }
    }
}

type ConsentRecordList = List<ConsentRecordView>;

/// What a withdrawal of everything came to.
#[derive(Serialize, ToSchema)]
pub(super) struct WithdrawnView {
    /// The customer's pseudonym
    customer: String,
    /// Dialogues whose consent was withdrawn
    dialogues: u64,
    /// Texts that were deleted
    texts: u64,
    /// Texts that waited for a decision and were dropped
    pending_texts: u64,
    /// Whether the logs of the database files are free of the texts already; else that follows
    log_truncated: bool,
}

/// The receipt of an erasure.
#[derive(Serialize, ToSchema)]
pub(super) struct ErasureView {
    id: String,
    /// The customer's pseudonym
    customer: String,
    /// From when on nothing was readable
    #[schema(format = DateTime)]
    erased_at: String,
    /// When everything was deleted as well
    #[schema(format = DateTime)]
    completed_at: Option<String>,
    /// Dialogues that were deleted
    dialogues: u64,
    /// Texts that were deleted
    texts: u64,
    /// Texts that waited for a decision and were dropped
    pending_texts: u64,
    /// Whether the logs of the database files are free of the texts already; else that follows
    log_truncated: bool,
}

impl From<Receipt> for ErasureView {
    fn from(receipt: Receipt) -> Self {
        Self {
            id: receipt.id_text(),
            customer: receipt.customer.to_string(),
            erased_at: receipt.erased_at.to_rfc3339(),
            completed_at: receipt.completed_at.map(|at| at.to_rfc3339()),
            dialogues: receipt.dialogues,
            texts: receipt.messages,
            pending_texts: receipt.pending_texts,
            log_truncated: receipt.log_truncated,
        }
    }
}

type ErasureList = List<ErasureView>;

query_filters! {
    /// Which receipts.
    struct ErasureFilters {
        /// Of the customer with this pseudonym
        customer: String = text(1..=64),
    }
}

pub(super) struct CustomerErrors;

impl utoipa::IntoResponses for CustomerErrors {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        error_responses(&[400, 401, 403, 408, 413, 415, 422, 429, 500, 503])
    }
}

pub(super) fn versioned_routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(get_customer, erase_customer))
        .routes(routes!(list_customer_consents, withdraw_customer_consents))
        .routes(routes!(export_customer))
        .routes(routes!(list_erasures))
}

type Id = Result<Path<String>, PathRejection>;

impl Desk {
    /// The pseudonym of the customer that a path names.
    fn customer(&self, id: Id) -> Result<CustomerRef, ApiError> {
        let id = id.ok().and_then(|Path(id)| CustomerId::parse(&id).ok());
        let id = id.ok_or_else(|| {
            ApiError::validation(vec![FieldError {
                field: "customer_id".into(),
                message: NotAnId.to_string(),
            }])
        })?;
        Ok(self.dialogues.pseudonyms().customer(&id))
    }
}

/// Count what is held of a customer
#[utoipa::path(
    get, path = "/customers/{customer_id}", tag = TAG,
    params(("customer_id" = String, Path, description = "The customer", min_length = 1, max_length = 128)),
    responses((status = 200, description = "How much is held", body = CustomerView), CustomerErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn get_customer(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
) -> Result<Json<CustomerView>, ApiError> {
    let customer = desk.customer(id)?;
    let holdings = desk
        .dialogues
        .holdings(&requester.actor(), customer)
        .await?;
    let Holdings {
        stored,
        pending_dialogues,
        pending_texts,
    } = holdings;
    Ok(Json(CustomerView {
        customer: customer.to_string(),
        pending_dialogues,
        pending_texts,
        consented_dialogues: stored.consented,
        refused_dialogues: stored.refused,
        withdrawn_dialogues: stored.withdrawn,
        texts: stored.texts,
    }))
}

/// Erase a customer
///
/// Everywhere: what is kept, what waits, and the key without which copies in backups cannot be read. The
/// receipt, and the record of decisions, which has no text, stay under the pseudonym.
#[utoipa::path(
    delete, path = "/customers/{customer_id}", tag = TAG,
    params(("customer_id" = String, Path, description = "The customer", min_length = 1, max_length = 128)),
    responses((status = 200, description = "Erased; the receipt", body = ErasureView), CustomerErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn erase_customer(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
) -> Result<Json<ErasureView>, ApiError> {
    let customer = desk.customer(id)?;
    let receipt = desk.dialogues.erase(&requester.actor(), customer).await?;
    Ok(Json(receipt.into()))
}

/// List what a customer decided
///
/// The record of decisions, the oldest first; it holds no text.
#[utoipa::path(
    get, path = "/customers/{customer_id}/consents", tag = TAG,
    params(("customer_id" = String, Path, description = "The customer", min_length = 1, max_length = 128), PageParams),
    responses((status = 200, description = "One page of decisions", body = ConsentRecordList), ListErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn list_customer_consents(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    OriginalUri(uri): OriginalUri,
    RawQuery(query): RawQuery,
    requester: Requester,
    id: Id,
) -> Result<Response, ApiError> {
    let customer = desk.customer(id)?;
    let query = PageQuery::parse(&cursors, uri.path(), query.as_deref(), &[])?;
    let dialogues = &desk.dialogues;
    let actor = requester.actor();
    let found = dialogues.consents(&actor, customer, query.slice());
    let position = |consent: &Consent| consent.id.0.to_string();
    let list = ConsentRecordList::new(&query, found.await?, position, ConsentRecordView::from);
    Ok(list.answer_unkept())
}

/// Withdraw every consent of a customer
///
/// Deletes the texts of all dialogues and drops what waits for a decision. The body is `false`, or empty;
/// consent cannot be given for a whole customer.
#[utoipa::path(
    post, path = "/customers/{customer_id}/consents", tag = TAG,
    params(
        ("customer_id" = String, Path, description = "The customer", min_length = 1, max_length = 128),
        ConsentParams,
    ),
    request_body(content(
        (Option<DecisionBody> = "application/json"),
        (ConsentBody = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "Withdrawn", body = WithdrawnView), CustomerErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn withdraw_customer_consents(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<WithdrawnView>, ApiError> {
    let sent = read_withdrawal(&headers, body).await?;
    let customer = desk.customer(id)?;
    let statement = desk.statement(sent);
    let actor = requester.actor();
    let withdrawn = desk.dialogues.withdraw_all(&actor, customer, &statement);
    let withdrawn = withdrawn.await?;
    Ok(Json(WithdrawnView {
        customer: customer.to_string(),
        dialogues: withdrawn.dialogues,
        texts: withdrawn.texts,
        pending_texts: withdrawn.pending_texts,
        log_truncated: withdrawn.log_truncated,
    }))
}

/// Export everything that is held of a customer
///
/// For the person themselves: texts, kept and waiting, decisions, withdrawals and receipts, with the ids as
/// the chatbot sent them.
#[utoipa::path(
    get, path = "/customers/{customer_id}/export", tag = TAG,
    params(("customer_id" = String, Path, description = "The customer", min_length = 1, max_length = 128)),
    responses((status = 200, description = "Everything", body = export::ExportView), CustomerErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn export_customer(
    State(desk): State<Desk>,
    requester: Requester,
    id: Id,
) -> Result<Response, ApiError> {
    let customer = desk.customer(id)?;
    let held = desk.dialogues.export(&requester.actor(), customer).await?;
    let body = export::body(customer, held).await?;
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, JSON);
    let name = HeaderValue::from_static("attachment; filename=\"customer.json\"");
    head.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// List the receipts of erasures
///
/// The newest first.
#[utoipa::path(
    get, path = "/erasures", tag = TAG,
    params(PageParams, ErasureFilters),
    responses((status = 200, description = "One page of receipts", body = ErasureList), ListErrors),
    security(("api_key" = ["data:erase"]), ("bearer" = ["data:erase"]))
)]
async fn list_erasures(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (query, filters) = ErasureFilters::parse(&cursors, "/v1/erasures", query.as_deref())?;
    let customer = filters.customer.map(|text| {
        CustomerRef::parse(&text).ok_or_else(|| {
            ApiError::validation(vec![FieldError {
                field: "customer".into(),
                message: "must be a pseudonym, c_ and 26 characters".into(),
            }])
        })
    });
    let dialogues = &desk.dialogues;
    let found = dialogues.receipts(customer.transpose()?, query.slice());
    let list = ErasureList::new(&query, found.await?, Receipt::position, ErasureView::from);
    Ok(list.answer_unkept())
}
