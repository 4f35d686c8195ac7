//! Lists in pages, from the query to the answer.

use auspex_kernel::etag::cacheable;
use auspex_kernel::page::{PageQuery, Pagination, Position, Window};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde::Serialize;

use crate::store::{Found, Slice};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Which rows a query asks for.
pub(super) fn slice(query: &PageQuery) -> Slice {
    match query.window() {
        Window::Seek { after, limit } => Slice::Seek {
            after: after.and_then(Position::as_text).map(str::to_owned),
            // One more tells whether there is another page.
            count: limit as u64 + 1,
        },
        Window::Skip { offset, limit } => Slice::Skip {
            offset: offset as u64,
            count: limit as u64,
        },
    }
}

/// The page that was found, each row as the API shows it.
pub(super) fn page<T, V>(
    query: &PageQuery,
    (rows, total): Found<T>,
    place: impl Fn(&T) -> String,
    view: impl Fn(T) -> V,
) -> (Vec<V>, Pagination) {
    let (rows, pagination) = query.page(rows, total, |row| place(row).into());
    (rows.into_iter().map(view).collect(), pagination)
}

/// The answer, whose links stand in a header too.
pub(super) fn answer<L: Serialize>(headers: &HeaderMap, links: HeaderValue, list: &L) -> Response {
    let mut response = cacheable(headers, JSON, list);
    response.headers_mut().insert(header::LINK, links);
    response
}
