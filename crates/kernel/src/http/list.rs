//! Lists in pages.

use std::borrow::Cow;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::JSON;
use crate::etag::{self, REVALIDATE, cacheable};
use crate::page::{Found, PageQuery, Pagination};

/// One page of a list, each row as the API shows it.
///
/// In the OpenAPI document the list of `ThingView` is called `ThingList`. Name the type by an alias
/// there (`type ThingList = List<ThingView>`): utoipa gives a type that is written with parameters
/// another name.
#[derive(Debug, Serialize)]
pub struct List<T> {
    data: Vec<T>,
    pagination: Pagination,
}

impl<T> List<T> {
    /// The page made of the rows found for the query's slice. `position` gives the position of a
    /// row in the list.
    pub fn new<R>(
        query: &PageQuery,
        found: Found<R>,
        position: impl Fn(&R) -> String,
        view: impl Fn(R) -> T,
    ) -> Self {
        let (rows, pagination) = query.page(found, |row| position(row).into());
        Self {
            data: rows.into_iter().map(view).collect(),
            pagination,
        }
    }

    /// The page of a list that is kept whole, sorted by `id`.
    pub fn cut<'a, R>(
        query: &PageQuery,
        all: &'a [R],
        id: impl Fn(&R) -> &str,
        view: impl Fn(&'a R) -> T,
    ) -> Self {
        let (rows, pagination) = query.cut(all, id);
        Self {
            data: rows.into_iter().map(view).collect(),
            pagination,
        }
    }
}

impl<T: Serialize> List<T> {
    /// The answer with an `ETag`, or 304. The links are in the header `Link` too.
    pub fn answer(&self, headers: &HeaderMap) -> Response {
        self.with_links(cacheable(headers, JSON, self))
    }

    /// The same for what no cache may keep.
    pub fn answer_unkept(&self) -> Response {
        self.with_links(axum::Json(self).into_response())
    }

    /// The same in another form than JSON, which has the rows alone.
    pub fn answer_as(
        &self,
        headers: &HeaderMap,
        kind: HeaderValue,
        form: impl FnOnce(&[T]) -> Vec<u8>,
    ) -> Response {
        let full = ([(header::CONTENT_TYPE, kind)], form(&self.data));
        self.with_links(etag::answer(headers, etag::of(&full.1), REVALIDATE, full))
    }

    fn with_links(&self, mut response: Response) -> Response {
        let links = self.pagination.link_header();
        response.headers_mut().insert(header::LINK, links);
        response
    }
}

impl<T: ToSchema> PartialSchema for List<T> {
    fn schema() -> RefOr<Schema> {
        let row = Ref::from_schema_name(T::name());
        let pagination = Ref::from_schema_name(Pagination::name());
        let list = ObjectBuilder::new()
            .description(Some("One page of a list."))
            .property("data", ArrayBuilder::new().items(row))
            .required("data")
            .property("pagination", pagination)
            .required("pagination");
        list.into()
    }
}

impl<T: ToSchema> ToSchema for List<T> {
    fn name() -> Cow<'static, str> {
        let row = T::name();
        let thing = row.strip_suffix("View").unwrap_or(&row);
        format!("{thing}List").into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
        schemas.push((Pagination::name().into_owned(), Pagination::schema()));
        Pagination::schemas(schemas);
    }
}
