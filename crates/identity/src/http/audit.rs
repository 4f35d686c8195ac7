//! The audit record.

use auspex_kernel::audit::{Action as _, Filter, Line, Outcome};
use auspex_kernel::fields::{Filters as _, one_of, text};
use auspex_kernel::http::{List, ListErrors};
use auspex_kernel::page::PageParams;
use auspex_kernel::{ApiError, CursorKey, query_filters};
use axum::extract::{Extension, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handles;
use crate::audit::{Action, AuditRecord};

pub(super) fn routes() -> OpenApiRouter<Handles> {
    OpenApiRouter::new().routes(routes!(list_audit))
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
    #[schema(pattern = "^(success|denied)$")]
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
    pub(super) struct AuditFilters {
        /// Who did it, e.g. `user:ID`
        actor: String = text(1..=256),
        /// What was done, e.g. `user.create`
        action: Action = one_of(Action::ALL, Action::as_str),
        /// What it was done to, e.g. `key:ID`
        target: String = text(1..=256),
        /// `success` or `denied`
        outcome: Outcome = one_of(Outcome::ALL, Outcome::as_str),
    }
}

impl From<AuditFilters> for Filter {
    fn from(filters: AuditFilters) -> Self {
        Self {
            actor: filters.actor,
            action: filters.action.map(|action| action.as_str().to_owned()),
            target: filters.target,
            outcome: filters.outcome,
        }
    }
}

/// List what was done
///
/// Logins, denials, and every change of users, roles, keys, clients and grants.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(PageParams, AuditFilters),
    responses((status = 200, description = "One page of the record, newest first", body = AuditList), ListErrors),
    security(("api_key" = ["audit:read"]), ("bearer" = ["audit:read"]))
)]
async fn list_audit(
    State(record): State<AuditRecord>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = AuditFilters::parse(&cursors, "/v1/audit", query.as_deref())?;
    let found = record.page(filters.into(), query.slice());
    let found = found.await?;
    let list = AuditList::new(&query, found, |line| line.id.clone(), AuditView::from);
    Ok(list.answer(&headers))
}
