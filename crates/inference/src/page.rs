//! Pages of a list: by cursor (the name after which the next page begins), by page or by offset.
//!
//! A cursor is the URL-safe base64 (RFC 4648 §5, without padding) of a keyed hash and that name, so
//! that only those given out are taken. The key is made anew by each process.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use auspex_kernel::FieldErrors;
use auspex_kernel::error::shown;

use crate::validate::{Refusal, WHOLE_BODY, refuse};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LIMIT_USUAL: usize = 100;
const LIMITS: RangeInclusive<usize> = 1..=1000;
const PLACE_MAX: usize = 1_000_000_000;
const MAC_BYTES: usize = 12;

const CURSOR: &str = "cursor";
/// What a query may name besides the cursor, with the allowed numbers.
const NUMBERS: [(&str, RangeInclusive<usize>); 4] = [
    ("limit", LIMITS),
    ("page", 1..=PLACE_MAX),
    ("per_page", LIMITS),
    ("offset", 0..=PLACE_MAX),
];

/// Where a page stands in its list, in the form in which it was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Pagination {
    Cursor(CursorPagination),
    Page(PagePagination),
    Offset(OffsetPagination),
}

/// By cursor.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CursorPagination {
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    limit: usize,
    /// Give this as `cursor` for the next page; null on the last one.
    next_cursor: Option<String>,
    links: CursorLinks,
}

/// Relative addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CursorLinks {
    #[serde(rename = "self")]
    own: String,
    next: Option<String>,
    first: String,
}

/// By number of the page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PagePagination {
    /// Entries of the whole list.
    total: usize,
    /// Counted from 1.
    #[schema(minimum = 1)]
    page: usize,
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    per_page: usize,
    total_pages: usize,
    links: PageLinks,
}

/// By number of entries before the page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OffsetPagination {
    /// Entries of the whole list.
    total: usize,
    /// Entries before the page.
    offset: usize,
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    limit: usize,
    links: PageLinks,
}

/// Relative addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageLinks {
    #[serde(rename = "self")]
    own: String,
    first: String,
    last: String,
    prev: Option<String>,
    next: Option<String>,
}

impl Pagination {
    /// The value of the `Link` header (RFC 8288).
    ///
    /// # Panics
    /// Never: addresses are made of our paths, digits and base64.
    pub(crate) fn link_header(&self) -> String {
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
        links.join(", ")
    }
}

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PageQuery {
    Cursor { limit: usize, after: Option<String> },
    Page { page: usize, per_page: usize },
    Offset { offset: usize, limit: usize },
}

impl PageQuery {
    /// From the decoded parameters of a query.
    pub(crate) fn parse(parameters: &[(String, String)]) -> Result<Self, Refusal> {
        let mut errors = FieldErrors::default();
        let mut cursor = None;
        let (mut seen, mut numbers) = ([false; NUMBERS.len()], [None; NUMBERS.len()]);
        for (name, value) in parameters {
            let place = NUMBERS.iter().position(|(known, _)| known == name);
            match place {
                // Empty is absent.
                None if name == CURSOR && value.is_empty() => {}
                None if name == CURSOR => {
                    if cursor.replace(value).is_some() {
                        errors.add(name, "is given more than once");
                    }
                }
                None => errors.add(shown(name), "is not a parameter of this list"),
                Some(place) if std::mem::replace(&mut seen[place], true) => {
                    errors.add(name, "is given more than once");
                }
                Some(place) => {
                    let range = &NUMBERS[place].1;
                    let number = value.parse().ok().filter(|number| range.contains(number));
                    numbers[place] = number.filter(|_| !value.starts_with('+'));
                    if numbers[place].is_none() {
                        let (low, high) = (range.start(), range.end());
                        let message = format_args!("must be an integer between {low} and {high}");
                        errors.add(name, message);
                    }
                }
            }
        }
        let [has_limit, has_page, has_per_page, has_offset] = seen;
        let by_page = has_page || has_per_page;
        let mut alone = |given: bool, name: &str, other: &str| {
            if given {
                errors.add(name, format_args!("does not go together with {other}"));
            }
        };
        alone(by_page && has_limit, "limit", "page and per_page");
        alone(by_page && has_offset, "offset", "page and per_page");
        alone(by_page && cursor.is_some(), CURSOR, "page and per_page");
        alone(!by_page && has_offset && cursor.is_some(), CURSOR, "offset");
        refuse(errors).map_err(of_query)?;
        let [limit, page, per_page, offset] = numbers;
        let limit = limit.unwrap_or(LIMIT_USUAL);
        if by_page {
            return Ok(Self::Page {
                page: page.unwrap_or(1),
                per_page: per_page.unwrap_or(LIMIT_USUAL),
            });
        }
        if let Some(offset) = offset {
            return Ok(Self::Offset { offset, limit });
        }
        let foreign = || {
            let message = "cursor is not one that was given out; begin without one";
            Refusal::Malformed(message.into())
        };
        let after = cursor.map(|cursor| decode(cursor).ok_or_else(foreign));
        Ok(Self::Cursor {
            limit,
            after: after.transpose()?,
        })
    }

