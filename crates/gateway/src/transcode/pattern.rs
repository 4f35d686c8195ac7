//! Path templates of `google.api.http`, such as `/v1/{name=shelves/*/books/*}:read`, and which paths fit them.

use percent_encoding::percent_decode_str;

/// A field, and what a path holds for it.
pub(super) type PathValue<'p> = (&'p str, String);

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Segment>,
    /// What stands behind the last colon.
    verb: Option<String>,
    variables: Vec<Variable>,
}

/// In the order in which they are tried: what is more special comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`, at the end: any number of segments, none too.
    All,
}

/// Segments whose text is the value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Variable {
    field: String,
    first: usize,
    /// Of segments of the template.
    count: usize,
    /// A slash that was encoded stays so, for others are in the value.
    has_slashes: bool,
}

impl Pattern {
    /// # Errors
    /// What is wrong with the template.
    pub(super) fn new(template: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("its path {template:?} {why}");
        let rest = template.strip_prefix('/');
        let rest = rest.ok_or_else(|| wrong("does not begin with /"))?;
        let end = rest.rfind('}').map_or(0, |at| at + 1);
        let (path, verb) = match rest[end..].rfind(':') {
            Some(colon) => {
                let (path, verb) = rest.split_at(end + colon);
                (path, Some(verb[1..].to_owned()))
            }
            None => (rest, None),
        };
        if verb.as_deref().is_some_and(|verb| !is_literal(verb)) {
            return Err(wrong("has a verb that is none"));
        }
        let mut pattern = Self {
            segments: Vec::new(),
            verb,
            variables: Vec::new(),
        };
        for piece in pieces(path) {
            let inner = piece
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            let Some(inner) = inner else {
                pattern
                    .segments
                    .push(segment(piece).ok_or_else(|| wrong("has a segment that is none"))?);
                continue;
            };
            let (field, template) = inner.split_once('=').unwrap_or((inner, "*"));
            let segments: Option<Vec<Segment>> = template.split('/').map(segment).collect();
            let segments = segments.ok_or_else(|| wrong("has a variable that is none"))?;
            if field.is_empty() || pattern.variables.iter().any(|one| one.field == field) {
                return Err(wrong("has a variable without a name or twice"));
            }
            pattern.variables.push(Variable {
                field: field.to_owned(),
                first: pattern.segments.len(),
                count: segments.len(),
                has_slashes: segments.len() > 1 || segments.contains(&Segment::All),
            });
            pattern.segments.extend(segments);
        }
        let before = pattern.segments.len().saturating_sub(1);
        if pattern.segments[..before].contains(&Segment::All) {
            return Err(wrong("has ** before its end"));
        }
        Ok(pattern)
    }

    /// Its fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.variables
            .iter()
            .map(|variable| variable.field.as_str())
    }

    /// What decides which of two templates is tried first.
    pub(super) fn rank(&self) -> impl Ord + use<'_> {
        (self.verb.is_none(), &self.segments, &self.verb)
    }

    /// The values of its fields in a path that fits it; as it was sent, with `/` at the begin.
    pub(super) fn values(&self, path: &str) -> Option<Vec<PathValue<'_>>> {
        let path = path.strip_prefix('/')?;
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (fixed, is_open) = match self.segments.split_last() {
            Some((Segment::All, before)) => (before, true),
            _ => (&self.segments[..], false),
        };
        // A path without segments has one that is empty.
        let count = if path.is_empty() { 0 } else { parts.len() };
        let fits = |(segment, part): (&Segment, &&str)| match segment {
            Segment::Literal(text) => is_same(text, part),
            Segment::One => !part.is_empty(),
            Segment::All => true,
        };
        let has_length = match is_open {
            true => count >= fixed.len(),
            false => count == fixed.len(),
        };
        if !has_length || !fixed.iter().zip(&parts).all(fits) {
            return None;
        }
        let values = self.variables.iter().map(|variable| {
            let end = match variable.first + variable.count {
                end if is_open && end == self.segments.len() => count,
                end => end,
            };
            let text = parts[variable.first..end.max(variable.first)].join("/");
            let text = match variable.has_slashes {
                // Decoded it could not be told from those between segments.
                true => text.replace("%2F", "%252F").replace("%2f", "%252f"),
                false => text,
            };
            let value = percent_decode_str(&text).decode_utf8().ok()?;
            Some((variable.field.as_str(), value.into_owned()))
        });
        values.collect()
    }
}

