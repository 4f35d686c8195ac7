//! Consented texts: pages for programs, everything that matches as a stream, and counts.

use auspex_kernel::fields::{Filters as _, one_of, text, timestamp};
use auspex_kernel::http::{CSV, List, ListErrors, Requester, preferred};
use auspex_kernel::page::PageParams;
use auspex_kernel::{ApiError, CursorKey, FieldErrors, Scope, Timestamp, query_filters};
use axum::extract::{Extension, OriginalUri, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bodies::Tag;
use super::stream::{self, Form};
use super::{Desk, TAG};
use crate::ids::{CustomerId, CustomerRef, DialogId, DialogueRef};
use crate::statistics::DayCounts;
use crate::types::{Message, MessageFilter, Withdrawal};

const NDJSON_TYPE: &str = "application/x-ndjson";
const FORMS: [(&str, Form); 3] = [
    (NDJSON_TYPE, Form::Ndjson),
    ("text/csv", Form::Csv),
    ("application/json", Form::Json),
];
/// Statistics are kept in memory while they are cut into pages.
const DAYS_MAX: u64 = 400;
const DAYS_USUAL: u64 = 31;
const DAY_S: u64 = 24 * 60 * 60;

/// A text that its customer has allowed to be kept.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageView {
    /// In the order of receipt
    id: String,
    /// The customer as the chatbot calls them, for callers with `data:identify`; else the pseudonym
    customer_id: String,
    /// The dialogue as the chatbot calls it, for callers with `data:identify`; else the pseudonym
    dialog_id: String,
    /// The customer's pseudonym
    #[schema(example = "c_2rm9z1q8x6w0f4t3v7k5n1y0hd")]
    customer: String,
    /// The dialogue's pseudonym
    #[schema(example = "d_0h7p3v9k2q4w1m5x8z6t0b3ynf")]
    dialogue: String,
    /// A BCP 47 tag
    #[schema(example = "en")]
    language: String,
    /// What it was allowed to be kept for
    #[schema(example = "model-training")]
    purpose: String,
    text: String,
    #[schema(format = DateTime)]
    received_at: String,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        let (customer, dialogue) = (message.customer.to_string(), message.dialogue.to_string());
        let (customer_id, dialog_id) = match &message.ids {
            Some(ids) => (
                ids.customer.expose().to_owned(),
                ids.dialogue.expose().to_owned(),
            ),
            None => (customer.clone(), dialogue.clone()),
        };
        Self {
            id: message.id.to_string(),
            customer_id,
            dialog_id,
            customer,
            dialogue,
            language: message.language,
            purpose: message.purpose,
            text: message.text.to_string(),
            received_at: message.received_at.to_rfc3339(),
        }
    }
}

impl MessageView {
    /// The names of [`Self::cells`].
    pub(super) const COLUMNS: [&str; 9] = [
        "id",
        "customer_id",
        "dialog_id",
        "customer",
        "dialogue",
        "language",
        "purpose",
        "received_at",
        "text",
    ];

    pub(super) fn cells(&self) -> [&str; 9] {
        [
            &self.id,
            &self.customer_id,
            &self.dialog_id,
            &self.customer,
            &self.dialogue,
            &self.language,
            &self.purpose,
            &self.received_at,
            &self.text,
        ]
    }
}

type MessageList = List<MessageView>;

/// A dialogue whose texts are gone: whoever has copies of them deletes those.
#[derive(Serialize, ToSchema)]
pub(super) struct WithdrawalView {
    id: String,
    /// The dialogue's pseudonym
    dialogue: String,
    /// The customer's pseudonym
    customer: String,
    /// `withdrawn` or `erased` by the customer, or `expired`: kept for as long as it may be
    #[schema(pattern = "^(withdrawn|erased|expired)$")]
    reason: &'static str,
    #[schema(format = DateTime)]
    at: String,
}

impl From<Withdrawal> for WithdrawalView {
    fn from(withdrawal: Withdrawal) -> Self {
        Self {
            id: withdrawal.id.to_string(),
            dialogue: withdrawal.dialogue.to_string(),
            customer: withdrawal.customer.to_string(),
            reason: withdrawal.reason.as_str(),
            at: withdrawal.at.to_rfc3339(),
        }
    }
}

type WithdrawalList = List<WithdrawalView>;

/// The counts of a day in a language. What is null is too small a number to be shown: somebody might
/// be recognised in it.
#[derive(Serialize, ToSchema)]
pub(super) struct StatisticsView {
    #[schema(format = Date)]
    day: String,
    /// A primary language; a dialogue counts in that of its first text
    language: String,
    /// Dialogues that were consented to
    granted: Option<u64>,
    /// Dialogues that were refused
    refused: Option<u64>,
    /// Dialogues whose consent was withdrawn
    withdrawn: Option<u64>,
    /// Texts that were kept
    texts: Option<u64>,
    /// Consents among decisions
    consent_ratio: Option<f64>,
}

