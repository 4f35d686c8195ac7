//! Texts as they come in, one by one.
//!
//! They are added on the thread of the connection, without the database. Only the first text of a
//! dialogue goes to the control runtime, to ask whether the dialogue is decided. There may be very many
//! in a second, so no axum router stands before them.

use std::sync::Arc;

use auspex_kernel::http::{error_responses, segment};
use auspex_kernel::idempotency::{IDEMPOTENCY_REPLAYED, IdempotencyParams, read_key, wrong_key};
use auspex_kernel::service::{Boxed, Handle};
use auspex_kernel::{ApiError, Caller, FieldError};
use axum::Json;
use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::bodies::{SentText, TextBody, read_whole};
use super::{Desk, TAG};
use crate::ids::{CustomerId, DialogId, NotAnId};
use crate::intake::IntakeError;
use crate::pending::{Away, Mark, NewText, PushError, Pushed};

/// How long a job should wait where the buffer is full, in seconds.
const FULL_RETRY_S: u64 = 5;
const UNSURE_RETRY_S: u64 = 1;
const AWAY_RETRY_S: u64 = 1;

/// A text waits for the decision about its dialogue.
#[derive(Serialize, ToSchema)]
pub(super) struct PendingView {
    #[schema(pattern = "^pending$", example = "pending")]
    status: &'static str,
    /// When the dialogue is forgotten if neither a text nor a decision follows
    #[schema(format = DateTime)]
    expires_at: String,
}

pub(super) struct PushErrors;

impl utoipa::IntoResponses for PushErrors {
    fn responses()
    -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
        error_responses(&[400, 401, 403, 408, 409, 413, 415, 422, 429, 500, 503])
    }
}

#[derive(OpenApi)]
#[openapi(paths(push_text))]
struct TextDocument;

#[derive(OpenApi)]
#[openapi(paths(push_message))]
struct MessageDocument;

/// Served under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::with_openapi(TextDocument::openapi())
}

pub(super) fn versioned_routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::with_openapi(MessageDocument::openapi())
}

/// Hand in a text
///
/// It waits in memory until the customer decides about its dialogue, and is never shown again before
/// they agree. The first text begins the dialogue; each one keeps it from being forgotten.
#[utoipa::path(
    post, path = "/data/{customerId}/{dialogId}", tag = TAG,
    params(
        ("customerId" = String, Path, description = "The customer: 1 to 128 bytes of UTF-8 without control characters", min_length = 1, max_length = 128),
        ("dialogId" = String, Path, description = "The dialogue, which belongs to one customer: 1 to 128 bytes of UTF-8 without control characters", min_length = 1, max_length = 128),
        IdempotencyParams,
    ),
    request_body(content(
        (TextBody = "application/json"),
        (TextBody = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "The text waits", body = PendingView), PushErrors),
    security(("api_key" = ["data:write"]), ("bearer" = ["data:write"]))
)]
pub(crate) fn push_text(desk: &Desk) -> Arc<dyn Handle> {
    Intake::new(desk, [1, 0])
}

/// Hand in a text of a dialogue
///
/// The same as `POST /data/{customerId}/{dialogId}`.
#[utoipa::path(
    post, path = "/customers/{customer_id}/dialogues/{dialog_id}/messages", tag = TAG,
    params(
        ("customer_id" = String, Path, description = "The customer: 1 to 128 bytes of UTF-8 without control characters", min_length = 1, max_length = 128),
        ("dialog_id" = String, Path, description = "The dialogue, which belongs to one customer: 1 to 128 bytes of UTF-8 without control characters", min_length = 1, max_length = 128),
        IdempotencyParams,
    ),
    request_body(content(
        (TextBody = "application/json"),
        (TextBody = "application/x-www-form-urlencoded"),
    )),
    responses((status = 200, description = "The text waits", body = PendingView), PushErrors),
    security(("api_key" = ["data:write"]), ("bearer" = ["data:write"]))
)]
pub(crate) fn push_message(desk: &Desk) -> Arc<dyn Handle> {
    Intake::new(desk, [3, 1])
}

/// Answers requests with a text.
struct Intake {
    desk: Desk,
    /// Which segments of the path are the ids of customer and dialogue, counted from its end.
    places: [usize; 2],
}

/// A text that owns what it refers to, so that it can go to another thread.
struct Text {
    customer: CustomerId,
    dialogue: DialogId,
    sent: SentText,
    mark: Option<Mark>,
}

