//! Lists in pages, from the query to the answer.

use auspex_kernel::etag::cacheable;
use auspex_kernel::page::{Found, PageQuery, Pagination};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The page that was found, each row as the API shows it.
pub(super) fn page<T, V>(
    query: &PageQuery,
    found: Found<T>,
    position: impl Fn(&T) -> String,
    view: impl Fn(T) -> V,
) -> (Vec<V>, Pagination) {
    let (rows, pagination) = query.page(found, |row| position(row).into());
    (rows.into_iter().map(view).collect(), pagination)
}

/// The answer, whose links stand in a header too.
pub(super) fn answer<L: Serialize>(headers: &HeaderMap, links: HeaderValue, list: &L) -> Response {
    let mut response = cacheable(headers, JSON, list);
    response.headers_mut().insert(header::LINK, links);
    response
}
