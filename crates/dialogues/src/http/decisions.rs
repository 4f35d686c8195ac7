//! Decisions about dialogues, and how a dialogue stands.

use auspex_kernel::http::{ReadErrors, error_responses};
use auspex_kernel::{ApiError, Timestamp};
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::{ConsentBody, ConsentParams, DecisionBody, SentDecision, read_whole};
use super::{Desk, TAG};
use crate::error::DialoguesError;
use crate::ids::DialogId;
use crate::intake::Standing;
use crate::pending::State as PendingState;

/// What a decision came to.
#[derive(Serialize, ToSchema)]
pub(super) struct DecisionView {
    /// As it was sent
    dialog_id: String,
    /// Whether the texts are kept
    consent: bool,
    /// How many texts are kept, or were dropped or deleted
    texts: u64,
}

/// How a dialogue stands.
#[derive(Serialize, ToSchema)]
pub(super) struct DialogueView {
    /// As it was sent
    dialog_id: String,
    /// `pending`: texts may be added; `deciding`: a decision is being recorded; else what was decided
    #[schema(pattern = "^(pending|deciding|consented|refused|withdrawn)$")]
    status: &'static str,
    /// How many texts wait, are kept, or were dropped
    texts: u64,
    /// When it is forgotten if it is not decided
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// When it was decided last
    #[schema(format = DateTime)]
    decided_at: Option<String>,
}

pub(super) struct DecisionErrors;

impl utoipa::IntoResponses for DecisionErrors {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        error_responses(&[400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503])
    }
}

/// Served under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(record_decision))
}

pub(super) fn versioned_routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(record_consent))
        .routes(routes!(get_dialogue))
}

/// Record what the customer decided
///
/// `true`: all texts of the dialogue are kept, and durable when this is answered. `false`: they are
/// dropped; texts that were kept are deleted. The same decision again is answered the same. After
/// `false` there is no way back.
#[utoipa::path(
    post, path = "/consents/{dialogId}", tag = TAG,
    params(
        ("dialogId" = String, Path, description = "The dialogue", min_length = 1, max_length = 128),
        ConsentParams,
    ),
    request_body(content(
        (DecisionBody = "application/json"),
        (ConsentBody = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "It is recorded", body = DecisionView), DecisionErrors),
    security(("api_key" = ["data:write"]), ("bearer" = ["data:write"]))
)]
async fn record_decision(
    State(desk): State<Desk>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DecisionView>, ApiError> {
    record(&desk, id, &headers, body).await
}

/// Record a customer's consent or refusal
///
/// The same as `POST /consents/{dialogId}`.
#[utoipa::path(
    post, path = "/dialogues/{dialog_id}/consent", tag = TAG,
    params(
        ("dialog_id" = String, Path, description = "The dialogue", min_length = 1, max_length = 128),
        ConsentParams,
    ),
    request_body(content(
        (DecisionBody = "application/json"),
        (ConsentBody = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "It is recorded", body = DecisionView), DecisionErrors),
    security(("api_key" = ["data:write"]), ("bearer" = ["data:write"]))
)]
async fn record_consent(
    State(desk): State<Desk>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DecisionView>, ApiError> {
    record(&desk, id, &headers, body).await
}

async fn record(
    desk: &Desk,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Json<DecisionView>, ApiError> {
    let body = read_whole(headers, body).await?;
    let sent = SentDecision::read(headers, &body)?;
    let dialogue = read_id(id)?;
    let statement = desk.statement(sent.terms);
    let decided = desk
        .dialogues
        .decide(&dialogue, sent.consent, &statement)
        .await?;
    Ok(Json(DecisionView {
        dialog_id: dialogue.expose().to_owned(),
        consent: decided.consent,
        texts: decided.texts,
    }))
}

/// Show how a dialogue stands
///
/// For a job that was cut off: whether its texts still wait. It never shows a text. 404: no such
/// dialogue was begun, or it has expired, was erased, or was waiting in memory when the server restarted.
#[utoipa::path(
    get, path = "/dialogues/{dialog_id}", tag = TAG,
    params(("dialog_id" = String, Path, description = "The dialogue", min_length = 1, max_length = 128)),
    responses((status = 200, description = "How it stands", body = DialogueView), ReadErrors),
    security(("api_key" = ["data:write"]), ("bearer" = ["data:write"]))
)]
async fn get_dialogue(
    State(desk): State<Desk>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<DialogueView>, ApiError> {
    let dialogue = read_id(id)?;
    let standing = desk.dialogues.standing(&dialogue).await?;
    let standing = standing.ok_or(DialoguesError::Unknown)?;
    Ok(Json(DialogueView::new(&dialogue, &standing)))
}

impl DialogueView {
    fn new(id: &DialogId, standing: &Standing) -> Self {
        let dialog_id = id.expose().to_owned();
        match standing {
            Standing::Pending(look) => Self {
                dialog_id,
                status: match look.state {
                    PendingState::Open => "pending",
                    PendingState::Deciding | PendingState::Unsure => "deciding",
                    PendingState::Refused => "refused",
                },
                texts: look.texts as u64,
                expires_at: Some(look.expires_at.to_rfc3339()),
                decided_at: None,
            },
            Standing::Decided(decided) => Self {
                dialog_id,
                status: decided.status.as_str(),
                texts: decided.texts,
                expires_at: None,
                decided_at: Some(Timestamp::to_rfc3339(decided.decided_at)),
            },
        }
    }
}

/// An id that cannot be one belongs to no dialogue.
fn read_id(id: Result<Path<String>, PathRejection>) -> Result<DialogId, DialoguesError> {
    let Path(id) = id.map_err(|_| DialoguesError::Unknown)?;
    DialogId::parse(&id).map_err(|_| DialoguesError::Unknown)
}