impl From<&DayCounts> for StatisticsView {
    fn from(counts: &DayCounts) -> Self {
        Self {
            day: day_of(counts),
            language: counts.language.clone(),
            granted: counts.granted,
            refused: counts.refused,
            withdrawn: counts.withdrawn,
            texts: counts.texts,
            consent_ratio: counts.consent_ratio(),
        }
    }
}

type StatisticsList = List<StatisticsView>;

/// The seeds' names of parameters, which are not those of Rust.
#[expect(non_snake_case, reason = "the names of parameters are the API's")]
mod filters {
    use super::*;

    query_filters! {
        /// Which texts: those that meet every condition.
        pub(super) struct MessageFilters {
            /// In this language: a whole tag, or a primary language for all of its variants
            language: Option<crate::Language> = Tag,
            /// Of this customer: a pseudonym, or with `data:identify` the id that the chatbot sent
            customerId: String = text(1..=256),
            /// The same under another name
            customer_id: String = text(1..=256),
            /// Of this dialogue: a pseudonym, or with `data:identify` the id that the chatbot sent
            dialogId: String = text(1..=256),
            /// The same under another name
            dialog_id: String = text(1..=256),
            /// Received since this time, RFC 3339
            from: Timestamp = timestamp(),
            /// Received before this time, RFC 3339
            to: Timestamp = timestamp(),
            /// How they are written, whatever `Accept` says; `csv` and `ndjson` have all texts that match, not a page
            format: Form = one_of(Form::ALL, Form::as_str),
        }
    }
}
use filters::MessageFilters;

query_filters! {
    /// Since when.
    struct WithdrawalFilters {
        /// Since this time, RFC 3339
        since: Timestamp = timestamp(),
    }
}

query_filters! {
    /// Which days.
    struct StatisticsFilters {
        /// From the day of this time on, RFC 3339; by default 30 days before `to`
        from: Timestamp = timestamp(),
        /// Up to the day of this time, RFC 3339; by default today
        to: Timestamp = timestamp(),
    }
}

/// Served under `/v1` and without.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list_texts))
        .routes(routes!(list_data))
}

pub(super) fn versioned_routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list_messages))
        .routes(routes!(list_message_statistics))
        .routes(routes!(list_withdrawals))
}

macro_rules! lists_messages {
    ($(#[doc = $doc:literal])* $name:ident, $path:literal) => {
        $(#[doc = $doc])*
        #[utoipa::path(
            get, path = $path, tag = TAG,
            params(PageParams, MessageFilters),
            responses(
                (status = 200, description = "Consented texts, newest first: a page as JSON, all of them as CSV or NDJSON", content(
                    (MessageList = "application/json"), (String = "text/csv"), (String = "application/x-ndjson"),
                )),
                ListErrors,
            ),
            security(("api_key" = ["data:read"]), ("bearer" = ["data:read"]))
        )]
        async fn $name(
            State(desk): State<Desk>,
            Extension(cursors): Extension<CursorKey>,
            OriginalUri(uri): OriginalUri,
            RawQuery(query): RawQuery,
            requester: Requester,
            headers: HeaderMap,
        ) -> Result<Response, ApiError> {
            list(&desk, &cursors, uri.path(), query.as_deref(), &requester, &headers).await
        }
    };
}

lists_messages! {
    /// List the texts that may be read
    ///
    /// Those of customers who agreed, newest first. Filters are combined. Every reading is recorded. As CSV or
    /// NDJSON, where `format` or `Accept` asks for it, everything that matches is streamed; in CSV a cell that
    /// a program for tables would take for a formula begins with an apostrophe.
    list_messages, "/messages"
}

lists_messages! {
    /// List the texts that may be read, as `GET /v1/messages`
    list_texts, "/data/"
}

lists_messages! {
    /// List the texts that may be read, as `GET /v1/messages`
    list_data, "/data"
}

async fn list(
    desk: &Desk,
    cursors: &CursorKey,
    path: &str,
    query: Option<&str>,
    requester: &Requester,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = MessageFilters::parse(cursors, path, query)?;
    let identify = desk.shows_ids || requester.caller.scopes.contains(Scope::DataIdentify);
    let form = filters.format.unwrap_or_else(|| {
        let named = preferred(headers, &FORMS);
        named.copied().unwrap_or(Form::Json)
    });
    let filter = desk.filter(filters, identify)?;
    let (dialogues, actor) = (&desk.dialogues, requester.actor());
    let kind = match form {
        Form::Json => {
            let found = dialogues.messages(&actor, &filter, query.slice(), identify);
            let list = MessageList::new(&query, found.await?, Message::position, MessageView::from);
            return Ok(varied(list.answer_unkept()));
        }
        Form::Csv => CSV,
        Form::Ndjson => HeaderValue::from_static(NDJSON_TYPE),
    };
    let messages = dialogues.stream(&actor, filter, identify).await?;
    let body = stream::messages(messages, form).await?;
    let mut response = Response::new(body);
    let name = format!("attachment; filename=\"messages.{}\"", form.as_str());
    let name = HeaderValue::try_from(name).map_err(ApiError::internal)?;
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, kind);
    head.insert(header::CONTENT_DISPOSITION, name);
    Ok(varied(response))
}

