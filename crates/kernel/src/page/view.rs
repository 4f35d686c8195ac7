//! How a page says where it stands in its list.

use std::ops::RangeInclusive;

use http::HeaderValue;
use serde::Serialize;
use serde_json::json;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use super::{CURSOR, CURSOR_ABOUT, LIMIT_USUAL, LIMITS, NUMBERS, NUMBERS_ABOUT};
use crate::fields::query_parameter;

/// The query of a list, for the document: `limit` and `cursor`, `page` and `per_page`, or `offset`
/// and `limit`. [`PageQuery`](super::PageQuery) reads the same names and bounds.
#[derive(Debug)]
pub struct PageParams;

impl IntoParams for PageParams {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let number = |((name, range), about): (&(&str, RangeInclusive<usize>), &str)| {
            let schema = json!({
                "type": "integer", "format": "int32",
                "minimum": range.start(), "maximum": range.end(),
            });
            // No `default`: clients made from the document send defaults, and these exclude others.
            let about = match *range == LIMITS {
                true => format!("{about}; {LIMIT_USUAL} unless given"),
                false => (*about).to_owned(),
            };
            query_parameter(name, &about, schema)
        };
        let mut parameters: Vec<_> = NUMBERS.iter().zip(NUMBERS_ABOUT).map(number).collect();
        parameters.push(query_parameter(
            CURSOR,
            CURSOR_ABOUT,
            json!({"type": "string"}),
        ));
        parameters
    }
}

/// Where a page stands in its list, in the form in which it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(
    missing_docs,
    reason = "a description would stand twice in the document"
)]
pub enum Pagination {
    Cursor(CursorPagination),
    Page(PagePagination),
    Offset(OffsetPagination),
}

/// By cursor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CursorPagination {
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    pub(super) limit: usize,
    /// Give this as `cursor` for the next page; null on the last one.
    pub(super) next_cursor: Option<String>,
    pub(super) links: CursorLinks,
}

/// Relative addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CursorLinks {
    #[serde(rename = "self")]
    pub(super) own: String,
    pub(super) next: Option<String>,
    pub(super) first: String,
}

/// By number of the page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PagePagination {
    /// Entries of the whole list.
    pub(super) total: usize,
    /// Counted from 1.
    #[schema(minimum = 1)]
    pub(super) page: usize,
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    pub(super) per_page: usize,
    pub(super) total_pages: usize,
    pub(super) links: PageLinks,
}

/// By number of entries before the page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OffsetPagination {
    /// Entries of the whole list.
    pub(super) total: usize,
    /// Entries before the page.
    pub(super) offset: usize,
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    pub(super) limit: usize,
    pub(super) links: PageLinks,
}

/// Relative addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PageLinks {
    #[serde(rename = "self")]
    pub(super) own: String,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) prev: Option<String>,
    pub(super) next: Option<String>,
}

impl Pagination {
    /// The value of the `Link` header (RFC 8288).
    ///
    /// # Panics
    /// If the path given to the query was not ASCII; the rest is digits and percent-encoded text.
    pub fn link_header(&self) -> HeaderValue {
        let links = match self {
            Self::Cursor(CursorPagination { links, .. }) => {
                vec![("first", Some(&links.first)), ("next", links.next.as_ref())]
            }
            Self::Page(PagePagination { links, .. })
            | Self::Offset(OffsetPagination { links, .. }) => vec![
                ("first", Some(&links.first)),
                ("last", Some(&links.last)),
                ("prev", links.prev.as_ref()),
                ("next", links.next.as_ref()),
            ],
        };
        let links: Vec<String> = links
            .iter()
            .filter_map(|(rel, link)| Some(format!("<{}>; rel=\"{rel}\"", (*link)?)))
            .collect();
        HeaderValue::try_from(links.join(", ")).expect("ASCII")
    }
}
