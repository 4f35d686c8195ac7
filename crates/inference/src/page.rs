//! Pages of a list by cursor: the name after which the next page begins.
//!
//! A cursor is the URL-safe base64 (RFC 4648 §5, without padding) of a CRC-32 and that name, so
//! that one which was cut or changed is noticed.

use serde::Serialize;
use utoipa::ToSchema;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const LIMIT_MAX: usize = 1000;
const LIMIT_USUAL: usize = 100;

/// Where a page stands in its list.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Pagination {
    /// The most entries a page has.
    #[schema(minimum = 1, maximum = 1000)]
    pub(crate) limit: usize,
    /// Give this as `cursor` for the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
    /// Relative addresses.
    pub(crate) links: Links,
}

#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Links {
    #[serde(rename = "self")]
    own: String,
    pub(crate) next: Option<String>,
    first: String,
}

/// What the query asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageQuery {
    limit: usize,
    cursor: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PageError {
    /// This parameter must be that.
    Parameter(String, &'static str),
    /// The cursor is none of ours.
    Cursor,
}

impl PageQuery {
    /// From the decoded parameters of a query.
    pub(crate) fn parse(parameters: &[(String, String)]) -> Result<Self, PageError> {
        let (mut limit, mut cursor) = (None, None);
        for (name, value) in parameters {
            let refuse = |message| Err(PageError::Parameter(name.clone(), message));
            match name.as_str() {
                "limit" if limit.is_some() => return refuse("is given more than once"),
                "cursor" if cursor.is_some() => return refuse("is given more than once"),
                "limit" => match value.parse() {
                    Ok(number @ 1..=LIMIT_MAX) if !value.starts_with('+') => limit = Some(number),
                    _ => return refuse("must be an integer between 1 and 1000"),
                },
                "cursor" => cursor = Some(decode(value).ok_or(PageError::Cursor)?),
                _ => {}
            }
        }
        Ok(Self {
            limit: limit.unwrap_or(LIMIT_USUAL),
            cursor,
        })
    }

    /// The entries of this page out of all, which are sorted by name.
    pub(crate) fn cut<'a, T>(
        &self,
        path: &str,
        all: &'a [T],
        name: impl Fn(&T) -> &str,
    ) -> (&'a [T], Pagination) {
        let after = self.cursor.as_deref();
        let begin = after.map_or(0, |after| all.partition_point(|entry| name(entry) <= after));
        let end = (begin + self.limit).min(all.len());
        let limit = self.limit;
        let link = |cursor: Option<&str>| match cursor {
            Some(cursor) => format!("{path}?limit={limit}&cursor={cursor}"),
            None => format!("{path}?limit={limit}"),
        };
        let next_cursor = (end < all.len()).then(|| encode(name(&all[end - 1])));
        let links = Links {
            own: link(after.map(encode).as_deref()),
            next: next_cursor.as_deref().map(|cursor| link(Some(cursor))),
            first: link(None),
        };
        (
            &all[begin..end],
            Pagination {
                limit,
                next_cursor,
                links,
            },
        )
    }
}

fn encode(name: &str) -> String {
    let mut bytes = crc32fast::hash(name.as_bytes()).to_be_bytes().to_vec();
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
    let (sum, name) = bytes.split_at_checked(4)?;
    let name = std::str::from_utf8(name).ok()?;
    (encode(name) == text && sum == crc32fast::hash(name.as_bytes()).to_be_bytes())
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn query(parameters: &[(&str, &str)]) -> Result<PageQuery, PageError> {
        let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        PageQuery::parse(&parameters.iter().map(owned).collect::<Vec<_>>())
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let all = ["a", "b", "c", "d", "e"];
        let (mut seen, mut cursor): (Vec<&str>, Option<String>) = (Vec::new(), None);
        loop {
            let mut parameters = vec![("limit", "2")];
            parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = query(&parameters).expect("a good query");
            let (entries, pagination) = page.cut("/x", &all, |name| name);
            seen.extend(entries);
            match pagination.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn bad_queries_are_refused() {
        assert_eq!(query(&[("cursor", "nonsense")]), Err(PageError::Cursor));
        assert_eq!(query(&[("cursor", "")]), Err(PageError::Cursor));
        for limit in ["0", "1001", "ten", "", "-1", "+1"] {
            assert!(
                matches!(query(&[("limit", limit)]), Err(PageError::Parameter(..))),
                "{limit}"
            );
        }
        assert!(query(&[("limit", "1"), ("limit", "2")]).is_err());
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