    /// The entries of this page out of all, which are sorted by name.
    pub(crate) fn cut<'a, T>(
        &self,
        path: &str,
        all: &'a [T],
        name: impl Fn(&T) -> &str,
    ) -> (&'a [T], Pagination) {
        let total = all.len();
        let slice = |begin: usize, count: usize| {
            let begin = begin.min(total);
            &all[begin..(begin + count).min(total)]
        };
        match self {
            Self::Cursor { limit, after } => {
                let after = after.as_deref();
                let begin =
                    after.map_or(0, |after| all.partition_point(|entry| name(entry) <= after));
                let page = slice(begin, *limit);
                let link = |cursor: Option<&str>| match cursor {
                    Some(cursor) => format!("{path}?limit={limit}&cursor={cursor}"),
                    None => format!("{path}?limit={limit}"),
                };
                let last = page.last().filter(|_| begin + page.len() < total);
                let next_cursor = last.map(|entry| encode(name(entry)));
                let links = CursorLinks {
                    own: link(after.map(encode).as_deref()),
                    next: next_cursor.as_deref().map(|cursor| link(Some(cursor))),
                    first: link(None),
                };
                let pagination = Pagination::Cursor(CursorPagination {
                    limit: *limit,
                    next_cursor,
                    links,
                });
                (page, pagination)
            }
            &Self::Page { page, per_page } => {
                let total_pages = total.div_ceil(per_page);
                let last = total_pages.max(1);
                let link = |page: usize| format!("{path}?page={page}&per_page={per_page}");
                let links = PageLinks {
                    own: link(page),
                    first: link(1),
                    last: link(last),
                    prev: (page > 1).then(|| link((page - 1).min(last))),
                    next: (page < last).then(|| link(page + 1)),
                };
                let pagination = Pagination::Page(PagePagination {
                    total,
                    page,
                    per_page,
                    total_pages,
                    links,
                });
                (
                    slice((page - 1).saturating_mul(per_page), per_page),
                    pagination,
                )
            }
            &Self::Offset { offset, limit } => {
                let last = total.saturating_sub(1) / limit * limit;
                let link = |offset: usize| format!("{path}?offset={offset}&limit={limit}");
                let links = PageLinks {
                    own: link(offset),
                    first: link(0),
                    last: link(last),
                    prev: (offset > 0).then(|| link(offset.saturating_sub(limit).min(last))),
                    next: (offset + limit < total).then(|| link(offset + limit)),
                };
                let pagination = Pagination::Offset(OffsetPagination {
                    total,
                    offset,
                    limit,
                    links,
                });
                (slice(offset, limit), pagination)
            }
        }
    }
}

/// There is no body here.
fn of_query(mut refusal: Refusal) -> Refusal {
    if let Refusal::Invalid(errors) = &mut refusal {
        for error in errors.iter_mut().filter(|error| error.field == WHOLE_BODY) {
            error.field = "(query)".into();
        }
    }
    refusal
}

/// SHA-256 over key, name and key, cut short.
///
/// The key around the name keeps a hash from being extended. Its comparison need not take constant
/// time: a forged cursor shows nothing that the list does not, it is just not ours.
fn mac(name: &str) -> [u8; MAC_BYTES] {
    static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has random bytes");
        key
    });
    let mut hash = Sha256::new();
    hash.update(*KEY);
    hash.update(name);
    hash.update(*KEY);
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&hash.finalize()[..MAC_BYTES]);
    mac
}

