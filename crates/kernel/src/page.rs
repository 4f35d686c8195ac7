//! Pages of a list: by cursor (after which entry the next page begins), by page or by offset.
//!
//! [`PageQuery`] reads the query, says as a [`Slice`] which rows to fetch, and makes the
//! [`Pagination`] of what was found. It does not know where rows are kept: `store/slice.rs` fetches
//! them from a database.

mod cursor;
mod view;

use std::ops::RangeInclusive;

use form_urlencoded::byte_serialize;

pub use cursor::{Cursor, CursorKey, Direction, Position};
pub use view::{PageParams, Pagination};

use crate::error::{ApiError, FieldErrors, is_printable, shown};
use crate::http::pairs;
use view::{CursorLinks, CursorPagination, OffsetPagination, PageLinks, PagePagination};

const LIMIT_USUAL: usize = 100;
const LIMITS: RangeInclusive<usize> = 1..=1000;
const PLACE_MAX: usize = 1_000_000_000;
const FILTER_CHARS_MAX: usize = 256;
const WHOLE_QUERY: &str = "(query)";

const CURSOR: &str = "cursor";
/// What a query may name besides the cursor and the filters, with the allowed numbers.
const NUMBERS: [(&str, RangeInclusive<usize>); 4] = [
    ("limit", LIMITS),
    ("page", 1..=PLACE_MAX),
    ("per_page", LIMITS),
    ("offset", 0..=PLACE_MAX),
];
/// What the document says of [`NUMBERS`].
const NUMBERS_ABOUT: [&str; 4] = [
    "Entries per page",
    "Number of the page; not together with `limit`, `cursor` or `offset`",
    "Entries per page; not together with `limit`, `cursor` or `offset`",
    "Entries before the page; not together with `cursor`, `page` or `per_page`",
];
const CURSOR_ABOUT: &str =
    "`next_cursor` of the previous page; not together with `page`, `per_page` or `offset`";

/// The query of a list.
#[derive(Debug)]
pub struct PageQuery {
    key: CursorKey,
    /// The path with the filters, to which links add the parameters of paging. It identifies the
    /// list that a cursor belongs to.
    list: String,
    filters: Vec<(&'static str, String)>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Cursor {
        limit: usize,
        after: Option<Position>,
    },
    Page {
        page: usize,
        per_page: usize,
    },
    Offset {
        offset: usize,
        limit: usize,
    },
}

/// Which rows of a list to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slice {
    /// The rows that follow another one, found by its position: the last page costs as little as
    /// the first.
    Seek {
        /// Position of the last row of the previous page.
        after: Option<String>,
        /// One more than the page holds, which shows whether there is another page.
        count: u64,
    },
    /// The rows that follow a number of others, together with the number of all rows.
    Skip {
        /// Rows before the page.
        offset: u64,
        /// The most rows the page holds.
        count: u64,
    },
}

/// The rows of a [`Slice`], and the number of all rows for [`Slice::Skip`].
pub type Found<T> = (Vec<T>, u64);

impl PageQuery {
    /// Reads the undecoded query of a request to `path`, which becomes part of every link. A
    /// filter is a parameter that keeps the entries with that value.
    ///
    /// # Errors
    /// 422 for parameters that are unknown, wrong, repeated or of two forms; 400 for a cursor that
    /// was not issued for this list, and for what is not UTF-8.
    pub fn parse(
        key: &CursorKey,
        path: &str,
        query: Option<&str>,
        filters: &[&'static str],
    ) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::default();
        let mut given = Given::default();
        for (name, value) in pairs(query.unwrap_or_default())? {
            given.take(&name, &value, filters, &mut errors);
        }
        given.refuse_mixed_forms(&mut errors);
        if errors.count() > 0 {
            return Err(ApiError::validation(errors.into_list(WHOLE_QUERY)));
        }
        // Always in the same order, whatever that of the query: it is the same list.
        let position = |name| filters.iter().position(|known| *known == name);
        given.filters.sort_by_key(|(name, _)| position(*name));
        let mut list = format!("{path}?");
        for (name, value) in &given.filters {
            list.push_str(name);
            list.push('=');
            list.extend(byte_serialize(value.as_bytes()));
            list.push('&');
        }
        let form = given.form(key, &list)?;
        Ok(Self {
            key: key.clone(),
            list,
            filters: given.filters,
            form,
        })
    }

