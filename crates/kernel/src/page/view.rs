//! How a page tells where it stands.

use http::HeaderValue;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

/// The query of a list, in one of three forms: `limit` and `cursor`, `page` and `per_page`, or
/// `offset` and `limit`. It is for the document: the text itself is read by [`PageQuery`].
///
/// [`PageQuery`]: super::PageQuery
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only its description is used")]
pub struct PageParams {
    /// Entries a page
    #[param(required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: i32,
    /// `next_cursor` of the page before; not together with `page`, `per_page` or `offset`
    #[param(required = false)]
    cursor: String,
    /// Number of the page; not together with `limit`, `cursor` or `offset`
    #[param(required = false, minimum = 1, maximum = 1000000000)]
    page: i32,
    /// Entries a page; not together with `limit`, `cursor` or `offset`
    #[param(required = false, minimum = 1, maximum = 1000)]
    per_page: i32,
    /// Entries before the page; not together with `cursor`, `page` or `per_page`
    #[param(required = false, minimum = 0, maximum = 1000000000)]
    offset: i32,
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