/// Splits at slashes that are not in a variable.
fn pieces(path: &str) -> Vec<&str> {
    let mut is_inside = false;
    let split = path.split(|c| {
        match c {
            '{' => is_inside = true,
            '}' => is_inside = false,
            _ => {}
        }
        c == '/' && !is_inside
    });
    split.collect()
}

fn segment(text: &str) -> Option<Segment> {
    match text {
        "*" => Some(Segment::One),
        "**" => Some(Segment::All),
        text => is_literal(text).then(|| Segment::Literal(text.to_owned())),
    }
}

fn is_literal(text: &str) -> bool {
    !text.is_empty() && !text.contains(['{', '}', '*', '/', '=']) && text.is_ascii()
}

/// Whether a segment as it was sent is that literal.
fn is_same(literal: &str, sent: &str) -> bool {
    literal == sent || percent_decode_str(sent).eq(percent_decode_str(literal))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let pattern = Pattern::new(template).expect(template);
        let values = pattern.values(path)?.into_iter();
        Some(
            values
                .map(|(field, value)| (field.to_owned(), value))
                .collect(),
        )
    }

    fn one(template: &str, path: &str) -> Option<String> {
        let mut values = values(template, path)?;
        assert_eq!(values.len(), 1);
        values.pop().map(|(_, value)| value)
    }

    #[test]
    fn paths_fit_their_templates() {
        assert_eq!(values("/v1/users", "/v1/users"), Some(vec![]));
        assert_eq!(values("/v1/users", "/v1/use%72s"), Some(vec![]));
        assert_eq!(one("/v1/{id}", "/v1/a%2Fb%20c").as_deref(), Some("a/b c"));
        let shelf = "/v1/{name=shelves/*/books/*}";
        let name = "shelves/a/books/b";
        assert_eq!(one(shelf, &format!("/v1/{name}")).as_deref(), Some(name));
        assert_eq!(
            one("/v1/{name=**}", "/v1/a/b%2Fc").as_deref(),
            Some("a/b%2Fc")
        );
        assert_eq!(one("/v1/{name=**}", "/v1/a%20b/").as_deref(), Some("a b/"));
        assert_eq!(one("/v1/{a.b}:run", "/v1/x:y:run").as_deref(), Some("x:y"));
        assert_eq!(values("/v1/*/x", "/v1/anything/x"), Some(vec![]));
        let two = values("/v1/{a}/x/{b=*}", "/v1/1/x/2").expect("fits");
        assert_eq!(two, [("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert_eq!(values("/**", "/"), Some(vec![]));
        for (template, path) in [
            ("/v1/users", "/v1/users/"),
            ("/v1/users", "/v1/user"),
            ("/v1/users", "v1/users"),
            ("/v1/{id}", "/v1/"),
            ("/v1/{id}", "/v1/a/b"),
            (shelf, "/v1/shelves/a/books"),
            ("/v1/{id}:run", "/v1/a"),
            ("/v1/{id}:run", "/v1/a:stop"),
            ("/v1/{id}", "/v1/%ff"),
        ] {
            assert_eq!(values(template, path), None, "{template} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in [
            "v1",
            "",
            "/",
            "/v1/",
            "/v1//a",
            "/v1/{}",
            "/v1/{a",
            "/v1/a}",
            "/v1/{a=}",
            "/v1/{a}/{a}",
            "/v1/**/a",
            "/v1/{a=**}/b",
            "/v1/a*",
            "/v1/{a={b}}",
            "/v1/a:",
            "/v1/é",
        ] {
            let error = Pattern::new(template).expect_err(template);
            assert!(error.contains(&format!("{template:?}")), "{error}");
        }
    }

    #[test]
    fn the_more_special_template_is_tried_first() {
        let mut templates = ["/v1/**", "/v1/{id}", "/v1/{id}:run", "/v1/users"];
        templates.sort_by(|a, b| {
            let [a, b] = [a, b].map(|template| Pattern::new(template).expect("valid"));
            a.rank().cmp(&b.rank())
        });
        assert_eq!(
            templates,
            ["/v1/{id}:run", "/v1/users", "/v1/{id}", "/v1/**"]
        );
    }

    proptest! {
        #[test]
        fn any_template_and_path_are_read(template in "/[a-z{}=*:/.]{0,20}", path in "[!-~]{0,30}") {
            if let Ok(pattern) = Pattern::new(&template) {
                pattern.values(&path);
            }
        }
    }
}