    /// The value of a filter, if it was given.
    pub fn filter(&self, name: &str) -> Option<&str> {
        let mut filters = self.filters.iter();
        filters.find_map(|(known, value)| (*known == name).then_some(value.as_str()))
    }

    /// Which rows to fetch.
    pub fn slice(&self) -> Slice {
        match &self.form {
            Form::Cursor { limit, after } => Slice::Seek {
                after: after
                    .as_ref()
                    .and_then(Position::as_text)
                    .map(str::to_owned),
                count: *limit as u64 + 1,
            },
            Form::Page { page, per_page } => Slice::Skip {
                offset: (page - 1).saturating_mul(*per_page) as u64,
                count: *per_page as u64,
            },
            Form::Offset { offset, limit } => Slice::Skip {
                offset: *offset as u64,
                count: *limit as u64,
            },
        }
    }

    /// The page made of the rows found for the [`Slice`], in the order of the list. `position`
    /// gives the position of a row in the list.
    pub fn page<T>(
        &self,
        (mut entries, total): Found<T>,
        position: impl Fn(&T) -> Position,
    ) -> (Vec<T>, Pagination) {
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let pagination = match &self.form {
            Form::Cursor { limit, after } => {
                let is_last = entries.len() <= *limit;
                entries.truncate(*limit);
                let next = entries.last().filter(|_| !is_last).map(position);
                Pagination::Cursor(self.by_cursor(*limit, after.as_ref(), next))
            }
            &Form::Page { page, per_page } => Pagination::Page(self.by_page(page, per_page, total)),
            &Form::Offset { offset, limit } => {
                Pagination::Offset(self.by_offset(offset, limit, total))
            }
        };
        (entries, pagination)
    }

    /// The page of a list that is kept whole, sorted by `id`.
    pub fn cut<'a, T>(&self, all: &'a [T], id: impl Fn(&T) -> &str) -> (Vec<&'a T>, Pagination) {
        let (begin, count) = match self.slice() {
            Slice::Seek { after, count } => {
                let begin =
                    |after: String| all.partition_point(|entry| id(entry) <= after.as_str());
                (after.map_or(0, begin), count)
            }
            Slice::Skip { offset, count } => (usize::try_from(offset).unwrap_or(usize::MAX), count),
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let entries = all.iter().skip(begin).take(count).collect();
        self.page((entries, all.len() as u64), |entry| id(entry).into())
    }

    fn by_cursor(
        &self,
        limit: usize,
        after: Option<&Position>,
        next: Option<Position>,
    ) -> CursorPagination {
        let list = &self.list;
        let first = format!("{list}limit={limit}");
        let encode = |last_id: Position| {
            let direction = Direction::Next;
            Cursor { last_id, direction }.encode(&self.key, list)
        };
        let link = |cursor: &str| format!("{first}&cursor={cursor}");
        let next_cursor = next.map(encode);
        CursorPagination {
            limit,
            links: CursorLinks {
                own: after.map_or_else(|| first.clone(), |after| link(&encode(after.clone()))),
                next: next_cursor.as_deref().map(link),
                first: first.clone(),
            },
            next_cursor,
        }
    }

    fn by_page(&self, page: usize, per_page: usize, total: usize) -> PagePagination {
        let total_pages = total.div_ceil(per_page);
        let last = total_pages.max(1);
        let link = |page: usize| format!("{}page={page}&per_page={per_page}", self.list);
        let links = PageLinks {
            own: link(page),
            first: link(1),
            last: link(last),
            prev: (page > 1).then(|| link((page - 1).min(last))),
            next: (page < last).then(|| link(page + 1)),
        };
        PagePagination {
            total,
            page,
            per_page,
            total_pages,
            links,
        }
    }

    fn by_offset(&self, offset: usize, limit: usize, total: usize) -> OffsetPagination {
        let last = total.saturating_sub(1) / limit * limit;
        let link = |offset: usize| format!("{}offset={offset}&limit={limit}", self.list);
        let links = PageLinks {
            own: link(offset),
            first: link(0),
            last: link(last),
            prev: (offset > 0).then(|| link(offset.saturating_sub(limit).min(last))),
            next: (offset + limit < total).then(|| link(offset + limit)),
        };
        OffsetPagination {
            total,
            offset,
            limit,
            links,
        }
    }
}

