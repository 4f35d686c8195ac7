//! The audit record.

use auspex_kernel::http::{List, ListErrors};
use auspex_kernel::page::{PageParams, PageQuery};
use auspex_kernel::{ApiError, CursorKey, FieldError};
use axum::extract::{Extension, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Handle;
use crate::audit::{Action, AuditFilter, AuditLine, Outcome};

pub(super) fn routes() -> OpenApiRouter<Handle> {
    OpenApiRouter::new().routes(routes!(list_audit))
}

/// Something that was done, or was not allowed.
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
    /// E.g. the roles that were given.
    detail: Option<String>,
    /// Where from: the /24 of an IPv4 address, the /48 of an IPv6 one.
    address: Option<String>,
    /// Of the request by which it was done.
    request_id: Option<String>,
}

impl From<AuditLine> for AuditView {
    fn from(line: AuditLine) -> Self {
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

/// Which lines to list: those that meet every condition.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
struct FilterParams {
    /// Who did it, e.g. `user:ID`
    #[param(required = false, min_length = 1, max_length = 256)]
    actor: String,
    /// What was done, e.g. `user.create`
    #[param(required = false, min_length = 1, max_length = 256)]
    action: String,
    /// What it was done to, e.g. `key:ID`
    #[param(required = false, min_length = 1, max_length = 256)]
    target: String,
    /// `success` or `denied`
    #[param(required = false, pattern = "^(success|denied)$")]
    outcome: String,
}

/// List what was done
///
/// Logins, denials, and every change of users, roles, keys, clients and grants.
#[utoipa::path(
    get, path = "/audit", tag = "audit",
    params(PageParams, FilterParams),
    responses((status = 200, description = "One page of the record, newest first", body = AuditList), ListErrors),
    security(("api_key" = ["audit:read"]), ("bearer" = ["audit:read"]))
)]
async fn list_audit(
    State(identity): State<Handle>,
    Extension(cursors): Extension<CursorKey>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filters = ["actor", "action", "target", "outcome"];
    let query = PageQuery::parse(&cursors, "/v1/audit", query.as_deref(), &filters)?;
    let filter = read_filter(&query)?;
    let found = identity.page_of_audit(filter, query.slice()).await?;
    let list = AuditList::new(&query, found, |line| line.id.clone(), AuditView::from);
    Ok(list.answer(&headers))
}

fn read_filter(query: &PageQuery) -> Result<AuditFilter, ApiError> {
    let mut wrong = Vec::new();
    let action = one_of(query, "action", Action::ALL, |a| a.as_str(), &mut wrong);
    let outcome = one_of(query, "outcome", Outcome::ALL, |o| o.as_str(), &mut wrong);
    if !wrong.is_empty() {
        return Err(ApiError::validation(wrong));
    }
    Ok(AuditFilter {
        actor: query.filter("actor").map(str::to_owned),
        action,
        target: query.filter("target").map(str::to_owned),
        outcome,
    })
}

/// The value whose text a filter gives.
fn one_of<T: Copy>(
    query: &PageQuery,
    name: &str,
    all: &[T],
    text: impl Fn(T) -> &'static str,
    wrong: &mut Vec<FieldError>,
) -> Option<T> {
    let given = query.filter(name)?;
    let found = all.iter().copied().find(|value| text(*value) == given);
    if found.is_none() {
        let known: Vec<&str> = all.iter().map(|value| text(*value)).collect();
        wrong.push(FieldError {
            field: name.to_owned(),
            message: format!("must be one of {}", known.join(", ")),
        });
    }
    found
}
