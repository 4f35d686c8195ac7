//! Paths with gaps, such as `/orders?user={id}`, and how values of a request fill them.
//!
//! A value stays in its gap: whatever a client writes, it can neither end the segment or the value of the query that it
//! stands in, nor begin another.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::path;

/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const QUERY: &str = "query.";

/// A path and query with gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The value of a parameter of the route's path.
    Parameter(String),
    /// The same, as the segments that it was sent as.
    Rest(String),
    /// The value of a field of the request's query.
    Query(String),
}

/// The parameters of a route's path, and whether each may have slashes.
pub(crate) fn parameters(path: &str) -> Vec<(&str, bool)> {
    let segments = path.split('/');
    let inner = segments.filter_map(|segment| {
        let (_, rest) = segment.split_once('{')?;
        let (name, _) = rest.split_once('}')?;
        Some(name)
    });
    inner
        .map(|name| match name.strip_prefix('*') {
            Some(name) => (name, true),
            None => (name, false),
        })
        .collect()
}

impl Template {
    /// Reads `/orders?user={id}`. `parameters` are those of the route.
    ///
    /// # Errors
    /// What is wrong, to be read after "the path".
    pub(crate) fn new(text: &str, parameters: &[(&str, bool)]) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("must begin with /".into());
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        let mut is_in_query = false;
        while !rest.is_empty() {
            let (before, gap) = match rest.split_once('{') {
                None => (rest, None),
                Some((before, after)) => match after.split_once('}') {
                    None => return Err("has a { without its }".into()),
                    Some((name, after)) => (before, Some((name, after))),
                },
            };
            if before.contains('}') {
                return Err("has a } without its {".into());
            }
            is_in_query = is_in_query || before.contains('?');
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let Some((name, after)) = gap else { break };
            pieces.push(gap_of(name, parameters, is_in_query)?);
            rest = after;
        }
        let template = Self(pieces);
        // What http would take for a fragment it cuts off.
        let is_plain = |target: &PathAndQuery| {
            let query = target.query().unwrap_or_default();
            !query.contains('?') && !text.contains('#')
        };
        match template.fill(|_| "x", |_| "x".into()) {
            Some(target) if is_plain(&target) => Ok(template),
            _ => Err("is no path of a URL, or has a segment . or ..".into()),
        }
    }

    /// The target of a request. `parameter` gives the values of the route's parameters as they were sent; `field` those of the
    /// query. `None`: a value leads elsewhere, or the whole is too long.
    pub(crate) fn fill<'v>(
        &self,
        parameter: impl Fn(&str) -> &'v str,
        field: impl Fn(&str) -> Cow<'v, str>,
    ) -> Option<PathAndQuery> {
        let mut filled = String::new();
        for piece in &self.0 {
            // Writing to a text cannot fail.
            let _ = match piece {
                Piece::Text(text) => filled.write_str(text),
                Piece::Parameter(name) => filled.write_str(&segment(parameter(name))),
                Piece::Rest(name) => {
                    // Those that the client has encoded are none.
                    let segments: Vec<String> = parameter(name).split('/').map(segment).collect();
                    filled.write_str(&segments.join("/"))
                }
                Piece::Query(name) => {
                    let value = field(name);
                    write!(filled, "{}", percent_encode(value.as_bytes(), ENCODED))
                }
            };
        }
        let target = PathAndQuery::try_from(filled).ok()?;
        (!path::leads_elsewhere(target.path())).then_some(target)
    }
}

/// A value that was encoded in some way, as one segment.
fn segment(value: &str) -> String {
    let value: Vec<u8> = percent_decode_str(value).collect();
    percent_encode(&value, ENCODED).to_string()
}