/// The parameters of a query as they are read.
#[derive(Default)]
struct Given {
    cursor: Option<String>,
    seen: [bool; NUMBERS.len()],
    numbers: [Option<usize>; NUMBERS.len()],
    filters: Vec<(&'static str, String)>,
}

impl Given {
    fn take(
        &mut self,
        name: &str,
        value: &str,
        filters: &[&'static str],
        errors: &mut FieldErrors,
    ) {
        if let Some(place) = NUMBERS.iter().position(|(known, _)| *known == name) {
            return self.take_number(place, value, errors);
        }
        if name == CURSOR {
            // Empty is absent.
            let is_repeated = !value.is_empty() && self.cursor.replace(value.to_owned()).is_some();
            if is_repeated {
                errors.add(name, "is given more than once");
            }
            return;
        }
        let Some(filter) = filters.iter().find(|known| **known == name) else {
            return errors.add(shown(name), "is not a parameter of this list");
        };
        if self.filters.iter().any(|(known, _)| known == filter) {
            errors.add(name, "is given more than once");
        } else if value.is_empty()
            || value.chars().count() > FILTER_CHARS_MAX
            || !value.chars().all(is_printable)
        {
            let message = format_args!("must be 1 to {FILTER_CHARS_MAX} printable characters");
            errors.add(name, message);
        }
        self.filters.push((filter, value.to_owned()));
    }

    fn take_number(&mut self, place: usize, value: &str, errors: &mut FieldErrors) {
        let (name, range) = &NUMBERS[place];
        if std::mem::replace(&mut self.seen[place], true) {
            return errors.add(name, "is given more than once");
        }
        let number = value.parse().ok().filter(|number| range.contains(number));
        self.numbers[place] = number.filter(|_| !value.starts_with('+'));
        if self.numbers[place].is_none() {
            let (low, high) = (range.start(), range.end());
            let message = format_args!("must be an integer between {low} and {high}");
            errors.add(name, message);
        }
    }

    fn refuse_mixed_forms(&self, errors: &mut FieldErrors) {
        let [has_limit, has_page, has_per_page, has_offset] = self.seen;
        let by_page = has_page || has_per_page;
        let has_cursor = self.cursor.is_some();
        let mut alone = |given: bool, name: &str, other: &str| {
            if given {
                errors.add(name, format_args!("does not go together with {other}"));
            }
        };
        alone(by_page && has_limit, "limit", "page and per_page");
        alone(by_page && has_offset, "offset", "page and per_page");
        alone(by_page && has_cursor, CURSOR, "page and per_page");
        alone(!by_page && has_offset && has_cursor, CURSOR, "offset");
    }

    fn form(&self, key: &CursorKey, list: &str) -> Result<Form, ApiError> {
        let [_, has_page, has_per_page, _] = self.seen;
        let [limit, page, per_page, offset] = self.numbers;
        let limit = limit.unwrap_or(LIMIT_USUAL);
        if has_page || has_per_page {
            return Ok(Form::Page {
                page: page.unwrap_or(1),
                per_page: per_page.unwrap_or(LIMIT_USUAL),
            });
        }
        if let Some(offset) = offset {
            return Ok(Form::Offset { offset, limit });
        }
        let after = match &self.cursor {
            Some(text) => Some(after(text, key, list)?),
            None => None,
        };
        Ok(Form::Cursor { limit, after })
    }
}

/// The position that a cursor stands for.
fn after(cursor: &str, key: &CursorKey, list: &str) -> Result<Position, ApiError> {
    let cursor = Cursor::decode(cursor, key, list);
    // Lists give out cursors onwards only.
    let onwards = cursor.filter(|cursor| cursor.direction == Direction::Next);
    let position = onwards.map(|cursor| cursor.last_id);
    position.ok_or_else(|| {
        ApiError::malformed("cursor is not one that was given out for this list; begin without one")
    })
}

#[cfg(test)]
mod tests;
