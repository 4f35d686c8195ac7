//! `GET /v1/audit`: who did what, whichever service recorded it.

use auspex_kernel::audit::{self, Filter, Line, Outcome};
use auspex_kernel::db::Db;
use auspex_kernel::fields::{Filters as _, one_of, text};
use auspex_kernel::http::{List, ListErrors};
use auspex_kernel::page::PageParams;
use auspex_kernel::{ApiError, CursorKey, query_filters};
use axum::Extension;
use axum::extract::RawQuery;
use axum::response::Response;
use http::HeaderMap;
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
    }
}

impl From<AuditFilters> for Filter {
    fn from(filters: AuditFilters) -> Self {
        Self {
            actor: filters.actor,
            action: filters.action.map(str::to_owned),
            target: filters.target,
            outcome: filters.outcome,
        }
    }
}

pub(crate) fn operations() -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(list_audit))
}

/// List what was done
///
/// Logins, denials, reloads of models, and every change of users, roles, keys, clients and grants.
#[utoipa::path(
    get, path = "/v1/audit", tag = "audit",
    params(PageParams, AuditFilters),
    responses((status = 200, description = "One page of the record, newest first", body = AuditList), ListErrors),
    security(("api_key" = ["audit:read"]), ("bearer" = ["audit:read"]))
)]
async fn list_audit(
    Extension(Record { db, cursors }): Extension<Record>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (query, filters) = AuditFilters::parse(&cursors, "/v1/audit", query.as_deref())?;
    let page =
        db.read(async |connection| audit::page(connection, filters.into(), query.slice()).await);
    let found = page.await?;
    let list = AuditList::new(&query, found, |line| line.id.clone(), AuditView::from);
    Ok(list.answer(&headers))
}
