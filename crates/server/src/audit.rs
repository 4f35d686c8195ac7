//! `GET /v1/audit`: who did what, whichever service recorded it.

use auspex_kernel::audit::{self, Filter, Line, Outcome};
use auspex_kernel::db::Db;
use auspex_kernel::fields::{Filters as _, one_of, text, timestamp};
use auspex_kernel::http::{CSV, List, ListErrors, csv_cell, preferred};
use auspex_kernel::page::PageParams;
use auspex_kernel::{ApiError, CursorKey, FieldError, Timestamp, query_filters};
use axum::Extension;
use axum::extract::RawQuery;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::services;

/// Reads the record.
#[derive(Clone)]
pub(crate) struct Record {
    pub(crate) db: Db,
    /// Signs the pages of the list.
    pub(crate) cursors: CursorKey,
}

/// Something that was done or refused.
#[derive(Serialize, ToSchema)]
struct AuditView {
    id: String,
    #[schema(format = DateTime)]
    at: String,
    /// `user:ID`, `key:ID`, `client:ID`, `operator` (the command line) or `anonymous`.
    actor: String,
    #[schema(example = "user.roles")]
    action: String,
    /// What it was done to, e.g. `user:ID`.
    target: Option<String>,
    #[schema(pattern = "^(success|denied|failed)$")]
    outcome: String,
    /// E.g. the roles that were granted.
    detail: Option<String>,
    /// Where it came from: the /24 of an IPv4 address, the /48 of an IPv6 address.
    address: Option<String>,
    /// The request that did it.
    request_id: Option<String>,
}

impl From<Line> for AuditView {
    fn from(line: Line) -> Self {
        Self {
            id: line.id,
            at: line.at.to_rfc3339(),
            actor: line.actor,
            action: line.action,
            target: line.target,
            outcome: line.outcome,
            detail: line.detail,
            address: line.address,
            request_id: line.request_id,
        }
    }
}

type AuditList = List<AuditView>;

query_filters! {
    /// Which lines to list: those that meet every condition.
    struct AuditFilters {
        /// Who did it, e.g. `user:ID`
        actor: String = text(1..=256),
        /// What was done, e.g. `user.create`
        action: &'static str = one_of(services::actions(), |action| action),
        /// What it was done to, e.g. `key:ID`
        target: String = text(1..=256),
        /// How it ended: `success`, `denied` or `failed`
        outcome: Outcome = one_of(Outcome::ALL, Outcome::as_str),
        /// Since this time, RFC 3339
        from: Timestamp = timestamp(),
        /// Before this time, RFC 3339
        to: Timestamp = timestamp(),
        /// How the lines are written, whatever `Accept` says
        format: Format = one_of(&[Format::Json, Format::Csv], Format::as_str),
    }
}

/// How the lines are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
}

const FORMATS: [(&str, Format); 2] = [
    ("text/csv", Format::Csv),
    ("application/json", Format::Json),
];

impl Format {
    fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
        }
    }
}

impl From<AuditFilters> for Filter {
    fn from(filters: AuditFilters) -> Self {
        Self {
            actor: filters.actor,
            action: filters.action.map(str::to_owned),
            target: filters.target,
            outcome: filters.outcome,
            from: filters.from,
            to: filters.to,
        }
    }
}

pub(crate) fn operations() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list_audit))
}

/// List what was done
///
/// Logins, denials, reloads of models, and every change of users, roles, keys, clients and grants. As
/// JSON, or as CSV where `format` or `Accept` asks for it; the next page of CSV is in the header
/// `Link`.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit",
    params(PageParams, AuditFilters),
    responses(
        (status = 200, description = "One page of the record, newest first", content(
            (AuditList = "application/json"), (String = "text/csv"),
        )),
        ListErrors,
    ),
    security(("api_key" = ["audit:read"]), ("bearer" = ["audit:read"]))
)]
async fn list_audit(
    Extension(Record { db, cursors }): Extension<Record>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = AuditFilters::parse(&cursors, "/v1/audit", query.as_deref())?;
    if let (Some(from), Some(to)) = (filters.from, filters.to)
        && from > to
    {
        let wrong = FieldError {
            field: "from".into(),
            message: "must not be later than to".into(),
        };
        return Err(ApiError::validation(vec![wrong]));
    }
    let format = filters.format;
    let filter = Filter::from(filters);
    let position = filter.position();
    let page = db.list(async |connection| audit::page(connection, filter, query.slice()).await);
    let list = AuditList::new(&query, page.await?, position, AuditView::from);
    let named = || preferred(&headers, &FORMATS).copied();
    let is_csv = format.or_else(named) == Some(Format::Csv);
    let mut response = match is_csv {
        false => list.answer(&headers),
        true => list.answer_as(&headers, CSV, csv_lines),
    };
    let accept = HeaderValue::from_static("Accept");
    response.headers_mut().append(header::VARY, accept);
    if is_csv {
        let name = HeaderValue::from_static("attachment; filename=\"audit.csv\"");
        response
            .headers_mut()
            .insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// RFC 4180, with a header.
fn csv_lines(lines: &[AuditView]) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    let header = [
        "id",
        "at",
        "actor",
        "action",
        "target",
        "outcome",
        "detail",
        "address",
        "request_id",
    ];
    // Nothing is written to but memory.
    let _ = writer.write_record(header);
    for line in lines {
        let _ = writer.write_record(
            [
                csv_cell(&line.id),
                csv_cell(&line.at),
                csv_cell(&line.actor),
                csv_cell(&line.action),
                csv_cell(line.target.as_deref().unwrap_or_default()),
                csv_cell(&line.outcome),
                csv_cell(line.detail.as_deref().unwrap_or_default()),
                csv_cell(line.address.as_deref().unwrap_or_default()),
                csv_cell(line.request_id.as_deref().unwrap_or_default()),
            ]
            .map(|cell| cell.into_owned()),
        );
    }
    writer.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_every_text_stays_in_its_cell() {
        let line = |request_id: &str| AuditView {
            id: "06H0".into(),
            at: "2026-11-22T02:37:16Z".into(),
            actor: "key:K".into(),
            action: "login".into(),
            target: None,
            outcome: "denied".into(),
            detail: Some("a,\"b\"\nc".into()),
            address: Some("192.0.2.0/24".into()),
            request_id: Some(request_id.into()),
        };
        let ids = ["-1-cmd", "=1+1", "@x", "+1", "req_1"];
        let written = csv_lines(&ids.map(line));
        let text = String::from_utf8(written.clone()).expect("UTF-8");
        assert!(
            text.starts_with("id,at,actor,") && text.ends_with("\r\n"),
            "{text}"
        );
        let mut reader = csv::Reader::from_reader(written.as_slice());
        let read: Vec<_> = reader.records().map(|row| row.expect("a row")).collect();
        let shown: Vec<&str> = read.iter().map(|row| &row[8]).collect();
        assert_eq!(shown, ["'-1-cmd", "'=1+1", "'@x", "'+1", "req_1"]);
        assert!(
            read.iter()
                .all(|row| &row[6] == "a,\"b\"\nc" && row[4].is_empty())
        );
    }
}