fn gap_of(name: &str, parameters: &[(&str, bool)], is_in_query: bool) -> Result<Piece, String> {
    if let Some(field) = name.strip_prefix(QUERY) {
        return match is_in_query && !field.is_empty() {
            true => Ok(Piece::Query(field.to_owned())),
            false => Err(format!(
                "has {{{name}}}, which must name a field and stand behind a ?"
            )),
        };
    }
    let (bare, has_slashes) = match name.strip_prefix('*') {
        Some(bare) => (bare, true),
        None => (name, false),
    };
    let known = parameters.iter().find(|(known, _)| *known == bare);
    match (known, has_slashes) {
        (Some(_), false) => Ok(Piece::Parameter(bare.to_owned())),
        (Some((_, true)), true) if !is_in_query => Ok(Piece::Rest(bare.to_owned())),
        (Some(_), true) => Err(format!(
            "has {{{name}}}, which stands for several segments; write {{{bare}}}"
        )),
        (None, _) => {
            let known: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
            let known = match known.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", known.join(", ")),
            };
            Err(format!(
                "has {{{name}}}, which is no parameter of the route's path ({known}); fields of the \
                 query are {{query.NAME}}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> Result<Template, String> {
        Template::new(text, &parameters("/overview/{id}/{*rest}"))
    }

    fn filled(text: &str, value: &str) -> Option<String> {
        let template = template(text).expect(text);
        let target = template.fill(|_| value, |_| value.into());
        target.map(|target| target.to_string())
    }

    #[test]
    fn values_fill_the_gaps() {
        let gaps = "/users/{id}/x?a={id}&b={query.page}";
        assert_eq!(
            filled(gaps, "a b").as_deref(),
            Some("/users/a%20b/x?a=a%20b&b=a%20b")
        );
        // What was encoded by the client is not encoded twice.
        assert_eq!(filled("/{id}", "a%2Fb%26").as_deref(), Some("/a%2Fb%26"));
        assert_eq!(
            filled("/{id}", "%252e%252e").as_deref(),
            Some("/%252e%252e")
        );
        assert_eq!(
            filled("/f/{*rest}", "a/b%3Fc").as_deref(),
            Some("/f/a/b%3Fc")
        );
        assert_eq!(filled("/f/{rest}", "a/b").as_deref(), Some("/f/a%2Fb"));
        assert_eq!(
            filled("/f/{*rest}", "a/b%2Fc//d").as_deref(),
            Some("/f/a/b%2Fc//d"),
            "an encoded slash is none"
        );
    }

    #[test]
    fn values_that_lead_elsewhere_are_refused() {
        for value in [
            "..",
            ".",
            "%2e%2E",
            "..%2f..",
            "..%5cx",
            "a%2f..%2fb",
            "..;x",
        ] {
            assert_eq!(filled("/users/{id}", value), None, "{value}");
            let in_query = filled("/users?id={id}", value).expect("it cannot leave the query");
            assert!(in_query.starts_with("/users?id="), "{in_query}");
        }
        assert_eq!(filled("/users/.{id}", "."), None);
        assert_eq!(filled("/f/{*rest}", "a/../b"), None);
        assert_eq!(filled("/{id}", &"%00".repeat(30_000)), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, why) in [
            ("users/{id}", "begin with /"),
            ("/users/{id", "{ without"),
            ("/users/id}", "} without"),
            ("/users/{name}", "no parameter"),
            ("/users/{}", "no parameter"),
            ("/users/{query.page}", "behind a ?"),
            ("/users?a={query.}", "behind a ?"),
            ("/users?a={*rest}", "several segments"),
            ("/users/{*id}", "several segments"),
            ("/a b", "no path"),
            ("/a/../b", "no path"),
            ("/a?b?c", "no path"),
            ("/a#b", "no path"),
        ] {
            let error = template(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = Template::new("/{id}", &[]).expect_err("no parameters");
        assert!(error.contains("it has none"), "{error}");
    }

    proptest! {
        /// Whoever reads the target finds the same segments and fields, and in them the value.
        #[test]
        fn values_do_not_break_out(value in "[ -~\u{e9}\u{4e2d}]{1,20}") {
            let sent = percent_encode(value.as_bytes(), ENCODED).to_string();
            let template = template("/users/{id}/x?a={id}&b={query.q}&c=1").expect("valid");
            if let Some(target) = template.fill(|_| &sent, |_| value.as_str().into()) {
                let segments: Vec<&str> = target.path().split('/').collect();
                prop_assert_eq!((segments.len(), segments[1], segments[3]), (4, "users", "x"));
                let decoded = percent_decode_str(segments[2]).decode_utf8().expect("UTF-8");
                prop_assert_eq!(decoded, value.as_str());
                let query = target.query().expect("a query");
                let fields: Vec<(String, String)> =
                    form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let expected = [("a", value.as_str()), ("b", &value), ("c", "1")];
                let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
                prop_assert_eq!(fields, expected);
            } else {
                prop_assert!(value.contains('.'));
            }
        }

        /// Nothing that can be written in a path makes it fail in another way.
        #[test]
        fn anything_fills_a_gap_or_is_refused(value in "[!-~]{0,40}") {
            let target = filled("/a/{id}", &value);
            prop_assert!(target.is_none_or(|target| target.matches('/').count() == 2));
        }
    }
}