fn varied(mut response: Response) -> Response {
    let accept = HeaderValue::from_static("Accept");
    response.headers_mut().append(header::VARY, accept);
    response
}

impl Desk {
    fn filter(&self, filters: MessageFilters, identify: bool) -> Result<MessageFilter, ApiError> {
        let customer = one(
            ("customerId", filters.customerId),
            ("customer_id", filters.customer_id),
        )?;
        let dialogue = one(
            ("dialogId", filters.dialogId),
            ("dialog_id", filters.dialog_id),
        )?;
        let pseudonyms = self.dialogues.pseudonyms();
        let customer = customer.map(|text| match CustomerRef::parse(&text) {
            Some(customer) => Ok(customer),
            None if identify => {
                let id = CustomerId::parse(&text);
                let id = id.map_err(|error| wrong("customerId", error))?;
                Ok(pseudonyms.customer(&id))
            }
            None => Err(unidentified("c_")),
        });
        let dialogue = dialogue.map(|text| match DialogueRef::parse(&text) {
            Some(dialogue) => Ok(dialogue),
            None if identify => {
                let id = DialogId::parse(&text);
                let id = id.map_err(|error| wrong("dialogId", error))?;
                Ok(pseudonyms.dialogue(&id))
            }
            None => Err(unidentified("d_")),
        });
        Ok(MessageFilter {
            language: filters
                .language
                .flatten()
                .map(|language| language.to_string()),
            customer: customer.transpose()?,
            dialogue: dialogue.transpose()?,
            from: filters.from,
            to: filters.to,
        })
    }
}

/// The value of a filter that has two names.
fn one(
    (name, value): (&str, Option<String>),
    (other_name, other): (&str, Option<String>),
) -> Result<Option<String>, ApiError> {
    if value.is_some() && other.is_some() {
        let message = format!("does not go together with {other_name}");
        return Err(wrong(name, message));
    }
    Ok(value.or(other))
}

fn wrong(field: &str, message: impl std::fmt::Display) -> ApiError {
    let mut errors = FieldErrors::default();
    errors.add(field, message);
    ApiError::validation(errors.into_list("(query)"))
}

fn unidentified(prefix: &str) -> ApiError {
    ApiError::forbidden(format!(
        "filtering by real ids needs the scope data:identify; without it use the pseudonym, which begins with {prefix}"
    ))
}

/// Count dialogues and texts by day and language
///
/// Numbers that are too small are null, so that nobody can be recognised in them.
#[utoipa::path(
    get, path = "/messages/statistics", tag = TAG,
    params(PageParams, StatisticsFilters),
    responses((status = 200, description = "The counts, by day and language", body = StatisticsList), ListErrors),
    security(("api_key" = ["data:read"]), ("bearer" = ["data:read"]))
)]
async fn list_message_statistics(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let path = "/v1/messages/statistics";
    let (query, filters) = StatisticsFilters::parse(&cursors, path, query.as_deref())?;
    let days = |days: u64| std::time::Duration::from_secs(days * DAY_S);
    let to = filters.to.unwrap_or_else(|| desk.dialogues.now());
    let from = filters.from.unwrap_or(to - days(DAYS_USUAL - 1));
    if to.since(from) > days(DAYS_MAX) {
        return Err(wrong(
            "from",
            format!("must be at most {DAYS_MAX} days before to"),
        ));
    }
    let counts = desk.dialogues.statistics(from, to).await?;
    let place = |counts: DayCounts| (format!("{} {}", day_of(&counts), counts.language), counts);
    let counts: Vec<_> = counts.into_iter().map(place).collect();
    let list = StatisticsList::cut(
        &query,
        &counts,
        |(place, _)| place,
        |(_, counts)| StatisticsView::from(counts),
    );
    Ok(list.answer_unkept())
}

/// The date of a day.
fn day_of(counts: &DayCounts) -> String {
    let begin = counts.day.to_rfc3339();
    begin.split('T').next().unwrap_or_default().to_owned()
}

/// List the dialogues whose texts must be deleted
///
/// Dialogues that were withdrawn or erased, or whose texts have expired, the oldest first: whoever has
/// copies of texts asks this from time to time and deletes theirs.
#[utoipa::path(
    get, path = "/withdrawals", tag = TAG,
    params(PageParams, WithdrawalFilters),
    responses((status = 200, description = "One page of dialogues, by pseudonym", body = WithdrawalList), ListErrors),
    security(("api_key" = ["data:read"]), ("bearer" = ["data:read"]))
)]
async fn list_withdrawals(
    State(desk): State<Desk>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let (query, filters) = WithdrawalFilters::parse(&cursors, "/v1/withdrawals", query.as_deref())?;
    let dialogues = &desk.dialogues;
    let found = dialogues.withdrawals(filters.since, query.slice()).await?;
    let list = WithdrawalList::new(&query, found, Withdrawal::position, WithdrawalView::from);
    Ok(list.answer_unkept())
}