fn encode(name: &str) -> String {
    let mut bytes = mac(name).to_vec();
    bytes.extend(name.as_bytes());
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for place in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize].into());
        }
    }
    text
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for (place, letter) in chunk.iter().enumerate() {
            let digit = ALPHABET.iter().position(|known| known == letter)? as u32;
            bits |= digit << (18 - 6 * place);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len().max(1)]);
    }
    let name = std::str::from_utf8(bytes.get(MAC_BYTES..)?).ok()?;
    (encode(name) == text).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn query(text: &str) -> Result<PageQuery, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let owned: Vec<_> = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        PageQuery::parse(&owned)
    }

    const ALL: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn page(text: &str) -> (String, serde_json::Value) {
        let query = query(text).expect("a good query");
        let (entries, pagination) = query.cut("/x", &ALL, |name| name);
        let pagination = serde_json::to_value(&pagination).expect("JSON");
        (entries.concat(), pagination)
    }

    #[test]
    fn pages_follow_each_other_to_the_end_in_every_form() {
        for begin in ["limit=2&cursor=", "per_page=2", "offset=0&limit=2"] {
            let (mut seen, mut next) = (String::new(), Some(begin.to_owned()));
            while let Some(query) = next {
                let (entries, pagination) = page(&query);
                seen += &entries;
                let link = pagination["links"]["next"].as_str();
                next = link.map(|link| link.strip_prefix("/x?").expect("the path").to_owned());
            }
            assert_eq!(seen, ALL.concat(), "{begin}");
        }
    }

    #[test]
    fn pages_and_offsets_say_where_they_stand() {
        let (entries, pagination) = page("page=2&per_page=2");
        let links = json!({
            "self": "/x?page=2&per_page=2", "first": "/x?page=1&per_page=2",
            "last": "/x?page=3&per_page=2", "prev": "/x?page=1&per_page=2",
            "next": "/x?page=3&per_page=2",
        });
        let expected =
            json!({"total": 5, "page": 2, "per_page": 2, "total_pages": 3, "links": links});
        assert_eq!((entries.as_str(), pagination), ("cd", expected));
        let (entries, pagination) = page("offset=1&limit=3");
        let links = json!({
            "self": "/x?offset=1&limit=3", "first": "/x?offset=0&limit=3",
            "last": "/x?offset=3&limit=3", "prev": "/x?offset=0&limit=3",
            "next": "/x?offset=4&limit=3",
        });
        let expected = json!({"total": 5, "offset": 1, "limit": 3, "links": links});
        assert_eq!((entries.as_str(), pagination), ("bcd", expected));
        for beyond in ["page=1000000000&per_page=1000", "offset=1000000000"] {
            let (entries, pagination) = page(beyond);
            assert_eq!(
                (entries.as_str(), &pagination["links"]["next"]),
                ("", &json!(null))
            );
            assert_eq!(pagination["links"]["prev"], pagination["links"]["last"]);
        }
    }

    #[test]
    fn bad_queries_are_refused_by_name() {
        assert!(matches!(
            query("cursor=nonsense"),
            Err(Refusal::Malformed(_))
        ));
        for (text, names) in [
            ("limit=0", "limit"),
            ("limit=1001&page=1", "limit limit"),
            ("limit=ten", "limit"),
            ("limit=", "limit"),
            ("limit=-1", "limit"),
            ("limit=+1", "limit"),
            ("page=0&per_page=1001", "page per_page"),
            ("offset=1000000001", "offset"),
            ("limit=1&limit=2", "limit"),
            ("cursor=a&cursor=b", "cursor"),
            ("sort=name&limit=1&filter=x", "sort filter"),
            ("page=1&limit=1&offset=0&cursor=a", "limit offset cursor"),
            ("offset=1&cursor=a", "cursor"),
        ] {
            let Err(Refusal::Invalid(errors)) = query(text) else {
                panic!("{text} is taken");
            };
            let found: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(found.join(" "), names, "{text}");
        }
        let Err(Refusal::Invalid(errors)) = query(&"x&".repeat(200)) else {
            panic!("taken");
        };
        assert_eq!((errors.len(), errors[99].field.as_str()), (100, "(query)"));
    }

    proptest! {
        #[test]
        fn cursors_come_back_and_changed_ones_do_not(name in "[ -~]{1,20}", at in 0usize..40) {
            let cursor = encode(&name);
            prop_assert_eq!(decode(&cursor), Some(name));
            let at = at % cursor.len();
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            prop_assert_eq!(decode(std::str::from_utf8(&changed).expect("ASCII")), None);
        }
    }
}