impl Text {
    fn as_new(&self) -> NewText<'_> {
        NewText {
            customer: &self.customer,
            dialogue: &self.dialogue,
            text: &self.sent.text,
            language: self.sent.language,
            mark: self.mark,
        }
    }
}

impl Intake {
    fn new(desk: &Desk, places: [usize; 2]) -> Arc<Self> {
        let desk = desk.clone();
        Arc::new(Self { desk, places })
    }

    async fn push(&self, parts: &Parts, body: Body) -> Result<Response, ApiError> {
        let (desk, headers) = (&self.desk, &parts.headers);
        let (customer, dialogue) = self.ids(parts.uri.path())?;
        let body = read_whole(headers, body).await?;
        let caller = parts.extensions.get::<Arc<Caller>>();
        let caller = caller.expect("the edge knows who calls");
        let mark =
            read_key(headers)?.map(|key| desk.marks.mark(&caller.subject.to_string(), key, &body));
        let text = Text {
            customer,
            dialogue,
            sent: SentText::read(headers, &body, desk.text_bytes_max)?,
            mark,
        };
        let pushed = match desk.dialogues.add(text.as_new()).await {
            Err(PushError::Unknown) => {
                let dialogues = desk.dialogues.clone();
                let begin = async move { dialogues.begin(text.as_new()).await };
                desk.control.run(begin).await??
            }
            added => added?,
        };
        Ok(answer(&pushed))
    }

    /// Both ids, or what is wrong with each.
    fn ids(&self, path: &str) -> Result<(CustomerId, DialogId), ApiError> {
        let wrong = |field: &str| FieldError {
            field: field.to_owned(),
            message: NotAnId.to_string(),
        };
        let [Some(customer), Some(dialogue)] = self.places.map(|place| segment(path, place)) else {
            return Err(ApiError::validation(vec![wrong("(path)")]));
        };
        match (CustomerId::parse(&customer), DialogId::parse(&dialogue)) {
            (Ok(customer), Ok(dialogue)) => Ok((customer, dialogue)),
            (customer, dialogue) => {
                let customer = customer.is_err().then(|| wrong("customerId"));
                let dialogue = dialogue.is_err().then(|| wrong("dialogId"));
                Err(ApiError::validation(
                    customer.into_iter().chain(dialogue).collect(),
                ))
            }
        }
    }
}

impl Handle for Intake {
    fn handle(self: Arc<Self>, request: Request<Body>) -> Boxed<'static, Response> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let pushed = self.push(&parts, body).await;
            pushed.unwrap_or_else(ApiError::into_response)
        })
    }
}

fn answer(pushed: &Pushed) -> Response {
    let view = Json(PendingView {
        status: "pending",
        expires_at: pushed.expires_at.to_rfc3339(),
    });
    match pushed.is_repeated {
        true => {
            let replayed = [(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))];
            (replayed, view).into_response()
        }
        false => view.into_response(),
    }
}

impl From<PushError> for ApiError {
    fn from(error: PushError) -> Self {
        match error {
            PushError::OtherCustomer => Self::conflict(
                "the dialogue belongs to another customer; ids of dialogues must not repeat",
            ),
            PushError::Deciding => Self::conflict(
                "the customer decides about the dialogue at this moment; later texts need a new dialogue",
            ),
            PushError::Decided => {
                Self::conflict("the dialogue is decided; later texts need a new dialogue")
            }
            PushError::TooManyTexts(max) => Self::conflict(format!(
                "the dialogue has {max} texts, the most there may be; let the customer decide, and begin another"
            )),
            PushError::Unsure => Self::unavailable(
                "whether the dialogue is decided is not known at the moment; send the decision again, or ask GET /v1/dialogues/{dialog_id}",
                UNSURE_RETRY_S,
            ),
            PushError::Full => Self::unavailable(
                "too many texts wait for decisions; nothing that was accepted is dropped, so send this one again later",
                FULL_RETRY_S,
            ),
            PushError::Away => Self::unavailable(Away.to_string(), AWAY_RETRY_S),
            PushError::KeyReused => wrong_key("was used with another text before"),
            // `begin` adds it in any case.
            PushError::Unknown => Self::internal(error),
        }
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::Pending(error) => error.into(),
            IntakeError::Dialogues(error) => error.into(),
        }
    }
}
